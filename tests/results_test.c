/* SPDX-License-Identifier: MIT */
/* The lazy map: order, the window over the source, failures on the way, and who destroys what. */
#define _GNU_SOURCE
#include "support.h"

#include <cfutures/provider.h>
#include <errno.h>
#include <time.h>

static cf_executor *pool_of(unsigned max_workers)
{
    cf_executor *pool = NULL;
    assert_int_equal(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = max_workers), &pool),
                     CF_OK);
    return pool;
}

static cf_executor *inline_executor(void)
{
    cf_executor *executor = NULL;
    assert_int_equal(cf_inline_executor_new(&executor), CF_OK);
    return executor;
}

static void assert_message_has(const char *part)
{
    if (!strstr(cf_last_error()->message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, cf_last_error()->message);
}

/* ---- a source of numbers, and what is done with them ---- */

struct numbers {
    size_t count; /* SIZE_MAX: without end */
    size_t asked;
    int value;
    pthread_t thread;
};

static struct numbers numbers(size_t count)
{
    return (struct numbers){ .count = count, .thread = pthread_self() };
}

static bool next_number(void *data, size_t index, cf_task *task)
{
    struct numbers *source = data;
    CHECK(pthread_equal(source->thread, pthread_self()));
    CHECK(index == source->asked);
    if (index >= source->count)
        return false;
    source->asked++;
    source->value = (int)index;
    task->arg = &source->value;
    return true;
}

static atomic_int calls;

static int twice(const void *arg, void *result)
{
    atomic_fetch_add(&calls, 1);
    *(int *)result = 2 * *(const int *)arg;
    return 0;
}

static const cf_task twice_each = {
    .size = sizeof(cf_task), .fn = twice, .arg_size = sizeof(int), .result_size = sizeof(int)
};

static struct event go_on;
static atomic_int begun;

static void start_anew(void)
{
    go_on = (struct event)EVENT_INIT;
    atomic_store(&begun, 0);
    atomic_store(&calls, 0);
}

static int wait_for_go(const void *arg, void *result)
{
    atomic_fetch_add(&begun, 1);
    event_wait(&go_on);
    return twice(arg, result);
}

static const cf_task gated = {
    .size = sizeof(cf_task), .fn = wait_for_go, .arg_size = sizeof(int), .result_size = sizeof(int)
};

static cf_results *map_from(cf_executor *executor, const cf_task *task, struct numbers *source,
                            const cf_map_options *options, int64_t timeout_ns)
{
    cf_results *results = NULL;
    cf_status s = cf_map_from(executor, task, next_number, source, options, timeout_ns, &results);
    if (s != CF_OK)
        fail_msg("%s: %s", cf_status_name(s), cf_last_error()->message);
    return results;
}

/* ---- order ---- */

static void expect_in_order(cf_results *results, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int value = -1;
        size_t index = SIZE_MAX;
        assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_OK);
        assert_int_equal(index, i);
        assert_int_equal(value, 2 * i);
    }
    int value = -1;
    size_t index = 99;
    for (int i = 0; i < 2; i++)
        assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_END);
    assert_int_equal(value, -1);
    assert_int_equal(index, 99);
}

static void expect_in_any_order(cf_results *results, size_t count)
{
    unsigned char *seen = calloc(count + 1, 1);
    for (size_t i = 0; i < count; i++) {
        int value = -1;
        size_t index = SIZE_MAX;
        assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_OK);
        assert_in_range(index, 0, count - 1);
        assert_int_equal(value, 2 * index);
        assert_int_equal(seen[index]++, 0);
    }
    assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_END);
    free(seen);
}

static void map_numbers(cf_executor *executor, size_t count, const cf_map_options *options)
{
    struct numbers source = numbers(count);
    atomic_store(&calls, 0);
    cf_results *results = map_from(executor, &twice_each, &source, options, CF_FOREVER);
    if (options->unordered)
        expect_in_any_order(results, count);
    else
        expect_in_order(results, count);
    assert_int_equal(atomic_load(&calls), count);
    assert_int_equal(source.asked, count);
    cf_results_free(results);
}

static void test_order(void **state)
{
    (void)state;
    static const size_t counts[] = { 0, 1, 2, 7, 400 };
    static const size_t buffers[] = { 0, 1, 5, 64, SIZE_MAX }, chunks[] = { 0, 1, 3, 50, SIZE_MAX };
    cf_executor *executors[] = { inline_executor(), pool_of(1), pool_of(3) };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        for (size_t n = 0; n < COUNT_OF(counts) * COUNT_OF(buffers) * COUNT_OF(chunks) * 2; n++) {
            const cf_map_options options = {
                .size = sizeof options,
                .unordered = n % 2,
                .buffer_size = buffers[n / 2 % COUNT_OF(buffers)],
                .chunk_size = chunks[n / 2 / COUNT_OF(buffers) % COUNT_OF(chunks)]
            };
            map_numbers(executors[e], counts[n / 2 / COUNT_OF(buffers) / COUNT_OF(chunks)],
                        &options);
        }
        cf_executor_free(executors[e]);
    }
    assert_checks();
}

static int zero_waits(const void *arg, void *result)
{
    if (*(const int *)arg == 0)
        event_wait(&go_on);
    else
        atomic_fetch_add(&begun, 1);
    return twice(arg, result);
}

