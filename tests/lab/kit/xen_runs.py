# SPDX-License-Identifier: BSD-2-Clause
"""
The machines with Xen of all tests together. A boot takes as long as an event, so each machine goes through the parts of several tests, one after the other, beside other machines; a test waits for the part that it
asks about.
"""
import concurrent.futures
import shutil

from . import host, server
from .guest import LINUX
from .xen_machine import BEHIND_PORT, XenMachine, hostile, machine_folder

SUITES = ("bookworm", "trixie")
XEN = {"bookworm": "4.17", "trixie": "4.20"}
# Of a machine, in this order.
BACKENDS = {"pintle": ("events",), "xen-pciback": ("place", "serve", "errors", "events")}
MORE_DEVICES = {"pintle": [], "xen-pciback": BEHIND_PORT}
# At once: each has one processor, and waits now and then.
MACHINES = 3
PARTS = {}
WITHOUT = "the build under test lacks the road xen: libxen-dev was not there when it was built"


def guest_of(suite):
    """Its name in the lifecycle matrix."""
    return f"Linux {LINUX[suite]}, Xen {XEN[suite]}"


def supported():
    """The build under test has the road."""
    program = server.build_folder() / "pintle"
    return program.exists() and b"host-xen" in program.read_bytes()


def with_mutations(folder):
    """A copy of the pintle that has them: the build under test's, or the one beside it. None: there is none."""
    for build in (server.build_folder(), host.TOP / "build-debug"):
        if (build / "pintle").exists() and all(word in (build / "pintle").read_bytes() for word in (b"law4.xen", b"host-xen")):
            return shutil.copy(build / "pintle", folder / "pintle-mutations")
    return None


def part(module, backend, name, *tests, suites=SUITES):
    """Registers what is done in a machine, as a function of it; its result or its error is what these tests of the module ask for."""
    def register(function):
        for suite in suites:
            PARTS[backend, suite, name] = (module, tests, function)
        return function
    return register


class Runs:
    def __init__(self, folder, items):
        self.pool = concurrent.futures.ThreadPoolExecutor(MACHINES)
        self.futures = {}
        for backend, names in BACKENDS.items():
            # Without the road only the reference can be tried.
            names = names if supported() else ("events",) if backend != "pintle" else ()
            for suite in SUITES:
                parts = [(name, PARTS[backend, suite, name]) for name in names if (backend, suite, name) in PARTS and self._wanted(suite, *PARTS[backend, suite, name][:2], items)]
                if not parts:
                    continue
                place = folder / f"{backend}-{suite}"
                place.mkdir()
                for name, _ in parts:
                    self.futures[backend, suite, name] = concurrent.futures.Future()
                self.pool.submit(self._machine, place, backend, suite, [(name, function) for name, (_, _, function) in parts])

    @staticmethod
    def _wanted(suite, module, tests, items):
        chosen = [item for item in items if item.module.__name__ == module and item.originalname in tests]
        return any(suite == (item.callspec.params.get("suite", suite) if hasattr(item, "callspec") else suite) for item in chosen)

    def _machine(self, folder, backend, suite, parts):
        machine = None
        left = [self.futures[backend, suite, name] for name, _ in parts]
        try:
            more = hostile(folder) if supported() else {"programs": [], "files": []}
            machine_folder(suite)
            mutated = with_mutations(folder) if backend == "pintle" else None
            machine = XenMachine(folder, suite, programs=[*more["programs"], *([mutated] if mutated else [])], files=more["files"], more_devices=MORE_DEVICES[backend])
            machine.mutated = mutated
            machine.start().wait_ready().run(". /lab/lib")
            for _, function in parts:
                try:
                    left[0].set_result(function(machine))
                except Exception as error:
                    left[0].set_exception(error)
                left.pop(0)
        except Exception as error:
            for future in left:
                future.set_exception(error)
        finally:
            if machine:
                machine.kill()

    def part(self, backend, suite, name):
        """What it has come to, when it has."""
        return self.futures[backend, suite, name].result()

    def end(self):
        self.pool.shutdown(cancel_futures=True)
