# SPDX-License-Identifier: BSD-2-Clause
"""
A machine with Xen: QEMU with an emulated VT-d, the hypervisor and first domain of a stock Debian, all of it from memory, and in it the project's own programs of the build under test. Its shell
is the first domain's; guests are started there by an unmodified `xl`, and commands run in them over their consoles.
"""
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from . import host, server
from .guest import Guest
from .host_machine import _archive, _libraries

HERE = host.LAB / "xen"
NVME, E1000E = "0000:00:05.0", "0000:00:06.0"
# Two functions behind a root port, of which the second reports errors of the bus, as the port does (the first has no such bits): where they are asked for.
BEHIND_PORT = ["-device", "pcie-root-port,id=port0,bus=pcie.0,addr=8,chassis=1,slot=1", "-netdev", "user,id=n1,net=192.0.2.0/24,restrict=on",
               "-device", "e1000e,id=card0,bus=port0,addr=0.0,multifunction=on,netdev=n1,romfile=", "-device", "virtio-rng-pci,id=rng0,bus=port0,addr=0.1,aer=on,iommu_platform=on,disable-legacy=on"]
# SMAP, and the state of AVX across switches of PV guests, are not emulated right.
CPU = "max,-smap,-xsave,-avx,-avx2,-fma,-f16c"
# Where the programs of the build under test and their libraries are: the domain's own C library may be another one.
PRIVATE = "opt/pintle"
LINKER = "ld-linux-x86-64.so.2"
# What a kernel need not do at the speed of an emulated machine; dom0-lib has the like for guests.
QUICK = "mitigations=off rodata=off cryptomgr.notests ipv6.disable=1 lsm=capability " + " ".join(
    f"initcall_blacklist={name}" for name in ("jent_mod_init", "crypto_kdf108_init", "init_encrypted", "load_system_certificate_list", "init_ima", "init_evm"))
# For LD_PRELOAD, where it is among the files.
TOOLSTACK = "lab/toolstack.so"


@functools.cache
def machine_folder(suite):
    return pathlib.Path(host.fetch("xen/get-xen", suite))


def hostile(folder):
    """Programs and files of a machine that plays a careless toolstack. They need Xen's headers."""
    pirq, toolstack = pathlib.Path(folder) / "pirq", pathlib.Path(folder) / "toolstack.so"
    for target, words in ((pirq, ["-lxencall"]), (toolstack, ["-shared", "-fPIC"])):
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", target, HERE / f"{target.stem}.c", *words], check=True)
    return {"programs": [pirq], "files": [(toolstack, TOOLSTACK)]}


def page_of(number):
    """What page of 4096 bytes stands at a place of the NVMe disk."""
    return number.to_bytes(8, "little") * 512


