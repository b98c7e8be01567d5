# SPDX-License-Identifier: BSD-2-Clause
"""pseries guests: SLOF, GRUB and a stock Debian kernel, all from the disk that is served; and the two founding cases that were seen on
such machines.

Every DMA goes through the machine's IOMMU, whose entries the firmware, and later the kernel, make and take back. MSI-X tables are written through the
region, so that masks count here. Except where failure is the point, each test closes with lab.finish().
"""
import pathlib
import re
import time

import pytest

from kit import cells, disk, events, host, server, slof
from kit.pseries import DirectGuest, PseriesGuest

SUITE = "trixie"
# So long that a queue is polled from one request of the firmware to whatever it does next.
POLLED = ",poll=1s"


def serve(lab, name, image, options="", program=None, **environment):
    """A server that tells of each change of status and gate; program: another build than the one under test."""
    one = server.PintleServer(lab.folder, name, image, options)
    one.command.append("--verbose")
    if program:
        one.command[0] = program
    one.environment = environment
    lab.servers.append(one)
    return one.start()


def boot_disk(lab, options="", name="d0", whole=True, **more):
    image = slof.boot_disk(lab.folder / f"{name}.img", SUITE)
    if whole:
        lab.roots.append(image)
    return serve(lab, name, image, options, **more)


def with_mutations():
    """A build that has them: the one under test, or the one beside the sources that ./check makes for its other tests."""
    for folder in (server.build_folder(), host.TOP / "build-debug"):
        program = folder / "pintle"
        if program.exists() and b"law1.blind" in program.read_bytes():
            return program
    pytest.skip("no build with mutations is there: meson setup -Dmutations=true build-debug, ninja -C build-debug")


def said(one, pattern):
    return [line for line in one.words().splitlines() if re.search(pattern, line)]


def wait_until(guest, what, condition):
    end = time.monotonic() + host.BOOT_LIMIT
    while not condition():
        if guest.process.poll() is not None or time.monotonic() > end:
            guest.fail(what)
        time.sleep(0.05)


def gate_master_changes(one):
    """Bus master going on and off, as the gate has followed it; off to begin with."""
    now, changes = False, []
    for line in said(one, r": gate: "):
        if ("no-bus-master" not in line) != now:
            now = not now
            changes.append(now)
    return changes


def lives(one):
    """The lines about status and gate from each DRIVER_OK to the reset that ends it."""
    found = []
    for line in said(one, r": (gate: |status |virtio-reset$|device-reset$)"):
        words = line.split(": ", 3)[3]
        if words == "status 0xf":
            found.append([])
        elif found and words.endswith("-reset"):
            found[-1].append("end")
        elif found and "end" not in found[-1]:
            found[-1].append(words)
    return found


def io_threads(one):
    """Processor time of the server's I/O threads, in ns, by thread."""
    tasks = pathlib.Path(f"/proc/{one.process.pid}/task")
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()
            if re.fullmatch(r"io\d+", (task / "comm").read_text().strip())}


def memory_decode(guest, disk):
    """Off and on while nobody has anything to say to the disk, so that no access is left unanswered."""
    with cells.cell("memory-decode", guest.describe()):
        job, address = guest.busy(f"/dev/{disk}", megabytes=4), guest.pci_address(disk)
        still = f"[ $(cat /sys/block/{disk}/inflight | tr -d ' ') = 00 ] || quiet=0; usleep 10000"
        for _ in range(3):
            guest.run(f"kill -STOP $job{job}; quiet=0; until [ $quiet = 10 ]; do quiet=$((quiet + 1)); {still}; done; "
                      f"pciset {address} command 0:2; usleep 100000; pciset {address} command 2:2; kill -CONT $job{job}")
            events.goes_on(guest, disk)
        guest.calm(job)
        events.healthy(guest)


def known_contents(guest):
    answers = guest.run("cd /known && sha256sum -c SHA256SUMS").splitlines()
    assert len(answers) == 49 and all(line.endswith(": OK") for line in answers)


