/* SPDX-License-Identifier: MIT */
/* Tasks that wait for tasks, on one worker.  A worker that waits runs what it waits for, so this
 * ends where a plain pool would stand still. */
#include "common.h"

enum { COUNT = 10000 };

struct part {
    cf_executor *executor;
    int *v;
    size_t n;
};

static void swap(int *a, int *b)
{
    int t = *a;
    *a = *b;
    *b = t;
}

/* Moves what is smaller than the last number to the front, and returns where that number goes. */
static size_t partition(int *v, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i + 1 < n; i++)
        if (v[i] < v[n - 1])
            swap(&v[i], &v[k++]);
    swap(&v[n - 1], &v[k]);
    return k;
}

static int quicksort(const void *arg, void *result)
{
    const struct part *p = arg;
    if (p->n < 2)
        return 0;
    size_t k = partition(p->v, p->n);
    struct part low = { p->executor, p->v, k }, high = { p->executor, p->v + k + 1, p->n - k - 1 };
    cf_auto_future *future = NULL;
    if (cf_submit(p->executor, quicksort, &low, sizeof low, 0, &future) != CF_OK)
        return cf_raise(1, "%s", cf_last_error()->message);
    int code = quicksort(&high, result);
    if (cf_future_result(future, CF_FOREVER, NULL, 0) != CF_OK)
        return cf_raise(1, "%s", cf_last_error()->message);
    return code;
}

int main(void)
{
    static int v[COUNT];
    for (int i = 0; i < COUNT; i++)
        v[i] = rand();

    cf_auto_executor *executor = NULL;
    cf_auto_future *future = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 1), &executor));
    struct part all = { executor, v, COUNT };
    TRY(cf_submit(executor, quicksort, &all, sizeof all, 0, &future));
    TRY(cf_future_result(future, CF_SECONDS(30), NULL, 0));

    for (int i = 1; i < COUNT; i++)
        if (v[i - 1] > v[i])
            return 1;
    printf("%d numbers sorted on one worker\n", COUNT);
    return 0;
}
