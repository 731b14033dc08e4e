/* SPDX-License-Identifier: MIT */
/* Counting primes one range after the other, with threads and with processes: one function, and
 * where it runs is up to the executor.
 * usage: 23_primes_three_ways [up to, 2000000 if not given] */
#include "common.h"

enum { RANGES = 10, WORKERS = 4 };

struct range {
    long start, end;
};

static bool is_prime(long n)
{
    if (n < 2)
        return false;
    for (long i = 2; i * i <= n; i++)
        if (n % i == 0)
            return false;
    return true;
}

static int count_primes(const void *arg, void *result)
{
    const struct range *range = arg;
    long count = 0;
    for (long n = range->start; n < range->end; n++)
        count += is_prime(n);
    *(long *)result = count;
    return 0;
}

static void report(const char *how, double start, const long counts[RANGES])
{
    long total = 0;
    for (int i = 0; i < RANGES; i++)
        total += counts[i];
    printf("%s: %.3f s, Total primes: %ld\n", how, now() - start, total);
}

int main(int argc, char **argv)
{
    cf_worker_main(); /* here the worker processes begin, and they go no further */
    long step = (argc > 1 ? atol(argv[1]) : 2000000) / RANGES, counts[RANGES];
    struct range ranges[RANGES];
    for (int i = 0; i < RANGES; i++)
        ranges[i] = (struct range){ i * step, (i + 1) * step };

    double start = now();
    for (int i = 0; i < RANGES; i++)
        count_primes(&ranges[i], &counts[i]);
    report("Sequential", start, counts);

    start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = WORKERS), &executor));
        TRY(CF_MAP(executor, count_primes, ranges, RANGES, counts, CF_FOREVER));
    }
    report("Threads", start, counts);

    start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = WORKERS), &executor));
        TRY(CF_MAP(executor, count_primes, ranges, RANGES, counts, CF_FOREVER));
    }
    report("Processes", start, counts);
    return 0;
}
