# SPDX-License-Identifier: MIT
"""The table of ten settings: large and small tasks, on one process and two, in chunks or not.

usage: 24_chunk_table.py [max_workers chunk_size num_tasks num_calc]...
"""
from cfutures import ProcessPoolExecutor
from random import random
import sys
from time import time

TABLE = """
1 1 100 100000
2 1 100 100000
1 10 100 100000
2 10 100 100000
1 1 10000 1000
2 1 10000 1000
1 10 10000 1000
2 10 10000 1000
1 100 10000 1000
2 100 10000 1000
"""


def task(params):
    (v, num_calc) = params
    a = float(v)
    for _ in range(num_calc):
        a = pow(a, a)
    return a


def measure(max_workers, chunk_size, num_tasks, num_calc):
    start = time()

    with ProcessPoolExecutor(max_workers=max_workers) as executor:
        params = map(lambda _: (random(), num_calc), range(num_tasks))
        results = executor.map(task, params, chunksize=chunk_size)

    seconds = time() - start
    assert len(list(results)) == num_tasks
    return seconds


def main():
    numbers = [int(word) for word in sys.argv[1:] or TABLE.split()]
    if len(numbers) % 4 != 0:
        sys.exit("usage: [max_workers chunk_size num_tasks num_calc]...")

    print("max_workers chunk_size num_tasks num_calc Execution time(sec)")
    for i in range(0, len(numbers), 4):
        (max_workers, chunk_size, num_tasks, num_calc) = numbers[i:i + 4]
        seconds = measure(max_workers, chunk_size, num_tasks, num_calc)
        print(f"{max_workers} {chunk_size} {num_tasks:,} {num_calc:,} {seconds:.3f}")


if __name__ == "__main__":
    main()
