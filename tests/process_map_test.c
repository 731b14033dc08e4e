/* SPDX-License-Identifier: MIT */
/* The four maps over worker processes: the same as over no workers at all, and what only processes do:
 * die, read-only arguments, nothing shared. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cfutures.h>

static cf_executor *pool_of(unsigned max_workers)
{
    cf_executor *pool = NULL;
    const cf_process_pool_options options = { .size = sizeof options, .max_workers = max_workers };
    assert_int_equal(cf_process_pool_new(&options, &pool), CF_OK);
    return pool;
}

static cf_executor *inline_executor(void)
{
    cf_executor *executor = NULL;
    assert_int_equal(cf_inline_executor_new(&executor), CF_OK);
    return executor;
}

static void assert_ok(cf_status status)
{
    if (status != CF_OK)
        fail_msg("%s: %s (index %zu)", cf_status_name(status), cf_last_error()->message,
                 cf_last_error()->index);
}

static void assert_process_error(cf_status status, int code, const char *message, size_t index)
{
    const cf_error *e = cf_last_error();
    assert_int_equal(e->status, status);
    assert_int_equal(e->code, code);
    assert_string_equal(e->message, message);
    assert_int_equal(e->index, index);
    assert_true(e->worker_pid > 0 && e->worker_pid != getpid());
}

/* ---- every element once, in its place ---- */

static int square(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int64_t *)result = (int64_t)x * x;
    return 0;
}

static void map_squares(cf_executor *executor, size_t count, int64_t timeout_ns)
{
    int *args = calloc(count + 1, sizeof *args);
    int64_t *results = calloc(count + 1, sizeof *results);
    for (size_t i = 0; i < count; i++)
        args[i] = (int)i;
    assert_ok(CF_MAP(executor, square, args, count, results, timeout_ns));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(results[i], (int64_t)i * (int64_t)i);
    assert_int_equal(results[count], 0);
    free(args);
    free(results);
}

static void test_squares(void **state)
{
    (void)state;
    static const size_t counts[] = { 0, 1, 2, 3, 17, 1000, 200000 };
    for (unsigned workers = 1; workers < 4; workers++) {
        cf_executor *pool = pool_of(workers);
        for (size_t i = 0; i < COUNT_OF(counts); i++) {
            map_squares(pool, counts[i], CF_FOREVER);
            map_squares(pool, counts[i], CF_SECONDS(50));
        }
        cf_executor_free(pool);
    }
}

struct odd {
    unsigned char bytes[3];
};
struct odder {
    unsigned char bytes[5];
};

static int widen(const void *arg, void *result)
{
    const struct odd *in = arg;
    struct odder *out = result;
    for (size_t i = 0; i < sizeof out->bytes; i++)
        out->bytes[i] = (unsigned char)(in->bytes[i % 3] * 7 + i);
    return 0;
}

static void test_odd_sizes_as_inline(void **state)
{
    (void)state;
    enum { COUNT = 30000 };
    static struct odd args[COUNT];
    static struct odder results[COUNT], expected[COUNT];
    for (size_t i = 0; i < sizeof args; i++)
        ((unsigned char *)args)[i] = (unsigned char)(i * 31);
    cf_executor *plain = inline_executor(), *pool = pool_of(2);
    assert_ok(CF_MAP(plain, widen, args, COUNT, expected, CF_FOREVER));
    assert_ok(CF_MAP(pool, widen, args, COUNT, results, CF_FOREVER));
    assert_memory_equal(results, expected, sizeof expected);
    cf_executor_free(pool);
    cf_executor_free(plain);
}

static int expect_nulls(const void *arg, void *result)
{
    return arg || result ? cf_raise(1, "there is something") : 0;
}

static int index_of(const void *arg, void *result)
{
    *(int64_t *)result = arg ? 1 : 7;
    return 0;
}

static int expect_no_context(const void *context, size_t begin, size_t end, void *results)
{
    return context || results || begin >= end ? cf_raise(1, "there is something") : 0;
}

