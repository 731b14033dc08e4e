/* SPDX-License-Identifier: MIT */
/* An executor as the core sees it: a table of operations and a place for its state.
 *
 * References: one for the user's handle (given back by cf_executor_free) and one for each counted
 * future.  Futures of providers and of bounded pools are counted; those of unbounded pools are not,
 * since a counter that every submit touches would be the one cache line that all cores fight for:
 * such a pool keeps itself alive until its workers are gone (`pinned`). */
#ifndef CFI_CORE_EXECUTOR_H
#define CFI_CORE_EXECUTOR_H

#include "../base/atomics.h"
#include "../base/lock.h"

#include "future.h"

#include <cfutures/provider.h>

struct cfi_self;
struct cfi_map_work;

/* What the core asks a pool of the library's own.  The first four are the wait graph's, which calls them
 * under its lock. */
struct cfi_pool_ops {
    struct cfi_self *(*runner)(void *self, const cf_future *f); /* who runs it; NULL: not known */
    bool (*has_free_worker)(
        void *self); /* may a pending task be begun by one that is not in a wait? */
    unsigned (*worker_count)(void *self); /* 0 for an executor that maps should not split for */
    struct cfi_self *(*worker)(void *self, unsigned number); /* NULL: not there */
    void (*abandon)(void *self);         /* in a forked child: gives back what the workers held */
    const struct cfi_remote_ops *remote; /* NULL: its tasks run in this process */
};

/* And one whose tasks run elsewhere; its futures are CFI_REMOTE and counted.  The state of a future here
 * lags behind its task's: PENDING may mean that it runs or is done there. */
struct cfi_remote_ops {
    cf_status (*make)(void *self, enum cfi_kind kind, const cf_task *task, cf_future **ret);
    void (*discard)(cf_future *f); /* one that was made and then not accepted: what it holds */
    /* cf_map and its kin, arguments checked. */
    cf_status (*map)(void *self, const struct cfi_map_work *work, int64_t timeout_ns);
    /* Brings the state of an unsettled future up to date if that needs no waiting; may settle it. */
    void (*look)(void *self, cf_future *f);
    /* PENDING -> CANCELLED, if it has not begun there either. */
    bool (*cancel)(void *self, cf_future *f);
    /* Sleeps until there may be something new about the future; false: the caller shall sleep on
     * its word (WAITED is set), and will be woken. */
    bool (*attend)(void *self, cf_future *f, int64_t deadline, enum cfi_woken *ret);
    /* The future has got a watcher: it is to be settled without being asked for. */
    void (*expect)(void *self, cf_future *f);
    /* Has the callbacks run on the executor's own thread: settling must not wait for them. */
    void (*call_back)(void *self, cf_future *f, struct cfi_watcher *callbacks);
};

struct cf_executor {
    cf_executor_ops ops;
    void *self;
    const struct cfi_pool_ops *pool; /* NULL: a provider's */
    cfi_bool stopping;               /* its running tasks were asked to stop */
    bool counted;
    uint32_t process; /* cfi_process when it was made */
    cfi_u32 gate;     /* providers: closed bit and submits under way */
    cfi_u64 references;
    struct cfi_lock lock; /* guards `broken` */
    cfi_bool is_broken;
    cf_error broken;
};

/* The state of this process: changes in a forked child and when the process begins to exit.  An
 * executor made under another value takes no more work. */
extern cfi_u32 cfi_process;
enum { CFI_EXITING = 1 };          /* bit; the rest counts forks */
cf_status cfi_process_watch(void); /* once, before the first executor or promise */

static inline bool cfi_executor_is_foreign(const cf_executor *ex)
{
    return cfi_load_relaxed(&cfi_process) != ex->process;
}

static inline uint8_t cfi_generation(void)
{
    return (uint8_t)(cfi_load_relaxed(&cfi_process) >> 1);
}

/* For pools: fills in an executor that lies inside the pool's own memory. */
void cfi_executor_init(cf_executor *ex, const cf_executor_ops *ops, void *self,
                       const struct cfi_pool_ops *pool, bool counted);
void cfi_executor_ref(cf_executor *ex);
void cfi_executor_unref(cf_executor *ex); /* the last one calls ops.destroy */

/* CF_BROKEN with the reason, when it is. */
cf_status cfi_executor_broken(cf_executor *ex);

/* Does this thread run a task of the executor, or is it one of its workers?  Then it cannot wait
 * for it. */
bool cfi_executor_is_inside(const cf_executor *ex);

/* Submits a future that the caller has made (map does): takes over one reference when CF_OK. */
cf_status cfi_executor_submit(cf_executor *ex, cf_future *f);

#endif
