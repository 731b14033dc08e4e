/* SPDX-License-Identifier: MIT */
/* The state machine of future.h, references and watchers. */
#define _POSIX_C_SOURCE 200809L
#include "future.h"

#include "../base/blocks.h"
#include "../base/clock.h"
#include "../base/futex.h"
#include "../base/lock.h"
#include "executor.h"
#include "self.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct callback {
    struct cfi_watcher watcher;
    cf_done_fn *fn;
    void *data;
};

/* ---- making and letting go ---- */

static void keep_extra(cf_future *f, const cf_task *task, size_t room)
{
    struct cfi_extra *extra = cfi_future_extra(f);
    extra->task = *task;
    extra->task.arg = cfi_future_arg(f);
    extra->stop_at = CFI_NEVER;
    cfi_init(&extra->ticket, 0);
    memset(extra + 1, 0, room);
    extra->arg_destroy = task->arg_destroy;
    f->flags |= CFI_HAS_EXTRA;
}

struct shape {
    size_t size, data; /* of the block; where the argument begins */
    uint8_t flags;
};

/* size 0: it does not fit into memory. */
static inline struct shape shape_of(size_t arg_size, size_t result_size, bool destroy, bool extra,
                                    size_t room)
{
    if (CFI_LIKELY(result_size <= 8 && arg_size <= UINT8_MAX && !extra)) {
        size_t data = destroy ? CFI_ARG_FAR : CFI_ARG_NEAR, size = data + arg_size;
        return (struct shape){ size < sizeof(cf_future) ? sizeof(cf_future) : size, data,
                               CFI_NEAR_SLOT | (destroy ? CFI_NEAR_DESTROY : 0) };
    }
    extra = extra || destroy;
    bool big = arg_size > UINT8_MAX || result_size > UINT16_MAX;
    size_t data = !big && !extra ? CFI_ARG_NEAR : CFI_ARG_FAR;
    if (extra)
        data += CFI_ALIGN(sizeof(struct cfi_extra) + room);
    bool fits = arg_size <= CFI_LARGEST && result_size <= CFI_LARGEST;
    size_t size = data + CFI_ALIGN(arg_size) + CFI_ALIGN(result_size);
    return (struct shape){ fits ? size : 0, data, big ? CFI_BIG : 0 };
}

cf_future *cfi_future_make(enum cfi_kind kind, const cf_task *task, bool extra, size_t room)
{
    size_t result_size = kind == CFI_KIND_BYTES ? sizeof(cf_bytes) : task->result_size;
    struct shape shape =
        shape_of(task->arg_size, result_size, task->arg_destroy != NULL, extra, room);
    cf_future *f = shape.size ? cfi_block_new(shape.size) : NULL;
    if (CFI_UNLIKELY(!f))
        return NULL;
    size_t units = cfi_block_capacity(shape.size) / CFI_BLOCK_STEP;
    cfi_init(&f->word, CFI_REFERENCE);
    f->watchers = NULL;
    f->executor = NULL;
    f->kind = (uint8_t)kind;
    f->flags = shape.flags;
    f->units = units <= CFI_BLOCK_CLASSES ? (uint8_t)units : 0;
    f->data = (uint8_t)(shape.data / 16);
    f->generation = cfi_generation();
    f->arg_size = (uint8_t)task->arg_size;
    f->result_size = (uint16_t)result_size;
    if (kind == CFI_KIND_BYTES)
        f->at.bytes_fn = task->bytes_fn;
    else
        f->at.fn = task->fn;
    if (CFI_UNLIKELY(shape.flags & CFI_BIG)) {
        f->tail.sizes[0] = task->arg_size;
        f->tail.sizes[1] = result_size;
    }
    if (task->arg_size && task->arg)
        memcpy(cfi_future_arg(f), task->arg, task->arg_size);
    if (shape.flags & CFI_NEAR_DESTROY)
        f->tail.near.arg_destroy = task->arg_destroy;
    else if (CFI_UNLIKELY(extra || task->arg_destroy))
        keep_extra(f, task, room);
    if (kind == CFI_KIND_BYTES)
        *(cf_bytes *)cfi_future_slot(f) = (cf_bytes){ NULL, 0 };
    return f;
}

#if defined(CFI_DEBUG) && !defined(CFI_ASAN)
/* Debug builds keep the last futures for a while with no references, so that using a handle once too
 * often meets the assertion in cfi_future_drop and not another task's future.  (AddressSanitizer tells
 * it better.) */
