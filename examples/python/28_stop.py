# SPDX-License-Identifier: MIT
"""Tasks in worker processes that run for too long: a limit for each, or a stop when you say so."""
import time
import cfutures


def work(seconds):
    time.sleep(seconds)
    return f"worked {seconds} s"


def run_limit():
    with cfutures.ProcessPoolExecutor(max_workers=2, run_limit=0.5) as executor:
        futures = [executor.submit(work, seconds) for seconds in (0, 60, 0.1)]
        futures.append(executor.using(run_limit=30).submit(work, 0.6))
        for future in futures:
            try:
                print(future.result())
            except cfutures.TaskStopped as e:
                print(f"TaskStopped: {e}")


def stop():
    with cfutures.ProcessPoolExecutor(max_workers=1) as executor:
        future = executor.submit(work, 60)
        while not future.running():
            time.sleep(0.001)
        print(f"cancel a running task: {future.cancel()}")
        print(f"stop it: {future.stop()}")
        print(f"its outcome: {type(future.exception()).__name__}")
        print(f"the pool goes on: {executor.submit(work, 0).result()}")


def main():
    run_limit()
    stop()


if __name__ == "__main__":
    main()
