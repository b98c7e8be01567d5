# SPDX-License-Identifier: BSD-2-Clause
"""Hostile clients and drivers against the real server. Each test has a second device in the same process, which must not notice; afterwards nothing of the
attack is left, the process ends in order, and its log says why it did what it did."""
import fcntl
import os
import pathlib
import random
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

import vfu
from vfu import Blk, Client, Closed

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("PINTLE_SEED", "1"))
PATIENCE = 30
EINVAL, EEXIST, E2BIG, EACCES, ENOSYS, ENOTSUP = 22, 17, 7, 13, 38, 95


class Server:
    """pintle serve with two disks."""

    def __init__(self, folder):
        build = pathlib.Path(os.environ.get("PINTLE_BUILD", "build-debug"))
        self.pintle = (build if build.is_absolute() else SOURCE / build) / "pintle"
        self.log_path = folder / "log"
        self.sockets = [folder / "d0.sock", folder / "d1.sock"]
        command = [self.pintle, "serve"]
        for path in self.sockets:
            command += ["--device", f"blk,id={path.stem},backend=memory,size=1M", "--road", f"vfio-user,path={path}"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_log("ready: 2 devices")

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text, limit=PATIENCE):
        end = time.monotonic() + limit
        while text not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, f"the log does not say '{text}':\n{self.log()[-4000:]}"
            time.sleep(0.01)

    def holds(self):
        """Descriptors, mappings of clients' files, and mappings at all."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        maps = (proc / "maps").read_text().splitlines()
        return len(os.listdir(proc / "fd")), sum("memfd:hostile" in line for line in maps), len(maps)

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        assert self.process.poll() is None, self.log()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log()[-8000:]
        assert not re.search(r"Sanitizer|runtime error|assert", self.log()), self.log()[-8000:]
        assert "ended in order" in self.log()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Rig:
    """The server, the device that is attacked and the one that must not notice."""

    def __init__(self, folder):
        self.server = Server(folder)
        self.path = self.server.sockets[0]
        with Blk(self.path) as warm:  # what is made once is made now
            warm.check()
            assert warm.request(vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0))[0] == 0
            self.interrupt_once(warm)
        with Blk(self.path, by_message=True) as warm:  # the queue's own thread
            warm.kick()
            warm.command()
        self.bystander = Blk(self.server.sockets[1])
        self.bystander.check()
        self.before = self.settled()

    @staticmethod
    def interrupt_once(client):
        event = os.eventfd(0)
        assert client.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [event])[0] == 0
        assert client.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x21, 0, 1))[0] == 0
        os.close(event)

    def settled(self, like=None):
        """What the server holds when device 0 is nobody's: the same several times in a row, and like what it was."""
        end = time.monotonic() + PATIENCE
        with Client(self.path):  # whoever was attached before is gone by then
            pass
        last, times = None, 0
        while times < 10:
            time.sleep(0.01)
            holds = self.server.holds()
            right = holds[1] == 1 if like is None else holds[:2] == like[:2]
            times = times + 1 if right and holds == last else 0
            last = holds
            assert time.monotonic() < end, f"{holds} instead of {like}"
        return last

    def says(self, text):
        self.server.wait_log(text)

    def end(self):
        self.bystander.check()
        after = self.settled(self.before)
        # The allocator of the sanitizer maps as it likes, within bounds.
        assert after[2] <= self.before[2] + 64, "memory maps have grown"
        with Blk(self.path) as healthy:
            healthy.check()
        probe = subprocess.run([self.server.pintle, "probe", self.path], capture_output=True, text=True, timeout=PATIENCE)
        assert probe.returncode == 0, probe.stderr
        self.bystander.check()
        self.bystander.close()
        self.server.stop()


@pytest.fixture
def rig():
    with tempfile.TemporaryDirectory(prefix="pintle-") as folder:
        found = Rig(pathlib.Path(folder))
        try:
            yield found
            found.end()
        finally:
            found.server.kill()


def open_kinds():
    """Descriptors of every kind but the right one; closed by the caller."""
    reading, writing = os.pipe()
    one, two = socket.socketpair()
    two.close()
    with tempfile.NamedTemporaryFile() as file:
        plain = os.dup(file.fileno())
    epoll = select.epoll()
    kinds = {"pipe, reading": reading, "pipe, writing": writing, "file": plain, "socket": one.detach(),
             "folder": os.open("/", os.O_RDONLY), "/dev/null": os.open("/dev/null", os.O_RDWR), "memfd": vfu.memory_file(4096),
             "epoll": os.dup(epoll.fileno()), "path": os.open("/", os.O_PATH)}
    epoll.close()
    return kinds


# ---- messages ----

@pytest.mark.parametrize("size", [0, 1, 15, (1 << 20) + 4097, 1 << 31, 0xFFFFFFFF])
def test_impossible_size(rig, size):
    with Client(rig.path) as client:
        client.send(vfu.pack(1, vfu.GET_INFO, bytes(16), size=size))
        client.expect_closed()
    rig.says(f"a message of {size} bytes (command 4)")


SHORTEST = {vfu.DMA_MAP: 32, vfu.DMA_UNMAP: 24, vfu.GET_INFO: 4, vfu.GET_REGION_INFO: 32, vfu.GET_IO_FDS: 16, vfu.GET_IRQ_INFO: 16,
            vfu.SET_IRQS: 20, vfu.REGION_READ: 16, vfu.REGION_WRITE: 16, vfu.WRITE_MULTI: 8, vfu.FEATURE: 8, vfu.MIG_READ: 8}


