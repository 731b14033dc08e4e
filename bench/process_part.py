# SPDX-License-Identifier: MIT
"""The process pool beside other ways to have tasks run in other processes."""

import os
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from report import cell, shared_workloads, table
from workloads import BASE, Part, Workload

PACKAGES = {  # each peer, and what Debian calls the packages that it needs
    "cfutures": [],
    "pipe": [],
    "socketpair": [],
    "fork": [],
    "mpi": ["libopenmpi-dev", "openmpi-bin"],
    "python": ["python3"],
    "ring": [],
    "futex": [],
    "eventfd": [],
}
WAKERS = ("futex", "eventfd")  # a bare there and back
SIZES = {"64 KiB": 2**16, "1 MiB": 2**20, "64 MiB": 2**26}
SCRIPT = Path(__file__).resolve().parent / "processes" / "peers" / "python_pool.py"


# ---- who is asked ----------------------------------------------------------------------------------


def python_command(*_):
    """The distribution's, where there is one: others in the PATH may be built in other ways."""
    debian = "/usr/bin/python3"
    return [debian if os.path.exists(debian) else "python3", SCRIPT]


def mpi_command(program, workload):
    """As many processes as workers and one more, on this machine, more than it has cores."""
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True)
    flags = ["--allow-run-as-root", "--oversubscribe"] if "Open MPI" in version.stdout else []
    return ["mpirun", *flags, "-np", str(workload.workers + 1), program]


# ---- what is asked ---------------------------------------------------------------------------------


def round_trip(label, ask, title, n=20000, slow_n=500, **more):
    return Workload(label, ask, more.pop("workers", 1), n, n // 4, "ns", "{:.0f} ns", title,
                    slow_n=slow_n, **more)


