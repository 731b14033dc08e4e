# SPDX-License-Identifier: MIT
"""What the tests share.

The implementation under test is the module that CFUTURES_TEST_IMPL names, `cfutures` if it names
none; with `concurrent.futures` the tests show what the standard module does.  What could hang, or
would harm the process that it runs in, is a program of its own: `run` starts it in a fresh
interpreter, with a time limit, and sees that no process of it is left.  Programs use this module
as well, so importing it is cheap.
"""
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid

IMPLEMENTATION = os.environ.get("CFUTURES_TEST_IMPL", "cfutures")
STANDARD = IMPLEMENTATION == "concurrent.futures"
LONG = os.environ.get("CFUTURES_LONG") == "1"
LIMIT = 40.0  # seconds that a program may take
GONE = 2.0  # seconds after which nothing of a program is left
SOON = 10.0  # generous: far less than anything that a test holds up, far more than it should take

futures = importlib.import_module(IMPLEMENTATION)
_TAG = "CFUTURES_TEST_RUN"
_HERE = pathlib.Path(__file__).parent


def ours(test):
    """Mark a test of what the standard module does not have, or does badly."""
    import pytest

    return pytest.mark.skipif(STANDARD, reason="not with the standard module")(test)


def long(test):
    """Mark a test that takes too long for every run."""
    import pytest

    test = pytest.mark.timeout(600)(test)
    return pytest.mark.skipif(not LONG, reason="CFUTURES_LONG=1 runs it")(test)


# Programs -------------------------------------------------------------------------------------


class Outcome:
    """How a program ended: its return code, what it wrote, how long it took."""

    def __init__(self, returncode, out, err, seconds):
        self.returncode, self.out, self.err, self.seconds = returncode, out, err, seconds

    def __repr__(self):
        return (
            f"returned {self.returncode} after {self.seconds:.1f} s\n"
            f"--- stdout\n{self.out}\n--- stderr\n{self.err}"
        )


class Program:
    """A program in a fresh interpreter, in a session of its own.

    `wrapper`: the words of a command that runs it."""

    def __init__(self, source, *arguments, wrapper=()):
        self.directory = tempfile.TemporaryDirectory(prefix="cfutures-test-")
        self.path = pathlib.Path(self.directory.name, "program.py")
        self.path.write_text(PREAMBLE + textwrap.dedent(source))
        self.out = open(pathlib.Path(self.directory.name, "out"), "w+")
        self.err = open(pathlib.Path(self.directory.name, "err"), "w+")
        self.tag = uuid.uuid4().hex
        paths = [str(_HERE)] + [path for path in sys.path if path]
        variables = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), **{_TAG: self.tag})
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-X", "faulthandler", str(self.path), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self.out,
            stderr=self.err,
            env=variables,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [self.process.pid, *self.processes()]:
            _kill(pid)
        self.process.wait()
        self.out.close()
        self.err.close()
        self.directory.cleanup()

    def processes(self):
        """All processes that come from the program and still live, itself excepted."""
        return [pid for pid in tagged(self.tag) if pid != self.process.pid]

    def wait_for(self, text, limit=LIMIT):
        """Wait until the program has written `text`."""
        until(lambda: text in self._read(self.out) or self.process.poll() is not None, limit)
        assert text in self._read(self.out), self.outcome()

    def end(self, limit=LIMIT):
        """Wait for the end of the program and of all its processes."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            self.process.wait()
            raise AssertionError(f"the program hangs\n{self.outcome()}") from None
        until(lambda: not self.processes(), GONE)
        left = self.processes()
        assert not left, f"left behind: {describe(left)}\n{self.outcome()}"
        return self.outcome()

    def outcome(self):
        seconds = time.monotonic() - self.began
        return Outcome(self.process.poll(), self._read(self.out), self._read(self.err), seconds)

    @staticmethod
    def _read(file):
        return pathlib.Path(file.name).read_text(errors="replace")


PREAMBLE = """\
import os, signal, sys, threading, time
from support import *
"""


def run(source, *arguments, expect=0, limit=LIMIT, **options):
    """Run a program to its end; it must return `expect` (None: anything)."""
    with Program(source, *arguments, **options) as program:
        outcome = program.end(limit)
    assert expect is None or outcome.returncode == expect, outcome
    return outcome


def run_json(source, *arguments, **options):
    """Run a program whose last line of output is a value in JSON, and return that value."""
    return json.loads(run(source, *arguments, **options).out.splitlines()[-1])


def report(value):
    """In a program: hand a value to `run_json`."""
    print(json.dumps(value), flush=True)


def say(*words):
    """In a program: write a line at once."""
    print(*words, flush=True)


# Limits ---------------------------------------------------------------------------------------


def cgroup(controller, *settings):
    """Make a cgroup with a limit; skip the test where none can be made.

    `settings`: pairs of a file and what to write to it; the first file that is there counts.  A
    program joins it by writing its process id to `cgroup.procs`."""
    import pytest

    for parent in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        directory = f"{parent}/cfutures-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            os.mkdir(directory)
        except OSError:
            continue
        for file, value in zip(settings[::2], settings[1::2]):
            if os.path.exists(f"{directory}/{file}"):
                pathlib.Path(directory, file).write_text(value)
                return directory
        os.rmdir(directory)
    pytest.skip(f"no limit of {controller} can be set here")


def remove_cgroup(directory):
    """Remove a cgroup once its processes have gone."""
    until(lambda: not pathlib.Path(directory, "cgroup.procs").read_text())
    os.rmdir(directory)


# Waiting and counting -------------------------------------------------------------------------


def until(condition, limit=SOON):
    """Wait until a condition holds, and return whether it does."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def tagged(tag):
    """The processes that have inherited the environment of a program."""
    wanted = f"{_TAG}={tag}".encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has just gone
            pass
    return [pid for pid in found if alive(pid)]


