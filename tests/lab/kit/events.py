# SPDX-License-Identifier: BSD-2-Clause
"""Events in the life of a disk, each done to a real guest under verified I/O.

happen(guest, name, disk) does one of them and looks: all I/O came to its end and every byte was right, interrupts still
arrive, the guest's kernel complained of nothing, and the server is alive. It records the cell of the lifecycle matrix.
"""
import dataclasses
import time
import typing

from . import cells, host

STAMP = 21
# ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK.
DRIVEN = 0xf
# So much of a disk is worked on.
MEGABYTES = 4


# Small pieces

def pciset(guest, disk, register, value=""):
    return guest.run(f"pciset {guest.pci_address(disk)} {register} {value}").strip()


def wait_disk(guest, disk):
    guest.run(f"for i in $(seq 600); do [ -b /dev/{disk} ] && break; usleep 100000; done; [ -b /dev/{disk} ]")


def drivers_folder(guest, address):
    return guest.run(f"readlink -f /sys/bus/pci/devices/{address}/driver").strip()


def unbind(guest, disk):
    address = guest.pci_address(disk)
    driver = drivers_folder(guest, address)
    guest.run(f"echo {address} > {driver}/unbind")
    guest.run(f"[ ! -e /sys/block/{disk} ]")
    return address, driver


def bind(guest, disk, address, driver):
    guest.run(f"echo {address} > {driver}/bind")
    wait_disk(guest, disk)


def completed(guest, disk):
    """Requests that the guest has seen completed on the disk: reads, writes and flushes."""
    words = guest.run(f"cat /sys/block/{disk}/stat").split()
    return sum(int(words[n]) for n in (0, 4, 11, 15) if n < len(words))


def goes_on(guest, disk, more=20):
    """The disk answers requests, and interrupts tell of it."""
    name = guest.run(f"basename $(readlink -f /sys/block/{disk}/device)").strip()
    requests, interrupts = completed(guest, disk), guest.interrupts(name)
    end = time.monotonic() + host.COMMAND_LIMIT
    while completed(guest, disk) < requests + more or guest.interrupts(name) == interrupts:
        if time.monotonic() > end:
            guest.fail(f"{disk} does not go on")


def shown(guest, disk):
    """What the disk's server tells of it; None where it is not Pintle's."""
    servers = {server.name: server for server in guest.servers if hasattr(server, "show")}
    one = servers.get(guest.run(f"cat /sys/block/{disk}/serial").strip()) if servers else None
    return one.show() if one else None


def driver_stands(show, disk):
    """The status is what the driver of a working disk has set (DRIVER_OK among it), and nothing keeps the gate closed."""
    if show["virtio"]["status"] != DRIVEN or not show["gate"]["open"]:
        raise host.LabError(f"{disk} is not as its driver left it: {show['virtio']['status']:#x}, {show['gate']}")


# Events after which the driver goes on as if nothing had been

def bus_master(guest, disk, how=""):
    guest.run(f"busmaster {guest.pci_address(disk)} {disk} 5 100 24 {how}")


def d3hot(guest, disk):
    bus_master(guest, disk, "d3hot")


def memory_decode(guest, disk):
    """The driver's notifications would be lost, as on any hardware; so nobody submits, while what is in flight goes on."""
    address = guest.pci_address(disk)
    job = f"$job{guest.jobs}"
    for _ in range(5):
        guest.run(f"kill -STOP {job}; usleep 50000; pciset {address} command 0:2 && usleep 200000 && "
                  f"pciset {address} command 2:2 && kill -CONT {job} && usleep 200000")


def bist(guest, disk):
    """A reset behind the back of everybody who programmed the interrupts: the founding case of MSI-X and vfio-pci."""
    guest.run(f"for i in $(seq 20); do pciset {guest.pci_address(disk)} bist 0x40; usleep 30000; done")


def affinity(guest, disk):
    """Interrupts move: the configuration's by smp_affinity, the queues' (which the kernel keeps to itself) with their CPU."""
    guest.run("for irq in $(sed -n 's/^ *\\([0-9]*\\):.*virtio.*config.*/\\1/p' /proc/interrupts); do "
              "for cpus in 1 2 3; do echo $cpus > /proc/irq/$irq/smp_affinity || exit 1; done; done")
    guest.run("cd /sys/devices/system/cpu/cpu1; for i in 1 2 3; do echo 0 > online; usleep 200000; echo 1 > online; "
              "usleep 200000; done; cd /")


def stop_cont(guest, disk):
    for _ in range(3):
        guest.qmp("stop")
        time.sleep(0.3)
        guest.qmp("cont")
        goes_on(guest, disk)


