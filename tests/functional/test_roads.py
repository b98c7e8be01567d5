# SPDX-License-Identifier: BSD-2-Clause
"""Roads beside vfio-user, as far as they can be seen without what they need: `pintle serve --road xen` where Xen's headers were missing at build time, and on a machine that is no dom0; what one road's devices are
refused on another. That the road works is the laboratory's to show (tests/lab/test_xen*.py)."""
import pathlib
import subprocess

import pytest
from serving import PATIENCE, Server, build, wait_until

FAILED, USAGE = 1, 2
HOST_XEN = ["--device", "host-xen,address=0000:00:05.0,id=x", "--road", "xen"]


@pytest.fixture(scope="session")
def program():
    path = build() / "pintle"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


@pytest.fixture(scope="session")
def without_xen():
    """The same program, as it is built where Xen's headers are missing."""
    path = build() / "tests" / "functional" / "pintle_without_xen"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


@pytest.fixture(scope="session")
def with_xen(program):
    """The program, if it was built with Xen's headers and this is not the machine where it would work."""
    if "libxencall" not in subprocess.run(["readelf", "-d", program], stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE).stdout:
        pytest.skip("built without Xen's headers (libxen-dev)")
    capabilities = pathlib.Path("/proc/xen/capabilities")
    if capabilities.exists() and "control_d" in capabilities.read_text():
        pytest.skip("this is a dom0: the road xen may well work here")
    return program


def pintle(program, *arguments, **options):
    return subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, **options)


def refused(program, folder, *arguments):
    """What it says; nothing is left behind of what was set up before."""
    result = pintle(program, "serve", *arguments, cwd=folder)
    assert result.returncode == FAILED, result.stdout
    assert not list(folder.iterdir())
    return result.stdout


def among_others(folder):
    """Behind a device and a control socket that were set up by then."""
    return ["--control", f"path={folder / 'control'}", "--device", "rng", "--road", f"vfio-user,path={folder / 's'}", *HOST_XEN]


# ---- what is missing ----

def test_without_the_headers_it_says_what_is_missing(without_xen, tmp_path):
    words = refused(without_xen, tmp_path, *among_others(tmp_path))
    assert words.startswith("pintle serve: device x: the road xen is not in this build") and "libxen-dev" in words and "build again" in words
    assert words.count("\n") == 1


def test_without_the_headers_everything_else_is_there(without_xen, tmp_path):
    help_text = pintle(without_xen, "serve", "--help").stdout
    assert "--device host-xen," in help_text and "--road xen," in help_text
    with Server(without_xen, tmp_path, "--device", "rng", "--road", "vfio-user,path=s") as server:
        assert server.end() == 0, server.words()


def test_where_there_is_no_xen_it_says_what_to_do(with_xen, tmp_path):
    words = refused(with_xen, tmp_path, *among_others(tmp_path))
    assert words.startswith("pintle serve: device x: ") and "dom0" in words, words
    assert words.count("\n") == 1


def test_a_wrong_configuration_is_found_before_xen_is_looked_for(program, without_xen, tmp_path):
    for each in (program, without_xen):
        result = pintle(each, "serve", *HOST_XEN, *HOST_XEN[:1], "host-xen,address=0000:00:05.0", *HOST_XEN[2:], cwd=tmp_path)
        assert result.returncode == USAGE and "devices x and d1 have the same address=0000:00:05.0" in result.stdout


# ---- faults of another road ----

@pytest.fixture
def rng(program, tmp_path):
    with Server(program, tmp_path, "--control", "path=control", "--device", "rng", "--road", "vfio-user,path=s") as server:
        wait_until(lambda: (tmp_path / "control").exists(), "the control socket")
        yield lambda *arguments: pintle(program, *arguments, "--socket", tmp_path / "control")
        assert server.end() == 0, server.words()


def test_aer_is_refused_where_it_is_not_known(rng):
    result = rng("inject", "d0", "aer", "fatal")
    assert result.returncode == FAILED and "does not go by the road xen" in result.stdout


def test_a_kind_may_stand_behind_the_fault(rng):
    assert rng("inject", "d0", "backdoor-reset", "unannounced").returncode == 0
    assert rng("inject", "d0", "backdoor-reset", "--kind", "unannounced").returncode == 0
    odd = rng("inject", "d0", "backdoor-reset", "odd")
    assert odd.returncode == FAILED and 'there is no backdoor-reset "odd"' in odd.stdout
    more = rng("inject", "d0", "backdoor-reset", "bist", "more")
    assert more.returncode == USAGE and '"more" is one word too many' in more.stdout
    # A fault that takes no kind.
    none = rng("inject", "d0", "cut", "hard")
    assert none.returncode == FAILED and 'takes no parameter "kind"' in none.stdout


def test_figures_of_xen_are_not_there_without_its_devices(rng):
    text = rng("ctl", "metrics").stdout
    assert "pintle_xen" not in text and text.endswith("# EOF\n")
    assert 'pintle_mappings{device="d0"} 0' in text
