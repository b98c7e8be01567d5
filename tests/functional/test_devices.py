# SPDX-License-Identifier: BSD-2-Clause
"""The kinds of devices that `pintle serve` knows beside disks: random numbers and the memory balloon with a driver attached, what `pintle ctl` says to them, and what it refuses."""
import json
import os
import struct
import subprocess
import time

import pytest
from controlled import Control, Refused, eventually
from serving import Server, build
import vfu

PAGE = 4096
INFLATE, DEFLATE, STATS, HINTS, REPORTS = range(5)
STATS_FEATURE, OOM_FEATURE, HINT_FEATURE, POISON_FEATURE, REPORT_FEATURE = (1 << bit for bit in (1, 2, 3, 4, 5))
MUST_TELL = 1 << 0


@pytest.fixture(scope="session")
def program():
    path = build() / "pintle"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


@pytest.fixture
def serve(program, tmp_path):
    """A server of these devices, d0, d1, ...; it ends in order."""
    servers = []

    def start(*devices):
        arguments = ["--control", f"path={tmp_path / 'control'}"]
        for i, device in enumerate(devices):
            arguments += ["--device", device, "--road", f"vfio-user,path={tmp_path / f's{i}'}"]
        server = Server(program, tmp_path, *arguments)
        servers.append(server)
        server.sockets = [tmp_path / f"s{i}" for i in range(len(devices))]
        server.control = tmp_path / "control"
        return server

    yield start
    for server in servers:
        with server:
            if server.process.poll() is None:
                assert server.end() == 0, server.words()


class Driver(vfu.Blk):
    """A virtio driver with split rings, up to five of them, whose buffers are one descriptor each."""

    MEMORY, ENTRIES = 4 << 20, 16

    def __init__(self, path, queues, features, expect=0xB, vector=True):
        self.features, self.queues = features | self.VERSION_1, queues
        self.indexes = [0] * queues
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        super().__init__(path, start=False)
        if vector:
            assert self.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [self.event])[0] == 0
            config = self.read(vfu.CONFIG, 0, 256)
            at = config[0x34]
            while config[at] != 0x11:
                at = config[at + 1]
            self.write(vfu.CONFIG, at + 2, struct.pack("<H", 0x8000))
        self.begin(expect)

    def begin(self, expect=0xB):
        self.indexes = [0] * self.queues
        self.put(0, bytes(0x20000))
        for status in (0, 1, 3):
            self.common(20, "<B", status)
        for half in range(2):
            self.common(8, "<I", half)
            self.common(12, "<I", self.features >> 32 * half & 0xFFFFFFFF)
        self.common(20, "<B", 0xB)
        assert self.status() == expect
        if expect != 0xB:
            return
        self.common(16, "<H", 0)
        for queue in range(self.queues):
            self.common(22, "<H", queue)
            self.common(24, "<H", self.ENTRIES)
            for offset, place in ((32, 0), (40, 0x1000), (48, 0x2000)):
                self.common(offset, "<Q", self.BASE + 0x4000 * queue + place)
            self.common(28, "<H", 1)
        self.common(20, "<B", 0xF)

    def close(self):
        if self.event >= 0:
            os.close(self.event)
            self.event = -1
        super().close()

    def submit(self, queue, address, length, writable=False):
        slot = self.indexes[queue] % self.ENTRIES
        ring = 0x4000 * queue
        self.put(ring + 16 * slot, struct.pack("<QIHH", self.BASE + address, length, 2 if writable else 0, 0))
        self.put(ring + 0x1000 + 4 + 2 * slot, struct.pack("<H", slot))
        self.indexes[queue] += 1
        self.put(ring + 0x1002, struct.pack("<H", self.indexes[queue] & 0xFFFF))
        bar, start = self.where[2]
        self.common(22, "<H", queue)
        offset = self.common(30, "<H")
        self.write(bar, start + offset * self.multiplier(), struct.pack("<H", queue))

    def multiplier(self):
        config = self.read(vfu.CONFIG, 0, 256)
        at = config[0x34]
        while config[at] != 9 or config[at + 3] != 2:
            at = config[at + 1]
        return struct.unpack_from("<I", config, at + 16)[0]

    def returned(self, queue):
        return struct.unpack_from("<H", self.memory, 0x4000 * queue + 0x2002)[0] == self.indexes[queue] & 0xFFFF

    def give(self, queue, address, length, writable=False):
        """One buffer, waited for: how many bytes the device says it has written."""
        slot = self.indexes[queue] % self.ENTRIES
        self.submit(queue, address, length, writable)
        self.wait_for(lambda: self.returned(queue), "a buffer does not come back")
        return struct.unpack_from("<I", self.memory, 0x4000 * queue + 0x2004 + 8 * slot + 4)[0]

    def config(self, field):
        bar, start = self.where[4]
        return struct.unpack("<I", self.read(bar, start + 4 * field, 4))[0]

    def tell(self, field, value):
        bar, start = self.where[4]
        self.write(bar, start + 4 * field, struct.pack("<I", value))

    def told(self):
        try:
            return os.eventfd_read(self.event) > 0
        except BlockingIOError:
            return False


