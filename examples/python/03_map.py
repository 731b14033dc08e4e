# SPDX-License-Identifier: MIT
"""A call for each argument; the results come in the order of the arguments."""
import cfutures
import time


def some_function(n):
    print(f'start function {n}\n')
    time.sleep(0.2)
    print(f'end function {n}\n')
    return n


def main():
    with cfutures.ThreadPoolExecutor(max_workers=3) as executor:
        results = executor.map(some_function, range(1, 4))
        print(f'The results: {list(results)}')


if __name__ == "__main__":
    main()
