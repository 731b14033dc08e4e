# SPDX-License-Identifier: MIT
"""The process pool from inside: what travels, batches of calls, workers and their ends."""
import array
import copyreg
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import weakref

import pytest
from support import LIMIT, SOON, STANDARD, until

if STANDARD:
    pytest.skip("of cfutures alone", allow_module_level=True)

import cfutures
from cfutures import _engine, process


@pytest.fixture(scope="module")
def pool(nothing_stays):  # so that it goes before that looks
    with cfutures.ProcessPoolExecutor(2) as pool:
        yield pool


def same(value):
    return value


def kind(value):
    return type(value).__name__


# What travels ---------------------------------------------------------------------------------

class Buffer:
    """Hands its bytes out beside the pickle, as arrays do."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Buffer, (pickle.PickleBuffer(self.data),)


def describe_buffer(buffer):
    return type(buffer.data).__name__, len(buffer.data), memoryview(buffer.data).readonly


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 70_000, 300_000, 5 << 20])
@pytest.mark.parametrize("make, name, readonly", [(bytes, "bytes", True),
                                                  (bytearray, "bytearray", False)])
def test_buffers_beside_the_pickle(pool, make, name, readonly, size):
    future = pool.submit(describe_buffer, Buffer(make(size)))
    assert future.result(LIMIT) == (name, size, readonly)
    assert pool.submit(same, Buffer(make(size))).result(LIMIT).data == make(size)


def many_buffers(*buffers):
    return [bytes(buffer.data) for buffer in buffers]


def test_more_buffers_than_expected(pool):
    """Each size needs its own padding."""
    data = [bytes([number]) * (2048 + 31 * number) for number in range(20)]
    assert pool.submit(many_buffers, *map(Buffer, data)).result(LIMIT) == data


@pytest.mark.parametrize("make", [bytes, bytearray])
def test_large_bytes_are_what_they_were(pool, make):
    """They leave the pickle, and nobody sees it."""
    value = make(os.urandom(1 << 20))
    assert pool.submit(kind, value).result(LIMIT) == make.__name__
    for back in (pool.submit(same, value).result(LIMIT),
                 pool.submit(same, (1, value)).result(LIMIT)[1],
                 pool.submit(same, value=value).result(LIMIT)):
        assert type(back) is make and back == value


class Bytes(bytes):
    pass


def test_large_bytes_of_a_class_of_their_own(pool):
    value = Bytes(1 << 20)
    assert type(pool.submit(same, value).result(LIMIT)) is Bytes


class Registered:
    pass


def test_a_reducer_of_copyreg_counts_from_then_on(pool):
    assert kind_of_sent(pool, Registered()) == "Registered"
    copyreg.pickle(Registered, lambda value: (int, (5,)))
    try:
        assert kind_of_sent(pool, Registered()) == "int"
        copyreg.pickle(Registered, lambda value: (str, ("x",)))
        assert kind_of_sent(pool, Registered()) == "str"
    finally:
        del copyreg.dispatch_table[Registered]


def kind_of_sent(pool, value):
    return pool.submit(kind, value).result(LIMIT)


class Mine:
    pass


def test_a_reducer_of_multiprocessing_goes_before_copyreg(pool):
    copyreg.pickle(Mine, lambda value: (int, (5,)))
    multiprocessing.reduction.register(Mine, lambda value: (str, ("x",)))
    try:
        assert kind_of_sent(pool, Mine()) == "str"
    finally:
        del copyreg.dispatch_table[Mine]
        del multiprocessing.reduction.ForkingPickler._extra_reducers[Mine]


def send_on(connection, text):
    connection.send(text)


def shout(sock):
    sock.sendall(b"here")


def test_connections_and_sockets_travel(pool):
    mine, theirs = multiprocessing.Pipe()
    with mine, theirs:
        pool.submit(send_on, theirs, "there").result(LIMIT)
        assert mine.recv() == "there"
    mine, theirs = socket.socketpair()
    with mine, theirs:
        pool.submit(shout, theirs).result(LIMIT)
        assert mine.recv(10) == b"here"


class Submits:
    """Uses the pickler while it is in use."""

    def __init__(self, pool):
        self.pool = pool

    def __reduce__(self):
        return same, (self.pool.submit(same, 7).result(LIMIT),)


def test_pickling_may_submit(pool):
    assert pool.submit(same, [Submits(pool), Submits(pool)]).result(LIMIT) == [7, 7]


class Refuses:
    def __reduce__(self):
        raise ValueError("not me")


def test_after_a_pickling_that_failed(pool):
    """Nothing of it is left in the pickler."""
    shared = ["shared"]
    for _ in range(3):
        assert str(pool.submit(same, (shared, Refuses())).exception(LIMIT)) == "not me"
        assert pool.submit(same, (shared, shared)).result(LIMIT) == (shared, shared)


# Who reads a reply ----------------------------------------------------------------------------

unpickled = []


class Slow:
    """Lets go of the GIL while it is unpickled here."""

    def __reduce__(self):
        return make_slow, (os.getpid(),)


def make_slow(pid):
    unpickled.append(None)
    barrier.wait(LIMIT)
    return Slow()


def give_slow():
    return Slow()


def test_two_readers_see_one_object(pool):
    """Both unpickle at once; the first to end wins."""
    global barrier
    barrier = threading.Barrier(2)
    unpickled.clear()
    future = pool.submit(give_slow)
    results = []
    readers = [threading.Thread(target=lambda: results.append(future.result(LIMIT)))
               for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(LIMIT)
    assert len(unpickled) == 2
    assert len(results) == 2 and results[0] is results[1] is future.result()


def test_a_future_keeps_nothing_of_the_pool_when_it_is_read():
    with cfutures.ProcessPoolExecutor(1) as pool:
        futures = [pool.submit(same, 5) for _ in range(10)]
        before = sys.getrefcount(pool._life.crew)
        assert [future.result(LIMIT) for future in futures] == [5] * 10
        after = sys.getrefcount(pool._life.crew)
    assert after == before - 10


def test_an_error_says_what_could_not_be_read(pool):
    error = pool.submit(raise_unreadable).exception(LIMIT)
    assert type(error) is process.BrokenProcessPool
    assert "Unreadable" in str(error.__cause__) and "could not be unpickled" in str(error)


class Unreadable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def raise_unreadable():
    raise Unreadable(1, 2)


# Batches --------------------------------------------------------------------------------------

def pair(value, other):
    return value, other


def test_plain_and_other_arguments_in_batches(pool):
    shared = []
    assert list(pool.map(append_one, [shared] * 500)) == [[1]] * 500
    assert shared == []
    assert list(pool.map(pair, range(500), "ab" * 250)) == list(zip(range(500), "ab" * 250))


def append_one(values):
    values.append(1)
    return values


def test_results_of_a_batch_share_nothing(pool):
    results = list(pool.map(the_same_list, range(500)))
    assert len({id(result) for result in results}) == 500


_list = []


def the_same_list(number):
    return _list


def picky(number):
    if number % 100 == 50:
        raise KeyError(number)
    return number


def test_batches_report_each_failure_alone():
    """All the elements around the one that fails are run and arrive."""
    with cfutures.ProcessPoolExecutor(1) as pool:
        future = pool._life.started().submit_batch(picky, [(number,) for number in range(200)])
        time_ns, results, are_packed, failures = future.result(LIMIT)
        assert time_ns > 0 and not are_packed
        assert sorted(failures) == [50, 150]
        assert isinstance(_engine.unpack(failures[50]), KeyError)
        assert [value for value in results if value is not None] == [
            number for number in range(200) if number % 100 != 50]


def test_tiny_calls_go_many_at_a_time(pool, monkeypatch):
    sizes = []
    submit = process._Batches._submit

    def note(self, calls):
        sizes.append(len(calls))
        return submit(self, calls)

    monkeypatch.setattr(process._Batches, "_submit", note)
    assert list(pool.map(same, range(20_000))) == list(range(20_000))
    assert sum(sizes) == 20_000 and sizes[0] == 1 and max(sizes) > 50


def nap(number):
    time.sleep(0.01)
    return number


def test_long_calls_go_alone(pool, monkeypatch):
    sizes = []
    submit = process._Batches._submit

    def note(self, calls):
        sizes.append(len(calls))
        return submit(self, calls)

    monkeypatch.setattr(process._Batches, "_submit", note)
    assert list(pool.map(nap, range(30))) == list(range(30))
    assert set(sizes) == {1}


@pytest.mark.parametrize("options", [{"on_crash": "replace"}, {"max_pending": 1000}])
def test_calls_that_must_stay_apart(options, monkeypatch):
    monkeypatch.delattr(process._Batches, "_submit")
    with cfutures.ProcessPoolExecutor(2, **options) as pool:
        assert list(pool.map(same, range(100))) == list(range(100))


def test_an_argument_that_cannot_be_pickled_in_a_batch(pool):
    values = [*range(300), Refuses(), *range(3)]
    results = pool.map(kind, values)
    for _ in range(300):
        assert next(results) == "int"
    with pytest.raises(ValueError, match="not me"):
        next(results)
    assert list(results) == []


def stop(number):
    raise StopIteration


@pytest.mark.parametrize("chunksize", [1, 3])
def test_stop_iteration_of_a_call_ends_no_map(pool, chunksize):
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(pool.map(stop, range(10), chunksize=chunksize))


def test_a_shutdown_waits_for_calls_that_are_not_submitted_yet():
    with cfutures.ProcessPoolExecutor(1) as pool:
        results = pool.map(nap, range(40))
    assert not pool._life.feeders
    assert list(results) == list(range(40))


def test_a_shutdown_that_cancels_reaches_them_too():
    pool = cfutures.ProcessPoolExecutor(1)
    results = pool.map(nap, range(1000))
    assert next(results) == 0
    pool.shutdown(cancel_futures=True)
    with pytest.raises(cfutures.CancelledError):
        list(results)


def test_a_callback_may_shut_down_while_a_map_is_fed():
    pool = cfutures.ProcessPoolExecutor(1)
    results = pool.map(nap, range(200))
    ended = threading.Event()

    def shut_down(future):
        pool.shutdown()
        ended.set()

    pool.submit(same, 1).add_done_callback(shut_down)
    assert ended.wait(LIMIT)
    assert list(results) == list(range(200))


def nap_and_list(number):
    time.sleep(0.01)
    return [number]


def test_a_map_that_is_dropped_midway_is_cancelled():
    """At once, without a help of the collector."""
    gc.disable()
    try:
        with cfutures.ProcessPoolExecutor(1) as pool:
            for result in pool.map(nap_and_list, range(10_000)):
                assert result == [0]
                break
            del result
            assert until(lambda: len(pool._pending_work_items) == 0, SOON)
            assert not pool._life.feeders
    finally:
        gc.enable()


class Leaves:
    def __reduce__(self):
        sys.exit(3)


def test_an_exit_in_pickling_is_not_lost(pool):
    """Wherever the element is pickled, in the call of map() or later."""
    results = pool.map(kind, [*range(2000), Leaves()])
    got = []
    with pytest.raises(SystemExit):
        for result in results:
            got.append(result)
    assert set(got) <= {"int"} and len(got) <= 2000
    with pytest.raises(SystemExit):
        list(pool.map(kind, [Leaves()]))


def test_stopped_workers_leave_nothing_behind():
    with cfutures.ProcessPoolExecutor(1, run_limit=0.02) as pool:
        pool.submit(same, 1).result(LIMIT)
        before = descriptors()
        for _ in range(5):
            assert type(pool.submit(time.sleep, LIMIT).exception(LIMIT)) is cfutures.TaskStopped
        assert descriptors() <= before + 5 and len(pool._processes) <= 2


def test_a_dropped_map_goes_on(tmp_path):
    with cfutures.ProcessPoolExecutor(1) as pool:
        pool.map(touch, [str(tmp_path / str(number)) for number in range(50)])
        gc.collect()
    assert len(list(tmp_path.iterdir())) == 50


def touch(path):
    open(path, "x").close()


def test_a_map_in_a_forked_child_is_over(pool):
    """Even if its lock was held by another thread at the fork."""
    results = pool.map(nap, range(500))
    assert next(results) == 0
    with results._batches._lock:
        child = os.fork()
        if child == 0:
            try:
                threading.Thread(target=results.close).start()
                for thread in threading.enumerate():
                    if thread is not threading.current_thread():
                        thread.join(LIMIT)
                os._exit(len(list(results)))
            finally:
                os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    results.close()


# Workers --------------------------------------------------------------------------------------

def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_a_forked_worker_has_no_descriptors_of_other_pools():
    context = multiprocessing.get_context("fork")
    with cfutures.ProcessPoolExecutor(1, context) as first:
        before = first.submit(descriptors).result(LIMIT)
        with cfutures.ProcessPoolExecutor(4, context) as second:
            list(second.map(nap, range(20)))
            with cfutures.ProcessPoolExecutor(1, context) as third:
                # multiprocessing's own pipes: two a process
                assert third.submit(descriptors).result(LIMIT) <= before + 2 * 6


def test_the_end_of_a_replaced_worker_is_known():
    with cfutures.ProcessPoolExecutor(1, on_crash="replace") as pool:
        for code in (0, 3, 255):
            error = pool.submit(os._exit, code).exception(LIMIT)
            assert (error.exitcode, error.signal) == (code, None)
        error = pool.submit(kill_self, signal.SIGKILL).exception(LIMIT)
        assert (error.exitcode, error.signal) == (None, signal.SIGKILL)
        assert len(pool._processes) <= 2


def kill_self(number):
    os.kill(os.getpid(), number)


def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_calls_find_the_signals_as_the_program_has_them():
    """Also in a worker that the engine's own thread has started."""
    with cfutures.ProcessPoolExecutor(1, on_crash="replace") as pool:
        assert pool.submit(blocked).result(LIMIT) == blocked()
        pool.submit(os._exit, 1).exception(LIMIT)
        assert pool.submit(blocked).result(LIMIT) == blocked()


