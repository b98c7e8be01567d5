# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors that are too many, of the wrong kind, or never readable or writable."""
import os
import struct

import pytest

from hostile import SHORTEST, EINVAL, open_kinds, rig  # noqa: F401 (rig is a fixture)
import vfu
from vfu import Blk, Client, Closed


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
