# SPDX-License-Identifier: MIT
"""What is asked of each program, and how the answer is shown."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import machine

ALWAYS = 10**6
BASE = "cfutures"  # who is compared with all others


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
    only: tuple = ()  # nobody else can be asked
    pinned: bool = False  # to one CPU
    rounds: int = ALWAYS  # at most so many: memory and idleness do not vary
    slow_n: int = 0  # for peers that take a hundred times as long; 0: the same

    @property
    def group(self):
        return self.label.split()[0]

    def size(self, quick, slow):
        n = self.quick_n if quick else self.n
        return min(n, self.slow_n) if slow and self.slow_n else n


@dataclass(frozen=True)
class Part:
    """Programs on one harness, and all that they are asked."""

    name: str
    title: str
    target: str | None  # what CMake builds
    prefix: str  # of the programs' names
    packages: dict  # each peer, and what Debian calls the packages that it needs
    workloads: list
    tables: Callable  # of the results, what stands before the details
    rounds: int
    quick_rounds: int
    time_limit: int  # seconds; the programs' own watch, where they have one, ends them earlier
    slow: tuple = ()  # peers
    commands: dict = field(default_factory=dict)  # peer -> function(program, workload) -> command

    @property
    def groups(self):
        return list(dict.fromkeys(workload.group for workload in self.workloads))

    def ready(self, options):
        """The part as it is to be with these options."""
        return self

    def build(self, directory):
        """What remains when CMake has built the target."""

    def compiler(self, directory):
        return machine.compiler(directory)

    def program(self, build, peer):
        return build / "bench" / (self.prefix + peer.replace("-", "_"))

    def has(self, build, peer):
        return self.program(build, peer).exists()

    def version_command(self, build, peer):
        return [self.program(build, peer), "version"]

    def command(self, build, peer, workload):
        program = self.program(build, peer)
        own = self.commands.get(peer)
        command = own(program, workload) if own else [program]
        pin = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if workload.pinned else []
        return [*pin, *command]
