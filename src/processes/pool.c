/* SPDX-License-Identifier: MIT */
/* The process pool's life: making it, submitting, cancelling, shutting down, releasing.  pool.h tells how
 * its parts work together.
 *
 * `unfinished` counts what was accepted and is not settled yet, and callbacks that are due.  A shutdown
 * sets `closing`; the manager, which is the last to go, sees both, tells the workers to quit, ends the
 * fork server and then the pool.  The pool's memory goes with the last reference on its executor: the user's
 * handle, the manager's, one for each future and one for each result that lies in a block. */
#define _GNU_SOURCE
#include "pool.h"

#include "../base/cpus.h"
#include "../core/map.h"
#include "../core/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    MANAGER_STACK = 1024 * 1024,
    HOST_STACK = 8 * 1024 * 1024,
    DEFAULT_RESTARTS = 10,
    MOST_RESTARTS = 1000000
};
#define DEFAULT_WINDOW_NS INT64_C(10000000000)

void cfi_finished(struct cfi_process_pool *pool, size_t count)
{
    if (count && cfi_sub_seq_cst(&pool->unfinished, count) == count &&
        cfi_load_seq_cst(&pool->closing))
        cfi_wake_manager(pool);
}

/* ---- making tasks ---- */

static cf_status out_of_memory(void)
{
    return cfi_fail_fixed(CF_NOMEM, "submit: out of memory for the task");
}

/* A large argument goes right into a block, if one is free; the future then holds none itself. */
static cf_future *make_in_block(struct cfi_process_pool *pool, enum cfi_kind kind,
                                const cf_task *task)
{
    struct cfi_block *b = cfi_block_get(pool, task->arg_size, false);
    if (!b)
        return NULL;
    cf_task inner = *task;
    inner.arg_size = 0;
    cf_future *f = cfi_future_make(kind, &inner, true, sizeof(struct cfi_parcel));
    if (!f) {
        cfi_block_put(pool, b);
        return NULL;
    }
    if (task->arg)
        memcpy(b->data, task->arg, task->arg_size);
    cfi_parcel_of(f)->block = b;
    cfi_future_extra(f)->task.arg = b->data;
    cfi_future_extra(f)->task.arg_size = task->arg_size;
    return f;
}

static cf_status make(struct cfi_process_pool *pool, enum cfi_kind kind, enum cfi_call call,
                      cfi_function *fn, const cf_task *task, cf_future **ret)
{
    struct cfi_identity function;
    cf_status s = cfi_identify(fn, &function);
    if (s != CF_OK)
        return s;
    cf_future *f = task->arg_size > CFI_HEAP_LARGEST ? make_in_block(pool, kind, task) : NULL;
    if (!f)
        f = cfi_future_make(kind, task, true, sizeof(struct cfi_parcel));
    if (!f)
        return out_of_memory();
    f->flags |= CFI_REMOTE;
    f->executor = &pool->executor;
    cfi_parcel_of(f)->function = function;
    cfi_parcel_of(f)->call = (uint8_t)call;
    *ret = f;
    return CF_OK;
}

static cf_status pool_make(void *self, enum cfi_kind kind, const cf_task *task, cf_future **ret)
{
    cfi_function *fn =
        kind == CFI_KIND_FN ? (cfi_function *)task->fn : (cfi_function *)task->bytes_fn;
    return make(self, kind, kind == CFI_KIND_FN ? CFI_CALL_FN : CFI_CALL_BYTES, fn, task, ret);
}

/* The argument's own content is still the caller's. */
static void pool_discard(cf_future *f)
{
    cfi_future_extra(f)->arg_destroy = NULL;
    cfi_release_argument(f);
}

cf_future *cfi_process_piece_new(struct cfi_process_pool *pool, cfi_function *fn, size_t arg_size,
                                 struct cfi_block *shared, void **ret_arg)
{
    const cf_task task = { .arg_size = arg_size };
    cf_future *f = NULL;
    if (make(pool, CFI_KIND_BYTES, CFI_CALL_PIECE, fn, &task, &f) != CF_OK)
        return NULL;
    if (shared)
        (void)cfi_add_relaxed(&shared->references, 1);
    cfi_parcel_of(f)->shared = shared;
    *ret_arg = (void *)(uintptr_t)cfi_future_extra(f)->task.arg;
    return f;
}

