# SPDX-License-Identifier: BSD-2-Clause
"""The command line: what it takes, what it refuses and with what words, how a server starts, idles and ends, and what a device costs."""
import json
import os
import pathlib
import pwd
import re
import shlex
import signal
import socket
import stat
import subprocess
import time

import pytest
from serving import PATIENCE, TOP, Server, build, wait_until

GOLDEN = pathlib.Path(__file__).parent / "golden"
FAILED, USAGE = 1, 2


@pytest.fixture(scope="session")
def program():
    path = build() / "pintle"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


@pytest.fixture(scope="session")
def release():
    """Figures are those of the release build."""
    path = build("PINTLE_RELEASE", "build") / "pintle"
    assert path.exists(), f"{path} is missing: make builds it, or set PINTLE_RELEASE"
    return path


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    return path


@pytest.fixture
def serve(program, tmp_path):
    def start(*arguments, **options):
        return Server(program, tmp_path, *arguments, **options)
    return start


def blk(path, socket_path, device="", road=""):
    return ["--device", f"blk,path={path}{device}", "--road", f"vfio-user,path={socket_path}{road}"]


def pintle(program, *arguments, **options):
    return subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, **options)


def refused(program, folder, *arguments, status=FAILED):
    """Its words; it ended with that status, and left nothing behind."""
    before = {path.name for path in folder.iterdir()}
    result = pintle(program, "serve", *arguments, cwd=folder)
    assert result.returncode == status, result.stdout
    assert {path.name for path in folder.iterdir()} == before
    return result.stdout


def keys(help_text):
    """The keys that the help lists: six blanks, the key, its meaning."""
    return re.findall(r"^ {6}([a-z][a-z-]+) +\S", help_text, re.MULTILINE)


# ---- help and manuals ----

