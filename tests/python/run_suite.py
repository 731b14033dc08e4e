#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs CPython's own tests of concurrent.futures, and of what uses it, against cfutures.

    run_suite.py [--python PYTHON] [--self-test] [--match PATTERN] [--log DIRECTORY] [suite...]

PYTHON has to find cfutures (PYTHONPATH says where) and to have its tests (Debian:
libpython3.11-testsuite).  The self-test runs the standard modules, copied under another name, in
the place of cfutures: they must pass.

Some tests start interpreters with -I, which ignores PYTHONPATH.  So everything runs in a virtual
environment in which a .pth file has every interpreter install cfutures at its start.  It also
puts a copy of the suite before the suite, changed in one thing: the tests that CPython skips
because its process pool hangs in them (gh-83386) are run.
"""
import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
INSTALL = HERE.parent.parent / "python" / "cfutures" / "install.py"
EXCUSED = HERE / "suite_excused.txt"
EXCUSED_AT_MOST = 3
RESOURCES = "all,-network,-urlfetch,-audio,-gui"
LIMIT = 900  # seconds for a suite
GONE = 10  # seconds for its last processes to go

SUITES = {  # and options to the test runner
    "test_concurrent_futures": [],
    "test_asyncio.test_base_events": [],
    "test_asyncio.test_events": [],
    "test_asyncio.test_futures": [],
    "test_asyncio.test_runners": [],
    "test_asyncio.test_tasks": [],
    "test_asyncio.test_threads": [],
    # This one fails in every virtual environment.
    "test_compileall": ["-i", "*HardlinkDedupTests*.test_import"],
    "test_context": [],
    "test_genericalias": [],
}

# The default number of workers keeps to the CPUs that this process is granted, so the tests that
# compute it have to count these.
START = """\
import os, test
import {name} as futures
from {name}.install import install
install()
for count in "cpu_count", "process_cpu_count":
    if hasattr(futures, "cpu_count") and hasattr(os, count):
        setattr(os, count, futures.cpu_count)
test.__path__.insert(0, {overlay!r})
with open({log!r}, "a") as log:
    print(os.getpid(), file=log)
"""

Result = collections.namedtuple("Result", "suite passed failed skipped complaints seconds")


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="cfutures-suite-") as directory:
        directory = pathlib.Path(directory)
        python, log = environment(options.python, directory, options.self_test)
        print(ask(python, "import sys, concurrent.futures as futures;"
                  "print(sys.version.split()[0], futures.__name__)"), flush=True)
        with concurrent.futures.ThreadPoolExecutor(2) as executor:  # the tests sleep mostly
            runs = [executor.submit(run, python, suite, directory, options)
                    for suite in options.suites or SUITES]
            results = [future.result() for future in concurrent.futures.as_completed(runs)
                       if report(future.result())]
        processes = len(set(log.read_text().split()))
    return verdict(results, processes, options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the interpreter (this one)")
    parser.add_argument("--self-test", action="store_true", help="run the standard modules")
    parser.add_argument("--match", help="only the tests whose names match")
    parser.add_argument("--log", type=pathlib.Path, help="where to leave the output of the suites")
    parser.add_argument("suites", nargs="*", metavar="suite", help=", ".join(SUITES))
    return parser.parse_args()


# The environment ------------------------------------------------------------------------------

def environment(python, directory, self_test):
    """Make the virtual environment; return its interpreter, and the file that counts them."""
    subprocess.run([python, "-m", "venv", "--without-pip", directory / "venv"], check=True)
    log = directory / "started"
    name = "renamed_futures" if self_test else "cfutures"
    path = renamed(python, directory, name) if self_test else parent(python, name)
    start = START.format(name=name, overlay=str(overlay(python, directory)), log=str(log))
    inside = directory / "venv" / "bin" / "python"
    site = pathlib.Path(ask(inside, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (site / "suite_start.py").write_text(start)
    (site / "suite.pth").write_text(f"{path}\nimport suite_start\n")
    return inside, log


def ask(python, program):
    done = subprocess.run([python, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def parent(python, module):
    """The directory in which an interpreter finds a module."""
    place = pathlib.Path(ask(python, "from importlib.util import find_spec;"
                             f"print(find_spec({module!r}).origin)"))
    return place.parent.parent if place.name == "__init__.py" else place.parent


def renamed(python, directory, name):
    """The standard modules as a package of another name, with our install."""
    package = directory / "renamed" / name
    shutil.copytree(parent(python, "concurrent.futures") / "futures", package)
    for file in package.glob("*.py"):
        text = file.read_text()
        file.write_text(re.sub(r"\b(from|import) concurrent\.futures\b", rf"\1 {name}", text))
    shutil.copy(INSTALL, package)
    return package.parent


def overlay(python, directory):
    """A copy of the suite that runs what it skips because of gh-83386."""
    original = parent(python, "test.test_concurrent_futures")
    copy = directory / "overlay"
    shutil.copytree(original, copy, ignore=lambda place, names: [
        name for name in names if place == str(original)
        and not name.startswith("test_concurrent_futures")])
    changes = 0
    for file in copy.rglob("*.py"):
        text, count = re.subn(r"if self\.executor_type == futures\.ProcessPoolExecutor:\s+"
                              r"raise unittest\.SkipTest\(\s+\"Hangs, see [^)]*\)", "",
                              file.read_text())
        # Its program lacks an import, which nobody has noticed as it never ran.
        file.write_text(text.replace("if {context!r}: multiprocessing.",
                                     "if {context!r}: import multiprocessing; multiprocessing."))
        changes += count
    if changes != 1:
        sys.exit(f"{original}: the skip because of gh-83386 looks different")
    return copy


# Running --------------------------------------------------------------------------------------

def run(python, suite, directory, options):
    """Run one suite."""
    home = directory / suite
    home.mkdir()
    file = home / "result.xml"
    command = [python, "-W", "default", "-m", "test", "-v", "-u", RESOURCES, "--junit-xml", file,
               "--timeout", str(LIMIT), *SUITES.get(suite, []), suite]
    if options.match:
        command += ["-m", options.match]
    began = time.monotonic()
    with open((options.log or home) / f"{suite}.txt", "w+") as output:
        process = subprocess.Popen(command, cwd=home, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            code = process.wait(LIMIT + 60)
        finally:
            left = wait_for_end(process.pid)
        seconds = time.monotonic() - began
        output.seek(0)
        tail = "".join(output.readlines()[-30:])
    return judge(suite, file, code, left, tail, seconds)


def wait_for_end(session):
    """Wait for the processes of a suite; stop those that stay, and return how many they were."""
    end = time.monotonic() + GONE
    while (left := processes_of(session)) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return len(left)


def processes_of(session):
    """The living processes of a session."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = file.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just gone
            continue
        if int(its_session) == session and state not in "ZX":
            found.append(int(file.parent.name))
    return found