static int reverse(const void *arg, size_t size, cf_bytes *result)
{
    const char *in = arg;
    if (cf_bytes_resize(result, size) != CF_OK)
        return cf_raise(ENOMEM, "no memory for %zu bytes", size);
    for (size_t i = 0; i < size; i++)
        ((char *)result->data)[i] = in[size - 1 - i];
    return 0;
}

static void test_no_arrays(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    int64_t results[1000] = { 0 };
    assert_ok(cf_map(pool, expect_nulls, NULL, 100000, 0, NULL, 0, CF_FOREVER));
    assert_ok(cf_map(pool, index_of, NULL, 1000, 0, results, sizeof *results, CF_FOREVER));
    for (size_t i = 0; i < COUNT_OF(results); i++)
        assert_int_equal(results[i], 7);
    assert_ok(cf_map_range(pool, expect_no_context, NULL, 0, 1000, NULL, 0, CF_FOREVER));
    assert_ok(cf_map(pool, square, NULL, 0, 4, NULL, 8, 0));
    assert_ok(cf_map_bytes(pool, reverse, NULL, 0, NULL, CF_FOREVER));
    cf_executor_free(pool);
}

enum { WORDS = 2000 };

static void assert_reversed(const cf_bytes *result, const cf_bytes *arg)
{
    assert_int_equal(result->size, arg->size);
    assert_int_equal(result->data != NULL, arg->size != 0);
    for (size_t i = 0; i < arg->size; i++) {
        if (((char *)result->data)[i] != ((char *)arg->data)[arg->size - 1 - i])
            fail_msg("byte %zu of %zu differs", i, arg->size);
    }
}

static void map_words(cf_executor *executor, int64_t timeout_ns)
{
    static char text[200000];
    static cf_bytes args[WORDS], results[WORDS];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * i % 251);
    for (size_t i = 0; i < WORDS; i++) {
        size_t size = i % 500 == 499 ? sizeof text : i * i % 97;
        args[i] = (cf_bytes){ size ? text : NULL, size };
    }
    assert_ok(cf_map_bytes(executor, reverse, args, WORDS, results, timeout_ns));
    for (size_t i = 0; i < WORDS; i++) {
        assert_reversed(&results[i], &args[i]);
        cf_bytes_free(&results[i]);
    }
}

static void test_bytes(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    map_words(pool, CF_FOREVER);
    map_words(pool, CF_SECONDS(50));
    cf_executor_free(pool);
}

struct context {
    size_t size;
    unsigned char bytes[];
};

static int sum_with_context(const void *context, size_t begin, size_t end, void *results)
{
    const struct context *c = context;
    for (size_t i = begin; i < end; i++)
        ((size_t *)results)[i - begin] = i + c->bytes[i % c->size] + c->bytes[c->size - 1];
    return 0;
}

static void map_with_context(cf_executor *executor, size_t size, size_t count)
{
    struct context *c = malloc(sizeof *c + size);
    size_t *results = calloc(count, sizeof *results);
    c->size = size;
    for (size_t i = 0; i < size; i++)
        c->bytes[i] = (unsigned char)(i * 13);
    assert_ok(cf_map_range(executor, sum_with_context, c, sizeof *c + size, count, results,
                           sizeof *results, CF_FOREVER));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(results[i], i + c->bytes[i % size] + c->bytes[size - 1]);
    free(results);
    free(c);
}

static void test_range(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    map_with_context(pool, 10, 100000);
    map_with_context(pool, 4096, 1000);
    map_with_context(pool, 70000, 1000);
    map_with_context(pool, 16 << 20, 100000);
    cf_executor_free(pool);
}

/* ---- large elements ---- */

enum { LARGE = 8 << 20 };

static int add_one(const void *arg, void *result)
{
    const unsigned char *in = arg;
    unsigned char *out = result;
    for (size_t i = 0; i < LARGE; i++)
        out[i] = (unsigned char)(in[i] + 1);
    return 0;
}

