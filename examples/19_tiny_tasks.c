/* SPDX-License-Identifier: MIT */
/* When not to: a hundred multiplications are done before the first worker has started. */
#include "common.h"

enum { COUNT = 100 };

static int tiny_task(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg * 2;
    return 0;
}

static void with_workers(unsigned max_workers, const int *data, int *results)
{
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = max_workers), &executor));
    TRY(CF_MAP(executor, tiny_task, data, COUNT, results, CF_FOREVER));
}

int main(void)
{
    int data[COUNT], results[COUNT];
    for (int n = 0; n < COUNT; n++)
        data[n] = n;

    double start = now();
    with_workers(100, data, results);
    printf("100 workers: %.1f us\n", (now() - start) * 1e6);

    start = now();
    with_workers(4, data, results);
    printf("4 workers: %.1f us\n", (now() - start) * 1e6);

    start = now();
    for (int n = 0; n < COUNT; n++)
        tiny_task(&data[n], &results[n]);
    printf("Sequential: %.1f us\n", (now() - start) * 1e6);
    printf("The last result: %d\n", results[COUNT - 1]);
    return 0;
}
