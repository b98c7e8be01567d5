# SPDX-License-Identifier: BSD-2-Clause
"""Each law turned off under the unit tests: the test that is named has to fail, and without the mutation it passes."""
import os
import re
import subprocess

import pytest

from test_mutations import BY_UNIT_TESTS

PATIENCE = 180

# mutation, program, tests that have to fail; those that run on one thread and on two have to in both
MUTATIONS = [
    ("law1.gate", "virtio_run", ["test_gate", "test_gate_stops_the_poller"]),
    ("law1.publish", "virtio_run", ["test_gate"]),
    ("law3.zpci_lock", "zpci_access", ["test_held_in_a_child"]),
    ("law3.xen", "xen_server", ["test_law3"]),
    ("law4.xen", "xen_server", ["test_founding_case"]),
    ("law4.fence", "virtio_run", ["test_fence"]),
    ("law4.fence", "virtio_core", ["test_reset_in_batch"]),
    ("law4.fence", "virtio_drain", ["test_destroyed_with_generations"]),
    ("law4.fence", "virtio_pci", ["test_resets"]),
    ("law5.inline", "virtio_device", ["test_config_is_deferred", "test_config_in_handler"]),
    # On two threads the one that changes it cannot tell.
    ("law5.inline", "virtio_core", ["test_changed_by_unit on one thread"]),
    ("law5.ccw_inline", "ccw", ["test_announced_from_the_loop"]),
    # The founding case: the driver's lock is met inside the access, or the driver is told inside its own handler.
    ("law5.inline", "ccw_balloon", ["test_changes_one_thread_classic", "test_changes_one_thread_adapter"]),
    ("law5.ccw_inline", "ccw_balloon", ["test_changes_one_thread_classic", "test_changes_threads_classic", "test_changes_threads_adapter"]),
    ("law5.lost", "virtio_device", ["test_config_in_handler"]),
    ("law5.lost", "virtio_core", ["test_changed_during_delivery"]),
    ("law6.split", "pci_function", ["test_whole_accesses"]),
    ("law6.split", "virtio_pci_access", ["test_whole_accesses"]),
    ("law6.split", "zpci_access", ["test_block_whole"]),
    ("law7.mandatory", "state", ["test_unknown_mandatory"]),
    ("law7.program", "state_channel", ["test_start_pending", "test_endless"]),
    ("law7.interruption", "state_channel", ["test_status", "test_host"]),
    ("law7.interruption", "state_zpci", ["test_pending_message"]),
    ("law8.removal", "pci_unplug", ["test_removal"]),
    ("law8.queue_reset", "virtio_run", ["test_queue_reset"]),
    ("law8.queue_reset", "virtio_pci", ["test_queue_reset_register"]),
]


def run(scenario, program, mutation=None):
    """The results by name, "ok" or "not ok", and all that was said."""
    path = scenario.pintle.parent / "tests" / "unit" / f"test_{program}"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    environment.pop("PINTLE_MUTATE", None)
    if mutation:
        environment["PINTLE_MUTATE"] = mutation
        # A test that fails half way frees nothing.
        environment["ASAN_OPTIONS"] = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "detect_leaks=0"]))
    result = subprocess.run([path], env=environment, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    text = result.stdout + result.stderr
    results = {name: state for state, name in re.findall(r"^(ok|not ok) \d+ - (.+)$", result.stdout, re.MULTILINE)}
    planned = re.search(r"^1\.\.(\d+)$", result.stdout, re.MULTILINE)
    # Without a law a later test may end the whole program (law5.inline calls the receiver from two threads at once); the named ones have to have
    # come to their own end, which variants() asks for. One that ended in the middle of a test has not shown what it was to show.
    whole = planned and len(results) == int(planned[1])
    assert mutation or whole, f"{program} did not come to its end: status {result.returncode}\n{text}"
    return results, text


def variants(results, name):
    found = {key: state for key, state in results.items() if key == name or key.startswith(name + " on ")}
    assert found, f"there is no test {name}"
    return found


@pytest.fixture(scope="module")
def untouched(scenario):
    """What the programs say without a mutation; each is run once."""
    known = {}

    def of(program):
        if program not in known:
            known[program] = run(scenario, program)
        return known[program]

    return of


def test_every_unit_mutation_has_its_test():
    assert BY_UNIT_TESTS <= {mutation for mutation, *_ in MUTATIONS}


@pytest.mark.parametrize("mutation, program, names", MUTATIONS, ids=[f"{m}-{p}" for m, p, _ in MUTATIONS])
def test_unit_test_finds_mutation(scenario, untouched, mutation, program, names):
    if not scenario.has_mutations():
        pytest.skip("the build has no mutations (-Dmutations=true)")
    before, text = untouched(program)
    for name in names:
        assert set(variants(before, name).values()) == {"ok"}, f"{name} of {program} fails without a mutation\n{text}"
    after, text = run(scenario, program, mutation)
    for name in names:
        assert variants(after, name).keys() == variants(before, name).keys(), f"{name} of {program} did not come to its end\n{text}"
        assert set(variants(after, name).values()) == {"not ok"}, f"{name} of {program} does not notice {mutation}\n{text}"
