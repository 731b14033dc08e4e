/* SPDX-License-Identifier: MIT */
/* Waking and parking workers; mirrors src/threads/idle.c, worker.c and src/base/park.c.
 *
 * One word, {tag, searching, top of a stack of sleepers}.  Who publishes a task wakes or starts a
 * worker only when nobody searches.  A worker that found nothing begins to search, if nobody does,
 * or pushes itself on the stack and parks; who leaves the search as the last one looks at all
 * queues again, and wakes somebody if there is work.  A worker may take two tasks at once and show
 * the second in its batch, which is a publication too.
 *
 * Held: no task stays queued while everybody sleeps; with -DOVERLAP each task but the first waits
 * until all have begun, so no task may stay behind another while a worker sleeps; at most one
 * worker is on its way up; nobody is popped who is not on the stack; all tasks run. Broken on
 * purpose, each of which must be found: -DNO_FENCE (the word may be read before the task is
 * visible), -DNO_RESCAN (a worker parks without another look), -DNO_CHAIN (the last searcher that
 * found work does not look for more), -DNO_RECHECK (how many workers there are is asked only
 * before the search was won), -DNO_BATCH_KICK (a batch is filled silently), -DNO_TAG (the stack
 * falls for A-B-A). */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef FIRST
#define FIRST 1 /* tasks of the one submitter */
#endif
#ifndef SECOND
#define SECOND 1 /* and of the other */
#endif
#define TASKS (FIRST + SECOND)

#define TOP(w) ((w) & 7)
#define SEARCHING(w) (((w) >> 3) & 7)
#define SEARCHER 8
#define TAG(w) ((w) >> 6)
#ifdef NO_TAG
#define WORD(tag, searching, top) ((searching) << 3 | (top))
#else
#define WORD(tag, searching, top) (((tag) & 15) << 6 | (searching) << 3 | (top))
#endif

#ifdef ASLEEP
int idle;
byte started = WORKERS;
#else
int idle = SEARCHER; /* the first worker, which is there before the first task, and searches */
byte started = 1;
#endif
byte below[WORKERS + 1];    /* the stack's links; worker numbers start at 1 */
bool sleeping[WORKERS + 1]; /* ghost: is on the stack */
byte token[WORKERS + 1];    /* 0 nothing, 1 there, 2 its owner sleeps until it is there */
byte lane[2], batch[WORKERS + 1], ran;

#ifdef NO_RECHECK
#define MAY_START true
#else
#define MAY_START (started < WORKERS)
#endif

#define publish(queue) queue++
inline look() /* cfi_pool_has_work */
{
    some = lane[0] > 0;
    if :: !some -> some = lane[1] > 0 :: else fi;
    if :: !some -> some = batch[1] > 0 :: else fi;
    if :: !some -> some = batch[2] > 0 :: else fi
}

inline pop() /* pop_sleeper; tasks are published before */
{
    w = idle;
    do
    :: SEARCHING(w) != 0 || TOP(w) == 0 -> break
    :: else ->
        link = below[TOP(w)];
        atomic {
            if
            :: idle == w ->
                assert(sleeping[TOP(w)]);
                assert(link == 0 || sleeping[link]);
                sleeping[TOP(w)] = false;
                idle = WORD(TAG(w) + 1, 1, link);
                some = true
            :: else -> w = idle
            fi
        };
        if :: some -> token[TOP(w)] = 1; break :: else fi
    od;
    atomic { link = 0; some = false }
}

inline begin_search()
{
    atomic { ok = SEARCHING(idle) == 0; if :: ok -> idle = idle + SEARCHER :: else fi }
}

inline kick_with(w) /* cfi_pool_kick, after the word has been read */
{
    if
    :: SEARCHING(w) == 0 && (TOP(w) || started < WORKERS) ->
        some = false;
        pop();
        if
        :: (SEARCHING(w) || TOP(w) == 0) && started < WORKERS ->
            begin_search();
            if
            :: ok && TOP(idle) == 0 && MAY_START -> /* the new worker is counted as searching */
                started++;
                assert(started <= WORKERS)
            :: ok && !(TOP(idle) == 0 && MAY_START) ->
                idle = idle - SEARCHER;
                look();
                if :: some -> some = false; pop() :: else fi
            :: !ok
            fi
        :: else
        fi
    :: else
    fi;
    atomic { w = 0; ok = false; some = false }
}

proctype Submitter(byte to; byte count)
{
    int w;
    byte link;
    bool ok, some;
    do
    :: count > 0 ->
        count--;
#ifdef NO_FENCE
        if
        :: publish(lane[to]); w = idle
        :: w = idle; publish(lane[to]) /* the load has overtaken the store */
        fi;
#else
        publish(lane[to]);
        w = idle;
#endif
        kick_with(w)
    :: else -> break
    od
}

inline take_from(queue)
{
    atomic { if :: !found && queue > 0 -> queue--; found = true :: else fi }
}

/* Takes one task, or from a lane two, of which the second is shown in the batch a step later. */
inline find(me)
{
    take_from(batch[me]);
    take_from(lane[0]);
    take_from(lane[1]);
#ifdef BATCHES
    if
    :: found && batch[me] == 0 ->
        atomic { if :: lane[0] > 0 -> lane[0]--; some = true :: else fi };
        if
        :: some ->
            some = false;
            publish(batch[me]);
#ifndef NO_BATCH_KICK
            w = idle;
            kick_with(w)
#endif
        :: else
        fi
    :: else
    fi;
    take_from(batch[3 - me])
#endif
}

proctype Worker(byte me)
{
    int w;
    byte link;
    bool ok, some, found;
#ifdef ASLEEP
    goto end_asleep;
#endif
end_unborn:
    started >= me;
    goto searching;
working:
    find(me);
    if :: found -> goto run_it :: else fi;
    begin_search();
    if :: ok -> ok = false; goto searching :: else -> goto push fi;
searching:
    find(me);
    if
    :: found ->
        atomic { w = idle; idle = idle - SEARCHER };
#ifndef NO_CHAIN
        if
        :: SEARCHING(w) == 1 ->
            look();
            if :: some -> w = idle; kick_with(w) :: else fi
        :: else
        fi;
#endif
        goto run_it
    :: else -> ok = true
    fi;
push: /* ok: it was searching */
    w = idle;
    do
    :: below[me] = TOP(w);
        atomic {
            if
            :: idle == w ->
                idle = WORD(TAG(w) + 1, SEARCHING(w) - ok, me);
                sleeping[me] = true;
                break
            :: else -> w = idle
            fi
        }
    od;
#ifndef NO_RESCAN
    if
    :: SEARCHING(w) == ok ->
        look();
        if :: some -> w = idle; kick_with(w) :: else fi
    :: else
    fi;
#endif
    atomic { ok = false; w = 0; token[me] = (token[me] == 0 -> 2 : token[me]) };
end_asleep:
    atomic { token[me] == 1 -> token[me] = 0; goto searching };
run_it:
    atomic { found = false; some = false; w = 0; ran++; ok = ran > 1 };
#ifdef OVERLAP
    !ok || ran == TASKS;
#endif
    ok = false;
    goto working
}

init
{
    byte i;
    atomic {
        for (i : 1 .. WORKERS) {
#ifdef ASLEEP
            below[i] = i - 1;
            sleeping[i] = true;
            token[i] = 2;
            idle = i;
#endif
            run Worker(i)
        }
        run Submitter(0, FIRST);
        run Submitter(1, SECOND)
    };
    timeout;
    assert(ran == TASKS);
    assert(SEARCHING(idle) == 0)
}
