# SPDX-License-Identifier: MIT
"""Workers that die, hang or go mad: each costs at most its own task, where that was asked for, and
nothing ever hangs."""
import shutil
import signal
import subprocess
import textwrap

import pytest
from harm import ENDS
from support import SOON, cgroup, long, ours, remove_cgroup, run_json

METHODS = ["fork", "forkserver", "spawn"]


def program(body, *arguments, **options):
    """Run the body of a main program that has the harmful tasks; return what it reports."""
    body = textwrap.indent(textwrap.dedent(body), "    ")
    return run_json(
        f"from harm import *\nif __name__ == '__main__':\n{body}", *arguments, **options
    )


# As the standard does: a death breaks the pool ---------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ENDS)
def test_a_death_breaks_the_pool(how, method):
    function = ENDS[how][0].__name__
    assert (
        program(
            f"""
        pool = process_pool(2, method="{method}")
        tasks = [pool.submit({function})] + [pool.submit(nap, 60) for _ in range(6)]
        kinds = {{isinstance(task.exception(SOON), futures.process.BrokenProcessPool)
                 for task in tasks}}
        try:
            pool.submit(int)
        except futures.process.BrokenProcessPool:
            kinds.add("refused")
        pool.shutdown()
        report(sorted(map(str, kinds)))
    """
        )
        == ["True", "refused"]
    )


def test_results_that_are_there_stay():
    assert (
        program(
            """
        pool = process_pool(1, method="fork")
        done = pool.submit(int, "7")
        done.result(SOON)
        pool.submit(kill_me).exception(SOON)
        report(done.result(0))
    """
        )
        == 7
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", ["leave_with_0", "leave_with_3", "kill_me", "exit_quietly"])
def test_an_initializer_that_dies(function, method):
    assert (
        program(
            f"""
        with process_pool(2, method="{method}", initializer={function}) as pool:
            try:
                kind = type(pool.submit(int).exception(SOON))
            except futures.process.BrokenProcessPool as error:
                kind = type(error)
            report(issubclass(kind, futures.process.BrokenProcessPool))
    """
        )
        is True
    )


@ours
def test_each_future_has_an_error_of_its_own():
    """Adding to one error's traceback or notes must not show in another's."""
    assert (
        program(
            """
        pool = process_pool(1, method="fork")
        tasks = [pool.submit(nap, 30) for _ in range(4)]
        until(lambda: pool._processes)
        list(pool._processes.values())[0].kill()
        errors = [task.exception(SOON) for task in tasks]
        report(len(set(map(id, errors))))
    """
        )
        == 4
    )


@ours
@pytest.mark.parametrize(
    "function, text",
    [("kill_me", "signal 9"), ("leave_with_3", "code 3"), ("leave_with_0", "code 0")],
)
def test_the_cause_says_how_the_worker_died(function, text):
    assert (
        program(
            f"""
        pool = process_pool(1, method="fork")
        task = pool.submit({function})
        until(lambda: pool._processes)
        pid, error = list(pool._processes)[0], task.exception(SOON)
        report([str(pid) in str(error.__cause__), "{text}" in str(error.__cause__)])
    """
        )
        == [True, True]
    )


# on_crash="replace": only the guilty -------------------------------------------------------------


@ours
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ENDS)
def test_only_the_guilty_task_fails(how, method):
    function, signal_number, exitcode = ENDS[how]
    outcome = program(
        f"""
        with process_pool(2, method="{method}", on_crash="replace") as pool:
            before = [pool.submit(nap, 0.01) for _ in range(4)]
            guilty = pool.submit({function.__name__})
            after = [pool.submit(nap, 0.01) for _ in range(4)]
            error = guilty.exception(SOON)
            pids = [task.result(SOON) for task in before + after]
            later = pool.submit(int, "7").result(SOON)
            report([type(error).__name__, error.pid not in (None, os.getpid()), error.signal,
                    error.exitcode, error.out_of_memory, later])
    """
    )
    assert outcome == ["WorkerDied", True, signal_number, exitcode, False, 7]