cf_status cfi_process_submit(struct cfi_process_pool *pool, cf_future *f)
{
    cf_status s = cfi_executor_submit(&pool->executor, f);
    if (s != CF_OK) {
        pool_discard(f);
        cfi_future_discard(f);
    }
    return s;
}

struct cfi_block *cfi_process_share(struct cfi_process_pool *pool, const void *data, size_t size)
{
    struct cfi_block *b = cfi_block_get(pool, size, true);
    if (b)
        memcpy(b->data, data, size);
    return b;
}

void cfi_process_unshare(struct cfi_process_pool *pool, struct cfi_block *shared)
{
    cfi_block_put(pool, shared);
}

unsigned cfi_process_workers(const struct cfi_process_pool *pool)
{
    return pool->options.max_workers;
}

/* ---- a bounded pool's room ---- */

static cf_status refused(struct cfi_process_pool *pool)
{
    cf_status s = cfi_executor_broken(&pool->executor);
    return s != CF_OK ? s : cfi_fail_fixed(CF_SHUTDOWN, "the pool has been shut down");
}

/* With the lock. */
static bool is_full(struct cfi_process_pool *pool)
{
    if (!pool->options.max_pending || cfi_this.executor == &pool->executor)
        return false;
    return cfi_count_pending(pool) >= pool->options.max_pending;
}

/* Takes the lock; CF_OK: there is room, and the lock is held. */
static cf_status wait_for_room(struct cfi_process_pool *pool)
{
    int64_t limit = pool->options.when_full_limit_ns;
    int64_t deadline = limit ? cfi_deadline(limit) : CFI_NEVER;
    enum cfi_woken woken = CFI_WOKEN;
    (void)cfi_add_seq_cst(&pool->room_waiters, 1);
    while (woken == CFI_WOKEN) {
        uint32_t event = cfi_load_seq_cst(&pool->room_event);
        cfi_lock(&pool->lock);
        if (pool->closed || !is_full(pool))
            break;
        cfi_eager_all(pool); /* a task that ends makes room */
        cfi_unlock(&pool->lock);
        woken = cfi_sleep(&pool->room_event, event, deadline);
    }
    (void)cfi_sub_seq_cst(&pool->room_waiters, 1);
    if (woken == CFI_WOKEN)
        return CF_OK;
    return woken == CFI_SIGNALLED ? cfi_fail_woken(woken, "")
                                  : cfi_fail_fixed(CF_FULL, "the pool had no room in time");
}

/* CF_OK: the lock is held and the task may be added. */
static cf_status enter(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    if (CFI_UNLIKELY(is_full(pool) && !pool->closed)) {
        cfi_unlock(&pool->lock);
        if (pool->options.when_full == CF_WHEN_FULL_REJECT)
            return cfi_fail_fixed(CF_FULL, "the pool is full");
        cf_status s = wait_for_room(pool);
        if (s != CF_OK)
            return s;
    }
    if (CFI_UNLIKELY(pool->closed)) {
        cfi_unlock(&pool->lock);
        return refused(pool);
    }
    return CF_OK;
}

/* ---- submitting ---- */

/* No worker can be had: the task is taken off again, if it is still there. */
static cf_status cannot_start(struct cfi_process_pool *pool, cf_future *f, int error)
{
    cfi_lock(&pool->lock);
    bool taken_off = pool->started == 0 && cfi_remove_queued(pool, f);
    cfi_unlock(&pool->lock);
    if (!taken_off)
        return CF_OK; /* somebody was luckier, or has settled it */
    cfi_finished(pool, 1);
    return cfi_fail_system(error, "the pool cannot start its first worker process");
}

static cf_status start_if_wanted(struct cfi_process_pool *pool, cf_future *f)
{
    cfi_lock(&pool->lock);
    bool wants = cfi_wants_child(pool) || (pool->started == 0 && pool->queued);
    cfi_unlock(&pool->lock);
    int error = wants ? cfi_start_child(pool) : 0;
    return error ? cannot_start(pool, f, error) : CF_OK;
}

static cf_status pool_submit(void *self, cf_future *f)
{
    struct cfi_process_pool *pool = self;
    cf_status s = enter(pool);
    if (s != CF_OK)
        return s;
    (void)cfi_add_relaxed(&pool->unfinished, 1);
    bool sent = cfi_place_task(pool, f);
    if (!sent) {
        cfi_enqueue(pool, f);
        if (pool->queued == 1)
            cfi_refill_all(pool); /* from now on workers ring when they run low */
        else
            cfi_feed_idle(pool);
    }
    bool wants = pool->queued && pool->started < pool->options.max_workers;
    cfi_unlock(&pool->lock);
    return CFI_UNLIKELY(wants) ? start_if_wanted(pool, f) : CF_OK;
}

