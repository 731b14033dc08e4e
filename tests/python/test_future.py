# SPDX-License-Identifier: MIT
"""A future by itself: its states, its callbacks, what it gives, and when it goes."""
import concurrent.futures
import gc
import logging
import re
import sys
import threading
import time
import weakref

import pytest
from support import SOON, futures, ours, run, run_json, thread_pool, until

Future = futures.Future


def in_state(state):
    """A future that came to a state in the regular way."""
    future = Future()
    if state == "cancelled":
        future.cancel()
    elif state == "cancelled and notified":
        future.cancel()
        future.set_running_or_notify_cancel()
    elif state != "pending":
        future.set_running_or_notify_cancel()
    if state == "finished":
        future.set_result(42)
    elif state == "failed":
        future.set_exception(OSError("no"))
    return future


STATES = ["pending", "running", "cancelled", "cancelled and notified", "finished", "failed"]


# States -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, cancelled, running, done",
    [
        ("pending", False, False, False),
        ("running", False, True, False),
        ("cancelled", True, False, True),
        ("cancelled and notified", True, False, True),
        ("finished", False, False, True),
        ("failed", False, False, True),
    ],
)
def test_what_each_state_says(state, cancelled, running, done):
    future = in_state(state)
    assert (future.cancelled(), future.running(), future.done()) == (cancelled, running, done)


@pytest.mark.parametrize(
    "state, name",
    [
        ("pending", "PENDING"),
        ("running", "RUNNING"),
        ("cancelled", "CANCELLED"),
        ("cancelled and notified", "CANCELLED_AND_NOTIFIED"),
        ("finished", "FINISHED"),
        ("failed", "FINISHED"),
    ],
)
def test_names_of_states(state, name):
    assert in_state(state)._state == name


@pytest.mark.parametrize(
    "state, can",
    [
        ("pending", True),
        ("running", False),
        ("cancelled", True),
        ("cancelled and notified", True),
        ("finished", False),
        ("failed", False),
    ],
)
def test_cancel(state, can):
    future = in_state(state)
    assert future.cancel() is can
    assert future.cancelled() is can


@pytest.mark.parametrize(
    "state, text",
    [
        ("pending", "state=pending"),
        ("running", "state=running"),
        ("cancelled", "state=cancelled"),
        ("cancelled and notified", "state=cancelled"),
        ("finished", "state=finished returned int"),
        ("failed", "state=finished raised OSError"),
    ],
)
def test_repr(state, text):
    assert re.fullmatch(rf"<Future at 0x[0-9a-f]+ {text}>", repr(in_state(state)))


def test_running_only_from_pending():
    assert Future().set_running_or_notify_cancel() is True
    cancelled = in_state("cancelled")
    assert cancelled.set_running_or_notify_cancel() is False
    assert cancelled._state == "CANCELLED_AND_NOTIFIED"


@pytest.mark.parametrize("state", ["running", "cancelled and notified", "finished", "failed"])
def test_running_from_elsewhere(state, caplog):
    future = in_state(state)
    with pytest.raises(RuntimeError, match="Future in unexpected state"):
        future.set_running_or_notify_cancel()
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * len(caplog.records)
    assert caplog.records and caplog.records[0].name == "concurrent.futures"


@pytest.mark.parametrize("state", ["cancelled", "cancelled and notified", "finished", "failed"])
def test_a_future_settles_once(state):
    future = in_state(state)
    before = repr(future)
    with pytest.raises(futures.InvalidStateError, match=future._state):
        future.set_result(1)
    with pytest.raises(futures.InvalidStateError, match=future._state):
        future.set_exception(KeyError())
    assert repr(future) == before


@pytest.mark.parametrize("state", ["pending", "running"])
def test_settled_by_hand(state):
    future = in_state(state)
    future.set_result("result")
    assert future.result(timeout=0) == "result" and future.exception() is None
    future = in_state(state)
    error = KeyError("key")
    future.set_exception(error)
    assert future.exception(timeout=0) is error


