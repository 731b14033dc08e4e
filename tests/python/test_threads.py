# SPDX-License-Identifier: MIT
"""The thread pool: its threads, its end, and what cfutures adds to it."""
import contextvars
import gc
import itertools
import os
import queue
import re
import threading
import time
import weakref

import pytest
from support import SOON, cgroup, futures, ours, remove_cgroup, run_json, thread_pool, until


def occupy(pool, workers=1):
    """Block workers of a pool; returns the event that frees them, and their futures."""
    go = threading.Event()
    blocked = [pool.submit(go.wait, SOON) for _ in range(workers)]
    assert until(lambda: all(future.running() for future in blocked))
    return go, blocked


# Submitting -------------------------------------------------------------------------------------


def test_arguments():
    def function(*args, **kwargs):
        return args, kwargs

    with thread_pool(1) as pool:
        assert pool.submit(function).result() == ((), {})
        assert pool.submit(function, 1, [2], a=3).result() == ((1, [2]), {"a": 3})
        assert pool.submit(function, fn=1, self=2).result() == ((), {"fn": 1, "self": 2})
        with pytest.raises(TypeError):
            pool.submit()
        with pytest.raises(TypeError):
            pool.submit(fn=function)


def test_what_cannot_be_called_fails_its_future():
    with thread_pool(1) as pool:
        future = pool.submit(42)
        assert isinstance(future.exception(SOON), TypeError)
        assert pool.submit(int, "1").result() == 1


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, BaseException]
)
def test_whatever_a_task_raises_is_in_its_future(kind):
    error = kind("from the task")

    def raise_it():
        raise error

    with thread_pool(1) as pool:
        future = pool.submit(raise_it)
        assert future.exception(SOON) is error
        names = []
        traceback = error.__traceback__
        while traceback:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names[-1] == "raise_it"
        assert pool.submit(int).result(SOON) == 0


def test_first_come_first_served():
    order = []
    with thread_pool(1) as pool:
        go, _ = occupy(pool)
        for number in range(500):
            pool.submit(order.append, number)
        go.set()
    assert order == list(range(500))


def test_from_many_threads():
    with thread_pool(3) as pool:

        def submit():
            return [pool.submit(pow, number, 2) for number in range(2000)]

        with futures.ThreadPoolExecutor(4) as submitters:
            lists = [submitters.submit(submit) for _ in range(4)]
            for numbers in lists:
                assert [f.result() for f in numbers.result()] == [n * n for n in range(2000)]


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_are_at_least_one(workers):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        thread_pool(workers)


@pytest.mark.parametrize("workers", ["2", [2]])
def test_workers_are_a_number(workers):
    with pytest.raises(TypeError):
        thread_pool(workers)


def test_initializer_must_be_callable():
    with pytest.raises(TypeError, match="initializer must be a callable"):
        thread_pool(1, initializer=1)


# Threads ----------------------------------------------------------------------------------------


def test_names():
    with thread_pool(2, thread_name_prefix="crew") as pool:
        go, _ = occupy(pool, 2)
        assert {thread.name for thread in pool._threads} == {"crew_0", "crew_1"}
        go.set()
        assert pool.submit(lambda: threading.current_thread().name).result() in {"crew_0", "crew_1"}


def test_default_names():
    pools = [thread_pool(1) for _ in range(2)]
    names = [pool.submit(lambda: threading.current_thread().name).result() for pool in pools]
    numbers = [int(re.fullmatch(r"ThreadPoolExecutor-(\d+)_0", name).group(1)) for name in names]
    assert numbers[1] == numbers[0] + 1
    for pool in pools:
        pool.shutdown()