def test_help_lists_every_key_and_the_manual_mentions_it(program):
    words = pintle(program, "serve", "--help")
    assert words.returncode == 0
    listed = keys(words.stdout)
    # The tables are the parsers' own, so what is in them is what is taken.
    table = re.findall(r'^\t\{ "([a-z-]+)", KEY_', (TOP / "src/serve/keys.c").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(table) and len(table) > 25
    manual = (TOP / "docs/man/pintle-serve.1").read_text()
    lacking = [key for key in set(table) if not re.search(rf"^\.It (Cm|Fl) .*(?<![\w]){re.escape(key)}\b", manual, re.MULTILINE)
               and not re.search(rf"^\.It .*Fl -{re.escape(key)}\b", manual, re.MULTILINE)]
    assert not lacking


@pytest.mark.parametrize("command", ["serve", "probe", "bench", "qemu-args"])
def test_every_command_explains_itself(program, command):
    result = pintle(program, command, "--help")
    assert result.returncode == 0 and result.stdout.startswith(f"Usage: pintle {command} ")
    assert f"pintle-{command}" in (TOP / "docs/man/pintle.1").read_text()


def test_options_of_the_bench_are_all_in_its_manual_or_help(program):
    words = pintle(program, "bench", "--help").stdout
    manual = (TOP / "docs/man/pintle-bench.1").read_text()
    for option in re.findall(r"^\.It Fl -([a-z-]+)", manual, re.MULTILINE):
        assert f"--{option}" in words


def test_bare_and_unknown_commands(program):
    assert pintle(program).returncode == USAGE
    unknown = pintle(program, "frobnicate")
    assert unknown.returncode == USAGE and 'there is no command "frobnicate"' in unknown.stdout and "serve" in unknown.stdout
    assert pintle(program, "--version").stdout == "pintle 0.1.0\n"


# ---- what is refused, and how ----

# What is given: what has to be said, beside `pintle serve:` and how to get help.
MISUSES = {
    "": ["nothing to serve", "--device blk,path=IMAGE --road vfio-user,path=SOCKET"],
    "--device blk,path=disk.img": ["device d0 has no road", "add --road"],
    "--road vfio-user,path=s": ["a road belongs to the device before it"],
    "--device blk,path=disk.img --road vfio-user,path=s --road vfio-user,path=t": ["has a road already"],
    "--device net,path=x --road vfio-user,path=s": ['no device "net"', "there is: blk"],
    "--device blk,path=disk.img --road carrier-pigeon,path=s": ['no road "carrier-pigeon"', "there is: vfio-user"],
    "--device host-xen,address=0000:00:05.0": ["device d0 has no road", "add --road xen"],
    "--device host-xen --road xen": ["address=0000:03:00.0 is missing"],
    "--device host-xen,address=5 --road xen": ["address=5 is not understood"],
    "--device host-xen,address=0000:00:05.0 --road vfio-user,path=s": ["vfio-user does not carry host-xen", "one that does: xen"],
    "--device blk,path=disk.img --road xen": ["xen does not carry blk", "one that does: vfio-user"],
    "--device host-xen,address=0000:00:05.0 --road xen,slots=any": ["slots=any", "passed", "virtual"],
    "--device host-xen,address=0000:00:05.0 --road xen,on-stop=run": ["on-stop=run", "keep", "close"],
    "--device host-xen,address=0000:00:05.0 --road xen,path=s": ['no key "path"'],
    "--device blk,path=disk.img,colour=red --road vfio-user,path=s": ['no key "colour"', "--help"],
    "--device blk,path=disk.img,share --road vfio-user,path=s": ['"share" is not of the form key=value'],
    "--device blk,path=disk.img,queues=0 --road vfio-user,path=s": ["queues=0", "1 to 64"],
    "--device blk,path=disk.img,queues=2x --road vfio-user,path=s": ["queues=2x", "1 to 64"],
    "--device blk,path=disk.img,queue-size=100 --road vfio-user,path=s": ["powers of two"],
    "--device blk,path=disk.img,block-size=600 --road vfio-user,path=s": ["powers of two"],
    "--device blk,path=disk.img,read-only=maybe --road vfio-user,path=s": ["read-only=maybe", "on or off"],
    "--device blk,path=disk.img,direct=perhaps --road vfio-user,path=s": ["direct=perhaps", "auto, on or off"],
    "--device blk,path=disk.img,bus-master=loose --road vfio-user,path=s": ["bus-master=loose", "strict", "lenient"],
    "--device blk,path=disk.img,poll=fast --road vfio-user,path=s": ["poll=fast", "us"],
    "--device blk,path=disk.img,poll=2s --road vfio-user,path=s": ["poll=2s"],
    "--device blk,path= --road vfio-user,path=s": ["path=", "image file"],
    "--device blk,backend=null --road vfio-user,path=s": ["backend=null needs size="],
    "--device blk,backend=null,size=5 --road vfio-user,path=s": ["size=5", "512"],
    "--device blk,backend=null,size=99999999999999999999 --road vfio-user,path=s": ["size=99999999999999999999"],
    "--device blk,backend=null,size=99999999T --road vfio-user,path=s": ["size=99999999T"],
    "--device blk,path=disk.img,backend=memory,size=1M --road vfio-user,path=s": ["takes no path"],
    "--device blk,path=disk.img,size=1M --road vfio-user,path=s": ["the size of an image is its own"],
    "--device blk,path=disk.img --road vfio-user": ["path=SOCKET or fd=N"],
    "--device blk,path=disk.img --road vfio-user,path=s,fd=3": ["path=SOCKET or fd=N"],
    "--device blk,path=disk.img --road vfio-user,path=s,mode=899": ["mode=899", "octal"],
    "--device blk,path=disk.img --road vfio-user,path=s,mode=7777": ["mode=7777", "777"],
    "--device blk,path=disk.img --road vfio-user,fd=-1": ["fd=-1"],
    "--device blk,backend=null,size=1M --road vfio-user,fd=3 --device blk,backend=null,size=1M --road vfio-user,fd=3": ["d0 and d1", "fd=3"],
    "--device blk,path=disk.img,id=a --road vfio-user,path=s --device blk,path=disk.img,id=a --road vfio-user,path=t": ["two devices have the id a"],
    "--device blk,path=disk.img --road vfio-user,path=s --io-threads 0": ["io-threads=0", "1 to 256"],
    "--device blk,path=disk.img --road vfio-user,path=s --control-threads=many": ["control-threads=many", "1 to 256"],
    "--device blk,path=disk.img --road vfio-user,path=s --sandbox=some": ["sandbox=some", "on or off"],
    "--device blk,path=disk.img --road vfio-user,path=s --frobnicate": ['"--frobnicate" is no option'],
    "--device blk,path=disk.img --road vfio-user,path=s extra": ['"extra" is no option'],
    "--device": ['"--device"', "value"],
    "--config nowhere.json": ["nowhere.json", "No such file"],
}


@pytest.mark.parametrize("line", MISUSES)
def test_misuse(program, tmp_path, image, line):
    words = refused(program, tmp_path, *shlex.split(line), status=USAGE)
    assert words.startswith("pintle serve: ") and "pintle serve --help" in words
    for part in MISUSES[line]:
        assert part in words, words


# What is given: what has to be said. These are not the command line's fault.
FAILURES = {
    "--device blk,path=nowhere.img --road vfio-user,path=s": ["device d0", 'cannot open "nowhere.img"', "No such file"],
    "--device blk,path=. --road vfio-user,path=s": ["device d0", "Is a directory"],
    "--device blk,path=disk.img --road vfio-user,path=nowhere/s": ["device d0", "cannot make the socket nowhere/s", "folder"],
    "--device blk,path=disk.img --road vfio-user,path=" + "x" * 120: ["at most 107 bytes"],
    "--device blk,path=disk.img --road vfio-user,path=s,owner=no-such-user": ["no user no-such-user"],
    "--device blk,path=disk.img --road vfio-user,path=s,group=no-such-group": ["no group no-such-group"],
    "--device blk,path=disk.img --road vfio-user,fd=0": ["descriptor 0 is no socket"],
    "--device blk,path=disk.img --road vfio-user,fd=77": ["descriptor 77", "Bad file descriptor"],
    # 5 will be one of the server's own by the time the device is made.
    "--device blk,path=disk.img --road vfio-user,fd=5": ["descriptor 5", "Bad file descriptor"],
    "--device blk,path=disk.img,serial=" + "s" * 21 + " --road vfio-user,path=s": ["longer than 20"],
    "--device blk,path=disk.img --road vfio-user,path=s --device blk,path=disk.img --road vfio-user,path=t": ["device d1", "in use", "share=on"],
    "--device blk,backend=null,size=1M --road vfio-user,path=s --device blk,backend=null,size=1M --road vfio-user,path=s":
        ["device d1", "somebody listens on s already"],
}


@pytest.mark.parametrize("line", FAILURES)
def test_failure(program, tmp_path, image, line):
    words = refused(program, tmp_path, *shlex.split(line))
    assert words.startswith("pintle serve: ")
    for part in FAILURES[line]:
        assert part in words, words


CONFIGURATIONS = {
    "not JSON": ["line 1"],
    "[]": ['"devices"'],
    '{"devices": []}': ["nothing to serve"],
    '{"devices": [{"path": "disk.img"}]}': ["device 0", '"type"'],
    '{"devices": [{"type": "blk", "path": ["disk.img"]}]}': ['"path"', "string"],
    '{"devices": [{"type": "blk", "path": "disk.img", "road": {"path": "s"}}]}': ["no road"],
    '{"devices": [{"type": "blk", "path": "disk.img", "road": 7}]}': ["no road"],
    '{"devices": [{"type": "blk", "path": "disk.img", "path": "b"}]}': ["duplicate"],
    '{"threads": 2, "devices": []}': ['no key "threads"'],
    '{"devices": [{"type": "blk", "queues": 1.5}]}': ['"queues"', "whole number"],
    '{"devices": [{"type": "blk", "queues": -1}]}': ["queues=-1"],
}


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configuration_with_a_mistake(program, tmp_path, image, text):
    (tmp_path / "c.json").write_text(text)
    words = refused(program, tmp_path, "--config", "c.json", status=USAGE)
    for part in CONFIGURATIONS[text]:
        assert part in words, words


# ---- what is taken ----

def test_every_key_of_a_device_is_taken(serve, program, tmp_path, image):
    device = ",id=disk,serial=S-1,queues=2,queue-size=128,block-size=4096,direct=off,bus-master=lenient,poll=10us,delay=1us,delay-before=on," \
             "read-only=on,share=on,zero-copy=on,in-order=on,packed=off,msix=off,backend=file"
    with serve(*blk(image, "s", device, ",mode=0640")) as server:
        words = pintle(program, "probe", tmp_path / "s").stdout
        assert "MSI-X" not in words and "RING_PACKED" not in words and "IN_ORDER" in words
        assert "2 queues" in words and "at most 128" in words and "block 4096" in words and "read-only" in words
        assert server.end() == 0


def test_a_comma_in_a_name_is_written_twice(serve, tmp_path):
    path = tmp_path / "a,b.img"
    path.write_bytes(bytes(1 << 20))
    with serve(*blk("a,,b.img", "s,,t")) as server:
        assert (tmp_path / "s,t").is_socket() and server.end() == 0


def test_configuration_file_and_command_line_together(serve, program, tmp_path, image):
    (tmp_path / "c.json").write_text(json.dumps({"io-threads": 2, "sandbox": True, "devices": [
        {"type": "blk", "backend": "memory", "size": "1M", "id": "ram", "msix": False, "road": {"type": "vfio-user", "path": "ram.sock"}},
        {"type": "blk", "backend": "null", "size": 1048576, "queues": 2, "road": {"type": "vfio-user", "path": "null.sock", "mode": "0666"}}]}))
    with serve("--config", "c.json", *blk(image, "file.sock"), "--control-threads", "2") as server:
        assert server.says("ready: 3 devices")
        for name, size in (("ram", "1M"), ("null", "1M"), ("file", "16M")):
            assert f"sectors ({size})" in pintle(program, "probe", tmp_path / f"{name}.sock").stdout
        assert {(task / "comm").read_text().strip() for task in server.tasks()} >= {"io0", "io1"}
        assert server.end() == 0
    assert not list(tmp_path.glob("*.sock"))


def test_levels_of_logging(serve, tmp_path, image):
    with serve(*blk(image, "s"), "--quiet", start=False) as server:
        wait_until((tmp_path / "s").is_socket, "the socket is there")
        pintle(build() / "pintle", "probe", tmp_path / "s")
        assert server.end() == 0 and server.words() == ""
    with serve(*blk(image, "s"), "--verbose") as server:
        assert server.end() == 0 and server.says("ready")


# ---- images and sockets ----

def test_a_locked_image_is_refused_and_can_be_shared(serve, program, tmp_path, image):
    with serve(*blk(image, "s")) as server:
        assert "in use by another program" in pintle(program, "serve", *blk(image, "t"), cwd=tmp_path).stdout
        with Server(program, tmp_path, *blk(image, "t", ",share=on")) as second:
            assert second.end() == 0
        assert server.end() == 0
    # The lock is the process's: it is gone with it.
    with serve(*blk(image, "s")) as server:
        assert server.end() == 0


def test_a_stale_socket_is_replaced(serve, tmp_path, image):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    with serve(*blk(image, "s")) as server, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        assert server.end() == 0


def test_a_socket_after_a_kill_is_replaced(serve, tmp_path, image):
    with serve(*blk(image, "s")) as server:
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
    assert (tmp_path / "s").is_socket()
    with serve(*blk(image, "s")) as server:
        assert server.end() == 0
    assert not (tmp_path / "s").exists()


def test_a_socket_in_use_is_left_alone(program, tmp_path, image):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        inode = (tmp_path / "s").stat().st_ino
        assert "somebody listens on" in refused(program, tmp_path, *blk(image, tmp_path / "s"))
        assert (tmp_path / "s").stat().st_ino == inode


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(program, tmp_path, image, kind):
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "precious").write_text("precious")
        path.symlink_to("precious")
    assert "is no socket; it is left alone" in refused(program, tmp_path, *blk(image, path))
    assert path.is_dir() or path.read_text() == "precious"


