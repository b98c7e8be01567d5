# SPDX-License-Identifier: BSD-2-Clause
"""Each law turned off: the scenario that shows it has to fail, and for the reason that this mutation gives."""
import pathlib
import re

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]

PACKED, POLL, BAR = "--packed", "--poll", "--table-in-bar"

# mutation, scenario, options, the reason that has to be given
MUTATIONS = [
    ("law1.gate", "gate-master", (), "memory was changed .* after the answer|looked at its rings through a closed gate"),
    ("law1.gate", "gate-master", (PACKED, POLL), "memory was changed .* after the answer|looked at its rings through a closed gate"),
    ("law1.blind", "gate-master", (POLL,), "looked at its rings through a closed gate"),
    ("law1.publish", "gate-master", (), "memory was changed .* after the answer"),
    ("law1.publish", "gate-master", (PACKED, POLL), "memory was changed .* after the answer"),
    ("law1.answer", "gate-race", (), "memory was changed after the answer"),
    ("law1.answer", "gate-race", (PACKED, POLL), "memory was changed after the answer"),
    ("law1.kick", "gate-master", (), "requests were not completed"),
    ("law1.zerocopy", "gate-zero-copy", (), "memory was changed .* after the answer: zero-copy"),
    ("law1.zerocopy", "gate-zero-copy", (PACKED,), "memory was changed .* after the answer: zero-copy"),
    ("law1.unmap", "map-zero-copy", (), "memory was changed .* after its unmap was answered"),
    ("law1.miss", "map-ring", (), "the device needs a reset: a ring was unmapped for a moment"),
    ("law1.message", "message-closing", (), "bus master off was (not answered|answered after)"),
    ("law2.reconcile", "irq-unannounced", (), "no interrupt: after an unannounced reset"),
    ("law2.reconcile", "irq-unannounced", (BAR,), "no interrupt: after an unannounced reset"),
    ("law2.pending", "irq-masks", (BAR,), "the interrupt was dropped"),
    ("law2.twice", "irq-masks", (BAR,), "delivered twice"),
    ("law2.take_back", "irq-take-back", (), "a signal that the client had not read was left to it"),
    ("law2.unbind", "irq-resets", (), "no interrupt: after FLR"),
    ("law3.inline", "map-zero-copy", (), "the neighbour had to wait .* for the unmap of another device"),
    ("law4.fence", "fence", (), "was not held back"),
    ("law4.unbind", "client-leaks", (), "client 1 was not accepted after the one before was lost"),
    ("law7.parked", "state-move", (), "server 1 does not start: refused: .*requests are missing"),
    ("law7.twice", "state-move", (), "block .* holds generation .* but it has to be"),
    ("law7.twice", "state-move-closed", (PACKED,), "block .* holds generation .* but it has to be"),
    ("law8.flr", "irq-resets", (), "FLR left the status at"),
    ("law8.queue_reset", "reset-queue", (), "queue_reset read 0 before the back end had ended"),
]

# These change nothing that can be seen from here; the unit tests show them.
BY_UNIT_TESTS = {"law5.inline", "law5.ccw_inline", "law5.lost", "law6.split", "law7.mandatory", "law7.program", "law7.interruption", "law3.zpci_lock", "law3.xen", "law4.xen", "law8.removal"}

# tests/functional/test_ctl.py and, on a physical device, tests/lab/test_host.py show them.
ELSEWHERE = {"law3.unplug", "law2.check", "law2.bars", "law8.power"}


def test_every_mutation_has_its_test():
    header = (SOURCE / "src" / "base" / "mutate.h").read_text()
    names = set(re.findall(r'X\(LAW\w+, "([^"]+)"', header))
    assert names == {mutation for mutation, *_ in MUTATIONS} | BY_UNIT_TESTS | ELSEWHERE


@pytest.mark.parametrize("mutation, name, options, reason", MUTATIONS,
                         ids=["-".join([m, *(o.lstrip("-") for o in options)]) for m, _, options, _ in MUTATIONS])
def test_mutation_is_found(scenario, mutation, name, options, reason):
    if not scenario.has_mutations():
        pytest.skip("the build has no mutations (-Dmutations=true)")
    status, text = scenario.run(name, *options, "--seed", "5", "--patience", "3000", mutate=mutation)
    assert status == 1, f"{name} does not notice {mutation}: status {status}\n{text}"
    line = next((line for line in text.splitlines() if line.startswith("FAILED: ")), "")
    assert "SERVER ENDED" not in text, f"{name}: the server ended with {mutation}\n{text}"
    assert re.search(reason, line), f"{name} fails with {mutation}, but not for its reason: {line}\n{text}"
