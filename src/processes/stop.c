/* SPDX-License-Identifier: MIT */
/* Ending a task that runs: it is asked, then its worker gets SIGTERM, then SIGKILL.
 *
 * A signal meets whatever runs when it arrives.  So from the moment a task is asked to stop its worker
 * is sent no other, and what it had not begun is taken back: if the task ends by itself meanwhile, the
 * worker is idle, and only then is it used again. */
#define _GNU_SOURCE
#include "pool.h"

#include <signal.h>

/* These two with pool->lock. */
uint32_t cfi_current(struct cfi_child *c)
{
    uint32_t number = cfi_load_relaxed(&c->seen);
    while (number != c->sent && cfi_load_acquire(&cfi_slot_of(c, number)->state) == CFI_SLOT_DONE)
        number++;
    return number;
}

bool cfi_runs(struct cfi_child *c, uint32_t number)
{
    return number - cfi_load_relaxed(&c->seen) < c->sent - cfi_load_relaxed(&c->seen) &&
           cfi_load_acquire(&cfi_slot_of(c, number)->state) == CFI_SLOT_RUNNING;
}

static void begin_stop(struct cfi_child *c, uint32_t number, int64_t grace_ns)
{
    int64_t at = grace_ns > 0 ? cfi_deadline(grace_ns) : cfi_now();
    if (c->stop_signal && c->stop_at <= at) /* it is being stopped, and sooner */
        return;
    if (!c->stop_signal)
        c->stop_signal = SIGTERM;
    c->stop_number = number;
    c->stop_at = at;
    c->closed = true;
    cfi_set_idle(c, false);
    cfi_store_relaxed(&c->asked, number + 1);
    cfi_store_seq_cst(&c->arena->stop_at, number + 1);
    cfi_take_back_all(c);
    cfi_refill_all(c->pool);
}

static void fail_stopped(struct cfi_process_pool *pool, cf_future *f)
{
    static const cf_error error = { .size = sizeof error,
                                    .status = CF_STOPPED,
                                    .message =
                                        "its worker died, and it was stopped before another try",
                                    .exit_code = -1 };
    cfi_tell_room(pool);
    cfi_fail_task(pool, f, &error);
}

bool cfi_stop_task(void *self, cf_future *f, int64_t grace_ns)
{
    struct cfi_process_pool *pool = self;
    if (cfi_executor_is_foreign(f->executor))
        return true;
    cfi_lock(&pool->lock);
    uint64_t place = cfi_load_relaxed(&cfi_parcel_of(f)->place);
    struct cfi_child *c = place ? cfi_child_at(pool, cfi_place_child(place)) : NULL;
    bool is_there = c && cfi_generation_of(c) == cfi_place_generation(place);
    bool waits = !place ? cfi_remove_queued(pool, f) /* to be tried again */
                        : is_there && cfi_skip(c, (uint32_t)place);
    if (is_there && cfi_runs(c, (uint32_t)place))
        begin_stop(c, (uint32_t)place, grace_ns);
    cfi_unlock(&pool->lock);
    if (waits)
        fail_stopped(pool, f);
    cfi_wake_manager(pool);
    return true;
}

static void next_signal(struct cfi_child *c, int64_t now)
{
    if (c->pidfd < 0) { /* it has begun before its birth was heard of */
        c->stop_at = now + CFI_TICK_NS;
        return;
    }
    cfi_pidfd_signal(c->pidfd, c->stop_signal);
    c->signalled = true;
    c->stop_signal = SIGKILL;
    c->stop_at = c->pool->stopping ? c->pool->kill_at : now + CFI_KILL_AFTER_NS;
}

/* The shortest limit of those that have not begun: none of them is over before. */
static int64_t shortest_limit(struct cfi_child *c, uint32_t from)
{
    int64_t shortest = CFI_NEVER;
    for (uint32_t n = from; n != c->sent; n++) {
        int64_t limit = c->limits[n % CFI_SLOTS];
        if (limit > 0 && limit < shortest)
            shortest = limit;
    }
    return shortest;
}

/* The limit of the task that runs, once it has begun.  Returns when to look again. */
static int64_t check_limit(struct cfi_child *c, int64_t now)
{
    if (!c->has_timed)
        return CFI_NEVER;
    uint32_t number = cfi_current(c);
    int64_t limit = number != c->sent ? c->limits[number % CFI_SLOTS] : 0;
    if (limit <= 0) {
        int64_t next = shortest_limit(c, number);
        return next > CFI_NEVER - now ? CFI_NEVER : now + next;
    }
    int64_t began = now;
    if (cfi_runs(c, number)) {
        began = cfi_load_acquire(&cfi_slot_of(c, number)->began_at);
        if (began <= 0 || began > now) /* it lies, or has just begun */
            began = now;
    }
    int64_t end = limit > CFI_NEVER - began ? CFI_NEVER : began + limit;
    if (end > now)
        return end;
    begin_stop(c, number, 0);
    return now;
}

static int64_t check_child(struct cfi_child *c, int64_t now)
{
    int64_t next = CFI_NEVER;
    if (!c->stop_signal)
        next = check_limit(c, now);
    if (c->stop_signal && !cfi_runs(c, c->stop_number)) {
        cfi_refill(c);
        cfi_arm_or_wake(c);
    }
    if (c->stop_signal && c->stop_at <= now)
        next_signal(c, now);
    return c->stop_signal && c->stop_at < next ? c->stop_at : next;
}

int64_t cfi_check_stops(struct cfi_process_pool *pool, int64_t now)
{
    int64_t next = CFI_NEVER;
    cfi_lock(&pool->lock);
    bool kill = pool->kill_at <= now;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (!cfi_has_channel(c))
            continue;
        if (kill && c->pidfd >= 0)
            cfi_pidfd_signal(c->pidfd, SIGKILL);
        int64_t at = check_child(c, now);
        next = at < next ? at : next;
    }
    if (!kill && pool->kill_at < next)
        next = pool->kill_at;
    cfi_unlock(&pool->lock);
    return next;
}

/* Shutdown: whatever runs is asked and gets SIGTERM now, and SIGKILL at the deadline. */
void cfi_stop_all(struct cfi_process_pool *pool, int64_t deadline)
{
    cfi_lock(&pool->lock);
    pool->stopping = true;
    if (deadline < pool->kill_at)
        pool->kill_at = deadline;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (!cfi_has_channel(c))
            continue;
        cfi_store_seq_cst(&c->arena->stop_all, true);
        if (cfi_runs(c, cfi_current(c)))
            begin_stop(c, cfi_current(c), 0);
    }
    cfi_unlock(&pool->lock);
    cfi_wake_manager(pool);
}
