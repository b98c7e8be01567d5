# SPDX-License-Identifier: BSD-2-Clause
"""A server with a control socket, calls to it, and a driver with interrupts: for the tests of `pintle ctl` and `pintle inject`."""
import json
import os
import select
import socket
import struct
import subprocess
import time

from serving import PATIENCE, Server
import vfu
from vfu import Blk

ERR, REQ = 3, 4
EVENTFD_TRIGGER = 0x24


class Refused(Exception):
    """What the server answered in place of a result."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.name = error.get("data", {}).get("name")


class Control:
    """One connection to the control socket."""

    def __init__(self, path, limit=PATIENCE):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))  # blocking: waits while the backlog is full
        self.socket.settimeout(limit)
        self.received = b""
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, line):
        self.socket.sendall(line + b"\n")

    def receive(self):
        """The next line as JSON; None at the end."""
        while b"\n" not in self.received:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        return json.loads(line)

    def begin(self, method, **params):
        self.number += 1
        params = {key.replace("_", "-"): value for key, value in params.items()}
        self.send(json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}).encode())
        return self.number

    def result(self, number):
        reply = self.receive()
        assert reply and reply["jsonrpc"] == "2.0" and reply["id"] == number, reply
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["result"]

    def call(self, method, **params):
        return self.result(self.begin(method, **params))

    def show(self, device="d0"):
        return self.call("show", id=device)

    def inject(self, fault, device="d0", **params):
        return self.call("inject", id=device, fault=fault, **params)


class Driver(Blk):
    """Blk with MSI-X: vector 1 for its queue, vector 0 for the configuration, ERR and REQ bound."""

    def __init__(self, path, **options):
        super().__init__(path, **options)
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.err, self.req = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
        assert self.request(vfu.SET_IRQS, vfu.irqs_payload(2, EVENTFD_TRIGGER, 0, 2), self.events)[0] == 0
        for index, event in ((ERR, self.err), (REQ, self.req)):
            assert self.request(vfu.SET_IRQS, vfu.irqs_payload(index, EVENTFD_TRIGGER, 0, 1), [event])[0] == 0
        self.enable_msix()

    def enable_msix(self):
        config = self.read(vfu.CONFIG, 0, 256)
        at = config[0x34]
        while config[at] != 0x11:
            at = config[at + 1]
        self.write(vfu.CONFIG, at + 2, struct.pack("<H", 0x8000))
        self.common(16, "<H", 0)
        self.common(26, "<H", 1)

    def bring_up(self):
        """After a reset of the function: registers, rings and interrupts from the beginning."""
        self.put(0, bytes(0x3000))
        self.index = 0
        self.write(vfu.CONFIG, 4, struct.pack("<H", 6))
        self.start()
        self.enable_msix()

    def start(self, **options):
        super().start(**options)
        if hasattr(self, "events"):
            self.common(16, "<H", 0)

    def close(self):
        super().close()
        if self.events:
            for event in self.events + [self.err, self.req]:
                os.close(event)
        self.events = []

    def __exit__(self, *_):
        self.close()

    def wait_for(self, condition, what):
        """As before, but a connection that has ended ends the wait."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        limit = time.monotonic() + PATIENCE
        while not condition():
            if poll.poll(1):
                raise vfu.Closed
            assert time.monotonic() < limit, what

    @staticmethod
    def count(event):
        """How often it was signalled since the last look."""
        try:
            return os.eventfd_read(event)
        except BlockingIOError:
            return 0

    @staticmethod
    def wait(event, limit=PATIENCE):
        readable, _, _ = select.select([event], [], [], limit)
        return bool(readable)

    def submit(self, data, sector):
        """A write that is not waited for."""
        base = self.BASE
        self.put(self.HEADER, struct.pack("<IIQ", 1, 0, sector))
        self.put(self.DATA, data)
        self.put(self.STATUS, b"\xff")
        self.descriptor(0, base + self.HEADER, 16, self.NEXT, 1)
        self.descriptor(1, base + self.DATA, len(data), self.NEXT, 2)
        self.descriptor(2, base + self.STATUS, 1, self.WRITE)
        self.available(0)
        self.kick()

    def finished(self):
        return self.used_index() == self.index


class Controlled(Server):
    """Two devices, d0 and d1, and the control socket."""

    def __init__(self, program, folder, *more, backends=("backend=memory,size=1M", "backend=memory,size=1M"), control="", start=True, **options):
        self.program = program
        self.sockets = [folder / f"s{i}" for i in range(len(backends))]
        self.control = folder / "control"
        arguments = []
        for i, backend in enumerate(backends):
            arguments += ["--device", f"blk,id=d{i},{backend}", "--road", f"vfio-user,path={self.sockets[i]}"]
        super().__init__(program, folder, *arguments, "--control", f"path={self.control}{control}", *more, start=start, **options)

    def connect(self):
        return Control(self.control)

    def pintle(self, command, *arguments, timeout=PATIENCE):
        """(status, output, errors) of `pintle ctl` or `pintle inject`."""
        result = subprocess.run([self.program, command, "--socket", self.control, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
        return result.returncode, result.stdout, result.stderr


def eventually(condition, what, limit=PATIENCE):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.005)
