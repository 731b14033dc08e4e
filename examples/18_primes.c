/* SPDX-License-Identifier: MIT */
/* Counting primes in ten ranges: real work, which threads in C share between the CPUs.
 * usage: 18_primes [up to, 2000000 if not given] */
#include "common.h"

enum { RANGES = 10 };

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

static long sum(const long counts[RANGES])
{
    long total = 0;
    for (int i = 0; i < RANGES; i++)
        total += counts[i];
    return total;
}

int main(int argc, char **argv)
{
    long step = (argc > 1 ? atol(argv[1]) : 2000000) / RANGES, counts[RANGES];
    struct range ranges[RANGES];
    for (int i = 0; i < RANGES; i++)
        ranges[i] = (struct range){ i * step, (i + 1) * step };

    double start = now();
    for (int i = 0; i < RANGES; i++)
        count_primes(&ranges[i], &counts[i]);
    long expected = sum(counts);
    printf("Sequential: %.3f s, Total primes: %ld\n", now() - start, expected);

    start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), &executor));
        TRY(CF_MAP(executor, count_primes, ranges, RANGES, counts, CF_FOREVER));
    }
    printf("Threads: %.3f s, Total primes: %ld\n", now() - start, sum(counts));
    return sum(counts) == expected ? 0 : 1;
}
