# SPDX-License-Identifier: MIT
"""A drop-in for concurrent.futures on an engine in C.

    from cfutures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait

The same names and the same behaviour: change the import, or call install(), or run a program with
`python -m cfutures`.  What is new is opt-in, by keyword: see help() of the executors, and of
Future.stop.
"""

import importlib
import sys

from .install import install, installed

__version__ = "0.1.0"

# Where each name is defined.  They are imported when they are first asked for: worker processes need
# none of them.
_HOMES = {
    "_base": (
        "ALL_COMPLETED",
        "BrokenExecutor",
        "CancelledError",
        "DeadlockError",
        "Executor",
        "FIRST_COMPLETED",
        "FIRST_EXCEPTION",
        "Future",
        "InvalidStateError",
        "QueueFull",
        "TaskStopped",
        "TimeoutError",
        "as_completed",
        "wait",
    ),
    "_engine": ("cpu_count",),
    "process": ("ProcessPoolExecutor", "WorkerDied"),
    "thread": ("ThreadPoolExecutor",),
}
if sys.version_info >= (3, 14):
    _HOMES["_base"] += ("InterpreterPoolExecutor",)

_home_of = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_home_of, "install", "installed"])

_home_of["interpreter"] = "_base"


def __getattr__(name):
    if name in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _home_of:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__getattr__(_home_of[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, "process", "thread"})
