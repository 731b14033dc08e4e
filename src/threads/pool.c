/* SPDX-License-Identifier: MIT */
/* The thread pool's life: making it, submitting, shutting down, releasing.
 *
 * Submitting from outside puts the task into the lane of the calling thread; from a worker of the
 * pool into its own deque; with a priority into the heap.  Then a worker is woken or started, if
 * none searches (idle.h).
 *
 * Shutting down: `closed` is set, then every queue is closed under its lock, so each submit either
 * was accepted before (and its task is seen by the workers, who look at all queues after they have
 * seen `closed`) or is refused.  A worker ends when it has seen `closed` and then found nothing.
 * Only workers put tasks into deques, and each empties its own before it ends.
 *
 * The pool's memory goes with the last reference on its executor: the user's handle, one for all
 * the live workers together, and (bounded pools only) one for each future.  Whoever gives back the
 * last joins the threads; if that is a worker it detaches itself. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include "../base/cpus.h"
#include "../core/wait.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_STACK = 8 * 1024 * 1024, START_AGAIN_NS = 100000000 };

/* ---- workers ---- */

static struct cf_worker *worker_new(struct cfi_pool *pool, unsigned number)
{
    struct cf_worker *w = aligned_alloc(CFI_CACHE_LINE, sizeof *w);
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    w->pool = pool;
    w->number = number;
    w->victim = number + 1;
    w->lane = number;
    w->batch_size = 1;
    return w;
}

static void worker_free(struct cf_worker *w)
{
    if (w)
        cfi_deque_destroy(&w->deque);
    free(w);
}

static int start_thread(struct cfi_pool *pool, struct cf_worker *w)
{
    if (pool->host.start_thread) {
        w->lent = true;
        return pool->host.start_thread(pool->host.data, w, w->number);
    }
    return cfi_thread_start(&w->thread, cfi_pool_worker_main, w, pool->options.stack_size);
}

/* A worker that nobody runs.  Others may be looking at it, so it goes with the pool. */
static void retire_unborn(struct cfi_pool *pool, struct cf_worker *w)
{
    cfi_store_release(&pool->workers[w->number], NULL);
    w->unborn = pool->unborn;
    pool->unborn = w;
    cfi_pool_worker_ended(pool);
}

/* Counts the worker as live before it looks whether the pool is closed; shutdown closes before it counts
 * the live ones: so no thread begins behind a shutdown's back.  A worker of the pool keeps it open itself. */
static int try_start(struct cfi_pool *pool, struct cf_worker *w)
{
    cfi_store_release(&pool->workers[w->number], w); /* pairs with worker_at */
    if (cfi_add_seq_cst(&pool->live, 1) == 0)
        cfi_executor_ref(&pool->executor); /* the workers' common one */
    bool too_late = cfi_load_seq_cst(&pool->closed) && !cfi_worker_here(pool);
    int error = too_late ? ECANCELED : start_thread(pool, w);
    if (error)
        retire_unborn(pool, w);
    return error;
}

/* Only one at a time: the caller is the one searcher that the idle word allows. */
int cfi_pool_start_worker(struct cfi_pool *pool)
{
    unsigned number = cfi_load_acquire(&pool->started);
    int64_t again_at = cfi_load_relaxed(&pool->start_again_at);
    if (number >= pool->options.max_workers)
        return EAGAIN;
    if (again_at && !pool->host.on_request && cfi_now() < again_at)
        return pool->start_error;
    struct cf_worker *w = worker_new(pool, number);
    cfi_store_relaxed(&pool->start_again_at, 0);
    int error = w ? try_start(pool, w) : ENOMEM;
    if (error) { /* else the new worker may have made somebody else the one who starts */
        pool->start_error = error;
        cfi_store_relaxed(&pool->start_again_at, cfi_now() + START_AGAIN_NS);
    }
    return error;
}

static bool has_workers(struct cfi_pool *pool)
{
    return cfi_load_acquire(&pool->started) != 0; /* pairs with the first worker's coming */
}

void cfi_pool_tell_start(struct cfi_pool *pool)
{
    (void)cfi_add_seq_cst(&pool->start_event, 1);
    cfi_futex_wake(&pool->start_event, INT_MAX);
}

