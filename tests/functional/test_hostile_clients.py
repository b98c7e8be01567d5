# SPDX-License-Identifier: BSD-2-Clause
"""Clients that do not read, come in thousands, come second, or send noise. PINTLE_SEED makes other noise."""
import os
import random
import socket
import struct
import time

import pytest

from hostile import SEED, PATIENCE, open_kinds, rig  # noqa: F401 (rig is a fixture)
import vfu
from vfu import Blk, Client, Closed


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
