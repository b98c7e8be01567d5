# SPDX-License-Identifier: BSD-2-Clause
"""Hostile messages: sizes, types, order, pieces."""
import os
import socket
import struct
import time

import pytest

from hostile import SHORTEST, EINVAL, ENOSYS, rig  # noqa: F401 (rig is a fixture)
import vfu
from vfu import Client


@pytest.mark.parametrize("size", [0, 1, 15, (1 << 20) + 4097, 1 << 31, 0xFFFFFFFF])
def test_impossible_size(rig, size):
    with Client(rig.path) as client:
        client.send(vfu.pack(1, vfu.GET_INFO, bytes(16), size=size))
        client.expect_closed()
    rig.says(f"a message of {size} bytes (command 4)")


def test_truncated(rig):
    with Client(rig.path) as client:
        for command, needed in SHORTEST.items():
            for length in range(needed):
                assert client.request(command, bytes(length))[0] == EINVAL
        rig.says("DMA_MAP with 0 bytes of payload; it needs 32")
        error, _ = client.request(vfu.REGION_WRITE, vfu.access_payload(vfu.CONFIG, 0, 8, b"1234567"))
        assert error == EINVAL
        entries = struct.pack("<Q", 2) + bytes(24)
        assert client.request(vfu.WRITE_MULTI, entries)[0] == EINVAL
        assert client.request(vfu.WRITE_MULTI, struct.pack("<Q", 1 << 63) + bytes(24))[0] == EINVAL
        assert client.read(vfu.CONFIG, 0, 2) == b"\xf4\x1a"


def test_short_data(rig):
    with Client(rig.path) as client:
        assert client.request(vfu.REGION_WRITE, vfu.access_payload(vfu.CONFIG, 0, 8, b"1234567"))[0] == EINVAL
        rig.says("REGION_WRITE of 8 bytes came with 7")
        assert client.request(vfu.WRITE_MULTI, struct.pack("<Q", 2) + bytes(24))[0] == EINVAL
        rig.says("REGION_WRITE_MULTI of 2 entries came with 1")
        assert client.request(vfu.WRITE_MULTI, struct.pack("<QQII8s", 1, 0, vfu.CONFIG, 9, b""))[0] == EINVAL
        rig.says("with an entry of 9 bytes")
        assert client.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x22, 0, 2, b"\1"))[0] == EINVAL
        rig.says("SET_IRQS index 2, flags 0x22, 2 from 0 with 0 descriptors: refused")


def test_oversized(rig):
    with Client(rig.path) as client:
        # More payload than a command needs is left unread.
        assert client.request(vfu.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0) + bytes(1 << 20))[0] == 0
        assert client.request(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4) + bytes(1 << 20))[0] == 0
        for count in (0, 4097, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
            for region in (vfu.CONFIG, 1, 4):
                assert client.request(vfu.REGION_READ, vfu.access_payload(region, 0, count))[0] == EINVAL
        rig.says("0x1000 bytes, an access 1 to 4096")


@pytest.mark.parametrize("data, text", [
    (vfu.pack(1, 200), "unknown command 200"), (vfu.pack(1, 0), "unknown command 0"), (vfu.pack(1, 14), "unknown command 14"),
    (vfu.pack(1, vfu.DMA_READ, bytes(16)), "unknown command 11"), (vfu.pack(1, 0xFFFF), "unknown command 65535")])
def test_unknown_command(rig, data, text):
    with Client(rig.path) as client:
        client.send(data)
        assert client.reply(1)[0] == ENOSYS
        rig.says(text)


def test_wrong_type(rig):
    for kind in range(2, 16):
        with Client(rig.path) as client:
            client.send(vfu.pack(1, vfu.GET_INFO, bytes(16), flags=kind))
            client.expect_closed()
    rig.says("a message of type 2 (command 4)")


@pytest.mark.parametrize("version, text", [
    (b"", "VERSION with 0 bytes of payload; it needs 4"), (b"\0\0\0", "VERSION with 3 bytes of payload"),
    (struct.pack("<HH", 1, 0), "the client speaks vfio-user 1.0"), (struct.pack("<HH", 0xFFFF, 0xFFFF), "the client speaks vfio-user 65535.65535"),
    (b"\0\0\0\0{}", "do not end in a NUL"), (b"\0\0\0\0" + b" " * 5000 + b"\0", "are too long"), (b"\0\0\0\0\0", "are no JSON object"),
    (b"\0\0\0\0[]\0", "are no JSON object"), (b"\0\0\0\0{\"a\":\0", "are no JSON object"), (b"\0\0\0\0\xff\xfe\0", "are no JSON object"),
    (b"\0\0\0\0" + b"[" * 4000 + b"\0", "are no JSON object"), (b"\0\0\0\0" + b'{"a":' * 800 + b"\0", "are no JSON object")])
def test_wrong_version(rig, version, text):
    with Client(rig.path, hello=False) as client:
        client.message(vfu.VERSION, version)
        rig.says(text)


@pytest.mark.parametrize("capabilities", [
    b"{}", b'{"capabilities":7}', b'{"capabilities":{"max_msg_fds":-1}}', b'{"capabilities":{"max_msg_fds":1e300}}',
    b'{"capabilities":{"max_msg_fds":99999999999999999,"max_data_xfer_size":0}}', b'{"capabilities":{"max_msg_fds":"8","max_data_xfer_size":[]}}'])
def test_odd_capabilities(rig, capabilities):
    with Client(rig.path, hello=False) as client:
        assert client.request(vfu.VERSION, b"\0\0\0\0" + capabilities + b"\0")[0] == 0
        assert client.request(vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0))[0] == 0
        assert client.request(vfu.VERSION, vfu.HELLO)[0] == EINVAL
        rig.says("VERSION a second time")


