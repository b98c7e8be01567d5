# SPDX-License-Identifier: BSD-2-Clause
"""Random sequences of lifecycle events, in every variant of server and driver in which they can differ; and proof that they notice broken laws."""
import os
import re

import pytest

from conftest import SOURCE, record

# What is run, and how many events of it. The numbers of a whole run sum up to 10,000; PINTLE_MATRIX_SHARE takes that many per cent of them (builds that are
# slower, or of which less is to be learned).
VARIANTS = {
    "split": ("", 800),
    "packed": ("packed=1", 800),
    "in-order": ("in-order=1 delay=2", 500),
    "packed-in-order": ("packed=1 in-order=1 polling=1", 500),
    "delayed": ("delay=20 queues=3", 700),
    "packed-delayed": ("packed=1 delay=5 table-in-bar=1", 700),
    "polling-driver": ("sleeping=0 kick-fd=1", 500),
    "polling-both": ("sleeping=0 polling=1 packed=1 delay=1", 500),
    "lenient": ("lenient=1 kick-fd=1 polling=1", 600),
    "table-in-bar": ("table-in-bar=1 delay=3 io-threads=2", 600),
    "memory": ("memory=1 queues=4 io-threads=2", 600),
    "zero-copy": ("zero-copy=1 delay=4", 600),
    "zero-copy-packed": ("zero-copy=1 packed=1 queues=4 io-threads=4", 500),
    "by-message": ("by-message=1", 400),
    "by-message-packed": ("by-message=1 packed=1 delay=2 queues=3 io-threads=2", 300),
    "queues": ("queues=8 io-threads=3 delay=1 packed=1", 500),
    "functions": ("functions=4 queues=2 io-threads=2 delay=2", 500),
    "functions-packed": ("functions=3 queues=4 packed=1 io-threads=3 table-in-bar=1", 300),
    "stuck": ("delay=6000 queues=2", 100),
}
SHARE = int(os.environ.get("PINTLE_MATRIX_SHARE", "100"))
PART = 250  # events of one process: what is printed and made shorter where it fails


def parts(events):
    events = max(1, events * SHARE // 100)
    return [min(PART, events - at) for at in range(0, events, PART)]


def seeds(name, count):
    """The same ones each time, so that a failure stays a failure; PINTLE_MATRIX_SEED chooses others."""
    first = int(os.environ.get("PINTLE_MATRIX_SEED", "1")) * 1000 + sum(name.encode())
    return range(first, first + count)


@pytest.fixture(scope="session")
def running(matrix, request):
    """All that was chosen is begun at once."""
    chosen = {item.callspec.params["name"] for item in request.session.items if item.originalname == "test_variant"}
    runs = {}
    for name, (variant, events) in VARIANTS.items():
        sizes = parts(events) if name in chosen else []
        runs[name] = [(seed, matrix.start("--variant", variant, "--seed", seed, "--events", size, "--patience", 30000))
                      for seed, size in zip(seeds(name, len(sizes)), sizes)]
    return runs


def test_ten_thousand():
    assert sum(events for _, events in VARIANTS.values()) == 10000


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(running, name):
    for seed, run in running[name]:
        status, text = run.result()
        assert status == 0, f"{name}, seed {seed}: status {status}\n{text}"
        record(f"tests/matrix/test_matrix.py::test_variant[{name}]", text)


# Mutation, the variant in which it shows, the reason that has to be given.
MUTATIONS = [
    ("law1.gate", "delay=3", "memory was changed|needs a reset|were lost"),
    ("law1.publish", "delay=5", "memory was changed|were lost|what was not outstanding|block .* holds"),
    ("law1.kick", "", "were lost"),
    ("law1.unmap", "zero-copy=1 delay=5", "which is not mapped|were lost|block .* holds"),
    ("law1.miss", "", "needs a reset|were lost"),
    ("law2.pending", "delay=4", "the interrupt of queue . was lost"),
    ("law2.reconcile", "", "the interrupt of queue . was lost"),
    ("law2.unbind", "", "the interrupt of queue . was lost"),
    ("law4.fence", "delay=25", "block .* (holds|is torn)"),
]
RUNS, EVENTS = 8, 250  # at most; most are noticed in the first


@pytest.mark.parametrize("mutation, variant, reason", MUTATIONS, ids=[m for m, *_ in MUTATIONS])
def test_mutation_is_found(matrix, mutation, variant, reason):
    if not matrix.has_mutations():
        pytest.skip("the build has no mutations (-Dmutations=true)")
    for seed in range(7, 7 + RUNS):
        status, text = matrix.run("--variant", variant, "--seed", seed, "--events", EVENTS, "--no-shrink", "--patience", 4000, mutate=mutation)
        if status:
            break
    assert status == 1, f"{mutation} was not noticed in {RUNS * EVENTS} events: status {status}\n{text}"
    line = next((line for line in text.splitlines() if "FAILED: " in line), "")
    assert re.search(reason, line), f"{mutation} was noticed, but not for its reason: {line}\n{text}"


def test_a_failing_sequence_is_made_short(matrix, tmp_path):
    mutation, variant = "law2.reconcile", ""
    if not matrix.has_mutations():
        pytest.skip("the build has no mutations (-Dmutations=true)")
    script = tmp_path / "short"
    status, text = matrix.run("--variant", variant, "--seed", 2, "--events", 40, "--patience", 1500, "--tries", 2, "--shrink-time", 90,
                              "--save", script, mutate=mutation)
    assert status == 1 and script.exists(), text
    steps = [line for line in script.read_text().splitlines() if re.match(r"d\d+ after", line)]
    assert len(steps) <= 6, "it is not short:\n" + script.read_text()
    status, text = matrix.run("--script", script, "--tries", 10, "--patience", 1500, mutate=mutation)
    assert status == 1, f"the short one does not fail with {mutation}:\n{script.read_text()}\n{text}"
    status, text = matrix.run("--script", script, "--tries", 10)
    assert status == 0, f"the short one fails without {mutation}:\n{script.read_text()}\n{text}"


def test_scripts_are_read_as_they_are_written(matrix, tmp_path):
    status, text = matrix.run("--variant", "packed=1 functions=2", "--seed", 3, "--events", 50, "--print")
    assert status == 0
    script = tmp_path / "script"
    script.write_text("# A comment.\n\n" + text)
    status, said = matrix.run("--script", script, "--tries", 1)
    assert status == 0 and "passed: 50 events, 1 times" in said, said


@pytest.mark.parametrize("line", ["d0 after 5 us: no-such-event", "d9 after 5 us: flr", "d0 after 5 us: flr way=9", "d0 after 5 us: flr foo=1", "variant queues=99"])
def test_a_script_with_a_mistake_is_refused(matrix, tmp_path, line):
    script = tmp_path / "script"
    script.write_text(line + "\n")
    status, said = matrix.run("--script", script)
    assert status == 2, said


@pytest.mark.parametrize("script", sorted((SOURCE / "tests" / "matrix" / "scripts").glob("*.matrix")), ids=lambda path: path.stem)
def test_script(matrix, script):
    """Ways that were worth keeping; each file says why."""
    status, said = matrix.run("--script", script, "--tries", 3)
    assert status == 0, said