static void test_in_order_waits_for_a_slow_one(void **state)
{
    (void)state;
    start_anew();
    cf_executor *pool = pool_of(2);
    struct numbers source = numbers(8);
    cf_task task = twice_each;
    task.fn = zero_waits;
    cf_results *results =
        map_from(pool, &task, &source, CF_MAP_OPTIONS(.chunk_size = 1), CF_FOREVER);
    WAIT_UNTIL(atomic_load(&begun) == 7); /* all others are done */
    event_set(&go_on);
    expect_in_order(results, 8);
    cf_results_free(results);
    cf_executor_free(pool);
}

static void test_unordered_passes_a_slow_one(void **state)
{
    (void)state;
    start_anew();
    cf_executor *pool = pool_of(2);
    struct numbers source = numbers(8);
    cf_task task = twice_each;
    task.fn = zero_waits;
    cf_results *results = map_from(pool, &task, &source,
                                   CF_MAP_OPTIONS(.chunk_size = 1, .unordered = true), CF_FOREVER);
    size_t index;
    for (int i = 0; i < 7; i++) {
        assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_OK);
        assert_int_not_equal(index, 0);
    }
    event_set(&go_on);
    assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_OK);
    assert_int_equal(index, 0);
    cf_results_free(results);
    cf_executor_free(pool);
}

/* ---- sizes that vary ---- */

static bool next_word(void *data, size_t index, cf_task *task)
{
    static char text[5000];
    (void)data;
    memset(text, 'a' + (int)(index % 26), sizeof text);
    task->arg = index % 7 ? text : NULL;
    task->arg_size = index % 7 ? index * 10 : 0;
    return index < 500;
}

static int copy_word(const void *word, size_t size, cf_bytes *result)
{
    if (size == 0)
        return 0;
    if (cf_bytes_resize(result, size) != CF_OK)
        return cf_raise(ENOMEM, "no memory");
    memcpy(result->data, word, size);
    return size == 40 ? cf_raise(40, "forty") : 0;
}

static void test_bytes(void **state)
{
    (void)state;
    cf_executor *executors[] = { inline_executor(), pool_of(2) };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        cf_results *results;
        assert_int_equal(cf_map_from(executors[e], CF_TASK(.bytes_fn = copy_word), next_word, NULL,
                                     NULL, CF_FOREVER, &results),
                         CF_OK);
        for (size_t i = 0; i < 400; i++) { /* the rest is freed with the iterator */
            cf_bytes word = { NULL, 0 };
            cf_status s = cf_results_next(results, &word, sizeof word, NULL);
            assert_int_equal(s, i == 4 ? CF_FAILED : CF_OK);
            assert_int_equal(word.size, i % 7 && i != 4 ? i * 10 : 0);
            if (word.size) {
                assert_int_equal(((char *)word.data)[0], 'a' + i % 26);
                assert_int_equal(((char *)word.data)[word.size - 1], 'a' + i % 26);
            }
            cf_bytes_free(&word);
        }
        cf_results_free(results);
        cf_executor_free(executors[e]);
    }
}

/* ---- the window ---- */

static void read_endless(cf_executor *executor, const cf_map_options *options, size_t most)
{
    struct numbers source = numbers(SIZE_MAX);
    cf_results *results = map_from(executor, &twice_each, &source, options, CF_FOREVER);
    for (size_t i = 0; i < 5000; i++) {
        int value;
        assert_in_range(source.asked - i, 0, most);
        assert_int_equal(cf_results_next(results, &value, sizeof value, NULL), CF_OK);
        if (!options || !options->unordered)
            assert_int_equal(value, 2 * i);
    }
    assert_in_range(source.asked - 5000, 0, most);
    cf_results_free(results);
}

static void test_endless_source(void **state)
{
    (void)state;
    cf_executor *executors[] = { inline_executor(), pool_of(2) };
    size_t workers[] = { cf_cpu_count(), 2 };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        size_t chosen = 4 * workers[e] < 1024 ? 1024 : 4 * workers[e];
        read_endless(executors[e], NULL, chosen);
        read_endless(executors[e], CF_MAP_OPTIONS(.unordered = true), chosen);
        read_endless(executors[e], CF_MAP_OPTIONS(.buffer_size = 1), 1);
        read_endless(executors[e], CF_MAP_OPTIONS(.buffer_size = 16), 16);
        read_endless(executors[e], CF_MAP_OPTIONS(.buffer_size = 16, .unordered = true), 16);
        read_endless(executors[e], CF_MAP_OPTIONS(.buffer_size = 7, .chunk_size = 3), 7);
        read_endless(executors[e], CF_MAP_OPTIONS(.buffer_size = 7, .chunk_size = 99), 7);
        read_endless(executors[e], CF_MAP_OPTIONS(.chunk_size = 1), chosen);
        read_endless(executors[e], CF_MAP_OPTIONS(.chunk_size = 2000), 8000 * workers[e]);
        cf_executor_free(executors[e]);
    }
    assert_checks();
}

