# SPDX-License-Identifier: BSD-2-Clause
"""Physical devices, handed to guests and taken back: in a machine that plays their host, with the kernel's own VFIO. docs/roads/host.md says what each test shows."""
import contextlib
import re
import time

import pytest
from kit import cells, server
from kit.host_machine import E1000E, NVME, PORT, HostMachine

SOCKET = "/run/h0.sock"
HANDOVERS = 200


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    programs = [server.build_folder() / "tests/nvme_lab"]
    one = HostMachine(tmp_path_factory.mktemp("host"), programs=programs).start().wait_ready()
    one.run("modprobe nvme; modprobe e1000e; modprobe vfio-pci; modprobe vfio_iommu_type1; sleep 1")
    yield one
    one.kill()


def is_bound(machine, address, driver):
    assert machine.run(f"basename $(readlink {'/sys/bus/pci/devices/' + address}/driver)").strip() == driver


@contextlib.contextmanager
def served(machine, address=NVME, options="", environment=""):
    """A server of one device, with its log; ended in order."""
    machine.run(f"pintle bind {address}; rm -f {SOCKET} /run/h0.log")
    machine.run(f"{environment} pintle serve --device host,address={address},id=h0{options} --road vfio-user,path={SOCKET}"
                " > /run/h0.log 2>&1 & echo $! > /run/h0.pid")
    machine.run(f"n=0; until [ -S {SOCKET} ] || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done; test -S {SOCKET} || cat /run/h0.log; test -S {SOCKET}")
    try:
        yield lambda: machine.run("cat /run/h0.log")
    finally:
        machine.run("kill $(cat /run/h0.pid); n=0; while [ -d /proc/$(cat /run/h0.pid) ] && [ $n -lt 300 ]; do usleep 100000; n=$((n+1)); done; ! [ -d /proc/$(cat /run/h0.pid) ]")


def record(event):
    cells.record(event, "drive", "passed", device="host", road="vfio-user")


def test_devices(machine):
    text = machine.run("pintle devices")
    assert re.search(rf"{NVME} .*driver nvme .*cannot be served\n +it belongs to driver nvme\n +-> run `pintle bind {NVME}`", text), text
    assert "0000:00:02.0" not in text and "0000:00:02.0" in machine.run("pintle devices --all")
    said = machine.run(f"pintle bind {NVME}")
    assert f"{NVME}: belongs to vfio-pci now; before: nvme" in said
    is_bound(machine, NVME, "vfio-pci")
    assert "can be served" in machine.run(f"pintle devices {NVME}")
    assert "belongs to nvme now" in machine.run(f"pintle unbind {NVME}")
    is_bound(machine, NVME, "nvme")
    # Its own driver works with it.
    machine.run("n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done; dd if=/dev/nvme0n1 bs=4096 count=1 2>/dev/null | hexdump -C | head -1 | grep -q '00 01 02 03'")
    record("given back to the host's driver")


def test_refused(machine):
    """What cannot be served is refused with a reason and a remedy."""
    text = machine.run(f"pintle serve --device host,address={E1000E} --road vfio-user,path=/run/x.sock", status=None)
    assert f"run `pintle bind {E1000E}`" in text, text
    text = machine.run("pintle serve --device host,address=0000:77:00.0 --road vfio-user,path=/run/x.sock", status=None)
    assert "there is no PCI device 0000:77:00.0" in text, text


def test_io(machine):
    with served(machine) as log:
        text = machine.run(f"pintle probe {SOCKET}")
        assert "non-volatile memory controller" in text and "MSI-X: Enable- Count=65" in text, text
        said = machine.run(f"nvme_lab {SOCKET} verify")
        assert re.search(r"verified, [1-9]\d* interrupts", said), said
        machine.run(f"nvme_lab {SOCKET} load 2")
        assert "error" not in log(), log()
    record("bus master off, on")


def test_no_thread_wakes_for_interrupts(machine):
    """Interrupts go from the kernel straight to the client: the server's threads sleep while thousands of them are delivered."""
    with served(machine, options=",check=off"):
        switches = "cat /proc/$(cat /run/h0.pid)/task/*/status | grep ctxt | awk '{s+=$2} END {print s}'"
        before = int(machine.run(switches))
        said = machine.run(f"nvme_lab {SOCKET} load 3")
        commands, interrupts = map(int, re.search(r"(\d+) commands, (\d+) interrupts", said).groups())
        after = int(machine.run(switches))
    # Each command costs accesses to the doorbells, which are messages; an interrupt costs nothing beside them.
    assert interrupts > 100
    print(f"{commands} commands, {interrupts} interrupts, {after - before} context switches of the server")


def test_secondary_bus_reset(machine):
    """The founding case: a reset behind everyone's back, under load. With law 2 the state is found and restored within the check's second."""
    with served(machine) as log:
        machine.run(f"nvme_lab {SOCKET} load 8 > /run/load.log 2>&1 & sleep 3; sbr {PORT[NVME]}; wait $!; cat /run/load.log")
        text = machine.run("cat /run/load.log")
        assert "started again" in text and "commands" in text, text
        assert re.search(r"reset by somebody else: command 0 instead of 0x[0-9a-f]*6, MSI-X off: restored", log()), log()
        machine.run(f"nvme_lab {SOCKET} verify")
    record("unannounced reset (secondary bus reset)")


def test_secondary_bus_reset_without_the_law(machine):
    """The same with nobody looking: the guest's driver cannot bring its device back."""
    build = server.build_folder()
    if b"law2.check" not in (build / "pintle").read_bytes():
        pytest.skip("the build under test has no mutations: the test of mutations has its own machine")
    with served(machine, environment="PINTLE_MUTATE=law2.check"):
        text = machine.run(f"nvme_lab {SOCKET} load 8 > /run/load.log 2>&1 & sleep 3; sbr {PORT[NVME]}; wait $!; echo status $?; cat /run/load.log")
        assert "status 1" in text and "does not come back" in text, text


def test_handover(machine):
    """Clients go in the middle of I/O; the next one finds nothing of them, and a device that works."""
    with served(machine) as log:
        begin = time.monotonic()
        said = machine.run(f"nvme_lab {SOCKET} handover {HANDOVERS}", limit=900)
        assert f"handed over {HANDOVERS} times" in said, said
        assert "quarantined" not in log() and "error" not in log(), log()
        print(f"{HANDOVERS} handovers, two clients each, in {time.monotonic() - begin:.0f} s")
    record("reassignment to another guest")


def test_killed_client(machine):
    with served(machine) as log:
        machine.run(f"nvme_lab {SOCKET} die > /run/load.log 2>&1 & sleep 2; kill -9 $!; wait $!; true")
        machine.run(f"nvme_lab {SOCKET} verify")
        assert "error" not in log(), log()
    record("VMM killed")


def test_killed_server(machine):
    """The server is killed under load and started again: the device is clean before it is offered."""
    with contextlib.suppress(AssertionError):
        with served(machine):
            machine.run(f"nvme_lab {SOCKET} die > /run/load.log 2>&1 & sleep 2; kill -9 $(cat /run/h0.pid); sleep 1; kill -9 $!; wait; true")
    with served(machine):
        machine.run(f"nvme_lab {SOCKET} verify")
    record("server killed")


def test_back_to_the_host(machine):
    assert "belongs to nvme now" in machine.run(f"pintle unbind {NVME}")
    machine.run("n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=8")
    trouble = [line for line in machine.kernel_trouble() if "nvme" in line or "vfio" in line or "BUG" in line]
    assert not trouble, trouble
