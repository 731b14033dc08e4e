/* SPDX-License-Identifier: MIT */
/* Executors: the table of operations, submitting, shutting down, and what becomes of them in a
 * forked child and at exit.
 *
 * A provider's submit may run at any moment in several threads, but never after its shutdown:
 * `gate` counts the submits under way, and shutdown closes it and waits until they are through. The
 * library's own pools refuse under their own locks and skip the gate. */
#define _POSIX_C_SOURCE 200809L
#include "executor.h"

#include "../base/blocks.h"
#include "../base/clock.h"
#include "../base/cpus.h"
#include "../base/futex.h"
#include "../base/thread.h"
#include "future.h"
#include "mapped.h"
#include "self.h"
#include "wait.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

cfi_u32 cfi_process;

/* ---- the process ---- */

static void before_fork(void)
{
    cfi_wait_graph_lock();
    cfi_futures_lock_all();
    cfi_mapped_lock();
    cfi_blocks_lock_all();
}

static void after_fork(void)
{
    cfi_blocks_unlock_all();
    cfi_mapped_unlock();
    cfi_futures_unlock_all();
    cfi_wait_graph_unlock();
}

static void after_fork_in_child(void)
{
    after_fork();
    (void)cfi_add_seq_cst(&cfi_process, 2);
    cfi_this.executor = NULL;
}

static void at_exit(void)
{
    (void)cfi_or_acq_rel(&cfi_process, (uint32_t)CFI_EXITING);
}

enum { SPINS = 300 };
static int watch_error;

static void watch_process(void)
{
    watch_error = cfi_at_fork(before_fork, after_fork, after_fork_in_child);
    cfi_spins =
        cfi_cpu_count() > 1 ? SPINS : 0; /* alone on a CPU nobody else gets on while we spin */
    if (watch_error == 0 && atexit(at_exit) != 0)
        watch_error = CF_NOMEM;
}

cf_status cfi_process_watch(void)
{
    static cfi_once once = CFI_ONCE_INIT;
    cfi_call_once(&once, watch_process);
    return watch_error == 0
               ? CF_OK
               : cfi_fail_fixed(CF_NOMEM, "out of memory for the fork and exit handlers");
}

/* ---- making and releasing ---- */

void cfi_executor_init(cf_executor *ex, const cf_executor_ops *ops, void *self,
                       const struct cfi_pool_ops *pool, bool counted)
{
    *ex = (cf_executor){ .ops = *ops, .self = self, .pool = pool, .counted = counted };
    ex->process = cfi_load_relaxed(&cfi_process);
    cfi_init(&ex->references, 1);
}

enum {
    MAX_ROOM = 3 * 1024
}; /* the argument begins behind it, at most 255 * 16 bytes into the block */

cf_status cf_executor_new(const cf_executor_ops *ops, void *self, cf_executor **ret)
{
    if (!ops || !ret)
        return cfi_fail(CF_INVALID, "cf_executor_new: %s is NULL", ops ? "ret" : "ops");
    cf_executor_ops copy;
    cf_status s = cfi_options_copy(&copy, sizeof copy, sizeof copy, ops, "cf_executor_ops");
    if (s == CF_OK && !copy.submit)
        s = cfi_fail(CF_INVALID, "cf_executor_ops: submit is NULL");
    if (s == CF_OK && copy.room > MAX_ROOM)
        s = cfi_fail(CF_INVALID, "cf_executor_ops: room is %zu, at most %d", copy.room, MAX_ROOM);
    if (s == CF_OK)
        s = cfi_process_watch();
    if (s != CF_OK)
        return s;
    cf_executor *ex = malloc(sizeof *ex);
    if (!ex)
        return cfi_fail_fixed(CF_NOMEM, "cf_executor_new: out of memory");
    cfi_executor_init(ex, &copy, self, NULL, true);
    *ret = ex;
    return CF_OK;
}

void cfi_executor_ref(cf_executor *ex)
{
    (void)cfi_add_relaxed(&ex->references, 1);
}

void cfi_executor_unref(cf_executor *ex)
{
    if (cfi_sub_acq_rel(&ex->references, 1) != 1)
        return;
    bool own_memory = !ex->pool;
    free((char *)(uintptr_t)ex->broken.message);
    ex->broken.message = NULL;
    if (ex->ops.destroy)
        ex->ops.destroy(ex->self); /* a pool's executor lies in the pool and goes with it */
    if (own_memory)
        free(ex);
}

void cf_executor_break(cf_executor *executor, const cf_error *error)
{
    if (!executor || !error)
        return;
    cfi_lock(&executor->lock);
    if (!cfi_load_relaxed(&executor->is_broken)) { /* the first reason counts */
        executor->broken = *error;
        executor->broken.size = sizeof executor->broken;
        executor->broken.status = CF_BROKEN;
        executor->broken.message = error->message ? strdup(error->message) : NULL;
        cfi_store_release(&executor->is_broken, true); /* pairs with cfi_executor_broken */
    }
    cfi_unlock(&executor->lock);
}

