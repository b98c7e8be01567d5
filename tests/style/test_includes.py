# SPDX-License-Identifier: BSD-2-Clause
"""The direction of includes: docs/architecture.md as a table. A part may include itself, what its row names, and public headers."""
import re

import pytest
import tree

# Each row: a part, and what of the project it may include besides itself. In the order of src/meson.build.
BASE = {"base"}
STATE_OF_A_FUNCTION = BASE | {"memory", "life", "irq", "state"}
MAY = {
    "base": set(),
    "memory": BASE,
    "life": BASE | {"memory"},
    "irq": BASE | {"memory", "life"},
    "state": BASE,
    "pci": STATE_OF_A_FUNCTION,
    "channel": STATE_OF_A_FUNCTION,
    "block": BASE,
    "net": BASE,
    "virtio": STATE_OF_A_FUNCTION,
    "host": STATE_OF_A_FUNCTION | {"pci"},
    # A device class knows nothing of how it is presented.
    "virtio/dev": STATE_OF_A_FUNCTION | {"block", "net", "virtio"},
    # A transport knows nothing of device classes.
    "virtio/transport": STATE_OF_A_FUNCTION | {"pci", "channel", "virtio"},
    # A road knows nothing of virtio, and roads nothing of each other.
    "road": STATE_OF_A_FUNCTION | {"pci", "channel"},
    # It carries the hardware itself.
    "road/xen": BASE | {"host"},
    "api": STATE_OF_A_FUNCTION | {"pci", "channel", "block", "net", "virtio", "host", "virtio/dev", "virtio/transport", "road"},
    "serve": STATE_OF_A_FUNCTION | {"pci", "channel", "block", "net", "virtio", "host", "virtio/dev", "virtio/transport", "road", "road/xen"},
    "cli": BASE | {"state", "host", "serve", "drive"},
    "drive": BASE,
    "include": set(),
    "examples": set(),
}
SYSTEM = re.compile(r"^(sys|linux|asm|netinet|arpa|net|xen)/")


def part_of(path):
    """memory/dma.h -> memory, virtio/dev/blk.h -> virtio/dev, road/vfio_user/port.c -> road/vfio_user."""
    folders = path.split("/")[:-1]
    if folders[:1] == ["src"]:
        folders = folders[1:]
    if folders[:1] == ["virtio"]:
        return "/".join(folders[:2])
    return "/".join(folders) if folders[:1] == ["road"] else folders[0]


def row_of(part):
    return "road" if part.startswith("road/") and part not in MAY else part


def wrong_includes(name, text):
    part = part_of(name)
    wrong = []
    for quote, included in re.findall(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', text, re.MULTILINE):
        if quote == "<":
            if included.startswith("pintle/") or "/" not in included or SYSTEM.match(included):
                continue
            wrong.append(f"{name}: <{included}> belongs to neither the system nor the public headers")
            continue
        if "/" not in included:
            if part != "examples":
                wrong.append(f'{name}: "{included}" is not written from src/')
            continue
        to = part_of(included)
        if included.startswith("pintle/"):
            wrong.append(f'{name}: public headers are written in <>: "{included}"')
        elif to != part and row_of(to) not in MAY[row_of(part)]:
            wrong.append(f"{name}: {part} includes {included}")
    return wrong


def test_direction():
    wrong = []
    for name, text in tree.texts():
        if name.endswith((".c", ".h")) and name.split("/")[0] in tree.SOURCE_FOLDERS:
            assert row_of(part_of(name)) in MAY, f"{name}: a part without a row in this test's table"
            wrong += wrong_includes(name, text)
    assert not wrong, "\n".join(wrong)


def test_the_table_has_no_circle():
    order = []
    while len(order) < len(MAY):
        free = [part for part, may in MAY.items() if part not in order and may <= set(order)]
        assert free, f"a circle among {set(MAY) - set(order)}"
        order += free


@pytest.mark.parametrize("name, line", [
    ("src/virtio/dev/blk.c", '#include "pci/function.h"'),
    ("src/virtio/dev/blk.c", '#include "virtio/transport/pci.h"'),
    ("src/base/loop.c", '#include "memory/dma.h"'),
    ("src/road/vfio_user/dma.c", '#include "road/vhost_user/x.h"'),
    ("src/road/vfio_user/dma.c", '#include "virtio/device.h"'),
    ("src/api/blk.c", '#include "serve/config.h"'),
    ("drive/pci.c", '#include "pci/function.h"'),
    ("src/pci/msi.c", '#include "internal.h"'),
    ("include/pintle/blk.h", '#include "base/num.h"'),
])
def test_a_wrong_one_is_found(name, line):
    assert wrong_includes(name, line)
