/* SPDX-License-Identifier: MIT */
/* Submitting while the pool shuts down; mirrors src/threads/pool.c (close_queues, work) and
 * lane.c.
 *
 * A submit puts its task into a lane under the lane's lock unless the lane is closed.  Shutdown
 * closes all lanes under their locks, then says `closed`, then wakes everybody.  A worker that has
 * read `closed` and after that finds every lane empty ends.  Looking into a lane takes no lock.
 * Waking is simple here (tests/spin/idle.pml has the real one): a sleeper is woken by each
 * publication and by shutdown.
 *
 * Held: each accepted task runs exactly once (with -DCANCEL: runs or is cancelled, exactly once),
 * each refusal is told, every worker ends, and shutdown returns after all of that. Broken on
 * purpose, each of which must be found: -DCLOSED_FIRST (`closed` is said before the lanes are
 * shut), -DLOOK_FIRST (the worker looks before it reads `closed`), -DNO_WAKE (shutdown wakes
 * nobody), -DUNLOCKED (submit asks whether the lane is closed before it takes the lock). */

#define LANES 2
#define WORKERS 2
#define SUBMITTERS 2

bool lane_closed[LANES], locked[LANES], closed, shut;
byte count[LANES]; /* tasks in a lane */
byte accepted, refused, ended, live = WORKERS;
bool token[WORKERS];

inline lock(l) { atomic { !locked[l] -> locked[l] = true } }
inline unlock(l) { locked[l] = false }
inline wake_all() { d_step { token[0] = true; token[1] = true } }

/* Takes a task out of a lane, which the real one does under the takers' own lock. */
inline take()
{
    atomic {
        found = true;
        if
        :: count[0] > 0 -> count[0]--
        :: else -> found = false
        fi
    };
    if
    :: !found ->
        atomic {
            if
            :: count[1] > 0 -> count[1]--; found = true
            :: else
            fi
        }
    :: else
    fi
}

proctype Submitter(byte l)
{
#ifdef UNLOCKED
    if :: lane_closed[l] -> goto refuse :: else fi;
#endif
    lock(l);
#ifndef UNLOCKED
    if :: lane_closed[l] -> unlock(l); goto refuse :: else fi;
#endif
    count[l]++;
    accepted++;
    unlock(l);
    wake_all();
    goto told;
refuse:
    refused++;
told:
    skip
}

proctype Worker(byte me)
{
    bool found, seen;
    do
    ::
#ifdef LOOK_FIRST
        take();
        seen = closed;
#else
        seen = closed;
        take();
#endif
        if
        :: found -> ended++ /* it has run */
        :: !found && seen -> break
        :: !found && !seen ->
            atomic { token[me] -> token[me] = false } /* parks; an earlier token will do */
        fi
    od;
    live--
}

proctype Shutdown()
{
    byte l;
#ifdef CLOSED_FIRST
    closed = true;
#endif
    for (l : 0 .. LANES - 1) {
        lock(l);
        lane_closed[l] = true;
        unlock(l)
    };
#ifndef CLOSED_FIRST
    closed = true;
#endif
#ifdef CANCEL
    bool found;
    do
    :: take(); if :: found -> ended++ :: else -> break fi
    od;
#endif
#ifndef NO_WAKE
    wake_all();
#endif
    live == 0;
    assert(ended == accepted);
    shut = true
}

init
{
    byte i;
    atomic {
        for (i : 0 .. SUBMITTERS - 1) { run Submitter(i % LANES) }
        for (i : 0 .. WORKERS - 1) { run Worker(i) }
        run Shutdown()
    };
    timeout;
    assert(shut);
    assert(accepted + refused == SUBMITTERS);
    assert(ended == accepted && count[0] + count[1] == 0)
}
