# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests with stock Debian kernels (6.1, 6.12), whose root file system is on the served disk.

Each test closes with lab.finish(): no complaint in the guest's kernel log, the server alive, status 0 and no error line
when it is ended, and a clean e2fsck of the image.
"""
import pytest

from kit import cells, events
from kit.guest import LINUX


def known_contents(guest):
    """The files that were on the disk before anybody served it."""
    answers = guest.run("cd /known && sha256sum -c SHA256SUMS").splitlines()
    assert len(answers) == 49 and all(line.endswith(": OK") for line in answers)


@pytest.mark.parametrize("suite", LINUX)
def test_life(lab, suite):
    """One guest, two disks, one event after the other, all I/O verified."""
    root, data = lab.root_disk(suite), lab.data_disk(32, options=",queues=2")
    guest = lab.guest(suite, [root, data])
    with cells.cell("boot", guest.describe()):
        assert guest.run("uname -r").startswith(LINUX[suite] + ".")
        assert guest.run("grep ' / ext4' /proc/mounts").startswith("/dev/vda")
        known_contents(guest)
    # More requests than one thread could have in flight; interrupts carry the completions.
    with cells.cell("io", guest.describe()):
        before = guest.interrupts()
        guest.run("iocheck run /dev/vdb 32 3 16 1")
        assert guest.interrupts() > before + 10
    events.happen(guest, "bus-master", "vda")
    for name in ("bus-master", "d3hot", "bist", "rebind", "flr", "guest-reboot"):
        events.happen(guest, name, "vdb")
    known_contents(guest)
    lab.finish()


def test_vmm_killed(lab):
    """QEMU dies under I/O; a new one is served by the same server, and what was synced is there.

    The first machine's interrupts are INTx, which does not depend on bus master; the second one shares no memory, so that every
    access of a ring is a message to it."""
    disk = lab.root_disk("trixie")
    guest = lab.guest("trixie", [disk], append="pci=nomsi")
    with cells.cell("boot", guest.describe()):
        assert "MSI" not in guest.run("grep virtio /proc/interrupts")
        known_contents(guest)
    events.happen(guest, "bus-master", "vda")
    guest.run(f"iocheck stamp /data/stamped 16 {events.STAMP} && sync")
    guest.busy("/data/busy", threads=16)
    events.goes_on(guest, "vda")
    with cells.cell("vmm-killed", guest.describe()):
        guest.kill()
        disk.check_alive()
        guest = lab.guest("trixie", [disk], memory="messages")
        known_contents(guest)
        guest.run(f"iocheck compare /data/stamped 16 {events.STAMP}")
    with cells.cell("boot", guest.describe()):
        known_contents(guest)
    events.happen(guest, "bus-master", "vda")
    events.happen(guest, "guest-reboot", "vda")
    lab.finish()
