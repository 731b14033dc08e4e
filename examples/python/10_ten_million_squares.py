# SPDX-License-Identifier: MIT
"""A task for each of ten million numbers, on worker processes.

usage: 10_ten_million_squares.py [how many instead]

A map submits all at once, as the article's does: half a kilobyte for each, five gigabytes for all.
With buffersize=10_000 as well there are never more than so many.
"""
from cfutures import ProcessPoolExecutor
import sys
import time


def square(n):
    return n * n


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    numbers = [i for i in range(count)]

    start = time.time()
    with ProcessPoolExecutor() as executor:
        results = list(executor.map(square, numbers))
    print(f'Time taken: {time.time() - start:.2f} seconds')
    print(f'{len(results)} squares, the last of them {results[-1]}')


if __name__ == "__main__":
    main()
