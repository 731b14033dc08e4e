# SPDX-License-Identifier: MIT
"""cfutures in the place of concurrent.futures: cfutures.install() and python -m cfutures."""
import ast
import os
import pathlib
import py_compile
import re
import signal
import subprocess
import sys
import zipfile

import pytest
from support import LIMIT, run, run_json

def python(*arguments, cwd=None, text=None, **environment):
    """Run an interpreter that finds cfutures."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, input=text,
                          capture_output=True, text=True, timeout=LIMIT,
                          env=dict(os.environ, PYTHONPATH=paths, **environment))


# install() ------------------------------------------------------------------------------------

def test_the_names_lead_to_cfutures():
    run("""
        import cfutures
        from cfutures.install import installed
        assert not installed()
        cfutures.install()
        cfutures.install()
        assert installed()
        import concurrent.futures, concurrent.futures.process, importlib
        from concurrent.futures import thread, ProcessPoolExecutor
        from concurrent.futures._base import PENDING, LOGGER
        from concurrent import futures
        assert concurrent.futures is futures is cfutures
        assert ProcessPoolExecutor is cfutures.ProcessPoolExecutor
        for part in "_base", "thread", "process":
            module = sys.modules[f"cfutures.{part}"]
            assert importlib.import_module(f"concurrent.futures.{part}") is module
            assert getattr(concurrent.futures, part) is module
    """)


def test_what_was_imported_before_stays_standard():
    run("""
        import concurrent.futures as before
        from concurrent.futures import Future
        import cfutures
        cfutures.install()
        assert before is not cfutures and Future is before.Future is not cfutures.Future
        for name in "ThreadPoolExecutor", "ProcessPoolExecutor":  # imported when asked for
            assert getattr(before, name) is not getattr(cfutures, name)
            assert issubclass(getattr(cfutures, name), getattr(before, name))
    """)


def test_a_full_name_that_was_imported_before_leads_to_cfutures():
    run("""
        import concurrent.futures
        import cfutures
        cfutures.install()
        assert concurrent.futures.ThreadPoolExecutor is cfutures.ThreadPoolExecutor
    """)


def test_exceptions_are_the_same_objects_before_and_after():
    run("""
        import concurrent.futures as before, concurrent.futures.process as process, pickle
        import cfutures
        cfutures.install()
        import concurrent.futures
        assert concurrent.futures.CancelledError is before.CancelledError
        assert concurrent.futures.process.BrokenProcessPool is process.BrokenProcessPool
        error = pickle.loads(pickle.dumps(process.BrokenProcessPool("broken")))
        assert type(error) is process.BrokenProcessPool
    """)


def test_asyncio_uses_cfutures():
    run("""
        import cfutures
        cfutures.install()
        import asyncio
        async def task():
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, pow, 2, 5) == 32
            assert type(loop._default_executor) is cfutures.ThreadPoolExecutor
            assert await asyncio.to_thread(pow, 2, 6) == 64
            with cfutures.ThreadPoolExecutor(1) as pool:
                assert await asyncio.wrap_future(pool.submit(pow, 2, 7)) == 128
            def elsewhere():
                future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "awake"), loop)
                assert type(future) is cfutures.Future
                return future.result()
            assert await asyncio.to_thread(elsewhere) == "awake"
        asyncio.run(task())
    """)


CHILD = """
    import cfutures, pathlib
    if __name__ == "__main__":
        cfutures.install()
    from concurrent.futures import ThreadPoolExecutor
    import concurrent.futures

    def kinds(_):
        return ThreadPoolExecutor.__module__, concurrent.futures.ThreadPoolExecutor.__module__

    if __name__ == "__main__":
        import multiprocessing
        context = multiprocessing.get_context(sys.argv[1])
        {pool}
            found = list(pool.map(kinds, range(3)))
        report(sorted(set(map(tuple, found)) | {{kinds(0)}}))
"""
POOLS = {"cfutures": "with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:",
         "multiprocessing": "with context.Pool(1) as pool:"}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_have_it_before_they_import_the_main_module(method, pool):
    name = "cfutures.thread"
    assert run_json(CHILD.format(pool=POOLS[pool]), method) == [[name, name]]


def test_a_child_finds_cfutures_where_its_parent_found_it():
    """Also where PYTHONPATH does not lead there."""
    root = pathlib.Path(__import__("cfutures").__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", f"""if True:
        import sys
        sys.path.append({str(root)!r})
        import cfutures, multiprocessing
        cfutures.install()
        if __name__ == "__main__":
            for method in "spawn", "forkserver":
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.apply(eval, ["__import__('concurrent.futures').futures.__name__"]))
        """], capture_output=True, text=True, timeout=LIMIT, cwd="/",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    assert done.stdout.split() == ["cfutures"] * 2, done


# python -m cfutures ---------------------------------------------------------------------------

PROBE = """
import inspect, sys
main = sys.modules["__main__"]
assert main.__dict__ is globals() and __name__ == "__main__"
spec = __spec__ and (__spec__.name, __spec__.origin)
print(("as found", sys.argv, sys.path, sorted(set(dir(main)) - {"__annotations__"}), spec,
       __package__, globals().get("__file__"), type(__loader__).__name__, __builtins__.__name__,
       inspect.currentframe().f_code.co_filename))
print(sys.modules.get("concurrent.futures") is not None and
      __import__("concurrent.futures").futures.__name__)
