# SPDX-License-Identifier: BSD-2-Clause
"""
s390x guests with stock Debian kernels (6.1, 6.12) in the small machine of s390/: every channel and PCI instruction of theirs arrives at the library, which runs in the
machine's process as a VMM would have it. Disks are virtio over channel I/O and virtio over PCI behind zPCI; stores to a scratch function come whole.

Each test closes with lab.finish(): no complaint in the guest's kernel log, an orderly end of machine and library, and a clean e2fsck of the root disk.
"""
import os
import re
import time

import pytest

from kit import cells, disk, host
from kit.guest import LINUX
from kit.s390_machine import S390Machine

STAMP = 7
# So much of a disk is worked on: a processor that is translated is no fast one.
MEGABYTES = 2
both = pytest.mark.parametrize("suite", LINUX)

CCW_ROOT, CCW_DATA, CCW_LATE, CCW_EXTRAS = "0.0.0001", "0.0.0002", "0.0.0003", "0.0.000e"
PCI_ROOT, PCI_DATA, PCI_LATE, SCRATCH = 0x20, 0x21, 0x22, 0x40


# ---- pieces ----

def boot(lab, suite, devices, **options):
    return lab.guest(suite, devices, S390Machine, **options)


def see_all(guest):
    """Channel devices are found side by side, in any order; so at first the guest is to see its root disk alone, which is then vda."""
    guest.run("echo free all > /proc/cio_ignore")


ROOT_FIRST = f"cio_ignore=all,!{CCW_ROOT}"


def root_image(lab, suite):
    image = disk.root_copy(lab.folder / "root.img", suite, "s390x")
    lab.roots.append(image)
    return image


def data_image(lab, name, megabytes=16):
    return disk.data_disk(lab.folder / f"{name}.img", megabytes)


def until(guest, condition):
    """Wait for something in the guest."""
    guest.run(f"until {condition}; do usleep 20000; done")


def ccw_disk(guest, bus_id):
    """The name of the disk behind a channel device, once there is one."""
    until(guest, f"[ -e /sys/bus/ccw/devices/{bus_id}/virtio*/block/* ]")
    return guest.run(f"basename /sys/bus/ccw/devices/{bus_id}/virtio*/block/*").strip()


def pci_folder(fid):
    # Without a user-defined id of its own a function's domain is its function id.
    return f"/sys/bus/pci/devices/{fid:04x}:00:00.0"


def slot(fid):
    return f"/sys/bus/pci/slots/{fid:08x}/power"


def pci_disk(guest, fid):
    until(guest, f"[ -e {pci_folder(fid)}/virtio*/block/* ]")
    return guest.run(f"basename {pci_folder(fid)}/virtio*/block/*").strip()


def known_contents(guest):
    """The files that were on the disk before anybody served it."""
    answers = guest.run("cd /known && sha256sum -c SHA256SUMS").splitlines()
    assert len(answers) == 49 and all(line.endswith(": OK") for line in answers)


def extras(lab, guest, suite):
    """A disk with Debian's own tools, and with the module for the scratch function, comes while the guest runs."""
    image = lab.folder / "extras.img"
    host.run("cp", "--sparse=always", host.fetch("s390/get-extras", suite), image)
    guest.control(f"add ccw extras e {image}")
    name = ccw_disk(guest, CCW_EXTRAS)
    guest.run(f"mkdir -p /tmp/x && mount -t tmpfs x /tmp/x && mkdir /tmp/x/m && mount -o ro /dev/{name} /tmp/x/m")
    guest.run("for i in sys proc dev; do mount --bind /$i /tmp/x/m/tools/$i; done")


def tool(guest, command):
    return guest.run(f"PATH=$PATH:/usr/bin:/usr/sbin chroot /tmp/x/m/tools {command}")


def stop_job(guest, job):
    """Ends I/O whose disk may be gone: that it fails is no news."""
    guest.run(f"kill $job{job}; wait $job{job}; true")


def busy(guest, path, seed=1):
    return guest.busy(path, MEGABYTES, 4, seed)


def works(guest, name, megabytes=MEGABYTES):
    """I/O on a disk, with more requests than one thread has in flight, all verified."""
    guest.run(f"iocheck run /dev/{name} {megabytes} 1 8 1")