def test_truncated(rig):
    with Client(rig.path) as client:
        for command, needed in SHORTEST.items():
            for length in range(needed):
                assert client.request(command, bytes(length))[0] == EINVAL
        rig.says("DMA_MAP with 0 bytes of payload; it needs 32")
        error, _ = client.request(vfu.REGION_WRITE, vfu.access_payload(vfu.CONFIG, 0, 8, b"1234567"))
        assert error == EINVAL
        entries = struct.pack("<Q", 2) + bytes(24)
        assert client.request(vfu.WRITE_MULTI, entries)[0] == EINVAL
        assert client.request(vfu.WRITE_MULTI, struct.pack("<Q", 1 << 63) + bytes(24))[0] == EINVAL
        assert client.read(vfu.CONFIG, 0, 2) == b"\xf4\x1a"


def test_short_data(rig):
    with Client(rig.path) as client:
        assert client.request(vfu.REGION_WRITE, vfu.access_payload(vfu.CONFIG, 0, 8, b"1234567"))[0] == EINVAL
        rig.says("REGION_WRITE of 8 bytes came with 7")
        assert client.request(vfu.WRITE_MULTI, struct.pack("<Q", 2) + bytes(24))[0] == EINVAL
        rig.says("REGION_WRITE_MULTI of 2 entries came with 1")
        assert client.request(vfu.WRITE_MULTI, struct.pack("<QQII8s", 1, 0, vfu.CONFIG, 9, b""))[0] == EINVAL
        rig.says("with an entry of 9 bytes")
        assert client.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x22, 0, 2, b"\1"))[0] == EINVAL
        rig.says("SET_IRQS index 2, flags 0x22, 2 from 0 with 0 descriptors: refused")


def test_oversized(rig):
    with Client(rig.path) as client:
        # More payload than a command needs is left unread.
        assert client.request(vfu.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0) + bytes(1 << 20))[0] == 0
        assert client.request(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4) + bytes(1 << 20))[0] == 0
        for count in (0, 4097, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
            for region in (vfu.CONFIG, 1, 4):
                assert client.request(vfu.REGION_READ, vfu.access_payload(region, 0, count))[0] == EINVAL
        rig.says("0x1000 bytes, an access 1 to 4096")


@pytest.mark.parametrize("data, text", [
    (vfu.pack(1, 200), "unknown command 200"), (vfu.pack(1, 0), "unknown command 0"), (vfu.pack(1, 14), "unknown command 14"),
    (vfu.pack(1, vfu.DMA_READ, bytes(16)), "unknown command 11"), (vfu.pack(1, 0xFFFF), "unknown command 65535")])
def test_unknown_command(rig, data, text):
    with Client(rig.path) as client:
        client.send(data)
        assert client.reply(1)[0] == ENOSYS
        rig.says(text)


def test_wrong_type(rig):
    for kind in range(2, 16):
        with Client(rig.path) as client:
            client.send(vfu.pack(1, vfu.GET_INFO, bytes(16), flags=kind))
            client.expect_closed()
    rig.says("a message of type 2 (command 4)")


@pytest.mark.parametrize("version, text", [
    (b"", "VERSION with 0 bytes of payload; it needs 4"), (b"\0\0\0", "VERSION with 3 bytes of payload"),
    (struct.pack("<HH", 1, 0), "the client speaks vfio-user 1.0"), (struct.pack("<HH", 0xFFFF, 0xFFFF), "the client speaks vfio-user 65535.65535"),
    (b"\0\0\0\0{}", "do not end in a NUL"), (b"\0\0\0\0" + b" " * 5000 + b"\0", "are too long"), (b"\0\0\0\0\0", "are no JSON object"),
    (b"\0\0\0\0[]\0", "are no JSON object"), (b"\0\0\0\0{\"a\":\0", "are no JSON object"), (b"\0\0\0\0\xff\xfe\0", "are no JSON object"),
    (b"\0\0\0\0" + b"[" * 4000 + b"\0", "are no JSON object"), (b"\0\0\0\0" + b'{"a":' * 800 + b"\0", "are no JSON object")])
def test_wrong_version(rig, version, text):
    with Client(rig.path, hello=False) as client:
        client.message(vfu.VERSION, version)
        rig.says(text)


@pytest.mark.parametrize("capabilities", [
    b"{}", b'{"capabilities":7}', b'{"capabilities":{"max_msg_fds":-1}}', b'{"capabilities":{"max_msg_fds":1e300}}',
    b'{"capabilities":{"max_msg_fds":99999999999999999,"max_data_xfer_size":0}}', b'{"capabilities":{"max_msg_fds":"8","max_data_xfer_size":[]}}'])
def test_odd_capabilities(rig, capabilities):
    with Client(rig.path, hello=False) as client:
        assert client.request(vfu.VERSION, b"\0\0\0\0" + capabilities + b"\0")[0] == 0
        assert client.request(vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0))[0] == 0
        assert client.request(vfu.VERSION, vfu.HELLO)[0] == EINVAL
        rig.says("VERSION a second time")


@pytest.mark.parametrize("command", [*range(2, 11), 13, 15, 16, 17, 18])
def test_before_version(rig, command):
    fds = [vfu.memory_file(4096) for _ in range(8)]
    with Client(rig.path, hello=False) as client:
        client.message(command, bytes(64), fds)
        client.expect_closed()
    rig.says(" before VERSION")
    for fd in fds:
        os.close(fd)


def test_replies_to_nothing(rig):
    for command in (vfu.DMA_READ, vfu.DMA_WRITE, vfu.GET_INFO, 0, 0xFFFF):
        for flags in (vfu.REPLY, vfu.REPLY | vfu.ERROR):
            with Client(rig.path) as client:
                client.message(command, bytes(32), flags=flags)
                client.expect_closed()
    rig.says("a reply (id 2, command 11) to nothing that was asked")


