# SPDX-License-Identifier: BSD-2-Clause
"""A real guest: QEMU with a stock Debian kernel whose root file system is on a served disk, its shell, its console, QMP."""
import json
import pathlib
import re
import select
import socket
import subprocess
import time

from . import host

# Lines of a guest's kernel log that no healthy machine leaves behind.
KERNEL_TROUBLE = re.compile(
    r"BUG:|Oops:|Call Trace|WARNING:|Kernel panic|laboratory:|"
    r"(?i:I/O error|EXT4-fs.*(error|warning)|JBD2: .*error|virtio.*(error|fail|broken|is not a head|reset)|critical .* error|"
    r"nobody cared|hung_task|blocked for more than|soft lockup|rcu.*stall)")


class Line:
    """One end of a socket pair whose other end QEMU holds."""

    def __init__(self):
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.received = b""

    def send(self, data):
        self.here.setblocking(True)
        self.here.sendall(data)
        self.here.setblocking(False)

    def receive(self, seconds):
        """Wait at most so long for more; False when the other side is gone."""
        if not select.select([self.here], [], [], seconds)[0]:
            return True
        try:
            data = self.here.recv(65536)
        except ConnectionResetError:
            return False
        self.received += data
        return bool(data)

    def close(self):
        self.here.close()


class Guest:
    """Boots on start(); run() gives a command to its shell."""

    def __init__(self, folder, servers, suite="bookworm", *, name="guest", append="", memory="shared", cpus=2, extra=(),
                 reboots=True):
        self.folder = pathlib.Path(folder)
        self.servers = list(servers)
        self.suite, self.append, self.memory, self.cpus = suite, append, memory, cpus
        self.extra, self.reboots = list(extra), reboots
        self.console = self.folder / f"{name}.console.log"
        self.qemu_log = self.folder / f"{name}.qemu.log"
        self.process = self.shell = self.monitor = None
        self.tokens = self.jobs = 0

    # The machine

    def machine(self):
        """QEMU's arguments that make the machine, its disks included, without its lines to the outside."""
        folder = host.guest_folder(self.suite)
        accelerator = host.accelerator()
        words = [*host.qemu(), "-accel", "kvm" if accelerator == "kvm" else "tcg,thread=multi",
                 "-cpu", "host" if accelerator == "kvm" else "max", "-smp", str(self.cpus), "-m", "512M",
                 "-nodefaults", "-display", "none"]
        if self.memory == "shared":
            words += ["-object", "memory-backend-memfd,id=ram,size=512M,share=on", "-M", "q35,memory-backend=ram"]
        else:
            # Without a shared file the server gets no descriptor, and reaches memory by messages alone.
            words += ["-M", "q35"]
        for number, server in enumerate(self.servers):
            # The first disk is part of the root complex, as in many machines; the others have a port of their own.
            if number == 0:
                words += server.attachment("pcie.0", "4.0")
            else:
                words += ["-device", f"pcie-root-port,id=port{number},chassis={number},addr={number + 4:x}.0"]
                words += server.attachment(f"port{number}", "0.0")
        words += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd")]
        if not self.reboots:
            words += ["-no-reboot"]
        return words + self.extra

    def command_line(self, more):
        return f"console=ttyS0 panic=-1 net.ifnames=0 {more} {self.append}".strip()

    def start(self):
        self.shell, self.monitor = Line(), Line()
        words = self.machine() + [
            "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=shell,fd={self.shell.there.fileno()}", "-serial", "chardev:shell",
            "-chardev", f"socket,id=monitor,fd={self.monitor.there.fileno()}", "-qmp", "chardev:monitor",
            "-append", self.command_line("lab.shell=ttyS1")]
        with open(self.qemu_log, "ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[self.shell.there.fileno(), self.monitor.there.fileno()])
        self.shell.there.close()
        self.monitor.there.close()
        self._monitor_message()
        self.qmp("qmp_capabilities")
        return self

    def interactive(self):
        """Hand this terminal to the guest's console; returns when the guest has ended."""
        words = self.machine() + ["-no-reboot", "-serial", "mon:stdio",
                                  "-append", self.command_line("quiet lab.shell=ttyS0 lab.interactive")]
        return subprocess.call(words)

    def end_of_console(self, lines=25):
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def fail(self, what):
        status = "" if self.process.poll() is None else f" (QEMU ended with status {self.process.returncode})"
        log = self.qemu_log.read_text(errors="replace").strip() if self.qemu_log.exists() else ""
        raise host.LabError(f"{what}{status}\n--- end of the guest's console:\n{self.end_of_console()}\n--- QEMU: {log}")

    def kill(self):
        """SIGKILL, as a crash of the VMM."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
        for line in (self.shell, self.monitor):
            if line:
                line.close()

    # Its shell

    def _wait_for(self, pattern, what, limit):
        end = time.monotonic() + limit
        looked = 0.0
        while True:
            found = re.search(pattern, self.shell.received, re.DOTALL)
            if found:
                self.shell.received = self.shell.received[found.end():]
                return found
            if not self.shell.receive(0.2):
                self.process.wait(10)
                self.fail(f"the guest went away while it was to {what}")
            if time.monotonic() - looked > 1:
                looked = time.monotonic()
                if re.search(r"Kernel panic|laboratory: ", self.end_of_console(60)):
                    self.fail(f"the guest gave up while it was to {what}")
                if looked > end:
                    self.fail(f"the guest did not {what} within {limit} s")

    def wait_ready(self, limit=host.BOOT_LIMIT):
        self._wait_for(rb"<<ready>>\r?\n", "reach its shell", limit)
        return self

    def begin(self, command):
        """Give the shell a command without waiting; the result is had from finish()."""
        self.tokens += 1
        self.shell.send(f"{self.tokens} {command}\n".encode())
        return self.tokens, command

    def finish(self, begun, limit=host.COMMAND_LIMIT, status=0):
        token, command = begun
        found = self._wait_for(rf"(.*?)<<{token} (\d+)>>\r?\n".encode(), f"finish '{command}'", limit)
        text = found[1].decode(errors="replace").replace("\r\n", "\n")
        if status is not None and int(found[2]) != status:
            self.fail(f"'{command}' ended with {int(found[2])} in the guest and said:\n{text}")
        return text

    def run(self, command, limit=host.COMMAND_LIMIT, status=0):
        return self.finish(self.begin(command), limit, status)

    def reboot(self):
        """The guest restarts itself; QEMU loads kernel and initrd again."""
        self.shell.send(b"0 sync; reboot -f\n")
        return self.wait_ready()

    def power_off(self):
        self.shell.send(b"0 sync; mount -o remount,ro /; poweroff -f\n")
        try:
            status = self.process.wait(host.COMMAND_LIMIT)
        except subprocess.TimeoutExpired:
            self.fail("the guest did not power off")
        if status != 0:
            self.fail("QEMU did not end well")
        self.kill()

    # I/O that goes on in its background

    def busy(self, path, megabytes=8, threads=8, seed=1):
        """Verified I/O on a file or a disk, under way when this returns, until calm()."""
        self.jobs += 1
        job = self.jobs
        self.run(f"iocheck run {path} {megabytes} 100000 {threads} {seed} > /run/job{job} 2>&1 & job{job}=$!")
        self.run(f"until [ -s /run/job{job} ]; do usleep 20000; done")
        return job

    def calm(self, job=None):
        """End what busy() began (the last one, if none is named); everything it wrote is compared."""
        job = job or self.jobs
        return self.run(f"kill $job{job}; wait $job{job}; status=$?; cat /run/job{job}; (exit $status)").strip()

    # QMP

    def _monitor_message(self):
        end = time.monotonic() + host.COMMAND_LIMIT
        while b"\n" not in self.monitor.received:
            if not self.monitor.receive(0.2):
                self.process.wait(10)
                self.fail("QEMU went away")
            if time.monotonic() > end:
                self.fail("QEMU's monitor does not answer")
        line, self.monitor.received = self.monitor.received.split(b"\n", 1)
        return json.loads(line)

    def qmp(self, command, **arguments):
        self.monitor.send(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            message = self._monitor_message()
            if "error" in message:
                self.fail(f"QEMU refused {command}: {message['error']}")
            if "return" in message:
                return message["return"]

    # What it says of its health

    def kernel_trouble(self):
        """Lines of the kernel's log, over all boots, that no healthy disk leaves behind."""
        return [line for line in self.console.read_text(errors="replace").splitlines() if KERNEL_TROUBLE.search(line)]

    def interrupts(self, pattern="virtio"):
        """How many interrupts the lines of /proc/interrupts that match have had, over all CPUs."""
        lines = self.run(f"grep {pattern} /proc/interrupts").splitlines()
        return sum(int(word) for line in lines for word in line.split(":")[1].split()[:self.cpus])

    def pci_address(self, disk="vda"):
        return self.run(f"basename $(readlink -f /sys/block/{disk}/device/..)").strip()
