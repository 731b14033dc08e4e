/* SPDX-License-Identifier: MIT */
/* The state word of a future; mirrors src/core/future.c.
 *
 * One word holds {state, WAITED, WATCHED, STOP, TAKEN | references}, and every race about a future
 * is decided by compare-and-swap on it.  Here a task's future meets its runner, a canceller, two
 * waiters that take the result afterwards, and two watchers that are added.  With -DPROMISE nobody
 * runs it: two threads set the result instead, by way of SETTLING.
 *
 * Held: it is run or cancelled, never both; every waiter wakes; each watcher is told exactly once;
 * one take wins; nobody touches the word without a reference; it is freed exactly once. Broken on
 * purpose, each of which must be found: -DLOSE_WAITED (settle stores what it computed from a stale
 * word), -DSLEEP_BLIND (the sleep does not compare), -DDROP_EARLY (settle gives its reference up
 * although someone is to be woken), -DLINK_BLIND (a watcher is linked without asking whether it is
 * settled), -DCANCEL_BLIND (cancel looks and then stores). */

#define PENDING 0
#define RUNNING 1
#define SETTLING 2
#define OK 4
#define CANCELLED 6
#define WAITED 8
#define WATCHED 16
#define STOP 32
#define TAKEN 64
#define REF 128
#define STATE(w) ((w) & 7)
#define FINAL(w) (STATE(w) >= OK)
#define LOW(w) ((w) & 127)
#define WITH_STATE(w, s) (((w) & ~7) | (s))

#ifndef WAITERS
#define WAITERS 1
#endif
#ifndef WATCHERS
#define WATCHERS 1
#endif
#ifdef PROMISE
#define SETTLERS 2
#define SETTLER Setter
#else
#define SETTLERS 1
#define SETTLER Runner
#endif

int word = PENDING + (SETTLERS + 1 + WAITERS + WATCHERS) * REF;
byte frees, runs, cancels, takes;
bool asleep[2], linked[2], locked, written;
byte told[2];

#define touch() assert(frees == 0)
inline load(w) { atomic { touch(); w = word } }
inline cas(old, new)
{
    atomic { touch(); ok = (word == (old)); if :: ok -> word = new :: else fi }
}
inline unref()
{
    atomic { touch(); word = word - REF; if :: word < REF -> frees++ :: else fi }
}
inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

/* Tell everybody whom the published word w names; needs a reference. */
inline notify(w)
{
    if :: w & WAITED -> d_step { touch(); asleep[0] = false; asleep[1] = false } :: else fi;
    if
    :: w & WATCHED ->
        lock();
        d_step {
            touch();
            mine[0] = linked[0];
            mine[1] = linked[1];
            linked[0] = false;
            linked[1] = false
        };
        unlock();
        d_step { told[0] = told[0] + mine[0]; told[1] = told[1] + mine[1] }
    :: else
    fi
}

/* Publishes OK and gives up the caller's reference, in the same step where nobody is to be told. */
inline settle()
{
    do
    :: load(w);
#ifdef DROP_EARLY
        quiet = true;
#else
        quiet = (w & (WAITED | WATCHED)) == 0;
#endif
        new = WITH_STATE(w, OK) - (quiet -> REF : 0);
#ifdef LOSE_WAITED
        atomic { touch(); word = (word & ~127) + LOW(new) - (quiet -> REF : 0); ok = true };
#else
        cas(w, new);
#endif
        if :: ok -> break :: else fi
    od;
    if :: quiet && new < REF -> frees++ :: else fi;
#ifdef DROP_EARLY
    notify(w)
#else
    if :: !quiet -> notify(w); unref() :: else fi
#endif
}

proctype Runner()
{
    int w, new; bool ok, quiet, mine[2];
    load(w);
    do
    :: STATE(w) == PENDING -> cas(w, WITH_STATE(w, RUNNING)); if :: ok -> break :: else load(w) fi
    :: else -> unref(); goto done
    od;
    runs++;
    written = true;
    settle();
done: skip
}

proctype Setter()
{
    int w, new; bool ok, quiet, mine[2];
    load(w);
    do
    :: STATE(w) < SETTLING -> cas(w, WITH_STATE(w, SETTLING)); if :: ok -> break :: else load(w) fi
    :: else -> unref(); goto done
    od;
    runs++;
    written = true;
    settle();
done: skip
}

proctype Canceller()
{
    int w; bool ok, mine[2];
    load(w);
    do
    :: STATE(w) == PENDING ->
#ifdef CANCEL_BLIND
        atomic { word = WITH_STATE(word, CANCELLED); ok = true };
#else
        cas(w, WITH_STATE(w, CANCELLED));
#endif
        if :: ok -> cancels++; notify(w); break :: else load(w) fi
    :: !FINAL(w) && STATE(w) != PENDING && !(w & STOP) ->
        cas(w, w | STOP); if :: ok -> break :: else load(w) fi
    :: else -> break
    od;
    unref()
}

proctype Waiter(byte me)
{
    int w; bool ok;
    do
    :: load(w);
        if
        :: FINAL(w) -> break
        :: !FINAL(w) && !(w & WAITED) -> cas(w, w | WAITED)
        :: !FINAL(w) && (w & WAITED) ->
#ifdef SLEEP_BLIND
            atomic { touch(); asleep[me] = true };
#else
            atomic { touch(); if :: LOW(word) == LOW(w) -> asleep[me] = true :: else fi };
#endif
            !asleep[me]
        fi
    od;
    do
    :: STATE(w) == OK && !(w & TAKEN) ->
        assert(written);
        cas(w, w | TAKEN);
        if :: ok -> takes++; break :: else load(w) fi
    :: else -> break
    od;
    unref()
}

proctype Adder(byte me)
{
    int w; bool ok;
    lock();
    load(w);
#ifndef LINK_BLIND
    if :: FINAL(w) -> goto settled :: else fi;
#endif
    linked[me] = true;
    do
    :: w & WATCHED -> load(w); goto kept
    :: !(w & WATCHED) ->
#ifndef LINK_BLIND
        if :: FINAL(w) -> linked[me] = false; goto settled :: else fi;
#endif
        cas(w, w | WATCHED); if :: ok -> goto kept :: else load(w) fi
    od;
settled:
    told[me]++;
kept:
    unlock();
    unref()
}

init
{
    byte i;
    atomic {
        for (i : 1 .. SETTLERS) { run SETTLER() }
        run Canceller();
        for (i : 1 .. WAITERS) { run Waiter(i - 1) }
        for (i : 1 .. WATCHERS) { run Adder(i - 1) }
    };
    timeout;
    assert(runs + cancels == 1);
    for (i : 1 .. WATCHERS) { assert(told[i - 1] == 1) }
    assert(takes == runs);
    assert(frees == 1)
}
