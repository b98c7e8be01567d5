# SPDX-License-Identifier: BSD-2-Clause
"""Physical devices, handed to guests and taken back: in a machine that plays their host, with the kernel's own VFIO. docs/roads/host.md says what each test shows."""
import re
import shutil
import time

import pytest
from kit import cells, host, server
from kit.host_machine import BLK, CONTROL, E1000E, EDU, IGB, NVME, PORT, SOCKET, HostMachine

HANDOVERS = 200


def with_mutations(folder):
    """A copy of the pintle that has them: the build under test's, or the one beside it. None: there is none."""
    for build in (server.build_folder(), host.TOP / "build-debug"):
        if (build / "pintle").exists() and b"law2.check" in (build / "pintle").read_bytes():
            return shutil.copy(build / "pintle", folder / "pintle-mutations")
    return None


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    programs = [server.build_folder() / f"tests/{name}" for name in ("nvme_lab", "edu_lab", "virtio_lab")]
    folder = tmp_path_factory.mktemp("host")
    mutations = with_mutations(folder)
    one = HostMachine(folder, programs=programs + ([mutations] if mutations else [])).start().prepare()
    one.has_mutations = mutations is not None
    yield one
    one.kill()


def is_bound(machine, address, driver):
    assert machine.run(f"basename $(readlink {'/sys/bus/pci/devices/' + address}/driver)").strip() == driver


def record(*events):
    for event in events:
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
    record("host-driver")


def test_refused(machine):
    """What cannot be served is refused with a reason and a remedy."""
    text = machine.run(f"pintle serve --device host,address={E1000E} --road vfio-user,path=/run/x.sock", status=None)
    assert f"run `pintle bind {E1000E}`" in text, text
    text = machine.run("pintle serve --device host,address=0000:77:00.0 --road vfio-user,path=/run/x.sock", status=None)
    assert "there is no PCI device 0000:77:00.0" in text, text


def test_io(machine):
    with machine.served() as log:
        text = machine.run(f"pintle probe {SOCKET}")
        assert "non-volatile memory controller" in text and "MSI-X: Enable- Count=65" in text, text
        said = machine.run(f"nvme_lab {SOCKET} verify")
        assert re.search(r"verified, [1-9]\d* interrupts", said), said
        machine.run(f"nvme_lab {SOCKET} load 2")
        assert "error" not in log(), log()
    record("io", "function-mask")


def test_events(machine):
    """What a guest or its VMM does to the function while commands are in flight: all of them end, with the right data; after resets nothing is written any more, and it starts anew."""
    events = ["memory-decode", "bindings", "accesses", "second-client", "flr-under-io", "device-reset-under-io", "vector-mask"]
    with machine.served() as log:
        said = machine.run(f"nvme_lab {SOCKET} events")
        assert said.split("\n")[1:len(events) + 1] == events, said
        assert "error" not in log() and "quarantined" not in log(), log()
    record(*events, "flr")


def test_no_thread_wakes_for_interrupts(machine):
    """Interrupts go from the kernel straight to the client: the server's threads sleep while thousands of them are delivered."""
    switches = "cat /proc/$(cat /run/h0.pid)/task/*/status | grep ctxt | awk '{s+=$2} END {print s}'"

    def during(command):
        before = int(machine.run(switches))
        said = machine.run(f"nvme_lab {SOCKET} {command}")
        return said, int(machine.run(switches)) - before

    # Doorbells do not come to the server in this mode, so that nothing is left that could wake it.
    with machine.served(options=",check=off,bars=device-fd"):
        _, idle = during("load 0")
        said, woken = during("load 3")
        commands, interrupts = map(int, re.search(r"(\d+) commands, (\d+) interrupts", said).groups())
        assert interrupts > 1000, said
        assert woken < idle + interrupts / 20, f"{woken} context switches of the server ({idle} without load), {interrupts} interrupts"
        print(f"device-fd: {commands} commands, {interrupts} interrupts, {woken} context switches of the server ({idle} without load)")
        mapped = machine.run(f"nvme_lab {SOCKET} cost 20000")
    # And what the mode without any right of the client costs beside it.
    with machine.served(options=",check=off"):
        said, woken = during("load 3")
        print(f"trap: {said.splitlines()[-1]}, {woken} context switches of the server")
        print(f"mapped: {mapped.splitlines()[-1]}; trap: {machine.run(f'nvme_lab {SOCKET} cost 2000').splitlines()[-1]}")


