#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the beginning of the corpora of the two fuzz targets for Xen guests: operations as Linux's front end sends them, and nodes as libxl and it write them."""
import pathlib
import struct

HERE = pathlib.Path(__file__).parent / "corpus"
KEYS = ["frontend", "state", "online", "num_devs", "root_num", "domid", "pci-op-ref", "event-channel", "magic", "front-state"]
INDEXED = ["dev", "state", "opts", "vdev", "vdevfn", "root"]


def op(command, offset=0, size=0, value=0, entries=()):
    body = struct.pack("<IiIIIiiII", command, 0, 0, 0, 0, offset, size, value, 0) + b"".join(struct.pack("<HH", 0xffff, entry) for entry in entries)
    return bytes([len(body) // 4]) + body


def read(at, size=4):
    return op(0, at, size)


def write(at, size, value):
    return op(1, at, size, value)


def node(key, value, index=None):
    selector = KEYS.index(key) if index is None else len(KEYS) + INDEXED.index(key) + len(INDEXED) * index
    return bytes([selector, len(value)]) + value.encode()


def guest(state, front, devices=(("0000:00:05.0", 1),), extra=b""):
    nodes = node("state", str(state)) + node("online", "1") + node("num_devs", str(len(devices))) + node("domid", "7") + node("front-state", str(front))
    for index, (address, device_state) in enumerate(devices):
        nodes += node("dev", address, index) + node("state", str(device_state), index) + node("opts", "msitranslate=0,power_mgmt=0,permissive=1", index) + node("vdev", f"0000:00:{index:02x}.00", index)
    return nodes + node("pci-op-ref", "8") + node("event-channel", "15") + node("magic", "7") + extra


MEMORY = write(4, 2, 6)
RING = {
    "scan": b"".join(read(at) for at in range(0, 64, 4)) + read(0x34, 1) + read(0xe, 1) + read(0x40, 2),
    "size": write(0x10, 4, 0xffffffff) + read(0x10) + write(0x10, 4, 0xfebe0000) + read(0x10) + write(0x30, 4, 0xfffff800) + read(0x30),
    "msix": MEMORY + op(4, value=3, entries=(0, 1, 2)) + op(4, value=2, entries=(5, 6)) + op(3) + op(5),
    "msix-wrong": MEMORY + op(4, value=2, entries=(1, 1)) + op(4, value=129) + op(4, value=0xffffffff, entries=(0,)) + op(4, value=1, entries=(64,)),
    "msi": op(2) + op(3) + op(10, value=4) + op(10, value=3) + op(10, value=64) + op(3),
    "mask-all": MEMORY + op(4, value=1, entries=(0,)) + write(0x72, 2, 0xc000) + write(0x72, 2, 0x4000) + read(0x70),
    "power": MEMORY + op(4, value=1, entries=(0,)) + write(0x44, 2, 3) + write(0x44, 2, 0) + read(0x44, 2),
    "nonsense": read(-1) + read(3) + read(0x1000) + op(0, 0, -4) + op(1, 4, 0, 1) + op(6) + op(99),
}
STORE = {
    "made": b"\x00" + guest(1, 1), "free": b"\x60" + guest(2, 1), "held": b"\xa4" + guest(2, 3), "published": b"\xa4" + guest(3, 3, (("0000:00:05.0", 3),), node("root_num", "1") + node("root", "0000:00", 0)),
    "connected": b"\xcd" + guest(4, 4, (("0000:00:05.0", 3),)), "attach": b"\x61" + guest(7, 7, (("0000:00:05.0", 3), ("0000:00:06.0", 1))), "detach": b"\xcd" + guest(7, 7, (("0000:00:05.0", 5),)),
    "silent": b"\xcf" + guest(7, 4, (("0000:00:05.0", 5),)), "closing": b"\xcd" + guest(4, 5, (("0000:00:05.0", 3),)), "closed": b"\xa4" + guest(6, 6, (("0000:00:05.0", 3),)), "left": b"\x80" + guest(4, 4, (("0000:00:05.0", 3),)),
    "many": b"\x60" + guest(2, 1, [(f"0000:00:{slot:02x}.0", 1) for slot in range(32)], node("num_devs", "4294967295")),
    "nonsense": b"\x60" + node("frontend", "/local/domain/8/device/pci/0") + node("state", "44") + node("num_devs", "-1") + node("dev", "0000:00:05.0 0000:00:06.0", 0) + node("magic", "x" * 200),
}
for target, inputs in (("xen_ring", RING), ("xen_store", STORE)):
    (HERE / target).mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (HERE / target / name).write_bytes(data)
