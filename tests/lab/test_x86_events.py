# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests with stock Debian kernels: the events of kit/events.py, one after the other, under verified I/O. Those of
test_x86.py are done in each kernel; of these each in one.

Each test closes with lab.finish(): no complaint in the guest's kernel log, the server alive, status 0 and no error line
when it is ended, and a clean e2fsck of the image.
"""
from kit import events


def test_in_place(lab):
    """What a driver goes on after as if nothing had been, and what happens while nobody drives the disk."""
    # Requests of the third disk take their time, so that some are in flight whenever memory decode goes off.
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(32, options=",queues=2"),
                                 lab.data_disk(32, "d2", options=",delay=150ms")])
    for name in ("irq-affinity", "stop-cont", "suspend"):
        events.happen(guest, name, "vdb")
    events.happen(guest, "memory-decode", "vdc")
    for name in ("d3hot", "bist"):
        events.happen(guest, name, "vda")
    for name in ("remove-rescan", "bus-reset", "unbind-under-io"):
        events.happen(guest, name, "vdb")
    # No reset by power state is offered: No_Soft_Reset says that it would not be one.
    assert "pm" not in guest.run(f"cat /sys/bus/pci/devices/{guest.pci_address('vdb')}/reset_method").split()
    lab.finish()


def test_starts_over(lab):
    """The guest starts over in the middle of I/O, in several ways."""
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(32)])
    for name in ("guest-panic", "flr-under-io", "bus-reset-under-io"):
        events.happen(guest, name, "vdb")
    lab.finish()


def test_from_memory(lab):
    """The guest's system runs from memory: the disks' driver may go, and another kernel may come. In the older kernel, as the
    transport's driver is built into the newer one."""
    guest = lab.guest("bookworm", [lab.root_disk("bookworm"), lab.data_disk(32)], append="lab.ram")
    for name in ("module-reload", "transport-reload", "kexec"):
        events.happen(guest, name, "vdb", elsewhere=None)
    lab.finish()