/* The new worker tells the others that it is there; about a failure we do. */
static cf_status start_first_elected(struct cfi_pool *pool)
{
    int error = has_workers(pool) ? EEXIST : cfi_pool_start_worker(pool);
    if (error == 0)
        return CF_OK;
    cfi_idle_end_search(pool);
    cfi_pool_tell_start(pool);
    if (error == EEXIST || error == ECANCELED)
        return CF_OK;
    return cfi_fail_system(error, "the pool cannot start its first thread");
}

/* The first worker is started before its first task is queued: if none can be had, the submit fails
 * and nothing runs later.  Who counts itself as the searcher starts it, the others wait for that. */
static CFI_COLD cf_status start_first(struct cfi_pool *pool)
{
    while (!cfi_load_acquire(&pool->closed)) {
        uint32_t event = cfi_load_seq_cst(&pool->start_event);
        if (has_workers(pool))
            break;
        if (cfi_idle_begin_search(pool))
            return start_first_elected(pool);
        if (cfi_sleep(&pool->start_event, event, CFI_NEVER) == CFI_SIGNALLED)
            return cfi_fail_woken(CFI_SIGNALLED, "");
    }
    return CF_OK;
}

/* The next one has the next number, so this one has to come first. */
static void wait_for_worker(struct cfi_pool *pool, unsigned number)
{
    for (;;) {
        uint32_t event = cfi_load_seq_cst(&pool->start_event);
        if (cfi_load_acquire(&pool->started) > number) /* pairs with its coming */
            return;
        (void)cfi_sleep(&pool->start_event, event, CFI_NEVER);
    }
}

static int start_on_request(struct cfi_pool *pool)
{
    unsigned number = cfi_load_acquire(&pool->started);
    cfi_idle_count_search(pool);
    int error = cfi_pool_start_worker(pool);
    if (error == 0)
        wait_for_worker(pool, number);
    else
        cfi_idle_end_search(pool);
    return error;
}

/* ---- a bounded pool's room ---- */

static CFI_COLD cf_status refused(struct cfi_pool *pool, cf_status why)
{
    if (why == CF_NOMEM)
        return cfi_fail_fixed(CF_NOMEM, "submit: out of memory for the queue");
    cf_status s = cfi_executor_broken(&pool->executor);
    return s != CF_OK ? s : cfi_fail_fixed(CF_SHUTDOWN, "the pool has been shut down");
}

static bool enter_if_room(struct cfi_pool *pool)
{
    size_t pending = cfi_load_seq_cst(&pool->pending);
    while (pending < pool->options.max_pending) {
        if (cfi_cas_seq_cst(&pool->pending, &pending, pending + 1))
            return true;
    }
    return false;
}

static void wake_for_room(struct cfi_pool *pool, int count)
{
    (void)cfi_add_seq_cst(&pool->room_event, 1);
    cfi_futex_wake(&pool->room_event, count);
}

/* Announces itself before it looks again, as whoever makes room looks for it after: one sees the other.
 * Who leaves without having entered hands on the wake-up that it may have got. */
static cf_status wait_for_room(struct cfi_pool *pool)
{
    int64_t limit = pool->options.when_full_limit_ns;
    int64_t deadline = limit ? cfi_deadline(limit) : CFI_NEVER;
    bool entered = false;
    enum cfi_woken woken = CFI_WOKEN;
    (void)cfi_add_seq_cst(&pool->room_waiters, 1);
    while (woken == CFI_WOKEN) {
        uint32_t event = cfi_load_seq_cst(&pool->room_event);
        entered = !cfi_load_seq_cst(&pool->closed) && enter_if_room(pool);
        if (entered || cfi_load_seq_cst(&pool->closed))
            break;
        woken = cfi_sleep(&pool->room_event, event, deadline);
    }
    (void)cfi_sub_seq_cst(&pool->room_waiters, 1);
    if (!entered)
        wake_for_room(pool, 1);
    if (woken != CFI_WOKEN)
        return woken == CFI_SIGNALLED ? cfi_fail_woken(woken, "")
                                      : cfi_fail_fixed(CF_FULL, "the pool had no room in time");
    return entered ? CF_OK : refused(pool, CF_SHUTDOWN);
}

