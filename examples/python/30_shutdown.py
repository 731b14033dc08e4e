# SPDX-License-Identifier: MIT
"""The end of a block waits for all that was submitted in it; results are there afterwards."""
from cfutures import ProcessPoolExecutor


def square(n):
    return n * n


def main():
    with ProcessPoolExecutor(max_workers=4) as executor:
        results = executor.map(square, range(10000))
    # Executor shuts down gracefully here
    print(f"The sum of the squares: {sum(results)}")


if __name__ == "__main__":
    main()
