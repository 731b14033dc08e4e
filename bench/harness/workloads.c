/* SPDX-License-Identifier: MIT */
/* The workloads that every peer is asked; README.md says what each is for. */
#include "workloads.h"
#include "measure.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_PRODUCERS 8
#define MAX_SECONDS   100
#define WARM_UP       1000
#define WINDOW        10000
#define GATE          (-1)

bench_fn *bench_task;

static char *cells;
static pthread_barrier_t start_line;
static struct {
    int64_t begin, submitted, end;
} laps[MAX_PRODUCERS];

static int twice(int arg)
{
    return 2 * arg;
}

/* ---- producers ------------------------------------------------------------------------------ */

struct producer {
    pthread_t thread;
    void (*body)(int producer);
    int number;
};

static void *producer_main(void *arg)
{
    struct producer *self = arg;
    self->body(self->number);
    return NULL;
}

void bench_threads(void (*body)(int producer))
{
    struct producer producers[MAX_PRODUCERS];
    if (run.producers == 1) {
        body(0);
        return;
    }
    for (int k = 0; k < run.producers; k++) {
        producers[k] = (struct producer){ .body = body, .number = k };
        if (pthread_create(&producers[k].thread, NULL, producer_main, &producers[k]) != 0)
            bench_die("no thread");
    }
    for (int k = 0; k < run.producers; k++)
        pthread_join(producers[k].thread, NULL);
}

void bench_produce(void (*body)(int producer))
{
    pthread_barrier_init(&start_line, NULL, (unsigned)run.producers);
    (peer.produce != NULL ? peer.produce : bench_threads)(body);
}

void bench_expect(long n)
{
    if (peer.expect != NULL)
        peer.expect(n);
}

static void *cell(long i)
{
    return cells + (size_t)i * peer.cell_size;
}

/* Written once here, so that no page of theirs is counted or faulted in later. */
static void make_cells(long n)
{
    size_t size = (size_t)n * peer.cell_size;
    cells = aligned_alloc(64, (size + 63) / 64 * 64);
    if (cells == NULL)
        bench_die("no memory");
    memset(cells, 0, size);
}

static void submit_cells(long first, long count)
{
    bench_expect(count);
    for (long i = first; i < first + count; i++)
        peer.submit(cell(i), (int)i);
}

static void collect_cells(long first, long count)
{
    if (peer.collect(cell(first), count) != count * (2 * first + count - 1))
        bench_die("wrong results");
}

static void warm_up(long first, long count)
{
    submit_cells(first, count < WARM_UP ? count : WARM_UP);
    collect_cells(first, count < WARM_UP ? count : WARM_UP);
}

/* Opens the pool, lets each producer run `body`, closes it. */
static void with_pool(bench_fn *task, long cell_count, void (*body)(int producer))
{
    bench_watch(MAX_SECONDS);
    bench_task = task;
    make_cells(cell_count);
    peer.open();
    bench_produce(body);
    peer.close();
}

/* ---- W1, W4: many tasks --------------------------------------------------------------------- */

static void run_share(int producer)
{
    long share = run.n / run.producers, first = share * producer;
    warm_up(first, share);
    pthread_barrier_wait(&start_line);
    laps[producer].begin = bench_now();
    submit_cells(first, share);
    laps[producer].submitted = bench_now();
    collect_cells(first, share);
    laps[producer].end = bench_now();
}

static int64_t first_begin(void)
{
    int64_t first = laps[0].begin;
    for (int k = 1; k < run.producers; k++)
        first = laps[k].begin < first ? laps[k].begin : first;
    return first;
}

static int64_t last_end(void)
{
    int64_t last = laps[0].end;
    for (int k = 1; k < run.producers; k++)
        last = laps[k].end > last ? laps[k].end : last;
    return last;
}

static void many_tasks(void)
{
    with_pool(twice, run.n, run_share);
    double n = (double)run.n;
    bench_print("ns=%.1f submit_ns=%.1f", (double)(last_end() - first_begin()) / n,
                (double)(laps[0].submitted - laps[0].begin) * run.producers / n);
}

/* ---- W2: there and back --------------------------------------------------------------------- */

static void go_and_come(long times)
{
    long sum = 0;
    for (long i = 0; i < times; i++) {
        bench_expect(1);
        peer.submit(cell(0), (int)i);
        sum += peer.collect(cell(0), 1);
    }
    if (sum != times * (times - 1))
        bench_die("wrong results");
}

static void run_round_trips(int producer)
{
    go_and_come(WARM_UP);
    laps[producer].begin = bench_now();
    go_and_come(run.n);
    laps[producer].end = bench_now();
}

static void round_trips(void)
{
    with_pool(twice, 1, run_round_trips);
    bench_print("ns=%.1f", (double)(laps[0].end - laps[0].begin) / (double)run.n);
}

/* ---- W3: tasks that wait for tasks ---------------------------------------------------------- */

