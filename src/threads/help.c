/* SPDX-License-Identifier: MIT */
/* Helping: what a worker does in a task that waits, instead of sleeping.
 *
 * If the awaited task is pending, the waiter claims it, wherever it is queued, and runs it; the stale
 * entry in the queue is passed over later.  If another worker runs it, the waiter may take tasks from
 * that worker's deque, but only above the mark at which the awaited task began: those are its
 * descendants (Wagner and Calder, "Leapfrogging", PPoPP 1993).  Never unrelated work: the waiting task may
 * hold a lock that a sibling wants. */
#include "pool.h"

/* Back into a queue, even of a closed pool: this worker looks at all queues before it ends. */
static void give_back(struct cf_worker *w, cf_future *f)
{
    if (cfi_lane_put(&w->pool->lanes[0], f, true) == CF_OK)
        cfi_pool_kick(w->pool, NULL);
    else
        cfi_worker_run_task(w, f); /* no memory for the queue: better here than never */
}

static bool leapfrog(struct cf_worker *w, cf_future *awaited)
{
    struct cfi_pool *pool = w->pool;
    uint64_t place = cfi_load_acquire(&awaited->at.place); /* pairs with cfi_future_execute */
    unsigned number = cfi_place_worker(place);
    if (number == 0 || number > cfi_load_acquire(&pool->started))
        return false; /* it is being begun */
    struct cf_worker *runner = cfi_load_acquire(&pool->workers[number - 1]);
    cf_future *f = cfi_deque_steal(&runner->deque, cfi_place_mark(place));
    if (!f)
        return false;
    if (cfi_future_is_done(awaited))
        give_back(w,
                  f); /* it may have ended before we took this, which then is some other task's */
    else
        cfi_worker_run_task(w, f);
    return true;
}

/* The queue keeps its reference, and drops it when it comes to it. */
static bool run_where_it_is(struct cf_worker *w, cf_future *awaited)
{
    if (cfi_load_relaxed(&w->pool->mode) != CFI_MODE_RUN) {
        if (!cfi_future_is_pending(awaited))
            return false;
        cfi_pool_dispose(w->pool, cf_future_ref(awaited));
        return true;
    }
    if (!cfi_future_claim(awaited))
        return false;
    cfi_worker_run_claimed(w, cf_future_ref(awaited));
    return true;
}

bool cfi_pool_help(void *self, cf_future *awaited)
{
    struct cf_worker *w = cfi_worker_here(self);
    if (!w ||
        cfi_executor_is_foreign(&w->pool->executor)) /* at exit no task begins, here neither */
        return false;
    if (cfi_deque_pop_if(&w->deque, awaited)) {
        cfi_worker_run_task(w, awaited);
        return true;
    }
    return run_where_it_is(w, awaited) || leapfrog(w, awaited);
}