def test_it_has_the_type_of_the_standard():
    assert isinstance(Future(), concurrent.futures.Future)
    assert Future[int].__origin__ is Future
    assert futures.InvalidStateError is concurrent.futures._base.InvalidStateError


def test_attributes_and_subclasses():
    class Named(Future):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def result(self, timeout=None):
            return self.name, super().result(timeout)

    future = Named("f")
    future.set_result(1)
    future.note = "kept"
    assert (future.result(), future.note) == (("f", 1), "kept")
    assert futures.wait([future]).done == {future}


def test_futures_are_compared_by_identity():
    first, second = Future(), Future()
    assert first != second and first == first and len({first, second}) == 2


# Results ----------------------------------------------------------------------------------------


def test_the_same_exception_object_each_time():
    error = ValueError("once")
    future = Future()
    future.set_exception(error)
    for _ in range(3):
        with pytest.raises(ValueError) as caught:
            future.result()
        assert caught.value is error
    assert future.exception() is error


def test_the_same_result_object_each_time():
    value = ["mutable"]
    future = Future()
    future.set_result(value)
    assert future.result() is value and future.result(0) is value


@pytest.mark.parametrize("state", ["cancelled", "cancelled and notified"])
def test_result_of_a_cancelled_future(state):
    future = in_state(state)
    for get in (future.result, future.exception):
        with pytest.raises(futures.CancelledError):
            get(timeout=0)
        with pytest.raises(futures.CancelledError):
            get()


@pytest.mark.parametrize("state", ["pending", "running"])
@pytest.mark.parametrize("timeout", [0, -1, -1e9, 1e-9, 0.01, 0.0, True - 1])
def test_timeouts(state, timeout):
    future = in_state(state)
    for get in (future.result, future.exception):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            get(timeout=timeout)
        assert time.monotonic() - began < SOON


def test_a_timed_wait_waits():
    future = Future()
    began = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        future.result(timeout=0.1)
    assert time.monotonic() - began >= 0.1


def test_timeout_by_position_and_from_numbers():
    future = in_state("finished")
    assert future.result(1) == future.result(1.5) == future.result(timeout=None) == 42
    assert future.exception(1) is None


@pytest.mark.parametrize("timeout", ["1", object(), [1]])
def test_timeout_must_be_a_number(timeout):
    with pytest.raises(TypeError):
        Future().result(timeout=timeout)