def grow(lab, guest, name):
    """The image of the disk "data" grows under I/O; the driver learns of it by its configuration interrupt."""
    for megabytes in (20, 24, 28, 32):
        jobs = busy(guest, "/data/busy"), busy(guest, f"/dev/{name}", seed=4)
        os.truncate(lab.folder / "data.img", megabytes << 20)
        guest.control("refresh data")
        until(guest, f"[ $(cat /sys/block/{name}/size) = {megabytes << 11} ]")
        for job in jobs:
            guest.calm(job)
    guest.run(f"iocheck run /dev/{name} 32 1 8 2; iocheck stamp /dev/{name} {MEGABYTES} {STAMP}")


def machine_reset(guest):
    """By the host, without asking the guest."""
    guest.control("ipl")
    guest.wait_ready()
    guest.wait_told("ipl")
    see_all(guest)


def forced_under_io(guest, name):
    """
    Requests in flight are gone with the device. The host has it back at once, and the guest's other disk works on; but the stock drivers of both kernels wait for ever: for
    such requests when the disk is deleted (del_gendisk), and for the end of a reset (vp_reset). What helps such a guest is a new start.
    """
    root_job = busy(guest, "/data/busy")
    with guest.trouble_expected():
        busy(guest, f"/dev/{name}")
        guest.control("force late")
        guest.wait_told("removed late")
        guest.calm(root_job)
        guest.run("sync")
        machine_reset(guest)
    known_contents(guest)


# ---- channel I/O ----

def see_channel_devices(guest):
    """What lscss and sysfs say is what they say of such a device on a real machine."""
    lines = [line.split() for line in tool(guest, "lscss").splitlines() if re.match(r"0\.0\.", line)]
    by_device = {words[0]: words for words in lines}
    for bus_id in (CCW_ROOT, CCW_DATA, CCW_EXTRAS):
        device, subchannel, kind, control_unit, use, *paths = by_device[bus_id]
        # No device type; control unit 3832 (virtio), model 2 (block); in use; one path, of which all is installed and available.
        assert (kind, control_unit, use) == ("0000/00", "3832/02", "yes"), lines
        assert paths[:3] == ["80", "80", "80"] or paths[:3] == ["80", "80", "ff"], lines
        assert guest.run(f"basename $(readlink /sys/bus/ccw/devices/{device}/driver)").strip() == "virtio_ccw"
        assert guest.run(f"cat /sys/bus/css/devices/{subchannel}/type").strip() == "0"
        assert guest.run(f"cat /sys/bus/css/devices/{subchannel}/modalias").strip() == "css:t0"
    assert guest.run("cat /sys/devices/css0/chp0.00/status").strip() == "online"


def offline_online(guest, bus_id):
    """The driver gives the device back, and takes it again."""
    folder = f"/sys/bus/ccw/devices/{bus_id}"
    guest.run(f"echo 0 > {folder}/online")
    assert guest.run(f"cat {folder}/online").strip() == "0"
    guest.run(f"[ ! -e {folder}/virtio*/block/* ]")
    guest.run(f"echo 1 > {folder}/online")
    return ccw_disk(guest, bus_id)


def cell(guest, road, event, device="blk"):
    return cells.cell(event, guest.describe(), device=device, road=road)


