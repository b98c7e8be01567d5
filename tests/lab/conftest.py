# SPDX-License-Identifier: BSD-2-Clause
"""The laboratory's fixtures. A test asks for `lab`, makes servers and guests with it, and what it forgets `lab` checks."""
import sys

import pytest

sys.path.insert(0, __file__.rsplit("/", 1)[0])

from kit import disk, host, server  # noqa: E402
from kit.guest import Guest  # noqa: E402


class Lab:
    """Servers, guests and disks of one test."""

    def __init__(self, folder):
        self.folder = folder
        self.servers, self.guests, self.roots = [], [], []

    def root_disk(self, suite, name="d0", options="", architecture="amd64", **environment):
        image = disk.root_copy(self.folder / f"{name}.img", suite, architecture)
        self.roots.append(image)
        return self.serve(name, image, options, **environment)

    def data_disk(self, megabytes, name="d1", options="", **environment):
        return self.serve(name, disk.data_disk(self.folder / f"{name}.img", megabytes), options, **environment)

    def serve(self, name, image, options="", **environment):
        self.servers.append(server.server(self.folder, name, image, options, **environment))
        return self.servers[-1]

    def device(self, name, kind, options=""):
        """Something else than a disk."""
        self.servers.append(server.PintleServer(self.folder, name, None, options, kind).start())
        return self.servers[-1]

    def guest(self, suite, servers, kind=Guest, **options):
        options.setdefault("name", f"guest{len(self.guests)}")
        self.guests.append(kind(self.folder, servers, suite, **options))
        return self.guests[-1].start().wait_ready()

    def finish(self, errors_of_backends=False):
        """The guests' kernels complained of nothing, the servers end well, and the file systems are whole."""
        for guest in self.guests:
            trouble = guest.kernel_trouble()
            if trouble:
                raise host.LabError("the guest's kernel complained:\n" + "\n".join(trouble))
            if guest.process.poll() is None:
                guest.power_off()
        for one in self.servers:
            one.stop(errors_of_backends)
        for image in self.roots:
            disk.check(image)

    def clean_up(self):
        for one in self.guests + self.servers:
            one.kill()

    def words(self):
        """What the servers said, for the report of a failure; the error itself has the end of the guest's console."""
        return [(f"server {one.name}", one.words()[-8000:]) for one in self.servers]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and lab:
        report.sections += [(title, text) for title, text in lab.words() if text]


@pytest.fixture
def lab(tmp_path):
    bench = Lab(tmp_path)
    yield bench
    bench.clean_up()


@pytest.fixture(scope="session")
def xen_runs(request, tmp_path_factory):
    """The machines with Xen of all the tests that were chosen."""
    from kit.xen_runs import Runs
    runs = Runs(tmp_path_factory.mktemp("xen"), request.session.items)
    yield runs
    runs.end()


def pytest_report_header():
    return f"guests: {host.accelerator()}, QEMU {' '.join(host.qemu())}, build {server.build_folder()}"