def judge(suite, file, code, left, tail, seconds):
    """What came out of a suite: `code` 0 is success, 2 says that tests failed."""
    parts = xml.etree.ElementTree.parse(file).getroot() if file.exists() else []
    passed, failed, skipped, complaints = [], [], collections.Counter(), []
    for test in [test for part in parts for test in part]:
        if test.find("error") is not None or test.find("failure") is not None:
            failed.append(test.get("name"))
        elif test.find("skipped") is not None:
            skipped[test.findtext("skipped")] += 1
        else:
            passed.append(test.get("name"))
    counted = sum(int(part.get("errors")) + int(part.get("failures")) for part in parts)
    if code not in (0, 2) or code == 2 and not failed or counted != len(failed):
        complaints.append(f"{suite} ended with {code}, {counted} failures\n{tail}")
    if left:
        complaints.append(f"{suite} left {left} processes behind")
    if not passed and not failed:
        complaints.append(f"{suite} ran nothing")
    return Result(suite, passed, failed, skipped, complaints, seconds)


# The verdict ----------------------------------------------------------------------------------

def report(result):
    print(f"{result.suite}: {len(result.passed)} passed, {len(result.failed)} failed, "
          f"{result.skipped.total()} skipped, {result.seconds:.0f} s", flush=True)
    return result


def excuses():
    lines = [line for line in EXCUSED.read_text().splitlines()
             if line.strip() and not line.startswith("#")]
    if len(lines) > EXCUSED_AT_MOST:
        sys.exit(f"{EXCUSED.name}: more than {EXCUSED_AT_MOST} tests")
    return dict(line.split(": ", 1) for line in lines)


def verdict(results, processes, options):
    """Say what was skipped and excused, and what there is to complain of; return the exit code."""
    excused = {} if options.self_test else excuses()
    passed = [test for result in results for test in result.passed]
    failed = [test for result in results for test in result.failed]
    skipped = sum((result.skipped for result in results), collections.Counter())
    complaints = [complaint for result in results for complaint in result.complaints]
    complaints += [f"FAILED {test}" for test in failed if test not in excused]
    complaints += [f"EXCUSED, but passed: {test}" for test in passed if test in excused]
    if processes < 3 and not (options.suites or options.match):
        complaints.append("the processes that tests start did not have cfutures")
    for reason, count in skipped.most_common():
        print(f"skipped {count}: {reason}")
    for test in failed:
        if test in excused:
            print(f"excused {test}: {excused[test]}")
    for complaint in complaints:
        print(complaint)
    print(f"{len(passed)} of {len(passed) + len(failed)} passed in {processes} interpreters: "
          + (f"{len(complaints)} complaints" if complaints else "all is well"))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
