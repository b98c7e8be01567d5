# SPDX-License-Identifier: BSD-2-Clause
"""A real guest: QEMU with a stock Debian kernel whose root file system is on a served disk, its shell, its console, QMP."""
import contextlib
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


LINUX = {"bookworm": "6.1", "trixie": "6.12"}


class Line:
    """One end of a socket pair whose other end QEMU holds."""

    def __init__(self):
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.received = b""

    def send(self, data):
        self.here.setblocking(True)
        # Whoever waits for an answer notices that the other side is gone.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
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
    """Boots on start(); run() gives a command to its shell. The machine here is a PC; other machines derive from it."""

    machine_name, program, architecture = "x86-64", "x86_64", "amd64"
    console_device, shell_device = "ttyS0", "ttyS1"
    # At its start Linux counts the timer's interrupts in a stretch of time, and panics ("timer doesn't work") where an emulated machine had no processor just then.
    kernel_options = "no_timer_check"

    def __init__(self, folder, servers, suite="bookworm", *, name="guest", append="", memory="shared", cpus=2, extra=(),
                 reboots=True, viommu=False, spare_ports=0, megabytes=512, more_memory="", acpi_hotplug=False):
        self.folder = pathlib.Path(folder)
        self.servers = list(servers)
        self.suite, self.append, self.memory, self.cpus = suite, append, memory, cpus
        self.extra, self.reboots, self.viommu, self.spare_ports = list(extra), reboots, viommu, spare_ports
        self.megabytes, self.more_memory, self.acpi_hotplug = megabytes, more_memory, acpi_hotplug
        self.console = self.folder / f"{name}.console.log"
        self.qemu_log = self.folder / f"{name}.qemu.log"
        self.process = self.shell = self.monitor = None
        self.tokens = self.jobs = 0
        # Stretches of the console's log in which trouble was asked for, and whether one is open.
        self.forgiven, self.forgiving = [], None
        # What QMP has told unasked.
        self.events = []

    # The machine

    def machine(self):
        """QEMU's arguments that make the machine, its disks included, without its lines to the outside."""
        accelerator = host.accelerator()
        kvm = accelerator == "kvm"
        words = [*host.qemu(self.program), "-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "host" if kvm else "max",
                 "-smp", str(self.cpus), "-m", f"{self.megabytes}M{self.more_memory}", "-nodefaults", "-display", "none"]
        machine = "q35"
        if self.viommu:
            machine += ",kernel-irqchip=split"
        if self.memory == "shared":
            words += ["-object", f"memory-backend-memfd,id=ram,size={self.megabytes}M,share=on"]
            machine += ",memory-backend=ram"
        # Otherwise, without a shared file, the server gets no descriptor, and reaches memory by messages alone.
        words += ["-M", machine]
        if not self.acpi_hotplug:
            # Hot-plug by the root port itself, as real machines do it; a button by ACPI is the PC's default.
            words += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        if self.viommu:
            words += ["-device", "intel-iommu,intremap=on,caching-mode=on"]
        for number, server in enumerate(self.servers):
            # The first disk is part of the root complex, as in many machines; the others have a port of their own.
            if number == 0:
                words += server.attachment("pcie.0", "4.0")
            else:
                words += ["-device", f"pcie-root-port,id=port{number},chassis={number},addr={number + 4:x}.0"]
                words += server.attachment(f"port{number}", "0.0")
        for number in range(self.spare_ports):
            words += ["-device", f"pcie-root-port,id=spare{number},chassis={number + 20},addr={number + 16:x}.0"]
        if not self.reboots:
            words += ["-no-reboot"]
        return words + self.boot_from() + self.extra

    def boot_from(self):
        """The kernel that QEMU itself puts into memory."""
        folder = host.guest_folder(self.suite, self.architecture)
        return ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd")]

    def command_line(self, more):
        iommu = "intel_iommu=on iommu.strict=1" if self.viommu else ""
        return f"console={self.console_device} panic=-1 net.ifnames=0 {self.kernel_options} {more} {iommu} {self.append}".strip()

    def kernel_words(self):
        """The command line of a guest that programs talk to."""
        return self.command_line(f"lab.shell={self.shell_device}")

    def lines(self):
        """Its console, into a file, and its shell."""
        return ["-serial", f"file:{self.console}",
                "-chardev", f"socket,id=shell,fd={self.shell.there.fileno()}", "-serial", "chardev:shell"]

    def start(self):
        self.shell, self.monitor = Line(), Line()
        words = self.machine() + self.lines() + [
            "-chardev", f"socket,id=monitor,fd={self.monitor.there.fileno()}", "-qmp", "chardev:monitor"]
        if "-kernel" in words:
            words += ["-append", self.kernel_words()]
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
                                  "-append", self.command_line(f"quiet lab.shell={self.console_device} lab.interactive")]
        return subprocess.call(words)

    def console_text(self):
        """What the guests' kernels have said, without the stretches in which trouble was asked for."""
        data = self.console.read_bytes() if self.console.exists() else b""
        for begin, end in reversed(self.forgiven):
            data = data[:begin] + data[end:]
        return (data if self.forgiving is None else data[:self.forgiving]).decode(errors="replace")

    @contextlib.contextmanager
    def trouble_expected(self):
        """What the kernel says in here is not held against it: somebody asks for trouble."""
        self.forgiving = self.console.stat().st_size
        yield
        # What was said last may come a moment later; a mark of our own ends it.
        self.run("echo '<0>end of expected trouble' > /dev/kmsg")
        end = time.monotonic() + host.COMMAND_LIMIT
        while b"end of expected trouble" not in (data := self.console.read_bytes())[self.forgiving:]:
            if time.monotonic() > end:
                self.fail("the guest's console stands still")
            time.sleep(0.02)
        self.forgiven.append((self.forgiving, len(data)))
        self.forgiving = None

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
                if self.forgiving is None and re.search(r"Kernel panic|laboratory: ", self.console_text()[-8000:]):
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
        return self.start_over("sync; reboot -f")

    def start_over(self, command):
        """A command after which the guest starts anew."""
        self.shell.send(f"0 {command}\n".encode())
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
            if "event" in message:
                self.events.append(message)

    def qmp_event(self, name, limit=host.COMMAND_LIMIT):
        """Wait for an event that QEMU tells of, now or before."""
        end = time.monotonic() + limit
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event.get("data")
            if time.monotonic() > end:
                self.fail(f"QEMU did not tell of {name}")
            # An answer tells that all events before it are here.
            self.qmp("query-status")
            time.sleep(0.05)

    # What it says of its health

    def describe(self):
        """Its name in the lifecycle matrix."""
        words = [self.machine_name, LINUX.get(self.suite, self.suite)]
        words += ["intel-iommu"] if self.viommu else []
        words += ["no shared memory"] if self.memory != "shared" else []
        words += ["INTx"] if "pci=nomsi" in self.append else []
        return " ".join(words)

    def kernel_trouble(self):
        """Lines of the kernel's log, over all boots, that no healthy disk leaves behind."""
        return [line for line in self.console_text().splitlines() if KERNEL_TROUBLE.search(line)]

    def interrupts(self, pattern="virtio"):
        """How many interrupts the lines of /proc/interrupts that match have had, over all CPUs."""
        lines = self.run(f"grep {pattern} /proc/interrupts").splitlines()
        return sum(int(word) for line in lines for word in line.split(":")[1].split()[:self.cpus])

    def pci_address(self, disk="vda"):
        return self.run(f"basename $(readlink -f /sys/block/{disk}/device/..)").strip()
