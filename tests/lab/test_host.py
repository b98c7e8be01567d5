# SPDX-License-Identifier: BSD-2-Clause
"""Physical devices, handed to guests and taken back: in a machine that plays their host, with the kernel's own VFIO. docs/roads/host.md says what each test shows."""
import contextlib
import re
import shutil
import time

import pytest
from kit import cells, host, server
from kit.host_machine import E1000E, EDU, NVME, PORT, HostMachine

SOCKET = "/run/h0.sock"
HANDOVERS = 200


def with_mutations(folder):
    """A copy of the pintle that has them: the build under test's, or the one beside it. None: there is none."""
    for build in (server.build_folder(), host.TOP / "build-debug"):
        if (build / "pintle").exists() and b"law2.check" in (build / "pintle").read_bytes():
            return shutil.copy(build / "pintle", folder / "pintle-mutations")
    return None


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    programs = [server.build_folder() / f"tests/{name}" for name in ("nvme_lab", "edu_lab")]
    folder = tmp_path_factory.mktemp("host")
    mutations = with_mutations(folder)
    one = HostMachine(folder, programs=programs + ([mutations] if mutations else [])).start().wait_ready()
    one.has_mutations = mutations is not None
    one.run("modprobe nvme; modprobe e1000e; modprobe vfio-pci; modprobe vfio_iommu_type1; sleep 1")
    yield one
    one.kill()


def is_bound(machine, address, driver):
    assert machine.run(f"basename $(readlink {'/sys/bus/pci/devices/' + address}/driver)").strip() == driver


@contextlib.contextmanager
def served(machine, address=NVME, options="", program="pintle", status=0):
    """A server of one device, with its log; ended in order."""
    machine.run(f"pintle bind {address}; rm -f {SOCKET} /run/h0.log")
    machine.run(f"{program} serve --device host,address={address},id=h0{options} --road vfio-user,path={SOCKET}"
                " > /run/h0.log 2>&1 & echo $! > /run/h0.pid")
    machine.run(f"n=0; until [ -S {SOCKET} ] || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done; test -S {SOCKET} || cat /run/h0.log; test -S {SOCKET}")
    try:
        yield lambda: machine.run("cat /run/h0.log")
    finally:
        machine.run("kill $(cat /run/h0.pid) 2> /dev/null; wait $(cat /run/h0.pid); status=$?; "
                    f"[ $status = {status} ] || {{ echo ended with $status; cat /run/h0.log; }}; [ $status = {status} ]")


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
    switches = "cat /proc/$(cat /run/h0.pid)/task/*/status | grep ctxt | awk '{s+=$2} END {print s}'"

    def during(command):
        before = int(machine.run(switches))
        said = machine.run(f"nvme_lab {SOCKET} {command}")
        return said, int(machine.run(switches)) - before

    # Doorbells do not come to the server in this mode, so that nothing is left that could wake it.
    with served(machine, options=",check=off,bars=device-fd"):
        _, idle = during("load 0")
        said, woken = during("load 3")
        commands, interrupts = map(int, re.search(r"(\d+) commands, (\d+) interrupts", said).groups())
        assert interrupts > 1000, said
        assert woken < idle + interrupts / 20, f"{woken} context switches of the server ({idle} without load), {interrupts} interrupts"
        print(f"device-fd: {commands} commands, {interrupts} interrupts, {woken} context switches of the server ({idle} without load)")
        mapped = machine.run(f"nvme_lab {SOCKET} cost 20000")
    # And what the mode without any right of the client costs beside it.
    with served(machine, options=",check=off"):
        said, woken = during("load 3")
        print(f"trap: {said.splitlines()[-1]}, {woken} context switches of the server")
        print(f"mapped: {mapped.splitlines()[-1]}; trap: {machine.run(f'nvme_lab {SOCKET} cost 2000').splitlines()[-1]}")


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
    if not machine.has_mutations:
        pytest.skip("no build with mutations is there: meson setup -Dmutations=true build-debug, ninja -C build-debug")
    with served(machine, program="PINTLE_MUTATE=law2.check pintle-mutations"):
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
    with served(machine, status=137):
        machine.run(f"nvme_lab {SOCKET} die > /run/load.log 2>&1 & client=$!; sleep 2; kill -9 $(cat /run/h0.pid); sleep 1; kill -9 $client; wait $client; true")
    with served(machine):
        machine.run(f"nvme_lab {SOCKET} verify")
    record("server killed")


