# SPDX-License-Identifier: BSD-2-Clause
"""Cells of the lifecycle matrix: which event was tried on which device, over which road, in which guest, and how it went.

Each is a line of JSON in the file that the environment names in PINTLE_MATRIX; without it nothing is written.
"""
import contextlib
import json
import os


def record(event, guest, result, *, device="blk", road="vfio-user", reason="", seldom=False):
    """result: passed, failed, or client (the VMM refuses or dies of it; the reason says how). seldom: not tried in every run; it stays in the matrix until it is tried again."""
    path = os.environ.get("PINTLE_MATRIX")
    if not path:
        return
    cell = {"event": event, "device": device, "road": road, "guest": guest, "result": result,
            "test": os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]}
    if reason:
        cell["reason"] = reason
    if seldom:
        cell["seldom"] = True
    # One write: several test runs may append to the same file.
    with open(path, "ab", buffering=0) as file:
        file.write(json.dumps(cell).encode() + b"\n")


@contextlib.contextmanager
def cell(event, guest, **more):
    """What is done inside is the cell's trial; it passes when nothing is raised."""
    try:
        yield
    except BaseException as error:
        record(event, guest, "failed", reason=str(error).split("\n")[0], **more)
        raise
    record(event, guest, "passed", **more)
