/* SPDX-License-Identifier: MIT */
/* cfutures: a process pool, a future with a result for each task. */
#include "cfutures.h"

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
    check(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = workers, .max_restarts = 1000),
                              &pool));
}

void close_pool(void)
{
    pool = cf_executor_free(pool);
}

int call_task(const void *arg, void *result)
{
    bench_answer(arg, result);
    return 0;
}

static void submit(void *cell, const struct message *arg)
{
    check(CF_SUBMIT(pool, call_task, arg, struct message, (cf_future **)cell));
}

static void collect(void *cell, struct message *result)
{
    cf_future *future = *(cf_future **)cell;
    check(CF_RESULT(future, CF_FOREVER, result));
    cf_future_unref(future);
}

static cf_bytes take(cf_bytes_fn *fn, const void *arg, size_t arg_size)
{
    cf_future *future = NULL;
    cf_bytes bytes;
    check(cf_submit_bytes(pool, fn, arg, arg_size, &future));
    check(CF_TAKE(future, CF_FOREVER, &bytes));
    cf_future_unref(future);
    return bytes;
}

static int read_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    if (cf_bytes_resize(result, sizeof(uint64_t)) != CF_OK)
        return 1;
    *(uint64_t *)result->data = bench_read(arg, arg_size);
    return 0;
}

static uint64_t send_large(const void *data, size_t size)
{
    cf_bytes bytes = take(read_bytes, data, size);
    uint64_t sum = *(const uint64_t *)bytes.data;
    cf_bytes_free(&bytes);
    return sum;
}

static int make_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    if (cf_bytes_resize(result, *(const size_t *)arg) != CF_OK)
        return 1;
    bench_fill(result->data, result->size);
    return 0;
}

static uint64_t fetch_large(size_t size)
{
    cf_bytes bytes = take(make_bytes, &size, sizeof(size));
    uint64_t sum = bench_read(bytes.data, bytes.size);
    cf_bytes_free(&bytes);
    return sum;
}

const struct peer peer = {
    .name = "cfutures",
    .version = version,
    .first = cf_worker_main,
    .open = open_pool,
    .close = close_pool,
    .cell_size = sizeof(cf_future *),
    .replaces = true,
    .submit = submit,
    .collect = collect,
    .send = send_large,
    .fetch = fetch_large,
    .own = cfutures_workloads,
};
