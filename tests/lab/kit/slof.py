# SPDX-License-Identifier: BSD-2-Clause
"""A disk that SLOF, the firmware of pseries machines, boots: GRUB in a PReP partition, kernel and root file system beside it.

The file system fills the disk from its first block on, as in every guest of the laboratory; its first kilobyte, which
ext4 leaves free, holds the partition table, and the partition for the loader stands behind the file system's end.
"""
import functools
import os
import pathlib
import struct
import tempfile

from . import disk, host
from .pseries import command_line

SECTOR = 512
LOADER_MEGABYTES = 8
PREP = 0x41
MODULES = "part_msdos ext2 normal linux echo".split()


@functools.cache
def modules():
    return pathlib.Path(host.fetch("get-grub-ppc"))


def _loader(words):
    """GRUB with its commands inside: it looks for nothing but the kernel, on the disk that it was loaded from."""
    with tempfile.TemporaryDirectory() as folder:
        config, program = pathlib.Path(folder) / "config", pathlib.Path(folder) / "grub"
        config.write_text("echo GRUB: loaded by SLOF\n"
                          f"linux /boot/vmlinuz {words}\ninitrd /boot/initrd\necho GRUB: starting Linux\nboot\n")
        host.run("grub-mkimage", "-O", "powerpc-ieee1275", "-d", modules(), "-c", config, "-p", "()/boot/grub",
                 "-o", program, *MODULES)
        return program.read_bytes()


def boot_disk(path, suite):
    disk.root_copy(path, suite, "ppc64el")
    first, count = os.path.getsize(path) // SECTOR, (LOADER_MEGABYTES << 20) // SECTOR
    loader = _loader(command_line())
    assert len(loader) <= count * SECTOR
    with open(path, "r+b") as image:
        image.truncate((first + count) * SECTOR)
        image.seek(446)
        # The addresses by cylinders are those of a disk too large for them.
        image.write(struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", PREP, b"\xfe\xff\xff", first, count) + bytes(48) + b"\x55\xaa")
        image.seek(first * SECTOR)
        image.write(loader)
    return path


# SLOF's programs stand in its image as text; this one says that a function may be bus master.
SETS_MASTER = b": pci-master-enable ( -- ) my-space 4 + dup rtas-config-l@ 4 or swap rtas-config-l! ;"


def firmware_without_master(path):
    """QEMU's SLOF with one digit changed: it never sets a function's bus master bit, as old firmware of several machines."""
    program = pathlib.Path(host.qemu("ppc64")[0])
    places = [program.parent / "root/usr/share/qemu", pathlib.Path("/usr/share/qemu"), pathlib.Path("/usr/share/slof")]
    image = next(place / "slof.bin" for place in places if (place / "slof.bin").exists()).read_bytes()
    if image.count(SETS_MASTER) != 1:
        raise host.LabError("this SLOF does not have the word that sets bus master as it is known here")
    path.write_bytes(image.replace(SETS_MASTER, SETS_MASTER.replace(b"@ 4 or", b"@ 0 or")))
    return path
