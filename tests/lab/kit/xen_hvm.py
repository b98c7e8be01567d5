# SPDX-License-Identifier: BSD-2-Clause
"""The machine with Xen, and in its first domain a device model: guests that are whole machines (HVM), with the kernel and files of the others, started by GRUB from a disk of their own."""
import functools
import gzip
import pathlib
import shutil
import tempfile

from . import host, xen_machine

SECTOR = 512
# Where the kernel begins on a guest's disk, in sectors; before it is GRUB.
KERNEL_AT = 2048
GRUB_MODULES = ("biosdisk", "linux", "boot")
COMMAND_LINE = f"console=hvc0 loglevel=5 panic=-1 net.ifnames=0 xen_emul_unplug=never edd=off {xen_machine.QUICK}"


@functools.cache
def model_folder(suite):
    return pathlib.Path(host.fetch("xen/get-xen-hvm", suite))


def make_disk(path, modules, kernel, initrd):
    """A disk with GRUB, a kernel and its first files, which GRUB finds by their sectors."""
    kernel_sectors, initrd_sectors = (-(-len(part) // SECTOR) for part in (kernel, initrd))
    with tempfile.TemporaryDirectory() as work:
        words, core = pathlib.Path(work) / "words", pathlib.Path(work) / "core"
        words.write_text(f"linux (hd0){KERNEL_AT}+{kernel_sectors} {COMMAND_LINE}\ninitrd (hd0){KERNEL_AT + kernel_sectors}+{initrd_sectors}\nboot\n")
        host.run("grub-mkimage", "-O", "i386-pc", "-d", modules, "-p", "(hd0)", "-c", words, "-o", core, *GRUB_MODULES)
        with open(path, "wb") as disk:
            disk.write((modules / "boot.img").read_bytes() + core.read_bytes())
            assert disk.tell() <= KERNEL_AT * SECTOR
            disk.seek(KERNEL_AT * SECTOR)
            disk.write(kernel)
            disk.seek((KERNEL_AT + kernel_sectors) * SECTOR)
            disk.write(initrd)
            disk.truncate((KERNEL_AT + kernel_sectors + initrd_sectors + 1) * SECTOR)


class XenHvmMachine(xen_machine.XenMachine):
    machine_name = "xen-hvm"
    CPU = xen_machine.CPU + ",-rdtscp"

    def _overlay(self, root):
        super()._overlay(root)
        shutil.copy(xen_machine.HERE / "hvm-lib", root / "lab/hvm")
        shutil.copytree(model_folder(self.suite) / "root", root, dirs_exist_ok=True)
        kernel = (xen_machine.machine_folder(self.suite) / "vmlinuz").read_bytes()
        make_disk(root / "lab/guest.disk", model_folder(self.suite) / "grub", kernel, gzip.compress((root / "lab/initrd").read_bytes(), 6))

    def machine(self):
        words = super().machine()
        words[words.index("-cpu") + 1] = self.CPU
        return words

    def create_hvm(self, name, *lines, pci=(), wait=True):
        if pci:
            lines = (*lines, "pci=[" + ",".join(f'"{device}"' for device in pci) + "]")
        self.run(f". /lab/hvm; hvm_create {name} " + " ".join(f"'{line}'" for line in lines))
        if wait:
            self.guest_ready(name)


if __name__ == "__main__":
    xen_machine.XenMachine = XenHvmMachine
    xen_machine.main()
