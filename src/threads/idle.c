/* SPDX-License-Identifier: MIT */
/* Waking, starting and parking workers: idle.h has the argument. */
#include "../core/wait.h"
#include "pool.h"

enum { GRACE_TURNS = 20 }; /* pauses before waking somebody */

static struct cf_worker *worker_at_top(struct cfi_pool *pool, uint64_t word)
{
    return cfi_load_acquire(&pool->workers[cfi_idle_top(word) - 1]);
}

/* Takes a sleeper off the stack and counts it as searching.  NULL: none sleeps, or, unless `all`,
 * somebody is searching. */
static struct cf_worker *pop_sleeper(struct cfi_pool *pool, bool all)
{
    uint64_t word = cfi_load_acquire(&pool->idle.word); /* pairs with cfi_idle_push: next_sleeper */
    while (cfi_idle_top(word) && (all || !cfi_idle_searching(word))) {
        struct cf_worker *w = worker_at_top(pool, word);
        uint64_t popped =
            cfi_idle_pack(word, cfi_idle_searching(word) + 1, cfi_load_relaxed(&w->next_sleeper));
        if (cfi_cas_seq_cst(&pool->idle.word, &word, popped))
            return w;
    }
    return NULL;
}

void cfi_idle_wake_all(struct cfi_pool *pool)
{
    struct cf_worker *w;
    while ((w = pop_sleeper(pool, true)))
        cfi_unpark(&w->parker);
}

bool cfi_idle_begin_search(struct cfi_pool *pool)
{
    uint64_t word = cfi_load_relaxed(&pool->idle.word);
    while (!cfi_idle_searching(word)) {
        if (cfi_cas_seq_cst(&pool->idle.word, &word, word + CFI_ONE_SEARCHER))
            return true;
    }
    return false;
}

void cfi_idle_count_search(struct cfi_pool *pool)
{
    (void)cfi_add_seq_cst(&pool->idle.word, (uint64_t)CFI_ONE_SEARCHER);
}

void cfi_idle_end_search(struct cfi_pool *pool)
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

static bool wake_one(struct cfi_pool *pool)
{
    struct cf_worker *sleeper = pop_sleeper(pool, false);
    if (sleeper)
        cfi_unpark(&sleeper->parker);
    return sleeper;
}

/* Workers that are being initialized each take a task afterwards: none is needed besides for those.  A
 * worker ends its initializing before it looks at the queues; we look after a fence: one sees the other.
 * Counting comes first: a task that is gone by then was taken by a worker that we no longer count. */
static bool is_covered(struct cfi_pool *pool)
{
    if (!cfi_load_seq_cst(&pool->initializing))
        return false;
    uint64_t backlog = cfi_pool_backlog(pool);
    return backlog <= cfi_load_seq_cst(&pool->initializing);
}

/* Nobody sleeps: starts one more.  Counting a searcher elects us as the only one who does. */
static void start_one(struct cfi_pool *pool)
{
    if (cfi_load_relaxed(&pool->started) >= pool->startable || is_covered(pool) ||
        !cfi_idle_begin_search(pool))
        return;
    bool parked_meanwhile = cfi_idle_top(cfi_load_relaxed(&pool->idle.word)) != 0;
    if (!parked_meanwhile && cfi_pool_start_worker(pool) == 0)
        return;
    /* Hand the search on: whoever published meanwhile has relied on it. */
    (void)cfi_sub_seq_cst(&pool->idle.word, (uint64_t)CFI_ONE_SEARCHER);
    cfi_fence_seq_cst();
    if (cfi_pool_has_work(pool))
        (void)wake_one(pool);
}

void cfi_pool_kick_slow(struct cfi_pool *pool, struct cfi_lane *lane)
{
    if (!is_taken_meanwhile(pool, lane) && !wake_one(pool))
        start_one(pool);
}

void cfi_idle_push(struct cf_worker *w, bool searching)
{
    struct cfi_pool *pool = w->pool;
    uint64_t word = cfi_load_relaxed(&pool->idle.word), pushed;
    do {
        cfi_store_relaxed(&w->next_sleeper, cfi_idle_top(word));
        pushed = cfi_idle_pack(word, cfi_idle_searching(word) - searching, w->number + 1);
    } while (!cfi_cas_seq_cst(&pool->idle.word, &word, pushed)); /* release: for pop_sleeper */
    cfi_fence_seq_cst(); /* pairs with the submitter's, and with close_pool's store of `closed` */
    if (cfi_load_seq_cst(&pool->closed))
        cfi_idle_wake_all(pool);
    else if (!cfi_idle_searching(pushed) && cfi_pool_has_work(pool))
        cfi_pool_kick(pool, NULL);
}