static void leave_room(struct cfi_pool *pool)
{
    (void)cfi_sub_seq_cst(&pool->pending, 1);
    if (cfi_load_seq_cst(&pool->room_waiters))
        wake_for_room(pool, 1);
}

void cfi_pool_begin(struct cfi_pool *pool)
{
    leave_room(pool);
}

static void pool_cancelled(void *self, cf_future *f)
{
    (void)f;
    leave_room(self);
}

/* ---- submitting ---- */

static unsigned lane_of_this_thread(void)
{
    static cfi_u32 next;
    static _Thread_local unsigned lane;
    if (CFI_UNLIKELY(!lane))
        lane = cfi_add_relaxed(&next, 1) + 1; /* only spreads the threads */
    return lane;
}

static bool has_priority(cf_future *f)
{
    return f->flags & CFI_HAS_EXTRA && cfi_future_extra(f)->task.priority != 0;
}

static bool drop_if_done(cf_future *f)
{
    bool done = cfi_future_is_done(f);
    if (done)
        cfi_future_drop(f); /* the queue's reference */
    return done;
}

/* CF_OK after a full fence, else why not.  Sets *lane if the task went into one. */
static inline cf_status enqueue(struct cfi_pool *pool, cf_future *f, struct cfi_lane **lane)
{
    if (CFI_UNLIKELY(has_priority(f)))
        return cfi_heap_put(&pool->heap, f, cfi_future_extra(f)->task.priority);
    struct cf_worker *w = cfi_worker_here(pool);
    if (w && !cfi_load_relaxed(&pool->closed) &&
        CFI_LIKELY(cfi_deque_push(&w->deque, f, drop_if_done))) {
        cfi_fence_seq_cst(); /* pairs with the ones in worker.c: see idle.h */
        return CF_OK;
    }
    *lane = &pool->lanes[lane_of_this_thread() & pool->lane_mask];
    return cfi_lane_put(*lane, f, false);
}

static cf_status submit_unbounded(struct cfi_pool *pool, cf_future *f)
{
    if (CFI_UNLIKELY(!has_workers(pool))) {
        cf_status s = start_first(pool);
        if (s != CF_OK)
            return s;
    }
    struct cfi_lane *lane = NULL;
    cf_status s = enqueue(pool, f, &lane);
    if (CFI_UNLIKELY(s != CF_OK))
        return refused(pool, s);
    cfi_pool_kick(pool, lane);
    return CF_OK;
}

/* The caller does the work itself. */
static cf_status run_in_caller(struct cfi_pool *pool, cf_future *f)
{
    if (cfi_load_acquire(&pool->closed))
        return refused(pool, CF_SHUTDOWN);
    f->flags &= (uint8_t)~CFI_NOTIFIES; /* it never was pending in the pool's sense */
    if (cfi_future_claim(f))
        cfi_future_execute(f, 0);
    return CF_OK;
}

static cf_status make_room(struct cfi_pool *pool)
{
    if (enter_if_room(pool))
        return CF_OK;
    if (cfi_this.executor == &pool->executor || cfi_this.callbacks) {
        (void)cfi_add_seq_cst(&pool->pending, 1); /* waiting for ourselves would never end */
        return CF_OK;
    }
    if (pool->options.when_full == CF_WHEN_FULL_REJECT)
        return cfi_fail_fixed(CF_FULL, "the pool is full");
    if (pool->options.when_full == CF_WHEN_FULL_RUN_IN_CALLER)
        return CF_FULL;
    return wait_for_room(pool);
}

static cf_status submit_bounded(struct cfi_pool *pool, cf_future *f)
{
    cf_status s = make_room(pool);
    if (s == CF_FULL && pool->options.when_full == CF_WHEN_FULL_RUN_IN_CALLER)
        return run_in_caller(pool, f);
    if (s != CF_OK)
        return s;
    s = submit_unbounded(pool, f);
    if (s != CF_OK)
        leave_room(pool);
    return s;
}