def test_silence_in_a_message(rig):
    data = vfu.pack(9, vfu.DMA_MAP, vfu.map_payload(0, 4096))
    fd = vfu.memory_file(4096)
    for cut in (1, 15, 16, 17, 47):
        with Client(rig.path) as client:
            client.send(data[:cut], [fd])
            rig.bystander.check()
            time.sleep(0.05)  # the silence; nothing is waited for
            busy = rig.server.cpu()
            time.sleep(0.2)
            assert rig.server.cpu() - busy < 0.15, "the server spins"
    rig.says("in the middle of a message: 47 bytes came, of 48")
    os.close(fd)


def test_byte_by_byte(rig):
    fd = vfu.memory_file(1 << 20)
    event = os.eventfd(0)
    with Client(rig.path, hello=False) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        def drip(command, payload, fds, when):
            data = vfu.pack(client.next(), command, payload)
            for i, byte in enumerate(data):
                client.send(bytes([byte]), fds if i == when % len(data) else ())
            return client.reply(client.number)[0]

        assert drip(vfu.VERSION, vfu.HELLO, (), 0) == 0
        for number, when in enumerate((0, 7, 16, 30, -1)):
            assert drip(vfu.DMA_MAP, vfu.map_payload(number << 20, 1 << 20), [fd], when) == 0
            assert drip(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [event], when) == 0
            assert drip(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4), (), 0) == 0
        assert rig.server.holds()[1] == 2
    os.close(fd)
    os.close(event)


def test_rate_limit(rig):
    began = time.monotonic()
    with Client(rig.path) as client:
        errors = client.many([(200, b"")] * 20000)
        assert set(errors) == {ENOSYS}
        took = time.monotonic() - began
        lines = rig.server.log().count("unknown command")
        assert lines <= 10 + 2 * took + 2
        time.sleep(1)
        client.request(200)
    rig.says("lines left out before")


# ---- descriptors ----

def test_surplus_descriptors(rig):
    event = os.eventfd(0)
    with Client(rig.path) as client:
        for command, needed in SHORTEST.items():
            client.request(command, bytes(needed), [event] * 253)
        rig.says("DMA_UNMAP came with 253 descriptors; it takes 0, the others are closed")
        client.request(vfu.RESET, b"", [event] * 200)
        memory = vfu.memory_file(4096)
        assert client.request(vfu.DMA_MAP, vfu.map_payload(0, 4096), [memory] + [event] * 200)[0] == 0
        assert rig.server.holds()[0] <= rig.before[0] + 2  # the connection, and no more
        os.close(memory)
    os.close(event)


def test_more_descriptors_than_a_message_has(rig):
    event = os.eventfd(0)
    with Client(rig.path) as client:
        data = vfu.pack(1, vfu.GET_INFO, bytes(16))
        client.send(data[:8], [event] * 200)
        try:
            client.send(data[8:12], [event] * 200)
            client.expect_closed()
        except Closed:
            pass
    rig.says("more descriptors than the 253 of one message")
    os.close(event)


@pytest.mark.parametrize("index", [0, 2, 3, 4])
def test_triggers_that_are_none(rig, index):
    kinds = open_kinds()
    good = os.eventfd(0)
    with Client(rig.path) as client:
        for fd in kinds.values():
            assert client.request(vfu.SET_IRQS, vfu.irqs_payload(index, 0x24, 0, 1), [fd])[0] == EINVAL
        for fds, count in (([good] * 2, 1), ([good], 2), ([good] * 3, 3 if index == 0 else 0xFFFFFFFF)):
            assert client.request(vfu.SET_IRQS, vfu.irqs_payload(index, 0x24, 0, count), fds)[0] == EINVAL
        if index == 0:
            for fd in kinds.values():
                assert client.request(vfu.SET_IRQS, vfu.irqs_payload(0, 0x14, 0, 1), [fd])[0] == EINVAL
        for flags in (0, 4, 0x20, 0x3F, 0x64, 0x30, 0xFFFFFFFF):
            assert client.request(vfu.SET_IRQS, vfu.irqs_payload(index, flags, 0, 1), [good])[0] == EINVAL
        rig.says(f"SET_IRQS index {index}, flags 0x24, 1 from 0: Invalid argument")
        assert rig.server.holds()[0] <= rig.before[0] + 1
    for fd in [*kinds.values(), good]:
        os.close(fd)


@pytest.mark.parametrize("kind", ["full", "full, blocking", "blocking", "semaphore", "closed", "its own"])
def test_odd_eventfds(rig, kind):
    """Triggers that cannot be written to at some time: the thread of both devices goes on."""
    flags = {"full": os.EFD_NONBLOCK, "semaphore": os.EFD_SEMAPHORE}.get(kind, 0)
    event = os.eventfd(0, flags)
    with Blk(rig.path) as blk:
        if kind.startswith("full"):
            os.eventfd_write(event, (1 << 64) - 2)
        if kind == "its own":  # the server's own kick descriptor as a trigger: a completion that kicks
            assert blk.request(vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0))[0] == 0
            os.close(event)
            event = blk.received_fds.pop()
        assert blk.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [event])[0] == 0
        if kind == "closed":
            os.close(event)
            event = -1
        config = blk.read(vfu.CONFIG, 0, 256)
        at = config[0x34]
        while config[at] != 0x11:
            at = config[at + 1]
        blk.write(vfu.CONFIG, at + 2, struct.pack("<H", 0x8000))
        blk.write(1, 12, bytes(4))
        blk.common(20, "<B", 0)
        blk.index = 0
        blk.put(blk.AVAIL, bytes(64))
        blk.put(blk.USED, bytes(256))
        blk.start()
        blk.common(22, "<H", 0)
        for _ in range(300):
            blk.check()
        for _ in range(20):
            blk.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x21, 0, 1))
            rig.bystander.check()
    if event >= 0:
        os.close(event)


