# SPDX-License-Identifier: BSD-2-Clause
"""
clang-tidy (.clang-tidy says what and why) and cppcheck find nothing in src/, drive/, include/ and examples/.

Both work on the compile_commands.json of the build that PINTLE_BUILD names: a debug build, because assertions tell the analyzers what holds.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import tree

CPPCHECK = ["cppcheck", "--enable=warning,performance,portability,style", "--inline-suppr", "--quiet", "--error-exitcode=1",
            "--template={file}:{line}: {severity}: {message} [{id}]",
            f"--suppressions-list={tree.TOP / 'tests/style/cppcheck-suppressions.txt'}"]
FOLDERS = tuple(str(tree.TOP / folder) + "/" for folder in ("src", "drive"))
EXAMPLE_OPTIONS = ["-std=c17", "-Wall", "-Wextra", f"-I{tree.TOP / 'include'}"]


@pytest.fixture(scope="module")
def entries():
    """{source: its entry in compile_commands.json}"""
    commands = tree.build() / "compile_commands.json"
    assert commands.exists(), f"{commands} is missing: make the build, or set PINTLE_BUILD"
    found = {}
    for entry in json.loads(commands.read_text()):
        path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
        if path.startswith(FOLDERS):
            found[path] = entry
    return found


def examples():
    return sorted(str(path) for path in (tree.TOP / "examples").glob("*.c"))


def tidy(source, before=(), after=()):
    """What it found, or why it could not work; nothing if all is well."""
    result = subprocess.run(["clang-tidy", "--quiet", f"--config-file={tree.TOP / '.clang-tidy'}", *before, str(source), *after],
                            capture_output=True, text=True)
    # Its standard error also counts the warnings of system headers that it did not show.
    if result.returncode == 0:
        return result.stdout
    return result.stdout or f"{source}:0:0: error: clang-tidy ended with {result.returncode}: {result.stderr}"


def distinct(outputs):
    """A finding in a header comes with every source that includes it."""
    findings = {}
    for output in outputs:
        for finding in re.split(r"(?m)^(?=\S+:\d+:\d+: (?:warning|error): )", output):
            if finding.strip():
                findings[finding.split("\n")[0].split("/../")[-1]] = finding
    return list(findings.values())


def test_every_source_is_compiled(entries):
    """What no build compiles, nothing checks."""
    sources = {str(tree.TOP / name) for name in tree.files() if name.endswith(".c") and name.split("/")[0] in ("src", "drive")}
    assert len(sources) > 80
    assert sources == set(entries), f"not in the build: {sources - set(entries)}; gone: {set(entries) - sources}"


def test_clang_tidy(entries):
    assert shutil.which("clang-tidy"), "clang-tidy is missing: scripts/deps installs it"
    jobs = [(source, ("-p", str(tree.build()))) for source in entries]
    jobs += [(source, (), ("--", *EXAMPLE_OPTIONS)) for source in examples()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = distinct(pool.map(lambda job: tidy(*job), jobs))
    assert not findings, f"{len(findings)} findings:\n" + "\n".join(findings)


def test_cppcheck(entries, tmp_path):
    assert shutil.which("cppcheck"), "cppcheck is missing: scripts/deps installs it"
    project = tmp_path / "compile_commands.json"
    project.write_text(json.dumps(list(entries.values())))
    ours = subprocess.run([*CPPCHECK, f"-j{os.cpu_count()}", f"--project={project}"], capture_output=True, text=True)
    theirs = subprocess.run([*CPPCHECK, f"-I{tree.TOP / 'include'}", *examples()], capture_output=True, text=True)
    assert ours.returncode == 0 and theirs.returncode == 0, ours.stdout + ours.stderr + theirs.stdout + theirs.stderr


# ---- that they would find something ----

BAD = {
    "clang-analyzer-unix.Malloc": "#include <stdlib.h>\nint f(void);\nint f(void)\n{\n\tint *p = malloc(4);\n\tfree(p);\n\treturn *p;\n}\n",
    "bugprone-suspicious-memset-usage": "#include <string.h>\nvoid f(int *p);\nvoid f(int *p)\n{\n\tmemset(p, '0', 4);\n}\n",
    "bugprone-implicit-widening-of-multiplication-result": "unsigned long f(unsigned a);\nunsigned long f(unsigned a)\n{\n\treturn a * 4096u;\n}\n",
    "misc-redundant-expression": "int f(int a);\nint f(int a)\n{\n\treturn a == a;\n}\n",
    "misc-no-recursion": "int f(int a);\nint f(int a)\n{\n\treturn a > 9 ? 1 : f(a + 1);\n}\n",
    "bugprone-unused-return-value": "#include <sys/mman.h>\nvoid f(void *p);\nvoid f(void *p)\n{\n\tmprotect(p, 1, 0);\n}\n",
}


@pytest.mark.parametrize("check", BAD)
def test_clang_tidy_would_find(check, tmp_path):
    bad = tmp_path / "bad.c"
    bad.write_text(BAD[check])
    assert check in tidy(bad, (), ("--", "-std=gnu17"))


def test_cppcheck_would_find(tmp_path):
    bad = tmp_path / "bad.c"
    bad.write_text("int f(void)\n{\n\tint a[4] = { 0 };\n\treturn a[4];\n}\n")
    result = subprocess.run([*CPPCHECK, str(bad)], capture_output=True, text=True)
    assert result.returncode == 1 and "arrayIndexOutOfBounds" in result.stderr + result.stdout


def test_suppressions_name_their_check():
    """A bare NOLINT or cppcheck-suppress-file would hide whatever comes later."""
    wrong = [f"{name}: {match.group()}" for name, text in tree.texts() if name.endswith((".c", ".h"))
             for match in re.finditer(r"NOLINT(?:NEXTLINE|BEGIN|END)?(?!\w|\()|cppcheck-suppress-file", text)]
    assert not wrong, "\n".join(wrong)


def test_this_reads_the_project(entries):
    assert pathlib.Path(tree.TOP / "src/base/loop.c").exists() and str(tree.TOP / "src/base/loop.c") in entries