static void test_large_elements(void **state)
{
    (void)state;
    enum { COUNT = 5 };
    unsigned char *args = malloc((size_t)COUNT * LARGE), *results = malloc((size_t)COUNT * LARGE);
    for (size_t i = 0; i < (size_t)COUNT * LARGE; i++)
        args[i] = (unsigned char)(i >> 12 ^ i);
    cf_executor *pool = pool_of(2);
    assert_ok(cf_map(pool, add_one, args, COUNT, LARGE, results, LARGE, CF_FOREVER));
    for (size_t i = 0; i < (size_t)COUNT * LARGE; i++) {
        if (results[i] != (unsigned char)(args[i] + 1))
            fail_msg("byte %zu differs", i);
    }
    cf_bytes in[COUNT], out[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        in[i] = (cf_bytes){ args + i * LARGE, LARGE };
    assert_ok(cf_map_bytes(pool, reverse, in, COUNT, out, CF_FOREVER));
    cf_executor_free(pool);
    for (size_t i = 0; i < COUNT; i++) { /* they outlive the pool */
        assert_reversed(&out[i], &in[i]);
        cf_bytes_free(&out[i]);
    }
    free(args);
    free(results);
}

static int copy(const void *arg, size_t size, cf_bytes *result)
{
    if (cf_bytes_resize(result, size) != CF_OK)
        return cf_raise(ENOMEM, "no memory for %zu bytes", size);
    if (size)
        memcpy(result->data, arg, size);
    return 0;
}

/* The memory that results lie in is used again, for smaller ones too. */
static void test_small_elements_after_large_ones(void **state)
{
    (void)state;
    enum { FEW = 40, MANY = 100000, SIZE = 1 << 20 };
    static cf_bytes large[FEW], small[MANY], results[MANY];
    unsigned char *data = malloc((size_t)FEW * SIZE);
    for (size_t i = 0; i < (size_t)FEW * SIZE; i++)
        data[i] = (unsigned char)(i >> 20 ^ i);
    for (size_t i = 0; i < FEW; i++)
        large[i] = (cf_bytes){ data + i * SIZE, SIZE };
    for (size_t i = 0; i < MANY; i++)
        small[i] = (cf_bytes){ data + i, i % 64 };
    cf_executor *pool = pool_of(2);
    for (int round = 0; round < 10; round++) {
        const cf_bytes *args = round % 2 ? small : large;
        size_t count = round % 2 ? MANY : FEW;
        assert_ok(cf_map_bytes(pool, copy, args, count, results, CF_FOREVER));
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(results[i].size, args[i].size);
            if (args[i].size)
                assert_memory_equal(results[i].data, args[i].data, args[i].size);
            cf_bytes_free(&results[i]);
        }
    }
    cf_executor_free(pool);
    free(data);
}

/* ---- failures ---- */

static int fail_from_7_on(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int *)result = x;
    return x < 7 ? 0 : cf_raise(x, "%d is too much", x);
}

static void iota(int *array, int count)
{
    for (int i = 0; i < count; i++)
        array[i] = i;
}

static void test_first_failure_ends_it(void **state)
{
    (void)state;
    int args[100], results[100];
    iota(args, 100);
    cf_executor *pool = pool_of(1);
    for (int limited = 0; limited < 2; limited++) {
        memset(results, -1, sizeof results);
        assert_int_equal(
            CF_MAP(pool, fail_from_7_on, args, 100, results, limited ? CF_SECONDS(50) : CF_FOREVER),
            CF_FAILED);
        assert_process_error(CF_FAILED, 7, "7 is too much", 7);
        for (int i = 0; i < 100; i++)
            assert_int_equal(results[i], i < 7 ? i : -1);
    }
    cf_executor_free(pool);
}

static void test_failure_among_many_workers(void **state)
{
    (void)state;
    static int args[10000], results[10000];
    iota(args, 10000);
    cf_executor *pool = pool_of(3);
    for (int round = 0; round < 50; round++) {
        assert_int_equal(CF_MAP(pool, fail_from_7_on, args, 10000, results, CF_FOREVER), CF_FAILED);
        const cf_error *e = cf_last_error();
        assert_true(e->index >= 7 && e->index < 10000);
        assert_int_equal(e->code, (int)e->index);
    }
    cf_executor_free(pool);
}

