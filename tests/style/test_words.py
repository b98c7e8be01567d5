# SPDX-License-Identifier: BSD-2-Clause
"""Words that do not belong in the tree, sizes of files, and links between documents."""
import re

import pytest
import tree

# Spelled in pieces, so that this file does not find itself.
FORBIDDEN = {
    "an unfinished thought": re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b"),
    "a path of somebody's machine": re.compile(r"(?<![\w$}.)/-])/(wo" r"rk|ho" r"me|ro" r"ot|User" r"s)/[\w.]"),
    "a package registry's host": re.compile(r"\b(artifact" r"ory|nex" r"us|jfr" r"og|pypi\.org|pythonhosted\.org|registry\.npmjs|proxy\.golang|crates\.io)",
                                            re.IGNORECASE),
    "somebody's address on a network": re.compile(r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}\b"),
    "a conflict": re.compile(r"^(<{7} |>{7} |={7}$)", re.MULTILINE),
}
LINES = 800


# Scripts that run inside the guest, whose folders are its own.
OF_THE_GUEST = "tests/lab/guest/"


def found(text):
    return [(what, match.group()) for what, pattern in FORBIDDEN.items() for match in pattern.finditer(text)]


def test_no_words_of_elsewhere():
    wrong = [f"{name}: {what}: {word}" for name, text in tree.texts() for what, word in found(text)
             if not (name.startswith(OF_THE_GUEST) and word.startswith("/"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["// TO" "DO: more", "see /wo" "rk/shared", "open /ro" "ot/x", "host 10.1" ".2.3", "X" "XX", "<<<<" "<<< ours\n"])
def test_they_would_be_found(text):
    assert found(text)


def test_files_have_one_subject():
    long = [f"{name}: {text.count(chr(10))} lines" for name, text in tree.texts() if text.count("\n") > LINES]
    assert not long, "\n".join(long)


def test_whitespace():
    wrong = []
    for name, text in tree.texts():
        if not text:
            continue
        if not text.endswith("\n") or text.endswith("\n\n"):
            wrong.append(f"{name}: does not end with exactly one newline")
        for number, line in enumerate(text.splitlines(), 1):
            if line != line.rstrip():
                wrong.append(f"{name}:{number}: blanks at the end")
            if name.endswith((".c", ".h")) and re.match(r"\t* {8}", line):
                wrong.append(f"{name}:{number}: eight blanks instead of a tab")
    assert not wrong, "\n".join(wrong)


def broken_links(name, text):
    folder = (tree.TOP / name).parent
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        path = target.split("#")[0]
        if path and "://" not in target and not target.startswith("mailto:") and not (folder / path).exists():
            broken.append(f"{name}: ({target})")
    # Paths of this tree in backquotes, as prose names them: `docs/lifecycle.md`, `examples/sum.c`.
    for path in re.findall(r"`((?:docs|src|drive|include|tests|examples|scripts|bench|contrib)/[\w./-]+\.\w+)`", text):
        if not (tree.TOP / path).exists():
            broken.append(f"{name}: `{path}`")
    return broken


def test_links_between_documents():
    broken = [link for name, text in tree.texts() if name.endswith(".md") for link in broken_links(name, text)]
    assert not broken, "\n".join(broken)


def test_a_broken_link_is_found():
    assert broken_links("README.md", "see [it](docs/nowhere.md)") and broken_links("README.md", "see `docs/nowhere.md`")


def test_manual_pages_are_well_formed():
    """mandoc's own lint, where it is installed (scripts/deps installs it)."""
    import shutil
    import subprocess
    assert shutil.which("mandoc"), "mandoc is missing: scripts/deps installs it"
    pages = sorted((tree.TOP / "docs" / "man").glob("*.1"))
    assert len(pages) >= 5
    result = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
