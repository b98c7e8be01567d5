# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests with stock Debian kernels: the events of kit/events.py, one after the other, under verified I/O.

Each test closes with lab.finish(): no complaint in the guest's kernel log, the server alive, status 0 and no error line
when it is ended, and a clean e2fsck of the image.
"""
import pytest

from kit import events
from kit.guest import LINUX

both = pytest.mark.parametrize("suite", LINUX)


@both
def test_in_place(lab, suite):
    """What a driver goes on after as if nothing had been, and what happens while nobody drives the disk."""
    # Requests of the third disk take their time, so that some are in flight whenever memory decode goes off.
    guest = lab.guest(suite, [lab.root_disk(suite), lab.data_disk(32, options=",queues=2"),
                              lab.data_disk(32, "d2", options=",delay=150ms")])
    for name in ("bus-master", "d3hot", "bist", "irq-affinity", "stop-cont", "suspend"):
        events.happen(guest, name, "vdb")
    events.happen(guest, "memory-decode", "vdc")
    for name in ("d3hot", "bist"):
        events.happen(guest, name, "vda")
    for name in ("rebind", "remove-rescan", "flr", "bus-reset", "unbind-under-io"):
        events.happen(guest, name, "vdb")
    # No reset by power state is offered: No_Soft_Reset says that it would not be one.
    assert "pm" not in guest.run(f"cat /sys/bus/pci/devices/{guest.pci_address('vdb')}/reset_method").split()
    lab.finish()


STARTS = {"bookworm": ("guest-panic", "flr-under-io"), "trixie": ("system-reset", "bus-reset-under-io")}


@both
def test_starts_over(lab, suite):
    """The guest starts over in the middle of I/O, in several ways."""
    guest = lab.guest(suite, [lab.root_disk(suite), lab.data_disk(32)])
    for name in STARTS[suite]:
        events.happen(guest, name, "vdb")
    lab.finish()


# In the newer kernel the transport's driver is built in.
FROM_MEMORY = {"bookworm": ("module-reload", "transport-reload", "kexec"), "trixie": ("module-reload", "kexec")}


@both
def test_from_memory(lab, suite):
    """The guest's system runs from memory: the disks' driver may go, and another kernel may come."""
    guest = lab.guest(suite, [lab.root_disk(suite), lab.data_disk(32)], append="lab.ram")
    for name in FROM_MEMORY[suite]:
        events.happen(guest, name, "vdb", elsewhere=None)
    lab.finish()