/* ---- what a host asks ---- */

static bool is_hosted(const cf_executor *executor)
{
    return executor && executor->ops.submit == pool_submit &&
           ((struct cfi_process_pool *)executor->self)->host.start_process;
}

/* Small ones lie in the future; the others shall not stay for as long as that is kept. */
static cf_status make_unwritten(struct cfi_process_pool *pool, const cf_task *task, cf_future **ret)
{
    enum { SMALL = 256 };
    bool is_own = task->arg_size > SMALL && task->arg_size <= CFI_HEAP_LARGEST;
    cf_task inner = *task;
    inner.arg = NULL;
    inner.arg_size = is_own ? 0 : task->arg_size;
    void *own = is_own ? malloc(task->arg_size) : NULL;
    if (is_own && !own)
        return out_of_memory();
    cf_status s = pool_make(pool, task->fn ? CFI_KIND_FN : CFI_KIND_BYTES, &inner, ret);
    if (s != CF_OK) {
        free(own);
        return s;
    }
    cfi_parcel_of(*ret)->own = own;
    if (is_own) {
        cfi_future_extra(*ret)->task.arg = own;
        cfi_future_extra(*ret)->task.arg_size = task->arg_size;
    }
    return CF_OK;
}

cf_status cf_process_pool_submit(cf_executor *executor, const cf_task *task,
                                 void (*write)(void *data, void *to), void *data, cf_future **ret)
{
    if (!executor || executor->ops.submit != pool_submit || !task || !write || !ret)
        return cfi_fail(CF_INVALID, "cf_process_pool_submit: an argument is NULL, or no such pool");
    struct cfi_process_pool *pool = executor->self;
    cf_future *f = NULL;
    if (!task->fn == !task->bytes_fn || task->arg_size > CFI_LARGEST || task->run_limit_ns < 0)
        return cfi_fail(CF_INVALID, "cf_process_pool_submit: the task makes no sense");
    cf_status s = make_unwritten(pool, task, &f);
    if (s != CF_OK)
        return s;
    write(data, (void *)(uintptr_t)cfi_future_extra(f)->task.arg);
    s = cfi_process_submit(pool, f);
    if (s == CF_OK)
        *ret = f;
    return s;
}

size_t cf_process_pool_unfinished(const cf_executor *executor)
{
    if (!executor || executor->ops.submit != pool_submit)
        return 0;
    return cfi_load_relaxed(&((struct cfi_process_pool *)executor->self)->unfinished);
}

cf_status cf_process_pool_start_worker(cf_executor *executor)
{
    if (!is_hosted(executor))
        return cfi_fail(CF_INVALID, "cf_process_pool_start_worker: not a pool with a host");
    struct cfi_process_pool *pool = executor->self;
    if (cfi_executor_is_foreign(executor))
        return cfi_fail_fixed(CF_SHUTDOWN, "the pool belongs to the process before a fork");
    cfi_lock(&pool->lock);
    bool closed = pool->closed, full = pool->started >= pool->options.max_workers;
    cfi_unlock(&pool->lock);
    if (closed)
        return refused(pool);
    int error = full ? 0 : cfi_start_child(pool);
    if (error)
        return cfi_fail_system(error, "the pool cannot start a worker process");
    return full ? cfi_fail_fixed(CF_FULL, "the pool has all its workers") : CF_OK;
}

bool cf_process_pool_is_broken(const cf_executor *executor)
{
    return executor && cfi_load_acquire(&((cf_executor *)(uintptr_t)executor)->is_broken);
}

/* ---- cancelling ---- */

static bool make_cancelled(cf_future *f)
{
    uint64_t word = cfi_load_relaxed(&f->word);
    while (cfi_state(word) == CFI_PENDING) {
        if (cfi_cas_acq_rel(&f->word, &word, word | CFI_DONE_CANCELLED))
            return true;
    }
    return false;
}