static cf_status pool_submit(void *self, cf_future *f)
{
    struct cfi_pool *pool = self;
    if (CFI_UNLIKELY(pool->options.max_pending))
        return submit_bounded(pool, f);
    return submit_unbounded(pool, f);
}

/* ---- shutting down ---- */

void cfi_pool_dispose(struct cfi_pool *pool, cf_future *f)
{
    if (cfi_load_acquire(&pool->mode) == CFI_MODE_CANCEL) { /* pairs with close_pool: `broken` */
        (void)cf_future_cancel(f);
        cfi_future_drop(f);
    } else if (cfi_future_claim(f)) {
        if (pool->options.max_pending)
            leave_room(pool);
        cfi_future_fail(f, &pool->executor.broken);
    } else {
        cfi_future_drop(f);
    }
}

/* `closed` comes last: a worker that has seen it and then finds every queue empty may end. */
static void close_queues(struct cfi_pool *pool)
{
    for (unsigned i = 0; i <= pool->lane_mask; i++)
        cfi_lane_close(&pool->lanes[i]);
    cfi_heap_close(&pool->heap);
    cfi_store_seq_cst(&pool->closed, true);
}

/* No new tasks from now on; those queued are dealt with by the mode, and everybody who sleeps looks
 * again. */
static void close_pool(struct cfi_pool *pool, enum cfi_pool_mode mode)
{
    uint32_t run = CFI_MODE_RUN;
    if (mode != CFI_MODE_RUN)
        (void)cfi_cas_seq_cst(&pool->mode, &run, mode); /* the first that is not RUN stays */
    close_queues(pool);
    if (cfi_load_relaxed(&pool->mode) != CFI_MODE_RUN)
        cfi_pool_drain(pool);
    cfi_idle_wake_all(pool);
    wake_for_room(pool, INT_MAX);
    cfi_pool_tell_start(pool);
}

void cfi_pool_break(struct cfi_pool *pool, const char *message, int code)
{
    const cf_error error = {
        .size = sizeof error, .status = CF_BROKEN, .code = code, .message = message, .exit_code = -1
    };
    cf_executor_break(&pool->executor, &error);
    close_pool(pool, CFI_MODE_BREAK);
}

static void join_worker(struct cf_worker *w)
{
    if (w->lent)
        return;
    if (cfi_thread_is_self(w->thread))
        cfi_thread_detach(w->thread);
    else
        cfi_thread_join(w->thread);
}

/* Each by whoever comes first; all have done their work. */
static void join_workers(struct cfi_pool *pool)
{
    uint32_t next = cfi_load_relaxed(&pool->joined);
    while (next < cfi_load_acquire(&pool->started)) {
        if (cfi_cas_acq_rel(&pool->joined, &next, next + 1)) {
            join_worker(cfi_load_acquire(&pool->workers[next]));
            next++;
        }
    }
}

static cf_status wait_for_workers(struct cfi_pool *pool, int64_t deadline)
{
    for (;;) {
        uint32_t live = cfi_load_acquire(&pool->live); /* pairs with cfi_pool_worker_ended */
        if (live == 0)
            return CF_OK;
        enum cfi_woken woken =
            deadline == 0 ? CFI_TIMED_OUT : cfi_sleep(&pool->live, live, deadline);
        if (woken != CFI_WOKEN)
            return cfi_fail_woken(woken, "the workers had not ended yet at the end of the time");
    }
}

static cf_status pool_shutdown(void *self, cf_shutdown_mode mode, int64_t deadline)
{
    struct cfi_pool *pool = self;
    close_pool(pool, mode == CF_FINISH_PENDING ? CFI_MODE_RUN : CFI_MODE_CANCEL);
    if (cfi_executor_is_inside(&pool->executor))
        return cfi_fail_fixed(CF_DEADLOCK,
                              "shutdown from inside a task or callback: begun, not waited for");
    cf_status s = wait_for_workers(pool, deadline);
    if (s == CF_OK)
        join_workers(pool);
    return s;
}

void cfi_pool_worker_ended(struct cfi_pool *pool)
{
    if (cfi_sub_acq_rel(&pool->live, 1) == 1) { /* pairs with wait_for_workers */
        cfi_futex_wake(&pool->live, INT_MAX);
        cfi_executor_unref(&pool->executor);
    }
}

