# SPDX-License-Identifier: MIT
"""Signals: Ctrl-C ends every kind of waiting at once, handlers run while the main thread waits, and
a pool leaves the program's signals alone."""
import os
import signal

import pytest
from support import LIMIT, SOON, Program, asleep, ours, run, run_json, until

WAITS = {
    "result": "future.result()",
    "result with a timeout": "future.result(timeout=60)",
    "exception": "future.exception()",
    "wait": "futures.wait([future])",
    "wait with a timeout": "futures.wait([future, futures.Future()], timeout=60)",
    "wait for the first": "futures.wait([future], return_when=futures.FIRST_COMPLETED)",
    "as_completed": "list(futures.as_completed([future, futures.Future()]))",
    "map": "list(pool.map(go.wait, [60]))",
    "shutdown": "pool.shutdown()",
    "with": "pool.__exit__(None, None, None)",
    "a future of nobody": "futures.Future().result()",
}


@pytest.mark.parametrize("name", WAITS)
def test_interrupt_of_a_wait(name):
    seconds, after = run_json(
        f"""
        go = threading.Event()
        pool = thread_pool(1)
        future = pool.submit(go.wait, 60)
        with Interrupt() as interrupt:
            {WAITS[name]}
        go.set()
        report([interrupt.seconds, future.result(SOON)])
        pool.shutdown()
    """
    )
    assert seconds < SOON / 2 and after is True


PROCESS_WAITS = [
    name for name in WAITS if "nobody" not in name and name not in ("shutdown", "with")
]


def interrupt_process_wait(name, directory):
    """Interrupt a wait for a task in a process, which ends when the file `go` is there."""
    seconds, after = run_json(
        f"""
        if __name__ == "__main__":
            path = sys.argv[1]
            pool = process_pool(1)
            future = pool.submit(wait_for_file, path)
            with Interrupt() as interrupt:
                {WAITS[name].replace("go.wait, [60]", "wait_for_file, [path]")}
            open(path, "w").close()
            report([interrupt.seconds, future.result(SOON)])
            pool.shutdown()
    """,
        directory / "go",
    )
    assert seconds < SOON / 2 and after is True


@pytest.mark.parametrize("name", PROCESS_WAITS)
def test_interrupt_of_a_wait_for_a_process(name, tmp_path):
    interrupt_process_wait(name, tmp_path)


@ours
@pytest.mark.parametrize("name", ["shutdown", "with"])
def test_interrupt_of_the_end_of_a_process_pool(name, tmp_path):
    """After it the standard module hangs now and then."""
    interrupt_process_wait(name, tmp_path)


@ours
def test_interrupt_of_a_submit_to_a_full_pool():
    assert (
        run_json(
            """
        go = threading.Event()
        with thread_pool(1, max_pending=1) as pool:
            with Interrupt() as interrupt:
                while True:
                    pool.submit(go.wait)
            go.set()
        report(interrupt.seconds)
    """
        )
        < SOON / 2
    )


@ours
@pytest.mark.parametrize("rounds", [30])
def test_interrupts_again_and_again(rounds):
    """A wait that was interrupted leaves nothing behind; the standard module leaves a waiter."""
    assert (
        run_json(
            """
        future = futures.Future()
        for _ in range(int(sys.argv[1])):
            with Interrupt() as interrupt:
                futures.wait([future, futures.Future()])
            assert interrupt.seconds < SOON / 2
        left = len(future._waiters)
        future.set_result(1)
        report([left, futures.wait([future]).done == {future}])
    """,
            rounds,
        )
        == [0, True]
    )


@pytest.mark.parametrize(
    "wait",
    [
        "future.result()",
        "futures.wait([future])",
        "next(futures.as_completed([future]))",
        "pool.shutdown()",
    ],
)
def test_handlers_run_while_the_main_thread_waits(wait):
    """A handler that raises nothing: it runs at once, and the wait goes on to its end."""
    assert (
        run_json(
            f"""
        go, seen = threading.Event(), []
        def handler(number, frame):
            seen.append(number)
            go.set()
        signal.signal(signal.SIGUSR1, handler)
        pool = thread_pool(1)
        future = pool.submit(go.wait, 30)
        main = threading.get_native_id()
        def send():
            until(lambda: asleep(main))
            os.kill(os.getpid(), signal.SIGUSR1)
        threading.Thread(target=send).start()
        {wait}
        report([seen == [signal.SIGUSR1], future.result()])
        pool.shutdown()
    """
        )
        == [True, True]
    )


def test_a_handler_may_use_futures():
    assert (
        run_json(
            """
        pool = thread_pool(1)
        future = futures.Future()
        def handler(number, frame):
            future.set_result(pool.submit(pow, 2, 10).result(SOON))
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        report(future.result(SOON))
        pool.shutdown()
    """
        )
        == 1024
    )


def test_signals_that_storm():
    """Thousands of signals: every wait is right, and each timed one keeps its time."""
    assert (
        run_json(
            """
        count = 0
        def handler(number, frame):
            global count
            count += 1
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        with thread_pool(2) as pool:
            for turn in range(50):
                many = [pool.submit(time.sleep, 0.001) for _ in range(10)]
                assert len(list(futures.as_completed(many))) == 10
                assert list(pool.map(int, "12345")) == [1, 2, 3, 4, 5]
            began = time.monotonic()
            assert not futures.wait([futures.Future()], timeout=0.5).done
            assert 0.5 <= time.monotonic() - began < SOON
        signal.setitimer(signal.ITIMER_REAL, 0)
        report(count > 50)
    """
        )
        is True
    )


