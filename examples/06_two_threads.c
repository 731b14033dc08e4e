/* SPDX-License-Identifier: MIT */
/* Five tasks of one second on two threads: the log shows who runs what, and when. */
#include "log.h"

static int task(const void *arg, void *result)
{
    int v = *(const int *)arg;
    (void)result;
    log_info("%d start", v);
    sleep_for(1);
    log_info("%d end", v);
    return 0;
}

int main(void)
{
    log_info("main start");
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .name = "thread"),
                               &executor));
        for (int i = 0; i < 5; i++)
            TRY(cf_submit(executor, task, &i, sizeof i, 0, NULL));
        log_info("submit end");
    }
    log_info("main end");
    return 0;
}
