/* SPDX-License-Identifier: MIT */
/* What only cfutures can be asked: maps, which hand out tasks together, and the table of chunk sizes. */
#include "cfutures.h"

#include <math.h>
#include <stdlib.h>

#define WARM_UP_TASKS 16
#define WARM_UP_STEPS 100000

static struct message *args, *results;

static void make_arrays(bool mixed)
{
    args = calloc((size_t)run.n, sizeof(*args));
    results = calloc((size_t)run.n, sizeof(*results));
    if (args == NULL || results == NULL)
        bench_die("no memory");
    for (long i = 0; i < run.n; i++)
        args[i] =
            (struct message){ .number = i, .steps = bench_steps_of(i, bench_parameter, mixed) };
}

static void warm_up(void)
{
    struct message work[WARM_UP_TASKS], done[WARM_UP_TASKS];
    for (int i = 0; i < WARM_UP_TASKS; i++)
        work[i] = (struct message){ .number = i, .steps = WARM_UP_STEPS };
    check(CF_MAP(pool, call_task, work, WARM_UP_TASKS, done, CF_FOREVER));
}

/* ---- P4 by one call ------------------------------------------------------------------------- */

static void map_arrays(void)
{
    check(CF_MAP(pool, call_task, args, (size_t)run.n, results, CF_FOREVER));
}

static bool next_message(void *data, size_t index, cf_task *task)
{
    (void)data;
    task->arg = index < (size_t)run.n ? &args[index] : NULL;
    return index < (size_t)run.n;
}

static void map_lazily(void)
{
    cf_results *iterator = NULL;
    struct message *next = results;
    const cf_task *task = CF_TASK(.fn = call_task, .arg_size = sizeof(struct message),
                                  .result_size = sizeof(struct message));
    check(cf_map_from(pool, task, next_message, NULL, NULL, CF_FOREVER, &iterator));
    while (cf_results_next(iterator, next, sizeof(*next), NULL) == CF_OK)
        next++;
    cf_results_free(iterator);
}

static void check_results(void)
{
    for (long i = 0; i < run.n; i++)
        if (results[i].number != 2 * i)
            bench_die("wrong result");
}

static void against_ideal(void (*map)(void), bool mixed)
{
    make_arrays(mixed);
    double before = bench_ideal(run.n, bench_parameter, mixed);
    open_pool();
    warm_up();
    map(); /* the second time memory is there */
    int64_t begin = bench_now();
    map();
    double took = (double)(bench_now() - begin);
    close_pool();
    double after = bench_ideal(run.n, bench_parameter, mixed);
    check_results();
    bench_print_beside(took, (before + after) / 2);
}

static void even_mapped(void)
{
    against_ideal(map_arrays, false);
}
static void mixed_mapped(void)
{
    against_ideal(map_arrays, true);
}
static void even_lazily(void)
{
    against_ideal(map_lazily, false);
}
static void mixed_lazily(void)
{
    against_ideal(map_lazily, true);
}

/* ---- P5: tasks that raise a number to its own power, in chunks -------------------------------- */

struct params {
    double v;
    long calculations;
};

static int power_task(const void *arg, void *result)
{
    const struct params *params = arg;
    double a = params->v;
    for (long i = 0; i < params->calculations; i++)
        a = pow(a, a);
    *(double *)result = a;
    return 0;
}

static double number_at(size_t index)
{
    return (double)(index % 1000 + 1) / 1001;
}

static bool next_params(void *data, size_t index, cf_task *task)
{
    struct params *params = data;
    params->v = number_at(index);
    task->arg = params;
    return index < (size_t)run.n;
}

static double sum_mapped(struct params params, size_t chunk_size)
{
    double sum = 0, result;
    cf_results *iterator = NULL;
    const cf_task *task =
        CF_TASK(.fn = power_task, .arg_size = sizeof(params), .result_size = sizeof(result));
    check(cf_map_from(pool, task, next_params, &params, CF_MAP_OPTIONS(.chunk_size = chunk_size),
                      CF_FOREVER, &iterator));
    while (cf_results_next(iterator, &result, sizeof(result), NULL) == CF_OK)
        sum += result;
    cf_results_free(iterator);
    return sum;
}

static double sum_in_a_loop(struct params params)
{
    double sum = 0, result;
    for (size_t i = 0; i < (size_t)run.n; i++) {
        params.v = number_at(i);
        power_task(&params, &result);
        sum += result;
    }
    return sum;
}

/* P5:CALCULATIONS/CHUNK_SIZE, N tasks.  As in the article that the table is from, the pool's start
 * and end are counted. */
static void chunks(void)
{
    struct params params = { .calculations = bench_parameter };
    size_t chunk_size = (size_t)bench_second_parameter;
    int64_t begin = bench_now();
    double expected = sum_in_a_loop(params);
    int64_t serial = bench_now() - begin;
    begin = bench_now();
    open_pool();
    double sum = sum_mapped(params, chunk_size);
    close_pool();
    int64_t took = bench_now() - begin;
    if (fabs(sum - expected) > 1e-6 * fabs(expected))
        bench_die("wrong sum");
    bench_print("s=%.6f serial_s=%.6f", (double)took / 1e9, (double)serial / 1e9);
}

const struct workload cfutures_workloads[] = {
    { "P4map", even_mapped },    { "P4mmap", mixed_mapped }, { "P4lazy", even_lazily },
    { "P4mlazy", mixed_lazily }, { "P5", chunks },           { NULL, NULL },
};
