/* SPDX-License-Identifier: MIT */
/* Tasks with a priority: a binary heap, highest priority first, first come first served among
 * equals, under a lock of its own (tasks without a priority never come here). */
#ifndef CFI_CORE_HEAP_H
#define CFI_CORE_HEAP_H

#include "../base/lock.h"

#include <cfutures.h>

struct cfi_heap_entry {
    int64_t priority;
    uint64_t order;
    cf_future *future;
};

struct cfi_heap {
    struct cfi_lock lock; /* guards all but the two counters, which are written under it */
    bool closed;
    size_t count, room;
    uint64_t next_order;
    struct cfi_heap_entry *entries;
    cfi_size urgent;     /* those above 0: run before everything else    */
    cfi_size background; /* those below 0: run when there is nothing else */
};

/* CF_OK, CF_NOMEM or CF_SHUTDOWN.  Sets no last error.  A full fence, as cfi_lane_put. */
cf_status cfi_heap_put(struct cfi_heap *heap, cf_future *f, int64_t priority);

/* The first task, or NULL; with urgent_only NULL too when its priority is not above 0. */
cf_future *cfi_heap_take(struct cfi_heap *heap, bool urgent_only);

/* Takes one out of the middle; false: it is not there. */
bool cfi_heap_remove(struct cfi_heap *heap, const cf_future *f);

void cfi_heap_close(struct cfi_heap *heap);
void cfi_heap_destroy(struct cfi_heap *heap);

#endif
