/* SPDX-License-Identifier: MIT */
/* A callback runs once its future is done, on the thread that finished it. */
#include "common.h"
#include <errno.h>

static int slow_operation(const void *arg, void *result)
{
    int n = *(const int *)arg;
    sleep_for(0.25 * n);
    if (n == 3)
        return cf_raise(EINVAL, "Number %d is unlucky!", n);
    *(int *)result = n * 2;
    return 0;
}

static void process_result(cf_future *future, void *data)
{
    int result;
    (void)data;
    if (CF_RESULT(future, 0, &result) == CF_OK)
        printf("Processed: %d\n", result);
    else
        printf("Error: %s\n", cf_last_error()->message);
}

int main(void)
{
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 2), &executor));
    for (int i = 0; i < 5; i++) {
        cf_auto_future *future = NULL;
        TRY(CF_SUBMIT(executor, slow_operation, &i, int, &future));
        TRY(cf_future_add_done_callback(future, process_result, NULL));
    }
    return 0;
}
