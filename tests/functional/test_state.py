# SPDX-License-Identifier: BSD-2-Clause
"""pintle state: what it shows of a file, and what it says of one that cannot be read."""
import subprocess

import pytest
from serving import PATIENCE, TOP, build

GOLDEN = TOP / "tests" / "unit" / "golden"


def state(*arguments):
    program = build() / "pintle"
    result = subprocess.run([program, "state", *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)
    return result.returncode, result.stdout, result.stderr


def test_shows_sections_and_fields():
    status, out, err = state("show", GOLDEN / "blk-level2.state")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:5] == ["format", "1,", "compatibility", "level", "2,"]
    assert ["gate", "0,", "version", "1"] in lines and ["no-bus-master", "yes"] in lines
    assert ["interrupt-line", "0xb"] in lines and ["class", '"blk"'] in lines
    assert sum(line[0] == "request" for line in lines) == 2


def test_levels():
    old, new = GOLDEN / "blk-level1.state", GOLDEN / "blk-level2.state"
    assert state("check", old)[0] == state("check", old, "--level", 1)[0] == state("check", new)[0] == state("check", new, "--level", 2)[0] == 0
    status, _, err = state("check", new, "--level", 1)
    assert status == 1 and '"gate"' in err


# file, a section that came with level 3, a line of what is shown
@pytest.mark.parametrize("name, section, line", [
    ("rng-pci", "virtio-rng", ["class", '"rng"']),
    ("rng-ccw", "channel-device", ["control-unit-model", "0x4"]),
    ("rng-zpci", "zpci", ["table-base", "0x100000000"]),
    ("balloon-pci", "virtio-balloon", ["shown-target", "0x64"]),
    ("balloon-ccw", "channel-device", ["revision", "0x2"]),
    ("subchannel", "channel-device", ["program", "0x4"]),
    ("css", "channel-subsystem", ["adapters", "0x28"]),
    ("zpci", "zpci-machine", ["suppression", "0x1000"]),
])
def test_roads_and_classes(name, section, line):
    path = GOLDEN / f"{name}-level3.state"
    status, out, err = state("show", path)
    assert (status, err) == (0, "") and line in [words.split() for words in out.splitlines()]
    assert state("check", path)[0] == state("check", path, "--level", 3)[0] == 0
    status, _, err = state("check", path, "--level", 2)
    assert status == 1 and f'"{section}"' in err and "level 3" in err


@pytest.mark.parametrize("damage, words", [
    (lambda b: b[:-1], "cut off"),
    (lambda b: b[:5], "no saved state"),
    (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], "checksum"),
    (lambda b: b[:8] + b"\x07" + b[9:], "format 7"),
    (lambda b: b"", "no saved state"),
])
def test_damaged(tmp_path, damage, words):
    path = tmp_path / "state"
    path.write_bytes(damage((GOLDEN / "blk-level2.state").read_bytes()))
    for command in ("show", "check"):
        status, out, err = state(command, path)
        assert status == 1 and words in err and not out


@pytest.mark.parametrize("arguments", [(), ("show",), ("frobnicate", "x"), ("check", "x", "--level"), ("check", "x", "--level", "9"), ("show", "x", "--level", "1")])
def test_misuse(arguments):
    assert state(*arguments)[0] == 2


def test_no_file(tmp_path):
    status, _, err = state("show", tmp_path / "nowhere")
    assert status == 1 and "nowhere" in err
    assert state("show", tmp_path)[0] == 1