cf_status cfi_executor_broken(cf_executor *ex)
{
    if (CFI_LIKELY(!cfi_load_acquire(&ex->is_broken)))
        return CF_OK;
    cf_error error = ex->broken;
    if (!error.message)
        error.message = cfi_plain_error(CF_BROKEN)->message;
    return cfi_fail_with(&error);
}

/* ---- submitting ---- */

enum { GATE_CLOSED = 1, GATE_ONE = 2 };

static cf_status is_shut_down(void)
{
    return cfi_fail_fixed(CF_SHUTDOWN, "the executor has been shut down");
}

static bool enter_gate(cf_executor *ex)
{
    uint32_t gate = cfi_load_relaxed(&ex->gate);
    while (!(gate & GATE_CLOSED)) {
        if (cfi_cas_acq_rel(&ex->gate, &gate, gate + GATE_ONE))
            return true;
    }
    return false;
}

static void leave_gate(cf_executor *ex)
{
    /* The last one out wakes the shutdown that waits for the word to be just CLOSED. */
    if (cfi_sub_acq_rel(&ex->gate, GATE_ONE) == (GATE_ONE | GATE_CLOSED))
        cfi_futex_wake(&ex->gate, INT_MAX);
}

static cf_status submit_to_provider(cf_executor *ex, cf_future *f)
{
    if (!enter_gate(ex))
        return is_shut_down();
    struct cfi_visit visit = { .executor = ex, .below = cfi_this.visit };
    cfi_this.visit = &visit;
    cf_status s = ex->ops.submit(ex->self, f);
    cfi_this.visit = visit.below;
    leave_gate(ex);
    if (s != CF_OK && cf_last_error()->status != s) /* it need not say more than the status */
        return cfi_fail_fixed(s, cfi_plain_error(s)->message);
    return s;
}

cf_status cfi_executor_submit(cf_executor *ex, cf_future *f)
{
    if (CFI_UNLIKELY(cfi_executor_is_foreign(ex)))
        return cfi_fail_fixed(
            CF_SHUTDOWN, "the executor belongs to the process before a fork, or the program exits");
    cf_status s = cfi_executor_broken(ex);
    if (CFI_UNLIKELY(s != CF_OK))
        return s;
    f->executor = ex;
    if (CFI_UNLIKELY(ex->counted)) {
        f->flags |=
            CFI_COUNTED | (ex->ops.cancelled ? CFI_NOTIFIES : 0) | (ex->pool ? 0 : CFI_SETTABLE);
        cfi_executor_ref(ex);
    }
    uint64_t word = cfi_load_relaxed(&f->word); /* nobody else has seen it: no swap is needed */
    cfi_store_relaxed(&f->word, word + CFI_REFERENCE);
    s = ex->pool ? ex->ops.submit(ex->self, f) : submit_to_provider(ex, f);
    if (CFI_UNLIKELY(s != CF_OK)) {
        cfi_store_relaxed(&f->word, word);
        f->flags &= (uint8_t) ~(CFI_COUNTED | CFI_NOTIFIES);
        if (ex->counted)
            cfi_executor_unref(ex);
    }
    return s;
}

/* Submits a freshly made future and hands its first reference to the caller, or drops it. */
static inline cf_status submit_made(cf_executor *ex, cf_future *f, cf_future **ret)
{
    if (CFI_UNLIKELY(!f))
        return cfi_fail_fixed(CF_NOMEM, "submit: out of memory for the task");
    cf_status s = cfi_executor_submit(ex, f);
    if (CFI_UNLIKELY(s != CF_OK)) {
        if (f->flags & CFI_REMOTE)
            ex->pool->remote->discard(f);
        cfi_future_discard(f);
        return s;
    }
    if (ret)
        *ret = f;
    else
        cfi_future_drop(f);
    return CF_OK;
}

static CFI_COLD cf_status bad_task(const cf_executor *ex, const cf_task *task)
{
    if (!ex)
        return cfi_fail(CF_INVALID, "submit: executor is NULL");
    if (!task->fn == !task->bytes_fn)
        return cfi_fail(CF_INVALID, "submit: %s",
                        task->fn ? "both fn and bytes_fn are set" : "fn is NULL");
    if (task->arg_size && !task->arg)
        return cfi_fail(CF_INVALID, "submit: arg is NULL, but arg_size is %zu", task->arg_size);
    if (task->run_limit_ns < 0)
        return cfi_fail(CF_INVALID, "submit: run_limit_ns is negative");
    if (task->arg_size > CFI_LARGEST || task->result_size > CFI_LARGEST)
        return cfi_fail(CF_INVALID, "submit: %zu bytes of argument and %zu of result are too many",
                        task->arg_size, task->result_size);
    return cfi_fail(CF_INVALID, "submit: result_size and result_destroy go with fn only");
}

static inline bool is_good_task(const cf_executor *ex, const cf_task *task)
{
    return ex && !task->fn != !task->bytes_fn && (task->arg || !task->arg_size) &&
           task->arg_size <= CFI_LARGEST && task->result_size <= CFI_LARGEST &&
           task->run_limit_ns >= 0 && (task->fn || (!task->result_size && !task->result_destroy));
}

