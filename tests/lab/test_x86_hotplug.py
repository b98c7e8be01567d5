# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests into which functions and memory come, and from which functions go, while they run under verified I/O.

QEMU 11.1 aborts when a function with MSI-X is taken out of a running machine, see docs/roads/vfio-user.md; so those that go
have none (msix=off). Those that have are in the last test.
"""
import os
import signal
import time

from kit import cells, events, host

MEGABYTES = 8


def add(guest, server, name, port="spare0"):
    """A disk comes, and is used."""
    guest.qmp("device_add", **server.device(port, "0.0"))
    events.wait_disk(guest, name)
    guest.run(f"iocheck run /dev/{name} 16 1 8 3 && iocheck stamp /dev/{name} {MEGABYTES} {events.STAMP}")


def asked_to_go(guest, server, name):
    """The guest is asked to give a disk up that is being written to. It does; its driver's last accesses are answered."""
    job = guest.busy(f"/dev/{name}", megabytes=4)
    with guest.trouble_expected():
        guest.qmp("device_del", id=server.name)
        gone = guest.qmp_event("DEVICE_DELETED")
        while gone.get("device") != server.name:
            gone = guest.qmp_event("DEVICE_DELETED")
        guest.run(f"[ ! -e /sys/block/{name} ]; gone=$?; wait $job{job}; (exit $gone)")
    server.check_alive()


def come_and_go(lab, guest):
    """Hot-add, unplug by request under I/O, and the same server's function in the same machine again."""
    late, later = lab.data_disk(32, "d2", options=",msix=off"), lab.data_disk(32, "d3")
    with cells.cell("hot-add", guest.describe()):
        job = guest.busy("/data/busy")
        add(guest, late, "vdc")
        # One with MSI-X too; it stays.
        add(guest, later, "vdd", "spare1")
        guest.calm(job)
        guest.servers += [late, later]
        events.healthy(guest)
    events.happen(guest, "bus-master", "vdd")
    with cells.cell("unplug-asked", guest.describe()):
        job = guest.busy("/data/busy")
        asked_to_go(guest, late, "vdc")
        guest.calm(job)
        add(guest, late, "vdc")
        asked_to_go(guest, late, "vdc")
        guest.run(f"iocheck tail /dev/vdd {MEGABYTES} {events.STAMP}")
        events.healthy(guest)


def zone(guest, name):
    """Free and present pages of a memory zone."""
    text = guest.run(f"sed -n '/zone *{name}/,/^Node/p' /proc/zoneinfo").split()
    return int(text[text.index("free") + 1]), int(text[text.index("present") + 1])


def memory_comes(guest):
    """Memory comes, and the disks' requests come from there."""
    total = "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"
    with cells.cell("memory-hot-add", guest.describe()):
        before = int(guest.run(total))
        job = guest.busy("/dev/vdb", megabytes=4)
        guest.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": "more", "size": 256 << 20, "share": True})
        guest.qmp("device_add", driver="pc-dimm", id="dimm0", memdev="more")
        # What is movable goes there first: the buffers of programs.
        guest.run(f"until [ $({total}) -ge {before + (250 << 10)} ]; do usleep 100000; done")
        guest.calm(job)
        guest.run("iocheck run /dev/vdb 16 2 16 4")
        # Of the new zone's pages, those that the programs took; they are the ones that went to the disk.
        guest.busy("/dev/vdb", megabytes=4)
        free, present = zone(guest, "Movable")
        assert present >= 250 << 8 and free < present
        guest.calm()
        events.healthy(guest)


def image_grows(guest, server, image):
    """The image grows while it is in use; the server is told to look by a signal and by its control socket, and tells the guest."""
    with cells.cell("config-change", guest.describe()):
        guest.run(f"iocheck stamp /dev/vdb 16 {events.STAMP}")
        for megabytes, look in ((48, lambda: server.signal(signal.SIGHUP)), (64, lambda: server.ctl("resize"))):
            job = guest.busy("/data/busy")
            os.truncate(image, megabytes << 20)
            look()
            guest.run(f"until [ $(cat /sys/block/vdb/size) = {megabytes << 11} ]; do usleep 50000; done")
            guest.calm(job)
            guest.run(f"iocheck compare /dev/vdb 16 {events.STAMP}")
            guest.run(f"iocheck run /dev/vdb {megabytes} 1 8 2 && iocheck stamp /dev/vdb {megabytes} {events.STAMP}")
        events.healthy(guest)


def test_more(lab):
    """Disks, memory and space on a disk come, and disks go."""
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(32)], spare_ports=2, more_memory=",slots=2,maxmem=2G",
                      append="memhp_default_state=online_movable")
    image_grows(guest, guest.servers[1], lab.folder / "d1.img")
    memory_comes(guest)
    come_and_go(lab, guest)
    # With memory and a function that were not there at its first start.
    events.happen(guest, "system-reset", "vdb")
    lab.finish()


