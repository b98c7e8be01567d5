# SPDX-License-Identifier: BSD-2-Clause
"""A guest in QEMU's pseries machine: SLOF, GRUB and Linux, all three from the first served disk.

What the VMM itself sees of the guest's accesses to configuration space is kept: QEMU writes a trace of it.
"""
import re

from . import host
from .guest import Guest

TRACE = re.compile(r"vfio_pci_write_config.*\((?P<device>[^,]*), @?(?:0x)?(?P<offset>[0-9a-f]+), "
                   r"(?:0x)?(?P<value>[0-9a-f]+), (?:len=)?(?:0x)?(?P<length>[0-9a-f]+)\)")
UNANSWERED = re.compile(r"MCE: CPU.*machine check|EEH: .*(?i:frozen|error|failure|isolat)")
COMMAND, MASTER = 0x04, 4


class PseriesGuest(Guest):
    machine_name, program, architecture = "pseries", "ppc64", "ppc64el"
    console_device, shell_device = "hvc0", "hvc1"
    kernel_options = ""
    # SLOF loads GRUB; without, QEMU itself puts the kernel into memory.
    firmware = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.trace = self.console.with_suffix(".trace")

    def machine(self):
        words = [*host.qemu(self.program), "-accel", "tcg,thread=multi", "-cpu", "power9", "-smp", str(self.cpus),
                 "-m", f"{self.megabytes}M", "-nodefaults", "-display", "none",
                 "-object", f"memory-backend-memfd,id=ram,size={self.megabytes}M,share=on",
                 "-M", f"pseries,x-vof={'off' if self.firmware else 'on'},memory-backend=ram",
                 # The window of a gigabyte that it has by itself is cleared page by page first: 262,144 messages.
                 "-global", "spapr-pci-host-bridge.dma_win_size=0x4000000",
                 "-trace", f"enable=vfio_pci_write_config,file={self.trace}"]
        for number, server in enumerate(self.servers):
            # With a single vfio-user function on its host bridge QEMU 11.1 aborts: a guest here has two of them at least.
            words += server.attachment("pci.0", f"{number + 1:x}.0")
        if not self.reboots:
            words += ["-no-reboot"]
        return words + self.boot_from() + self.extra

    def boot_from(self):
        return [] if self.firmware else super().boot_from()

    def lines(self):
        return ["-chardev", f"file,id=console,path={self.console}", "-device", "spapr-vty,chardev=console,reg=0x30000000",
                "-chardev", f"socket,id=shell,fd={self.shell.there.fileno()}", "-device", "spapr-vty,chardev=shell,reg=0x30001000"]

    def describe(self):
        return super().describe() + ("" if self.firmware else " without SLOF")

    def kernel_trouble(self):
        """Without firmware nobody has put anything into the NVRAM."""
        return [line for line in super().kernel_trouble() if self.firmware or "nvram corruption" not in line]

    def machine_checks(self):
        """How often a function did not answer an access, as this machine's kernel tells it."""
        return sum(bool(UNANSWERED.search(line)) for line in self.console_text().splitlines())

    def command_writes(self, server):
        """What the guest has written to a function's command register, as QEMU has seen it, in order."""
        found = (TRACE.search(line) for line in self.trace.read_text().splitlines())
        return [int(one["value"], 16) & 0xffff for one in found
                if one and one["device"].endswith(str(server.socket)) and int(one["offset"], 16) == COMMAND]

    def master_changes(self, server):
        """Bus master going on and off, in order; it is off to begin with."""
        now, changes = False, []
        for value in self.command_writes(server):
            if bool(value & MASTER) != now:
                now = not now
                changes.append(now)
        return changes


class DirectGuest(PseriesGuest):
    """The same machine without SLOF and GRUB: QEMU puts the kernel into memory."""
    firmware = False


def command_line():
    """Of the kernel that GRUB starts: it stands on the disk."""
    return f"console={PseriesGuest.console_device} panic=-1 net.ifnames=0 lab.shell={PseriesGuest.shell_device}"
