# SPDX-License-Identifier: MIT
"""multiprocessing.Pool and its ThreadPool: submit is apply_async, map is imap."""

import multiprocessing
import multiprocessing.pool


class Future:
    __slots__ = ("result",)

    def __init__(self, answer):
        self.result = answer.get


class Executor:
    def __init__(self, pool):
        self.pool = pool

    def submit(self, function, *args):
        return Future(self.pool.apply_async(function, args))

    def map(self, function, items, chunksize=1):
        return self.pool.imap(function, items, chunksize)

    def shutdown(self):
        self.pool.close()
        self.pool.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()


class ThreadPoolExecutor(Executor):
    def __init__(self, max_workers):
        super().__init__(multiprocessing.pool.ThreadPool(max_workers))


class ProcessPoolExecutor(Executor):
    def __init__(self, max_workers, mp_context=multiprocessing):
        super().__init__(mp_context.Pool(max_workers))
