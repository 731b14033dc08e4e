/* SPDX-License-Identifier: MIT */
/* The two ways to run many calls, and what each takes: map keeps the order of the arguments,
 * submit with as_completed gives whichever result is there first. */
#include "common.h"

enum { NUM = 10 };

static int square(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int *)result = x * x;
    return 0;
}

static void by_map(int results[NUM])
{
    int numbers[NUM];
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(NULL, &executor));
    for (int x = 0; x < NUM; x++)
        numbers[x] = x;
    TRY(CF_MAP(executor, square, numbers, NUM, results, CF_FOREVER));
}

static void by_submit(int results[NUM])
{
    cf_auto_executor *executor = NULL;
    cf_future *futures[NUM];
    cf_completed *completed;
    size_t i, count = 0;
    TRY(cf_thread_pool_new(NULL, &executor));
    for (int x = 0; x < NUM; x++)
        TRY(CF_SUBMIT(executor, square, &x, int, &futures[x]));
    TRY(cf_as_completed(futures, NUM, CF_FOREVER, &completed));
    while (cf_completed_next(completed, &i) == CF_OK)
        TRY(CF_RESULT(futures[i], 0, &results[count++]));
    cf_completed_free(completed);
    cf_future_unref_all(futures, NUM);
}

static void report_time(const char *name, void (*run)(int *results))
{
    int results[NUM];
    double start = now();
    run(results);
    printf("Time for %s: %.6f s\n", name, now() - start);
    for (int i = 0; i < NUM; i++)
        printf("%s%d", i == 0 ? "[" : ", ", results[i]);
    puts("]");
}

int main(void)
{
    report_time("using map", by_map);
    report_time("using submit", by_submit);
    return 0;
}
