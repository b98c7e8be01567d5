# SPDX-License-Identifier: BSD-2-Clause
"""Every file that can bear a comment says its license in the first line (the second, below #!)."""
import tree

LINE = "SPDX-License-Identifier: BSD-2-Clause"
# One folder is another license's: a test program that is linked with Unicorn.
OTHERS = {"tests/lab/s390/": "SPDX-License-Identifier: GPL-2.0-only"}
# What cannot or need not: prose, licenses themselves, empty package markers, data.
FREE = (".md", ".json", ".txt", ".golden")
FREE_FOLDERS = ("LICENSES/",)


def test_license_in_the_first_line():
    bare = []
    for name, text in tree.texts():
        if name.endswith(FREE) or name.startswith(FREE_FOLDERS) or not text or name == ".gitignore":
            continue
        lines = text.splitlines()
        first = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
        line = next((line for folder, line in OTHERS.items() if name.startswith(folder)), LINE)
        if not first.rstrip(" */-").endswith(line):
            bare.append(name)
    assert not bare, "no license line: " + ", ".join(bare)


def test_c_files_say_what_they_are_for():
    """The second line of a C file begins a comment."""
    silent = [name for name, text in tree.texts() if name.endswith((".c", ".h")) and not text.splitlines()[1:2][0].startswith("/*")]
    assert not silent, "no paragraph of purpose: " + ", ".join(silent)
