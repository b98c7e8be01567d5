# SPDX-License-Identifier: BSD-2-Clause
"""
What a guest, its administrator and others do to devices that are in use: one event after the other in one guest, without a new start, most of them in the middle of verified I/O. Only the build under test is put through
them.
"""
import re

from .xen_events import DISK
from .xen_machine import E1000E, NVME
from .xen_pintle import CTL, IDS

CHANGES = []
DISK_FUNCTION, NET_FUNCTION = "f=$(function_of 0x0108)", "f=$(function_of 0x02)"
COMMAND, MASTER, MEMORY = 4, 4, 2
# In a guest, with the driver's own time limits.
LIMIT = 90
INTX_MODE, MSIX_MODE = 0, 2 # of Linux's e1000e


def change(keys, name, *suites):
    """Registers an event that happens in the middle of I/O, as xen_events.event does. What it returns is what was wrong."""
    def register(function):
        def does(bench):
            guest = bench.guest()
            begin(bench, guest)
            return function(bench, guest) or settle(bench, guest)
        CHANGES.append((keys, name, does, suites))
        return function
    return register


def rest(keys, name, *suites):
    """One in whose middle nobody drives the disk. What it returns is how the devices were."""
    def register(function):
        CHANGES.append((keys, name, lambda bench: function(bench, bench.guest()), suites))
        return function
    return register


def begin(bench, guest):
    bench.machine.on(guest, "modprobe nvme; await test -b /dev/nvme0n1; busy", LIMIT)


def settle(bench, guest):
    said = bench.machine.on(guest, "settle", LIMIT, status=None)
    found = re.search(r"^io (\S+)$", said, re.MULTILINE)
    if found and found[1] not in ("stands", "BAD"):
        return f"nvme {found[1]}"
    return "failed: I/O " + ("stands" if found and found[1] == "stands" else said.strip().replace("\n", "; ") if found else "hangs")


def saved_live(bench):
    """Of xl, nobody watches over such a guest afterwards: it would not start anew by itself."""
    guest = bench.guest(DISK)
    begin(bench, guest)
    bench.machine.run(f"xl save -c {guest} /run/{guest}.save > /dev/null 2>&1 && test -s /run/{guest}.save && rm /run/{guest}.save")
    return settle(bench, guest)


def hardware(bench, address, offset, bits):
    """Bits of a register of 16, as the hardware has it."""
    return int(bench.machine.run(f"cfg {address} {offset} 2"), 16) & bits


def look(bench, address):
    """The server looks at the hardware, which it does every second by itself."""
    bench.machine.run(f"{CTL} --json check {IDS[address]}")


@change("bus-master", "bus master off and on under I/O", "bookworm")
def bus_master(bench, guest):
    for _ in range(2):
        bench.machine.on(guest, f"{DISK_FUNCTION}; change $f {COMMAND} {MASTER} 0")
        if hardware(bench, NVME, COMMAND, MASTER):
            return "failed: bus master stays on"
        bench.machine.on(guest, f"change $f {COMMAND} 0 {MASTER}")
    return None


@change("memory-decode", "memory decode off and on under I/O", "trixie")
def memory_decode(bench, guest):
    """Off it is for the guest alone: what its driver does meanwhile still reaches the device."""
    for _ in range(3):
        said = bench.machine.on(guest, f"{DISK_FUNCTION}; change $f {COMMAND} {MEMORY} 0; echo decode $((0x$(cfg $f {COMMAND} 2) & {MEMORY}))")
        if "decode 0" not in said or not hardware(bench, NVME, COMMAND, MEMORY):
            return "failed: wrong decode"
        bench.machine.on(guest, f"goes_on; change $f {COMMAND} 0 {MEMORY}")
    return None


@change("d3hot", "D3hot and D0", "bookworm")
def d3hot(bench, guest):
    """The disk rests meanwhile, in the middle of its requests; the network card is up."""
    net = bench.net(guest)
    for function, address, before, after in ((DISK_FUNCTION, NVME, "kill -STOP $io; usleep 300000;", "kill -CONT $io; goes_on"), (NET_FUNCTION, E1000E, "", "true")):
        said = bench.machine.on(guest, f"{before} {function}; p=$(($(capability $f 1) + 4)); echo power $p; change $f $p 0 3")
        place = int(re.search(r"^power (\d+)$", said, re.MULTILINE)[1])
        if hardware(bench, address, place, 3) != 3:
            return "failed: not asleep"
        bench.machine.on(guest, f"change $f $p 3 0; usleep 20000; {after}")
        if hardware(bench, address, place, 3):
            return "failed: not awake"
    now = bench.net(guest)
    return None if now == net else f"e1000e {net}, then {now}"


@change("accesses io", "every register read under I/O", "trixie")
def accesses(bench, guest):
    read = bench.machine.on(guest, "for f in $P/*; do dd if=$f/config bs=256 count=1 2> /dev/null; done | wc -c")
    return None if re.search(r"^512$", read, re.MULTILINE) else f"failed: {read.strip()}"


