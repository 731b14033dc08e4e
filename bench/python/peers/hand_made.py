# SPDX-License-Identifier: MIT
"""What forty lines of Python can do: threads at a SimpleQueue, and a bare lock as a future."""

import queue
import threading


class Future:
    __slots__ = ("done", "value", "error")

    def __init__(self):
        self.done = threading.Lock()
        self.done.acquire()
        self.error = None

    def result(self):
        with self.done:
            if self.error is not None:
                raise self.error
            return self.value


def work(get):
    while (task := get()) is not None:
        future, function, args = task
        try:
            future.value = function(*args)
        except BaseException as error:
            future.error = error
        future.done.release()


class ThreadPoolExecutor:
    def __init__(self, max_workers):
        self.tasks = queue.SimpleQueue()
        self.threads = [threading.Thread(target=work, args=(self.tasks.get,))
                        for _ in range(max_workers)]
        for thread in self.threads:
            thread.start()

    def submit(self, function, *args):
        future = Future()
        self.tasks.put((future, function, args))
        return future

    def map(self, function, items):
        futures = [self.submit(function, item) for item in items]
        return (future.result() for future in futures)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            thread.join()
