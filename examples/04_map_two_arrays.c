/* SPDX-License-Identifier: MIT */
/* Map over two arrays, in two ways: as one array of pairs, or as two columns and a range of them.
 */
#include "common.h"

struct pair {
    int x, y;
};

static int multiply(const void *arg, void *result)
{
    const struct pair *pair = arg;
    *(int *)result = pair->x * pair->y;
    return 0;
}

struct columns {
    const int *x, *y;
};

static int multiply_range(const void *context, size_t begin, size_t end, void *results)
{
    const struct columns *columns = context;
    int *products = results;
    for (size_t i = begin; i < end; i++)
        products[i - begin] = columns->x[i] * columns->y[i];
    return 0;
}

static void print(const char *how, const int r[5])
{
    printf("%s: [%d, %d, %d, %d, %d]\n", how, r[0], r[1], r[2], r[3], r[4]);
}

int main(void)
{
    static const struct pair pairs[5] = { { 1, 10 }, { 2, 20 }, { 3, 30 }, { 4, 40 }, { 5, 50 } };
    static const int xs[5] = { 1, 2, 3, 4, 5 }, ys[5] = { 10, 20, 30, 40, 50 };
    int results[5];
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(NULL, &executor));

    TRY(CF_MAP(executor, multiply, pairs, 5, results, CF_FOREVER));
    print("pairs", results);

    struct columns columns = { xs, ys };
    TRY(cf_map_range(executor, multiply_range, &columns, sizeof columns, 5, results,
                     sizeof *results, CF_FOREVER));
    print("columns", results);
    return 0;
}
