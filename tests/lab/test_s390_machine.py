# SPDX-License-Identifier: BSD-2-Clause
"""
s390x guests with stock Debian kernels (6.1, 6.12) in the small machine of s390/: every channel and PCI instruction of theirs arrives at the library, which runs in the
machine's process as a VMM would have it. Disks are virtio over channel I/O and virtio over PCI behind zPCI; stores to a scratch function come whole.

Each test closes with lab.finish(): no complaint in the guest's kernel log, an orderly end of machine and library, and a clean e2fsck of the root disk.
"""
import os
import re
import time

from kit import host
from kit.guest import LINUX
from kit.s390_pieces import (CCW_EXTRAS, CCW_ROOT, MEGABYTES, ROOT_FIRST, boot, both, busy, ccw_disk, cell, data_image, extras, known_contents, machine_reset, pci_disk,
                             pci_folder, root_image, see_all, slot, stop_job, tool, until, works)

STAMP = 7

CCW_DATA, CCW_LATE = "0.0.0002", "0.0.0003"
PCI_ROOT, PCI_DATA, PCI_LATE, SCRATCH = 0x20, 0x21, 0x22, 0x40


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


def ends(guest, road, data_disk, add_late, late_disk):
    """What a guest does not get over without a new start; the disks are found anew each time, by the functions given."""
    with cell(guest, road, "guest-reboot"):
        busy(guest, "/data/busy")
        guest.reboot()
        guest.wait_told("ipl")
        see_all(guest)
        known_contents(guest)
        guest.run(f"iocheck compare /data/stamped {MEGABYTES} {STAMP}")
    with cell(guest, road, "system-reset"):
        guest.run("sync")
        busy(guest, f"/dev/{data_disk()}", seed=3)
        machine_reset(guest)
        known_contents(guest)
        works(guest, data_disk())
    with cell(guest, road, "forced-unplug-under-io"):
        guest.control(add_late)
        forced_under_io(guest, late_disk())
        works(guest, data_disk())


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

    ends(guest, "css", lambda: ccw_disk(guest, CCW_DATA), f"add ccw late 3 {late}", lambda: ccw_disk(guest, CCW_LATE))
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

    ends(guest, "zpci", lambda: pci_disk(guest, PCI_DATA), f"add pci late {PCI_LATE:x} {late}", lambda: pci_disk(guest, PCI_LATE))
    lab.finish()


# ---- store blocks ----

# enum pintle_zpci_state
ENABLED = 2

# How often the slot loses its power with stores under way: so often by the guest, so often by the host. A thousand of each are run by hand (docs/roads/zpci.md).
POWER_CYCLES = int(os.environ.get("PINTLE_POWER_CYCLES") or 500)
ERROR_CYCLES = 3
# In milliseconds: how long a store takes. With the longest, one is nearly always in flight.
DELAYS = (0, 1, 10)


def shares(cycles):
    """So many of them with each of the delays."""
    return [(delay, cycles // len(DELAYS) + (number < cycles % len(DELAYS))) for number, delay in enumerate(DELAYS)]


def cycle_limit(cycles):
    """Seconds, for the hung ones."""
    return host.COMMAND_LIMIT + 2 * cycles


def power_by_guest(guest, cycles):
    """
    The guest switches the slot's power off and on; each flood ends because a store fails. The guest has one processor, which a store has to itself while it is in flight: the slot's
    turn comes between two of them.
    """
    for delay, share in shares(cycles):
        guest.control(f"delay scratch {delay}")
        said = guest.run(f"/tmp/x/m/stores off /dev/zbar {share} {slot(SCRATCH)}", cycle_limit(share))
        assert f"off {share} times" in said, said


def wait_stores(guest, before, in_flight):
    """Until there are stores of this flood, and, if one is to be in flight, one is."""
    end = time.monotonic() + host.COMMAND_LIMIT
    while True:
        now = guest.info("scratch")
        if now["blockstores"] > before and (now["underway"] or not in_flight):
            return
        if time.monotonic() > end:
            guest.fail(f"no stores come: {now}")


def power_by_host(guest, command, cycles):
    """The host takes the function out while the guest floods, and plugs it again, at once: the former's end and the new one's arrival are told together. How often a store was in flight."""
    before, met = guest.info("scratch")["blockstores"], 0
    for delay, share in shares(cycles):
        begun = guest.begin(f"/tmp/x/m/stores again /dev/zbar {share}")
        for _ in range(share):
            guest.control(f"delay scratch {delay}")
            wait_stores(guest, before, delay > 0)
            met += guest.control(f"{command} scratch") == "underway=1"
            guest.wait_told("removed scratch")
            guest.control(f"add scratch scratch {SCRATCH:x}")
            before = 0
        said = guest.finish(begun, cycle_limit(share))
        assert f"ended {share} times" in said, said
        until(guest, HAS_DRIVER)
        before = guest.info("scratch")["blockstores"]
    return met


HAS_DRIVER = f"[ -e {pci_folder(SCRATCH)}/driver ]"


def flood(guest, cycle):
    """Store blocks without an end, in the guest's background."""
    guest.control(f"delay scratch {DELAYS[cycle % len(DELAYS)]}")
    guest.run("/tmp/x/m/stores flood /dev/zbar > /tmp/flood 2>&1 & flood=$!")
    guest.run("until grep -q begun /tmp/flood; do usleep 1000; done")


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

    with cell(guest, "zpci", "slot-power", "scratch"):
        power_by_guest(guest, POWER_CYCLES)
    for event, command in (("unplug-forced", "force"), ("unplug-asked", "remove")):
        with cell(guest, "zpci", event, "scratch"):
            cycles = POWER_CYCLES // 2
            met = power_by_host(guest, command, cycles)
            # At least where a store takes longest.
            assert met >= cycles // len(DELAYS), met
    for event, command, mend in (("pci-error", "error scratch 3a", f"echo 1 > {pci_folder(SCRATCH)}/recover"),
                                 ("pci-permanent-error", "fatal scratch 40", f"echo 0 > {slot(SCRATCH)}; echo 1 > {slot(SCRATCH)}")):
        # A recoverable error is mended in place; a permanent one by taking the function out of the configuration and back.
        with cell(guest, "zpci", event, "scratch"):
            for cycle in range(ERROR_CYCLES):
                flood(guest, cycle)
                with guest.trouble_expected():
                    guest.control(command)
                    flood_ended(guest)
                    guest.run(mend)
                    until(guest, HAS_DRIVER)
                assert guest.info("scratch")["state"] == ENABLED
    guest.control("delay scratch 0")
    assert "good" in guest.run("/tmp/x/m/stores check /dev/zbar")
    lab.finish()
