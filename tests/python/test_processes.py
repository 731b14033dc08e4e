# SPDX-License-Identifier: MIT
"""The process pool while nothing dies: calls, errors, pickling, workers, bounds, the end.

Tasks are functions of this module, so that each start method finds them.
"""
import concurrent.futures.process
import gc
import itertools
import multiprocessing
import operator
import os
import pickle
import queue
import sys
import threading
import time
import traceback
import weakref

import pytest
from support import (
    LIMIT,
    SOON,
    alive,
    futures,
    ours,
    process_pool,
    run,
    run_json,
    until,
    wait_for_file,
)

METHODS = ["fork", "forkserver", "spawn"]
NEWEST = sys.version_info >= (3, 14)


@pytest.fixture(params=METHODS)
def pool(request):
    """A pool of two workers, by each start method."""
    with process_pool(2, method=request.param) as executor:
        yield executor


@pytest.fixture
def forked():
    """A pool of two workers that are quick to start."""
    with process_pool(2, method="fork") as executor:
        yield executor


# Tasks ------------------------------------------------------------------------------------------


def show(*args, **kwargs):
    return args, kwargs


def fail(message="from the task"):
    raise LookupError(message, 42)


def fail_with_cause():
    try:
        fail("the cause")
    except LookupError as error:
        raise ValueError("the error") from error


def leave(code):
    sys.exit(code)


def make_lambda():
    return lambda: None


def raise_from_chunk(number):
    if number == 5:
        raise ValueError(number)
    return number


STATE = []


def remember(value):
    STATE.append(value)


def remembered():
    return os.getpid(), list(STATE)


def fail_to_start():
    raise OSError("no database")


def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("not to be pickled")


class BadInTheWorker:
    """It can be pickled, but not unpickled in a worker."""

    def __init__(self, parent=None):
        self.parent = parent or os.getpid()

    def __reduce__(self):
        return rebuild, (self.parent,)


def rebuild(parent):
    if os.getpid() != parent:
        raise KeyError("not to be unpickled here")
    return BadInTheWorker(parent)


