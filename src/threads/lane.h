/* SPDX-License-Identifier: MIT */
/* A lane: an unbounded queue of tasks, first in first out, with one lock for those who put and
 * another for those who take (Michael and Scott's two-lock queue, PODC 1996, over segments of an
 * array).  A pool has several; a producer thread keeps to one, so its lock stays in that core's
 * cache, and takers meet producers only on the count of what was put. */
#ifndef CFI_THREADS_LANE_H
#define CFI_THREADS_LANE_H

#include "../base/lock.h"

#include <cfutures.h>

struct cfi_segment;

struct cfi_lane {
    _Alignas(CFI_CACHE_LINE) struct cfi_lock in; /* guards closed, tail, tail_at */
    bool closed;
    unsigned tail_at;
    struct cfi_segment *tail;
    /* A line of its own: takers look at it all the time, and the lock is the producer's. */
    _Alignas(CFI_CACHE_LINE) cfi_u64 put; /* how many were put; published by release, under `in` */
    _Alignas(CFI_CACHE_LINE) struct cfi_lock out; /* guards head, head_at */
    unsigned head_at;
    CFI_ATOMIC(struct cfi_segment *) head; /* the first is set by the first put */
    cfi_u64 taken;                         /* written under `out` */
    CFI_ATOMIC(struct cfi_segment *) spare;
};

/* CF_OK, CF_NOMEM, or CF_SHUTDOWN when the lane is closed (unless `force`).  Sets no last error.  A
 * full fence: what the caller reads after it is read after the task became visible. */
cf_status cfi_lane_put(struct cfi_lane *lane, cf_future *f, bool force);

/* Takes up to `max` tasks, but no more than 1 + what is there / divisor; 0: empty, or another taker
 * is at it. */
unsigned cfi_lane_take(struct cfi_lane *lane, cf_future **tasks, unsigned max, unsigned divisor);

static inline bool cfi_lane_is_empty(struct cfi_lane *lane)
{
    return cfi_load_acquire(&lane->put) == cfi_load_relaxed(&lane->taken);
}

static inline uint64_t cfi_lane_count(struct cfi_lane *lane)
{
    uint64_t taken = cfi_load_acquire(&lane->taken); /* first: it never passes `put` */
    return cfi_load_acquire(&lane->put) - taken;
}

/* From now on puts are refused; when it returns, what was accepted is visible. */
void cfi_lane_close(struct cfi_lane *lane);
void cfi_lane_destroy(struct cfi_lane *lane);

#endif