static cf_future *delay_reuse(cf_future *f)
{
    static CFI_ATOMIC(cf_future *) kept[64];
    static cfi_u32 next;
    uint32_t at = cfi_add_relaxed(&next, 1) % 64;
    cfi_store_relaxed(&f->word, 0);
    return cfi_exchange_acq_rel(&kept[at], f);
}
#endif

void cfi_future_discard(cf_future *f)
{
#if defined(CFI_DEBUG) && !defined(CFI_ASAN)
    f = delay_reuse(f);
    if (!f)
        return;
#endif
    cfi_block_free(f, f->units ? (size_t)f->units * CFI_BLOCK_STEP : SIZE_MAX);
}

static void destroy_result(cf_future *f, uint64_t word)
{
    if (word & CFI_TAKEN)
        return;
    if (f->kind == CFI_KIND_BYTES)
        cf_bytes_free(cfi_future_slot(f));
    else if (f->flags & CFI_HAS_EXTRA && cfi_future_extra(f)->task.result_destroy)
        cfi_future_extra(f)->task.result_destroy(cfi_future_slot(f));
}

static void destroy_failure(cf_future *f)
{
    struct cfi_failure *failure = f->tail.end.failure;
    if (failure)
        cfi_raised_free(failure->raised);
    free(failure);
}

static CFI_COLD void destroy_slow(cf_future *f, uint64_t word)
{
    if (cfi_state(word) == CFI_DONE_OK)
        destroy_result(f, word);
    else if (cfi_state(word) == CFI_DONE_FAILED)
        destroy_failure(f);
    cf_executor *counted = f->flags & CFI_COUNTED ? f->executor : NULL;
    cfi_future_discard(f);
    if (counted)
        cfi_executor_unref(counted);
}

/* Nobody else has a reference any more. */
static inline void destroy(cf_future *f, uint64_t word)
{
    if (CFI_LIKELY(cfi_state(word) == CFI_DONE_OK && f->kind == CFI_KIND_FN &&
                   !(f->flags & (CFI_HAS_EXTRA | CFI_COUNTED))))
        cfi_future_discard(f);
    else
        destroy_slow(f, word);
}

/* The last reference to a promise that was never kept: those who watch must still hear of an end, and
 * a callback may keep the future. */
static CFI_COLD void abandon(cf_future *f)
{
    static const cf_error abandoned = { .size = sizeof abandoned,
                                        .status = CF_BROKEN,
                                        .message = "nobody can settle this future any more",
                                        .exit_code = -1 };
    if (cfi_load_relaxed(&f->word) / CFI_REFERENCE == 0)
        (void)cfi_add_relaxed(&f->word, CFI_REFERENCE);
    if (f->kind != CFI_KIND_PROMISE || !cf_future_cancel(f))
        (void)cf_future_set_exception(f, &abandoned);
    cfi_future_drop(f);
}

void cfi_future_drop(cf_future *f)
{
    uint64_t word = cfi_load_acquire(&f->word); /* pairs with the swap below by the others */
    /* The only owner needs no swap: nobody is left who could add a reference. */
    if (word / CFI_REFERENCE != 1)
        word = cfi_sub_acq_rel(&f->word, CFI_REFERENCE);
    assert(word / CFI_REFERENCE != 0);
    if (word / CFI_REFERENCE != 1)
        return;
    if (CFI_LIKELY(cfi_is_final(word)))
        destroy(f, word);
    else
        abandon(f);
}

cf_future *cf_future_ref(cf_future *future)
{
    if (future)
        (void)cfi_add_relaxed(&future->word, CFI_REFERENCE); /* the caller's own keeps it alive */
    return future;
}

cf_future *cf_future_unref(cf_future *future)
{
    if (future)
        cfi_future_drop(future);
    return NULL;
}

void cf_future_unref_all(cf_future **futures, size_t count)
{
    for (size_t i = 0; futures && i < count; i++)
        futures[i] = cf_future_unref(futures[i]);
}

/* ---- watchers ---- */

enum { STRIPES = 64 };
struct stripe {
    struct cfi_lock lock;
    char pad[CFI_CACHE_LINE - sizeof(struct cfi_lock)]; /* none shares a line with another */
};
static struct stripe stripes[STRIPES];

static struct cfi_lock *stripe_of(const cf_future *f)
{
    return &stripes[((uintptr_t)f >> 5) % STRIPES].lock;
}

/* Sets the flag unless the state is final. */
static bool set_flag(cf_future *f, uint32_t flag)
{
    uint64_t word = cfi_load_acquire(&f->word);
    while (!cfi_is_final(word)) {
        if (word & flag || cfi_cas_acq_rel(&f->word, &word, word | flag))
            return true;
    }
    return false;
}