class Calls:
    """A callable object, with methods."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, number):
        return number * self.factor

    def times(self, number):
        return number * self.factor

    @classmethod
    def name(cls):
        return cls.__name__

    @staticmethod
    def double(number):
        return number * 2


# Calls ------------------------------------------------------------------------------------------


def test_calls(pool):
    assert pool.submit(show).result() == ((), {})
    assert pool.submit(show, 1, [2], fn="f", self="s").result() == (
        (1, [2]),
        {"fn": "f", "self": "s"},
    )
    assert pool.submit(os.getpid).result() != os.getpid()
    assert pool.submit(operator.mul, 6, 7).result() == 42


def test_kinds_of_callables(forked):
    calls = Calls(3)
    assert [
        forked.submit(callable_, *args).result()
        for callable_, args in [
            (calls, (2,)),
            (calls.times, (2,)),
            (Calls.name, ()),
            (Calls.double, (2,)),
            ("a,b".split, (",",)),
            (int, ("7",)),
        ]
    ] == [6, 6, "Calls", 4, ["a", "b"], 7]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**200,
        1.5,
        float("inf"),
        "",
        "text \u20ac \U0001F40D",
        b"",
        b"\0" * 100,
        [],
        [[1], (2,), {3}],
        {"a": {1: [None]}},
        range(10**20),
        slice(1, 2),
        int,
        print,
        Ellipsis,
        complex(1, 2),
        frozenset("ab"),
        bytearray(b"x"),
    ],
    ids=repr,
)
def test_values_cross_and_come_back(forked, value):
    result = forked.submit(show, value).result()[0][0]
    assert type(result) is type(value) and result == value


def test_an_object_that_is_there_twice(forked):
    shared = [1]
    (one, two), _ = forked.submit(show, shared, shared).result()
    assert one is two and one is not shared


def test_many_tasks(pool):
    tasks = [pool.submit(pow, number, 2) for number in range(3000)]
    assert [task.result() for task in tasks] == [number * number for number in range(3000)]


def test_from_many_threads(forked):
    def submit(number):
        return sum(
            future.result()
            for future in [forked.submit(operator.add, number, other) for other in range(300)]
        )

    with futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(submit, range(8))) == [
            300 * number + sum(range(300)) for number in range(8)
        ]


def test_callbacks(forked):
    calls = queue.Queue()
    for number in range(20):
        forked.submit(pow, number, 2).add_done_callback(calls.put)
    assert sorted(calls.get(timeout=SOON).result() for _ in range(20)) == [
        number * number for number in range(20)
    ]


def test_a_callback_runs_without_anyone_waiting(forked):
    done = threading.Event()
    forked.submit(nap, 0.05).add_done_callback(lambda _: done.set())
    assert done.wait(SOON)


def test_waits(forked):
    tasks = [forked.submit(pow, number, 2) for number in range(50)]
    assert futures.wait(tasks, timeout=SOON).not_done == set()
    assert {task.result() for task in futures.as_completed(tasks)} == {n * n for n in range(50)}
    with pytest.raises(TimeoutError):
        forked.submit(nap, 0.3).result(timeout=0.01)


def test_futures_of_threads_and_processes_together(forked):
    with futures.ThreadPoolExecutor(2) as threads:
        mixed = [pool.submit(pow, 2, number) for pool in (threads, forked) for number in range(9)]
        assert futures.wait(mixed, timeout=SOON).done == set(mixed)
        assert sorted(future.result() for future in futures.as_completed(mixed)) == sorted(
            [2**number for number in range(9)] * 2
        )


def test_cancel(forked, tmp_path):
    path = str(tmp_path / "go")
    running = [forked.submit(wait_for_file, path) for _ in range(2)]
    assert until(lambda: all(future.running() for future in running))
    waiting = [forked.submit(int) for _ in range(30)]
    assert not running[0].cancel() and waiting[-1].cancel() and waiting[-1].cancelled()
    open(path, "w").close()
    with pytest.raises(futures.CancelledError):
        waiting[-1].result()
    assert [future.result(SOON) for future in running + waiting[:-1]] == [True] * 2 + [0] * 29


# map --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 50, 1000])
def test_map(forked, chunksize):
    assert list(forked.map(pow, range(50), itertools.repeat(2), chunksize=chunksize)) == [
        number * number for number in range(50)
    ]


def test_map_by_each_method(pool):
    assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
    assert list(pool.map(show, "ab", [1, 2, 3])) == [(("a", 1), {}), (("b", 2), {})]
    assert list(pool.map(abs, [])) == []


@pytest.mark.parametrize("chunksize", [0, -1])
def test_chunksize_is_positive(forked, chunksize):
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        forked.map(abs, [1], chunksize=chunksize)


@pytest.mark.parametrize("chunksize", [1, 2, 3, 100])
def test_an_error_in_a_map(forked, chunksize):
    """It may take the place of the results of its chunk, as in the standard module."""
    results, seen = forked.map(raise_from_chunk, range(10), chunksize=chunksize), []
    with pytest.raises(ValueError, match="^5$"):
        for number in results:
            seen.append(number)
    assert 5 - 5 % chunksize <= len(seen) <= 5 and seen == list(range(len(seen)))
    assert list(results) == []


def test_a_map_that_times_out(forked):
    results = forked.map(nap, [0, 1], timeout=0.3)
    next(results)
    with pytest.raises(TimeoutError):
        next(results)


@ours
def test_a_map_closed_before_the_first_result(forked, tmp_path):
    path = str(tmp_path / "go")
    running = [forked.submit(wait_for_file, path) for _ in range(2)]
    assert until(lambda: all(future.running() for future in running))
    results = forked.map(touch, [str(tmp_path / f"ran {number}") for number in range(200)])
    results.close()
    open(path, "w").close()
    assert [future.result(SOON) for future in running] == [True, True]
    assert forked.submit(int).result() == 0
    ran = [path for path in tmp_path.iterdir() if path.name.startswith("ran")]
    assert len(ran) <= 10


@ours
def test_a_closed_map_is_over(forked):
    """Also when calls were sent several at a time, and all their results are there."""
    for _ in range(5):
        results = forked.map(abs, range(500))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        until(lambda: forked.submit(int).done())
        results.close()
        assert list(results) == []


def touch(path):
    open(path, "w").close()


@(lambda test: test if NEWEST else ours(test))
@pytest.mark.parametrize("chunksize", [1, 3])
def test_a_map_with_a_buffer(forked, chunksize):
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    results = forked.map(abs, numbers, buffersize=4, chunksize=chunksize)
    assert len(taken) <= 4 * chunksize
    assert [next(results) for _ in range(30)] == list(range(30))
    assert len(taken) <= 30 + 6 * chunksize
    results.close()


# Errors -----------------------------------------------------------------------------------------


def test_an_error_brings_its_traceback(pool):
    with pytest.raises(LookupError) as caught:
        pool.submit(fail).result()
    error = caught.value
    assert error.args == ("from the task", 42)
    assert type(error.__cause__) is concurrent.futures.process._RemoteTraceback
    assert "raise LookupError(message, 42)" in error.__cause__.tb
    text = "".join(traceback.format_exception(error))
    assert "in fail" in text and "direct cause" in text


def test_an_error_brings_its_cause(forked):
    error = forked.submit(fail_with_cause).exception()
    assert (type(error), error.args) == (ValueError, ("the error",))
    assert "LookupError: ('the cause', 42)" in str(error.__cause__)
    assert "The above exception was the direct cause" in str(error.__cause__)


def test_the_same_error_object_each_time(forked):
    future = forked.submit(fail)
    error = future.exception()
    assert future.exception() is error
    with pytest.raises(LookupError) as caught:
        future.result()
    assert caught.value is error


@pytest.mark.parametrize("code", [0, 3, None, "text"])
def test_exit_in_a_task(forked, code):
    error = forked.submit(leave, code).exception()
    assert type(error) is SystemExit and error.code == code
    assert forked.submit(int).result() == 0


@pytest.mark.parametrize(
    "function, args",
    [
        (lambda: None, ()),
        (show, (Unpicklable(),)),
        (show, (threading.Lock(),)),
        (show, (iter_ for iter_ in "a")),
    ],
    ids=["lambda", "argument", "lock", "generator"],
)
def test_what_cannot_be_pickled_fails_its_own_future(forked, function, args):
    future = (
        forked.submit(function, *args) if isinstance(args, tuple) else forked.submit(show, args)
    )
    assert isinstance(
        future.exception(SOON), (pickle.PicklingError, RuntimeError, TypeError, AttributeError)
    )
    assert forked.submit(int).result() == 0


def test_a_result_that_cannot_be_pickled(pool):
    future = pool.submit(make_lambda)
    error = future.exception(SOON)
    assert isinstance(error, (pickle.PicklingError, AttributeError))
    assert "lambda" in str(error)
    assert pool.submit(int).result() == 0


def test_a_map_with_an_argument_that_cannot_be_pickled(forked):
    results = forked.map(show, [1, threading.Lock(), 3])
    assert next(results) == ((1,), {})
    with pytest.raises(TypeError):
        next(results)
    assert forked.submit(int).result() == 0


@ours
def test_an_argument_that_cannot_be_unpickled(pool):
    """With the standard module it breaks the pool."""
    future = pool.submit(show, BadInTheWorker())
    assert "not to be unpickled here" in str(future.exception(SOON))
    assert pool.submit(int).result() == 0


def test_a_function_that_a_worker_does_not_have():
    """It came into being after the workers: they cannot import it."""
    assert (
        run_json(
            """
        if __name__ == "__main__":
            with process_pool(1, method="fork") as pool:
                pool.submit(abs, -1).result()
                def late():
                    return 1
                late.__qualname__ = "late"
                globals()["late"] = late
                error = pool.submit(late).exception(SOON)
                report([type(error).__name__ in ("AttributeError", "BrokenProcessPool"),
                        STANDARD or pool.submit(abs, -1).result()])
    """
        )
        in ([True, True], [True, 1])
    )


# Workers ----------------------------------------------------------------------------------------


def test_fork_starts_all_others_as_needed():
    with process_pool(3, method="fork") as pool:
        pool.submit(int).result()
        assert len(pool._processes) == 3
    with process_pool(3, method="spawn") as pool:
        pool.submit(int).result()
        assert len(pool._processes) == 1


def test_processes_are_those_of_multiprocessing(forked):
    worker = forked.submit(os.getpid).result()
    process = forked._processes[worker]
    assert process.pid == worker and process.is_alive() and process.exitcode is None
    assert process in multiprocessing.active_children()


def test_default_number_of_workers():
    with process_pool() as pool:
        assert 1 <= pool._max_workers <= (os.cpu_count() or 1)


def test_initializer_runs_once_in_each_worker():
    for method in METHODS:
        with process_pool(2, method=method, initializer=remember, initargs=("begun",)) as pool:
            states = dict(task.result() for task in [pool.submit(remembered) for _ in range(30)])
            assert set(map(tuple, states.values())) == {("begun",)}


@pytest.mark.parametrize("method", METHODS)
def test_a_failing_initializer_breaks_the_pool(method):
    with process_pool(2, method=method, initializer=fail_to_start) as pool:
        with pytest.raises(futures.process.BrokenProcessPool):
            pool.submit(int).result(SOON)
        with pytest.raises(futures.BrokenExecutor):
            pool.submit(int).result(SOON)
        assert pool._broken


@pytest.mark.parametrize(
    "options, error",
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"initializer": 1}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
        ({"max_tasks_per_child": 1, "method": "fork"}, ValueError),
    ],
)
def test_bad_options(options, error):
    with pytest.raises(error):
        process_pool(**{"max_workers": 1, **options})


@ours
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("workers", [1, 2])
def test_max_tasks_per_child(method, workers):
    """The standard module hangs here now and then (gh-115634)."""
    with process_pool(workers, method=method, max_tasks_per_child=3) as pool:
        pids = [task.result(LIMIT) for task in [pool.submit(os.getpid) for _ in range(12)]]
    assert all(pids.count(pid) <= 3 for pid in pids) and len(set(pids)) >= 4


@ours
def test_max_tasks_per_child_counts_a_chunk_once():
    with process_pool(1, max_tasks_per_child=2, method="forkserver") as pool:
        pids = list(pool.map(pid_of, range(12), chunksize=3))
    assert len(set(pids)) == 2


def pid_of(_):
    return os.getpid()


def test_max_tasks_per_child_spawns_by_default():
    with process_pool(1, max_tasks_per_child=2) as pool:
        assert pool._mp_context.get_start_method() == "spawn"
        assert pool.submit(os.getpid).result(LIMIT) != os.getpid()


def test_workers_keep_their_state(forked):
    forked.submit(remember, "kept").result()
    states = [forked.submit(remembered).result()[1] for _ in range(50)]
    assert ["kept"] in states and STATE == []


def test_a_worker_may_use_pools():
    assert (
        run_json(
            """
        def nested(number):
            with thread_pool(2) as threads_, process_pool(1, method="fork") as processes:
                return sum(threads_.map(int, "123")) + processes.submit(abs, -number).result()
        if __name__ == "__main__":
            with process_pool(1, method="spawn") as pool:
                report(pool.submit(nested, 4).result())
    """
        )
        == 10
    )


def test_workers_use_no_processor_time_when_idle():
    assert (
        run_json(
            """
        def used(pids):
            ticks = 0
            for pid in pids:
                fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
            return ticks / os.sysconf("SC_CLK_TCK")
        if __name__ == "__main__":
            with process_pool(4, method="fork") as pool:
                list(pool.map(abs, range(100)))
                time.sleep(0.3)
                pids = [os.getpid(), *pool._processes]
                before = used(pids)
                time.sleep(1)
                report(used(pids) - before)
    """
        )
        < 0.1
    )


def test_what_a_task_prints_is_there():
    out = run(
        """
        def task(number):
            print(f"task {number}\\n", end="")  # in one piece, buffered or not
        if __name__ == "__main__":
            with process_pool(2) as pool:
                list(pool.map(task, range(10)))
    """
    ).out
    assert sorted(out.splitlines()) == sorted(f"task {number}" for number in range(10))


def test_workers_log():
    err = run(
        """
        import logging
        def task():
            logging.getLogger("worker").warning("from a worker")
        if __name__ == "__main__":
            logging.basicConfig(format="%(processName)s %(message)s")
            with process_pool(1, method="fork") as pool:
                pool.submit(task).result()
    """
    ).err
    assert "from a worker" in err and "Process-" in err


# The end ----------------------------------------------------------------------------------------


def test_with_waits_for_all(forked):
    with forked:
        tasks = [forked.submit(pow, number, 2) for number in range(200)]
    assert all(task.done() for task in tasks)
    with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
        forked.submit(int)
    with pytest.raises(RuntimeError):
        forked.map(int, "1")


def test_shutdown_without_waiting(pool):
    tasks = [pool.submit(nap, 0.01) for _ in range(20)]
    pool.shutdown(wait=False)
    assert len({task.result(SOON) for task in tasks}) <= 2


def test_shutdown_that_cancels(forked, tmp_path):
    path = str(tmp_path / "go")
    running = [forked.submit(wait_for_file, path) for _ in range(2)]
    assert until(lambda: all(future.running() for future in running))
    waiting = [forked.submit(int) for _ in range(50)]
    forked.shutdown(wait=False, cancel_futures=True)
    open(path, "w").close()
    assert [future.result(SOON) for future in running] == [True, True]
    assert sum(future.cancelled() for future in waiting) >= 45


@ours
def test_shutdown_with_a_timeout(tmp_path):
    pool = process_pool(1)
    task = pool.submit(wait_for_file, str(tmp_path / "go"))
    with pytest.raises(TimeoutError):
        pool.shutdown(timeout=0.1)
    open(tmp_path / "go", "w").close()
    pool.shutdown(timeout=SOON)
    assert task.result(0) is True


@(lambda test: test if NEWEST else ours(test))
@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_ending_the_workers(how, pool):
    tasks = [pool.submit(nap, 60) for _ in range(6)]
    assert until(lambda: sum(task.running() for task in tasks) >= 2)
    workers = list(pool._processes.values())
    getattr(pool, how)()
    for worker in workers:
        worker.join(SOON)
    assert futures.wait(tasks, timeout=SOON).not_done == set()
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_a_dropped_executor_ends_its_workers():
    pool = process_pool(2, method="fork")
    results = [pool.submit(nap, 0.01) for _ in range(10)]
    watch, workers = weakref.ref(pool), list(pool._processes)
    del pool
    gc.collect()
    assert all(result.result(SOON) for result in results)
    assert until(lambda: not any(map(alive, workers)))
    assert until(lambda: gc.collect() >= 0 and watch() is None)


@ours
def test_many_pools_leave_nothing():
    threads_, opened, left = run_json(
        """
        def cycle():
            with process_pool(2, method="fork") as pool:
                assert list(pool.map(abs, range(4))) == [0, 1, 2, 3]
        if __name__ == "__main__":
            for _ in range(3):
                cycle()
            before = descriptors(), threads(), len(offspring())
            for _ in range(40):
                cycle()
            until(lambda: len(offspring()) <= before[2])
            report([threads() - before[1], descriptors() - before[0], len(offspring()) - before[2]])
    """
    )
    assert (threads_, opened, left) == (0, 0, 0)


@ours
def test_submits_race_with_shutdown():
    """What was accepted settles; all else is a RuntimeError."""
    assert (
        run_json(
            """
        def hammer(pool, accepted):
            try:
                while len(accepted) < 500:
                    accepted.append(pool.submit(abs, -1))
            except RuntimeError:
                pass
        if __name__ == "__main__":
            for turn in range(20):
                pool, lists = process_pool(2, method="fork"), [[] for _ in range(3)]
                pool.submit(abs, -1).result()
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
                        assert future.cancelled() or future.result(0) == 1
            report("settled")
    """
        )
        == "settled"
    )


def test_two_pools_at_once():
    with process_pool(1, method="fork") as one, process_pool(1, method="spawn") as two:
        pids = {pool.submit(os.getpid).result() for pool in (one, two)}
    assert len(pids) == 2


def test_the_default_method_in_a_program_with_threads():
    """Pools made while other threads hold locks and allocate: none of them hangs."""
    assert (
        run_json(
            """
        import logging
        def hammer():
            while not stop.is_set():
                logging.getLogger("x").info("x")
                bytearray(10000)
        if __name__ == "__main__":
            stop = threading.Event()
            for _ in range(4):
                threading.Thread(target=hammer).start()
            try:
                for _ in range(15):
                    with process_pool(2) as pool:
                        assert list(pool.map(abs, range(4))) == [0, 1, 2, 3]
            finally:
                stop.set()
            report("done")
    """
        )
        == "done"
    )


# Bounds and views -------------------------------------------------------------------------------


@ours
def test_a_full_pool_raises(tmp_path):
    path = str(tmp_path / "go")
    with process_pool(1, method="fork", max_pending=3, when_full="raise") as pool:
        running = pool.submit(wait_for_file, path)
        assert until(running.running)
        accepted = []
        with pytest.raises(futures.QueueFull):
            while True:
                accepted.append(pool.submit(int))
        assert 2 <= len(accepted) <= 3
        open(path, "w").close()
    assert [future.result(0) for future in accepted] == [0] * len(accepted)


@ours
def test_a_full_pool_lets_submit_wait():
    with process_pool(2, method="fork", max_pending=4) as pool:
        tasks = [pool.submit(pow, number, 2) for number in range(300)]
        assert [task.result() for task in tasks] == [number**2 for number in range(300)]


@ours
@pytest.mark.parametrize(
    "options, error",
    [
        ({"on_crash": "panic"}, ValueError),
        ({"when_full": "run", "max_pending": 1}, ValueError),
        ({"max_pending": 0}, ValueError),
        ({"run_limit": -1}, ValueError),
        ({"max_retries": -1}, ValueError),
    ],
)
def test_bad_extra_options(options, error):
    with pytest.raises(error):
        process_pool(1, **options)


@ours
def test_a_view(forked):
    view = forked.using(run_limit=30)
    assert view.submit(abs, -1).result() == 1
    assert list(view.map(abs, range(-3, 0))) == [3, 2, 1]