/* In a forked child there are no workers: their common reference is nobody's. */
static void pool_abandon(void *self)
{
    struct cfi_pool *pool = self;
    if (cfi_exchange_acq_rel(&pool->live, 0) != 0)
        cfi_executor_unref(&pool->executor);
}

static void pool_destroy(void *self)
{
    struct cfi_pool *pool = self;
    if (!cfi_executor_is_foreign(&pool->executor)) {
        join_workers(pool);
        cfi_wait_graph_lock(); /* whoever walks the graph may still look at us */
        cfi_wait_graph_unlock();
    }
    for (unsigned i = 0; i < cfi_load_relaxed(&pool->started); i++)
        worker_free(cfi_load_relaxed(&pool->workers[i]));
    while (pool->unborn) {
        struct cf_worker *w = pool->unborn;
        pool->unborn = w->unborn;
        worker_free(w);
    }
    for (unsigned i = 0; i <= pool->lane_mask; i++)
        cfi_lane_destroy(&pool->lanes[i]);
    cfi_heap_destroy(&pool->heap);
    free(pool->workers);
    free(pool->name);
    free(pool);
}

/* ---- what the wait graph asks ---- */

static struct cfi_self *pool_worker(void *self, unsigned number)
{
    struct cfi_pool *pool = self;
    struct cf_worker *w = cfi_load_acquire(&pool->workers[number]);
    return w ? w->self : NULL;
}

static unsigned pool_worker_count(void *self)
{
    return ((struct cfi_pool *)self)->options.max_workers;
}

static bool pool_has_free_worker(void *self)
{
    struct cfi_pool *pool = self;
    unsigned started = cfi_load_acquire(&pool->started);
    for (unsigned i = 0; i < started; i++) {
        struct cfi_self *worker = pool_worker(self, i);
        if (!worker || !worker->waiting) /* running, idle, or on its way */
            return true;
    }
    return started < pool->options.max_workers && !cfi_load_relaxed(&pool->start_again_at);
}

static struct cfi_self *pool_runner(void *self, const cf_future *f)
{
    unsigned number = cfi_place_worker(cfi_load_acquire(&((cf_future *)(uintptr_t)f)->at.place));
    bool known = number && number <= cfi_load_acquire(&((struct cfi_pool *)self)->started);
    return known ? pool_worker(self, number - 1) : NULL;
}

/* ---- making ---- */

static const cf_executor_ops unbounded_ops = { .size = sizeof(cf_executor_ops),
                                               .kind = "threads",
                                               .submit = pool_submit,
                                               .help = cfi_pool_help,
                                               .shutdown = pool_shutdown,
                                               .destroy = pool_destroy };
static const cf_executor_ops bounded_ops = { .size = sizeof(cf_executor_ops),
                                             .kind = "threads",
                                             .submit = pool_submit,
                                             .cancelled = pool_cancelled,
                                             .help = cfi_pool_help,
                                             .shutdown = pool_shutdown,
                                             .destroy = pool_destroy };
static const struct cfi_pool_ops pool_ops = { pool_runner, pool_has_free_worker, pool_worker_count,
                                              pool_worker, pool_abandon,         NULL };

static cf_status check_options(const cf_thread_pool_options *o)
{
    if (o->max_workers > CFI_MAX_WORKERS)
        return cfi_fail(CF_INVALID, "max_workers: %u is more than %d", o->max_workers,
                        CFI_MAX_WORKERS);
    if ((int)o->when_full < CF_WHEN_FULL_WAIT || o->when_full > CF_WHEN_FULL_RUN_IN_CALLER)
        return cfi_fail(CF_INVALID, "when_full: %d is unknown", (int)o->when_full);
    if (o->when_full_limit_ns < 0)
        return cfi_fail(CF_INVALID, "when_full_limit_ns: is negative");
    if (o->stack_size > SIZE_MAX / 4)
        return cfi_fail(CF_INVALID, "stack_size: %zu is too large", o->stack_size);
    if (o->max_pending > SIZE_MAX / 2)
        return cfi_fail(CF_INVALID, "max_pending: %zu is too large", o->max_pending);
    return CF_OK;
}

