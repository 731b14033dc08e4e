# SPDX-License-Identifier: MIT
"""wait() again and again for the first of many: nothing lost, nothing twice, nothing kept.

With that many futures a wait for the first of them goes its own way (sleeper.c), so all that
test_wait.py shows of few is shown here of MANY, and what only a series of waits can get wrong.
"""
import concurrent.futures
import gc
import random
import threading
import time
import weakref

import pytest
from support import SOON, asleep, futures, ours, run_json, thread_pool, until
from test_wait import ALL, ERROR, FIRST, Future, Waiter

MANY = 100
STANDARD_FUTURE = concurrent.futures.Future


def bare(count=MANY, kind=Future):
    return [kind() for _ in range(count)]


def first(pending, timeout=SOON):
    return futures.wait(pending, timeout=timeout, return_when=FIRST)


def sleeping(function):
    """A thread that sleeps in the function."""
    waiter = Waiter(function)
    assert until(lambda: asleep(waiter.native_id))
    return waiter


# One wait ---------------------------------------------------------------------------------------

def test_the_one_that_is_done_ends_the_wait():
    many = bare()
    waiter = sleeping(lambda: first(many))
    many[70].set_result(1)
    assert waiter.result() == ({many[70]}, set(many) - {many[70]})


@pytest.mark.parametrize("end", [
    lambda future: future.set_exception(OSError()),
    lambda future: (future.cancel(), future.set_running_or_notify_cancel()),
])
def test_every_end_ends_it(end):
    many = bare()
    waiter = sleeping(lambda: first(many))
    end(many[3])
    assert waiter.result() == ({many[3]}, set(many) - {many[3]})


def test_results_are_new_sets():
    given = set(bare())
    copy = set(given)
    waiter = sleeping(lambda: first(given))
    next(iter(given)).set_result(1)
    done, pending = waiter.result()
    assert type(done) is type(pending) is set and pending is not given and given == copy
    pending.clear()
    done.clear()
    assert given == copy


@pytest.mark.parametrize("timeout", [0, -1, 1e-6, 0.05])
def test_not_in_time(timeout):
    many = bare()
    for _ in range(3):
        assert first(many, timeout) == (set(), set(many))


def test_several_ends_at_once():
    """More than one of them before the sleeper is back: all are in the answer, or in the next."""
    for count in (2, 15, 16, 17, 40):
        many = bare()
        waiter = sleeping(lambda: first(many))
        for future in many[:count]:
            future.set_result(1)
        done, pending = waiter.result()
        assert done and not done & pending and done | pending == set(many)
        assert done <= set(many[:count])
        assert first(pending | done, 0).done == set(many[:count])


def test_what_was_done_before_is_in_the_first_answer():
    many = bare()
    first(many, 0.001)
    for future in many[::10]:
        future.set_result(1)
    assert first(many, 0).done == first(many).done == set(many[::10])


def test_a_slow_callback_delays_nobody():
    many, go = bare(), threading.Event()
    many[5].add_done_callback(lambda _: go.wait(3 * SOON))
    waiter = sleeping(lambda: first(many, None))
    settling = Waiter(lambda: many[5].set_result(1))
    assert waiter.result().done == {many[5]} and settling.is_alive()
    go.set()
    settling.result()


def test_a_callback_may_wait_for_the_same():
    many, seen = bare(), []
    many[5].add_done_callback(lambda _: seen.append(first(many).done))
    waiter = sleeping(lambda: first(many))
    many[5].set_result(1)
    assert waiter.result().done == {many[5]} and seen == [{many[5]}]


def test_the_set_may_change_while_somebody_waits():
    given = set(bare())
    before = set(given)
    waiter = sleeping(lambda: first(given))
    one = given.pop()
    given.clear()
    given.update(bare())
    next(iter(given)).set_result(0)
    assert waiter.is_alive()
    one.set_result(1)
    assert waiter.result() == ({one}, before - {one})


def test_futures_of_other_packages_among_them():
    many = bare() + bare(10, STANDARD_FUTURE)
    waiter = sleeping(lambda: first(many))
    many[-1].set_result(1)
    assert waiter.result() == ({many[-1]}, set(many[:-1]))


@pytest.mark.parametrize("rule", [ALL, ERROR, FIRST])
def test_several_sleep_for_the_same(rule):
    """The second finds that somebody sleeps for them already."""
    many = bare()
    waiters = [sleeping(lambda: futures.wait(many[start:], timeout=SOON, return_when=when))
               for start, when in ((0, FIRST), (1, rule), (2, FIRST))]
    for future in reversed(many):
        future.set_exception(KeyError())
    for waiter in waiters:
        assert many[-1] in waiter.result().done
    assert waiters[0].outcome.not_done | waiters[0].outcome.done == set(many)


def test_more_sleepers_than_places():
    crowds = [bare(40) for _ in range(80)]
    waiters = [Waiter(lambda crowd=crowd: first(crowd)) for crowd in crowds]
    assert until(lambda: all(asleep(waiter.native_id) for waiter in waiters[-3:]))
    for crowd in crowds:
        crowd[7].set_result(1)
    for waiter, crowd in zip(waiters, crowds):
        assert waiter.result() == ({crowd[7]}, set(crowd) - {crowd[7]})


