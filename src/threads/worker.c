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
 *
 * Helping (a wait inside a task): if the awaited task is pending, the waiter claims it, wherever it
 * is queued, and runs it; the stale entry in the queue is passed over later.  If another worker
 * runs it, the waiter may take tasks from that worker's deque, but only above the mark at which the
 * awaited task began: those are its descendants (Wagner and Calder, "Leapfrogging", PPoPP 1993). */
#include "../core/wait.h"
#include "pool.h"

#include <stdlib.h>

enum {
    BATCH_NS = 20000,  /* what a batch should cost */
    DEQUE_EVERY = 61,  /* a prime, as Go's scheduler takes for the same purpose */
    SEARCH_TURNS = 80, /* looks before parking: some 25 us */
    MAX_PAUSES = 32,   /* between two looks */
    GRACE_TURNS = 20,  /* before waking somebody */
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
    uint64_t mark = (uint64_t)cfi_deque_bottom(&w->deque) & ((UINT64_C(1) << CFI_MARK_BITS) - 1);
    return (uint64_t)(w->number + 1) << CFI_MARK_BITS | mark;
}

/* Runs a claimed task.  Takes over one reference. */
static inline void run_claimed(struct cf_worker *w, cf_future *f)
{
    if (CFI_UNLIKELY(w->pool->options.max_pending))
        cfi_pool_begin(w->pool);
    cfi_future_execute(f, place_of(w));
}

/* Runs a task taken from a queue, unless somebody was faster.  Takes over the queue's reference. */
static inline void run(struct cf_worker *w, cf_future *f)
{
    if (CFI_UNLIKELY(cfi_load_relaxed(&w->pool->mode) != CFI_MODE_RUN))
        cfi_pool_dispose(w->pool, f);
    else if (CFI_LIKELY(cfi_future_claim(f)))
        run_claimed(w, f);
    else
        cfi_future_drop(f);
}

/* ---- finding ---- */

static struct cf_worker *worker_at(struct cfi_pool *pool, unsigned number)
{
    return cfi_load_acquire(
        &pool->workers[number]); /* pairs with the store in cfi_pool_start_worker */
}

/* How many to take at once, from what the last ones cost. */
static unsigned measure(struct cf_worker *w)
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
    return w->batch_size;
}

