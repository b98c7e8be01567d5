# SPDX-License-Identifier: BSD-2-Clause
"""
s390x guests in the machine of s390/ with the entropy device, as a channel device and as a PCI function, and with the memory balloon as a channel device: stock drivers, seen from the host.
What the balloon gives back goes by the machine's own call-back, which the library calls; and the machine's process has less memory then.
"""
import contextlib
import re
import time

from kit import host
from kit.s390_pieces import ROOT_FIRST, boot, both, busy, cell, known_contents, machine_reset, pci_folder, root_image, see_all, until

MIB = 1 << 20
CCW_RNG, CCW_BALLOON = "0.0.0004", "0.0.0005"
PCI_RNG = 0x24
RNG_CCW, RNG_PCI, BALLOON = "add rng-ccw rngc 4", f"add rng-pci rngp {PCI_RNG:x}", "add balloon balloon 5"
PCI_DRIVER = "/sys/bus/pci/drivers/virtio-pci"
# enum pintle_balloon_hinting
NO_HINTING, HINTING_ENDED = 0, 3
# Megabytes that the guest writes to, of its 512: its kernel and the balloon's own lists have the rest.
FILL = 200
KEPT = 64


def eventually(guest, condition, what):
    end = time.monotonic() + host.COMMAND_LIMIT
    while not condition():
        if time.monotonic() > end:
            guest.fail(f"in vain: {what}")
        time.sleep(0.05)


def virtio_device(folder):
    """There is a driver for it."""
    return f"[ -e {folder}/virtio*/driver ]"


def channel_folder(bus_id):
    return f"/sys/bus/ccw/devices/{bus_id}"


# ---- entropy ----

def sources(guest):
    """The kernel's names of entropy devices that are there."""
    return [name for name in guest.run("cat /sys/class/misc/hw_random/rng_available").split() if name.startswith("virtio_rng")]


def choose(guest, name):
    guest.run(f"echo {name} > /sys/class/misc/hw_random/rng_current && grep -q {name} /sys/class/misc/hw_random/rng_current")


def read_numbers(guest, kilobytes=64):
    """Numbers that a packer finds nothing in."""
    packed = int(guest.run(f"dd if=/dev/hwrng bs=1024 count={kilobytes} iflag=fullblock 2> /dev/null | tee /run/numbers | gzip | wc -c"))
    assert guest.run("wc -c < /run/numbers").strip() == str(kilobytes << 10) and packed > kilobytes * 1000, packed


def random_numbers(guest, *devices):
    """Each of the devices gives some, as the host counts them."""
    names = sources(guest)
    assert len(names) == len(devices), names
    before = {device: guest.info(device)["bytes"] for device in devices}
    for name in names:
        choose(guest, name)
        read_numbers(guest)
    for device in devices:
        assert guest.info(device)["bytes"] - before[device] >= 64 << 10, device


def reader(guest):
    """Somebody reads numbers all the time, and goes on when there are none for a moment."""
    guest.run("(while :; do dd if=/dev/hwrng of=/dev/null bs=512 2> /dev/null; usleep 1000; done) & reader=$!")


def reading_goes_on(guest, device):
    before = guest.info(device)["bytes"]
    eventually(guest, lambda: guest.info(device)["bytes"] > before + 8192, "the reader gets numbers of the new device")


def end_reader(guest):
    guest.run("kill $reader; wait $reader; killall dd 2> /dev/null; true")


def entropy(guest, road, name, add, folder, let_go, rebind):
    """One device of the kind, on and off, with a reader."""
    driver = virtio_device(folder)
    with cell(guest, road, "entropy", "rng"):
        random_numbers(guest, name)
    with cell(guest, road, "rebind", "rng"):
        for _ in range(3):
            guest.run(rebind)
            until(guest, driver)
        random_numbers(guest, name)
    with cell(guest, road, "unplug-asked", "rng"):
        reader(guest)
        guest.control(f"remove {name}")
        if road == "css":
            # It works on until the guest lets go of it.
            reading_goes_on(guest, name)
            assert guest.not_told(f"removed {name}")
            guest.run(let_go)
        guest.wait_told(f"removed {name}")
        until(guest, f"[ ! -e {folder} ]")
    with cell(guest, road, "hot-add", "rng"):
        guest.control(add)
        until(guest, driver)
        reading_goes_on(guest, name)
    with cell(guest, road, "unplug-forced", "rng"):
        for _ in range(3):
            # The stock driver of virtio-pci waits for the end of a reset, for ever where no device is left to end it; so it lets go before.
            if road == "zpci":
                guest.run(let_go)
            with guest.trouble_expected():
                guest.control(f"force {name}")
                guest.wait_told(f"removed {name}")
                until(guest, f"[ ! -e {folder} ]")
            guest.control(add)
            until(guest, driver)
            reading_goes_on(guest, name)
        end_reader(guest)
        random_numbers(guest, name)


