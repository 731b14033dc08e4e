/* SPDX-License-Identifier: MIT */
/* A worker's life: find a task, run it, and when there is none, search a little, then park.
 *
 * Where tasks come from, in this order: urgent ones from the heap; the batch taken from the lanes
 * before; the lanes, a batch at a time; its own deque (what its tasks submitted), oldest first;
 * other workers' batches and deques; the heap's background tasks.  Lanes come before the own deque
 * so that the order is first come, first served; every 61st time the deque comes first, so that
 * neither starves.
 *
 * A batch is as many tasks as take about 20 us by the cost of the last ones, so tiny tasks share
 * the cost of a lock and longer ones go one by one.
 */
#include "../core/wait.h"
#include "pool.h"

enum {
    PATIENCE = 300,     /* pauses: some 4 us */
    PROBE_EVERY = 256,  /* searches */
    WORTH_PATIENCE = 8, /* tasks in the lane */
    BATCH_NS = 20000,   /* what a batch should cost */
    DEQUE_EVERY = 61,   /* a prime, as Go's scheduler takes for the same purpose */
    SEARCH_TURNS = 80,  /* looks before parking: some 25 us */
    MAX_PAUSES = 32,    /* between two looks */
    YIELD_EVERY = 8,    /* looks */
};

static _Thread_local struct cf_worker *here;

struct cf_worker *cfi_worker_here(const struct cfi_pool *pool)
{
    return here && here->pool == pool ? here : NULL;
}

/* ---- running ---- */

/* Where a task runs, and from which position on the deque's entries will be its descendants'. */
static uint64_t place_of(struct cf_worker *w)
{
    uint64_t mark = (uint64_t)cfi_deque_bottom(&w->deque) & CFI_MARK_MASK;
    return (uint64_t)(w->number + 1) << CFI_MARK_BITS | mark;
}

void cfi_worker_run_claimed(struct cf_worker *w, cf_future *f)
{
    if (CFI_UNLIKELY(w->pool->options.max_pending))
        cfi_pool_begin(w->pool);
    cfi_future_execute(f, place_of(w));
}

void cfi_worker_run_task(struct cf_worker *w, cf_future *f)
{
    if (CFI_UNLIKELY(cfi_load_relaxed(&w->pool->mode) != CFI_MODE_RUN))
        cfi_pool_dispose(w->pool, f);
    else if (CFI_LIKELY(cfi_future_claim(f)))
        cfi_worker_run_claimed(w, f);
    else
        cfi_future_drop(f);
}

/* ---- finding ---- */

static struct cf_worker *worker_at(struct cfi_pool *pool, unsigned number)
{
    return cfi_load_acquire(
        &pool->workers[number]); /* pairs with the store in cfi_pool_start_worker */
}

/* After a take: how many to take the next time, from what those before it cost. */
static void measure(struct cf_worker *w)
{
    int64_t now = cfi_now();
    if (w->measured_at && w->begun) {
        int64_t each = (now - w->measured_at) / w->begun;
        int64_t fits = each > 0 ? BATCH_NS / each : CFI_BATCH;
        unsigned doubled = w->batch_size * 2;
        unsigned size = fits < (int64_t)doubled ? (unsigned)fits : doubled;
        w->batch_size = size < 1 ? 1 : size > CFI_BATCH ? CFI_BATCH : size;
    }
    w->measured_at = now;
    w->begun = 0;
}

/* Keeps all but the first in the batch, where idle workers may have them. */
static cf_future *keep_batch(struct cf_worker *w, cf_future **tasks, unsigned count)
{
    if (count > 1) {
        cfi_batch_fill(&w->batch, tasks + 1, count - 1);
        cfi_fence_seq_cst(); /* pairs with the sleepers' (idle.h), and with who sets the mode */
        if (CFI_UNLIKELY(cfi_load_relaxed(&w->pool->mode) != CFI_MODE_RUN))
            cfi_pool_drain(w->pool); /* we had these in hand when the others drained */
        else
            cfi_pool_kick(w->pool, NULL);
    }
    return tasks[0];
}

static cf_future *take_from_lanes(struct cf_worker *w)
{
    struct cfi_pool *pool = w->pool;
    for (unsigned i = 0; i <= pool->lane_mask; i++) {
        struct cfi_lane *lane = &pool->lanes[(w->lane + i) & pool->lane_mask];
        if (cfi_lane_is_empty(lane))
            continue;
        cf_future *tasks[CFI_BATCH];
        unsigned started = cfi_load_relaxed(&pool->started);
        unsigned count = cfi_lane_take(lane, tasks, w->batch_size, started > 1 ? 2 * started : 1);
        if (count) {
            w->took = count;
            measure(w);
            w->lane += i + 1; /* the next lane's turn */
            return keep_batch(w, tasks, count);
        }
    }
    return NULL;
}

static cf_future *take_own(struct cf_worker *w)
{
    return cfi_deque_is_empty(&w->deque) ? NULL : cfi_deque_steal(&w->deque, 0);
}

