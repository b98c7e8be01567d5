# SPDX-License-Identifier: BSD-2-Clause
"""s390x guests in QEMU, with stock Debian kernels: the disk is a PCI function behind QEMU's zPCI.

Its IOMMU maps 4 KiB at a time by the guest's RPCIT instruction, so mappings come and go with every request; PCI accesses
are instructions that QEMU answers. Each test closes with lab.finish().
"""
import pytest

from kit import cells, events
from kit.guest import LINUX
from kit.s390 import S390Guest

both = pytest.mark.parametrize("suite", LINUX)


def disks(lab, suite):
    return [lab.root_disk(suite, architecture="s390x"), lab.data_disk(32)]


# Half of them in each kernel: PCI is slow here, as it is emulated instruction by instruction.
EVENTS = {"bookworm": ("bus-master", "bist", "rebind", "flr", "unbind-under-io"),
          "trixie": ("bus-master", "d3hot", "stop-cont", "remove-rescan", "slot-reset")}


@both
def test_in_place(lab, suite):
    guest = lab.guest(suite, disks(lab, suite), S390Guest)
    assert guest.run("uname -m").strip() == "s390x"
    with cells.cell("iommu-mappings", guest.describe()):
        guest.run("iocheck run /dev/vdb 8 2 16 1")
    for name in EVENTS[suite]:
        events.happen(guest, name, "vdb")
    if suite == "trixie":
        cells.record("bus-reset", guest.describe(), "client", reason="there is no bridge to reset, and of a slot reset QEMU's zPCI tells the function nothing")
    lab.finish()


def test_from_memory(lab):
    """The guest's system runs from memory: the disks' driver may go."""
    guest = lab.guest("bookworm", disks(lab, "bookworm"), S390Guest, append="lab.ram")
    for name in ("module-reload", "transport-reload"):
        events.happen(guest, name, "vdb", elsewhere=None)
    cells.record("kexec", guest.describe(), "client", reason="in QEMU's s390x machine no kernel comes up by kexec, with QEMU's own disks neither")
    lab.finish()


def test_starts_over(lab):
    """A function that comes while the machine runs; it comes as a new zPCI function, and its driver finds it. Then the guest starts over in
    several ways, with the newer kernel alone: for a reset of the older one's machine QEMU computes for more than a minute (unmapping
    page by page)."""
    guest = lab.guest("trixie", disks(lab, "trixie"), S390Guest)
    late = lab.data_disk(16, "d2")
    with cells.cell("hot-add", guest.describe()):
        job = guest.busy("/data/busy")
        guest.qmp("device_add", **late.device(None, None))
        events.wait_disk(guest, "vdc")
        guest.calm(job)
        guest.run(f"iocheck run /dev/vdc 4 1 8 1 && iocheck stamp /dev/vdc 4 {events.STAMP}")
        guest.servers.append(late)
        events.healthy(guest)
    events.happen(guest, "bus-master", "vdc")
    for name in ("guest-panic", "guest-reboot", "system-reset"):
        events.happen(guest, name, "vdc")
    lab.finish()
