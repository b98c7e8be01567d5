# SPDX-License-Identifier: BSD-2-Clause
"""The build under test as the back end of Xen guests' PCI devices, and the events that only it is put through."""
import json

from . import host
from .xen_events import BOTH, DISK
from .xen_machine import E1000E, NVME

IDS = {NVME: "disk0", E1000E: "net0"}
# Handovers in a row, on each release, of a device whose guest has set mask-all and whose interrupts are bound.
HANDOVERS = 10
CTL = "pintle ctl --socket /run/pintle.control"


class PintleBackend:
    """`pintle serve --road xen` with both devices."""

    name = "pintle"

    def __init__(self, machine, program="pintle", environment=""):
        self.machine, self.program, self.environment = machine, program, environment

    def start(self):
        self.machine.run(f"pintle xen setup {' '.join(BOTH)}")
        self.serve()

    def serve(self):
        devices = " ".join(f"--device host-xen,id={IDS[address]},address={address} --road xen" for address in BOTH)
        self.machine.run(f"{self.environment} {self.program} serve {devices} --control path=/run/pintle.control >> /run/pintle.log 2>&1 & echo $! > /run/pintle.pid")
        self.alive()

    def alive(self):
        if self.machine.run("usleep 300000; kill -0 $(cat /run/pintle.pid); echo $?").split()[-1] != "0":
            raise host.LabError(f"the server ended:\n{self.words()}")

    def assignable(self):
        """Both are offered: nobody has them, and they are clean."""
        wanted = "; ".join(f"xl pci-assignable-list | grep -q {address} || good=" for address in BOTH)
        self.machine.run(f"n=0; while good=1; {wanted}; [ -z $good ] && [ $n -lt 300 ]; do usleep 100000; n=$((n+1)); done; [ -n \"$good\" ]")

    def kill(self, signal="KILL"):
        self.machine.run(f"kill -{signal} $(cat /run/pintle.pid); wait $(cat /run/pintle.pid)", status=None)

    def renew(self):
        self.kill()
        self.serve()

    def words(self):
        return self.machine.run("tail -n 60 /run/pintle.log", status=None)


def killed_under_load(bench):
    """SIGKILL in the middle of I/O, and a new process: the guest's drivers notice nothing."""
    name = bench.guest()
    before = bench.check(name)
    bench.machine.on(name, "dmesg -c > /dev/null; (while :; do disk_sum; done > /run/sums) & echo $! > /run/load; until [ $(cat /run/sums | wc -l) -gt 1 ]; do usleep 100000; done")
    for _ in range(3):
        bench.backend.kill()
        bench.machine.on(name, "n=$(cat /run/sums | wc -l); until [ $(cat /run/sums | wc -l) -gt $((n + 1)) ]; do usleep 100000; done")
        bench.backend.serve()
    # What the driver asks of the new process.
    bench.machine.on(name, "f=$(function_of 0x0108); cfg $f 0 4")
    sums = set(bench.machine.on(name, "kill $(cat /run/load); cat /run/sums").split())
    if sums != {bench.machine.disk_sum()}:
        return f"wrong data: {sums}"
    # A slow machine has its own, of clocks.
    complaints = bench.machine.on(name, "dmesg | grep -iE 'nvme|e1000e|pci|error|timeout|bug|warning|trace'", status=None).strip()
    after = bench.check(name)
    return after if after == before and not complaints else f"{before}, then {after} {complaints}"


def handovers(bench):
    """Mask-all set, interrupts bound, and the device taken away by force and given to another guest, over and over."""
    if len(bench.alive) != 2 or not bench.holder(NVME):
        bench.guest(DISK)
        bench.another(())
    names = sorted(bench.alive, key=lambda name: NVME not in bench.alive[name])
    bench.detach_one(names[0], NVME)
    bench.attach_one(names[0], NVME, ",permissive=1")
    for number in range(HANDOVERS):
        name = names[number % 2]
        outcome = f"nvme {bench.disk(name, 1)}"
        if outcome != "nvme MSI-X":
            return f"{outcome} after {number} handovers"
        bench.machine.on(name, "f=$(function_of 0x0108); set_msix $f $((0x$(msix $f) | 0xc000))")
        if not int(bench.machine.run(f"msix {NVME}"), 16) & 0x4000:
            return "the bit could not be set"
        if not json.loads(bench.machine.run(f"{CTL} --json show {IDS[NVME]}"))["host-xen"]["pirqs"]:
            return "failed: nothing is bound"
        bench.machine.run(f"{CTL} unplug {IDS[NVME]} --force && xl pci-detach {name} {NVME} && {CTL} plug {IDS[NVME]}")
        bench.alive[name] = tuple(one for one in bench.alive[name] if one != NVME)
        bench.attach_one(names[(number + 1) % 2], NVME, ",permissive=1")
    return f"nvme MSI-X, {HANDOVERS} times"
