# SPDX-License-Identifier: MIT
"""Waiting for several futures: wait and as_completed."""
import concurrent.futures
import gc
import itertools
import threading
import time
import weakref

import pytest
from support import SOON, asleep, futures, run_json, thread_pool, until

Future = futures.Future
ALL, FIRST, ERROR = futures.ALL_COMPLETED, futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION
KINDS = [futures.Future, concurrent.futures.Future]


def finished(value=None, kind=Future):
    future = kind()
    future.set_result(value)
    return future


def failed(kind=Future):
    future = kind()
    future.set_exception(OSError())
    return future


def cancelled(kind=Future):
    future = kind()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


class Waiter(threading.Thread):
    """A thread that waits, and what came of it."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function, self.outcome = function, None
        self.start()

    def run(self):
        try:
            self.outcome = self.function()
        except BaseException as error:
            self.outcome = error

    def result(self):
        self.join(SOON)
        assert not self.is_alive()
        return self.outcome


# wait -------------------------------------------------------------------------------------------


def test_constants():
    assert (ALL, FIRST, ERROR) == ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")


@pytest.mark.parametrize("when", [ALL, FIRST, ERROR])
def test_wait_for_nothing(when):
    result = futures.wait([], return_when=when)
    assert result == (set(), set()) and type(result).__name__ == "DoneAndNotDoneFutures"


def test_result_is_a_pair_of_sets():
    done, pending = finished(), Future()
    result = futures.wait([done, pending], timeout=0)
    assert (result.done, result.not_done) == tuple(result) == ({done}, {pending})
    assert isinstance(result.done, set) and isinstance(result.not_done, set)


@pytest.mark.parametrize(
    "collect", [list, set, tuple, iter, dict.fromkeys, lambda fs: (future for future in fs)]
)
def test_any_iterable(collect):
    three = [finished(number) for number in range(3)]
    assert futures.wait(collect(three)).done == set(three)
    assert set(futures.as_completed(collect(three))) == set(three)


def test_duplicates_are_merged():
    done, pending = finished(), Future()
    assert futures.wait([done, pending, done, pending], timeout=0) == ({done}, {pending})
    assert list(futures.as_completed([done, done, done])) == [done]


@pytest.mark.parametrize("timeout", [0, -1, 1e-6, 0.05])
def test_wait_never_raises_on_timeout(timeout):
    pending = [Future(), Future()]
    assert futures.wait(pending, timeout=timeout) == (set(), set(pending))


def test_wait_waits_for_its_time():
    began = time.monotonic()
    futures.wait([Future()], timeout=0.1)
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("bad", [1, None, "text", object()])
def test_wait_for_what_is_no_future(bad):
    with pytest.raises((AttributeError, TypeError)):
        futures.wait([finished(), bad], timeout=0)


def test_bad_return_when():
    with pytest.raises(ValueError):
        futures.wait([Future()], timeout=0, return_when="SOMETIMES")


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_all_completed(first, second):
    one, two = first(), second()
    waiter = Waiter(lambda: futures.wait([one, two]))
    one.set_result(1)
    assert waiter.is_alive()
    two.set_exception(KeyError())
    assert waiter.result() == ({one, two}, set())


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_first_completed(first, second):
    one, two = first(), second()
    waiter = Waiter(lambda: futures.wait([one, two], return_when=FIRST))
    two.set_result(1)
    assert waiter.result() == ({two}, {one})


def test_first_completed_already_done():
    pending = Future()
    done = {finished(), failed(), cancelled()}
    assert futures.wait([pending, *done], return_when=FIRST) == (done, {pending})


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_first_exception(first, second):
    one, two, three = first(), second(), Future()
    waiter = Waiter(lambda: futures.wait([one, two, three], return_when=ERROR))
    one.set_result("no error")
    assert waiter.is_alive()
    two.set_exception(OSError())
    assert waiter.result() == ({one, two}, {three})


def test_first_exception_already_failed():
    pending, error = Future(), failed()
    assert futures.wait([pending, error, finished()], return_when=ERROR).not_done == {pending}


def test_cancellation_is_no_exception():
    pending, gone = Future(), Future()
    waiter = Waiter(lambda: futures.wait([pending, gone, cancelled()], return_when=ERROR))
    gone.cancel()
    gone.set_running_or_notify_cancel()
    assert waiter.is_alive()
    pending.set_result(1)
    assert waiter.result().not_done == set()


def test_first_exception_without_one_waits_for_all():
    two = [Future(), Future()]
    waiter = Waiter(lambda: futures.wait(two, return_when=ERROR))
    two[0].set_result(1)
    assert waiter.is_alive()
    two[1].set_result(1)
    assert waiter.result().done == set(two)


def test_several_waiters_for_the_same_futures():
    three = [Future() for _ in range(3)]
    waiters = [
        Waiter(lambda when=when: futures.wait(three, return_when=when))
        for when in (ALL, FIRST, ERROR) * 3
    ]
    for future in three:
        future.set_exception(KeyError())
    for waiter in waiters:
        assert waiter.result().done <= set(three) and waiter.result().done


def test_futures_of_several_pools_and_of_none():
    go = threading.Event()
    with thread_pool(1) as one, concurrent.futures.ThreadPoolExecutor(1) as standard:
        mixed = [
            one.submit(go.wait),
            standard.submit(go.wait),
            Future(),
            concurrent.futures.Future(),
        ]
        waiter = Waiter(lambda: futures.wait(mixed))
        by_standard = Waiter(lambda: concurrent.futures.wait(mixed))
        completed = Waiter(lambda: set(futures.as_completed(mixed)))
        completed_by_standard = Waiter(lambda: set(concurrent.futures.as_completed(mixed)))
        go.set()
        for future in mixed[2:]:
            future.set_result(None)
        assert waiter.result().done == by_standard.result().done == set(mixed)
        assert completed.result() == completed_by_standard.result() == set(mixed)


def test_many_futures():
    count = 20_000
    with thread_pool(4) as pool:
        many = [pool.submit(int) for _ in range(count)]
        assert len(futures.wait(many, timeout=SOON).done) == count
        again = [pool.submit(int) for _ in range(count)]
        assert sum(1 for _ in futures.as_completed(again, timeout=SOON)) == count


def test_draining_by_first_completed():
    count = 500
    with thread_pool(4) as pool:
        pending, seen = {pool.submit(int) for _ in range(count)}, 0
        while pending:
            done, pending = futures.wait(pending, timeout=SOON, return_when=FIRST)
            assert done
            seen += len(done)
    assert seen == count


def test_waiting_leaves_nothing_in_the_futures():
    """A wait that has ended does not hold its futures, nor they it."""
    pending = Future()
    for _ in range(1000):
        futures.wait([pending, finished()], timeout=0, return_when=FIRST)
        next(futures.as_completed([pending, finished()]))
    assert len(pending._waiters) == 0
    watch = weakref.ref(pending)
    del pending
    gc.collect()
    assert watch() is None


# as_completed -----------------------------------------------------------------------------------


def test_as_completed_of_nothing():
    assert list(futures.as_completed([])) == []


def test_those_already_done_come_first():
    pending, done = Future(), {finished(), failed(), cancelled()}
    completed = futures.as_completed([pending, *done])
    assert {next(completed) for _ in done} == done
    pending.set_result(1)
    assert list(completed) == [pending]


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_is_that_of_completion(kind):
    five = [kind() for _ in range(5)]
    completed = futures.as_completed(five, timeout=60)
    waiter = Waiter(lambda: [next(completed) for _ in five])
    assert until(lambda: asleep(waiter.native_id))
    order = [five[place] for place in (3, 0, 4, 2, 1)]
    for future in order:
        future.set_result(None)
    assert waiter.result() == order


def test_as_completed_times_out():
    two = [finished(), Future(), Future()]
    completed = futures.as_completed(two, timeout=0.05)
    assert next(completed) is two[0]
    with pytest.raises(TimeoutError, match=r"^2 \(of 3\) futures unfinished$"):
        next(completed)
    assert list(completed) == []


def test_zero_timeout_still_gives_what_is_done():
    done = [finished(number) for number in range(10)]
    assert set(futures.as_completed(done, timeout=0)) == set(done)
    seen = []
    with pytest.raises(TimeoutError):
        for future in futures.as_completed([*done, Future()], timeout=0):
            seen.append(future)
    assert set(seen) == set(done)


def test_one_deadline_for_the_whole_iteration():
    """The time runs from the first next(), whatever is yielded meanwhile."""
    many = [Future() for _ in range(100)]
    stop = threading.Event()

    def settle():
        for future in many:
            if stop.wait(0.02):
                break
            future.set_result(None)

    settling = threading.Thread(target=settle)
    settling.start()
    with pytest.raises(TimeoutError):
        for _ in futures.as_completed(many, timeout=0.2):
            pass
    stop.set()
    settling.join()


def test_a_closed_iterator_lets_go():
    pending = [Future() for _ in range(3)]
    completed = futures.as_completed([finished(), *pending])
    next(completed)
    completed.close()
    assert all(len(future._waiters) == 0 for future in pending)
    assert list(completed) == []


def test_a_dropped_iterator_lets_go():
    pending = Future()
    completed = futures.as_completed([finished(), pending])
    next(completed)
    del completed
    gc.collect()
    assert len(pending._waiters) == 0
    pending.set_result(1)


def test_yielded_futures_can_be_freed():
    watches = []

    def make():
        future = finished(object())
        watches.append(weakref.ref(future))
        return future

    for future in futures.as_completed([make() for _ in range(10)]):
        del future
        gc.collect()
        assert sum(watch() is not None for watch in watches) < 10
        break
    gc.collect()
    assert all(watch() is None for watch in watches)


def test_freed_while_the_iteration_goes_on():
    futures_given = [finished() for _ in range(5)]
    watches = [weakref.ref(future) for future in futures_given]
    completed = futures.as_completed(futures_given)
    del futures_given
    for left in range(5, 0, -1):
        assert sum(watch() is not None for watch in watches) == left
        next(completed)
        gc.collect()
    assert next(completed, None) is None


def test_the_iteration_goes_on_while_others_settle():
    with thread_pool(2) as pool:
        numbers = [pool.submit(pow, number, 2) for number in range(200)]
        assert sorted(future.result() for future in futures.as_completed(numbers)) == [
            number * number for number in range(200)
        ]


def test_callbacks_have_no_part_in_it():
    """A callback that waits for the same futures does not stop those who wait."""
    one, two = Future(), Future()
    one.add_done_callback(lambda _: futures.wait([one, two], timeout=SOON))
    waiter = Waiter(lambda: futures.wait([one], timeout=SOON).done)
    settling = Waiter(lambda: one.set_result(1))
    assert waiter.result() == {one} and settling.is_alive()
    two.set_result(2)
    settling.result()


def test_chained_waits_in_many_threads():
    """Waiters that settle what others wait for: nobody is forgotten."""
    links = [[Future() for _ in range(3)] for _ in range(100)]

    def pass_on(current, following):
        futures.wait(current, timeout=SOON)
        for future in following:
            future.set_result(None)

    waiters = [Waiter(lambda pair=pair: pass_on(*pair)) for pair in itertools.pairwise(links)]
    for future in links[0]:
        future.set_result(None)
    assert futures.wait(links[-1], timeout=SOON).not_done == set()
    for waiter in waiters:
        waiter.result()


def test_wake_ups_are_not_lost():
    """Settling races with the beginning of the wait, thousands of times."""
    assert run_json(
        """
        import itertools
        kinds = itertools.cycle([
            lambda pair: futures.wait(pair).not_done == set(),
            lambda pair: pair[0].result() == pair[1].result() == 1,
            lambda pair: len(list(futures.as_completed(pair))) == 2,
            lambda pair: bool(futures.wait(pair, return_when=futures.FIRST_COMPLETED).done)])
        rounds = 8000
        def settle(pair):
            for future in pair:
                future.set_result(1)
        with thread_pool(2) as pool:
            good = 0
            for wait in itertools.islice(kinds, rounds):
                pair = futures.Future(), futures.Future()
                pool.submit(settle, pair)
                good += wait(pair)
        report(good == rounds)
    """
    )
