# SPDX-License-Identifier: BSD-2-Clause
"""
`pintle xen setup` and `undo` in a real first domain: libxl finds what it looks for, everybody else finds the kernel's drivers, and nothing is left. And what Xen lets through of writes to MSI-X control, on which the handover is built.
"""
import json

import pytest
from kit import cells
from kit.xen_machine import E1000E, NVME
from kit.xen_runs import SUITES, WITHOUT, guest_of, part, supported

DRIVERS = "/sys/bus/pci/drivers"
PLACE = f"{DRIVERS}/pciback"
MSIX = {NVME: 0x40, E1000E: 0xA0}
CONTROL = 2


def driver(machine, address):
    """As its name is found: the last part of the link."""
    return machine.run(f"readlink /sys/bus/pci/devices/{address}/driver", status=None).strip().rpartition("/")[2]


def listing(machine):
    return set(machine.run(f"ls {DRIVERS}").split())


def everywhere(machine):
    """All that could be left: mounts, folders, the device's own settings."""
    return machine.run(f"cat /proc/mounts; find /run/pintle /run/udev /run/modprobe.d; for d in {NVME} {E1000E}; do cat $P/$d/driver_override $P/$d/enable; readlink -f $P/$d/driver; done", status=None)


def setup_and_undo(machine):
    machine.run("mkdir -p /run/udev; modprobe nvme; modprobe pci-stub; n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
    before, drivers = everywhere(machine), listing(machine)
    assert driver(machine, NVME) == "nvme"
    machine.run(f"pintle xen setup {NVME} {E1000E}")
    assert driver(machine, NVME) == driver(machine, E1000E) == "pci-stub"
    assert listing(machine) == drivers | {"pciback"}
    assert machine.run(f"cat {PLACE}/slots").split() == [NVME, E1000E]
    # The line interrupt is routed, which the kernel does while a device has no driver.
    assert int(machine.run(f"cat $P/{NVME}/irq")) >= 16
    # Not offered yet: no server has found it clean.
    assert NVME not in machine.run("xl pci-assignable-list")
    assert "not assignable" in machine.run("guest_create a 'pci=[\"0000:00:05.0\"]' 2>&1", status=3)

    # A driver that comes later, and goes: a link, through which its own files are reached.
    machine.run(f"modprobe e1000e; pintle xen refresh; [ -w {DRIVERS}/e1000e/bind ]")
    machine.run(f"echo {E1000E} > {DRIVERS}/pci-stub/unbind; echo > $P/{E1000E}/driver_override; echo {E1000E} > {DRIVERS}/e1000e/bind")
    assert driver(machine, E1000E) == "e1000e"
    machine.run(f"echo {E1000E} > $P/{E1000E}/driver/unbind; rmmod e1000e; pintle xen refresh; [ ! -e {DRIVERS}/e1000e ] && [ ! -L {DRIVERS}/e1000e ]")
    # Setting up again brings it where it belongs.
    machine.run(f"pintle xen setup {E1000E}")
    assert driver(machine, E1000E) == "pci-stub"

    # What a server does with one that is clean, and what libxl makes of it.
    machine.run(f"ln -s ../../devices/{NVME} {PLACE}/{NVME}")
    assert machine.run("xl pci-assignable-list").split() == [NVME]
    shown = {one["address"]: one for one in json.loads(machine.run("pintle xen list --json"))}
    assert shown[NVME] == {"address": NVME, "driver": "pci-stub", "former_driver": "nvme", "offered": True} and not shown[E1000E]["offered"]
    # Its reset at the beginning of an assignment ends in a file, so that the order stays the server's.
    machine.run(f"guest_create a 'pci=[\"{NVME}\"]'")
    assert machine.run(f"cat {PLACE}/do_flr") == NVME
    assert "a guest has" in machine.run(f"pintle xen undo {NVME} 2>&1", status=1)
    machine.destroy("a")

    # A guest has had it: it is in Xen's quarantine, from where undo brings it back to a driver that works.
    assert machine.run(f"pintle xen undo {NVME}").strip() == f"{NVME}: belongs to nvme now"
    machine.run("n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
    assert machine.run("dd if=/dev/nvme0n1 bs=1M skip=4 count=4 2> /dev/null | md5sum").split()[0] == machine.disk_sum()
    assert listing(machine) == drivers | {"pciback"}
    assert machine.run(f"pintle xen undo {E1000E}").strip() == f"{E1000E}: belongs to nobody now"
    assert everywhere(machine) == before and listing(machine) == drivers

    # Beside the kernel's module it does not work, and says so.
    machine.run("modprobe xen-pciback")
    assert "modprobe -r xen-pciback" in machine.run(f"pintle xen setup {NVME} 2>&1", status=1)
    assert driver(machine, NVME) == "nvme"
    machine.run("rmmod xen-pciback; rmmod nvme; rmmod e1000e", status=None)


def msix_control_through_xen(machine):
    machine.run(f"pintle xen setup {NVME} {E1000E}")
    for address, at in MSIX.items():
        at += CONTROL
        clear = machine.run(f"cfg {address} {at} 2").strip()
        # Bytes alone are dropped, two bytes reach the device, mask-all too. It goes with the reset that the device has.
        machine.run(f"setcfg {address} {at + 1} 0x40")
        assert machine.run(f"cfg {address} {at} 2").strip() == clear
        low, high = int(clear[2:], 16), int(clear[:2], 16) | 0x40
        machine.run(f"printf '\\x{low:02x}\\x{high:02x}' | dd of=$P/{address}/config bs=2 count=1 seek={at // 2} conv=notrunc 2> /dev/null")
        assert int(machine.run(f"cfg {address} {at} 2"), 16) == high << 8 | low
    machine.run(f"echo 1 > $P/{NVME}/reset")
    assert int(machine.run(f"cfg {NVME} {MSIX[NVME] + CONTROL} 2"), 16) & 0xC000 == 0
    machine.run(f"pintle xen undo {NVME} {E1000E}")


@part(__name__, "xen-pciback", "place", "test_in_the_first_domain")
def place(machine):
    msix_control_through_xen(machine)
    setup_and_undo(machine)


@pytest.mark.skipif(not supported(), reason=WITHOUT)
@pytest.mark.parametrize("suite", SUITES)
def test_in_the_first_domain(xen_runs, suite):
    with cells.cell("host-driver", guest_of(suite), device="host-xen", road="xen"):
        xen_runs.part("xen-pciback", suite, "place")
