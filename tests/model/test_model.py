# SPDX-License-Identifier: BSD-2-Clause
"""The model of law 1 (gate.pml): every order of its steps is tried, and each law turned off is found. The names of its functions exist."""
import pathlib
import re
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
MODEL = HERE / "gate.pml"

# Bounded so that each takes some seconds and at most 2 GB.
WHOLE = {
    "own-buffers": ["EVENTS=2"],
    "two-requests": ["THREADS=1", "REQUESTS=2", "EVENTS=4"],
    "zero-copy": ["EVENTS=2", "ZERO_COPY"],
    "zero-copy-one-thread": ["THREADS=1", "REQUESTS=2", "EVENTS=3", "ZERO_COPY"],
    "by-message": ["EVENTS=2", "BY_MESSAGE"],
    "stuck-disk": ["EVENTS=2", "STUCK"],
    "stuck-disk-by-message": ["EVENTS=2", "BY_MESSAGE", "STUCK"],
}
# What is turned off, with what, and how the model has to fail.
TOUCHED, LOST = "assertion violated.*told_closed", "invalid end state"
MUTATIONS = {
    "M_GATE": ([], TOUCHED),  # law1.gate
    "M_PUBLISH": ([], TOUCHED),  # law1.publish
    "M_ANSWER": ([], TOUCHED),  # law1.answer
    "M_KICK": ([], LOST),  # law1.kick
    "M_UNMAP": ([], TOUCHED),  # law1.unmap
    "M_ZERO_COPY": (["ZERO_COPY"], TOUCHED),  # law1.zerocopy
    "M_MESSAGE": (["BY_MESSAGE"], LOST),  # law1.message: each waits for the other
    "M_UNPLUG": ([], TOUCHED),  # an unplug that does not wait for the I/O threads
    "M_TWICE": ([], "assertion violated.*published"),  # what was published stays in the list of what has finished
    "M_SLEEP": ([], LOST),  # falling asleep is a look and a store
}


def explore(folder, defines):
    """Returns what the verifier says."""
    options = [f"-D{define}" for define in defines]
    for command in (["spin", "-a", *options, str(MODEL)],
                    ["cc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", "-DMEMLIM=2500", "-o", "pan", "pan.c"]):
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert made.returncode == 0 and "rror:" not in made.stdout, f"{command}: {made.stdout}{made.stderr}"
    return subprocess.run(["./pan", "-m1000000", "-n", "-w24"], cwd=folder, capture_output=True, text=True, timeout=600).stdout


def errors(said):
    found = re.search(r"errors: (\d+)", said)
    assert found, said
    return int(found.group(1))


@pytest.mark.parametrize("name", WHOLE)
def test_it_holds(tmp_path, name):
    said = explore(tmp_path, WHOLE[name])
    assert errors(said) == 0, said
    for cut in ("Search not completed", "MEMLIM", "max search depth too small"):
        assert cut not in said, f"not every order was tried:\n{said}"


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_is_found(tmp_path, mutation):
    more, reason = MUTATIONS[mutation]
    said = explore(tmp_path, ["EVENTS=2", mutation, *more])
    assert errors(said), f"{mutation} was not noticed\n{said}"
    assert re.search(reason, said), f"{mutation} was noticed, but not for its reason\n{said}"


def test_every_mutation_is_tried():
    assert set(re.findall(r"\b(M_[A-Z_]+)\b", MODEL.read_text())) - {"M_"} == set(MUTATIONS)


def test_what_it_stands_for_exists():
    """The functions that the model names at its steps are in the code: a name that has gone says that the model has to be looked at."""
    code = "\n".join(path.read_text() for path in (SOURCE / "src").rglob("*.[ch]"))
    names = {"life_close", "life_open", "begin_round", "round_ended", "dma_space_commit", "start_removal", "start_drains", "notify_users", "control_stop",
             "control_closed", "control_stopped", "control_ended", "loop_messages_take", "loop_messages_run", "loop_fall_asleep", "loop_post", "quiesce_ask",
             "quiesce_passed", "quiesce_all_passed", "lane_hook", "runner_unit", "pop_batch", "start_request", "publish_finished", "runner_on_kick", "runner_on_stop",
             "runner_on_settle", "check_settling", "check_drains", "orphan_ended", "virtio_request_done", "virtio_device_look", "gate_opened", "on_changed",
             "dma_view_may_go_on", "dma_space_interrupt", "block_submit", "virtio_queue_kick", "gate_set_hurry", "on_drain"}
    model = MODEL.read_text()
    for name in names:
        assert name in model, f"the model does not name {name} any more"
        assert re.search(rf"\b{name}\(", code), f"{name} is not in the code any more"
