# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests with Pintle's entropy device and memory balloon: stock drivers, memory that really goes back to the host, and what a guest's IOMMU has to do with it."""
import os
import re
import time

from kit import cells, events

MIB = 1 << 20
# The page tables, the driver's own memory: what a guest's balloon is never asked for.
FILL = 220
PATIENCE = 240


def load(guest, *modules):
    for module in modules:
        guest.run(f"modprobe {module}")


def eventually(guest, condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            guest.fail(f"in vain: {what}")
        time.sleep(0.1)


def host_bytes(guest):
    """What the guest's memory takes on this machine: the blocks of QEMU's file."""
    folder = f"/proc/{guest.process.pid}/fd"
    files = {}
    for name in os.listdir(folder):
        if "memfd:" in os.readlink(f"{folder}/{name}"):
            status = os.stat(f"{folder}/{name}")
            files[status.st_ino] = status.st_blocks * 512
    assert files, "QEMU has no file of memory"
    return max(files.values())


def figures(server):
    return server.show()["virtio"]["balloon"]


def reach(guest, server, size):
    """Sets the target and waits for the guest."""
    server.balloon("target", str(size))
    eventually(guest, lambda: figures(server)["actual"] == size, f"{size} bytes in the balloon; it has {figures(server)}")


def dirty(guest, megabytes=FILL):
    """The guest writes to so much of its memory, and lets go of it again."""
    guest.run(f"mount -t tmpfs -o size=90% fill /tmp && dd if=/dev/urandom of=/tmp/fill bs=1M count={megabytes} 2> /dev/null; umount /tmp")


def random_numbers(guest, server):
    load(guest, "virtio-rng")
    assert "virtio_rng" in guest.run("cat /sys/class/misc/hw_random/rng_current")
    assert guest.run("dd if=/dev/hwrng bs=4096 count=16 iflag=fullblock 2> /dev/null | wc -c").strip() == "65536"
    # Numbers that a packer finds nothing in.
    packed = int(guest.run("dd if=/dev/hwrng bs=4096 count=16 iflag=fullblock 2> /dev/null | gzip | wc -c"))
    assert packed > 65000, packed
    assert server.show()["virtio"]["rng"]["bytes"] >= 2 * 65536


def statistics(guest, server):
    answer = server.balloon("stats")
    said = answer["stats"]
    total = int(re.search(r"MemTotal: +(\d+)", guest.run("cat /proc/meminfo"))[1]) * 1024
    assert answer["fresh"] and said["age"] < 60
    assert abs(said["total"] - total) < 16 * MIB, (said, total)
    assert 0 < said["free"] < said["total"] and 0 < said["available"] <= said["total"]
    assert server.balloon("stats")["stats"]["count"] > said["count"]


def hints(guest, server):
    server.balloon("hint", "start")
    eventually(guest, lambda: figures(server)["hinting"] == "ended", "the round of hints ends")
    assert figures(server)["hinted"] > 8 * MIB, figures(server)
    server.balloon("hint", "stop")
    assert figures(server)["hinting"] == "none"


def inflate_and_deflate(guest, server):
    dirty(guest)
    before = host_bytes(guest)
    reach(guest, server, 200 * MIB)
    after = host_bytes(guest)
    # Some pages had never been touched.
    assert before - after > 100 * MIB, (before, after)
    assert figures(server)["given-back"] >= 200 * MIB
    free = int(re.search(r"MemFree: +(\d+)", guest.run("cat /proc/meminfo"))[1]) // 1024
    assert free < 300, free
    reach(guest, server, 0)
    dirty(guest)
    assert host_bytes(guest) > after + 100 * MIB, "pages come back when they are used"


def under_load(guest, server):
    job = guest.busy("/data/busy")
    for size in (150, 20, 100, 0, 180, 64):
        server.balloon("target", str(size * MIB))
        time.sleep(0.5)
    reach(guest, server, 64 * MIB)
    guest.calm(job)
    events.healthy(guest)


def after_reboot(guest, server, again):
    """What the host wants stays; the new kernel's driver does it."""
    again()
    assert figures(server)["actual"] == 0 and figures(server)["target"] == 64 * MIB
    load(guest, "virtio_balloon")
    eventually(guest, lambda: figures(server)["actual"] == 64 * MIB, "the target is reached after the reboot")


def test_rng_and_balloon(lab):
    root, rng = lab.root_disk("trixie"), lab.device("rng0", "rng", ",rate=4M")
    balloon = lab.device("balloon0", "balloon", ",reporting=off,deflate-on-oom=on")
    guest = lab.guest("trixie", [root, rng, balloon])
    with cells.cell("entropy", guest.describe(), device="rng"):
        random_numbers(guest, rng)
    load(guest, "virtio_balloon")
    for name, trial in (("balloon-target", inflate_and_deflate), ("balloon-stats", statistics), ("balloon-hints", hints), ("balloon-under-load", under_load)):
        with cells.cell(name, guest.describe(), device="balloon"):
            trial(guest, balloon)
    with cells.cell("guest-reboot", guest.describe(), device="balloon"):
        after_reboot(guest, balloon, guest.reboot)
    with cells.cell("system-reset", guest.describe(), device="balloon"):
        after_reboot(guest, balloon, lambda: (guest.qmp("system_reset"), guest.wait_ready()))
    with cells.cell("system-reset", guest.describe(), device="rng"):
        random_numbers(guest, rng)
    lab.finish()


def test_reporting(lab):
    """The guest tells of free memory by itself."""
    balloon = lab.device("balloon0", "balloon")
    guest = lab.guest("trixie", [lab.root_disk("trixie"), balloon])
    with cells.cell("balloon-reporting", guest.describe(), device="balloon"):
        load(guest, "virtio_balloon")
        # Where it stands when all that is free has been told of.
        low = []
        eventually(guest, lambda: low.append(host_bytes(guest)) or (len(low) > 50 and low[-1] == low[-50]), "the guest's free memory has been reported")
        reported = figures(balloon)["reported"]
        dirty(guest)
        eventually(guest, lambda: figures(balloon)["reported"] - reported > 100 * MIB, "what was let go of is reported")
        eventually(guest, lambda: host_bytes(guest) - low[-1] < 100 * MIB, "and has gone back")
    lab.finish()


def test_balloon_behind_an_iommu(lab):
    """Linux's balloon driver clears ACCESS_PLATFORM: where it is offered it cannot have the device, and says so."""
    balloon = lab.device("balloon0", "balloon", ",access-platform=on")
    guest = lab.guest("trixie", [lab.root_disk("trixie"), balloon], viommu=True)
    with guest.trouble_expected():
        load(guest, "virtio_balloon")
        said = guest.run("dmesg | grep -i balloon")
    assert "device refuses features" in said, said
    assert balloon.show()["virtio"]["status"] & 8 == 0 and "ACCESS_PLATFORM" in balloon.words()
    cells.record("balloon-target", guest.describe(), "client", device="balloon",
                 reason="Linux's balloon driver clears ACCESS_PLATFORM, and FEATURES_OK is refused: " + said.strip().splitlines()[0])
    events.healthy(guest)
    lab.finish()