def test_secondary_bus_reset(machine):
    """The founding case: a reset behind everyone's back, under load. With law 2 the state is found and restored within the check's second."""
    with machine.served() as log:
        text = machine.run(f"begin nvme_lab {SOCKET} load 6; sbr {PORT[NVME]}; wait $load; cat /run/load.log")
        assert "started again" in text and "commands" in text, text
        assert re.search(r"reset by somebody else: command 0 instead of 0x[0-9a-f]*6, MSI-X off: restored", log()), log()
        machine.run(f"nvme_lab {SOCKET} verify")
    record("bus-reset-under-io")


def test_secondary_bus_reset_without_the_law(machine):
    """The same with nobody looking: the guest's driver cannot bring its device back."""
    if not machine.has_mutations:
        pytest.skip("no build with mutations is there: meson setup -Dmutations=true build-debug, ninja -C build-debug")
    with machine.served(program="PINTLE_MUTATE=law2.check pintle-mutations"):
        text = machine.run(f"begin nvme_lab {SOCKET} load 3 3; sbr {PORT[NVME]}; wait $load; echo status $?; cat /run/load.log")
        assert "status 1" in text and "does not come back" in text, text


def test_handover(machine):
    """Clients go in the middle of I/O; the next one finds nothing of them, and a device that works."""
    with machine.served() as log:
        begin = time.monotonic()
        said = machine.run(f"nvme_lab {SOCKET} handover {HANDOVERS} /sys/bus/pci/devices/{NVME}/config", limit=900)
        assert f"handed over {HANDOVERS} times" in said, said
        assert "quarantined" not in log() and "error" not in log(), log()
        print(f"{HANDOVERS} handovers in {time.monotonic() - begin:.0f} s")
    record("handover")


def test_killed_client(machine):
    with machine.served() as log:
        machine.run(f"begin nvme_lab {SOCKET} die; kill -9 $load; wait $load; true")
        machine.run(f"nvme_lab {SOCKET} verify")
        assert "error" not in log(), log()
    record("vmm-killed")


def test_killed_server(machine):
    """The server is killed under load and started again: the device is clean before it is offered."""
    with machine.served(status=137):
        machine.run(f"begin nvme_lab {SOCKET} die; kill -9 $(cat /run/h0.pid); sleep 1; kill -9 $load; wait $load; true")
    with machine.served():
        machine.run(f"nvme_lab {SOCKET} verify")
    record("server-restarted")


def test_edu(machine):
    """INTx with unmasking by message and by eventfd, MSI, DMA with and without bus master, and a reset by the bus."""
    with machine.served(EDU) as log:
        said = machine.run(f"edu_lab {SOCKET}")
        assert said.split("\n")[:5] == ["INTx by messages", "INTx by a resample eventfd", "MSI", "DMA", "reset"], said
        # The next client finds it as new, its line down.
        machine.run(f"edu_lab {SOCKET}")
        assert "error" not in log(), log()
    machine.run(f"pintle unbind {EDU}", status=None)
    record("bus-master", "d3hot", "interrupt-mode", "device-reset")


def test_faults(machine):
    """Each fault on demand happens on a physical device too, or is refused with a reason; and so do the operator's resets, removal and plug."""
    with machine.served(EDU) as log:
        said = machine.run(f"edu_lab {SOCKET} faults {CONTROL}")
        assert [line for line in said.splitlines() if ":" not in line] == ["interrupts", "memory", "resets", "removed"], said
        refusals = dict(line.split(": ", 1) for line in said.splitlines() if ":" in line)
        assert "in its hardware, and only a reset takes it" in refusals["h0 backdoor-reset --kind msix-table"], said
        for fault in ("slow --time 1s", "fail", "heal"):
            assert "no back end of ours" in refusals[f"h0 {fault}"], said
        # Its client has gone: it can be plugged, and is as new.
        machine.run(f"pintle ctl --socket {CONTROL} plug h0")
        machine.run(f"edu_lab {SOCKET}")
        assert "error" not in log(), log()
    machine.run(f"pintle unbind {EDU}", status=None)
    record("injected-bus-master", "injected-stop", "injected-mapping-withdrawn", "injected-lost-interrupt", "injected-spurious-interrupt", "injected-backdoor-reset", "bus-reset",
           "surprise-removal-plugged")


