# SPDX-License-Identifier: MIT
"""Real programs that nobody here wrote, under `python -m cfutures`.

Each is run twice, as it is and on cfutures: the results are the same, and what the programs have
made were executors of the standard module the first time, of cfutures alone the second time.
"""
import concurrent.futures
import email
import importlib.util
import marshal
import pathlib
import re
import shutil
import signal
import textwrap
import urllib.request

import pytest

from programs import Run
from support import LIMIT, STANDARD, long, until

PLAIN, INSTALLED = "plain", "installed"


def needs(*modules):
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} here")


class Comparison:
    """Runs the same program as it is and on cfutures, each in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def start(self, how, *arguments):
        own = self.folder / f"own_{how}"
        own.mkdir()
        before = ["-m", "cfutures"] if how == INSTALLED else []
        return Run([*before, *arguments], own, self.place(how), watched=True)

    def place(self, how):
        """The folder that the program runs in."""
        place = self.folder / how
        place.mkdir(exist_ok=True)
        return place

    def check(self, arguments, executors, result=lambda program, place: program.output()):
        """The result is the same both times, and the executors are these, of the right kind."""
        results = []
        for how in (PLAIN, INSTALLED):
            program = self.start(how, *arguments)
            program.end()
            self.check_executors(how, program, executors)
            results.append(result(program, self.place(how)))
        assert results[0] == results[1]
        return results[1]

    @staticmethod
    def check_executors(how, program, executors):
        """The program has made these; without names: some, all of the right kind."""
        whose = "cfutures" if how == INSTALLED and not STANDARD else "standard"
        executors = executors or {name.partition(" ")[2] for name in program.executors}
        assert program.executors == {f"{whose} {name}" for name in executors} != set(), program

    def check_script(self, source, executors):
        path = self.folder / "program.py"
        path.write_text(textwrap.dedent(source))
        return self.check([path], executors)


@pytest.fixture
def comparison(tmp_path):
    return Comparison(tmp_path)


THREADS, PROCESSES = "ThreadPoolExecutor", "ProcessPoolExecutor"


def test_compileall(comparison):
    """It prints in the workers, and writes a file for each module."""
    for how in (PLAIN, INSTALLED):
        shutil.copytree(pathlib.Path(email.__file__).parent, comparison.place(how) / "email",
                        ignore=shutil.ignore_patterns("__pycache__"))

    def result(program, place):
        assert program.errors() == "", program
        said = re.findall(r"(?:Listing|Compiling) '[^']*'\.\.\.", program.output())
        return sorted(said), {
            path.relative_to(place): marshal.loads(path.read_bytes()[16:])
            for path in place.rglob("*.pyc")}

    lines, compiled = comparison.check(["-m", "compileall", "-j", "2", "email"], {PROCESSES},
                                       result)
    assert len(compiled) == len(list((comparison.place(PLAIN) / "email").rglob("*.py"))) > 20
    assert len([line for line in lines if line.startswith("Compiling")]) == len(compiled)


@needs("tqdm")
def test_tqdm_thread_map(comparison):
    said = comparison.check_script("""
        from tqdm.contrib.concurrent import thread_map

        def square(n):
            return n * n

        print(thread_map(square, range(100), max_workers=3))
        print(thread_map(pow, [2, 3], [10, 20], max_workers=3, disable=True))
        """, {THREADS})
    assert said == f"{[n * n for n in range(100)]}\n[1024, {3 ** 20}]\n"


@needs("tqdm")
def test_tqdm_process_map(comparison):
    """Its initializer gets a lock that can only be inherited."""
    def result(program, place):
        assert "1000/1000" in program.errors(), program
        return program.output()

    script = comparison.folder / "program.py"
    script.write_text(textwrap.dedent("""
        import os
        from tqdm.contrib.concurrent import process_map

        def square(n):
            return n * n, os.getpid()

        if __name__ == "__main__":
            results = process_map(square, range(1000), max_workers=2, chunksize=7)
            print([square for square, _ in results])
            print(os.getpid() in {pid for _, pid in results})
        """))
    said = comparison.check([script], {PROCESSES}, result)
    assert said == f"{[n * n for n in range(1000)]}\nFalse\n"


def test_asyncio(comparison):
    """run_in_executor with none, with pools of both kinds, and the loop's default one changed."""
    said = comparison.check_script("""
        import asyncio, concurrent.futures, contextvars, math, socket, threading

        user = contextvars.ContextVar("user")

        async def main():
            loop = asyncio.get_running_loop()
            print(await asyncio.gather(*(loop.run_in_executor(None, math.factorial, n)
                                         for n in range(20))))
            user.set("someone")
            print(await asyncio.to_thread(user.get))
            print((await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))[0][4])
            with (concurrent.futures.ProcessPoolExecutor(2) as processes,
                  concurrent.futures.ThreadPoolExecutor(2, "named") as threads):
                print(await loop.run_in_executor(processes, math.factorial, 20))
                futures = [threads.submit(math.sqrt, n) for n in (4, 9, -1)]
                print(await asyncio.gather(*map(asyncio.wrap_future, futures),
                                           return_exceptions=True))
                loop.set_default_executor(threads)
                print((await asyncio.to_thread(threading.current_thread)).name[:6])
                try:
                    await asyncio.wait_for(asyncio.to_thread(threading.Event().wait, 0.5), 0.05)
                except asyncio.TimeoutError:
                    print("timed out")
                waiting = asyncio.ensure_future(asyncio.to_thread(threading.Event().wait, 0.2))
                await asyncio.sleep(0)
                waiting.cancel()
                print(await asyncio.gather(waiting, return_exceptions=True))

        if __name__ == "__main__":
            asyncio.run(main())
        """, {THREADS, PROCESSES})
    assert said.splitlines()[1:3] == ["someone", "('127.0.0.1', 80)"]


