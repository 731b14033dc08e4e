/* SPDX-License-Identifier: MIT */
/* Callbacks that count: how far the work is, while it goes on. */
#include "common.h"
#include <stdatomic.h>

enum { TASKS = 100 };

static int work(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    sleep_for(0.01);
    return 0;
}

/* Any worker may be the one that calls, so the counter is atomic. */
static void count(cf_future *future, void *data)
{
    atomic_int *done = data;
    int n = atomic_fetch_add(done, 1) + 1;
    (void)future;
    if (n % 25 == 0)
        printf("%d of %d done\n", n, TASKS);
}

int main(void)
{
    atomic_int done = 0;
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), &executor));
        for (int i = 0; i < TASKS; i++) {
            cf_auto_future *future = NULL;
            TRY(cf_submit(executor, work, NULL, 0, 0, &future));
            TRY(cf_future_add_done_callback(future, count, &done));
        }
    } /* after this the last callback has run, and `done` may go */
    printf("All done: %d\n", done);
    return 0;
}
