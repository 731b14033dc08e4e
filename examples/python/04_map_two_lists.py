# SPDX-License-Identifier: MIT
"""Map with several parameters: one iterable for each of them."""
import cfutures


def multiply(x, y):
    return x * y


def main():
    with cfutures.ThreadPoolExecutor() as executor:
        xs = [1, 2, 3, 4, 5]
        ys = [10, 20, 30, 40, 50]
        results = executor.map(multiply, xs, ys)
        print(f'The results: {list(results)}')


if __name__ == "__main__":
    main()