@needs("joblib")
def test_joblib(comparison):
    """Its own processes stand on classes of the standard module; they go on beside ours."""
    comparison.check_script("""
        import concurrent.futures
        from joblib import Parallel, delayed

        def square(n):
            return n * n

        print(Parallel(n_jobs=2)(delayed(square)(n) for n in range(100)))
        print(Parallel(n_jobs=2, prefer="threads")(delayed(square)(n) for n in range(100)))
        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            print(list(executor.map(square, range(10))))
        """, {THREADS})


@needs("joblib")
def test_joblib_on_an_executor(comparison):
    """A backend of joblib as its documentation has them, with an executor behind it."""
    comparison.check_script("""
        import concurrent.futures
        import joblib
        from joblib import Parallel, delayed
        from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

        class Backend(AutoBatchingMixin, ParallelBackendBase):
            supports_timeout = True

            def __init__(self, kind, **options):
                super().__init__(**options)
                self.kind = kind

            def effective_n_jobs(self, n_jobs):
                return n_jobs

            def configure(self, n_jobs=1, parallel=None, **options):
                self.parallel = parallel
                self.executor = self.kind(n_jobs)
                return n_jobs

            def apply_async(self, call, callback=None):
                future = self.executor.submit(call)
                future.add_done_callback(callback)
                future.get = future.result
                return future

            def terminate(self):
                self.executor.shutdown()

        def square(n):
            return n * n

        if __name__ == "__main__":
            joblib.register_parallel_backend("ours", Backend)
            for kind in (concurrent.futures.ThreadPoolExecutor,
                         concurrent.futures.ProcessPoolExecutor):
                with joblib.parallel_backend("ours", kind=kind):
                    print(Parallel(n_jobs=2)(delayed(square)(n) for n in range(1000)))
        """, {THREADS, PROCESSES})


DASK = """
    import concurrent.futures
    import dask

    @dask.delayed
    def add(x, y):
        return x + y

    def tree(numbers):
        while len(numbers) > 1:
            numbers = [add(*numbers[i:i + 2]) for i in range(0, len(numbers), 2)]
        return numbers[0]
    """


@needs("dask")
def test_dask(comparison):
    """Its schedulers of threads and processes, and executors handed to it."""
    said = comparison.check_script(textwrap.dedent(DASK) + textwrap.dedent("""
        if __name__ == "__main__":
            print(tree(range(256)).compute(scheduler="threads", num_workers=3))
            print(tree(range(64)).compute(scheduler="processes", num_workers=2))
            with (concurrent.futures.ThreadPoolExecutor(2) as threads,
                  concurrent.futures.ProcessPoolExecutor(2) as processes):
                print(tree(range(256)).compute(scheduler="threads", pool=threads))
                with dask.config.set(pool=threads):
                    print(tree(range(256)).compute(scheduler="threads"))
                with dask.config.set(scheduler="processes", pool=processes):
                    print(tree(range(64)).compute())
                with dask.config.set(scheduler=threads):
                    print(tree(range(64)).compute())
        """), {THREADS, PROCESSES})
    assert said.split() == ["32640", "2016", "32640", "32640", "2016", "2016"]


@needs("distributed")
def test_distributed(comparison):
    """Its workers take an executor; by default they have one derived from a copy of the standard
    module's, on that module's private names."""
    said = comparison.check_script(textwrap.dedent(DASK) + textwrap.dedent("""
        from distributed import Client, as_completed

        def main():
            options = dict(n_workers=1, processes=False, dashboard_address=None, silence_logs=50)
            with Client(threads_per_worker=2, **options) as client:
                print(tree(range(128)).compute())
                print(sorted(f.result() for f in as_completed(client.map(pow, range(9), [2] * 9))))
                with client.get_executor() as executor:
                    futures = [executor.submit(pow, n, 2) for n in range(9)]
                    print(len(concurrent.futures.wait(futures).done))
            executor = concurrent.futures.ThreadPoolExecutor(2)
            with Client(executor=executor, **options) as client:
                print(client.submit(pow, 2, 10).result())

        if __name__ == "__main__":
            main()
        """), {THREADS})
    assert said.split("\n")[0] == "8128"