bool cfi_future_announce_wait(cf_future *f)
{
    return set_flag(f, CFI_WAITED);
}

bool cfi_future_watch(cf_future *f, struct cfi_watcher *watcher)
{
    struct cfi_lock *lock = stripe_of(f);
    cfi_lock(lock);
    /* Who settles after this sees the flag and takes the list under the lock, thus with us in it.
     */
    bool added = set_flag(f, CFI_WATCHED);
    if (added) {
        watcher->next = f->watchers;
        f->watchers = watcher;
    }
    cfi_unlock(lock);
    if (CFI_UNLIKELY(added && f->flags & CFI_REMOTE))
        f->executor->pool->remote->expect(f->executor->self, f);
    return added;
}

void cfi_future_unwatch(cf_future *f, struct cfi_watcher *watcher)
{
    struct cfi_lock *lock = stripe_of(f);
    cfi_lock(lock);
    for (struct cfi_watcher **at = &f->watchers; *at; at = &(*at)->next) {
        if (*at == watcher) {
            *at = watcher->next;
            break;
        }
    }
    cfi_unlock(lock);
}

/* Takes the watchers off, tells the wait sets, and returns the callbacks, oldest first. */
static struct cfi_watcher *notify_sets(cf_future *f, bool failed)
{
    struct cfi_watcher *callbacks = NULL;
    struct cfi_lock *lock = stripe_of(f);
    cfi_lock(lock);
    struct cfi_watcher *next = f->watchers;
    f->watchers = NULL;
    while (next) {
        struct cfi_watcher *w = next;
        next = w->next;
        if (w->notify) {
            w->notify(w, failed); /* may be gone now */
        } else {
            w->next = callbacks;
            callbacks = w;
        }
    }
    cfi_unlock(lock);
    return callbacks;
}

void cfi_future_run_callbacks(cf_future *f, struct cfi_watcher *callbacks)
{
    cfi_this.callbacks++;
    while (callbacks) {
        struct callback *c = (struct callback *)callbacks;
        callbacks = callbacks->next;
        c->fn(f, c->data);
        free(c);
    }
    cfi_this.callbacks--;
}

cf_status cf_future_add_done_callback(cf_future *future, cf_done_fn *fn, void *data)
{
    if (!future || !fn)
        return cfi_fail(CF_INVALID, "cf_future_add_done_callback: %s is NULL",
                        future ? "fn" : "future");
    struct callback *c = malloc(sizeof *c);
    if (!c)
        return cfi_fail_fixed(CF_NOMEM, "cf_future_add_done_callback: out of memory");
    *c = (struct callback){ .fn = fn, .data = data };
    if (!cfi_future_watch(future, &c->watcher)) {
        free(c);
        fn(future, data);
    }
    return CF_OK;
}

void cfi_futures_lock_all(void)
{
    for (int i = 0; i < STRIPES; i++)
        cfi_lock(&stripes[i].lock);
}

void cfi_futures_unlock_all(void)
{
    for (int i = 0; i < STRIPES; i++)
        cfi_unlock(&stripes[i].lock);
}

/* ---- settling ---- */

/* The final state is out and somebody may be waiting: wake, notify; returns the callbacks. */
static struct cfi_watcher *announce(cf_future *f, uint64_t word, bool failed)
{
    if (word & CFI_WAITED)
        cfi_futex_wake(cfi_low_half(&f->word), INT_MAX);
    return word & CFI_WATCHED ? notify_sets(f, failed) : NULL;
}

static CFI_COLD void settle_watched(cf_future *f, uint32_t final)
{
    uint64_t word = cfi_load_relaxed(&f->word);
    while (!cfi_cas_acq_rel(&f->word, &word, (word & ~(uint64_t)CFI_STATE) | final))
        ;
    struct cfi_watcher *callbacks = announce(f, word, final == CFI_DONE_FAILED);
    if (callbacks && f->flags & CFI_REMOTE)
        f->executor->pool->remote->call_back(f->executor->self, f, callbacks);
    else
        cfi_future_run_callbacks(f, callbacks);
    cfi_future_drop(f);
}

/* Publishes the final state and gives a reference back, in one swap if nobody waits. */
void cfi_future_settle(cf_future *f, uint32_t final)
{
    uint64_t word = cfi_load_relaxed(&f->word);
    while (!(word & (CFI_WAITED | CFI_WATCHED))) {
        uint64_t settled = ((word & ~(uint64_t)CFI_STATE) | final) - CFI_REFERENCE;
        if (cfi_cas_acq_rel(&f->word, &word,
                            settled)) { /* release: the result, to who reads the state */
            if (settled / CFI_REFERENCE == 0)
                destroy(f, settled);
            return;
        }
    }
    settle_watched(f, final);
}

