/* SPDX-License-Identifier: MIT */
/* A task that fails is an error where its result is asked for; the others go on. */
#include "common.h"
#include <errno.h>

static int risky_task(const void *arg, void *result)
{
    int x = *(const int *)arg;
    if (x == 5)
        return cf_raise(EINVAL, "Bad number!");
    *(int *)result = x * 2;
    return 0;
}

int main(void)
{
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), &executor));

    cf_future *futures[10];
    for (int i = 0; i < 10; i++)
        TRY(CF_SUBMIT(executor, risky_task, &i, int, &futures[i]));

    cf_completed *completed;
    size_t i;
    TRY(cf_as_completed(futures, 10, CF_FOREVER, &completed));
    while (cf_completed_next(completed, &i) == CF_OK) {
        int result;
        if (CF_RESULT(futures[i], 0, &result) == CF_OK)
            printf("%d\n", result);
        else
            printf("Error: %s\n", cf_last_error()->message);
    }
    cf_completed_free(completed);
    cf_future_unref_all(futures, 10);
    return 0;
}
