/* SPDX-License-Identifier: MIT */
/* When a pool is beyond help: its initializer fails, too many workers die, or none can be started. */
#define _GNU_SOURCE
#include "pool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Counts a death; true: there have been too many. */
bool cfi_is_one_too_many(struct cfi_process_pool *pool, int64_t now)
{
    unsigned most = pool->options.max_restarts + 1;
    pool->crashes[pool->crash_next] = now;
    pool->crash_next = (pool->crash_next + 1) % most;
    if (pool->crash_count < most)
        pool->crash_count++;
    int64_t oldest = pool->crashes[pool->crash_next];
    return pool->crash_count == most && now - oldest < pool->options.restart_window_ns;
}

void cfi_say_broken(struct cfi_process_pool *pool, int code, const char *message, uint32_t pid)
{
    const cf_error error = { .size = sizeof error,
                             .status = CF_BROKEN,
                             .code = code,
                             .message = message,
                             .worker_pid = (int)pid,
                             .exit_code = -1 };
    cfi_process_pool_break(pool, &error);
}

/* After a failed start. */
void cfi_break_if_hopeless(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    bool hopeless = pool->started == 0 && cfi_is_one_too_many(pool, cfi_now());
    int error = pool->start_error;
    cfi_unlock(&pool->lock);
    if (hopeless) {
        char text[CFI_MOST_TEXT];
        snprintf(text, sizeof text, "no worker process can be started: %s", strerror(error));
        cfi_say_broken(pool, error, text, 0);
    }
}

/* ---- breaking ---- */

/* All that is queued and all that was not begun, as one list. */
static cf_future *take_everything(struct cfi_process_pool *pool)
{
    struct cfi_list all = { NULL, NULL };
    cf_future *f;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c))
            cfi_take_back_all(c);
    }
    while ((f = cfi_take_queued(pool)))
        cfi_list_append(&all, f);
    return all.first;
}

static void kill_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c) && c->pidfd >= 0)
            cfi_pidfd_signal(c->pidfd, SIGKILL);
    }
}

void cfi_process_pool_break(struct cfi_process_pool *pool, const cf_error *error)
{
    cf_executor_break(&pool->executor, error);
    cfi_lock(&pool->lock);
    cfi_store_seq_cst(&pool->no_retries, true);
    pool->closed = true;
    cf_future *f = take_everything(pool);
    kill_all(pool);
    cfi_unlock(&pool->lock);
    cfi_store_seq_cst(&pool->closing, true);
    while (f) {
        cf_future *next = cfi_parcel_of(f)->next;
        if (cfi_future_claim(f) ||
            !cfi_future_is_done(f)) { /* one that is to run again is RUNNING */
            cfi_fail_task(pool, f, error);
        } else {
            cfi_future_drop(f);
        }
        f = next;
    }
    cfi_tell_room(pool);
    cfi_wake_manager(pool);
}
