/* SPDX-License-Identifier: MIT */
/* Large and small tasks, one by one and in chunks.  The last column leaves the size of the chunks
 * to the library.  usage: 20_chunks [max_workers chunk_size num_tasks num_calc] */
#include "common.h"
#include <math.h>

struct setting {
    unsigned max_workers, chunk_size, num_tasks, num_calc;
};

struct params {
    double v;
    unsigned num_calc;
};

static int task(const void *arg, void *result)
{
    const struct params *params = arg;
    double a = params->v;
    for (unsigned i = 0; i < params->num_calc; i++)
        a = pow(a, a);
    *(double *)result = a;
    return 0;
}

struct source {
    struct params params;
    unsigned num_tasks;
};

static bool next_params(void *data, size_t index, cf_task *next)
{
    struct source *source = data;
    source->params.v = rand() / (RAND_MAX + 1.0);
    next->arg = &source->params;
    return index < source->num_tasks;
}

static double run(struct setting s)
{
    double start = now();
    {
        double a;
        size_t i;
        struct source source = { { 0, s.num_calc }, s.num_tasks };
        const cf_task *each =
            CF_TASK(.fn = task, .arg_size = sizeof source.params, .result_size = sizeof a);
        cf_auto_executor *executor = NULL;
        cf_results *results;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = s.max_workers), &executor));
        TRY(cf_map_from(executor, each, next_params, &source,
                        CF_MAP_OPTIONS(.chunk_size = s.chunk_size), CF_FOREVER, &results));
        for (unsigned n = 0; n < s.num_tasks; n++)
            TRY(cf_results_next(results, &a, sizeof a, &i));
        cf_results_free(results);
    }
    return now() - start;
}

static void print_table(void)
{
    static const struct setting rows[10] = {
        { 1, 1, 100, 100000 },   { 2, 1, 100, 100000 },  { 1, 10, 100, 100000 },
        { 2, 10, 100, 100000 },  { 1, 1, 10000, 1000 },  { 2, 1, 10000, 1000 },
        { 1, 10, 10000, 1000 },  { 2, 10, 10000, 1000 }, { 1, 100, 10000, 1000 },
        { 2, 100, 10000, 1000 },
    };
    puts("max_workers chunk_size num_tasks num_calc Execution time(sec) without chunk_size");
    for (int i = 0; i < 10; i++) {
        struct setting s = rows[i];
        printf("%11u %10u %9u %8u", s.max_workers, s.chunk_size, s.num_tasks, s.num_calc);
        printf(" %19.3f", run(s));
        s.chunk_size = 0;
        printf(" %18.3f\n", run(s));
    }
}

static unsigned number(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    if (argc == 5)
        printf("%.3f\n", run((struct setting){ number(argv[1]), number(argv[2]), number(argv[3]),
                                               number(argv[4]) }));
    else
        print_table();
    return 0;
}