def booted_from_disk(guest, times):
    """That often firmware, loader and kernel came from the served disk."""
    said_there = guest.console.read_text(errors="replace")
    for words in ("GRUB: loaded by SLOF", "GRUB: starting Linux", "mounted filesystem"):
        assert said_there.count(words) == times, f"'{words}' was said {said_there.count(words)} times"
    assert guest.run("grep ' / ext4' /proc/mounts").startswith("/dev/vda")
    known_contents(guest)


def test_life(lab):
    """Boot, one event after the other, and a new start through the firmware."""
    boot, data = boot_disk(lab), lab.data_disk(32)
    with cells.cell("firmware-boot", "pseries SLOF"):
        guest = lab.guest(SUITE, [boot, data], PseriesGuest)
        booted_from_disk(guest, 1)
    assert guest.run("uname -m").strip() == "ppc64le"
    threads = io_threads(boot)
    assert len(threads) == 1
    # What the driver set stands, and stood through everything that the kernel did.
    assert lives(boot)[-1] == ["gate: open"]

    assert guest.machine_checks() == 0
    # In D3hot no BAR answers, and the driver's notifications are machine checks here; what they were for is found in D0.
    events.happen(guest, "d3hot", "vdb")
    unanswered = guest.machine_checks()
    for name in ("bus-master", "bist", "irq-affinity", "stop-cont"):
        events.happen(guest, name, "vdb")
    memory_decode(guest, "vdb")
    events.happen(guest, "bus-master", "vda")
    assert lives(boot)[-1] == ["gate: open", *["gate: no-bus-master", "gate: open"] * 5]
    events.happen(guest, "bist", "vda")
    assert set(lives(boot)[-1]) == {"gate: open", "gate: no-bus-master", "gate: reset"}, "the driver's status was touched"
    for name in ("rebind", "remove-rescan", "flr", "unbind-under-io"):
        events.happen(guest, name, "vdb")

    # The same thread still does it.
    before = io_threads(boot)
    guest.run("iocheck run /data/again 8 1 8 1")
    after = io_threads(boot)
    assert set(after) == set(threads) and all(after[thread] > before[thread] for thread in after)

    events.happen(guest, "guest-reboot", "vdb")
    booted_from_disk(guest, 2)

    assert guest.machine_checks() == unanswered
    lab.finish()


def test_from_memory(lab):
    """An older kernel, started without firmware. Its system runs from memory: the disks' driver may go and come. (No kexec: Debian's kernels
    of this architecture do not know the system call that takes a kernel's file.)"""
    disks = [lab.root_disk("bookworm", architecture="ppc64el"), lab.data_disk(32)]
    guest = lab.guest("bookworm", disks, DirectGuest, append="lab.ram")
    for name in ("module-reload", "bus-master", "bist", "rebind"):
        events.happen(guest, name, "vdb", elsewhere=None)
    lab.finish()


# The founding case of law 1

def test_firmware_switches_bus_master(lab):
    """SLOF switches bus master off and on around each use of the disk, with the driver's rings in place, while they are polled."""
    boot = boot_disk(lab, POLLED)
    guest = lab.guest(SUITE, [boot, lab.data_disk(16)], PseriesGuest)
    with cells.cell("bus-master", "pseries SLOF itself"):
        booted_from_disk(guest, 1)
        # Every change that QEMU has passed on is one of the gate, in the same order.
        changes = guest.master_changes(boot)
        assert gate_master_changes(boot) == changes
        # The firmware's driver and the kernel's.
        firmware, kernel = lives(boot)
        assert firmware.count("gate: no-bus-master") >= 2
        # Nothing but bus master closed it, and the status stayed as the driver had set it, until that driver itself gave up its device.
        end = firmware.index("status 0x8f")
        assert set(firmware[:end]) == {"gate: open", "gate: no-bus-master"}
        assert kernel == ["gate: open"]
    lab.finish()


