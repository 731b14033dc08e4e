# SPDX-License-Identifier: MIT
"""The process pool."""

import _thread
import atexit
import collections
import faulthandler
import functools
import itertools
import math
import multiprocessing
import operator
import os
import signal
import sys
import threading
import weakref
from concurrent.futures import process as standard_process
from multiprocessing import popen_fork, util
from time import monotonic
from traceback import format_exception

from . import _base, _engine, _worker
from ._worker import Descriptor

BrokenProcessPool = standard_process.BrokenProcessPool
EXTRA_QUEUED_CALLS = standard_process.EXTRA_QUEUED_CALLS
_MAX_WINDOWS_WORKERS = standard_process._MAX_WINDOWS_WORKERS
_RemoteTraceback = standard_process._RemoteTraceback
_ExceptionWithTraceback = standard_process._ExceptionWithTraceback
_rebuild_exc = standard_process._rebuild_exc
_ThreadWakeup = standard_process._ThreadWakeup
_ExecutorManagerThread = standard_process._ExecutorManagerThread
_check_system_limits = standard_process._check_system_limits
_process_chunk = standard_process._process_chunk
_threads_wakeups = weakref.WeakKeyDictionary()
_global_shutdown = False


def __getattr__(name):
    """What else programs take from the standard module."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(standard_process, name)


_DIED = (
    "A process in the process pool was terminated abruptly while the future was running or pending."
)
_BROKEN = "A child process terminated abruptly, the process pool is not usable anymore"

_STOPPED = "the call was stopped, by stop() or because its run limit had passed"

_MOST_WORKERS = 4096  # of a pool of the engine
_MOST_ENDED = 1000  # workers whose end is remembered

# cf_status and cf_shutdown_mode, as numbers.
_STATUS_STOPPED, _STATUS_BROKEN, _STATUS_NO_MEMORY = 3, 5, 9
_FINISH, _CANCEL, _STOP = 0, 1, 2


class WorkerDied(BrokenProcessPool):
    """The worker process died that made this call; the pool goes on with others.

    pid: of the process.  signal: what killed it, or None.  exitcode: how it exited, or None.
    out_of_memory: it seems to have been killed for the system's lack of memory.
    traceback: what faulthandler saw of a fatal error, as text, or None.
    """

    def __init__(
        self, message="", pid=None, signal=None, exitcode=None, out_of_memory=False, traceback=None
    ):
        super().__init__(message)
        self.pid = pid
        self.signal = signal
        self.exitcode = exitcode
        self.out_of_memory = out_of_memory
        self.traceback = traceback

    def __reduce__(self):
        details = self.pid, self.signal, self.exitcode, self.out_of_memory, self.traceback
        return type(self), (*self.args, *details)


def _pool_is_broken(message, *unused):
    error = BrokenProcessPool(_BROKEN)
    error.__cause__ = _RemoteTraceback(f"\n'''\n{message}'''")
    return error


_base.broken_makers[_base._PROCESSES] = _pool_is_broken


def _unreadable(what, error):
    text = "".join(format_exception(type(error), error, error.__traceback__))
    broken = BrokenProcessPool(f"{what} could not be unpickled: {type(error).__name__}: {error}")
    broken.__cause__ = _RemoteTraceback(f"\n'''\n{text}'''")
    return broken


# ---- the crew ---------------------------------------------------------------------------------


class _Popen(popen_fork.Popen):
    """A fork that warns of no threads: there are only the engine's, which it need not mind."""

    def _launch(self, process):
        code = 1
        parent_r, child_w = os.pipe()
        child_r, parent_w = os.pipe()
        self.pid = _engine.fork()
        if self.pid == 0:
            try:
                if sys.version_info >= (3, 13):
                    atexit._clear()
                    atexit.register(util._exit_function)
                os.close(parent_r)
                os.close(parent_w)
                code = process._bootstrap(parent_sentinel=child_r)
            finally:
                if sys.version_info >= (3, 13):
                    atexit._run_exitfuncs()
                os._exit(code)
        os.close(child_w)
        os.close(child_r)
        self.finalizer = util.Finalize(self, util.close_fds, (parent_r, parent_w))
        self.sentinel = parent_r