def suspend(guest, disk):
    """The guest's drivers suspend and resume (the machine itself does not sleep): virtio reset, D3hot, D0, set-up anew."""
    guest.run("echo 1 > /sys/module/suspend/parameters/pm_test_delay; echo devices > /sys/power/pm_test && "
              "echo freeze > /sys/power/state")


# Events in whose middle nobody drives the disk

def rebind(guest, disk):
    bind(guest, disk, *unbind(guest, disk))


def remove_rescan(guest, disk):
    """The guest forgets the function, its resources too, and finds it again."""
    address = guest.pci_address(disk)
    guest.run(f"echo 1 > /sys/bus/pci/devices/{address}/remove; [ ! -e /sys/block/{disk} ]")
    guest.run("echo 1 > /sys/bus/pci/rescan")
    wait_disk(guest, disk)


def reset_by(method):
    def do(guest, disk):
        address, driver = unbind(guest, disk)
        # What is not offered cannot be chosen.
        guest.run(f"cd /sys/bus/pci/devices/{address} && echo {method} > reset_method && echo 1 > reset && "
                  "echo default > reset_method; status=$?; cd /; (exit $status)")
        bind(guest, disk, address, driver)
    return do


def unbind_under_io(guest, disk):
    """The driver goes while requests are on their way: they end, well or badly, and nothing hangs."""
    job = guest.busy(f"/dev/{disk}")
    with guest.trouble_expected():
        address, driver = unbind(guest, disk)
        guest.run(f"wait $job{job}; cat /run/job{job}")
    bind(guest, disk, address, driver)
    guest.run(f"iocheck run /dev/{disk} {MEGABYTES} 1 8 5 && iocheck stamp /dev/{disk} {MEGABYTES} {STAMP}")


def module_reload(guest, disk):
    """The driver's module itself goes and comes; all disks with it."""
    for _ in range(2):
        guest.run(f"rmmod virtio_blk && [ ! -e /sys/block/{disk} ] && modprobe virtio_blk")
        wait_disk(guest, disk)


def transport_reload(guest, disk):
    guest.run(f"rmmod virtio_blk && rmmod virtio_pci && [ ! -e /sys/block/{disk} ] && "
              "modprobe virtio_pci && modprobe virtio_blk")
    wait_disk(guest, disk)


# Events with which the guest starts over

def reboot(guest, disk):
    guest.reboot()


def system_reset(guest, disk):
    guest.qmp("system_reset")
    guest.wait_ready()


def panic(guest, disk):
    # A mainframe waits for its operator, if it is not told to start over.
    guest.run("cd /sys/firmware/shutdown_actions 2> /dev/null && echo reipl > on_panic; cd /")
    with guest.trouble_expected():
        guest.start_over("echo c > /proc/sysrq-trigger")


def kexec(guest, disk):
    """Another kernel at once, with no reset in between. The drivers let go of the disks first: those of these kernels reset nothing on
    such a way out, and the next one sets bus master before it resets; a disk that is still driven then goes on in memory
    that is not its driver's any more (see docs/roads/vfio-user.md). So the system has to run from memory (lab.ram)."""
    guest.run(f"rmmod virtio_blk && [ ! -e /sys/block/{disk} ]")
    guest.start_over(f"kexec /boot/vmlinuz /boot/initrd '{guest.kernel_words()}'")


def flr_behind_driver(guest, disk):
    """FLR under I/O, behind the back of a driver that cannot know; what helps such a guest is a new start."""
    pciset(guest, disk, "devctl", "0x8000:0x8000")
    system_reset(guest, disk)


def bus_reset_behind_driver(guest, disk):
    """The same by the bridge above it."""
    address = guest.pci_address(disk)
    bridge = guest.run(f"basename $(dirname $(readlink -f /sys/bus/pci/devices/{address}))").strip()
    guest.run(f"pciset {bridge} 0x3e.w 0x40:0x40 && usleep 100000 && pciset {bridge} 0x3e.w 0:0x40")
    system_reset(guest, disk)


@dataclasses.dataclass(frozen=True)
class Event:
    """across: I/O on the disk itself goes on over the event; apart: it rests, with known contents, while I/O goes on
    elsewhere; over: I/O on it is cut off by the guest's new start, and what was flushed before is there. resets: a driver that goes
    on has set its device up anew. told: what the server has to have counted meanwhile, and how often at least."""
    text: str
    do: typing.Callable
    kind: str
    resets: bool = False
    told: tuple = None


