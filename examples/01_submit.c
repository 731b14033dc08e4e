/* SPDX-License-Identifier: MIT */
/* Submit three calls to three workers, and take each result as it completes. */
#include "common.h"

static int some_function(const void *arg, void *result)
{
    int n = *(const int *)arg;
    printf("start function %d\n", n);
    sleep_for(0.2);
    printf("end function %d\n", n);
    *(int *)result = n;
    return 0;
}

int main(void)
{
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 3), &executor));

    cf_future *futures[3];
    for (int n = 1; n <= 3; n++)
        TRY(CF_SUBMIT(executor, some_function, &n, int, &futures[n - 1]));

    cf_completed *completed;
    size_t i;
    TRY(cf_as_completed(futures, 3, CF_FOREVER, &completed));
    while (cf_completed_next(completed, &i) == CF_OK) {
        int result;
        TRY(CF_RESULT(futures[i], 0, &result));
        printf("Thread that finished: %d\n", result);
    }
    cf_completed_free(completed);
    cf_future_unref_all(futures, 3);
    return 0;
}
