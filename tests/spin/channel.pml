/* SPDX-License-Identifier: MIT */
/* The channel between the parent and one worker; mirrors src/processes/channel.h, dispatch.c,
 * drain.c, worker.c, and of pool.c and manager.c how a task is cancelled and when the manager
 * sleeps.
 *
 * A thread submits tasks into a small ring of slots, and into a queue when that is full.  The
 * worker takes the slots in order.  The manager drains when the worker's bell has rung it,
 * lingers or arms the bell, and sleeps.  Beside them, as a run asks for it: -DWAIT=t attends to
 * task t (holds the role, sleeps on the bell), -DWATCH=t expects it (eager), -DCANCEL=t cancels
 * it, -DTAKE takes back the last task that was not begun, and puts it into the queue again.
 * With -DLINGER the manager stays awake for a while after each bell; with -DGATED the worker
 * does not end a task behind the one that somebody waits for before that is settled, so to be
 * told of all in the end is not enough.  Positions are counted modulo NUMBERS and begin shortly
 * before they wrap around; the slots say DONE, of a lap before.
 *
 * What is guarded by the pool's lock or the role alone happens in one step with the access to
 * shared memory beside it.
 *
 * Held: each task settles exactly once, with its own result or cancelled; a cancelled one never
 * runs; the worker runs the task that the parent sent at that position, and both end at the same
 * one; nobody sleeps for ever. Broken on purpose, each of which must be found:
 * -DSENT_BEFORE_EMPTY (a slot counts as sent while it still says DONE from a lap before),
 * -DSKIP_WITHOUT_SWAP (the worker stores DONE over SKIP), -DCANCEL_WITHOUT_MARK (the reader may
 * take a skipped slot before its future is cancelled), -DARM_OVER_WAITER (arming asks for a
 * later task than the one that is attended to), -DNO_RECHECK (the role's holder does not look
 * again after letting go), -DSLEEP_BLIND (the worker does not look at the slot before it
 * sleeps), -DSKIPPED_MOVES_NOTHING (who has passed over cancelled tasks alone does not refill),
 * -DTAKE_UNARMED (after a take-back the bell waits for a task that is not there any more),
 * -DSLEEP_UNARMED (the manager sleeps without arming), -DEXPECT_UNARMED (so does who expects a
 * task), -DALWAYS_PATIENT (half of the tasks shall be done before a ring for an expected one,
 * although the manager sleeps). */

#ifndef SLOTS
#define SLOTS 3
#endif
#ifndef TASKS
#define TASKS 3
#endif
#ifndef WAIT
#define WAIT 0
#endif
#ifndef WATCH
#define WATCH 0
#endif
#ifdef LINGER
#define LINGERS true
#else
#define LINGERS false
#endif
#define NUMBERS (6 * SLOTS)
#define FIRST (NUMBERS - 2)
#define NEXT(n) (((n) + 1) % NUMBERS)
#define BEFORE(n) (((n) + NUMBERS - 1) % NUMBERS)
#define FROM(a, b) (((b) + NUMBERS - (a)) % NUMBERS)
#define REACHED(n, at) (FROM(at, n) < NUMBERS / 2)
#define SLOT(n) ((n) % SLOTS)
#define OUTSTANDING FROM(seen, sent)

/* a slot's state */
#define EMPTY 0
#define SENT 1
#define RUNNING 2
#define DONE 3
#define SKIP 4
/* bells */
#define QUIET 0
#define MANAGER 1
#define WAITER 2
#define AWAKE 0
#define ASLEEP 1
/* futures */
#define PENDING 0
#define CLAIMED 1
#define SETTLED 2
#define CANCELLED 3
/* in tasks_sent */
#define BUSY (TASKS + 1)
#define SKIPPED (TASKS + 2)

/* The arena, and who sleeps on it. */
byte state[SLOTS], arg[SLOTS], result[SLOTS];
byte bell, ring_at, worker_bell;
bool worker_sleeps, waiter_sleeps, event;
/* The parent's. */
bool locked, role, eager, dry, attended, lively, woken;
byte awaited, seen = FIRST, sent = FIRST, tasks_sent[SLOTS];
byte place[TASKS + 1]; /* number + 1; 0: it was not sent */
bool wanted[TASKS + 1];
byte future[TASKS + 1];
chan queue = [TASKS] of { byte }; /* sorted: what is taken back goes to its front */
/* Ghosts. */
byte submitted, position = FIRST;
bool ran[TASKS + 1];