static inline cf_status submit(cf_executor *ex, const cf_task *task, cf_future **ret)
{
    if (CFI_UNLIKELY(!is_good_task(ex, task)))
        return bad_task(ex, task);
    bool extra = task->result_destroy || task->run_limit_ns || task->priority || !ex->pool;
    enum cfi_kind kind = task->fn ? CFI_KIND_FN : CFI_KIND_BYTES;
    if (ex->pool && ex->pool->remote) {
        cf_future *f;
        cf_status s = ex->pool->remote->make(ex->self, kind, task, &f);
        return s == CF_OK ? submit_made(ex, f, ret) : s;
    }
    return submit_made(ex, cfi_future_make(kind, task, extra, ex->ops.room), ret);
}

cf_status cf_submit(cf_executor *executor, cf_fn *fn, const void *arg, size_t arg_size,
                    size_t result_size, cf_future **ret)
{
    const cf_task task = { .fn = fn, .arg = arg, .arg_size = arg_size, .result_size = result_size };
    return submit(executor, &task, ret);
}

cf_status cf_submit_bytes(cf_executor *executor, cf_bytes_fn *fn, const void *arg, size_t arg_size,
                          cf_future **ret)
{
    const cf_task task = { .bytes_fn = fn, .arg = arg, .arg_size = arg_size };
    return submit(executor, &task, ret);
}

cf_status cf_submit_task(cf_executor *executor, const cf_task *task, cf_future **ret)
{
    if (!task)
        return cfi_fail(CF_INVALID, "cf_submit_task: task is NULL");
    cf_task copy;
    cf_status s = cfi_options_copy(&copy, sizeof copy, sizeof copy, task, "cf_task");
    return s == CF_OK ? submit(executor, &copy, ret) : s;
}

/* ---- shutting down ---- */

/* Does this thread run a task of the executor (or is it one of its workers)?  Then it cannot wait
 * for it. */
bool cfi_executor_is_inside(const cf_executor *ex)
{
    if (cfi_this.executor == ex)
        return true;
    for (const struct cfi_visit *visit = cfi_this.visit; visit; visit = visit->below) {
        if (visit->executor == ex) /* a callback of a task that ran in submit */
            return true;
    }
    for (const struct cfi_frame *frame = cfi_this.frame; frame; frame = frame->below) {
        if (frame->future && frame->future->executor == ex)
            return true;
    }
    return false;
}

static cf_status wait_for_gate(cf_executor *ex, int64_t deadline)
{
    for (;;) {
        uint32_t gate = cfi_load_acquire(&ex->gate); /* pairs with leave_gate */
        if (gate == GATE_CLOSED)
            return CF_OK;
        enum cfi_woken woken = deadline == 0 ? CFI_TIMED_OUT : cfi_sleep(&ex->gate, gate, deadline);
        if (woken != CFI_WOKEN)
            return cfi_fail_woken(woken, "tasks are still being submitted");
    }
}

static cf_status shut_down_provider(cf_executor *ex, cf_shutdown_mode mode, int64_t deadline)
{
    (void)cfi_or_acq_rel(&ex->gate, (uint32_t)GATE_CLOSED);
    bool inside = cfi_executor_is_inside(ex);
    cf_status s = inside ? CF_OK : wait_for_gate(ex, deadline);
    if (s == CF_OK && ex->ops.shutdown)
        s = ex->ops.shutdown(ex->self, mode, inside ? 0 : deadline);
    return inside
               ? cfi_fail_fixed(CF_DEADLOCK, "shutdown from inside a task: begun, not waited for")
               : s;
}

cf_status cf_executor_shutdown(cf_executor *executor, cf_shutdown_mode mode, int64_t timeout_ns)
{
    if (!executor)
        return cfi_fail(CF_INVALID, "cf_executor_shutdown: executor is NULL");
    if ((int)mode < CF_FINISH_PENDING || mode > CF_STOP_RUNNING)
        return cfi_fail(CF_INVALID, "cf_executor_shutdown: mode %d is unknown", (int)mode);
    if (cfi_executor_is_foreign(executor))
        return CF_OK; /* its workers are not in this process, or about to end with it */
    if (mode == CF_STOP_RUNNING)
        cfi_store_seq_cst(&executor->stopping, true);
    int64_t deadline = cfi_deadline(timeout_ns);
    if (!executor->pool)
        return shut_down_provider(executor, mode, deadline);
    return executor->ops.shutdown(executor->self, mode, deadline);
}

cf_executor *cf_executor_free(cf_executor *executor)
{
    if (!executor)
        return NULL;
    if (!(cfi_load_relaxed(&cfi_process) &
          CFI_EXITING)) { /* else its threads may still use it: let it be */
        (void)cf_executor_shutdown(executor, CF_FINISH_PENDING, CF_FOREVER);
        if (executor->pool && cfi_executor_is_foreign(executor))
            executor->pool->abandon(executor->self);
        cfi_executor_unref(executor);
    }
    return NULL;
}
