# SPDX-License-Identifier: BSD-2-Clause
"""Memory files that cannot be trusted, mappings that cannot be, and DMA by message with a client that lies."""
import fcntl
import os
import random
import struct
import tempfile

import pytest

from hostile import SOURCE, SEED, EINVAL, EEXIST, E2BIG, EACCES, ENOTSUP, open_kinds, rig  # noqa: F401 (rig is a fixture)
import vfu
from vfu import Blk, Client


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


MOST = 1 << 20  # more than VERSION says: not every client counts


def test_most_mappings(rig):
    fd = vfu.memory_file(4096)
    with Client(rig.path) as client:
        assert client.map(0, 4096, fd) == 0
        errors = client.many([(vfu.DMA_MAP, vfu.map_payload(i << 13, 4096)) for i in range(1, MOST)])
        assert not any(errors)
        assert client.map(MOST << 13, 4096, fd) == E2BIG
        rig.says(f"more than {MOST} DMA mappings")
        assert client.unmap(4096 << 13, 4096) == 0
        assert client.map(MOST << 13, 4096, fd) == 0
        assert client.map(1 << 50, 4096, fd) == E2BIG
        rig.bystander.check()
        assert client.unmap(0, 0, 2) == 0
        assert client.map(0, 4096, fd) == 0
    # And one that goes with all of them.
    with Client(rig.path) as client:
        assert not any(client.many([(vfu.DMA_MAP, vfu.map_payload(i << 12, 4096)) for i in range(MOST)]))
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