/* 0 ends when it is told to stop; 1 says why. */
static int obey_or_fail(const void *arg, void *result)
{
    (void)result;
    if (*(const int *)arg == 1)
        return cf_raise(7, "the cause");
    WAIT_UNTIL(cf_stop_requested());
    return cf_raise(8, "I only obeyed");
}

static void test_who_obeys_does_not_hide_the_cause(void **state)
{
    (void)state;
    int args[2] = { 0, 1 };
    cf_executor *pool = pool_of(2);
    assert_int_equal(cf_map(pool, obey_or_fail, args, 2, sizeof *args, NULL, 0, CF_FOREVER),
                     CF_FAILED);
    assert_process_error(CF_FAILED, 7, "the cause", 1);
    cf_executor_free(pool);
}

static int range_fails(const void *context, size_t begin, size_t end, void *results)
{
    (void)context, (void)results;
    return begin <= 50 && 50 < end ? cf_raise(4, "%zu", begin) : 0;
}

static void test_range_fails_at_its_begin(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    assert_int_equal(cf_map_range(pool, range_fails, NULL, 0, 100, NULL, 0, CF_FOREVER), CF_FAILED);
    assert_int_equal(cf_last_error()->index, strtoul(cf_last_error()->message, NULL, 10));
    assert_in_range(cf_last_error()->index, 0, 50);
    cf_executor_free(pool);
}

static int reverse_but_5(const void *arg, size_t size, cf_bytes *result)
{
    int code = reverse(arg, size, result);
    return size == 5 ? cf_raise(5, "five") : code;
}

static void test_results_beside_a_failure_are_the_callers(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    for (int limited = 0; limited < 2; limited++) {
        char text[10] = "abcdefghi";
        cf_bytes args[10], results[10];
        for (size_t i = 0; i < 10; i++) {
            args[i] = (cf_bytes){ text, i };
            results[i] = (cf_bytes){ text, 99 };
        }
        assert_int_equal(cf_map_bytes(pool, reverse_but_5, args, 10, results,
                                      limited ? CF_SECONDS(50) : CF_FOREVER),
                         CF_FAILED);
        assert_process_error(CF_FAILED, 5, "five", 5);
        for (size_t i = 0; i < 10; i++) {
            if (i < 5 || results[i].data)
                assert_reversed(&results[i], &args[i]);
            assert_true(i != 5 || !results[i].data);
            cf_bytes_free(&results[i]);
        }
    }
    cf_executor_free(pool);
}

/* ---- deaths ---- */

enum { MORTAL = 500 };

/* 77 dies. */
static int die_at_77(const void *arg, void *result)
{
    int x = *(const int *)arg;
    if (x == 77)
        kill(getpid(), SIGKILL);
    *(int *)result = x + 1;
    return 0;
}

static int exit_at_77(const void *arg, void *result)
{
    if (*(const int *)arg == 77)
        _exit(3);
    *(int *)result = *(const int *)arg + 1;
    return 0;
}

static void test_death_costs_its_piece(void **state)
{
    (void)state;
    int args[MORTAL], results[MORTAL];
    iota(args, MORTAL);
    cf_fn *const fns[] = { die_at_77, exit_at_77 };
    cf_executor *pool = pool_of(2);
    for (size_t i = 0; i < COUNT_OF(fns); i++) {
        memset(results, 0, sizeof results);
        assert_int_equal(CF_MAP(pool, fns[i], args, MORTAL, results, CF_FOREVER), CF_BROKEN);
        const cf_error *e = cf_last_error();
        assert_int_equal(e->status, CF_BROKEN);
        assert_in_range(e->index, 0, 77);
        assert_true(e->worker_pid > 0);
        assert_int_equal(e->signal_number, i ? 0 : SIGKILL);
        assert_int_equal(e->exit_code, i ? 3 : -1);
        for (int j = 0; j < MORTAL; j++)
            assert_true(results[j] == 0 || results[j] == args[j] + 1);
        map_squares(pool, 1000, CF_FOREVER);
    }
    cf_executor_free(pool);
}

