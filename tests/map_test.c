/* SPDX-License-Identifier: MIT */
/* Maps over arrays: each element once and in its place, failures, time limits, pools that do not do
 * what is asked of them. */
#define _GNU_SOURCE
#include "support.h"

#include <cfutures/provider.h>
#include <errno.h>

#include "core/map.h"

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

static void assert_last_error(cf_status status, int code, const char *message, size_t index)
{
    const cf_error *e = cf_last_error();
    assert_int_equal(e->status, status);
    assert_int_equal(e->code, code);
    assert_string_equal(e->message, message);
    assert_int_equal(e->index, index);
}

static void assert_message_has(const char *part)
{
    if (!strstr(cf_last_error()->message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, cf_last_error()->message);
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
    assert_int_equal(CF_MAP(executor, square, args, count, results, timeout_ns), CF_OK);
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
    cf_executor *executors[] = { inline_executor(), pool_of(1), pool_of(2), pool_of(20) };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        for (size_t i = 0; i < COUNT_OF(counts); i++) {
            map_squares(executors[e], counts[i], CF_FOREVER);
            map_squares(executors[e], counts[i], CF_SECONDS(50));
        }
        cf_executor_free(executors[e]);
    }
}

enum { COUNTED = 100000 };
static atomic_uchar runs[COUNTED];

static void expect_one_run_each(void)
{
    for (size_t i = 0; i < COUNTED; i++)
        assert_int_equal(atomic_exchange(&runs[i], 0), 1);
}

static int count_range(const void *context, size_t begin, size_t end, void *results)
{
    CHECK(context == runs);
    CHECK(begin < end && end <= COUNTED);
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&runs[i], 1);
        ((unsigned *)results)[i - begin] = (unsigned)i + 1;
    }
    return 0;
}

static void test_range(void **state)
{
    (void)state;
    static unsigned results[COUNTED];
    cf_executor *executors[] = { inline_executor(), pool_of(3) };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        assert_int_equal(cf_map_range(executors[e], count_range, runs, sizeof runs, COUNTED,
                                      results, sizeof *results, CF_FOREVER),
                         CF_OK);
        assert_checks();
        expect_one_run_each();
        for (size_t i = 0; i < COUNTED; i++)
            assert_int_equal(results[i], i + 1);
        cf_executor_free(executors[e]);
    }
}

static int shout(const void *word, size_t size, cf_bytes *result)
{
    if (size == 0)
        return 0;
    if (cf_bytes_resize(result, size + 1) != CF_OK)
        return cf_raise(ENOMEM, "no memory");
    memcpy(result->data, word, size);
    ((char *)result->data)[size] = '!';
    return 0;
}

static void map_words(cf_executor *executor, int64_t timeout_ns)
{
    static char text[300];
    memset(text, 'a', sizeof text);
    cf_bytes args[COUNT_OF(text)], results[COUNT_OF(text)];
    for (size_t i = 0; i < COUNT_OF(args); i++)
        args[i] = (cf_bytes){ i ? text : NULL, i };
    assert_int_equal(cf_map_bytes(executor, shout, args, COUNT_OF(args), results, timeout_ns),
                     CF_OK);
    assert_null(results[0].data);
    for (size_t i = 1; i < COUNT_OF(args); i++) {
        assert_int_equal(results[i].size, i + 1);
        assert_memory_equal(results[i].data, text, i);
        assert_int_equal(((char *)results[i].data)[i], '!');
    }
    for (size_t i = 0; i < COUNT_OF(args); i++)
        cf_bytes_free(&results[i]);
}

static void test_bytes(void **state)
{
    (void)state;
    cf_executor *executors[] = { inline_executor(), pool_of(3) };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        map_words(executors[e], CF_FOREVER);
        map_words(executors[e], CF_SECONDS(50));
        cf_executor_free(executors[e]);
    }
}

static atomic_size_t calls;

static int expect_nulls(const void *arg, void *result)
{
    CHECK(arg == NULL);
    CHECK(result == NULL);
    atomic_fetch_add(&calls, 1);
    return 0;
}

static void test_no_arrays(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    atomic_store(&calls, 0);
    assert_int_equal(cf_map(pool, expect_nulls, NULL, 1000, 0, NULL, 0, CF_FOREVER), CF_OK);
    assert_int_equal(cf_map(pool, expect_nulls, NULL, 1000, 0, NULL, 0, CF_SECONDS(50)), CF_OK);
    assert_checks();
    assert_int_equal(atomic_load(&calls), 2000);
    cf_executor_free(pool);
}