def test_unplug_unanswered(lab):
    """A guest that does not listen to its ports: what was asked stays asked, the disk works on."""
    guest = lab.guest("bookworm", [lab.root_disk("bookworm"), lab.data_disk(32, options=",msix=off")], append="pcie_ports=compat")
    with cells.cell("unplug-unanswered", guest.describe()):
        job = guest.busy("/dev/vdb", megabytes=4)
        guest.qmp("device_del", id="d1")
        events.goes_on(guest, "vdb", 500)
        guest.calm(job)
        assert not [event for event in guest.events if event["event"] == "DEVICE_DELETED"]
        events.healthy(guest)
    # It is reset with the machine, which then lets it go; there is no guest that could mind.
    with cells.cell("unplug-unanswered-reset", guest.describe()):
        guest.run(f"iocheck stamp /data/stamped 4 {events.STAMP}")
        guest.busy("/dev/vdb", megabytes=4)
        guest.qmp("system_reset")
        guest.wait_ready()
        guest.run(f"iocheck compare /data/stamped 4 {events.STAMP}")
        events.healthy(guest)
    lab.finish()


def dies_of(guest, assertion, trial):
    """Whether QEMU aborted during a trial; only of the one assertion that is known."""
    try:
        trial()
        return False
    except host.LabError:
        words = guest.qemu_log.read_text(errors="replace")
        if guest.process.poll() != -signal.SIGABRT or assertion not in words:
            raise
        return True


def plug(server):
    """Offer it again, as soon as the server has seen the last client go."""
    end = time.monotonic() + host.COMMAND_LIMIT
    while True:
        try:
            return server.ctl("plug")
        except host.LabError as error:
            if "still connected" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.05)


def unplug_asked(guest, server):
    guest.qmp("device_del", id=server.name)
    guest.qmp_event("DEVICE_DELETED")


def lost(guest, server, take):
    """The disk is gone without anybody's consent; the guest goes on with the other one."""
    guest.busy("/dev/vdb", megabytes=4)
    job = guest.busy("/data/busy")
    take(server)
    events.goes_on(guest, "vda", 200)
    guest.calm(job)
    guest.run("cd /known && sha256sum -c SHA256SUMS > /dev/null")
    assert guest.qmp("query-status")["status"] == "running"
    assert not guest.kernel_trouble()


def kill_server(server):
    server.kill()
    server.socket.unlink()


UNPLUG = ("memory_region_del_subregion: Assertion `subregion->container == mr' failed", "QEMU aborts while it takes the MSI-X table's region away")
BROKEN = ("error_setv: Assertion `*errp == NULL' failed", "QEMU aborts: it sets an error twice (util/error.c) when messages cannot be sent any more")
# The event, what makes it happen, what QEMU may die of, how the disk is offered again, and what that is called.
TAKEN = (
    ("unplug-asked-msix", unplug_asked, UNPLUG, lambda server: None, "vmm-killed"),
    ("server-killed", lambda guest, server: lost(guest, server, kill_server), BROKEN, lambda server: server.start(), "server-restarted"),
    ("unplug-forced", lambda guest, server: lost(guest, server, lambda one: one.ctl("unplug", "--force")), BROKEN, plug, "unplug-forced-plugged"),
    ("surprise-removal", lambda guest, server: lost(guest, server, lambda one: one.inject("remove")), BROKEN, plug, "surprise-removal-plugged"),
)


def test_taken(lab):
    """A disk with MSI-X goes: by request, because its server dies, by force, and as a surprise. QEMU may abort of each, under I/O; nothing
    of that reaches the server. Whether the disk's next server and the next QEMU come because of that or because somebody wants the
    disk back: what was flushed is there."""
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(16)])
    data = guest.servers[1]
    for event, take, (assertion, reason), offer, after in TAKEN:
        guest.run(f"iocheck stamp /dev/vdb 8 {events.STAMP} && iocheck stamp /data/stamped 4 {events.STAMP} && sync")
        died = dies_of(guest, assertion, lambda: take(guest, data))
        cells.record(event, guest.describe(), "client" if died else "passed", reason=reason if died else "")
        lab.servers[0].check_alive()
        if event != "server-killed":
            data.check_alive()
        guest.kill()
        lab.guests.clear()
        with cells.cell(after, guest.describe()):
            offer(data)
            guest = lab.guest("trixie", guest.servers, name=event)
            guest.run(f"iocheck tail /dev/vdb 8 {events.STAMP} && iocheck compare /data/stamped 4 {events.STAMP}")
            job = guest.busy("/dev/vdb", megabytes=4)
            events.goes_on(guest, "vdb")
            guest.calm(job)
    lab.finish()
