# SPDX-License-Identifier: BSD-2-Clause
"""`pintle xen` where there is no Xen: its words, and that it touches nothing. What it does is shown in tests/lab/test_xen_place.py."""
import json
import pathlib
import subprocess

import pytest
from serving import TOP, build

OK, FAILED, USAGE = 0, 1, 2
NOWHERE = "0fff:7f:1e.6"


def xen(*arguments):
    return subprocess.run([build() / "pintle", "xen", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


def test_help_and_manual():
    result = xen("--help")
    assert result.returncode == OK and result.stdout.startswith("Usage: pintle xen ")
    manual = (TOP / "docs/man/pintle-xen.1").read_text()
    for part in ("setup", "undo", "list", "refresh"):
        assert f"\n  {part} " in result.stdout and f".Cm xen {part}\n" in manual
    assert "pintle-xen" in (TOP / "docs/man/pintle.1").read_text()


@pytest.mark.parametrize("arguments, says", [((), "setup, undo, list or refresh?"), (("fly",), 'there is no "fly"'), (("setup",), "which device?"), (("undo", "--force"), "which device?"),
                                             (("list", "--xml"), '"--xml"'), (("refresh", "now"), '"now"')])
def test_misuse(arguments, says):
    result = xen(*arguments)
    assert result.returncode == USAGE and says in result.stdout and "Try `pintle xen --help`" in result.stdout


@pytest.mark.parametrize("part", ["setup", "undo"])
def test_what_is_not_there(part):
    for address, says in ((NOWHERE, "no PCI device"), ("somewhere", "no PCI address")):
        result = xen(part, address)
        assert result.returncode == FAILED and says in result.stdout
    assert not pathlib.Path("/run/pintle/xen").exists()


def test_nothing_is_set_up():
    assert json.loads(xen("list", "--json").stdout) == []
    assert xen("list").stdout == ""
    assert xen("refresh").returncode == OK