def alive(pid):
    """Whether a process is there, and no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def describe(pids):
    lines = []
    for pid in pids:
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            lines.append(f"{pid} {command.decode(errors='replace')}")
        except OSError:
            pass
    return lines


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def descriptors():
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def threads():
    """How many threads this process has, whoever made them."""
    return len(os.listdir("/proc/self/task"))


def offspring():
    """The processes that come from this program, itself excepted."""
    return [pid for pid in tagged(os.environ[_TAG]) if pid != os.getpid()]


def resident():
    """The memory that this process has in use, in bytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def asleep(thread_id, process="self"):
    """Whether a thread of this or another process sleeps, and has slept for a while."""

    def state():
        directory = pathlib.Path(f"/proc/{process}/task/{thread_id}")
        stat = (directory / "stat").read_text().rpartition(")")[2].split()[0]
        status = (directory / "status").read_text()
        switches = [line for line in status.splitlines() if "ctxt_switches" in line]
        return stat, switches

    before = state()
    time.sleep(0.05)
    return before[0] == "S" and state() == before


def wait_for_file(path):
    """A task that ends when a file is there."""
    return until(lambda: os.path.exists(path), LIMIT)


class Interrupt:
    """In a program: Ctrl-C as soon as the main thread waits for something.

    `with Interrupt() as interrupt: wait...` ; then `interrupt.seconds` from the signal to the
    KeyboardInterrupt, which must have come."""

    def __enter__(self):
        self.sent = self.seconds = None
        self.main = threading.get_native_id()
        threading.Thread(target=self._send, daemon=True).start()
        return self

    def _send(self):
        until(lambda: asleep(self.main))
        self.sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, kind, *_):
        if kind is not KeyboardInterrupt:
            return False
        self.seconds = time.monotonic() - self.sent
        return True


def thread_pool(*arguments, **options):
    """A thread pool of the implementation under test."""
    return futures.ThreadPoolExecutor(*arguments, **options)


def process_pool(*arguments, method=None, **options):
    """A process pool of the implementation under test, with a start method by name."""
    import multiprocessing

    if method is not None:
        options["mp_context"] = multiprocessing.get_context(method)
    return futures.ProcessPoolExecutor(*arguments, **options)