# ---- random numbers ----

def test_rng(serve):
    server = serve("rng", "rng,rate=4K,id=slow")
    with Control(server.control) as control, Driver(server.sockets[0], 1, Driver.PLATFORM) as driver:
        driver.put(0x100000, bytes(PAGE))
        assert driver.give(0, 0x100000, PAGE, True) == PAGE
        first = driver.memory[0x100000:0x100000 + PAGE]
        assert len(set(first)) > 200, "these are no random numbers"
        assert driver.give(0, 0x100000, PAGE, True) == PAGE and driver.memory[0x100000:0x100000 + PAGE] != first
        shown = control.show()
        assert shown["type"] == "rng" and shown["virtio"]["class"] == "rng"
        assert shown["virtio"]["rng"] == {"rate": 0, "bytes": 2 * PAGE, "waits": 0}
    with Control(server.control) as control, Driver(server.sockets[1], 1, Driver.PLATFORM) as driver:
        for _ in range(3):
            assert driver.give(0, 0x100000, PAGE, True)
        assert control.show("slow")["virtio"]["rng"]["waits"] >= 1 and control.show("slow")["virtio"]["rng"]["rate"] == 4096


# ---- the balloon ----

ALL = MUST_TELL | STATS_FEATURE | OOM_FEATURE | HINT_FEATURE | POISON_FEATURE | REPORT_FEATURE


