# SPDX-License-Identifier: BSD-2-Clause
"""Accesses everywhere, and rings written by hand: chains of every wrong shape, indices that jump."""
import random
import struct

import pytest

from hostile import SEED, EINVAL, rig  # noqa: F401 (rig is a fixture)
import vfu
from vfu import Blk, Client


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