int bench_fib(int n)
{
    alignas(max_align_t) char own[BENCH_CELL_MAX];
    if (n < 2)
        return n;
    peer.submit(own, n - 1);
    int rest = bench_fib(n - 2);
    return (int)peer.collect(own, 1) + rest;
}

static long fibonacci(long n)
{
    long a = 0, b = 1;
    for (long i = 0; i < n; i++) {
        long next = a + b;
        a = b;
        b = next;
    }
    return a;
}

static void run_fib(int producer)
{
    laps[producer].begin = bench_now();
    bench_expect(1);
    peer.submit(cell(0), (int)run.n);
    if (peer.collect(cell(0), 1) != fibonacci(run.n))
        bench_die("wrong number");
    laps[producer].end = bench_now();
}

static void fork_join(void)
{
    if (peer.fib == NULL)
        exit(2);
    with_pool(peer.fib, 1, run_fib);
    double spawned = (double)fibonacci(run.n + 1);
    bench_print("ns=%.1f", (double)(laps[0].end - laps[0].begin) / spawned);
}

/* ---- W5: map -------------------------------------------------------------------------------- */

#define MAP_TURNS 7

static struct {
    int *in, *out;
    bench_range *block;
    bool by_element;
    int pieces;
} grid;

static int square(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int *)result = x * x;
    return 0;
}

static bench_element *volatile square_pointer = square; /* so that no compiler can see through it */

static int call_each(const void *context, size_t begin, size_t end, void *results)
{
    const int *in = context;
    int *out = results;
    bench_element *fn = square_pointer;
    for (size_t i = begin; i < end; i++)
        fn(&in[i], &out[i - begin]);
    return 0;
}

static int square_block(const void *context, size_t begin, size_t end, void *results)
{
    const int *in = context;
    int *out = results;
    for (size_t i = begin; i < end; i++)
        out[i - begin] = in[i] * in[i];
    return 0;
}

static int run_piece(int k)
{
    size_t begin = (size_t)(run.n * k / grid.pieces), end = (size_t)(run.n * (k + 1) / grid.pieces);
    grid.block(grid.in, begin, end, grid.out + begin);
    return twice(k);
}

static void map_in_parallel(void)
{
    if (grid.by_element && peer.map != NULL) {
        peer.map(square_pointer, grid.in, grid.out, run.n);
    } else if (peer.range != NULL) {
        peer.range(grid.block, grid.in, grid.out, run.n);
    } else {
        submit_cells(0, grid.pieces);
        collect_cells(0, grid.pieces);
    }
}

static void map_serially(void)
{
    grid.block(grid.in, 0, (size_t)run.n, grid.out);
}

static double timed(void (*fn)(void))
{
    int64_t begin = bench_now();
    fn();
    return (double)(bench_now() - begin);
}

static void check_squares(void)
{
    for (long i = 0; i < run.n; i++)
        if (grid.out[i] != grid.in[i] * grid.in[i])
            bench_die("wrong square");
    memset(grid.out, 0xff, (size_t)run.n * sizeof(int));
}

static void run_map(int producer)
{
    double serial[MAP_TURNS], parallel[MAP_TURNS];
    (void)producer;
    map_in_parallel(); /* the threads start */
    for (int turn = 0; turn < MAP_TURNS; turn++) {
        check_squares();
        serial[turn] = timed(map_serially);
        check_squares();
        parallel[turn] = timed(map_in_parallel);
    }
    check_squares();
    double one = bench_median(serial, MAP_TURNS), all = bench_median(parallel, MAP_TURNS);
    bench_print("speedup=%.3f ns=%.3f serial_ns=%.3f", one / all, all / (double)run.n,
                one / (double)run.n);
}

static void make_grid(void)
{
    grid.in = malloc((size_t)run.n * sizeof(int));
    grid.out = malloc((size_t)run.n * sizeof(int));
    if (grid.in == NULL || grid.out == NULL)
        bench_die("no memory");
    for (long i = 0; i < run.n; i++)
        grid.in[i] = (int)(i & 0x7fff);
}

static void map_squares(bool by_element)
{
    grid.by_element = by_element;
    grid.block = by_element ? call_each : square_block;
    grid.pieces = 4 * run.workers;
    make_grid();
    bench_watch(MAX_SECONDS);
    bench_task = run_piece;
    make_cells(grid.pieces);
    peer.open();
    if (peer.range != NULL)
        run_map(0);
    else
        bench_produce(run_map);
    peer.close();
}

static void map_elements(void)
{
    map_squares(true);
}
static void map_ranges(void)
{
    map_squares(false);
}

/* ---- W6: memory of what is queued ----------------------------------------------------------- */

static sem_t gate_reached, gate_open;

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        continue; /* a signal */
}

static int twice_or_gate(int arg)
{
    if (arg != GATE)
        return twice(arg);
    sem_post(&gate_reached);
    wait_for(&gate_open);
    return 0;
}

