# SPDX-License-Identifier: BSD-2-Clause
"""Pieces of tests on guests of the s390x machine: booting, finding devices, I/O, and the machine's own reset."""
import pytest

from . import cells, disk, host
from .guest import LINUX
from .s390_machine import S390Machine

# So much of a disk is worked on: a processor that is translated is no fast one.
MEGABYTES = 2
CCW_ROOT, CCW_EXTRAS = "0.0.0001", "0.0.000e"
both = pytest.mark.parametrize("suite", LINUX)


def boot(lab, suite, devices, **options):
    return lab.guest(suite, devices, S390Machine, **options)


def see_all(guest):
    """Channel devices are found side by side, in any order; so at first the guest is to see its root disk alone, which is then vda."""
    guest.run("echo free all > /proc/cio_ignore")


ROOT_FIRST = f"cio_ignore=all,!{CCW_ROOT}"


def root_image(lab, suite):
    image = disk.root_copy(lab.folder / "root.img", suite, "s390x")
    lab.roots.append(image)
    return image


def data_image(lab, name, megabytes=16):
    return disk.data_disk(lab.folder / f"{name}.img", megabytes)


def until(guest, condition):
    """Wait for something in the guest."""
    guest.run(f"until {condition}; do usleep 20000; done")


def ccw_disk(guest, bus_id):
    """The name of the disk behind a channel device, once there is one."""
    until(guest, f"[ -e /sys/bus/ccw/devices/{bus_id}/virtio*/block/* ]")
    return guest.run(f"basename /sys/bus/ccw/devices/{bus_id}/virtio*/block/*").strip()


def pci_folder(fid):
    # Without a user-defined id of its own a function's domain is its function id.
    return f"/sys/bus/pci/devices/{fid:04x}:00:00.0"


def slot(fid):
    return f"/sys/bus/pci/slots/{fid:08x}/power"


def pci_disk(guest, fid):
    until(guest, f"[ -e {pci_folder(fid)}/virtio*/block/* ]")
    return guest.run(f"basename {pci_folder(fid)}/virtio*/block/*").strip()


def known_contents(guest):
    """The files that were on the disk before anybody served it."""
    answers = guest.run("cd /known && sha256sum -c SHA256SUMS").splitlines()
    assert len(answers) == 49 and all(line.endswith(": OK") for line in answers)


def extras(lab, guest, suite):
    """A disk with Debian's own tools, and with the module for the scratch function, comes while the guest runs."""
    image = lab.folder / "extras.img"
    host.run("cp", "--sparse=always", host.fetch("s390/get-extras", suite), image)
    guest.control(f"add ccw extras e {image}")
    name = ccw_disk(guest, CCW_EXTRAS)
    guest.run(f"mkdir -p /tmp/x && mount -t tmpfs x /tmp/x && mkdir /tmp/x/m && mount -o ro /dev/{name} /tmp/x/m")
    guest.run("for i in sys proc dev; do mount --bind /$i /tmp/x/m/tools/$i; done")


def tool(guest, command):
    return guest.run(f"PATH=$PATH:/usr/bin:/usr/sbin chroot /tmp/x/m/tools {command}")


def stop_job(guest, job):
    """Ends I/O whose disk may be gone: that it fails is no news."""
    guest.run(f"kill $job{job}; wait $job{job}; true")


def busy(guest, path, seed=1):
    return guest.busy(path, MEGABYTES, 4, seed)


def works(guest, name, megabytes=MEGABYTES):
    """I/O on a disk, with more requests than one thread has in flight, all verified."""
    guest.run(f"iocheck run /dev/{name} {megabytes} 1 8 1")


def machine_reset(guest):
    """By the host, without asking the guest."""
    guest.control("ipl")
    guest.wait_ready()
    guest.wait_told("ipl")
    see_all(guest)


def cell(guest, road, event, device="blk"):
    return cells.cell(event, guest.describe(), device=device, road=road)
