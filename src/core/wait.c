/* SPDX-License-Identifier: MIT */
/* Waiting for one future, helping, and the wait graph.
 *
 * A wait inside a task first helps (the pool runs the awaited task, or tasks below it, on this
 * thread), then spins briefly, then sleeps.  Before a thread that runs a task sleeps it enters what
 * it waits for into the graph and walks: from each awaited future to the thread that runs it, on to
 * what that thread waits for.  If no path leads to something that can still happen, the wait would
 * never end: CF_DEADLOCK.  Whoever closes a cycle sees it, since entering and walking is one step
 * under one lock.  The lock is taken only before a sleep in a task; a pool takes it before its
 * memory goes, so what an unsettled future points to stays while the walk goes on. */
#include "wait.h"

#include "../base/clock.h"
#include "../base/lock.h"
#include "executor.h"

int cfi_spins;

/* ---- the graph ---- */

static struct cfi_lock graph;
enum { WALK_LIMIT = 100000 }; /* steps; beyond it a wait is taken to be able to end */

void cfi_wait_graph_lock(void)
{
    cfi_lock(&graph);
}
void cfi_wait_graph_unlock(void)
{
    cfi_unlock(&graph);
}

static bool can_end(const struct cfi_wait *wait, int *steps);

static bool can_go_on(struct cfi_self *self, int *steps)
{
    if (!self || !self->waiting)
        return true;
    if (self->visited) /* a cycle leads back here: it does not end by itself */
        return false;
    if (self->waiting->bounded)
        return true;
    self->visited = true;
    bool can = can_end(self->waiting, steps);
    self->visited = false;
    return can;
}

/* A pending task begins when any of its pool's workers comes to it. */
static bool can_begin(const cf_executor *ex, int *steps)
{
    if (ex->pool->has_free_worker(ex->self))
        return true;
    for (unsigned i = 0; i < ex->pool->worker_count(ex->self); i++) {
        struct cfi_self *worker = ex->pool->worker(ex->self, i);
        if (worker && can_go_on(worker, steps))
            return true;
    }
    return false;
}

static bool can_finish(const cf_future *f, int *steps)
{
    uint32_t state = cfi_state(cfi_load_acquire(&((cf_future *)(uintptr_t)f)->word));
    const cf_executor *ex = f->executor;
    if (state & CFI_FINAL || !ex || !ex->pool || ++*steps > WALK_LIMIT)
        return true; /* promises and providers: nobody knows, so they may */
    return state == CFI_PENDING ? can_begin(ex, steps)
                                : can_go_on(ex->pool->runner(ex->self, f), steps);
}

static bool can_end(const struct cfi_wait *wait, int *steps)
{
    for (size_t i = 0; i < wait->count; i++) {
        if (wait->futures[i] && can_finish(wait->futures[i], steps) == wait->any)
            return wait->any;
    }
    return !wait->any;
}

cf_status cfi_wait_begin(const struct cfi_wait *wait)
{
    if (!cfi_is_waited_for())
        return CF_OK;
    int steps = 0;
    cfi_lock(&graph);
    cfi_this.waiting = wait;
    cfi_this.visited = true;
    bool can =
        can_end(wait, &steps); /* our own deadline is no reason to wait for what cannot come */
    cfi_this.visited = false;
    if (!can)
        cfi_this.waiting = NULL;
    cfi_unlock(&graph);
    return can ? CF_OK
               : cfi_fail_fixed(
                     CF_DEADLOCK,
                     "waiting here could never end: what is waited for waits for this task");
}

void cfi_wait_end(void)
{
    if (!cfi_is_waited_for())
        return;
    cfi_lock(&graph);
    cfi_this.waiting = NULL;
    cfi_unlock(&graph);
}

/* ---- helping ---- */

static bool runs_task_of(const cf_executor *ex)
{
    for (const struct cfi_frame *frame = cfi_this.frame; frame; frame = frame->below) {
        if (frame->future && frame->future->executor == ex)
            return true;
    }
    return false;
}

