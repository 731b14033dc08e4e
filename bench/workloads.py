# SPDX-License-Identifier: MIT
"""What is asked of each program, and how the answer is shown."""

from dataclasses import dataclass

ALWAYS = 10**6


@dataclass(frozen=True)
class Workload:
    label: str
    ask: str  # the WORKLOAD argument
    workers: int
    n: int
    quick_n: int
    key: str  # the figure that is compared
    shown: str  # how it is printed
    title: str
    more_is_better: bool = False
    compared: bool = True  # a ratio to cfutures says something
    own: bool = False  # only cfutures can be asked
    pinned: bool = False  # to one CPU
    rounds: int = ALWAYS  # at most so many: memory and idleness do not vary

    @property
    def group(self):
        return self.label.split()[0]


def many(workers):
    return Workload(f"W1 w{workers}", "W1", workers, 10**6, 2 * 10**5, "ns", "{:.0f} ns",
                    f"one producer, empty tasks, a result each, workers: {workers}; ns a task")


def as_completed(n):
    return Workload(f"Wa {n}", "Wa", 2, n, n, "ns", "{:.0f} ns",
                    f"results of {n} futures as they complete", own=True)


def chunk(size, workers):
    return Workload(f"Wc {size or 'chosen'} w{workers}", f"Wc{size}", workers, 4 * 10**5, 10**5,
                    "ns", "{:.0f} ns", f"lazy map in chunks of {size}", own=True)


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
    Workload("W7 wait", "W7w", 2, 6400, 3200, "vs_ideal", "{:.3f}", "W7 by one cf_wait", own=True),
    Workload("W7 map", "W7m", 2, 6400, 3200, "vs_ideal", "{:.3f}", "W7 by cf_map", own=True),
    Workload("Wf", "Wf", 2, 10**7, 10**6, "growth_kib", "{:.0f} KiB",
             "growth of memory over many tasks, awaited in windows", compared=False, rounds=1),
    Workload("Wf dropped", "Wfd", 2, 10**7, 10**6, "growth_kib", "{:.0f} KiB",
             "the same with futures let go unread", compared=False, rounds=1),
    Workload("Wi", "Wi", 2, 2000, 500, "cpu_ms", "{:.2f} ms",
             "CPU time that an idle pool uses after a burst", compared=False, rounds=3),
    *[as_completed(n) for n in (500, 2000, 8000, 32000, 64000)],
    *[chunk(size, workers) for size in (1, 10, 100, 0) for workers in (1, 2)],
]

GROUPS = list(dict.fromkeys(workload.group for workload in WORKLOADS))
