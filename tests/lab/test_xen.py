# SPDX-License-Identifier: BSD-2-Clause
"""
PCI devices of Xen's PV guests: event by event, with the kernel's xen-pciback and with the build under test. tests/lab/xen/outcomes.toml says what each does; docs/roads/xen.md shows it. With PINTLE_XEN_RECORD=FILE
all events are tried with both on both releases, and what they did is written there.
"""
import contextlib
import json
import pathlib
import re
import sys
import tomllib

import pytest
from kit import cells, host
from kit.xen_changes import CHANGES, saved_live
from kit.xen_events import EVENTS, RECORD, SAVED, TROUBLE, Bench, KernelBackend
from kit.xen_pintle import PintleBackend, handovers, killed_under_load
from kit.xen_runs import SUITES, WITHOUT, guest_of, part, supported

OUTCOMES = host.LAB / "xen/outcomes.toml"
COMMON = {name: function for _, name, function, _ in EVENTS}
USED = "used, detached, saved, restored, attached"
KILLED = "guest killed in the middle of I/O, then a second guest"
MASKED = "mask-all left by a guest that is killed, then a second guest"
OVER_AND_OVER = "mask-all set, taken by force, given to another, over and over"
RESCAN = "functions removed and found again by the guest"
# What only the build under test is put through, and before which event.
MORE = {USED: [("server-killed server-restarted", "killed under load and started again", killed_under_load, ("trixie",)), *CHANGES],
        KILLED: [("saved-live", "saved under I/O, and going on", saved_live, ("trixie",))],
        MASKED: [("mask-all-left unplug-forced-plugged", OVER_AND_OVER, handovers, ())]}
# Of each event what it does, its keys in the matrix, and where it is tried in every run.
ALL, KEYS, WHERE = {}, {}, {}
for event in EVENTS:
    for keys, name, does, suites in [*MORE.get(event[1], []), event]:
        ALL[name], KEYS[name], WHERE[name] = does, keys.split(), suites or SUITES
# What becomes of the second guest where law 4 is off, and on which release it is tried.
SYMPTOMS = {
    "detached by a toolstack that skips its unmaps, and attached": ("bookworm", r".*line left bound"),
    MASKED: ("bookworm", r"refused \(Device or resource busy\)"),
    KILLED: ("trixie", r"refused \(Device or resource busy\)"),
}
MUTATION = "without law 4: "
RESTORED = ("Linux itself crashes when it is restored, with any back end, if a driver has used a passed device before: it binds the line interrupt for good, may not map it in the new domain, and then walks on from an entry "
            "of a list that it has freed (restore_pirqs)")
# Events that a guest's own kernel does not survive.
CLIENT = {USED: RESTORED, SAVED: RESTORED,
          RESCAN: "Linux gives the functions that it finds other addresses, although nobody can move them (\"BAR 0: error updating\"), and its driver dies of it, with any back end"}
# They take long, and are tried when outcomes are recorded; the others in every run on one release at least, and on both when outcomes are recorded.
SELDOM = {*CLIENT, "not used yet, detached, saved, restored, attached"}
# The reference waits for its time limits in many events: these few are tried always, the others when outcomes are recorded.
REFERENCE = {"bookworm": ["start", "driver unbound and bound in the guest", "detached and attached at run time"],
             "trixie": ["start", "detached by a toolstack that skips its unmaps, and attached"]}
EXPECTED = tomllib.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}


def always(suite, event):
    return suite in WHERE[event] and event not in SELDOM


def tried(suite, event):
    """With the build under test, in this run."""
    return RECORD or always(suite, event)


@part(__name__, "xen-pciback", "events", "test_reference")
def reference(machine):
    """The kernel's own."""
    bench = Bench(machine, KernelBackend(machine))
    bench.backend.start()
    bench.go(COMMON if RECORD else {name: COMMON[name] for name in REFERENCE[machine.suite]})
    bench.destroy()
    return bench


@part(__name__, "pintle", "events", "test_pintle", "test_founding_case")
def ours(machine):
    bench = Bench(machine, PintleBackend(machine))
    bench.backend.start()
    bench.go({name: function for name, function in ALL.items() if tried(machine.suite, name)})
    bench.backend.kill("TERM")
    if machine.mutated:
        bench.backend = PintleBackend(machine, machine.mutated.name, "PINTLE_MUTATE=law4.xen")
        bench.backend.serve()
        bench.go({MUTATION + name: ALL[name] for name, (suite, _) in SYMPTOMS.items() if suite == machine.suite})
    bench.destroy()
    bench.backend.kill()
    return bench


