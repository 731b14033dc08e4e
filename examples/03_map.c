/* SPDX-License-Identifier: MIT */
/* Map: an array of arguments in, an array of results out, in the same order. */
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
    int numbers[3] = { 1, 2, 3 }, results[3];
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 3), &executor));
    TRY(CF_MAP(executor, some_function, numbers, 3, results, CF_FOREVER));
    printf("The results: [%d, %d, %d]\n", results[0], results[1], results[2]);
    return 0;
}
