#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# Writes the first inputs of the target pci_config: one file for each thing that a record can do. Argument: the folder.
import pathlib
import struct
import sys

CONFIG = 7


def write(region, offset, data):
    return struct.pack("<BBHH", 1, region, offset, len(data)) + bytes(data)


def read(region, offset, length):
    return struct.pack("<BBHH", 0, region, offset, length)


def event(number):
    return struct.pack("<BBHH", 0xF0, number, 0, 0)


ON = write(CONFIG, 4, [7, 0])
SEEDS = {
    "bars": ON + write(0, 0, [0xEE, 1, 2, 3]) + read(0, 4, 8) + write(1, 0, [0xED, 1]) + read(1, 0, 4),
    "sizing": b"".join(write(CONFIG, 0x10 + 4 * i, [0xFF] * 4) + read(CONFIG, 0x10 + 4 * i, 4) for i in range(6)),
    "msix": ON + write(CONFIG, 0x86, [0, 0x80]) + write(0, 0x100C, [0, 0, 0, 0]) + write(0, 10, [0xEE, 0])
    + read(0, 0x1800, 8) + write(CONFIG, 0x86, [0, 0xC0]),
    "msi": ON + write(CONFIG, 0x92, [0x51, 0]) + write(CONFIG, 0xA0, [0xFF] * 4) + write(0, 10, [0xEE, 3]) + read(CONFIG, 0xA4, 4),
    "power": ON + write(CONFIG, 0x44, [3]) + read(0, 0, 4) + write(CONFIG, 0x44, [1]) + write(CONFIG, 0x44, [0]),
    "flr": ON + write(CONFIG, 0x50, [0, 0x80]) + read(CONFIG, 0, 256),
    "bist": ON + write(CONFIG, 0x0F, [0x40]) + read(CONFIG, 0x0C, 4),
    "events": b"".join(event(i) + ON for i in range(8)),
    "edges": read(CONFIG, 4093, 4) + read(CONFIG, 4096, 1) + read(0, 0x0FFC, 8) + read(9, 0, 4) + struct.pack("<BBHH", 2, 0, 0xFFFF, 8),
    "noise": write(CONFIG, 0, [0xFF] * 4096) + read(CONFIG, 0, 4096) + write(CONFIG, 0, [0x5A] * 4096),
}

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, data in SEEDS.items():
    (folder / name).write_bytes(data)