def descend(depth):
    """Through C at each step."""
    return 0 if depth == 0 else max((0,), key=lambda unused: descend(depth - 1))


def descend_far():
    sys.setrecursionlimit(20_000)
    return descend(4_000)


def test_a_replaced_worker_has_a_stack_to_work_with():
    """It is forked on a thread of the engine.  Newer Pythons bound such depths themselves."""
    with cfutures.ProcessPoolExecutor(1, on_crash="replace") as pool:
        pool.submit(os._exit, 1).exception(LIMIT)
        error = pool.submit(descend_far).exception(LIMIT)
        assert error is None or type(error) is RecursionError


def test_a_signal_handler_may_end_an_idle_worker():
    with cfutures.ProcessPoolExecutor(1, on_crash="replace") as pool:
        pid = pool.submit(set_handler).result(LIMIT)
        process_of_it = pool._processes[pid]
        os.kill(pid, signal.SIGUSR1)
        process_of_it.join(SOON)
        assert process_of_it.exitcode == 7
        assert pool.submit(same, 1).result(LIMIT) == 1


def set_handler():
    signal.signal(signal.SIGUSR1, lambda *unused: sys.exit(7))
    return os.getpid()


def test_an_idle_worker_does_not_mind_an_interrupt(pool):
    pids = set(pool.map(pid_after, range(8)))
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        assert until(lambda: has_no_pending_signal(pid), SOON)
    assert pool.submit(same, 1).result(LIMIT) == 1
    assert set(pool.map(pid_after, range(8))) == pids