def test_firmware_switches_bus_master_without_law(lab):
    """The same with a server that goes on polling, and takes for the ring's content what it finds through a closed gate: the fault as it was."""
    boot = boot_disk(lab, POLLED, whole=False, program=with_mutations(), PINTLE_MUTATE="law1.blind")
    guest = PseriesGuest(lab.folder, [boot, lab.data_disk(16)], SUITE)
    lab.guests.append(guest)
    guest.start()
    wait_until(guest, "the fault did not show", lambda: said(boot, "error: d0: needs a reset"))
    # The index read as zero, and bus master was off.
    assert said(boot, "needs a reset: queue 0: the available index jumped")
    assert lives(boot)[0][:2] == ["gate: open", "gate: no-bus-master"]
    # And what was to be loaded from that disk does not come.
    wait_until(guest, "the firmware did not notice", lambda: "virtioblk_transfer failed" in guest.end_of_console(100))
    assert "GRUB: starting Linux" not in guest.console.read_text(errors="replace")


# Firmware that never sets bus master

def test_firmware_without_bus_master_lenient(lab):
    """It counts as set: such firmware boots, and the kernel, which sets it, is held to it."""
    boot = boot_disk(lab, ",bus-master=lenient")
    firmware = slof.firmware_without_master(lab.folder / "slof.bin")
    with cells.cell("firmware-boot", "pseries SLOF that never sets bus master, lenient"):
        guest = lab.guest(SUITE, [boot, lab.data_disk(16, options=",bus-master=lenient")], PseriesGuest, extra=["-bios", str(firmware)])
        booted_from_disk(guest, 1)
    # Set once, by the kernel, after all that the firmware did.
    assert guest.master_changes(boot) == [True]
    events.happen(guest, "bus-master", "vda")
    lab.finish()


def test_firmware_without_bus_master_strict(lab):
    """By the letter of PCI the device does nothing for it; the firmware gives up each request, and says so."""
    boot = boot_disk(lab)
    firmware = slof.firmware_without_master(lab.folder / "slof.bin")
    guest = PseriesGuest(lab.folder, [boot, lab.data_disk(16)], SUITE, extra=["-bios", str(firmware)])
    lab.guests.append(guest)
    guest.start()
    wait_until(guest, "the firmware waits", lambda: "virtioblk_transfer failed" in guest.end_of_console(100))
    assert "GRUB" not in guest.console.read_text(errors="replace")
    assert guest.master_changes(boot) == []
    # Its driver is there, and this alone keeps the gate closed.
    assert lives(boot)[0][0] == "gate: no-bus-master"
    guest.kill()
    # No guest's file system to look at: nobody has written.
    lab.guests.clear()
    lab.finish()


# The founding case of law 2

def test_table_lost_without_law(lab):
    """BIST clears the device's own copy of the MSI-X table; where nobody reconciles, the next interrupt never comes. (With the law: test_life.)"""
    image = disk.data_disk(lab.folder / "d1.img", 32)
    data = serve(lab, "d1", image, program=with_mutations(), PINTLE_MUTATE="law2.reconcile")
    guest = lab.guest(SUITE, [lab.root_disk(SUITE, architecture="ppc64el"), data], DirectGuest)
    guest.run("dd if=/dev/vdb of=/dev/null bs=4096 iflag=direct count=1")
    before = guest.interrupts("virtio1-req")
    assert before > 0
    events.pciset(guest, "vdb", "bist", "0x40")
    # The request is done and its interrupt lost; the other disk meanwhile does hundreds.
    guest.run("dd if=/dev/vdb of=/dev/null bs=4096 iflag=direct count=1 > /dev/null 2>&1 &")
    guest.run("iocheck run /data/busy 4 2 4 1")
    assert guest.run("cat /sys/block/vdb/inflight").split() == ["1", "0"]
    assert guest.interrupts("virtio1-req") == before
