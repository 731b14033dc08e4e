# SPDX-License-Identifier: MIT
"""Puts cfutures in the place of concurrent.futures, for a whole program.

It is a matter of names: `sys.modules` and the package `concurrent` get other modules under the
standard ones' names.  The standard modules stay what they are for whoever holds them, cfutures
itself above all.  Python knows no hook for the interpreters that a program starts, so those that
multiprocessing starts are told on their command line.
"""
import concurrent
import importlib
import os.path
import sys

_STANDARD = "concurrent.futures"
_PARTS = "_base", "thread", "process"


def install() -> None:
    """Put cfutures in the place of `concurrent.futures` from here on.

    `import concurrent.futures`, `from concurrent.futures import ...` and the same with
    `concurrent.futures.thread` and its neighbours then give what cfutures has, in this process, in
    those forked from it, and in those that multiprocessing starts, before these import the main
    module.  Doing it again changes nothing.

    What a module has got hold of before stays standard: a name that it imported from
    `concurrent.futures`, and the package itself under a name of its own (`import
    concurrent.futures as cf`, `from concurrent import futures`).  A module that says
    `concurrent.futures.X` in full at the time of use gets cfutures.  Both kinds work together, save
    that asyncio, which asks for `concurrent.futures.Future` in full, then takes standard futures
    and executors no longer.  So this is to be called first of all, or
    `python -m cfutures program.py` used.
    """
    if installed():
        return
    standard = importlib.import_module(_STANDARD)
    for name in standard.__all__:
        getattr(standard, name)  # some it imports when first asked, then from the wrong place
    # All of cfutures is imported before the first name changes: it imports the standard modules.
    parts = {part: importlib.import_module(f"{__package__}.{part}") for part in _PARTS}
    sys.modules.update({f"{_STANDARD}.{part}": module for part, module in parts.items()})
    sys.modules[_STANDARD] = concurrent.futures = sys.modules[__package__]
    _tell_children()


def installed() -> bool:
    """Whether `concurrent.futures` is cfutures in this process."""
    return sys.modules.get(_STANDARD) is sys.modules[__package__]


def _tell_children() -> None:
    """Have the interpreters that multiprocessing starts install cfutures before all else."""
    from multiprocessing import util  # costs much, and not every program calls install()

    start = util.spawnv_passfds
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    first = (f"import sys; sys.path.append({root!r}); "
             f"from {__package__}.install import install; install(); ")

    def spawnv_passfds(path, args, passfds):
        args = list(args)
        program = args.index("-c") + 1
        if "resource_tracker" not in args[program]:  # that one runs nobody's code
            args[program] = first + args[program]
        return start(path, args, passfds)

    util.spawnv_passfds = spawnv_passfds