@ours
def test_a_worker_is_killed_from_outside():
    """Two workers, eight tasks, one running worker is killed."""
    assert (
        program(
            """
        with process_pool(2, method="fork", on_crash="replace") as pool:
            path = sys.argv[0] + ".go"
            tasks = [pool.submit(wait_for_file, path) for _ in range(8)]
            until(lambda: sum(task.running() for task in tasks) >= 2)
            victim = list(pool._processes)[0]
            os.kill(victim, signal.SIGKILL)
            done, _ = futures.wait(tasks, return_when=futures.FIRST_EXCEPTION, timeout=SOON)
            (error,) = [task.exception() for task in done]
            open(path, "w").close()
            good = sum(task.exception(SOON) is None for task in tasks)
            report([error.pid == victim, error.signal, good, pool.submit(abs, -1).result(SOON)])
    """
        )
        == [True, signal.SIGKILL, 7, 1]
    )


@ours
def test_an_idle_worker_is_killed():
    """Nobody's task is hurt, and the pool goes on, again and again."""
    assert (
        program(
            """
        with process_pool(2, method="fork", on_crash="replace", max_restarts=100) as pool:
            for _ in range(10):
                pid = pool.submit(os.getpid).result(SOON)
                os.kill(pid, signal.SIGKILL)
                until(lambda: not alive(pid))
            report(pool.submit(abs, -1).result(SOON))
    """
        )
        == 1
    )


@ours
def test_a_death_in_a_map():
    """The element that ran has the error, at its place."""
    assert (
        program(
            """
        with process_pool(1, method="fork", on_crash="replace") as pool:
            results = pool.map(kill_at_minus_one, [0, 1, 2, -1, 4])
            seen = []
            try:
                for result in results:
                    seen.append(result)
            except futures.WorkerDied as error:
                seen.append(error.signal)
            report(seen + list(results) + [pool.submit(abs, -1).result(SOON)])
    """
        )
        == [0, 1, 2, signal.SIGKILL, 1]
    )


@ours
def test_the_error_has_the_traceback_of_a_fatal_error():
    texts = program(
        """
        import faulthandler
        faulthandler.disable()
        texts = []
        for function in read_null, abort:
            with process_pool(1, method="fork", on_crash="replace") as pool:
                texts.append(pool.submit(function).exception(SOON).traceback)
        with process_pool(1, method="fork", on_crash="replace") as pool:
            texts.append(pool.submit(kill_me).exception(SOON).traceback)
        report(texts)
    """
    )
    assert "Segmentation fault" in texts[0] and "read_null" in texts[0]
    assert "Aborted" in texts[1] and "harm.py" in texts[1]
    assert texts[2] is None


@ours
def test_errors_of_crashes_can_be_pickled():
    assert (
        program(
            """
        import pickle
        with process_pool(1, method="fork", on_crash="replace") as pool:
            error = pool.submit(leave_with_3).exception(SOON)
        again = pickle.loads(pickle.dumps(error))
        same = again.pid == error.pid, str(again) == str(error)
        report([type(again).__name__, again.exitcode, *same])
    """
        )
        == ["WorkerDied", 3, True, True]
    )


@ours
@pytest.mark.parametrize("function", ["kill_me", "leave_with_0", "read_null"])
@pytest.mark.parametrize("where", ["argument", "result"])
def test_a_death_while_unpickling_or_pickling(function, where):
    assert (
        program(
            f"""
        with process_pool(2, method="fork", on_crash="replace") as pool:
            good = [pool.submit(nap, 0.01) for _ in range(5)]
            if "{where}" == "argument":
                bad = pool.submit(ignore, AtUnpickling({function}))
            else:
                bad = pool.submit(make, AtPickling, {function})
            good += [pool.submit(nap, 0.01) for _ in range(5)]
            report([type(bad.exception(SOON)).__name__,
                    all(task.result(SOON) for task in good)])
    """
        )
        == ["WorkerDied", True]
    )