# Again and again --------------------------------------------------------------------------------

def test_drained_one_by_one():
    many = bare(300)
    turn, order, pending, seen = threading.Semaphore(0), many[:], set(many), []
    random.Random(1).shuffle(order)

    def settle():
        for future in order:
            assert turn.acquire(timeout=SOON)
            future.set_result(1)

    settling = Waiter(settle)
    while pending:
        turn.release()
        done, pending = first(pending)
        assert len(done) == 1
        seen += done
    assert seen == order
    assert settling.result() is None


def test_drained_from_a_pool():
    count = 2000
    with thread_pool(4) as pool:
        pending, seen = {pool.submit(pow, number, 2) for number in range(count)}, []
        while pending:
            done, pending = first(pending)
            assert done
            seen += [future.result() for future in done]
    assert sorted(seen) == [number * number for number in range(count)]


def test_a_window_of_many():
    """Never more than so many at once: for each that is done another one is submitted."""
    count, window = 3000, 150
    numbers, seen = iter(range(count)), []
    with thread_pool(2) as pool:
        pending = {pool.submit(abs, next(numbers)) for _ in range(window)}
        while pending:
            done, pending = first(pending)
            seen += [future.result() for future in done]
            for number in [next(numbers, None) for _ in done]:
                if number is not None:
                    pending.add(pool.submit(abs, number))
    assert sorted(seen) == list(range(count))


def test_same_size_other_futures():
    many, others = bare(), bare()
    pending = set(many)
    first(pending, 0.001)
    pending.clear()
    pending.update(others)
    waiter = sleeping(lambda: first(pending))
    many[0].set_result(0)
    assert waiter.is_alive()
    others[0].set_result(1)
    assert waiter.result() == ({others[0]}, set(others[1:]))


def test_one_taken_out_does_not_wake():
    pending = set(bare())
    first(pending, 0.001)
    out = pending.pop()
    waiter = sleeping(lambda: first(pending))
    out.set_result(1)
    assert waiter.is_alive()
    one = next(iter(pending))
    one.set_result(1)
    assert waiter.result() == ({one}, pending - {one})


def test_two_threads_drain_overlapping_sets():
    many, order = bare(400), []

    def drain(mine):
        pending, seen = set(mine), []
        while pending:
            done, pending = first(pending)
            assert done
            seen += done
        return len(seen) == len(mine) and set(seen) == set(mine)

    waiters = [Waiter(lambda mine=mine: drain(mine)) for mine in (many[:300], many[100:])]
    order[:] = many
    random.Random(2).shuffle(order)
    for number, future in enumerate(order):
        future.set_result(1)
        if number % 10 == 0:
            time.sleep(0)
    assert [waiter.result() for waiter in waiters] == [True, True]


@pytest.mark.parametrize("seed", range(20))
def test_as_the_standard_module_does(seed):
    """The same random programs on its futures and its wait: the same answers."""
    chance = random.Random(seed)
    pairs, pending = [], set()  # numbers
    for _ in range(60):
        for _ in range(chance.choice((0, 0, 1, 3, 60))):
            pairs.append((Future(), STANDARD_FUTURE()))
            pending.add(len(pairs) - 1)
        for number in chance.sample(sorted(pending), min(len(pending), chance.choice((0, 0, 2)))):
            pending.discard(number)  # not waited for any more; perhaps later again
        if pairs and chance.random() < 0.3:
            pending.update(chance.sample(range(len(pairs)), min(3, len(pairs))))
        for number in chance.sample(range(len(pairs)), min(len(pairs), chance.choice((0, 1, 5)))):
            settle(pairs[number], chance.choice("rec"))
        rule = chance.choice((FIRST, FIRST, FIRST, ALL, ERROR))
        timeout = chance.choice((0, 0, 1e-4))
        collect = chance.choice((set, list, frozenset))
        answers = [
            wait(collect([pairs[number][side] for number in pending]), timeout, rule)
            for side, wait in enumerate((futures.wait, concurrent.futures.wait))]
        done, not_done = ({number for number in pending if pairs[number][1] in part}
                          for part in answers[1])
        assert answers[0] == ({pairs[number][0] for number in done},
                              {pairs[number][0] for number in not_done})
        pending = not_done


def settle(pair, how):
    for future in pair:
        if future.done():
            continue
        if how == "c":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif how == "e":
            future.set_exception(ValueError())
        else:
            future.set_result(how)


def test_wake_ups_are_not_lost_among_many():
    """An end that races with the beginning of the wait, thousands of times."""
    assert run_json("""
        many, rounds = [futures.Future() for _ in range(60)], 5000
        kept, good = many[:-1], 0
        with thread_pool(2) as pool:
            for _ in range(rounds):
                late = futures.Future()
                pool.submit(late.set_result, 1)
                done, pending = futures.wait([late, *kept], 30, futures.FIRST_COMPLETED)
                good += done == {late} and len(pending) == len(kept)
        report(good == rounds)
    """)


