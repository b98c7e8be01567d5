# SPDX-License-Identifier: BSD-2-Clause
"""
A first domain of Xen as administrators have it: systemd, udev and Debian's own units of Xen, with this build installed, its units among them. It boots into what is enabled, guests of
/etc/xen/auto included; then its shell is there.
"""
import functools
import pathlib
import shutil
import tempfile

from . import host, server
from .xen_machine import XenMachine

HERE = host.LAB / "units"
UNITS = host.TOP / "contrib/systemd"
UNIT_FOLDER = "usr/local/lib/systemd/system"


@functools.cache
def root_archive(suite):
    return pathlib.Path(host.fetch("units/get-units", suite)) / "root.initrd"


def install(folder, root):
    """What `make install` puts where, and the units where one says; libraries for developers are left out."""
    with tempfile.TemporaryDirectory() as work:
        host.run("meson", "install", "-C", folder, "--no-rebuild", "--quiet", "--strip", "--destdir", work)
        programs = list(pathlib.Path(work).rglob("bin/pintle"))
        (root / "usr/local/bin").mkdir(parents=True)
        shutil.copy(programs[0], root / "usr/local/bin")
    shutil.copytree(UNITS, root / UNIT_FOLDER)


class UnitsMachine(XenMachine):
    machine_name = "xen with systemd"

    def __init__(self, folder, suite="trixie", *, etc=None, enabled=(), **options):
        """etc: texts of files below /etc, by their names there; enabled: units that start at boot."""
        super().__init__(folder, suite, append="systemd.unit=lab.target systemd.show_status=no", **options)
        self.etc, self.enabled = etc or {}, enabled

    def domain_archive(self):
        return root_archive(self.suite)

    def _overlay(self, root):
        with tempfile.TemporaryDirectory() as work:
            super()._overlay(pathlib.Path(work))
            shutil.copytree(pathlib.Path(work) / "lab", root / "lab")
        for name, place in ("init", "init"), ("shell", "lab/shell"):
            shutil.copy(HERE / name, root / place)
            (root / place).chmod(0o755)
        install(server.build_folder(), root)
        for name in "lab.target", "lab-shell.service":
            shutil.copy(HERE / name, root / UNIT_FOLDER)
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True)
        for unit in self.enabled:
            (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}" if not (UNITS / unit).exists() else f"/{UNIT_FOLDER}/{unit}")
        for name, text in self.etc.items():
            (root / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "etc" / name).write_text(text)
