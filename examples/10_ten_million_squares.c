/* SPDX-License-Identifier: MIT */
/* Ten million calls too small to be worth a task each: cf_map puts many of them into one. */
#include "common.h"

enum { COUNT = 10000000 };

static int square(const void *arg, void *result)
{
    int64_t n = *(const int64_t *)arg;
    *(int64_t *)result = n * n;
    return 0;
}

static int64_t *new_array(void)
{
    int64_t *array = malloc(COUNT * sizeof *array);
    if (array == NULL)
        exit(1);
    memset(array, 0, COUNT * sizeof *array); /* so that no timing below pays for fresh memory */
    return array;
}

int main(void)
{
    int64_t *numbers = new_array(), *serial = new_array(), *results = new_array();
    for (int64_t i = 0; i < COUNT; i++)
        numbers[i] = i;

    double start = now();
    for (size_t i = 0; i < COUNT; i++)
        square(&numbers[i], &serial[i]);
    printf("Serial loop: %.4f s\n", now() - start);

    start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_thread_pool_new(NULL, &executor));
        TRY(CF_MAP(executor, square, numbers, COUNT, results, CF_FOREVER));
    }
    printf("CF_MAP: %.4f s\n", now() - start);

    bool same = memcmp(serial, results, COUNT * sizeof *results) == 0;
    printf("The last of them: %lld, all the same: %s\n", (long long)results[COUNT - 1],
           same ? "yes" : "no");
    free(numbers);
    free(serial);
    free(results);
    return same ? 0 : 1;
}
