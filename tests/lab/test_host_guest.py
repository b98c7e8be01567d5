# SPDX-License-Identifier: BSD-2-Clause
"""A real guest on a physical device: in the machine that plays the host runs a QEMU of its own, by KVM, whose stock kernel has the NVMe controller that is served there."""
import re

import pytest
from kit import cells, nested
from kit.host_machine import NVME, PORT, HostMachine

SOCKET = "/run/h0.sock"
DEVICE = f"""-device '{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":"{SOCKET}"}}}}'"""
# Commands that were lost with the controller's state are given again after so many seconds, not after the usual 30.
MODULES = "modprobe nvme_core io_timeout=4 admin_timeout=4; modprobe nvme; n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done"
READ = "dd if=/dev/nvme0n1 bs=4096 count=1 2>/dev/null | hexdump -C | head -1"


@pytest.fixture
def machine(tmp_path):
    image = nested.disk(tmp_path / "nest.img")
    one = HostMachine(tmp_path, megabytes=1536, more_devices=["-drive", f"if=none,id=nest,file={image},format=raw,read-only=on",
                                                              "-device", "virtio-blk-pci,drive=nest,bus=pcie.0,addr=10"])
    functions = tmp_path / "inner"
    functions.write_text(nested.FUNCTIONS)
    one.files.append((functions, "lab/inner"))
    one.start().wait_ready()
    one.run("modprobe virtio_blk; modprobe ext4; modprobe vfio-pci; modprobe vfio_iommu_type1; modprobe kvm_amd; "
            "n=0; until [ -b /dev/vda ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done; mount -o ro /dev/vda /mnt; [ -c /dev/kvm ]")
    one.run(". /lab/inner")
    yield one
    one.kill()


def guest_works(machine, written):
    """What the image holds, and what was written before, are there."""
    machine.run(f"inner '{MODULES}'")
    assert "00 01 02 03 04 05 06 07" in machine.run(f"inner '{READ}'")
    assert written in machine.run("inner 'echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/nvme0n1 bs=4096 skip=2048 count=1 2>/dev/null | head -c 40'")


def test_guest(machine):
    machine.run(f"pintle bind {NVME}; pintle serve --device host,address={NVME},id=h0 --road vfio-user,path={SOCKET} > /run/h0.log 2>&1 & echo $! > /run/h0.pid")
    machine.run(f"n=0; until [ -S {SOCKET} ] || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done; [ -S {SOCKET} ] || cat /run/h0.log; [ -S {SOCKET} ]")
    machine.run(f"inner_start {DEVICE}; s=$?; cat /run/inner.qemu; (exit $s)")
    machine.run(f"inner '{MODULES}'")
    machine.run("inner 'printf %-4096s written-by-a-guest | dd of=/dev/nvme0n1 bs=4096 seek=2048 count=1 conv=fsync,notrunc 2>/dev/null'")
    guest_works(machine, "written-by-a-guest")

    # A secondary bus reset that nobody announces, while the guest reads: it goes on, and what is found is told.
    machine.run("inner 'echo 0 > /tmp/reads; (while dd if=/dev/nvme0n1 of=/dev/null bs=4096 count=16 skip=$((RANDOM % 4000)) 2>/dev/null; do echo 3 > /proc/sys/vm/drop_caches; "
                "echo $(($(cat /tmp/reads) + 1)) > /tmp/reads.new; mv /tmp/reads.new /tmp/reads; done; echo failed > /tmp/reads) > /dev/null 2>&1 &'")
    machine.run("inner 'until [ $(cat /tmp/reads) -gt 20 ]; do usleep 50000; done'")
    machine.run(f"sbr {PORT[NVME]}")
    machine.run("n=0; until grep -q restored /run/h0.log || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
    log = machine.run("cat /run/h0.log")
    assert re.search(r"reset by somebody else: .*: restored", log), log
    machine.run("inner 'now=$(cat /tmp/reads); until [ $(cat /tmp/reads) -gt $((now + 20)) ]; do usleep 50000; done; kill $!'")
    guest_works(machine, "written-by-a-guest")
    cells.record("unannounced reset (secondary bus reset)", "x86-64 6.12", "passed", device="host")

    # The guest starts anew.
    machine.run("echo '0 reboot -f' >&3; inner_ready")
    guest_works(machine, "written-by-a-guest")
    cells.record("guest reboot", "x86-64 6.12", "passed", device="host")

    # Its VMM is killed, another one gets the device.
    machine.run("inner '(dd if=/dev/nvme0n1 of=/dev/null bs=1M > /dev/null 2>&1) &'; kill -9 $(cat /run/inner.pid); wait $(cat /run/inner.pid); true")
    machine.run(f"inner_start {DEVICE}; s=$?; cat /run/inner.qemu; (exit $s)")
    guest_works(machine, "written-by-a-guest")
    cells.record("VMM killed", "x86-64 6.12", "passed", device="host")

    machine.run("kill -9 $(cat /run/inner.pid); wait $(cat /run/inner.pid); kill $(cat /run/h0.pid); wait $(cat /run/h0.pid)")
    log = machine.run("cat /run/h0.log")
    assert "error" not in log, log
    # The host's own driver finds what the guest has written.
    machine.run(f"modprobe nvme; pintle unbind {NVME}; n=0; until [ -b /dev/nvme0n1 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
    assert "written-by-a-guest" in machine.run("dd if=/dev/nvme0n1 bs=4096 skip=2048 count=1 2>/dev/null | head -c 40")
