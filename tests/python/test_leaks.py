# SPDX-License-Identifier: MIT
"""Nothing is kept: not a reference to an argument, a result or an error once it has been given, not
an object of a future or a pool that is gone, and no memory after loops of everything.

Loops run in programs of their own, so that what other tests leave is not counted.
"""
import pytest
from support import STANDARD, ours, run_json

CURED = pytest.mark.skipif(STANDARD, reason="not with the standard module")

# Counting what a loop leaves --------------------------------------------------------------------

COUNTING = """
import gc

def settled(pool):
    '''Wait until the workers have let go of what they had.'''
    if pool is not None:
        for _ in range(8):
            pool.submit(int).result()

def grown(loop, rounds, pool=None):
    '''How many objects and blocks there are more after `rounds` turns. Caches fill now and then, a
    leak grows each time: so the least of some counts.'''
    def count():
        for _ in range(rounds):
            loop()
        settled(pool)
        gc.collect()
        return len(gc.get_objects()), sys.getallocatedblocks()
    counts = [count() for _ in range(6)]
    return [min(now[i] - then[i] for then, now in zip(counts, counts[1:])) for i in range(2)]

def grown_memory(loop, rounds):
    '''How many bytes more are resident after the second half of the rounds than after the first.'''
    for _ in range(rounds):
        loop()
    gc.collect()
    before = resident()
    for _ in range(rounds):
        loop()
    gc.collect()
    return resident() - before
"""

THREAD_LOOPS = {
    "results": "pool.submit(str, 12345).result()",
    "errors": "pool.submit(int, 'x').exception()",
    "raised": """
try:
    pool.submit(int, 'x').result()
except ValueError:
    pass""",
    "names": "pool.submit(dict, a=1, b=[2]).result()",
    "map": "list(pool.map(str, range(20)))",
    "map closed": "next(it := pool.map(str, range(20))); it.close()",
    "map unread": "pool.map(str, range(20))",
    "map buffered": "list(pool.map(str, range(20), **BUFFERED))",
    "wait": "futures.wait([pool.submit(str, n) for n in range(20)])",
    "wait that times out": "futures.wait([futures.Future(), pool.submit(int)], timeout=0)",
    "first completed": "futures.wait([pool.submit(str, n) for n in range(20)], "
    "return_when='FIRST_COMPLETED')",
    "as_completed": "list(futures.as_completed([pool.submit(str, n) for n in range(20)]))",
    "as_completed closed": "next(futures.as_completed([futures.Future(), pool.submit(int)]))",
    "callbacks": "pool.submit(str, 1).add_done_callback(lambda f: f.result())",
    "failing callbacks": "pool.submit(str, 1).add_done_callback(lambda f: 1 / 0)",
    "cancelled": "[pool.submit(int) for _ in range(20)][-1].cancel()",
    "by hand": "f = futures.Future(); f.add_done_callback(print_nothing); f.set_result([f])",
    "repr": "repr(pool.submit(int)), repr(futures.Future())",
    "timeouts": """
try:
    futures.Future().result(timeout=0)
except TimeoutError:
    pass""",
    "mixed": "futures.wait([pool.submit(int), standard_pool.submit(int)])",
    "dropped": "futures.Future(); pool.submit(int)",
    "pools": "thread_pool(2).submit(int).result()",
    "pools with all": """
with thread_pool(2, initializer=int, thread_name_prefix='leak') as own:
    list(own.map(str, range(5)))""",
}


@pytest.mark.parametrize("name", THREAD_LOOPS)
def test_loops_with_threads(name):
    lines = "".join(f"    {line}\n" for line in THREAD_LOOPS[name].strip().splitlines())
    rounds = 20 if "pools" in name else 100
    objects, blocks = run_json(
        f"""{COUNTING}
import concurrent.futures, logging
logging.disable()
standard_pool = concurrent.futures.ThreadPoolExecutor(1)
BUFFERED = dict(buffersize=3) if not STANDARD else dict()
def print_nothing(_):
    pass
def loop():
{lines}
pool = thread_pool(2)
report(grown(loop, {rounds}, pool))
pool.shutdown()
"""
    )
    assert objects < rounds / 2 and blocks < rounds / 2, (objects, blocks)


