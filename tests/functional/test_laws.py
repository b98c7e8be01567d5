# SPDX-License-Identifier: BSD-2-Clause
"""The laws against the real server: every scenario, with the rings, kicks and ways of the server in which it matters."""
import pytest

SPLIT, PACKED = (), ("--packed",)
POLL, FD, BAR = ("--poll",), ("--kick-fd",), ("--table-in-bar",)
IN_ORDER = [("--in-order",), ("--packed", "--in-order")]

# Both rings, a server that polls and one that sleeps; kicks by descriptor once with each ring.
EVERYWHERE = [SPLIT, SPLIT + FD + POLL, PACKED + POLL, PACKED + FD]
RINGS = [SPLIT, PACKED]
BOTH_CLIENTS = [SPLIT, PACKED + BAR]

RUNS = {
    "gate-master": EVERYWHERE + [("--lenient",)],
    "gate-power": RINGS,
    "gate-stuck": EVERYWHERE + [("--lenient",)],
    "gate-race": EVERYWHERE,
    "gate-zero-copy": EVERYWHERE,
    "gate-policy": [SPLIT, SPLIT + ("--lenient",), PACKED + BAR + ("--lenient",)],
    "gate-load": EVERYWHERE + IN_ORDER,
    "irq-unannounced": [SPLIT, SPLIT + BAR, PACKED + BAR],
    "irq-unannounced-load": BOTH_CLIENTS,
    "irq-masks": [SPLIT, SPLIT + BAR, PACKED + BAR],
    "irq-take-back": BOTH_CLIENTS,
    "irq-switch": BOTH_CLIENTS,
    "irq-switch-load": BOTH_CLIENTS,
    "irq-resets": BOTH_CLIENTS,
    "reset-at-once": [SPLIT, PACKED + FD],
    "reset-queue": RINGS,
    "reset-random": EVERYWHERE + [SPLIT + BAR] + IN_ORDER,
    "fence": RINGS,
    "client-second": [SPLIT],
    "client-leaks": [SPLIT + FD],
    "map-ring": EVERYWHERE + IN_ORDER,
    "map-untouched": EVERYWHERE,
    "map-zero-copy": RINGS,
    "map-many": [SPLIT],
    "message-load": RINGS,
    "message-closing": RINGS,
    "config-grow": [SPLIT, PACKED + BAR],
    "end-sigterm": EVERYWHERE,
    "inject-load": EVERYWHERE + [SPLIT + BAR],
    "state-move": [SPLIT, PACKED + BAR] + IN_ORDER,
    "state-move-closed": [SPLIT + BAR, PACKED] + IN_ORDER,
    "state-move-messages": RINGS,
    "state-resume": RINGS,
}

# Scenarios that take random steps run with these seeds and one that is new each time (and printed).
SEEDS = {"reset-random": (2, 3), "end-sigterm": (2, 3), "inject-load": (2, 3)}


def cases():
    for name, runs in RUNS.items():
        for options in runs:
            yield pytest.param(name, options, id="-".join([name, *(o.lstrip("-") for o in options)]))


@pytest.mark.parametrize("name, options", cases())
def test_scenario(scenario, name, options):
    variants = [("--seed", str(seed)) for seed in SEEDS.get(name, ())] + [()]
    for variant in variants:
        status, text = scenario.run(name, *options, *variant)
        if status == 77:
            pytest.skip(text.strip().splitlines()[-1])
        assert status == 0, f"{name} {' '.join(options + variant)}: status {status}\n{text}"


def test_every_scenario_runs(scenario):
    assert sorted(scenario.names()) == sorted(RUNS)
