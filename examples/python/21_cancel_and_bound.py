# SPDX-License-Identifier: MIT
"""A queue with an end: what is too much is refused, or waits until there is room.

A map takes from a generator that never ends as it has need of it.
"""
import itertools
import threading
import time
import cfutures


def nap(seconds):
    time.sleep(seconds)
    return seconds


def refuse_and_cancel():
    go_on = threading.Event()
    with cfutures.ThreadPoolExecutor(1, max_pending=2, when_full="raise") as executor:
        running = executor.submit(go_on.wait)
        while not running.running():
            time.sleep(0.001)
        waiting = [executor.submit(nap, 0.02) for _ in range(2)]
        try:
            executor.submit(nap, 0.02)
        except cfutures.QueueFull:
            print("a third one that waits: QueueFull")
        print(f"cancelled while it waits: {waiting[0].cancel()}")
        print(f"cancelled while it runs: {running.cancel()}")
        go_on.set()
    print(f"the other one: {waiting[1].result()}")


def wait_for_room():
    """A producer that is faster than the workers gets their speed, and memory stays small."""
    start = time.time()
    with cfutures.ThreadPoolExecutor(1, max_pending=2) as executor:
        for _ in range(10):
            executor.submit(nap, 0.02)
        print(f"ten naps of 0.02 s with room for two: submitted after {time.time() - start:.2f} s")


def take_what_is_needed():
    numbers = itertools.count()
    with cfutures.ThreadPoolExecutor(2) as executor:
        squares = executor.map(lambda n: n * n, numbers, buffersize=4)
        print(f"first squares: {list(itertools.islice(squares, 6))}")
        print(f"taken from the endless generator: {next(numbers)}")
        squares.close()


refuse_and_cancel()
wait_for_room()
take_what_is_needed()
