/* SPDX-License-Identifier: MIT */
/* A worker's own submits: the owner puts and takes at the bottom, everybody else takes at the top.
 * Chase and Lev, "Dynamic Circular Work-Stealing Deque", SPAA 2005, with the memory orders of Le,
 * Pop, Cohen and Zappa Nardelli, PPoPP 2013. */
#ifndef CFI_THREADS_DEQUE_H
#define CFI_THREADS_DEQUE_H

#include "../base/atomics.h"

#include <cfutures.h>

struct cfi_ring;

struct cfi_deque {
    _Alignas(CFI_CACHE_LINE) cfi_i64 top;
    _Alignas(CFI_CACHE_LINE) cfi_i64 bottom;
    CFI_ATOMIC(struct cfi_ring *)
    ring; /* replaced by a larger one; the old ones stay, linked, until the end */
};

/* Before it grows it asks of every entry whether it may go: true means that it has gone. */
typedef bool cfi_drop_fn(cf_future *f);

/* Owner.  false: out of memory. */
bool cfi_deque_push(struct cfi_deque *d, cf_future *f, cfi_drop_fn *drop);

/* Owner: takes the bottom task if it is `f`. */
bool cfi_deque_pop_if(struct cfi_deque *d, const cf_future *f);

/* Anybody: the oldest task at or above position `from`, or NULL (there is none, or somebody was
 * faster). */
cf_future *cfi_deque_steal(struct cfi_deque *d, int64_t from);

/* Owner: where the next push will go. */
static inline int64_t cfi_deque_bottom(struct cfi_deque *d)
{
    return cfi_load_relaxed(&d->bottom);
}

static inline bool cfi_deque_is_empty(struct cfi_deque *d)
{
    return cfi_load_acquire(&d->top) >= cfi_load_acquire(&d->bottom);
}

static inline uint64_t cfi_deque_count(struct cfi_deque *d)
{
    int64_t count = cfi_load_acquire(&d->bottom) - cfi_load_acquire(&d->top);
    return count > 0 ? (uint64_t)count : 0;
}

void cfi_deque_destroy(struct cfi_deque *d);

#endif