def test_vector_on_a_full_eventfd(rig):
    """The queue's own vector, programmed before the queue starts."""
    event = os.eventfd(0)
    os.eventfd_write(event, (1 << 64) - 2)
    with Blk(rig.path, start=False) as blk:
        config = blk.read(vfu.CONFIG, 0, 256)
        at = config[0x34]
        while config[at] != 0x11:
            at = config[at + 1]
        assert blk.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 2), [event, event])[0] == 0
        blk.write(vfu.CONFIG, at + 2, struct.pack("<H", 0x8000))
        blk.common(20, "<B", 0)
        blk.common(22, "<H", 0)
        blk.common(26, "<H", 1)
        blk.start()
        for _ in range(100):
            blk.check()
            rig.bystander.check()
    os.close(event)


# ---- memory ----

def test_files_that_are_not_mapped(rig):
    """An ordinary file could hang a page fault (FUSE): it is reached by message, as are all the others."""
    kinds = open_kinds()
    short = vfu.memory_file(4096)
    with tempfile.NamedTemporaryFile(dir=os.environ.get("PINTLE_DISK_FOLDER", SOURCE)) as disk, Client(rig.path) as client:
        disk.truncate(1 << 20)
        assert client.map(0, 1 << 20, disk.fileno()) == 0
        rig.says("1048576 bytes of memory are reached by message, their file is not mapped: it is not of tmpfs, memfd or hugetlbfs")
        for number, fd in enumerate(kinds.values(), 1):
            client.request(vfu.DMA_MAP, vfu.map_payload(number << 24, 8192), [fd])
        rig.says("it is not a file")
        assert client.map(1 << 40, 8192, short) == 0
        rig.says("the file is too short")
        assert client.map(2 << 40, 4096, short, offset=(1 << 64) - 4096) == 0
        assert client.map(3 << 40, 4096, short, offset=4096) == 0
        assert client.map(4 << 40, 4096, short, offset=1) in (0, EINVAL)
        assert rig.server.holds()[1] == rig.before[1]
    for fd in [*kinds.values(), short]:
        os.close(fd)


def test_read_only_file(rig):
    fd = vfu.memory_file(1 << 20)
    reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    with Client(rig.path) as client:
        assert client.map(0, 4096, reading) == EACCES
        rig.says("for writing")
        assert client.map(0, 4096, reading, access=1) == 0
    os.close(reading)
    os.close(fd)
    sealed = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(sealed, 4096)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with Client(rig.path) as client:
        assert client.map(0, 4096, sealed) != 0
    os.close(sealed)


@pytest.mark.parametrize("size", [0, 0x800, 0x1000, 0x2000])
def test_truncated_memory(rig, size):
    """The ring (or a part of it) goes while the device uses it: that device is faulted, no other."""
    with Blk(rig.path) as blk:
        blk.check()
        blk.memory.close()
        os.ftruncate(blk.fd, size)
        blk.kick()
        blk.wait_for(lambda: blk.status() & 0x40, "the device is not faulted")
        rig.says("a file of guest memory was truncated")
        rig.bystander.check()
        # A new file and a new start, with the same client.
        assert blk.unmap(0, 0, 2) == 0
        os.close(blk.fd)
        blk.fd = vfu.memory_file(blk.MEMORY)
        blk.memory = vfu.mmap.mmap(blk.fd, blk.MEMORY)
        assert blk.map(blk.BASE, blk.MEMORY, blk.fd) == 0
        blk.index = 0
        blk.start()
        blk.check()


def test_truncated_under_load(rig):
    """Truncated and grown again, again and again, while requests are made."""
    random_source = random.Random(SEED)
    for _ in range(20):
        with Blk(rig.path) as blk:
            blk.check()
            blk.put(blk.HEADER, struct.pack("<IIQ", 0, 0, 0))
            blk.descriptor(0, blk.BASE + blk.HEADER, 16, blk.NEXT, 1)
            blk.descriptor(1, blk.BASE + blk.DATA, 0x40000, blk.NEXT | blk.WRITE, 2)
            blk.descriptor(2, blk.BASE + blk.STATUS, 1, blk.WRITE)
            blk.available(0)
            blk.memory.close()
            blk.kick()
            os.ftruncate(blk.fd, random_source.randrange(0, blk.MEMORY))
            blk.kick()
            os.ftruncate(blk.fd, blk.MEMORY)
        rig.bystander.check()


def test_most_mappings(rig):
    fd = vfu.memory_file(4096)
    with Client(rig.path) as client:
        assert client.map(0, 4096, fd) == 0
        errors = client.many([(vfu.DMA_MAP, vfu.map_payload(i << 13, 4096)) for i in range(1, 65535)])
        assert not any(errors)
        assert client.map(65535 << 13, 4096, fd) == E2BIG
        rig.says("more than 65535 DMA mappings")
        assert client.unmap(4096 << 13, 4096) == 0
        assert client.map(65535 << 13, 4096, fd) == 0
        assert client.map(1 << 50, 4096, fd) == E2BIG
        rig.bystander.check()
        assert client.unmap(0, 0, 2) == 0
        assert client.map(0, 4096, fd) == 0
    # And one that goes with all of them.
    with Client(rig.path) as client:
        assert not any(client.many([(vfu.DMA_MAP, vfu.map_payload(i << 12, 4096)) for i in range(65535)]))
        rig.bystander.check()
    os.close(fd)