/* ---- whose memory ---- */

static const int *users_args;
static const int64_t *users_results;
static bool in_place;

static int see_where(const void *arg, void *result)
{
    const int *a = arg;
    const int64_t *r = result;
    CHECK((a >= users_args && a < users_args + 100) == in_place);
    CHECK((r >= users_results && r < users_results + 100) == in_place);
    *(int64_t *)result = *a;
    return 0;
}

static void test_copies_only_with_a_limit(void **state)
{
    (void)state;
    int args[100];
    int64_t results[100];
    for (int i = 0; i < 100; i++)
        args[i] = i;
    users_args = args;
    users_results = results;
    cf_executor *pool = pool_of(2);
    in_place = true;
    assert_int_equal(CF_MAP(pool, see_where, args, 100, results, CF_FOREVER), CF_OK);
    in_place = false;
    memset(results, 0, sizeof results);
    assert_int_equal(CF_MAP(pool, see_where, args, 100, results, CF_SECONDS(50)), CF_OK);
    assert_checks();
    for (int i = 0; i < 100; i++)
        assert_int_equal(results[i], i);
    cf_executor_free(pool);
}

/* ---- failures ---- */

static int fail_from_7_on(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int *)result = x;
    atomic_fetch_add(&calls, 1);
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
    cf_executor *executors[] = { inline_executor(), pool_of(1) };
    for (size_t e = 0; e < COUNT_OF(executors); e++) {
        for (int limited = 0; limited < 2; limited++) {
            atomic_store(&calls, 0);
            memset(results, 0, sizeof results);
            assert_int_equal(CF_MAP(executors[e], fail_from_7_on, args, 100, results,
                                    limited ? CF_SECONDS(50) : CF_FOREVER),
                             CF_FAILED);
            assert_last_error(CF_FAILED, 7, "7 is too much", 7);
            assert_int_equal(atomic_load(&calls), 8);
            for (int i = 0; i < 7; i++)
                assert_int_equal(results[i], i);
        }
        cf_executor_free(executors[e]);
    }
}

static void test_failure_among_many_workers(void **state)
{
    (void)state;
    static int args[10000], results[10000];
    iota(args, 10000);
    cf_executor *pool = pool_of(4);
    for (int round = 0; round < 200; round++) {
        assert_int_equal(CF_MAP(pool, fail_from_7_on, args, 10000, results, CF_FOREVER), CF_FAILED);
        const cf_error *e = cf_last_error();
        assert_true(e->index >= 7 && e->index < 10000);
        assert_int_equal(e->code, (int)e->index);
    }
    cf_executor_free(pool);
}

/* Raises at 1 without failing, and fails at 2 without raising. */
static int raise_then_fail(const void *arg, void *result)
{
    (void)result;
    int x = *(const int *)arg;
    if (x == 1)
        (void)cf_raise(9, "this was nothing");
    return x == 2 ? 22 : 0;
}

static void test_nobody_is_blamed_for_another(void **state)
{
    (void)state;
    int args[3] = { 0, 1, 2 };
    cf_executor *executor = inline_executor();
    assert_int_equal(cf_map(executor, raise_then_fail, args, 3, sizeof *args, NULL, 0, CF_FOREVER),
                     CF_FAILED);
    assert_last_error(CF_FAILED, 22, "the task returned a non-zero code", 2);
    cf_executor_free(executor);
}

static atomic_int objects_destroyed;

static void destroy_object(void *object)
{
    CHECK(object == &objects_destroyed);
    atomic_fetch_add(&objects_destroyed, 1);
}

static int raise_objects(const void *arg, void *result)
{
    (void)result;
    int code = cf_raise_object(5, &objects_destroyed, destroy_object);
    return *(const int *)arg == 3 ? code : 0;
}

static void test_raised_objects_are_dropped(void **state)
{
    (void)state;
    int args[6];
    iota(args, 6);
    cf_executor *executor = inline_executor();
    atomic_store(&objects_destroyed, 0);
    assert_int_equal(cf_map(executor, raise_objects, args, 6, sizeof *args, NULL, 0, CF_FOREVER),
                     CF_FAILED);
    assert_int_equal(cf_last_error()->code, 5);
    assert_int_equal(atomic_load(&objects_destroyed), 4);
    assert_checks();
    cf_executor_free(executor);
}

