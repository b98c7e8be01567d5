# SPDX-License-Identifier: BSD-2-Clause
"""Where the builds are. PINTLE_BUILD names the one whose server and driver are run (default: build-debug beside the sources), PINTLE_SERVER another server."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# A sequence ends by itself; this ends one that hangs.
PATIENCE = 900


class Matrix:
    def __init__(self, build):
        self.build = build
        self.pintle = pathlib.Path(os.environ.get("PINTLE_SERVER", build / "pintle"))
        self.program = build / "tests" / "matrix" / "matrix"
        # Most of a sequence's time is waiting.
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=2 * len(os.sched_getaffinity(0)))

    def run(self, *options, mutate=None):
        """Returns the exit status and what was said."""
        environment = {name: value for name, value in os.environ.items() if name != "PINTLE_MUTATE"}
        if mutate:
            environment["PINTLE_MUTATE"] = mutate
        try:
            result = subprocess.run([self.program, self.pintle, *map(str, options)], env=environment, capture_output=True, text=True,
                                    errors="replace", timeout=PATIENCE)
        except subprocess.TimeoutExpired as expired:
            return -1, f"hung for {PATIENCE} s\n{expired.stderr!r}"
        return result.returncode, result.stdout + result.stderr

    def start(self, *options, mutate=None):
        return self.pool.submit(self.run, *options, mutate=mutate)

    def has_mutations(self):
        return b"law1.publish" in self.pintle.read_bytes()


@pytest.fixture(scope="session")
def matrix():
    build = pathlib.Path(os.environ.get("PINTLE_BUILD", "build-debug"))
    found = Matrix(build if build.is_absolute() else SOURCE / build)
    for program in (found.pintle, found.program):
        if not program.exists():
            pytest.fail(f"{program} is missing: build it, or set PINTLE_BUILD")
    yield found
    found.pool.shutdown(cancel_futures=True)


def record(test, text):
    """One line for each row that a passing run has been through, for docs/lifecycle.md (scripts/matrix-table)."""
    path = os.environ.get("PINTLE_MATRIX")
    if not path:
        return
    # A run that says nothing of its rows would leave the page empty.
    assert "rows:" in text, text
    rows = {row for line in re.findall(r"\brows:(.*)$", text, re.MULTILINE) for row in line.split()}
    with open(path, "a") as out:
        for row in sorted(rows):
            out.write(json.dumps({"event": row, "device": "blk", "road": "vfio-user", "guest": "drive", "test": test, "result": "passed"}) + "\n")