# ---- the balloon ----

def resident(guest):
    """Bytes of the guest's memory that the machine's process has."""
    status = open(f"/proc/{guest.process.pid}/status").read()
    return int(re.search(r"RssShmem:\s+(\d+) kB", status)[1]) << 10


def memory(guest, what):
    """A line of the guest's /proc/meminfo, in bytes."""
    return int(re.search(rf"{what}: +(\d+)", guest.run("cat /proc/meminfo"))[1]) << 10


def balloon(guest):
    return guest.info("balloon")


def reach(guest, megabytes):
    guest.control(f"target balloon {megabytes}")
    eventually(guest, lambda: balloon(guest)["actual"] == megabytes << 20, f"{megabytes} MiB in the balloon; it has {balloon(guest)}")


def dirty(guest, megabytes=FILL):
    """The guest writes to so much of its memory, and lets go of it again. Zeroes would do: nobody packs pages."""
    guest.run(f"mkdir -p /run/fill && mount -t tmpfs -o size=95% fill /run/fill && dd if=/dev/zero of=/run/fill/x bs=1M count={megabytes} 2> /dev/null; umount /run/fill")


def pressure(guest, megabytes):
    """Files in memory, written and thrown away, time and again, until no_pressure."""
    guest.run(f"mkdir -p /run/press && mount -t tmpfs -o size=95% press /run/press; echo 0 > /run/presses; (n=0; while :; do dd if=/dev/zero of=/run/press/x bs=1M count={megabytes} "
              "2> /dev/null || echo failed >> /run/presses; rm /run/press/x; n=$((n + 1)); echo $n >> /run/presses; done) & press=$!")


def presses(guest):
    said = guest.run("tail -n 1 /run/presses").strip()
    return int(said) if said.isdigit() else 0


def no_pressure(guest):
    guest.run("kill $press; wait $press; killall dd 2> /dev/null; until umount /run/press; do usleep 20000; done")
    assert "failed" not in guest.run("cat /run/presses").split()
    # Nobody was killed for memory.
    assert not re.search("Out of memory|oom-kill", guest.run("dmesg"))


def inflate_and_deflate(guest):
    dirty(guest)
    before, discarded = resident(guest), balloon(guest)["discarded"]
    reach(guest, FILL)
    now = balloon(guest)
    assert now["given_back"] >= FILL * MIB and now["discarded"] - discarded >= FILL * MIB, now
    # Some pages had never been touched.
    small = resident(guest)
    assert before - small > FILL * MIB // 2, (before, small)
    reach(guest, 0)
    dirty(guest)
    assert resident(guest) > small + FILL * MIB // 2, "pages come back when they are used"


def statistics(guest):
    total = memory(guest, "MemTotal")
    for _ in range(5):
        count = balloon(guest)["stats_count"]
        guest.control("stats balloon")
        line = guest.wait_told_of("stats balloon")
        said = {key: int(value) for key, value in (word.split("=") for word in line.split()[2:])}
        assert said["fresh"] and balloon(guest)["stats_count"] > count
        assert abs(said["total"] - total) < 16 * MIB and 0 < said["free"] < said["total"] and 0 < said["available"] <= said["total"], (said, total)