/* 0 ends when it is told to stop; 1 says why. */
static int obey_or_fail(const void *arg, void *result)
{
    (void)result;
    static struct start_line line = { .parties = 2 };
    line_up(&line);
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
    assert_last_error(CF_FAILED, 7, "the cause", 1);
    cf_executor_free(pool);
}

/* Quick ones first, so that pieces grow; then whoever gets the trap stays in it until the other has
 * come to the failure. */
enum { TRAP = 3000, FAILURE = 6000 };
static atomic_bool out_of_the_trap;

static int trap_or_fail(const void *arg, void *result)
{
    (void)result;
    if (atomic_load(&out_of_the_trap))
        atomic_fetch_add(&calls, 1);
    if (*(const int *)arg == FAILURE)
        return cf_raise(1, "the failure");
    if (*(const int *)arg == TRAP) {
        WAIT_UNTIL(cf_stop_requested());
        atomic_store(&out_of_the_trap, true);
    }
    return 0;
}

static void test_others_end_after_their_current_element(void **state)
{
    (void)state;
    static int args[FAILURE + 1];
    iota(args, FAILURE + 1);
    cf_executor *pool = pool_of(2);
    for (int round = 0; round < 20; round++) {
        atomic_store(&calls, 0);
        atomic_store(&out_of_the_trap, false);
        assert_int_equal(cf_map(pool, trap_or_fail, args, FAILURE + 1, 4, NULL, 0, CF_FOREVER),
                         CF_FAILED);
        assert_int_equal(cf_last_error()->index, FAILURE);
        assert_int_equal(atomic_load(&calls), 0);
    }
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

static int shout_but_5(const void *word, size_t size, cf_bytes *result)
{
    int code = shout(word, size, result);
    return size == 5 ? cf_raise(5, "five") : code;
}

static void test_results_beside_a_failure_are_the_callers(void **state)
{
    (void)state;
    cf_executor *executor = inline_executor();
    for (int limited = 0; limited < 2; limited++) {
        char text[10] = "aaaaaaaaa";
        cf_bytes args[10], results[10];
        for (size_t i = 0; i < 10; i++) {
            args[i] = (cf_bytes){ text, i };
            results[i] = (cf_bytes){ text, 99 };
        }
        assert_int_equal(cf_map_bytes(executor, shout_but_5, args, 10, results,
                                      limited ? CF_SECONDS(50) : CF_FOREVER),
                         CF_FAILED);
        assert_last_error(CF_FAILED, 5, "five", 5);
        for (size_t i = 0; i < 10; i++) {
            assert_int_equal(results[i].size, i > 0 && i < 5 ? i + 1 : 0);
            assert_int_equal(results[i].data != NULL, i > 0 && i < 5);
            cf_bytes_free(&results[i]);
        }
    }
    cf_executor_free(executor);
}

/* ---- arguments ---- */

static void assert_invalid(cf_status status, const char *what)
{
    assert_int_equal(status, CF_INVALID);
    assert_message_has(what);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    int args[4] = { 0 };
    int64_t results[4] = { 1, 2, 3, 4 };
    cf_bytes words[2] = { { NULL, 0 }, { NULL, 5 } }, out[2];
    memset(out, 0x5a, sizeof out);
    const cf_bytes before = out[0];

    assert_invalid(cf_map(NULL, square, args, 4, 4, results, 8, CF_FOREVER), "executor");
    assert_invalid(cf_map(NULL, square, NULL, 0, 4, NULL, 8, CF_FOREVER), "executor");
    assert_invalid(cf_map(pool, NULL, args, 4, 4, results, 8, CF_FOREVER), "fn");
    assert_invalid(cf_map(pool, square, NULL, 4, 4, results, 8, CF_FOREVER), "args");
    assert_invalid(cf_map(pool, square, args, 4, 4, NULL, 8, CF_FOREVER), "results");
    assert_invalid(cf_map(pool, square, args, SIZE_MAX / 2, 4, results, 1, CF_FOREVER), "args");
    assert_invalid(cf_map(pool, square, args, SIZE_MAX / 4, 1, results, 8, CF_FOREVER), "results");
    assert_invalid(cf_map_bytes(pool, NULL, words, 1, out, CF_FOREVER), "fn");
    assert_invalid(cf_map_bytes(pool, shout, NULL, 1, out, CF_FOREVER), "args");
    assert_invalid(cf_map_bytes(pool, shout, words, 2, out, CF_FOREVER), "args[1].data");
    assert_invalid(cf_map_bytes(pool, shout, words, 1, NULL, CF_FOREVER), "results");
    assert_invalid(cf_map_bytes(pool, shout, words, SIZE_MAX / 4, out, CF_FOREVER), "too many");
    assert_invalid(cf_map_range(pool, NULL, args, 4, 4, NULL, 0, CF_FOREVER), "fn");
    assert_invalid(cf_map_range(pool, count_range, NULL, 4, 4, NULL, 0, CF_FOREVER), "context");
    assert_invalid(cf_map_range(pool, count_range, args, 4, 4, NULL, 4, CF_FOREVER), "results");
    assert_invalid(cf_map_range(pool, count_range, args, 4, SIZE_MAX / 2, results, 8, CF_FOREVER),
                   "results");

    for (int i = 0; i < 4; i++)
        assert_int_equal(results[i], i + 1);
    assert_memory_equal(&out[0], &before, sizeof before);
    cf_executor_free(pool);
}

static void test_nothing_to_do(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    assert_int_equal(cf_map(pool, square, NULL, 0, 4, NULL, 8, 0), CF_OK);
    assert_int_equal(cf_map_bytes(pool, shout, NULL, 0, NULL, CF_FOREVER), CF_OK);
    assert_int_equal(cf_map_range(pool, count_range, runs, 1, 0, NULL, 4, CF_FOREVER), CF_OK);
    cf_executor_free(pool);
}

static void test_no_time(void **state)
{
    (void)state;
    int args[8], results[8];
    iota(args, 8);
    cf_bytes word = { args, 4 }, out = { args, 1 };
    cf_executor *executor = inline_executor();
    atomic_store(&calls, 0);
    assert_int_equal(CF_MAP(executor, fail_from_7_on, args, 8, results, 0), CF_TIMEOUT);
    assert_int_equal(CF_MAP(executor, fail_from_7_on, args, 8, results, -5), CF_TIMEOUT);
    assert_int_equal(atomic_load(&calls), 0);
    assert_int_equal(cf_map_bytes(executor, shout, &word, 1, &out, 0), CF_TIMEOUT);
    assert_null(out.data);
    assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
    cf_executor_free(executor);
}

/* ---- time limits ---- */

static struct event go_on;
static atomic_int begun;

static void start_anew(void)
{
    go_on = (struct event)EVENT_INIT;
    atomic_store(&begun, 0);
    atomic_store(&calls, 0);
}

/* Uses its argument and result after the map may have returned. */
static int wait_and_copy(const void *arg, size_t size, cf_bytes *result)
{
    atomic_fetch_add(&begun, 1);
    event_wait(&go_on);
    CHECK(cf_stop_requested());
    CHECK(size == 4);
    CHECK(cf_bytes_resize(result, size) == CF_OK);
    memcpy(result->data, arg, size);
    return 0;
}

static void test_time_out_leaves_copies(void **state)
{
    (void)state;
    start_anew();
    cf_executor *pool = pool_of(2);
    cf_bytes *args = calloc(50, sizeof *args), *results = calloc(50, sizeof *results);
    char *text = strdup("text");
    for (int i = 0; i < 50; i++)
        args[i] = (cf_bytes){ text, 4 };
    assert_int_equal(cf_map_bytes(pool, wait_and_copy, args, 50, results, CF_MS(20)), CF_TIMEOUT);
    assert_message_has("cf_map_bytes");
    for (int i = 0; i < 50; i++)
        assert_null(results[i].data);
    free(text);
    free(args);
    free(results);
    event_set(&go_on);
    cf_executor_free(pool);
    assert_in_range(atomic_load(&begun), 0, 2); /* none began after it */
    assert_checks();
}

static int wait_in_range(const void *context, size_t begin, size_t end, void *results)
{
    char expected[256];
    memset(expected, 'c', sizeof expected);
    event_wait(&go_on);
    CHECK(memcmp(context, expected, sizeof expected) == 0);
    memset(results, 1, end - begin);
    return 0;
}

static void test_time_out_of_a_range(void **state)
{
    (void)state;
    start_anew();
    cf_executor *pool = pool_of(2);
    char *context = malloc(256), *results = malloc(1000);
    memset(context, 'c', 256);
    assert_int_equal(cf_map_range(pool, wait_in_range, context, 256, 1000, results, 1, CF_MS(20)),
                     CF_TIMEOUT);
    free(context);
    free(results);
    event_set(&go_on);
    cf_executor_free(pool);
    assert_checks();
}

static int until_stopped(const void *arg, void *result)
{
    (void)arg, (void)result;
    atomic_fetch_add(&begun, 1);
    WAIT_UNTIL(cf_stop_requested());
    return 1;
}

static void test_time_out_asks_to_stop(void **state)
{
    (void)state;
    start_anew();
    int args[4] = { 0 };
    cf_executor *pool = pool_of(2);
    assert_int_equal(cf_map(pool, until_stopped, args, 4, 4, NULL, 0, CF_MS(20)), CF_TIMEOUT);
    cf_executor_free(pool); /* ends */
}

static int fail_or_wait(const void *arg, void *result)
{
    (void)result;
    static struct start_line line = { .parties = 2 };
    line_up(&line);
    if (*(const int *)arg == 0)
        return cf_raise(3, "known before the end of the time");
    event_wait(&go_on);
    return 0;
}

static void test_failure_counts_more_than_the_time(void **state)
{
    (void)state;
    start_anew();
    int args[2] = { 0, 1 };
    cf_executor *pool = pool_of(2);
    assert_int_equal(cf_map(pool, fail_or_wait, args, 2, 4, NULL, 0, CF_MS(200)), CF_FAILED);
    assert_last_error(CF_FAILED, 3, "known before the end of the time", 0);
    event_set(&go_on);
    cf_executor_free(pool);
}

/* An executor whose `stop` takes until the task has ended. */
static void *run_it(void *future)
{
    cf_future_run(future);
    cf_future_unref(future);
    return NULL;
}

static cf_status run_on_a_thread(void *self, cf_future *future)
{
    pthread_t *thread = self;
    if (*thread)
        return CF_FULL;
    return pthread_create(thread, NULL, run_it, future) == 0 ? CF_OK : CF_SYSTEM;
}

static bool stop_and_wait(void *self, cf_future *future, int64_t grace_ns)
{
    (void)self, (void)grace_ns;
    WAIT_UNTIL(cf_future_done(future));
    return true;
}

static void test_who_is_stopped_by_the_time_has_not_failed(void **state)
{
    (void)state;
    int arg = 0;
    pthread_t thread = 0;
    const cf_executor_ops ops = {
        .size = sizeof ops, .kind = "stop", .submit = run_on_a_thread, .stop = stop_and_wait
    };
    cf_executor *executor;
    assert_int_equal(cf_executor_new(&ops, &thread, &executor), CF_OK);
    assert_int_equal(cf_map(executor, until_stopped, &arg, 1, 4, NULL, 0, CF_MS(20)), CF_TIMEOUT);
    assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
    join_thread(thread);
    cf_executor_free(executor);
}

/* ---- shutting down ---- */

static void test_shut_down_before(void **state)
{
    (void)state;
    int args[4], results[4] = { 9, 9, 9, 9 };
    iota(args, 4);
    cf_executor *pool = pool_of(1);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
    assert_int_equal(CF_MAP(pool, fail_from_7_on, args, 4, results, CF_FOREVER), CF_SHUTDOWN);
    assert_int_equal(results[0], 9);
    cf_executor_free(pool);
}

struct call {
    cf_executor *pool;
    cf_fn *fn;
    cf_status status;
    cf_error error;
};

static void *map_four(void *data)
{
    struct call *call = data;
    int args[4];
    iota(args, 4);
    call->status = cf_map(call->pool, call->fn, args, 4, 4, NULL, 0, CF_FOREVER);
    call->error = *cf_last_error();
    call->error.message = NULL;
    return NULL;
}

static int hold(const void *arg, void *result)
{
    (void)arg, (void)result;
    atomic_fetch_add(&begun, 1);
    event_wait(&go_on);
    return 0;
}

/* Cancels the runners and does nothing else. */
static cf_future *held[64];
static atomic_size_t held_count;

static cf_status hold_future(void *self, cf_future *future)
{
    (void)self;
    held[atomic_load(&held_count)] = future;
    atomic_fetch_add(&held_count, 1);
    return CF_OK;
}

static void test_cancelled_before_it_began(void **state)
{
    (void)state;
    static const cf_executor_ops ops = { .size = sizeof ops,
                                         .kind = "hold",
                                         .submit = hold_future };
    struct call call = { .fn = hold };
    atomic_store(&held_count, 0);
    start_anew();
    assert_int_equal(cf_executor_new(&ops, NULL, &call.pool), CF_OK);
    pthread_t thread = start_thread(map_four, &call);
    WAIT_UNTIL(atomic_load(&held_count) > 0);
    size_t cancelled = 0;
    while (!cf_future_cancelled(held[0]) || cancelled < atomic_load(&held_count)) {
        if (cancelled < atomic_load(&held_count))
            assert_true(cf_future_cancel(held[cancelled++]));
    }
    join_thread(thread);
    assert_int_equal(call.status, CF_CANCELLED);
    assert_int_equal(call.error.status, CF_CANCELLED);
    assert_int_equal(atomic_load(&begun), 0);
    for (size_t i = 0; i < atomic_load(&held_count); i++)
        cf_future_unref(held[i]);
    cf_executor_free(call.pool);
}

static void test_stopped_by_shutdown(void **state)
{
    (void)state;
    start_anew();
    struct call call = { .pool = pool_of(2), .fn = until_stopped };
    pthread_t thread = start_thread(map_four, &call);
    WAIT_UNTIL(atomic_load(&begun) > 0);
    assert_int_equal(cf_executor_shutdown(call.pool, CF_STOP_RUNNING, CF_FOREVER), CF_OK);
    join_thread(thread);
    assert_int_equal(call.status, CF_STOPPED);
    assert_int_equal(call.error.code, 1);
    cf_executor_free(call.pool);
}

/* ---- pools that cannot, or do otherwise ---- */

static cf_status full_after_one(void *self, cf_future *future)
{
    int *left = self;
    if ((*left)-- <= 0)
        return CF_FULL;
    return hold_future(NULL, future);
}

static void *run_held(void *unused)
{
    (void)unused;
    WAIT_UNTIL(atomic_load(&held_count) > 0);
    cf_future_run(held[0]);
    cf_future_unref(held[0]);
    return NULL;
}

static void test_runner_that_never_begins(void **state)
{
    (void)state;
    static const cf_executor_ops ops = { .size = sizeof ops,
                                         .kind = "hold",
                                         .submit = hold_future };
    cf_executor *executor;
    assert_int_equal(cf_executor_new(&ops, NULL, &executor), CF_OK);
    for (int limited = 0; limited < 2; limited++) {
        atomic_store(&held_count, 0);
        pthread_t thread = start_thread(run_held, NULL);
        map_squares(executor, 50, limited ? CF_SECONDS(50) : CF_FOREVER);
        join_thread(thread);
        for (size_t i = 1; i < atomic_load(&held_count); i++) {
            assert_true(cf_future_cancelled(held[i]));
            cf_future_unref(held[i]);
        }
    }
    cf_executor_free(executor);
}

static void test_one_runner_is_enough(void **state)
{
    (void)state;
    int left = 1;
    const cf_executor_ops ops = { .size = sizeof ops, .kind = "small", .submit = full_after_one };
    cf_executor *executor;
    atomic_store(&held_count, 0);
    assert_int_equal(cf_executor_new(&ops, &left, &executor), CF_OK);
    pthread_t thread = start_thread(run_held, NULL);
    map_squares(executor, 1000, CF_FOREVER);
    join_thread(thread);
    int arg = 0;
    assert_int_equal(cf_map(executor, hold, &arg, 1, 4, NULL, 0, CF_FOREVER), CF_FULL);
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

static void test_broken_runners(void **state)
{
    (void)state;
    static const cf_executor_ops ops = { .size = sizeof ops, .kind = "broken", .submit = break_it };
    cf_executor *executor;
    int arg = 0;
    assert_int_equal(cf_executor_new(&ops, NULL, &executor), CF_OK);
    assert_int_equal(cf_map(executor, hold, &arg, 1, 4, NULL, 0, CF_FOREVER), CF_BROKEN);
    assert_checks();
    assert_string_equal(cf_last_error()->message, "its worker died");
    assert_int_equal(cf_last_error()->worker_pid, 42);
    cf_executor_free(executor);
}

static void test_small_bounded_pools(void **state)
{
    (void)state;
    static const cf_when_full policies[] = { CF_WHEN_FULL_WAIT, CF_WHEN_FULL_REJECT,
                                             CF_WHEN_FULL_RUN_IN_CALLER };
    for (size_t i = 0; i < COUNT_OF(policies); i++) {
        cf_executor *pool;
        assert_int_equal(
            cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 3, .max_pending = 1,
                                                      .when_full = policies[i]),
                               &pool),
            CF_OK);
        for (int round = 0; round < 20; round++)
            map_squares(pool, 5000, round % 2 ? CF_FOREVER : CF_SECONDS(50));
        cf_executor_free(pool);
    }
}

