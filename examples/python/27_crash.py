# SPDX-License-Identifier: MIT
"""Tasks that take their worker process with them.

With on_crash="replace" that is a task's own affair: its future says what the worker died of, a new
worker takes the place of the old one, and the other tasks do not notice.  With on_crash="retry"
the task gets another try.
"""
import ctypes
import os
import tempfile
import cfutures


def crash():
    ctypes.string_at(1)


def leave():
    os._exit(3)


def fail():
    raise ValueError("not with this argument")


def finish():
    return 42


def crash_at_first(path):
    """Counts its attempts in a file: what a worker has in its memory dies with it."""
    with open(path, "a") as f:
        f.write("x")
    attempts = os.path.getsize(path)
    if attempts <= 2:
        crash()
    return attempts


def post_mortem():
    with cfutures.ProcessPoolExecutor(max_workers=2, on_crash="replace") as executor:
        futures = {task: executor.submit(task) for task in (crash, leave, fail, finish)}
        for task, future in futures.items():
            error = future.exception()
            if error is None:
                print(f"{task.__name__}: {future.result()}")
            elif isinstance(error, cfutures.WorkerDied):
                print(f"{task.__name__}: WorkerDied, signal {error.signal}, exit code "
                      f"{error.exitcode}, out of memory: {error.out_of_memory}")
            else:
                print(f"{task.__name__}: {error!r}")
    print("where it crashed:")
    print(futures[crash].exception().traceback)


def try_again():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "attempts")
        with cfutures.ProcessPoolExecutor(1, on_crash="retry", max_retries=2) as executor:
            print(f"two retries: done at attempt {executor.submit(crash_at_first, path).result()}")


def main():
    post_mortem()
    try_again()


if __name__ == "__main__":
    main()
