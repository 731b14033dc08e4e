# SPDX-License-Identifier: MIT
"""Ten tasks that take a random time, on four threads; the fastest come first."""
from cfutures import ThreadPoolExecutor, as_completed
import time
import random


def variable_task(n):
    time.sleep(random.uniform(0.1, 2.0))
    return n * 2


with ThreadPoolExecutor(max_workers=4) as executor:
    futures = {executor.submit(variable_task, i): i for i in range(10)}

    # Five seconds in the article, which three slow ones in a row can exceed.
    for future in as_completed(futures, timeout=10):
        original_value = futures[future]
        try:
            result = future.result()
            print(f"Task {original_value} completed with result {result}")
        except Exception as e:
            print(f"Task {original_value} failed: {e}")
