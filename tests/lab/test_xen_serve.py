# SPDX-License-Identifier: BSD-2-Clause
"""The server's side of the road xen, in a real dom0: what `pintle ctl` and `pintle inject` say and do while a guest has a device, the end of the server with guests that go on or are closed, and that the process is confined meanwhile with
nothing refused that it needs."""
import contextlib
import json
import re

import pytest
from kit import cells
from kit.xen_machine import NVME
from kit.xen_runs import WITHOUT, guest_of, part, supported

CONTROL, LOG = "/run/serve.control", "/run/serve.log"
CLONE3 = "435"  # refused on purpose: the C library goes back to clone, whose flags can be looked at


def until(machine, condition):
    """In dom0; the server's log if it is in vain."""
    machine.run(f"( n=0; until {condition}; do usleep 200000; n=$((n+1)); [ $n -lt 150 ] || {{ pintle ctl --socket {CONTROL} show x; cat {LOG}; exit 1; }}; done )")


def start(machine, road=""):
    machine.run(f"PINTLE_SANDBOX_LOG=1 pintle serve --control path={CONTROL} --device host-xen,address={NVME},id=x --road xen{road} > {LOG} 2>&1 & echo $! > /run/serve.pid")
    until(machine, f"grep -q ready: {LOG}")


def stop(machine):
    machine.run("kill $(cat /run/serve.pid)")
    until(machine, "! test -d /proc/$(cat /run/serve.pid)")
    assert machine.run(f"tail -n 1 {LOG}").strip() == "pintle: info: serve: ended in order"


def ctl(machine, *words, status=0):
    return machine.run(f"pintle ctl --socket {CONTROL} {' '.join(words)}", status=status)


def show(machine):
    return json.loads(ctl(machine, "--json", "show", "x"))


def wait_for_state(machine, state):
    until(machine, f"pintle ctl --socket {CONTROL} list | grep -q ' {state} '")


def domid(machine, name):
    return int(machine.run(f"xl domid {name}"))


def offered_when_it_is_clean(machine):
    start(machine)
    wait_for_state(machine, "offered")
    assert NVME in machine.run("xl pci-assignable-list")
    device = show(machine)
    assert device["type"] == "host-xen" and device["road"] == {"type": "xen", "slots": "passed", "on-stop": "keep"} and device["client"] == {"attached": False}
    said = ctl(machine, "unplug", "x", status=1)
    assert "no guest has x: it is offered" in said
    assert "there is nobody to tell" in machine.run(f"pintle inject --socket {CONTROL} x aer", status=1)


def a_guest_has_it(machine):
    machine.create("a", pci=[NVME])
    assert machine.disk_sum() in machine.on("a", "check_disk")
    device = show(machine)
    assert device["state"] == "taken" and device["domid"] == domid(machine, "a") and device["client"]["slot"] == "05.0", device
    hardware = device["host-xen"]
    assert hardware["interrupts"] == "MSI-X" and hardware["pirqs"] >= 1 and hardware["operations"] > 100 and hardware["address"] == NVME
    assert re.search(rf"x +host-xen +taken +dom{device['domid']} +-", ctl(machine, "list"))
    figures = ctl(machine, "metrics")
    assert 'pintle_attached{device="x"} 1' in figures and f'pintle_xen_pirqs{{device="x"}} {hardware["pirqs"]}' in figures
    assert json.loads(ctl(machine, "--json", "check", "x")) == {"id": "x", "found": False}
    assert "is reset when a guest lets go of it" in ctl(machine, "reset", "x", status=1)


def the_guest_is_told_of_an_error(machine):
    # Linux's NVMe driver goes on after an error that is not fatal, and asks for a reset after one that is.
    assert json.loads(machine.run(f"pintle inject --socket {CONTROL} --json x aer")) == {"id": "x", "answer": "recovered"}
    assert machine.disk_sum() in machine.on("a", "disk_sum")
    fatal = json.loads(machine.run(f"pintle inject --socket {CONTROL} --json x aer fatal"))
    assert fatal["answer"] == "recovered", fatal
    assert machine.disk_sum() in machine.on("a", "await test -b /dev/nvme0n1; disk_sum")
    assert show(machine)["host-xen"]["aer"] == 2


def the_server_ends_and_the_guest_goes_on(machine):
    before = show(machine)
    stop(machine)
    assert domid(machine, "a") == before["domid"]
    start(machine)
    device = show(machine)
    assert device["state"] == "taken" and device["domid"] == before["domid"] and device["host-xen"]["pirqs"] == before["host-xen"]["pirqs"], device
    assert machine.disk_sum() in machine.on("a", "disk_sum")


def busy(machine):
    machine.on("a", "modprobe nvme; await test -b /dev/nvme0n1; busy", 60)