def test_workers_are_threads_of_threading():
    with thread_pool(2) as pool:
        worker = pool.submit(threading.current_thread).result()
        assert worker in threading.enumerate() and worker.is_alive() and worker is not None
        assert not worker.daemon and not isinstance(worker, threading._DummyThread)
        assert pool.submit(threading.get_ident).result() in {t.ident for t in threading.enumerate()}
        native = pool.submit(threading.get_native_id).result()
        assert os.path.exists(f"/proc/self/task/{native}")
    assert not worker.is_alive() and worker not in threading.enumerate()


def test_thread_locals_last_as_long_as_the_thread():
    local, gone = threading.local(), threading.Event()

    class Value:
        def __del__(self):
            gone.set()

    with thread_pool(1) as pool:
        pool.submit(lambda: setattr(local, "value", Value())).result()
        assert pool.submit(lambda: isinstance(local.value, Value)).result()
        assert not gone.is_set()
    assert gone.wait(SOON) and not hasattr(local, "value")


def test_tracing_and_profiling_of_threading_reach_the_workers():
    assert (
        run_json(
            """
        seen = set()
        threading.settrace(lambda frame, *_: seen.add(frame.f_code.co_name))
        def traced():
            return 1
        with thread_pool(1) as pool:
            pool.submit(traced).result()
        threading.settrace(None)
        report("traced" in seen)
    """
        )
        is True
    )


def test_threads_start_as_they_are_needed():
    with thread_pool(8) as pool:
        assert len(pool._threads) == 0
        for expected in (1, 2, 3):
            go, _ = occupy(pool, expected)
            assert len(pool._threads) >= expected
            go.set()
        assert len(pool._threads) <= 8


def test_an_idle_thread_is_used_again():
    with thread_pool(8) as pool:
        for _ in range(30):
            pool.submit(int).result()
        assert len(pool._threads) < 8


def test_never_more_threads_than_asked_for():
    running, most, lock = 0, 0, threading.Lock()

    def task():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1

    with thread_pool(3) as pool:
        for _ in range(100):
            pool.submit(task)
    assert most == 3 and len(pool._threads) == 3


def test_initializer_runs_once_in_each_thread():
    ran = []
    with thread_pool(
        3, initializer=lambda *args: ran.append((threading.get_ident(), args)), initargs=("a", 1)
    ) as pool:
        go, _ = occupy(pool, 3)
        go.set()
    assert len({ident for ident, _ in ran}) == len(ran) == 3
    assert {args for _, args in ran} == {("a", 1)}


def test_a_failing_initializer_breaks_the_pool(caplog):
    def fail():
        raise OSError("no database")

    with thread_pool(2, initializer=fail) as pool:
        first = None
        try:
            first = pool.submit(int)
            assert isinstance(first.exception(SOON), futures.thread.BrokenThreadPool)
        except futures.thread.BrokenThreadPool:
            pass
        assert until(lambda: pool._broken)
        with pytest.raises(futures.thread.BrokenThreadPool):
            pool.submit(int)
        with pytest.raises(futures.BrokenExecutor):
            pool.map(int, "12")
    assert any("Exception in initializer" in record.getMessage() for record in caplog.records)


def test_default_number_of_workers():
    with thread_pool() as pool:
        assert 1 <= pool._max_workers <= min(32, (os.cpu_count() or 1) + 4)


@ours
def test_default_number_of_workers_knows_affinity():
    assert (
        run_json(
            """
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        report([futures.cpu_count(), thread_pool()._max_workers])
    """
        )
        == [1, 5]
    )


@ours
def test_default_number_of_workers_knows_cgroups():
    directory = cgroup("cpu", "cpu.cfs_quota_us", "100000", "cpu.max", "100000 100000")
    try:
        assert (
            run_json(
                """
            with open(sys.argv[1] + "/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            report([futures.cpu_count(), thread_pool()._max_workers])
        """,
                directory,
            )
            == [1, 5]
        )
    finally:
        remove_cgroup(directory)


# The end ----------------------------------------------------------------------------------------


def test_with_waits_for_all():
    done = []
    with thread_pool(2) as pool:
        for number in range(100):
            pool.submit(done.append, number)
    assert len(done) == 100