def payload(direction, name):
    size = SIZES[name]
    n = max(6, min(300, 2**27 // size))
    words = {"in": "there, read by the worker", "out": "made by the worker, back, read here"}
    return Workload(f"P3{direction} {name}", f"P3{direction}:{size}", 1, n, max(3, n // 4), "gbps",
                    "{:.2f} GB/s", f"{name} {words[direction]}", more_is_better=True,
                    slow_n=max(2, n // 10))


BATCHES = {  # label -> what is asked, tasks, tasks of the quick run, of slow peers
    "0": ("P4:0", 51200, 12800, 640),
    "1 us": ("P4:1", 51200, 12800, 640),
    "10 us": ("P4:10", 10240, 5120, 640),
    "100 us": ("P4:100", 1280, 1280, 640),
    "1 ms": ("P4:1000", 256, 128, 128),
    "1 us mixed": ("P4m:1", 12800, 6400, 640),
    "10 us mixed": ("P4m:10", 2560, 1280, 640),
}
WAYS = {"map": "by one cf_map", "lazy": "by cf_map_from"}


def batch(name):
    ask, n, quick_n, slow_n = BATCHES[name]
    if name == "0":
        return Workload("P4 0", ask, 2, n, quick_n, "ns", "{:.0f} ns",
                        "no work at all, ns a task; the ideal would be that of a loop",
                        slow_n=slow_n)
    mixed = ", one in 64 takes 1000 times as long" if "mixed" in name else ""
    return Workload(f"P4 {name}", ask, 2, n, quick_n, "vs_ideal", "{:.3f}",
                    f"tasks of {name.removesuffix(' mixed')}{mixed}; time as a multiple of the ideal",
                    slow_n=slow_n)


def mapped(name, way):
    ask, n, quick_n, _ = BATCHES[name]
    key, shown = ("ns", "{:.0f} ns") if name == "0" else ("vs_ideal", "{:.3f}")
    return Workload(f"P4 {name} {way}", ask.replace(":", way + ":"), 2, n, quick_n, key, shown,
                    f"the same {WAYS[way]}", only=(BASE,))


def chunk_label(workers, chunk, tasks, calculations):
    return f"P5 {workers} {chunk} {tasks} {calculations}"


def chunk(workers, size, tasks, calculations):
    quick = tasks if tasks < 1000 else tasks // 10
    who = (BASE, "python") if size and calculations > 100 else (BASE,)
    return Workload(chunk_label(workers, size, tasks, calculations), f"P5:{calculations}/{size}",
                    workers, tasks, quick, "s", "{:.3f} s", "", only=who, rounds=3)


LARGE, SMALL, TINY = (100, 100000), (10000, 1000), (200000, 10)  # tasks, calculations in each
CHUNKS = {LARGE: (1, 10, 0), SMALL: (1, 10, 100, 0), TINY: (1, 10, 100, 1000, 0)}

WORKLOADS = [
    Workload("P1", "P1", 2, 50000, 20000, "ns", "{:.0f} ns",
             "64 bytes there and back, 2 workers: all submitted, then all results read; ns a task",
             slow_n=800),
    Workload("P1 window", "P1w:256", 2, 200000, 50000, "ns", "{:.0f} ns",
             "the same, 256 of them at most under way; ns a task", slow_n=4000),
    round_trip("P2", "P2", "submit one, wait for it, again; ns there and back"),
    round_trip("P2 of 2", "P2", "the same with two workers", workers=2),
    round_trip("P2 pinned", "P2", "the same on one CPU, so that each has to sleep", pinned=True),
    round_trip("P2 paused", "P2p", "each after half a millisecond of sleep; ns there and back",
               n=400, slow_n=200),
    *[payload("in", name) for name in SIZES],
    *[payload("out", name) for name in SIZES],
    *[batch(name) for name in BATCHES],
    *[mapped(name, way) for name in BATCHES for way in WAYS],
    Workload("P4 last", "P4last:10", 2, 2000, 2000, "vs_ideal", "{:.2f}",
             "2000 tasks of 10 us and among them one of 200 ms: when the last short one is back",
             slow_n=1000),
    *[chunk(workers, size, *tasks) for tasks, sizes in CHUNKS.items() for size in sizes
      for workers in (1, 2)],
    Workload("P6", "P6", 2, 20, 5, "us", "{:.0f} us", "from nothing to a first result",
             slow_n=10),
    Workload("P6 killed", "P6r:0", 1, 20, 5, "us", "{:.0f} us",
             "a worker is killed: to the next task's result", slow_n=5),
    Workload("P6 killed, 1 GiB", "P6r:1024", 1, 20, 5, "us", "{:.0f} us",
             "the same with 1 GiB of memory in use by the pool's process", slow_n=5),
    Workload("P7", "P7", 2, 2000, 500, "cpu_ms", "{:.1f} ms",
             "CPU time of all of the pool's processes in two idle seconds, a while after a burst",
             compared=False, only=(BASE, "pipe", "mpi"), rounds=1),
]


# ---- the tables ------------------------------------------------------------------------------------


def overview(results):
    """One row a workload: there are more of them than peers."""
    rows = [[w.label, *(cell(results, w, peer) for peer in results.peers)]
            for w in shared_workloads(results)]
    return table(["", *results.peers], rows)


def values(results, label, key, peer=BASE):
    """Round -> figure."""
    return {number: given[key] for number, given in results.values.get((label, peer), {}).items()}


def mapped_table(results):
    rows = []
    for name in BATCHES:
        row = [name]
        for label in (f"P4 {name}", *(f"P4 {name} {way}" for way in WAYS)):
            key = "ns" if name == "0" else "vs_ideal"
            figures = values(results, label, key).values()
            row.append(f"{statistics.median(figures):.3g}" if figures else "")
        rows.append(row)
    header = ["P4: tasks of", "submitted one by one", *WAYS.values()]
    shown = any(any(row[1:]) for row in rows)
    return table(header, rows) + "\n\n(0: ns a task; else multiples of the ideal.)" if shown else ""


def seconds(results, peer, *which):
    figures = values(results, chunk_label(*which), "s", peer).values()
    return f"{statistics.median(figures):.3f}" if figures else ""


def chunk_table(results):
    rows = []
    for tasks, sizes in CHUNKS.items():
        for size in sizes[:-1]:
            for workers in (1, 2):
                rows.append([str(workers), str(size), *map(str, tasks),
                             seconds(results, BASE, workers, size, *tasks),
                             seconds(results, BASE, workers, 0, *tasks),
                             seconds(results, "python", workers, size, *tasks)])
    if not any(row[4] for row in rows):
        return ""
    return table(["max_workers", "chunk_size", "num_tasks", "num_calc", "seconds",
                  "without a chunk_size", "Python"], rows)


# ---- what it should be -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    what: str
    figures: dict  # round -> figure
    bar: float
    more_is_better: bool = False
    shown: str = "{:.3g}"

    def row(self):
        median = statistics.median(self.figures.values())
        met = median >= self.bar if self.more_is_better else median <= self.bar
        texts = [self.shown.format(f) for f in (self.bar, median, min(self.figures.values()),
                                                max(self.figures.values()))]
        return [self.what, ("≥ " if self.more_is_better else "≤ ") + texts[0], *texts[1:],
                "yes" if met else "no"]


def quotients(above, below):
    return {number: above[number] / below[number] for number in above if below.get(number)}


def least(*rounds):
    return {n: min(each[n] for each in rounds if n in each) for n in set().union(*rounds)}


def beside_wakers(results, label):
    bare = least(*(values(results, label, "ns", peer) for peer in WAKERS))
    return quotients(values(results, label, "ns"), bare)


def chunk_bars(results, name, tasks):
    by_size = {size: values(results, chunk_label(2, size, *tasks), "s") for size in CHUNKS[tasks]}
    best = least(*(by_size[size] for size in CHUNKS[tasks] if size))
    alone = values(results, chunk_label(1, 1, *tasks), "s")
    return [
        Bar(f"P5, {name} tasks: chunk_size 1 beside the best", quotients(by_size[1], best), 1.1),
        Bar(f"P5, {name} tasks: no chunk_size beside the best", quotients(by_size[0], best), 1.1),
        Bar(f"P5, {name} tasks, chunk_size 1: speed-up of the second worker",
            quotients(alone, by_size[1]), 1.5, True),
    ]


def all_bars(results):
    killed = [values(results, label, "us") for label in ("P6 killed", "P6 killed, 1 GiB")]
    yield Bar("P1: ns a task (aim 300)", values(results, "P1", "ns"), 600)
    yield Bar("P1 window: ns a task", values(results, "P1 window", "ns"), 600)
    yield Bar("P2: ns there and back", values(results, "P2", "ns"), 1200, shown="{:.0f}")
    for label in ("P2 pinned", "P2 paused"):
        yield Bar(f"{label}: multiple of a bare futex or eventfd", beside_wakers(results, label), 1.3)
    for direction, bar in (("in", 3), ("out", 5)):
        for name in ("1 MiB", "64 MiB"):
            label = f"P3{direction} {name}"
            yield Bar(f"{label}: GB/s", values(results, label, "gbps"), bar, True)
    for name in list(BATCHES)[1:]:
        for label in (f"P4 {name}", *(f"P4 {name} {way}" for way in WAYS)):
            yield Bar(f"{label}: multiple of the ideal", values(results, label, "vs_ideal"), 1.1)
    yield Bar("P4 last: multiple of the ideal", values(results, "P4 last", "vs_ideal"), 1.1)
    yield from chunk_bars(results, "small", SMALL)
    yield from chunk_bars(results, "tiny", TINY)
    yield Bar("P6: us to the first result", values(results, "P6", "us"), 5000, shown="{:.0f}")
    yield Bar("P6 killed: us", killed[0], 2000, shown="{:.0f}")
    yield Bar("P6 killed, 1 GiB: us", killed[1], 2000, shown="{:.0f}")
    yield Bar("P6 killed: 1 GiB beside little memory", quotients(killed[1], killed[0]), 1.2)
    yield Bar("P7: wake-ups", values(results, "P7", "wakeups"), 0)
    yield Bar("P7: ms of CPU time", values(results, "P7", "cpu_ms"), 0)


def bar_table(results):
    rows = [bar.row() for bar in all_bars(results) if bar.figures]
    header = ["cfutures", "should be", "median", "lowest", "highest", "met"]
    return table(header, rows) if rows else ""


def tables(results):
    return [bar_table(results), overview(results), mapped_table(results), chunk_table(results)]


class ProcessPart(Part):
    def program(self, build, peer):
        """Two of them need something that is not built here."""
        if peer == "python":
            return SCRIPT
        program = super().program(build, peer)
        return program if peer != "mpi" or shutil.which("mpirun") else program / "without mpirun"

    def version_command(self, build, peer):
        if peer == "python":
            return [*python_command(), "version"]
        return super().version_command(build, peer)


PART = ProcessPart(
    name="processes",
    title="Processes: cfutures beside other ways to use them",
    target="bench_processes",
    prefix="processes_",
    packages=PACKAGES,
    workloads=WORKLOADS,
    tables=tables,
    rounds=3,
    quick_rounds=1,
    time_limit=30,
    slow=("fork", "python"),
    commands={"python": python_command, "mpi": mpi_command},
)
