#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Builds what the tests need and runs them, part by part; the last line counts them all. Called by ./check."""
import argparse
import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

TOP = pathlib.Path(__file__).resolve().parent.parent
JOBS = len(os.sched_getaffinity(0))
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=99",
}
# Folder and what Meson is told.
BUILDS = {
    "debug": ("build-debug", ["-Dbuildtype=debugoptimized", "-Dmutations=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "tsan": ("build-tsan", ["-Dbuildtype=debugoptimized", "-Dmutations=true", "-Db_sanitize=thread", "-Db_lundef=false"]),
}
# What is slow and has no threads of its own is not run a second time under TSan.
NOT_UNDER_TSAN = {"pci_config", "dma_tree", "virtq_split", "virtq_packed", "drive_ring", "base"}


def reason(case, skip):
    """Why a test was skipped: what pytest was told, or the last line that a program printed."""
    words = skip.get("message") or skip.text or ""
    if not words:
        words = "\n".join(element.text or "" for element in case.iter() if element.tag in ("system-out", "system-err"))
    return (words.strip().splitlines() or ["no reason given"])[-1]


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.reasons = []

    def add_junit(self, path, part):
        if not path.exists():
            self.failed += 1
            print(f"  {part}: no report; the run itself failed")
            return
        for case in xml.parse(path).getroot().iter("testcase"):
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed += 1
                print(f"  FAILED {part}: {case.get('classname', '')} {case.get('name')}")
            elif skip is not None:
                self.skipped += 1
                self.reasons.append(f"{part}: {case.get('name')}: {reason(case, skip)}")
            else:
                self.passed += 1


def run(command, log, **kwargs):
    """Runs a command with its output in a file; prints the end of it if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=TOP, **kwargs).returncode
    if status:
        print(f"--- {' '.join(map(str, command))}: status {status}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-200:]))
        print("---", flush=True)
    return status


def logs():
    return TOP / "build-debug" / "check-logs"


def build_release(tally):
    return count_step(tally, run(["make"], logs() / "make.log"), "building the release")


def build(name, tally):
    folder, options = BUILDS[name]
    if not (TOP / folder / "build.ninja").exists():
        if count_step(tally, run(["meson", "setup", folder, *options], logs() / f"setup-{name}.log"), f"configuring {folder}"):
            return True
    return count_step(tally, run(["ninja", "-C", folder], logs() / f"build-{name}.log"), f"building {folder}")


def count_step(tally, status, what):
    if status:
        tally.failed += 1
        print(f"  FAILED {what}", flush=True)
    return status != 0


def meson_suite(name, suite, tally, only=None):
    folder = TOP / BUILDS[name][0]
    command = ["meson", "test", "-C", str(folder), "--no-rebuild", "--suite", suite, "--print-errorlogs", "--num-processes", str(JOBS)]
    command += only or []
    report = folder / "meson-logs" / "testlog.junit.xml"
    report.unlink(missing_ok=True)
    run(command, logs() / f"{suite}-{name}.log", env={**os.environ, **SANITIZERS})
    tally.add_junit(report, f"{suite} ({name})")


def pytest(part, arguments, tally, **environment):
    report = logs() / f"{part}.xml"
    report.unlink(missing_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    run(["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", f"--junitxml={report}", *arguments],
        logs() / f"{part}.log", env={**os.environ, **SANITIZERS, **environment})
    tally.add_junit(report, part)


def unit(tally, names):
    if not build("debug", tally):
        meson_suite("debug", "unit", tally, names)
    if not build("tsan", tally):
        tests = subprocess.run(["meson", "test", "-C", "build-tsan", "--list", "--suite", "unit"], cwd=TOP, capture_output=True, text=True)
        listed = [line.split("/")[-1].strip() for line in tests.stdout.splitlines() if "/" in line]
        chosen = [name for name in listed if name not in NOT_UNDER_TSAN and (not names or name in names)]
        if chosen:
            meson_suite("tsan", "unit", tally, chosen)


def fuzz(tally, names):
    if not build("debug", tally):
        meson_suite("debug", "fuzz", tally, names)


def style(tally, names):
    if not build_release(tally) and not build("debug", tally):
        pytest("style", ["tests/style", *selection(names)], tally)


def functional(tally, names):
    if not build_release(tally) and not build("debug", tally):
        pytest("functional", ["tests/functional", *selection(names)], tally, PINTLE_BUILD=str(TOP / "build-debug"))


def matrix(tally, names):
    """All events in random order: most of them with the address sanitizer, a share on the release and under TSan."""
    if not build_release(tally) and not build("debug", tally):
        debug = TOP / "build-debug"
        pytest("matrix", ["tests/matrix", *selection(names)], tally, PINTLE_BUILD=str(debug))
        pytest("matrix-release", ["tests/matrix", "-k", "test_variant"], tally, PINTLE_BUILD=str(debug), PINTLE_SERVER=str(TOP / "build" / "pintle"),
               PINTLE_MATRIX_SHARE="20", PINTLE_MATRIX_SEED="2")
    if not build("tsan", tally):
        pytest("matrix-tsan", ["tests/matrix", "-k", "test_variant"], tally, PINTLE_BUILD=str(TOP / "build-tsan"), PINTLE_MATRIX_SHARE="20", PINTLE_MATRIX_SEED="3")


def model(tally, names):
    pytest("model", ["tests/model", *selection(names)], tally)


def lab(tally, names):
    # Some tests also show what happens without a law; they find this build by themselves.
    if not names or {"host", "pseries", "x86", "xen"} & set(names):
        build("debug", tally)
    if not build_release(tally):
        # "x86" is test_x86.py and test_x86_events.py too; pytest complains of a name that is none.
        files = [str(path) for name in names for path in sorted((TOP / "tests/lab").glob(f"test_{name}*.py")) or [f"test_{name}.py"]] or ["tests/lab"]
        pytest("lab", files, tally, PINTLE_BUILD=str(TOP / "build"))
    # A guest's whole life once more under each sanitizer.
    for name in ("debug", "tsan") if "x86" in names or not names else ():
        if not build(name, tally):
            pytest(f"lab-{name}", ["tests/lab/test_x86.py", "-k", "test_life and trixie"], tally, PINTLE_BUILD=str(TOP / BUILDS[name][0]))


def selection(names):
    return ["-k", " or ".join(names)] if names else []


# In this order; what is quick and fails often comes first.
PARTS = {"style": style, "unit": unit, "fuzz": fuzz, "functional": functional, "matrix": matrix, "model": model, "lab": lab}


def main():
    parser = argparse.ArgumentParser(prog="./check", description="Builds Pintle and runs its tests; without a part, all of them.")
    parser.add_argument("part", nargs="?", choices=PARTS, help="the part to run alone")
    parser.add_argument("names", nargs="*", help="of tests (unit, fuzz), parts of names (style, functional), guests (lab: x86)")
    parser.add_argument("--matrix", action="store_true", help="take over what is tried into the lifecycle matrix of docs/lifecycle.md")
    arguments = parser.parse_args()
    tally = Tally()
    cells = logs() / "cells.jsonl"
    if arguments.matrix:
        cells.parent.mkdir(parents=True, exist_ok=True)
        cells.unlink(missing_ok=True)
        os.environ["PINTLE_MATRIX"] = str(cells)
    for name, part in PARTS.items():
        if arguments.part not in (None, name):
            continue
        print(f"{name} ...", flush=True)
        before, begun = (tally.passed, tally.failed, tally.skipped), time.monotonic()
        part(tally, arguments.names)
        counts = [now - was for now, was in zip((tally.passed, tally.failed, tally.skipped), before)]
        print("  {} passed, {} failed, {} skipped ({:.0f} s)".format(*counts, time.monotonic() - begun), flush=True)
    if arguments.matrix and cells.exists():
        count_step(tally, run(["scripts/matrix-table", "--take", str(cells)], logs() / "matrix-table.log"), "the lifecycle matrix")
    for reason in tally.reasons:
        print(f"skipped: {reason}")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
