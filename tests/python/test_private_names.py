# SPDX-License-Identifier: MIT
"""Private names of concurrent.futures that programs in the wild use: they answer sensibly."""
import importlib
import os
import queue
import signal
import threading
import time

import pytest
from support import IMPLEMENTATION, SOON, STANDARD, futures, process_pool, run, thread_pool, until


def module(name):
    return importlib.import_module(f"{IMPLEMENTATION}.{name}")


# Names in the modules -------------------------------------------------------------------------

NAMES = {
    "_base": ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED", "Future",
              "Executor", "Error", "CancelledError", "TimeoutError", "InvalidStateError",
              "BrokenExecutor", "LOGGER", "DoneAndNotDoneFutures", "FIRST_COMPLETED",
              "FIRST_EXCEPTION", "ALL_COMPLETED", "wait", "as_completed", "_FUTURE_STATES",
              "_STATE_TO_DESCRIPTION_MAP", "_AS_COMPLETED", "_Waiter", "_AsCompletedWaiter",
              "_FirstCompletedWaiter", "_AllCompletedWaiter", "_AcquireFutures",
              "_create_and_install_waiters", "_yield_finished_futures", "_result_or_cancel"],
    "thread": ["ThreadPoolExecutor", "BrokenThreadPool", "_threads_queues", "_shutdown",
               "_global_shutdown_lock", "_python_exit", "_WorkItem", "_worker"],
    "process": ["ProcessPoolExecutor", "BrokenProcessPool", "EXTRA_QUEUED_CALLS",
                "_MAX_WINDOWS_WORKERS", "_RemoteTraceback", "_ExceptionWithTraceback", "_WorkItem",
                "_ResultItem", "_CallItem", "_SafeQueue", "_ThreadWakeup",
                "_ExecutorManagerThread", "_threads_wakeups", "_global_shutdown",
                "_python_exit", "_check_system_limits", "_system_limits_checked", "_system_limited",
                "_process_chunk", "_process_worker", "_chain_from_iterable_of_lists"],
}


@pytest.mark.parametrize("where, name", [
    (where, name) for where, names in NAMES.items() for name in names])
def test_a_name_can_be_imported(where, name):
    assert hasattr(module(where), name)


def test_names_that_the_public_ones_stand_for():
    base = module("_base")
    assert base.Future is futures.Future and base.Executor is futures.Executor
    assert base.DoneAndNotDoneFutures is type(futures.wait([]))
    assert module("thread").ThreadPoolExecutor is futures.ThreadPoolExecutor
    assert module("process").ProcessPoolExecutor is futures.ProcessPoolExecutor
    module("process")._check_system_limits()


# A future -------------------------------------------------------------------------------------

def test_what_is_written_into_a_future_counts():
    """CPython's tests make futures in all states that way."""
    future = futures.Future()
    future._state = "FINISHED"
    future._result = 5
    assert future.done() and future.result() == future._result == 5
    assert future.exception() is future._exception is None
    error = OSError()
    future = futures.Future()
    future._state, future._exception = "FINISHED", error
    assert future.exception() is future._exception is error
    future = futures.Future()
    future._state = "CANCELLED_AND_NOTIFIED"
    assert future.cancelled() and future.done()
    future = futures.Future()
    future._state = "RUNNING"
    assert future.running() and not future.cancel()


def test_the_private_attributes_follow_a_future():
    future = futures.Future()
    assert (future._state, future._result, future._exception) == ("PENDING", None, None)
    assert list(future._waiters) == [] and list(future._done_callbacks) == []
    future.add_done_callback(print)
    future.add_done_callback(len)
    assert list(future._done_callbacks) == [print, len]
    future = futures.Future()
    future.set_running_or_notify_cancel()
    assert future._state == "RUNNING"
    future.set_result("value")
    assert (future._state, future._result, future._exception) == ("FINISHED", "value", None)


@pytest.mark.parametrize("name", ["_result", "_exception"])
def test_an_outcome_can_be_dropped(name):
    """As programs do that keep futures but not what they hold."""
    future = futures.Future()
    if name == "_result":
        future.set_result("large")
    else:
        future.set_exception(OSError())
    setattr(future, name, None)
    assert future.done() and getattr(future, name) is None
    assert future.result(0) is None and future.exception(0) is None


def test_a_callback_can_be_taken_off_the_list():
    """As `future._done_callbacks.remove(function)` and `.clear()` do."""
    calls = []
    future = futures.Future()
    future.add_done_callback(calls.append)
    future._done_callbacks.remove(calls.append)
    future.set_result(None)
    assert not calls


