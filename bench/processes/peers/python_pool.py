#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Python's own ProcessPoolExecutor, asked the same.  usage: python_pool.py WORKLOAD WORKERS N

The start method is fork, which is its fastest and the default of the versions that this was written for."""

import math
import multiprocessing
import os
import signal
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

PAUSE = 0.0005
now = time.perf_counter


def answer(message):
    number, payload = message
    return 2 * number, payload


def who(_):
    return os.getpid()


def read_bytes(data):
    return data.count(b"\0")


def make_bytes(size):
    return b"\1" * size


def power_task(params):
    a, calculations = params
    for _ in range(calculations):
        a = pow(a, a)
    return a


def new_pool(workers):
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(max_workers=workers, mp_context=context)


def median_of(turn, count):
    times = []
    for _ in range(count):
        begin = now()
        turn()
        times.append(now() - begin)
    return statistics.median(times)


class Bench:
    def __init__(self, workers, n, parameters):
        self.workers, self.n, self.parameters = workers, n, parameters
        self.message = (1, bytes(48))

    def pool(self):
        pool = new_pool(self.workers)
        list(pool.map(answer, [self.message] * 8 * self.workers))
        return pool

    def ask(self, pool):
        if pool.submit(answer, self.message).result()[0] != 2:
            raise RuntimeError("wrong result")

    def p1(self):
        with self.pool() as pool:
            begin = now()
            futures = [pool.submit(answer, self.message) for _ in range(self.n)]
            for future in futures:
                future.result()
            took = now() - begin
        return f"ns={took / self.n * 1e9:.0f}"

    def p2(self):
        with self.pool() as pool:
            begin = now()
            for _ in range(self.n):
                self.ask(pool)
            took = now() - begin
        return f"ns={took / self.n * 1e9:.0f}"

    def p2p(self):
        times = []
        with self.pool() as pool:
            for _ in range(self.n):
                time.sleep(PAUSE)
                begin = now()
                self.ask(pool)
                times.append(now() - begin)
        return f"ns={statistics.median(times) * 1e9:.0f}"

    def payload(self, turn):
        with self.pool() as pool:
            turn(pool)
            took = median_of(lambda: turn(pool), self.n)
        return f"gbps={self.parameters[0] / took / 1e9:.3f} us={took * 1e6:.1f}"

    def p3in(self):
        data = make_bytes(self.parameters[0])
        return self.payload(lambda pool: pool.submit(read_bytes, data).result())

    def p3out(self):
        size = self.parameters[0]
        return self.payload(lambda pool: read_bytes(pool.submit(make_bytes, size).result()))

    def p5(self):
        """As in the article: the pool's start and end are counted."""
        calculations, chunk_size = self.parameters
        params = [((i % 1000 + 1) / 1001, calculations) for i in range(self.n)]
        begin = now()
        with new_pool(self.workers) as pool:
            total = math.fsum(pool.map(power_task, params, chunksize=chunk_size))
        took = now() - begin
        if not total > 0:
            raise RuntimeError("wrong sum")
        return f"s={took:.6f}"

    def p6(self):
        times = []
        for _ in range(self.n):
            begin = now()
            pool = new_pool(self.workers)
            self.ask(pool)
            times.append(now() - begin)
            pool.shutdown()
        return f"us={statistics.median(times) * 1e6:.1f}"

    def p6r(self):
        """A killed worker breaks the pool, so that a new one is needed."""
        times = []
        held = b"\1" * (self.parameters[0] << 20)
        for _ in range(self.n):
            pool = self.pool()
            worker = pool.submit(who, 0).result()
            time.sleep(0.01)
            begin = now()
            os.kill(worker, signal.SIGKILL)
            try:
                while True:
                    self.ask(pool)
            except BrokenProcessPool:
                pool.shutdown()
            with new_pool(self.workers) as successor:
                self.ask(successor)
                times.append(now() - begin)
        del held
        return f"us={statistics.median(times) * 1e6:.1f}"


def main():
    if sys.argv[1:] == ["version"]:
        print("Python " + sys.version.split()[0])
        return 0
    workload, workers, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    name, _, parameters = workload.partition(":")
    bench = Bench(workers, n, [int(word) for word in parameters.split("/") if word])
    ask = getattr(bench, name.lower(), None)
    if ask is None or (name == "P5" and bench.parameters[1] == 0):
        return 2
    print(f"python {workload} {workers} {n} {ask()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