@ours
def test_restarts_have_an_end():
    """More deaths than the budget allows break the pool, and every future has the cause."""
    assert (
        program(
            """
        with process_pool(1, method="fork", on_crash="replace", max_restarts=3) as pool:
            errors = []
            for _ in range(20):
                try:
                    errors.append(pool.submit(leave_with_3).exception(SOON))
                except futures.BrokenExecutor as error:
                    errors.append(error)
                    break
            report([4 <= len(errors) <= 6, isinstance(errors[-1], futures.BrokenExecutor),
                    bool(pool._broken)])
    """
        )
        == [True, True, True]
    )


@ours
@pytest.mark.parametrize("method", METHODS)
def test_an_initializer_that_dies_twice_then_works(method):
    assert (
        program(
            f"""
        path = sys.argv[0] + ".count"
        with process_pool(1, method="{method}", on_crash="replace", initializer=die_at_first,
                          initargs=(path, 2)) as pool:
            report([pool.submit(abs, -7).result(SOON), noted(path)])
    """
        )
        == [7, 3]
    )


@ours
def test_an_initializer_that_always_dies():
    outcome = program(
        """
        path = sys.argv[0] + ".count"
        with process_pool(2, method="fork", on_crash="replace", initializer=die_at_first,
                          initargs=(path, 10**6)) as pool:
            tasks = []
            try:
                tasks += [pool.submit(int) for _ in range(5)]
            except futures.BrokenExecutor:
                pass
            kinds = [isinstance(task.exception(SOON), futures.BrokenExecutor) for task in tasks]
        report([all(kinds), noted(path)])
    """
    )
    assert outcome[0] is True and outcome[1] <= 40


@ours
@pytest.mark.parametrize("function", ["close_all", "write_rubbish"])
def test_a_worker_that_wrecks_its_channel(function):
    """At most the task that did it fails, or the one after it; then all is well again."""
    assert (
        program(
            f"""
        with process_pool(1, method="fork", on_crash="replace") as pool:
            wrecking = pool.submit({function})
            until(wrecking.done, 5)
            outcomes = []
            for number in range(10):
                error = pool.submit(abs, number).exception(SOON)
                outcomes.append(error is None)
            report([wrecking.done(), sum(outcomes) >= 8, outcomes[-5:] == [True] * 5])
    """
        )
        == [True, True, True]
    )


@ours
def test_hosts_that_ignore_or_reap_children():
    """SIGCHLD ignored, or every child reaped by the program: deaths are seen all the same."""
    for preparation in (
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "threading.Thread(target=reap, daemon=True).start()",
    ):
        assert (
            program(
                f"""
            def reap():
                while True:
                    try:
                        os.waitpid(-1, 0)
                    except ChildProcessError:
                        time.sleep(0.001)
            {preparation}
            with process_pool(2, method="fork", on_crash="replace") as pool:
                bad, good = pool.submit(kill_me), [pool.submit(abs, -3) for _ in range(5)]
                report([type(bad.exception(SOON)).__name__, [task.result(SOON) for task in good]])
        """
            )
            == ["WorkerDied", [3] * 5]
        )


@ours
def test_chaos():
    """Random kills while many tasks run: each kill costs one task at most, all others are right."""
    good, bad, kills = program(
        """
        import random
        dice = random.Random(1)
        with process_pool(3, method="fork", on_crash="replace", max_restarts=1000) as pool:
            tasks = [pool.submit(nap, 0.002) for _ in range(600)]
            kills = 0
            while not all(task.done() for task in tasks):
                pids = [pid for pid in list(pool._processes) if alive(pid)]
                if pids and kills < 40:
                    try:
                        os.kill(dice.choice(pids), signal.SIGKILL)
                        kills += 1
                    except ProcessLookupError:
                        pass
                time.sleep(dice.random() / 50)
            kinds = [type(task.exception(SOON)).__name__ for task in tasks]
        report([kinds.count("NoneType"), kinds.count("WorkerDied"), kills])
    """
    )
    assert good + bad == 600 and 0 < bad <= kills