def test_condition_is_a_context_manager_and_wakes_those_who_wait():
    future = futures.Future()
    outcome = []
    waiter = threading.Thread(target=lambda: outcome.append(future.exception(SOON)))
    waiter.start()
    error = ValueError()
    with future._condition:
        future._state = "FINISHED"
        future._exception = error
        future._condition.notify_all()
    waiter.join()
    assert outcome == [error]


def test_condition_can_be_waited_for():
    """As a loop `with future._condition: while not done: wait` does, with and without a timeout."""
    future = futures.Future()
    with future._condition:
        assert not future._condition.wait(0.01)
    threading.Timer(0.05, future.set_result, ["value"]).start()
    with future._condition:
        while future._state != "FINISHED":
            future._condition.wait(SOON)
    assert future._result == "value"


def test_condition_acquire_and_release():
    future = futures.Future()
    assert future._condition.acquire()
    future._condition.release()
    with future._condition:
        with future._condition:  # it is a lock that its owner may take again
            assert future.done() is False


class Recorder:
    """A waiter as the standard module's: it is told of one outcome."""

    def __init__(self):
        self.told = []

    def add_result(self, future):
        self.told.append(("result", future))

    def add_exception(self, future):
        self.told.append(("exception", future))

    def add_cancelled(self, future):
        self.told.append(("cancelled", future))


def settle(future, how):
    if how == "cancelled":
        future.cancel()
        future.set_running_or_notify_cancel()
    elif how == "exception":
        future.set_exception(OSError())
    else:
        future.set_result(None)


@pytest.mark.parametrize("how", ["result", "exception", "cancelled"])
def test_waiters_are_told(how):
    """As dask and others hang their own into `future._waiters`."""
    future, recorder = futures.Future(), Recorder()
    with future._condition:
        future._waiters.append(recorder)
    settle(future, how)
    assert recorder.told == [(how, future)]


def test_a_waiter_that_went_is_not_told():
    future, recorder = futures.Future(), Recorder()
    future._waiters.append(recorder)
    future._waiters.remove(recorder)
    future.set_result(None)
    assert not recorder.told and list(future._waiters) == []


# A thread pool --------------------------------------------------------------------------------

class Held:
    """A pool of one thread that is held up, with `pending` calls that wait."""

    def __init__(self, pending=0):
        self.gate = threading.Event()
        self.pool = thread_pool(1)
        running = threading.Event()
        self.first = self.pool.submit(lambda: (running.set(), self.gate.wait()))
        assert running.wait(SOON)
        self.waiting = [self.pool.submit(pow, 2, n) for n in range(pending)]

    def __enter__(self):
        return self.pool

    def __exit__(self, *_):
        self.gate.set()
        self.pool.shutdown()


def test_depth_of_the_queue():
    held = Held(pending=3)
    with held as pool:
        assert pool._work_queue.qsize() == 3 and not pool._work_queue.empty()
        held.gate.set()
        futures.wait(held.waiting)
        assert until(lambda: pool._work_queue.qsize() == 0 and pool._work_queue.empty())


def test_threads():
    with Held() as pool:
        assert len(pool._threads) == 1 == pool._max_workers
        thread, = pool._threads
        assert isinstance(thread, threading.Thread) and thread.is_alive()
        assert thread.name.startswith(pool._thread_name_prefix + "_") and thread.daemon is False
        assert thread in threading.enumerate()
        assert thread in module("thread")._threads_queues
    thread.join(SOON)
    assert not thread.is_alive()


def test_idle_threads():
    with thread_pool(2) as pool:
        assert pool._idle_semaphore._value == 0
        pool.submit(int).result()
        assert until(lambda: pool._idle_semaphore._value == 1)
    with Held() as pool:
        assert pool._idle_semaphore._value == 0


def test_shutdown_flag():
    pool = thread_pool(1)
    assert not pool._shutdown and not pool._broken
    with pool._shutdown_lock:
        assert pool._shutdown is False
    pool.shutdown()
    assert pool._shutdown


def test_initializer_and_its_arguments():
    with thread_pool(1, "name", print, ("x",)) as pool:
        assert pool._initializer is print and pool._initargs == ("x",)
        assert pool._thread_name_prefix == "name"


def test_broken():
    pool = thread_pool(1, initializer=int, initargs=("no number",))
    with pytest.raises(futures.BrokenExecutor):
        pool.submit(int).result(SOON)
    assert until(lambda: pool._broken)
    pool.shutdown()