def gone_and_given_back(machine):
    """The toolstack is told of it, too; then it may be anybody's, and is the same guest's again."""
    machine.run(f"xl pci-detach a {NVME}")
    assert json.loads(ctl(machine, "--json", "plug", "x"))["state"] == "offered"
    assert NVME in machine.run("xl pci-assignable-list")
    machine.run(f"xl pci-attach a {NVME}")
    assert machine.disk_sum() in machine.on("a", "check_disk")


def asked_with_a_deadline(machine):
    busy(machine)
    said = json.loads(ctl(machine, "--json", "unplug", "x", "--deadline", "60s"))
    assert said == {"id": "x", "state": "gone"}
    assert "missing" in machine.on("a", "wait $io; test -b /dev/nvme0n1 && echo there || echo missing")
    assert NVME not in machine.run("xl pci-assignable-list")
    gone_and_given_back(machine)


def asked_and_not_answered(machine):
    """Whatever its time, the guest keeps the device: its I/O goes on, and what it answers late counts."""
    busy(machine)
    machine.run("xl pause a")
    assert "it stays asked" in ctl(machine, "unplug", "x", "--deadline", "6s", status=1)
    assert show(machine)["state"] == "taken"
    machine.run("xl unpause a")
    wait_for_state(machine, "gone")
    machine.on("a", "wait $io", status=None)
    gone_and_given_back(machine)


def by_force_under_io(machine):
    busy(machine)
    assert json.loads(ctl(machine, "--json", "unplug", "x", "--force"))["state"] == "gone"
    assert show(machine)["host-xen"]["pirqs"] == 0
    machine.on("a", "wait $io", 60, status=None)
    gone_and_given_back(machine)


def asked_and_ended_by_the_guests_end(machine):
    machine.run("xl pause a")
    ctl(machine, "unplug", "x")
    assert show(machine)["state"] == "taken"
    machine.destroy("a")
    wait_for_state(machine, "gone")
    assert json.loads(ctl(machine, "--json", "plug", "x"))["state"] == "offered"


def nothing_was_refused(machine):
    lines = re.findall(r"type=1326 .* syscall=(\d+)", machine.run("dmesg"))
    assert not [number for number in lines if number != CLONE3], machine.run("dmesg | grep type=1326")
    # It would be seen: the one that is refused on purpose is there.
    assert CLONE3 in lines


def confined_with_nothing_refused_that_it_needs(machine):
    process = machine.run("cat /proc/$(cat /run/serve.pid)/status")
    assert re.search(r"^Seccomp:\s*2$", process, re.MULTILINE) and re.search(r"^NoNewPrivs:\s*1$", process, re.MULTILINE)
    nothing_was_refused(machine)


def closed_at_the_end(machine):
    """Closed, handed over, nothing bound; that the guest is to have it stays with the toolstack, until it ends."""
    stop(machine)
    start(machine, ",on-stop=close")
    wait_for_state(machine, "offered")
    machine.create("c", pci=[NVME])
    assert machine.disk_sum() in machine.on("c", "check_disk")
    guest = domid(machine, "c")
    stop(machine)
    assert machine.run(f"xenstore-read /local/domain/0/backend/pci/{guest}/0/state").strip() == "6"
    assert NVME not in machine.run("xl pci-assignable-list")
    machine.destroy("c")
    start(machine)
    wait_for_state(machine, "offered")
    assert show(machine)["host-xen"]["pirqs"] == 0
    stop(machine)
    nothing_was_refused(machine)
    machine.run(f"pintle xen undo {NVME}")


# One after the other, each from where the one before has come to.
STEPS = [offered_when_it_is_clean, a_guest_has_it, the_guest_is_told_of_an_error, the_server_ends_and_the_guest_goes_on, asked_with_a_deadline, asked_and_not_answered, by_force_under_io,
         asked_and_ended_by_the_guests_end, confined_with_nothing_refused_that_it_needs, closed_at_the_end]
# Their keys in the lifecycle matrix.
KEYS = {"the_guest_is_told_of_an_error": ["aer"], "asked_with_a_deadline": ["unplug-asked"], "asked_and_not_answered": ["unplug-unanswered"],
        "by_force_under_io": ["unplug-forced", "unplug-forced-plugged"], "asked_and_ended_by_the_guests_end": ["unplug-unanswered-reset"]}
SUITE = "bookworm"


@part(__name__, "xen-pciback", "serve", "test_step", suites=[SUITE])
def serve(machine):
    """What each step ended with: None, or its error."""
    machine.run(f"pintle xen setup {NVME}")
    ends = {}
    for step in STEPS:
        try:
            ends[step.__name__] = step(machine)
        except Exception as error:
            ends[step.__name__] = error
    return ends


@pytest.mark.skipif(not supported(), reason=WITHOUT)
@pytest.mark.parametrize("step", [step.__name__ for step in STEPS])
def test_step(xen_runs, step):
    with contextlib.ExitStack() as stack:
        for key in KEYS.get(step, []):
            stack.enter_context(cells.cell(key, guest_of(SUITE), device="host-xen", road="xen"))
        error = xen_runs.part("xen-pciback", SUITE, "serve")[step]
        if error:
            raise error
