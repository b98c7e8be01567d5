# SPDX-License-Identifier: BSD-2-Clause
"""The server under attack, and what has to hold after each attack: the second device in the same process has not noticed, nothing of the attack is
left, the process ends in order, and its log says why it did what it did."""
import os
import pathlib
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

import vfu
from vfu import Blk, Client

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("PINTLE_SEED", "1"))
PATIENCE = 30
EINVAL, EEXIST, E2BIG, EACCES, ENOSYS, ENOTSUP = 22, 17, 7, 13, 38, 95
# Commands and the least payload that each needs.
SHORTEST = {vfu.DMA_MAP: 32, vfu.DMA_UNMAP: 24, vfu.GET_INFO: 4, vfu.GET_REGION_INFO: 32, vfu.GET_IO_FDS: 16, vfu.GET_IRQ_INFO: 16,
            vfu.SET_IRQS: 20, vfu.REGION_READ: 16, vfu.REGION_WRITE: 16, vfu.WRITE_MULTI: 8, vfu.FEATURE: 8, vfu.MIG_READ: 8}


class Server:
    """pintle serve with two disks."""

    def __init__(self, folder):
        build = pathlib.Path(os.environ.get("PINTLE_BUILD", "build-debug"))
        self.pintle = (build if build.is_absolute() else SOURCE / build) / "pintle"
        self.log_path = folder / "log"
        self.sockets = [folder / "d0.sock", folder / "d1.sock"]
        command = [self.pintle, "serve"]
        for path in self.sockets:
            command += ["--device", f"blk,id={path.stem},backend=memory,size=1M", "--road", f"vfio-user,path={path}"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_log("ready: 2 devices")

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text, limit=PATIENCE):
        end = time.monotonic() + limit
        while text not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, f"the log does not say '{text}':\n{self.log()[-4000:]}"
            time.sleep(0.01)

    def holds(self):
        """Descriptors, mappings of clients' files, and mappings at all."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        maps = (proc / "maps").read_text().splitlines()
        return len(os.listdir(proc / "fd")), sum("memfd:hostile" in line for line in maps), len(maps)

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        assert self.process.poll() is None, self.log()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log()[-8000:]
        assert not re.search(r"Sanitizer|runtime error|assert", self.log()), self.log()[-8000:]
        assert "ended in order" in self.log()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Rig:
    """The server, the device that is attacked and the one that must not notice."""

    def __init__(self, folder):
        self.server = Server(folder)
        self.path = self.server.sockets[0]
        with Blk(self.path) as warm:  # what is made once is made now
            warm.check()
            assert warm.request(vfu.GET_IO_FDS, struct.pack("<IIII", 4096, 0, 4, 0))[0] == 0
            self.interrupt_once(warm)
        with Blk(self.path, by_message=True) as warm:  # the queue's own thread
            warm.kick()
            warm.command()
        self.bystander = Blk(self.server.sockets[1])
        self.bystander.check()
        self.before = self.settled()

    @staticmethod
    def interrupt_once(client):
        event = os.eventfd(0)
        assert client.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x24, 0, 1), [event])[0] == 0
        assert client.request(vfu.SET_IRQS, vfu.irqs_payload(2, 0x21, 0, 1))[0] == 0
        os.close(event)

    def settled(self, like=None):
        """What the server holds when device 0 is nobody's: the same several times in a row, and like what it was."""
        end = time.monotonic() + PATIENCE
        with Client(self.path):  # whoever was attached before is gone by then
            pass
        last, times = None, 0
        while times < 10:
            time.sleep(0.01)
            holds = self.server.holds()
            right = holds[1] == 1 if like is None else holds[:2] == like[:2]
            times = times + 1 if right and holds == last else 0
            last = holds
            assert time.monotonic() < end, f"{holds} instead of {like}"
        return last

    def says(self, text):
        self.server.wait_log(text)

    def end(self):
        self.bystander.check()
        after = self.settled(self.before)
        # The allocator of the sanitizer maps as it likes, within bounds.
        assert after[2] <= self.before[2] + 64, "memory maps have grown"
        with Blk(self.path) as healthy:
            healthy.check()
        probe = subprocess.run([self.server.pintle, "probe", self.path], capture_output=True, text=True, timeout=PATIENCE)
        assert probe.returncode == 0, probe.stderr
        self.bystander.check()
        self.bystander.close()
        self.server.stop()


@pytest.fixture
def rig():
    with tempfile.TemporaryDirectory(prefix="pintle-") as folder:
        found = Rig(pathlib.Path(folder))
        try:
            yield found
            found.end()
        finally:
            found.server.kill()


def open_kinds():
    """Descriptors of every kind but the right one; closed by the caller."""
    reading, writing = os.pipe()
    one, two = socket.socketpair()
    two.close()
    with tempfile.NamedTemporaryFile() as file:
        plain = os.dup(file.fileno())
    epoll = select.epoll()
    kinds = {"pipe, reading": reading, "pipe, writing": writing, "file": plain, "socket": one.detach(),
             "folder": os.open("/", os.O_RDONLY), "/dev/null": os.open("/dev/null", os.O_RDWR), "memfd": vfu.memory_file(4096),
             "epoll": os.dup(epoll.fileno()), "path": os.open("/", os.O_PATH)}
    epoll.close()
    return kinds
