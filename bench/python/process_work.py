# SPDX-License-Identifier: MIT
"""What is asked of process pools: each function gives its figures."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path

import tasks
from thread_work import fetch, round_trips, us, web_server

now = time.perf_counter


def new_pool(pools, workers, method="fork"):
    context = multiprocessing.get_context(method)
    return pools.ProcessPoolExecutor(max_workers=workers, mp_context=context)


@contextlib.contextmanager
def warm(pools, workers, method="fork"):
    with new_pool(pools, workers, method) as pool:
        for future in [pool.submit(tasks.nothing, i) for i in range(10 * workers)]:
            future.result()
        yield pool


def submit(pools, workers, n, method):
    with warm(pools, workers, method) as pool:
        begin = now()
        futures = [pool.submit(tasks.nothing, i) for i in range(n)]
        submitted = now()
        for future in futures:
            future.result()
        end = now()
    return {"us": us(end - begin, n), "submit_us": us(submitted - begin, n)}


def round_trip(pools, workers, n):
    with warm(pools, workers) as pool:
        round_trips(pool, 50)
        return round_trips(pool, n)


def map_results(pools, workers, n, chunk):
    with warm(pools, workers) as pool:
        begin = now()
        for _ in pool.map(tasks.add_one, range(n), chunksize=int(chunk)):
            pass
        end = now()
    return {"us": us(end - begin, n)}


def rate(turn, n, size):
    begin = now()
    turn()
    return {"mbps": n * size / (now() - begin) / 1e6}


def payload_in(pools, workers, n, size, make=tasks.make_bytes):
    data = make(int(size))

    def turn(count):
        for future in [pool.submit(tasks.length, data) for _ in range(count)]:
            future.result()

    with warm(pools, workers) as pool:
        turn(2)
        return rate(lambda: turn(n), n, int(size))


def payload_out(pools, workers, n, size, make=tasks.make_bytes):
    """Each result is let go once it was read."""

    def turn(count):
        futures = [pool.submit(make, int(size)) for _ in range(count)]
        for i, future in enumerate(futures):
            future.result()
            futures[i] = future = None

    with warm(pools, workers) as pool:
        turn(2)
        return rate(lambda: turn(n), n, int(size))


def array_in(pools, workers, n, size):
    return payload_in(pools, workers, n, size, tasks.make_array)


def array_out(pools, workers, n, size):
    return payload_out(pools, workers, n, size, tasks.make_array)


def start(pools, workers, n, method):
    """From nothing to a first result, and from there to the end; the first pool with its import."""
    first, end = [], []
    for i in range(n + 1):
        begin = now() if i else tasks.began
        pool = new_pool(pools, workers, method)
        pool.submit(tasks.nothing, 1).result()
        answered = now()
        pool.shutdown()
        first.append((answered - begin) * 1e3)
        end.append((now() - answered) * 1e3)
    return {"ms": statistics.median(first[1:]), "very_first_ms": first[0],
            "shutdown_ms": statistics.median(end[1:])}


def ends_well(future, seconds):
    try:
        future.result(seconds)
    except Exception:  # whatever the peer says then
        return False
    return True


def killed(pools, workers, n, *options):
    """A worker gets SIGKILL in the middle: how many of the tasks have a result all the same."""
    settings = dict(option.split("=") for option in options)
    with pools.ProcessPoolExecutor(max_workers=workers, **settings) as pool:
        futures = [pool.submit(tasks.who, 0.01) for _ in range(n)]
        os.kill(futures[n // 4].result(), signal.SIGKILL)
        end = now() + n * 0.01 + 3
        count = sum(ends_well(future, max(0.01, end - now())) for future in futures)
    return {"results": count}


def chunks(pools, workers, n, chunk, calculations):
    """As in the article: the pool's start and end are counted."""
    numbers = random.Random(1)
    params = [(numbers.random(), int(calculations)) for _ in range(n)]
    begin = now()
    with new_pool(pools, workers) as pool:
        for _ in pool.map(tasks.powers, params, chunksize=int(chunk)):
            pass
    return {"s": now() - begin}


def primes(pools, workers, n):
    step = 10000
    ranges = [(i * step, (i + 1) * step) for i in range(n)]
    begin = now()
    with new_pool(pools, workers) as pool:
        sum(pool.map(tasks.count_primes, ranges))
    return {"s": now() - begin}


def draw(path):
    from PIL import Image

    Image.effect_mandelbrot((640, 480), (-2, -1.2, 1, 1.2), 60).convert("RGB").save(path)


def images(pools, workers, n):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.jpg")
        draw(source)
        jobs = [(source, Path(folder, f"{i}.jpg")) for i in range(n)]
        begin = now()
        with new_pool(pools, workers) as pool:
            list(pool.map(tasks.contour, jobs))
        return {"s": now() - begin}


def pipeline(pools, workers, n):
    """Threads download, processes count words, threads write: by as_completed."""
    with tempfile.TemporaryDirectory() as folder, web_server() as base, \
            warm(pools, workers) as counters, pools.ThreadPoolExecutor(8) as threads:

        def save(number, counts):
            Path(folder, f"{number}.json").write_text(json.dumps(counts), encoding="utf-8")

        begin = now()
        texts = {threads.submit(fetch, f"{base}/20000/5"): i for i in range(n)}
        counts = {counters.submit(tasks.count_words, text.result()): texts[text]
                  for text in pools.as_completed(texts)}
        for saved in [threads.submit(save, counts[count], count.result())
                      for count in pools.as_completed(counts)]:
            saved.result()
        return {"s": now() - begin}
