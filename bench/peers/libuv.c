/* SPDX-License-Identifier: MIT */
/* libuv's uv_queue_work: the request is the caller's memory, completion comes back on the
 * producer's loop. The pool is one for the process, and its size a variable of the environment. */
#include "measure.h"
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct request {
    uv_work_t work;
    int arg;
    int result;
};

static _Thread_local uv_loop_t loop;
static void (*producer_body)(int producer);

static const char *version(void)
{
    static char text[32];
    snprintf(text, sizeof(text), "libuv %s", uv_version_string());
    return text;
}

static void open_pool(void)
{
    char workers[16];
    snprintf(workers, sizeof(workers), "%d", run.workers);
    if (setenv("UV_THREADPOOL_SIZE", workers, 1) != 0)
        bench_die("no environment");
}

static void close_pool(void) {}

static void run_with_loop(int producer)
{
    if (uv_loop_init(&loop) != 0)
        bench_die("no loop");
    producer_body(producer);
    uv_loop_close(&loop);
}

static void produce(void (*body)(int producer))
{
    producer_body = body;
    bench_threads(run_with_loop);
}

static void run_request(uv_work_t *work)
{
    struct request *request = (struct request *)work;
    request->result = bench_task(request->arg);
}

static void after(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

static void submit(void *cell, int arg)
{
    struct request *request = cell;
    request->arg = arg;
    if (uv_queue_work(&loop, &request->work, run_request, after) != 0)
        bench_die("not queued");
}

static long collect(void *cells, long n)
{
    const struct request *request = cells;
    long sum = 0;
    uv_run(&loop, UV_RUN_DEFAULT);
    for (long i = 0; i < n; i++)
        sum += request[i].result;
    return sum;
}

const struct peer peer = {
    .name = "libuv",
    .version = version,
    .cell_size = sizeof(struct request),
    .request_size = sizeof(uv_work_t),
    .open = open_pool,
    .close = close_pool,
    .produce = produce,
    .submit = submit,
    .collect = collect,
};