def test_with_passes_exceptions_on():
    with pytest.raises(LookupError):
        with thread_pool(1) as pool:
            future = pool.submit(int)
            raise LookupError
    assert future.result(0) == 0


def test_submit_after_shutdown():
    pool = thread_pool(1)
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
        pool.submit(int)


def test_shutdown_without_waiting():
    pool = thread_pool(1)
    go, _ = occupy(pool)
    later = [pool.submit(int) for _ in range(10)]
    pool.shutdown(wait=False)
    assert not later[-1].done()
    go.set()
    assert [future.result(SOON) for future in later] == [0] * 10
    for thread in pool._threads:
        thread.join(SOON)
        assert not thread.is_alive()


def test_shutdown_that_cancels():
    pool = thread_pool(1)
    go, (running,) = occupy(pool)
    later = [pool.submit(int) for _ in range(10)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in later)
    go.set()
    pool.shutdown(wait=True)
    assert running.result(0) is True


def test_shutdown_waits_in_many_threads():
    pool = thread_pool(2)
    go, _ = occupy(pool, 2)
    waiting = [threading.Thread(target=pool.shutdown) for _ in range(4)]
    for thread in waiting:
        thread.start()
    go.set()
    for thread in waiting:
        thread.join(SOON)
        assert not thread.is_alive()


def test_shutdown_in_a_task_and_in_a_callback():
    pool = thread_pool(2)
    pool.submit(pool.shutdown, wait=False).result(SOON)
    with pytest.raises(RuntimeError):
        pool.submit(int)
    pool.shutdown()
    other, go = thread_pool(1), threading.Event()
    future = other.submit(go.wait)
    future.add_done_callback(lambda _: other.shutdown(wait=False))
    go.set()
    other.shutdown()
    assert future.result(0) is True


@ours
@pytest.mark.parametrize("where", ["task", "callback"])
def test_waiting_shutdown_inside_the_pool(where):
    """It cannot wait for the thread that it runs in; it must not hang nor break anything."""
    assert (
        run_json(
            """
        pool = thread_pool(1)
        outcome = []
        def end(*_):
            try:
                pool.shutdown(wait=True)
                outcome.append("ended")
            except RuntimeError as error:
                outcome.append("refused")
        go = threading.Event()
        if sys.argv[1] == "task":
            future = pool.submit(end)
        else:
            future = pool.submit(go.wait)
            future.add_done_callback(end)
        go.set()
        assert until(lambda: outcome)
        pool.shutdown()
        report([outcome[0] in ("ended", "refused"), future.done()])
    """,
            where,
        )
        == [True, True]
    )