def has_no_pending_signal(pid):
    with open(f"/proc/{pid}/status") as status:
        return all(int(line.split()[1], 16) == 0 for line in status if "Pnd:" in line)


def pid_after(number):
    time.sleep(0.01)
    return os.getpid()


# Lives ----------------------------------------------------------------------------------------

def test_an_executor_that_is_dropped_leaves_nothing():
    pool = cfutures.ProcessPoolExecutor(1)
    future = pool.submit(nap, 1)
    life, gone = pool._life, weakref.ref(pool)
    del pool
    assert gone() is None
    assert future.result(LIMIT) == 1
    assert until(lambda: life not in process._Life.living, SOON)


def test_a_pool_that_was_not_used_has_nothing():
    pool = cfutures.ProcessPoolExecutor(1)
    assert pool._life.pool is None and pool._processes == {}
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(same, 1)


def test_unfinished_calls_are_counted(pool):
    assert len(pool._pending_work_items) == 0
    futures = [pool.submit(nap, number) for number in range(10)]
    assert 1 <= len(pool._pending_work_items) <= 10
    cfutures.wait(futures, LIMIT)
    assert until(lambda: len(pool._pending_work_items) == 0, SOON)


def test_arrays_of_the_standard_library(pool):
    value = array.array("d", range(100_000))
    assert pool.submit(same, value).result(LIMIT) == value


# Refusals ---------------------------------------------------------------------------------------

def test_killing_the_workers_wakes_a_map_that_waits_for_room():
    pool = cfutures.ProcessPoolExecutor(1, max_pending=1)
    errors = []

    def read():
        try:
            list(pool.map(time.sleep, [1000] * 100, chunksize=2))
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: len(pool._pending_work_items) >= 2)  # one runs, one fills the room
    killer = threading.Thread(target=pool.kill_workers, daemon=True)
    killer.start()
    killer.join(LIMIT)
    reader.join(LIMIT)
    assert not killer.is_alive() and not reader.is_alive() and errors


def test_a_worker_that_cannot_be_started_refuses_no_call_that_another_makes(monkeypatch):
    start = process._Crew.start

    def start_one(self, channel, number):
        if number > 0:
            raise OSError(11, "try again")
        return start(self, channel, number)

    monkeypatch.setattr(process._Crew, "start", start_one)
    context = multiprocessing.get_context("forkserver")
    with cfutures.ProcessPoolExecutor(3, mp_context=context) as pool:
        calls = [pool.submit(same, n) for n in range(5)]
        assert [call.result(LIMIT) for call in calls] == list(range(5))
