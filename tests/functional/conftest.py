# SPDX-License-Identifier: BSD-2-Clause
"""Where the build is, and how a scenario is run. PINTLE_BUILD names the build directory (default: build-debug beside the sources)."""
import os
import pathlib
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 180


class Scenario:
    def __init__(self, build):
        self.pintle = build / "pintle"
        self.program = build / "tests" / "functional" / "scenario"

    def run(self, name, *options, mutate=None, timeout=PATIENCE):
        """Returns the exit status and what was said."""
        environment = dict(os.environ)
        environment.pop("PINTLE_MUTATE", None)
        if mutate:
            environment["PINTLE_MUTATE"] = mutate
        try:
            result = subprocess.run([self.program, *options, self.pintle, name], env=environment, capture_output=True,
                                    text=True, errors="replace", timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            return -1, f"hung for {timeout} s\n{expired.stderr!r}"
        return result.returncode, result.stdout + result.stderr

    def names(self):
        """The names that the program lists."""
        result = subprocess.run([self.program], capture_output=True, text=True)
        return [line.split()[0] for line in result.stderr.splitlines() if line.startswith("  ")]

    def has_mutations(self):
        """Mutations are names in the binary of builds that have them."""
        return b"law1.publish" in self.pintle.read_bytes()


@pytest.fixture(scope="session")
def scenario():
    build = pathlib.Path(os.environ.get("PINTLE_BUILD", "build-debug"))
    if not build.is_absolute():
        build = SOURCE / build
    found = Scenario(build)
    for program in (found.pintle, found.program):
        if not program.exists():
            pytest.fail(f"{program} is missing: build it, or set PINTLE_BUILD")
    return found
