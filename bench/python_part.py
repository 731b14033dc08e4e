# SPDX-License-Identifier: MIT
"""The Python package beside the standard module and others with such pools."""

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import machine
from report import cell, number, shared_workloads, table
from workloads import BASE, Part, Workload

STANDARD = "standard"  # concurrent.futures, which the bars are multiples of
PACKAGES = {  # each peer, and what Debian calls the packages that it needs
    BASE: ["python3-dev"],
    STANDARD: ["python3"],
    "hand-made": ["python3"],
    "multiprocessing": ["python3"],
    "loky": ["python3-joblib"],
    "dask": ["python3-distributed"],
}
FUTURES = (BASE, STANDARD)  # who has futures to wait for in all these ways
THREADS = (*FUTURES, "hand-made", "multiprocessing")
PROCESSES = (*FUTURES, "multiprocessing", "loky")
BENCH = Path(__file__).resolve().parent
MEASURE = BENCH / "python" / "measure.py"
DEBIAN = "/usr/bin/python3"
METHODS = ("fork", "forkserver", "spawn")
SIZES = {"1 KiB": 2**10, "64 KiB": 2**16, "1 MiB": 2**20, "16 MiB": 2**24, "64 MiB": 2**26}


def usual_python():
    """The distribution's, where there is one: others in the PATH may be built in other ways."""
    return DEBIAN if os.path.exists(DEBIAN) else "python3"


# ---- what is asked -------------------------------------------------------------------------------