static int die_of_words(const void *arg, size_t size, cf_bytes *result)
{
    if (size == 60)
        kill(getpid(), SIGKILL);
    return reverse(arg, size, result);
}

static void test_death_among_words(void **state)
{
    (void)state;
    static char text[100];
    memset(text, 'x', sizeof text);
    cf_bytes args[100], results[100];
    for (size_t i = 0; i < 100; i++)
        args[i] = (cf_bytes){ text, i };
    cf_executor *pool = pool_of(2);
    assert_int_equal(cf_map_bytes(pool, die_of_words, args, 100, results, CF_FOREVER), CF_BROKEN);
    assert_in_range(cf_last_error()->index, 0, 60);
    for (size_t i = 0; i < 100; i++) {
        if (results[i].data)
            assert_reversed(&results[i], &args[i]);
        else
            assert_int_equal(results[i].size, 0);
        cf_bytes_free(&results[i]);
    }
    cf_executor_free(pool);
}

/* ---- time limits ---- */

static int wait_for_stop(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg;
    WAIT_UNTIL(cf_stop_requested());
    return 0;
}

static void test_time_out_asks_to_stop(void **state)
{
    (void)state;
    int args[20], results[20];
    iota(args, 20);
    cf_executor *pool = pool_of(2);
    assert_int_equal(CF_MAP(pool, wait_for_stop, args, 20, results, CF_MS(50)), CF_TIMEOUT);
    assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
    assert_non_null(strstr(cf_last_error()->message, "20"));
    memset(args, 0xff, sizeof args); /* nobody looks there any more */
    map_squares(pool, 100, CF_FOREVER);
    cf_executor_free(pool);
}

static void test_no_time(void **state)
{
    (void)state;
    int args[8], results[8];
    iota(args, 8);
    cf_bytes word = { args, 4 }, out = { args, 1 };
    cf_executor *pool = pool_of(1);
    assert_int_equal(CF_MAP(pool, fail_from_7_on, args, 8, results, 0), CF_TIMEOUT);
    assert_int_equal(CF_MAP(pool, fail_from_7_on, args, 8, results, -5), CF_TIMEOUT);
    assert_int_equal(cf_map_bytes(pool, reverse, &word, 1, &out, 0), CF_TIMEOUT);
    assert_null(out.data);
    cf_executor_free(pool);
}

static int fail_or_hang(const void *arg, void *result)
{
    (void)result;
    if (*(const int *)arg == 1)
        return cf_raise(6, "I have failed");
    for (;;)
        pause();
}

static void test_failure_counts_more_than_the_time(void **state)
{
    (void)state;
    int args[2] = { 0, 1 };
    cf_executor *pool = pool_of(2);
    assert_int_equal(cf_map(pool, fail_or_hang, args, 2, sizeof *args, NULL, 0, CF_SECONDS(1)),
                     CF_FAILED);
    assert_process_error(CF_FAILED, 6, "I have failed", 1);
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, CF_SECONDS(20)), CF_OK);
    cf_executor_free(pool);
}

/* ---- shutdowns ---- */

/* What a worker can tell without a result: it makes the file. */
struct place {
    char path[64];
};

static void place_new(struct place *place)
{
    snprintf(place->path, sizeof place->path, "/tmp/process_map_test.%ld", (long)getpid());
    (void)unlink(place->path);
}

static int begin_and_wait(const void *arg, void *result)
{
    (void)result;
    const struct place *place = arg;
    int fd = open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return cf_raise(errno, "cannot make %s", place->path);
    close(fd);
    WAIT_UNTIL(cf_stop_requested());
    return cf_raise(9, "I obeyed");
}

struct shutdown {
    cf_executor *pool;
    const char *path;
    cf_shutdown_mode mode;
};

static void *shut_down_when_begun(void *data)
{
    const struct shutdown *s = data;
    struct stat about;
    WAIT_UNTIL(stat(s->path, &about) == 0);
    (void)cf_executor_shutdown(s->pool, s->mode, CF_SECONDS(10));
    return NULL;
}