PROCESS_LOOPS = {
    "results": "pool.submit(str, 12345).result()",
    "errors": "pool.submit(int, 'x').exception()",
    "what cannot be pickled": "pool.submit(lambda: 1).exception()",
    "map": "list(pool.map(str, range(20)))",
    "map in chunks": "list(pool.map(str, range(20), chunksize=6))",
    "map closed": "next(it := pool.map(str, range(20))); it.close()",
    "wait": "futures.wait([pool.submit(str, n) for n in range(20)])",
    "large": "pool.submit(bytes, bytes(200_000)).result()",
    "callbacks": "pool.submit(str, 1).add_done_callback(lambda f: f.result())",
    "cancelled": "[pool.submit(int) for _ in range(20)][-1].cancel()",
}


@ours
@pytest.mark.parametrize("name", PROCESS_LOOPS)
def test_loops_with_processes(name):
    objects, blocks = run_json(
        f"""{COUNTING}
def loop():
    {PROCESS_LOOPS[name]}
if __name__ == "__main__":
    pool = process_pool(2, method="fork")
    report(grown(loop, 100, pool))
    pool.shutdown()
"""
    )
    assert objects < 50 and blocks < 60, (objects, blocks)


@ours
def test_memory_of_a_long_run_of_threads():
    """Two million calls: what is resident stays."""
    assert (
        run_json(
            f"""{COUNTING}
pool = thread_pool(2)
def loop():
    for future in [pool.submit(int) for _ in range(1000)]:
        future.result()
    list(pool.map(abs, range(1000)))
report(grown_memory(loop, 250))
pool.shutdown()
"""
        )
        < 2 << 20
    )


@ours
def test_memory_of_a_long_run_of_processes():
    """In the parent and in the worker."""
    parent, worker = run_json(
        f"""{COUNTING}
def worker_resident(_):
    return resident()
if __name__ == "__main__":
    with process_pool(1, method="fork") as pool:
        def loop():
            for future in [pool.submit(str, "x" * 1000) for _ in range(500)]:
                future.result()
            list(pool.map(abs, range(500)))
        first = pool.submit(worker_resident, 0).result()
        for _ in range(25):
            loop()
        before = pool.submit(worker_resident, 0).result()
        parent = grown_memory(loop, 25)
        report([parent, pool.submit(worker_resident, 0).result() - before])
"""
    )
    assert parent < 2 << 20 and worker < 2 << 20


@ours
def test_size_of_a_future():
    """Pending and finished: the standard's take 1,900 and 1,700 bytes."""
    pending, finished = run_json(
        f"""{COUNTING}
def each(make):
    gc.collect()
    before = resident()
    held = [make() for _ in range(200_000)]
    return (resident() - before) / len(held)
go = threading.Event()
pool = thread_pool(1)
pool.submit(go.wait)
report([each(lambda: pool.submit(int)), (go.set(), each(futures.Future))[1]])
pool.shutdown()
"""
    )
    assert pending <= 400 and finished <= 400


# References -------------------------------------------------------------------------------------

WITNESS = """
import gc, weakref

class Witness:
    pass

def watched():
    witness = Witness()
    watches.append(weakref.ref(witness))
    return witness

def gone():
    return until(lambda: all(watch() is None for watch in watches))

watches = []
"""


