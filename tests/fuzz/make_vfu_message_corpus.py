#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# Writes the seed corpus of fuzz_vfu_message into the folder given: one file a kind of conversation.
import pathlib
import struct
import sys

RAW, FRAMED, VERSION, RECONNECT, HALF_CLOSE, SECOND, READ, BYTEWISE = range(8)
MORE, DEAF = 0x40, 0x80
EVENT, MEMORY, SMALL, BLOCKING, PIPE, SOCKET, FOLDER, NULL = range(8)


def record(kind, *fds, flags=0):
    return bytes([kind | len(fds) << 3 | flags, *fds])


def framed(command, payload=b"", *fds, flags=0, more=False):
    return record(FRAMED, *fds, flags=MORE if more else 0) + struct.pack("<BBH", command, flags, len(payload)) + payload


def raw(data, *fds, more=False):
    return record(RAW, *fds, flags=MORE if more else 0) + struct.pack("<H", len(data)) + data


def header(command, size, flags=0, number=1):
    return struct.pack("<HHIII", number, command, size, flags, 0)


def map_message(address, size, *fds, offset=0, access=3, more=False):
    return framed(2, struct.pack("<IIQQQ", 32, access, offset, address, size), *fds, more=more)


def unmap(address, size, flags=0, more=False):
    return framed(3, struct.pack("<IIQQ", 24, flags, address, size), more=more)


def irqs(index, flags, start, count, data=b"", *fds):
    return framed(8, struct.pack("<5I", 20 + len(data), flags, index, start, count) + data, *fds)


def read(region, offset, count, **more):
    return framed(9, struct.pack("<QII", offset, region, count), **more)


def write(region, offset, data, **more):
    return framed(10, struct.pack("<QII", offset, region, len(data)) + data, **more)


def multi(*entries, count=None):
    body = b"".join(struct.pack("<QII8s", offset, region, size, data) for region, offset, size, data in entries)
    return framed(15, struct.pack("<Q", len(entries) if count is None else count) + body)


BAD_TEXT = [b"", b"{}\0", b"[]\0", b"{", b'{"capabilities":{"max_msg_fds":-1}}\0', b'{"capabilities":7}\0', b"\0", b'{"a":' * 40 + b"\0"]
HELLO = record(VERSION)
seeds = {
    "hello": HELLO + record(READ),
    "questions": HELLO + framed(4, struct.pack("<IIII", 16, 0, 0, 0))
    + b"".join(framed(5, struct.pack("<IIIIQQ", 128, 0, i, 0, 0, 0)) for i in range(10))
    + b"".join(framed(7, struct.pack("<IIII", 16, 0, i, 0)) for i in range(6))
    + framed(6, struct.pack("<IIII", 512, 0, 0, 0)) + framed(6, struct.pack("<IIII", 16, 0, 0, 0)),
    "maps": HELLO + map_message(0, 0x10000, MEMORY, more=True) + map_message(0x10000, 0x10000, MEMORY, offset=0x10000, more=True)
    + map_message(0x8000, 0x10000, MEMORY) + unmap(0x4000, 0x8000, more=True) + unmap(0, 0, 2),
    "odd_maps": HELLO + map_message(1 << 63, 1 << 63, MEMORY) + map_message((1 << 64) - 4096, 8192, MEMORY) + map_message(0, 4096)
    + map_message(4096, 8192, SMALL) + map_message(0x4000, 4096, PIPE) + map_message(0x5000, 4096, FOLDER, NULL, SOCKET)
    + map_message(12, 34) + unmap(0, 1 << 63) + unmap(0, 0),
    "interrupts": HELLO + write(7, 4, b"\x07\x05") + irqs(2, 0x24, 0, 2, b"", EVENT, BLOCKING) + irqs(2, 0x21, 0, 1)
    + irqs(2, 0x22, 0, 3, b"\1\0\1") + irqs(0, 0x24, 0, 1, b"", EVENT) + irqs(0, 0x14, 0, 1, b"", EVENT) + irqs(0, 0x11, 0, 1)
    + irqs(2, 0x24, 1, 1, b"", PIPE) + irqs(2, 0x21, 0, 0) + irqs(3, 0x24, 0, 1, b"", EVENT) + irqs(2, 0x24, 4, 2, b"", EVENT, EVENT),
    "accesses": HELLO + write(7, 4, b"\x07\x00") + read(7, 0, 256) + read(0, 0, 4) + write(0, 0, b"\1\2\3\4") + read(0, 0x1000, 80)
    + read(0, 0x3ffc, 8) + read(9, 0, 4) + read(1, 1 << 63, 4) + read(7, 0, 4096) + read(7, 0, 4097) + write(0, 0x1040, bytes(16)),
    "later": HELLO + write(7, 4, b"\x07\x00") + write(0, 0, b"\xee", more=True) + read(0, 0, 4, more=True) + framed(13, more=True)
    + write(0, 0, b"\xed\0", more=True) + map_message(0, 4096, MEMORY, more=True) + unmap(0, 4096) + write(0, 0, b"\xee", more=True)
    + record(RECONNECT, 0) + read(7, 0, 4),
    "multi": HELLO + write(7, 4, b"\x07\x00") + multi((0, 0, 4, b"abcd"), (0, 8, 8, b"\xee1234567"), (7, 4, 2, b"\7\0"), (0, 0, 9, b""))
    + multi(count=5) + multi(),
    "before": read(7, 0, 4) + record(RECONNECT) + map_message(0, 4096, MEMORY, EVENT) + record(RECONNECT, 0) + HELLO,
    "replies": HELLO + framed(11, bytes(16), flags=1) + record(RECONNECT, 0) + framed(12, bytes(24), EVENT, flags=1),
    "sizes": HELLO + raw(header(4, 15)) + record(RECONNECT, 0) + raw(header(9, 1 << 31)) + record(RECONNECT, 0)
    + raw(header(9, 1 << 20) + bytes(100), MEMORY) + record(HALF_CLOSE),
    "torn": HELLO + raw(header(9, 32)[:7]) + raw(header(9, 32)[7:] + struct.pack("<QI", 0, 7)) + raw(struct.pack("<I", 4) + header(13, 16))
    + raw(header(2, 48) + struct.pack("<IIQ", 32, 3, 0), MEMORY, EVENT) + raw(struct.pack("<QQ", 0, 4096), NULL),
    "bytes": HELLO + record(BYTEWISE, EVENT) + bytes([32]) + header(9, 32) + struct.pack("<QII", 0, 7, 4),
    "types": HELLO + framed(13, flags=0x10) + framed(200) + framed(14) + framed(16, bytes(8)) + framed(17, bytes(8))
    + framed(1, bytes(4)) + framed(4, b"", flags=0x10) + framed(4, flags=2),
    "versions": b"".join(framed(1, struct.pack("<HH", 0, 1) + text) + record(RECONNECT) for text in BAD_TEXT)
    + framed(1, struct.pack("<HH", 1, 0)) + framed(1, b"\0"),
    "deaf": HELLO + b"".join(record(FRAMED, flags=DEAF) + struct.pack("<BBH", 6, 0, 16) + struct.pack("<IIII", 512, 0, 0, 0)
                             for _ in range(60)),
    "two": HELLO + record(SECOND) + record(SECOND, flags=MORE) + record(RECONNECT, 0, flags=MORE) + record(RECONNECT, 0) + read(7, 0, 4),
}
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (folder / name).write_bytes(data)