def test_overlapping_mappings(rig):
    fd = vfu.memory_file(1 << 20)
    page = 4096
    with Client(rig.path) as client:
        assert client.map(16 * page, 16 * page, fd) == 0
        for start, count in ((16, 16), (16, 1), (31, 1), (15, 2), (31, 2), (0, 64), (20, 4)):
            assert client.map(start * page, count * page, fd) == EEXIST
        rig.says("overlaps the mapping at 0x10000")
        assert client.map(15 * page, page, fd) == 0
        assert client.map(32 * page, page, fd) == 0
        # Cut out of the middle, and over the ends.
        assert client.unmap(20 * page, 4 * page) == 0
        assert client.map(20 * page, 4 * page, fd) == 0
        assert client.unmap(0, 18 * page) == 0
        assert client.unmap(0, 18 * page) == 0
    os.close(fd)


@pytest.mark.parametrize("address, size, offset", [
    (0, 0, 0), ((1 << 64) - 4096, 8192, 0), (1 << 63, (1 << 63) + 4096, 0), (8192, (1 << 64) - 4096, 0), ((1 << 64) - 4096, 1 << 63, 0),
    (1, 4096, 0), (0, 1, 0), (0, 4095, 0), (0, 4096, 1), (0, 4096, 2048)])
def test_impossible_mappings(rig, address, size, offset):
    fd = vfu.memory_file(1 << 20)
    with Client(rig.path) as client:
        error = client.map(address, size, fd, offset)
        assert error == EINVAL
        rig.says("DMA_MAP of ")
        assert client.map(address, size, fd, offset, access=0) == EINVAL
        assert client.map(0, 4096, fd, 0, access=4) == EINVAL
        assert client.map(0, 4096, fd, 0, access=0xFFFFFFFF) == EINVAL
    os.close(fd)


def test_impossible_unmaps(rig):
    fd = vfu.memory_file(1 << 20)
    with Client(rig.path) as client:
        assert client.map(0, 1 << 20, fd) == 0
        for address, size, flags in ((0, 0, 0), (1, 4096, 0), (0, 1, 0), ((1 << 64) - 4096, 8192, 0), (8192, (1 << 64) - 4096, 0), (0, 4096, 4),
                                     (4096, 0, 2), (0, 4096, 2), (0, 0, 0xFFFFFFFF)):
            assert client.unmap(address, size, flags) in (EINVAL, ENOTSUP)
        rig.says("refused: Invalid argument")
        assert client.unmap(0, 4096, 1) == ENOTSUP
        assert client.unmap(0, 1 << 20) == 0
    os.close(fd)


def test_last_address(rig):
    """The end of the address space is an address as any other."""
    fd = vfu.memory_file(4096)
    with Client(rig.path) as client:
        error = client.map((1 << 64) - 4096, 4096, fd)
        assert error in (0, EINVAL)
        client.unmap((1 << 64) - 4096, 4096)
        client.unmap(0, 0, 2)
    os.close(fd)


def test_replies_of_wrong_size(rig):
    """A ring that is reached by message, and a client that answers with anything."""
    cases = [lambda n: (b"", 0), lambda n: (struct.pack("<QQ", 0, n), 0), lambda n: (struct.pack("<QQ", 0, n) + bytes(n - 1), 0),
             lambda n: (struct.pack("<QQ", 0, n - 1) + bytes(n), 0), lambda n: (struct.pack("<QQ", 0, 1 << 63) + bytes(n), 0),
             lambda n: (bytes(16), vfu.ERROR), lambda n: (b"1234567", 0)]
    for case in cases:
        with Blk(rig.path, by_message=True) as blk:
            blk.put(blk.AVAIL, struct.pack("<HHH", 0, 1, 0))
            blk.message(vfu.REGION_WRITE, vfu.access_payload(blk.where[2][0], blk.where[2][1], 2, b"\0\0"))
            fields, payload = blk.command()
            assert fields[1] == vfu.DMA_READ
            _, count = struct.unpack_from("<QQ", payload)
            body, flags = case(count)
            blk.send(vfu.pack(fields[0], vfu.DMA_READ, body, flags=vfu.REPLY | flags))
            rig.bystander.check()
            # Whatever it makes of that: it answers accesses.
            blk.message(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4))
            fields, payload = blk.receive()
            while not fields[3] & vfu.REPLY or fields[1] != vfu.REGION_READ:
                fields, payload = blk.receive()
    rig.says("came with a payload of")
    rig.says("the client refused DMA of")


def test_dma_messages_without_answer(rig):
    with Blk(rig.path, by_message=True) as blk:
        blk.message(vfu.REGION_WRITE, vfu.access_payload(blk.where[2][0], blk.where[2][1], 2, b"\0\0"))
        blk.command()
        rig.bystander.check()
        # A reset does not wait for the reply, nor does an unmap; the late reply is no fault.
        blk.common(20, "<B", 0)
        assert blk.unmap(0, 0, 2) == 0
        assert blk.request(vfu.RESET)[0] == 0


# ---- accesses ----

def test_regions_out_of_range(rig):
    with Client(rig.path) as client:
        for region in (0, 2, 3, 5, 6, 8, 9, 255, 256, 0xFFFFFFFF):
            assert client.request(vfu.REGION_READ, vfu.access_payload(region, 0, 4))[0] == EINVAL
            assert client.request(vfu.REGION_WRITE, vfu.access_payload(region, 0, 4, b"1234"))[0] == EINVAL
        rig.says("the region has 0 bytes")
        for region in (1, 4, vfu.CONFIG):
            size = client.region_size(region)
            for offset in (size, size - 3, 1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 4):
                assert client.request(vfu.REGION_READ, vfu.access_payload(region, offset, 4))[0] == EINVAL
                assert client.request(vfu.REGION_WRITE, vfu.access_payload(region, offset, 4, b"1234"))[0] == EINVAL
        for command, size in ((vfu.GET_REGION_INFO, 32), (vfu.GET_IO_FDS, 16), (vfu.GET_IRQ_INFO, 16)):
            for index in (9, 10, 0xFFFFFFFF):
                assert client.request(command, struct.pack("<IIII", 4096, 0, index, 0) + bytes(size - 16))[0] == EINVAL
            for argsz in (0, size - 1):
                assert client.request(command, struct.pack("<IIII", argsz, 0, 0, 0) + bytes(size - 16))[0] == EINVAL


