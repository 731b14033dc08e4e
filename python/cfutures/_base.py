# SPDX-License-Identifier: MIT
"""Futures, the executors' common part, wait() and as_completed().

The standard module's classes are the bases and its exceptions and constants are the same objects,
so both kinds of futures and executors are taken everywhere.
"""

import concurrent.futures._base as standard_base
import logging
import queue
import sys
import weakref
from time import monotonic

from . import _engine

if sys.version_info >= (3, 14):
    from concurrent.futures import InterpreterPoolExecutor, interpreter  # noqa: F401

FIRST_COMPLETED = standard_base.FIRST_COMPLETED
FIRST_EXCEPTION = standard_base.FIRST_EXCEPTION
ALL_COMPLETED = standard_base.ALL_COMPLETED
_AS_COMPLETED = standard_base._AS_COMPLETED

PENDING = standard_base.PENDING
RUNNING = standard_base.RUNNING
CANCELLED = standard_base.CANCELLED
CANCELLED_AND_NOTIFIED = standard_base.CANCELLED_AND_NOTIFIED
FINISHED = standard_base.FINISHED
_FUTURE_STATES = standard_base._FUTURE_STATES
_STATE_TO_DESCRIPTION_MAP = standard_base._STATE_TO_DESCRIPTION_MAP

LOGGER = standard_base.LOGGER

Error = standard_base.Error
CancelledError = standard_base.CancelledError
TimeoutError = standard_base.TimeoutError
InvalidStateError = standard_base.InvalidStateError
BrokenExecutor = standard_base.BrokenExecutor
DoneAndNotDoneFutures = standard_base.DoneAndNotDoneFutures


class TaskStopped(Error):
    """The task was stopped: by Future.stop(), or because its run limit had passed."""


class QueueFull(queue.Full):
    """A bounded executor has no room for another task."""


class DeadlockError(RuntimeError):
    """Waiting here could never end: what is waited for waits for this task."""


# ---- the future ------------------------------------------------------------------------------


class Future(_engine.Future, standard_base.Future):
    """The outcome of a call, present or to come."""

    __slots__ = ()


class _Waiters(list):
    """A future's list of the standard wait()'s waiters.

    One that last saw the future pending and comes too late is told at once.
    """

    def __init__(self, future):
        super().__init__()
        self._future = future

    def append(self, waiter):
        super().append(waiter)
        future = self._future
        if not future._hook() and future._state not in (CANCELLED_AND_NOTIFIED, FINISHED):
            _tell_waiters(future, [waiter])

    def remove(self, waiter):
        if waiter in self:
            super().remove(waiter)


class _Condition:
    """What a future answers for `_condition`: who holds it sees the state stand still."""

    __slots__ = ("_future",)

    def __init__(self, future):
        self._future = future

    def acquire(self, *args, **kwargs):
        self._future._hold()
        return True

    def release(self):
        self._future._let_go()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *unused):
        self.release()

    def notify_all(self):
        self._future._apply()

    notify = notify_all

    def wait(self, timeout=None):
        """Until the future is done; False: not in time."""
        self.release()
        try:
            _engine.wait([self._future], timeout, ALL_COMPLETED)
        finally:
            self.acquire()
        return self._future.done()

    def wait_for(self, predicate, timeout=None):
        """Until predicate() holds; what it returned."""
        while not (result := predicate()):
            if not self.wait(timeout):
                return predicate()
        return result


def _tell_waiters(future, waiters):
    """As the standard future does it: under its condition, each by the method for the outcome."""
    for waiter in list(waiters):
        if future.cancelled():
            waiter.add_cancelled(future)
        elif future.exception() is not None:
            waiter.add_exception(future)
        else:
            waiter.add_result(future)


def _log(exception, critical, message, *args):
    LOGGER.log(logging.CRITICAL if critical else logging.ERROR, message, *args, exc_info=exception)


# ---- failures that the engine reports ---------------------------------------------------------

# cf_status and cfpy_origin, as numbers.
_STOPPED, _BROKEN, _SHUTDOWN, _FULL, _DEADLOCK, _SYSTEM = 3, 5, 6, 7, 8, 11
_THREADS, _PROCESSES = 1, 2

#: What makes the exception for a worker that died or an initializer that failed, by origin; the
#: modules of the pools put their own here.
broken_makers = {}


