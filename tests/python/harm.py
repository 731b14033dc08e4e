# SPDX-License-Identifier: MIT
"""Tasks and arguments that harm the process they come to, for the tests of crashes."""
import ctypes
import os
import signal
import sys
import time

ENDS = {}  # name -> (function that ends this process, its signal or None, its exit code or None)


def _end(name, signal_number=None, exitcode=None):
    def register(function):
        ENDS[name] = function, signal_number, exitcode
        return function

    return register


@_end("killed", signal.SIGKILL)
def kill_me(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@_end("terminated", signal.SIGTERM)
def terminate_me(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


@_end("segmentation fault", signal.SIGSEGV)
def read_null(*_):
    ctypes.string_at(0)


@_end("aborted", signal.SIGABRT)
def abort(*_):
    os.abort()


@_end("left with 3", exitcode=3)
def leave_with_3(*_):
    os._exit(3)


@_end("left with 0", exitcode=0)
def leave_with_0(*_):
    os._exit(0)


def note(path, text="x"):
    """Append to a file: a trace of a task that ran."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def noted(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def die_at_first(path, times=1):
    """Die of SIGKILL the first time(s), then return a number."""
    before = noted(path)
    note(path)
    if before < times:
        kill_me()
    return 42


def kill_at_minus_one(number):
    if number == -1:
        kill_me()
    return number


def note_and_fail(path):
    note(path)
    raise LookupError


def tidy_at_sigterm(path):
    """Note that it runs, and at SIGTERM that it was told."""
    signal.signal(signal.SIGTERM, lambda *_: (note(path), os._exit(0)))
    note(path)
    time.sleep(60)


def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


def spin(*_):
    while True:
        pass


def spin_without_heed(path=None):
    """Ignore SIGTERM and never return."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if path:
        note(path)
    while True:
        time.sleep(0.01)


def hold_the_lock(path=None):
    """Keep the interpreter lock for ever, in C."""
    if path:
        note(path)
    ctypes.PyDLL(None).sleep(60)


def close_all(*_):
    os.closerange(0, 256)
    return "closed"


def write_rubbish(*_):
    """Write to everything that is open but the standard files."""
    for descriptor in range(3, 256):
        try:
            os.set_blocking(descriptor, False)
            os.write(descriptor, b"rubbish " * 40)
        except OSError:
            pass
    return "written"


def eat_memory(size):
    eaten = bytearray(size)
    for place in range(0, size, 4096):
        eaten[place] = 1
    return len(eaten)


class BadError(Exception):
    """It can be pickled, but not unpickled: it is rebuilt with too few arguments."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_bad_error():
    raise BadError(1, 2)


class AtPickling:
    """Calls a function when it is pickled."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        self.function()
        return int, ()


class AtUnpickling:
    """Calls a function when it is unpickled, and is a number then."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, ()


def exit_quietly():
    sys.exit(0)


def raise_at_unpickling():
    raise KeyError("at unpickling")


def make(kind, function):
    return kind(function)


def ignore(*_):
    return "taken"


def large(size):
    return bytes(range(256)) * (size // 256)


def large_pid(path, size):
    """Say who makes the large result, then make it."""
    note(path, f"{os.getpid()}\n")
    return large(size)