class _Crew:
    """A pool's worker processes: their making, their ends, and what futures say of these.

    The engine calls start() and status() on any thread.
    """

    def __init__(self, context, initializer, initargs, breaks):
        self.context = context
        self.is_fork = context.get_start_method(allow_none=False) == "fork"
        self.processes = {}
        self._blocked = [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        self._main_file = getattr(sys.modules["__main__"], "__file__", None)
        self._initializer = initializer, initargs
        self._breaks = breaks
        self._faults = {}  # what faulthandler writes of each, as a file without a name
        self._numbers = {}  # the pid of worker number so and so
        self._told = set()  # those whose fatal errors stand on stderr
        self._ended = {}  # of the last ones that are forgotten: exit code, traceback

    def start(self, channel, number):
        """Starts a worker that serves the channel; its pid."""
        self._forget(number)
        main = sys.modules["__main__"]
        if self._main_file is not None and not hasattr(main, "__file__"):
            main.__file__ = self._main_file  # it goes at exit; workers are to find the module
        faults = os.memfd_create("cfutures faults")
        try:
            descriptors = Descriptor(channel), Descriptor(faults)
            arguments = *descriptors, self._blocked, *self._initializer
            process = self.context.Process(target=_worker.main, args=arguments)
            if self.is_fork and sys.version_info >= (3, 12) and threading.active_count() == 1:
                process._Popen = _Popen
            process.start()
        except BaseException:
            os.close(faults)
            raise
        self._faults[process.pid] = faults
        self.processes[process.pid] = process
        self._numbers[number] = process.pid
        return process.pid

    def status(self, pid):
        """How a process has ended, as os.waitpid() says it; None: not known."""
        process = self.processes.get(pid)
        if process is None:
            code = self._ended.get(pid, (None,))[0]
        else:
            process.join(1)
            code = process.exitcode
        return code if code is None else -code if code < 0 else code << 8

    def _forget(self, number):
        """The former worker of that number has died."""
        pid = self._numbers.pop(number, None)
        process = self.processes.get(pid)
        if process is not None:
            process.join(1)
            self._note_end(pid, process.exitcode)
            self.processes.pop(pid, None)

    def _note_end(self, pid, code):
        self._ended[pid] = code, self._traceback(pid)
        if len(self._ended) > _MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def _traceback(self, pid):
        """What faulthandler has written of a process that has ended, or None."""
        faults = self._faults.pop(pid, None)
        if faults is not None:
            text = os.pread(faults, 1 << 16, 0).decode(errors="replace") or None
            os.close(faults)
            self._ended[pid] = None, text
        return self._ended.get(pid, (None, None))[1]

    def failure(self, status, message, pid, signum, exitcode, out_of_memory):
        """The exception for a call that has no reply."""
        if status == _STATUS_NO_MEMORY:
            return MemoryError(message)
        if status == _STATUS_STOPPED:
            return _base.TaskStopped(f"{_STOPPED}: {message}")
        if status != _STATUS_BROKEN:
            return _base._failure(
                _base._PROCESSES, status, message, pid, signum, exitcode, out_of_memory
            )
        traceback = self._traceback(pid)
        if traceback and faulthandler.is_enabled() and pid not in self._told:
            self._told.add(pid)
            print(traceback, file=sys.stderr)
        if self._breaks or " workers have died within " in message:
            error = BrokenProcessPool(_DIED if self._breaks else message)
            error.__cause__ = _RemoteTraceback(f"\n'''\n{message}\n{traceback or ''}'''")
            return error
        code = None if exitcode < 0 else exitcode
        details = pid or None, signum or None, code, bool(out_of_memory), traceback
        return WorkerDied(message, *details)

    def unreadable(self, error):
        """The exception for a reply that cannot be unpickled."""
        return _unreadable("The result", error)

    def leave(self):
        """In a forked child."""
        while self._faults:
            os.close(self._faults.popitem()[1])

    def bury(self):
        """When all have ended."""
        for pid, process in list(self.processes.items()):
            process.join()
            self._note_end(pid, process.exitcode)


# ---- map --------------------------------------------------------------------------------------


class _Batches:
    """Feeds the calls of a map to a pool, in order and several at a time.

    As many as take about half a millisecond by what the last ones took, a chunk at first, and only
    so many batches ahead that the workers have enough to do.  Exact: chunk by chunk, all at once.
    """

    _TARGET = 500_000  # nanoseconds

    def __init__(self, life, fn, calls, chunk, is_exact):
        self._life = life
        self._fn = fn
        self._calls = calls
        self._next = 0  # the first call that is not submitted
        self._futures = collections.deque()  # (future, how many calls; 0: it is no batch)
        self._lock = threading.RLock()
        self._chunk = self._size = chunk
        self._is_exact = is_exact
        self._spent = 0, 0  # nanoseconds for how many calls, the last ones above all
        self._workers = life.workers
        self._ahead = 0  # batches that are not done
        self._is_feeding = False
        self._error = None  # why no more can be submitted
        self.finished = threading.Event()  # all are submitted, or will not be
        try:
            life.maps.add(self)
            life.feeders.add(self)
            self._feed_now(2 * self._workers)
        except BaseException as error:  # Ctrl-C
            self._give_up(error)
            raise

    def _fit(self):
        time, calls = self._spent
        if calls:
            left = len(self._calls) - self._next
            fit = self._TARGET * calls / time
            fair = max(left / (2 * self._workers), fit / 10)
            fit = int(min(fit, fair, 16 * self._size))
            self._size = max(1, fit // self._chunk) * self._chunk
        return self._size

    def _submit(self, calls):
        future = self._life.pool.submit_batch(self._fn, calls)
        if future is not None:
            return [(future, len(calls))]
        # One of them cannot be pickled: its own future says so.
        return [(self._life.pool.submit(self._fn, call, {}), 0) for call in calls]

    def _feed(self, limit):
        """Submits batches until so many are ahead."""
        with self._lock:
            self._is_feeding = True
            try:
                while self._next < len(self._calls) and (self._is_exact or self._ahead < limit):
                    begin = self._next
                    self._next += self._fit()
                    self._watch(self._submit(self._calls[begin : self._next]))
            except BaseException as error:  # shut down, or broken; or Ctrl-C
                self._give_up(error)
            finally:
                self._is_feeding = False
            if self._next >= len(self._calls):
                self._finish()

    def _feed_now(self, limit):
        """On the thread of who uses the map: Ctrl-C is for him, and does not wait for its turn."""
        former = self._error
        self._feed(limit)
        if self._error is not former and not isinstance(self._error, Exception):
            raise self._error

    def _watch(self, submitted):
        self._futures.extend(submitted)
        if self._is_exact:
            return
        self._ahead += len(submitted)
        for future, count in submitted:
            future.add_done_callback(self._batch_done if count else self._call_done)

    def _batch_done(self, future):
        with self._lock:
            if not future.cancelled() and future.exception() is None:
                spent, results = future.result()[:2]
                time, calls = self._spent
                self._spent = time / 2 + max(1, spent), calls / 2 + len(results)
            self._call_done(future)

    def _call_done(self, future):
        with self._lock:
            self._ahead -= 1
            if self._is_feeding:  # it was done when it was to be watched
                return
            self._life.callbacks_thread = threading.get_ident()
            if self._next < len(self._calls):
                self._feed((8 if self._spent[1] else 2) * self._workers)

    def _finish(self):
        self._life.feeders.discard(self)
        self._calls = ()
        self.finished.set()

    def _give_up(self, error):
        self._error = error
        self._finish()

    def leave(self):
        """In a forked child, where whoever held the lock is not."""
        self._lock = threading.RLock()
        self._give_up(RuntimeError(_base.shutdown_message()))

    def flush(self):
        """Submits all that is left."""
        self._feed(math.inf)

    def next(self):
        """The next future, and how many calls it makes; None after the last."""
        with self._lock:
            if not self._futures:
                self._feed_now(self._ahead + 1)
            if self._futures:
                return self._futures.popleft()
            if self._error is not None:
                raise self._error
            return None

    def cancel(self):
        """Cancels what has not begun."""
        with self._lock:
            if not self.finished.is_set():
                self._give_up(_base.CancelledError())
            for future, _ in self._futures:
                future.cancel()


def _unpack(crew, packed):
    try:
        return _engine.unpack(packed)
    except Exception as error:
        raise crew.unreadable(error) from None


def _each(crew, results, are_packed, failures):
    """The results of a batch that has failures, or results that came in pickles of their own."""
    results.reverse()
    index = 0
    while results:
        result = results.pop()
        if index in failures:
            raise _unpack(crew, failures[index])
        yield _unpack(crew, result) if are_packed else result
        index += 1


class _Results:
    """The iterator of a map in batches."""

    def __init__(self, batches, crew, end):
        self._batches = batches
        self._crew = crew
        self._end = end
        self._values = iter(())
        self._is_begun = False

    def __iter__(self):
        return self

    def __next__(self):
        try:
            while True:
                for value in self._values:
                    return value
                self._values = self._read_next()
        except BaseException:
            self.close()
            raise

    def _read_next(self):
        self._is_begun = True
        entry = self._batches and self._batches.next()
        if entry is None:
            self._batches = None
            raise StopIteration
        return self._read(*entry)

    def _read(self, future, count):
        try:
            left = None if self._end is None else self._end - monotonic()
            reply = future.result(left)
        except StopIteration as error:  # a call's, and not our end
            raise RuntimeError("generator raised StopIteration") from error
        except BaseException:
            future.cancel()
            raise
        if count == 0:
            return iter((reply,))
        _, results, are_packed, failures = reply
        if not are_packed and failures is None:
            return iter(results)
        return _each(self._crew, results, are_packed, failures or {})

    def close(self):
        """End the iteration, and cancel what has not begun."""
        batches, self._batches = self._batches, None
        self._values = iter(())
        if batches is not None:
            batches.cancel()

    def __del__(self):
        if self._is_begun:
            self.close()


class _Flat:
    """The iterator of a map in chunks: the entries of the lists that another one gives."""

    def __init__(self, lists):
        self._lists = lists
        self._values = iter(())

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            for value in self._values:
                return value
            self._values = iter(next(self._lists))

    def close(self):
        """End the iteration, and cancel what has not begun."""
        self._values = iter(())
        self._lists.close()


# ---- the pool's life --------------------------------------------------------------------------


class _Life:
    """What an executor is the handle of: it goes on when that is dropped, until all is done."""

    living = set()

    def __init__(self, crew, options):
        self.crew = crew
        self.pool = None
        self.workers = options[0]
        self.feeders = set()  # of maps whose calls are not all submitted
        self.maps = weakref.WeakSet()  # all
        self.callbacks_thread = None
        self.is_closed = False
        self._options = options
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def started(self):
        """The engine's pool, made when it is first needed."""
        if self.is_closed:
            raise RuntimeError(_base.shutdown_message())
        return self.pool or self._start()

    def _start(self):
        with self._lock:
            if self.is_closed or _global_shutdown:
                raise RuntimeError(_base.shutdown_message())
            if self.pool is None:
                self.pool = _engine.ProcessPool(self.crew, *self._options)
                self.living.add(self)
                if self.crew.is_fork:
                    while self.pool.start_worker():
                        pass
        return self.pool

    def close(self, mode, timeout):
        """Takes no more calls; has all ended, `timeout` seconds from now at the latest?"""
        end = None if timeout is None else monotonic() + timeout
        self.is_closed = True
        self._closing.set()
        if self.pool is None or self._process != os.getpid():
            return True
        if mode != _FINISH:
            self.pool.shutdown(mode, 0)  # so that a feeder that sleeps for room wakes
        for feeder in list(self.feeders):
            if mode != _FINISH:
                feeder.cancel()
            elif self.callbacks_thread == threading.get_ident():
                feeder.flush()  # its batches end in callbacks of this thread
            elif not feeder.finished.wait(timeout):
                return False
            timeout = None if end is None else max(0, end - monotonic())
        ended = self.pool.shutdown(mode, timeout)
        if ended:
            self._bury()
        return ended

    def close_behind(self, mode):
        """Does not wait; a thread sees to what has to be done at the end."""
        if not self.close(mode, 0):
            try:
                _thread.start_new_thread(self.close, (_FINISH, None))
            except RuntimeError:  # the interpreter exits: that waits for all pools
                pass

    def join(self, timeout=None):
        """Waits for the end; does not bring it about."""
        if self._closing.wait(timeout):
            self.close(_FINISH, timeout)

    def _bury(self):
        with self._lock:
            if self in self.living:
                self.crew.bury()
                self.living.discard(self)

    def leave(self):
        """In a forked child: the pool is the parent's."""
        self.is_closed = True
        for batches in list(self.maps):
            batches.leave()
        self.crew.leave()
        if self.pool is not None:
            self.pool.leave()


def _leave_all():
    for life in list(_Life.living):
        life.leave()
    _Life.living.clear()


os.register_at_fork(after_in_child=_leave_all)


def _python_exit():
    """Before the interpreter exits: what was submitted still runs."""
    global _global_shutdown
    _global_shutdown = _base._exiting = True
    try:
        for life in list(_Life.living):
            life.close(_FINISH, None)
    finally:  # or Ctrl-C
        for life in list(_Life.living):
            life.close(_STOP, 0.5)
        _engine.end_of_pools()


threading._register_atexit(_python_exit)


class _ManagerThread:
    """What `_executor_manager_thread` answers."""

    def __init__(self, life):
        self._life = life

    def join(self, timeout=None):
        self._life.join(timeout)

    def is_alive(self):
        return self._life in _Life.living


class _CallQueue:
    """What `_call_queue` answers."""

    def close(self):
        pass

    def join_thread(self):
        pass


class _PendingWorkItems:
    """What `_pending_work_items` answers: how many calls are not done."""

    def __init__(self, life):
        self._life = life

    def __len__(self):
        return 0 if self._life.pool is None else self._life.pool.unfinished


# ---- the executor -----------------------------------------------------------------------------


def _check_max_tasks(max_tasks_per_child):
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")


def _check_run_limit(run_limit):
    if run_limit is not None and not run_limit > 0:
        raise ValueError("run_limit must be greater than 0")


class ProcessPoolExecutor(_base.Executor, standard_process.ProcessPoolExecutor):
    """A pool of processes that make calls."""

    def __init__(
        self,
        max_workers=None,
        mp_context=None,
        initializer=None,
        initargs=(),
        *,
        max_tasks_per_child=None,
        on_crash="break",
        max_retries=1,
        max_restarts=10,
        restart_window=10.0,
        run_limit=None,
        max_pending=None,
        when_full="wait",
    ):
        """Make a pool; processes start with the first call (fork), or when there is work.

        max_workers: at most so many processes; None: cpu_count().
        mp_context: a multiprocessing context, which makes the processes.
        initializer(*initargs): called in each process first; an exception breaks the pool.
        max_tasks_per_child: after so many calls a process is replaced; not with "fork".
        on_crash: what the death of a process does: "break" the pool, all calls that are not done
        raise BrokenProcessPool; "replace" it, only the call that ran there raises WorkerDied;
        "retry" that call up to max_retries times.  More than max_restarts deaths within
        restart_window seconds break the pool.
        run_limit: a call that runs longer (seconds) is stopped with its process and raises
        TaskStopped.
        max_pending: at most so many calls that have not begun; None: any number.
        when_full: what submit() then does: "wait" for room, or "raise" QueueFull.
        """
        _check_system_limits()
        if max_workers is None:
            max_workers = _engine.cpu_count()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        operator.index(max_workers)
        if mp_context is None:
            method = None if max_tasks_per_child is None else "spawn"
            mp_context = multiprocessing.get_context(method)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            _check_max_tasks(max_tasks_per_child)
        if on_crash not in ("break", "replace", "retry"):
            raise ValueError("on_crash must be 'break', 'replace' or 'retry'")
        if max_retries < 0:
            raise ValueError("max_retries must not be negative")
        if max_restarts < 1:
            raise ValueError("max_restarts must be greater than 0")
        if not restart_window > 0:
            raise ValueError("restart_window must be greater than 0")
        _check_run_limit(run_limit)
        if max_pending is not None and max_pending < 1:
            raise ValueError("max_pending must be greater than 0")
        if when_full not in ("wait", "raise"):
            raise ValueError("when_full must be 'wait' or 'raise'")
        breaks = on_crash == "break"
        crew = _Crew(mp_context, initializer, initargs, breaks)
        if max_tasks_per_child is not None and crew.is_fork:
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start "
                "method; supply a different mp_context."
            )
        self._max_workers = max_workers
        self._mp_context = mp_context
        self._initializer = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._safe_to_dynamically_spawn_children = not crew.is_fork
        self._run_limit = run_limit
        # Each call is a task of its own.
        self._is_exact = not breaks or max_tasks_per_child is not None or max_pending is not None
        self._processes = crew.processes
        self._life = _Life(
            crew,
            (
                min(max_workers, _MOST_WORKERS),
                breaks,
                max_retries if on_crash == "retry" else 0,
                max_restarts,
                int(restart_window * 1e9),
                max_tasks_per_child or 0,
                max_pending or 0,
                when_full == "raise",
                initializer is not None,
            ),
        )
        self._pending_work_items = _PendingWorkItems(self._life)
        self._call_queue = _CallQueue()
        self._executor_manager_thread = _ManagerThread(self._life)
        self._finalizer = weakref.finalize(self, self._life.close_behind, _FINISH)
        self._finalizer.atexit = False

    def submit(self, fn, /, *args, **kwargs):
        """Have fn(*args, **kwargs) called in a process of the pool; returns its Future.

        What cannot be pickled fails the future.  Raises RuntimeError after shutdown,
        BrokenProcessPool when the pool is broken, QueueFull when it is bounded and has no room.
        """
        pool = self._life.started()
        if self._run_limit is None:
            return pool.submit(fn, args, kwargs)
        return pool.submit(fn, args, kwargs, self._run_limit, 0)

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """The results of fn over the iterables, as map() gives them, in order.

        All calls are submitted at once; with `buffersize` that many, and one more for each result
        that is read.  TimeoutError if a result is not there `timeout` seconds after this call.
        The first error ends the iteration and cancels what has not begun; so does close().
        chunksize: so many calls are one task; 1: calls that take little time go several at a time,
        unless the executor was made to treat each on its own (on_crash, max_tasks_per_child,
        run_limit, max_pending).
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        is_plain = type(self).submit is ProcessPoolExecutor.submit and "submit" not in vars(self)
        if not is_plain or buffersize is not None or self._run_limit is not None:
            if chunksize == 1:
                return super().map(fn, *iterables, timeout=timeout, buffersize=buffersize)
            chunks = _chunks(zip(*iterables), chunksize)
            run = functools.partial(_process_chunk, fn)
            results = super().map(run, chunks, timeout=timeout, buffersize=buffersize)
            return _Flat(results)
        if chunksize == 1 and self._is_exact:
            return super().map(fn, *iterables, timeout=timeout)
        end = None if timeout is None else monotonic() + timeout
        calls = list(zip(*iterables))
        self._life.started()
        batches = _Batches(self._life, fn, calls, chunksize, self._is_exact)
        return _Results(batches, self._life.crew, end)

    def using(self, *, run_limit=None, priority=0):
        """A view of this executor whose submit() and map() make their calls otherwise.

        run_limit: a call that runs longer (seconds) is stopped and raises TaskStopped; None: the
        executor's.  priority: higher begins sooner; equal is first come, first served.
        """
        _check_run_limit(run_limit)
        operator.index(priority)
        return _View(self, self._run_limit if run_limit is None else run_limit, priority)

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """Take no more calls; what was submitted still runs.

        wait: until all calls have ended and the processes have gone; with a timeout (seconds) that
        passes, TimeoutError, and the shutdown goes on.
        cancel_futures: cancel what has not begun.
        From a callback of this executor it does not wait.
        """
        mode = _CANCEL if cancel_futures else _FINISH
        if not wait:
            self._life.close_behind(mode)
        elif not self._life.close(mode, timeout) and timeout is not None:
            raise TimeoutError("the executor has not ended in time")
        self._executor_manager_thread = self._call_queue = self._processes = None

    def terminate_workers(self):
        """Shut down at once: cancel what has not begun, and send SIGTERM to all processes."""
        self._end_workers("terminate")

    def kill_workers(self):
        """As terminate_workers(), with SIGKILL."""
        self._end_workers("kill")

    def _end_workers(self, how):
        processes = list((self._processes or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            try:
                getattr(process, how)()
            except (ProcessLookupError, ValueError):  # gone, or closed
                pass

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    @property
    def _broken(self):
        pool = self._life.pool
        return pool is not None and pool.is_broken and _BROKEN

    @property
    def _shutdown_thread(self):
        return self._life.is_closed


def _chunks(calls, size):
    while chunk := tuple(itertools.islice(calls, size)):
        yield chunk


class _View(_base.Executor):
    """An executor with other settings for its calls; see ProcessPoolExecutor.using."""

    def __init__(self, executor, run_limit, priority):
        self._executor = executor
        self._settings = run_limit, priority

    def submit(self, fn, /, *args, **kwargs):
        """As the executor's submit()."""
        return self._executor._life.started().submit(fn, args, kwargs, *self._settings)

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """As the executor's shutdown()."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures, timeout=timeout)
