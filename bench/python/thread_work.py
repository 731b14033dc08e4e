# SPDX-License-Identifier: MIT
"""What is asked of thread pools: each function gives its figures, in the unit that their key says.

`pools` is a module with the names of concurrent.futures, or as many of them as the peer has."""

import contextlib
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import tasks

now = time.perf_counter
PRODUCERS = 4


@contextlib.contextmanager
def warm(pools, workers):
    with pools.ThreadPoolExecutor(max_workers=workers) as pool:
        for _ in range(4 * workers):
            pool.submit(tasks.nothing, 0).result()
        yield pool


def us(seconds, n):
    return seconds / n * 1e6


def resident():
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def submit(pools, workers, n):
    with warm(pools, workers) as pool:
        begin = now()
        futures = [pool.submit(tasks.nothing, i) for i in range(n)]
        submitted = now()
        for future in futures:
            future.result()
        end = now()
    return {"us": us(end - begin, n), "submit_us": us(submitted - begin, n)}


def submit_from_threads(pools, workers, n):
    with warm(pools, workers) as pool:

        def produce():
            for future in [pool.submit(tasks.nothing, i) for i in range(n // PRODUCERS)]:
                future.result()

        producers = [threading.Thread(target=produce) for _ in range(PRODUCERS)]
        begin = now()
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        end = now()
    return {"us": us(end - begin, n)}


def round_trips(pool, n):
    """Also for process pools."""
    times = []
    for i in range(n):
        begin = now()
        pool.submit(tasks.nothing, i).result()
        times.append(now() - begin)
    times.sort()
    return {"us": us(sum(times), n), "p50_us": us(times[n // 2], 1),
            "p99_us": us(times[n * 99 // 100], 1)}


def round_trip(pools, workers, n):
    with warm(pools, workers) as pool:
        return round_trips(pool, n)


def map_results(pools, workers, n):
    with warm(pools, workers) as pool:
        begin = now()
        for _ in pool.map(tasks.add_one, range(n)):
            pass
        end = now()
    return {"us": us(end - begin, n)}


def median_of(turn, count=3):
    times = []
    for _ in range(count):
        begin = now()
        turn()
        times.append(now() - begin)
    return statistics.median(times)


def in_order_of_completion(pools, workers, n):
    with warm(pools, workers) as pool:
        begin = now()
        futures = [pool.submit(tasks.nothing, i) for i in range(n)]
        count = sum(1 for _ in pools.as_completed(futures))
        end = now()
        if count != n:
            raise RuntimeError("not all of them came")
        done = median_of(lambda: sum(1 for _ in pools.as_completed(futures)))
    return {"us": us(end - begin, n), "done_us": us(done, n)}


def wait_for_all(pools, workers, n):
    with warm(pools, workers) as pool:
        begin = now()
        futures = [pool.submit(tasks.nothing, i) for i in range(n)]
        done, _ = pools.wait(futures)
        end = now()
        if len(done) != n:
            raise RuntimeError("not all of them are done")
        again = median_of(lambda: pools.wait(futures))
    return {"us": us(end - begin, n), "done_us": us(again, n)}


def drain(pools, workers, n):
    """One task ends at a time, and all that are left are waited for again: as many programs do."""
    gate = queue.SimpleQueue()
    with warm(pools, workers) as pool:
        pending = {pool.submit(gate.get) for _ in range(n)}
        begin = now()
        while pending:
            gate.put(1)
            _, pending = pools.wait(pending, return_when=pools.FIRST_COMPLETED)
        end = now()
    return {"us": us(end - begin, n)}


def one_by_one(pools, workers, n):
    gate = queue.SimpleQueue()
    with warm(pools, workers) as pool:
        futures = [pool.submit(gate.get) for _ in range(n)]
        begin = now()
        completed = pools.as_completed(futures)
        for _ in range(n):
            gate.put(1)
            next(completed)
        end = now()
    return {"us": us(end - begin, n)}


def callbacks(pools, workers, n):
    called = []
    go = threading.Event()
    with warm(pools, workers) as pool:
        for _ in range(workers):
            pool.submit(go.wait)
        futures = [pool.submit(tasks.nothing, i) for i in range(n)]
        begin = now()
        for future in futures:
            future.add_done_callback(called.append)
        added = now()
        go.set()
        pools.wait(futures)
        end = now()
    if len(called) != n:
        raise RuntimeError("a callback was not called")
    return {"us": us(end - begin, n), "add_us": us(added - begin, n)}


def future_alone(pools, _, n):
    """Made, given a result, read: what an event loop or a framework does with it."""
    begin = now()
    futures = [pools.Future() for _ in range(n)]
    made = now()
    for future in futures:
        future.set_result(1)
    given = now()
    for future in futures:
        future.result()
    end = now()
    return {"us": us(end - begin, n), "make_us": us(made - begin, n),
            "set_us": us(given - made, n), "read_us": us(end - given, n)}


def memory_pending(pools, workers, n):
    go = threading.Event()
    with warm(pools, workers) as pool:
        for _ in range(workers):
            pool.submit(go.wait)
        futures = [None] * n
        before = resident()
        for i in range(n):
            futures[i] = pool.submit(tasks.nothing, 7)
        used = resident() - before
        go.set()
    return {"bytes": used / n}


def memory_finished(pools, workers, n):
    """A hundred are under way at most: what is counted are futures with a result."""
    with warm(pools, workers) as pool:
        futures = [None] * n
        before = resident()
        for i in range(0, n, 100):
            for j in range(i, i + 100):
                futures[j] = pool.submit(tasks.nothing, 7)
            futures[j].result()
        used = resident() - before
    return {"bytes": used / n}


def start_and_stop(pools, workers, n):
    begin = now()
    for _ in range(n):
        with pools.ThreadPoolExecutor(max_workers=workers) as pool:
            for future in [pool.submit(tasks.nothing, i) for i in range(workers)]:
                future.result()
    end = now()
    return {"us": us(end - begin, n)}


def sleepers(pools, workers, n):
    """Ten milliseconds each: time as a multiple of the ideal."""
    with warm(pools, workers) as pool:
        begin = now()
        for future in [pool.submit(time.sleep, 0.01) for _ in range(n)]:
            future.result()
        end = now()
    return {"vs_ideal": (end - begin) / (0.01 * n / workers)}


@contextlib.contextmanager
def web_server():
    command = [sys.executable, Path(__file__).with_name("web.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


def fetch(url, opener=urllib.request.build_opener(urllib.request.ProxyHandler({}))):
    with opener.open(url) as answer:
        return answer.read()


def downloads(pools, workers, n):
    with web_server() as base, warm(pools, workers) as pool:
        list(pool.map(fetch, [f"{base}/1024/0"] * workers))
        begin = now()
        for _ in pool.map(fetch, [f"{base}/1024/20"] * n):
            pass
        end = now()
    return {"ms": (end - begin) / n * 1e3}
