#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the corpus of fuzz_xen_filter: devices with every capability that the filter knows, and what guests do with them."""
import pathlib
import struct
import sys


def space(capabilities, *, extended=False, vendor=0x1B36):
    image = bytearray(256)
    struct.pack_into("<HHHHI", image, 0, vendor | (1 if extended else 0), 0x10, 0, 0x10, 0x01080202)
    if not extended:
        image[0] &= 0xFE
    struct.pack_into("<II", image, 0x10, 0xFEBE0004, 0)
    struct.pack_into("<I", image, 0x18, 0xC001)
    at, place = 0x40, 0x34
    for ident, body in capabilities:
        image[place] = at
        image[at] = ident
        image[at + 2:at + 2 + len(body)] = body
        place, at = at + 1, (at + 2 + len(body) + 3) & ~3
    return bytes(image)


def record(kind, at, width, value=0):
    return struct.pack("<BIII", kind, at, width, value)


READ, WRITE, OWNER = 0, 1, 0x83
PM, VPD, MSI, VENDOR, EXP, MSIX, AF = 1, 3, 5, 9, 0x10, 0x11, 0x13
ALL = [(PM, b"\3\xfe" + bytes(4)), (MSI, b"\x80\1" + bytes(20)), (MSIX, b"\x40\0" + bytes(8)), (EXP, b"\x92\0" + b"\x20\x80\0\x10\x10\x28" + bytes(50)), (VPD, bytes(6)), (AF, b"\6\3\0\0"), (VENDOR, bytes(14))]


def inputs():
    everything = [record(READ, at, 4) for at in range(0, 256, 4)]
    ones = [record(WRITE, at, 4, 0xFFFFFFFF) for at in range(0, 256, 4)] + [record(WRITE, at, 1, 0) for at in range(0, 256, 3)]
    yield "reads", space(ALL) + b"".join(everything)
    yield "ones", space(ALL) + b"".join(ones)
    yield "permissive", space(ALL) + record(OWNER, 0, 0, 1) + b"".join(ones) + record(OWNER, 0, 0, 0) + b"".join(everything)
    yield "sizing", space(ALL) + b"".join(record(WRITE, at, 4, 0xFFFFFFFF) + record(READ, at, 4) + record(WRITE, at, 4, 0) for at in range(0x10, 0x34, 4))
    yield "power", space(ALL) + record(WRITE, 4, 2, 7) + record(WRITE, 0x44, 2, 3) + record(WRITE, 0x44, 2, 0) + record(WRITE, 4, 2, 0)
    yield "refused", space(ALL) + b"".join(record(kind, at, width) for kind in (READ, WRITE) for at in (1, 255, 256, 4096, 0xFFFFFFFF) for width in (0, 2, 3, 4, 8, 0x80000000))
    yield "extended", space(ALL, extended=True) + b"".join(record(WRITE, at, 4, 0xFFFFFFFF) for at in range(0x100, 0x200, 4))
    circle = bytearray(space(ALL))
    circle[0x41] = 0x40
    yield "circle", bytes(circle) + b"".join(ones[:32])
    overlapping = bytearray(space([(PM, bytes(6))]))
    overlapping[0x41] = 0x44
    overlapping[0x44:0x46] = bytes([MSIX, 0x48])
    overlapping[0x48:0x4A] = bytes([EXP, 0xFC])
    overlapping[0xFC:0xFE] = bytes([VPD, 0])
    yield "overlapping", bytes(overlapping) + b"".join(ones)
    yield "gone", b"\xff" * 256 + b"".join(everything[:8])


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus/xen_filter")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in inputs():
        (folder / name).write_bytes(data)


main()
