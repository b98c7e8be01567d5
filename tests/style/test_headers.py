# SPDX-License-Identifier: BSD-2-Clause
"""Each header compiles alone; the public ones need nothing but three standard headers and each other, and are C++ too."""
import concurrent.futures
import os
import re
import shutil
import subprocess

import pytest
import tree

PUBLIC_MAY = {"stdint.h", "stdbool.h", "stddef.h"}
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]
# Half of a pair of compilers is enough where the other is not installed; the checks' own machines have all of them.
C_COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
CXX_COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]


def compiles(compiler, text, *options):
    result = subprocess.run([compiler, *options, *WARNINGS, "-fsyntax-only", "-"], input=text, capture_output=True, text=True)
    return "" if result.returncode == 0 else f"{compiler}: {text.strip()}\n{result.stderr}"


def every(jobs):
    """Runs (compiler, text, options...) side by side; the complaints."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [words for words in pool.map(lambda job: compiles(*job), jobs) if words]


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_headers_compile_alone(compiler):
    headers = [name for name in tree.headers() if not name.startswith("include/")]
    assert len(headers) > 30
    options = ["-x", "c", "-std=gnu17", "-D_GNU_SOURCE", "-Wno-sign-conversion", "-Wno-unused-function",
               *(f"-I{tree.TOP / folder}" for folder in ("include", "src", "."))]
    # Twice: an include guard is part of it.
    complaints = every([(compiler, f'#include "{tree.TOP / name}"\n' * 2, *options) for name in headers])
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("compiler, standard", [(c, s) for c in C_COMPILERS for s in ("c11", "c17")] +
                         [(c, s) for c in CXX_COMPILERS for s in ("c++11", "c++20")])
def test_public_headers_compile_alone(compiler, standard):
    """Strictly: no GNU extensions, no feature macros."""
    headers = [name for name in tree.headers() if name.startswith("include/")]
    assert len(headers) >= 7
    language = "c++" if "+" in standard else "c"
    options = ["-x", language, f"-std={standard}", "-pedantic", f"-I{tree.TOP / 'include'}"]
    complaints = every([(compiler, f"#include <{name[len('include/'):]}>\n" * 2, *options) for name in headers])
    assert not complaints, "\n".join(complaints)


def test_there_is_a_compiler_of_each_language():
    assert C_COMPILERS and CXX_COMPILERS


def test_public_headers_need_little():
    wrong = []
    for name in tree.headers():
        if name.startswith("include/"):
            for included in re.findall(r"^\s*#\s*include\s*[\"<]([^\">]+)", (tree.TOP / name).read_text(), re.MULTILINE):
                if included not in PUBLIC_MAY and not included.startswith("pintle/"):
                    wrong.append(f"{name}: {included}")
    assert not wrong, "\n".join(wrong)


def test_a_header_that_needs_another_is_found():
    assert compiles(C_COMPILERS[0], "uint32_t x;\n", "-x", "c")
