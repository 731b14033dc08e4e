/* SPDX-License-Identifier: MIT */
/* The executor that runs each task inside submit. */
#define _GNU_SOURCE
#include "support.h"

#include <cfutures/provider.h>

static cf_executor *executor;

static int open_executor(void **state)
{
    (void)state;
    return cf_inline_executor_new(&executor) == CF_OK ? 0 : -1;
}

static int close_executor(void **state)
{
    (void)state;
    executor = cf_executor_free(executor);
    assert_checks();
    return 0;
}

static pthread_t ran_on;

static int square(const void *arg, void *result)
{
    ran_on = pthread_self();
    int n = *(const int *)arg;
    if (n < 0)
        return cf_raise(n, "%d has no square here", n);
    *(int *)result = n * n;
    return 0;
}

static int repeat(const void *arg, size_t arg_size, cf_bytes *result)
{
    CHECK(cf_bytes_resize(result, 2 * arg_size) == CF_OK);
    memcpy(result->data, arg, arg_size);
    memcpy((char *)result->data + arg_size, arg, arg_size);
    return 0;
}

static void test_no_place_for_it(void **unused)
{
    (void)unused;
    assert_int_equal(cf_inline_executor_new(NULL), CF_INVALID);
}

static void test_futures_come_back_done(void **unused)
{
    (void)unused;
    int n = 7, result = 0;
    cf_future *f = NULL;
    assert_int_equal(CF_SUBMIT(executor, square, &n, int, &f), CF_OK);
    assert_true(cf_future_done(f));
    assert_true(pthread_equal(ran_on, pthread_self()));
    assert_int_equal(CF_RESULT(f, 0, &result), CF_OK);
    assert_int_equal(result, 49);
    assert_false(cf_future_cancel(f));
    assert_false(cf_future_stop(f, 0));
    cf_future_unref(f);
}

static void test_failures_are_the_futures(void **unused)
{
    (void)unused;
    int n = -7, result = 0;
    cf_future *f = NULL;
    assert_int_equal(CF_SUBMIT(executor, square, &n, int, &f), CF_OK);
    assert_int_equal(CF_RESULT(f, 0, &result), CF_FAILED);
    assert_int_equal(cf_future_exception(f)->code, -7);
    assert_string_equal(cf_future_exception(f)->message, "-7 has no square here");
    cf_future_unref(f);
}

static void test_bytes(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_bytes result = { NULL, 0 };
    assert_int_equal(cf_submit_bytes(executor, repeat, "ab", 2, &f), CF_OK);
    assert_int_equal(CF_TAKE(f, CF_FOREVER, &result), CF_OK);
    assert_int_equal(result.size, 4);
    assert_memory_equal(result.data, "abab", 4);
    cf_bytes_free(&result);
    cf_future_unref(f);
}

static void test_nobody_asks(void **unused)
{
    (void)unused;
    int n = 1;
    ran_on = (pthread_t){ 0 };
    assert_int_equal(CF_SUBMIT(executor, square, &n, int, NULL), CF_OK);
    assert_true(pthread_equal(ran_on, pthread_self()));
}

/* n! by a task within a task within a task. */
static int factorial(const void *arg, void *result)
{
    long n = *(const long *)arg, below = n - 1, product = 1;
    if (n > 1) {
        cf_future *f = NULL;
        CHECK(CF_SUBMIT(executor, factorial, &below, long, &f) == CF_OK);
        CHECK(CF_RESULT(f, CF_FOREVER, &product) == CF_OK);
        cf_future_unref(f);
    }
    *(long *)result = n * product;
    return 0;
}

static void test_tasks_within_tasks(void **unused)
{
    (void)unused;
    long n = 12, result = 0;
    cf_future *f = NULL;
    assert_int_equal(CF_SUBMIT(executor, factorial, &n, long, &f), CF_OK);
    assert_int_equal(CF_RESULT(f, 0, &result), CF_OK);
    assert_int_equal(result, 479001600);
    cf_future_unref(f);
}

static void submit_another(cf_future *future, void *data)
{
    int n = 3;
    (void)future;
    CHECK(CF_SUBMIT(executor, square, &n, int, data) == CF_OK);
}

static void test_a_callback_submits(void **unused)
{
    (void)unused;
    int n = 2, result = 0;
    cf_future *f = NULL, *next = NULL;
    assert_int_equal(CF_SUBMIT(executor, square, &n, int, &f), CF_OK);
    assert_int_equal(cf_future_add_done_callback(f, submit_another, &next), CF_OK);
    assert_int_equal(CF_RESULT(next, 0, &result), CF_OK);
    assert_int_equal(result, 9);
    cf_future_unref(f);
    cf_future_unref(next);
}

