# SPDX-License-Identifier: MIT
"""A hundred multiplications: starting threads takes longer than this work."""
import time
from cfutures import ThreadPoolExecutor


def tiny_task(n):
    return n * 2


data = list(range(100))

# Bad: overhead dominates
start = time.time()
with ThreadPoolExecutor(max_workers=100) as executor:
    results = list(executor.map(tiny_task, data))
print(f"100 workers: {time.time() - start:.4f}s")

# Good: reasonable worker count
start = time.time()
with ThreadPoolExecutor(max_workers=4) as executor:
    results = list(executor.map(tiny_task, data))
print(f"4 workers: {time.time() - start:.4f}s")

# Best: no concurrency for trivial tasks
start = time.time()
results = [tiny_task(n) for n in data]
print(f"Sequential: {time.time() - start:.4f}s")
