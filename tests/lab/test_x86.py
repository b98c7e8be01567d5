# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests with stock Debian kernels (6.1, 6.12), whose root file system is on the served disk.

Each test closes with lab.finish(): no complaint in the guest's kernel log, the server alive, status 0 and no error line
when it is ended, and a clean e2fsck of the image.
"""
import os
import signal

import pytest

SUITES = {"bookworm": "6.1.", "trixie": "6.12."}
STAMP = 7

both = pytest.mark.parametrize("suite", SUITES)


def known_contents(guest):
    """The files that were on the disk before anybody served it."""
    answers = guest.run("cd /known && sha256sum -c SHA256SUMS").splitlines()
    assert len(answers) == 49 and all(line.endswith(": OK") for line in answers)


def drop_caches(guest):
    guest.run("sync; echo 3 > /proc/sys/vm/drop_caches")


def flap(guest, device, times=10, threads=8, off_ms=200):
    """Bus master off and on under verified I/O on the disk; an open gate would let hundreds of requests complete while off."""
    job = guest.busy(f"/dev/{device}" if device != "vda" else "/data/busy", threads=threads)
    guest.run(f"busmaster {guest.pci_address(device)} {device} {times} {off_ms} {2 * threads + 8}")
    guest.calm(job)


def rebind(guest, device, between="true"):
    """Take the disk from its driver and give it back; `between` is done while nobody drives it."""
    address = guest.pci_address(device)
    driver = guest.run(f"basename $(readlink -f /sys/bus/pci/devices/{address}/driver)").strip()
    guest.run(f"echo {address} > /sys/bus/pci/drivers/{driver}/unbind")
    guest.run(f"[ ! -e /sys/block/{device} ]")
    guest.run(between.format(address=address))
    guest.run(f"echo {address} > /sys/bus/pci/drivers/{driver}/bind")
    guest.run(f"for i in $(seq 600); do [ -b /dev/{device} ] && break; usleep 100000; done; [ -b /dev/{device} ]")


@both
def test_life(lab, suite):
    """One guest, two disks, one event after the other, all I/O verified."""
    root, data = lab.root_disk(suite), lab.data_disk(32)
    guest = lab.guest(suite, [root, data])
    assert guest.run("uname -r").startswith(SUITES[suite])
    assert guest.run("grep ' / ext4' /proc/mounts").startswith("/dev/vda")
    known_contents(guest)

    # Plain I/O, with more requests than one thread could have in flight; interrupts carry the completions.
    before = guest.interrupts()
    guest.run("iocheck run /dev/vdb 32 3 16 1")
    assert guest.interrupts() > before + 10

    guest.run(f"iocheck stamp /data/stamped 16 {STAMP}")
    guest.run(f"iocheck stamp /dev/vdb 32 {STAMP}")

    # Bus master off and on under I/O, on the root disk and on the other one.
    flap(guest, "vda")
    guest.run("echo 1 > /sys/block/vdb/queue/rq_affinity")
    rebind(guest, "vdb")
    guest.run(f"iocheck compare /dev/vdb 32 {STAMP}")
    flap(guest, "vdb")

    # Reset of the function while nobody drives it; the driver finds it as new.
    guest.run(f"iocheck stamp /dev/vdb 32 {STAMP + 1}")
    rebind(guest, "vdb", "echo 1 > /sys/bus/pci/devices/{address}/reset")
    guest.run(f"iocheck compare /dev/vdb 32 {STAMP + 1}")

    # A reboot in order, and one out of the middle of I/O.
    guest.reboot()
    known_contents(guest)
    guest.run(f"iocheck compare /data/stamped 16 {STAMP}")
    guest.run(f"iocheck compare /dev/vdb 32 {STAMP + 1}")
    guest.busy("/dev/vdb", megabytes=16)
    guest.busy("/data/busy")
    guest.reboot()
    guest.run(f"iocheck compare /data/stamped 16 {STAMP}")
    flap(guest, "vda", times=2)
    lab.finish()


@both
def test_without_msi(lab, suite):
    """Interrupts by INTx, which does not depend on bus master."""
    guest = lab.guest(suite, [lab.root_disk(suite)], append="pci=nomsi")
    assert "MSI" not in guest.run("grep virtio /proc/interrupts")
    known_contents(guest)
    before = guest.interrupts()
    flap(guest, "vda")
    assert guest.interrupts() > before + 10
    guest.reboot()
    known_contents(guest)
    lab.finish()


@both
def test_vmm_killed(lab, suite):
    """QEMU dies under I/O, twice; a new one is served by the same server, and what was synced is there."""
    disk = lab.root_disk(suite)
    guest = lab.guest(suite, [disk])
    guest.run(f"iocheck stamp /data/stamped 16 {STAMP}; sync")
    for _ in range(2):
        guest.busy("/data/busy", threads=16)
        guest.run("sleep 1")
        guest.kill()
        disk.check_alive()
        guest = lab.guest(suite, [disk])
        known_contents(guest)
        guest.run(f"iocheck compare /data/stamped 16 {STAMP}")
    lab.finish()


@both
def test_memory_by_message(lab, suite):
    """The client shares no memory: every ring access is a message to it."""
    guest = lab.guest(suite, [lab.root_disk(suite)], memory="messages")
    known_contents(guest)
    flap(guest, "vda", times=5)
    guest.run(f"iocheck stamp /data/stamped 4 {STAMP}")
    guest.reboot()
    guest.run(f"iocheck compare /data/stamped 4 {STAMP}")
    lab.finish()


def test_grow(lab):
    """The image grows while it is in use; SIGHUP makes the server look, and the guest is told."""
    root, data = lab.root_disk("trixie"), lab.data_disk(16)
    guest = lab.guest("trixie", [root, data])
    guest.run(f"iocheck stamp /dev/vdb 16 {STAMP}")
    for megabytes in (32, 48):
        job = guest.busy("/data/busy")
        os.truncate(lab.folder / "d1.img", megabytes << 20)
        data.signal(signal.SIGHUP)
        guest.run(f"until [ $(cat /sys/block/vdb/size) = {megabytes << 11} ]; do usleep 50000; done")
        guest.calm(job)
        guest.run(f"iocheck compare /dev/vdb 16 {STAMP}")
        guest.run(f"iocheck run /dev/vdb {megabytes} 1 8 2; iocheck stamp /dev/vdb {megabytes} {STAMP}")
    lab.finish()