@both
def test_channel_io(lab, suite):
    """One guest on a virtio-ccw root disk, one event after the other."""
    guest = boot(lab, suite, [f"add ccw root 1 {root_image(lab, suite)}", f"add ccw data 2 {data_image(lab, 'data')}"], append=ROOT_FIRST)
    see_all(guest)
    with cell(guest, "css", "boot"):
        assert guest.run("uname -m").strip() == "s390x" and guest.run("uname -r").startswith(LINUX[suite])
        known_contents(guest)
        assert ccw_disk(guest, CCW_ROOT) == "vda"
    data = ccw_disk(guest, CCW_DATA)
    extras(lab, guest, suite)
    see_channel_devices(guest)

    with cell(guest, "css", "io"):
        before = guest.interrupts("VAI:")
        works(guest, data)
        # Completions come by adapter interruptions.
        assert guest.interrupts("VAI:") > before + 10
        guest.run(f"iocheck stamp /data/stamped {MEGABYTES} {STAMP}; iocheck stamp /dev/{data} {MEGABYTES} {STAMP}")

    with cell(guest, "css", "rebind"):
        job = busy(guest, "/data/busy")
        for _ in range(5):
            data = offline_online(guest, CCW_DATA)
        guest.run(f"iocheck compare /dev/{data} {MEGABYTES} {STAMP}")
        guest.calm(job)

    with cell(guest, "css", "config-change"):
        jobs = busy(guest, "/data/busy"), busy(guest, f"/dev/{data}", seed=2)
        before = guest.interrupts("VIR:")
        for _ in range(200):
            guest.control("changed data")
        until(guest, f"[ $(awk '/VIR:/ {{ print $2 }}' /proc/interrupts) -gt {before} ]")
        for job in jobs:
            guest.calm(job)

    with cell(guest, "css", "resize"):
        grow(lab, guest, data)

    late = data_image(lab, "late")
    with cell(guest, "css", "hot-add"):
        job = busy(guest, "/data/busy")
        guest.control(f"add ccw late 3 {late}")
        name = ccw_disk(guest, CCW_LATE)
        works(guest, name)
        guest.calm(job)
    with cell(guest, "css", "unplug-asked"):
        # It may take as long as the guest likes: nothing happens to the I/O until the guest lets the device go.
        job = busy(guest, f"/dev/{name}")
        guest.control("remove late")
        guest.run("sleep 1")
        assert guest.not_told("removed late")
        guest.calm(job)
        guest.run(f"echo 0 > /sys/bus/ccw/devices/{CCW_LATE}/online")
        guest.wait_told("removed late")
        until(guest, f"[ ! -e /sys/bus/ccw/devices/{CCW_LATE} ]")
    with cell(guest, "css", "unplug-forced"):
        for _ in range(5):
            guest.control(f"add ccw late 3 {late}")
            works(guest, ccw_disk(guest, CCW_LATE))
            job = busy(guest, "/data/busy")
            # Its driver says what it could not do any more with a device that is gone.
            with guest.trouble_expected():
                guest.control("force late")
                guest.wait_told("removed late")
                until(guest, f"[ ! -e /sys/bus/ccw/devices/{CCW_LATE} ]")
            guest.calm(job)

    with cell(guest, "css", "guest-reboot"):
        busy(guest, "/data/busy")
        guest.reboot()
        guest.wait_told("ipl")
        see_all(guest)
        known_contents(guest)
        guest.run(f"iocheck compare /data/stamped {MEGABYTES} {STAMP}")
    with cell(guest, "css", "system-reset"):
        guest.run("sync")
        busy(guest, f"/dev/{ccw_disk(guest, CCW_DATA)}", seed=3)
        machine_reset(guest)
        known_contents(guest)
        works(guest, ccw_disk(guest, CCW_DATA))
    with cell(guest, "css", "forced-unplug-under-io"):
        guest.control(f"add ccw late 3 {late}")
        name = ccw_disk(guest, CCW_LATE)
        forced_under_io(guest, name)
        works(guest, ccw_disk(guest, CCW_DATA))
    lab.finish()


# ---- zPCI ----

def see_pci_functions(guest):
    lines = tool(guest, "lspci -n").splitlines()
    assert sorted(lines) == sorted([f"{PCI_ROOT:04x}:00:00.0 0100: 1af4:1042 (rev 01)", f"{PCI_DATA:04x}:00:00.0 0100: 1af4:1042 (rev 01)"]), lines
    assert "MSI-X: Enable+" in tool(guest, f"lspci -vvs {PCI_ROOT:04x}:00:00.0")
    for fid in (PCI_ROOT, PCI_DATA):
        def about(name):
            return guest.run(f"cat {pci_folder(fid)}/{name}").strip()
        assert int(about("function_id"), 0) == fid and int(about("uid"), 0) == fid
        # The handle of an enabled function.
        assert int(about("function_handle"), 0) & 0x80000000
        assert about("mio_enabled") == "0" and about("vfn") == "0x0000"
        assert guest.run(f"cat {slot(fid)}").strip() == "1"


def power(guest, fid, on):
    """Slot power as the guest switches it."""
    guest.run(f"echo {int(on)} > {slot(fid)}")
    assert guest.run(f"cat {slot(fid)}").strip() == str(int(on))


