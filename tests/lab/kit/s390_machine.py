# SPDX-License-Identifier: BSD-2-Clause
"""A guest in the small s390x machine of tests/lab/s390, whose channel subsystem and zPCI are the library's, in its process."""
import os
import select
import subprocess
import time

from . import host
from .guest import Guest, Line
from .server import build_folder


class S390Machine(Guest):
    """Boots on start(). devices are commands of the machine's control line that make its first devices: "add ccw NAME NUMBER PATH"."""

    machine_name, architecture = "s390x machine", "s390x"
    # The line-mode console for the kernel's words, the VT220 one for the shell.
    console_device, shell_device = "ttyS0", "ttysclp0"
    kernel_options = ""

    def __init__(self, folder, devices, suite="bookworm", **options):
        super().__init__(folder, [], suite, cpus=1, **options)
        self.devices = list(devices)
        self.told = []

    def start(self):
        self.shell, self.monitor = Line(), Line()
        files = host.guest_folder(self.suite, self.architecture)
        program = os.environ.get("PINTLE_S390_MACHINE") or host.fetch("s390/get-machine", str(build_folder()))
        words = [program, "-k", str(files / "vmlinuz"), "-i", str(files / "initrd"), "-m", str(self.megabytes),
                 "-a", "conmode=sclp " + self.kernel_words(), "-l", str(self.console),
                 "-s", str(self.shell.there.fileno()), "-c", str(self.monitor.there.fileno())]
        for device in self.devices:
            words += ["-d", device]
        with open(self.qemu_log, "ab") as log:
            self.process = subprocess.Popen([*words, *self.extra], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=[self.shell.there.fileno(), self.monitor.there.fileno()])
        self.shell.there.close()
        self.monitor.there.close()
        return self

    def power_off(self):
        """Also the orderly end of the library: every device is taken out and destroyed."""
        super().power_off()
        # Warnings tell of what was asked for.
        said = [line for line in self.qemu_log.read_text(errors="replace").splitlines() if not line.startswith("pintle: warning: ")]
        if said:
            raise host.LabError("the machine said:\n" + "\n".join(said))

    # The control line

    def _line(self, what, limit=host.COMMAND_LIMIT):
        end = time.monotonic() + limit
        while b"\n" not in self.monitor.received:
            if not self.monitor.receive(0.2):
                self.process.wait(10)
                self.fail(f"the machine went away: {what}")
            if time.monotonic() > end:
                self.fail(f"the machine does not answer: {what}")
        line, self.monitor.received = self.monitor.received.split(b"\n", 1)
        return line.decode()

    def control(self, command, refused=None):
        """A command to the machine itself; what it answers. refused: it has to answer with a complaint."""
        self.monitor.send(command.encode() + b"\n")
        while True:
            word, _, rest = self._line(command).partition(" ")
            if word == "*":
                self.told.append(rest)
            elif word != ("ok" if refused is None else "error"):
                self.fail(f"'{command}' was answered: {word} {rest}")
            else:
                return rest

    def info(self, name):
        """Figures of a PCI function, as the machine gives them."""
        return {key: int(value, 16 if key == "handle" else 10)
                for key, value in (word.split("=") for word in self.control(f"info {name}").split())}

    def wait_told(self, what, limit=host.COMMAND_LIMIT):
        """Waits until the machine has told of something ("removed NAME", "ipl"), now or before."""
        while what not in self.told:
            self._hear(what, limit)
        self.told.remove(what)

    def wait_told_of(self, begin, limit=host.COMMAND_LIMIT):
        """The same, for a line that begins so; it is returned."""
        while not (lines := [line for line in self.told if line.startswith(begin + " ")]):
            self._hear(begin, limit)
        self.told.remove(lines[0])
        return lines[0]

    def _hear(self, what, limit):
        word, _, rest = self._line(f"waiting for '{what}'", limit).partition(" ")
        assert word == "*"
        self.told.append(rest)

    def not_told(self, what):
        while select.select([self.monitor.here], [], [], 0)[0] and self.monitor.receive(0):
            pass
        while b"\n" in self.monitor.received:
            self.told.append(self._line(what).partition(" ")[2])
        return what not in self.told

    def processor_seconds(self):
        """User and system time that the machine has used."""
        fields = open(f"/proc/{self.process.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