EVENTS = {
    "bus-master": Event("bus master off and on", bus_master, "across"),
    "d3hot": Event("D3hot and D0", d3hot, "across"),
    "memory-decode": Event("memory decode off and on", memory_decode, "across"),
    "bist": Event("BIST, an unannounced reset", bist, "across", told=("unannounced-reset", 20)),
    "irq-affinity": Event("MSI-X vectors masked, moved and unmasked", affinity, "across"),
    "stop-cont": Event("the VMM stops the machine and goes on", stop_cont, "across"),
    "suspend": Event("the guest's drivers suspend and resume", suspend, "across", resets=True),
    "rebind": Event("driver unbound and bound", rebind, "apart"),
    "remove-rescan": Event("function removed and found again by the guest", remove_rescan, "apart"),
    "flr": Event("FLR by sysfs", reset_by("flr"), "apart", told=("flr", 1)),
    "bus-reset": Event("secondary bus reset by sysfs", reset_by("bus"), "apart", told=("device-reset", 1)),
    # What a mainframe's kernel calls by the same name: the function is disabled and enabled.
    "slot-reset": Event("zPCI function disabled and enabled by sysfs", reset_by("bus"), "apart"),
    "unbind-under-io": Event("driver unbound under I/O", unbind_under_io, "apart"),
    "module-reload": Event("driver's module removed and loaded", module_reload, "apart"),
    "transport-reload": Event("the transport's module too", transport_reload, "apart"),
    "guest-reboot": Event("guest reboot", reboot, "over", told=("device-reset", 1)),
    "system-reset": Event("machine reset by the VMM", system_reset, "over", told=("device-reset", 1)),
    "guest-panic": Event("guest panics and starts over", panic, "over", told=("device-reset", 1)),
    "kexec": Event("guest starts another kernel", kexec, "apart"),
    "flr-under-io": Event("FLR behind the driver's back, then machine reset", flr_behind_driver, "over", told=("flr", 1)),
    "bus-reset-under-io": Event("bus reset behind the driver's back, then machine reset", bus_reset_behind_driver, "over", told=("device-reset", 2)),
}


def healthy(guest):
    trouble = guest.kernel_trouble()
    if trouble:
        guest.fail("the guest's kernel complained:\n" + "\n".join(trouble))
    for server in guest.servers:
        server.check_alive()


def _counted(event, disk, before, after):
    """What the server tells of it: the event has reached it, and its driver is where it should be."""
    driver_stands(after, disk)
    name, times = event.told or ("", 0)
    if name and after["events"].get(name, 0) < before.get(name, 0) + times:
        raise host.LabError(f"the server of {disk} has not seen {name} {times} times: {before}, then {after['events']}")
    # The driver's own registers were touched by nobody: it has not set them anew.
    if event.kind == "across" and not event.resets and after["events"].get("virtio-reset") != before.get("virtio-reset"):
        raise host.LabError(f"{disk} was reset by its driver")


def _across(guest, event, disk, elsewhere):
    job = guest.busy(f"/dev/{disk}" if disk != "vda" else "/data/busy", megabytes=MEGABYTES)
    event.do(guest, disk)
    goes_on(guest, disk)
    guest.calm(job)


def _apart(guest, event, disk, elsewhere):
    assert disk != "vda", "the guest's file system is on it"
    guest.run(f"iocheck stamp /dev/{disk} {MEGABYTES} {STAMP}")
    job = guest.busy(elsewhere, megabytes=MEGABYTES, threads=4) if elsewhere else None
    event.do(guest, disk)
    guest.run(f"iocheck compare /dev/{disk} {MEGABYTES} {STAMP}")
    if job:
        guest.calm(job)
    job = guest.busy(f"/dev/{disk}", megabytes=MEGABYTES)
    goes_on(guest, disk)
    guest.calm(job)


def _over(guest, event, disk, elsewhere):
    """Half of the disk keeps what was flushed; the other half is written to until the end."""
    guest.run(f"rm -f /data/* && iocheck stamp /data/stamped {MEGABYTES} {STAMP}")
    guest.busy("/data/busy", megabytes=MEGABYTES)
    if disk != "vda":
        guest.run(f"iocheck stamp /dev/{disk} {2 * MEGABYTES} {STAMP}")
        guest.busy(f"/dev/{disk}", megabytes=MEGABYTES)
    event.do(guest, disk)
    guest.run(f"iocheck compare /data/stamped {MEGABYTES} {STAMP}")
    if disk != "vda":
        # A sector says of itself where it belongs and who wrote it; what was being written is whole, old or new.
        guest.run(f"iocheck tail /dev/{disk} {2 * MEGABYTES} {STAMP}")
    job = guest.busy(f"/dev/{disk}" if disk != "vda" else "/data/again", megabytes=MEGABYTES)
    goes_on(guest, disk)
    guest.calm(job)


def happen(guest, name, disk="vdb", elsewhere="/data/busy"):
    event = EVENTS[name]
    with cells.cell(name, guest.describe()):
        before = shown(guest, disk)
        {"across": _across, "apart": _apart, "over": _over}[event.kind](guest, event, disk, elsewhere)
        healthy(guest)
        if before:
            _counted(event, disk, before["events"], shown(guest, disk))
