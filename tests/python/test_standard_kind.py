# SPDX-License-Identifier: MIT
"""What cfutures has is of the standard's kind: taken where that is demanded, mixed with it, derived
from, copied and pickled like it."""
import asyncio
import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread
import copy
import functools
import gc
import inspect
import pickle
import threading
import typing
import weakref

import pytest
from support import SOON, STANDARD, futures, ours, process_pool, run, thread_pool

standard = concurrent.futures


# Kinds ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["Future", "Executor", "ThreadPoolExecutor",
                                  "ProcessPoolExecutor"])
def test_classes_derive_from_the_standard_ones(name):
    assert issubclass(getattr(futures, name), getattr(standard, name))
    assert issubclass(futures.ThreadPoolExecutor, futures.Executor)
    assert issubclass(futures.ProcessPoolExecutor, futures.Executor)


def test_objects_are_instances():
    with thread_pool(1) as threads, process_pool(1, method="fork") as processes:
        assert isinstance(threads, standard.ThreadPoolExecutor)
        assert isinstance(processes, standard.ProcessPoolExecutor)
        for executor in threads, processes:
            assert isinstance(executor, standard.Executor)
            future = executor.submit(int)
            assert isinstance(future, standard.Future) and type(future) is futures.Future
            future.result()


@pytest.mark.parametrize("name", [
    "CancelledError", "TimeoutError", "InvalidStateError", "BrokenExecutor", "FIRST_COMPLETED",
    "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_exceptions_and_constants_are_the_standard_objects(name):
    assert getattr(futures, name) is getattr(standard, name)


def test_broken_pools_are_the_standard_objects():
    assert futures.thread.BrokenThreadPool is standard.thread.BrokenThreadPool
    assert futures.process.BrokenProcessPool is standard.process.BrokenProcessPool


def test_all_names_of_the_standard_module_are_there():
    assert set(standard.__all__) <= set(futures.__all__)
    assert set(futures.__all__) <= set(dir(futures))
    for name in futures.__all__:
        getattr(futures, name)
    namespace = {}
    exec(f"from {futures.__name__} import *", namespace)
    assert set(futures.__all__) <= set(namespace)


@pytest.mark.parametrize("path", [
    "Future.result", "Future.exception", "Future.cancel", "Future.add_done_callback",
    "Future.set_result", "Future.set_exception", "Future.set_running_or_notify_cancel",
    "Executor.submit", "Executor.map", "Executor.shutdown", "ThreadPoolExecutor.submit",
    "ThreadPoolExecutor.map", "ThreadPoolExecutor.shutdown", "ThreadPoolExecutor",
    "ProcessPoolExecutor.submit", "ProcessPoolExecutor.map", "ProcessPoolExecutor.shutdown",
    "ProcessPoolExecutor", "wait", "as_completed"])
def test_signatures_begin_with_the_standard_ones(path):
    """Also of what is written in C: for inspect, editors and mock's autospec."""
    def parameters(package):
        signature = inspect.signature(functools.reduce(getattr, path.split("."), package))
        return [(parameter.name, parameter.kind, parameter.default)
                for parameter in signature.parameters.values() if parameter.name != "self"]
    theirs, own = parameters(standard), parameters(futures)
    positional = [parameter for parameter in theirs
                  if parameter[1] != inspect.Parameter.KEYWORD_ONLY]
    assert own[:len(positional)] == positional
    assert set(theirs) <= set(own)


def test_docstrings():
    for thing in [futures, futures.wait, futures.as_completed, futures.Future, futures.Executor,
                  futures.ThreadPoolExecutor, futures.ProcessPoolExecutor]:
        assert inspect.getdoc(thing), thing
        members = vars(thing) if inspect.isclass(thing) else {}
        for name in members:
            if not name.startswith("_"):
                assert inspect.getdoc(getattr(thing, name)), f"{thing}.{name}"


def test_where_things_say_they_come_from():
    """Tracebacks, pickles and help() use these names, so they must lead there."""
    for name in "Future", "Executor", "ThreadPoolExecutor", "ProcessPoolExecutor", "wait":
        thing = getattr(futures, name)
        assert thing.__name__ == thing.__qualname__ == name
        assert pickle.loads(pickle.dumps(thing)) is thing


# asyncio --------------------------------------------------------------------------------------

def test_asyncio_takes_a_future():
    async def main():
        future = futures.Future()
        wrapped = asyncio.wrap_future(future)
        threading.Timer(0.01, future.set_result, [5]).start()
        assert await wrapped == 5
        future = futures.Future()
        wrapped = asyncio.wrap_future(future)
        future.set_exception(OSError("no"))
        with pytest.raises(OSError):
            await wrapped
    asyncio.run(main())


def test_cancelling_goes_both_ways():
    async def main():
        future = futures.Future()
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        await asyncio.sleep(0)
        assert future.cancelled()
        future = futures.Future()
        wrapped = asyncio.wrap_future(future)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
    asyncio.run(main())


@pytest.mark.parametrize("make", [thread_pool, functools.partial(process_pool, method="fork")],
                         ids=["threads", "processes"])
def test_run_in_executor(make):
    async def main():
        loop = asyncio.get_running_loop()
        with make(2) as executor:
            calls = [loop.run_in_executor(executor, pow, 2, n) for n in range(20)]
            assert await asyncio.gather(*calls) == [2 ** n for n in range(20)]
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(executor, divmod, 1, 0)
    asyncio.run(main())


def test_set_default_executor():
    async def main():
        loop = asyncio.get_running_loop()
        executor = thread_pool(1, "default")
        loop.set_default_executor(executor)
        assert await loop.run_in_executor(None, thread_name) == "default_0"
        assert (await asyncio.to_thread(thread_name)) == "default_0"
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError):
            executor.submit(int)
    asyncio.run(main())


def thread_name():
    return threading.current_thread().name


# The standard's wait and as_completed, and both kinds in one call ------------------------------

@pytest.fixture(params=["wait of the standard", "wait under test"])
def package(request):
    return standard if request.param == "wait of the standard" else futures


@pytest.fixture(params=["own futures", "both kinds"])
def four(request):
    """Four pending futures, of our kind or every other one of the standard's."""
    kinds = [futures.Future, futures.Future if request.param == "own futures" else standard.Future]
    return [kind() for kind in kinds * 2]


def later(function, *arguments):
    """Call something as soon as somebody waits, or nearly."""
    threading.Timer(0.05, function, arguments).start()


def cancel(future):
    future.cancel()
    future.set_running_or_notify_cancel()


def test_wait_for_all(package, four):
    four[0].set_result(0)
    later(lambda: (four[2].set_exception(OSError()), cancel(four[3]),
                   later(four[1].set_result, 1)))
    outcome = package.wait(four, SOON)
    assert outcome == (set(four), set()) and outcome.done == set(four)
    assert package.wait(four) == outcome


def test_wait_for_all_with_a_limit(package, four):
    four[0].set_result(0)
    cancel(four[1])
    assert package.wait(four, 0.01) == (set(four[:2]), set(four[2:]))
    assert package.wait(four, 0) == (set(four[:2]), set(four[2:]))


def test_wait_for_the_first(package, four):
    later(four[3].set_result, 3)
    done, pending = package.wait(four, SOON, futures.FIRST_COMPLETED)
    assert (done, pending) == ({four[3]}, set(four[:3]))


@pytest.mark.parametrize("number", range(4))
def test_wait_for_the_first_error(package, four, number):
    others = [future for future in four if future is not four[number]]
    others[0].set_result(0)
    later(lambda: (others[1].set_result(0), four[number].set_exception(OSError())))
    done, pending = package.wait(four, SOON, futures.FIRST_EXCEPTION)
    assert (done, pending) == (set(four) - {others[2]}, {others[2]})


def test_as_completed(package, four):
    four[1].set_result(None)
    iterator = package.as_completed(four, SOON)
    assert next(iterator) is four[1]
    later(four[2].set_result, None)
    assert next(iterator) is four[2]
    later(four[3].set_exception, OSError())
    assert next(iterator) is four[3]
    later(cancel, four[0])
    assert list(iterator) == [four[0]]


def test_as_completed_with_a_limit(package, four):
    four[0].set_result(None)
    iterator = package.as_completed(four, 0.05)
    assert next(iterator) is four[0]
    with pytest.raises(TimeoutError, match=r"3 \(of 4\) futures unfinished"):
        next(iterator)


def test_waiting_leaves_nothing_behind(package, four):
    package.wait(four, 0.01)
    iterator = package.as_completed(four)
    four[0].set_result(None)
    next(iterator)
    iterator.close()
    for future in four:
        assert list(future._waiters) == []


def test_many_waits_at_once(package, four):
    """Several threads wait, each its own way, for the same futures."""
    outcomes = {}
    waits = {when: functools.partial(package.wait, four, SOON, when)
             for when in (futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION, futures.ALL_COMPLETED)}
    waits["as_completed"] = lambda: list(package.as_completed(four, SOON))
    waits["standard"] = lambda: list(standard.as_completed(four, SOON))
    threads = [threading.Thread(target=lambda name=name: outcomes.update({name: waits[name]()}))
               for name in waits]
    for thread in threads:
        thread.start()
    for future in four:
        future.set_result(None)
    for thread in threads:
        thread.join()
    assert outcomes["as_completed"] and set(outcomes["as_completed"]) == set(four)
    assert set(outcomes["standard"]) == set(four)
    assert outcomes["FIRST_COMPLETED"].done
    assert outcomes["FIRST_EXCEPTION"].done == outcomes["ALL_COMPLETED"].done == set(four)


def test_pools_of_both_kinds_in_one_call(package):
    with (thread_pool(2) as own, standard.ThreadPoolExecutor(2) as theirs,
          process_pool(1, method="fork") as processes):
        numbers = {executor.submit(pow, 2, n): 2 ** n
                   for n in range(30) for executor in (own, theirs, processes)}
        for future in package.as_completed(numbers, SOON):
            assert future.result() == numbers[future]
        assert package.wait(numbers).done == set(numbers)


def test_futures_that_finish_while_a_wait_begins(package):
    with thread_pool(2) as own, standard.ThreadPoolExecutor(2) as theirs:
        for number in range(200):
            calls = {executor.submit(pow, 2, n) for n in range(10)
                     for executor in (own, theirs if number % 2 else own)}
            assert package.wait(calls, SOON).done == calls
            calls = {own.submit(pow, 2, n) for n in range(10)}
            assert set(package.as_completed(calls, SOON)) == calls


def test_a_cancelled_future_of_either_kind_in_a_pool(package):
    """The worker that meets it tells those who wait."""
    for pool in thread_pool(1), standard.ThreadPoolExecutor(1):
        gate = threading.Event()
        with pool:
            pool.submit(gate.wait)
            future = pool.submit(int)
            assert future.cancel()
            later(gate.set)
            assert package.wait([future], SOON).done == {future}


# Subclasses -----------------------------------------------------------------------------------

class Inline(futures.Executor):
    """The least executor: submit() alone."""

    def submit(self, fn, /, *args, **kwargs):
        future = futures.Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def test_an_executor_of_ones_own():
    with Inline() as executor:
        assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert list(executor.map(str, range(5), timeout=SOON, chunksize=2)) == list("01234")
        assert executor.submit(pow, 2, 2).result() == 4
        assert isinstance(executor.submit(int, "x").exception(), ValueError)
        assert executor.shutdown() is None


def test_an_executor_without_submit():
    class Nothing(futures.Executor):
        pass
    with pytest.raises(NotImplementedError):
        Nothing().submit(int)


class Named(futures.Future):
    """Attributes, an own __init__ and an overridden method."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def set_result(self, result):
        super().set_result((self.name, result))


def test_a_future_of_ones_own():
    future = Named("first")
    future.set_running_or_notify_cancel()
    calls = []
    future.add_done_callback(calls.append)
    future.set_result(5)
    assert future.result() == ("first", 5) and calls == [future]
    assert futures.wait([future]).done == standard.wait([future]).done == {future}
    assert list(futures.as_completed([future])) == [future]
    future.label = "any attribute"
    assert "Named" in repr(future)


def test_a_future_of_ones_own_with_another_result():
    class Ready(futures.Future):
        def result(self, timeout=None):
            return "overridden"
    assert Ready().result() == "overridden"


def test_a_future_whose_class_forgets_its_base():
    """The standard's __init__ called by hand, as old code does, for ours and for the standard's."""
    class Old(futures.Future):
        def __init__(self):
            standard.Future.__init__(self)
    future = Old()
    assert future._state == "PENDING"
    future.set_result(1)
    assert future.result() == 1


def test_several_bases():
    class Labelled:
        def __init__(self, *args, label=None, **kwargs):
            super().__init__(*args, **kwargs)
            self.label = label

    class Pool(Labelled, futures.ThreadPoolExecutor):
        pass

    class Future(Labelled, futures.Future, typing.Generic[typing.TypeVar("T")]):
        pass

    with Pool(1, label="here") as pool:
        assert pool.label == "here" and pool.submit(pow, 2, 3).result() == 8
    future = Future(label="there")
    future.set_result(1)
    assert (future.label, future.result()) == ("there", 1)


class Counting(futures.ThreadPoolExecutor):
    """A submit of one's own, which map has to go through."""

    def __init__(self, limit, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.slots = threading.BoundedSemaphore(limit)
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.slots.acquire()
        self.submitted += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self.slots.release())
        return future


def test_a_thread_pool_with_a_submit_of_its_own():
    with Counting(3, 2, thread_name_prefix="counted") as pool:
        assert list(pool.map(pow, range(50), [2] * 50)) == [n * n for n in range(50)]
        assert pool.submitted == 50
        assert pool.submit(thread_name).result().startswith("counted_")


class CountingProcesses(futures.ProcessPoolExecutor):
    submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.submitted += 1
        return super().submit(fn, *args, **kwargs)


def test_a_process_pool_with_a_submit_of_its_own():
    import multiprocessing
    with CountingProcesses(1, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(pow, range(9), [2] * 9)) == [n * n for n in range(9)]
        assert pool.submitted == 9
        pool.submitted = 0
        assert list(pool.map(pow, range(9), [2] * 9, chunksize=3)) == [n * n for n in range(9)]
        assert pool.submitted in (3, 9)  # whoever makes the chunks


def test_submit_replaced_on_one_pool():
    """As mock and decorators do it."""
    with thread_pool(1) as pool:
        original, calls = pool.submit, []
        pool.submit = lambda *args, **kwargs: (calls.append(args), original(*args, **kwargs))[1]
        assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert calls == [(pow, 2, 3), (pow, 3, 2)]


def test_a_shutdown_of_ones_own_is_what_with_calls():
    calls = []

    class Pool(futures.ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            calls.append((wait, cancel_futures))
            super().shutdown(wait, cancel_futures=cancel_futures)

    with Pool(1) as pool:
        pool.submit(int)
    assert calls == [(True, False)]


def test_a_pool_whose_init_is_called_late():
    """The attributes of a subclass are there before the base's __init__ has run."""
    class Pool(futures.ThreadPoolExecutor):
        def __init__(self):
            self.early = "early"
            futures.ThreadPoolExecutor.__init__(self, max_workers=1)
    with Pool() as pool:
        assert pool.submit(getattr, pool, "early").result() == "early"


def test_keywords_of_a_call_are_the_calls():
    def keywords(**kwargs):
        return kwargs
    with thread_pool(1) as pool:
        every = dict(fn=1, self=2, executor=3, args=4, timeout=5, priority=6)
        assert pool.submit(keywords, **every).result() == every
        with pytest.raises(TypeError):
            pool.submit()
        with pytest.raises(TypeError):
            pool.submit(fn=int)


@pytest.mark.parametrize("make", [thread_pool, functools.partial(process_pool, method="fork")],
                         ids=["threads", "processes"])
def test_a_call_of_map_that_raises_stop_iteration(make):
    """It is an error, and not the end of the results."""
    with make(1) as pool:
        results = pool.map(next, [iter([1]), iter([]), iter([2])])
        assert next(results) == 1
        with pytest.raises(RuntimeError, match="generator raised StopIteration") as caught:
            next(results)
        assert isinstance(caught.value.__cause__, StopIteration)
        assert list(results) == []


# Copies, pickles, references --------------------------------------------------------------------

def test_nothing_that_runs_can_be_pickled_or_copied():
    with thread_pool(1) as pool:
        for thing in futures.Future(), pool, pool.submit(int):
            with pytest.raises(TypeError):
                pickle.dumps(thing)
            with pytest.raises(TypeError):
                copy.deepcopy(thing)
    with process_pool(1, method="fork") as pool:
        with pytest.raises(TypeError):
            pickle.dumps(pool)


@ours
def test_a_shallow_copy_is_refused_too():
    """The standard's copy shares a lock and a list with the original; that is nobody's wish."""
    with pytest.raises(TypeError):
        copy.copy(futures.Future())


def test_weak_references():
    future = futures.Future()
    called = []
    reference = weakref.ref(future, called.append)
    assert reference() is future and weakref.proxy(future).done() is False
    keys = weakref.WeakKeyDictionary({future: 1})
    assert keys[future] == 1
    del future
    gc.collect()
    assert called == [reference] and not keys
    pool = thread_pool(1)
    reference = weakref.ref(pool)
    pool.shutdown()
    del pool
    gc.collect()
    assert reference() is None


def test_equality_and_hash_are_by_identity():
    first, second = futures.Future(), futures.Future()
    assert first == first != second and len({first, second, first}) == 2
    first.set_result(1), second.set_result(1)
    assert first != second


def test_generic_aliases():
    alias = futures.Future[int]
    assert typing.get_origin(alias) is futures.Future and typing.get_args(alias) == (int,)
    future = alias()
    assert type(future) is futures.Future
    assert futures.thread._WorkItem[int]

    class Typed(futures.Future[int]):
        pass
    assert Typed().done() is False

    def hinted(future: futures.Future[int]) -> "futures.Future[str]": ...
    hints = typing.get_type_hints(hinted, {"futures": futures})
    assert hints["return"] == futures.Future[str]


def test_attributes_of_ones_own():
    """As `future.url = url` does, and pools that carry settings."""
    future = futures.Future()
    future.url = "http://..."
    assert future.url == "http://..." and vars(future)["url"]
    with thread_pool(1) as pool:
        pool.anything = 1
        submitted = pool.submit(int)
        submitted.mark = 2
        assert (pool.anything, submitted.mark) == (1, 2)


def test_a_class_can_be_patched():
    """As tracing and monitoring libraries do."""
    run("""
        calls = []
        def patched(original):
            def submit(self, fn, *args, **kwargs):
                calls.append(fn)
                return original(self, fn, *args, **kwargs)
            return submit
        futures.ThreadPoolExecutor.submit = patched(futures.ThreadPoolExecutor.submit)
        original = futures.Future.set_result
        with thread_pool(1) as pool:
            assert pool.submit(pow, 2, 3).result() == 8
            assert list(pool.map(pow, [2], [2])) == [4]
        assert calls == [pow, pow], calls
    """)


def test_the_standard_executor_can_be_handed_our_futures():
    """A call of one kind's pool that waits for a future of the other's."""
    with thread_pool(1) as own, standard.ThreadPoolExecutor(1) as theirs:
        first = own.submit(pow, 2, 3)
        second = theirs.submit(first.result)
        third = own.submit(second.result)
        assert third.result(SOON) == 8


@pytest.mark.skipif(STANDARD, reason="it is about both kinds")
def test_a_standard_future_is_no_future_of_ours():
    assert not isinstance(standard.Future(), futures.Future)