/* The mark keeps the reader away, which might see that the slot is done with before the future is cancelled. */
bool cfi_skip(struct cfi_child *c, uint32_t number)
{
    uint32_t sent = CFI_SENT;
    cf_future *f = cfi_exchange_acq_rel(&c->tasks_sent[number % CFI_SLOTS], CFI_MARK_BUSY);
    bool skipped = f && cfi_cas_seq_cst(&cfi_slot_of(c, number)->state, &sent, CFI_SKIP);
    cfi_store_release(&c->tasks_sent[number % CFI_SLOTS], skipped ? CFI_MARK_SKIPPED : f);
    return skipped;
}

static bool pool_cancel(void *self, cf_future *f)
{
    struct cfi_process_pool *pool = self;
    if (cfi_executor_is_foreign(&pool->executor))
        return make_cancelled(f);
    cfi_lock(&pool->lock);
    uint64_t place = cfi_load_relaxed(&cfi_parcel_of(f)->place);
    struct cfi_child *c = place ? cfi_child_at(pool, cfi_place_child(place)) : NULL;
    bool pending = cfi_future_is_pending(f), skipped = pending && c && cfi_skip(c, (uint32_t)place);
    bool cancelled = pending && (!c || skipped) && make_cancelled(f);
    if (cancelled)
        cfi_unqueue(pool, f);
    if (c)
        cfi_nudge(c);
    cfi_unlock(&pool->lock);
    if (c)
        cfi_drain(c);
    if (skipped)
        cfi_future_drop(f); /* the channel's reference */
    return cancelled;
}

void cfi_tell_room(struct cfi_process_pool *pool)
{
    if (CFI_LIKELY(!pool->options.max_pending || !cfi_load_seq_cst(&pool->room_waiters)))
        return;
    (void)cfi_add_seq_cst(&pool->room_event, 1);
    cfi_futex_wake(&pool->room_event, INT_MAX);
}

static void pool_cancelled(void *self, cf_future *f)
{
    if (cfi_executor_is_foreign(f->executor))
        return;
    cfi_release_argument(f);
    cfi_tell_room(self);
    cfi_finished(self, 1);
}

/* ---- shutting down ---- */

/* One that was to run again, its worker having died, cannot be cancelled any more. */
static void cancel_or_fail(struct cfi_process_pool *pool, cf_future *f)
{
    static const cf_error error = { .size = sizeof error,
                                    .status = CF_BROKEN,
                                    .message = "its worker died, and it could not be tried again",
                                    .exit_code = -1 };
    if (cf_future_cancel(f) || cfi_future_is_done(f)) {
        cfi_future_drop(f);
        return;
    }
    cfi_fail_task(pool, f, &error);
}

/* With a host a task that its worker will begin next counts as begun: a worker that it makes may
 * take a while to come, and somebody who cancels what is left does not mean everything. */
static void take_all_back(struct cfi_process_pool *pool, bool is_stop)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (!cfi_has_channel(c))
            continue;
        if (pool->host.start_process && !is_stop)
            cfi_take_back_later(c);
        else
            cfi_take_back_all(c);
    }
}

/* Cancels what has not begun; each cancel runs callbacks, so without the lock. */
static void cancel_pending(struct cfi_process_pool *pool, bool is_stop)
{
    cf_future *f;
    do {
        cfi_lock(&pool->lock);
        take_all_back(pool, is_stop);
        f = cfi_take_queued(pool);
        cfi_unlock(&pool->lock);
        if (f)
            cancel_or_fail(pool, f);
    } while (f);
}

static void join(struct cfi_process_pool *pool)
{
    if (cfi_exchange_acq_rel(&pool->joined, true))
        return;
    cfi_thread threads[] = { pool->manager, pool->callbacks_thread };
    for (int i = 0; i < (pool->callbacks_state == CFI_HAS_THREAD ? 2 : 1); i++) {
        if (cfi_thread_is_self(threads[i]))
            cfi_thread_detach(threads[i]);
        else
            cfi_thread_join(threads[i]);
    }
}

static cf_status wait_for_end(struct cfi_process_pool *pool, int64_t deadline)
{
    while (cfi_load_acquire(&pool->ended) == 0) { /* pairs with the manager's end */
        enum cfi_woken woken = deadline == 0 ? CFI_TIMED_OUT : cfi_sleep(&pool->ended, 0, deadline);
        if (woken != CFI_WOKEN)
            return cfi_fail_woken(woken, "the workers had not ended yet at the end of the time");
    }
    join(pool);
    return CF_OK;
}

