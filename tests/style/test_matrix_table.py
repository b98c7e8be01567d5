# SPDX-License-Identifier: BSD-2-Clause
"""The lifecycle matrix in the documentation is what the records of the last full run say, and its records can be what they say they are."""
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import tree

SCRIPT = tree.TOP / "scripts" / "matrix-table"
CELLS = tree.TOP / "tests" / "matrix" / "cells.json"


def test_the_page_is_what_the_records_say():
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_records_name_tests_that_exist():
    for cell in json.loads(CELLS.read_text()):
        assert (tree.TOP / cell["test"].split("::")[0]).exists(), cell


def test_nothing_that_failed_is_committed():
    failed = [cell for cell in json.loads(CELLS.read_text()) if cell["result"] == "failed"]
    assert not failed, failed


def test_every_event_of_the_runner_has_a_row():
    """So a new event comes into the page with the next full run."""
    program = tree.build() / "tests" / "matrix" / "matrix"
    if not program.exists():
        pytest.fail(f"{program} is missing: build it, or set PINTLE_BUILD")
    said = subprocess.run([program], capture_output=True, text=True, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}).stderr
    rows = {line.split()[1][:-1] for line in said.split("events:\n")[1].splitlines() if len(line.split()) > 1 and line.split()[1].endswith(":")}
    recorded = {cell["event"] for cell in json.loads(CELLS.read_text()) if cell["guest"] == "drive"}
    assert rows and rows <= recorded, rows - recorded


@pytest.mark.parametrize("line", ['{"event": "flr"}', '{"event": "flr", "device": "blk", "road": "r", "guest": "g", "test": "t", "result": "maybe"}'])
def test_what_is_no_record_is_refused(tmp_path, line):
    (tmp_path / "records").write_text(line + "\n")
    before = CELLS.read_text()
    result = subprocess.run([sys.executable, SCRIPT, "--take", tmp_path / "records"], capture_output=True, text=True)
    assert result.returncode and "no record" in result.stderr
    assert CELLS.read_text() == before


def test_what_is_tried_seldom_stays_until_it_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("matrix_table", str(SCRIPT))
    script = importlib.util.module_from_spec(importlib.util.spec_from_loader("matrix_table", loader))
    loader.exec_module(script)
    monkeypatch.setattr(script, "CELLS", tmp_path / "cells.json")
    test = "tests/style/test_matrix_table.py::test"

    def cell(event, result="passed", **more):
        return {"event": event, "device": "d", "road": "r", "guest": "g", "test": test, "result": result, **more}

    def take(*cells):
        (tmp_path / "records").write_text("".join(json.dumps(one) + "\n" for one in cells))
        script.take(tmp_path / "records", {"common": "", "rare": ""})
        return {one["event"]: one["result"] for one in script.load()}

    assert take(cell("common"), cell("rare", "client", seldom=True), cell("former", seldom=True), cell("dropped")) == {"common": "passed", "rare": "client", "former": "passed", "dropped": "passed"}
    assert take(cell("common")) == {"common": "passed", "rare": "client"}
    assert take(cell("rare", "failed", seldom=True)) == {"rare": "failed"}