def writes_everywhere(client, region, limit, random_source):
    """Every offset at all sizes, and some that are none."""
    size = min(client.region_size(region), limit)
    messages = []
    for length in (1, 2, 4, 8, 3, 7, 16, 64, 4096):
        step = 1 if length <= 8 and size <= 4096 else max(length, 5)
        for offset in range(0, size - length + 1, step):
            data = random_source.choice((b"\xff" * length, bytes(length), random_source.randbytes(length)))
            messages.append((vfu.REGION_WRITE, vfu.access_payload(region, offset, length, data)))
            messages.append((vfu.REGION_READ, vfu.access_payload(region, offset, length)))
    random_source.shuffle(messages)
    client.many(messages)


@pytest.mark.parametrize("region", [vfu.CONFIG, 1, 4])
def test_writes_everywhere(rig, region):
    random_source = random.Random(SEED)
    with Blk(rig.path) as blk:
        writes_everywhere(blk, region, 1 << 14, random_source)
        rig.bystander.check()
        writes_everywhere(blk, region, 1 << 10, random_source)
    with Blk(rig.path) as blk:
        blk.check()
        # With memory, bus master and MSI-X on all the time, and a queue that runs.
        for _ in range(20):
            blk.write(vfu.CONFIG, 4, struct.pack("<H", 7))
            writes_everywhere(blk, region, 0x100, random_source)
        rig.bystander.check()


def test_odd_queue_set_up(rig):
    """Queues at any address, of any size, started in any state."""
    random_source = random.Random(SEED)
    with Blk(rig.path, start=False) as blk:
        for _ in range(150):
            blk.common(20, "<B", 0)
            for value in (1, 3):
                blk.common(20, "<B", value)
            for half in range(2):
                blk.common(8, "<I", half)
                blk.common(12, "<I", random_source.choice(((3 if half else 0), random_source.getrandbits(32))))
            blk.common(20, "<B", 0xB)
            blk.common(22, "<H", random_source.choice((0, 0, 0, 1, 64, 0xFFFF)))
            blk.common(24, "<H", random_source.choice((0, 1, 3, 16, 255, 256, 1024, 32768, 0xFFFF)))
            for offset in (32, 40, 48):
                blk.common(offset, "<Q", random_source.choice((0, blk.BASE, blk.BASE + 1, blk.BASE + 0x1000, blk.BASE + blk.MEMORY - 8,
                                                               (1 << 64) - 16, random_source.getrandbits(64))))
            blk.common(28, "<H", random_source.choice((0, 1, 1, 1, 0xFFFF)))
            blk.common(20, "<B", random_source.choice((0xF, 0xF, 0xFF, 0x4, 0x8F)))
            blk.kick()
        rig.bystander.check()


# ---- rings ----

def split(build):
    """Builds a chain and makes head 0 available."""
    def run(blk):
        blk.put(blk.HEADER, struct.pack("<IIQ", 0, 0, 0))
        build(blk)
        blk.available(0)
    return run


def chain(*descriptors):
    """Descriptors (offset or address, length, flags, next) from slot 0 on."""
    return split(lambda blk: [blk.descriptor(i, d[0] if d[0] >= 1 << 32 else blk.BASE + d[0], *d[1:]) for i, d in enumerate(descriptors)])


def table(*descriptors, length=None, inside=False):
    """The same in an indirect table."""
    def build(blk):
        for i, d in enumerate(descriptors):
            blk.descriptor(i, d[0] if d[0] >= 1 << 32 else blk.BASE + d[0], *d[1:], table=blk.TABLE)
        size = 16 * len(descriptors) if length is None else length
        blk.descriptor(0, blk.BASE + blk.TABLE, size, blk.INDIRECT | (blk.NEXT if inside else 0), 1)
    return split(build)


def entry(value):
    def run(blk):
        blk.put(blk.AVAIL + 4, struct.pack("<H", value))
        blk.index += 1
        blk.put(blk.AVAIL + 2, struct.pack("<H", blk.index))
    return run


def jump(count):
    return lambda blk: blk.available(0, count)