FAULTS = """at 100ms h0 stop
at 120ms h0 continue
at 1500ms h0 bus-master-off
at 1520ms h0 bus-master-on
at 3000ms h0 withdraw-mapping pick=0 size=1048576 for=20ms
every 10ms..40ms random h0 spurious-interrupt vector=0..1
every 50ms..100ms random h0 backdoor-reset kind=unannounced
end 4500ms
"""


def test_faults_under_load(machine):
    """The driver goes on over all of it: what takes a device from memory it notices, and starts it again."""
    ctl = f"pintle ctl --socket {CONTROL}"
    with machine.served() as log:
        script = FAULTS.replace("\n", "\\n")
        said = machine.run(f"begin nvme_lab {SOCKET} load 6; "
                           f"printf '{script}' | pintle inject --socket {CONTROL} --script - --seed 1 > /run/script.log 2>&1; script=$?; wait $load; echo status $? $script; cat /run/load.log")
        assert "status 0 0" in said, said
        assert "pintle inject" not in machine.run("cat /run/script.log")
        # A connection that is cut, and a device that is taken by force.
        for command in (f"pintle inject --socket {CONTROL} h0 cut", f"{ctl} unplug h0 --force"):
            machine.run(f"begin nvme_lab {SOCKET} die; {command}; wait $load; [ $? = 1 ]")
            machine.run(f"{ctl} plug h0", status=0 if "unplug" in command else 1)
            machine.run(f"nvme_lab {SOCKET} verify")
        machine.run(f"n=0; until {ctl} list | grep -q free || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done")
        shown = machine.run(f"{ctl} show h0; {ctl} check h0; {ctl} list; {ctl} metrics")
        assert "hardware: ready" in shown and "found: no" in shown, shown
        assert "error" not in log() and "quarantined" not in log(), log()
    record("connection-lost", "unplug-forced-plugged")


def test_virtio_blk(machine):
    """A virtio disk that goes by the host's IOMMU: MSI-X and INTx, FLR and DEVICE_RESET in the middle of I/O, a reset that nobody announces, a killed client."""
    with machine.served(BLK) as log:
        assert "VirtIO common configuration" in machine.run(f"pintle probe {SOCKET}")
        for mode in ("msix", "intx"):
            assert machine.run(f"virtio_lab {SOCKET} try {mode}").split("\n")[:3] == ["I/O", "FLR", "DEVICE_RESET"]
        machine.run(f"begin virtio_lab {SOCKET} die; kill -9 $load; wait $load; true")
        said = machine.run(f"virtio_lab {SOCKET} over msix '. /lab/setup; sleep 1; sbr {PORT[BLK]}'")
        assert re.search("started anew [1-9]", said), said
        assert re.search("reset by somebody else: .*: restored", log()), log()
        assert "error" not in log() and "quarantined" not in log(), log()
    with machine.served(BLK) as log:
        # By INTx the unmasking may meet the bus in the middle of its reset; it is reset once more then.
        said = machine.run(f"virtio_lab {SOCKET} over intx '. /lab/setup; sleep 1; sbr {PORT[BLK]}'")
        assert re.search("started anew [1-9]", said) and "quarantined" not in log(), (said, log())
    assert "belongs to virtio-pci now" in machine.run(f"pintle unbind {BLK}")
    record("flr-under-io", "device-reset-under-io")


@pytest.mark.parametrize("address, driver, methods", [(E1000E, "e1000e", "pm bus"), (IGB, None, "flr pm bus")], ids=["e1000e", "igb"])
def test_network(machine, address, driver, methods):
    """What the guest sees of network devices, with INTx, MSI, MSI-X, an I/O BAR and a serial number; one has no FLR: a handover by the kernel's other methods. In use: test_host_guest.py."""
    assert machine.run(f"cat /sys/bus/pci/devices/{address}/reset_method").strip() == methods
    with machine.served(address) as log:
        for _ in range(3):
            text = machine.run(f"pintle probe {SOCKET}")
            assert "MSI-X: Enable-" in text and "MSI: Enable-" in text and ("Device Serial Number" if driver else "FLReset+") in text, text
        assert "error" not in log() and "quarantined" not in log(), log()
    said = machine.run(f"pintle unbind {address}")
    assert not driver or f"belongs to {driver} now" in said, said


