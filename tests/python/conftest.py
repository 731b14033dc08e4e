# SPDX-License-Identifier: MIT
"""For every file of tests: which package is tested, and that no process of it stays."""
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import pathlib
import sys

import pytest
from support import alive, describe, futures, until


def pytest_report_header():
    return f"tested: {futures.__file__} with {sys.executable}"


def children():
    """The processes that this one has started, but for those that multiprocessing keeps."""
    found = set()
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except OSError:  # the thread has just ended
            pass
    kept = {
        multiprocessing.forkserver._forkserver._forkserver_pid,
        multiprocessing.resource_tracker._resource_tracker._pid,
    }
    return {pid for pid in found - kept if alive(pid)}


@pytest.fixture(autouse=True, scope="module")
def nothing_stays():
    """Once all tests of a file have run and let go of their pools, their workers are gone."""
    before = children()
    yield
    gc.collect()
    assert until(lambda: children() <= before), describe(children() - before)
