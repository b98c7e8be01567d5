# SPDX-License-Identifier: BSD-2-Clause
"""An x86-64 guest whose disk's back end really is full, and gets well again."""
import os
import pathlib
import subprocess
import tempfile

import pytest

from kit import cells, disk, events, host


class SmallFileSystem:
    """A tmpfs in which an image runs out of space, until it is made larger."""

    def __init__(self, kilobytes):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pintle-small-"))
        host.run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "pintle-small", self.folder)

    def resize(self, kilobytes):
        host.run("mount", "-o", f"remount,size={kilobytes}k", self.folder)

    def end(self):
        subprocess.run(["umount", "-l", str(self.folder)], check=False)
        self.folder.rmdir()


@pytest.fixture
def small():
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs for an image to run out of space in")
    one = SmallFileSystem(4 << 10)
    yield one
    one.end()


def test_full(lab, small):
    """ENOSPC: the guest sees I/O errors and nothing worse; with space again, everything goes."""
    image = disk.data_disk(small.folder / "d1.img", 16)
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.serve("d1", image)])
    with cells.cell("backend-full", guest.describe()):
        guest.run(f"iocheck stamp /dev/vdb 2 {events.STAMP}")
        job = guest.busy("/data/busy")
        with guest.trouble_expected():
            said = guest.run("iocheck run /dev/vdb 16 1 8 1", status=1)
        assert "No space left on device" in said or "Input/output error" in said
        assert "DIFFERENT" not in said
        guest.calm(job)
        small.resize(32 << 10)
        guest.run("iocheck run /dev/vdb 16 1 8 2")
        events.healthy(guest)
    events.happen(guest, "bus-master", "vdb")
    lab.finish(errors_of_backends=True)