def test_mode_and_owner(serve, tmp_path, image):
    with serve(*blk(image, "a"), "--device", "blk,backend=null,size=1M", "--road", "vfio-user,path=b,mode=0666") as server:
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o666
        assert server.end() == 0
    # Root can give it away by name and by number; anyone can give it to themselves.
    user = pwd.getpwnam("daemon") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    with serve(*blk(image, "a", road=f",owner={user.pw_name},group={user.pw_gid},mode=660")) as server:
        found = (tmp_path / "a").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (user.pw_uid, user.pw_gid, 0o660)
        assert server.end() == 0


def listener(path):
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def test_a_listening_descriptor_is_taken_over(serve, program, tmp_path, image):
    with listener(tmp_path / "s") as passed:
        with serve("--device", f"blk,path={image}", "--road", f"vfio-user,fd={passed.fileno()}", pass_fds=[passed.fileno()]) as server:
            assert "sectors (16M)" in pintle(program, "probe", tmp_path / "s").stdout
            assert server.end() == 0
        assert (tmp_path / "s").is_socket(), "the file is whoever's that made it"


def test_a_descriptor_that_does_not_listen_is_refused(program, tmp_path, image):
    def words(made):
        return pintle(program, "serve", "--device", f"blk,path={image}", "--road", f"vfio-user,fd={made.fileno()}", cwd=tmp_path,
                      pass_fds=[made.fileno()])
    with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_INET) as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        for made in (idle, tcp):
            result = words(made)
            assert result.returncode == FAILED and "no listening UNIX socket" in result.stdout