def frames(driver, pages):
    numbers = b"".join(struct.pack("<I", (driver.BASE + page) // PAGE) for page in pages)
    driver.put(0x30000, numbers)
    return len(numbers)


def test_balloon_pages(serve):
    """Pages that are given up are holes in the client's file."""
    server = serve("balloon,deflate-on-oom=on")
    with Control(server.control) as control, Driver(server.sockets[0], 5, ALL) as driver:
        assert control.call("balloon-target", id="d0", size=64 * PAGE)["target"] == 64 * PAGE
        eventually(driver.told, "the driver hears of its target")
        assert driver.config(0) == 64
        pages = [0x100000 + i * PAGE for i in range(64)]
        for page in pages:
            driver.put(page, b"\x5a" * PAGE)
        length = frames(driver, pages)
        before = os.fstat(driver.fd).st_blocks
        driver.give(INFLATE, 0x30000, length)
        driver.tell(1, 64)
        assert before - os.fstat(driver.fd).st_blocks == 64 * PAGE // 512
        assert driver.memory[0x100000] == 0
        shown = control.show()["virtio"]["balloon"]
        assert [shown[name] for name in ("target", "actual", "inflated", "given-back")] == [64 * PAGE] * 4
        # Reported pages are the buffers themselves.
        driver.put(0x200000, b"\x5a" * 8 * PAGE)
        before = os.fstat(driver.fd).st_blocks
        driver.give(REPORTS, 0x200000, 8 * PAGE, True)
        assert before - os.fstat(driver.fd).st_blocks == 8 * PAGE // 512
        assert control.show()["virtio"]["balloon"]["reported"] == 8 * PAGE
        assert control.call("balloon-target", id="d0", size=0)["target"] == 0
        eventually(driver.told, "the driver hears of its target")
        assert driver.config(0) == 0
        driver.give(DEFLATE, 0x30000, frames(driver, pages))
        driver.tell(1, 0)
        assert control.show()["virtio"]["balloon"]["actual"] == 0


def stats(driver, free):
    driver.put(0x31000, struct.pack("<HQHQ", 4, free, 5, 1 << 30))
    return 20


def test_balloon_statistics(serve):
    server = serve("balloon")
    with Control(server.control) as control, Driver(server.sockets[0], 5, ALL & ~OOM_FEATURE) as driver:
        length = stats(driver, 1000)
        driver.submit(STATS, 0x31000, length)
        eventually(lambda: control.show()["virtio"]["balloon"]["stats"]["count"] == 1, "the first statistics have come")
        number = control.begin("balloon-stats", id="d0")
        driver.wait_for(lambda: driver.returned(STATS), "the device gives the buffer back to ask")
        driver.submit(STATS, 0x31000, stats(driver, 2000))
        answer = control.result(number)
        assert answer["fresh"] and answer["stats"]["free"] == 2000 and answer["stats"]["total"] == 1 << 30 and 0 <= answer["stats"]["age"] < 30
        # A driver that does not answer: those from before, and their age.
        begun = time.monotonic()
        answer = control.call("balloon-stats", id="d0")
        assert not answer["fresh"] and answer["stats"]["free"] == 2000
        assert answer["stats"]["age"] > 4 and time.monotonic() - begun > 4
        # And one that goes.
        number = control.begin("balloon-stats", id="d0")
        control.show()
        driver.close()
        assert not control.result(number)["fresh"]
        with pytest.raises(Refused, match="has not accepted"):
            control.call("balloon-stats", id="d0")


def test_statistics_under_way_at_the_end(serve):
    """A server that is told to end does not wait for a guest."""
    server = serve("balloon")
    with Control(server.control) as control, Driver(server.sockets[0], 5, ALL & ~OOM_FEATURE):
        control.begin("balloon-stats", id="d0")
        control.show()
        begun = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begun < 4 or os.environ.get("PINTLE_SLOW")


def test_balloon_hints(serve):
    server = serve("balloon")
    with Control(server.control) as control, Driver(server.sockets[0], 5, ALL & ~OOM_FEATURE) as driver:
        assert control.call("balloon-hint", id="d0", state="start")["hinting"] == "asked"
        eventually(driver.told, "the driver hears of the round")
        command = driver.config(2)
        assert command >= 2
        with pytest.raises(Refused, match="has not ended"):
            control.call("balloon-hint", id="d0", state="start")
        driver.put(0x32000, struct.pack("<I", command))
        driver.give(HINTS, 0x32000, 4)
        driver.put(0x200000, b"\x33" * 4 * PAGE)
        driver.give(HINTS, 0x200000, 4 * PAGE, True)
        assert driver.memory[0x200000] == 0x33, "what is hinted stays"
        driver.put(0x32000, struct.pack("<I", 0))
        driver.give(HINTS, 0x32000, 4)
        shown = control.show()["virtio"]["balloon"]
        assert shown["hinting"] == "ended" and shown["hinted"] == 4 * PAGE
        assert control.call("balloon-hint", id="d0", state="stop")["hinting"] == "none"
        eventually(lambda: driver.told() and driver.config(2) == 1, "the driver hears that it may use its pages")


def test_command_line(serve):
    server = serve("balloon", "rng")

    def ctl(*words):
        return server_pintle(server, "ctl", *words)
    with Driver(server.sockets[0], 5, ALL & ~OOM_FEATURE) as driver:
        status, out = ctl("balloon", "target", "d0", "1M")
        assert status == 0 and "target: 1048576" in out
        eventually(lambda: driver.config(0) == 256, "the target is there")
        assert ctl("balloon", "target", "d0", "0")[0] == 0
        assert "hinting: asked" in ctl("balloon", "hint", "d0", "start")[1]
        assert ctl("balloon", "hint", "d0", "stop")[0] == 0
        assert ctl("balloon", "hint", "d0", "pause")[0] == 1
        assert "actual: 0" in ctl("show", "d0")[1]
    assert ctl("balloon", "target", "d0", "much")[0] == 2
    assert ctl("balloon", "target", "d0")[0] == 1
    assert ctl("balloon", "stats", "d0", "1")[0] == 2
    assert ctl("balloon", "inflate", "d0")[0] != 0
    status, out = ctl("balloon", "stats", "d1")
    assert status == 1 and "is no balloon" in out


def server_pintle(server, *words):
    result = subprocess.run([build() / "pintle", words[0], "--socket", server.control, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, timeout=60)
    return result.returncode, result.stdout


# ---- what is offered, and what is refused ----

@pytest.mark.parametrize("keys, queues, offered", [
    ("", 5, ALL & ~OOM_FEATURE),
    (",deflate-on-oom=on", 5, ALL),
    (",stats=off,hinting=off,reporting=off", 2, MUST_TELL | POISON_FEATURE),
    (",hinting=off", 4, MUST_TELL | POISON_FEATURE | STATS_FEATURE | REPORT_FEATURE),
])
def test_balloon_features(serve, keys, queues, offered):
    server = serve("balloon" + keys)
    with Driver(server.sockets[0], queues, offered) as driver:
        driver.common(0, "<I", 0)
        assert driver.common(4, "<I") & 0xFFFFFF == offered
        driver.common(0, "<I", 1)
        assert driver.common(4, "<I") & 2 == 0, "ACCESS_PLATFORM is not offered"
        assert driver.common(18, "<H") == queues


@pytest.mark.parametrize("device, queues, features", [("balloon,access-platform=on", 5, ALL & ~OOM_FEATURE), ("rng", 1, 0)])
def test_access_platform_is_demanded(serve, device, queues, features):
    """Virtio 1.3, section 6.2: a device that offers it may fail to work without it; this one says so before DRIVER_OK."""
    server = serve(device)
    with Driver(server.sockets[0], queues, features, expect=3) as driver:
        assert server.says("ACCESS_PLATFORM")
        driver.features |= driver.PLATFORM
        driver.begin()
        assert driver.status() == 0xF


def test_rng_without_access_platform(serve):
    server = serve("rng,access-platform=off")
    with Driver(server.sockets[0], 1, 0) as driver:
        assert driver.give(0, 0x100000, 64, True) == 64


def test_what_is_no_disk_is_refused(serve):
    server = serve("rng", "balloon")
    with Control(server.control) as control:
        for device in ("d0", "d1"):
            for call in (lambda d: control.call("resize", id=d), lambda d: control.call("resize", id=d, size=4096),
                         lambda d: control.inject("slow", d, time=1), lambda d: control.inject("fail", d), lambda d: control.inject("heal", d)):
                with pytest.raises(Refused, match="is no disk"):
                    call(device)
            with pytest.raises(Refused, match="no device of the host"):
                control.call("check", id=device)
        assert "pintle_queue_kicks" in control.call("metrics")["text"]
        server.process.send_signal(1)  # SIGHUP: there is nothing to look at
        assert [device["type"] for device in control.call("list")["devices"]] == ["rng", "balloon"]


def test_plug_and_reset(serve):
    """Unplug, plug and resets are the same for every kind."""
    server = serve("balloon", "rng")
    with Control(server.control) as control:
        with Driver(server.sockets[1], 1, Driver.PLATFORM) as driver:
            assert driver.give(0, 0x100000, 64, True) == 64
            control.call("reset", id="d1", kind="device")
            driver.write(vfu.CONFIG, 4, struct.pack("<H", 6))
            driver.begin()
            assert driver.give(0, 0x100000, 64, True) == 64
            control.call("unplug", id="d1", force=True)
            driver.expect_closed()
        control.call("plug", id="d1")
        with Driver(server.sockets[1], 1, Driver.PLATFORM) as driver:
            assert driver.give(0, 0x100000, 64, True) == 64
        with Driver(server.sockets[0], 5, ALL & ~OOM_FEATURE) as driver:
            control.call("balloon-target", id="d0", size=PAGE)
            driver.tell(1, 1)
            control.call("reset", id="d0", kind="device")
            shown = control.show()["virtio"]["balloon"]
            assert shown["actual"] == 0 and shown["target"] == PAGE, "what the host wants stays"


def test_configuration_file(program, tmp_path):
    file = tmp_path / "vm.json"
    road = {"type": "vfio-user"}
    devices = [{"type": "rng", "rate": "1M", "road": dict(road, path="r")},
               {"type": "balloon", "deflate-on-oom": True, "stats": False, "road": dict(road, path="b")}]
    file.write_text(json.dumps({"devices": devices}))
    with Server(program, tmp_path, "--config", "vm.json") as server:
        with Driver(tmp_path / "b", 4, ALL & ~STATS_FEATURE) as driver:
            assert driver.common(18, "<H") == 4
        assert server.end() == 0
    devices[1]["path"] = "disk.img"
    file.write_text(json.dumps({"devices": devices}))
    with Server(program, tmp_path, "--config", "vm.json", start=False) as server:
        assert server.wait() == 2 and 'no key "path"' in server.words()