# What stays -------------------------------------------------------------------------------------

class Value:
    """A result that can be watched."""


def test_drained_futures_and_results_are_freed():
    watches = []

    def work():
        value = Value()
        watches.append(weakref.ref(value))
        return value

    with thread_pool(2) as pool:
        pending = {pool.submit(work) for _ in range(MANY)}
        watches += map(weakref.ref, pending)
        while pending:
            done, pending = first(pending)
        del done, pending
    assert until(lambda: gc.collect() is not None and not any(watch() for watch in watches))
    assert len(watches) == 2 * MANY


def test_a_drain_given_up_keeps_nothing():
    many = bare()
    watches = [weakref.ref(future) for future in many]
    for _ in range(3):
        done, pending = first(many, 0.001)
    many.pop().set_result(Value())
    done, pending = first(pending)
    assert len(done) == 1
    del many, done, pending
    gc.collect()
    assert not any(watch() for watch in watches)


def test_the_values_of_what_was_done_go_at_once():
    many = bare()
    first(many, 0.001)
    watch = weakref.ref(many[0])
    many.pop(0).set_result(1)
    assert first(many, 0).not_done == set(many)
    assert watch() is None


# Where it is called -----------------------------------------------------------------------------

def test_in_a_task_of_the_same_pool():
    with thread_pool(2) as pool:
        def drain():
            pending, seen = {pool.submit(int) for _ in range(MANY)}, 0
            while pending:
                done, pending = first(pending)
                seen += len(done)
            return seen
        assert pool.submit(drain).result(SOON) == MANY


@ours
def test_in_a_task_that_could_never_go_on():
    """One pool's only worker waits for a task that waits for any of that pool's."""
    with thread_pool(1) as one, thread_pool(1) as other:
        go, tasks = threading.Event(), []
        tasks += [other.submit(lambda: go.wait(SOON) and waiting.result())]
        tasks += [other.submit(int) for _ in range(MANY)]
        waiting = one.submit(first, tasks, None)
        go.set()
        with pytest.raises(futures.DeadlockError):
            tasks[0].result(SOON)


def test_interrupted():
    outcome = run_json("""
        many = [futures.Future() for _ in range(100)]
        with Interrupt() as interrupt:
            futures.wait(many, return_when=futures.FIRST_COMPLETED)
        many[3].set_result(1)
        done = futures.wait(many, return_when=futures.FIRST_COMPLETED).done
        report([interrupt.seconds < 2, done == {many[3]}])
    """)
    assert outcome == [True, True]


def test_a_signal_handler_may_wait_for_the_same():
    outcome = run_json("""
        import signal, threading, time
        many, seen = [futures.Future() for _ in range(100)], []
        def handle(*_):
            seen.append(futures.wait(many, 0.01, futures.FIRST_COMPLETED).done)
            many[9].set_result(1)
            seen.append(futures.wait(many, 5, futures.FIRST_COMPLETED).done)
        signal.signal(signal.SIGUSR1, handle)
        main = threading.get_native_id()
        def send():
            until(lambda: asleep(main))
            os.kill(os.getpid(), signal.SIGUSR1)
        threading.Thread(target=send, daemon=True).start()
        done = futures.wait(many, 20, futures.FIRST_COMPLETED).done
        report([done == {many[9]}, seen == [set(), {many[9]}]])
    """)
    assert outcome == [True, True]


@ours
def test_after_a_fork():
    """The parent's futures can never be done in the child; its own can."""
    outcome = run_json("""
        import threading
        FIRST = futures.FIRST_COMPLETED
        fresh, known, slept_for = [[futures.Future() for _ in range(100)] for _ in range(3)]
        futures.wait(known, 0.001, FIRST)
        threading.Thread(target=futures.wait, args=(slept_for, 5, FIRST), daemon=True).start()
        time.sleep(0.05)

        def in_the_child():
            for lost in fresh, known, slept_for:
                try:
                    futures.wait(lost, 10, FIRST)
                    return b"waited"
                except RuntimeError:
                    pass
            with thread_pool(2) as pool:
                pending = {pool.submit(int) for _ in range(100)}
                while pending:
                    done, pending = futures.wait(pending, 10, FIRST)
            return b"good"

        read, write = os.pipe()
        if os.fork() == 0:
            try:
                os.write(write, in_the_child())
            finally:
                os._exit(0)
        os.close(write)
        os.wait()
        report(os.read(read, 10).decode())
    """)
    assert outcome == "good"


def test_the_interpreter_ends_while_a_thread_sleeps():
    outcome = run_json("""
        import threading
        many = [futures.Future() for _ in range(100)]
        sleeper = threading.Thread(target=futures.wait, args=(many, None, futures.FIRST_COMPLETED),
                                   daemon=True)
        sleeper.start()
        until(lambda: asleep(sleeper.native_id))
        report(True)
    """)
    assert outcome
