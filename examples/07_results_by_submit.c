/* SPDX-License-Identifier: MIT */
/* The five tasks again, now with results: one future for each. */
#include "log.h"

static int task(const void *arg, void *result)
{
    int v = *(const int *)arg;
    log_info("%d start", v);
    sleep_for(1);
    log_info("%d end", v);
    *(int *)result = v * 2;
    return 0;
}

int main(void)
{
    log_info("main start");
    {
        cf_auto_executor *executor = NULL;
        cf_future *futures[5];
        int r[5];
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .name = "thread"),
                               &executor));
        for (int i = 0; i < 5; i++)
            TRY(CF_SUBMIT(executor, task, &i, int, &futures[i]));
        log_info("submit end");
        for (int i = 0; i < 5; i++)
            TRY(CF_RESULT(futures[i], CF_FOREVER, &r[i]));
        log_info("[%d, %d, %d, %d, %d]", r[0], r[1], r[2], r[3], r[4]);
        cf_future_unref_all(futures, 5);
    }
    log_info("main end");
    return 0;
}