def test_workers_leave_signals_to_the_main_thread():
    """Handlers run in the main thread only, and the pool changes none of them."""
    assert (
        run_json(
            """
        def dispositions():
            return [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())]
        before = dispositions(), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        where = []
        with thread_pool(2) as pool:
            list(pool.map(int, "123"))
            during = dispositions(), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            signal.signal(signal.SIGUSR1, lambda *_: where.append(threading.current_thread()))
            pool.submit(os.kill, os.getpid(), signal.SIGUSR1).result()
            until(lambda: where)
        report([before == during, where == [threading.main_thread()]])
    """
        )
        == [True, True]
    )


def test_a_child_of_a_task_can_be_interrupted():
    """What a task starts does not inherit blocked signals."""
    blocked = run(
        """
        import subprocess
        with thread_pool(1) as pool:
            say(pool.submit(subprocess.run, ["grep", "SigBlk", "/proc/self/status"],
                            capture_output=True, text=True).result().stdout)
    """
    ).out.split()[-1]
    assert int(blocked, 16) == 0


# The whole program ------------------------------------------------------------------------------


def test_interrupt_of_the_interpreters_exit():
    """The main thread has ended; it waits for the pool's work when Ctrl-C comes."""
    with Program(
        """
        def task():
            say("running")
            time.sleep(60)
        thread_pool(1).submit(task)
    """
    ) as program:
        program.wait_for("running")
        assert until(lambda: asleep(program.process.pid, program.process.pid))
        program.process.send_signal(signal.SIGINT)
        outcome = program.end(LIMIT / 2)
    assert outcome.seconds < LIMIT / 2 and "KeyboardInterrupt" in outcome.err, outcome


@pytest.mark.parametrize("kind", ["thread_pool", "process_pool"])
def test_one_interrupt_ends_a_plain_program(kind):
    """Ctrl-C at the terminal reaches the whole group; nobody catches it; tasks are short."""
    with Program(
        f"""
        def task(number):
            time.sleep(0.3)
            return number
        if __name__ == "__main__":
            with {kind}(2) as pool:
                say("begin")
                for number in pool.map(task, range(6)):
                    say(number)
    """
    ) as program:
        program.wait_for("0")
        os.killpg(program.process.pid, signal.SIGINT)
        outcome = program.end(LIMIT / 2)
    assert outcome.returncode in (-2, 130, 1) and "KeyboardInterrupt" in outcome.err, outcome


@ours
def test_workers_leave_an_interrupt_to_the_parent():
    """Six long tasks, one Ctrl-C for the group: no traceback from a worker, none of them left."""
    with Program(
        """
        def task(number):
            say("task", number)
            time.sleep(1)
        if __name__ == "__main__":
            pool = process_pool(2)
            results = [pool.submit(task, number) for number in range(6)]
            try:
                results[-1].result()
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                sys.exit(130)
    """
    ) as program:
        program.wait_for("task 1")
        os.killpg(program.process.pid, signal.SIGINT)
        outcome = program.end(LIMIT / 2)
    assert outcome.returncode == 130 and "Traceback" not in outcome.err, outcome


# Fairness ---------------------------------------------------------------------------------------

BUILTINS = ["sum, range(3000000)", "sorted, list(range(1000000))", "pow, 3, 200000"]


@pytest.mark.parametrize("task", BUILTINS)
def test_builtin_functions_as_tasks_do_not_starve_the_program(task):
    """Tasks without a line of Python: the interpreter lock goes round all the same."""
    ticks, longest = run_json(
        f"""
        stop = threading.Event()
        def keep_busy():
            while not stop.is_set():
                futures.wait([pool.submit({task}) for _ in range(4)])
        with thread_pool(2) as pool:
            threading.Thread(target=keep_busy).start()
            ticks, longest, end = 0, 0.0, time.monotonic() + 1.5
            before = time.monotonic()
            while before < end:
                time.sleep(0.001)
                now = time.monotonic()
                ticks, longest, before = ticks + 1, max(longest, now - before), now
            stop.set()
        report([ticks, longest])
    """
    )
    assert ticks >= 5 and longest < 1.0


def test_many_small_builtin_tasks_do_not_starve_the_program():
    """A worker that goes from task to task, without a line of Python, for a second."""
    ticks, longest = run_json(
        """
        with thread_pool(2) as pool:
            for _ in range(30000):
                pool.submit(sum, range(2000))
            last = pool.submit(int)
            ticks, longest, before = 0, 0.0, time.monotonic()
            end = before + 1
            while before < end and not last.done():
                time.sleep(0.0005)
                now = time.monotonic()
                ticks, longest, before = ticks + 1, max(longest, now - before), now
            last.result()
            report([ticks, longest])
    """
    )
    assert longest < 0.5


def test_a_python_loop_does_not_starve_the_tasks():
    assert (
        run_json(
            """
        stop, counted = threading.Event(), 0
        def spin():
            while not stop.is_set():
                pass
        threading.Thread(target=spin).start()
        with thread_pool(2) as pool:
            for number in range(20):
                assert pool.submit(pow, number, 2).result(SOON) == number * number
        stop.set()
        report("served")
    """
        )
        == "served"
    )
