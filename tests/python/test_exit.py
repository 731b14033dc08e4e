# SPDX-License-Identifier: MIT
"""The end of a program with pools in it, and the child after a fork."""
import pytest
from support import GONE, LIMIT, Program, ours, run, until

KINDS = ["thread_pool", "process_pool"]


# Leaving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pending_work_is_done_before_the_end(kind):
    out = run(
        f"""
        def task(number):
            time.sleep(0.005)
            say("task", number)
        if __name__ == "__main__":
            pool = {kind}(1)
            for number in range(20):
                pool.submit(task, number)
            say("end of main")
    """
    ).out.splitlines()
    assert out[-1] == "task 19" and len(out) == 21 and "end of main" in out[:-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leave, code", [("sys.exit(3)", 3), ("raise LookupError", 1)])
def test_pending_work_is_done_whatever_ends_the_program(kind, leave, code):
    out = run(
        f"""
        if __name__ == "__main__":
            pool = {kind}(1)
            for number in range(5):
                pool.submit(say, number)
            {leave}
    """,
        expect=code,
    ).out.split()
    assert out == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_at_once(kind):
    """os._exit: nothing is waited for, and the workers go."""
    outcome = run(
        f"""
        if __name__ == "__main__":
            pool = {kind}(2)
            tasks = [pool.submit(time.sleep, 60) for _ in range(4)]
            until(lambda: tasks[0].running())
            for process in (getattr(pool, "_processes", None) or {{}}).values():
                process.kill() if STANDARD else None
            os._exit(7)
    """,
        expect=7,
        limit=LIMIT / 2,
    )
    assert outcome.err == ""


@pytest.mark.parametrize("kind", KINDS)
def test_pools_that_were_never_used(kind):
    run(
        f"""
        if __name__ == "__main__":
            pools = [{kind}(2) for _ in range(3)]
            futures_of_nobody = [futures.Future() for _ in range(3)]
    """
    )


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_shutdown_that_did_not_wait(kind):
    assert (
        run(
            f"""
        def task():
            time.sleep(0.1)
            say("task")
        if __name__ == "__main__":
            pool = {kind}(1)
            pool.submit(task)
            pool.shutdown(wait=False)
    """
        ).out
        == "task\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_just_before_the_end(kind):
    assert (
        run(
            f"""
        if __name__ == "__main__":
            pool = {kind}(1)
            pool.submit(say, "task")
            del pool
    """
        ).out
        == "task\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_submitting_in_atexit(kind):
    """Pools end before the functions of atexit run."""
    refused, after = run(
        f"""
        import atexit
        if __name__ == "__main__":
            pool = {kind}(1)
            pool.submit(int).result()
            @atexit.register
            def late():
                try:
                    pool.submit(int)
                except RuntimeError as error:
                    say(error)
                future = futures.Future()
                future.set_result(1)
                say(future.result(), pool._max_workers)
                pool.shutdown()
    """
    ).out.splitlines()
    assert refused.startswith("cannot schedule new futures after") and after == "1 1"


def test_a_new_pool_in_atexit():
    assert (
        "after interpreter shutdown"
        in run(
            """
        import atexit
        thread_pool(1).submit(int).result()
        @atexit.register
        def late():
            try:
                thread_pool(1).submit(int)
            except RuntimeError as error:
                say(error)
    """
        ).out
    )


def test_work_that_submits_more_work_at_the_end():
    """A task that submits during the exit is refused, and the program ends."""
    out = run(
        """
        pool, ended = thread_pool(2), threading.Event()
        def again():
            ended.wait()
            for _ in range(1000):
                try:
                    pool.submit(int)
                except RuntimeError as error:
                    say(error)
                    break
                time.sleep(0.01)
        pool.submit(again)
        threading._register_atexit(ended.set)
    """
    ).out
    assert out.startswith("cannot schedule new futures after")


def test_daemon_threads_that_wait_for_ever():
    """At the end they wait for futures that nobody settles, in each kind of wait."""
    outcome = run(
        """
        never = futures.Future()
        waits = [never.result, lambda: futures.wait([never]),
                 lambda: list(futures.as_completed([never])), lambda: never.result(timeout=1000)]
        ids = []
        def wait(function):
            ids.append(threading.get_native_id())
            function()
        for function in waits:
            threading.Thread(target=wait, args=(function,), daemon=True).start()
        until(lambda: len(ids) == len(waits) and all(map(asleep, ids)))
        say("end")
    """
    )
    assert outcome.out == "end\n" and outcome.err == ""


def test_daemon_threads_that_submit_without_end():
    """The interpreter goes down under threads that submit and wait."""
    for _ in range(3):
        outcome = run(
            """
            pool = thread_pool(2)
            def submit():
                try:
                    while True:
                        pool.submit(int).result()
                except RuntimeError:
                    pass
            for _ in range(4):
                threading.Thread(target=submit, daemon=True).start()
            until(lambda: len(pool._threads) > 0)
            time.sleep(0.05)
        """
        )
        assert outcome.err == ""


def test_a_daemon_thread_with_a_pool_of_its_own():
    outcome = run(
        """
        started = threading.Event()
        def use():
            with thread_pool(2) as pool:
                while True:
                    list(pool.map(int, "123"))
                    started.set()
        def guarded():
            try:
                use()
            except RuntimeError:
                pass
        threading.Thread(target=guarded, daemon=True).start()
        started.wait()
    """
    )
    assert "Fatal" not in outcome.err


def test_tasks_see_a_whole_interpreter_at_the_end():
    """What runs during the exit may import, print and use threading."""
    assert (
        run(
            """
        ended = threading.Event()
        def task():
            ended.wait()
            import decimal
            say(decimal.Decimal(1), threading.current_thread() in threading.enumerate())
        thread_pool(1).submit(task)
        threading._register_atexit(ended.set)
    """
        ).out
        == "1 True\n"
    )


def test_futures_and_pools_in_global_cycles_at_the_end():
    """Objects that only the interpreter's last sweep finds."""
    for _ in range(3):
        outcome = run(
            """
            import gc
            gc.disable()
            class Holder:
                def __del__(self):
                    self.future.done(), repr(self.future), repr(self.pool)
            holder = Holder()
            holder.pool = thread_pool(2)
            holder.future = holder.pool.submit(int)
            holder.future.add_done_callback(lambda _: holder)
            holder.future.result()
            holder.again = holder
            sys.modules["__main__"].extra = [futures.Future() for _ in range(10)]
            for future in extra:
                future.set_result(future)
        """
        )
        assert outcome.err == ""


def test_a_result_whose_deletion_uses_the_pool():
    assert (
        run(
            """
        class Result:
            def __del__(self):
                say(pool.submit(int).result())
        pool = thread_pool(1)
        future = pool.submit(Result)
        future.result()
        del future
        pool.submit(int).result()
        pool.shutdown()
    """
        ).out
        == "0\n"
    )


def test_no_output_is_written_twice():
    """Buffered text of the parent is not written again by workers."""
    for method in ("fork", "forkserver", "spawn"):
        out = run(
            f"""
            if __name__ == "__main__":
                print("once")
                with process_pool(2, method="{method}") as pool:
                    list(pool.map(abs, range(4)))
        """
        ).out
        assert out == "once\n"


def test_exit_handlers_of_the_program_run_once():
    out = run(
        """
        import atexit
        if __name__ == "__main__":
            atexit.register(say, "exit handler of", os.getpid())
            with process_pool(2, method="fork") as pool:
                list(pool.map(abs, range(4)))
    """
    ).out
    assert len(out.splitlines()) == 1


# After a fork -----------------------------------------------------------------------------------

FORK = """
def in_child(function):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)
            say(function())
            code = 0
        except BaseException as error:
            say(type(error).__name__, error)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
"""


def test_a_child_can_make_a_pool_of_its_own():
    assert (
        run(
            FORK
            + """
with thread_pool(2) as pool:
    list(pool.map(int, "123"))
    def child():
        with thread_pool(2) as own:
            return sum(own.map(int, "123"))
    assert in_child(child) == 0
    assert list(pool.map(int, "123")) == [1, 2, 3]
"""
        ).out
        == "6\n"
    )


def test_futures_that_are_done_can_be_used_in_a_child():
    assert (
        run(
            FORK
            + """
with thread_pool(1) as pool:
    future = pool.submit(int, "7")
    future.result()
    def child():
        own = futures.Future()
        own.set_result(1)
        return future.result(), len(futures.wait([future, own]).done)
    assert in_child(child) == 0
"""
        ).out
        == "(7, 2)\n"
    )


@ours
@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_of_the_parent_refuses_work_in_a_child(kind):
    """With the standard module the task never runs."""
    out = run(
        FORK
        + f"""
if __name__ == "__main__":
    with {kind}(2) as pool:
        list(pool.map(abs, range(4)))
        def child():
            return pool.submit(abs, 1).result(timeout=10)
        assert in_child(child) == 1
        assert list(pool.map(abs, range(4))) == [0, 1, 2, 3]
"""
    ).out
    assert "TimeoutError" not in out and len(out.splitlines()) == 1


@ours
@pytest.mark.parametrize("kind", KINDS)
def test_ending_a_pool_of_the_parent_in_a_child(kind):
    """shutdown and collection in the child return, and do nothing to the parent's workers."""
    assert (
        run(
            FORK
            + f"""
if __name__ == "__main__":
    import gc
    pool = {kind}(2)
    list(pool.map(abs, range(4)))
    def child():
        global pool
        pool.shutdown()
        del pool
        gc.collect()
        return "ended"
    assert in_child(child) == 0
    say(*pool.map(abs, range(4)))
    pool.shutdown()
"""
        ).out
        == "ended\n0 1 2 3\n"
    )


@ours
@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_ends_like_a_program(kind):
    """sys.exit in the child: all of the interpreter's end, with a pool of the parent."""
    assert (
        run(
            f"""
        if __name__ == "__main__":
            pool = {kind}(2)
            tasks = [pool.submit(time.sleep, 0.5) for _ in range(4)]
            child = os.fork()
            if child == 0:
                sys.exit(5)
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            say([task.result() for task in tasks])
    """
        ).out
        == "5\n[None, None, None, None]\n"
    )


def test_forks_beside_running_tasks():
    """A child forked at any moment can go on and leave; the parent's pool does not notice."""
    assert (
        run(
            FORK
            + """
with thread_pool(2) as pool:
    stop = threading.Event()
    def work():
        while not stop.is_set():
            assert sum(pool.map(int, "123")) == 6
    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(40):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    stop.set()
    worker.join()
    say("done")
"""
        ).out
        == "done\n"
    )


def test_descriptors_do_not_reach_executed_programs():
    out = run(
        """
        import subprocess
        if __name__ == "__main__":
            with thread_pool(2) as threads_, process_pool(2) as processes:
                list(threads_.map(abs, range(4)))
                list(processes.map(abs, range(4)))
                say(subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True,
                                   close_fds=False).stdout)
    """
    ).out.split()
    assert out == ["0", "1", "2", "3"]


# The parent goes --------------------------------------------------------------------------------


@ours
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("doing", ["idle", "sleeping", "spinning", "queued"])
def test_workers_go_with_their_parent(method, doing):
    """kill -9: nothing is left two seconds later, whatever the workers are doing."""
    with Program(
        f"""
        def spin(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        if __name__ == "__main__":
            pool = process_pool(2, method="{method}")
            list(pool.map(abs, range(4)))
            if "{doing}" != "idle":
                task = spin if "{doing}" == "spinning" else time.sleep
                tasks = [pool.submit(task, 60) for _ in range(20 if "{doing}" == "queued" else 2)]
                until(lambda: sum(task.running() for task in tasks) >= 2)
            say("ready")
            time.sleep(60)
    """
    ) as program:
        program.wait_for("ready")
        assert program.processes()
        program.process.kill()
        program.process.wait()
        assert until(lambda: not program.processes(), GONE), program.processes()
