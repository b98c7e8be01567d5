# SPDX-License-Identifier: BSD-2-Clause
"""The control socket and `pintle ctl`: each method against the real server with a driver attached, unplug in all its forms, and clients who mean no good."""
import json
import os
import pathlib
import random
import signal
import stat
import struct
import subprocess
import tempfile
import threading
import time

import pytest
from controlled import Control, Controlled, Driver, Refused, eventually
from serving import PATIENCE, Server, build
import vfu
from vfu import Client, Closed

SEED = int(os.environ.get("PINTLE_SEED", "1"))


@pytest.fixture(scope="session")
def program():
    path = build() / "pintle"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


@pytest.fixture
def server(program, tmp_path):
    with Controlled(program, tmp_path, "--control-threads", "2") as found:
        yield found
        if found.process.poll() is None:
            assert found.end() == 0, found.words()
        assert not found.control.exists()


@pytest.fixture
def control(server):
    with server.connect() as found:
        yield found


# ---- list, show, metrics ----

def test_list_and_show(server, control):
    assert [(d["id"], d["state"], d["attached"]) for d in control.call("list")["devices"]] == [("d0", "free", False), ("d1", "free", False)]
    shown = control.show()
    assert shown["gate"] == {"open": False, "closed-by": ["no-driver", "no-client", "no-bus-master"]}
    with Driver(server.sockets[0]) as driver:
        driver.check()
        shown = control.show()
        assert shown["state"] == "attached" and shown["gate"] == {"open": True, "closed-by": []}
        assert shown["client"]["pid"] == os.getpid() and shown["client"]["connections"] == 1
        assert shown["mappings"]["count"] == 1 and shown["mappings"]["bytes"] == driver.MEMORY
        assert shown["interrupts"]["mode"] == "msix"
        vectors = {v["vector"]: v for v in shown["interrupts"]["msix"]}
        assert vectors[1]["held"]["bound"] and vectors[1]["delivered"] == driver.count(driver.events[1])
        assert shown["interrupts"]["req"] and shown["interrupts"]["err"]
        queue = shown["virtio"]["queues"][0]
        assert queue["enabled"] and queue["requests"] == 2 and queue["kicks"] >= 1 and queue["in-flight"] == 0
        assert shown["virtio"]["status"] == 0xF and shown["virtio"]["blk"]["capacity"] == "1048576 bytes"
        assert shown["events"] == {"connect": 1, "virtio-reset": shown["events"]["virtio-reset"]}
        driver.write(vfu.CONFIG, 4, struct.pack("<H", 2))
        assert control.show()["gate"]["closed-by"] == ["no-bus-master"]
    eventually(lambda: control.show()["state"] == "free", "free after its client")
    assert control.show()["events"]["connection-lost"] == 1
    with pytest.raises(Refused, match="no device"):
        control.show("d7")


def test_metrics(server, control):
    with Driver(server.sockets[0]) as driver:
        driver.check()
        text = control.call("metrics")["text"]
    lines = text.splitlines()
    assert lines[-1] == "# EOF"
    assert 'pintle_attached{device="d0"} 1' in lines and 'pintle_attached{device="d1"} 0' in lines
    assert 'pintle_queue_requests_total{device="d0",queue="0"} 2' in lines
    assert 'pintle_events_total{device="d0",event="connect"} 1' in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_command_line(server):
    with Driver(server.sockets[0]) as driver:
        driver.check()
        status, out, _ = server.pintle("ctl", "list")
        assert status == 0 and out.splitlines()[1].split()[:3] == ["d0", "blk", "attached"] and "open" in out
        status, out, _ = server.pintle("ctl", "show", "d0")
        assert status == 0 and "gate:\n  open: yes" in out
        status, out, _ = server.pintle("ctl", "--json", "show", "d0")
        assert status == 0 and json.loads(out)["id"] == "d0"
    assert server.pintle("ctl", "show", "d9")[0] == 1
    assert server.pintle("ctl", "show", "d0", "--nonsense")[0] == 2
    assert server.pintle("ctl")[0] == 2
    status, out, _ = server.pintle("ctl", "methods")
    assert status == 0 and all(name in out for name in ("list", "show", "unplug", "plug", "reset", "resize", "inject", "metrics"))
    assert server.pintle("ctl", "metrics")[1].endswith("# EOF\n")