/* The options with their defaults, and the host's. */
static cf_status read_options(const cf_thread_pool_options *options, cf_thread_pool_options *o,
                              cf_host *host)
{
    cf_status s = cfi_options_copy(o, sizeof *o, sizeof *o, options, "cf_thread_pool_options");
    if (s == CF_OK)
        s = check_options(o);
    if (s == CF_OK)
        s = cfi_options_copy(host, sizeof *host, sizeof *host, o->host, "cf_host");
    if (s == CF_OK && o->max_workers == 0) {
        unsigned cpus = cfi_cpu_count();
        o->max_workers = cpus + 4 < 32 ? cpus + 4 : 32;
    }
    if (o->stack_size == 0)
        o->stack_size = DEFAULT_STACK;
    return s;
}

/* By the CPUs of the first time: asking takes as long as starting a thread. */
static unsigned lane_count(void)
{
    static cfi_u32 known;
    uint32_t lanes = cfi_load_relaxed(&known);
    if (lanes)
        return lanes;
    unsigned wanted = 2 * cfi_cpu_count();
    for (lanes = 1; lanes < wanted && lanes < CFI_MAX_LANES;)
        lanes *= 2;
    cfi_store_relaxed(&known, lanes);
    return lanes;
}

static struct cfi_pool *pool_new(const cf_thread_pool_options *o, const cf_host *host)
{
    unsigned lanes = lane_count();
    size_t size = sizeof(struct cfi_pool) + lanes * sizeof(struct cfi_lane);
    struct cfi_pool *pool = aligned_alloc(CFI_CACHE_LINE, size);
    if (!pool)
        return NULL;
    memset(pool, 0, size);
    pool->options = *o;
    pool->host = *host;
    pool->startable = host->on_request ? 1 : o->max_workers;
    pool->lane_mask = lanes - 1;
    pool->name = strdup(o->name ? o->name : "cfutures");
    pool->workers = calloc(o->max_workers, sizeof *pool->workers);
    if (!pool->name || !pool->workers) {
        free(pool->name);
        free(pool->workers);
        free(pool);
        return NULL;
    }
    pool->options.name = pool->name;
    bool bounded = o->max_pending != 0;
    cfi_executor_init(&pool->executor, bounded ? &bounded_ops : &unbounded_ops, pool, &pool_ops,
                      bounded);
    return pool;
}

cf_status cf_thread_pool_new(const cf_thread_pool_options *options, cf_executor **ret)
{
    if (!ret)
        return cfi_fail(CF_INVALID, "cf_thread_pool_new: ret is NULL");
    cf_thread_pool_options o;
    cf_host host;
    cf_status s = read_options(options, &o, &host);
    if (s == CF_OK)
        s = cfi_process_watch();
    if (s != CF_OK)
        return s;
    struct cfi_pool *pool = pool_new(&o, &host);
    if (!pool)
        return cfi_fail_fixed(CF_NOMEM, "cf_thread_pool_new: out of memory");
    *ret = &pool->executor;
    return CF_OK;
}

cf_status cf_thread_pool_start_worker(cf_executor *executor)
{
    if (!executor || executor->pool != &pool_ops)
        return cfi_fail(CF_INVALID, "cf_thread_pool_start_worker: executor is not a thread pool");
    struct cfi_pool *pool = executor->self;
    bool requested = false;
    if (!pool->host.on_request)
        return cfi_fail(CF_INVALID, "cf_thread_pool_start_worker: the host says nothing of it");
    if (cfi_load_relaxed(&pool->started) >= pool->options.max_workers)
        return cfi_fail_fixed(CF_FULL, "the pool has all its workers");
    if (!has_workers(pool) || !cfi_cas_seq_cst(&pool->requested, &requested, true))
        return CF_OK; /* the first is being started, or another one */
    int error = start_on_request(pool);
    cfi_store_release(&pool->requested, false); /* pairs with the swap above */
    return error == 0 ? CF_OK : cfi_fail_system(error, "the pool cannot start a thread");
}

unsigned cf_cpu_count(void)
{
    return cfi_cpu_count();
}