#define IS_FINAL(f) (future[f] >= SETTLED)
#define HAS_RESULT (seen != sent && state[SLOT(seen)] == DONE)

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

/* ---- with the lock ---- */

inline nudge()
{
    atomic { if :: bell == WAITER -> bell = QUIET; waiter_sleeps = false :: else fi }
}

inline wake_worker()
{
    atomic { if :: worker_bell == ASLEEP -> worker_bell = AWAKE; worker_sleeps = false :: else fi }
}

#ifdef ALWAYS_PATIENT
#define IS_PATIENT true
#else
#define IS_PATIENT (!eager || lively)
#endif

/* ready: the result that the bell was to ring for is there already. */
inline arm()
{
    d_step {
        ready = false;
        number = NUMBERS;
        if
        :: OUTSTANDING > 0 && (eager || len(queue) > 0) ->
            number = (seen + (IS_PATIENT -> (OUTSTANDING - 1) / 2 : 0)) % NUMBERS
        :: OUTSTANDING > 0 && dry && !(eager || len(queue) > 0) -> number = BEFORE(sent)
        :: else
        fi;
#ifndef ARM_OVER_WAITER
        if
        :: attended && (number == NUMBERS || FROM(seen, awaited) < FROM(seen, number)) ->
            number = awaited
        :: else
        fi;
#endif
        if :: number != NUMBERS -> ring_at = number :: else fi
    };
    if
    :: atomic { number != NUMBERS -> if :: bell == QUIET -> bell = MANAGER :: else fi };
        atomic {
            ready = state[SLOT(number)] == DONE;
            number = 0;
            if :: ready -> nudge() :: else fi
        }
    :: atomic { number == NUMBERS -> number = 0 }
    fi
}

inline arm_or_wake()
{
    arm();
    atomic { if :: ready -> woken = true :: else fi; ready = false }
}

inline send(f)
{
#ifdef SENT_BEFORE_EMPTY
    d_step {
        arg[SLOT(sent)] = f;
        tasks_sent[SLOT(sent)] = f;
        place[f] = sent + 1;
        sent = NEXT(sent)
    };
    state[SLOT(BEFORE(sent))] = EMPTY;
#else
    d_step {
        assert(tasks_sent[SLOT(sent)] == 0);
        arg[SLOT(sent)] = f;
        state[SLOT(sent)] = EMPTY;
        tasks_sent[SLOT(sent)] = f;
        place[f] = sent + 1
    };
    sent = NEXT(sent);
#endif
    d_step {
        state[SLOT(BEFORE(sent))] = SENT;
        eager = eager || wanted[f];
        dry = dry || !lively
    };
    d_step {
        if
        :: dry && !eager && !attended -> ring_at = BEFORE(sent)
        :: else
        fi
    }
}

/* Sends what is queued, as far as there is room. */
inline refill()
{
    do
    :: OUTSTANDING < SLOTS - 1 && len(queue) > 0 ->
        queue?f;
        if :: future[f] == PENDING -> send(f); some = true :: else fi /* else it was cancelled */
    :: else -> break
    od;
    if :: some -> wake_worker() :: else fi;
    d_step {
        if :: OUTSTANDING == 0 -> eager = false; dry = false :: else fi;
        f = 0;
        some = false
    }
}

/* ---- reading ---- */

/* The role is held.  some: there was one; f: its future, 0: it was skipped. */
inline read_one()
{
    if
    :: atomic { HAS_RESULT -> number = SLOT(seen) };
        if
        :: atomic {
            tasks_sent[number] != BUSY ->
                some = true;
                f = tasks_sent[number];
                assert(f != 0);
                tasks_sent[number] = 0
            };
            atomic {
                if
                :: f == SKIPPED -> f = 0
                :: else ->
                    assert(future[f] == PENDING);
                    future[f] = CLAIMED;
                    assert(result[number] == f)
                fi;
                seen = NEXT(seen);
                moved = true;
                number = 0
            }
        :: atomic { else -> some = false; number = 0 }
        fi
    :: atomic { else -> some = false }
    fi
}

