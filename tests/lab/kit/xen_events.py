# SPDX-License-Identifier: BSD-2-Clause
"""
What happens to a PCI device of a Xen guest, one event after the other in one machine, with one back end: the kernel's xen-pciback, or the build under test. Each event tells in a word or two how the devices
were afterwards: the way their interrupts come, or what was wrong.
"""
import contextlib
import json
import os
import re
import time

from . import host
from .xen_machine import E1000E, NVME, TOOLSTACK

# Of guests that die, one device: libxl waits ten seconds for the front end to give back each that is not the last.
DISK, NET, BOTH = (NVME,), (E1000E,), (NVME, E1000E)
RECORD = os.environ.get("PINTLE_XEN_RECORD")
EVENTS = []
SAVED = "saved and restored with the devices"
# In a guest, for what may hang there.
CHECK_LIMIT = 40
TROUBLE = re.compile("refused|failed|missing|hangs|silent|no interrupts|crash|wrong|not be set|left bound")


class Refused(host.LabError):
    """`xl` does not give the device."""


def event(keys, name, *suites):
    """Registers an event, with its keys in the lifecycle matrix, and the releases on which it is tried in every run: none named are all. They happen in this order."""
    def register(function):
        EVENTS.append((keys, name, function, suites))
        return function
    return register


class KernelBackend:
    """xen-pciback, as `xl` sets it up."""

    name = "xen-pciback"

    def __init__(self, machine):
        self.machine = machine

    def start(self):
        self.machine.run("modprobe xen-pciback")
        for address in BOTH:
            self.machine.run(f"xl pci-assignable-add {address}")

    def renew(self):
        """After an event that has left a device unusable."""
        for address in BOTH:
            self.machine.run(f"xl pci-assignable-remove {address}; xl pci-assignable-add {address}", status=None)

    def words(self):
        return self.machine.run("dmesg | grep -i pciback | tail -n 30", status=None)


