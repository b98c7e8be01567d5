# SPDX-License-Identifier: BSD-2-Clause
"""A vfio-user client that can send anything: for tests with hostile input. It has nothing in common with drive/, which is well behaved."""
import array
import json
import mmap
import os
import socket
import struct
import time

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, GET_IO_FDS, GET_IRQ_INFO, SET_IRQS = range(1, 9)
REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET = range(9, 14)
WRITE_MULTI, FEATURE, MIG_READ, MIG_WRITE = range(15, 19)
REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x20
CONFIG = 7
LIMIT = 30
HELLO = b"\0\0\0\0" + json.dumps({"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20}}).encode() + b"\0"


class Closed(Exception):
    """The server has ended the connection."""


def header(number, command, size, flags=0, error=0):
    return struct.pack("<HHIII", number, command, size, flags, error)


def pack(number, command, payload=b"", flags=0, size=None):
    return header(number, command, 16 + len(payload) if size is None else size, flags) + payload


def map_payload(address, size, offset=0, access=3):
    return struct.pack("<IIQQQ", 32, access, offset, address, size)


def unmap_payload(address, size, flags=0):
    return struct.pack("<IIQQ", 24, flags, address, size)


def irqs_payload(index, flags, start, count, data=b""):
    return struct.pack("<5I", 20 + len(data), flags, index, start, count) + data


def access_payload(region, offset, count, data=b""):
    return struct.pack("<QII", offset, region, count) + data


def memory_file(size):
    fd = os.memfd_create("hostile", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


class Client:
    """One connection; hello=False leaves VERSION to the test."""

    def __init__(self, path, hello=True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))  # blocking: waits while the backlog is full
        self.socket.settimeout(LIMIT)
        self.number = 0
        self.received = b""
        self.received_fds = []
        self.commands = []  # the server's, not answered
        if hello:
            assert self.request(VERSION, HELLO)[0] == 0

    def close(self):
        for fd in self.received_fds:
            os.close(fd)
        self.received_fds = []
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def next(self):
        self.number = (self.number + 1) & 0xFFFF
        return self.number

    def send(self, data, fds=()):
        """All of it; the descriptors go with the first byte."""
        try:
            if fds:
                sent = self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            else:
                sent = self.socket.send(data)
            if sent < len(data):
                self.socket.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as gone:
            raise Closed from gone

    def message(self, command, payload=b"", fds=(), flags=0):
        number = self.next()
        self.send(pack(number, command, payload, flags), fds)
        return number

    def receive(self):
        """The next message: (header fields, payload)."""
        while len(self.received) < 16 or len(self.received) < struct.unpack_from("<I", self.received, 4)[0]:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(253 * 4))
            except ConnectionResetError as gone:
                raise Closed from gone
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.received_fds += array.array("i", content[: len(content) // 4 * 4])
            if not data:
                raise Closed
            self.received += data
        fields = struct.unpack_from("<HHIII", self.received)
        payload = self.received[16:fields[2]]
        self.received = self.received[fields[2]:]
        return fields, payload

    def reply(self, number):
        """The reply to a message: (error, payload). Commands of the server are kept."""
        while True:
            fields, payload = self.receive()
            if not fields[3] & REPLY:
                self.commands.append((fields, payload))
            elif fields[0] == number:
                return (fields[4] if fields[3] & ERROR else 0), payload

    def request(self, command, payload=b"", fds=(), flags=0):
        return self.reply(self.message(command, payload, fds, flags))

    def expect_closed(self):
        try:
            while True:
                self.receive()
        except Closed:
            return

    def many(self, messages):
        """Sends (command, payload) pairs in batches and returns the errors of their replies, in the order of the requests."""
        errors = []
        for at in range(0, len(messages), 64):
            numbers, data = [], b""
            for command, payload in messages[at:at + 64]:
                numbers.append(self.next())
                data += pack(numbers[-1], command, payload)
            self.send(data)
            answers = {}
            while len(answers) < len(numbers):
                fields, _ = self.receive()
                if fields[3] & REPLY:
                    answers[fields[0]] = fields[4] if fields[3] & ERROR else 0
            errors += [answers[number] for number in numbers]
        return errors

    def command(self):
        """The next command of the server's; replies that come before it are dropped."""
        while not self.commands:
            fields, payload = self.receive()
            if not fields[3] & REPLY:
                self.commands.append((fields, payload))
        return self.commands.pop(0)

    # what a driver needs

    def read(self, region, offset, count):
        error, payload = self.request(REGION_READ, access_payload(region, offset, count))
        assert error == 0, os.strerror(error)
        return payload[16:]

    def write(self, region, offset, data):
        error, _ = self.request(REGION_WRITE, access_payload(region, offset, len(data), data))
        assert error == 0, os.strerror(error)

    def map(self, address, size, fd=None, offset=0, access=3):
        return self.request(DMA_MAP, map_payload(address, size, offset, access), [] if fd is None else [fd])[0]

    def unmap(self, address, size, flags=0):
        return self.request(DMA_UNMAP, unmap_payload(address, size, flags))[0]

    def region_size(self, index):
        error, payload = self.request(GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
        assert error == 0
        return struct.unpack_from("<Q", payload, 16)[0]


class Blk(Client):
    """A virtio-blk driver whose rings are written by hand. One queue, memory of MEMORY bytes at BASE."""

    BASE, MEMORY, ENTRIES = 0x100000, 1 << 20, 16
    DESC, AVAIL, USED, TABLE, HEADER, STATUS, DATA = 0, 0x1000, 0x2000, 0x3000, 0x4000, 0x4F00, 0x5000
    NEXT, WRITE, INDIRECT = 1, 2, 4
    PACKED, EVENT_INDEX, INDIRECT_FEATURE, VERSION_1, PLATFORM = 1 << 34, 1 << 29, 1 << 28, 1 << 32, 1 << 33

    def __init__(self, path, packed=False, by_message=False, start=True):
        super().__init__(path)
        self.packed = packed
        self.fd = memory_file(self.MEMORY)
        self.memory = mmap.mmap(self.fd, self.MEMORY)
        self.find_structures()
        self.write(CONFIG, 4, struct.pack("<H", 6))
        assert self.map(self.BASE, self.MEMORY, None if by_message else self.fd) == 0
        self.index = 0
        self.sector = 0
        if start:
            self.start()

    def close(self):
        super().close()
        if self.fd >= 0:
            self.memory.close()
            os.close(self.fd)
            self.fd = -1

    def find_structures(self):
        config = self.read(CONFIG, 0, 256)
        at, self.where = config[0x34], {}
        while at:
            if config[at] == 9:
                kind, bar = config[at + 3], config[at + 4]
                self.where[kind] = (bar, struct.unpack_from("<I", config, at + 8)[0])
            at = config[at + 1]

    def common(self, offset, layout, value=None):
        bar, start = self.where[1]
        if value is None:
            return struct.unpack(layout, self.read(bar, start + offset, struct.calcsize(layout)))[0]
        return self.write(bar, start + offset, struct.pack(layout, value))

    def status(self):
        return self.common(20, "<B")

    def start(self, desc=None, size=None):
        for status in (0, 1, 3):
            self.common(20, "<B", status)
        features = self.VERSION_1 | self.PLATFORM | self.INDIRECT_FEATURE | (self.PACKED if self.packed else 0)
        for half in range(2):
            self.common(8, "<I", half)
            self.common(12, "<I", features >> 32 * half & 0xFFFFFFFF)
        self.common(20, "<B", 0xB)
        assert self.status() == 0xB
        self.common(22, "<H", 0)
        self.common(24, "<H", size or self.ENTRIES)
        for offset, place in ((32, self.DESC if desc is None else desc), (40, self.AVAIL), (48, self.USED)):
            self.common(offset, "<Q", self.BASE + place)
        self.common(28, "<H", 1)
        self.common(20, "<B", 0xF)

    def put(self, offset, data):
        self.memory[offset:offset + len(data)] = data

    def descriptor(self, slot, address, length, flags=0, following=0, table=None):
        """Split: following is the next one; packed: the identifier."""
        where = (self.DESC if table is None else table) + 16 * slot
        last = (following, flags) if self.packed else (flags, following)
        self.put(where, struct.pack("<QIHH", address, length, *last))

    def kick(self):
        bar, start = self.where[2]
        self.write(bar, start, b"\0\0")

    def available(self, head, count=1):
        """Split rings: the next entry names head; the index moves on by count."""
        self.put(self.AVAIL + 4 + 2 * (self.index % self.ENTRIES), struct.pack("<H", head))
        self.index = (self.index + count) & 0xFFFF
        self.put(self.AVAIL + 2, struct.pack("<H", self.index))

    def used_index(self):
        return struct.unpack_from("<H", self.memory, self.USED + 2)[0]

    def wait_for(self, condition, what):
        limit = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < limit, what
            time.sleep(0.001)

    def transfer(self, kind, data=bytes(512), sector=0):
        """One request through a split ring: header, data, status. Returns the status byte and the data."""
        assert not self.packed
        base = self.BASE
        self.put(self.HEADER, struct.pack("<IIQ", kind, 0, sector))
        self.put(self.DATA, data)
        self.put(self.STATUS, b"\xff")
        self.descriptor(0, base + self.HEADER, 16, self.NEXT, 1)
        self.descriptor(1, base + self.DATA, len(data), self.NEXT | (0 if kind else self.WRITE), 2)
        self.descriptor(2, base + self.STATUS, 1, self.WRITE)
        self.available(0)
        self.kick()
        self.wait_for(lambda: self.used_index() == self.index, "a request is not answered")
        return self.memory[self.STATUS], self.memory[self.DATA:self.DATA + len(data)]

    def check(self):
        """The device works: what is written is read."""
        self.sector = (self.sector + 1) % 1024
        data = os.urandom(512)
        assert self.transfer(1, data, self.sector)[0] == 0
        assert self.transfer(0, bytes(512), self.sector) == (0, data)
        assert self.status() == 0xF
