# SPDX-License-Identifier: BSD-2-Clause
"""Functions of the C library that may be called in few places or in none, each with its reason."""
import re

import tree

STARTUP = "while there is one thread"
# function: (why, files that may)
RARE = {
    "exit": ("nothing outside main ends the process (law: outside input never does)", ("src/cli/main.c", "examples/vmm.c", "examples/zpci.c", "examples/css.c")),
    "_exit": ("as exit; the operator's second SIGTERM, and a test build asked for a mutation it has not", ("src/serve/serve.c", "src/base/mutate.c")),
    "abort": ("nothing ends the process on outside input; these are checks of debug builds", ("src/base/rank.c", "src/base/loop.c", "src/base/loop_message.c")),
    "quick_exit": ("as exit", ()),
    "getenv": (STARTUP, ("src/serve/notify.c", "src/serve/listen.c", "src/serve/sandbox.c", "src/base/mutate.c", "drive/client.c", "src/cli/control.c")),
    "setenv": ("not safe with threads", ()),
    "getpwnam": (STARTUP, ("src/serve/listen.c",)),
    "getgrnam": (STARTUP, ("src/serve/listen.c",)),
    "umask": ("the process's, " + STARTUP, ("src/serve/listen.c", "src/cli/xen.c")),
    "chdir": ("the process's", ()),
    "localtime": ("not safe with threads", ()),
    "gmtime": ("not safe with threads", ()),
    "ctime": ("not safe with threads", ()),
    "strtok": ("not safe with threads", ()),
    "rand": ("not safe with threads", ()),
    "readdir": ("one DIR, one thread", ("drive/usage.c",)),
    "strcpy": ("unbounded", ()),
    "strcat": ("unbounded", ()),
    "sprintf": ("unbounded", ()),
    "vsprintf": ("unbounded", ()),
    "gets": ("unbounded", ()),
    "strncpy": ("leaves strings without an end", ()),
    "alloca": ("unbounded", ()),
    "atoi": ("says nothing of errors", ()),
    "atol": ("says nothing of errors", ()),
    "atof": ("says nothing of errors", ()),
    "system": ("a shell", ()),
    "popen": ("a shell", ()),
    "sleep": ("time decides nothing", ()),
    "usleep": ("time decides nothing; at set-up, between looks at a lock that the kernel still holds for a process it has killed", ("src/block/file.c",)),
    "select": ("descriptors above 1023", ()),
    "signal": (STARTUP + "; or to die of a fault that is nobody else's", ("src/serve/serve.c", "src/memory/sigbus.c")),
}
CALL = re.compile(r"(?<![\w.>])(" + "|".join(RARE) + r")\s*\(")


def bare(text):
    """The code without comments and strings."""
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", " ", text, flags=re.DOTALL)


def calls(text):
    return [match.group(1) for match in CALL.finditer(bare(text))]


def test_rare_functions_are_called_where_they_may_be():
    wrong = []
    for name, text in tree.texts():
        if name.endswith((".c", ".h")) and name.split("/")[0] in tree.SOURCE_FOLDERS:
            wrong += [f"{name}: {call}(): {RARE[call][0]}" for call in calls(text) if name not in RARE[call][1]]
    assert not wrong, "\n".join(wrong)


def test_a_call_is_found():
    assert calls("x = strcpy(a, b);") == ["strcpy"]
    assert calls('/* strcpy(a) */ "strcpy(b)" my_strcpy(c) x->signal(d)') == []
