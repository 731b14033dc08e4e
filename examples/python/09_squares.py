# SPDX-License-Identifier: MIT
"""Map keeps the order of the arguments; as_completed gives what is there first."""
import time
from contextlib import contextmanager
from cfutures import ThreadPoolExecutor
import cfutures


@contextmanager
def report_time(des):
    start = time.time()
    yield
    end = time.time()

    print(f"Time for {des}: {end-start}")


def square(x):
    return x*x


def main():
    num = 10

    with report_time("using executor.map"):
        # with ThreadPoolExecutor(max_workers=10) as executor:
        with ThreadPoolExecutor() as executor:
            res = executor.map(square, range(num))
        res = list(res)
    print(res)

    with report_time('using executor.submit'):
        with ThreadPoolExecutor() as executor:
            my_futures = [executor.submit(square, x) for x in range(num)]
            res = []
            for future in cfutures.as_completed(my_futures):
                res.append(future.result())
    print(res)


if __name__ == "__main__":
    main()
