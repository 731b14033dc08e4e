# SPDX-License-Identifier: MIT
"""What a type checker says about a program that uses the package; it is checked and never run.

Lines that must not pass carry the name of the error: that there is none is an error as well.
"""
import asyncio
import concurrent.futures
from collections.abc import Iterator
from typing import Any, assert_type

import cfutures


def half(number: int, *, exact: bool = True) -> float:
    return number / 2


def futures_are_generic(pool: cfutures.Executor) -> None:
    future = pool.submit(half, 4, exact=False)
    assert_type(future, cfutures.Future[float])
    assert_type(future.result(timeout=1.5), float)
    assert_type(future.exception(), BaseException | None)
    future.add_done_callback(lambda done: done.stop(grace=0.5))
    pool.submit(half, "four")  # type: ignore[arg-type]
    pool.submit(half, 4, exactly=True)  # type: ignore[call-arg]


def several(pool: cfutures.Executor, other: concurrent.futures.Future[str]) -> None:
    futures = [pool.submit(half, number) for number in range(10)]
    assert_type(cfutures.as_completed(futures, timeout=3), Iterator[cfutures.Future[float]])
    done, pending = cfutures.wait(futures, return_when=cfutures.FIRST_EXCEPTION)
    assert_type(done, set[cfutures.Future[float]])
    for future in pending:
        future.stop()
    for theirs in cfutures.wait([other]).not_done:
        assert_type(theirs.result(), str)
        theirs.stop()  # type: ignore[attr-defined]


def maps(pool: cfutures.Executor) -> None:
    results = pool.map(half, range(10), timeout=3, chunksize=2, buffersize=4)
    assert_type(results, Iterator[float])
    pool.map(half, range(10), buffer=4)  # type: ignore[call-arg]


def executors() -> None:
    with cfutures.ThreadPoolExecutor(
        4, "name", print, ("hello",), max_pending=10, when_full="run", inherit_context=True
    ) as threads:
        assert_type(threads, cfutures.ThreadPoolExecutor)
        assert_type(threads.using(priority=1).submit(half, 3), cfutures.Future[float])
    cfutures.ThreadPoolExecutor(when_full="drop")  # type: ignore[arg-type]
    cfutures.ThreadPoolExecutor(on_crash="retry")  # type: ignore[call-arg]

    with cfutures.ProcessPoolExecutor(on_crash="retry", max_retries=2, run_limit=10) as processes:
        assert_type(processes, cfutures.ProcessPoolExecutor)
        processes.using(run_limit=0.5).map(half, [1, 2])
        processes.shutdown(cancel_futures=True, timeout=5)
        processes.terminate_workers()
        processes.kill_workers()
    cfutures.ProcessPoolExecutor(on_crash="ignore")  # type: ignore[arg-type]


def failures(future: cfutures.Future[Any]) -> str | None:
    try:
        future.result()
    except cfutures.WorkerDied as death:
        assert_type(death.signal, int | None)
        assert_type(death.out_of_memory, bool)
        return death.traceback
    except (cfutures.TaskStopped, cfutures.QueueFull, cfutures.DeadlockError):
        pass
    except (cfutures.CancelledError, cfutures.TimeoutError, cfutures.BrokenExecutor):
        pass
    return None


def takes_standard(pool: concurrent.futures.ThreadPoolExecutor) -> None:
    pass


async def in_the_place_of_the_standard(pool: cfutures.ThreadPoolExecutor) -> None:
    takes_standard(pool)
    standard: concurrent.futures.Future[float] = pool.submit(half, 4)
    assert_type(await asyncio.wrap_future(standard), float)
    assert_type(await asyncio.get_running_loop().run_in_executor(pool, half, 4), float)
    assert_type(cfutures.cpu_count(), int)
    cfutures.install()
