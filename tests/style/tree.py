# SPDX-License-Identifier: BSD-2-Clause
"""What the style tests look at: the files of the project and its build directory."""
import os
import pathlib
import re
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]
SOURCE_FOLDERS = ("src", "drive", "include", "examples")
SKIPPED_FOLDERS = re.compile(r"^(\.git|\.cache|build.*|__pycache__|\.pytest_cache)$")
BINARY = re.compile(r"tests/fuzz/corpus/|\.(img|png|gz|xz|state)$")


def build():
    """The build under test (PINTLE_BUILD, default build-debug beside the sources)."""
    return (TOP / os.environ.get("PINTLE_BUILD", "build-debug")).resolve()


def files():
    """Every file of the project, as a path from the top; what git ignores is none of it."""
    listed = subprocess.run(["git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.decode().split("\0")
        return sorted(name for name in names if name and (TOP / name).is_file())
    found = []
    for folder, folders, names in os.walk(TOP):
        folders[:] = [name for name in folders if not SKIPPED_FOLDERS.match(name)]
        found += [str((pathlib.Path(folder) / name).relative_to(TOP)) for name in names if not name.endswith(".pyc")]
    return sorted(found)


def texts():
    """(path, text) of every file that is text."""
    for name in files():
        if not BINARY.search(name):
            yield name, (TOP / name).read_text(encoding="utf-8")


def headers():
    return [name for name in files() if name.endswith(".h") and name.split("/")[0] in SOURCE_FOLDERS]
