/* SPDX-License-Identifier: MIT */
/* The workloads that every peer is asked; ../README.md says what each is for. */
#define _GNU_SOURCE
#include "pool.h"
#include "proc.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define WARM_UP_TASKS 8      /* for each worker ...                          */
#define WARM_UP_STEPS 100000 /* ... and so long that all of them are started */
#define MOST_TIMES    100000
#define TURNS         5
#define PAUSE_NS      500000
#define SETTLE_NS     200000000  /* after a burst; then idleness begins ...          */
#define TRIM_NS       1500000000 /* ... and for so long memory may still be given back */
#define MIB           (1L << 20)

static char *cells;
static double times[MOST_TIMES];

static void *cell(long i)
{
    return cells + (size_t)i * peer.cell_size;
}

/* Written once here, so that no page of theirs is faulted in later. */
static void make_cells(long n)
{
    size_t size = (size_t)n * peer.cell_size;
    cells = aligned_alloc(64, (size + 63) / 64 * 64);
    if (cells == NULL)
        bench_die("no memory");
    memset(cells, 0, size);
}

static void submit_one(long i, int64_t steps)
{
    struct message arg = { .number = i, .steps = steps };
    peer.submit(cell(i), &arg);
}

static struct message collect_one(long i)
{
    struct message result;
    peer.collect(cell(i), &result);
    if (result.number != 2 * i)
        bench_die("wrong result");
    return result;
}

static struct message ask(int64_t steps)
{
    submit_one(0, steps);
    return collect_one(0);
}

static long warm_up_count(void)
{
    return peer.one_at_a_time ? 1 : (long)WARM_UP_TASKS * run.workers;
}

static void warm_up(void)
{
    for (long i = 0; i < warm_up_count(); i++)
        submit_one(i, WARM_UP_STEPS);
    for (long i = 0; i < warm_up_count(); i++)
        collect_one(i);
}

static void open_pool(long cell_count)
{
    make_cells(cell_count > warm_up_count() ? cell_count : warm_up_count());
    peer.open();
    warm_up();
}

static void refuse_if(bool cannot)
{
    if (cannot)
        exit(2);
}

static double median_of(double (*turn)(void), long count)
{
    if (count > MOST_TIMES)
        bench_die("too many");
    for (long i = 0; i < count; i++)
        times[i] = turn();
    return bench_median(times, (int)count);
}

static void sleep_ns(int64_t ns)
{
    struct timespec t = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
    while (nanosleep(&t, &t) != 0)
        continue; /* a signal */
}

/* ---- P1: many small tasks ------------------------------------------------------------------- */

static int64_t submitting; /* ns, of all turns */

static double all_then_all(void)
{
    int64_t begin = bench_now();
    for (long i = 0; i < run.n; i++)
        submit_one(i, 0);
    submitting += bench_now() - begin;
    for (long i = 0; i < run.n; i++)
        collect_one(i);
    return (double)(bench_now() - begin);
}

/* The first turn finds the memory that the others use again. */
static void many_tasks(void)
{
    refuse_if(peer.one_at_a_time);
    open_pool(run.n);
    all_then_all();
    submitting = 0;
    double median = median_of(all_then_all, TURNS);
    peer.close();
    bench_print("ns=%.1f submit_ns=%.1f", median / (double)run.n,
                (double)submitting / (double)(TURNS * run.n));
}

/* The number of a task is its place among the cells here, so that they can be used again. */
static void in_a_window(void)
{
    refuse_if(peer.one_at_a_time);
    long window = bench_parameter;
    open_pool(window);
    int64_t begin = bench_now();
    for (long i = 0; i < window; i++)
        submit_one(i, 0);
    for (long i = window; i < run.n; i++) {
        collect_one(i % window);
        submit_one(i % window, 0);
    }
    for (long i = run.n; i < run.n + window; i++)
        collect_one(i % window);
    int64_t end = bench_now();
    peer.close();
    bench_print("ns=%.1f", (double)(end - begin) / (double)run.n);
}

/* ---- P2: there and back --------------------------------------------------------------------- */

static void round_trips(void)
{
    open_pool(1);
    for (long i = 0; i < run.n / 10 + 1; i++)
        ask(0);
    int64_t begin = bench_now();
    for (long i = 0; i < run.n; i++)
        ask(0);
    int64_t end = bench_now();
    peer.close();
    bench_print("ns=%.1f", (double)(end - begin) / (double)run.n);
}

static double one_after_a_pause(void)
{
    sleep_ns(PAUSE_NS);
    int64_t begin = bench_now();
    ask(0);
    return (double)(bench_now() - begin);
}

static void with_pauses(void)
{
    open_pool(1);
    double median = median_of(one_after_a_pause, run.n);
    peer.close();
    bench_print("ns=%.1f", median);
}

/* ---- P3: large arguments and results -------------------------------------------------------- */

static void *argument;

static void check_sum(uint64_t sum)
{
    if (sum != (uint64_t)bench_parameter / 64)
        bench_die("wrong bytes");
}

static double send_once(void)
{
    int64_t begin = bench_now();
    check_sum(peer.send(argument, (size_t)bench_parameter));
    return (double)(bench_now() - begin);
}

static double fetch_once(void)
{
    int64_t begin = bench_now();
    check_sum(peer.fetch((size_t)bench_parameter));
    return (double)(bench_now() - begin);
}

static void measure_payload(double (*turn)(void))
{
    open_pool(1);
    median_of(turn, 3); /* what is kept afterwards is there now */
    double median = median_of(turn, run.n);
    peer.close();
    bench_print("gbps=%.3f us=%.1f", (double)bench_parameter / median, median / 1e3);
}

