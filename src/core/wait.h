/* SPDX-License-Identifier: MIT */
/* Waiting: for one future, for several, and the graph that tells a wait that could never end. */
#ifndef CFI_CORE_WAIT_H
#define CFI_CORE_WAIT_H

#include "../base/futex.h"
#include "future.h"
#include "self.h"

/* Waits until the future is done: CF_OK, CF_TIMEOUT, CF_DEADLOCK, CF_SHUTDOWN (it belongs to the
 * process before a fork), CF_INTERRUPTED. */
cf_status cfi_await(cf_future *f, int64_t timeout_ns);

/* The failing status for how a sleep ended. */
cf_status cfi_fail_woken(enum cfi_woken woken, const char *timeout_message);

/* What a thread that runs a task is waiting for, while it sleeps. */
struct cfi_wait {
    cf_future *const *futures; /* NULL entries are skipped */
    size_t count;
    bool any;     /* one of them is enough */
    bool bounded; /* ends by a deadline if by nothing else */
};

/* Enters the wait into the graph, unless it could never end: CF_OK or CF_DEADLOCK.  Threads that
 * run no task need not: nobody waits for them. */
cf_status cfi_wait_begin(const struct cfi_wait *wait);
void cfi_wait_end(void);

/* Does this thread run a task (or a pool's callback), so that others may wait for it? */
static inline bool cfi_is_waited_for(void)
{
    return cfi_this.frame || cfi_this.executor;
}

/* Turns of a spin before a sleep: 0 where this process has one CPU. */
extern int cfi_spins;

/* Runs something that brings the future nearer, if this thread is a worker of its pool. */
bool cfi_wait_help(cf_future *f);

void cfi_wait_graph_lock(void);
void cfi_wait_graph_unlock(void);

#endif
