#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the seeds of the virtqueue fuzzers: small well-formed rings of each kind, and a script that works on them.

The format is that of fuzz_virtq.h. Run it in this directory; the corpus is kept in the tree.
"""
import pathlib
import struct

SIZE = 8
NEXT, WRITE, INDIRECT = 1, 2, 4
POP, PUSH, PUBLISH, UNPOP, KICKS, QUIET, DATA, POKE, MORE, MAP, OTHER = 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
TABLE, BUFFER = 0x1000, 0x2000


def op(code, which=0, value=0):
    return struct.pack('<BBH', code, which, value)


SCRIPT = b''.join([
    op(KICKS), op(POP), op(DATA, 0, 0x0804), op(UNPOP), op(POP), op(POP), op(DATA, 1, 0x0805), op(PUSH, 1, 4), op(PUSH, 0, 0), op(PUBLISH),
    op(MAP, 1, 1), op(POP), op(MAP, 0, 1), op(POP), op(DATA, 0, 0x1003), op(PUSH, 0, 1), op(PUBLISH), op(QUIET), op(OTHER, 0), op(MORE), op(POP),
    op(PUBLISH), op(OTHER, 5), op(POP), op(PUSH), op(PUBLISH), op(POKE, 3, 0x803), op(POP), op(KICKS)])


def place(memory, at, data):
    memory[at:at + len(data)] = data


def split(indirect):
    memory = bytearray(0x1800)
    for i in range(4):
        if indirect:
            place(memory, i * 16, struct.pack('<QIHH', TABLE + i * 64, 48, INDIRECT, 0))
            for j in range(3):
                flags = (NEXT if j < 2 else 0) | (WRITE if j else 0)
                place(memory, TABLE + i * 64 + j * 16, struct.pack('<QIHH', BUFFER + j * 64, 32, flags, j + 1))
        else:
            place(memory, i * 32, struct.pack('<QIHH', BUFFER, 32, NEXT, i * 2 + 1))
            place(memory, i * 32 + 16, struct.pack('<QIHH', BUFFER + 64, 32, WRITE, 0))
        place(memory, 0x804 + i * 2, struct.pack('<H', i if indirect else i * 2))
    place(memory, 0x800, struct.pack('<HH', 0, 4))
    return memory


def packed(indirect):
    memory = bytearray(0x1800)
    available = 1 << 7
    for i in range(4):
        if indirect:
            place(memory, i * 16, struct.pack('<QIHH', TABLE + i * 64, 48, i, INDIRECT | available))
            for j in range(3):
                place(memory, TABLE + i * 64 + j * 16, struct.pack('<QIHH', BUFFER + j * 64, 32, 0, WRITE if j else 0))
        else:
            place(memory, i * 32, struct.pack('<QIHH', BUFFER, 32, 0, NEXT | available))
            place(memory, i * 32 + 16, struct.pack('<QIHH', BUFFER + 64, 32, i, WRITE | available))
    return memory


def main():
    here = pathlib.Path(__file__).parent / 'corpus'
    for name, ring, start in (('split', split, 0), ('packed', packed, 0x8000)):
        folder = here / f'virtq_{name}'
        folder.mkdir(parents=True, exist_ok=True)
        for mode in range(3):
            for features in (0, 3, 7):
                header = struct.pack('<BBBBHH', features, SIZE - 1, mode, len(SCRIPT) // 4, start, start)
                memory = ring(bool(features & 2)).rstrip(b'\0')
                (folder / f'mode{mode}-features{features}').write_bytes(header + SCRIPT + memory)


if __name__ == '__main__':
    main()