/* Reads at most one result, which is a batch as good as any. */
inline drain_and_leave()
{
    do
    :: read_one(); if :: f || !some -> break :: else fi
    od;
    atomic { role = false; some = false; mine = f; f = 0 };
#ifdef SKIPPED_MOVES_NOTHING
    moved = mine != 0;
#endif
    if
    :: moved -> lock(); refill(); arm(); d_step { ready = false; moved = false; locked = false }
    :: else
    fi;
    d_step {
        if :: mine -> assert(future[mine] == CLAIMED); future[mine] = SETTLED :: else fi;
        mine = 0
    }
}

inline drain()
{
    do
    :: HAS_RESULT ->
        atomic { some = !role; role = true };
        if :: some -> some = false; drain_and_leave() :: else -> break fi
#ifdef NO_RECHECK
        ; break
#endif
    :: else -> break
    od
}

/* ---- the threads ---- */

proctype Submitter()
{
    byte f, task, number;
    bool ready, some;
    do
    :: task < TASKS ->
        task++;
        lock();
        if
        :: len(queue) == 0 && OUTSTANDING < SLOTS - 1 ->
            send(task);
            wake_worker();
            if :: eager || dry -> arm_or_wake() :: else fi
        :: else ->
            queue!!task;
            refill(); /* an idle worker's, or one that is half done */
            arm_or_wake()
        fi;
        d_step { submitted = task; locked = false }
    :: else -> break
    od
}

proctype Manager()
{
    byte f, number, mine;
    bool ready, some, moved;
    do
    :: drain();
        atomic { !locked -> locked = true; lively = false };
#ifndef SLEEP_UNARMED
        if
        :: OUTSTANDING > 0 -> dry = true; arm()
        :: else
        fi;
#endif
        d_step { lively = ready; locked = false };
        if
        :: ready -> ready = false
        :: else ->
end_asleep:
            atomic { event || woken -> lively = LINGERS && event; event = false; woken = false }
        fi
    od
}

#ifdef TAKE
proctype Taker()
{
    byte f, number;
    bool ready, some;
    lock();
    if
    :: OUTSTANDING > 0 ->
        atomic {
            number = BEFORE(sent);
            some = state[SLOT(number)] == SENT || state[SLOT(number)] == SKIP;
            if :: some -> state[SLOT(number)] = EMPTY :: else fi
        };
        if
        :: some ->
            d_step {
                f = tasks_sent[SLOT(number)];
                assert(f != 0 && f != BUSY);
                tasks_sent[SLOT(number)] = 0
            };
            sent = number;
            if
            :: f != SKIPPED ->
                place[f] = 0;
                if :: future[f] == PENDING -> queue!!f :: else fi
            :: else
            fi;
            d_step { f = 0; number = 0; some = false };
            if :: OUTSTANDING == 0 -> refill() :: else fi; /* it counts as idle */
            nudge();
#ifndef TAKE_UNARMED
            arm_or_wake()
#endif
        :: else
        fi
    :: else
    fi;
    unlock()
}
#endif

#ifdef CANCEL
proctype Canceller()
{
    byte f, number, mine, held;
    bool ready, some, moved;
    submitted >= CANCEL;
    lock();
    if
    :: future[CANCEL] == PENDING ->
        if
        :: place[CANCEL] ->
            number = SLOT(place[CANCEL] - 1);
#ifndef CANCEL_WITHOUT_MARK
            d_step { held = tasks_sent[number]; tasks_sent[number] = BUSY };
            atomic {
                some = held && state[number] == SENT;
                if :: some -> state[number] = SKIP :: else fi
            };
            tasks_sent[number] = (some -> SKIPPED : held);
#else
            atomic {
                some = state[number] == SENT;
                if :: some -> state[number] = SKIP :: else fi
            };
            if :: some -> tasks_sent[number] = SKIPPED :: else fi;
#endif
            number = 0
        :: else -> some = true
        fi;
        d_step {
            if
            :: some -> assert(future[CANCEL] == PENDING); future[CANCEL] = CANCELLED
            :: else
            fi;
            some = false;
            held = 0
        }
    :: else
    fi;
    nudge();
    unlock();
    drain()
}
#endif

inline expect(task)
{
    atomic {
        !locked ->
        locked = true;
        some = place[task] && !eager;
        eager = eager || place[task]
    };
#ifndef EXPECT_UNARMED
    if :: some -> arm() :: else fi;
#endif
    d_step { some = false; locked = false };
    if :: ready -> ready = false; drain() :: else fi
}

#define IS_THERE(task) (place[task] && REACHED(place[task] - 1, seen))

