/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "measure.h"
#include "run.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SPIN_STEPS      700
#define STALLED_NS      5000000 /* less CPU time than this in a second: nobody does anything */
#define STALLED_SECONDS 3       /* so long, lest a busy machine be taken for a deadlock */

static int64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t bench_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t bench_cpu_of_others(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID) - read_clock(CLOCK_THREAD_CPUTIME_ID);
}

int64_t bench_resident(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &size, &resident) != 2)
        bench_die("no /proc/self/statm");
    fclose(file);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

int bench_cpu_count(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

void bench_steps(long count)
{
    uint64_t x = (uint64_t)count;
    for (long i = 0; i < count; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x)); /* else the compiler drops the loop */
    }
}

void bench_spin(int units)
{
    bench_steps((long)units * SPIN_STEPS);
}

static volatile int seconds_left, seconds_stalled;
static volatile int64_t cpu_before;

static void give_up(const char *verdict, int code)
{
    char line[200];
    snprintf(line, sizeof(line), "%s %s %d %ld %s\n", run.peer, run.workload, run.workers, run.n,
             verdict);
    ssize_t written = write(STDOUT_FILENO, line, strlen(line));
    _exit(written < 0 ? 1 : code);
}

static void look(int signal_number)
{
    (void)signal_number;
    int64_t cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    seconds_stalled = cpu - cpu_before < STALLED_NS ? seconds_stalled + 1 : 0;
    if (seconds_stalled == STALLED_SECONDS)
        give_up("DEADLOCK", 3);
    if (--seconds_left <= 0)
        give_up("TOO_SLOW", 4);
    cpu_before = cpu;
}

void bench_watch(int seconds)
{
    seconds_left = seconds;
    cpu_before = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    struct sigaction action = { .sa_handler = look, .sa_flags = SA_RESTART };
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every_second = { { 1, 0 }, { 1, 0 } };
    setitimer(ITIMER_REAL, &every_second, NULL);
}
