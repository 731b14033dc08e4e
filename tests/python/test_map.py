# SPDX-License-Identifier: MIT
"""Executor.map on threads; test_processes.py has what is different with processes."""
import gc
import itertools
import sys
import threading
import time
import weakref

import pytest
from support import SOON, futures, ours, run_json, thread_pool, until

NEWEST = sys.version_info >= (3, 14)


@pytest.fixture
def pool():
    with thread_pool(2) as executor:
        yield executor


def blocked(executor, workers=2):
    """Occupy all workers; returns the event that frees them."""
    go = threading.Event()
    futures_of_them = [executor.submit(go.wait, SOON) for _ in range(workers)]
    assert until(lambda: all(future.running() for future in futures_of_them))
    return go


def buffered(test):
    """A test of `buffersize`, which the standard module has since 3.14."""
    return test if NEWEST else ours(test)


# Results ----------------------------------------------------------------------------------------


def test_like_the_builtin(pool):
    assert list(pool.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))


@pytest.mark.parametrize(
    "iterables",
    [([],), ([], [1]), ([1, 2, 3], [1]), (itertools.count(), "ab"), ("abc", range(3), [0.5] * 9)],
)
def test_the_shortest_iterable_ends_it(pool, iterables):
    again = [list(itertools.islice(iterable, 20)) for iterable in iterables]
    assert list(pool.map(lambda *items: items, *again)) == list(zip(*again))


def test_without_iterables(pool):
    assert list(pool.map(int)) == []


def test_results_in_the_order_of_the_arguments(pool):
    first, second = threading.Event(), threading.Event()
    order = []

    def task(number):
        (first if number == 0 else second).wait(SOON)
        order.append(number)
        first.set()
        return number

    results = pool.map(task, range(2))
    second.set()
    assert list(results) == [0, 1] and order == [1, 0]


def test_it_is_an_iterator(pool):
    results = pool.map(str, range(3))
    assert iter(results) is results and next(results) == "0"
    assert list(results) == ["1", "2"]
    with pytest.raises(StopIteration):
        next(results)
    results.close()


def test_arguments_are_taken_at_the_call(pool):
    taken = []
    results = pool.map(str, (taken.append(number) or number for number in range(50)))
    assert taken == list(range(50))
    assert list(results) == [str(number) for number in range(50)]


def test_an_iterable_that_raises(pool):
    def numbers():
        yield 1
        raise LookupError("from the iterable")

    with pytest.raises(LookupError):
        pool.map(str, numbers())
    assert list(pool.map(str, [1])) == ["1"]


def test_what_is_no_iterable(pool):
    with pytest.raises(TypeError):
        pool.map(str, 1)


def test_chunksize_means_nothing_to_threads(pool):
    for chunksize in (0, 1, 7, 10_000):
        assert list(pool.map(int, "123", chunksize=chunksize)) == [1, 2, 3]


def test_after_shutdown():
    pool = thread_pool(1)
    results = pool.map(str, range(3))
    pool.shutdown()
    assert list(results) == ["0", "1", "2"]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(str, range(3))


def test_much(pool):
    assert sum(pool.map(lambda number: number, range(50_000))) == sum(range(50_000))


def test_a_map_inside_a_map():
    with thread_pool(4) as pool, thread_pool(4) as inner:
        rows = pool.map(lambda row: list(inner.map(lambda x: x * row, range(4))), range(4))
        assert list(rows) == [[x * row for x in range(4)] for row in range(4)]


# Errors and timeouts ----------------------------------------------------------------------------


def test_an_error_is_raised_at_its_place(pool):
    results = pool.map(int, ["1", "2", "x", "4"])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_error_cancels_what_has_not_begun():
    with thread_pool(1) as pool:
        ran, go = [], threading.Event()

        def task(number):
            ran.append(number)
            if number == 0:
                raise LookupError
            go.wait(SOON)

        results = pool.map(task, range(100))
        with pytest.raises(LookupError):
            next(results)
        go.set()
    assert ran in ([0], [0, 1])


def test_timeout(pool):
    go = threading.Event()
    results = pool.map(lambda number: number or go.wait(SOON), [1, 2, 0], timeout=0.1)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(TimeoutError):
        next(results)
    assert list(results) == []
    go.set()


def test_the_timeout_runs_from_the_call(pool):
    go = threading.Event()
    results = pool.map(go.wait, [SOON], timeout=0.2)
    until(lambda: False, 0.3)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        next(results)
    assert time.monotonic() - began < SOON / 2
    go.set()


def test_timeout_of_none_and_of_what_is_done(pool):
    assert list(pool.map(str, [1], timeout=None)) == ["1"]
    results = pool.map(str, range(5), timeout=SOON)
    assert list(results) == ["0", "1", "2", "3", "4"]


def test_a_timeout_cancels_the_rest():
    with thread_pool(1) as pool:
        ran, go = [], threading.Event()
        results = pool.map(lambda number: (ran.append(number), go.wait(SOON)), range(10), timeout=0)
        with pytest.raises(TimeoutError):
            next(results)
        go.set()
    assert len(ran) <= 1