def test_edu(machine):
    """INTx with unmasking by message and by eventfd, MSI, DMA with and without bus master, and a reset by the bus."""
    with served(machine, EDU) as log:
        said = machine.run(f"edu_lab {SOCKET}")
        assert said.split("\n")[:5] == ["INTx by messages", "INTx by a resample eventfd", "MSI", "DMA", "reset"], said
        # The next client finds it as new, its line down.
        machine.run(f"edu_lab {SOCKET}")
        assert "error" not in log(), log()
    machine.run(f"pintle unbind {EDU}", status=None)


def test_e1000e(machine):
    """A device without FLR, with INTx, MSI, MSI-X and an I/O BAR: what the guest sees, and a handover by the kernel's other methods."""
    assert "flr" not in machine.run(f"cat /sys/bus/pci/devices/{E1000E}/reset_method")
    serial = machine.run(f"dd if=/sys/bus/pci/devices/{E1000E}/config bs=1 skip=$((0x144)) count=8 2>/dev/null | hexdump -v -e '1/1 \"%02x\"'").strip()
    with served(machine, E1000E) as log:
        for _ in range(3):
            text = machine.run(f"pintle probe {SOCKET}")
            assert "MSI-X: Enable-" in text and "Device Serial Number" in text, (text, serial)
        assert "error" not in log() and "quarantined" not in log(), log()
    assert "belongs to e1000e now" in machine.run(f"pintle unbind {E1000E}")


def test_device_fd(machine):
    """The client gets the device's descriptor, which is said; then nobody gets the device before its process has ended."""
    with served(machine, options=",bars=device-fd") as log:
        assert "for a VMM that is trusted as the host is" in log()
        assert "verified" in machine.run(f"nvme_lab {SOCKET} verify")
        machine.run(f"nvme_lab {SOCKET} linger 4 > /run/linger.log 2>&1 & until grep -q gone /run/linger.log; do usleep 20000; done")
        assert "ended" not in machine.run("cat /run/linger.log")
        # Waits in the backlog meanwhile.
        said = machine.run(f"nvme_lab {SOCKET} verify; cat /run/linger.log")
        assert "verified" in said and said.rstrip().endswith("ended"), said
        assert re.search(r"process \d+, which has a descriptor of the device, lives on", log()), log()
        machine.run(f"nvme_lab {SOCKET} die > /run/load.log 2>&1 & sleep 1; kill -9 $!; wait $!; true")
        machine.run(f"nvme_lab {SOCKET} verify")
        # The end of the server does not wait for it.
        machine.run(f"nvme_lab {SOCKET} linger 600 > /run/linger.log 2>&1 & echo $! > /run/linger.pid; until grep -q gone /run/linger.log; do usleep 20000; done")
    machine.run("kill $(cat /run/linger.pid)")


def test_dmabuf_refused(machine):
    text = machine.run(f"pintle bind {NVME}; pintle serve --device host,address={NVME},bars=dmabuf --road vfio-user,path=/run/x.sock", status=None)
    assert "the kernel has no VFIO_DEVICE_FEATURE_DMA_BUF" in text and "use bars=trap" in text, text


def test_host_wants_it_back(machine):
    """Somebody unbinds the driver below: the operator is told, and it ends when the server does."""
    with served(machine) as log:
        machine.run(f"echo {NVME} > /sys/bus/pci/drivers/vfio-pci/unbind & echo $! > /run/unbind.pid; n=0; until grep -q 'wants the device back' /run/h0.log || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
        assert "the host wants the device back" in log(), log()
        machine.run("kill -0 $(cat /run/unbind.pid)")
    machine.run("n=0; while kill -0 $(cat /run/unbind.pid) 2>/dev/null && [ $n -lt 300 ]; do usleep 100000; n=$((n+1)); done; ! kill -0 $(cat /run/unbind.pid) 2>/dev/null")


def test_back_to_the_host(machine):
    assert "belongs to nvme now" in machine.run(f"pintle unbind {NVME}")
    machine.run("n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=8")
    trouble = [line for line in machine.kernel_trouble() if "nvme" in line or "vfio" in line or "BUG" in line]
    assert not trouble, trouble
