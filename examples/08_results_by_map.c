/* SPDX-License-Identifier: MIT */
/* The same by the lazy map: it returns at once, and the results are read from it in order. */
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

/* Python's range(5): called for one argument after the other. */
static bool next_number(void *data, size_t index, cf_task *next)
{
    int *v = data;
    *v = (int)index;
    next->arg = v;
    return index < 5;
}

int main(void)
{
    log_info("main start");
    {
        cf_auto_executor *executor = NULL;
        cf_results *results;
        const cf_task *each =
            CF_TASK(.fn = task, .arg_size = sizeof(int), .result_size = sizeof(int));
        int number, r[5];
        size_t i;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .name = "thread"),
                               &executor));
        TRY(cf_map_from(executor, each, next_number, &number, NULL, CF_FOREVER, &results));
        log_info("map end");
        for (int n = 0; n < 5; n++)
            TRY(cf_results_next(results, &r[n], sizeof r[n], &i));
        log_info("[%d, %d, %d, %d, %d]", r[0], r[1], r[2], r[3], r[4]);
        cf_results_free(results);
    }
    log_info("main end");
    return 0;
}