static cf_status pool_shutdown(void *self, cf_shutdown_mode mode, int64_t deadline)
{
    struct cfi_process_pool *pool = self;
    cfi_lock(&pool->lock);
    pool->closed = true;
    cfi_unlock(&pool->lock);
    cfi_tell_room(pool);
    if (mode != CF_FINISH_PENDING) {
        cfi_lock(&pool->lock);
        cfi_store_seq_cst(&pool->no_retries, true);
        cfi_unlock(&pool->lock);
        cancel_pending(pool, mode == CF_STOP_RUNNING);
    }
    if (mode == CF_STOP_RUNNING)
        cfi_stop_all(pool, deadline);
    cfi_store_seq_cst(&pool->closing, true);
    cfi_wake_manager(pool);
    if (cfi_executor_is_inside(&pool->executor))
        return cfi_fail_fixed(CF_DEADLOCK,
                              "shutdown from inside a callback: begun, not waited for");
    cf_status s = wait_for_end(pool, deadline);
    if (s == CF_TIMEOUT && mode == CF_STOP_RUNNING && deadline) /* killed: it takes a moment */
        s = wait_for_end(pool, cfi_deadline(CFI_KILL_AFTER_NS));
    return s;
}

static void close_descriptor(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

static void pool_free(struct cfi_process_pool *pool)
{
    cfi_blocks_trim(pool);
    for (unsigned i = 0; pool->children && i < pool->options.max_workers; i++)
        cfi_child_free(cfi_child_at(pool, i));
    cfi_heap_destroy(&pool->heap);
    close_descriptor(pool->epoll);
    close_descriptor(pool->wake);
    close_descriptor(pool->data_fd);
    free(pool->children);
    free(pool->idle);
    free(pool->crashes);
    free(pool->name);
    free(pool);
}

static void pool_destroy(void *self)
{
    struct cfi_process_pool *pool = self;
    if (!cfi_executor_is_foreign(&pool->executor)) {
        join(pool);
        cfi_wait_graph_lock(); /* whoever walks the graph may still look at us */
        cfi_wait_graph_unlock();
    }
    pool_free(pool);
}

/* Futures may keep the pool for long: its descriptors go at once. */
static void close_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c) {
            cfi_close_channel(c);
            cfi_close_one(&c->pidfd);
        }
    }
    cfi_close_one(&pool->epoll);
    cfi_close_one(&pool->wake);
    cfi_close_one(&pool->data_fd);
}

/* In a forked child: the manager is not there, and what it holds is the parent's. */
static void pool_abandon(void *self)
{
    struct cfi_process_pool *pool = self;
    close_all(pool);
    if (pool->has_server)
        cfi_server_forget(&pool->server);
    else if (pool->host.start_process)
        close_descriptor(pool->server.host);
    pool->has_server = false;
    cfi_init(&pool->blocks.lock.word, 0); /* whoever held it at the fork is not here */
    if (cfi_exchange_acq_rel(&pool->ended, 1) == 0)
        cfi_executor_unref(&pool->executor);
}

/* ---- what the wait graph asks: a worker process waits for nobody here ---- */

static struct cfi_self *no_runner(void *self, const cf_future *f)
{
    (void)self;
    (void)f;
    return NULL;
}

static struct cfi_self *no_worker(void *self, unsigned number)
{
    (void)self;
    (void)number;
    return NULL;
}

static bool always(void *self)
{
    (void)self;
    return true;
}

static unsigned worker_count(void *self)
{
    return ((struct cfi_process_pool *)self)->options.max_workers;
}

static const cf_executor_ops ops = { .size = sizeof ops,
                                     .kind = "processes",
                                     .submit = pool_submit,
                                     .cancelled = pool_cancelled,
                                     .stop = cfi_stop_task,
                                     .shutdown = pool_shutdown,
                                     .destroy = pool_destroy };
static const struct cfi_remote_ops remote_ops = { .make = pool_make,
                                                  .discard = pool_discard,
                                                  .map = cfi_process_map,
                                                  .look = cfi_look,
                                                  .cancel = pool_cancel,
                                                  .attend = cfi_attend,
                                                  .expect = cfi_expect,
                                                  .call_back = cfi_call_back_later };
static const struct cfi_pool_ops pool_ops = { .runner = no_runner,
                                              .has_free_worker = always,
                                              .worker_count = worker_count,
                                              .worker = no_worker,
                                              .abandon = pool_abandon,
                                              .remote = &remote_ops };