/* Both runners have failed before the caller knows of either. */
static cf_future *two[2];

static void *run_one(void *future)
{
    cf_future_run(future);
    return NULL;
}

static cf_status run_two_at_once(void *self, cf_future *future)
{
    int *count = self;
    two[(*count)++] = future;
    if (*count < 2)
        return CF_OK;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, run_one, two[i]) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        cf_future_unref(two[i]);
    }
    return CF_OK;
}

static struct start_line both;

static int both_fail(const void *arg, void *result)
{
    (void)result;
    line_up(&both);
    return cf_raise(*(const int *)arg + 10, "both");
}

static void test_lowest_failure_counts(void **state)
{
    (void)state;
    if (cf_cpu_count() < 2)
        skip(); /* there is one runner only */
    for (int round = 0; round < 100; round++) {
        int count = 0, args[2] = { 0, 1 };
        const cf_executor_ops ops = { .size = sizeof ops,
                                      .kind = "two",
                                      .submit = run_two_at_once };
        cf_executor *executor;
        both = (struct start_line){ .parties = 2 };
        assert_int_equal(cf_executor_new(&ops, &count, &executor), CF_OK);
        assert_int_equal(cf_map(executor, both_fail, args, 2, 4, NULL, 0, CF_FOREVER), CF_FAILED);
        assert_last_error(CF_FAILED, 10, "both", 0);
        cf_executor_free(executor);
    }
    assert_checks();
}