@ours
def test_kills_with_a_limit_of_tasks():
    assert (
        program(
            """
        with process_pool(2, method="forkserver", on_crash="replace", max_restarts=1000,
                          max_tasks_per_child=3) as pool:
            functions = [kill_me if number % 10 == 5 else abs for number in range(60)]
            tasks = [pool.submit(function, 1) for function in functions]
            kinds = [type(task.exception(LIMIT)).__name__ for task in tasks]
            report([kinds.count("WorkerDied"), kinds.count("NoneType")])
    """
        )
        == [6, 54]
    )


@ours
def test_a_task_starts_at_most_once():
    assert (
        program(
            """
        path = sys.argv[0] + ".runs."
        with process_pool(2, method="fork", on_crash="replace", max_restarts=1000) as pool:
            tasks = []
            for number in range(60):
                function = die_at_first if number % 7 == 3 else note
                tasks.append(pool.submit(function, path + str(number)))
            futures.wait(tasks, timeout=LIMIT)
        report(sorted({noted(path + str(number)) for number in range(60)}))
    """
        )
        == [1]
    )


# on_crash="retry" --------------------------------------------------------------------------------


@ours
def test_retry():
    assert (
        program(
            """
        path = sys.argv[0] + ".runs"
        with process_pool(1, method="fork", on_crash="retry") as pool:
            report([pool.submit(die_at_first, path).result(SOON), noted(path)])
    """
        )
        == [42, 2]
    )


@ours
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_have_an_end(retries):
    assert (
        program(
            f"""
        path = sys.argv[0] + ".runs"
        with process_pool(1, method="fork", on_crash="retry", max_retries={retries}) as pool:
            error = pool.submit(die_at_first, path, 100).exception(SOON)
            report([type(error).__name__, noted(path), pool.submit(abs, -1).result(SOON)])
    """
        )
        == ["WorkerDied", retries + 1, 1]
    )


@ours
def test_an_error_is_no_crash():
    """What a task raises is not tried again."""
    assert (
        program(
            """
        path = sys.argv[0] + ".runs"
        with process_pool(1, method="fork", on_crash="retry", max_retries=5) as pool:
            task = pool.submit(note_and_fail, path)
            report([type(task.exception(SOON)).__name__, noted(path)])
    """
        )
        == ["LookupError", 1]
    )


# What cannot be unpickled ------------------------------------------------------------------------


@ours
@pytest.mark.parametrize("on_crash", ["break", "replace"])
@pytest.mark.parametrize(
    "task",
    [
        "raise_bad_error",
        "make, AtUnpickling, raise_at_unpickling",
        "make, AtUnpickling, exit_quietly",
    ],
)
def test_what_cannot_be_unpickled_fails_its_own_future(task, on_crash):
    """With the standard module it breaks the pool, or kills its manager and hangs."""
    done, text, others = program(
        f"""
        with process_pool(2, method="fork", on_crash="{on_crash}") as pool:
            good = [pool.submit(nap, 0.01) for _ in range(5)]
            bad = pool.submit({task})
            good += [pool.submit(nap, 0.01) for _ in range(5)]
            error = bad.exception(SOON)
            text = repr(error) + str(error.__cause__)
            report([isinstance(error, BaseException), text,
                    all([task.result(SOON) for task in good + [pool.submit(nap, 0)]])])
    """
    )
    assert done and others
    assert "BadError" in text or "at unpickling" in text or "exit_quietly" in task


# Callbacks ---------------------------------------------------------------------------------------


