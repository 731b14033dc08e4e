# SPDX-License-Identifier: MIT
"""The same with results: a future for each call, asked for its result in the end."""
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
        futures = []
        for i in range(5):
            futures.append(executor.submit(task, i))
        getLogger().info("submit end")
        getLogger().info([f.result() for f in futures])
    getLogger().info("main end")


if __name__ == "__main__":
    main()