/* ---- inside tasks, and hooks ---- */

static cf_executor *this_pool;

static int sum_of_squares(const void *arg, void *result)
{
    int args[50];
    int64_t results[50], sum = 0;
    iota(args, *(const int *)arg);
    if (CF_MAP(this_pool, square, args, (size_t) * (const int *)arg, results, CF_FOREVER) != CF_OK)
        return cf_raise(1, "inner: %s", cf_last_error()->message);
    for (int i = 0; i < *(const int *)arg; i++)
        sum += results[i];
    *(int64_t *)result = sum;
    return 0;
}

static void test_nested_on_the_same_pool(void **state)
{
    (void)state;
    int args[50];
    int64_t results[50];
    iota(args, 50);
    for (unsigned workers = 1; workers < 4; workers++) {
        this_pool = pool_of(workers);
        assert_int_equal(CF_MAP(this_pool, sum_of_squares, args, 50, results, CF_FOREVER), CF_OK);
        for (int64_t n = 0; n < 50; n++)
            assert_int_equal(results[n], n * (n - 1) * (2 * n - 1) / 6);
        cf_executor_free(this_pool);
    }
}

static atomic_int sleeps;
static pthread_t caller;

static void before_sleep(void *data)
{
    (void)data;
    atomic_fetch_add(&sleeps, 1);
}