static void test_buffer_is_filled_by_the_call(void **state)
{
    (void)state;
    start_anew();
    cf_executor *pool = pool_of(1);
    struct numbers source = numbers(SIZE_MAX);
    cf_results *results = map_from(pool, &gated, &source,
                                   CF_MAP_OPTIONS(.buffer_size = 6, .chunk_size = 1), CF_FOREVER);
    assert_int_equal(source.asked, 6);
    event_set(&go_on);
    int value;
    assert_int_equal(cf_results_next(results, &value, sizeof value, NULL), CF_OK);
    assert_int_equal(source.asked, 6); /* the one read makes room for the next call */
    assert_int_equal(cf_results_next(results, &value, sizeof value, NULL), CF_OK);
    assert_int_equal(source.asked, 7);
    cf_results_free(results);

    source = numbers(5000);
    results =
        map_from(pool, &twice_each, &source, CF_MAP_OPTIONS(.buffer_size = SIZE_MAX), CF_FOREVER);
    assert_int_equal(source.asked, 5000);
    expect_in_order(results, 5000);
    cf_results_free(results);
    cf_executor_free(pool);
}

enum { QUICK = 2000, SLOW = 100 };
static atomic_int submits_of_slow;

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool slow_at_last(void *data, size_t index, cf_task *task)
{
    int64_t end = nanoseconds() + CF_MS(0.15);
    while (index >= QUICK && nanoseconds() < end)
        continue;
    return next_number(data, index, task);
}

static cf_status run_and_count(void *self, cf_future *future)
{
    const struct numbers *source = self;
    if (source->asked > QUICK)
        atomic_fetch_add(&submits_of_slow, 1);
    cf_future_run(future);
    cf_future_unref(future);
    return CF_OK;
}

/* What a slow source has given is submitted without waiting for a whole chunk. */
static void test_slow_source(void **state)
{
    (void)state;
    struct numbers source = numbers(QUICK + SLOW);
    const cf_executor_ops ops = { .size = sizeof ops, .kind = "count", .submit = run_and_count };
    cf_executor *executor;
    cf_results *results;
    assert_int_equal(cf_executor_new(&ops, &source, &executor), CF_OK);
    assert_int_equal(cf_map_from(executor, &twice_each, slow_at_last, &source,
                                 CF_MAP_OPTIONS(.buffer_size = 64), CF_FOREVER, &results),
                     CF_OK);
    expect_in_order(results, QUICK + SLOW);
    assert_in_range(atomic_load(&submits_of_slow), SLOW - 32, SLOW); /* all but the first chunk */
    cf_results_free(results);
    cf_executor_free(executor);
    assert_checks();
}

/* ---- failures ---- */

static int fail_at_multiples_of_10(const void *arg, void *result)
{
    int x = *(const int *)arg;
    if (x % 20 == 0)
        return cf_raise(x + 1, "no %d", x);
    return x % 10 == 0 ? x + 2 : twice(arg, result);
}

static void test_goes_on_after_a_failure(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    cf_task task = twice_each;
    task.fn = fail_at_multiples_of_10;
    for (int unordered = 0; unordered < 2; unordered++) {
        struct numbers source = numbers(500);
        cf_results *results =
            map_from(pool, &task, &source, CF_MAP_OPTIONS(.unordered = unordered), CF_FOREVER);
        for (size_t n = 0; n < 500; n++) {
            int value = -1;
            size_t i = SIZE_MAX;
            cf_status s = cf_results_next(results, &value, sizeof value, &i);
            assert_true(i < 500 && (unordered || i == n));
            assert_int_equal(s, i % 10 ? CF_OK : CF_FAILED);
            assert_int_equal(value, i % 10 ? 2 * (int)i : -1);
            if (s == CF_OK)
                continue;
            char message[50];
            snprintf(message, sizeof message, "no %zu", i);
            const cf_error *e = cf_last_error();
            assert_int_equal(e->status, CF_FAILED);
            assert_int_equal(e->index, i);
            assert_int_equal(e->code, i + (i % 20 ? 2 : 1));
            assert_string_equal(e->message, i % 20 ? "the task returned a non-zero code" : message);
        }
        assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_END);
        cf_results_free(results);
    }
    cf_executor_free(pool);
}

static int raise_at_1_fail_at_2(const void *arg, void *result)
{
    int x = *(const int *)arg;
    if (x == 1)
        (void)cf_raise(9, "this was nothing");
    return x == 2 ? 22 : twice(arg, result);
}

static void test_nobody_is_blamed_for_another(void **state)
{
    (void)state;
    cf_executor *executor = inline_executor();
    struct numbers source = numbers(3);
    cf_task task = twice_each;
    task.fn = raise_at_1_fail_at_2;
    cf_results *results =
        map_from(executor, &task, &source, CF_MAP_OPTIONS(.chunk_size = 3), CF_FOREVER);
    assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_OK);
    assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_OK);
    assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_FAILED);
    assert_string_equal(cf_last_error()->message, "the task returned a non-zero code");
    cf_results_free(results);
    cf_executor_free(executor);
}

static int until_stopped(const void *arg, void *result)
{
    if (*(const int *)arg % 2 == 0)
        return twice(arg, result);
    WAIT_UNTIL(cf_stop_requested());
    return cf_raise(5, "stopped");
}