def hints(guest):
    """
    Rounds of free page hinting, while files in memory come and go that need more than is left: the driver keeps what it has named until the round is stopped, unless
    the kernel wants it back (its shrinker). Nothing is given back to the host by it.
    """
    discarded = balloon(guest)["discarded"]
    free = memory(guest, "MemAvailable") // MIB
    pressure(guest, free * 3 // 4)
    hinted, rounds, begun = [], 0, presses(guest)
    while rounds < 6 or presses(guest) < begun + 6:
        guest.control("hint balloon start")
        eventually(guest, lambda: balloon(guest)["hinting"] == HINTING_ENDED, "the round of hints ends")
        hinted.append(balloon(guest)["hinted"])
        if rounds % 2:
            # What has been named is needed: the files come and go with the round still open.
            now = presses(guest)
            eventually(guest, lambda before=now: presses(guest) > before + 1, "memory that was hinted is used again")
        guest.control("hint balloon stop")
        assert balloon(guest)["hinting"] == NO_HINTING
        rounds += 1
    no_pressure(guest)
    assert max(hinted) > 8 * MIB, hinted
    # Reports aside, which are another thing, and off here.
    assert balloon(guest)["discarded"] == discarded


def moved(guest):
    """Bytes that have gone into the balloon and out of it."""
    now = balloon(guest)
    return now["inflated"] + now["deflated"]


def take_changes(guest):
    """Waits until the driver has worked on more targets."""
    before = moved(guest)
    eventually(guest, lambda: moved(guest) > before + 32 * MIB, "the driver follows the targets")


def storms(guest):
    """
    Targets change all the time, faster than the driver can look, while it works on them, under memory pressure, with rounds of hints and questions for statistics in between: the founding
    case. The last target is where the guest ends, every time.
    """
    job = busy(guest, "/data/busy")
    pressure(guest, 100)
    changes, asked, answered = 0, 0, balloon(guest)["stats_count"]
    for last in (150, 0, 77, 31, 120, KEPT):
        guest.control("storm balloon 0 180")
        for _ in range(5):
            if balloon(guest)["hinting"] in (NO_HINTING, HINTING_ENDED):
                guest.control("hint balloon start")
                asked += 1
            guest.control("stats balloon")
            take_changes(guest)
        changes += int(guest.control(f"calm balloon {last}").partition("=")[2])
        eventually(guest, lambda size=last * MIB: balloon(guest)["actual"] == size, f"the last target, {last} MiB, is reached: {balloon(guest)}")
        guest.control("hint balloon stop")
    no_pressure(guest)
    guest.calm(job)
    forget_statistics(guest)
    assert changes > 1000 and asked >= 6 and balloon(guest)["stats_count"] > answered, (changes, asked, answered)
    reach(guest, KEPT)


def reports(guest):
    """The guest tells of free memory by itself: what it lets go of goes back."""
    dirty(guest)
    low = []
    eventually(guest, lambda: low.append(resident(guest)) or (len(low) > 60 and low[-1] == low[-60]), "the guest's free memory has been reported")
    reported, discarded = balloon(guest)["reported"], balloon(guest)["discarded"]
    dirty(guest)
    eventually(guest, lambda: balloon(guest)["reported"] - reported > FILL * MIB // 2, "what was let go of is reported")
    eventually(guest, lambda: resident(guest) - low[-1] < FILL * MIB // 2, "and has gone back")
    assert balloon(guest)["discarded"] - discarded > FILL * MIB // 2


def out_of_memory(guest):
    """The balloon is asked to be larger than the guest can bear, and lets go when the guest needs memory."""
    free = memory(guest, "MemAvailable") // MIB
    reach(guest, free - 60)
    full = balloon(guest)["actual"]
    guest.run("mkdir -p /run/fill && mount -t tmpfs -o size=95% fill /run/fill && dd if=/dev/zero of=/run/fill/x bs=1M count=120 2> /dev/null")
    assert balloon(guest)["actual"] < full
    guest.run("rm /run/fill/x; umount /run/fill")
    reach(guest, 0)


def plug_balloon(guest, options=""):
    guest.control(f"{BALLOON} {options}".strip())
    until(guest, virtio_device(channel_folder(CCW_BALLOON)))


def forget_statistics(guest):
    """Answers to questions that nobody waits for any more."""
    guest.told = [line for line in guest.told if not line.startswith("stats ")]


def unplug_asked(guest):
    """Under a storm of targets; the guest takes its pages back before it lets go of the device."""
    folder = channel_folder(CCW_BALLOON)
    for _ in range(3):
        guest.control("storm balloon 0 128")
        take_changes(guest)
        guest.control("remove balloon")
        # It goes on as if nothing had been said.
        take_changes(guest)
        assert guest.not_told("removed balloon")
        guest.run(f"echo 0 > {folder}/online")
        guest.wait_told("removed balloon")
        until(guest, f"[ ! -e {folder} ]")
        plug_balloon(guest, "no-reporting")


def quiet(guest):
    """No channel program is on its way, nor anything that would begin one."""
    guest.run("was=; until [ \"$was\" = \"$(grep VIR: /proc/interrupts)\" ]; do was=$(grep VIR: /proc/interrupts); usleep 200000; done")


def unplug_forced(guest):
    """
    With questions for statistics on their way. The balloon is empty and its configuration has been read: stock drivers wait for ever for an answer to the pages they take back from a device that
    is gone, and for the end of a channel program, as unplug_forced_full sees.
    """
    folder = channel_folder(CCW_BALLOON)
    for _ in range(5):
        reach(guest, KEPT)
        reach(guest, 0)
        quiet(guest)
        with guest.trouble_expected():
            guest.control("stats balloon")
            guest.control("force balloon")
            guest.wait_told("removed balloon")
            until(guest, f"[ ! -e {folder} ]")
        plug_balloon(guest, "no-reporting")
    forget_statistics(guest)


def unplug_forced_full(guest):
    """In the middle of everything. The host has the device back at once; the guest is started anew, with another one."""
    guest.control("storm balloon 0 128")
    take_changes(guest)
    with guest.trouble_expected():
        guest.control("force balloon")
        guest.wait_told("removed balloon")
        machine_reset(guest)
    guest.run("modprobe virtio_balloon")
    plug_balloon(guest)
    reach(guest, KEPT)


# ---- all of it ----

def load(guest):
    guest.run("modprobe virtio-rng && modprobe virtio_balloon")


def after_restart(guest):
    """What the host wants of the balloon stays, and the new kernel's driver does it."""
    assert balloon(guest)["actual"] == 0 and balloon(guest)["target"] == KEPT * MIB
    known_contents(guest)
    load(guest)
    eventually(guest, lambda: balloon(guest)["actual"] == KEPT * MIB, "the target is reached after the restart")
    random_numbers(guest, "rngc", "rngp")


def all_devices(guest, event):
    """Its cells: one for each device."""
    stack = contextlib.ExitStack()
    for road, device in (("css", "rng"), ("zpci", "rng"), ("css", "balloon")):
        stack.enter_context(cell(guest, road, event, device))
    return stack


@both
def test_entropy_and_balloon(lab, suite):
    """One guest, one device after the other, then all of them together."""
    guest = boot(lab, suite, [f"add ccw root 1 {root_image(lab, suite)}", RNG_CCW], append=ROOT_FIRST)
    see_all(guest)
    load(guest)
    entropy(guest, "css", "rngc", RNG_CCW, channel_folder(CCW_RNG), f"echo 0 > {channel_folder(CCW_RNG)}/online",
            f"echo 0 > {channel_folder(CCW_RNG)}/online; echo 1 > {channel_folder(CCW_RNG)}/online")
    guest.run(f"echo 0 > {channel_folder(CCW_RNG)}/online")
    guest.control(RNG_PCI)
    until(guest, virtio_device(pci_folder(PCI_RNG)))
    address = pci_folder(PCI_RNG).rpartition("/")[2]
    entropy(guest, "zpci", "rngp", RNG_PCI, pci_folder(PCI_RNG), f"echo {address} > {PCI_DRIVER}/unbind",
            f"echo {address} > {PCI_DRIVER}/unbind; echo {address} > {PCI_DRIVER}/bind")
    guest.run(f"echo 1 > {channel_folder(CCW_RNG)}/online")
    until(guest, virtio_device(channel_folder(CCW_RNG)))
    random_numbers(guest, "rngc", "rngp")

    with cell(guest, "css", "hot-add", "balloon"):
        plug_balloon(guest, "no-reporting")
    for event, trial in (("balloon-target", inflate_and_deflate), ("balloon-stats", statistics), ("balloon-hints-pressure", hints), ("config-change", storms),
                         ("unplug-asked", unplug_asked), ("unplug-forced", unplug_forced)):
        with cell(guest, "css", event, "balloon"):
            trial(guest)
    guest.run(f"echo 0 > {channel_folder(CCW_BALLOON)}/online")
    guest.control("force balloon")
    guest.wait_told("removed balloon")
    until(guest, f"[ ! -e {channel_folder(CCW_BALLOON)} ]")
    plug_balloon(guest, "deflate-on-oom")
    for event, trial in (("balloon-reporting", reports), ("balloon-oom", out_of_memory)):
        with cell(guest, "css", event, "balloon"):
            trial(guest)

    with all_devices(guest, "guest-reboot"):
        reach(guest, KEPT)
        reader(guest)
        guest.reboot()
        guest.wait_told("ipl")
        see_all(guest)
        after_restart(guest)
    with all_devices(guest, "system-reset"):
        guest.run("sync")
        reader(guest)
        machine_reset(guest)
        after_restart(guest)
    with cell(guest, "css", "unplug-forced-full", "balloon"):
        unplug_forced_full(guest)
    lab.finish()