static bool go_on_unless_signalled(void *data, bool signalled)
{
    (void)data;
    return !signalled;
}

static void ignore(int signal_number)
{
    (void)signal_number;
}

/* Interrupts the caller's wait, and ends when that waits again, as it must while this runs. */
static int interrupt_caller(const void *arg, void *result)
{
    (void)arg;
    while (!cf_stop_requested()) {
        CHECK(pthread_kill(caller, SIGUSR1) == 0);
        sched_yield();
    }
    int before = atomic_load(&sleeps);
    WAIT_UNTIL(atomic_load(&sleeps) > before || before > 1);
    *(int *)result = 77;
    return 0;
}

static void test_interrupted_caller_waits_for_what_runs(void **state)
{
    (void)state;
    static const cf_wait_hooks hooks = { .size = sizeof hooks,
                                         .before = before_sleep,
                                         .after = go_on_unless_signalled };
    const struct sigaction on_signal = { .sa_handler = ignore }; /* no SA_RESTART */
    struct sigaction former;
    assert_int_equal(sigaction(SIGUSR1, &on_signal, &former), 0);
    caller = pthread_self();
    atomic_store(&sleeps, 0);
    cf_executor *pool = pool_of(1);
    int arg = 0, result = 0;
    cf_set_wait_hooks(&hooks);
    cf_status s = CF_MAP(pool, interrupt_caller, &arg, 1, &result, CF_FOREVER);
    cf_set_wait_hooks(NULL);
    assert_int_equal(s, CF_INTERRUPTED);
    assert_int_equal(result, 77);
    assert_checks();
    cf_executor_free(pool);
    assert_int_equal(sigaction(SIGUSR1, &former, NULL), 0);
}