static void test_run_limit_is_each_items_own(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    struct numbers source = numbers(10);
    cf_task task = twice_each;
    task.fn = until_stopped;
    task.run_limit_ns = CF_MS(5);
    cf_results *results =
        map_from(pool, &task, &source, CF_MAP_OPTIONS(.chunk_size = 10), CF_FOREVER);
    for (int i = 0; i < 10; i++) {
        cf_status s = cf_results_next(results, NULL, 0, NULL);
        if (i % 2) {
            assert_int_equal(s, CF_STOPPED);
            assert_int_equal(cf_last_error()->code, 5);
        }
    }
    assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_END);
    cf_results_free(results);
    cf_executor_free(pool);
}

/* ---- who destroys what ---- */

/* An argument owns a number; so does a result. */
struct owned {
    int *number;
};

static atomic_int args_destroyed, results_destroyed, live;
static size_t numbers_made;

static int *new_number(int value)
{
    int *number = malloc(sizeof *number);
    if (!number)
        abort();
    *number = value;
    atomic_fetch_add(&live, 1);
    return number;
}

static void free_number(int *number)
{
    free(number);
    atomic_fetch_sub(&live, 1);
}

static void destroy_arg(void *arg)
{
    free_number(((struct owned *)arg)->number);
    atomic_fetch_add(&args_destroyed, 1);
}

static void destroy_result(void *result)
{
    free_number(((struct owned *)result)->number);
    atomic_fetch_add(&results_destroyed, 1);
}

static bool next_owned(void *data, size_t index, cf_task *task)
{
    static struct owned owned;
    size_t count = *(size_t *)data;
    if (index >= count)
        return false;
    owned.number = new_number((int)index);
    numbers_made++;
    task->arg = &owned;
    return true;
}

static int triple(const void *arg, void *result)
{
    const struct owned *owned = arg;
    atomic_fetch_add(&begun, 1);
    if (*owned->number % 5 == 4)
        return cf_raise(1, "no");
    event_wait(&go_on);
    ((struct owned *)result)->number = new_number(3 * *owned->number);
    return 0;
}

static const cf_task owners = { .size = sizeof(cf_task),
                                .fn = triple,
                                .arg_size = sizeof(struct owned),
                                .result_size = sizeof(struct owned),
                                .arg_destroy = destroy_arg,
                                .result_destroy = destroy_result };

static void count_anew(void)
{
    start_anew();
    numbers_made = 0;
    atomic_store(&args_destroyed, 0);
    atomic_store(&results_destroyed, 0);
    assert_int_equal(atomic_load(&live), 0);
}

static void expect_all_destroyed(size_t results_of_nobody)
{
    assert_int_equal(atomic_load(&args_destroyed), numbers_made);
    assert_int_equal(atomic_load(&results_destroyed), results_of_nobody);
    assert_int_equal(atomic_load(&live), 0);
}