proctype Waiter()
{
    byte f, number, mine;
    bool ready, some, moved, there;
    submitted >= WAIT;
    wanted[WAIT] = true;
    do
    :: !IS_FINAL(WAIT) ->
        atomic {
            some = place[WAIT] && !role;
            if :: some -> role = true :: else fi
        };
        if
        :: some ->
            some = false;
            there = IS_THERE(WAIT);
            if
            :: there ->
                atomic {
                    !locked ->
                    locked = true;
                    attended = true;
                    awaited = place[WAIT] - 1;
                    bell = WAITER
                };
                arm();
                d_step { ready = !ready && IS_THERE(WAIT); locked = false };
                if
                :: ready && !IS_FINAL(WAIT) ->
                    atomic { if :: bell == WAITER -> waiter_sleeps = true :: else fi };
                    !waiter_sleeps
                :: else
                fi;
                ready = false
            :: else
            fi;
            atomic {
                !locked -> attended = false;
                if :: bell == WAITER -> bell = QUIET :: else fi
            };
            drain_and_leave();
            lock();
            arm();
            d_step { ready = false; locked = false };
#ifndef NO_RECHECK
            drain()
#endif
        :: else
        fi;
        if
        :: there -> there = false
        :: else -> expect(WAIT); IS_FINAL(WAIT)
        fi
    :: else -> break
    od
}

proctype Watcher()
{
    byte f, number, mine;
    bool ready, some, moved;
    submitted >= WATCH;
    wanted[WATCH] = true;
    expect(WATCH);
    IS_FINAL(WATCH)
}

/* ---- the worker ---- */

inline ring(number)
{
    do
    :: atomic { bell != QUIET && REACHED(number, ring_at) -> b = bell };
        atomic {
            if
            :: bell == b ->
                bell = QUIET;
                if :: b == WAITER -> waiter_sleeps = false :: else -> event = true fi;
                b = 0;
                break
            :: else -> b = 0
            fi
        }
    :: else -> break
    od
}

#ifdef GATED /* nobody ends before those that somebody waits for */
#define MAY_END(task) (task <= WAIT + WATCH || IS_FINAL(WAIT + WATCH))
#else
#define MAY_END(task) true
#endif

proctype Worker()
{
    byte next = FIRST, s, b, task;
    do
    :: atomic {
            s = state[SLOT(next)];
            if
            :: s == SENT -> state[SLOT(next)] = RUNNING
#ifndef SKIP_WITHOUT_SWAP
            :: s == SKIP -> state[SLOT(next)] = DONE
#else
            :: s == SKIP
#endif
            :: else -> s = EMPTY
            fi
        };
#ifdef SKIP_WITHOUT_SWAP
        if :: s == SKIP -> state[SLOT(next)] = DONE :: else fi;
#endif
        if
        :: s == SENT ->
            d_step {
                task = arg[SLOT(next)];
                assert(place[task] == next + 1);
                assert(!ran[task] && future[task] != CANCELLED);
                ran[task] = true;
                result[SLOT(next)] = task
            };
            MAY_END(task);
            d_step { task = 0; state[SLOT(next)] = DONE }
        :: else
        fi;
        if
        :: s != EMPTY ->
            s = EMPTY;
            ring(next);
            atomic { next = NEXT(next); position = next }
        :: else -> /* sleep_until_next */
            do
            :: worker_bell = ASLEEP;
#ifndef SLEEP_BLIND
                s = state[SLOT(next)];
                if :: s == SENT || s == SKIP -> break :: else fi;
#endif
                atomic { if :: worker_bell == ASLEEP -> worker_sleeps = true :: else fi };
end_asleep:
                !worker_sleeps;
#ifdef SLEEP_BLIND
                break
#endif
            od;
            atomic { worker_bell = AWAKE; s = EMPTY }
        fi
    od
}

init
{
    byte i;
    atomic {
        for (i : 1 .. SLOTS) { state[i - 1] = DONE } /* of a lap before */
        run Submitter();
        run Worker();
        run Manager();
#if WAIT
        run Waiter();
#endif
#if WATCH
        run Watcher();
#endif
#ifdef CANCEL
        run Canceller();
#endif
#ifdef TAKE
        run Taker();
#endif
    };
    timeout;
    for (i : 1 .. TASKS) {
        assert(IS_FINAL(i));
        assert(ran[i] == (future[i] == SETTLED))
    }
    assert(seen == sent && position == sent);
    assert(!role && !locked)
}
