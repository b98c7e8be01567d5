# SPDX-License-Identifier: BSD-2-Clause
"""The host: where things are, programs of the laboratory, and whether KVM works here."""
import functools
import os
import pathlib
import subprocess
import tempfile
import time

LAB = pathlib.Path(__file__).resolve().parent.parent
TOP = LAB.parent.parent
CACHE = pathlib.Path(os.environ.get("PINTLE_CACHE") or TOP / ".cache").resolve()

# Only a hung machine is ended by these, in seconds. Emulated guests on a busy machine are slow.
BOOT_LIMIT = 300
COMMAND_LIMIT = 300
KVM_LIMIT = 30
# A kernel that really runs has said something by then.
KVM_SILENCE = 6

for directory in ("/usr/local/sbin", "/usr/sbin", "/sbin"):
    if directory not in os.environ["PATH"].split(":"):
        os.environ["PATH"] += ":" + directory


class LabError(Exception):
    """Something a person has to look at; its text says what was being done."""


def run(*command, **options):
    """Run a program of the host; its own words are part of the error."""
    options.setdefault("check", False)
    result = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    if result.returncode != 0:
        raise LabError(f"{' '.join(str(word) for word in command)} failed ({result.returncode}):\n{result.stdout.strip()}")
    return result.stdout


def fetch(script, *arguments):
    """Run one of the get-* scripts, which tells its progress on stderr and what it made on stdout."""
    result = subprocess.run([LAB / script, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise LabError(f"{script} {' '.join(arguments)} failed; it says why above")
    return result.stdout.strip()


@functools.cache
def qemu(program="x86_64"):
    """The command of a QEMU that has vfio-user-pci, as a list."""
    return fetch("get-qemu", program).split()


@functools.cache
def guest_folder(suite, architecture="amd64"):
    return pathlib.Path(fetch("get-guest", suite, architecture))


@functools.cache
def accelerator():
    """'kvm' where a guest kernel really starts under it, else 'tcg'. The answer holds until this machine reboots."""
    wanted = os.environ.get("PINTLE_LAB_ACCEL")
    if wanted:
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    remembered = CACHE / "accelerator"
    if remembered.exists() and remembered.read_text().split()[0] == boot:
        return remembered.read_text().split()[1]
    answer = "kvm" if _kernel_starts_under_kvm() else "tcg"
    remembered.write_text(f"{boot} {answer}\n")
    return answer


def _kernel_starts_under_kvm():
    """Start a kernel without any root file system, and see whether it gets as far as missing it."""
    kernel = guest_folder("bookworm") / "vmlinuz"
    with tempfile.TemporaryDirectory() as folder:
        console = pathlib.Path(folder) / "console"
        process = subprocess.Popen(
            [*qemu(), "-accel", "kvm", "-M", "q35", "-cpu", "host", "-smp", "2", "-m", "256M", "-nodefaults",
             "-display", "none", "-no-reboot", "-serial", f"file:{console}", "-kernel", kernel,
             "-append", "console=ttyS0 panic=-1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            begin = time.monotonic()
            while process.poll() is None and time.monotonic() < begin + KVM_LIMIT:
                said = console.read_bytes() if console.exists() else b""
                if b"VFS: Unable to mount root" in said:
                    return True
                if not said and time.monotonic() > begin + KVM_SILENCE:
                    return False
                time.sleep(0.05)
            return console.exists() and b"VFS: Unable to mount root" in console.read_bytes()
        finally:
            process.kill()
            process.wait()
