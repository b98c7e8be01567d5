# SPDX-License-Identifier: BSD-2-Clause
"""
Errors of the bus (AER) in a real first domain, whose kernel deals with them before the server sees them: it counts, clears, and resets the link, which takes the settings of all that is behind it. QEMU injects them into a
device and into the port above it, while a guest has the device and the one beside it.
"""
import json

import pytest
from kit import cells
from kit.xen_runs import WITHOUT, guest_of, part, supported

SUITE = "trixie"  # Linux 6.12; 6.1 has devices report errors only where a driver asks for it
CARD, RNG = "0000:01:00.0", "0000:01:00.1"
CONTROL, LOG = "/run/errors.control", "/run/errors.log"
EXPRESS, DEVICE_CONTROL = 0x10, 8
CLONE3 = "435"  # refused on purpose


def inject(machine, error):
    said = machine.qmp("human-monitor-command", **{"command-line": f"pcie_aer_inject_error {error}"})
    assert said.startswith("OK"), said


def show(machine, name):
    return json.loads(machine.run(f"pintle ctl --socket {CONTROL} --json show {name}"))["host-xen"]


def errors(machine, name):
    """Corrected, non-fatal, fatal; how often the guest was told."""
    device = show(machine, name)
    return [*device["bus-errors"].values(), device["aer"]]


def until(machine, condition):
    machine.run(f"( n=0; until {condition}; do usleep 200000; n=$((n+1)); [ $n -lt 150 ] || {{ cat {LOG}; dmesg | tail -n 30; exit 1; }}; done )")


def settings(machine):
    """What a reset of the link takes. Of the second function also what the host alone has set: that it reports errors."""
    words = [machine.run(f"cfg {address} 4 2; cfg {address} 0x10 4; cfg {address} 0x14 4; cfg {address} $(($(capability {address} {EXPRESS}) + {DEVICE_CONTROL})) 2").split() for address in (CARD, RNG)]
    assert int(words[1][3], 16) & 0xF == 0xF, words
    return words


def heard(machine, name, times):
    """Told, and the conversation has ended: the front end's last answer is in the log."""
    until(machine, f"[ $(grep -c 'info: {name}: the front end has answered' {LOG}) -ge {times} ]")


@part(__name__, "xen-pciback", "errors", "test_errors", suites=[SUITE])
def play(machine):
    # What was done in this machine before may have loaded it.
    machine.run("rmmod xen-pciback", status=None)
    machine.run(f"pintle xen setup {CARD} {RNG}")
    machine.run(f"PINTLE_SANDBOX_LOG=1 pintle serve --control path={CONTROL} --device host-xen,address={CARD},id=card --road xen --device host-xen,address={RNG},id=rng --road xen > {LOG} 2>&1 & echo $! > /run/errors.pid")
    until(machine, f"[ $(grep -c 'is offered' {LOG}) = 2 ]")
    machine.create("e", pci=[CARD, RNG])
    assert machine.on("e", "check_net").startswith("net MSI-X"), machine.run(f"cat {LOG}")
    before = settings(machine)

    inject(machine, "-c rng0 0x1")
    until(machine, f"grep -q 'rng: errors of it that the bus has corrected: 1' {LOG}")
    assert errors(machine, "rng") == [1, 0, 0, 0]

    # One of the second function's own: it alone is told. Its driver (virtio) has no code for errors, which makes the answer "none".
    inject(machine, "rng0 POISON_TLP")
    heard(machine, "rng", 1)
    # One that the port has seen: both. The card's driver asks for a reset.
    inject(machine, "port0 POISON_TLP")
    heard(machine, "card", 1)
    heard(machine, "rng", 2)
    assert errors(machine, "rng") == [1, 2, 0, 2] and errors(machine, "card") == [0, 1, 0, 1], machine.run(f"cat {LOG}")
    assert machine.on("e", "check_net").startswith("net MSI-X")

    # Fatal: the kernel resets the link of both, and gives nothing back; it does not even count the error as the function's.
    inject(machine, "rng0 DLP")
    heard(machine, "card", 2)
    heard(machine, "rng", 3)
    log = machine.run(f"cat {LOG}")
    assert errors(machine, "rng") == [1, 2, 1, 3] and errors(machine, "card") == [0, 1, 1, 2], log
    for name in ("rng", "card"):
        assert f"warning: {name}: the bus reports a fatal error of it" in log
    assert "TOTAL_ERR_FATAL 0" in machine.run(f"cat $P/{RNG}/aer_dev_fatal") and "link has been reset" in machine.run("dmesg")
    assert settings(machine) == before
    assert machine.on("e", "check_net").startswith("net MSI-X"), machine.on("e", "dmesg | tail -n 20")
    assert show(machine, "card")["interrupts"] == "MSI-X"
    # Errors are reported as before.
    inject(machine, "rng0 POISON_TLP")
    heard(machine, "rng", 4)
    assert errors(machine, "rng") == [1, 3, 1, 4]
    refused = machine.run("dmesg | grep type=1326 | grep -v syscall=" + CLONE3, status=None)
    assert not refused, refused
    machine.destroy("e")
    machine.run("kill $(cat /run/errors.pid); wait $(cat /run/errors.pid)")
    machine.run(f"pintle xen undo {CARD} {RNG}")


@pytest.mark.skipif(not supported(), reason=WITHOUT)
def test_errors(xen_runs):
    with cells.cell("aer", guest_of(SUITE), device="host-xen", road="xen"):
        xen_runs.part("xen-pciback", SUITE, "errors")