/* Reads so many of 100 and takes every second. */
static void read_owned(cf_executor *executor, size_t reads, const cf_map_options *options)
{
    size_t count = 100, taken = 0, failed = 0, skipped = 0;
    cf_results *results;
    count_anew();
    event_set(&go_on);
    assert_int_equal(
        cf_map_from(executor, &owners, next_owned, &count, options, CF_FOREVER, &results), CF_OK);
    for (size_t n = 0; n < reads; n++) {
        struct owned owned;
        bool take = n % 2;
        cf_status s = cf_results_next(results, take ? &owned : NULL, take ? sizeof owned : 0, NULL);
        failed += s == CF_FAILED;
        skipped += s == CF_OK && !take;
        if (s == CF_OK && take) {
            free_number(owned.number);
            taken++;
        }
    }
    cf_results_free(results);
    assert_int_equal(cf_executor_shutdown(executor, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
    assert_int_equal(taken + failed + skipped, reads < 100 ? reads : 100);
    assert_true((size_t)atomic_load(&results_destroyed) >= skipped);
    expect_all_destroyed((size_t)atomic_load(&results_destroyed));
    if (reads > 100)
        assert_int_equal(atomic_load(&results_destroyed), skipped);
    cf_executor_free(executor);
}

static void test_each_is_destroyed_once(void **state)
{
    (void)state;
    static const size_t reads[] = { 0, 1, 10, 99, 101 };
    for (size_t i = 0; i < COUNT_OF(reads); i++) {
        read_owned(inline_executor(), reads[i], NULL);
        read_owned(pool_of(2), reads[i], NULL);
        read_owned(pool_of(2), reads[i], CF_MAP_OPTIONS(.unordered = true));
        read_owned(pool_of(2), reads[i], CF_MAP_OPTIONS(.chunk_size = 7));
        read_owned(pool_of(2), reads[i], CF_MAP_OPTIONS(.chunk_size = 7, .unordered = true));
        read_owned(pool_of(2), reads[i], CF_MAP_OPTIONS(.buffer_size = SIZE_MAX));
    }
}

static void test_free_cancels_and_does_not_wait(void **state)
{
    (void)state;
    static const size_t chunk_sizes[] = { 1, 10 };
    for (size_t i = 0; i < COUNT_OF(chunk_sizes); i++) {
        for (int unordered = 0; unordered < 2; unordered++) {
            size_t count = 100;
            cf_results *results;
            cf_executor *pool = pool_of(1);
            count_anew();
            assert_int_equal(
                cf_map_from(pool, &owners, next_owned, &count,
                            CF_MAP_OPTIONS(.buffer_size = 40, .chunk_size = chunk_sizes[i],
                                           .unordered = unordered),
                            CF_FOREVER, &results),
                CF_OK);
            assert_int_equal(numbers_made, 40);
            WAIT_UNTIL(atomic_load(&begun) == 1);
            assert_null(cf_results_free(results)); /* while the first runs */
            assert_int_equal(atomic_load(&args_destroyed), 40 - chunk_sizes[i]);
            event_set(&go_on);
            cf_executor_free(pool);
            assert_int_equal(atomic_load(&begun), 1);
            expect_all_destroyed(1);
        }
    }
}

/* 0 ends after 1; then 2 and 3 run, until the destruction of 1's result, while the iterator goes,
 * lets them end. */
static cf_executor *this_pool;

static int end_in_turn(const void *arg, void *result)
{
    int x = *(const int *)arg;
    atomic_fetch_add(&begun, 1);
    if (x == 0)
        WAIT_UNTIL(atomic_load(&begun) >= 3);
    if (x > 1)
        event_wait(&go_on);
    return twice(arg, result);
}

static void end_the_others(void *result)
{
    if (*(int *)result != 2)
        return;
    event_set(&go_on);
    CHECK(cf_executor_shutdown(this_pool, CF_FINISH_PENDING, CF_FOREVER) == CF_OK);
}

static void test_chunks_that_end_while_the_iterator_goes(void **state)
{
    (void)state;
    start_anew();
    this_pool = pool_of(2);
    struct numbers source = numbers(4);
    cf_task task = twice_each;
    task.fn = end_in_turn;
    task.result_destroy = end_the_others;
    cf_results *results = map_from(this_pool, &task, &source,
                                   CF_MAP_OPTIONS(.chunk_size = 1, .unordered = true), CF_FOREVER);
    WAIT_UNTIL(atomic_load(&begun) == 4); /* so 0 and 1 have ended */
    cf_results_free(results);
    assert_checks();
    cf_executor_free(this_pool);
}

static void test_free_null(void **state)
{
    (void)state;
    assert_null(cf_results_free(NULL));
}

/* ---- time ---- */

static void test_time_limit(void **state)
{
    (void)state;
    for (int unordered = 0; unordered < 2; unordered++) {
        start_anew();
        cf_executor *pool = pool_of(1);
        struct numbers source = numbers(SIZE_MAX);
        cf_results *results = map_from(
            pool, &gated, &source,
            CF_MAP_OPTIONS(.buffer_size = 4, .chunk_size = 2, .unordered = unordered), CF_MS(20));
        int value = -1;
        size_t index = 99;
        for (int i = 0; i < 2; i++)
            assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_TIMEOUT);
        assert_int_equal(index, 99);
        assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
        event_set(&go_on);
        assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
        for (int i = 0; i < 4; i++) { /* what is ready is given even now */
            assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_OK);
            assert_int_equal(value, 2 * index);
        }
        assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_TIMEOUT);
        assert_int_equal(source.asked, 4);
        cf_results_free(results);
        cf_executor_free(pool);
    }
}

static void test_no_time(void **state)
{
    (void)state;
    cf_executor *executor = inline_executor();
    struct numbers source = numbers(2);
    cf_results *results = map_from(executor, &twice_each, &source, NULL, 0);
    expect_in_order(results, 2);
    cf_results_free(results);
    cf_executor_free(executor);
}

/* ---- shutting down ---- */

static void test_cancelled_by_shutdown(void **state)
{
    (void)state;
    for (int unordered = 0; unordered < 2; unordered++) {
        start_anew();
        cf_executor *pool = pool_of(1);
        struct numbers source = numbers(SIZE_MAX);
        cf_results *results = map_from(
            pool, &gated, &source,
            CF_MAP_OPTIONS(.buffer_size = 12, .chunk_size = 3, .unordered = unordered), CF_FOREVER);
        WAIT_UNTIL(atomic_load(&begun) == 1);
        assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, 0), CF_TIMEOUT);
        event_set(&go_on);
        pool = cf_executor_free(pool); /* the results stay valid */
        int seen[12] = { 0 }, value, cancelled = 0;
        size_t index;
        for (int i = 0; i < 12; i++) {
            cf_status s = cf_results_next(results, &value, sizeof value, &index);
            assert_true(index < 12 && seen[index]++ == 0);
            assert_int_equal(s, index < 3 ? CF_OK : CF_CANCELLED);
            cancelled += s == CF_CANCELLED;
            if (s != CF_OK) {
                assert_int_equal(cf_last_error()->status, CF_CANCELLED);
                assert_int_equal(cf_last_error()->index, index);
            }
        }
        assert_int_equal(cancelled, 9);
        /* Those that were asked for since could not be submitted any more. */
        assert_int_equal(source.asked, 15);
        for (size_t i = 12; i < 15; i++) {
            assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_SHUTDOWN);
            assert_int_equal(index, i);
            assert_int_equal(cf_last_error()->index, i);
        }
        assert_int_equal(cf_results_next(results, &value, sizeof value, &index), CF_END);
        assert_int_equal(source.asked, 15);
        cf_results_free(results);
    }
    assert_checks();
}