/* Keeps all but the first in the batch, where idle workers may have them. */
static cf_future *keep_batch(struct cf_worker *w, cf_future **tasks, unsigned count)
{
    if (count > 1) {
        cfi_batch_fill(&w->batch, tasks + 1, count - 1);
        cfi_fence_seq_cst(); /* pairs with the sleepers': see idle.h */
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
        unsigned count = cfi_lane_take(lane, tasks, measure(w), started > 1 ? 2 * started : 1);
        if (count) {
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

static bool dispose_all(struct cfi_pool *pool, cf_future **tasks, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cfi_pool_dispose(pool, tasks[i]);
    return count > 0;
}

static bool drain_worker(struct cfi_pool *pool, struct cf_worker *w)
{
    cf_future *tasks[CFI_BATCH];
    bool some = dispose_all(pool, tasks, cfi_batch_steal(&w->batch, tasks));
    tasks[0] = cfi_deque_steal(&w->deque, 0);
    return dispose_all(pool, tasks, tasks[0] != NULL) || some;
}

static bool drain_once(struct cfi_pool *pool)
{
    cf_future *tasks[CFI_BATCH];
    tasks[0] = cfi_heap_take(&pool->heap, false);
    bool some = dispose_all(pool, tasks, tasks[0] != NULL);
    for (unsigned i = 0; i <= pool->lane_mask; i++)
        some |= dispose_all(pool, tasks, cfi_lane_take(&pool->lanes[i], tasks, CFI_BATCH, 1));
    unsigned started = cfi_load_acquire(&pool->started);
    for (unsigned i = 0; i < started; i++) {
        struct cf_worker *w = worker_at(pool, i);
        some |= w && drain_worker(pool, w);
    }
    return some;
}

void cfi_pool_drain(struct cfi_pool *pool)
{
    while (drain_once(pool))
        ;
}

/* ---- waking, searching, parking ---- */

/* Takes a sleeper off the stack and counts it as searching; NULL: none sleeps, or somebody
 * searches. */
static struct cf_worker *pop_sleeper(struct cfi_pool *pool)
{
    uint64_t word = cfi_load_acquire(&pool->idle.word); /* pairs with push_self: next_sleeper */
    while (cfi_idle_top(word) && !cfi_idle_searching(word)) {
        struct cf_worker *w = worker_at(pool, cfi_idle_top(word) - 1);
        uint64_t popped = cfi_idle_pack(word, 1, cfi_load_relaxed(&w->next_sleeper));
        if (cfi_cas_seq_cst(&pool->idle.word, &word, popped))
            return w;
    }
    return NULL;
}

static bool begin_search(struct cfi_pool *pool)
{
    uint64_t word = cfi_load_relaxed(&pool->idle.word);
    while (!cfi_idle_searching(word)) {
        if (cfi_cas_seq_cst(&pool->idle.word, &word, word + CFI_ONE_SEARCHER))
            return true;
    }
    return false;
}

/* No longer searching; whoever was the last to search sees to it that what else there is gets a
 * worker. */
static void end_search(struct cfi_pool *pool)
{
    uint64_t before = cfi_sub_seq_cst(&pool->idle.word, (uint64_t)CFI_ONE_SEARCHER);
    cfi_fence_seq_cst(); /* pairs with the submitter's: see idle.h */
    if (cfi_idle_searching(before) == 1 && cfi_pool_has_work(pool))
        cfi_pool_kick(pool, NULL);
}

/* A wake-up costs the waker as much as twenty small tasks, and a worker that has just finished one
 * needs but a moment to find the next: give it that moment first. */
static bool is_taken_meanwhile(struct cfi_pool *pool, struct cfi_lane *lane)
{
    for (int i = 0; lane && cfi_spins && i < GRACE_TURNS; i++) {
        cfi_pause();
        uint64_t word = cfi_load_acquire(&pool->idle.word);
        if (!cfi_idle_top(word))
            return false;
        if (cfi_idle_searching(word) || cfi_lane_is_empty(lane))
            return true;
    }
    return false;
}

void cfi_pool_kick_slow(struct cfi_pool *pool, struct cfi_lane *lane)
{
    if (is_taken_meanwhile(pool, lane))
        return;
    struct cf_worker *sleeper = pop_sleeper(pool);
    if (sleeper) {
        cfi_unpark(&sleeper->parker);
        return;
    }
    if (cfi_load_relaxed(&pool->started) >= pool->options.max_workers ||
        cfi_load_relaxed(&pool->closed) || !begin_search(pool))
        return;
    if (cfi_idle_top(cfi_load_relaxed(&pool->idle.word)) || cfi_pool_start_worker(pool) != 0) {
        /* Somebody has parked meanwhile, or there is no new thread to be had: hand the search on.
         */
        (void)cfi_sub_seq_cst(&pool->idle.word, (uint64_t)CFI_ONE_SEARCHER);
        cfi_fence_seq_cst();
        sleeper = cfi_pool_has_work(pool) ? pop_sleeper(pool) : NULL;
        if (sleeper)
            cfi_unpark(&sleeper->parker);
    }
}

/* Goes on the stack of sleepers, giving up the search if it was searching. */
static void push_self(struct cf_worker *w, bool searching)
{
    struct cfi_pool *pool = w->pool;
    uint64_t word = cfi_load_relaxed(&pool->idle.word), pushed;
    do {
        cfi_store_relaxed(&w->next_sleeper, cfi_idle_top(word));
        pushed = cfi_idle_pack(word, cfi_idle_searching(word) - searching, w->number + 1);
    } while (
        !cfi_cas_seq_cst(&pool->idle.word, &word, pushed)); /* release: pairs with pop_sleeper */
    cfi_fence_seq_cst(); /* pairs with the submitter's: see idle.h */
    if (!cfi_idle_searching(pushed) && cfi_pool_has_work(pool))
        cfi_pool_kick(pool, NULL);
}

/* Looks less and less often: each look takes the cache line away that a producer is about to write.
 */
static cf_future *search(struct cf_worker *w)
{
    int turns = cfi_spins ? SEARCH_TURNS : 1;
    for (int i = 0; i < turns; i++) {
        cf_future *f = find(w);
        if (f || cfi_load_relaxed(&w->pool->closed))
            return f;
        for (int pause = 0; pause <= i && pause < MAX_PAUSES; pause++)
            cfi_pause();
    }
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
        (void)cfi_futex_wait(&never, 0, CFI_NEVER);
    return true;
}

/* Nothing found: another look as a searcher, or sleep.  Whether the caller searches from now on. */
static bool search_or_park(struct cf_worker *w, bool searching)
{
    w->measured_at = 0; /* idle time is no cost of tasks */
    if (!searching && begin_search(w->pool))
        return true;
    push_self(w, searching);
    while (cfi_park(&w->parker, CFI_NEVER) != CFI_WOKEN)
        ;        /* a hook's veto ends waits, not workers */
    return true; /* whoever woke us counted us so (or the pool is closed, and it no longer matters)
                  */
}

static void work(struct cf_worker *w)
{
    bool searching = true; /* whoever started us counted us so */
    while (!must_not_run(w)) {
        bool closed =
            cfi_load_acquire(&w->pool->closed); /* before looking: pairs with close_queues */
        cf_future *f = searching ? search(w) : find(w);
        if (!f && closed)
            break;
        if (!f) {
            searching =
                cfi_load_relaxed(&w->pool->closed) ? searching : search_or_park(w, searching);
            continue;
        }
        if (searching)
            end_search(w->pool);
        searching = false;
        w->begun++;
        run(w, f);
    }
}

/* ---- helping ---- */

/* Back into a queue, even of a closed pool: this worker looks at all queues before it ends. */
static void give_back(struct cf_worker *w, cf_future *f)
{
    if (cfi_lane_put(&w->pool->lanes[0], f, true) == CF_OK)
        cfi_pool_kick(w->pool, NULL);
    else
        run(w, f); /* no memory for the queue: better here than never */
}

static bool leapfrog(struct cf_worker *w, cf_future *awaited)
{
    uint64_t place = cfi_load_acquire(&awaited->at.place); /* pairs with cfi_future_execute */
    if (cfi_place_worker(place) == 0)
        return false;
    struct cf_worker *runner = worker_at(w->pool, cfi_place_worker(place) - 1);
    int64_t mark = (int64_t)(place & ((UINT64_C(1) << CFI_MARK_BITS) - 1));
    cf_future *f = cfi_deque_steal(&runner->deque, mark);
    if (!f)
        return false;
    if (cfi_future_is_done(awaited))
        give_back(w,
                  f); /* it may have ended before we took this, which then is some other task's */
    else
        run(w, f);
    return true;
}

bool cfi_pool_help(void *self, cf_future *awaited)
{
    struct cf_worker *w = cfi_worker_here(self);
    if (!w)
        return false;
    if (cfi_deque_pop_if(&w->deque, awaited)) {
        run(w, awaited);
        return true;
    }
    if (cfi_load_relaxed(&w->pool->mode) == CFI_MODE_RUN && cfi_future_claim(awaited)) {
        run_claimed(w,
                    cf_future_ref(awaited)); /* the queue keeps its reference, and drops it later */
        return true;
    }
    return leapfrog(w, awaited);
}

/* ---- the thread ---- */

static bool initialize(struct cf_worker *w)
{
    const cf_thread_pool_options *o = &w->pool->options;
    if (!o->initializer)
        return true;
    struct cfi_frame frame;
    cfi_frame_push(&frame, NULL);
    int code = o->initializer(o->initializer_data);
    cfi_frame_pop(&frame);
    if (code != 0)
        cfi_pool_break(w->pool, frame.message ? frame.message : "a worker's initializer failed",
                       code);
    free(frame.message);
    cfi_raised_free(frame.raised);
    return code == 0;
}

static void enter(struct cf_worker *w)
{
    here = w;
    cfi_this.executor = &w->pool->executor;
    cfi_wait_graph_lock();
    w->self = &cfi_this;
    cfi_wait_graph_unlock();
}

static void leave(struct cf_worker *w)
{
    cfi_wait_graph_lock();
    w->self = NULL;
    cfi_wait_graph_unlock();
    cfi_this.executor = NULL;
    here = NULL;
    cfi_pool_worker_ended(w); /* the pool may be gone now */
}

void *cfi_pool_worker_main(void *worker)
{
    struct cf_worker *w = worker;
    enter(w);
    if (!w->lent)
        cfi_thread_name(w->pool->name, w->number);
    if (initialize(w)) {
        work(w);
        if (w->pool->options.finalizer && !cfi_executor_is_foreign(&w->pool->executor))
            w->pool->options.finalizer(w->pool->options.initializer_data);
    }
    leave(w);
    return NULL;
}

void cf_worker_run(cf_worker *worker)
{
    (void)cfi_pool_worker_main(worker);
}
