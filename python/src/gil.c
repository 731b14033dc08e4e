/* SPDX-License-Identifier: MIT */
/* Who holds the GIL, and how it is handed over.
 *
 * A worker keeps it from task to task and lets go only when it rests.  Two threads that hand tasks
 * to and fro would each sleep in the GIL's queue: the one that has seen its turn come finds the
 * other still holding it for some 200 ns.  So whoever takes it in here leaves word, and whoever wants
 * it watches that for a short while before it gets into the queue. */
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

/* Who has taken the GIL in here and not let go of it in here: a hint, nothing depends on it. */
static _Atomic(PyThreadState *) holder;
static int turns, yield_every;

static _Thread_local PyThreadState *let_go; /* not NULL: this thread has, in here */

void cfpy_gil_init(void)
{
    bool alone = cf_cpu_count() == 1;
    turns = alone ? YIELDS_ALONE : TURNS;
    yield_every = alone ? 1 : YIELD_EVERY;
}

void cfpy_let_go(void)
{
    if (let_go)
        return;
    let_go = PyEval_SaveThread();
    PyThreadState *me = let_go;
    (void)atomic_compare_exchange_strong_explicit(&holder, &me, NULL, memory_order_relaxed,
                                                  memory_order_relaxed);
}

static bool is_held(void)
{
    return atomic_load_explicit(&holder, memory_order_relaxed) != NULL;
}

void cfpy_hold(void)
{
    PyThreadState *state = let_go;
    if (!state)
        return;
    for (int i = 0; i < turns && is_held(); i++) {
        if (i % yield_every == yield_every - 1) /* it may have been put on this CPU */
            (void)sched_yield();
        else
            PAUSE();
    }
    let_go = NULL;
    PyEval_RestoreThread(state);
    atomic_store_explicit(&holder, state, memory_order_relaxed);
}

struct cfpy_visit cfpy_enter(void)
{
    struct cfpy_visit visit = { .ensured = !let_go && !PyGILState_GetThisThreadState() };
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