static void test_stopped_by_shutdown(void **state)
{
    (void)state;
    start_anew();
    cf_executor *pool = pool_of(1);
    struct numbers source = numbers(4);
    cf_task task = twice_each;
    task.fn = until_stopped;
    cf_results *results = map_from(pool, &task, &source,
                                   CF_MAP_OPTIONS(.chunk_size = 4, .buffer_size = 4), CF_FOREVER);
    WAIT_UNTIL(atomic_load(&calls) == 1); /* 1 is next or running */
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, CF_FOREVER), CF_OK);
    int value;
    assert_int_equal(cf_results_next(results, &value, sizeof value, NULL), CF_OK);
    cf_status s = cf_results_next(results, &value, sizeof value, NULL);
    assert_true(s == CF_STOPPED || s == CF_CANCELLED);
    for (int i = 2; i < 4; i++)
        assert_int_equal(cf_results_next(results, &value, sizeof value, NULL), CF_CANCELLED);
    assert_int_equal(cf_results_next(results, &value, sizeof value, NULL), CF_END);
    cf_results_free(results);
    cf_executor_free(pool);
}

static void test_shut_down_before(void **state)
{
    (void)state;
    count_anew();
    cf_executor *pool = pool_of(1);
    size_t count = 100;
    cf_results *results = NULL;
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
    assert_int_equal(cf_map_from(pool, &owners, next_owned, &count, CF_MAP_OPTIONS(.chunk_size = 5),
                                 CF_FOREVER, &results),
                     CF_SHUTDOWN);
    assert_null(results);
    expect_all_destroyed(0);
    cf_executor_free(pool);
}

/* ---- executors that do not take all, or nothing ---- */

static cf_status run_three(void *self, cf_future *future)
{
    int *left = self;
    if ((*left)-- <= 0)
        return CF_FULL;
    cf_future_run(future);
    cf_future_unref(future);
    return CF_OK;
}

static void test_full_in_the_middle(void **state)
{
    (void)state;
    for (int unordered = 0; unordered < 2; unordered++) {
        count_anew();
        event_set(&go_on);
        int left = 3;
        const cf_executor_ops ops = { .size = sizeof ops, .kind = "three", .submit = run_three };
        cf_executor *executor;
        cf_results *results;
        size_t count = 100, index = 0;
        assert_int_equal(cf_executor_new(&ops, &left, &executor), CF_OK);
        assert_int_equal(
            cf_map_from(executor, &owners, next_owned, &count,
                        CF_MAP_OPTIONS(.buffer_size = 100, .chunk_size = 1, .unordered = unordered),
                        CF_FOREVER, &results),
            CF_OK);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_OK);
            assert_int_equal(index, i);
        }
        assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_FULL);
        assert_int_equal(index, 3);
        assert_int_equal(cf_last_error()->index, 3);
        assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_END);
        assert_int_equal(numbers_made, 4);
        cf_results_free(results);
        expect_all_destroyed(3);
        cf_executor_free(executor);
    }
}

static bool next_or_null(void *data, size_t index, cf_task *task)
{
    struct numbers *source = data;
    bool more = next_number(source, index, task);
    if (index == 5)
        task->arg = NULL;
    return more;
}

static void test_argument_that_is_null(void **state)
{
    (void)state;
    cf_executor *executor = inline_executor();
    struct numbers source = numbers(100);
    cf_results *results;
    assert_int_equal(cf_map_from(executor, &twice_each, next_or_null, &source,
                                 CF_MAP_OPTIONS(.chunk_size = 4), CF_FOREVER, &results),
                     CF_OK);
    size_t index;
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_OK);
    assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_INVALID);
    assert_int_equal(index, 5);
    assert_message_has("item 5");
    assert_int_equal(cf_results_next(results, NULL, 0, &index), CF_END);
    cf_results_free(results);
    cf_executor_free(executor);
}

static cf_status see_the_task(void *self, cf_future *future)
{
    const cf_task *task = cf_future_task(future);
    CHECK(task->priority == 42);
    CHECK(task->run_limit_ns == CF_SECONDS(50));
    return run_three(self, future);
}

static void test_priority_and_limit_are_passed_on(void **state)
{
    (void)state;
    int left = 1000;
    const cf_executor_ops ops = { .size = sizeof ops, .kind = "see", .submit = see_the_task };
    cf_executor *executor;
    assert_int_equal(cf_executor_new(&ops, &left, &executor), CF_OK);
    cf_task task = twice_each;
    task.priority = 42;
    task.run_limit_ns = CF_SECONDS(50);
    struct numbers source = numbers(20);
    cf_results *results = map_from(executor, &task, &source, NULL, CF_FOREVER);
    expect_in_order(results, 20);
    assert_checks();
    assert_int_equal(left, 980); /* one by one */
    cf_results_free(results);
    cf_executor_free(executor);
}

static cf_status break_it(void *self, cf_future *future)
{
    (void)self;
    const cf_error error = {
        .size = sizeof error, .status = CF_BROKEN, .message = "its worker died", .worker_pid = 42
    };
    CHECK(cf_future_start(future));
    CHECK(cf_future_set_exception(future, &error) == CF_OK);
    cf_future_unref(future);
    return CF_OK;
}