static cf_future *steal_from(struct cf_worker *w, struct cf_worker *victim)
{
    cf_future *tasks[CFI_BATCH];
    unsigned count = cfi_batch_steal(&victim->batch, tasks);
    return count ? keep_batch(w, tasks, count) : cfi_deque_steal(&victim->deque, 0);
}

static cf_future *steal(struct cf_worker *w)
{
    unsigned started = cfi_load_acquire(&w->pool->started);
    for (unsigned i = 0; i < started; i++) {
        unsigned number = (w->victim + i) % started;
        struct cf_worker *victim = worker_at(w->pool, number);
        cf_future *f = victim && victim != w ? steal_from(w, victim) : NULL;
        if (f) {
            w->victim = number;
            return f;
        }
    }
    return NULL;
}

static cf_future *find_beyond_batch(struct cf_worker *w)
{
    struct cfi_pool *pool = w->pool;
    cf_future *f = NULL;
    if (++w->since_deque % DEQUE_EVERY == 0)
        f = take_own(w);
    if (!f)
        f = take_from_lanes(w);
    if (!f)
        f = take_own(w);
    if (!f)
        f = steal(w);
    if (!f && CFI_UNLIKELY(cfi_load_relaxed(&pool->heap.background)))
        f = cfi_heap_take(&pool->heap, false);
    return f;
}

static inline cf_future *find(struct cf_worker *w)
{
    cf_future *f = NULL;
    if (CFI_UNLIKELY(cfi_load_relaxed(&w->pool->heap.urgent)))
        f = cfi_heap_take(&w->pool->heap, true);
    if (!f)
        f = cfi_batch_pop(&w->batch);
    return f ? f : find_beyond_batch(w);
}

bool cfi_pool_has_work(struct cfi_pool *pool)
{
    if (cfi_load_relaxed(&pool->heap.urgent) || cfi_load_relaxed(&pool->heap.background))
        return true;
    for (unsigned i = 0; i <= pool->lane_mask; i++) {
        if (!cfi_lane_is_empty(&pool->lanes[i]))
            return true;
    }
    unsigned started = cfi_load_acquire(&pool->started);
    for (unsigned i = 0; i < started; i++) {
        struct cf_worker *w = worker_at(pool, i);
        if (w && (!cfi_batch_is_empty(&w->batch) || !cfi_deque_is_empty(&w->deque)))
            return true;
    }
    return false;
}

uint64_t cfi_pool_backlog(struct cfi_pool *pool)
{
    uint64_t tasks =
        cfi_load_relaxed(&pool->heap.urgent) + cfi_load_relaxed(&pool->heap.background);
    for (unsigned i = 0; i <= pool->lane_mask; i++)
        tasks += cfi_lane_count(&pool->lanes[i]);
    for (unsigned i = 0; i < cfi_load_acquire(&pool->started); i++) {
        struct cf_worker *w = worker_at(pool, i);
        tasks += cfi_batch_count(&w->batch) + cfi_deque_count(&w->deque);
    }
    return tasks;
}

static void dispose_all(struct cfi_pool *pool, cf_future **tasks, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cfi_pool_dispose(pool, tasks[i]);
}

static void drain_worker(struct cfi_pool *pool, struct cf_worker *w)
{
    cf_future *tasks[CFI_BATCH];
    dispose_all(pool, tasks, cfi_batch_steal(&w->batch, tasks));
    tasks[0] = cfi_deque_steal(&w->deque, 0);
    dispose_all(pool, tasks, tasks[0] != NULL);
}

static void drain_once(struct cfi_pool *pool)
{
    cf_future *tasks[CFI_BATCH];
    tasks[0] = cfi_heap_take(&pool->heap, false);
    dispose_all(pool, tasks, tasks[0] != NULL);
    for (unsigned i = 0; i <= pool->lane_mask; i++)
        dispose_all(pool, tasks, cfi_lane_take(&pool->lanes[i], tasks, CFI_BATCH, 1));
    unsigned started = cfi_load_acquire(&pool->started);
    for (unsigned i = 0; i < started; i++)
        drain_worker(pool, worker_at(pool, i));
}

/* Until nothing is left: a take that fails because somebody else is at it says nothing. */
void cfi_pool_drain(struct cfi_pool *pool)
{
    while (cfi_pool_has_work(pool)) {
        drain_once(pool);
        cfi_pause();
    }
}

/* ---- searching and parking ---- */

/* With a stream of tiny tasks a worker that keeps up with the producer takes the cache lines away from it
 * at every task, and both crawl.  So now and then a worker waits a little before it looks; if that
 * brings many tasks at once it goes on so. */
static void be_patient(struct cf_worker *w)
{
    if (++w->searches % PROBE_EVERY == 0)
        w->patience = PATIENCE;
    for (int i = 0; i < w->patience; i++)
        cfi_pause();
    w->took = 0;
}

static void judge_patience(struct cf_worker *w)
{
    if (w->took * cfi_load_relaxed(&w->pool->started) < WORTH_PATIENCE)
        w->patience = 0;
}