def test_escalation(machine):
    """A reset that fails is followed by the next method, by its name; a server that is killed in the middle of that leaves a narrowed list behind, which the next one mends."""
    methods = f"/sys/bus/pci/devices/{NVME}/reset_method"
    # For the kernel there is no way to reset it any more, so that the first reset fails. The server knows how it was.
    narrow = f"until pintle ctl --socket {CONTROL} show h0 | grep -q 'attached: yes'; do usleep 10000; done; echo > {methods}"
    die = f"begin nvme_lab {SOCKET} die; {narrow}; kill -9 $load; wait $load"
    before = machine.run(f"pintle bind {NVME} > /dev/null; cat {methods}").strip()
    assert before == "flr bus"
    with machine.served() as log:
        machine.run(f"{die}; nvme_lab {SOCKET} verify")
        assert re.search("came back after [2-9] tries", log()), log()
        assert machine.run(f"cat {methods}").strip() == before
    with machine.served(status=137):
        machine.run(f"{die}; until read word < {methods} && [ $word = flr ]; do :; done; kill -9 $(cat /run/h0.pid); true")
        assert machine.run(f"cat {methods}").strip() == "flr"
    with machine.served():
        assert machine.run(f"cat {methods}").strip() == before
        machine.run(f"nvme_lab {SOCKET} verify")


def test_device_fd(machine):
    """The client gets the device's descriptor, which is said; then nobody gets the device before its process has ended."""
    with machine.served(options=",bars=device-fd") as log:
        assert "for a VMM that is trusted as the host is" in log()
        assert "verified" in machine.run(f"nvme_lab {SOCKET} verify")
        machine.run(f"nvme_lab {SOCKET} linger 4 > /run/linger.log 2>&1 & until grep -q gone /run/linger.log; do usleep 20000; done")
        assert "ended" not in machine.run("cat /run/linger.log")
        # Waits in the backlog meanwhile.
        said = machine.run(f"nvme_lab {SOCKET} verify; cat /run/linger.log")
        assert "verified" in said and said.rstrip().endswith("ended"), said
        assert re.search(r"process \d+, which has a descriptor of the device, lives on", log()), log()
        machine.run(f"begin nvme_lab {SOCKET} die; kill -9 $load; wait $load; true")
        machine.run(f"nvme_lab {SOCKET} verify")
        # The end of the server does not wait for it.
        machine.run(f"nvme_lab {SOCKET} linger 600 > /run/linger.log 2>&1 & echo $! > /run/linger.pid; until grep -q gone /run/linger.log; do usleep 20000; done")
    machine.run("kill $(cat /run/linger.pid)")


def test_dmabuf_refused(machine):
    text = machine.run(f"pintle bind {NVME}; pintle serve --device host,address={NVME},bars=dmabuf --road vfio-user,path=/run/x.sock", status=None)
    # Linux 6.19 and later have the feature, but a dma-buf of theirs cannot be mapped.
    assert re.search("the kernel (has no VFIO_DEVICE_FEATURE_DMA_BUF|.* lets no process map them)", text) and "use bars=trap" in text, text


def test_host_wants_it_back(machine):
    """Somebody unbinds the driver below: the operator is told, and it ends when the server does."""
    with machine.served() as log:
        machine.run(f"echo {NVME} > /sys/bus/pci/drivers/vfio-pci/unbind & echo $! > /run/unbind.pid; n=0; until grep -q 'wants the device back' /run/h0.log || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
        assert "the host wants the device back" in log(), log()
        machine.run("kill -0 $(cat /run/unbind.pid)")
    machine.run("n=0; while kill -0 $(cat /run/unbind.pid) 2>/dev/null && [ $n -lt 300 ]; do usleep 100000; n=$((n+1)); done; ! kill -0 $(cat /run/unbind.pid) 2>/dev/null")


def test_back_to_the_host(machine):
    assert "belongs to nvme now" in machine.run(f"pintle unbind {NVME}")
    machine.run("n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=8")
    trouble = [line for line in machine.kernel_trouble() if "nvme" in line or "vfio" in line or "BUG" in line]
    assert not trouble, trouble
