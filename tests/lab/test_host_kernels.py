# SPDX-License-Identifier: BSD-2-Clause
"""The essence of test_host.py on an older kernel of the host: without vectors that can be added one by one, and without a pidfd of the process that has connected."""
import re

import pytest
from kit import cells, server
from kit.host_machine import BLK, EDU, NVME, PORT, SOCKET, HostMachine


@pytest.fixture
def machine(tmp_path):
    one = HostMachine(tmp_path, "bookworm", programs=[server.build_folder() / f"tests/{name}" for name in ("nvme_lab", "edu_lab", "virtio_lab")])
    yield one.start().prepare()
    one.kill()


def test_bookworm(machine):
    assert machine.run("uname -r").startswith("6.1.")
    with machine.served() as log:
        assert re.search(r"verified, [1-9]\d* interrupts", machine.run(f"nvme_lab {SOCKET} verify"))
        said = machine.run(f"begin nvme_lab {SOCKET} load 4; sbr {PORT[NVME]}; wait $load; echo status $?; cat /run/load.log")
        assert "status 0" in said and "started again" in said, said
        assert re.search(r"reset by somebody else: command 0 instead of 0x[0-9a-f]*6, MSI-X off: restored", log()), log()
        machine.run(f"nvme_lab {SOCKET} handover 5 /sys/bus/pci/devices/{NVME}/config")
        machine.run(f"begin nvme_lab {SOCKET} die; kill -9 $load; wait $load; true")
        machine.run(f"nvme_lab {SOCKET} verify")
        assert "error" not in log() and "quarantined" not in log(), log()
    with machine.served(options=",bars=device-fd") as log:
        machine.run(f"nvme_lab {SOCKET} linger 3 > /run/linger.log 2>&1 & until grep -q gone /run/linger.log; do usleep 20000; done")
        said = machine.run(f"nvme_lab {SOCKET} verify; cat /run/linger.log")
        assert "verified" in said and said.rstrip().endswith("ended"), said
    with machine.served(BLK) as log:
        for mode in ("msix", "intx"):
            assert "DEVICE_RESET" in machine.run(f"virtio_lab {SOCKET} try {mode}")
        assert "error" not in log(), log()
    with machine.served(EDU) as log:
        assert "reset" in machine.run(f"edu_lab {SOCKET}")
        assert "error" not in log(), log()
    assert "belongs to nvme now" in machine.run(f"pintle unbind {NVME}")
    machine.run("n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=8")
    trouble = [line for line in machine.kernel_trouble() if "nvme" in line or "vfio" in line or "BUG" in line]
    assert not trouble, trouble
    for event in ("io", "function-mask", "bus-reset-under-io", "handover", "vmm-killed", "flr-under-io", "device-reset-under-io", "bus-master", "d3hot", "interrupt-mode", "device-reset",
                  "host-driver"):
        cells.record(event, "drive, host 6.1", "passed", device="host")
