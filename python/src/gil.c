/* SPDX-License-Identifier: MIT */
/* Who holds the GIL, and how it is handed over.
 *
 * A worker keeps it from task to task and lets go only when it rests.  Two threads that hand tasks
 * to and fro would each sleep in the GIL's queue: the one that has seen its turn come finds the
 * other still holding it for some 200 ns.  So whoever lets go in here counts, and whoever wants it
 * watches that count for a short while before it gets into the queue. */
#include "binding.h"

#include <sched.h>
#include <stdatomic.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ __volatile__("yield")
#else
#define PAUSE() ((void)0)
#endif

enum { TURNS = 400, YIELD_EVERY = 32, YIELDS_ALONE = 8 };

static atomic_uint
    releases; /* how often some thread has let go in here: a hint, nothing depends on it */
static int turns, yield_every;

static _Thread_local struct {
    PyThreadState *state; /* not NULL: this thread has let go of the GIL in here */
    unsigned seen;        /* `releases` then */
} here;

void cfpy_gil_init(void)
{
    bool alone = cf_cpu_count() == 1;
    turns = alone ? YIELDS_ALONE : TURNS;
    yield_every = alone ? 1 : YIELD_EVERY;
}

void cfpy_let_go(void)
{
    if (here.state)
        return;
    here.state = PyEval_SaveThread();
    here.seen = atomic_fetch_add_explicit(&releases, 1, memory_order_relaxed) + 1;
}

static bool is_still_held(void)
{
    return atomic_load_explicit(&releases, memory_order_relaxed) == here.seen;
}

void cfpy_hold(void)
{
    PyThreadState *state = here.state;
    if (!state)
        return;
    for (int i = 0; i < turns && is_still_held(); i++) {
        if (i % yield_every == yield_every - 1) /* it may have been put on this CPU */
            (void)sched_yield();
        else
            PAUSE();
    }
    here.state = NULL;
    PyEval_RestoreThread(state);
}

struct cfpy_visit cfpy_enter(void)
{
    struct cfpy_visit visit = { .ensured = !here.state && !PyGILState_Check() };
    if (visit.ensured)
        visit.state = PyGILState_Ensure();
    else
        cfpy_hold();
    return visit;
}

void cfpy_leave(struct cfpy_visit visit)
{
    if (visit.ensured)
        PyGILState_Release(visit.state);
}

static void before(void *data)
{
    (void)data;
    cfpy_let_go();
}

static bool after(void *data, bool signalled)
{
    (void)data;
    return !signalled;
}

const cf_wait_hooks cfpy_hooks = { .size = sizeof cfpy_hooks, .before = before, .after = after };
