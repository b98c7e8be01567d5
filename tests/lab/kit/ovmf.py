# SPDX-License-Identifier: BSD-2-Clause
"""A PC with UEFI firmware: firmware finds the loader on a served disk, the loader the kernel, the kernel its root disk."""
import functools
import pathlib
import shutil
import tempfile

from . import disk, host
from .guest import Guest


@functools.cache
def firmware():
    return pathlib.Path(host.fetch("get-ovmf"))


def boot_disk(path, suite, command_line):
    """A FAT file system as an EFI system partition has it, without a partition table: loader, kernel, initrd."""
    guest = host.guest_folder(suite)
    disk.data_disk(path, 64)
    host.run("mformat", "-i", path, "-F", "::")
    for folder in ("EFI", "EFI/BOOT", "EFI/debian"):
        host.run("mmd", "-i", path, f"::{folder}")
    with tempfile.NamedTemporaryFile("w") as menu:
        menu.write("set timeout=0\nterminal_output console\nmenuentry guest {\n"
                   f"linux /vmlinuz {command_line}\ninitrd /initrd\n}}\n")
        menu.flush()
        for source, target in ((firmware() / "grubx64.efi", "EFI/BOOT/BOOTX64.EFI"), (menu.name, "EFI/debian/grub.cfg"),
                               (guest / "vmlinuz", "vmlinuz"), (guest / "initrd", "initrd")):
            host.run("mcopy", "-i", path, source, f"::{target}")
    return path


class OvmfGuest(Guest):
    machine_name = "x86-64 UEFI"

    def boot_from(self):
        variables = self.folder / "vars.fd"
        if not variables.exists():
            shutil.copy(firmware() / "vars.fd", variables)
        return ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={firmware() / 'code.fd'}",
                "-drive", f"if=pflash,format=raw,unit=1,file={variables}"]
