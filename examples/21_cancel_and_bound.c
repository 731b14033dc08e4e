/* SPDX-License-Identifier: MIT */
/* A queue with an end, and three ways out of it: a task that waits is cancelled, one that runs is
 * asked to stop, and a submit to a full queue is refused or waits for room. */
#include "common.h"

static int run_until_told(const void *arg, void *result)
{
    (void)arg, (void)result;
    while (!cf_stop_requested())
        sleep_for(0.001);
    return cf_raise(1, "told to stop");
}

static int nap(const void *arg, void *result)
{
    (void)arg, (void)result;
    sleep_for(0.02);
    return 0;
}

static const char *yes(bool b)
{
    return b ? "yes" : "no";
}

static void reject_and_cancel(void)
{
    cf_auto_executor *executor = NULL;
    cf_future *futures[3];
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = 2,
                                                  .when_full = CF_WHEN_FULL_REJECT),
                           &executor));
    TRY(cf_submit(executor, run_until_told, NULL, 0, 0, &futures[0]));
    while (!cf_future_running(futures[0]))
        sleep_for(0.001);
    TRY(cf_submit(executor, nap, NULL, 0, 0, &futures[1]));
    TRY(cf_submit(executor, nap, NULL, 0, 0, &futures[2]));
    printf("submit to the full queue: %s\n",
           cf_status_name(cf_submit(executor, nap, NULL, 0, 0, NULL)));

    printf("cancelled while it waits: %s\n", yes(cf_future_cancel(futures[1])));
    printf("cancelled while it runs: %s\n", yes(cf_future_cancel(futures[0])));
    printf("stopped while it runs: %s\n", yes(cf_future_stop(futures[0], 0)));
    for (int i = 0; i < 3; i++)
        printf("future %d: %s\n", i,
               cf_status_name(cf_future_result(futures[i], CF_FOREVER, NULL, 0)));
    cf_future_unref_all(futures, 3);
}

/* A producer that is faster than the worker is slowed down to its speed: memory stays small. */
static void wait_for_room(void)
{
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = 2), &executor));
    double start = now();
    for (int i = 0; i < 10; i++)
        TRY(cf_submit(executor, nap, NULL, 0, 0, NULL));
    printf("ten naps of 0.02 s with room for two: submitted after %.2f s\n", now() - start);
}

int main(void)
{
    reject_and_cancel();
    wait_for_room();
    return 0;
}