/* ---- how large a piece is ---- */

static void test_pieces(void **state)
{
    (void)state;
    assert_int_equal(cfi_map_piece(1, 0), CFI_PIECE_GROWTH);
    assert_int_equal(cfi_map_piece(1, 10), CFI_PIECE_GROWTH);
    assert_int_equal(cfi_map_piece(1000, 10000), 8000);
    assert_int_equal(cfi_map_piece(1000, CFI_PIECE_NS), 1000);
    assert_int_equal(cfi_map_piece(1000, 2 * CFI_PIECE_NS), 500);
    assert_int_equal(cfi_map_piece(1000, INT64_MAX), 1);
    assert_int_equal(cfi_map_piece(1, INT64_C(60000000000)), 1);
    assert_int_equal(cfi_map_piece(1000, 1), 8000);
    assert_true(cfi_map_piece(SIZE_MAX, CFI_PIECE_NS) == SIZE_MAX);
    assert_true(cfi_map_fit(1, 0) == SIZE_MAX);
    assert_int_equal(cfi_map_fit(10, CFI_PIECE_NS / 1000), 10000);
    assert_int_equal(cfi_map_fit(10, INT64_MAX), 1);
}

/* Whoever gets the first element, which is slow, must not have taken others with it. */
enum { MANY = 4000 };