@pytest.mark.parametrize("command", [*range(2, 11), 13, 15, 16, 17, 18])
def test_before_version(rig, command):
    fds = [vfu.memory_file(4096) for _ in range(8)]
    with Client(rig.path, hello=False) as client:
        client.message(command, bytes(64), fds)
        client.expect_closed()
    rig.says(" before VERSION")
    for fd in fds:
        os.close(fd)


def test_replies_to_nothing(rig):
    for command in (vfu.DMA_READ, vfu.DMA_WRITE, vfu.GET_INFO, 0, 0xFFFF):
        for flags in (vfu.REPLY, vfu.REPLY | vfu.ERROR):
            with Client(rig.path) as client:
                client.message(command, bytes(32), flags=flags)
                client.expect_closed()
    rig.says("a reply (id 2, command 11) to nothing that was asked")


def test_silence_in_a_message(rig):
    data = vfu.pack(9, vfu.DMA_MAP, vfu.map_payload(0, 4096))
    fd = vfu.memory_file(4096)
    for cut in (1, 15, 16, 17, 47):
        with Client(rig.path) as client:
            client.send(data[:cut], [fd])
            rig.bystander.check()
            time.sleep(0.05)  # the silence; nothing is waited for
            busy = rig.server.cpu()
            time.sleep(0.2)
            assert rig.server.cpu() - busy < 0.15, "the server spins"
    rig.says("in the middle of a message: 47 bytes came, of 48")
    os.close(fd)


def test_byte_by_byte(rig):
    fd = vfu.memory_file(1 << 20)
    event = os.eventfd(0)
    with Client(rig.path, hello=False) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        def drip(command, payload, fds, when):
            data = vfu.pack(client.next(), command, payload)
            for i, byte in enumerate(data):
                client.send(bytes([byte]), fds if i == when % len(data) else ())
            return client.reply(client.number)[0]

        assert drip(vfu.VERSION, vfu.HELLO, (), 0) == 0
        for number, when in enumerate((0, 7, 16, 30, -1)):
            assert drip(vfu.DMA_MAP, vfu.map_payload(number << 20, 1 << 20), [fd], when) == 0
            assert drip(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [event], when) == 0
            assert drip(vfu.REGION_READ, vfu.access_payload(vfu.CONFIG, 0, 4), (), 0) == 0
        assert rig.server.holds()[1] == 2
    os.close(fd)
    os.close(event)


def test_rate_limit(rig):
    began = time.monotonic()
    with Client(rig.path) as client:
        errors = client.many([(200, b"")] * 20000)
        assert set(errors) == {ENOSYS}
        took = time.monotonic() - began
        lines = rig.server.log().count("unknown command")
        assert lines <= 10 + 2 * took + 2
        time.sleep(1)
        client.request(200)
    rig.says("lines left out before")
