/* SPDX-License-Identifier: MIT */
/* Waiting with a limit: the wait times out, the task goes on.  One unit of time is half a second.
 */
#include "common.h"
#include <errno.h>

#define UNITS(n) (0.5 * (n))

static int slow_operation(const void *arg, void *result)
{
    int n = *(const int *)arg;
    sleep_for(UNITS(n));
    if (n == 3)
        return cf_raise(EINVAL, "Number %d is unlucky!", n);
    *(int *)result = n * 2;
    return 0;
}

static void print_result(int i, cf_future *future)
{
    int result;
    switch (CF_RESULT(future, CF_SECONDS(UNITS(2)), &result)) {
    case CF_OK:
        printf("Future %d result: %d\n", i, result);
        break;
    case CF_TIMEOUT:
        printf("Future %d timed out\n", i);
        break;
    default:
        printf("Future %d raised: %s\n", i, cf_last_error()->message);
    }
}

int main(void)
{
    static const int numbers[4] = { 1, 2, 3, 6 };
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 3), &executor));

    cf_future *futures[4];
    for (int i = 0; i < 4; i++)
        TRY(CF_SUBMIT(executor, slow_operation, &numbers[i], int, &futures[i]));
    for (int i = 0; i < 4; i++)
        printf("Future %d done: %s\n", i, cf_future_done(futures[i]) ? "True" : "False");

    sleep_for(UNITS(2));
    for (int i = 0; i < 4; i++)
        print_result(i, futures[i]);
    cf_future_unref_all(futures, 4);
    return 0;
}