/* ---- options ---- */

static cf_status check_start(const cf_process_pool_options *o)
{
    if ((int)o->start_method < CF_START_DEFAULT || o->start_method > CF_START_SPAWN)
        return cfi_fail(CF_INVALID, "start_method: %d is unknown", (int)o->start_method);
    if ((int)o->on_crash < CF_ON_CRASH_REPLACE || o->on_crash > CF_ON_CRASH_BREAK)
        return cfi_fail(CF_INVALID, "on_crash: %d is unknown", (int)o->on_crash);
    if (o->max_restarts > MOST_RESTARTS)
        return cfi_fail(CF_INVALID, "max_restarts: %u is more than %d", o->max_restarts,
                        MOST_RESTARTS);
    if (o->restart_window_ns < 0)
        return cfi_fail(CF_INVALID, "restart_window_ns: is negative");
    if (o->initializer_data_size && !o->initializer_data)
        return cfi_fail(CF_INVALID, "initializer_data: is NULL, but its size is %zu",
                        o->initializer_data_size);
    return CF_OK;
}

static cf_status check_options(const cf_process_pool_options *o)
{
    if (o->max_workers > CFI_MOST_CHILDREN)
        return cfi_fail(CF_INVALID, "max_workers: %u is more than %d", o->max_workers,
                        CFI_MOST_CHILDREN);
    if ((int)o->when_full < CF_WHEN_FULL_WAIT || o->when_full > CF_WHEN_FULL_RUN_IN_CALLER)
        return cfi_fail(CF_INVALID, "when_full: %d is unknown", (int)o->when_full);
    if (o->when_full == CF_WHEN_FULL_RUN_IN_CALLER)
        return cfi_fail(CF_INVALID, "when_full: the caller cannot run a process pool's tasks");
    if (o->when_full_limit_ns < 0)
        return cfi_fail(CF_INVALID, "when_full_limit_ns: is negative");
    if (o->max_pending > SIZE_MAX / 2)
        return cfi_fail(CF_INVALID, "max_pending: %zu is too large", o->max_pending);
    return check_start(o);
}

static cf_status read_options(const cf_process_pool_options *options, cf_process_pool_options *o,
                              cf_host *host)
{
    cf_status s = cfi_options_copy(o, sizeof *o, sizeof *o, options, "cf_process_pool_options");
    if (s == CF_OK)
        s = check_options(o);
    if (s == CF_OK)
        s = cfi_options_copy(host, sizeof *host, sizeof *host, o->host, "cf_host");
    if (o->max_workers == 0)
        o->max_workers = cfi_cpu_count();
    if (o->max_restarts == 0)
        o->max_restarts = DEFAULT_RESTARTS;
    if (o->restart_window_ns == 0)
        o->restart_window_ns = DEFAULT_WINDOW_NS;
    return s;
}

/* ---- making ---- */

static cf_status allocate(struct cfi_process_pool *pool)
{
    const cf_process_pool_options *o = &pool->options;
    pool->name = strdup(o->name ? o->name : "cfutures");
    pool->children = calloc(o->max_workers, sizeof *pool->children);
    pool->idle = calloc((o->max_workers + 63) / 64, sizeof *pool->idle);
    pool->crashes = calloc(o->max_restarts + 1, sizeof *pool->crashes);
    if (pool->name && pool->children && pool->idle && pool->crashes)
        return CF_OK;
    return cfi_fail_fixed(CF_NOMEM, "cf_process_pool_new: out of memory");
}

static cf_status name_function(const char *option, cfi_function *fn, struct cfi_identity *ret)
{
    cf_status s = cfi_identify(fn, ret);
    return s == CF_INVALID ? cfi_fail(s, "%s: %s", option, cf_last_error()->message) : s;
}

static cf_status name_functions(struct cfi_process_pool *pool)
{
    const cf_process_pool_options *o = &pool->options;
    cf_status s = CF_OK;
    if (o->initializer)
        s = name_function("initializer", (cfi_function *)o->initializer, &pool->initializer);
    if (s == CF_OK && o->finalizer)
        s = name_function("finalizer", (cfi_function *)o->finalizer, &pool->finalizer);
    return s;
}

