# SPDX-License-Identifier: MIT
"""The same random program on the standard module and on cfutures: they must say the same.

A seed that has shown a difference once stays in its list.
"""
import difflib
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from support import IMPLEMENTATION, LIMIT, LONG, ours

PROGRAM = pathlib.Path(__file__).with_name("random_program.py")
SEEDS = {"futures": range(25), "threads": range(25), "processes": range(12)}
MORE = 100


def lines(implementation, kind, seeds):
    """What the programs of some seeds print; they run one after the other in one interpreter."""
    paths = os.pathsep.join([str(PROGRAM.parent), *filter(None, sys.path)])
    environment = dict(os.environ, CFUTURES_TEST_IMPL=implementation, PYTHONPATH=paths)
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, PROGRAM, kind, *map(str, seeds)],
            text=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            timeout=6 * LIMIT if LONG else LIMIT,
        )
        errors.seek(0)
        assert done.returncode == 0, errors.read()
    return done.stdout.splitlines()


@ours
@pytest.mark.timeout(600 if LONG else 90)
@pytest.mark.parametrize("kind", SEEDS)
def test_random_programs(kind):
    seeds = range(MORE) if LONG else SEEDS[kind]
    standard = lines("concurrent.futures", kind, seeds)
    tested = lines(IMPLEMENTATION, kind, seeds)
    difference = difflib.unified_diff(standard, tested, "standard", IMPLEMENTATION, "", "", 1, "")
    text = "\n".join(list(difference)[:40])
    if text:
        pytest.fail(text, pytrace=False)