class Bench:
    """A machine with a back end, and guests by name."""

    def __init__(self, machine, backend):
        self.machine, self.backend = machine, backend
        # The devices of each guest that is there.
        self.alive = {}
        self.outcomes, self.seconds, self.troubles = {}, {}, {}

    def create(self, name, pci=BOTH, options=""):
        said = self.machine.create(name, 'on_reboot="restart"', 'on_crash="restart"', pci=[address + options for address in pci], wait=False, status=None)
        self.refused(said)
        self.alive[name] = pci
        self.machine.guest_ready(name)

    @staticmethod
    def refused(said):
        """Has xl complained?"""
        for pattern in (r"xc_assign_device failed: (.*)", r"is (not assignable)", r"error: (.*)"):
            found = re.search(pattern, said)
            if found:
                raise Refused(f"refused ({found[1].strip()})")

    def detach(self, name, force=False):
        for address in self.alive[name]:
            self.machine.run(f"xl pci-detach {'-f ' if force else ''}{name} {address}", status=None if force else 0)

    def attach(self, name):
        for address in self.alive[name]:
            self.refused(self.machine.run(f"xl pci-attach {name} {address}", status=None))

    def save(self, name):
        """Saved to a file and restored from it. What became of the guest, if it is not in order."""
        self.machine.run(f"xl save {name} /run/{name}.save > /dev/null 2>&1")
        said = self.machine.run(f"xl restore /run/{name}.save 2>&1; rm -f /run/{name}.save; guest_find {name} 20 || echo error: it is gone", status=None)
        for _ in range(10):
            if self.machine.run(f"seconds=3; on {name} true; echo $?").split()[-1] == "0":
                return None
            if self.crashed(name):
                return "guest crashes"
        return "failed: " + said.strip().split("\n")[-1]

    def guest_words(self, name):
        return self.machine.run(f"tail -n 100 /var/log/xen/guest-{name}.log", status=None)

    def crashed(self, name):
        return re.search("Oops|BUG|general protection|end trace", self.guest_words(name))

    def kernel_words(self, name):
        """The guest's own kernel, if the guest still answers."""
        return self.machine.on(name, "dmesg | tail -n 30", 10, status=None)

    def tell(self, name, command):
        """A command to a guest that will not answer it."""
        self.machine.run(f"echo '0 {command}' > $(cat /run/{name}.tty)")

    def guest(self, pci=BOTH):
        """One that has these devices, with none beside it: the one that is there, less what it has too many, or a new one."""
        if len(self.alive) == 1 and set(pci) <= set(*self.alive.values()):
            name, = self.alive
            for address in set(self.alive[name]) - set(pci):
                self.detach_one(name, address)
        else:
            self.destroy()
            name = self.another(pci)
        return name

    def another(self, pci, options=""):
        """A new guest."""
        name = next(name for name in "abcd" if name not in self.alive)
        self.create(name, pci, options)
        return name

    def first(self, pci):
        """A guest with devices that were nobody's before, or that it had already: all is well with it, whatever law is off."""
        try:
            name = self.guest(pci)
        except Refused as error:
            raise host.LabError(f"the first guest: {error}") from None
        outcome = self.check(name)
        if TROUBLE.search(outcome):
            raise host.LabError(f"the first guest: {outcome}")
        return name

    def pair(self):
        """Two guests, one with the disk, the other, permissive, with the network card."""
        disk = self.guest(DISK)
        return disk, self.another(NET, ",permissive=1")

    def holder(self, address):
        return next((name for name, pci in self.alive.items() if address in pci), None)

    def detach_one(self, name, address):
        self.machine.run(f"xl pci-detach {name} {address}")
        self.alive[name] = tuple(one for one in self.alive[name] if one != address)

    def attach_one(self, name, address, options=""):
        self.alive[name] = tuple(one for one in BOTH if one == address or one in self.alive[name])
        self.refused(self.machine.run(f"xl pci-attach {name} {address}{options}", status=None))

    def destroy(self, *names):
        for name in names or sorted(self.alive):
            self.machine.destroy(name)
            self.alive.pop(name, None)

    def check(self, name):
        words = [f"nvme {self.disk(name)}"] if NVME in self.alive[name] else []
        if words == ["nvme hangs"]:
            return "guest hangs"
        if E1000E in self.alive[name]:
            words.append(f"e1000e {self.net(name)}")
        return ", ".join(words)

    def disk(self, name, megabytes=4):
        said = self.machine.on(name, f"check_disk {megabytes}", CHECK_LIMIT, status=None)
        found = re.search(r"^disk (\S+)(?: (\S+) (\d+))?$", said, re.MULTILINE)
        if not found:
            return "hangs"
        if found[2] and found[2] != self.machine.disk_sum(megabytes):
            return "wrong data"
        return "no interrupts" if found[3] == "0" else found[1]

    def net(self, name):
        said = self.machine.on(name, "check_net", CHECK_LIMIT, status=None)
        found = re.search(r"^net (\S+)(?: (\d+))?$", said, re.MULTILINE)
        if not found:
            return "hangs"
        return "no interrupts" if found[2] == "0" else found[1]

    def attempt(self, name, function):
        begin = time.monotonic()
        try:
            outcome = function(self)
        except Refused as error:
            outcome = str(error)
        except host.LabError as error:
            outcome = "failed: " + str(error).split("\n")[0]
            self.troubles[name] = f"{error}\n--- back end: {self.backend.words()}"
        # What follows starts from guests and devices that are in order.
        if TROUBLE.search(outcome):
            self.troubles.setdefault(name, f"--- back end: {self.backend.words()}")
            self.troubles[name] += "".join(f"\n--- guest {one}: {self.guest_words(one)}\n{self.kernel_words(one)}" for one in sorted(self.alive))
            with contextlib.suppress(host.LabError):
                self.destroy()
                self.backend.renew()
        self.outcomes[name], self.seconds[name] = outcome, round(time.monotonic() - begin, 1)
        print(f"{self.machine.suite} {self.backend.name}: {name}: {outcome} ({self.seconds[name]} s)", flush=True)
        if RECORD:
            with open(RECORD, "a") as file:
                file.write(json.dumps([self.machine.suite, self.backend.name, name, outcome]) + "\n")
        return outcome

    def go(self, events):
        for name, function in events.items():
            self.attempt(name, function)


@event("boot", "start")
def start(bench):
    return bench.check(bench.guest())


