# SPDX-License-Identifier: MIT
"""Five tasks of a second on two threads: two run at a time, the others wait in the queue."""
from cfutures import ThreadPoolExecutor
from logging import INFO, basicConfig, getLogger
from time import sleep

basicConfig(level=INFO, format="[%(asctime)s] [%(threadName)s] %(message)s")


def task(v):
    getLogger().info("%s start", v)
    sleep(1)
    getLogger().info("%s end", v)


def main():
    getLogger().info("main start")
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="thread") as executor:
        for i in range(5):
            executor.submit(task, i)
        getLogger().info("submit end")
    getLogger().info("main end")


if __name__ == "__main__":
    main()
