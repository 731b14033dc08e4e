# SPDX-License-Identifier: MIT
"""Waiting with a limit: the wait times out, the task goes on."""
from cfutures import ThreadPoolExecutor
import time


def slow_operation(n):
    time.sleep(n)
    if n == 3:
        raise ValueError(f"Number {n} is unlucky!")
    return n * 2


with ThreadPoolExecutor(max_workers=3) as executor:
    # The last number is 4 in the article: that ends at the very moment when the wait for it does.
    futures = [executor.submit(slow_operation, i) for i in [1, 2, 3, 6]]

    for i, future in enumerate(futures):
        print(f"Future {i} done: {future.done()}")

    time.sleep(2)

    for i, future in enumerate(futures):
        try:
            # Timeout prevents indefinite blocking
            result = future.result(timeout=2)
            print(f"Future {i} result: {result}")
        except ValueError as e:
            print(f"Future {i} raised: {e}")
        except TimeoutError:
            print(f"Future {i} timed out")