bool cfi_wait_help(cf_future *f)
{
    cf_executor *ex = f->executor;
    if (!ex || (cfi_this.executor != ex && !runs_task_of(ex)))
        return false;
    return ex->ops.help &&
           ex->ops.help(ex->self, f); /* ours: it lives as long as we run its tasks */
}

/* ---- one future ---- */

cf_status cfi_fail_woken(enum cfi_woken woken, const char *timeout_message)
{
    if (woken == CFI_SIGNALLED)
        return cfi_fail_fixed(CF_INTERRUPTED, "a wait hook ended the wait");
    return cfi_fail_fixed(CF_TIMEOUT, timeout_message);
}

static cf_status timed_out(void)
{
    return cfi_fail_fixed(CF_TIMEOUT, "the future was not done in time");
}

/* Until the future is done or a short while has passed; inside a task helps, and starts anew
 * whenever there was something to do. */
static bool spin(cf_future *f, int64_t deadline)
{
    bool helps = cfi_is_waited_for(), remote = f->flags & CFI_REMOTE;
    /* Another process takes a wake-up's time to begin: sleeping before that, both would always sleep. */
    int turns = remote ? 3 * cfi_spins : cfi_spins;
    for (int i = 0; i <= turns; i++) {
        if (cfi_future_is_done(f))
            return true;
        if (CFI_UNLIKELY(remote))
            f->executor->pool->remote->look(f->executor->self, f);
        if (!helps || !cfi_wait_help(f))
            cfi_pause_for_another(i); /* its thread may have been put on this CPU */
        else if (cfi_deadline_passed(deadline))
            break;
        else
            i = -1;
    }
    return cfi_future_is_done(f);
}

static cf_status sleep_until_done(cf_future *f, int64_t deadline)
{
    while (cfi_future_announce_wait(f)) {
        uint64_t word = cfi_load_acquire(&f->word); /* pairs with the swap that settles */
        if (cfi_is_final(word))
            break;
        enum cfi_woken woken = CFI_WOKEN;
        if (CFI_LIKELY(!(f->flags & CFI_REMOTE)) ||
            !f->executor->pool->remote->attend(f->executor->self, f, deadline, &woken))
            woken = cfi_sleep(cfi_low_half(&f->word), (uint32_t)word, deadline);
        if (woken != CFI_WOKEN && !cfi_future_is_done(f))
            return woken == CFI_TIMED_OUT ? timed_out() : cfi_fail_woken(woken, "");
    }
    return CF_OK;
}

static cf_status await_until(cf_future *f, int64_t deadline)
{
    if (spin(f, deadline))
        return CF_OK;
    const struct cfi_wait wait = { .futures = &f, .count = 1, .bounded = deadline != CFI_NEVER };
    cf_status s = cfi_wait_begin(&wait);
    if (s != CF_OK)
        return s;
    s = sleep_until_done(f, deadline);
    cfi_wait_end();
    return s;
}

cf_status cfi_await(cf_future *f, int64_t timeout_ns)
{
    if (f->generation != cfi_generation())
        return cfi_fail_fixed(CF_SHUTDOWN, "the future belongs to the process before a fork");
    if (timeout_ns <= 0 || cfi_future_is_done(f))
        return cf_future_done(f) ? CF_OK : timed_out();
    if (!cfi_is_waited_for()) /* else it helps before it rests */
        cfi_rest_begin();
    cf_status s = await_until(f, cfi_deadline(timeout_ns));
    bool goes_on = cfi_rest_end();
    return s == CF_TIMEOUT && !goes_on ? cfi_fail_woken(CFI_SIGNALLED, "") : s;
}

/* ---- hooks ---- */

const cf_wait_hooks *cf_set_wait_hooks(const cf_wait_hooks *hooks)
{
    const cf_wait_hooks *former = cfi_this.hooks;
    cfi_this.hooks = hooks;
    /* The two structs differ by the leading size only; base knows no public header. */
    cfi_this.sleep_hooks =
        hooks ? (struct cfi_sleep_hooks){ hooks->data, hooks->before, hooks->after }
              : (struct cfi_sleep_hooks){ 0 };
    *cfi_sleep_hooks() = hooks ? &cfi_this.sleep_hooks : NULL;
    return former;
}