static void test_broken_chunks(void **state)
{
    (void)state;
    count_anew();
    static const cf_executor_ops ops = { .size = sizeof ops, .kind = "broken", .submit = break_it };
    cf_executor *executor;
    cf_results *results;
    size_t count = 6;
    assert_int_equal(cf_executor_new(&ops, NULL, &executor), CF_OK);
    assert_int_equal(cf_map_from(executor, &owners, next_owned, &count,
                                 CF_MAP_OPTIONS(.chunk_size = 4), CF_FOREVER, &results),
                     CF_OK);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_BROKEN);
        assert_int_equal(cf_last_error()->index, i);
        assert_int_equal(cf_last_error()->worker_pid, 42);
        assert_string_equal(cf_last_error()->message, "its worker died");
    }
    assert_int_equal(cf_results_next(results, NULL, 0, NULL), CF_END);
    cf_results_free(results);
    expect_all_destroyed(0);
    assert_checks();
    cf_executor_free(executor);
}

/* ---- arguments ---- */

static void assert_invalid(cf_status status, const char *what)
{
    assert_int_equal(status, CF_INVALID);
    assert_message_has(what);
}

static int any_bytes(const void *arg, size_t size, cf_bytes *result)
{
    (void)arg, (void)size, (void)result;
    return 0;
}

static void any_destroy(void *p)
{
    (void)p;
}

static void test_bad_arguments(void **state)
{
    (void)state;
    struct {
        cf_map_options known;
        size_t unknown;
    } newer = { { .size = sizeof newer }, 1 };
    cf_executor *ex = inline_executor();
    struct numbers source = numbers(10);
    cf_results *r = NULL;
    cf_task task = twice_each;
    const cf_map_options small = { .size = 8 };
    assert_invalid(cf_map_from(NULL, &task, next_number, &source, NULL, 1, &r), "executor");
    assert_invalid(cf_map_from(ex, NULL, next_number, &source, NULL, 1, &r), "task");
    assert_invalid(cf_map_from(ex, &task, NULL, &source, NULL, 1, &r), "next");
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, NULL), "ret");
    assert_invalid(cf_map_from(ex, &task, next_number, &source, &small, 1, &r), "cf_map_options");
    assert_invalid(cf_map_from(ex, &task, next_number, &source, &newer.known, 1, &r),
                   "cf_map_options");
    task.size = 8;
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "cf_task");
    task = (cf_task){ .size = sizeof task };
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "fn");
    task = (cf_task){ .size = sizeof task, .fn = twice, .bytes_fn = any_bytes };
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "both");
    task = (cf_task){ .size = sizeof task, .bytes_fn = any_bytes, .result_size = 4 };
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "result_size");
    task = (cf_task){ .size = sizeof task, .bytes_fn = any_bytes, .result_destroy = any_destroy };
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "result_destroy");
    task = (cf_task){ .size = sizeof task, .fn = twice, .result_size = SIZE_MAX };
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "result_size");
    task = (cf_task){ .size = sizeof task, .fn = twice, .run_limit_ns = -1 };
    assert_invalid(cf_map_from(ex, &task, next_number, &source, NULL, 1, &r), "run_limit_ns");
    assert_null(r);
    assert_int_equal(source.asked, 0);
    assert_invalid(cf_results_next(NULL, NULL, 0, NULL), "results");
    cf_executor_free(ex);
}

static void test_wrong_size_loses_nothing(void **state)
{
    (void)state;
    cf_executor *executor = inline_executor();
    struct numbers source = numbers(3);
    cf_results *results = map_from(executor, &twice_each, &source, NULL, CF_FOREVER);
    char wrong[8];
    size_t index = 99;
    assert_int_equal(cf_results_next(results, wrong, 8, &index), CF_INVALID);
    assert_message_has("8");
    assert_message_has("4 bytes");
    assert_int_equal(cf_results_next(results, wrong, 0, &index), CF_INVALID);
    assert_int_equal(cf_results_next(results, NULL, 4, &index), CF_INVALID);
    assert_int_equal(index, 99);
    expect_in_order(results, 3);
    cf_results_free(results);
    cf_executor_free(executor);
}

/* ---- inside a task, and hooks ---- */

static int sum_lazily(const void *arg, void *result)
{
    bool unordered = *(const int *)arg % 2;
    struct numbers source = numbers(100);
    cf_results *results;
    cf_status s = cf_map_from(this_pool, &twice_each, next_number, &source,
                              CF_MAP_OPTIONS(.unordered = unordered), CF_FOREVER, &results);
    int value, sum = 0;
    while (s == CF_OK && (s = cf_results_next(results, &value, sizeof value, NULL)) == CF_OK)
        sum += value;
    cf_results_free(results);
    *(int *)result = sum;
    return s == CF_END ? 0 : cf_raise(s, "%s", cf_last_error()->message);
}

static void test_inside_a_task_of_the_same_pool(void **state)
{
    (void)state;
    int args[20], sums[20];
    for (int i = 0; i < 20; i++)
        args[i] = i;
    for (unsigned workers = 1; workers < 4; workers++) {
        this_pool = pool_of(workers);
        cf_status s = CF_MAP(this_pool, sum_lazily, args, 20, sums, CF_FOREVER);
        if (s != CF_OK)
            fail_msg("%s", cf_last_error()->message);
        for (int i = 0; i < 20; i++)
            assert_int_equal(sums[i], 99 * 100);
        cf_executor_free(this_pool);
    }
    assert_checks();
}