def test_started_as_a_service_manager_does(program, tmp_path, image):
    """LISTEN_FDS: 3, 4, ... are listening; NOTIFY_SOCKET: it is told READY and STOPPING. The way of contrib/systemd."""
    (tmp_path / "vm1.json").write_text(json.dumps({"devices": [
        {"type": "blk", "id": "d0", "path": str(image), "road": {"type": "vfio-user", "fd": 3}},
        {"type": "blk", "backend": "null", "size": "1M", "road": {"type": "vfio-user", "fd": 4}}]}))
    unit = (TOP / "contrib/systemd/pintle@.service").read_text()
    command = shlex.split(re.search(r"^ExecStart=pintle (.*)$", unit, re.MULTILINE).group(1).replace("/etc/pintle/%i.json", str(tmp_path / "vm1.json")))
    with listener(tmp_path / "a") as first, listener(tmp_path / "b") as second, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(tmp_path / "log", "wb") as log:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(PATIENCE)
        # The shell moves the two to 3 and 4 and becomes the server.
        script = f'exec 3<&{first.fileno()} 4<&{second.fileno()}; export LISTEN_PID=$$; exec "$@"'
        server = subprocess.Popen(["bash", "-c", script, "bash", str(program), *command], stdout=log, stderr=log,
                                  pass_fds=[first.fileno(), second.fileno()],
                                  env={**os.environ, "LISTEN_FDS": "2", "NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            assert notify.recv(100) == b"READY=1"
            assert "sectors (16M)" in pintle(program, "probe", tmp_path / "a").stdout
            assert "sectors (1M)" in pintle(program, "probe", tmp_path / "b").stdout
            server.send_signal(signal.SIGTERM)
            assert notify.recv(100) == b"STOPPING=1"
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
            server.wait()


def test_units_agree_with_each_other():
    folder = TOP / "contrib/systemd"
    service, sockets = ((folder / f"pintle@.{kind}").read_text() for kind in ("service", "socket"))
    for line in ("Type=notify", "NoNewPrivileges=yes", "DynamicUser=yes", "CapabilityBoundingSet=", "RestrictAddressFamilies=AF_UNIX",
                 "Requires=pintle@%i.socket"):
        assert f"\n{line}\n" in service
    assert "\nListenStream=" in sockets and "Accept=" not in sockets
    assert "contrib/systemd" in (TOP / "docs/man/pintle-serve.1").read_text()


def unit_for_xen(name):
    text = (TOP / "contrib/systemd" / name).read_text()
    found = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return text, found


def test_the_units_for_xen():
    """The rest of what they have to do is tried in tests/lab/test_units.py."""
    text, serve = unit_for_xen("pintle-xen.service")
    _, setup = unit_for_xen("pintle-xen-setup.service")
    assert serve["Type"] == ["notify"] and serve["ExecStart"] == ["pintle serve --config /etc/pintle/xen.json"]
    assert setup["Type"] == ["oneshot"] and setup["ExecStart"] == ["pintle xen setup $DEVICES"]
    assert serve["Requires"] == ["pintle-xen-setup.service"] and "pintle-xen-setup.service" in serve["After"][0].split()
    # What one mounts is for everybody: nothing that gives it a namespace of its own. The other has no /sys of its own.
    own = {"PrivateNetwork", "ProtectKernelTunables", "PrivateDevices", "DynamicUser"}
    assert not own & set(serve)
    assert not {key for key in setup if key.startswith(("Private", "Protect", "Read", "Bind", "Dynamic", "Root", "Inaccessible", "Temporary"))}
    assert "xenstored.service" in serve["After"][0] and "xendomains.service" in serve["Before"][0]
    # Its example is a configuration.
    example = json.loads(re.search(r"^#   (\{.*\})$", text, re.MULTILINE).group(1))
    assert example["devices"][0]["type"] == "host-xen" and example["devices"][0]["road"] == {"type": "xen"}
    assert "pintle-xen.service" in (TOP / "docs/man/pintle-xen.1").read_text()


# ---- signals ----

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_end(serve, tmp_path, image, number):
    with serve(*blk(image, "s")) as server:
        assert server.end(number) == 0
        assert not (tmp_path / "s").exists() and server.says("ended in order")


def test_a_second_signal_ends_at_once(serve, program, tmp_path, image):
    """With a disk that keeps its requests for minutes, the first is patient, the second is not."""
    with serve(*blk(image, "s", ",delay=300s")) as server:
        bench = subprocess.Popen([program, "bench", "--seconds", "60", "--reads", "0", "--verify", "s"], cwd=tmp_path,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # The delay comes after the operation: when the image has changed, a request is under way.
            wait_until(lambda: image.stat().st_blocks > 0, "a write has reached the image")
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("ending 1 device")
            begun = time.monotonic()
            status = server.end()
            assert time.monotonic() - begun < 10
        finally:
            bench.kill()
            bench.wait()
        assert status == FAILED and server.says("ending at once") and not (tmp_path / "s").exists()


def test_sighup_looks_at_the_size_again(serve, program, tmp_path, image):
    with serve(*blk(image, "s")) as server:
        os.truncate(image, 32 << 20)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(f"the disk has {32 << 20} bytes now")
        assert "sectors (32M)" in pintle(program, "probe", tmp_path / "s").stdout
        assert server.end() == 0


def test_sigpipe_and_a_closed_standard_error(program, tmp_path, image):
    """A log reader that went away does not take the disks with it."""
    reading, writing = os.pipe()
    server = subprocess.Popen([program, "serve", *blk(image, "s")], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing)
    try:
        os.close(writing)
        assert b"ready" in os.read(reading, 1000)
        os.close(reading)
        assert "sectors (16M)" in pintle(program, "probe", tmp_path / "s").stdout
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.wait()


# ---- confinement ----

def test_seccomp_is_on_for_every_thread(serve, image):
    with serve(*blk(image, "s"), "--io-threads", "3", "--control-threads", "2") as server:
        assert len(server.tasks()) >= 5
        for task in server.tasks():
            assert re.search(r"^Seccomp:\s*2$", (task / "status").read_text(), re.MULTILINE), (task / "comm").read_text()
            assert re.search(r"^NoNewPrivs:\s*1$", (task / "status").read_text(), re.MULTILINE)
        assert server.end() == 0


def test_sandbox_off(serve, image):
    with serve(*blk(image, "s"), "--sandbox", "off") as server:
        assert server.status("Seccomp") == "0"
        assert server.end() == 0


# ---- many devices ----

def null_devices(count):
    arguments = []
    for number in range(count):
        arguments += ["--device", "blk,backend=null,size=1G,queues=2", "--road", f"vfio-user,path=s{number}"]
    return arguments


def test_threads_of_both_kinds_with_twenty_devices(serve, program, tmp_path):
    with serve("--io-threads", "4", "--control-threads", "3", *null_devices(20)) as server:
        assert server.says("ready: 20 devices")
        benches = [subprocess.Popen([program, "bench", "--json", "--seconds", "1", "--queues", "2", f"s{number}"], cwd=tmp_path,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for number in range(20)]
        for bench in benches:
            words, _ = bench.communicate(timeout=PATIENCE)
            assert bench.returncode == 0, words
            assert json.loads(words)["iops"] > 0
        assert server.end() == 0
    assert not list(tmp_path.glob("s[0-9]*"))


def configuration(folder, count):
    path = folder / f"{count}.json"
    path.write_text(json.dumps({"devices": [{"type": "blk", "backend": "null", "size": "1G",
                                             "road": {"type": "vfio-user", "path": f"s{number}"}} for number in range(count)]}))
    return ["--config", path]


def test_what_a_device_costs(release, tmp_path, capsys):
    """Start of 1,000 devices within a second; memory and descriptors of an idle device; the memory of a process with one."""
    figures = {}
    for count in (1, 1000):
        with Server(release, tmp_path, *configuration(tmp_path, count)) as server:
            figures[count] = server.seconds, server.kib("RssAnon"), server.descriptors(), server.kib("VmRSS")
            begun = time.monotonic()
            assert server.end() == 0
            figures[count] += (time.monotonic() - begun,)
    one, many = figures[1], figures[1000]
    memory, descriptors = (many[1] - one[1]) / 999, (many[2] - one[2]) / 999
    with capsys.disabled():
        print(f"\n1,000 devices ready after {many[0] * 1000:.0f} ms, ended after {many[4] * 1000:.0f} ms; an idle device: {memory:.1f} KiB of "
              f"RssAnon, {descriptors:.2f} descriptors; a process with one device: {one[1]} KiB of RssAnon, {one[3]} KiB of VmRSS")
    assert many[0] < 1 and memory <= 64 and descriptors <= 4 and one[3] <= 10 * 1024


def test_an_idle_server_sleeps(release, program, tmp_path, capsys):
    """Not one context switch in three seconds: before any client, and after one has come and gone."""
    with Server(release, tmp_path, *configuration(tmp_path, 100)) as server:
        for after_client in (False, True):
            if after_client:
                result = pintle(program, "bench", "--seconds", "1", tmp_path / "s0")
                assert result.returncode == 0, result.stdout
                server.wait_for("free for the next client")
                time.sleep(1)  # helpers that are not needed any more leave
            before = server.switches()
            time.sleep(3)
            after = server.switches()
            with capsys.disabled():
                print(f"\ncontext switches of an idle server in 3 s, {'after' if after_client else 'before'} a client: "
                      f"{sum(after.values()) - sum(before.values())}")
            assert after == before
        assert server.end() == 0


# ---- the other commands ----

def test_probe_says_what_lspci_would(serve, program, tmp_path):
    """Against tests/functional/golden/probe-blk.golden, whole: a device that changes for a driver changes here."""
    with serve("--device", "blk,backend=memory,size=16M,queues=2,id=d0", "--road", "vfio-user,path=s") as server:
        result = pintle(program, "probe", "s", cwd=tmp_path)
        assert result.returncode == 0 and server.end() == 0
    golden = GOLDEN / "probe-blk.golden"
    if os.environ.get("PINTLE_NEW_GOLDEN"):
        golden.write_text(result.stdout)
    assert result.stdout.splitlines() == golden.read_text().splitlines()


def test_probe_and_bench_without_a_server(program, tmp_path):
    for command in ("probe", "bench"):
        result = pintle(program, command, tmp_path / "nobody")
        assert result.returncode == FAILED and "is the server running?" in result.stdout
    assert pintle(program, "probe").returncode == USAGE
    assert pintle(program, "bench", "--frobnicate", "s").returncode == USAGE


def test_probe_of_a_socket_in_use_says_so(serve, program, tmp_path):
    with serve("--device", "blk,backend=null,size=1M", "--road", "vfio-user,path=s") as server:
        bench = subprocess.Popen([program, "bench", "--seconds", "3", "s"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        server.wait_for("is attached")
        result = pintle(program, "probe", "s", cwd=tmp_path)
        assert bench.wait(PATIENCE) == 0, "the one that is attached is not disturbed"
        assert result.returncode == FAILED and "is another client attached?" in result.stdout
        assert server.says("refused a second client")
        assert server.end() == 0


@pytest.mark.parametrize("options", [[], ["--poll"], ["--depth", "1", "--queues", "2"]])
def test_bench_in_json(serve, program, tmp_path, options):
    with serve("--device", "blk,backend=memory,size=16M,queues=2", "--road", "vfio-user,path=s") as server:
        result = subprocess.run([program, "bench", "--json", "--seconds", "1", *options, "s"], cwd=tmp_path, capture_output=True, text=True,
                                timeout=PATIENCE)
        assert result.returncode == 0, result.stderr
        figures = json.loads(result.stdout)
        assert figures["iops"] > 0 and figures["errors"] == 0 and figures["latency_us"]["p50"] > 0
        assert server.end() == 0


def test_qemu_args(program, tmp_path):
    """The shape that QEMU's -device takes as JSON (its schema: driver, id, and socket as a SocketAddress)."""
    path = tmp_path / "d0.sock"
    words = shlex.split(pintle(program, "qemu-args", path).stdout.replace('"', '\\"'))
    assert words[0] == "-device" and len(words) == 2
    assert json.loads(words[1]) == {"driver": "vfio-user-pci", "id": "d0", "socket": {"type": "unix", "path": str(path)}}
    # In a shell's $(...) the words are split at blanks alone, so none may be inside one.
    split = pintle(program, "qemu-args", "--memory", "1G", "--id", "disk7", "--bootindex", "1", path).stdout.split()
    options = dict(zip(split[::2], split[1::2]))
    device = json.loads(options["-device"])
    assert device["id"] == "disk7" and device["bootindex"] == 1
    assert options["-m"] == "1G" and "share=on" in options["-object"] and "size=1G" in options["-object"]
    memory = re.search(r"id=(\w+)", options["-object"]).group(1)
    assert options["-machine"] == f"memory-backend={memory}"


@pytest.mark.parametrize("arguments", [["a b"], ['a"b'], ["a,b"], ["--id", "x y", "s"], ["--bootindex", "first", "s"], [], ["s", "t"], ["--frob", "s"]])
def test_qemu_args_refuses_what_would_need_quotes(program, arguments):
    result = pintle(program, "qemu-args", *arguments)
    assert result.returncode == USAGE and "pintle qemu-args" in result.stdout