static void test_stopped_by_shutdown(void **state)
{
    (void)state;
    enum { COUNT = 10 };
    struct place places[COUNT];
    place_new(&places[0]);
    for (size_t i = 1; i < COUNT; i++)
        places[i] = places[0];
    struct shutdown s = { pool_of(1), places[0].path, CF_STOP_RUNNING };
    pthread_t thread = start_thread(shut_down_when_begun, &s);
    assert_int_equal(
        cf_map(s.pool, begin_and_wait, places, COUNT, sizeof *places, NULL, 0, CF_FOREVER),
        CF_STOPPED);
    assert_int_equal(cf_last_error()->index, 0);
    join_thread(thread);
    assert_int_equal(
        cf_map(s.pool, begin_and_wait, places, COUNT, sizeof *places, NULL, 0, CF_FOREVER),
        CF_SHUTDOWN);
    cf_executor_free(s.pool);
    unlink(places[0].path);
}

static int refuse(void *data)
{
    return cf_raise(3, "not with me: %s", (const char *)data);
}

static void test_broken_pool(void **state)
{
    (void)state;
    int args[100], results[100];
    iota(args, 100);
    const cf_process_pool_options options = { .size = sizeof options,
                                              .max_workers = 1,
                                              .initializer = refuse,
                                              .initializer_data = "no",
                                              .initializer_data_size = 3 };
    for (int round = 0; round < 20; round++) {
        cf_executor *pool = NULL;
        assert_int_equal(cf_process_pool_new(&options, &pool), CF_OK);
        assert_int_equal(CF_MAP(pool, fail_from_7_on, args, 100, results, CF_FOREVER), CF_BROKEN);
        assert_non_null(strstr(cf_last_error()->message, "not with me"));
        cf_executor_free(pool);
    }
}

static void map_in_child(void *data)
{
    int arg = 1;
    int64_t result = 0;
    CHECK(CF_MAP((cf_executor *)data, square, &arg, 1, &result, CF_FOREVER) == CF_SHUTDOWN);
}

static void test_in_a_forked_child(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    map_squares(pool, 10, CF_FOREVER);
    assert_int_equal(in_child(map_in_child, pool), 0);
    map_squares(pool, 10, CF_FOREVER);
    cf_executor_free(pool);
}

static void test_small_bounded_pools(void **state)
{
    (void)state;
    const cf_when_full ways[] = { CF_WHEN_FULL_WAIT, CF_WHEN_FULL_REJECT };
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        cf_executor *pool = NULL;
        const cf_process_pool_options options = {
            .size = sizeof options, .max_workers = 2, .max_pending = 1, .when_full = ways[i]
        };
        assert_int_equal(cf_process_pool_new(&options, &pool), CF_OK);
        map_squares(pool, 5000, CF_FOREVER);
        cf_executor_free(pool);
    }
}

/* ---- lazy ---- */

struct source {
    size_t count; /* SIZE_MAX: without end */
    size_t given;
    int value;
};

static bool next_number(void *data, size_t index, cf_task *task)
{
    struct source *s = data;
    assert_int_equal(index, s->given);
    if (index == s->count)
        return false;
    s->given++;
    s->value = (int)index;
    task->arg = &s->value;
    task->arg_size = sizeof s->value;
    return true;
}

static const cf_task square_task = { .size = sizeof square_task, .fn = square, .result_size = 8 };

static cf_results *squares_from(cf_executor *executor, struct source *source,
                                const cf_map_options *options)
{
    cf_results *r = NULL;
    assert_ok(cf_map_from(executor, &square_task, next_number, source, options, CF_FOREVER, &r));
    return r;
}