"""


@pytest.fixture
def programs(tmp_path):
    """The probe as a program of every kind."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "link.py").symlink_to(tmp_path / "package" / "__main__.py")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(PROBE)
    py_compile.compile(tmp_path / "probe.py", cfile=tmp_path / "compiled.pyc")
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("__main__.py", PROBE)
    return tmp_path


@pytest.mark.parametrize("arguments", [
    ["probe.py", "a", "-m", "--b"], ["./package/../probe.py"], ["link.py"], ["package", "a"],
    ["compiled.pyc"], ["archive", "a"], ["-m", "probe", "-m", "a"], ["-m", "package"],
    ["-c", PROBE, "-c"], ["-", "a"]], ids=lambda arguments: " ".join(arguments)[:12].strip())
@pytest.mark.parametrize("options", [[], ["-P"]], ids=["", "safe path"])
def test_a_program_finds_what_it_finds_without(programs, arguments, options):
    if "-P" in options and "-m" in arguments:
        pytest.skip("not to be found")
    text = PROBE if arguments[0] == "-" else ""
    plain = python(*options, *arguments, cwd=programs, text=text)
    assert plain.returncode == 0, plain
    done = python(*options, "-m", "cfutures", *arguments, cwd=programs, text=text)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[0] == plain.stdout.splitlines()[0]
    assert done.stdout.splitlines()[1] == "cfutures"


def test_nothing_is_left_beside_a_script(programs):
    python("-m", "cfutures", "probe.py", cwd=programs)
    assert not list(programs.glob("__pycache__/probe*"))


SPAWNING = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
def square(x):
    return x * x, ThreadPoolExecutor.__module__
if __name__ == "__main__":
    for method in "fork", "spawn", "forkserver":
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(list(pool.map(square, [2, 3])))
"""


@pytest.mark.parametrize("arguments", [["program.py"], ["-m", "program"], ["./program.py"]],
                         ids=" ".join)
def test_worker_processes_find_the_main_module(tmp_path, arguments):
    (tmp_path / "program.py").write_text(SPAWNING)
    done = python("-m", "cfutures", *arguments, cwd=tmp_path)
    expected = [(4, "cfutures.thread"), (9, "cfutures.thread")]
    assert [ast.literal_eval(line) for line in done.stdout.splitlines()] == [expected] * 3, done


def test_the_main_module_stays_to_the_end(tmp_path):
    """Tasks that run while the interpreter ends, and exit functions, still find it."""
    (tmp_path / "program.py").write_text("""if True:
        import atexit, pickle, threading
        from concurrent.futures import ThreadPoolExecutor
        def function(): pass
        def last(where):
            assert pickle.loads(pickle.dumps(function)) is function
            print(where, flush=True)
        atexit.register(last, "exit function")
        ended = threading.Event()
        threading._register_atexit(ended.set)
        ThreadPoolExecutor(1).submit(lambda: (ended.wait(), last("task")))
        """)
    done = python("-m", "cfutures", "program.py", cwd=tmp_path)
    assert done.stdout.splitlines() == ["task", "exit function"], done
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("program", [
    "raise SystemExit(3)", "raise SystemExit('so it is')", "def f():\n    1 / 0\nf()", "1 +",
    "import sys\nsys.excepthook = lambda *error: print(error[0])\n1 / 0", "x = \"\\0\"\nx()",
    "import missing", "import sys; sys.stdout.write('out')", "import os; os.kill(os.getpid(), 9)",
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise OSError"],
    ids=["code", "message", "error", "syntax", "hook", "type", "import", "success", "signal",
         "two errors"])
@pytest.mark.parametrize("how", ["program.py", "-m program"])
def test_a_program_ends_as_without(tmp_path, program, how):
    (tmp_path / "program.py").write_text(program)
    plain = python(*how.split(), cwd=tmp_path)
    done = python("-m", "cfutures", *how.split(), cwd=tmp_path)
    assert ((done.returncode, done.stdout, done.stderr)
            == (plain.returncode, plain.stdout, plain.stderr))


def test_a_program_is_interrupted_as_without(tmp_path):
    (tmp_path / "program.py").write_text("raise KeyboardInterrupt")
    done = python("-m", "cfutures", "program.py", cwd=tmp_path)
    assert done.returncode == -signal.SIGINT and done.stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("arguments, code, error", [
    ("missing.py", 2, "can't open file '.*missing.py': "),
    ("-m missing", 1, "No module named missing"),
    ("-m", 2, "argument expected for the -m option"),
    ("-c", 2, "argument expected for the -c option"),
    ("-x program.py", 2, "unknown option -x"),
    ("", 2, "python -m cfutures script.py")])
def test_what_cannot_be_run(tmp_path, arguments, code, error):
    done = python("-m", "cfutures", *arguments.split(), cwd=tmp_path)
    assert done.returncode == code and re.search(error, done.stderr) and not done.stdout, done


def test_help():
    done = python("-m", "cfutures", "--help")
    assert done.returncode == 0 and not done.stderr
    assert "python -m cfutures -m module" in done.stdout


def test_a_real_program(tmp_path):
    """compileall, with its worker processes."""
    for number in range(8):
        (tmp_path / f"module{number}.py").write_text(f"x = {number}")
    done = python("-m", "cfutures", "-m", "compileall", "-q", "-j", 2, ".", cwd=tmp_path)
    assert done.returncode == 0, done
    assert len(list(tmp_path.glob("__pycache__/*.pyc"))) == 8
