# SPDX-License-Identifier: BSD-2-Clause
"""`pintle serve` as a process: started, asked, ended."""
import os
import pathlib
import re
import signal
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60


def build(variable="PINTLE_BUILD", default="build-debug"):
    """A build directory, named by the variable or beside the sources."""
    return (TOP / os.environ.get(variable, default)).resolve()


def wait_until(condition, what, patience=PATIENCE):
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, f"in vain: {what}"
        time.sleep(0.002)


class Server:
    """Used in a with statement: whatever happens, the process is gone afterwards."""

    def __init__(self, program, folder, *arguments, start=True, **options):
        self.folder = pathlib.Path(folder)
        self.log = self.folder / "server.log"
        self.begun = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(program), "serve", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.folder, **options)
        if start:
            wait_until(lambda: self.says("ready:") or self.process.poll() is not None, "the server is ready")
            self.seconds = time.monotonic() - self.begun
            assert self.process.poll() is None, self.words()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def words(self):
        return self.log.read_text(errors="replace")

    def says(self, text):
        return text in self.words()

    def wait_for(self, text):
        wait_until(lambda: self.says(text) or self.process.poll() is not None, text)
        assert self.says(text), self.words()

    def status(self, field):
        return re.search(rf"^{field}:\s*(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE).group(1)

    def kib(self, field):
        return int(self.status(field))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def tasks(self):
        return [pathlib.Path(path) for path in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()]

    def switches(self):
        """{thread: context switches so far}"""
        return {task.name: sum(int(n) for n in re.findall(r"ctxt_switches:\s*(\d+)", (task / "status").read_text())) for task in self.tasks()}

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        status = self.process.wait(PATIENCE)
        assert not re.search(r"Sanitizer|runtime error", self.words()), self.words()
        return status