# Closing ----------------------------------------------------------------------------------------


def test_closing_cancels_what_has_not_begun():
    with thread_pool(1) as pool:
        ran, go = [], threading.Event()
        results = pool.map(lambda number: (ran.append(number), number and go.wait(SOON)), range(9))
        next(results)
        results.close()
        go.set()
    assert ran in ([0], [0, 1])


@ours
def test_closing_before_the_first_result_cancels():
    """With the standard module all of them run: its generator was never started."""
    with thread_pool(2) as pool:
        ran, go = [], blocked(pool)
        results = pool.map(ran.append, range(100))
        results.close()
        assert list(results) == []
        go.set()
    assert ran == []


def test_a_map_whose_results_nobody_wants():
    """As a statement by itself it runs all: only close() cancels."""
    with thread_pool(2) as pool:
        ran, go = [], blocked(pool)
        pool.map(ran.append, range(100))
        gc.collect()
        go.set()
    assert sorted(ran) == list(range(100))


def test_results_are_dropped_as_they_are_taken(pool):
    class Result:
        pass

    watches = []

    def make(_):
        result = Result()
        watches.append(weakref.ref(result))
        return result

    results = pool.map(make, range(5))
    for left in range(4, -1, -1):
        result = next(results)
        until(lambda: len(watches) == 5)
        del result
        gc.collect()
        assert sum(watch() is not None for watch in watches) == left


def test_arguments_are_dropped_when_run():
    class Argument:
        pass

    def make():
        argument = Argument()
        watches.append(weakref.ref(argument))
        return argument

    watches = []
    with thread_pool(1) as pool:
        results = pool.map(lambda _: None, [make() for _ in range(5)])
        assert list(results) == [None] * 5
        assert until(lambda: gc.collect() >= 0 and all(watch() is None for watch in watches))


# buffersize -------------------------------------------------------------------------------------


@buffered
@pytest.mark.parametrize("buffersize", [0, -1])
def test_buffersize_is_positive(pool, buffersize):
    with pytest.raises(ValueError):
        pool.map(str, range(3), buffersize=buffersize)


@buffered
@pytest.mark.parametrize("buffersize", ["1", 1.0, [1]])
def test_buffersize_is_an_integer(pool, buffersize):
    with pytest.raises(TypeError):
        pool.map(str, range(3), buffersize=buffersize)


@buffered
@pytest.mark.parametrize("buffersize", [1, 2, 3, 10, 1000])
def test_buffered_results(pool, buffersize):
    results = pool.map(pow, range(10), itertools.repeat(2), buffersize=buffersize)
    assert list(results) == [number * number for number in range(10)]


@buffered
@pytest.mark.parametrize("buffersize", [1, 2, 5])
def test_an_infinite_iterable(pool, buffersize):
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    results = pool.map(str, numbers, buffersize=buffersize)
    assert len(taken) == buffersize
    for number in range(100):
        assert next(results) == str(number)
        assert buffersize <= len(taken) - number <= buffersize + 1
    results.close()


@buffered
def test_buffersize_none_takes_all(pool):
    taken = []
    pool.map(str, (taken.append(number) or number for number in range(9)), buffersize=None)
    assert len(taken) == 9


@buffered
def test_buffered_timeouts_and_errors(pool):
    results = pool.map(int, ["1", "x", "3"], buffersize=1)
    assert next(results) == 1
    with pytest.raises(ValueError):
        next(results)
    go = threading.Event()
    with pytest.raises(TimeoutError):
        list(pool.map(go.wait, itertools.repeat(SOON), timeout=0.05, buffersize=2))
    go.set()


@buffered
def test_buffered_and_dropped_executor():
    """The iterator does not hold the executor: it ends with what was submitted."""
    pool = thread_pool(1)
    results = pool.map(str, itertools.count(), buffersize=3)
    assert next(results) == "0"
    del pool
    gc.collect()
    assert 2 <= len(list(results)) <= 3


@buffered
def test_buffered_after_shutdown():
    """What was submitted is given; then the refusal is raised, where the next would be fed."""
    pool = thread_pool(1)
    results = pool.map(str, itertools.count(), buffersize=2)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(results)


@buffered
def test_buffered_on_a_subclass():
    """An Executor that only has submit() has a buffered map."""

    class Immediate(futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    executor = Immediate()
    results = executor.map(str, itertools.count(), buffersize=2)
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]


def test_waiting_for_a_result_lets_others_run():
    assert (
        run_json(
            """
        ticks = []
        go = threading.Event()
        def tick():
            while not go.is_set():
                ticks.append(1)
                if len(ticks) > 100:
                    go.set()
                time.sleep(0.001)
        with thread_pool(1) as pool:
            threading.Thread(target=tick).start()
            report(list(pool.map(go.wait, [SOON, SOON])))
    """
        )
        == [True, True]
    )