H, D, S, N, W, I = Blk.HEADER, Blk.DATA, Blk.STATUS, Blk.NEXT, Blk.WRITE, Blk.INDIRECT
FAULTS_SPLIT = {
    "loop of one": (chain((H, 16, N, 0)), "longer than the queue"),
    "loop of two": (chain((H, 16, N, 1), (D, 512, N, 0)), "longer than the queue"),
    "outside of the table": (chain((H, 16, N, 16)), "goes on outside of the table"),
    "far outside": (chain((H, 16, N, 65535)), "goes on outside of the table"),
    "head outside": (entry(16), "names a descriptor outside of the table"),
    "head far outside": (entry(65535), "names a descriptor outside of the table"),
    "index jumps": (jump(17), "the available index jumped by more than the queue size"),
    "index jumps far": (jump(40000), "the available index jumped by more than the queue size"),
    "index goes back": (jump(65535), "the available index jumped by more than the queue size"),
    "indirect and next": (table((H, 16, N, 1), inside=True), "is indirect and goes on"),
    "empty table": (table((H, 16, 0, 0), length=0), "an indirect table is empty"),
    "crooked table": (table((H, 16, 0, 0), length=17), "no multiple of 16"),
    "huge table": (table((H, 16, 0, 0), length=0xFFFFFFF0), "longer than a device accepts"),
    "table in table": (table((Blk.TABLE, 16, I, 0)), "names another one"),
    "loop in table": (table((H, 16, N, 1), (D, 512, N, 0)), "form a loop"),
    "outside of indirect table": (table((H, 16, N, 2), (D, 512, 0, 0)), "goes on outside of its table"),
    "table wraps": (split(lambda blk: blk.descriptor(0, (1 << 64) - 16, 32, I)), "wraps around"),
    "no room for the status": (chain((H, 16, 0, 0)), "no room for its status"),
    "status of no bytes": (chain((H, 16, N, 1), (S, 0, W, 0)), "no room for its status"),
    "nothing": (chain((H, 0, 0, 0)), None),
    "short header": (chain((H, 15, N, 1), (S, 1, W, 0)), None),
    "write before read": (chain((D, 512, N | W, 1), (H, 16, N, 2), (S, 1, W, 0)), "a readable buffer follows a writable one"),
    "unknown flags": (chain((H, 16, N | 0xFFF8, 1), (S, 1, W | 0xFFF8, 0)), None),
    "unmapped header": (chain((1 << 50, 16, N, 1), (S, 1, W, 0)), None),
    "unmapped data": (chain((H, 16, N, 1), (1 << 50, 512, N | W, 2), (S, 1, W, 0)), None),
    "data that wraps": (chain((H, 16, N, 1), ((1 << 64) - 256, 512, N | W, 2), (S, 1, W, 0)), None),
    "data over the end": (chain((H, 16, N, 1), (Blk.MEMORY - 256, 512, N | W, 2), (S, 1, W, 0)), None),
    "4 GiB of data": (chain((H, 16, N, 1), (D, 0xFFFFFFFF, N | W, 2), (S, 1, W, 0)), None),
}


@pytest.mark.parametrize("name", FAULTS_SPLIT)
def test_split_ring(rig, name):
    build, text = FAULTS_SPLIT[name]
    with Blk(rig.path) as blk:
        build(blk)
        blk.kick()
        if text:
            blk.wait_for(lambda: blk.status() & 0x40, "the device is not faulted")
            rig.says("needs a reset: queue 0: ")
            rig.says(text)
        rig.bystander.check()
        blk.put(0, bytes(blk.DATA))
        blk.index = 0
        blk.start()
        blk.check()


def packed_chain(*descriptors):
    def run(blk):
        blk.put(blk.HEADER, struct.pack("<IIQ", 0, 0, 0))
        for i, (address, length, flags, number) in enumerate(descriptors):
            blk.descriptor(i, address if address >= 1 << 32 else blk.BASE + address, length, flags | 0x80, number)
    return run


def packed_table(*descriptors, length=None, flags=0):
    def run(blk):
        for i, (address, size, wanted, number) in enumerate(descriptors):
            blk.descriptor(i, blk.BASE + address, size, wanted, number, table=blk.TABLE)
        blk.descriptor(0, blk.BASE + blk.TABLE, 16 * len(descriptors) if length is None else length, 0x84 | flags, 0)
    return run


FAULTS_PACKED = {
    "goes on with nothing": (packed_chain((H, 16, N, 0)), "not available"),
    "goes on for ever": (packed_chain(*[(H, 16, N, 0)] * 16), None),
    "indirect and next": (packed_table((H, 16, 0, 0), flags=N), "is indirect and goes on"),
    "indirect in a chain": (packed_chain((H, 16, N, 0), (Blk.TABLE, 16, I, 0)), "an indirect descriptor is part of a chain"),
    "empty table": (packed_table((H, 16, 0, 0), length=0), "an indirect table is empty"),
    "crooked table": (packed_table((H, 16, 0, 0), length=30), "no multiple of 16"),
    "huge table": (packed_table((H, 16, 0, 0), length=0xFFFFFFF0), "longer than a device accepts"),
    "table in table": (packed_table((Blk.TABLE, 16, I, 0)), None),
    "no room for the status": (packed_chain((H, 16, 0, 0)), "no room for its status"),
    "identifier out of range": (packed_chain((H, 16, N, 65535), (S, 1, W, 65535)), None),
    "unmapped": (packed_chain((1 << 50, 16, N, 0), (S, 1, W, 0)), None),
    "reused": (packed_chain(*[(H, 16, 0, 0)] * 16), None),
}


@pytest.mark.parametrize("name", FAULTS_PACKED)
def test_packed_ring(rig, name):
    build, text = FAULTS_PACKED[name]
    with Blk(rig.path, packed=True) as blk:
        build(blk)
        blk.kick()
        if text:
            blk.wait_for(lambda: blk.status() & 0x40, "the device is not faulted")
            rig.says("needs a reset: queue 0: ")
            rig.says(text)
        rig.bystander.check()


def test_random_rings(rig):
    """Rings of noise that change while they are read; split and packed."""
    random_source = random.Random(SEED)
    for number in range(20):
        with Blk(rig.path, packed=bool(number % 2)) as blk:
            for _ in range(30):
                for slot in range(blk.ENTRIES):
                    blk.descriptor(slot, blk.BASE + random_source.choice((H, D, S, blk.TABLE, random_source.randrange(blk.MEMORY))),
                                   random_source.choice((0, 1, 16, 512, 4096, random_source.getrandbits(32))), random_source.getrandbits(16) &
                                   random_source.choice((7, 0x87, 0x8087, 0xFFFF)), random_source.choice((slot + 1, random_source.randrange(16))))
                blk.put(H, struct.pack("<IIQ", random_source.choice((0, 1, 4, 8, 11, 13, 99)), 0, random_source.choice((0, 2047, 1 << 63))))
                blk.available(random_source.randrange(16), random_source.choice((1, 1, 1, 4, 16)))
                blk.kick()
                blk.put(random_source.randrange(blk.DATA), random_source.randbytes(64))
                if blk.status() & 0x40:
                    blk.put(0, bytes(blk.DATA))
                    blk.index = 0
                    blk.start()
        rig.bystander.check()


