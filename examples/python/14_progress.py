# SPDX-License-Identifier: MIT
"""Callbacks that count: how far the work is, while it goes on."""
from cfutures import ThreadPoolExecutor
import itertools
import time

TASKS = 100
numbers = itertools.count(1)


def work(_):
    time.sleep(0.01)


def count(_):
    """Any worker may be the one that calls; next() is safe in all of them."""
    done = next(numbers)
    if done % 25 == 0:
        print(f"{done} of {TASKS} done")


with ThreadPoolExecutor(max_workers=4) as executor:
    for i in range(TASKS):
        executor.submit(work, i).add_done_callback(count)
print(f"All done: {next(numbers) - 1}")