@both
def test_zpci(lab, suite):
    """One guest whose root disk is a PCI function: interrupts as adapter interruptions, DMA through the guest's own tables."""
    guest = boot(lab, suite, [f"add pci root {PCI_ROOT:x} {root_image(lab, suite)}"], append="cio_ignore=all")
    see_all(guest)
    data_file, late = data_image(lab, "data"), data_image(lab, "late")
    with cell(guest, "zpci", "boot"):
        known_contents(guest)
        assert pci_disk(guest, PCI_ROOT) == "vda"
    with cell(guest, "zpci", "hot-add"):
        job = busy(guest, "/data/busy")
        guest.control(f"add pci data {PCI_DATA:x} {data_file}")
        data = pci_disk(guest, PCI_DATA)
        guest.calm(job)
    extras(lab, guest, suite)
    see_pci_functions(guest)

    with cell(guest, "zpci", "io"):
        before = guest.info("data")
        works(guest, data)
        after = guest.info("data")
        assert after["translated"] and after["interrupts"]
        assert after["interruptions"] > before["interruptions"] + 10 and after["refreshes"] > before["refreshes"] + 10
        guest.run(f"iocheck stamp /data/stamped {MEGABYTES} {STAMP}; iocheck stamp /dev/{data} {MEGABYTES} {STAMP}")

    address, driver = f"{PCI_DATA:04x}:00:00.0", "/sys/bus/pci/drivers/virtio-pci"
    for event, words in (("rebind", f"echo {address} > {driver}/unbind; echo {address} > {driver}/bind"),
                         ("flr", f"echo {address} > {driver}/unbind; echo 1 > {pci_folder(PCI_DATA)}/reset; echo {address} > {driver}/bind"),
                         ("remove-rescan", f"echo 1 > {pci_folder(PCI_DATA)}/remove; echo 1 > /sys/bus/pci/rescan"),
                         ("recover", f"echo 1 > {pci_folder(PCI_DATA)}/recover")):
        with cell(guest, "zpci", event):
            job = busy(guest, "/data/busy")
            for _ in range(3):
                guest.run(words)
                data = pci_disk(guest, PCI_DATA)
                guest.run(f"iocheck compare /dev/{data} {MEGABYTES} {STAMP}")
            guest.calm(job)

    with cell(guest, "zpci", "resize"):
        grow(lab, guest, data)

    with cell(guest, "zpci", "slot-power"):
        for _ in range(5):
            with guest.trouble_expected():
                root_job, job = busy(guest, "/data/busy"), busy(guest, f"/dev/{data}", seed=5)
                power(guest, PCI_DATA, False)
                stop_job(guest, job)
                assert guest.info("data")["state"] == 0
                power(guest, PCI_DATA, True)
                guest.calm(root_job)
            data = pci_disk(guest, PCI_DATA)
            works(guest, data)
    with cell(guest, "zpci", "unplug-asked"):
        guest.control(f"add pci late {PCI_LATE:x} {late}")
        name = pci_disk(guest, PCI_LATE)
        works(guest, name)
        with guest.trouble_expected():
            job = busy(guest, f"/dev/{name}")
            guest.control("remove late")
            guest.wait_told("removed late")
            stop_job(guest, job)
        until(guest, f"[ ! -e {pci_folder(PCI_LATE)} ]")
    with cell(guest, "zpci", "unplug-forced"):
        for _ in range(5):
            guest.control(f"add pci late {PCI_LATE:x} {late}")
            works(guest, pci_disk(guest, PCI_LATE))
            job = busy(guest, "/data/busy")
            # The stock driver waits for the end of a reset, for ever where no device is left to end it; so it lets go before.
            guest.run(f"echo {PCI_LATE:04x}:00:00.0 > {driver}/unbind")
            guest.control("force late")
            guest.wait_told("removed late")
            until(guest, f"[ ! -e {pci_folder(PCI_LATE)} ]")
            guest.calm(job)

    with cell(guest, "zpci", "guest-reboot"):
        busy(guest, "/data/busy")
        guest.reboot()
        guest.wait_told("ipl")
        see_all(guest)
        known_contents(guest)
        guest.run(f"iocheck compare /data/stamped {MEGABYTES} {STAMP}")
    with cell(guest, "zpci", "system-reset"):
        guest.run("sync")
        busy(guest, f"/dev/{pci_disk(guest, PCI_DATA)}", seed=3)
        machine_reset(guest)
        known_contents(guest)
        works(guest, pci_disk(guest, PCI_DATA))
    with cell(guest, "zpci", "forced-unplug-under-io"):
        guest.control(f"add pci late {PCI_LATE:x} {late}")
        forced_under_io(guest, pci_disk(guest, PCI_LATE))
        works(guest, pci_disk(guest, PCI_DATA))
    lab.finish()