def in_thread(function):
    """Call a function in a thread that waits; return what becomes of it."""
    outcome = []

    def call():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(type(error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize(
    "settle, seen",
    [
        (lambda future: future.set_result(7), 7),
        (lambda future: future.set_exception(KeyError()), KeyError),
        (lambda future: future.cancel(), futures.CancelledError),
    ],
)
def test_many_threads_wait_for_one_future(settle, seen):
    future = Future()
    waiting = [in_thread(future.result) for _ in range(8)]
    settle(future)
    for thread, outcome in waiting:
        thread.join(SOON)
        assert outcome == [seen]


def test_huge_timeouts_wait():
    future = Future()
    for timeout in (1e9, threading.TIMEOUT_MAX):
        waiting, outcome = in_thread(lambda: future.result(timeout))
        assert waiting.is_alive()
    future.set_result("now")
    waiting.join(SOON)
    assert outcome == ["now"]


# Callbacks --------------------------------------------------------------------------------------


def test_callbacks_run_in_order_with_the_future_alone():
    future, calls = Future(), []
    for number in range(5):
        future.add_done_callback(lambda *args, number=number: calls.append((number, args)))
    future.set_result(None)
    assert calls == [(number, (future,)) for number in range(5)]


@pytest.mark.parametrize("state", ["cancelled", "cancelled and notified", "finished", "failed"])
def test_a_late_callback_runs_at_once(state):
    future, calls = in_state(state), []
    future.add_done_callback(calls.append)
    assert calls == [future]


def test_a_function_added_twice_is_called_twice():
    future, calls = Future(), []
    future.add_done_callback(calls.append)
    future.add_done_callback(calls.append)
    future.cancel()
    assert calls == [future, future]


def test_cancelling_runs_callbacks_once_in_the_thread_of_cancel():
    future, calls = Future(), []
    future.add_done_callback(lambda _: calls.append(threading.current_thread()))
    assert future.cancel() and future.cancel()
    future.set_running_or_notify_cancel()
    assert calls == [threading.current_thread()]


def test_a_callback_sees_the_final_state():
    future, seen = Future(), []
    future.add_done_callback(lambda f: seen.append((f.done(), f.result(timeout=0), f.cancel())))
    future.set_result("x")
    assert seen == [(True, "x", False)]


def test_a_callback_added_by_a_callback_runs_nested():
    future, calls = Future(), []

    def first(future):
        calls.append("first begins")
        future.add_done_callback(lambda _: calls.append("nested"))
        calls.append("first ends")

    future.add_done_callback(first)
    future.add_done_callback(lambda _: calls.append("second"))
    future.set_result(None)
    assert calls == ["first begins", "nested", "first ends", "second"]


def test_waiters_wake_although_a_callback_blocks():
    future, go = Future(), threading.Event()
    future.add_done_callback(lambda _: go.wait(SOON))
    waiting, outcome = in_thread(future.result)
    settling, _ = in_thread(lambda: future.set_result("before callbacks"))
    waiting.join(SOON)
    assert outcome == ["before callbacks"] and settling.is_alive()
    go.set()
    settling.join(SOON)


@pytest.mark.parametrize("late", [False, True])
def test_an_exception_in_a_callback_is_logged(caplog, late):
    future, calls = Future(), []

    def bad(_):
        raise ValueError("from the callback")

    if late:
        future.set_result(None)
    future.add_done_callback(bad)
    future.add_done_callback(calls.append)
    if not late:
        future.set_result(None)
    assert calls == [future]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("concurrent.futures", logging.ERROR)
    assert record.getMessage() == f"exception calling callback for {future!r}"
    assert record.exc_info[0] is ValueError


@ours
def test_a_callback_that_exits_leaves_its_worker():
    """With the standard module the worker dies, the pool still counts it, and this hangs."""
    assert (
        run_json(
            """
        calls = []
        def leave(_):
            calls.append("leave")
            raise SystemExit("from a callback")
        with thread_pool(1) as pool:
            for _ in range(3):
                go = threading.Event()
                future = pool.submit(go.wait)
                future.add_done_callback(leave)
                future.add_done_callback(lambda _: calls.append("next"))
                go.set()
                future.result()
            after = pool.submit(lambda: "still there").result(timeout=SOON)
        report([after, calls.count("leave")])
    """
        )
        == ["still there", 3]
    )


@ours
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
def test_other_callbacks_run_although_one_raises_a_base_exception(kind):
    assert (
        run_json(
            """
        calls = []
        def leave(_):
            raise getattr(__builtins__, sys.argv[1])()
        with thread_pool(1) as pool:
            go = threading.Event()
            future = pool.submit(go.wait)
            future.add_done_callback(leave)
            future.add_done_callback(lambda _: calls.append("after it"))
            go.set()
        report(calls)
    """,
            kind,
        )
        == ["after it"]
    )


def test_callbacks_of_a_thread_pool_run_in_the_worker():
    with thread_pool(1, thread_name_prefix="worker") as pool:
        go, names = threading.Event(), []
        future = pool.submit(go.wait)
        future.add_done_callback(lambda _: names.append(threading.current_thread().name))
        go.set()
    assert names == ["worker_0"]


def test_a_callback_may_use_the_pool():
    with thread_pool(1) as pool:
        go, later = threading.Event(), Future()
        future = pool.submit(go.wait)
        future.add_done_callback(lambda _: pool.submit(later.set_result, "submitted by a callback"))
        go.set()
        assert later.result(SOON) == "submitted by a callback"


# Cancelling and those who wait ------------------------------------------------------------------


@ours
def test_a_cancelled_future_is_seen_by_wait():
    future = in_state("cancelled")
    assert futures.wait([future], timeout=0).done == {future}
    other = Future()
    waiting, outcome = in_thread(lambda: futures.wait([other], timeout=SOON).done)
    other.cancel()
    waiting.join(SOON)
    assert outcome == [{other}]


@ours
@pytest.mark.parametrize("when", [futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION])
def test_a_cancelled_future_is_seen_by_each_kind_of_wait(when):
    cancelled, done = in_state("cancelled"), in_state("finished")
    assert futures.wait([cancelled, done], timeout=SOON, return_when=when).done == {cancelled, done}


@ours
def test_a_cancelled_future_is_seen_by_as_completed():
    futures_given = [in_state("cancelled"), Future(), in_state("finished")]
    waiting, outcome = in_thread(lambda: set(futures.as_completed(futures_given, timeout=SOON)))
    futures_given[1].cancel()
    waiting.join(SOON)
    assert outcome == [set(futures_given)]


@ours
def test_futures_that_a_shutdown_cancels_are_seen():
    go = threading.Event()
    pool = thread_pool(1)
    running = pool.submit(go.wait)
    assert until(running.running)
    pending = [pool.submit(int) for _ in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert futures.wait(pending, timeout=SOON).not_done == set()
    assert all(future.cancelled() for future in pending)
    go.set()
    pool.shutdown()


def test_a_cancelled_task_never_runs():
    go, ran = threading.Event(), []
    with thread_pool(1) as pool:
        blocker = pool.submit(go.wait)
        assert until(blocker.running)
        tasks = [pool.submit(ran.append, number) for number in range(10)]
        assert all(task.cancel() for task in tasks[::2])
        go.set()
    assert ran == [1, 3, 5, 7, 9]


def test_cancel_races_with_the_start():
    """Each future is either cancelled and its task never ran, or the task ran."""
    rounds, ran = 5000, set()
    with thread_pool(2) as pool:
        tasks = []
        for number in range(rounds):
            future = pool.submit(ran.add, number)
            tasks.append((future, future.cancel() if number % 3 else False))
    for number, (future, cancelled) in enumerate(tasks):
        assert future.done() and future.cancelled() is cancelled
        assert (number in ran) is not cancelled


# Garbage ----------------------------------------------------------------------------------------


class Witness:
    """Something that weak references can watch."""


@pytest.mark.parametrize(
    "settle",
    [
        lambda future, witness: future.set_result((future, witness)),
        lambda future, witness: future.set_exception(OSError(future, witness)),
        lambda future, witness: future.add_done_callback(lambda _: (future, witness)),
        lambda future, witness: setattr(future, "attribute", (future, witness)),
    ],
)
def test_reference_cycles_through_a_future_are_collected(settle):
    future, witness = Future(), Witness()
    watch = weakref.ref(witness)
    settle(future, witness)
    del future, witness
    gc.collect()
    assert watch() is None


def test_raising_leaves_no_cycle():
    """The traceback of the exception that result() raises does not hold the future's frame."""
    gc.collect()
    gc.disable()
    try:
        future = Future()
        future.set_exception(ValueError())
        watch = weakref.ref(future)
        try:
            future.result()
        except ValueError:
            pass
        del future
        assert watch() is None
    finally:
        gc.enable()


def test_callbacks_are_dropped_with_the_future():
    future, witness = Future(), Witness()
    watch = weakref.ref(witness)
    future.add_done_callback(lambda _, witness=witness: None)
    del future, witness
    gc.collect()
    assert watch() is None


def test_settled_futures_keep_the_reference_count_of_the_result():
    value = object()
    before = sys.getrefcount(value)
    for _ in range(100):
        future = Future()
        future.set_result(value)
        assert future.result() is value
    del future
    assert sys.getrefcount(value) == before


def test_a_future_dropped_before_its_task_ran():
    """Nobody holds the future: the task runs all the same."""
    ran = []
    with thread_pool(1) as pool:
        for number in range(100):
            pool.submit(ran.append, number)
    assert ran == list(range(100))


def test_futures_cannot_be_pickled():
    assert (
        "cannot pickle"
        in run(
            """
        import pickle
        try:
            pickle.dumps(futures.Future())
        except TypeError as error:
            say(error)
    """
        ).out
    )