static void run_queued(int producer)
{
    (void)producer;
    bench_expect(run.n + 1);
    peer.submit(cell(run.n), GATE);
    wait_for(&gate_reached);
    int64_t before = bench_resident();
    for (long i = 0; i < run.n; i++)
        peer.submit(cell(i), (int)i);
    int64_t after = bench_resident();
    sem_post(&gate_open);
    if (peer.collect(cells, run.n + 1) != run.n * (run.n - 1))
        bench_die("wrong results");
    bench_print("bytes=%.1f", (double)(after - before) / (double)run.n + (double)peer.request_size);
}

static void queued_memory(void)
{
    sem_init(&gate_reached, 0, 0);
    sem_init(&gate_open, 0, 0);
    with_pool(twice_or_gate, run.n + 1, run_queued);
}

/* ---- W7: skewed tasks ----------------------------------------------------------------------- */

int bench_skewed(int arg)
{
    bench_spin(arg % 64 == 0 ? 1000 : 1);
    return twice(arg);
}

static void skew_serially(void)
{
    for (long i = 0; i < run.n; i++)
        bench_skewed((int)i);
}

void bench_against_ideal(int64_t (*parallel)(void))
{
    double serial = timed(skew_serially), took = (double)parallel();
    serial = (serial + timed(skew_serially)) / 2;
    int together = run.workers < bench_cpu_count() ? run.workers : bench_cpu_count();
    double ideal = serial / together;
    bench_print("vs_ideal=%.3f ms=%.1f ideal_ms=%.1f", took / ideal, took / 1e6, ideal / 1e6);
}

static int64_t skew_in_pool(void)
{
    with_pool(bench_skewed, run.n, run_share);
    return laps[0].end - laps[0].begin;
}

static void skewed_tasks(void)
{
    bench_against_ideal(skew_in_pool);
}

/* ---- Wf: memory over many tasks ------------------------------------------------------------- */

static void await_window(void)
{
    submit_cells(0, WINDOW);
    collect_cells(0, WINDOW);
}

static void drop_window(void)
{
    submit_cells(0, WINDOW);
    for (long i = 0; i < WINDOW - 1; i++)
        peer.drop(cell(i));
    collect_cells(WINDOW - 1, 1);
}

static void run_windows(void (*window)(void))
{
    long windows = run.n / WINDOW, settling = windows / 10 + 1;
    int64_t begin = bench_now(), before = 0;
    for (long i = 0; i < windows; i++) {
        if (i == settling)
            before = bench_resident();
        window();
    }
    double growth = (double)(bench_resident() - before);
    bench_print("growth_kib=%.0f ns=%.1f resident_kib=%.0f", growth / 1024,
                (double)(bench_now() - begin) / (double)run.n, (double)bench_resident() / 1024);
}

static void run_awaited(int producer)
{
    (void)producer;
    run_windows(await_window);
}

static void run_dropped(int producer)
{
    (void)producer;
    run_windows(drop_window);
}

static void awaited_windows(void)
{
    with_pool(twice, WINDOW, run_awaited);
}

static void dropped_windows(void)
{
    if (peer.drop == NULL)
        exit(2);
    with_pool(twice, WINDOW, run_dropped);
}

/* ---- Wi: idle ------------------------------------------------------------------------------- */

#define BUSY_NS 20000 /* of CPU time in a millisecond: more than that is not quiet */

static void sleep_a_millisecond(void)
{
    struct timespec t = { .tv_nsec = 1000000 };
    nanosleep(&t, NULL);
}

static void watch_idle_pool(void)
{
    int64_t begin = bench_now(), first = bench_cpu_of_others(), last = first, busy_until = begin;
    while (bench_now() - begin < run.n * 1000000) {
        sleep_a_millisecond();
        int64_t cpu = bench_cpu_of_others();
        if (cpu > last + BUSY_NS)
            busy_until = bench_now();
        if (cpu > last) /* a difference of two clocks can step back a little */
            last = cpu;
    }
    bench_print("cpu_ms=%.3f quiet_ms=%.1f", (double)(last - first) / 1e6,
                (double)(busy_until - begin) / 1e6);
}

static void run_burst(int producer)
{
    (void)producer;
    await_window();
}

/* No bench_watch here: an idle process looks like a stalled one. */
static void idle_pool(void)
{
    bench_task = twice;
    make_cells(WINDOW);
    peer.open();
    bench_produce(run_burst);
    watch_idle_pool();
    peer.close();
}

const struct workload bench_workloads[] = {
    { "W1", many_tasks, 1, false },      { "W2", round_trips, 1, false },
    { "W3", fork_join, 1, true },        { "W4", many_tasks, 4, false },
    { "W5", map_elements, 1, true },     { "W5r", map_ranges, 1, true },
    { "W6", queued_memory, 1, false },   { "W7", skewed_tasks, 1, true },
    { "Wf", awaited_windows, 1, false }, { "Wfd", dropped_windows, 1, false },
    { "Wi", idle_pool, 1, false },       { NULL, NULL, 0, false },
};
