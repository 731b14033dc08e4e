# SPDX-License-Identifier: MIT
"""The thread pool beside other pools of threads."""

from report import number, overview, table
from workloads import BASE, Part, Workload

PACKAGES = {  # each peer, and what Debian calls the packages that it needs
    "cfutures": [],
    "pthread-future": [],
    "asio-future": ["libboost-dev"],
    "pthread-queue": [],
    "glib": ["libglib2.0-dev"],
    "libuv": ["libuv1-dev"],
    "asio-post": ["libboost-dev"],
    "tbb-enqueue": ["libtbb-dev"],
    "tbb": ["libtbb-dev"],
    "openmp-gomp": ["gcc"],
    "openmp-libomp": ["clang", "libomp-dev"],
}


def many(workers):
    return Workload(f"W1 w{workers}", "W1", workers, 10**6, 2 * 10**5, "ns", "{:.0f} ns",
                    f"one producer, empty tasks, a result each, workers: {workers}; ns a task")


def as_completed(n):
    return Workload(f"Wa {n}", "Wa", 2, n, n, "ns", "{:.0f} ns",
                    f"results of {n} futures as they complete", only=(BASE,))


def chunk(size, workers):
    return Workload(f"Wc {size or 'chosen'} w{workers}", f"Wc{size}", workers, 4 * 10**5, 10**5,
                    "ns", "{:.0f} ns", f"lazy map in chunks of {size}", only=(BASE,))


WORKLOADS = [
    many(1),
    many(2),
    many(4),
    Workload("W2", "W2", 2, 10**5, 2 * 10**4, "ns", "{:.0f} ns",
             "submit one, wait for it, again, a core is free to spin; ns there and back"),
    Workload("W2 pinned", "W2", 2, 10**5, 2 * 10**4, "ns", "{:.0f} ns",
             "the same with all threads on one CPU; ns there and back", pinned=True),
    Workload("W3", "W3", 2, 27, 22, "ns", "{:.0f} ns",
             "fib by tasks that wait for tasks, 2 workers; ns a task"),
    Workload("W4", "W4", 2, 10**6, 2 * 10**5, "ns", "{:.0f} ns",
             "four producers, 2 workers; ns a task"),
    Workload("W5", "W5", 2, 10**7, 2 * 10**6, "speedup", "{:.2f}x",
             "map over ints, a function pointer called for each; 2 workers against one loop",
             more_is_better=True),
    Workload("W5r", "W5r", 2, 10**7, 2 * 10**6, "speedup", "{:.2f}x",
             "the same by ranges, the body inlined; 2 workers against one loop",
             more_is_better=True),
    Workload("W6", "W6", 1, 10**6, 2 * 10**5, "bytes", "{:.0f} B",
             "memory of a queued task", rounds=3),
    Workload("W7", "W7", 2, 6400, 3200, "vs_ideal", "{:.3f}",
             "one task in 64 is 1000 times longer; time as a multiple of the ideal"),
    Workload("W7 wait", "W7w", 2, 6400, 3200, "vs_ideal", "{:.3f}", "W7 by one cf_wait",
             only=(BASE,)),
    Workload("W7 map", "W7m", 2, 6400, 3200, "vs_ideal", "{:.3f}", "W7 by cf_map", only=(BASE,)),
    Workload("Wf", "Wf", 2, 10**7, 10**6, "growth_kib", "{:.0f} KiB",
             "growth of memory over many tasks, awaited in windows", compared=False, rounds=1),
    Workload("Wf dropped", "Wfd", 2, 10**7, 10**6, "growth_kib", "{:.0f} KiB",
             "the same with futures let go unread", compared=False, rounds=1),
    Workload("Wi", "Wi", 2, 2000, 500, "cpu_ms", "{:.2f} ms",
             "CPU time that an idle pool uses after a burst", compared=False, rounds=3),
    *[as_completed(n) for n in (500, 2000, 8000, 32000, 64000)],
    *[chunk(size, workers) for size in (1, 10, 100, 0) for workers in (1, 2)],
]


def skew(results):
    """W7 again, by the other two ways to wait."""
    ways = [w for w in WORKLOADS if w.only and w.group == "W7" and results.was_run(w)]
    rows = [[w.title, w.shown.format(results.median(w, BASE))] for w in ways]
    return table(["W7 otherwise", "multiple of the ideal"], rows) if rows else ""


def as_completed_table(results):
    columns = {
        "ns": "submit and iterate, ns a future",
        "iterate_ns": "iterate alone",
        "done_ns": "all done before",
        "install_ns": "none done: to begin",
        "drain_ns": "then to the end",
        "wait_us": "cf_wait for the first, one is done, us a call",
    }
    sizes = [w for w in WORKLOADS if w.group == "Wa" and results.was_run(w)]
    rows = [[w.label.split()[1], *(number(results.median(w, BASE, key)) for key in columns)]
            for w in sizes]
    return table(["Wa: futures", *columns.values()], rows) if rows else ""


def chunk_table(results):
    done = [w for w in WORKLOADS if w.group == "Wc" and results.was_run(w)]
    rows = [[w.label.split()[1], str(w.workers),
             *(number(results.median(w, BASE, key)) for key in ("ns", "serial_ns", "speedup"))]
            for w in done]
    header = ["Wc: chunk size", "workers", "ns a task", "the same in a loop", "speed-up"]
    return table(header, rows) if rows else ""


def tables(results):
    return [overview(results), skew(results), as_completed_table(results), chunk_table(results)]


PART = Part(
    name="threads",
    title="Threads: cfutures beside other pools",
    target="bench",
    prefix="bench_",
    packages=PACKAGES,
    workloads=WORKLOADS,
    tables=tables,
    rounds=5,
    quick_rounds=3,
    time_limit=120,
)
