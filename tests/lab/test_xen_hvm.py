# SPDX-License-Identifier: BSD-2-Clause
"""
A device with guests that are whole machines (HVM), on the real Xen with Debian's device model: it is QEMU that has the device, and maps and unmaps for the guest. What the server does for them is to keep the device while a guest has it, to say
so, and to hand it over by all the steps when it ends, however it ends. The tests go on from where the one before has come to.
"""
import json

import pytest
from kit import cells
from kit.xen_hvm import XenHvmMachine
from kit.xen_machine import NVME
from kit.xen_runs import WITHOUT, guest_of, supported

CONTROL, LOG = "/run/hvm.control", "/run/hvm.log"
MSIX_ENABLE, MSIX_MASK_ALL = 0x8000, 0x4000

GUEST = "HVM, " + guest_of("bookworm")

pytestmark = pytest.mark.skipif(not supported(), reason=WITHOUT)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = XenHvmMachine(tmp_path_factory.mktemp("xen-hvm")).start().wait_ready()
    try:
        machine.run(f"pintle xen setup {NVME}")
        serve(machine)
        yield machine
    finally:
        machine.kill()


def record(event):
    cells.record(event, GUEST, "passed", device="host-xen", road="xen")


def until(machine, condition):
    machine.run(f"( n=0; until {condition}; do usleep 200000; n=$((n+1)); [ $n -lt 300 ] || {{ cat {LOG}; xl list; exit 1; }}; done )")


def serve(machine):
    machine.run(f"pintle serve --control path={CONTROL} --device host-xen,address={NVME},id=x --road xen >> {LOG} 2>&1 & echo $! > /run/hvm.pid")
    until(machine, f"pintle ctl --socket {CONTROL} list | grep -qE ' (offered|taken) '")


def ctl(machine, *words, status=0):
    return machine.run(f"pintle ctl --socket {CONTROL} {' '.join(words)}", status=status)


def show(machine):
    return json.loads(ctl(machine, "--json", "show", "x"))


def works(machine, name):
    """The guest's driver has it, by MSI-X, and reads what is on the disk."""
    said = machine.on(name, "check_disk; grep nvme0q /proc/interrupts")
    assert machine.disk_sum() in said and "-msi-x" in said, said


def busy(machine, name):
    machine.on(name, "(while :; do disk_sum; done > /run/sums) & until [ $(cat /run/sums | wc -l) -gt 1 ]; do usleep 100000; done")


def clean(machine, handovers):
    """Handed over with a reset, nothing left in the hardware, and offered."""
    until(machine, f"pintle ctl --socket {CONTROL} list | grep -q ' offered '")
    device = show(machine)
    assert device["host-xen"]["handovers"] == handovers and device["host-xen"]["resets"] == handovers and not device["host-xen"]["last-trouble"], device
    assert int(machine.run(f"msix {NVME}"), 16) & (MSIX_ENABLE | MSIX_MASK_ALL) == 0
    assert int(machine.run(f"cfg {NVME} 4 2"), 16) == 0
    assert NVME in machine.run("xl pci-assignable-list")


def test_a_guest_has_it_and_what_is_not_known_of_it_is_not_told(machine):
    machine.create_hvm("a", pci=[NVME])
    works(machine, "a")
    device = show(machine)
    domid = int(machine.run("xl domid a"))
    assert device["state"] == "taken" and device["client"] == {"attached": True, "domid": domid, "guest": "HVM"}, device
    assert device["host-xen"]["interrupts"] == "not tracked" and device["host-xen"]["operations"] == 0
    for command in (["unplug", "x"], ["check", "x"]):
        assert f"is with the device model of dom{domid} (HVM)" in ctl(machine, *command, status=1)
    assert "is told of no errors" in machine.run(f"pintle inject --socket {CONTROL} x aer", status=1)
    assert show(machine)["state"] == "taken"
    record("boot")


def test_detached_and_attached_at_run_time(machine):
    machine.run(f"xl pci-detach a {NVME}")
    clean(machine, 2)
    machine.run(f"xl pci-attach a {NVME}")
    works(machine, "a")
    record("unplug-asked-msix")


def test_the_server_is_killed_and_the_guest_does_not_notice(machine):
    busy(machine, "a")
    machine.run("kill -9 $(cat /run/hvm.pid); wait $(cat /run/hvm.pid)", status=None)
    serve(machine)
    device = show(machine)
    assert device["state"] == "taken" and device["client"]["guest"] == "HVM" and device["host-xen"]["resets"] == 0, device
    machine.on("a", "n=$(cat /run/sums | wc -l); until [ $(cat /run/sums | wc -l) -gt $((n + 1)) ]; do usleep 100000; done")
    assert set(machine.on("a", "cat /run/sums").split()) == {machine.disk_sum()}
    record("server-restarted")


def test_its_device_model_is_killed_under_io(machine):
    """What it had bound is left, until the domain ends."""
    machine.run(". /lab/hvm; kill -9 $(hvm_model a)")
    assert show(machine)["state"] == "taken"
    machine.destroy("a")
    clean(machine, 1)


def test_then_a_paravirtual_guest_has_it(machine):
    machine.create("p", pci=[NVME])
    works(machine, "p")
    assert show(machine)["host-xen"]["interrupts"] == "MSI-X"
    machine.destroy("p")
    clean(machine, 2)
    record("guest-destroyed")
    machine.run("kill $(cat /run/hvm.pid); wait $(cat /run/hvm.pid)")
    machine.run(f"pintle xen undo {NVME}")