# ---- store blocks ----

# enum pintle_zpci_state
ENABLED = 2

# How often the slot loses its power with stores under way, by each of the three ways.
POWER_CYCLES = {"bookworm": 6, "trixie": 20}
# In ticks of the machine (5 ms): how long a store takes. With the longest, one is nearly always in flight.
DELAYS = (0, 1, 20)


def flood(guest, cycle):
    """Store blocks without an end, in the guest's background."""
    guest.control(f"delay scratch {DELAYS[cycle % len(DELAYS)]}")
    guest.run("/tmp/x/m/stores flood /dev/zbar > /tmp/flood 2>&1 & flood=$!")
    guest.run("until grep -q begun /tmp/flood; do usleep 1000; done")


def wait_in_flight(guest, cycle):
    """Where stores take long, until one is in flight: it will be for some time."""
    end = time.monotonic() + host.COMMAND_LIMIT
    while DELAYS[cycle % len(DELAYS)] == DELAYS[-1]:
        if guest.info("scratch")["underway"]:
            return 1
        if time.monotonic() > end:
            guest.fail("no store is in flight")
    return 0


def flood_ended(guest):
    """It ended by itself, because its stores failed: not stuck, and not killed."""
    guest.run("wait $flood")
    assert re.search(r"ended after \d+: (?!asked)", guest.run("cat /tmp/flood"))


@both
def test_store_blocks(lab, suite):
    """Store blocks reach the device whole; and in flight while the slot's power goes off, they end, and so does that."""
    guest = boot(lab, suite, [f"add ccw root 1 {root_image(lab, suite)}", f"add scratch scratch {SCRATCH:x}"], append=ROOT_FIRST)
    see_all(guest)
    extras(lab, guest, suite)
    guest.run("insmod /tmp/x/m/zbar.ko && mdev -s; [ -c /dev/zbar ]")
    with cell(guest, "zpci", "block-store", "scratch"):
        before = guest.info("scratch")
        assert "good" in guest.run("/tmp/x/m/stores check /dev/zbar")
        after = guest.info("scratch")
        # Each of the guest's store blocks has come as one access, the longest one in one piece.
        assert after["blocks"] - before["blocks"] == after["blockstores"] - before["blockstores"] > 20
        assert after["longest"] == 128

    has_driver = f"[ -e {pci_folder(SCRATCH)}/driver ]"
    cycles = POWER_CYCLES[suite]
    with cell(guest, "zpci", "slot-power", "scratch"):
        # The guest has one processor, which the store has to itself while it is in flight: the slot's turn comes between two of them.
        for cycle in range(cycles):
            flood(guest, cycle)
            power(guest, SCRATCH, False)
            flood_ended(guest)
            power(guest, SCRATCH, True)
            until(guest, has_driver)
    for event, command in (("unplug-forced", "force"), ("unplug-asked", "remove")):
        with cell(guest, "zpci", event, "scratch"):
            in_flight = 0
            for cycle in range(cycles):
                flood(guest, cycle)
                in_flight += wait_in_flight(guest, cycle)
                guest.control(f"{command} scratch")
                guest.wait_told("removed scratch")
                flood_ended(guest)
                until(guest, f"[ ! -e {pci_folder(SCRATCH)} ]")
                guest.control(f"add scratch scratch {SCRATCH:x}")
                until(guest, has_driver)
            assert in_flight >= cycles // len(DELAYS)
    for event, command, mend in (("pci-error", "error scratch 3a", f"echo 1 > {pci_folder(SCRATCH)}/recover"),
                                 ("pci-permanent-error", "fatal scratch 40", f"echo 0 > {slot(SCRATCH)}; echo 1 > {slot(SCRATCH)}")):
        # A recoverable error is mended in place; a permanent one by taking the function out of the configuration and back.
        with cell(guest, "zpci", event, "scratch"):
            for cycle in range(cycles):
                flood(guest, cycle)
                with guest.trouble_expected():
                    guest.control(command)
                    flood_ended(guest)
                    guest.run(mend)
                    until(guest, has_driver)
                assert guest.info("scratch")["state"] == ENABLED
    guest.control("delay scratch 0")
    assert "good" in guest.run("/tmp/x/m/stores check /dev/zbar")
    lab.finish()
