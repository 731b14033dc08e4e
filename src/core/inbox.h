/* SPDX-License-Identifier: MIT */
/* Futures as they complete, for one consumer: each future that is watched has an entry, whoever
 * settles the future puts the entry into the inbox, and the consumer takes them out in that order.
 *
 * Entries and inbox are the consumer's memory.  It reaches an entry only under the inbox's lock,
 * which whoever puts it in gives back as its last touch: so an entry that has been taken out is
 * free to be used again, and after the last one so is the inbox. */
#ifndef CFI_CORE_INBOX_H
#define CFI_CORE_INBOX_H

#include "../base/lock.h"
#include "../base/park.h"
#include "future.h"
#include "wait.h"

struct cfi_inbox;

struct cfi_inbox_entry {
    struct cfi_watcher watcher;
    struct cfi_inbox *inbox;
    struct cfi_inbox_entry *next; /* in the list of those that are done */
};

struct cfi_inbox {
    struct cfi_lock lock; /* guards the list */
    struct cfi_inbox_entry *first, **last;
    struct cfi_parker parker; /* has a token when something may be in the list */
};

void cfi_inbox_init(struct cfi_inbox *inbox);

/* Puts the entry into the inbox when the future is done: at once, or by who settles it.  Those in
 * the inbox are linked to each other, so an entry that has not been taken out may go only when no
 * future is watched any more (cfi_future_unwatch). */
void cfi_inbox_watch(struct cfi_inbox *inbox, struct cfi_inbox_entry *entry, cf_future *f);

/* The entry that has been in the inbox for longest; NULL: it is empty. */
struct cfi_inbox_entry *cfi_inbox_take(struct cfi_inbox *inbox);

/* Sleeps until something may have come in: CF_OK (look again), CF_TIMEOUT, CF_DEADLOCK or
 * CF_INTERRUPTED.  `wait` is what the wait graph is told. */
cf_status cfi_inbox_await(struct cfi_inbox *inbox, const struct cfi_wait *wait, int64_t deadline);

/* A wait that ends with a token: spins, enters the graph, sleeps. */
cf_status cfi_park_in_graph(struct cfi_parker *parker, const struct cfi_wait *wait,
                            int64_t deadline);

#endif
