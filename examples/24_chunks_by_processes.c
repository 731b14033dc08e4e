/* SPDX-License-Identifier: MIT */
/* The table of 20_chunks again, by worker processes, where every task has a way to go.  In chunks:
 * each task computes chunk_size elements.  In the last column each element is a task of its own,
 * and what travels together is the library's business.
 * usage: 24_chunks_by_processes [max_workers chunk_size num_tasks num_calc] */
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

/* As many elements as there are in the argument. */
static int chunk(const void *arg, size_t arg_size, cf_bytes *result)
{
    const struct params *params = arg;
    size_t count = arg_size / sizeof *params;
    if (cf_bytes_resize(result, count * sizeof(double)) != CF_OK)
        return cf_raise(1, "no memory");
    for (size_t i = 0; i < count; i++)
        task(&params[i], (double *)result->data + i);
    return 0;
}

static void *array(size_t count, size_t size)
{
    void *elements = calloc(count, size);
    if (elements == NULL) {
        perror("calloc");
        exit(1);
    }
    return elements;
}

static void map_in_chunks(cf_executor *executor, struct params *params, double *results,
                          struct setting s)
{
    size_t count = (s.num_tasks + s.chunk_size - 1) / s.chunk_size, end = s.num_tasks;
    cf_bytes *in = array(count, sizeof *in), *out = array(count, sizeof *out);
    for (size_t i = 0; i < count; i++) {
        size_t first = i * s.chunk_size;
        size_t length = end - first < s.chunk_size ? end - first : s.chunk_size;
        in[i] = (cf_bytes){ &params[first], length * sizeof *params };
    }
    TRY(cf_map_bytes(executor, chunk, in, count, out, CF_FOREVER));
    for (size_t i = 0; i < count; i++) {
        memcpy(&results[i * s.chunk_size], out[i].data, out[i].size);
        cf_bytes_free(&out[i]);
    }
    free(in);
    free(out);
}

/* The seconds that a setting takes, from an empty pool to one that is gone; chunk_size 0: none. */
static double run(struct setting s, struct params *params, double *results)
{
    double start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = s.max_workers), &executor));
        if (s.chunk_size > 0)
            map_in_chunks(executor, params, results, s);
        else
            TRY(CF_MAP(executor, task, params, s.num_tasks, results, CF_FOREVER));
    }
    return now() - start;
}

/* The seconds in chunks and without; false: the results were not the same. */
static bool measure(struct setting s, double seconds[2])
{
    struct params *params = array(s.num_tasks, sizeof *params);
    double *in_chunks = array(s.num_tasks, sizeof(double));
    double *one_by_one = array(s.num_tasks, sizeof(double));
    for (unsigned i = 0; i < s.num_tasks; i++)
        params[i] = (struct params){ rand() / (RAND_MAX + 1.0), s.num_calc };
    seconds[0] = run(s, params, in_chunks);
    s.chunk_size = 0;
    seconds[1] = run(s, params, one_by_one);
    bool same = memcmp(in_chunks, one_by_one, s.num_tasks * sizeof(double)) == 0;
    free(params);
    free(in_chunks);
    free(one_by_one);
    return same;
}

static int print_table(const struct setting *rows, int count)
{
    puts("max_workers chunk_size num_tasks num_calc Execution time(sec) without chunk_size");
    for (int i = 0; i < count; i++) {
        struct setting s = rows[i];
        double seconds[2];
        if (!measure(s, seconds)) {
            puts("the results are not the same");
            return 1;
        }
        printf("%11u %10u %9u %8u", s.max_workers, s.chunk_size, s.num_tasks, s.num_calc);
        printf(" %19.3f %18.3f\n", seconds[0], seconds[1]);
    }
    return 0;
}

static unsigned number(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    static const struct setting rows[10] = {
        { 1, 1, 100, 100000 },   { 2, 1, 100, 100000 },  { 1, 10, 100, 100000 },
        { 2, 10, 100, 100000 },  { 1, 1, 10000, 1000 },  { 2, 1, 10000, 1000 },
        { 1, 10, 10000, 1000 },  { 2, 10, 10000, 1000 }, { 1, 100, 10000, 1000 },
        { 2, 100, 10000, 1000 },
    };
    cf_worker_main();
    if (argc != 5)
        return print_table(rows, 10);
    return print_table(
        &(struct setting){ number(argv[1]), number(argv[2]), number(argv[3]), number(argv[4]) }, 1);
}