def test_default_socket(server):
    environment = dict(os.environ, PINTLE_CONTROL=str(server.control))
    result = subprocess.run([server.program, "ctl", "list"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    environment["PINTLE_CONTROL"] = str(server.control) + ".no"
    result = subprocess.run([server.program, "ctl", "list"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1 and "cannot connect" in result.stderr


# ---- reset, resize ----

@pytest.mark.parametrize("kind, event", [("device", "device-reset"), ("flr", "flr"), ("bus", "secondary-bus-reset")])
def test_reset(server, control, kind, event):
    with Driver(server.sockets[0]) as driver:
        driver.check()
        control.call("reset", id="d0", kind=kind)
        assert control.show()["events"][event] == 1
        assert driver.read(vfu.CONFIG, 4, 2) == b"\0\0"  # nobody told the guest
        driver.bring_up()
        driver.check()
    with pytest.raises(Refused, match="there is no reset"):
        control.call("reset", id="d0", kind="hard")


def test_resize_memory(server, control):
    with Driver(server.sockets[0]) as driver:
        driver.check()
        assert control.call("resize", id="d0", size=4 << 20)["bytes"] == 4 << 20
        assert driver.wait(driver.events[0]), "no configuration interrupt"
        bar, start = driver.where[4]
        assert struct.unpack("<Q", driver.read(bar, start, 8))[0] == (4 << 20) // 512
        data = os.urandom(512)
        assert driver.transfer(1, data, (4 << 20) // 512 - 1)[0] == 0
        assert driver.transfer(0, bytes(512), (4 << 20) // 512 - 1) == (0, data)
        control.call("resize", id="d0", size=1 << 20)
        assert driver.transfer(1, data, (4 << 20) // 512 - 1)[0] == 1, "a request beyond the end"
        driver.check()
    for size in (0, 1000, 1 << 60):
        with pytest.raises(Refused):
            control.call("resize", id="d0", size=size)


def test_resize_image(program, tmp_path):
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    with Controlled(program, tmp_path, backends=[f"path={image}"]) as server, server.connect() as control:
        with Driver(server.sockets[0]) as driver:
            driver.check()
            with pytest.raises(Refused, match="image's"):
                control.call("resize", id="d0", size=2 << 20)
            os.truncate(image, 2 << 20)
            numbers = [control.begin("resize", id="d0") for _ in range(3)]
            assert [control.result(n)["bytes"] for n in numbers] == [2 << 20] * 3
            assert driver.wait(driver.events[0]), "no configuration interrupt"
            driver.check()
        assert server.end() == 0


# ---- unplug ----

def test_unplug_asked(server, control):
    with Driver(server.sockets[0]) as driver:
        driver.check()
        assert control.call("unplug", id="d0") == {"id": "d0", "state": "unplug-asked", "told": True}
        assert driver.count(driver.req) == 1 and driver.count(driver.err) == 0
        driver.check()  # it works on until the client goes
        control.call("unplug", id="d0")
        assert driver.count(driver.req) == 1
        waiting = server.connect()
        number = waiting.begin("unplug", id="d0", deadline=PATIENCE)
        driver.check()
        control.show("d0")
    assert waiting.result(number)["state"] == "gone"
    waiting.socket.close()
    shown = control.show()
    assert shown["state"] == "gone" and "detaching" in shown["gate"]["closed-by"] and shown["mappings"]["count"] == 0
    assert shown["events"]["asked-unplug"] == 3 and "forced-unplug" not in shown["events"]
    with Client(server.sockets[0], hello=False) as refused:
        refused.expect_closed()
    assert control.call("plug", id="d0")["state"] == "free"
    with Driver(server.sockets[0]) as driver:
        driver.check()


def test_unplug_tells_whether_it_was_told(server, control):
    with Client(server.sockets[0]):
        assert control.call("unplug", id="d0")["told"] is False
    eventually(lambda: control.show()["state"] == "gone", "gone")


def test_unplug_by_force(server, control):
    with Driver(server.sockets[1]) as bystander, Driver(server.sockets[0]) as driver:
        driver.check()
        assert control.call("unplug", id="d0", force=True)["state"] == "gone"
        driver.expect_closed()
        bystander.check()
        shown = control.show()
        assert shown["events"]["forced-unplug"] == 1 and "connection-lost" not in shown["events"] and shown["mappings"]["count"] == 0
        assert not shown["interrupts"]["msix"] or not any(v["held"]["bound"] for v in shown["interrupts"]["msix"])
        with pytest.raises((Closed, OSError, AssertionError)):
            Client(server.sockets[0])
        assert control.call("unplug", id="d0", force=True)["state"] == "gone"  # again
    control.call("plug", id="d0")
    with pytest.raises(Refused, match="only what is gone"):
        control.call("plug", id="d0")
    with Driver(server.sockets[0]) as driver:
        driver.check()


def test_unplug_deadline(server, control):
    with Driver(server.sockets[0]) as driver:
        with pytest.raises(Refused) as refused:
            control.call("unplug", id="d0", deadline=0.1)
        assert refused.value.name == "ETIMEDOUT"
        assert control.show()["state"] == "unplug-asked"
        driver.check()  # nothing was forced
        assert control.call("unplug", id="d0", deadline=0.1, force=True)["state"] == "gone"
        driver.expect_closed()
    assert control.show()["events"]["forced-unplug"] == 1


def test_unplug_of_nobodys(server, control):
    assert control.call("unplug", id="d0")["state"] == "gone"
    control.call("plug", id="d0")
    assert control.call("unplug", id="d0", force=True)["state"] == "gone"
    control.call("plug", id="d0")
    with Driver(server.sockets[0]) as driver:
        driver.check()


def test_force_and_plug_again_and_again(server, control):
    """With a client in all states of an acquaintance, the forced path ends in the right state."""
    for number in range(60):
        client = Client(server.sockets[0], hello=number % 3 > 0) if number % 4 else None
        driver = None
        if number % 4 == 3:
            client.close()
            eventually(lambda: not control.show()["attached"], "the client is gone")
            driver = Driver(server.sockets[0])
            driver.submit(bytes(512), 0)
        assert control.call("unplug", id="d0", force=True)["state"] == "gone"
        assert control.call("plug", id="d0")["state"] == "free"
        if driver:
            driver.close()
        elif client:
            client.close()
    with Driver(server.sockets[0]) as driver:
        driver.check()


def unplug_does_not_wait(program, folder, **options):
    with Controlled(program, folder, **options) as server, server.connect() as control, server.connect() as other:
        with Driver(server.sockets[0]) as driver, Driver(server.sockets[1]) as bystander:
            driver.check()
            other.begin("unplug", id="d0", deadline=PATIENCE)
            eventually(lambda: driver.count(driver.req), "the client is told")
            control.socket.settimeout(5)
            try:
                assert control.show("d1")["state"] == "attached"
            except TimeoutError:
                raise AssertionError("the control thread waits for a client to go") from None
            driver.check()  # an access during unplug is answered
            bystander.check()
        assert server.end() == 0


def test_unplug_does_not_wait(program, tmp_path):
    unplug_does_not_wait(program, tmp_path)


def test_mutation_unplug(program, tmp_path):
    """law3.unplug has to be noticed, for its reason."""
    if b"law3.unplug" not in program.read_bytes():
        pytest.skip("the build has no mutations (-Dmutations=true)")
    with pytest.raises(AssertionError, match="the control thread waits for a client to go"):
        unplug_does_not_wait(program, tmp_path, env=dict(os.environ, PINTLE_MUTATE="law3.unplug"))


# ---- the end ----

def test_end_with_calls_under_way(program, tmp_path):
    with Controlled(program, tmp_path) as server:
        controls = [server.connect() for _ in range(4)]
        driver = Driver(server.sockets[0])
        for control in controls:
            control.begin("unplug", id="d0", deadline=PATIENCE)
            for _ in range(5):
                control.begin("show", id="d0")
                control.begin("metrics")
                control.begin("resize", id="d1")
        assert server.end() == 0, server.words()
        driver.close()
        for control in controls:
            control.socket.close()


def test_without_sandbox_and_with_it(program, tmp_path):
    for sandbox in ("on", "off"):
        with Controlled(program, tmp_path, "--sandbox", sandbox) as server:
            status, out, words = server.pintle("ctl", "list")
            assert status == 0, words
            assert server.end() == 0


def test_config_file(program, tmp_path):
    config = {"devices": [{"type": "blk", "backend": "memory", "size": "1M", "road": {"type": "vfio-user", "path": str(tmp_path / "s")}}],
              "control": {"path": str(tmp_path / "c"), "mode": "0660"}}
    (tmp_path / "config").write_text(json.dumps(config))
    with Server(program, tmp_path, "--config", tmp_path / "config") as server:
        assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o660
        with Control(tmp_path / "c") as control:
            assert len(control.call("list")["devices"]) == 1
        assert server.end() == 0


# ---- who may come ----

def as_nobody(path, gid=65534):
    """What a process of another user gets: True if it was answered."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(65534)
            with Control(path, limit=10) as control:
                control.call("list")
            os.write(writing, b"1")
        finally:
            os._exit(0)
    os.close(writing)
    answer = os.read(reading, 1)
    os.close(reading)
    os.waitpid(child, 0)
    return answer == b"1"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("keys, allowed", [("", False), (",mode=0666", False), (",mode=0600,allow-uid=65534", False), (",mode=0666,allow-uid=65534", True),
                                           (",mode=0666,allow-gid=65533", True), (",mode=0666,allow-gid=65532", False)])
def test_permissions(program, keys, allowed):
    with tempfile.TemporaryDirectory(prefix="pintle-") as folder:
        os.chmod(folder, 0o755)
        with Controlled(program, pathlib.Path(folder), control=keys) as server:
            assert as_nobody(server.control, 65533) == allowed
            with server.connect() as control:
                control.call("list")
            assert server.end() == 0


# ---- hostile clients ----

BAD_LINES = [
    (b"{", -32700), (b"\xff\xfe", -32700), (b"[" * 5000, -32700), (b'{"a":1,"a":2}', -32700), (b'"\\u0000"', -32700), (b"nonsense", -32700),
    (b"[]", -32600), (b'[{"jsonrpc":"2.0","id":1,"method":"list"}]', -32600), (b"{}", -32600),
    (b'{"jsonrpc":"1.0","id":1,"method":"list"}', -32600), (b'{"jsonrpc":"2.0","id":{},"method":"list"}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600), (b'{"jsonrpc":"2.0","id":1,"method":"list","params":[]}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":"quit"}', -32601), (b'{"jsonrpc":"2.0","id":1,"method":"show"}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"show","params":{"id":7}}', -32602), (b'{"jsonrpc":"2.0","id":1,"method":"list","params":{"x":1}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"unplug","params":{"id":"d0","deadline":-1}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"unplug","params":{"id":"d0","deadline":1e300}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"resize","params":{"id":"d0","size":1.5}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"inject","params":{"id":"d0"}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"inject","params":{"id":"d0","fault":"cut","vector":1}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"inject","params":{"id":"d0","fault":"fail","error":"EPERM"}}', -32602),
]


def test_malformed(server, control):
    for line, code in BAD_LINES:
        control.send(line)
        reply = control.receive()
        assert reply["error"]["code"] == code, (line[:80], reply)
    # Blank lines are nothing; a notification is carried out and not answered.
    control.send(b"")
    control.send(b" \t\r")
    control.send(b'{"jsonrpc":"2.0","method":"unplug","params":{"id":"d1"}}')
    control.send(b'{"jsonrpc":"2.0","method":"nonsense"}')
    eventually(lambda: control.show("d1")["state"] == "gone", "the notification")
    assert control.show("d0")["state"] == "free"


def test_endless_line(server, control):
    with server.connect() as hostile:
        try:
            hostile.socket.sendall(b"x" * (1 << 20))
        except OSError:
            pass
        reply = hostile.receive()
        assert reply is None or reply["error"]["code"] == -32600
        assert reply is None or hostile.receive() is None
    control.call("list")


def test_endless_line_of_one_who_has_left(server, control):
    """The refusal itself finds that the connection has ended; the line is refused to nobody, once."""
    for _ in range(20):
        server.process.send_signal(signal.SIGSTOP)  # all of it is there, and its sender gone, before it is looked at
        try:
            with server.connect() as hostile:
                hostile.socket.sendall(b"x" * (1 << 16))
        finally:
            server.process.send_signal(signal.SIGCONT)
        control.call("list")


def test_does_not_read(server, control):
    with server.connect() as hostile:
        hostile.socket.settimeout(5)
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "methods"}).encode() + b"\n"
        with pytest.raises(OSError):
            for _ in range(100000):
                hostile.socket.sendall(line * 20)
    control.call("list")
    server.wait_for("does not read its replies")


def test_many_clients(server):
    with server.connect() as first:
        first.call("list")
        crowd = [server.connect() for _ in range(40)]
        eventually(lambda: "clients are connected" in server.words(), "the crowd is bounded")
        first.call("list")
        for one in crowd:
            one.socket.close()

        def again():
            try:
                with server.connect() as late:
                    late.call("list")
                return True
            except (AssertionError, OSError):
                return False
        eventually(again, "room after the crowd has gone")


def test_pieces_and_pipelines(server, control):
    line = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "show", "params": {"id": "d0"}}).encode() + b"\n"
    for byte in line:
        control.socket.sendall(bytes([byte]))
    assert control.receive()["id"] == 9
    numbers = [control.begin("show", id="d0") for _ in range(200)]
    for number in numbers:
        assert control.result(number)["id"] == "d0"


def test_random_lines(server, control):
    """Calls with mistakes in them. PINTLE_SEED makes others."""
    rng = random.Random(SEED)
    methods = ["list", "show", "reset", "resize", "plug", "unplug", "inject", "metrics", "methods", "x"]
    faults = ["bus-master-off", "bus-master-on", "backdoor-reset", "lose-interrupt", "spurious-interrupt", "withdraw-mapping", "give-back", "cut", "slow", "fail",
              "heal", "err", "remove", "stop", "continue", "?"]
    stop = threading.Event()

    def drive():
        while not stop.is_set():
            try:
                with Driver(server.sockets[0]) as driver:
                    for _ in range(3):
                        driver.submit(bytes(512), 0)
                        time.sleep(0.002)
            except (Closed, OSError, AssertionError, IndexError, KeyError, struct.error):
                time.sleep(0.002)
    thread = threading.Thread(target=drive)
    thread.start()
    try:
        for _ in range(600):
            params = {"id": rng.choice(["d0", "d0", "d0", "d9", 3])}
            method = rng.choice(methods)
            if method == "inject":
                params["fault"] = rng.choice(faults)
            for key, values in {"kind": ["bus", "flr", "bist", "msix-table", "unannounced", 1], "vector": [0, 1, 99, 1 << 40], "count": [0, 1, 5],
                                "for": [0, 0.001, -1], "force": [True, False, 1], "deadline": [0, 0.001, "x"], "size": [0, 512, 4096, 1 << 20, 1 << 62],
                                "iova": [0, 0x100000, 1], "pick": [0, 12345], "time": [0, 0.001], "on": ["read", "x"], "error": ["EIO", "x"]}.items():
                if rng.random() < 0.12:
                    params[key] = rng.choice(values)
            line = bytearray(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
            if rng.random() < 0.1:
                line[rng.randrange(len(line))] = rng.randrange(32, 127)
            control.send(bytes(line))
        number = control.begin("list")
        while (reply := control.receive()).get("id") != number or "devices" not in reply.get("result", {}):
            pass
    finally:
        stop.set()
        thread.join()
    # On a connection of its own: what takes its time, as growing does, may still be answered on the other.
    with Control(server.control) as other:
        other.call("unplug", id="d0", force=True)
        other.call("plug", id="d0")
        other.inject("continue")
        other.inject("heal")
    with Driver(server.sockets[0]) as driver:
        assert driver.status() == 0xF
