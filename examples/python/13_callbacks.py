# SPDX-License-Identifier: MIT
"""A function that is called with each future once it is done, failed or not."""
from cfutures import ThreadPoolExecutor
import time


def slow_operation(n):
    time.sleep(n)
    if n == 3:
        raise ValueError(f"Number {n} is unlucky!")
    return n * 2


def process_result(future):
    try:
        result = future.result()
        print(f"Processed: {result}")
    except Exception as e:
        print(f"Error: {e}")


with ThreadPoolExecutor(max_workers=2) as executor:
    for i in range(5):
        future = executor.submit(slow_operation, i)
        future.add_done_callback(process_result)
