# SPDX-License-Identifier: MIT
"""A drop-in for concurrent.futures on an engine in C.

The same names and the same behaviour: change the import, or call install(), or run a program with
`python -m cfutures`.  What is new is opt-in, by keyword.
"""

import concurrent.futures as _standard

from . import _base, thread
from ._base import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    DeadlockError,
    Executor,
    Future,
    InvalidStateError,
    QueueFull,
    TaskStopped,
    TimeoutError,
    as_completed,
    wait,
)
from ._engine import cpu_count
from .install import install, installed
from .thread import ThreadPoolExecutor

__version__ = "0.1.0"

__all__ = [
    "ALL_COMPLETED",
    "BrokenExecutor",
    "CancelledError",
    "DeadlockError",
    "Executor",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "QueueFull",
    "TaskStopped",
    "ThreadPoolExecutor",
    "TimeoutError",
    "WorkerDied",
    "as_completed",
    "cpu_count",
    "install",
    "installed",
    "wait",
]

if hasattr(_standard, "InterpreterPoolExecutor"):
    from concurrent.futures import InterpreterPoolExecutor, interpreter

    __all__.append("InterpreterPoolExecutor")


def __getattr__(name):
    """The process pool is imported when it is first asked for, as in the standard package."""
    if name in ("ProcessPoolExecutor", "WorkerDied"):
        from . import process

        globals()["ProcessPoolExecutor"] = process.ProcessPoolExecutor
        globals()["WorkerDied"] = process.WorkerDied
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, "process"})
