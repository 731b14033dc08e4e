/* SPDX-License-Identifier: MIT */
/* The thread pool's parts: see pool.c for its life, worker.c for a worker's, idle.h for waking. */
#ifndef CFI_THREADS_POOL_H
#define CFI_THREADS_POOL_H

#include "../base/clock.h"
#include "../base/park.h"
#include "../base/thread.h"
#include "../core/executor.h"
#include "../core/future.h"
#include "../core/heap.h"
#include "../core/self.h"
#include "batch.h"
#include "deque.h"
#include "idle.h"
#include "lane.h"

enum { CFI_MAX_LANES = 64 };

/* What becomes of tasks that are taken from the queues. */
enum cfi_pool_mode { CFI_MODE_RUN, CFI_MODE_CANCEL, CFI_MODE_BREAK };

struct cf_worker {
    struct cfi_batch batch;
    struct cfi_deque deque;
    _Alignas(CFI_CACHE_LINE) struct cfi_parker parker;
    cfi_u32 next_sleeper;  /* number + 1 of the one below in the stack of sleepers */
    struct cfi_self *self; /* guarded by the wait graph's lock; NULL: not running */
    struct cfi_pool *pool;
    unsigned number;
    bool lent;                /* the host made the thread */
    struct cf_worker *unborn; /* the next of pool->unborn */
    cfi_thread thread;        /* if not lent */
    /* The worker's own: */
    bool searching;          /* is counted in the idle word */
    unsigned lane, victim;   /* where it looks first */
    unsigned searches, took; /* how often it has searched; tasks at the last take */
    int patience;            /* pauses before it looks */
    unsigned since_deque;    /* tasks from the lanes while its own deque waited */
    unsigned batch_size;
    unsigned begun;      /* tasks since `measured_at` */
    int64_t measured_at; /* 0: nothing to measure from */
};

struct cfi_pool {
    cf_executor executor;
    cf_thread_pool_options options;
    cf_host host;
    char *name;
    unsigned lane_mask;
    unsigned startable; /* workers that the pool may start by itself */
    /* Read by everyone at every task, written rarely: */
    _Alignas(CFI_CACHE_LINE) cfi_u32 mode;
    cfi_bool closed;
    cfi_u32 started; /* workers that exist or existed */
    CFI_ATOMIC(struct cf_worker *) * workers;
    /* Written by those who sleep and wake: */
    _Alignas(CFI_CACHE_LINE) struct cfi_idle idle;
    _Alignas(CFI_CACHE_LINE) struct cfi_heap heap;
    /* Bounded pools: */
    _Alignas(CFI_CACHE_LINE) cfi_size pending;
    cfi_u32 room_waiters, room_event;
    /* Starting and ending: */
    cfi_u32 start_event;    /* changes when the first worker has come, or could not; a futex */
    cfi_i64 start_again_at; /* no new thread before, since the last attempt failed; 0: it did not */
    int start_error;        /* with which */
    cfi_bool requested;     /* one is being started on request */
    struct cf_worker *unborn; /* those whose thread could not be started */
    cfi_u32 joined;
    cfi_u32 initializing; /* workers in the user's initializer; each takes a task afterwards */
    cfi_u32 live;         /* workers that have not ended; a futex */
    struct cfi_lane lanes[];
};

/* ---- pool.c ---- */
int cfi_pool_start_worker(struct cfi_pool *pool); /* 0 or an errno; the caller counted a searcher */
void cfi_pool_tell_start(struct cfi_pool *pool);  /* the first worker is there, or will not be */
void cfi_pool_break(struct cfi_pool *pool, const char *message, int code);
void cfi_pool_begin(struct cfi_pool *pool);                 /* a pending task was claimed */
void cfi_pool_dispose(struct cfi_pool *pool, cf_future *f); /* cancels or breaks one, by the mode */
void cfi_pool_worker_ended(struct cfi_pool *pool);          /* the pool may be gone afterwards */

/* ---- worker.c ---- */
void *cfi_pool_worker_main(void *worker);
struct cf_worker *
cfi_worker_here(const struct cfi_pool *pool); /* this thread, if it works for it */
/* Run a claimed task; a task from a queue, unless somebody was faster.  Take over one reference. */
void cfi_worker_run_claimed(struct cf_worker *w, cf_future *f);
void cfi_worker_run_task(struct cf_worker *w, cf_future *f);
bool cfi_pool_has_work(struct cfi_pool *pool);
uint64_t cfi_pool_backlog(struct cfi_pool *pool); /* tasks in the queues, about */
void cfi_pool_drain(struct cfi_pool *pool);       /* disposes of all that is queued */

/* ---- help.c ---- */
bool cfi_pool_help(void *self, cf_future *awaited);

/* Where a task runs: the worker's number + 1, and the bottom of its deque when the task began. */
enum { CFI_MARK_BITS = 48 };
#define CFI_MARK_MASK ((UINT64_C(1) << CFI_MARK_BITS) - 1)

static inline unsigned cfi_place_worker(uint64_t place)
{
    return (unsigned)(place >> CFI_MARK_BITS);
}

static inline int64_t cfi_place_mark(uint64_t place)
{
    return (int64_t)(place & CFI_MARK_MASK);
}

/* ---- idle.c ---- */
bool cfi_idle_begin_search(struct cfi_pool *pool); /* false: somebody is searching already */
void cfi_idle_count_search(struct cfi_pool *pool); /* one more, whoever else searches */
/* No longer searching; the last one sees to it that what else there is to do gets a worker. */
void cfi_idle_end_search(struct cfi_pool *pool);
/* Puts the worker on the stack of sleepers, ending its search.  It parks next. */
void cfi_idle_push(struct cf_worker *w, bool searching);
void cfi_idle_wake_all(struct cfi_pool *pool);

/* After a task was published and a full fence: gets a worker on its way, unless one is searching
 * or, if `lane` is given, the lane has been emptied. */
void cfi_pool_kick_slow(struct cfi_pool *pool, struct cfi_lane *lane);

static inline void cfi_pool_kick(struct cfi_pool *pool, struct cfi_lane *lane)
{
    uint64_t word = cfi_load_relaxed(&pool->idle.word);
    bool sleeper = cfi_idle_top(word) != 0;
    bool room = cfi_load_relaxed(&pool->started) < pool->startable;
    if (CFI_UNLIKELY(cfi_idle_searching(word) == 0 && (sleeper || room)))
        cfi_pool_kick_slow(pool, lane);
}

#endif
