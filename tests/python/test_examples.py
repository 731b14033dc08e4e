# SPDX-License-Identifier: MIT
"""Runs each program of examples/python, and looks at what it says: outcomes, not times."""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

import pytest

from programs import Run
from support import STANDARD, long, ours

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"
ARGUMENTS = {
    "10_ten_million_squares": [20000],
    "23_primes_three_ways": [20000],
    "24_chunk_table": [1, 1, 100, 1000, 2, 1, 1000, 100, 2, 100, 1000, 100],
}
NOT_IN_THE_STANDARD = {"21_cancel_and_bound", "22_quicksort", "27_crash", "28_stop"}
NAMES = [path.stem for path in sorted(EXAMPLES.glob("[0-9]*.py"))]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each example has printed, as futures: they are run four at a time, most only wait."""
    def run(name, own):
        program = Run([EXAMPLES / f"{name}.py", *ARGUMENTS.get(name, [])], own, cwd=own)
        output = program.end()
        assert "06" <= name < "09" or program.errors() == "", program
        return output if output else program.errors()

    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        left_out = NOT_IN_THE_STANDARD if STANDARD else set()
        yield {name: executor.submit(run, name, tmp_path_factory.mktemp(name))
               for name in NAMES if name not in left_out}


@pytest.fixture
def said(outputs, request):
    """The lines that the example of the test has printed, without empty ones."""
    name = request.node.name.removeprefix("test_")
    (found,) = [example for example in NAMES if example.partition("_")[2] == name]
    return [line.strip() for line in outputs[found].result().splitlines() if line.strip()]


def in_order(lines, *expected):
    """Whether these lines are there, one after the other."""
    places = [lines.index(line) for line in expected]
    return places == sorted(places)


def pattern(lines, *patterns):
    """Whether each line is as its pattern says."""
    return len(lines) == len(patterns) and all(map(re.fullmatch, patterns, lines))


def test_every_example_has_a_test():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {name.partition("_")[2] for name in NAMES} <= tests


@long
@ours
@pytest.mark.timeout(200)
def test_tour(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    tour = subprocess.run([EXAMPLES / "tour.sh"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=180)
    assert tour.returncode == 0 and "examples ran" in tour.stdout.splitlines()[-1], tour
    assert "Traceback" not in tour.stdout + tour.stderr


def test_submit(said):
    assert len(said) == 9
    for n in (1, 2, 3):
        assert in_order(said, f"start function {n}", f"end function {n}",
                        f"Thread that finished: {n}")


def test_fetch_data(said):
    # Threads may print their lines first and the ends of the lines after that.
    said = re.findall(r"(Fetching|Data from) api/data(\d)", " ".join(said))
    assert sorted(said[:3]) == [("Fetching", n) for n in "123"]
    assert sorted(said[3:]) == [("Data from", n) for n in "123"]


def test_map(said):
    assert said[-1] == "The results: [1, 2, 3]"
    for n in (1, 2, 3):
        assert in_order(said, f"start function {n}", f"end function {n}")


def test_map_two_lists(said):
    assert said == ["The results: [10, 40, 90, 160, 250]"]


def test_upper(said):
    assert said == ["['APPLE', 'BANANA', 'CHERRY', 'DATE']"]


def logged(lines):
    """Pairs of thread and message out of a log."""
    return [re.fullmatch(r"\[[-\d]+ [:,\d]+\] \[(\w+)\] (.*)", line).groups() for line in lines]


def check_log(lines, *last):
    """Two threads have run five tasks, two at a time; in the end the main thread said `last`."""
    log = logged(lines)
    messages = [message for _, message in log]
    assert log[0] == ("MainThread", "main start")
    assert messages[-len(last):] == list(last)
    running = 0
    for thread, message in log:
        if re.fullmatch(r"\d (start|end)", message):
            assert thread in ("thread_0", "thread_1")
            running += 1 if message.endswith("start") else -1
            assert 0 <= running <= 2
    for n in range(5):
        (started,) = [thread for thread, message in log if message == f"{n} start"]
        assert in_order(log, (started, f"{n} start"), (started, f"{n} end"))
    assert in_order(messages, "0 start", "2 start", "4 start", "4 end")


def test_two_threads(said):
    assert ("MainThread", "submit end") in logged(said)
    check_log(said, "main end")


def test_results_by_submit(said):
    check_log(said, "[0, 2, 4, 6, 8]", "main end")


def test_results_by_map(said):
    assert in_order(logged(said), ("MainThread", "map end"), ("MainThread", "[0, 2, 4, 6, 8]"))
    check_log(said, "[0, 2, 4, 6, 8]", "main end")


def test_squares(said):
    squares = [n * n for n in range(10)]
    assert pattern(said[::2], r"Time for using executor.map: .*",
                   r"Time for using executor.submit: .*")
    assert said[1] == str(squares)
    assert sorted(map(int, said[3].strip("[]").split(", "))) == squares


def test_ten_million_squares(said):
    assert pattern(said, r"Time taken: \d+\.\d\d seconds",
                   r"20000 squares, the last of them 399960001")


def test_errors(said):
    assert sorted(said) == sorted(["0", "2", "4", "6", "8", "Error: Bad number!", "12", "14", "16",
                                   "18"])


def test_timeouts(said):
    assert said == [*(f"Future {n} done: False" for n in range(4)),
                    "Future 0 result: 2", "Future 1 result: 4",
                    "Future 2 raised: Number 3 is unlucky!", "Future 3 timed out"]


def test_callbacks(said):
    assert sorted(said) == ["Error: Number 3 is unlucky!",
                            *(f"Processed: {n}" for n in (0, 2, 4, 8))]


def test_progress(said):
    assert sorted(said[:-1]) == sorted(f"{n} of 100 done" for n in (25, 50, 75, 100))
    assert said[-1] == "All done: 100"


def test_random_delays(said):
    assert sorted(said) == [f"Task {n} completed with result {2 * n}" for n in range(10)]


def test_pages(said):
    assert pattern(said, r"Sequential: .*s", r"Concurrent: .*s", "The same: True")


def test_pages_with_failures(said):
    assert len(said) == 11
    assert {"User 1: Ada Lovelace", "User 10: Tony Hoare"} < set(said)
    (failed,) = [line for line in said if "failed" in line]
    assert re.match(r"User 11 failed: 404 ", failed)


def test_tiny_tasks(said):
    assert pattern(said, r"100 workers: .*s", r"4 workers: .*s", r"Sequential: .*s")


@ours
def test_cancel_and_bound(said):
    assert pattern(said, "a third one that waits: QueueFull", "cancelled while it waits: True",
                   "cancelled while it runs: False", r"the other one: 0\.02",
                   r"ten naps of 0.02 s with room for two: submitted after \d+\.\d\d s",
                   r"first squares: \[0, 1, 4, 9, 16, 25\]",
                   r"taken from the endless generator: 10")


@ours
def test_quicksort(said):
    assert said == ["sorted: True", "a task that waits for itself: DeadlockError"]


def test_primes_three_ways(said):
    assert pattern(said, *(rf"{how}: .*s, Total primes: 2262"
                           for how in ("Sequential", "Threads", "Processes")))


def test_chunk_table(said):
    assert pattern(said, r"max_workers chunk_size num_tasks num_calc Execution time\(sec\)",
                   r"1 1 100 1,000 \d+\.\d{3}", r"2 1 1,000 100 \d+\.\d{3}",
                   r"2 100 1,000 100 \d+\.\d{3}")


def test_contour(said):
    assert sorted(said[:-1]) == [f"Processed: processed/mandelbrot_{n:02}.jpg"
                                 for n in range(1, 13)]
    assert said[-1] == "12 pictures, 12 outlines"


def test_pipeline(said):
    assert said[:3] == ["Downloaded 5 datasets", "Processed 5 datasets", "Saved 50 total items"]
    assert said[3:] == [f"result_{n}.json: {{'processed': {n}, 'count': 10}}"
                        for n in (12685, 20785, 2485, 385, 6585)]


@ours
def test_crash(said):
    assert said[:5] == ["crash: WorkerDied, signal 11, exit code None, out of memory: False",
                        "leave: WorkerDied, signal None, exit code 3, out of memory: False",
                        "fail: ValueError('not with this argument')", "finish: 42",
                        "where it crashed:"]
    assert any("in crash" in line for line in said[5:-1])
    assert said[-1] == "two retries: done at attempt 3"


@ours
def test_stop(said):
    assert pattern(said, "worked 0 s", "TaskStopped: .+", r"worked 0\.1 s", r"worked 0\.6 s",
                   "cancel a running task: False", "stop it: True", "its outcome: TaskStopped",
                   "the pool goes on: worked 0 s")


def test_asyncio(said):
    assert re.fullmatch(r"\['0 on ours_\d', '1 on ours_\d', '2 on ours_\d', '3 on ours_\d'\]",
                        said[0])
    assert said[1] == "[10000, 1000000]"
    assert pattern(said[2:], r"The loop was free all the time: \d+\.\d s",
                   r"to_thread on default_\d", r"wrap_future on ours_\d")


def test_shutdown(said):
    assert said == ["The sum of the squares: 333283335000"]
