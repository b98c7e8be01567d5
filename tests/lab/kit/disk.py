# SPDX-License-Identifier: BSD-2-Clause
"""Disk images: an ext4 root file system of known contents for a guest, made without root; data disks."""
import fcntl
import hashlib
import os
import pathlib
import random
import shutil
import tempfile

from . import host

TOOLS = host.LAB / "guest"
ROOT_MEGABYTES = 256
# Programs of a guest, and what compiles them (Debian: gcc-ARCHITECTURE-linux-gnu with libc6-dev-ARCHITECTURE-cross).
PROGRAMS = ("iocheck", "busmaster", "pciset", "kexec")
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "ppc64el": "powerpc64le-linux-gnu-gcc", "s390x": "s390x-linux-gnu-gcc"}


def _known_contents(folder):
    """Files of several sizes whose bytes follow from their names, and their sums."""
    sums = []
    folder.mkdir()
    sizes = [0, 1, 511, 4095, 4097, 65536, 1 << 20, 3_000_001, 12 << 20]
    for number, size in enumerate(sizes + [1000 * n for n in range(40)]):
        name = f"file-{number:02}"
        data = random.Random(name).randbytes(size)
        (folder / name).write_bytes(data)
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    (folder / "SHA256SUMS").write_text("".join(sums))


def _tree(root, suite, architecture):
    guest = host.guest_folder(suite, architecture)
    for name in ("bin", "dev", "proc", "sys", "run", "root", "sbin", "etc", "tmp", "data"):
        (root / name).mkdir()
    shutil.copy(guest / "busybox", root / "bin/busybox")
    # Another architecture's busybox cannot be asked here; the same version of this one's can.
    for applet in host.run(host.guest_folder(suite) / "busybox", "--list").split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    for tool in PROGRAMS:
        host.run(COMPILERS[architecture], "-static", "-O2", "-pthread", "-o", root / "bin" / tool, TOOLS / f"{tool}.c")
    (root / "sbin/modprobe").symlink_to("../bin/busybox")
    shutil.copy(TOOLS / "system-init", root / "sbin/init")
    (root / "sbin/init").chmod(0o755)
    (root / "etc/motd").write_text("This is a guest of Pintle's laboratory. Its disk is served by pintle. "
                                   "End it with 'exit' or Control-D.\n")
    shutil.copytree(guest / "modules/lib", root / "lib")
    # For a guest that starts a kernel from its own disk.
    (root / "boot").mkdir()
    for file in ("vmlinuz", "initrd"):
        shutil.copy(guest / file, root / "boot" / file)
    _known_contents(root / "known")


def _recipe():
    text = b"".join(path.read_bytes() for path in sorted(TOOLS.iterdir())) + pathlib.Path(__file__).read_bytes()
    return hashlib.sha256(text).hexdigest()[:8]


def root_image(suite, architecture="amd64"):
    """The pristine root disk of a guest, kept in the cache; never served itself."""
    guest = host.guest_folder(suite, architecture)
    image = host.CACHE / f"{guest.name}-root-{_recipe()}.img"
    with open(host.CACHE / f"{guest.name}-root.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if image.exists():
            return image
        for old in host.CACHE.glob(f"{guest.name}-root-*.img"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=host.CACHE) as folder:
            root, partial = pathlib.Path(folder) / "root", pathlib.Path(folder) / "image"
            root.mkdir()
            _tree(root, suite, architecture)
            os.truncate(os.open(partial, os.O_CREAT | os.O_WRONLY), ROOT_MEGABYTES << 20)
            host.run("mkfs.ext4", "-q", "-F", "-L", "pintle", "-E", "root_owner=0:0", "-d", root, partial)
            partial.rename(image)
    return image


def root_copy(path, suite, architecture="amd64"):
    """A root disk of a guest's own at path."""
    host.run("cp", "--sparse=always", root_image(suite, architecture), path)
    return path


def data_disk(path, megabytes):
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    return path


def check(path):
    """e2fsck of an image that nobody serves any more: replays the journal, then everything must be clean."""
    host.run("e2fsck", "-p", path)
    return host.run("e2fsck", "-f", "-n", path)
