# SPDX-License-Identifier: MIT
"""A program made of random steps on futures and pools; it prints what came of each.

    random_program.py KIND SEED...        KIND: futures, threads, processes

Whatever the implementation, the same seed gives the same steps, and only steps whose outcome the
documentation fixes: so two implementations must print the same.
"""
import functools
import json
import logging
import os
import random
import re
import sys
import threading

from support import SOON, futures, until

STEPS = 60
ALL = [futures.ALL_COMPLETED, futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION]


# Tasks, which processes can import ----------------------------------------------------------------


class Trouble(Exception):
    """An error with arguments of its own."""


def task(number):
    """A result or an error that depends on the number alone."""
    kind = number % 11
    if kind == 3:
        raise Trouble(number, "text")
    if kind == 5:
        return {"number": number, "list": list(range(kind))}
    if kind == 7:
        return 1 / (number - number)
    if kind == 9:
        raise SystemExit(number)
    return number * number


def add(*numbers, **named):
    return sum(numbers) + sum(named.values())


# Outcomes -----------------------------------------------------------------------------------------


def described(error):
    """Its type, its arguments without addresses, and the type of its cause."""
    args = [re.sub("0x[0-9a-f]+", "0x", str(arg)) for arg in error.args]
    return [type(error).__name__, args, type(error.__cause__).__name__]


def outcome(function, *args, **kwargs):
    """What a call gives or raises, as JSON can hold it."""
    try:
        return ["gives", function(*args, **kwargs)]
    except BaseException as error:
        return ["raises", *described(error)]


def state(future):
    facts = [future._state, future.done(), future.running(), future.cancelled()]
    if future.done():
        facts += [outcome(future.result, timeout=0), outcome(lambda: repr_of(future.exception(0)))]
    return facts


def repr_of(error):
    return None if error is None else described(error)


# Futures without a pool ---------------------------------------------------------------------------


class Futures:
    """Random calls of the methods of a few futures, callbacks and waits among them."""

    def __init__(self, dice):
        self.dice, self.log = dice, []
        self.futures = [futures.Future() for _ in range(6)]

    def steps(self):
        steps = [
            self.settle,
            self.settle,
            self.fail,
            self.begin,
            self.begin,
            self.cancel,
            self.look,
            self.callback,
            self.callback,
            self.wait,
            self.wait,
            self.complete,
            self.replace,
        ]
        for _ in range(STEPS):
            yield self.dice.choice(steps)

    def pick(self):
        return self.dice.randrange(len(self.futures))

    def settle(self):
        return outcome(self.futures[self.pick()].set_result, self.dice.randrange(100))

    def fail(self):
        return outcome(self.futures[self.pick()].set_exception, Trouble(self.dice.randrange(100)))

    def begin(self):
        return outcome(self.futures[self.pick()].set_running_or_notify_cancel)

    def cancel(self):
        """With the notice that a pool would give: until then implementations may differ."""
        future = self.futures[self.pick()]
        result = outcome(future.cancel)
        if future._state == "CANCELLED":
            future.set_running_or_notify_cancel()
        return result

    def look(self):
        return state(self.futures[self.pick()])

    def callback(self):
        place, kind = self.pick(), self.dice.randrange(4)
        tag = self.dice.randrange(1000)
        return outcome(
            self.futures[place].add_done_callback,
            functools.partial(self.called, tag, kind, self.pick()),
        )

    def called(self, tag, kind, other, future):
        self.log.append(
            [
                "callback",
                tag,
                self.futures.index(future) if future in self.futures else -1,
                future._state,
            ]
        )
        if kind == 1:
            raise Trouble(tag)
        if kind == 2 and not self.futures[other].done():
            self.futures[other].cancel()
            self.futures[other].set_running_or_notify_cancel()
        if kind == 3:
            self.futures[other].add_done_callback(functools.partial(self.called, tag + 1, 0, other))

    def wait(self):
        chosen = self.dice.choices(self.futures, k=self.dice.randrange(1, 9))
        when = self.dice.choice(ALL)
        done, pending = futures.wait(chosen, timeout=0, return_when=when)
        return [sorted(map(self.futures.index, done)), sorted(map(self.futures.index, pending))]

    def complete(self):
        chosen = self.dice.choices(self.futures, k=self.dice.randrange(1, 9))
        seen = []

        def collect():
            for future in futures.as_completed(chosen, timeout=0):
                seen.append(self.futures.index(future))

        return [outcome(collect), sorted(seen)]

    def replace(self):
        place = self.pick()
        if self.futures[place].done():
            self.futures[place] = futures.Future()
        return place


# Pools --------------------------------------------------------------------------------------------