def _failure(origin, status, message, pid, signal, exitcode, out_of_memory):
    """The exception for a failing call of the engine, or for a future that has no outcome."""
    if status == _BROKEN and origin in broken_makers:
        return broken_makers[origin](message, pid, signal, exitcode, bool(out_of_memory))
    if status == _STOPPED:
        return TaskStopped(message)
    if status == _SHUTDOWN:
        return RuntimeError(shutdown_message())
    if status == _FULL:
        return QueueFull("the executor has no room for another call")
    if status == _DEADLOCK:
        return DeadlockError(message)
    if status == _SYSTEM:
        return OSError(message)
    return RuntimeError(message)


#: The interpreter is shutting down: no executor takes work any more.
_exiting = False


def shutdown_message():
    """What submit() says when no call is taken any more."""
    return "cannot schedule new futures after " + (
        "interpreter shutdown" if _exiting else "shutdown"
    )


_engine.configure(
    Future=Future,
    CancelledError=CancelledError,
    InvalidStateError=InvalidStateError,
    DoneAndNotDone=DoneAndNotDoneFutures,
    failure=_failure,
    log=_log,
    as_completed=standard_base.as_completed,
    tell_waiters=_tell_waiters,
    Waiters=_Waiters,
    Condition=_Condition,
)


# ---- waiting for several ----------------------------------------------------------------------


def wait(fs, timeout=None, return_when=ALL_COMPLETED):
    """Wait for futures of any executors.

    Returns two sets, `done` and `not_done`, after `timeout` seconds at the latest (None: no limit).
    return_when: FIRST_COMPLETED, one is done or cancelled; FIRST_EXCEPTION, one has raised, or all
    are done; ALL_COMPLETED.  A cancelled future is done at once.
    """
    fs = fs if isinstance(fs, (set, list, tuple, frozenset)) else set(fs)
    result = _engine.wait(fs, timeout, return_when)
    if result is NotImplemented:  # futures of other packages among them
        return standard_base.wait(fs, timeout, return_when)
    return result


def as_completed(fs, timeout=None):
    """An iterator over futures as they complete, each once, those that are done first.

    Raises TimeoutError if not all are done `timeout` seconds after the first next().
    """
    return _engine.Completed(fs, timeout)


# ---- executors --------------------------------------------------------------------------------


def check_buffersize(buffersize):
    """Raise what the standard's map() raises for a bad one."""
    if buffersize is None:
        return
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


class Feeder:
    """Submits one more call of a map before each result is read.

    Holds its executor weakly: a map whose executor has gone ends with what was submitted.
    """

    def __init__(self, executor, submit_each, arguments, futures):
        self._executor = weakref.ref(executor)
        self._arguments = (submit_each, arguments, futures)

    def __call__(self):
        executor = self._executor()
        if executor is not None and self._arguments is not None:
            submit_each, arguments, futures = self._arguments
            if not submit_each(executor, *arguments, 1, futures):
                self._arguments = None


def _submit_each(executor, fn, iterators, limit, futures):
    """Submits the next `limit` calls (-1: all), appending their futures; False: no more."""
    for args in zip(*iterators):
        futures.append(executor.submit(fn, *args))
        limit -= 1
        if limit == 0:
            return True
    return False


def map_with(executor, submit_each, arguments, timeout, buffersize):
    """The iterator of a map: submit_each(executor, *arguments, limit, futures) submits."""
    check_buffersize(buffersize)
    futures, feed = [], None
    end = None if timeout is None else monotonic() + timeout
    more = submit_each(executor, *arguments, -1 if buffersize is None else buffersize, futures)
    if more and buffersize is not None:
        feed = Feeder(executor, submit_each, arguments, futures)
    return _engine.Results(futures, feed, None if end is None else end - monotonic())


class Executor(standard_base.Executor):
    """What all executors have in common; base for one's own, which define submit()."""

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """The results of fn over the iterables, as map() gives them, in order.

        All calls are submitted at once; with `buffersize` that many, and one more for each result
        that is read.  TimeoutError if a result is not there `timeout` seconds after this call.
        The first error ends the iteration and cancels what has not begun; so does close().
        """
        return map_with(self, _submit_each, (fn, tuple(map(iter, iterables))), timeout, buffersize)


def __getattr__(name):
    """Private names of the standard module that programs import."""
    return getattr(standard_base, name)