/* The item waits for the task that reads it. */
static cf_future *reader;
static struct event reader_is_known;

static int wait_for_reader(const void *arg, void *result)
{
    (void)arg, (void)result;
    event_wait(&reader_is_known);
    cf_status s = cf_future_result(reader, CF_FOREVER, NULL, 0);
    atomic_fetch_add(&calls, s == CF_DEADLOCK);
    return s == CF_OK ? 0 : cf_raise(s, "it waits for me");
}

static int read_what_waits(const void *arg, void *result)
{
    (void)result;
    bool unordered = *(const bool *)arg;
    struct numbers source = numbers(1);
    cf_results *results;
    cf_task task = twice_each;
    task.fn = wait_for_reader;
    cf_status s = cf_map_from(this_pool, &task, next_number, &source,
                              CF_MAP_OPTIONS(.unordered = unordered), CF_FOREVER, &results);
    if (s == CF_OK)
        s = cf_results_next(results, NULL, 0, NULL);
    atomic_fetch_add(&calls, s == CF_DEADLOCK);
    cf_results_free(results);
    return 0;
}

static void test_cycle_is_found(void **state)
{
    (void)state;
    for (int unordered = 0; unordered < 2; unordered++) {
        bool arg = unordered;
        atomic_store(&calls, 0);
        reader_is_known = (struct event)EVENT_INIT;
        this_pool = pool_of(2);
        assert_int_equal(cf_submit(this_pool, read_what_waits, &arg, sizeof arg, 0, &reader),
                         CF_OK);
        event_set(&reader_is_known);
        assert_int_equal(cf_future_result(reader, CF_FOREVER, NULL, 0), CF_OK);
        cf_executor_free(this_pool);
        reader = cf_future_unref(reader);
        assert_int_equal(atomic_load(&calls), 1); /* whoever closed the cycle was told */
    }
    assert_checks();
}

static pthread_t caller;
static atomic_bool has_returned;

static bool go_on_unless_signalled(void *data, bool signalled)
{
    (void)data;
    return !signalled;
}

static void ignore(int signal_number)
{
    (void)signal_number;
}

static int interrupt_caller(const void *arg, void *result)
{
    while (!atomic_load(&has_returned)) {
        CHECK(pthread_kill(caller, SIGUSR1) == 0);
        sched_yield();
    }
    return twice(arg, result);
}

static void test_interrupted_wait_loses_nothing(void **state)
{
    (void)state;
    static const cf_wait_hooks hooks = { .size = sizeof hooks, .after = go_on_unless_signalled };
    const struct sigaction on_signal = { .sa_handler = ignore }; /* no SA_RESTART */
    struct sigaction former;
    assert_int_equal(sigaction(SIGUSR1, &on_signal, &former), 0);
    caller = pthread_self();
    cf_task task = twice_each;
    task.fn = interrupt_caller;
    for (int unordered = 0; unordered < 2; unordered++) {
        cf_executor *pool = pool_of(1);
        struct numbers source = numbers(1);
        atomic_store(&has_returned, false);
        cf_results *results =
            map_from(pool, &task, &source, CF_MAP_OPTIONS(.unordered = unordered), CF_FOREVER);
        int value;
        cf_set_wait_hooks(&hooks);
        cf_status s = cf_results_next(results, &value, sizeof value, NULL);
        cf_set_wait_hooks(NULL);
        atomic_store(&has_returned, true);
        assert_int_equal(s, CF_INTERRUPTED);
        expect_in_any_order(results, 1);
        cf_results_free(results);
        cf_executor_free(pool);
    }
    assert_checks();
    assert_int_equal(sigaction(SIGUSR1, &former, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_in_order_waits_for_a_slow_one),
        cmocka_unit_test(test_unordered_passes_a_slow_one),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_endless_source),
        cmocka_unit_test(test_buffer_is_filled_by_the_call),
        cmocka_unit_test(test_slow_source),
        cmocka_unit_test(test_goes_on_after_a_failure),
        cmocka_unit_test(test_nobody_is_blamed_for_another),
        cmocka_unit_test(test_run_limit_is_each_items_own),
        cmocka_unit_test(test_each_is_destroyed_once),
        cmocka_unit_test(test_free_cancels_and_does_not_wait),
        cmocka_unit_test(test_chunks_that_end_while_the_iterator_goes),
        cmocka_unit_test(test_free_null),
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test(test_no_time),
        cmocka_unit_test(test_cancelled_by_shutdown),
        cmocka_unit_test(test_stopped_by_shutdown),
        cmocka_unit_test(test_shut_down_before),
        cmocka_unit_test(test_full_in_the_middle),
        cmocka_unit_test(test_argument_that_is_null),
        cmocka_unit_test(test_priority_and_limit_are_passed_on),
        cmocka_unit_test(test_broken_chunks),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_wrong_size_loses_nothing),
        cmocka_unit_test(test_inside_a_task_of_the_same_pool),
        cmocka_unit_test(test_cycle_is_found),
        cmocka_unit_test(test_interrupted_wait_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