static void test_lazy_in_order(void **state)
{
    (void)state;
    static const cf_map_options all_options[] = {
        { .size = sizeof *all_options },
        { .size = sizeof *all_options, .buffer_size = 1 },
        { .size = sizeof *all_options, .buffer_size = SIZE_MAX },
        { .size = sizeof *all_options, .chunk_size = 50 },
    };
    cf_executor *pool = pool_of(2);
    for (size_t i = 0; i < COUNT_OF(all_options); i++) {
        struct source source = { .count = 3000 };
        cf_results *r = squares_from(pool, &source, &all_options[i]);
        for (size_t j = 0; j < source.count; j++) {
            int64_t result = -1;
            size_t index = 0;
            assert_ok(cf_results_next(r, &result, sizeof result, &index));
            assert_int_equal(index, j);
            assert_int_equal(result, (int64_t)(j * j));
            if (all_options[i].buffer_size == 1)
                assert_true(source.given <= j + 2);
        }
        assert_int_equal(cf_results_next(r, NULL, 0, NULL), CF_END);
        cf_results_free(r);
    }
    cf_executor_free(pool);
}

static void test_lazy_unordered(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static bool seen[COUNT];
    cf_executor *pool = pool_of(2);
    struct source source = { .count = COUNT };
    cf_results *r = squares_from(pool, &source, CF_MAP_OPTIONS(.unordered = true));
    for (size_t i = 0; i < COUNT; i++) {
        int64_t result = -1;
        size_t index = COUNT;
        assert_ok(cf_results_next(r, &result, sizeof result, &index));
        assert_in_range(index, 0, COUNT - 1);
        assert_false(seen[index]);
        seen[index] = true;
        assert_int_equal(result, (int64_t)(index * index));
    }
    assert_int_equal(cf_results_next(r, NULL, 0, NULL), CF_END);
    cf_results_free(r);
    cf_executor_free(pool);
}

static void test_lazy_without_end(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    struct source source = { .count = SIZE_MAX };
    cf_results *r = squares_from(pool, &source, NULL);
    for (size_t i = 0; i < 20000; i++) {
        int64_t result = -1;
        assert_ok(cf_results_next(r, &result, sizeof result, NULL));
        assert_int_equal(result, (int64_t)(i * i));
        assert_true(source.given - i <= 1024);
    }
    cf_results_free(r);
    cf_executor_free(pool);
}

static int fail_or_die(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int64_t *)result = x;
    if (x == 20)
        kill(getpid(), SIGKILL);
    return x == 10 ? cf_raise(10, "ten") : 0;
}

static void test_lazy_goes_on_after_failures(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    const cf_task task = { .size = sizeof task, .fn = fail_or_die, .result_size = 8 };
    struct source source = { .count = 40 };
    cf_results *r = NULL;
    assert_ok(cf_map_from(pool, &task, next_number, &source, NULL, CF_FOREVER, &r));
    for (size_t i = 0; i < 40; i++) {
        int64_t result = -1;
        size_t index = 99;
        cf_status expected = i == 10 ? CF_FAILED : i == 20 ? CF_BROKEN : CF_OK;
        assert_int_equal(cf_results_next(r, &result, sizeof result, &index), expected);
        assert_int_equal(index, i);
        assert_int_equal(result, expected == CF_OK ? (int64_t)i : -1);
        if (i == 10)
            assert_process_error(CF_FAILED, 10, "ten", 10);
        if (i == 20)
            assert_int_equal(cf_last_error()->signal_number, SIGKILL);
    }
    assert_int_equal(cf_results_next(r, NULL, 0, NULL), CF_END);
    cf_results_free(r);
    cf_executor_free(pool);
}

static atomic_int args_destroyed, results_destroyed;

static void destroy_arg(void *arg)
{
    (void)arg;
    atomic_fetch_add(&args_destroyed, 1);
}

static void destroy_result(void *result)
{
    (void)result;
    atomic_fetch_add(&results_destroyed, 1);
}