static int slow_first(const void *arg, void *result)
{
    (void)result;
    atomic_fetch_add(&calls, 1);
    if (*(const int *)arg == 0)
        WAIT_UNTIL(atomic_load(&calls) == MANY);
    return 0;
}

static void test_slow_element_holds_nothing_back(void **state)
{
    (void)state;
    static int args[MANY];
    iota(args, MANY);
    cf_executor *pool = pool_of(2);
    atomic_store(&calls, 0);
    assert_int_equal(cf_map(pool, slow_first, args, MANY, 4, NULL, 0, CF_FOREVER), CF_OK);
    assert_int_equal(atomic_load(&calls), MANY);
    cf_executor_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_squares),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_no_arrays),
        cmocka_unit_test(test_copies_only_with_a_limit),
        cmocka_unit_test(test_first_failure_ends_it),
        cmocka_unit_test(test_failure_among_many_workers),
        cmocka_unit_test(test_nobody_is_blamed_for_another),
        cmocka_unit_test(test_raised_objects_are_dropped),
        cmocka_unit_test(test_who_obeys_does_not_hide_the_cause),
        cmocka_unit_test(test_others_end_after_their_current_element),
        cmocka_unit_test(test_range_fails_at_its_begin),
        cmocka_unit_test(test_results_beside_a_failure_are_the_callers),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_no_time),
        cmocka_unit_test(test_time_out_leaves_copies),
        cmocka_unit_test(test_time_out_of_a_range),
        cmocka_unit_test(test_time_out_asks_to_stop),
        cmocka_unit_test(test_failure_counts_more_than_the_time),
        cmocka_unit_test(test_who_is_stopped_by_the_time_has_not_failed),
        cmocka_unit_test(test_shut_down_before),
        cmocka_unit_test(test_cancelled_before_it_began),
        cmocka_unit_test(test_stopped_by_shutdown),
        cmocka_unit_test(test_runner_that_never_begins),
        cmocka_unit_test(test_one_runner_is_enough),
        cmocka_unit_test(test_broken_runners),
        cmocka_unit_test(test_small_bounded_pools),
        cmocka_unit_test(test_lowest_failure_counts),
        cmocka_unit_test(test_nested_on_the_same_pool),
        cmocka_unit_test(test_interrupted_caller_waits_for_what_runs),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_slow_element_holds_nothing_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