# ---- clients ----

def test_does_not_read(rig):
    with Client(rig.path) as client:
        client.socket.settimeout(PATIENCE)
        read = vfu.access_payload(vfu.CONFIG, 0, 4096)
        with pytest.raises(Closed):
            for _ in range(100000):
                client.message(vfu.REGION_READ, read)
    rig.says("the client does not read")
    with Client(rig.path) as client:
        with pytest.raises(Closed):
            for _ in range(100000):
                client.message(vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0))
    rig.says("descriptors wait for it")


def test_does_not_read_and_stays(rig):
    """Below the bound: kept, and nothing spins."""
    with Client(rig.path) as client:
        for _ in range(1000):
            client.message(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4096))
        rig.bystander.check()
        busy = rig.server.cpu()
        time.sleep(0.5)
        assert rig.server.cpu() - busy < 0.3, "the server spins"


def test_second_client(rig):
    with Blk(rig.path) as first:
        for _ in range(50):
            with Client(rig.path, hello=False) as second:
                second.expect_closed()
        first.check()
    rig.says("refused a second client")


def test_connect_and_disconnect(rig):
    """10,000 clients one after another, in all states of an acquaintance."""
    fd = vfu.memory_file(1 << 20)
    event = os.eventfd(0)
    for number in range(10000):
        state = number % 8
        with Client(rig.path, hello=False) as client:
            if state == 0:
                continue
            if state == 1:
                client.send(b"\0")
                continue
            client.message(vfu.VERSION, vfu.HELLO)
            if state == 2:
                continue
            if state >= 4:
                client.message(vfu.DMA_MAP, vfu.map_payload(0, 1 << 20), [fd])
                client.message(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [event])
            if state >= 6:
                assert client.request(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4))[0] == 0
            if state == 7:
                client.socket.shutdown(socket.SHUT_WR)
                client.expect_closed()
        if number % 1000 == 0:
            rig.bystander.check()
    assert "refused" not in rig.server.log()
    os.close(fd)
    os.close(event)


def valid_message(client, random_source, memory, event):
    """One of what a healthy client sends, and its descriptors."""
    page = random_source.randrange(64) << 12
    kind = random_source.randrange(10)
    if kind == 0:
        return vfu.DMA_MAP, vfu.map_payload(page, 4096 << random_source.randrange(4)), [memory]
    if kind == 1:
        return vfu.DMA_UNMAP, vfu.unmap_payload(page, 4096 << random_source.randrange(4)), []
    if kind == 2:
        return vfu.SET_IRQS, vfu.irqs_payload(random_source.choice((0, 2, 3, 4)), 0x24, 0, 1), [event]
    if kind == 3:
        return vfu.SET_IRQS, vfu.irqs_payload(random_source.choice((0, 2)), random_source.choice((0x21, 0x11, 0x9)), 0, 1), []
    if kind == 4:
        return vfu.RESET, b"", []
    if kind == 5:
        return vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0), []
    if kind == 6:
        return vfu.GET_REGION_INFO, struct.pack("<IIIIQQ", 4096, 0, random_source.randrange(9), 0, 0, 0), []
    region = random_source.choice((1, 4, vfu.CONFIG))
    offset, count = random_source.randrange(1 << 12), random_source.choice((1, 2, 4, 8))
    if kind == 7:
        return vfu.REGION_READ, vfu.access_payload(region, offset, count), []
    return vfu.REGION_WRITE, vfu.access_payload(region, offset, count, random_source.randbytes(count)), []


def mutated(data, random_source):
    data = bytearray(data)
    for _ in range(random_source.choice((0, 0, 1, 2, 8))):
        kind = random_source.randrange(4)
        at = random_source.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[at] ^= 1 << random_source.randrange(8)
        elif kind == 1 and data:
            data[at] = random_source.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at:at + random_source.randrange(1, 9)]
        else:
            data[at:at] = random_source.randbytes(random_source.randrange(1, 9))
    return bytes(data)


@pytest.mark.parametrize("part", range(4))
def test_random_streams(rig, part):
    """Valid conversations with mistakes in them. PINTLE_SEED makes others."""
    random_source = random.Random(SEED * 1000 + part)
    memory, event = vfu.memory_file(1 << 20), os.eventfd(0, os.EFD_NONBLOCK)
    odd = list(open_kinds().values())
    for number in range(250):
        with Client(rig.path, hello=False) as client:
            client.socket.settimeout(5)
            try:
                client.send(mutated(vfu.pack(0, vfu.VERSION, vfu.HELLO), random_source) if number % 10 == 0 else vfu.pack(0, vfu.VERSION, vfu.HELLO))
                for _ in range(random_source.randrange(60)):
                    command, payload, fds = valid_message(client, random_source, memory, event)
                    if random_source.random() < 0.1:
                        fds = fds + random_source.sample(odd, random_source.randrange(len(odd)))
                    if random_source.random() < 0.02:
                        data = random_source.randbytes(random_source.randrange(1, 200))
                    else:
                        data = vfu.pack(client.next(), command, payload, random_source.choice((0, 0, 0, vfu.NO_REPLY)))
                        data = mutated(data, random_source) if random_source.random() < 0.15 else data
                    if data:
                        client.send(data, fds)
                    if random_source.random() < 0.05:
                        client.socket.setblocking(False)
                        try:
                            client.socket.recv(65536)
                        except BlockingIOError:
                            pass
                        client.socket.settimeout(5)
            except (Closed, OSError):
                pass
        if number % 50 == 0:
            rig.bystander.check()
    for fd in [memory, event, *odd]:
        os.close(fd)
