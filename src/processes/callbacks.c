/* SPDX-License-Identifier: MIT */
/* The pool's thread for callbacks, which may take long, or wait for other futures of the pool.  It
 * starts with the first callback; if it cannot, callbacks run where the future is settled. */
#include "pool.h"

enum { STACK = 8 * 1024 * 1024 };

static cf_future *next_due(struct cfi_process_pool *pool, bool *ret_end)
{
    cfi_lock(&pool->callbacks_lock);
    cf_future *f = cfi_list_take(&pool->callbacks);
    *ret_end = pool->callbacks_end;
    cfi_unlock(&pool->callbacks_lock);
    return f;
}

static void *callbacks_main(void *arg)
{
    struct cfi_process_pool *pool = arg;
    bool end = false;
    cfi_thread_name(pool->name, 0);
    cfi_this.executor = &pool->executor; /* a shutdown from here must not wait for this thread */
    for (;;) {
        cf_future *f = next_due(pool, &end);
        if (f) {
            cfi_future_run_callbacks(f, cfi_parcel_of(f)->callbacks);
            cfi_future_drop(f);
            cfi_finished(pool, 1);
        } else if (end) {
            break;
        } else {
            (void)cfi_park(&pool->callbacks_parker, CFI_NEVER);
        }
    }
    return NULL;
}

static bool has_thread(struct cfi_process_pool *pool)
{
    if (pool->callbacks_state == CFI_NO_THREAD &&
        cfi_thread_start(&pool->callbacks_thread, callbacks_main, pool, STACK) == 0)
        pool->callbacks_state = CFI_HAS_THREAD;
    return pool->callbacks_state == CFI_HAS_THREAD;
}

void cfi_call_back_later(void *self, cf_future *f, struct cfi_watcher *callbacks)
{
    struct cfi_process_pool *pool = self;
    cfi_parcel_of(f)->callbacks = callbacks;
    (void)cf_future_ref(f);
    (void)cfi_add_relaxed(&pool->unfinished, 1); /* the task itself is still counted */
    cfi_lock(&pool->callbacks_lock);
    bool later = has_thread(pool);
    if (later)
        cfi_list_append(&pool->callbacks, f);
    cfi_unlock(&pool->callbacks_lock);
    if (later) {
        cfi_unpark(&pool->callbacks_parker);
        return;
    }
    cfi_future_run_callbacks(f, callbacks);
    cfi_future_drop(f);
    cfi_finished(pool, 1);
}

void cfi_end_callbacks(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->callbacks_lock);
    pool->callbacks_end = true;
    cfi_unlock(&pool->callbacks_lock);
    cfi_unpark(&pool->callbacks_parker);
}