def judge(runs, name, suite, event):
    bench = runs.part(name, suite, "events")
    assert event in bench.outcomes, bench.troubles
    if RECORD:
        assert name != "pintle" or event in CLIENT or not TROUBLE.search(bench.outcomes[event]), bench.outcomes[event]
        return
    assert bench.outcomes[event] in EXPECTED[suite][name][event].split(" or "), f"{bench.outcomes[event]}; {bench.seconds[event]} s; {bench.troubles.get(event, '')}"


@pytest.mark.skipif(not supported(), reason=WITHOUT)
@pytest.mark.parametrize("suite, event", [(suite, event) for suite in SUITES for event in ALL if tried(suite, event)])
def test_pintle(xen_runs, suite, event):
    with contextlib.ExitStack() as stack:
        for key in KEYS[event]:
            where = {"device": "host-xen", "road": "xen", "seldom": not always(suite, event)}
            if event in CLIENT:
                stack.callback(cells.record, key, guest_of(suite), "client", reason=CLIENT[event], **where)
            else:
                stack.enter_context(cells.cell(key, guest_of(suite), **where))
        judge(xen_runs, "pintle", suite, event)


@pytest.mark.skipif(not supported(), reason=WITHOUT)
@pytest.mark.parametrize("suite, event", [(suite, event) for event, (suite, _) in SYMPTOMS.items()])
def test_founding_case(xen_runs, suite, event):
    """With the law all is well; without it the second guest is refused the device, or what was bound is left."""
    judge(xen_runs, "pintle", suite, event)
    bench = xen_runs.part("pintle", suite, "events")
    if MUTATION + event not in bench.outcomes:
        pytest.skip("no build with mutations and the road xen is there (meson setup build-debug -Dmutations=true)")
    assert re.fullmatch(SYMPTOMS[event][1], bench.outcomes[MUTATION + event]), f"{bench.outcomes[MUTATION + event]}; {bench.troubles.get(MUTATION + event, '')}"


@pytest.mark.parametrize("suite, event", [(suite, event) for suite in SUITES for event in (COMMON if RECORD else REFERENCE[suite])])
def test_reference(xen_runs, suite, event):
    if "bindings-left" in KEYS[event] and not supported():
        pytest.skip("it needs libxen-dev")
    judge(xen_runs, "xen-pciback", suite, event)


def take(path):
    """What was recorded becomes what is expected; where runs differ, the possibilities are joined by "or". What was not tried stays, if it is an event still."""
    found = {}
    for suite, name, event, outcome in map(json.loads, pathlib.Path(path).read_text().splitlines()):
        if event in ALL:
            found.setdefault((suite, name, event), set()).add(outcome)
    lines = ["# SPDX-License-Identifier: BSD-2-Clause", "# What happens to the devices of a Xen guest, by release, back end and event, and is compared in every run: recorded with PINTLE_XEN_RECORD=FILE, and taken over by",
             "# tests/lab/test_xen.py FILE. Where runs differ, the possibilities are joined by \"or\"."]
    for suite in SUITES:
        for name in ("pintle", "xen-pciback"):
            lines += ["", f"[{suite}.{name}]"]
            for event in ALL:
                outcome = " or ".join(sorted(found.get((suite, name, event), ()))) or EXPECTED.get(suite, {}).get(name, {}).get(event)
                lines += [f'"{event}" = "{outcome}"'] if outcome else []
    OUTCOMES.write_text("\n".join(lines) + "\n")


def table():
    """What docs/roads/xen.md shows."""
    rows = ["| Event | xen-pciback, Xen 4.17 | xen-pciback, Xen 4.20 | Pintle, Xen 4.17 | Pintle, Xen 4.20 |", "|---|---|---|---|---|"]
    for event in ALL:
        rows.append("| " + " | ".join([event] + [EXPECTED[suite].get(name, {}).get(event, "-") for name in ("xen-pciback", "pintle") for suite in SUITES]) + " |")
    return "\n".join(rows) + "\n"


def test_documented():
    assert table() in (host.TOP / "docs/roads/xen.md").read_text(), "docs/roads/xen.md lacks this table:\n" + table()


if __name__ == "__main__":
    take(sys.argv[1])