/* Looks less and less often. */
static cf_future *search(struct cf_worker *w)
{
    int turns = cfi_spins ? SEARCH_TURNS : 1;
    if (cfi_spins)
        be_patient(w);
    for (int i = 0; i < turns; i++) {
        cf_future *f = find(w);
        if (f || cfi_load_relaxed(&w->pool->closed)) {
            judge_patience(w);
            return f;
        }
        if (cfi_spins &&
            i % YIELD_EVERY == YIELD_EVERY - 1) /* whoever has work for us may be on this CPU */
            cfi_yield();
        for (int pause = 0; pause <= i && pause < MAX_PAUSES; pause++)
            cfi_pause();
    }
    w->patience = 0;
    return NULL;
}

/* ---- the main loop ---- */

/* The process is ending, or this is a forked child in which no pool may run anything. */
static bool must_not_run(struct cf_worker *w)
{
    uint32_t process = cfi_load_relaxed(&cfi_process);
    if (CFI_LIKELY(process == w->pool->executor.process))
        return false;
    static cfi_u32 never;
    while (cfi_load_relaxed(&cfi_process) & CFI_EXITING)
        (void)cfi_sleep(&never, 0, CFI_NEVER);
    return true;
}

/* Nothing found: another look as a searcher, or sleep. */
static void search_or_park(struct cf_worker *w)
{
    w->measured_at = 0; /* idle time is no cost of tasks */
    cfi_rest_begin();
    if (!w->searching && cfi_idle_begin_search(w->pool)) {
        w->searching = true;
        return;
    }
    cfi_idle_push(w, w->searching);
    while (cfi_park(&w->parker, CFI_NEVER) != CFI_WOKEN)
        ;                /* a hook's veto ends waits, not workers */
    w->searching = true; /* whoever woke us counted us so */
}

static void stop_searching(struct cf_worker *w)
{
    if (w->searching) {
        w->searching = false;
        cfi_idle_end_search(w->pool);
    }
}

static void work(struct cf_worker *w)
{
    while (!must_not_run(w)) {
        bool closed = cfi_load_acquire(&w->pool->closed); /* before looking: see close_queues */
        cf_future *f = w->searching ? search(w) : find(w);
        if (f) {
            stop_searching(w);
            (void)cfi_rest_end();
            w->begun++;
            cfi_worker_run_task(w, f);
        } else if (!closed) {
            search_or_park(w);
        } else if (cfi_pool_has_work(w->pool)) {
            cfi_pause(); /* somebody else is just taking it; until then it might be ours */
        } else {
            break;
        }
    }
    stop_searching(w);
    (void)cfi_rest_end();
}

/* ---- the thread ---- */

static bool initialize(struct cf_worker *w)
{
    const cf_thread_pool_options *o = &w->pool->options;
    if (!o->initializer)
        return true;
    struct cfi_frame frame;
    cfi_frame_push(&frame, NULL);
    (void)cfi_add_seq_cst(&w->pool->initializing, 1);
    stop_searching(w); /* it may take long: meanwhile others are to be woken or started */
    int code = o->initializer(o->initializer_data);
    (void)cfi_sub_seq_cst(&w->pool->initializing, 1);
    cfi_frame_pop(&frame);
    if (code != 0)
        cfi_pool_break(w->pool, frame.message ? frame.message : "a worker's initializer failed",
                       code);
    cfi_frame_forget(&frame);
    return code == 0;
}

static void enter(struct cf_worker *w)
{
    cfi_this.executor = &w->pool->executor;
    if (!w->lent) {
        w->thread = cfi_thread_self();
        cfi_thread_name(w->pool->name, w->number);
    }
    cfi_wait_graph_lock();
    w->self = &cfi_this;
    cfi_wait_graph_unlock();
    /* By us, not by who starts us: whoever waits for our end must know of us. */
    cfi_store_release(&w->pool->started, w->number + 1);
    w->searching = true; /* whoever started us counted us so */
    if (w->number == 0 || w->pool->host.on_request)
        cfi_pool_tell_start(w->pool);
}

static void leave(struct cf_worker *w)
{
    cfi_wait_graph_lock();
    w->self = NULL;
    cfi_wait_graph_unlock();
    cfi_this.executor = NULL;
    cfi_pool_worker_ended(w->pool); /* which may be gone now */
}

void *cfi_pool_worker_main(void *worker)
{
    struct cf_worker *w = worker;
    const cf_thread_pool_options *o = &w->pool->options;
    enter(w);
    if (initialize(w)) {
        here = w; /* not before: in the initializer's waits no task may run */
        work(w);
        here = NULL; /* nor after: no queues any more that a task of the finalizer might go to */
        if (o->finalizer && !cfi_executor_is_foreign(&w->pool->executor))
            o->finalizer(o->initializer_data);
    }
    leave(w);
    return NULL;
}

void cf_worker_run(cf_worker *worker)
{
    (void)cfi_pool_worker_main(worker);
}
