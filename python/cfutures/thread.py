# SPDX-License-Identifier: MIT
"""The thread pool."""

import contextvars
import itertools
import operator
import queue
import threading
import weakref
from concurrent.futures import thread as standard_thread

from . import _base, _engine
from ._base import map_with

BrokenThreadPool = standard_thread.BrokenThreadPool
_WorkItem = standard_thread._WorkItem

_INITIALIZER_FAILED = "A thread initializer failed, the thread pool is not usable anymore"
_MOST_WORKERS = 65534  # that the engine can count
_WHEN_FULL = {"wait": 0, "raise": 1, "run": 2}

#: The living workers and what they work for; at exit the interpreter waits for these threads.
_threads_queues = weakref.WeakKeyDictionary()
_shutdown = False
_global_shutdown_lock = threading.Lock()


def _broken(message, *unused):
    return BrokenThreadPool(message)


_base.broken_makers[_base._THREADS] = _broken


def _worker(executor_reference, *unused):
    """Only the name of the standard's: the workers here are the engine's."""
    raise NotImplementedError("the workers of cfutures take no queue")


class _Executors:
    """The executors that have not been shut down, for the exit of the interpreter."""

    living = weakref.WeakSet()

    @classmethod
    def end(cls):
        global _shutdown
        _shutdown = _base._exiting = True
        for executor in list(cls.living):
            executor._close(False, 0)
        for thread in list(_threads_queues):
            thread.join()


_python_exit = _Executors.end
threading._register_atexit(_python_exit)


class _WorkQueue:
    """What `_work_queue` answers: how many calls wait.  They cannot be taken out of it."""

    def __init__(self, executor):
        self._executor = weakref.ref(executor)

    def qsize(self):
        executor = self._executor()
        return 0 if executor is None else executor._pending

    def empty(self):
        return self.qsize() == 0

    def get(self, block=False, timeout=None):
        raise queue.Empty

    def get_nowait(self):
        raise queue.Empty

    def put(self, item):
        """Subclasses of the standard pool wake its workers so; these wake by themselves."""


class _IdleSemaphore:
    """What `_idle_semaphore` answers: how many threads are idle."""

    def __init__(self, idle):
        self._value = idle

    def acquire(self, blocking=True, timeout=None):
        return self._value > 0

    def release(self, n=1):
        """The threads count themselves."""


class _Starter:
    """Makes the threads of a pool.  Knows no executor: one that is dropped goes at once."""

    def __init__(self, prefix, threads, queue):
        self._prefix = prefix
        self._threads = threads
        self._queue = queue

    def __call__(self, run, number):
        thread = threading.Thread(name=f"{self._prefix}_{number}", target=run)
        thread.start()
        self._threads.add(thread)
        _threads_queues[thread] = self._queue


class ThreadPoolExecutor(_engine.ThreadPool, _base.Executor, standard_thread.ThreadPoolExecutor):
    """A pool of threads that make calls.

    At the end of a `with` block it is shut down, which waits for the calls.  A call may wait for
    another one of the same pool: the thread then makes that itself.
    """

    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers=None,
        thread_name_prefix="",
        initializer=None,
        initargs=(),
        *,
        max_pending=None,
        when_full="wait",
        inherit_context=False,
    ):
        """Make a pool; threads start when there is work and none is idle.

        max_workers: at most so many threads; None: min(32, cpu_count() + 4).
        thread_name_prefix: threads are called prefix_0, prefix_1, ...
        initializer(*initargs): called in each thread first; an exception breaks the pool.
        max_pending: at most so many calls that have not begun; None: any number.
        when_full: what submit() then does: "wait" for room, "raise" QueueFull, or "run" the call
        itself.  Calls that are submitted by calls of this pool exceed the bound.
        inherit_context: each call sees the context variables of who submitted it (a copy).
        """
        if max_workers is None:
            max_workers = min(32, _engine.cpu_count() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_pending is not None and max_pending < 1:
            raise ValueError("max_pending must be greater than 0")
        if when_full not in _WHEN_FULL:
            raise ValueError(f"when_full must be one of {', '.join(map(repr, _WHEN_FULL))}")
        self._max_workers = max_workers
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{self._counter()}"
        self._initializer = initializer
        self._initargs = initargs
        self._threads = set()
        self._shutdown = False
        self._shutdown_lock = threading.Lock()
        self._work_queue = _WorkQueue(self)
        if inherit_context:
            self.submit = _submit_in_context(weakref.ref(self))
        self._open(
            min(max_workers, _MOST_WORKERS),
            _Starter(self._thread_name_prefix, self._threads, self._work_queue),
            initializer,
            initargs,
            _WHEN_FULL[when_full],
            max_pending or 0,
        )
        _Executors.living.add(self)
        if _base._exiting:
            self._close(False, 0)

    submit = _engine.ThreadPool.submit

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        if type(self).submit is not _plain_submit or "submit" in self.__dict__:
            return super().map(fn, *iterables, timeout=timeout, buffersize=buffersize)
        iterators = tuple(map(iter, iterables))
        return map_with(self, _submit_each, (fn, iterators), timeout, buffersize)

    map.__doc__ = _base.Executor.map.__doc__

    def using(self, *, priority=0):
        """A view of this executor whose submit() and map() give their calls a priority.

        priority: higher begins sooner; equal is first come, first served.
        """
        return _View(self, operator.index(priority))

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """Take no more calls; what was submitted still runs.

        wait: until all calls have ended and the threads have gone; with a timeout (seconds) that
        passes, TimeoutError, and the shutdown goes on.
        cancel_futures: cancel what has not begun.
        From a call of this executor it does not wait.
        """
        ended = self._close(cancel_futures, timeout if wait else 0)
        self._shutdown = True
        if not wait or threading.current_thread() in self._threads:
            return
        if not ended:
            raise TimeoutError("the executor has not ended in time")
        for thread in list(self._threads):
            thread.join()

    @property
    def _broken(self):
        return self._is_broken and _INITIALIZER_FAILED

    @property
    def _idle_semaphore(self):
        return _IdleSemaphore(self._idle)

    def _adjust_thread_count(self):
        """Subclasses of the standard pool call it; the engine starts threads itself."""


_plain_submit = ThreadPoolExecutor.submit


def _submit_each(executor, fn, iterators, limit, futures):
    return executor._submit_each(fn, iterators, limit, futures)


def _submit_in_context(reference):
    def submit(fn, /, *args, **kwargs):
        return _plain_submit(reference(), contextvars.copy_context().run, fn, *args, **kwargs)

    return submit


class _View(_base.Executor):
    """An executor with other settings for its calls; see ThreadPoolExecutor.using."""

    def __init__(self, executor, priority):
        self._executor = executor
        self._priority = priority

    def submit(self, fn, /, *args, **kwargs):
        """As the executor's submit()."""
        return self._executor._submit_with(self._priority, fn, args, kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """As the executor's shutdown()."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures, timeout=timeout)


def __getattr__(name):
    """Private names of the standard module that programs import."""
    return getattr(standard_thread, name)
