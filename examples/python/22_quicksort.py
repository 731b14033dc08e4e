# SPDX-License-Identifier: MIT
"""Tasks that wait for tasks, on one thread.

A worker that waits runs what it waits for, so this ends where the standard pool stands still for
ever.  And a wait that could never end says so.
"""
import queue
import random
import cfutures

executor = cfutures.ThreadPoolExecutor(max_workers=1)


def quicksort(numbers):
    if len(numbers) < 2:
        return numbers
    pivot, *others = numbers
    low = executor.submit(quicksort, [n for n in others if n < pivot])
    high = quicksort([n for n in others if n >= pivot])
    return low.result() + [pivot] + high


def wait_for_one(mailbox):
    return mailbox.get().result()


with executor:
    numbers = random.sample(range(1_000_000), 10_000)
    print(f"sorted: {executor.submit(quicksort, numbers).result() == sorted(numbers)}")

    mailbox = queue.SimpleQueue()
    future = executor.submit(wait_for_one, mailbox)
    mailbox.put(future)
    print(f"a task that waits for itself: {type(future.exception()).__name__}")
