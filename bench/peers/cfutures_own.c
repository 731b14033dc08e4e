/* SPDX-License-Identifier: MIT */
/* What only cfutures can be asked: waiting for many futures at once, results as they complete, and
 * lazy maps in chunks. */
#include "cfutures.h"
#include "measure.h"

#include <math.h>
#include <semaphore.h>
#include <stdlib.h>

static cf_future **futures;
static int *inputs, *outputs;

static void make_futures(void)
{
    futures = calloc((size_t)run.n, sizeof(cf_future *));
    if (futures == NULL)
        bench_die("no memory");
}

static void submit_range(long begin, long end)
{
    for (long i = begin; i < end; i++) {
        int arg = (int)i;
        check(CF_SUBMIT(pool, call_task, &arg, int, &futures[i]));
    }
}

static void drop_all(void)
{
    cf_future_unref_all(futures, (size_t)run.n);
}

/* ---- W7w, W7m: skewed tasks, waited for all at once and mapped ------------------------------ */

/* The first time starts the threads. */
static int64_t time_second(void (*go)(void))
{
    open_pool();
    go();
    int64_t begin = bench_now();
    go();
    int64_t took = bench_now() - begin;
    close_pool();
    return took;
}

static void wait_for_all(void)
{
    submit_range(0, run.n);
    check(cf_wait(futures, (size_t)run.n, CF_ALL_COMPLETED, CF_FOREVER, NULL));
    drop_all();
}

static void map_all(void)
{
    check(CF_MAP(pool, call_task, inputs, (size_t)run.n, outputs, CF_FOREVER));
    if (outputs[run.n - 1] != 2 * inputs[run.n - 1])
        bench_die("wrong result");
}

static int64_t skew_waited(void)
{
    make_futures();
    return time_second(wait_for_all);
}

static int64_t skew_mapped(void)
{
    inputs = malloc((size_t)run.n * sizeof(int));
    outputs = malloc((size_t)run.n * sizeof(int));
    if (inputs == NULL || outputs == NULL)
        bench_die("no memory");
    for (long i = 0; i < run.n; i++)
        inputs[i] = (int)i;
    return time_second(map_all);
}

static void skewed_wait(void)
{
    bench_task = bench_skewed;
    bench_against_ideal(skew_waited);
}

static void skewed_map(void)
{
    bench_task = bench_skewed;
    bench_against_ideal(skew_mapped);
}

/* ---- Wa: as completed ----------------------------------------------------------------------- */

#define FUTURES_IN_ALL 128000 /* each n is repeated until so many futures have been through */
#define WAITS          100

static sem_t gate_reached, gate_open;

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        continue; /* a signal */
}

static int hold_worker(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    sem_post(&gate_reached);
    wait_for(&gate_open);
    return 0;
}

static void hold_workers(void)
{
    for (int i = 0; i < run.workers; i++)
        check(cf_submit(pool, hold_worker, NULL, 0, 0, NULL));
    for (int i = 0; i < run.workers; i++)
        wait_for(&gate_reached);
}

static void release_workers(void)
{
    for (int i = 0; i < run.workers; i++)
        sem_post(&gate_open);
}

static int same(int arg)
{
    return arg;
}

static cf_completed *begin_iteration(void)
{
    cf_completed *completed = NULL;
    check(cf_as_completed(futures, (size_t)run.n, CF_FOREVER, &completed));
    return completed;
}

static void iterate(cf_completed *completed)
{
    long seen = 0, sum = 0;
    for (size_t index; cf_completed_next(completed, &index) == CF_OK; seen++)
        sum += (long)index;
    cf_completed_free(completed);
    if (seen != run.n || sum != run.n * (run.n - 1) / 2)
        bench_die("not every future, or one twice");
}

struct as_completed_times {
    int64_t submitted, iterated; /* tasks complete meanwhile         */
    int64_t done;                /* all were done before             */
    int64_t installed, drained;  /* none was; then all of them are   */
    int64_t waited;              /* FIRST_COMPLETED, only the last is */
};

static void running(struct as_completed_times *times)
{
    int64_t begin = bench_now();
    submit_range(0, run.n);
    int64_t submitted = bench_now();
    iterate(begin_iteration());
    int64_t end = bench_now();
    times->submitted += submitted - begin;
    times->iterated += end - submitted;
}

static void again_when_done(struct as_completed_times *times)
{
    int64_t begin = bench_now();
    iterate(begin_iteration());
    times->done += bench_now() - begin;
    drop_all();
}

static void none_done(struct as_completed_times *times)
{
    hold_workers();
    submit_range(0, run.n);
    int64_t begin = bench_now();
    cf_completed *completed = begin_iteration();
    int64_t installed = bench_now();
    release_workers();
    iterate(completed);
    times->installed += installed - begin;
    times->drained += bench_now() - installed;
    drop_all();
}