@change("stop-cont", "paused and unpaused under I/O", "trixie")
def stop_cont(bench, guest):
    for _ in range(3):
        bench.machine.run(f"xl pause {guest}; usleep 300000; xl unpause {guest}")
        bench.machine.on(guest, "goes_on", LIMIT)


@change("suspend", "drivers suspended and resumed under I/O", "trixie")
def suspend(bench, guest):
    """The devices only: the kernel's own test of it."""
    said = bench.machine.on(guest, "echo 1 > /sys/module/suspend/parameters/pm_test_delay; echo devices > /sys/power/pm_test && echo freeze > /sys/power/state; echo suspend $?; echo none > /sys/power/pm_test", LIMIT)
    if "suspend 0" not in said:
        return f"failed: {said.strip()}"
    net = bench.net(guest)
    return None if net == "MSI-X" else f"e1000e {net}"


@change("injected-bus-master", "bus master taken away in the first domain", "trixie")
def outside_master(bench, guest):
    bench.machine.run(f"change {NVME} {COMMAND} {MASTER} 0")
    look(bench, NVME)
    return None if hardware(bench, NVME, COMMAND, MASTER) else "failed: bus master was not given back"


@change("injected-backdoor-reset", "reset in the first domain, under I/O", "bookworm")
def outside_reset(bench, guest):
    bench.machine.run(f"echo 1 > $P/{NVME}/reset")
    look(bench, NVME)
    return None if hardware(bench, NVME, COMMAND, MASTER) and int(bench.machine.run(f"msix {NVME}"), 16) & 0x8000 else "failed: registers and interrupts were not given back"


@change("injected-lost-interrupt", "interrupts lost by MSI-X switched off in the first domain", "trixie")
def outside_msix(bench, guest):
    bench.machine.run(f"set_msix {NVME} $((0x$(msix {NVME}) & 0x7fff))")
    look(bench, NVME)
    return None if int(bench.machine.run(f"msix {NVME}"), 16) & 0x8000 else "failed: MSI-X was not given back"


@rest("unbind-under-io", "driver unbound under I/O", "bookworm")
def unbind_busy(bench, guest):
    begin(bench, guest)
    said = bench.machine.on(guest, f"{DISK_FUNCTION}; echo $f > /sys/bus/pci/drivers/nvme/unbind; wait $io; cat /run/io; echo $f > /sys/bus/pci/drivers/nvme/bind", LIMIT)
    if "DIFFERENT" in said:
        return f"wrong data: {said.strip()}"
    begin(bench, guest)
    return settle(bench, guest)


@rest("interrupt-mode", "MSI-X, INTx, and back", "trixie")
def interrupt_mode(bench, guest):
    """The network card's driver is told when its module is loaded. (Not MSI: the driver tests it first, and the emulated card fails, in the first domain too.)"""
    bench.net(guest)
    ways = []
    for mode in (MSIX_MODE, INTX_MODE, MSIX_MODE):
        bench.machine.on(guest, f"rmmod e1000e; modprobe e1000e IntMode={mode}")
        ways.append(bench.net(guest))
    return "e1000e " + ", ".join(ways)


@rest("module-reload", "driver's module reloaded", "bookworm")
def module_reload(bench, guest):
    for _ in range(2):
        bench.machine.on(guest, "rmmod nvme; test ! -e /dev/nvme0n1 && modprobe nvme")
    begin(bench, guest)
    return settle(bench, guest)


@rest("transport-reload", "front end's module reloaded", "trixie")
def transport_reload(bench, guest):
    left = bench.machine.on(guest, "echo pci-0 > /sys/bus/xen/drivers/pcifront/unbind; rmmod xen-pcifront; echo left $(ls $P | wc -l)")
    # One that finds a back end that has not got over the former yet closes at once.
    bench.machine.run(f"n=0; until [ $(xenstore-read /local/domain/0/backend/pci/$(xl domid {guest})/0/state) = 2 ] || [ $n -gt 100 ]; do usleep 100000; n=$((n+1)); done")
    bench.machine.on(guest, "modprobe xen-pcifront; await function_of 0x02 '|' grep -q .")
    return bench.check(guest) if "left 0" in left else f"failed: {left.strip()}"


@rest("remove-rescan", "functions removed and found again by the guest", "bookworm")
def remove_rescan(bench, guest):
    left = bench.machine.on(guest, "for f in $P/*; do echo 1 > $f/remove; done; echo left $(ls $P | wc -l); echo 1 > /sys/bus/pci/rescan", 40, status=None)
    outcome = bench.check(guest) if "left 0" in left else f"failed: {left.strip()}"
    return "guest crashes" if "hangs" in outcome and bench.crashed(guest) else outcome
