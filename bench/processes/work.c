/* SPDX-License-Identifier: MIT */
/* What a task does, and how long the same work takes when nobody has to hand it out. */
#define _GNU_SOURCE
#include "pool.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS_PER_US 500
#define LINE         64
#define LONG_EVERY   64
#define MOST_HELPERS 64

void bench_answer(const struct message *arg, struct message *result)
{
    if (arg->steps > 0)
        bench_steps(arg->steps);
    *result = *arg;
    result->number = 2 * arg->number;
    if (arg->steps == BENCH_WHO) {
        result->worker = getpid();
        result->parent = getppid();
    }
}

uint64_t bench_read(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i += LINE)
        sum += bytes[i];
    return sum;
}

void bench_fill(void *data, size_t size)
{
    memset(data, 1, size);
}

int64_t bench_steps_of(long i, long us, bool mixed)
{
    return us * STEPS_PER_US * (mixed && i % LONG_EVERY == 0 ? 1000 : 1);
}

/* ---- the ideal ------------------------------------------------------------------------------ */

struct start_line {
    atomic_int ready, go;
    int64_t end[MOST_HELPERS];
};

static struct message answers[LONG_EVERY];

/* Runs of 64, so that each gets as many of the long ones. */
static void do_share(int number, int count, long n, long us, bool mixed)
{
    for (long i = 0; i < n; i++) {
        if (i / LONG_EVERY % count != number)
            continue;
        struct message arg = { .number = i, .steps = bench_steps_of(i, us, mixed) };
        bench_answer(&arg, &answers[i % LONG_EVERY]);
        __asm__ volatile("" ::: "memory");
    }
}

static void start_share(struct start_line *line, int number, int count, long n, long us, bool mixed)
{
    pid_t pid = fork();
    if (pid < 0)
        bench_die("no process");
    if (pid > 0)
        return;
    atomic_fetch_add(&line->ready, 1);
    while (!atomic_load(&line->go))
        continue;
    do_share(number, count, n, us, mixed);
    line->end[number] = bench_now();
    _exit(0);
}

static int64_t latest(const int64_t *times, int count)
{
    int64_t last = times[0];
    for (int i = 1; i < count; i++)
        last = times[i] > last ? times[i] : last;
    return last;
}

double bench_ideal(long n, long us, bool mixed)
{
    int count = run.workers < bench_cpu_count() ? run.workers : bench_cpu_count();
    struct start_line *line =
        mmap(NULL, sizeof(*line), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (line == MAP_FAILED || count > MOST_HELPERS)
        bench_die("no memory");
    for (int i = 0; i < count; i++)
        start_share(line, i, count, n, us, mixed);
    while (atomic_load(&line->ready) < count)
        usleep(100);
    int64_t begin = bench_now();
    atomic_store(&line->go, 1);
    for (int i = 0; i < count; i++)
        wait(NULL);
    double took = (double)(latest(line->end, count) - begin);
    munmap(line, sizeof(*line));
    return took;
}

void bench_print_beside(double took, double ideal)
{
    double n = (double)run.n;
    bench_print("vs_ideal=%.4f ns=%.1f ideal_ns=%.1f", took / ideal, took / n, ideal / n);
}
