/* SPDX-License-Identifier: MIT */
/* A future is its task: header, argument and result are one block.
 *
 * States, all changes by compare-and-swap on `word`, which also counts the references:
 *
 *     PENDING --claim--> RUNNING --settle--> OK | FAILED
 *        |                  ^ `--(promise)--> SETTLING --> OK | FAILED
 *        `--cancel--> CANCELLED
 *
 * WAITED: somebody sleeps on the low half of the word.  WATCHED: there is a list of watchers
 * (callbacks, wait sets).  STOP: the task was asked to stop.  TAKEN: the result was moved out.
 *
 * Who owns what.  A future is submitted with two references: the submitter's and the executor's.
 * Who claims it takes over the executor's, and settling gives it back: when nobody waits, in the
 * same swap that publishes the state, so that a task costs two swaps.  Until it is claimed the task
 * part belongs to nobody; then to the runner; once the state is final nothing in it changes, and
 * the release of that swap pairs with the acquire of whoever reads a final state.
 *
 * The block is one cache line for a task with up to 16 bytes of argument and 8 of result:
 *
 *     header (40) | result up to 8, else nothing (8) | argument, at 48 | result, if larger
 *     header (40) | result up to 8 (8) | arg_destroy (8) | ... | argument at 64
 *     header (40) | both sizes, if one does not fit into 16 bits (16) | ... | argument at 64 |
 * result header (40) | as above | struct cfi_extra and a provider's room at 64 | argument | result
 *
 * The memory for what a failure says is taken when the task has returned, before it settles; when
 * there is none, status and code are kept all the same (they lie where the result would): settling
 * cannot fail.
 *
 * `watchers` is guarded by one of a few locks chosen by the future's address.  A watcher is added
 * under that lock after a look at the state; who settles takes the list under the same lock, after
 * the final state is out.  So each watcher is either refused or notified, never both, never
 * neither. Wait sets are notified under the lock (so they can be taken down under it); callbacks
 * run after it. */
#ifndef CFI_CORE_FUTURE_H
#define CFI_CORE_FUTURE_H

#include "../base/atomics.h"
#include "../base/futex.h"
#include "error.h"

#include <cfutures/provider.h>

enum {
    CFI_PENDING = 0,
    CFI_RUNNING = 1,
    CFI_SETTLING = 2,
    CFI_DONE_OK = 4, /* from here on final: tested by this bit */
    CFI_DONE_FAILED = 5,
    CFI_DONE_CANCELLED = 6,
    CFI_STATE = 7,
    CFI_FINAL = 4,
    CFI_WAITED = 8,
    CFI_WATCHED = 16,
    CFI_STOP = 32,
    CFI_TAKEN = 64
};
#define CFI_REFERENCE (UINT64_C(1) << 32)

enum cfi_kind { CFI_KIND_FN, CFI_KIND_BYTES, CFI_KIND_PROMISE };

/* Flags do not change once the future is submitted. */
enum {
    CFI_HAS_EXTRA = 1,     /* a struct cfi_extra lies before the argument */
    CFI_BIG = 2,           /* the sizes lie at the tail                   */
    CFI_COUNTED = 4,       /* holds a reference on its executor           */
    CFI_SETTABLE = 8,      /* a provider's: may be settled from outside   */
    CFI_NOTIFIES = 16,     /* its executor wants to hear of a cancel      */
    CFI_NEAR_SLOT = 32,    /* the result lies at the tail                 */
    CFI_REMOTE = 64,       /* its task runs in another process: struct cfi_remote_ops */
    CFI_NEAR_DESTROY = 128 /* arg_destroy lies at the tail, and there is no extra */
};

/* A callback or a member of a wait set: what hears of the end. */
struct cfi_watcher {
    struct cfi_watcher *next;
    /* Wait sets: called under the lock.  NULL: it is a callback. */
    void (*notify)(struct cfi_watcher *watcher, bool failed);
};

/* What a failed future says; in one block with its text. */
struct cfi_failure {
    cf_error error;
    struct cfi_raised *raised; /* NULL: none */
    char text[];
};

struct cf_future {
    cfi_u64 word;
    struct cfi_watcher *watchers;
    cf_executor *executor; /* NULL: a promise */
    uint8_t kind;
    uint8_t flags;
    uint8_t units; /* the block's size in steps of CFI_BLOCK_STEP; 0: larger than any cached one */
    uint8_t data;  /* where the argument begins, in steps of 16 bytes */
    uint8_t generation; /* of the process that made it: in a forked child it can never settle */
    uint8_t arg_size;   /* these two: see cfi_arg_size */
    uint16_t result_size;
    union {
        cf_fn *fn; /* what to call, until it is called; */
        cf_bytes_fn *bytes_fn;
        cfi_u64 place; /* then where it runs (the pool's; 0 in the upper 16 bits: not known) */
    } at;
    union {
        unsigned char slot[8]; /* CFI_NEAR_SLOT                                          */
        struct {
            unsigned char slot[8];
            void (*arg_destroy)(void *arg); /* NULL once it was called                   */
        } near;          /* CFI_NEAR_DESTROY                                       */
        size_t sizes[2]; /* CFI_BIG: of argument and result                        */
        struct {         /* when it failed                                         */
            struct cfi_failure *failure; /* NULL: there was no memory                    */
            cf_status status;
            int code;
        } end;
    } tail;
    /* The argument begins at offset 48, in the tail's second half, or at 64. */
};

