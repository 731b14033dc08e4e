/* SPDX-License-Identifier: MIT */
/* OpenMP tasks.  There is no outside: producers are members of the team, and run tasks whenever
 * they wait or the team's queues are full.  Built twice, with gcc (libgomp) and clang (libomp). */
#include "peer.h"
#include "slots.h"

#include <omp.h>

#ifdef __clang__
#define NAME    "openmp-libomp"
#define VERSION "libomp of clang " __clang_version__
#else
#define NAME    "openmp-gomp"
#define VERSION "libgomp of gcc " __VERSION__
#endif

static const char *version(void)
{
    return VERSION;
}

static int team(void)
{
    return run.workers + (run.caller_works ? 0 : run.producers);
}

static void open_pool(void)
{
    omp_set_dynamic(0);
}

static void close_pool(void) {}

static void produce(void (*body)(int producer))
{
#pragma omp parallel num_threads(team())
    if (omp_get_thread_num() < run.producers)
        body(omp_get_thread_num());
}

static void submit(void *cell, int arg)
{
    struct slot *slot = cell;
#pragma omp task firstprivate(slot, arg)
    slot->result = bench_task(arg);
}

static long collect(void *cells, long n)
{
#pragma omp taskwait
    return slots_sum(cells, n);
}

static void range(bench_range *fn, const int *in, int *out, long n)
{
    int pieces = team();
#pragma omp parallel for num_threads(pieces) schedule(static)
    for (int k = 0; k < pieces; k++) {
        long begin = n * k / pieces, end = n * (k + 1) / pieces;
        fn(in, (size_t)begin, (size_t)end, out + begin);
    }
}

const struct peer peer = {
    .name = NAME,
    .version = version,
    .cell_size = sizeof(struct slot),
    .open = open_pool,
    .close = close_pool,
    .produce = produce,
    .submit = submit,
    .collect = collect,
    .fib = bench_fib,
    .range = range,
};