static int is_asked_to_stop(const void *arg, void *result)
{
    (void)arg, (void)result;
    WAIT_UNTIL(cf_stop_requested());
    return 1;
}

static void test_a_run_limit(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_task *task = CF_TASK(.fn = is_asked_to_stop, .run_limit_ns = CF_MS(1));
    assert_int_equal(cf_submit_task(executor, task, &f), CF_OK);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_STOPPED);
    cf_future_unref(f);
}

static void test_shutdown(void **unused)
{
    (void)unused;
    int n = 7, result = 0;
    cf_future *before = NULL, *after = NULL;
    assert_int_equal(CF_SUBMIT(executor, square, &n, int, &before), CF_OK);
    for (int mode = CF_FINISH_PENDING; mode <= CF_STOP_RUNNING; mode++)
        assert_int_equal(cf_executor_shutdown(executor, (cf_shutdown_mode)mode, 0), CF_OK);
    assert_int_equal(CF_SUBMIT(executor, square, &n, int, &after), CF_SHUTDOWN);
    assert_null(after);
    assert_int_equal(CF_RESULT(before, 0, &result), CF_OK);
    cf_future_unref(before);
}

static int shut_down(const void *arg, void *result)
{
    int n = 7;
    (void)arg, (void)result;
    CHECK(cf_executor_shutdown(executor, CF_FINISH_PENDING, CF_FOREVER) == CF_DEADLOCK);
    CHECK(CF_SUBMIT(executor, square, &n, int, NULL) == CF_SHUTDOWN);
    return 0;
}

static int free_executor(const void *arg, void *result)
{
    (void)arg, (void)result;
    executor = cf_executor_free(executor);
    return 0;
}

static void ends_itself(cf_fn *fn)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit(executor, fn, NULL, 0, 0, &f), CF_OK);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    cf_future_unref(f);
}

static void test_a_task_shuts_it_down(void **unused)
{
    (void)unused;
    ends_itself(shut_down);
}

static void test_a_task_frees_it(void **unused)
{
    (void)unused;
    ends_itself(free_executor);
}

/* What runs is asked to stop, also where it runs in somebody's submit. */
static struct event task_runs;

static int run_until_stopped(const void *arg, void *result)
{
    (void)arg, (void)result;
    event_set(&task_runs);
    WAIT_UNTIL(cf_stop_requested());
    return 1;
}

static void *submit_one_until_stopped(void *future)
{
    cf_task *task = CF_TASK(.fn = run_until_stopped, .run_limit_ns = CF_SECONDS(3));
    CHECK(cf_submit_task(executor, task, future) == CF_OK);
    return NULL;
}

static void test_shutdown_stops_what_runs(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    task_runs = (struct event)EVENT_INIT;
    pthread_t other = start_thread(submit_one_until_stopped, &f);
    event_wait(&task_runs);
    cf_status s = cf_executor_shutdown(executor, CF_STOP_RUNNING, CF_SECONDS(1));
    join_thread(other);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_STOPPED);
    cf_future_unref(f);
    assert_int_equal(s, CF_OK);
}

/* ---- several threads ---- */

static int cube(const void *arg, void *result)
{
    int n = *(const int *)arg;
    *(int *)result = n * n * n;
    return 0;
}

static void *cube_often(void *data)
{
    (void)data;
    for (int n = 0; n < 1000; n++) {
        int result = 0;
        cf_future *f = NULL;
        CHECK(CF_SUBMIT(executor, cube, &n, int, &f) == CF_OK);
        CHECK(CF_RESULT(f, 0, &result) == CF_OK && result == n * n * n);
        cf_future_unref(f);
    }
    return NULL;
}

static void test_threads_share_it(void **unused)
{
    (void)unused;
    run_on_threads(3, cube_often, NULL);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_executor, close_executor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_place_for_it),
        TEST(test_futures_come_back_done),
        TEST(test_failures_are_the_futures),
        TEST(test_bytes),
        TEST(test_nobody_asks),
        TEST(test_tasks_within_tasks),
        TEST(test_a_callback_submits),
        TEST(test_a_run_limit),
        TEST(test_shutdown),
        TEST(test_a_task_shuts_it_down),
        TEST(test_a_task_frees_it),
        TEST(test_shutdown_stops_what_runs),
        TEST(test_threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
