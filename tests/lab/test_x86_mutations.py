# SPDX-License-Identifier: BSD-2-Clause
"""Laws turned off, one for each disk: a stock guest has to suffer from each, in the way that its law is there to prevent."""
import time

import pytest

from kit import host, server

# A disk stands still when its trial has not ended so many seconds after a good disk has stood all of them.
STUCK = 15

BIST = "for i in $(seq 20); do pciset {address} bist 0x40 || exit 1; usleep 30000; done"
TRIALS = {
    # The device's copy of the interrupts is lost by BIST: completions are never told.
    "law2.reconcile": BIST,
    # What was asked in D3hot is not looked at in D0.
    "law1.kick": "busmaster {address} {disk} 20 100 24 d3hot",
    # A signal that QEMU has not read when bus master goes off is lost there.
    "law2.take_back": "busmaster {address} {disk} 20 100 24",
}


@pytest.fixture(autouse=True)
def mutations(monkeypatch):
    """The build under test, or the one beside it that has them."""
    for folder in (server.build_folder(), host.TOP / "build-debug"):
        if (folder / "pintle").exists() and b"law2.reconcile" in (folder / "pintle").read_bytes():
            monkeypatch.setenv("PINTLE_BUILD", str(folder))
            return
    pytest.skip("no build with mutations is there: meson setup -Dmutations=true build-debug, ninja -C build-debug")


def begin(guest, disk, trials):
    """Trials one after the other under verified I/O, without waiting; their status will stand in a file."""
    how = " && ".join(f"({trial.format(address=guest.pci_address(disk), disk=disk)})" for trial in trials)
    guest.run(f"{{ (iocheck run /dev/{disk} 2 100000 8 1 > /run/io-{disk} 2>&1 & io=$!; until [ -s /run/io-{disk} ]; do usleep 20000; done; "
              f"{how} && kill $io && wait $io) > /run/said-{disk} 2>&1; echo $? > /run/ended-{disk}; }} &")


def ended(guest, disk):
    """The status of the disk's trials, or None, and what they said."""
    status = guest.run(f"[ ! -s /run/ended-{disk} ] || cat /run/ended-{disk}").strip()
    return int(status) if status else None, guest.run(f"cat /run/io-{disk} /run/said-{disk}")


def test_laws_turned_off(lab):
    """In one guest the trials pass with a disk that keeps the laws, and each fails with one that does not keep its law."""
    disks = dict(zip(TRIALS, ("vdb", "vdc", "vdd")))
    broken = [lab.data_disk(16, disk, PINTLE_MUTATE=mutation) for mutation, disk in disks.items()]
    guest = lab.guest("trixie", [lab.root_disk("trixie"), *broken, lab.data_disk(16, "vde")])
    # All at once: that the good one gets through, three times as much, says that the others had the time.
    for mutation, disk in disks.items():
        begin(guest, disk, [TRIALS[mutation]])
    begin(guest, "vde", TRIALS.values())
    end = time.monotonic() + host.COMMAND_LIMIT
    while (good := ended(guest, "vde"))[0] is None:
        assert time.monotonic() < end, f"the good disk stands still: {good[1]}"
        time.sleep(0.2)
    assert good[0] == 0, good[1]
    time.sleep(STUCK)
    for mutation, disk in disks.items():
        status, said = ended(guest, disk)
        # It stands still; it did not crash.
        assert status is None or (status != 0 and "no progress" in said), f"nobody suffers from {mutation}: status {status}: {said}"
        assert "DIFFERENT" not in said and "FAILED" not in said
    for one in lab.servers:
        one.check_alive()
    guest.kill()
