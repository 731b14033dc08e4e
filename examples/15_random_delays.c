/* SPDX-License-Identifier: MIT */
/* Results in the order in which they come; an index, not a dictionary, says which task it was. */
#include "common.h"

static int variable_task(const void *arg, void *result)
{
    int n = *(const int *)arg;
    unsigned seed = (unsigned)time(NULL) + (unsigned)n;
    sleep_for(0.1 + 0.4 * rand_r(&seed) / RAND_MAX);
    *(int *)result = n * 2;
    return 0;
}

int main(void)
{
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), &executor));

    cf_future *futures[10];
    for (int i = 0; i < 10; i++)
        TRY(CF_SUBMIT(executor, variable_task, &i, int, &futures[i]));

    cf_completed *completed;
    cf_status status;
    size_t i;
    TRY(cf_as_completed(futures, 10, CF_SECONDS(5), &completed));
    while ((status = cf_completed_next(completed, &i)) == CF_OK) {
        int result;
        if (CF_RESULT(futures[i], 0, &result) == CF_OK)
            printf("Task %zu completed with result %d\n", i, result);
        else
            printf("Task %zu failed: %s\n", i, cf_last_error()->message);
    }
    if (status == CF_TIMEOUT)
        printf("Too late: %s\n", cf_last_error()->message);
    cf_completed_free(completed);
    cf_future_unref_all(futures, 10);
    return 0;
}
