/* SPDX-License-Identifier: MIT */
/* cfutures: a future with a result for each task. */
#include "cfutures.h"
#include "measure.h"

#include <stdio.h>

cf_executor *pool;

static const char *version(void)
{
    static char text[32];
    unsigned v = CF_VERSION; /* of the same tree */
    snprintf(text, sizeof(text), "cfutures %u.%u.%u", v >> 16, v >> 8 & 255, v & 255);
    return text;
}

void check(cf_status status)
{
    if (status != CF_OK)
        bench_die(cf_last_error()->message);
}

void open_pool(void)
{
    unsigned workers = (unsigned)run.workers;
    check(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = workers), &pool));
}

void close_pool(void)
{
    pool = cf_executor_free(pool);
}

int call_task(const void *arg, void *result)
{
    *(int *)result = bench_task(*(const int *)arg);
    return 0;
}

static void submit(void *cell, int arg)
{
    check(CF_SUBMIT(pool, call_task, &arg, int, (cf_future **)cell));
}

static void drop(void *cell)
{
    cf_future_unref(*(cf_future **)cell);
}

static long collect(void *cells, long n)
{
    cf_future **futures = cells;
    long sum = 0;
    for (long i = 0; i < n; i++) {
        int result;
        check(CF_RESULT(futures[i], CF_FOREVER, &result));
        cf_future_unref(futures[i]);
        sum += result;
    }
    return sum;
}

static void range(bench_range *fn, const int *in, int *out, long n)
{
    check(cf_map_range(pool, fn, in, sizeof(*in), (size_t)n, out, sizeof(*out), CF_FOREVER));
}

static void map(bench_element *fn, const int *in, int *out, long n)
{
    check(CF_MAP(pool, fn, in, (size_t)n, out, CF_FOREVER));
}

const struct peer peer = {
    .name = "cfutures",
    .version = version,
    .cell_size = sizeof(cf_future *),
    .open = open_pool,
    .close = close_pool,
    .submit = submit,
    .collect = collect,
    .drop = drop,
    .fib = bench_fib,
    .range = range,
    .map = map,
    .own = cfutures_workloads,
};
