# SPDX-License-Identifier: BSD-2-Clause
"""`pintle inject`: each fault against the real server, with a driver whose I/O is verified before, during and after; scripts; and the load of the law scenarios
with a random script beside it (scenario inject-load)."""
import os
import re
import struct
import subprocess
import threading
import time

import pytest
from controlled import Controlled, Driver, Refused, eventually
from serving import PATIENCE, build
import vfu
from vfu import Client

IOERR = 1


@pytest.fixture(scope="session")
def program():
    path = build() / "pintle"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


@pytest.fixture
def server(program, tmp_path):
    """d0 has an image, d1 has memory."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with Controlled(program, tmp_path, "--control-threads", "2", backends=[f"path={tmp_path / 'disk'}", "backend=memory,size=1M"]) as found:
        yield found
        assert found.end() == 0, found.words()


@pytest.fixture
def control(server):
    with server.connect() as found:
        yield found


@pytest.fixture
def driver(server):
    with Driver(server.sockets[0]) as found:
        found.check()
        found.count(found.events[1])
        yield found


def nothing_happens(condition, seconds=0.3):
    time.sleep(seconds)
    return not condition()


def complete(driver, what):
    eventually(driver.finished, what)
    assert driver.memory[driver.STATUS] == 0, what


# ---- the function ----

def test_bus_master(control, driver):
    control.inject("bus-master-off")
    assert driver.read(vfu.CONFIG, 4, 2) == struct.pack("<H", 2), "the register says it"
    assert control.show()["gate"]["closed-by"] == ["no-bus-master"]
    before = bytes(driver.memory)
    driver.submit(os.urandom(512), 7)
    written = bytes(driver.memory)
    assert nothing_happens(driver.finished) and bytes(driver.memory) == written and before != written
    control.inject("bus-master-on")
    complete(driver, "the ring is looked at when the gate opens")
    assert driver.wait(driver.events[1])
    driver.check()


def test_stop_and_continue(control, driver):
    control.inject("stop")
    assert control.show()["gate"]["closed-by"] == ["stopped"]
    driver.submit(os.urandom(512), 7)
    assert nothing_happens(driver.finished)
    assert driver.status() == 0xF  # the registers answer
    control.inject("continue")
    complete(driver, "it goes on")
    driver.check()


@pytest.mark.parametrize("kind", ["bist", "unannounced", "msix-table"])
def test_backdoor_reset_that_is_survived(control, driver, kind):
    """The device has lost its copy of the interrupt table; nothing else, and the guest does not notice."""
    control.inject("backdoor-reset", kind=kind)
    assert control.show()["events"].get("unannounced-reset", 0) == (kind != "msix-table")
    driver.check()
    assert driver.wait(driver.events[1]) and driver.count(driver.events[1]) == 2
    assert driver.status() == 0xF


def test_backdoor_reset_of_the_bus(control, driver):
    control.inject("backdoor-reset", kind="bus")
    assert control.show()["events"]["secondary-bus-reset"] == 1
    assert driver.read(vfu.CONFIG, 4, 2) == b"\0\0"
    driver.bring_up()
    driver.check()
    with pytest.raises(Refused):
        control.inject("backdoor-reset", kind="nice")


# ---- interrupts ----

def test_lose_interrupt(control, driver):
    control.inject("lose-interrupt", vector=1, count=2)
    for _ in range(2):
        driver.submit(bytes(512), 3)
        complete(driver, "only the interrupt is lost")
    assert nothing_happens(lambda: driver.wait(driver.events[1], 0))
    driver.submit(bytes(512), 3)
    complete(driver, "the third")
    assert driver.wait(driver.events[1]) and driver.count(driver.events[1]) == 1, "exactly those two were lost"
    assert {v["vector"]: v["lost"] for v in control.show()["interrupts"]["msix"]}[1] == 2
    with pytest.raises(Refused):
        control.inject("lose-interrupt", vector=77)
    # What was to be lost and has not been is given up with a count of 0.
    control.inject("lose-interrupt", vector=1, count=5)
    control.inject("lose-interrupt", vector=1, count=0)
    driver.submit(bytes(512), 3)
    assert driver.wait(driver.events[1])
    driver.wait_for(driver.finished, "the last")


def test_spurious_interrupt(control, driver):
    control.inject("spurious-interrupt", vector=1)
    assert driver.wait(driver.events[1]) and driver.count(driver.events[1]) == 1
    assert driver.finished()
    driver.check()
    with pytest.raises(Refused):
        control.inject("spurious-interrupt", vector=2000)


def test_err(server, control, driver):
    control.inject("err")
    assert driver.wait(driver.err) and driver.count(driver.err) == 1 and driver.count(driver.req) == 0
    driver.check()
    with pytest.raises(Refused, match="ERR"):
        control.inject("err", device="d1")


# ---- memory ----

def test_withdraw_for_a_while(control, driver):
    withdrawn = control.inject("withdraw-mapping", pick=123456, **{"for": 0.4})
    assert withdrawn["bytes"] == driver.MEMORY and control.show()["mappings"]["count"] == 0
    driver.submit(os.urandom(512), 9)
    assert nothing_happens(driver.finished, 0.1)
    eventually(driver.finished, "the mapping comes back, and a miss is not a fault")
    assert driver.status() == 0xF
    driver.check()
    assert control.show()["mappings"]["bytes"] == driver.MEMORY


def test_withdraw_a_piece(control, driver):
    data = driver.BASE + driver.DATA
    assert control.inject("withdraw-mapping", iova=data & ~0xFFF, size=4096)["bytes"] == 4096
    control.inject("withdraw-mapping", pick=5, size=8192)  # the same one twice is no matter
    assert control.show()["mappings"]["count"] >= 2
    control.inject("give-back")
    assert control.show()["mappings"]["bytes"] == driver.MEMORY
    driver.check()
    for iova, size in ((1, 4096), (0, 5)):
        with pytest.raises(Refused):
            control.inject("withdraw-mapping", iova=iova, size=size)
    with pytest.raises(Refused, match="no mapping"):
        control.inject("withdraw-mapping", device="d1")


def test_withdrawn_and_unmapped_stays_away(control, driver):
    control.inject("withdraw-mapping")
    assert driver.unmap(driver.BASE, driver.MEMORY) == 0
    assert control.inject("give-back")["bytes"] == 0
    assert driver.map(driver.BASE, driver.MEMORY, driver.fd) == 0
    # Something else was mapped in its place: that stays.
    control.inject("withdraw-mapping")
    other = vfu.memory_file(driver.MEMORY)
    os.pwrite(other, bytes(driver.memory), 0)
    assert driver.map(driver.BASE, driver.MEMORY, other) == 0
    assert control.inject("give-back")["bytes"] == 0
    assert driver.unmap(driver.BASE, driver.MEMORY) == 0
    os.close(other)
    assert driver.map(driver.BASE, driver.MEMORY, driver.fd) == 0
    driver.check()


def test_withdrawn_when_the_client_goes(server, control):
    with Driver(server.sockets[0]) as driver:
        driver.check()
        control.inject("withdraw-mapping", **{"for": 0.2})
    eventually(lambda: control.show()["state"] == "free", "free again")
    time.sleep(0.3)
    assert control.show()["mappings"]["count"] == 0
    with Driver(server.sockets[0]) as driver:
        driver.check()


# ---- the connection ----

def test_cut(server, control, driver):
    driver.submit(os.urandom(512), 9)
    control.inject("cut")
    driver.expect_closed()
    eventually(lambda: control.show()["state"] == "free", "free for the next")
    assert control.show()["events"]["connection-lost"] == 1
    with pytest.raises(Refused, match="no client"):
        control.inject("cut")
    with Driver(server.sockets[0]) as again:
        again.check()


def removal(control, server, driver):
    driver.check()
    driver.submit(os.urandom(512), 9)
    control.inject("remove")
    assert driver.read(vfu.CONFIG, 0, 4) == b"\xff" * 4, "a removed function answers"
    bar, start = driver.where[1]
    assert driver.read(bar, start, 8) == b"\xff" * 8
    driver.write(bar, start + 20, b"\x0f")  # goes nowhere, and is answered
    shown = control.show()
    assert shown["state"] == "gone" and shown["events"]["surprise-removal"] == 1 and shown["mappings"]["count"] == 0
    assert "asked-unplug" not in shown["events"] and "forced-unplug" not in shown["events"]
    assert not shown["gate"]["open"] and driver.count(driver.req) == 0
    assert not any(v["held"]["bound"] for v in shown["interrupts"]["msix"])
    before = bytes(driver.memory)
    driver.kick()
    assert nothing_happens(lambda: bytes(driver.memory) != before)
    with pytest.raises(Refused, match="still connected"):
        control.call("plug", id="d0")
    assert driver.map(0x10000000, driver.MEMORY, driver.fd) == 0  # a client goes on with its own affairs
    driver.close()
    eventually(lambda: not control.show()["attached"], "the client has gone")
    assert control.show()["state"] == "gone" and control.show()["mappings"]["count"] == 0
    with Client(server.sockets[0], hello=False) as refused:
        refused.expect_closed()
    assert control.call("plug", id="d0")["state"] == "free"
    with Driver(server.sockets[0]) as again:
        again.check()


def test_removal(server, control):
    with Driver(server.sockets[0]) as driver:
        removal(control, server, driver)


def test_mutation_removal(program, tmp_path):
    """law8.removal has to be noticed, for its reason."""
    if b"law8.removal" not in program.read_bytes():
        pytest.skip("the build has no mutations (-Dmutations=true)")
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with Controlled(program, tmp_path, backends=[f"path={tmp_path / 'disk'}"], env=dict(os.environ, PINTLE_MUTATE="law8.removal")) as server:
        with server.connect() as control, Driver(server.sockets[0]) as driver, pytest.raises(AssertionError, match="a removed function answers"):
            removal(control, server, driver)


def test_removal_of_nobodys(server, control):
    control.inject("remove")
    assert control.show()["state"] == "gone"
    with pytest.raises(Refused):
        control.inject("remove")
    with pytest.raises(Refused, match="gone"):
        control.inject("bus-master-off")
    control.call("plug", id="d0")
    with Driver(server.sockets[0]) as driver:
        driver.check()


# ---- the back end ----

def test_fail(control, driver):
    control.inject("fail", error="EIO", on="write", count=2)
    data = os.urandom(512)
    assert driver.transfer(1, data, 5)[0] == IOERR
    assert driver.transfer(0, bytes(512), 5)[0] == 0  # reads do not fail
    assert driver.transfer(1, data, 5)[0] == IOERR
    assert driver.transfer(1, data, 5)[0] == 0
    assert driver.transfer(0, bytes(512), 5) == (0, data)
    assert control.show()["injected"]["requests"] == 2
    control.inject("fail", error="ENOSPC", **{"for": 0.2})
    assert driver.transfer(1, data, 5)[0] == IOERR
    eventually(lambda: driver.transfer(1, data, 5)[0] == 0, "its time is over")
    control.inject("fail", on="read")
    assert driver.transfer(0, bytes(512), 5)[0] == IOERR
    control.inject("heal")
    driver.check()
    assert driver.status() == 0xF


def test_fail_of_memory(server, control):
    with Driver(server.sockets[1]) as driver:
        control.inject("fail", device="d1", count=1)
        assert driver.transfer(1, bytes(512), 5)[0] == IOERR
        driver.check()
    with pytest.raises(Refused, match="cannot be slow"):
        control.inject("slow", device="d1", time=1)


def test_slow(control, driver):
    control.inject("slow", time=1, on="write")
    begun = time.monotonic()
    assert driver.transfer(0, bytes(512), 5)[0] == 0
    driver.submit(os.urandom(512), 5)
    # What its queue's thread has not taken yet would stay in the ring.
    eventually(lambda: control.show()["virtio"]["queues"][0]["in-flight"] == 1, "under way")
    # A slow disk holds up nobody: bus master goes off at once, and the request is parked.
    driver.write(vfu.CONFIG, 4, struct.pack("<H", 2))
    eventually(lambda: control.show()["virtio"]["queues"][0]["parked"] == 1, "parked")
    assert time.monotonic() - begun >= 1 and not driver.finished()
    driver.write(vfu.CONFIG, 4, struct.pack("<H", 6))
    complete(driver, "published")
    control.inject("slow", time=0.05, count=1)
    control.inject("heal")
    driver.check()


def test_keys_of_serve(program, tmp_path):
    with Controlled(program, tmp_path, backends=["backend=memory,size=1M,fail=EIO,fail-on=read,fail-after=1,fail-count=2"]) as server:
        with Driver(server.sockets[0]) as driver:
            assert [driver.transfer(0, bytes(512), 1)[0] for _ in range(5)] == [0, IOERR, IOERR, 0, 0]
            driver.check()
        assert server.end() == 0


# ---- the command and its scripts ----

def test_command_line(server, driver):
    assert server.pintle("inject", "d0", "spurious-interrupt", "--vector", 1)[0] == 0
    assert driver.wait(driver.events[1])
    status, out, _ = server.pintle("inject", "d0", "withdraw-mapping", "--size", "8K", "--pick", 3, "--for", "10ms", "--json")
    assert status == 0 and '"bytes": 8192' in out
    assert server.pintle("inject", "d0", "slow", "--time", "1ms", "--count", 1)[0] == 0
    driver.check()
    assert server.pintle("inject", "d0", "nonsense")[0] == 1
    assert server.pintle("inject", "d0")[0] == 2
    assert server.pintle("inject", "d0", "cut", "--for", "yesterday")[0] == 2


SCRIPT = """# bus master goes and comes
at 20ms  d0 bus-master-off
at 40ms  d0 bus-master-on
every 15ms..60ms random d0 spurious-interrupt,bus-master-on vector=0..1 count=1
repeat 100ms
end 450ms
"""


def dry(program, path, seed):
    result = subprocess.run([program, "inject", "--script", path, "--seed", str(seed), "--print"], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_script_is_its_seed(program, tmp_path):
    path = tmp_path / "script"
    path.write_text(SCRIPT)
    first = dry(program, path, 1)
    assert first == dry(program, path, 1) and first != dry(program, path, 2)
    times = [float(line.split()[0]) for line in first.splitlines()]
    assert times == sorted(times) and times[-1] <= 0.45
    offs = [line.split()[0] for line in first.splitlines() if line.endswith("d0 bus-master-off")]
    assert offs == ["0.020000", "0.120000", "0.220000", "0.320000", "0.420000"]
    gaps = [b - a for a, b in zip([0] + [float(t) for t, *rest in (line.split() for line in first.splitlines()) if "count=1" in rest][:-1],
                                  [float(t) for t, *rest in (line.split() for line in first.splitlines()) if "count=1" in rest])]
    assert gaps and all(0.0149 < gap < 0.0601 for gap in gaps)


def test_script_is_run(program, server, control, driver, tmp_path):
    path = tmp_path / "script"
    path.write_text(SCRIPT.replace("count=1", ""). replace("spurious-interrupt,bus-master-on vector=0..1", "spurious-interrupt,spurious-interrupt vector=0..1"))
    expected = dry(program, path, 3)
    status, out, errors = server.pintle("inject", "--script", path, "--seed", 3)
    assert status == 0 and out == expected and not errors
    control.inject("bus-master-on")
    assert driver.wait(driver.events[1])
    driver.check()


@pytest.mark.parametrize("line, words", [("at d0 cut", "no time"), ("at 1s d0", "a device and a fault"), ("when 1s d0 cut", "begins with"), ("at 1s d0 cut vector", "key=value"),
                                         ("at 1s d0 cut colour=7", "no fault takes"), ("at 1s d0 cut vector=x", "not understood"), ("every 0s d0 cut", "more than 0"),
                                         ("at 1s..2s d0 cut", "one time"), ("every 2s..1s d0 cut", "no time"), ("at 1s d0 cut " + "vector=1 " * 30, "too many words"),
                                         ("#" * 2000, "too long"), ("at", "lacks a time")])
def test_bad_scripts(program, tmp_path, line, words):
    path = tmp_path / "script"
    path.write_text("# fine\n" + line + "\n")
    result = subprocess.run([program, "inject", "--script", path, "--print"], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 2 and words in result.stderr and "line 2" in result.stderr, result.stderr


def test_script_beside_io(server, control):
    """Verified I/O, from driver to driver as connections are cut, with everything at once going on that a driver can survive."""
    stop = threading.Event()
    failures, checks = [], [0]

    def drive():
        while not stop.is_set():
            try:
                with Driver(server.sockets[0]) as driver:
                    while not stop.is_set():
                        driver.check()
                        checks[0] += 1
            except (vfu.Closed, OSError):
                time.sleep(0.005)
            except AssertionError as failure:
                failures.append(failure)
                return
    thread = threading.Thread(target=drive)
    thread.start()
    script = ("every 10ms..30ms d0 spurious-interrupt vector=0..1\nevery 20ms..40ms random d0 lose-interrupt,lose-interrupt vector=1 count=1..3\n"
              "every 30ms..60ms d0 withdraw-mapping pick=0..1000000 for=1ms..10ms\nevery 20ms..50ms d0 slow time=1ms..5ms count=1..10\n"
              "every 300ms..600ms d0 cut\nend 4s\n")
    path = server.folder / "script"
    path.write_text(script)
    status, out, _ = server.pintle("inject", "--script", path, "--seed", 11)
    stop.set()
    control.inject("give-back")
    thread.join()
    assert status == 0 and not failures, failures
    assert checks[0] > 50 and re.search(r"d0 cut$", out, re.MULTILINE)