void cfi_future_destroy_arg(cf_future *f)
{
    if (CFI_LIKELY(!(f->flags & (CFI_HAS_EXTRA | CFI_NEAR_DESTROY))))
        return;
    bool near = f->flags & CFI_NEAR_DESTROY;
    void (**at)(void *arg) = near ? &f->tail.near.arg_destroy : &cfi_future_extra(f)->arg_destroy;
    void (*arg_destroy)(void *arg) = *at;
    *at = NULL;
    if (arg_destroy)
        arg_destroy(near ? cfi_future_arg(f)
                         : (void *)(uintptr_t)cfi_future_extra(f)->task.arg); /* maybe in a block */
}

/* ---- asking and cancelling ---- */

static uint32_t state_of(const cf_future *f)
{
    return f ? cfi_state(cfi_load_acquire(&((cf_future *)(uintptr_t)f)->word)) : CFI_PENDING;
}

/* After a look at where the task runs. */
static uint32_t state_now(const cf_future *future)
{
    uint32_t state = state_of(future);
    if (CFI_LIKELY(state & CFI_FINAL || !future || !(future->flags & CFI_REMOTE)))
        return state;
    cf_future *f = (cf_future *)(uintptr_t)future;
    f->executor->pool->remote->look(f->executor->self, f);
    return state_of(f);
}

bool cf_future_cancelled(const cf_future *future)
{
    return state_of(future) == CFI_DONE_CANCELLED;
}

bool cf_future_running(const cf_future *future)
{
    uint32_t state = state_now(future);
    return state == CFI_RUNNING || state == CFI_SETTLING;
}

bool cf_future_done(const cf_future *future)
{
    return state_now(future) & CFI_FINAL;
}

/* PENDING -> CANCELLED; *ret is the word before. */
static bool cancel_pending(cf_future *f, uint64_t *ret)
{
    *ret = cfi_load_acquire(&f->word);
    if (f->flags & CFI_REMOTE) {
        bool cancelled = cfi_state(*ret) == CFI_PENDING &&
                         f->executor->pool->remote->cancel(f->executor->self, f);
        *ret = cfi_load_acquire(&f->word);
        return cancelled;
    }
    while (cfi_state(*ret) == CFI_PENDING) {
        if (cfi_cas_acq_rel(&f->word, ret, *ret | CFI_DONE_CANCELLED))
            return true;
    }
    return false;
}

bool cf_future_cancel(cf_future *future)
{
    if (!future)
        return false;
    uint64_t word;
    if (!cancel_pending(future, &word))
        return cfi_state(word) == CFI_DONE_CANCELLED;
    cfi_future_destroy_arg(future);
    if (future->flags & CFI_NOTIFIES)
        future->executor->ops.cancelled(future->executor->self, future);
    /* To FIRST_EXCEPTION a cancel is no failure. */
    cfi_future_run_callbacks(future, announce(future, word, false));
    return true;
}

bool cf_future_stop(cf_future *future, int64_t grace_ns)
{
    if (!future || cfi_future_is_done(future))
        return false;
    if (cf_future_cancel(future))
        return true;
    if (!set_flag(future, CFI_STOP))
        return false;
    cf_executor *ex =
        future->flags & CFI_COUNTED ? future->executor : NULL; /* else it may be gone */
    return ex && ex->ops.stop ? ex->ops.stop(ex->self, future, grace_ns) : true;
}

const cf_error *cf_future_exception(cf_future *future)
{
    uint32_t state = state_of(future);
    if (state == CFI_DONE_CANCELLED)
        return cfi_plain_error(CF_CANCELLED);
    if (state != CFI_DONE_FAILED)
        return NULL;
    struct cfi_failure *failure = future->tail.end.failure;
    return failure ? &failure->error : cfi_plain_error(future->tail.end.status);
}

cf_status cfi_fail_as_future(const cf_future *f)
{
    cf_error error = *cf_future_exception((cf_future *)(uintptr_t)f);
    if (error.status != CF_CANCELLED)
        error.code = f->tail.end.code;
    return cfi_fail_with(&error);
}

void *cf_future_exception_object(const cf_future *future)
{
    if (state_of(future) != CFI_DONE_FAILED || !future->tail.end.failure)
        return NULL;
    struct cfi_raised *raised = future->tail.end.failure->raised;
    return raised ? raised->object : NULL;
}
