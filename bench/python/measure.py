# SPDX-License-Identifier: MIT
"""One measurement.  usage: measure.py PEER WORKLOAD[:PARAMETER...] WORKERS N, or PEER version

WORKLOAD names a function: threads.submit is thread_work.submit.  bench/run starts this."""

import importlib
import platform
import sys
import time

import tasks

CANNOT = 2  # what bench/run shows as a dash
WORKLOADS = {"threads": "thread_work", "processes": "process_work"}
PEERS = {
    "cfutures": "cfutures",
    "standard": "concurrent.futures",
    "hand-made": "peers.hand_made",
    "multiprocessing": "peers.multiprocessing_pools",
    "loky": "peers.loky_pool",
    "dask": "peers.dask_pools",
}


def version(peer):
    """What the peer is; an error where it cannot be imported."""
    pools = importlib.import_module(PEERS[peer])
    own = f"{peer} {pools.__version__}" if hasattr(pools, "__version__") else None
    print(getattr(pools, "VERSION", own) or f"Python {platform.python_version()}")


def main():
    if sys.argv[2:] == ["version"]:
        return version(sys.argv[1])
    peer, ask, workers, n = sys.argv[1:]
    name, *parameters = ask.split(":")
    kind, _, function = name.partition(".")
    workloads = importlib.import_module(WORKLOADS[kind])
    tasks.began = time.perf_counter()
    pools = importlib.import_module(PEERS[peer])
    try:
        figures = getattr(workloads, function)(pools, int(workers), int(n), *parameters)
    except ModuleNotFoundError:  # numpy or Pillow
        return CANNOT
    print(peer, ask, workers, n, *(f"{key}={value:.6g}" for key, value in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