@ours
def test_shutdown_with_a_timeout():
    pool = thread_pool(1)
    go, (running,) = occupy(pool)
    with pytest.raises(TimeoutError):
        pool.shutdown(timeout=0.05)
    with pytest.raises(TimeoutError):
        pool.shutdown(timeout=0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    go.set()
    pool.shutdown(timeout=SOON)
    assert running.result(0) is True


def test_a_dropped_executor_ends_its_threads():
    pool = thread_pool(2)
    go, _ = occupy(pool, 2)
    go.set()
    watch, workers = weakref.ref(pool), list(pool._threads)
    del pool
    gc.collect()
    assert watch() is None
    for worker in workers:
        worker.join(SOON)
        assert not worker.is_alive()


def test_a_dropped_executor_still_runs_what_was_submitted():
    pool = thread_pool(1)
    go, _ = occupy(pool)
    results = [pool.submit(pow, number, 2) for number in range(50)]
    del pool
    gc.collect()
    go.set()
    assert [future.result(SOON) for future in results] == [number**2 for number in range(50)]


def test_an_executor_in_a_cycle_is_collected():
    class Holder:
        pass

    holder = Holder()
    holder.pool = thread_pool(1)
    holder.future = holder.pool.submit(lambda: None)
    holder.future.result()
    holder.pool.note = holder
    workers, watch = list(holder.pool._threads), weakref.ref(holder)
    del holder
    gc.collect()
    assert until(lambda: gc.collect() >= 0 and watch() is None)
    for worker in workers:
        worker.join(SOON)
        assert not worker.is_alive()


def test_the_last_reference_goes_in_a_worker():
    assert (
        run_json(
            """
        import gc
        done = threading.Event()
        def task(box):
            box.clear()
            gc.collect()
            done.set()
        box = [thread_pool(1)]
        box[0].submit(task, box)
        report(done.wait(SOON))
    """
        )
        is True
    )


@ours
def test_submits_race_with_shutdown():
    """What was accepted settles; all else is a RuntimeError."""
    assert (
        run_json(
            """
        def hammer(pool, accepted):
            try:
                while len(accepted) < 2000:
                    accepted.append(pool.submit(int))
            except RuntimeError:
                pass
        for turn in range(200):
            pool, lists = thread_pool(2), [[] for _ in range(3)]
            threads = [threading.Thread(target=hammer, args=(pool, each)) for each in lists]
            for thread in threads:
                thread.start()
            until(lambda: all(lists))
            pool.shutdown(wait=bool(turn % 2), cancel_futures=turn % 3 == 0)
            for thread in threads:
                thread.join()
            for each in lists:
                for future in each:
                    futures.wait([future], timeout=SOON)
                    assert future.cancelled() or future.result(0) == 0
        report("settled")
    """
        )
        == "settled"
    )


def test_another_thread_cannot_be_started():
    """There is one worker: it serves all, and nothing is refused."""
    assert run_json(
        """
        names = [name for name in ("_start_new_thread", "_start_joinable_thread")
                 if hasattr(threading, name)]
        def limited(start):
            def start_or_refuse(*args, **kwargs):
                if threading.active_count() > 2:
                    raise RuntimeError("can't start new thread")
                return start(*args, **kwargs)
            return start_or_refuse
        for name in names:
            setattr(threading, name, limited(getattr(threading, name)))
        tasks = []
        with thread_pool(4) as pool:
            for number in range(100):
                try:
                    tasks.append(pool.submit(pow, number, 2))
                except RuntimeError:
                    assert STANDARD
        results = [task.result() for task in tasks if not STANDARD]
        report(STANDARD or results == [number ** 2 for number in range(100)])
    """
    )


@ours
def test_few_threads_are_allowed():
    """A limit of the system on threads: the pool works with those it gets."""
    directory = cgroup("pids", "pids.max", "20")
    try:
        assert (
            run_json(
                """
            with open(sys.argv[1] + "/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            go = threading.Event()
            with thread_pool(64) as pool:
                tasks = [pool.submit(go.wait, SOON) for _ in range(64)]
                started = len(pool._threads)
                go.set()
            report([1 <= started < 20, all(task.result() for task in tasks)])
        """,
                directory,
            )
            == [True, True]
        )
    finally:
        remove_cgroup(directory)


def test_many_threads_on_one_processor():
    """Sixty-four workers share one processor: all is done, in a time that is no surprise."""
    assert (
        run_json(
            """
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        with thread_pool(64) as pool:
            began = time.monotonic()
            assert sum(pool.map(int, ["1"] * 20000)) == 20000
            report(time.monotonic() - began)
    """
        )
        < 20
    )


def test_deep_recursion_in_a_worker():
    """The stack of a worker is that of any thread of Python's."""
    assert (
        run_json(
            """
        def depth(number):
            return 0 if number == 0 else 1 + depth(number - 1)
        def endless():
            return endless()
        threading.stack_size(64 << 20)
        sys.setrecursionlimit(20000)
        with thread_pool(1) as pool:
            report([pool.submit(depth, 15000).result(),
                    type(pool.submit(endless).exception()).__name__])
    """
        )
        == [15000, "RecursionError"]
    )


@pytest.mark.parametrize("isolated", [False, True])
def test_in_a_subinterpreter(isolated):
    """It works there, or says that it does not: an isolated one may refuse it."""
    assert (
        run_json(
            """
        isolated = sys.argv[1] == "True"
        try:
            import _interpreters as interpreters
            create = lambda: interpreters.create("isolated" if isolated else "legacy")
        except ImportError:
            import _xxsubinterpreters as interpreters
            create = lambda: interpreters.create(isolated=isolated)
        program = (f"import sys; sys.path[:] = {sys.path!r}\\n"
                   "from support import *\\n"
                   "with thread_pool(2) as pool:\\n"
                   "    assert list(pool.map(int, '123')) == [1, 2, 3]\\n")
        for _ in range(3):
            one = create()
            try:
                error = interpreters.run_string(one, program)
            except Exception as failure:
                error = failure
            assert isolated or error is None, error
            interpreters.destroy(one)
        with thread_pool(2) as pool:
            report(list(pool.map(int, "123")))
    """,
            isolated,
        )
        == [1, 2, 3]
    )


def test_many_pools_leave_nothing():
    threads, left, opened = run_json(
        """
        def cycle():
            with thread_pool(3) as pool:
                assert len(list(pool.map(int, "123"))) == 3
        cycle()
        before = descriptors()
        for _ in range(200):
            cycle()
        report([threads(), threading.active_count(), descriptors() - before])
    """
    )
    assert left == 1 and opened == 0
    assert threads <= 2  # an engine may keep a thread for all its pools


# Waiting inside tasks ---------------------------------------------------------------------------


@ours
@pytest.mark.parametrize(
    "wait",
    [
        "inner.result()",
        "futures.wait([inner]).done.pop().result()",
        "next(futures.as_completed([inner])).result()",
        "next(pool.map(lambda: 42))",
        "next(iter([inner.exception()])) or inner.result()",
    ],
)
def test_a_task_may_wait_for_a_task_of_its_pool(wait):
    """The only worker waits for what stands behind it in the queue: it runs that meanwhile."""
    source = wait.replace("pool.map(lambda: 42)", "pool.map(lambda _: 42, [0])")
    assert (
        run_json(
            f"""
        with thread_pool(1) as pool:
            def outer():
                inner = pool.submit(lambda: 42)
                return {source}
            report(pool.submit(outer).result(SOON))
    """
        )
        == 42
    )


@ours
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_recursive_tasks(workers):
    """Each task waits for two below it: a hundred at once, on few threads."""
    assert (
        run_json(
            """
        with thread_pool(int(sys.argv[1])) as pool:
            def fibonacci(number):
                if number < 2:
                    return number
                left = pool.submit(fibonacci, number - 1)
                right = pool.submit(fibonacci, number - 2)
                return left.result() + right.result()
            report(pool.submit(fibonacci, 12).result(30))
    """,
            workers,
        )
        == 144
    )


@ours
def test_a_task_may_wait_for_many():
    assert (
        run_json(
            """
        with thread_pool(2) as pool:
            def outer():
                inner = [pool.submit(pow, number, 2) for number in range(50)]
                futures.wait(inner)
                return sum(future.result() for future in inner) + sum(pool.map(int, "123"))
            report(pool.submit(outer).result(SOON))
    """
        )
        == sum(number * number for number in range(50)) + 6
    )


@ours
def test_a_callback_may_wait_for_a_task_of_its_pool():
    assert (
        run_json(
            """
        done = futures.Future()
        with thread_pool(1) as pool:
            go = threading.Event()
            first = pool.submit(go.wait)
            first.add_done_callback(lambda _: done.set_result(pool.submit(pow, 6, 2).result(SOON)))
            go.set()
            report(done.result(SOON))
    """
        )
        == 36
    )


@ours
def test_a_task_that_waits_for_itself():
    assert (
        run_json(
            """
        with thread_pool(2) as pool:
            own, box = threading.Event(), []
            def wait_for_myself():
                own.wait()
                return box[0].result()
            box.append(pool.submit(wait_for_myself))
            own.set()
            report(type(box[0].exception(SOON)).__name__)
    """
        )
        == "DeadlockError"
    )


@ours
@pytest.mark.parametrize(
    "wait", ["other.result()", "futures.wait([other])", "list(futures.as_completed([other]))"]
)
def test_tasks_that_wait_for_each_other(wait):
    kinds = run_json(
        f"""
        with thread_pool(2) as pool:
            known, pair = threading.Event(), []
            def task(number):
                known.wait()
                other = pair[1 - number]
                {wait}
            pair += [pool.submit(task, 0), pool.submit(task, 1)]
            known.set()
            report([type(future.exception(SOON)).__name__ for future in pair])
    """
    )
    assert "DeadlockError" in kinds and set(kinds) <= {"DeadlockError", "NoneType"}


@ours
def test_a_deadlock_is_a_runtime_error():
    assert issubclass(futures.DeadlockError, RuntimeError)


@ours
def test_a_timed_wait_in_a_cycle_ends():
    assert (
        run_json(
            """
        with thread_pool(1) as pool:
            known, box = threading.Event(), []
            def task():
                known.wait()
                try:
                    box[0].result(timeout=0.2)
                except (TimeoutError, futures.DeadlockError):
                    return "ended"
            box.append(pool.submit(task))
            known.set()
            report(box[0].result(SOON))
    """
        )
        == "ended"
    )


def test_waiting_for_another_pool_inside_a_task():
    with thread_pool(1) as one, thread_pool(1) as two:
        future = one.submit(lambda: two.submit(lambda: one.submit).result() is not None)
        assert future.result(SOON)


# Bounds -----------------------------------------------------------------------------------------


@ours
def test_a_full_pool_lets_submit_wait():
    with thread_pool(1, max_pending=2) as pool:
        go, _ = occupy(pool)
        submitted = []
        submitter = threading.Thread(
            target=lambda: [submitted.append(pool.submit(int)) for _ in range(20)]
        )
        submitter.start()
        assert until(lambda: len(submitted) in (1, 2))
        assert not until(lambda: len(submitted) > 2, 0.1)
        go.set()
        submitter.join(SOON)
        assert len(submitted) == 20
        assert [future.result(SOON) for future in submitted] == [0] * 20


@ours
def test_a_full_pool_raises():
    with thread_pool(1, max_pending=2, when_full="raise") as pool:
        go, _ = occupy(pool)
        ran, accepted = [], 0
        with pytest.raises(futures.QueueFull) as caught:
            for accepted in itertools.count():
                pool.submit(ran.append, accepted)
        assert isinstance(caught.value, queue.Full) and accepted in (1, 2)
        go.set()
    assert ran == list(range(accepted))


@ours
def test_a_full_pool_runs_it_here():
    with thread_pool(1, max_pending=1, when_full="run") as pool:
        go, _ = occupy(pool)
        where = [pool.submit(threading.get_ident) for _ in range(5)]
        here = [future for future in where if future.done()]
        assert len(here) >= 3
        assert {future.result() for future in here} == {threading.get_ident()}
        go.set()


@ours
def test_cancelling_makes_room():
    with thread_pool(1, max_pending=1, when_full="raise") as pool:
        go, _ = occupy(pool)
        waiting = []
        with pytest.raises(futures.QueueFull):
            while True:
                waiting.append(pool.submit(int))
        for future in waiting:
            assert future.cancel()

        def room():
            try:
                pool.submit(int)
            except futures.QueueFull:
                return False
            return True

        assert until(room)
        go.set()


@ours
def test_shutdown_frees_a_waiting_submit():
    pool = thread_pool(1, max_pending=1)
    go, _ = occupy(pool)
    outcome = []

    def submit():
        try:
            while True:
                pool.submit(int)
        except RuntimeError as error:
            outcome.append(str(error))

    submitter = threading.Thread(target=submit)
    submitter.start()
    assert not until(lambda: outcome, 0.05)
    pool.shutdown(wait=False)
    go.set()
    submitter.join(SOON)
    assert outcome == ["cannot schedule new futures after shutdown"]
    pool.shutdown()


@ours
@pytest.mark.parametrize(
    "options, error",
    [
        ({"max_pending": 0}, ValueError),
        ({"max_pending": -1}, ValueError),
        ({"max_pending": "1"}, TypeError),
        ({"max_pending": 1, "when_full": "never"}, ValueError),
    ],
)
def test_bad_bounds(options, error):
    with pytest.raises(error):
        thread_pool(1, **options)


@ours
def test_a_bounded_map():
    with thread_pool(2, max_pending=4) as pool:
        assert list(pool.map(str, range(500))) == [str(number) for number in range(500)]


# Context variables ------------------------------------------------------------------------------

VARIABLE = contextvars.ContextVar("VARIABLE", default="default")


def test_context_is_not_inherited():
    token = VARIABLE.set("here")
    with thread_pool(1) as pool:
        assert pool.submit(VARIABLE.get).result() == "default"
        assert list(pool.map(lambda _: VARIABLE.get(), [0])) == ["default"]
    VARIABLE.reset(token)


@ours
def test_context_is_inherited_on_request():
    with thread_pool(1, inherit_context=True) as pool:
        token = VARIABLE.set("first")
        first = pool.submit(lambda: (VARIABLE.get(), VARIABLE.set("changed in the task"))[0])
        VARIABLE.set("second")
        second = pool.submit(VARIABLE.get)
        mapped = pool.map(lambda _: VARIABLE.get(), [0])
        VARIABLE.reset(token)
        third = pool.submit(VARIABLE.get)
        assert [first.result(), second.result(), *mapped, third.result()] == [
            "first",
            "second",
            "second",
            "default",
        ]


# Subclasses and views ---------------------------------------------------------------------------


def test_subclass_that_overrides_submit():
    class Counting(futures.ThreadPoolExecutor):
        count = 0

        def submit(self, fn, /, *args, **kwargs):
            self.count += 1
            return super().submit(fn, *args, **kwargs)

    with Counting(2, thread_name_prefix="counting") as pool:
        assert list(pool.map(int, "123")) == [1, 2, 3]
        assert pool.count == 3


@ours
def test_priorities():
    order = []
    with thread_pool(1) as pool:
        go, _ = occupy(pool)
        urgent, idle = pool.using(priority=10), pool.using(priority=-10)
        for number in range(3):
            idle.submit(order.append, f"idle {number}")
            pool.submit(order.append, f"plain {number}")
            urgent.submit(order.append, f"urgent {number}")
        go.set()
    assert order == [
        f"{kind} {number}" for kind in ("urgent", "plain", "idle") for number in range(3)
    ]


@ours
def test_a_view_maps_too():
    with thread_pool(1) as pool:
        assert list(pool.using(priority=1).map(int, "12")) == [1, 2]


@ours
def test_stop_cancels_what_has_not_begun():
    with thread_pool(1) as pool:
        go, _ = occupy(pool)
        waiting = pool.submit(int)
        waiting.stop()
        assert waiting.cancelled()
        go.set()


# Idleness ---------------------------------------------------------------------------------------


@ours
def test_idle_workers_use_no_processor_time():
    assert (
        run_json(
            """
        with thread_pool(8) as pool:
            barrier = threading.Barrier(8)
            list(pool.map(lambda _: barrier.wait(), range(8)))
            time.sleep(0.2)
            before = time.process_time()
            time.sleep(1)
            report(time.process_time() - before)
    """
        )
        < 0.1
    )