static cf_status keep_data(struct cfi_process_pool *pool)
{
    size_t size = pool->options.initializer_data_size;
    void *data;
    if (size == 0)
        return CF_OK;
    int error = cfi_memory_new("cfutures initializer", size, true, &pool->data_fd, &data);
    if (error)
        return cfi_fail_system(error, "memfd_create: no memory for the initializer's data");
    memcpy(data, pool->options.initializer_data, size);
    (void)munmap(data, size);
    pool->data_fd = cfi_high_descriptor(pool->data_fd);
    return CF_OK;
}

static cf_status open_descriptors(struct cfi_process_pool *pool)
{
    pool->epoll = cfi_high_descriptor(epoll_create1(EPOLL_CLOEXEC));
    if (pool->epoll < 0)
        return cfi_fail_system(errno, "epoll_create1: for the pool's manager");
    pool->wake = cfi_high_descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (pool->wake < 0)
        return cfi_fail_system(errno, "eventfd: for the pool's manager");
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = 0 };
    if (epoll_ctl(pool->epoll, EPOLL_CTL_ADD, pool->wake, &e) != 0)
        return cfi_fail_system(errno, "epoll_ctl: for the pool's manager");
    return CF_OK;
}

/* A host makes the processes itself; they too need a descriptor of this one, to see its end. */
static cf_status start_server(struct cfi_process_pool *pool)
{
    if (!pool->host.start_process) {
        cf_status s = cfi_server_start(pool->options.start_method, &pool->server);
        pool->has_server = s == CF_OK;
        return s;
    }
    pool->server.host = cfi_high_descriptor((int)syscall(SYS_pidfd_open, getpid(), 0));
    return pool->server.host >= 0 ? CF_OK : cfi_fail_system(errno, "pidfd_open: of this process");
}

static cf_status start_manager(struct cfi_process_pool *pool)
{
    int unwatched = cfi_watch_server(pool);
    if (unwatched)
        return cfi_fail_system(unwatched, "epoll_ctl: for the pool's fork server");
    cfi_executor_init(&pool->executor, &ops, pool, &pool_ops, true);
    cfi_executor_ref(&pool->executor); /* the manager's */
    /* A host may fork on that thread, and a worker then lives on its stack. */
    size_t stack = pool->host.start_process ? HOST_STACK : MANAGER_STACK;
    int error = cfi_thread_start(&pool->manager, cfi_manager_main, pool, stack);
    cfi_own_thread(error ? 0
                         : 1); /* the manager runs no code of the user's: forks need not mind it */
    return error ? cfi_fail_system(error, "the pool cannot start its manager thread") : CF_OK;
}

static cf_status open_pool(struct cfi_process_pool *pool)
{
    cf_status s = allocate(pool);
    if (s == CF_OK)
        s = name_functions(pool);
    if (s == CF_OK)
        s = keep_data(pool);
    if (s == CF_OK)
        s = open_descriptors(pool);
    if (s == CF_OK)
        s = start_server(pool);
    if (s == CF_OK)
        s = start_manager(pool);
    return s;
}

static void close_host(struct cfi_process_pool *pool)
{
    if (pool->has_server)
        cfi_server_stop(&pool->server);
    else if (pool->host.start_process)
        close_descriptor(pool->server.host);
}

static struct cfi_process_pool *pool_new(const cf_process_pool_options *o, const cf_host *host)
{
    struct cfi_process_pool *pool = aligned_alloc(CFI_CACHE_LINE, sizeof *pool);
    if (!pool)
        return NULL;
    memset(pool, 0, sizeof *pool);
    pool->options = *o;
    pool->host = *host;
    pool->epoll = pool->wake = pool->data_fd = pool->server.host = -1;
    pool->kill_at = CFI_NEVER;

    return pool;
}

cf_status cf_process_pool_new(const cf_process_pool_options *options, cf_executor **ret)
{
    if (!ret)
        return cfi_fail(CF_INVALID, "cf_process_pool_new: ret is NULL");
    cf_process_pool_options o;
    cf_host host = { .size = 0 };
    cf_status s = read_options(options, &o, &host);
    if (s == CF_OK)
        s = cfi_process_watch();
    if (s != CF_OK)
        return s;
    struct cfi_process_pool *pool = pool_new(&o, &host);
    if (!pool)
        return cfi_fail_fixed(CF_NOMEM, "cf_process_pool_new: out of memory");
    s = open_pool(pool);
    if (s != CF_OK) {
        close_host(pool);
        pool_free(pool);
        return s;
    }
    *ret = &pool->executor;
    return CF_OK;
}
