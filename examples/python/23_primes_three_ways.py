# SPDX-License-Identifier: MIT
"""Counting primes in a loop, on threads (which share one interpreter lock), and in processes.

usage: 23_primes_three_ways.py [up to, 100000 if not given]
"""
from cfutures import ThreadPoolExecutor, ProcessPoolExecutor
import sys
import time


def is_prime(n):
    if n < 2:
        return False
    for i in range(2, int(n ** 0.5) + 1):
        if n % i == 0:
            return False
    return True


def count_primes(start, end):
    return sum(1 for n in range(start, end) if is_prime(n))


def count_range(r):
    """A lambda in the article, but that has no name by which a process could find it."""
    return count_primes(*r)


def main():
    end = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
    ranges = [(i, i + end // 10) for i in range(0, end, end // 10)]

    start = time.time()
    results = [count_range(r) for r in ranges]
    print(f"Sequential: {time.time() - start:.2f}s, Total primes: {sum(results)}")

    # Thread pool (limited by GIL)
    start = time.time()
    with ThreadPoolExecutor(max_workers=4) as executor:
        results = list(executor.map(lambda r: count_primes(*r), ranges))
    print(f"Threads: {time.time() - start:.2f}s, Total primes: {sum(results)}")

    # Process pool (true parallelism)
    start = time.time()
    with ProcessPoolExecutor(max_workers=4) as executor:
        results = list(executor.map(count_range, ranges))
    print(f"Processes: {time.time() - start:.2f}s, Total primes: {sum(results)}")


if __name__ == "__main__":
    main()