@event("rebind", "driver unbound and bound in the guest", "trixie")
def rebind(bench):
    name = bench.guest()
    for driver, kind in (("nvme", "0x0108"), ("e1000e", "0x02")):
        bench.machine.on(name, f"f=$(function_of {kind}); echo $f > /sys/bus/pci/drivers/{driver}/unbind; echo $f > /sys/bus/pci/drivers/{driver}/bind")
    return bench.check(name)


@event("unplug-asked-msix hot-add", "detached and attached at run time", "trixie")
def hotplug(bench):
    name = bench.guest()
    bench.detach(name)
    left = bench.machine.on(name, "ls $P").split()
    bench.attach(name)
    return bench.check(name) if not left else f"failed: not detached: {' '.join(left)}"


@event("bindings-left", "detached by a toolstack that skips its unmaps, and attached", "bookworm")
def careless_toolstack(bench):
    name = bench.holder(NVME) or bench.guest()
    bench.machine.run(f"LD_PRELOAD=/{TOOLSTACK} xl pci-detach {name} {NVME}")
    left = bench.machine.run(f"pirq $(xl domid {name}) $(cat $P/{NVME}/irq)")
    bench.attach_one(name, NVME)
    return bench.check(name) + ("" if "free" in left else ", line left bound")


@event("saved-detached", "used, detached, saved, restored, attached")
def save_detached(bench):
    name = bench.first(DISK)
    bench.detach(name)
    trouble = bench.save(name)
    if trouble:
        return trouble
    bench.attach(name)
    return bench.check(name)


@event("saved-detached", "not used yet, detached, saved, restored, attached", "trixie")
def save_unused(bench):
    bench.destroy()
    name = bench.another(DISK)
    bench.detach(name)
    trouble = bench.save(name)
    if trouble:
        return trouble
    bench.attach(name)
    return bench.check(name)


@event("guest-reboot", "guest reboots", "bookworm")
def reboot(bench):
    name = bench.guest(DISK)
    bench.tell(name, "reboot -f")
    bench.machine.guest_ready(name)
    return bench.check(name)


@event("guest-panic", "guest crashes under I/O", "trixie")
def crash(bench):
    name = bench.guest(DISK)
    bench.check(name)
    bench.tell(name, "while :; do disk_sum; done > /run/sums & sleep 1; echo c > /proc/sysrq-trigger")
    bench.machine.guest_ready(name)
    return bench.check(name)


@event("guest-destroyed", "guest killed in the middle of I/O, then a second guest", "trixie")
def killed_busy(bench):
    name = bench.first(DISK)
    bench.machine.on(name, "(while :; do disk_sum; done > /run/sums) & until [ $(cat /run/sums | wc -l) -gt 1 ]; do usleep 100000; done")
    # One that runs would let go of the device in order: libxl destroys it only after the back end has answered.
    bench.machine.run(f"xl pause {name}")
    bench.destroy(name)
    return bench.check(bench.another(DISK))


@event("two-guests", "two guests, a device each", "bookworm")
def two(bench):
    return ", ".join(bench.check(name) for name in bench.pair())


@event("mask-all-left", "mask-all left by a guest that is killed, then a second guest", "bookworm")
def mask_all(bench):
    other, name = bench.holder(NVME), bench.holder(E1000E)
    if len(bench.alive) != 2 or not other or not name or other == name:
        other, name = bench.pair()
    bench.check(name)
    bench.machine.on(name, "f=$(function_of 0x02); set_msix $f $((0x$(msix $f) | 0xc000))")
    left = int(bench.machine.run(f"msix {E1000E}"), 16) & 0x4000
    bench.machine.run(f"xl pause {name}")
    bench.destroy(name)
    bench.attach_one(other, E1000E)
    return f"e1000e {bench.net(other)}" + ("" if left else " (the bit could not be set)")


@event("unplug-forced", "taken by force from a guest that does not answer, then a second guest", "bookworm")
def deaf(bench):
    name = bench.guest(DISK)
    bench.check(name)
    bench.machine.run(f"xl pause {name}")
    bench.detach(name, force=True)
    bench.alive[name] = ()
    second = bench.another(DISK)
    outcome = bench.check(second)
    bench.destroy(name)
    return outcome


@event("saved", SAVED)
def save_attached(bench):
    name = bench.first(DISK)
    return bench.save(name) or bench.check(name)