/* What few tasks have: destroy functions, limits, a priority, a provider's room behind it. */
struct cfi_extra {
    cf_task task;                   /* as submitted; arg points to the copy */
    int64_t stop_at;                /* deadline of run_limit_ns once it runs */
    void (*arg_destroy)(void *arg); /* NULL once it was called */
    cfi_u64 ticket; /* what the task is called in requests; 0: none has been made of it */
};

#define CFI_LARGEST  (SIZE_MAX / 4) /* of an argument or a result */
#define CFI_ALIGN(n) (((n) + 15) & ~(size_t)15)
enum { CFI_ARG_NEAR = 48, CFI_ARG_FAR = 64 }; /* with extra or sizes; extra begins here too */

static inline size_t cfi_arg_size(const cf_future *f)
{
    return f->flags & CFI_BIG ? f->tail.sizes[0] : f->arg_size;
}

static inline size_t cfi_result_size(const cf_future *f)
{
    return f->flags & CFI_BIG ? f->tail.sizes[1] : f->result_size;
}

static inline void *cfi_future_arg(cf_future *f)
{
    return (char *)f + (size_t)f->data * 16;
}

static inline void *cfi_future_slot(cf_future *f)
{
    if (CFI_LIKELY(f->flags & CFI_NEAR_SLOT))
        return f->tail.slot;
    return (char *)cfi_future_arg(f) + CFI_ALIGN(cfi_arg_size(f));
}

static inline struct cfi_extra *cfi_future_extra(cf_future *f)
{
    return (struct cfi_extra *)(void *)((char *)f + CFI_ARG_FAR); /* only with CFI_HAS_EXTRA */
}

static inline uint32_t cfi_state(uint64_t word)
{
    return (uint32_t)word & CFI_STATE;
}
static inline bool cfi_is_final(uint64_t word)
{
    return word & CFI_FINAL;
}

static inline bool cfi_future_is_pending(const cf_future *f)
{
    return cfi_state(cfi_load_relaxed(&((cf_future *)(uintptr_t)f)->word)) == CFI_PENDING;
}

/* Has it ended?  Acquire: pairs with the swap that settled it. */
static inline bool cfi_future_is_done(const cf_future *f)
{
    return cfi_is_final(cfi_load_acquire(&((cf_future *)(uintptr_t)f)->word));
}

/* ---- making (task.c) and letting go ---- */

/* A pending future with one reference and a copy of the argument.  `extra` says whether the whole
 * cf_task is kept, with `room` bytes behind it; else no more of it than arg_destroy.  NULL: out of memory, or the sizes overflow. */
cf_future *cfi_future_make(enum cfi_kind kind, const cf_task *task, bool extra, size_t room);

/* Gives one reference back; the last one destroys what the future owns. */
void cfi_future_drop(cf_future *f);

/* A future that was never handed out: its block goes, nothing is destroyed. */
void cfi_future_discard(cf_future *f);

/* ---- the runner's side ---- */

/* PENDING -> RUNNING; false: somebody else was faster (the reference is still the caller's). */
static inline bool cfi_future_claim(cf_future *f)
{
    uint64_t word = cfi_load_relaxed(&f->word);
    while (cfi_state(word) == CFI_PENDING) {
        if (cfi_cas_acq_rel(&f->word, &word,
                            word + CFI_RUNNING)) /* acquire: pairs with the submit */
            return true;
    }
    return false;
}

/* Runs a claimed task on this thread and settles it.  Takes over one reference.  `place`: where,
 * for the pool's own use, or 0. */
void cfi_future_execute(cf_future *f, uint64_t place);

/* Settle a running (or settling) future without running it.  Take over one reference. */
void cfi_future_fail(cf_future *f, const cf_error *error);
void cfi_future_succeed(cf_future *f);

/* Publishes a final state and gives a reference back.  What the state stands for is in place. */
void cfi_future_settle(cf_future *f, uint32_t final);

/* Runs callbacks that were taken off, on this thread; the future is kept by the caller. */
void cfi_future_run_callbacks(cf_future *f, struct cfi_watcher *callbacks);

/* Calls arg_destroy if that is still to be done. */
void cfi_future_destroy_arg(cf_future *f);

/* ---- waiters and watchers ---- */

/* From now on whoever settles wakes the sleepers on the word; false: the future is done. */
bool cfi_future_announce_wait(cf_future *f);

/* Adds a watcher; false: the future is done and the watcher was not added. */
bool cfi_future_watch(cf_future *f, struct cfi_watcher *watcher);

/* Removes a wait set's watcher.  When this returns nobody is notifying it. */
void cfi_future_unwatch(cf_future *f, struct cfi_watcher *watcher);

/* Around a fork. */
void cfi_futures_lock_all(void);
void cfi_futures_unlock_all(void);

/* Makes the error of a future that is done and has no result this thread's last one; its status. */
cf_status cfi_fail_as_future(const cf_future *f);

#endif
