# SPDX-License-Identifier: BSD-2-Clause
"""
What the bus and others do to a device that is served, in the machine that plays the host: errors (AER, which QEMU injects into a virtio disk behind a root port), and addresses and power
state that are lost behind everyone's back.
"""
import json
import re
import time

import pytest
from kit import cells, host, server
from kit.host_machine import CONTROL, NVME, SOCKET, HostMachine
from test_host import with_mutations

DISK = "0000:06:00.0" # behind a root port of its own; reports errors
BAR, EXPRESS_CONTROL = 0x14, 0x48 # of QEMU's virtio devices
NVME_POWER = 0x64


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host-aer")
    mutations = with_mutations(folder)
    image = folder / "aer.img"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    programs = [server.build_folder() / f"tests/{name}" for name in ("nvme_lab", "virtio_lab")]
    one = HostMachine(folder, programs=programs + ([mutations] if mutations else []),
                      more_devices=["-drive", f"if=none,id=ad,file={image},format=raw,file.locking=off",
                                    "-device", "virtio-blk-pci,drive=ad,aer=on,id=aer0,bus=rp6,iommu_platform=on,disable-legacy=on"]).start().prepare()
    one.has_mutations = mutations is not None
    yield one
    one.kill()


def inject(machine, error):
    said = machine.qmp("human-monitor-command", **{"command-line": f"pcie_aer_inject_error {error}"})
    assert said.startswith("OK"), said


def show(machine):
    """The hardware, after a look at it."""
    machine.run(f"pintle ctl --socket {CONTROL} check h0")
    return json.loads(machine.run(f"pintle ctl --socket {CONTROL} --json show h0"))["host"]


def wait_log(log, pattern, limit=host.COMMAND_LIMIT):
    end = time.monotonic() + limit
    while not re.search(pattern, text := log()):
        assert time.monotonic() < end, f"no \"{pattern}\" in:\n{text}"
        time.sleep(0.1)
    return text


def test_errors(machine):
    """Under I/O: corrected ones are counted, others are told and looked after, and a fatal one ends in a reset, which the driver survives; and then errors are reported as before."""
    with cells.cell("aer", "drive", device="host", road="vfio-user"), machine.served(DISK) as log:
        machine.run("rm -f /run/go /run/stop")
        machine.run(f"virtio_lab {SOCKET} over msix 'touch /run/go; until [ -e /run/stop ]; do usleep 100000; done' > /run/load.log 2>&1 & echo $! > /run/load.pid")
        machine.run("n=0; until [ -e /run/go ] || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done; [ -e /run/go ]")
        address, control = machine.run(f"cfg {DISK} {BAR} 4"), machine.run(f"cfg {DISK} {EXPRESS_CONTROL} 2")
        assert int(address, 16) and int(control, 16) & 0xf == 0xf
        inject(machine, "-c aer0 0x1")
        machine.run(f"n=0; until grep -q 'TOTAL_ERR_COR 1' $P/{DISK}/aer_dev_correctable || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done")
        assert show(machine)["bus-errors"]["correctable"] == 1
        inject(machine, "aer0 POISON_TLP")
        wait_log(log, "the bus reports an uncorrectable error of the device")
        seen = show(machine)
        assert seen["errors-told"] == 1 and seen["bus-errors"]["non-fatal"] == 1 and seen["resets"] == 0, seen
        inject(machine, "aer0 DLP")
        wait_log(log, r"a fatal error of the device \(AER status 0x10\); it is reset")
        seen = show(machine)
        assert seen["bus-errors"]["fatal-resets"] == 1 and seen["resets"] == 1 and seen["hardware"] == "ready", (seen, log())
        assert seen["bus-errors"]["uncorrectable-status"] == 0
        assert (machine.run(f"cfg {DISK} {BAR} 4"), machine.run(f"cfg {DISK} {EXPRESS_CONTROL} 2")) == (address, control)
        inject(machine, "aer0 POISON_TLP")
        wait_log(log, r"(?s)(an uncorrectable error.*){3}")
        assert show(machine)["bus-errors"]["non-fatal"] == 2
        machine.run("touch /run/stop; wait $(cat /run/load.pid); status=$?; cat /run/load.log; [ $status = 0 ]")


def test_fatal_error_with_nobody_there(machine):
    with machine.served(DISK) as log:
        address = machine.run(f"cfg {DISK} {BAR} 4")
        inject(machine, "aer0 DLP")
        wait_log(log, r"a fatal error of the device \(AER status 0x10\); it is reset")
        assert show(machine)["hardware"] == "ready"
        assert machine.run(f"cfg {DISK} {BAR} 4") == address
        assert "virtio" in machine.run(f"pintle probe {SOCKET}")


LOSE_ADDRESS = f"setcfg {NVME} 0x12 0; setcfg {NVME} 0x13 0"


def under_load(machine, command, patience=15):
    return machine.run(f"begin nvme_lab {SOCKET} load 5 {patience}; {command}; wait $load; status=$?; cat /run/load.log; echo status $status")


def test_lost_address(machine):
    """Only the BAR: command register and MSI-X are as they were."""
    with machine.served() as log:
        text = under_load(machine, LOSE_ADDRESS)
        assert "status 0" in text, (text, log())
        assert re.search("reset by somebody else: BAR 0 is 0x[0-9a-f]+ instead of 0x[0-9a-f]+: restored", log()), log()
        machine.run(f"nvme_lab {SOCKET} verify")


def test_lost_address_without_the_law(machine):
    if not machine.has_mutations:
        pytest.skip("no build with mutations is there: meson setup -Dmutations=true build-debug, ninja -C build-debug")
    with machine.served(program="PINTLE_MUTATE=law2.bars pintle-mutations"):
        text = under_load(machine, LOSE_ADDRESS, patience=3)
        assert "status 1" in text and "does not come back" in text, text


def test_put_to_sleep(machine):
    """D3hot by somebody else's doing, of a device that keeps its state there."""
    with machine.served() as log:
        text = under_load(machine, f"cfg {NVME} {NVME_POWER} 2; setcfg {NVME} {NVME_POWER} 0x0b")
        assert "status 0" in text, (text, log())
        assert "found in D3hot, woken; its state is kept" in log(), log()
        assert "reset" not in log(), log()
