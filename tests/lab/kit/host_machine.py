# SPDX-License-Identifier: BSD-2-Clause
"""
A machine that plays the host of physical devices: QEMU with an IOMMU and devices behind root ports, a stock Debian kernel, and in it, from memory, the project's own programs of the build
under test.
"""
import contextlib
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from . import host, server
from .guest import Guest

HERE = host.LAB / "host"
NVME, E1000E, IGB, BLK, EDU = (f"0000:0{bus}:00.0" for bus in range(1, 6))
SOCKET, CONTROL = "/run/h0.sock", "/run/h0.control"
# The root port above each.
PORT = {NVME: "0000:00:02.0", E1000E: "0000:00:03.0", IGB: "0000:00:04.0", BLK: "0000:00:05.0", EDU: "0000:00:06.0"}


def network_file():
    """What comes over the network devices' networks."""
    return b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256)) * 8


@functools.cache
def machine_folder(suite):
    return pathlib.Path(host.fetch("host/get-host", suite))


def _libraries(program):
    """What the dynamic linker would load, the linker itself included."""
    text = host.run("ldd", program)
    return [pathlib.Path(found[1]) for found in re.finditer(r"(?:=> )?(/\S+) \(0x", text)]


def _archive(folder, target):
    """The folder as an archive that the kernel unpacks over the one before it."""
    with open(target, "wb") as out:
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=folder, input="\n".join(names).encode(), stdout=out, check=True)


class HostMachine(Guest):
    machine_name = "host"

    def __init__(self, folder, suite="trixie", *, megabytes=1024, cpus=2, programs=(), files=(), more_devices=(), **options):
        super().__init__(folder, [], suite, megabytes=megabytes, memory="", cpus=cpus, viommu=True, reboots=False, **options)
        self.programs = [server.build_folder() / "pintle", *programs]
        self.files, self.more_devices = list(files), list(more_devices)
        self.nvme_image, self.blk_image, self.tftp = self.folder / "nvme.img", self.folder / "blk.img", self.folder / "tftp"

    def _initrd(self):
        """The suite's own, and behind it the programs with their libraries."""
        folder = machine_folder(self.suite)
        target = self.folder / "host.initrd"
        with tempfile.TemporaryDirectory() as work:
            root = pathlib.Path(work)
            (root / "bin").mkdir()
            (root / "lab").mkdir()
            shutil.copy(HERE / "lib.sh", root / "lab/setup")
            (root / "lab/setup").chmod(0o755)
            for program in self.programs:
                shutil.copy(program, root / "bin")
                for library in _libraries(program):
                    place = root / str(library).lstrip("/")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    if not place.exists():
                        shutil.copy(library, place)
            for path, place in self.files:
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / place)
            _archive(root, work + ".cpio")
        with open(target, "wb") as out:
            for part in (folder / "initrd", pathlib.Path(work + ".cpio")):
                out.write(part.read_bytes())
                # Archives one after the other begin at multiples of four.
                out.write(b"\0" * (-out.tell() % 512))
        os.unlink(work + ".cpio")
        return target

    def prepare(self):
        """After its start: the drivers, its own and VFIO."""
        self.wait_ready()
        self.run("modprobe nvme; modprobe e1000e; modprobe vfio-pci; modprobe vfio_iommu_type1; sleep 1")
        return self

    @contextlib.contextmanager
    def served(self, address=NVME, options="", program="pintle", status=0):
        """A server of one device, h0, at SOCKET and CONTROL; gives its log, and is ended in order."""
        self.run(f"pintle bind {address}; rm -f {SOCKET} {CONTROL} /run/h0.log")
        self.run(f"{program} serve --device host,address={address},id=h0{options} --road vfio-user,path={SOCKET} --control path={CONTROL}"
                 " > /run/h0.log 2>&1 & echo $! > /run/h0.pid")
        self.run(f"n=0; until [ -S {SOCKET} ] || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done; test -S {SOCKET} || cat /run/h0.log; test -S {SOCKET}")
        try:
            yield lambda: self.run("cat /run/h0.log")
        finally:
            self.run("kill $(cat /run/h0.pid) 2> /dev/null; wait $(cat /run/h0.pid); status=$?; "
                     f"[ $status = {status} ] || {{ echo ended with $status; cat /run/h0.log; }}; [ $status = {status} ]")

    def machine(self):
        if not self.nvme_image.exists():
            with open(self.nvme_image, "wb") as image:
                # Byte i of each page is i mod 251, so that what is read is known.
                image.write(bytes(i % 251 for i in range(4096)) * 4096)
            with open(self.blk_image, "wb") as image:
                image.truncate(16 << 20)
            self.tftp.mkdir()
            (self.tftp / "file").write_bytes(network_file())
        words = [*host.qemu(), "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(self.cpus), "-m", f"{self.megabytes}M",
                 "-nodefaults", "-display", "none", "-no-reboot", "-M", "q35,kernel-irqchip=split",
                 "-device", "intel-iommu,intremap=on,caching-mode=on",
                 # Or the root ports show no link, and the kernel's own bus reset does not work.
                 "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        for number in range(6):
            words += ["-device", f"pcie-root-port,id=rp{number + 1},bus=pcie.0,addr={number + 2},chassis={number + 1},slot={number + 1}"]
        words += ["-drive", f"if=none,id=nd,file={self.nvme_image},format=raw,file.locking=off",
                  "-device", "nvme,id=nvme0,drive=nd,serial=lab0,bus=rp1",
                  # A network of two, each: the device, and QEMU itself at 192.0.2.2, which gives a file out by TFTP.
                  "-netdev", f"user,id=n0,net=192.0.2.0/24,restrict=on,tftp={self.tftp}", "-device", "e1000e,netdev=n0,bus=rp2",
                  "-netdev", f"user,id=n1,net=192.0.2.0/24,restrict=on,tftp={self.tftp}", "-device", "igb,netdev=n1,bus=rp3",
                  "-drive", f"if=none,id=vd,file={self.blk_image},format=raw,file.locking=off",
                  "-device", "virtio-blk-pci,drive=vd,bus=rp4,iommu_platform=on,disable-legacy=on",
                  "-device", "edu,bus=rp5", *self.more_devices]
        folder = machine_folder(self.suite)
        return words + ["-kernel", str(folder / "vmlinuz"), "-initrd", str(self._initrd())] + self.extra

    def command_line(self, more):
        return f"console={self.console_device} panic=-1 net.ifnames=0 {self.kernel_options} {more} intel_iommu=on {self.append}".strip()
