# SPDX-License-Identifier: BSD-2-Clause
"""The demonstration that ./demo runs: a real guest on a served disk, lifecycle events under I/O, everything verified."""
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

from kit import disk, host, server  # noqa: E402
from kit.guest import Guest  # noqa: E402

SUITE = "bookworm"
FOLDER = host.CACHE / "demo"
TIMES_OFF = 10
THREADS = 8


class Report:
    """The steps, shown while they run and listed at the end."""

    def __init__(self):
        self.steps = []
        self.terminal = sys.stdout.isatty()

    def _ticker(self, text, begin, done):
        # A terminal sees the seconds go by; a log file gets a word now and then.
        while not done.wait(1 if self.terminal else 15):
            seconds = int(time.monotonic() - begin)
            if self.terminal:
                print(f"\r  {text} ... {seconds} s", end="", flush=True)
            else:
                print(f"    still at it after {seconds} s", flush=True)

    @contextlib.contextmanager
    def step(self, text):
        """Yields a list for what the step wants to be said of it."""
        begin, done, words = time.monotonic(), threading.Event(), []
        print(f"  {text} ...", end="" if self.terminal else "\n", flush=True)
        ticker = threading.Thread(target=self._ticker, args=(text, begin, done), daemon=True)
        ticker.start()
        try:
            yield words
        except BaseException:
            if self.terminal:
                print(f"\r  {text} ... FAILED\033[K", flush=True)
            raise
        finally:
            done.set()
            ticker.join()
        seconds = time.monotonic() - begin
        self.steps.append((text, seconds, words))
        end = f"{', '.join(words) or 'done'} ({seconds:.1f} s)"
        print(f"\r  {text} ... {end}\033[K" if self.terminal else f"    {end}", flush=True)

    def seconds(self):
        return sum(seconds for _, seconds, _ in self.steps)


def build(report):
    if os.environ.get("PINTLE_LAB_SERVER") == "qemu" or os.environ.get("PINTLE_BUILD"):
        return
    with report.step("building pintle (release)"):
        host.run("make", "-C", host.TOP, env={**os.environ, "MAKEFLAGS": ""})


def prepare(report):
    with report.step("finding a QEMU with vfio-user-pci") as words:
        words.append(host.run(*host.qemu(), "--version").split(" (")[0].split("\n")[0])
    with report.step("getting a stock Debian 12 kernel for the guest") as words:
        words.append((host.guest_folder(SUITE) / "version").read_text().strip())
    with report.step("trying whether KVM works on this machine") as words:
        words.append("it does" if host.accelerator() == "kvm" else "it does not: the guest's CPUs are emulated")
    with report.step("making an ext4 disk image with known contents") as words:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        image = disk.root_copy(FOLDER / "disk.img", SUITE)
        words.append(f"{image.stat().st_size >> 20} MB")
    return image


def verify_known(guest):
    names = guest.run("cd /known && sha256sum -c SHA256SUMS").splitlines()
    return f"{len(names)} files have the right SHA-256 sums"


def events(report, guest):
    with report.step("writing from the guest and syncing"):
        guest.run("iocheck stamp /data/stamped 16 7")
        guest.run("cp /known/file-08 /data/copy && sync")
    with report.step(f"switching bus master off and on {TIMES_OFF} times, with {THREADS} requests in flight") as words:
        address = guest.pci_address()
        guest.busy("/data/busy", threads=THREADS)
        words.append(guest.run(f"busmaster {address} vda {TIMES_OFF} 200 {2 * THREADS + 8}").strip().split(": ", 2)[2])
        words.append(guest.calm().splitlines()[-1].split(": ", 2)[2])
    with report.step("rebooting the guest") as words:
        guest.reboot()
        words.append("up again")
    with report.step("verifying what was written before the reboot") as words:
        guest.run("iocheck compare /data/stamped 16 7")
        guest.run("cmp /known/file-08 /data/copy")
        words.append(verify_known(guest))


def close(report, guest, pintle, image):
    with report.step("powering the guest off, ending the server"):
        trouble = guest.kernel_trouble()
        if trouble:
            raise host.LabError("the guest's kernel complained:\n" + "\n".join(trouble))
        guest.power_off()
        pintle.stop()
    with report.step("checking the image with e2fsck on the host") as words:
        disk.check(image)
        words.append("clean")


def conclude(report, accelerator):
    print(f"""
What was shown
  A virtual machine of QEMU booted an unmodified Debian kernel, with its root file system on a disk that the
  pintle process served from outside QEMU, over vfio-user. All data was verified, inside the guest by checksum
  and sector by sector, and on the host by e2fsck.

Which lifecycle events happened
  - the firmware looked at the disk and left it; the kernel's driver took it over
  - bus master was switched off and on {TIMES_OFF} times under I/O: while it was off the disk stood still; afterwards
    all requests went on to their end, and what they had written and read was right
  - the guest rebooted: the device was reset, and driven again from the start
  - the guest powered off, the client's connection ended, and the server ended on SIGTERM without complaint

How long it took ({'KVM' if accelerator == 'kvm' else 'emulated CPUs'}; a second run fetches and builds nothing again)""")
    for text, seconds, _ in report.steps:
        print(f"  {seconds:7.1f} s  {text}")
    print(f"  {report.seconds():7.1f} s  in all")
    print(f"\nThe logs and the disk are in {FOLDER}. './demo --shell' gives you the guest's console.")


def demonstrate(report):
    build(report)
    image = prepare(report)
    guest = None
    pintle = None
    try:
        with report.step("serving the disk"):
            pintle = server.server(FOLDER, "d0", image)
        guest = Guest(FOLDER, [pintle], SUITE)
        with report.step("booting the guest from it") as words:
            guest.start().wait_ready()
            words.append("Linux " + guest.run("uname -r").strip())
        with report.step("verifying the known contents in the guest") as words:
            words.append(verify_known(guest))
        events(report, guest)
        close(report, guest, pintle, image)
    finally:
        if guest:
            guest.kill()
        if pintle:
            pintle.kill()
    conclude(report, host.accelerator())


def hand_over(report):
    if not sys.stdin.isatty():
        raise host.LabError("--shell needs a terminal")
    build(report)
    image = prepare(report)
    with report.step("serving the disk"):
        pintle = server.server(FOLDER, "d0", image)
    try:
        print("\nThe guest's console follows (Control-A X ends QEMU, 'exit' the guest).\n", flush=True)
        Guest(FOLDER, [pintle], SUITE).interactive()
        pintle.stop()
    finally:
        pintle.kill()


def main():
    print("Pintle's demonstration")
    report = Report()
    try:
        (hand_over if "--shell" in sys.argv[1:] else demonstrate)(report)
    except host.LabError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