@ours
@pytest.mark.parametrize("raised", ["SystemExit", "KeyboardInterrupt", "ValueError"])
def test_a_callback_that_leaves(raised):
    """With the standard module sys.exit() there ends the manager, and the pool hangs."""
    assert (
        program(
            f"""
        def leave(_):
            raise {raised}
        with process_pool(1, method="fork") as pool:
            for _ in range(3):
                task = pool.submit(nap, 0.05)
                task.add_done_callback(leave)
                task.result(SOON)
            report([pool.submit(abs, -3).result(SOON), list(pool.map(abs, [-1]))])
    """
        )
        == [3, [1]]
    )


@ours
def test_a_callback_that_waits_for_the_pool():
    """It finishes, or is refused as a deadlock: it never hangs."""
    assert (
        program(
            """
        outcome = futures.Future()
        def submit_and_wait(_):
            try:
                outcome.set_result(pool.submit(abs, -5).result(SOON))
            except futures.DeadlockError:
                outcome.set_result(5)
        with process_pool(1, method="fork") as pool:
            task = pool.submit(nap, 0.05)
            task.add_done_callback(submit_and_wait)
            report(outcome.result(3 * SOON))
    """
        )
        == 5
    )


@ours
def test_a_callback_that_blocks_delays_no_death():
    """A worker dies while a callback blocks: who waits for its task hears of it."""
    assert (
        program(
            """
        go = threading.Event()
        with process_pool(2, method="fork", on_crash="replace") as pool:
            first = pool.submit(nap, 0.01)
            first.add_done_callback(lambda _: go.wait(30))
            first.result(SOON)
            bad = pool.submit(kill_me)
            report([type(bad.exception(SOON)).__name__, go.set()])
    """
        )
        == ["WorkerDied", None]
    )


# Stopping ----------------------------------------------------------------------------------------


@ours
def test_the_last_reference_goes_in_a_callback():
    assert (
        program(
            """
        import gc
        done, box = threading.Event(), [process_pool(1, method="fork")]
        def drop(_):
            box.clear()
            gc.collect()
            done.set()
        box[0].submit(nap, 0.05).add_done_callback(drop)
        report([done.wait(SOON), until(lambda: not offspring())])
    """
        )
        == [True, True]
    )


@ours
@pytest.mark.parametrize("wait", [True, False])
def test_a_callback_that_shuts_down(wait):
    assert (
        program(
            f"""
        pool = process_pool(1, method="fork")
        done = threading.Event()
        def end(_):
            try:
                pool.shutdown(wait={wait})
            except RuntimeError:
                pass
            done.set()
        pool.submit(nap, 0.05).add_done_callback(end)
        first = done.wait(SOON)
        pool.shutdown()
        report([first, until(lambda: not offspring())])
    """
        )
        == [True, True]
    )


