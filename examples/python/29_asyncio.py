# SPDX-License-Identifier: MIT
"""asyncio with our pools: they are the standard's kind, and an event loop takes them as such."""
import asyncio
import threading
import time
import cfutures


def wait_a_little(n):
    time.sleep(0.2)
    return f"{n} on {threading.current_thread().name}"


def count_to(n):
    return sum(1 for _ in range(n))


async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(cfutures.ThreadPoolExecutor(2, thread_name_prefix="default"))

    with (cfutures.ThreadPoolExecutor(4, thread_name_prefix="ours") as threads,
          cfutures.ProcessPoolExecutor(2) as processes):
        start = time.time()
        waits = [loop.run_in_executor(threads, wait_a_little, n) for n in range(4)]
        counts = [loop.run_in_executor(processes, count_to, n) for n in (10_000, 1_000_000)]
        print(await asyncio.gather(*waits))
        print(await asyncio.gather(*counts))
        print(f"The loop was free all the time: {time.time() - start:.1f} s")

        print(await asyncio.to_thread(wait_a_little, "to_thread"))
        print(await asyncio.wrap_future(threads.submit(wait_a_little, "wrap_future")))


if __name__ == "__main__":
    asyncio.run(main())