@pytest.mark.parametrize(
    "use",
    [
        "pool.submit(id, watched()).result()",
        "pool.submit(dict, key=watched()).result()",
        "pool.submit(lambda: watched()).result()",
        "futures.wait([pool.submit(watched)])",
        "for f in futures.as_completed([pool.submit(watched) for _ in range(5)]): pass\ndel f",
        "for result in pool.map(lambda _: watched(), range(5)): pass\ndel result",
        "list(pool.map(id, [watched() for _ in range(5)]))",
        "pool.submit(watched).add_done_callback(lambda f, w=watched(): None)",
        "pool.submit(int).add_done_callback(watched().__eq__)",
        "f = futures.Future(); f.set_result(watched()); f.result(); del f",
        "f = futures.Future(); f.attribute = watched(); del f",
        "f = futures.Future(); f.add_done_callback(watched().__eq__); f.cancel(); del f",
        pytest.param(
            "kept = futures.Future(); kept.add_done_callback(watched().__eq__); "
            "kept.set_result(1)",
            marks=CURED,
        ),
        "kept = pool.submit(id, watched()); kept.result()",
        "kept = pool.submit(int, watched()); kept.exception().__traceback__ = None",
        "go = threading.Event(); pool.submit(go.wait); kept = pool.submit(id, watched()); "
        "until(lambda: kept.cancel()); go.set(); pool.submit(int).result()",
    ],
)
def test_references_are_dropped_at_once(use):
    """Without the cycle collector: reference counts alone free what was used."""
    assert (
        run_json(
            f"""{WITNESS}
gc.disable()
with thread_pool(1) as pool:
    exec({use!r})
    pool.submit(int).result()
    report([len(watches) > 0, gone()])
"""
        )
        == [True, True]
    )


@pytest.mark.parametrize("where", ["argument", "result", "error"])
def test_workers_let_go_between_tasks(where):
    """A worker that waits for the next task holds nothing of the last one."""
    use = {"argument": "id, watched()", "result": "watched", "error": "fail, watched()"}[where]
    assert (
        run_json(
            f"""{WITNESS}
class Error(Exception):
    pass
def fail(witness):
    raise Error(witness)
with thread_pool(1) as pool:
    future = pool.submit({use})
    futures.wait([future])
    del future
    gc.collect()
    report([len(watches), gone()])
"""
        )
        == [1, True]
    )


@pytest.mark.parametrize(
    "make",
    [
        "pool = thread_pool(2)",
        "pool = thread_pool(2); pool.submit(int).result()",
        "pool = thread_pool(2); list(pool.map(int, '123'))",
        "pool = thread_pool(2); pool.submit(int).result(); pool.shutdown()",
        "pool = thread_pool(2, initializer=int); pool.submit(int); pool.attribute = pool",
    ],
)
def test_pools_are_collected(make):
    assert (
        run_json(
            f"""{WITNESS}
for _ in range(10):
    {make}
    watches.append(weakref.ref(pool))
    del pool
report([until(lambda: gc.collect() >= 0 and gone()), until(lambda: threading.active_count() == 1)])
"""
        )
        == [True, True]
    )


@ours
def test_threads_are_not_kept():
    """The Thread objects of a pool that has ended, and what their locals held."""
    assert (
        run_json(
            f"""{WITNESS}
local = threading.local()
def task():
    local.witness = watched()
    watches.append(weakref.ref(threading.current_thread()))
for _ in range(5):
    with thread_pool(2) as pool:
        for _ in range(4):
            pool.submit(task)
    del pool
report([len(watches), until(lambda: gc.collect() >= 0 and gone())])
"""
        )
        == [40, True]
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pools_are_collected(method):
    assert (
        run_json(
            f"""{WITNESS}
if __name__ == "__main__":
    for _ in range(3):
        pool = process_pool(1, method="{method}")
        future = pool.submit(int)
        future.result()
        watches += weakref.ref(pool), weakref.ref(future)
        del pool, future
    report(until(lambda: gc.collect() >= 0 and gone()))
"""
        )
        is True
    )


def test_workers_of_a_process_pool_let_go_between_tasks():
    assert (
        run_json(
            f"""{WITNESS}
def task(argument):
    witness = Witness()
    witness.argument = argument
    watches.append(weakref.ref(witness))
    return argument
def left(_):
    gc.collect()
    return sum(watch() is not None for watch in watches)
if __name__ == "__main__":
    with process_pool(1, method="fork") as pool:
        for number in range(20):
            pool.submit(task, [number]).result()
        report(pool.submit(left, 0).result())
"""
        )
        == 0
    )