def test_drain_the_queue():
    """What programs do that had no cancel_futures: take all waiting calls and cancel them."""
    held = Held(pending=3)
    with held as pool:
        while True:
            try:
                item = pool._work_queue.get_nowait()
            except queue.Empty:
                break
            item.future.cancel()
        assert pool._work_queue.qsize() == sum(not future.done() for future in held.waiting)
    assert all(future.done() for future in held.waiting)


def test_a_thread_adjusts_itself():
    """`_adjust_thread_count` is overridden or called by subclasses: calling does no harm."""
    with thread_pool(2) as pool:
        pool._adjust_thread_count()
        assert pool.submit(pow, 2, 3).result(SOON) == 8


def test_do_not_wait_at_exit():
    """The usual way out, with a task that would take long."""
    outcome = run(f"""
        from {IMPLEMENTATION} import thread
        pool = thread_pool(1)
        running = threading.Event()
        pool.submit(lambda: (running.set(), time.sleep(1000)))
        running.wait()
        pool.shutdown(wait=False)
        pool._threads.clear()
        thread._threads_queues.clear()
        say("the end")
        def leave():
            threading.main_thread().join()
            os._exit(3)
        threading.Thread(target=leave, daemon=True).start()
    """, expect=None if STANDARD else 3)
    assert "the end" in outcome.out


DAEMON_POOL = """
    # As Ray, pytest plugins and many others have it.
    import weakref
    from {implementation} import thread
    class DaemonPool(thread.ThreadPoolExecutor):
        def _adjust_thread_count(self):
            if self._idle_semaphore.acquire(timeout=0):
                return
            def weakref_cb(_, q=self._work_queue):
                q.put(None)
            number = len(self._threads)
            if number < self._max_workers:
                name = "%s_%d" % (self._thread_name_prefix or self, number)
                t = threading.Thread(name=name, target=thread._worker, daemon=True, args=(
                    weakref.ref(self, weakref_cb), self._work_queue, self._initializer,
                    self._initargs))
                t.start()
                self._threads.add(t)
    pool = DaemonPool(2)
    assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]
    report(len(pool._threads))
"""


def test_a_subclass_with_daemon_threads():
    run(DAEMON_POOL.format(implementation=IMPLEMENTATION))


# A process pool -------------------------------------------------------------------------------

def test_processes():
    with process_pool(2, method="fork") as pool:
        assert not pool._processes
        pid = pool.submit(os.getpid).result()
        assert pid in pool._processes
        assert all(process.pid == pid and process.is_alive()
                   for pid, process in pool._processes.items())
        assert len(pool._processes) <= pool._max_workers == 2
        assert pool._mp_context.get_start_method() == "fork"
        processes = list(pool._processes.values())
    for process in processes:
        process.join(SOON)
        assert process.exitcode == 0


@pytest.mark.parametrize("kill", [
    lambda process: process.terminate(), lambda process: process.kill(),
    lambda process: os.kill(process.pid, signal.SIGTERM)], ids=["terminate", "kill", "os.kill"])
def test_processes_can_be_killed(kill):
    """`for process in pool._processes.values(): process.terminate()` ends a pool in the wild."""
    pool = process_pool(2, method="fork")
    pool.submit(os.getpid).result()
    pending = pool.submit(time.sleep, 1000)
    assert until(pending.running)
    for process in list(pool._processes.values()):
        kill(process)
    with pytest.raises(futures.process.BrokenProcessPool):
        pending.result(SOON)
    pool.shutdown()
    assert pool._broken


def test_parts_of_a_process_pool():
    """What a shutdown in the wild joins after it."""
    pool = process_pool(1, method="fork")
    pool.submit(int).result()
    manager, calls, processes = (pool._executor_manager_thread, pool._call_queue, pool._processes)
    assert manager.is_alive() and len(pool._pending_work_items) == 0
    pool.shutdown(wait=False)
    manager.join()
    calls.join_thread()
    for process in processes.values():
        process.join()


def test_the_shutdown_flag_of_a_process_pool():
    pool = process_pool(1, method="fork")
    assert not pool._shutdown_thread and not pool._broken
    pool.shutdown()
    assert pool._shutdown_thread


def test_the_depth_of_the_queue_of_a_process_pool():
    with process_pool(1, method="fork") as pool:
        first = pool.submit(signal.sigtimedwait, [signal.SIGUSR1], SOON)
        assert until(first.running)
        waiting = [pool.submit(int) for _ in range(3)]
        assert len(pool._pending_work_items) == 4
        os.kill(next(iter(pool._processes)), signal.SIGUSR1)
        futures.wait(waiting)
        assert until(lambda: len(pool._pending_work_items) == 0)