def threads(label, function, workers, n, title, key="us", only=FUTURES, **more):
    shown = more.pop("shown", "{:.3g} us")
    return Workload(label, "threads." + function, workers, n, more.pop("quick_n", n // 5), key,
                    shown, title, only=only, **more)


def processes(label, function, workers, n, title, key="us", only=PROCESSES, **more):
    shown = more.pop("shown", "{:.3g} us")
    return Workload(label, "processes." + function, workers, n, more.pop("quick_n", n // 4), key,
                    shown, title, only=only, **more)


def submit(workers):
    return threads(f"T1 w{workers}", "submit", workers, 100000, only=THREADS,
                   title=f"submit empty tasks, then read the results, workers: {workers}; us each")


def mapped(workers):
    return threads(f"T3 w{workers}", "map_results", workers, 100000, only=THREADS,
                   title=f"map a tiny function, workers: {workers}; us a task")


def memory(what):
    return threads(f"T6 {what}", f"memory_{what}", 1, 200000, key="bytes", shown="{:.0f} B",
                   title=f"memory of a {what} future", rounds=3)


def submit_to_processes(method):
    only = (*PROCESSES, "dask") if method == "fork" else (*FUTURES, "multiprocessing")
    return processes(f"Q1 {method}", f"submit:{method}", 2, 10000, only=only, slow_n=500,
                     title=f"10,000 empty tasks, then all results, by {method}; us a task")


def mapped_in_chunks(size):
    return processes(f"Q3 {size}", f"map_results:{size}", 2, 50000,
                     title=f"map a tiny function, chunksize {size}; us a task")


def payload(function, name, title):
    size = SIZES[name]
    n = max(4, min(2000, 2**28 // size))
    word = function.replace("payload_", "").replace("_", " ")
    return processes(f"Q4 {word} {name}", f"{function}:{size}", 1, n, f"{name} {title}", "mbps",
                     shown="{:.0f} MB/s", more_is_better=True, quick_n=max(4, n // 4))


def start(method, which, key):
    only = PROCESSES if method == "fork" else (*FUTURES, "multiprocessing")
    import_too = " and the import" if which == "first" else ""
    title = f"{method}: from nothing to a first result, {which} pool of the program{import_too}"
    return processes(f"Q5 {method}{' first' * (which == 'first')}", f"start:{method}", 2, 5, title,
                     key, only, shown="{:.3g} ms", quick_n=3)


def killed(label, ask, title, only):
    return processes(label, ask, 2, 100, title, "results", only, shown="{:.0f}", compared=False,
                     rounds=1, quick_n=100)


def chunk_label(workers, chunk, count, calculations):
    return f"Q8 {workers} {chunk} {count} {calculations}"


def chunk(workers, size, count, calculations):
    label = chunk_label(workers, size, count, calculations)
    title = "the article's table: max_workers, chunk_size, num_tasks, num_calc"
    return processes(label, f"chunks:{size}:{calculations}", workers, count, title, "s",
                     shown="{:.3f} s", rounds=3)


LARGE, SMALL = (100, 100000), (10000, 1000)  # tasks, calculations in each
CHUNKS = [(workers, size, *what) for what, sizes in ((LARGE, (1, 10)), (SMALL, (1, 10, 100)))
          for size in sizes for workers in (1, 2)]

WORKLOADS = [
    *[submit(workers) for workers in (1, 2, 8)],
    threads("T1 from 4", "submit_from_threads", 2, 100000, only=THREADS,
            title="the same from four threads to 2 workers; us a task"),
    threads("T2", "round_trip", 1, 20000, only=THREADS,
            title="submit one, wait for it, again, a core is free to spin; us there and back"),
    threads("T2 pinned", "round_trip", 1, 20000, only=THREADS, pinned=True,
            title="the same on one CPU, so that each has to sleep; us there and back"),
    *[mapped(workers) for workers in (1, 2, 8)],
    threads("T4 as_completed", "in_order_of_completion", 2, 20000,
            "submit and as_completed; us a future"),
    threads("T4 as_completed, done", "in_order_of_completion", 2, 20000,
            "as_completed of futures that are done; us a future", "done_us"),
    threads("T4 wait", "wait_for_all", 2, 20000, "submit and wait for all; us a future"),
    threads("T4 wait, done", "wait_for_all", 2, 20000,
            "wait for futures that are done; us a future", "done_us"),
    threads("T4 drain", "drain", 1, 4000, quick_n=1000, rounds=3,
            title="wait for the first of those that are left, until none is left; us a future"),
    threads("T4 one by one", "one_by_one", 1, 4000,
            "as_completed of futures that complete one at a time; us a future"),
    threads("T5 callback", "callbacks", 1, 100000,
            "add a callback, run task and callback; us a task"),
    threads("T5 future", "future_alone", 1, 100000, "a Future alone: made, set, read; us"),
    memory("pending"),
    memory("finished"),
    threads("T7", "start_and_stop", 8, 200, only=THREADS,
            title="start, a task for each of 8 workers, stop; us a pool"),
    threads("T8 sleep", "sleepers", 8, 64, "64 sleeps of 10 ms in 8 threads; multiple of the ideal",
            "vs_ideal", THREADS, shown="{:.3f}", quick_n=64, rounds=3),
    threads("T8 web", "downloads", 32, 400, "downloads by 32 threads; ms each", "ms", THREADS,
            shown="{:.3g} ms", rounds=3),
    *[submit_to_processes(method) for method in METHODS],
    processes("Q2", "round_trip", 1, 3000, only=(*PROCESSES, "dask"), slow_n=100,
              title="submit one, wait for it, again, one worker; us there and back"),
    processes("Q2 of 2", "round_trip", 2, 3000, "the same with two workers"),
    processes("Q2 pinned", "round_trip", 1, 3000, "the same with one worker on one CPU",
              pinned=True),
    *[mapped_in_chunks(size) for size in (1, 10, 100, 1000)],
    *[payload("payload_in", name, "of bytes to a worker") for name in SIZES],
    *[payload("payload_out", name, "of bytes from a worker") for name in SIZES],
    payload("array_in", "16 MiB", "of numpy to a worker"),
    payload("array_out", "16 MiB", "of numpy from a worker"),
    *[start(method, which, key) for method in METHODS
      for which, key in (("first", "very_first_ms"), ("later", "ms"))],
    killed("Q6", "killed", "100 tasks, SIGKILL to one of 2 workers: results", (*FUTURES, "loky")),
    killed("Q6 replace", "killed:on_crash=replace", "the same, on_crash=replace", (BASE,)),
    killed("Q6 retry", "killed:on_crash=retry", "the same, on_crash=retry", (BASE,)),
    processes("Q7 primes", "primes", 2, 20, "prime counting by map", "s", shown="{:.3f} s",
              rounds=3),
    processes("Q7 images", "images", 2, 60, "a filter of Pillow by map", "s", shown="{:.3f} s",
              rounds=3),
    processes("Q7 pipeline", "pipeline", 2, 200, "download, count words, write: three stages", "s",
              FUTURES, shown="{:.3f} s", rounds=3),
    *[chunk(*row) for row in CHUNKS],
]
BY_LABEL = {workload.label: workload for workload in WORKLOADS}

NO_SLOWER = 0.95  # the same program beside itself differs by as much

BARS = {  # label -> at least so many times better than the standard module
    **dict.fromkeys(["T1 w1", "T1 w2", "T1 w8", "T1 from 4"], 25),
    "T2": 10, "T2 pinned": 3,
    **dict.fromkeys(["T3 w1", "T3 w2", "T3 w8"], 25),
    **dict.fromkeys([label for label in BY_LABEL if label.startswith(("T4 as", "T4 wait"))], 10),
    "T4 drain": 50,
    **{f"Q1 {method}": 20 for method in METHODS},
    "Q2": 10, "Q3 1": 30,
    **dict.fromkeys([label for label in BY_LABEL if label.startswith("Q4") and "MiB" in label], 5),
    **dict.fromkeys([label for label in BY_LABEL if label.startswith("Q5")], NO_SLOWER),
    **dict.fromkeys([chunk_label(*row) for row in CHUNKS], NO_SLOWER),
    chunk_label(2, 1, 10000, 1000): 2.5,
}
BYTES = {"T6 pending": 400, "T6 finished": 400}  # at most
BESIDE_BEST_CHUNK = 1.2  # Q3 1, at most


# ---- the tables ----------------------------------------------------------------------------------


def rounds_of(results, label, peer):
    """Round -> figure."""
    key = BY_LABEL[label].key
    return {r: given[key] for r, given in results.values.get((label, peer), {}).items()}


def times_better(results, label, peer):
    ours, theirs = rounds_of(results, label, BASE), rounds_of(results, label, peer)
    more = BY_LABEL[label].more_is_better
    return [ours[r] / theirs[r] if more else theirs[r] / ours[r] for r in ours if r in theirs]


def nearest(results, label):
    """The best of the others, which the standard module is not always."""
    others = [(statistics.median(times), peer) for peer in results.peers
              if peer not in FUTURES and (times := times_better(results, label, peer))]
    return "{1} {0:.3g}".format(*min(others)) if others else ""


def verdict(reached):
    return "reached" if reached else "**not reached**"


def row(label, shown, bar, figures, reached, besides=""):
    median, *ends = (f(figures) for f in (statistics.median, min, max))
    return [[label, *shown, bar, number(median), *map(number, ends), verdict(reached(median)),
             besides]]


def medians(results, label):
    return [BY_LABEL[label].shown.format(results.median(BY_LABEL[label], peer)) for peer in FUTURES]


def bar_row(results, label, bar):
    times = times_better(results, label, STANDARD)
    if not times:
        return []
    return row(label, medians(results, label), f"≥ {bar:g}", times, lambda median: median >= bar,
               nearest(results, label))


def memory_row(results, label, bar):
    figures = results.figures(BY_LABEL[label], BASE)
    if not figures or not times_better(results, label, STANDARD):
        return []
    return row(label, medians(results, label), f"≤ {bar} B", figures, lambda median: median <= bar)


def best_chunk_row(results):
    one = rounds_of(results, "Q3 1", BASE)
    others = [rounds_of(results, f"Q3 {size}", BASE) for size in (10, 100, 1000)]
    times = [one[r] / min(one[r], *(other[r] for other in others)) for r in one
             if all(r in other for other in others)]
    if not times:
        return []
    return row("Q3 1 beside the best chunksize", ["", ""], f"≤ {BESIDE_BEST_CHUNK}", times,
               lambda median: median <= BESIDE_BEST_CHUNK)


def bar_table(results):
    rows = [row for label in BY_LABEL
            for row in (bar_row(results, label, BARS[label]) if label in BARS else
                        memory_row(results, label, BYTES[label]) if label in BYTES else [])]
    rows += best_chunk_row(results)
    header = ["", BASE, STANDARD, "should be", "is", "lowest", "highest", "", "the best other"]
    return table(header, rows) if rows else ""


def overview(results):
    """One row a workload: there are more of them than peers."""
    rows = [[w.label, *(cell(results, w, peer) for peer in results.peers)]
            for w in [*shared_workloads(results), *only_ours(results)]]
    return table(["", *results.peers], rows)


def only_ours(results):
    return [w for w in WORKLOADS if w.only == (BASE,) and results.was_run(w)]


def tables(results):
    return [bar_table(results), overview(results)]


# ---- who is asked --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PythonPart(Part):
    python: str = ""  # the interpreter

    def ask(self, program):
        command = [self.python, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def ready(self, options):
        part = replace(self, python=options.python)
        version = part.ask("import sys; print('Python %d.%d' % sys.version_info[:2])")
        return replace(part, title=f"{version}: cfutures beside concurrent.futures and other pools")

    def package(self, build):
        return build / self.title.partition(":")[0].lower().replace(" ", "-")

    def build(self, directory):
        """Compiled as an installation is, so that imports cost what they do there."""
        package = self.package(directory)
        for command in ([BENCH.parent / "scripts" / "build-python", self.python, package],
                        [self.python, "-m", "compileall", "-q", package, MEASURE.parent]):
            subprocess.run(command, check=True, stdout=sys.stderr)

    def compiler(self, build):
        """That of the extension: each kind of interpreter has a build directory."""
        kind = self.ask("import sysconfig; print(sysconfig.get_config_var('SOABI'))")
        return machine.compiler(BENCH.parent / "build" / "python" / kind)

    def program(self, build, peer):
        path = f"PYTHONPATH={self.package(build)}"
        return ["env", path, self.python, "-W", "ignore", MEASURE, peer]

    def has(self, build, peer):
        asked = subprocess.run(self.version_command(build, peer), capture_output=True)
        return asked.returncode == 0

    def version_command(self, build, peer):
        return [*self.program(build, peer), "version"]

    def command(self, build, peer, workload):
        pin = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if workload.pinned else []
        return [*pin, *self.program(build, peer)]


PART = PythonPart(
    name="python",
    title="Python",
    target=None,
    prefix="",
    packages=PACKAGES,
    workloads=WORKLOADS,
    tables=tables,
    rounds=5,
    quick_rounds=3,
    time_limit=120,
    slow=("dask",),
)