class Pool:
    """Random submits, maps, waits and endings of a pool."""

    def __init__(self, dice, processes):
        self.dice, self.log, self.processes = dice, [], processes
        self.workers = dice.randrange(1, 4)
        self.pool = self.make()
        self.tasks = []

    def make(self):
        if self.processes:
            import multiprocessing

            return futures.ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("fork")
            )
        return futures.ThreadPoolExecutor(self.workers)

    def steps(self):
        steps = [self.submit] * 4 + [
            self.add,
            self.map,
            self.map,
            self.take_some,
            self.collect,
            self.wait,
            self.complete,
            self.callback,
            self.bad_call,
            self.renew,
        ]
        if not self.processes:
            steps += [self.cancel_behind, self.first_exception]
        for _ in range(STEPS // 2 if self.processes else STEPS):
            yield self.dice.choice(steps)

    def submit(self):
        self.tasks.append(self.pool.submit(task, self.dice.randrange(1000)))

    def add(self):
        numbers = [self.dice.randrange(9) for _ in range(self.dice.randrange(4))]
        self.tasks.append(self.pool.submit(add, *numbers, a=1, fn=2, self=self.dice.randrange(9)))

    def numbers(self):
        return [self.dice.randrange(1000) for _ in range(self.dice.randrange(12))]

    def map(self):
        """An error takes its chunk with it in the standard module: so what was seen is compared
        only where a chunk is one call."""
        chunksize = self.dice.choice([1, 1, 2, 5, 100])
        seen, results = [], self.pool.map(task, self.numbers(), chunksize=chunksize)

        def collect():
            for result in results:
                seen.append(result)

        ended = outcome(collect)
        whole = chunksize == 1 or ended[0] == "gives"
        return [ended, seen if whole else None, outcome(next, results)]

    def take_some(self):
        """Several iterables, some results, then close."""
        results = self.pool.map(add, self.numbers(), self.numbers(), timeout=60)
        some = [outcome(next, results) for _ in range(self.dice.randrange(4))]
        results.close()
        return [some, outcome(next, results)]

    def collect(self):
        chosen, self.tasks = self.tasks, []
        return [[outcome(future.result, SOON), state(future)] for future in chosen]

    def wait(self):
        done, pending = futures.wait(self.tasks, timeout=SOON)
        return [sorted(map(self.tasks.index, done)), len(pending)]

    def first_exception(self):
        """Of futures that are done, or never will be."""
        futures.wait(self.tasks, timeout=SOON)
        never = futures.Future()
        failed = any(future.exception() for future in self.tasks)
        if not failed:
            never.set_result(None)
        done, pending = futures.wait([*self.tasks, never], SOON, futures.FIRST_EXCEPTION)
        return [len(done), len(pending)]

    def complete(self):
        return sorted(
            self.tasks.index(future) for future in futures.as_completed(self.tasks, timeout=SOON)
        )

    def callback(self):
        """All are called; their order is fixed only for those added before the end."""
        calls, count = [], self.dice.randrange(1, 5)
        future = self.pool.submit(task, self.dice.randrange(1000))
        for number in range(count):
            future.add_done_callback(functools.partial(self.note, calls, number))
        until(lambda: len(calls) == count)
        return sorted(calls, key=lambda call: call[0])

    @staticmethod
    def note(calls, number, future):
        calls.append([number, state(future)])
        if number == 2:
            raise Trouble("in a callback")

    def bad_call(self):
        function = self.dice.choice([None, 42, "text", object()])
        if self.processes:
            function = self.dice.choice([None, 42, lambda: 1])
        error = self.pool.submit(function).exception(SOON)
        return isinstance(error, Exception)

    def cancel_behind(self):
        """Cancel what waits behind blocked workers: which ones is known. cfutures notifies at once
        those who wait for a future, the standard module when a worker comes to it."""
        futures.wait(self.tasks, timeout=SOON)
        go = threading.Event()
        blocked = [self.pool.submit(go.wait, SOON) for _ in range(self.workers)]
        until(lambda: all(future.running() for future in blocked))
        waiting = [self.pool.submit(task, number) for number in self.numbers()]
        cancelled = [future.cancel() for future in waiting if self.dice.randrange(2)]
        states = [future._state.removesuffix("_AND_NOTIFIED") for future in waiting]
        go.set()
        return [cancelled, states, [outcome(future.result, SOON) for future in waiting]]

    def renew(self):
        """End the pool in one of the ways, and go on with another."""
        cancel, waits = self.dice.randrange(2), self.dice.randrange(2)
        futures.wait(self.tasks, timeout=SOON)
        self.pool.shutdown(wait=bool(waits), cancel_futures=bool(cancel))
        refused = [outcome(self.pool.submit, task, 1), outcome(self.pool.map, task, [1])]
        self.pool = self.make()
        return refused


def run(kind, seed):
    print(kind, seed)
    dice = random.Random(f"{kind} {seed}")
    program = Futures(dice) if kind == "futures" else Pool(dice, kind == "processes")
    for step in program.steps():
        print(json.dumps([step.__name__, step(), program.log], sort_keys=True))
        program.log.clear()
    if kind != "futures":
        print(json.dumps(program.collect(), sort_keys=True))
        program.pool.shutdown()


if __name__ == "__main__":
    logging.disable()
    for number in sys.argv[2:]:
        run(sys.argv[1], int(number))
    sys.stdout.flush()
    os._exit(0)
