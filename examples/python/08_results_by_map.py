# SPDX-License-Identifier: MIT
"""The same by map: it returns at once, and its results are waited for as they are read."""
from cfutures import ThreadPoolExecutor
from logging import INFO, basicConfig, getLogger
from time import sleep

basicConfig(level=INFO, format="[%(asctime)s] [%(threadName)s] %(message)s")


def task(v):
    getLogger().info("%s start", v)
    sleep(1)
    getLogger().info("%s end", v)
    return v * 2


def main():
    getLogger().info("main start")
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="thread") as executor:
        results = executor.map(task, range(5))
        getLogger().info("map end")
        getLogger().info(list(results))
    getLogger().info("main end")


if __name__ == "__main__":
    main()