static void only_last_done(struct as_completed_times *times)
{
    submit_range(run.n - 1, run.n);
    check(cf_future_result(futures[run.n - 1], CF_FOREVER, NULL, 0));
    hold_workers();
    submit_range(0, run.n - 1);
    int64_t begin = bench_now();
    for (int i = 0; i < WAITS; i++)
        check(cf_wait(futures, (size_t)run.n, CF_FIRST_COMPLETED, CF_FOREVER, NULL));
    times->waited += (bench_now() - begin) / WAITS;
    release_workers();
    check(cf_wait(futures, (size_t)run.n, CF_ALL_COMPLETED, CF_FOREVER, NULL));
    drop_all();
}

static struct as_completed_times one_turn(void)
{
    struct as_completed_times times = { 0 };
    running(&times);
    again_when_done(&times);
    none_done(&times);
    only_last_done(&times);
    return times;
}

static void add(struct as_completed_times *sum, struct as_completed_times turn)
{
    sum->submitted += turn.submitted;
    sum->iterated += turn.iterated;
    sum->done += turn.done;
    sum->installed += turn.installed;
    sum->drained += turn.drained;
    sum->waited += turn.waited;
}

static void as_completed(void)
{
    struct as_completed_times sum = { 0 };
    long turns = run.n < FUTURES_IN_ALL ? FUTURES_IN_ALL / run.n : 1;
    bench_watch(100);
    bench_task = same;
    sem_init(&gate_reached, 0, 0);
    sem_init(&gate_open, 0, 0);
    make_futures();
    open_pool();
    one_turn(); /* memory is there now, and the threads */
    for (long i = 0; i < turns; i++)
        add(&sum, one_turn());
    close_pool();
    double all = (double)(turns * run.n);
    bench_print("ns=%.1f iterate_ns=%.1f done_ns=%.1f install_ns=%.1f drain_ns=%.1f wait_us=%.2f",
                (double)(sum.submitted + sum.iterated) / all, (double)sum.iterated / all,
                (double)sum.done / all, (double)sum.installed / all, (double)sum.drained / all,
                (double)sum.waited / (double)turns / 1e3);
}

/* ---- Wc: chunks of a lazy map --------------------------------------------------------------- */

#define POWERS 10 /* for each task: half a microsecond or so */

static int powers(const void *arg, void *result)
{
    double a = *(const double *)arg;
    for (int i = 0; i < POWERS; i++)
        a = pow(a, a);
    *(double *)result = a;
    return 0;
}

static double argument_at(size_t index)
{
    return (double)(index % 1000 + 1) / 1001;
}

static bool next_argument(void *data, size_t index, cf_task *task)
{
    double *place = data;
    *place = argument_at(index);
    task->arg = place;
    return index < (size_t)run.n;
}

static double sum_serially(void)
{
    double sum = 0;
    for (long i = 0; i < run.n; i++) {
        double arg = argument_at((size_t)i), result;
        powers(&arg, &result);
        sum += result;
    }
    return sum;
}

static double sum_mapped(size_t chunk_size)
{
    double place, sum = 0, result;
    cf_results *results = NULL;
    const cf_task *task =
        CF_TASK(.fn = powers, .arg_size = sizeof(double), .result_size = sizeof(double));
    check(cf_map_from(pool, task, next_argument, &place, CF_MAP_OPTIONS(.chunk_size = chunk_size),
                      CF_FOREVER, &results));
    while (cf_results_next(results, &result, sizeof(result), NULL) == CF_OK)
        sum += result;
    cf_results_free(results);
    return sum;
}

/* The workload's name ends in the chunk size; 0 leaves it to the library. */
static void chunks(void)
{
    size_t chunk_size = strtoul(run.workload + 2, NULL, 10);
    bench_watch(100);
    open_pool();
    double expected = sum_serially();
    int64_t begin = bench_now();
    sum_serially();
    int64_t serial = bench_now() - begin;
    begin = bench_now();
    if (fabs(sum_mapped(chunk_size) - expected) > 1e-6 * expected)
        bench_die("wrong sum");
    int64_t mapped = bench_now() - begin;
    close_pool();
    bench_print("ns=%.1f serial_ns=%.1f speedup=%.2f", (double)mapped / (double)run.n,
                (double)serial / (double)run.n, (double)serial / (double)mapped);
}

const struct workload cfutures_workloads[] = {
    { "W7w", skewed_wait, 1, true },  { "W7m", skewed_map, 1, true },
    { "Wa", as_completed, 1, false }, { "Wc0", chunks, 1, true },
    { "Wc1", chunks, 1, true },       { "Wc10", chunks, 1, true },
    { "Wc100", chunks, 1, true },     { NULL, NULL, 0, false },
};
