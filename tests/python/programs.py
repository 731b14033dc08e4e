# SPDX-License-Identifier: MIT
"""Runs programs as they are: the examples, and programs of others.

With CFUTURES_TEST_IMPL=concurrent.futures a package `cfutures` that only passes on the standard
module stands in front, so that what the programs do can be seen there.
"""
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid

import support

STAND_IN = {
    "__init__.py": "from concurrent.futures import *\n",
    "__main__.py": """\
import runpy, sys
del sys.argv[0]
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
""",
}

# Imported at the start of an interpreter; notes whose executors are made, line by line.
WITNESS = """\
import concurrent.futures, faulthandler, functools, os
import cfutures

def watch(name):
    standard, ours = getattr(concurrent.futures, name), getattr(cfutures, name)

    def note(executor, whose):
        make = executor.__init__

        @functools.wraps(make)
        def made(self, *args, **kwargs):
            if whose == "cfutures" or ours is standard or not isinstance(self, ours):
                with open(os.environ["CFUTURES_TEST_WITNESS"], "a") as file:
                    file.write(f"{whose} {name}\\n")
            make(self, *args, **kwargs)
        executor.__init__ = made

    note(standard, "standard")
    if ours is not standard:
        note(ours, "cfutures")

watch("ThreadPoolExecutor")
watch("ProcessPoolExecutor")
faulthandler.enable()
"""

# Settings of whoever runs the tests that change what a program writes, and where.
CHANGES_OUTPUT = {"PYTHONUNBUFFERED", "PYTHONFAULTHANDLER"}


class Run:
    """A program that runs: `python ARGUMENTS` in a directory, with files of its own in another.

    `executors` is what it has made, if it is watched."""

    def __init__(self, arguments, own, cwd, watched=False):
        self.own = pathlib.Path(own)
        self.tag = uuid.uuid4().hex
        self.out, self.err = open(self.own / "out", "w+"), open(self.own / "err", "w+")
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=self.out, stderr=self.err, env=self._environment(watched),
            start_new_session=True)
        self.began = time.monotonic()

    def _environment(self, watched):
        paths = [path for path in sys.path if path]
        if support.STANDARD:
            paths.insert(0, self._lay("stand_in", "cfutures", STAND_IN))
        if watched:
            paths.insert(0, self._lay("witness", ".", {"sitecustomize.py": WITNESS}))
        own = {name: value for name, value in os.environ.items() if name not in CHANGES_OUTPUT}
        return dict(own, PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1",
                    CFUTURES_TEST_WITNESS=str(self.own / "executors"), HOME=str(self.own),
                    **{support._TAG: self.tag})

    def _lay(self, folder, package, files):
        (self.own / folder / package).mkdir(parents=True)
        for name, text in files.items():
            (self.own / folder / package / name).write_text(text)
        return str(self.own / folder)

    def end(self, expect=0, limit=support.LIMIT):
        """Wait for the end of the program and of all its processes; its output.

        It must return `expect`; None: anything but a signal's number."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            self.process.wait()
        support.until(lambda: not support.tagged(self.tag), support.GONE)
        left = support.tagged(self.tag)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        code = self.process.returncode
        assert code == expect if expect is not None else code >= 0, self
        assert not left, f"{left} left behind\n{self}"
        return self.output()

    def output(self):
        return (self.own / "out").read_text()

    def errors(self):
        return (self.own / "err").read_text()

    def __repr__(self):
        seconds = time.monotonic() - self.began
        return (f"{self.process.args} returned {self.process.poll()} after {seconds:.1f} s\n"
                f"--- stdout\n{self.output()}\n--- stderr\n{self.errors()}")

    @property
    def executors(self):
        notes = self.own / "executors"
        return set(notes.read_text().splitlines()) if notes.exists() else set()
