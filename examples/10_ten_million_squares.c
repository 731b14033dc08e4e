/* SPDX-License-Identifier: MIT */
/* Ten million calls of a nanosecond each.  cf_map puts many of them into one task, but still makes
 * each call; cf_map_range hands whole ranges to a loop that the compiler can see. */
#include "common.h"

enum { COUNT = 10000000 };

static int square(const void *arg, void *result)
{
    int64_t n = *(const int64_t *)arg;
    *(int64_t *)result = n * n;
    return 0;
}

static int square_range(const void *context, size_t begin, size_t end, void *results)
{
    const int64_t *numbers = context;
    int64_t *squares = results;
    for (size_t i = begin; i < end; i++)
        squares[i - begin] = numbers[i] * numbers[i];
    return 0;
}

static int64_t *new_array(void)
{
    int64_t *array = malloc(COUNT * sizeof *array);
    if (array == NULL)
        exit(1);
    memset(array, 1, COUNT * sizeof *array); /* so that no timing below pays for fresh memory */
    return array;
}

static void report(const char *name, double start, const int64_t *squares)
{
    printf("%s: %.4f s, the last square: %lld\n", name, now() - start,
           (long long)squares[COUNT - 1]);
}

int main(void)
{
    int64_t *numbers = new_array(), *serial = new_array(), *mapped = new_array();
    for (int64_t i = 0; i < COUNT; i++)
        numbers[i] = i;
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = cf_cpu_count()), &executor));

    double start = now();
    for (size_t i = 0; i < COUNT; i++)
        square(&numbers[i], &serial[i]);
    report("Serial loop", start, serial);

    start = now();
    TRY(CF_MAP(executor, square, numbers, COUNT, mapped, CF_FOREVER));
    report("CF_MAP", start, mapped);
    bool same = memcmp(serial, mapped, COUNT * sizeof *mapped) == 0;

    memset(mapped, 1, COUNT * sizeof *mapped);
    start = now();
    TRY(cf_map_range(executor, square_range, numbers, COUNT * sizeof *numbers, COUNT, mapped,
                     sizeof *mapped, CF_FOREVER));
    report("cf_map_range", start, mapped);
    same = same && memcmp(serial, mapped, COUNT * sizeof *mapped) == 0;

    printf("All the same: %s\n", same ? "yes" : "no");
    free(numbers);
    free(serial);
    free(mapped);
    return same ? 0 : 1;
}
