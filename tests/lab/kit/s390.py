# SPDX-License-Identifier: BSD-2-Clause
"""A guest in QEMU's s390x machine, whose disks are PCI functions that QEMU's own zPCI presents."""
from . import host
from .guest import Guest


class S390Guest(Guest):
    machine_name, program, architecture = "s390x", "s390x", "s390x"
    # The line-mode console for the kernel's words, the VT220 one for the shell.
    console_device, shell_device = "ttyS0", "ttysclp0"
    kernel_options = ""

    def machine(self):
        words = [*host.qemu(self.program), "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(self.cpus),
                 "-m", f"{self.megabytes}M", "-nodefaults", "-display", "none",
                 "-object", f"memory-backend-memfd,id=ram,size={self.megabytes}M,share=on",
                 "-M", "s390-ccw-virtio,memory-backend=ram"]
        for server in self.servers:
            words += server.attachment(None, None)
        return words + self.boot_from() + self.extra

    def lines(self):
        return ["-chardev", f"file,id=console,path={self.console}", "-device", "sclplmconsole,chardev=console",
                "-chardev", f"socket,id=shell,fd={self.shell.there.fileno()}", "-device", "sclpconsole,chardev=shell"]
