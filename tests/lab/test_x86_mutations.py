# SPDX-License-Identifier: BSD-2-Clause
"""Laws turned off, one at a time: a stock guest has to suffer from each, in the way that its law is there to prevent."""
import time

import pytest

from kit import host, server

# A guest stands still when it has not finished after so many seconds, and after several times what the same took before.
STUCK = 15

TRIALS = {
    # The device's copy of the interrupts is lost by BIST: completions are never told.
    "law2.reconcile": "bist",
    # What was asked in D3hot is not looked at in D0.
    "law1.kick": "d3hot",
    # A signal that QEMU has not read when bus master goes off is lost there.
    "law2.take_back": "bus-master",
}


@pytest.fixture(autouse=True)
def mutations(monkeypatch):
    """The build under test, or the one beside it that has them."""
    for folder in (server.build_folder(), host.TOP / "build-debug"):
        if (folder / "pintle").exists() and b"law2.reconcile" in (folder / "pintle").read_bytes():
            monkeypatch.setenv("PINTLE_BUILD", str(folder))
            return
    pytest.skip("no build with mutations is there: meson setup -Dmutations=true build-debug, ninja -C build-debug")


def trial(guest, event, disk, limit):
    """Raises if the disk, or what was on it, does not stand the event; the limit is in seconds, for each of the two steps."""
    address = guest.pci_address(disk)
    job = guest.busy(f"/dev/{disk}", megabytes=2)
    how = {"bist": f"for i in $(seq 20); do pciset {address} bist 0x40; usleep 30000; done",
           "bus-master": f"busmaster {address} {disk} 20 100 24", "d3hot": f"busmaster {address} {disk} 20 100 24 d3hot"}
    guest.finish(guest.begin(how[event]), limit)
    guest.finish(guest.begin(f"kill $job{job}; wait $job{job}"), limit)


@pytest.mark.parametrize("mutation", TRIALS)
def test_law_turned_off(lab, mutation):
    """In one guest the trial passes with a disk that keeps the law, and fails with one that does not."""
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(16, PINTLE_MUTATE=mutation), lab.data_disk(16, "d2")])
    begin = time.monotonic()
    trial(guest, TRIALS[mutation], "vdc", host.COMMAND_LIMIT)
    took = time.monotonic() - begin
    with pytest.raises(host.LabError) as failure:
        trial(guest, TRIALS[mutation], "vdb", max(STUCK, 4 * took))
    # It stands still; it did not crash.
    assert "did not finish" in str(failure.value) or "no progress" in str(failure.value)
    guest.kill()