@needs("tornado")
def test_tornado(comparison):
    """Handlers that run on an executor, and the loop's own executor."""
    comparison.check_script("""
        import concurrent.futures
        from tornado.concurrent import run_on_executor
        from tornado.gen import multi
        from tornado.httpclient import AsyncHTTPClient
        from tornado.httpserver import HTTPServer
        from tornado.ioloop import IOLoop
        from tornado.testing import bind_unused_port
        from tornado.web import Application, RequestHandler

        class Squares(RequestHandler):
            executor = concurrent.futures.ThreadPoolExecutor(4)

            @run_on_executor
            def square(self, n):
                return n * n

            async def get(self, n):
                self.write(str(await self.square(int(n))))

        async def main():
            server = HTTPServer(Application([(r"/(\\d+)", Squares)]))
            socket, port = bind_unused_port()
            server.add_sockets([socket])
            client = AsyncHTTPClient()
            answers = await multi([client.fetch(f"http://127.0.0.1:{port}/{n}")
                                   for n in range(20)])
            print([int(answer.body) for answer in answers])
            print(await IOLoop.current().run_in_executor(None, pow, 2, 10))
            server.stop()

        IOLoop.current().run_sync(main)
        """, {THREADS})


UNTIDY = """\
def  number_{n}( a,b = {n} ) :
    return [ a,b , {{ 'x':a }} ]
"""


def untidy_sources(comparison):
    """Twelve files to format, one of which is no Python."""
    for how in (PLAIN, INSTALLED):
        folder = comparison.place(how) / "sources"
        folder.mkdir()
        for n in range(12):
            (folder / f"module_{n}.py").write_text(UNTIDY.format(n=n))


def sources(program, place):
    return {path.name: path.read_text() for path in (place / "sources").iterdir()}


@needs("black")
def test_black(comparison):
    """It formats more than one file by run_in_executor on worker processes."""
    untidy_sources(comparison)
    for how in (PLAIN, INSTALLED):
        (comparison.place(how) / "sources" / "wrong.py").write_text("def def def\n")

    results = []
    for how in (PLAIN, INSTALLED):
        program = comparison.start(how, "-m", "black", "--workers", "2", "sources")
        program.end(expect=123)
        comparison.check_executors(how, program, {PROCESSES})
        assert "12 files reformatted, 1 file failed to reformat." in program.errors(), program
        results.append(sources(program, comparison.place(how)))
    assert results[0] == results[1]
    assert results[0]["module_3.py"] == 'def number_3(a, b=3):\n    return [a, b, {"x": a}]\n'


@needs("yapf")
def test_yapf(comparison):
    """It formats more than one file by submit and as_completed on worker processes."""
    untidy_sources(comparison)
    formatted = comparison.check(["-m", "yapf", "--parallel", "--in-place", "--recursive",
                                  "sources"], {PROCESSES}, sources)
    assert formatted["module_3.py"].startswith("def number_3(a, b=3):\n")


def ask_all(address, pages):
    """Asks a server for all pages, eight at a time."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(page):
        with opener.open(address + page, timeout=LIMIT) as answer:
            return answer.read().decode()

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        return list(executor.map(ask, pages))


@needs("gunicorn")
def test_gunicorn(comparison):
    """Its worker processes are forks that make an executor each, wait for futures with a timeout
    of nought, and add callbacks."""
    pages = [f"/page/{n}" for n in range(40)]
    for how in (PLAIN, INSTALLED):
        (comparison.place(how) / "application.py").write_text(textwrap.dedent("""
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [environ["PATH_INFO"].encode() * 1000]
            """))
        program = comparison.start(how, "-m", "gunicorn", "--worker-class", "gthread", "--workers",
                                   "2", "--threads", "4", "--bind", "127.0.0.1:0", "application")
        assert until(lambda: "Listening at: " in program.errors()), program
        address = re.search(r"Listening at: (\S+)", program.errors())[1]
        assert ask_all(address, pages) == [page * 1000 for page in pages]
        program.process.send_signal(signal.SIGTERM)
        program.end()
        comparison.check_executors(how, program, {THREADS})


@long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("tests", ["dask.tests.test_threaded", "dask.tests.test_multiprocessing",
                                   "dask.tests.test_local",
                                   "distributed.tests.test_threadpoolexecutor",
                                   "tornado.test.concurrent_test", "tornado.test.ioloop_test"])
def test_tests_of_others(comparison, tests):
    """What passes of another project's tests passes on cfutures too."""
    path = tests.replace(".", "/") + ".py"
    package = pytest.importorskip(tests.partition(".")[0])
    file = pathlib.Path(package.__file__).parents[1] / path
    if not file.exists():
        pytest.skip(f"the package comes without {path}")
    passed = []
    for how in (PLAIN, INSTALLED):
        program = comparison.start(how, "-m", "pytest", "-v", "-p", "no:cacheprovider", file)
        program.end(expect=None, limit=180)
        comparison.check_executors(how, program, ())
        passed.append(set(re.findall(r"^(\S+::.*) PASSED", program.output(), re.MULTILINE)))
    assert passed[0] and passed[0] <= passed[1], (program, passed[0] - passed[1])