static void payload_in(void)
{
    refuse_if(peer.send == NULL);
    argument = malloc((size_t)bench_parameter);
    if (argument == NULL)
        bench_die("no memory");
    bench_fill(argument, (size_t)bench_parameter);
    measure_payload(send_once);
}

static void payload_out(void)
{
    refuse_if(peer.fetch == NULL);
    measure_payload(fetch_once);
}

/* ---- P4: batching --------------------------------------------------------------------------- */

static bool mixed;

static double run_tasks(void)
{
    int64_t begin = bench_now();
    for (long i = 0; i < run.n; i++)
        submit_one(i, bench_steps_of(i, bench_parameter, mixed));
    for (long i = 0; i < run.n; i++)
        collect_one(i);
    return (double)(bench_now() - begin);
}

/* The second time, when memory is there. */
static double second_time(double (*turn)(void))
{
    open_pool(run.n);
    turn();
    double took = turn();
    peer.close();
    return took;
}

static void against_ideal(void)
{
    refuse_if(peer.one_at_a_time);
    double before = bench_ideal(run.n, bench_parameter, mixed);
    double took = second_time(run_tasks);
    double after = bench_ideal(run.n, bench_parameter, mixed);
    bench_print_beside(took, (before + after) / 2);
}

static void even_tasks(void)
{
    against_ideal();
}

static void mixed_tasks(void)
{
    mixed = true;
    against_ideal();
}

/* One task of 200 ms in the middle of short ones: when is the last short one here? */
static double last_short_one(void)
{
    int64_t begin = bench_now();
    for (long i = 0; i < run.n; i++)
        submit_one(i, bench_steps_of(i, i == run.n / 2 ? 200000 : bench_parameter, false));
    for (long i = 0; i < run.n; i++)
        if (i != run.n / 2)
            collect_one(i);
    double took = (double)(bench_now() - begin);
    collect_one(run.n / 2);
    return took;
}

static void short_beside_long(void)
{
    refuse_if(peer.one_at_a_time);
    double split = bench_ideal(run.n, bench_parameter, false);
    double took = second_time(last_short_one);
    split = (split + bench_ideal(run.n, bench_parameter, false)) / 2;
    /* half of them by all workers, the rest by all but one */
    double ideal = split / 2 * (1 + (double)run.workers / (run.workers - 1));
    bench_print("vs_ideal=%.3f ms=%.2f ideal_ms=%.2f", took / ideal, took / 1e6, ideal / 1e6);
}

/* ---- P6: a pool's first result, and a worker's successor ------------------------------------ */

static double start_once(void)
{
    int64_t begin = bench_now();
    peer.open();
    ask(0);
    double took = (double)(bench_now() - begin);
    peer.close();
    return took;
}

static void first_result(void)
{
    make_cells(1);
    start_once();
    bench_print("us=%.1f", median_of(start_once, run.n) / 1e3);
}

static double replace_once(void)
{
    pid_t worker = ask(BENCH_WHO).worker;
    sleep_ns(10000000); /* it is idle, and asleep */
    int64_t begin = bench_now();
    if (worker <= 1 || kill(worker, SIGKILL) != 0)
        bench_die("no worker to kill");
    pid_t successor = ask(BENCH_WHO).worker;
    double took = (double)(bench_now() - begin);
    if (successor == worker)
        bench_die("not killed");
    return took;
}

static void hold_memory(size_t size)
{
    refuse_if(2 * size > bench_available_memory());
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bench_die("no memory");
    bench_fill(memory, size);
}

static void successor(void)
{
    refuse_if(!peer.replaces);
    if (bench_parameter > 0)
        hold_memory((size_t)(bench_parameter * MIB));
    open_pool(1);
    double median = median_of(replace_once, run.n);
    peer.close();
    bench_print("us=%.1f", median / 1e3);
}

/* ---- P7: idle ------------------------------------------------------------------------------- */

/* The workers and what has made them, but each once. */
static void find_processes(void)
{
    for (long turn = 0; turn < 20; turn++) {
        for (long i = 0; i < warm_up_count(); i++)
            submit_one(i, BENCH_WHO);
        for (long i = 0; i < warm_up_count(); i++) {
            struct message who = collect_one(i);
            bench_watch_process(who.worker);
            bench_watch_process(who.parent);
        }
        warm_up();
    }
}

static void idle_pool(void)
{
    refuse_if(peer.one_at_a_time);
    long burst = 10000;
    open_pool(burst);
    find_processes();
    for (long i = 0; i < burst; i++)
        submit_one(i, 0);
    for (long i = 0; i < burst; i++)
        collect_one(i);
    sleep_ns(SETTLE_NS);
    struct activity settled = bench_activity();
    sleep_ns(TRIM_NS);
    struct activity before = bench_activity();
    sleep_ns(run.n * 1000000);
    struct activity after = bench_activity();
    peer.close();
    bench_print("cpu_ms=%.3f wakeups=%ld wakeups_before=%ld processes=%d threads=%d",
                (double)(after.cpu_ns - before.cpu_ns) / 1e6, after.switches - before.switches,
                before.switches - settled.switches, after.processes, after.threads);
}

const struct workload bench_workloads[] = {
    { "P1", many_tasks },   { "P1w", in_a_window }, { "P2", round_trips },
    { "P2p", with_pauses }, { "P3in", payload_in }, { "P3out", payload_out },
    { "P4", even_tasks },   { "P4m", mixed_tasks }, { "P4last", short_beside_long },
    { "P6", first_result }, { "P6r", successor },   { "P7", idle_pool },
    { NULL, NULL },
};
