# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests whose disk is disturbed from outside, by pintle ctl and pintle inject, under verified I/O."""
import time

from kit import cells, events


def disturb(guest, name, server, trial, disk="vdb"):
    """The guest does not notice what the trial does, except by waiting."""
    with cells.cell(name, guest.describe()):
        job = guest.busy(f"/dev/{disk}", megabytes=4)
        trial(server)
        events.goes_on(guest, disk)
        guest.calm(job)
        events.healthy(guest)


def bus_master_stolen(server):
    for _ in range(5):
        server.inject("bus-master-off")
        time.sleep(0.1)
        server.inject("bus-master-on")


def resets_nobody_told_of(server):
    for kind in ("bist", "msix-table") * 5:
        server.inject("backdoor-reset", "--kind", kind)


def interrupts_without_cause(server):
    for _ in range(50):
        server.inject("spurious-interrupt", "--vector", "1")


def memory_taken(server):
    """Mappings go away under I/O and come back: the queue waits meanwhile."""
    for _ in range(5):
        server.inject("withdraw-mapping")
        time.sleep(0.1)
        server.inject("give-back")


def stopped(server):
    for _ in range(5):
        server.inject("stop")
        time.sleep(0.1)
        server.inject("continue")


def lost_interrupt_stops_the_queue(guest, server):
    """
    A weakness of the guest's driver, which docs/inject.md explains: after one lost interrupt Linux's virtio-blk never looks at its ring again. It has no time-out (there is no io_timeout to be
    set), and what completes later raises no interrupt either: the event index still stands where the driver left it. An interrupt without a cause brings everything back.
    """
    def requests():
        return sum(queue["requests"] for queue in server.show()["virtio"]["queues"])

    guest.run("! [ -e /sys/block/vdb/queue/io_timeout ]")
    before = requests()
    server.inject("lose-interrupt", "--vector", "1", "--count", "1")
    for number in (1, 2):
        guest.run(f"dd if=/dev/vdb of=/run/lost{number} bs=4k count=1 skip={number} iflag=direct 2> /dev/null & lost{number}=$!; usleep 500000")
    time.sleep(3)
    # Done, as far as the device is concerned; the guest waits for both.
    queues = server.show()["virtio"]["queues"]
    assert requests() >= before + 2 and not any(queue["in-flight"] or queue["parked"] for queue in queues), queues
    assert guest.run("kill -0 $lost1 && kill -0 $lost2 && cat /sys/block/vdb/inflight").split() == ["2", "0"]
    server.inject("spurious-interrupt", "--vector", "1")
    guest.run("wait $lost1 && wait $lost2", limit=60)
    events.healthy(guest)


def test_unnoticed(lab):
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(16)])
    data = guest.servers[1]
    for name, trial in (("injected-bus-master", bus_master_stolen), ("injected-backdoor-reset", resets_nobody_told_of),
                        ("injected-spurious-interrupt", interrupts_without_cause), ("injected-mapping-withdrawn", memory_taken),
                        ("injected-stop", stopped)):
        disturb(guest, name, data, trial)
    # Requests that take tens of seconds. QEMU waits 5 s for an answer to an access: none of those waits for a request.
    with cells.cell("backend-slow", guest.describe()):
        address = guest.pci_address("vdb")
        data.inject("slow", "--time", "20s", "--count", "1")
        guest.run("dd if=/known/file-08 of=/dev/vdb bs=256k count=1 oflag=direct 2> /dev/null & slow=$!; usleep 500000")
        for register, off, on in (("command", "0:4", "4:4"), ("pmcsr", "3:3", "0:3")):
            guest.run(f"for i in 1 2 3; do pciset {address} {register} {off}; pciset {address} {register} {on}; done")
        # All of that while it is on its way.
        assert guest.run("kill -0 $slow && cat /sys/block/vdb/inflight").split() == ["0", "1"]
        guest.run("wait $slow && dd if=/dev/vdb bs=256k count=1 iflag=direct 2> /dev/null | cmp -n 262144 - /known/file-08")
        events.healthy(guest)
    lost_interrupt_stops_the_queue(guest, data)
    for error in ("EIO", "ENOSPC"):
        with cells.cell(f"backend-{error.lower()}", guest.describe()):
            data.inject("fail", "--error", error, "--count", "3")
            with guest.trouble_expected():
                said = guest.run("iocheck run /dev/vdb 4 2 4 1", status=1)
            assert "iocheck: FAILED" in said and "DIFFERENT" not in said
            data.inject("heal")
            guest.run("iocheck run /dev/vdb 4 1 8 2")
            events.healthy(guest)
    events.happen(guest, "bus-master", "vdb")
    with cells.cell("system-reset-slow", guest.describe()):
        # A reset with a write under way. The reset does not wait for it; the next life's first request does (law 4).
        data.inject("slow", "--time", "10s", "--count", "1", "--on", "write")
        guest.run("dd if=/known/file-07 of=/dev/vdb bs=256k count=1 oflag=direct 2> /dev/null & usleep 500000")
        guest.qmp("system_reset")
        guest.wait_ready()
        guest.run("dd if=/dev/vdb bs=256k count=1 iflag=direct 2> /dev/null | cmp -n 262144 - /known/file-07")
        events.healthy(guest)
    lab.finish(errors_of_backends=True)