@ours
@pytest.mark.parametrize("task", ["nap, 60", "spin", "spin_without_heed", "hold_the_lock"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_run_limit_stops_the_worker(task, method):
    kind, seconds, others = program(
        f"""
        with process_pool(2, method="{method}") as pool:
            list(pool.map(abs, range(10)))
            good = [pool.submit(abs, -number) for number in range(10)]
            began = time.monotonic()
            stopped = pool.using(run_limit=0.3).submit({task})
            error = stopped.exception(SOON)
            seconds = time.monotonic() - began
            later = [pool.submit(abs, -number) for number in range(10)]
            report([type(error).__name__, seconds,
                    [task.result(SOON) for task in good + later] == list(range(10)) * 2])
    """
    )
    assert kind == "TaskStopped" and 0.3 <= seconds < SOON / 2 and others


@ours
def test_run_limit_of_the_pool():
    assert (
        program(
            """
        with process_pool(1, method="fork", run_limit=0.3) as pool:
            tasks = [pool.submit(nap, seconds) for seconds in (60, 0, 60, 0)]
            report([type(task.exception(SOON)).__name__ for task in tasks])
    """
        )
        == ["TaskStopped", "NoneType", "TaskStopped", "NoneType"]
    )


@ours
def test_run_limit_counts_from_the_start_of_the_task():
    """Ten tasks of a third of the limit, one after the other: none is stopped."""
    assert (
        program(
            """
        with process_pool(1, method="fork", run_limit=3) as pool:
            tasks = [pool.submit(nap, 0.4) for _ in range(10)]
            report({type(task.exception(LIMIT)).__name__ for task in tasks} == {"NoneType"})
    """
        )
        is True
    )


@ours
@pytest.mark.parametrize("task", ["nap, 60", "spin", "spin_without_heed"])
def test_stop_of_a_running_task(task):
    assert (
        program(
            f"""
        with process_pool(1, method="fork") as pool:
            running, waiting = pool.submit({task}), pool.submit(abs, -3)
            until(running.running)
            running.stop()
            error = running.exception(SOON)
            report([type(error).__name__, waiting.result(SOON), running.done()])
    """
        )
        == ["TaskStopped", 3, True]
    )


@ours
def test_stop_of_waiting_and_done_tasks():
    assert (
        program(
            """
        with process_pool(1, method="fork") as pool:
            path = sys.argv[0] + ".go"
            running = pool.submit(wait_for_file, path)
            until(running.running)
            waiting = [pool.submit(abs, -3) for _ in range(20)]
            waiting[-1].stop()
            cancelled = waiting[-1].cancelled()
            open(path, "w").close()
            results = [task.result(SOON) for task in [running] + waiting[:-1]]
            running.stop()
            report([cancelled, results == [True] + [3] * 19, running.result(0)])
    """
        )
        == [True, True, True]
    )


@ours
def test_a_stopped_task_is_no_crash():
    """Stopping breaks no pool, uses up no restarts, and is not tried again."""
    assert (
        program(
            """
        with process_pool(1, method="fork", on_crash="break", max_restarts=2) as pool:
            for _ in range(6):
                task = pool.submit(nap, 60)
                until(task.running)
                task.stop()
                assert isinstance(task.exception(SOON), futures.TaskStopped)
            report(pool.submit(abs, -1).result(SOON))
    """
        )
        == 1
    )


@ours
def test_grace_lets_a_task_tidy_up():
    assert (
        program(
            """
        path = sys.argv[0] + ".tidied"
        with process_pool(1, method="fork") as pool:
            task = pool.submit(tidy_at_sigterm, path)
            until(lambda: noted(path) == 1)
            task.stop(grace=0.1)
            report([type(task.exception(SOON)).__name__, until(lambda: noted(path) == 2)])
    """
        )
        == ["TaskStopped", True]
    )


@ours
def test_a_worker_that_was_halted():
    """SIGSTOP: a timed wait keeps its time, and the limit ends it."""
    assert (
        program(
            """
        with process_pool(1, method="fork") as pool:
            pid = pool.submit(os.getpid).result()
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            task = pool.using(run_limit=2).submit(abs, -1)
            try:
                task.result(timeout=0.2)
            except TimeoutError:
                seconds = time.monotonic() - began
            os.kill(pid, signal.SIGCONT)
            report([0.2 <= seconds < 2, task.result(SOON)])
    """
        )
        == [True, 1]
    )


@ours
def test_a_halted_parent():
    """Nothing is taken for dead because the parent was not there for a while."""
    assert (
        program(
            """
        import subprocess
        with process_pool(2, method="fork", on_crash="replace") as pool:
            tasks = [pool.submit(nap, 0.01) for _ in range(100)]
            subprocess.Popen(["sh", "-c", "kill -STOP $PPID; sleep 3; kill -CONT $PPID"]).wait()
            report(sum(task.exception(SOON) is None for task in tasks))
    """
        )
        == 100
    )


@ours
def test_the_end_with_a_hanging_worker():
    assert (
        program(
            """
        pool = process_pool(1, method="fork")
        path = sys.argv[0] + ".runs"
        task = pool.submit(spin_without_heed, path)
        until(lambda: noted(path))
        try:
            pool.shutdown(timeout=0.2)
        except TimeoutError:
            pool.kill_workers()
        report(task.exception(SOON) is not None)
    """
        )
        is True
    )


# Large results -----------------------------------------------------------------------------------


@ours
def test_a_worker_killed_in_the_middle_of_a_large_result():
    """Whenever the kill comes: the future has its error or the whole result."""
    outcomes = program(
        """
        import random
        dice, outcomes = random.Random(2), []
        size = 32 << 20
        with process_pool(1, method="fork", on_crash="replace", max_restarts=1000) as pool:
            for turn in range(25):
                path = f"{sys.argv[0]}.{turn}"
                task = pool.submit(large_pid, path, size)
                until(lambda: noted(path))
                time.sleep(dice.random() / 20)
                os.kill(int(open(path).read()), signal.SIGKILL)
                error = task.exception(SOON)
                if error is None:
                    outcomes.append(task.result() == large(size))
                else:
                    outcomes.append(type(error).__name__)
            outcomes.append(len(pool.submit(large, size).result(SOON)) == size)
        report(outcomes)
    """
    )
    assert set(outcomes) <= {True, "WorkerDied"} and outcomes[-1] is True


@ours
def test_a_worker_killed_while_it_is_given_a_large_argument():
    kinds = program(
        """
        import random
        dice, kinds = random.Random(3), []
        with process_pool(1, method="fork", on_crash="replace", max_restarts=1000) as pool:
            argument = large(32 << 20)
            for _ in range(15):
                pid = pool.submit(os.getpid).result(SOON)
                killer = threading.Timer(dice.random() / 30, os.kill, (pid, signal.SIGKILL))
                killer.start()
                task = pool.submit(len, argument)
                kinds.append(type(task.exception(SOON)).__name__)
                killer.join()
                until(lambda: not alive(pid))
            kinds.append(pool.submit(len, argument).result(SOON) == 32 << 20)
        report(kinds)
    """
    )
    assert set(kinds[:-1]) <= {"NoneType", "WorkerDied"} and kinds[-1] is True


# The machine runs out ----------------------------------------------------------------------------


@ours
def test_out_of_memory():
    """The kernel kills the worker that ate it, not the program, and the error says so."""
    limit = str(200 << 20)
    directory = cgroup("memory", "memory.limit_in_bytes", limit, "memory.max", limit)
    try:
        assert (
            program(
                """
            with open(sys.argv[1] + "/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            with process_pool(1, method="fork", on_crash="replace") as pool:
                error = pool.submit(eat_memory, 600 << 20).exception(SOON)
                report([type(error).__name__, error.signal, error.out_of_memory,
                        pool.submit(abs, -1).result(SOON)])
        """,
                directory,
            )
            == ["WorkerDied", signal.SIGKILL, True, 1]
        )
    finally:
        remove_cgroup(directory)


DEVICES = (
    "mount -t tmpfs none /dev && for d in null:3 zero:5 urandom:9; do "
    "mknod -m 666 /dev/${d%:*} c 1 ${d#*:}; done"
)
PROC = "mount -t tmpfs none /proc"
SHM = {
    "absent": DEVICES,
    "read-only": "mount -t tmpfs -o ro none /dev/shm",
    "tiny": "mount -t tmpfs -o size=64k none /dev/shm",
}


def own_mounts(command):
    """The words before a program's own that give it a file system of its own, or skip."""
    words = ["unshare", "-m", "sh", "-c", command + ' && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], stderr=-3).returncode:
        pytest.skip("no mounts of its own for a program here")
    return words


@ours
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", SHM)
def test_without_shared_memory_in_the_file_system(how, method):
    """The standard module needs /dev/shm for its semaphores."""
    assert (
        program(
            f"""
        with process_pool(2, method="{method}") as pool:
            assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
            data = large(16 << 20)
            report(pool.submit(bytes, data).result(SOON) == data)
    """,
            wrapper=own_mounts(SHM[how]),
        )
        is True
    )


@ours
def test_without_proc():
    """Also what a death was is known."""
    assert (
        program(
            """
        with process_pool(2, method="fork", on_crash="replace") as pool, thread_pool(2) as other:
            error = pool.submit(kill_me).exception(SOON)
            report([list(pool.map(abs, range(-3, 0))), list(other.map(int, "12")), error.signal])
    """,
            wrapper=own_mounts(PROC),
        )
        == [[3, 2, 1], [1, 2], signal.SIGKILL]
    )


@ours
@pytest.mark.parametrize("kind", ["thread_pool", "process_pool"])
def test_few_descriptors(kind):
    """With each number of free descriptors it works or raises, never hangs, leaves none: but for
    a pipe that multiprocessing itself leaves when its second one fails."""
    outcome = program(
        f"""
        import resource
        {kind}(1).submit(abs, -1).result()
        import multiprocessing.popen_fork, multiprocessing.resource_tracker
        kinds = set()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for free in range(0, 30):
            before = descriptors()
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + free, hard))
            try:
                pool = {kind}(2)
                kinds.add(pool.submit(abs, -1).result(SOON))
                pool.shutdown()
            except Exception as error:
                kinds.add(type(error).__name__)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            pool = None
            if not until(lambda: descriptors() <= before + 2, 2):
                kinds.add(f"leak at {{free}}")
        with {kind}(2) as pool:
            kinds.add(pool.submit(abs, -2).result(SOON))
        report(sorted(map(str, kinds)))
    """
    )
    assert {"1", "2"} <= set(outcome)
    assert set(outcome) <= {"1", "2", "OSError", "BrokenProcessPool", "WorkerDied"}, outcome


@ours
def test_descriptors_run_out_in_a_pool_that_works():
    """A pool goes on without new descriptors, also when a worker dies meanwhile."""
    assert (
        program(
            """
        import resource
        with process_pool(2, method="fork", on_crash="replace") as pool:
            list(pool.map(abs, range(20)))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() - 1, hard))
            small = list(pool.map(abs, range(50))) == list(range(50))
            dead = pool.submit(kill_me).exception(SOON) is not None
            other = pool.submit(abs, -1).exception(SOON)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            report([small, dead, isinstance(other, (type(None), Exception))])
    """
        )
        == [True, True, True]
    )


@ours
def test_no_thread_can_be_started():
    """A submit that fails has not submitted: with the standard module its task runs later."""
    assert (
        run_json(
            """
        ran = []
        def refuse(*_, **__):
            raise RuntimeError("can't start new thread")
        names = [name for name in ("_start_new_thread", "_start_joinable_thread")
                 if hasattr(threading, name)]
        real = {name: getattr(threading, name) for name in names}
        for name in names:
            setattr(threading, name, refuse)
        pool = thread_pool(2)
        try:
            pool.submit(ran.append, "refused")
            outcome = "accepted"
        except RuntimeError as error:
            outcome = str(error)
        for name in names:
            setattr(threading, name, real[name])
        pool.submit(ran.append, "served").result(SOON)
        pool.shutdown()
        report([outcome, ran])
    """
        )
        == ["can't start new thread", ["served"]]
    )


@ours
@long
def test_chaos_for_longer():
    """Kills of random workers, in all start methods, beside maps, limits and large results."""
    assert (
        program(
            """
        import random
        dice = random.Random(4)
        for method in ("fork", "forkserver", "spawn"):
            with process_pool(3, method=method, on_crash="retry", max_retries=50,
                              max_restarts=100000) as pool:
                end = time.monotonic() + 8
                while time.monotonic() < end:
                    tasks = [pool.submit(large, dice.choice([256, 1 << 16, 1 << 22]))
                             for _ in range(20)]
                    for pid in dice.sample(list(pool._processes), 1):
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
                    for task in tasks:
                        assert len(task.result(SOON)) % 256 == 0
        report("survived")
    """,
            limit=120,
        )
        == "survived"
    )
