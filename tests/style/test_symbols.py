# SPDX-License-Identifier: BSD-2-Clause
"""What libpintle.so exports is exactly what the public headers declare, all of it documented."""
import re
import subprocess

import pytest
import tree

# The protocol's own structures and numbers; no functions.
DECLARATION = re.compile(r"^(?!typedef|#|\s|static)[\w \*]*?[ \*](\w+)\(", re.MULTILINE)


def declarations():
    """{function: (header, has a comment)}; a comment stands above it, or above the declarations it follows without an empty line."""
    found = {}
    for header in sorted((tree.TOP / "include" / "pintle").glob("*.h")):
        lines = header.read_text().splitlines()
        for number, line in enumerate(lines):
            match = DECLARATION.match(line)
            if not match:
                continue
            above = number - 1
            while above > 0 and (DECLARATION.match(lines[above]) or lines[above].startswith(("\t", "typedef"))):
                above -= 1
            found[match.group(1)] = (header.name, lines[above].rstrip().endswith("*/"))
    return found


def exported(library):
    result = subprocess.run(["nm", "--dynamic", "--defined-only", "--format=posix", library], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in result.stdout.splitlines()}
    return {name.split("@")[0] for name in names if not re.fullmatch(r"PINTLE_\d+(@.*)?", name)}


@pytest.fixture(scope="module")
def library():
    path = tree.build() / "libpintle.so"
    assert path.exists(), f"{path} is missing: build it, or set PINTLE_BUILD"
    return path


def test_exports_are_the_declared_functions(library):
    # What a compiler's instrumentation adds is not the library's.
    symbols = {name for name in exported(library) if not name.startswith(("__asan", "__odr_asan", "__ubsan", "__tsan", "__start_", "__stop_"))}
    declared = set(declarations())
    assert len(declared) > 20
    assert symbols == declared, f"exported only: {symbols - declared}; declared only: {declared - symbols}"


def test_exports_bear_the_prefix():
    assert all(name.startswith("pintle_") for name in declarations())


def test_every_function_is_documented():
    bare = [f"{header}: {name}" for name, (header, comment) in declarations().items() if not comment]
    assert not bare, "\n".join(bare)


def test_the_library_needs_no_symbol_of_the_server(library):
    """It can be linked with --no-undefined: nothing of src/serve, src/cli or drive is missing in it."""
    undefined = subprocess.run(["nm", "--dynamic", "--undefined-only", "--format=posix", library], capture_output=True, text=True, check=True)
    own = re.compile(r"^(serve|cli|drive|loop|dma|irq|life|gate|pci|virtq|virtio|block|vfu)_")
    missing = [line.split()[0] for line in undefined.stdout.splitlines() if own.match(line)]
    assert not missing, missing