class XenMachine(Guest):
    machine_name = "xen"
    DISK_MEGABYTES = 64

    def __init__(self, folder, suite="bookworm", *, megabytes=1536, dom0_megabytes=640, programs=(), files=(), more_devices=(), **options):
        super().__init__(folder, [], suite, megabytes=megabytes, memory="", cpus=1, viommu=True, reboots=False, **options)
        self.programs, self.files, self.more_devices = [server.build_folder() / "pintle", *programs], list(files), list(more_devices)
        self.dom0_megabytes = dom0_megabytes
        self.nvme_image = self.folder / "nvme.img"
        self.version = (machine_folder(suite) / "version").read_text().strip()

    @functools.cache
    def disk_sum(self, megabytes=4):
        """Of the part of the disk that nobody writes to, as `disk_sum` in a guest tells it."""
        sum_of = hashlib.md5()
        for number in range(4 * 256, (4 + megabytes) * 256):
            sum_of.update(page_of(number))
        return sum_of.hexdigest()

    def domain_archive(self):
        """The first domain's root, that the overlay goes over."""
        return machine_folder(self.suite) / "dom0.initrd"

    def _overlay(self, root):
        """What belongs to this tree and this build, over what get-xen has made."""
        lab, private = root / "lab", root / PRIVATE
        for folder in (lab, root / "bin", private / "lib"):
            folder.mkdir(parents=True)
        shutil.copy(HERE / "dom0-init", root / "init")
        shutil.copy(HERE / "dom0-lib", lab / "lib")
        shutil.copy(HERE / "config-lib", lab / "config")
        with tempfile.TemporaryDirectory() as work:
            guest = pathlib.Path(work)
            (guest / "lab").mkdir()
            shutil.copy(HERE / "guest-init", guest / "init")
            shutil.copy(HERE / "guest-lib", guest / "lab/lib")
            shutil.copy(HERE / "config-lib", guest / "lab/config")
            (guest / "init").chmod(0o755)
            self._join(lab / "initrd", machine_folder(self.suite) / "guest.initrd", guest)
        (root / "init").chmod(0o755)
        for program in self.programs:
            program = pathlib.Path(program)
            if not program.exists():
                raise host.LabError(f"{program} is not there: build it first (make)")
            subprocess.run(["strip", "-g", "-o", private / program.name, program], check=True)
            for library in _libraries(program):
                if not (private / "lib" / library.name).exists():
                    shutil.copy(library, private / "lib")
            start = root / "bin" / program.name
            start.write_text(f'#!/bin/sh\nexec /{PRIVATE}/lib/{LINKER} --library-path /{PRIVATE}/lib /{PRIVATE}/{program.name} "$@"\n')
            start.chmod(0o755)
        for path, place in self.files:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / place)

    @staticmethod
    def _join(target, archive, folder):
        """The archive, and the folder as a second one behind it."""
        with tempfile.NamedTemporaryFile() as more:
            _archive(folder, more.name)
            with open(target, "wb") as out:
                for part in (archive, pathlib.Path(more.name)):
                    out.write(part.read_bytes())
                    # Archives one after the other begin at multiples of four.
                    out.write(b"\0" * (-out.tell() % 512))

    def machine(self):
        if not self.nvme_image.exists():
            with open(self.nvme_image, "wb") as image:
                image.write(b"".join(page_of(number) for number in range(self.DISK_MEGABYTES * 256)))
        folder = machine_folder(self.suite)
        initrd = self.folder / "dom0.initrd"
        with tempfile.TemporaryDirectory() as work:
            self._overlay(pathlib.Path(work))
            self._join(initrd, self.domain_archive(), pathlib.Path(work))
        linux = f"console=hvc0 rdinit=/init loglevel=5 {QUICK} {self.append}".strip()
        # Linux 6.1 does not come to terms with a doorbell buffer (dbcs) after it has had to reset the controller.
        # One processor: with more, `xl create` now and then hangs under emulation.
        return [*host.qemu(), "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "1", "-m", f"{self.megabytes}M",
                "-nodefaults", "-display", "none", "-no-reboot", "-M", "q35,kernel-irqchip=split",
                "-device", "intel-iommu,intremap=on",
                "-drive", f"if=none,id=nd,file={self.nvme_image},format=raw,snapshot=on,file.locking=off",
                "-device", "nvme,id=nvme0,drive=nd,serial=lab0,dbcs=off,addr=5",
                "-netdev", "user,id=n0,net=192.0.2.0/24,restrict=on", "-device", "e1000e,id=net0,netdev=n0,romfile=,addr=6", *self.more_devices,
                "-kernel", str(folder / "xen"), "-initrd", f"{folder / 'vmlinux'} {linux},{initrd}", *self.extra]

    def lines(self):
        return ["-serial", f"file:{self.console}", "-chardev", f"socket,id=shell,fd={self.shell.there.fileno()}",
                "-device", "virtio-serial-pci,addr=7", "-device", "virtserialport,chardev=shell"]

    def kernel_words(self):
        """The hypervisor's."""
        size = f"{self.dom0_megabytes}M"
        return f"console=com1 com1=115200,8n1 dom0_mem={size},max:{size} dom0_max_vcpus=1 spec-ctrl=no loglvl=all guest_loglvl=all noreboot"

    # Guests

    def create(self, name, *lines, pci=(), wait=True, status=0):
        """`xl create` of a guest, with lines of configuration and the devices passed to it."""
        if pci:
            lines = (*lines, "pci=[" + ",".join(f'"{device}"' for device in pci) + "]")
        said = self.run(f"guest_create {name} " + " ".join(f"'{line}'" for line in lines), status=status)
        if wait:
            self.guest_ready(name)
        return said

    def guest_ready(self, name):
        self.run(f"guest_ready {name} {host.BOOT_LIMIT} || {{ tail -n 30 /var/log/xen/guest-{name}.log; false; }}")

    def on(self, name, command, seconds=host.COMMAND_LIMIT, status=0):
        """A command inside a guest."""
        quoted = command.replace("'", "'\\''")
        return self.run(f"seconds={seconds}; on {name} '{quoted}'", status=status)

    def guest_log(self, name):
        return self.run(f"cat /var/log/xen/guest-{name}.log")

    def destroy(self, name):
        self.run(f"guest_destroy {name}")

    def hypervisor_log(self):
        return self.run("xl dmesg")


def main():
    """python3 -m kit.xen_machine SUITE: lines from standard input to the first domain's shell, their words and status back."""
    import sys
    import time
    with tempfile.TemporaryDirectory() as work:
        begin = time.monotonic()
        machine = XenMachine(os.environ.get("XEN_FOLDER", work), sys.argv[1]).start().wait_ready()
        print(f"# ready after {time.monotonic() - begin:.1f} s", flush=True)
        try:
            for line in sys.stdin:
                if not line.strip():
                    continue
                begin = time.monotonic()
                machine.tokens += 1
                machine.shell.send(f"{machine.tokens} {line.strip()}\n".encode())
                found = machine._wait_for(rf"(.*?)<<{machine.tokens} (\d+)>>\r?\n".encode(), line, host.COMMAND_LIMIT)
                print(f"# {line.strip()}\n{found[1].decode(errors='replace')}# status {int(found[2])} after {time.monotonic() - begin:.1f} s", flush=True)
        finally:
            machine.kill()


if __name__ == "__main__":
    main()
