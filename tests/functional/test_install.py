# SPDX-License-Identifier: BSD-2-Clause
"""
make install, and what a stranger does with the result: the examples, copied out of the tree, are built with the installed headers, pintle.pc and
library alone, and run. Builds are made here from nothing, with both compilers and no warning.
"""
import os
import pathlib
import re
import shutil
import stat
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
MANUALS = sorted(path.name for path in (TOP / "docs/man").glob("*.1"))
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"


def run(*command, **options):
    """What it printed; if it fails, the test does, with all of that."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "DESTDIR", "PINTLE"))}
    environment.update(options.pop("env", {}))
    result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                            env=environment, **options)
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout[-6000:]}"
    return result.stdout


class Installed:
    """One `make install` below a DESTDIR."""

    def __init__(self, folder, *flags, prefix="/usr", **environment):
        self.prefix = prefix
        self.root = folder / "root"
        self.build = folder / "build"
        self.command = ["make", "-C", TOP, f"builddir={self.build}", f"prefix={prefix}", f"DESTDIR={self.root}",
                        f"MESONFLAGS=-Dwerror=true {' '.join(flags)}"]
        self.words = run(*self.command, "install", env=environment)

    def files(self):
        return sorted("/" + str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_symlink() or not path.is_dir())

    def path(self, name):
        return self.root / (self.prefix + name).lstrip("/")

    def pkg_config(self):
        return {"PKG_CONFIG_SYSROOT_DIR": str(self.root), "PKG_CONFIG_LIBDIR": "",
                "PKG_CONFIG_PATH": ":".join([str(self.path("/lib/pkgconfig")), *system_pkg_config()])}


def system_pkg_config():
    """Where the libraries that ours needs have theirs; only asked for with --static."""
    return run("pkg-config", "--variable", "pc_path", "pkg-config").strip().split(":")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("gcc"), CC="gcc")


@pytest.fixture(scope="module")
def installed_clang(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("clang"), CC="clang")


@pytest.fixture
def examples(tmp_path):
    return shutil.copytree(TOP / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.o", "vmm", "zpci", "css"))


# ---- what is installed ----

def test_files_stand_where_they_belong(installed):
    headers = [f"/usr/include/pintle/{path.name}" for path in (TOP / "include" / "pintle").glob("*.h")]
    libraries = ["/usr/lib/libpintle.a", "/usr/lib/libpintle.so", "/usr/lib/libpintle.so.0", "/usr/lib/libpintle.so.0.1.0"]
    manuals = [f"/usr/share/man/man1/{name}" for name in MANUALS]
    assert installed.files() == sorted(["/usr/bin/pintle", "/usr/lib/pkgconfig/pintle.pc", *headers, *libraries, *manuals])


def test_modes_and_links(installed):
    for name in installed.files():
        path = installed.root / name.lstrip("/")
        if path.is_symlink():
            assert not os.readlink(path).startswith("/"), f"{name} points out of DESTDIR"
        else:
            executable = name.startswith("/usr/bin/") or ".so." in name
            assert stat.S_IMODE(path.stat().st_mode) in ((0o755,) if executable else (0o644,)), name


def test_the_soname_is_versioned(installed):
    words = run("readelf", "--dynamic", installed.path("/lib/libpintle.so.0.1.0"))
    assert re.search(r"SONAME.*\[libpintle\.so\.0\]", words)


@pytest.mark.parametrize("name", ["/bin/pintle", "/lib/libpintle.so.0.1.0"])
def test_binaries_are_hardened_and_relocatable(installed, name):
    path = installed.path(name)
    words = run("readelf", "--dynamic", "--program-headers", "--wide", path)
    assert not re.search(r"RPATH|RUNPATH", words), "a build directory is in it"
    assert "GNU_RELRO" in words and re.search(r"BIND_NOW|FLAGS.*NOW", words), "no full RELRO"
    assert re.search(r"GNU_STACK.* RW ", words), "an executable stack"
    assert "DYN" in run("readelf", "--file-header", path)
    assert str(TOP).encode() not in path.read_bytes(), "the source folder's name is in it"


def test_the_program_runs_from_where_it_is_installed(installed):
    assert run(installed.path("/bin/pintle"), "--version").strip() == "pintle 0.1.0"


def test_the_manuals_can_be_read(installed):
    for name in MANUALS:
        words = run("mandoc", "-T", "markdown", installed.path(f"/share/man/man1/{name}"))
        assert "NAME" in words and "SYNOPSIS" in words


def test_no_mutation_is_in_a_release(installed):
    """The names that turn laws off are in test builds alone."""
    names = re.findall(r'"(law\d\.\w+)"', (TOP / "src/base/mutate.h").read_text())
    assert len(names) > 10
    for binary in ("/bin/pintle", "/lib/libpintle.so", "/lib/libpintle.a"):
        content = installed.path(binary).read_bytes()
        assert [name for name in [*names, "PINTLE_MUTATE"] if name.encode() in content] == []


def test_they_would_be_found(tmp_path):
    """In a build that has them, they are strings as searched for above."""
    build = tmp_path / "build"
    run("meson", "setup", build, TOP, "--buildtype=debug", "-Dmutations=true")
    run("ninja", "-C", build, "src/libbase.a")
    assert any(b"law1.gate" in path.read_bytes() for path in build.rglob("*mutate*.o"))


def test_pkg_config_file(installed):
    def ask(*options):
        return run("pkg-config", *options, "pintle", env=installed.pkg_config()).split()
    assert ask("--modversion") == ["0.1.0"]
    # Headers are <pintle/x.h>, and what links against the shared library needs nothing else.
    assert set(ask("--cflags")) <= {f"-I{installed.path('/include')}"}
    assert [word for word in ask("--libs") if not word.startswith("-L")] == ["-lpintle"]
    assert {"-lpintle", "-ljansson", "-luring"} <= set(ask("--libs", "--static"))


# ---- directories of one's own ----

def test_gnu_directories(installed, tmp_path):
    """A build that exists is installed elsewhere, by the variables that the GNU conventions name; nothing outside DESTDIR."""
    root = tmp_path / "root"
    places = ["prefix=/opt/p", "bindir=/opt/p/programs", "libdir=/opt/p/lib/x86_64-linux-gnu", "includedir=/opt/headers", "mandir=/opt/manuals"]
    command = ["make", "-C", TOP, f"builddir={installed.build}", *places, f"DESTDIR={root}"]
    run(*command, "install-strip")
    found = sorted("/" + str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    folders = {str(pathlib.Path(name).parent) for name in found}
    assert folders == {"/opt/p/programs", "/opt/p/lib/x86_64-linux-gnu", "/opt/p/lib/x86_64-linux-gnu/pkgconfig", "/opt/headers/pintle",
                       "/opt/manuals/man1"}
    assert "libdir=${prefix}/lib/x86_64-linux-gnu" in (root / "opt/p/lib/x86_64-linux-gnu/pkgconfig/pintle.pc").read_text()
    assert ".symtab" not in run("readelf", "--sections", "--wide", root / "opt/p/programs/pintle")
    run(*command, "uninstall")
    assert [path for path in root.rglob("*") if not path.is_dir()] == []


def test_systemd_units_are_installed_where_one_says(installed, tmp_path):
    run("meson", "configure", installed.build, "-Dsystemdsystemunitdir=/usr/lib/systemd/system")
    run("meson", "install", "-C", installed.build, env={"DESTDIR": str(tmp_path / "root")})
    run("meson", "configure", installed.build, "-Dsystemdsystemunitdir=")
    units = tmp_path / "root/usr/lib/systemd/system"
    assert sorted(path.name for path in units.iterdir()) == ["pintle-xen-setup.service", "pintle-xen.service", "pintle@.service", "pintle@.socket"]


# ---- what is built with it ----

def shows(words):
    """What examples/vmm.c has to say when all went well."""
    assert words.splitlines()[-1] == "detached: nothing is left"
    assert "bus master off: the request waits" in words and "reset: clean" in words


def shows_zpci(words):
    """And examples/zpci.c: a block whole, its interrupt, and a handle that is none any more after the unplug."""
    assert words.splitlines() == ["function 0x21 enabled: vendor and device 00ff1b36", "adapter interruption, subclass 2", "sum of 256 bytes: 32640",
                                  "event 0x0304: the function is gone", "condition code of a load now: 3", "unplugged: nothing is left"]


def shows_css(words):
    """And examples/css.c: a disk found, started by channel programs, used, and taken away."""
    assert words.splitlines() == ["control unit 3832 model 2", "2048 sectors", "a sector written and read, 2 adapter interruptions", "gone"]


def make_examples(folder, installed, *arguments, **environment):
    return run("make", "-C", folder, *arguments, env={**installed.pkg_config(), **environment})


@pytest.mark.parametrize("which, compiler", [("installed", "gcc"), ("installed", "clang"), ("installed_clang", "clang"), ("installed_clang", "gcc")])
def test_examples_against_the_shared_library(request, which, compiler, examples):
    root = request.getfixturevalue(which)
    words = make_examples(examples, root, f"CC={compiler}", CFLAGS=" ".join(["-O2", *STRICT]))
    # Neither the tree nor a build directory is looked into.
    assert str(TOP) not in words
    needed = run("readelf", "--dynamic", examples / "vmm")
    assert "libpintle.so.0" in needed and "jansson" not in needed and "uring" not in needed
    shows(run(examples / "vmm", env={"LD_LIBRARY_PATH": str(root.path("/lib"))}))
    shows_zpci(run(examples / "zpci", env={"LD_LIBRARY_PATH": str(root.path("/lib"))}))
    shows_css(run(examples / "css", env={"LD_LIBRARY_PATH": str(root.path("/lib"))}))


def test_examples_with_make_run(installed, examples):
    words = "\n".join(line for line in make_examples(examples, installed, "run", LD_LIBRARY_PATH=str(installed.path("/lib"))).splitlines()
                      if not line.startswith("make"))
    shows(words)
    assert "unplugged: nothing is left" in words


@pytest.mark.parametrize("static", [False, True])
def test_examples_against_the_static_library(installed, tmp_path, examples, static):
    """Without the shared library beside it, -lpintle is libpintle.a; and once more with nothing dynamic at all."""
    root = shutil.copytree(installed.root, tmp_path / "root", symlinks=True)
    for path in (root / "usr/lib").glob("libpintle.so*"):
        path.unlink()
    environment = {**installed.pkg_config(), "PKG_CONFIG_SYSROOT_DIR": str(root)}
    environment["PKG_CONFIG_PATH"] = environment["PKG_CONFIG_PATH"].replace(str(installed.root), str(root))
    run("make", "-C", examples, "PKG_CONFIG=pkg-config --static", "LDFLAGS=-static" if static else "LDFLAGS=",
        env={**environment, "CFLAGS": " ".join(["-O2", *STRICT])})
    needed = run("readelf", "--dynamic", examples / "vmm")
    assert "pintle" not in needed and ("NEEDED" in needed) == (not static)
    shows(run(examples / "vmm"))
    shows_zpci(run(examples / "zpci"))
    shows_css(run(examples / "css"))


def test_examples_with_sanitizers(tmp_path, examples):
    """Library and example instrumented: no leak, no undefined behaviour. A leak would be the exit status."""
    root = Installed(tmp_path, "-Db_sanitize=address,undefined", "-Db_lundef=false", CC="gcc")
    make_examples(examples, root, "CC=gcc", LDFLAGS=SANITIZE, CFLAGS=" ".join(["-O1", "-g", SANITIZE, *STRICT]))
    for name, said in (("vmm", shows), ("zpci", shows_zpci), ("css", shows_css)):
        said(run(examples / name, env={"LD_LIBRARY_PATH": str(root.path("/lib")), "ASAN_OPTIONS": "detect_leaks=1"}))


def test_headers_are_for_cpp_too(installed, tmp_path):
    source = tmp_path / "user.cc"
    source.write_text('#include <cstdio>\n#include <pintle/pintle.h>\n#include <pintle/vfio_user.h>\n'
                      'int main()\n{\n\tpintle_loop *loop = nullptr;\n\tif (pintle_loop_create(&loop, "c++", nullptr) < 0)\n\t\treturn 1;\n'
                      '\tpintle_loop_destroy(loop);\n\tstd::puts(pintle_version());\n}\n')
    flags = run("pkg-config", "--cflags", "--libs", "pintle", env=installed.pkg_config()).split()
    run("g++", "-std=c++17", *STRICT, "-o", tmp_path / "user", source, *flags)
    assert run(tmp_path / "user", env={"LD_LIBRARY_PATH": str(installed.path("/lib"))}).strip() == "0.1.0"


# ---- builds without a warning ----

@pytest.mark.parametrize("compiler, kind, options", [("gcc", "debug", ["-Dmutations=true"]), ("clang", "debug", ["-Dmutations=true"])])
def test_debug_builds_without_warnings(compiler, kind, options, tmp_path):
    """The release builds of both compilers are those of `installed` above; all of them with --werror, tests included."""
    run("meson", "setup", tmp_path / "build", TOP, f"--buildtype={kind}", "--werror", *options, env={"CC": compiler})
    run("ninja", "-C", tmp_path / "build")
