# SPDX-License-Identifier: BSD-2-Clause
"""What serves a disk to a guest: Pintle over vfio-user, or, to tell the laboratory's own faults from Pintle's, QEMU itself."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from . import host

# What a server says of a back end that really fails.
BACKEND_LINE = re.compile(r"No space left on device|Input/output error")
START_LIMIT = 60
STOP_LIMIT = 60
ERROR_LINE = re.compile(r"\berror\b|\bfatal\b|assert|sanitizer|runtime error|panic|abort", re.IGNORECASE)


def build_folder():
    """The build under test."""
    return pathlib.Path(os.environ.get("PINTLE_BUILD") or host.TOP / "build").resolve()


class PintleServer:
    """One pintle process that serves one device, a disk if it is not said; what it prints goes to a file beside the socket."""
    def __init__(self, folder, name, image, options="", kind="blk"):
        # A socket's path may have 107 bytes at most, and folder may be anywhere.
        self.socket_folder = tempfile.TemporaryDirectory(prefix="pintle-")
        self.socket = pathlib.Path(self.socket_folder.name) / f"{name}.sock"
        self.log = pathlib.Path(folder) / f"{name}.server.log"
        self.name = name
        program = build_folder() / "pintle"
        if not program.exists():
            raise host.LabError(f"{program} is not there: build it first (make)")
        self.control = self.socket.with_suffix(".control")
        self.command = [program, "serve", "--device", f"{kind},id={name}{f',path={image}' if image else ''}{options}",
                        "--road", f"vfio-user,path={self.socket}", "--control", f"path={self.control}"]
        self.process = None
        # More properties of QEMU's device, and of the server's environment.
        self.properties, self.environment = {}, {}

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **self.environment})
        limit = time.monotonic() + START_LIMIT
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise host.LabError(f"the server did not start:\n{self.words()}")
            time.sleep(0.01)
        return self

    def words(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def errors(self, of_backends=False):
        """Lines that tell of errors; those that a back end really had are left out if that was wanted."""
        return [line for line in self.words().splitlines() if ERROR_LINE.search(line)
                and not (of_backends and BACKEND_LINE.search(line))]

    def check_alive(self):
        if self.process.poll() is not None:
            raise host.LabError(f"the server is gone (status {self.process.returncode}):\n{self.words()}")

    def ctl(self, method, *words):
        return host.run(build_folder() / "pintle", "ctl", "--socket", self.control, method, self.name, *words)

    def show(self):
        return json.loads(host.run(build_folder() / "pintle", "ctl", "--json", "--socket", self.control, "show", self.name))

    def balloon(self, method, *words):
        """Its answer."""
        return json.loads(host.run(build_folder() / "pintle", "ctl", "--json", "--socket", self.control, "balloon", method, self.name, *words))

    def inject(self, fault, *words):
        return host.run(build_folder() / "pintle", "inject", "--socket", self.control, self.name, fault, *words)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, errors_of_backends=False):
        """An orderly end: alive until now, status 0 on SIGTERM, and no error was printed."""
        self.check_alive()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise host.LabError(f"the server did not end on SIGTERM:\n{self.words()}") from None
        if status != 0 or self.errors(errors_of_backends):
            raise host.LabError(f"the server ended with status {status} and said:\n{self.words()}")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def device(self, bus, address, **more):
        """What -device and QMP's device_add take; without a bus QEMU finds a place."""
        place = {"bus": bus, "addr": address} if bus else {}
        return {"driver": "vfio-user-pci", "id": self.name, **place,
                "socket": {"type": "unix", "path": str(self.socket)}, **more}

    def attachment(self, bus, address):
        return ["-device", json.dumps(self.device(bus, address, **self.properties))]


class QemuServer:
    """QEMU's own virtio-blk in Pintle's place."""

    def __init__(self, folder, name, image, options=""):
        self.name, self.image = name, image

    def start(self):
        return self

    def check_alive(self):
        pass

    def errors(self):
        return []

    def words(self):
        return ""

    def stop(self, errors_of_backends=False):
        pass

    def kill(self):
        pass

    def attachment(self, bus, address):
        place = f",bus={bus},addr={address}" if bus else ""
        return ["-drive", f"file={self.image},if=none,id=drive-{self.name},format=raw",
                "-device", f"virtio-blk-pci,drive=drive-{self.name},id={self.name}{place},disable-legacy=on"]


def server(folder, name, image, options="", **environment):
    """The server that PINTLE_LAB_SERVER names: pintle (default) or qemu."""
    kind = {"pintle": PintleServer, "qemu": QemuServer}[os.environ.get("PINTLE_LAB_SERVER", "pintle")]
    one = kind(folder, name, image, options)
    one.environment = environment
    return one.start()