static void test_lazy_destroys_what_is_not_read(void **state)
{
    (void)state;
    atomic_store(&args_destroyed, 0);
    atomic_store(&results_destroyed, 0);
    cf_executor *pool = pool_of(2);
    const cf_task task = { .size = sizeof task,
                           .fn = square,
                           .result_size = 8,
                           .arg_destroy = destroy_arg,
                           .result_destroy = destroy_result };
    struct source source = { .count = 100 };
    cf_results *r = NULL;
    assert_ok(cf_map_from(pool, &task, next_number, &source,
                          CF_MAP_OPTIONS(.buffer_size = SIZE_MAX), CF_FOREVER, &r));
    int64_t result;
    for (size_t i = 0; i < 60; i++) /* every third is not taken */
        assert_ok(i % 3 ? cf_results_next(r, &result, sizeof result, NULL)
                        : cf_results_next(r, NULL, 0, NULL));
    cf_results_free(r);
    cf_executor_free(pool);
    assert_int_equal(source.given, 100);
    assert_int_equal(atomic_load(&args_destroyed), 100);
    assert_in_range(atomic_load(&results_destroyed), 20, 60);
}

static bool next_word(void *data, size_t index, cf_task *task)
{
    (void)data;
    static char text[100000];
    memset(text, (int)('a' + index % 26), index * 97 % sizeof text);
    task->arg = text;
    task->arg_size = index * 97 % sizeof text;
    return index < 300;
}

static void test_lazy_bytes(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    const cf_task task = { .size = sizeof task, .bytes_fn = reverse };
    cf_results *r = NULL;
    assert_ok(cf_map_from(pool, &task, next_word, NULL, NULL, CF_FOREVER, &r));
    for (size_t i = 0; i < 300; i++) {
        cf_bytes result = { NULL, 0 };
        assert_ok(cf_results_next(r, &result, sizeof result, NULL));
        assert_int_equal(result.size, i * 97 % 100000);
        if (result.size)
            assert_int_equal(((char *)result.data)[result.size - 1], 'a' + i % 26);
        cf_bytes_free(&result);
    }
    assert_int_equal(cf_results_next(r, NULL, 0, NULL), CF_END);
    cf_results_free(r);
    cf_executor_free(pool);
}

static void test_lazy_after_shutdown(void **state)
{
    (void)state;
    atomic_store(&args_destroyed, 0);
    cf_executor *pool = pool_of(1);
    assert_ok(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER));
    const cf_task task = {
        .size = sizeof task, .fn = square, .result_size = 8, .arg_destroy = destroy_arg
    };
    struct source source = { .count = 10 };
    cf_results *r = NULL;
    assert_int_equal(cf_map_from(pool, &task, next_number, &source, NULL, CF_FOREVER, &r),
                     CF_SHUTDOWN);
    assert_int_equal(source.given, 1);
    assert_int_equal(atomic_load(&args_destroyed), 1);
    cf_executor_free(pool);
}

int main(void)
{
    cf_worker_main();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_squares),
        cmocka_unit_test(test_odd_sizes_as_inline),
        cmocka_unit_test(test_no_arrays),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_large_elements),
        cmocka_unit_test(test_small_elements_after_large_ones),
        cmocka_unit_test(test_first_failure_ends_it),
        cmocka_unit_test(test_failure_among_many_workers),
        cmocka_unit_test(test_who_obeys_does_not_hide_the_cause),
        cmocka_unit_test(test_range_fails_at_its_begin),
        cmocka_unit_test(test_results_beside_a_failure_are_the_callers),
        cmocka_unit_test(test_death_costs_its_piece),
        cmocka_unit_test(test_death_among_words),
        cmocka_unit_test(test_time_out_asks_to_stop),
        cmocka_unit_test(test_no_time),
        cmocka_unit_test(test_failure_counts_more_than_the_time),
        cmocka_unit_test(test_stopped_by_shutdown),
        cmocka_unit_test(test_broken_pool),
        cmocka_unit_test(test_in_a_forked_child),
        cmocka_unit_test(test_small_bounded_pools),
        cmocka_unit_test(test_lazy_in_order),
        cmocka_unit_test(test_lazy_unordered),
        cmocka_unit_test(test_lazy_without_end),
        cmocka_unit_test(test_lazy_goes_on_after_failures),
        cmocka_unit_test(test_lazy_destroys_what_is_not_read),
        cmocka_unit_test(test_lazy_bytes),
        cmocka_unit_test(test_lazy_after_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
