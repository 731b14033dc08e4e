/* SPDX-License-Identifier: MIT */
/* What a task may call: bytes that grow, what it says when it fails, and whether it should stop.
 * Tasks run on the main thread, through an executor that the test drives. */
#define _GNU_SOURCE
#include "manual.h"

#include "base/clock.h"
#include "core/future.h"

/* AddressSanitizer would rather end the program than let malloc return NULL. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static struct manual executor;

static int open_executor(void **state)
{
    (void)state;
    manual_open(&executor);
    return 0;
}

static int close_executor(void **state)
{
    (void)state;
    manual_close(&executor);
    return 0;
}

/* Runs a task without argument and result; the future is the caller's. */
static cf_future *run(cf_fn *fn)
{
    return manual_submit_and_run(&executor, &(cf_task){ .size = sizeof(cf_task), .fn = fn });
}

/* Runs it, and looks at why it failed. */
static void fails_with(cf_fn *fn, int code, const char *message)
{
    cf_future *f = run(fn);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_FAILED);
    const cf_error *e = cf_future_exception(f);
    assert_int_equal(e->status, CF_FAILED);
    assert_int_equal(e->code, code);
    assert_string_equal(e->message, message);
    assert_int_equal(cf_last_error()->code, code);
    assert_string_equal(cf_last_error()->message, message);
    cf_future_unref(f);
}

/* ---- bytes ---- */

static void test_bytes_grow_and_shrink(void **state)
{
    (void)state;
    cf_bytes bytes = { NULL, 0 };
    assert_int_equal(cf_bytes_resize(&bytes, 3), CF_OK);
    assert_int_equal(bytes.size, 3);
    memcpy(bytes.data, "abc", 3);
    assert_int_equal(cf_bytes_resize(&bytes, 100000), CF_OK);
    assert_int_equal(bytes.size, 100000);
    assert_memory_equal(bytes.data, "abc", 3);
    assert_int_equal((uintptr_t)bytes.data % 16, 0);
    memset((char *)bytes.data + 3, 'd', 100000 - 3);
    assert_int_equal(cf_bytes_resize(&bytes, 4), CF_OK);
    assert_int_equal(bytes.size, 4);
    assert_memory_equal(bytes.data, "abcd", 4);
    cf_bytes_free(&bytes);
    assert_true(bytes.data == NULL && bytes.size == 0);
}

static void test_no_bytes(void **state)
{
    (void)state;
    cf_bytes bytes = { NULL, 0 };
    assert_int_equal(cf_bytes_resize(&bytes, 0), CF_OK);
    assert_true(bytes.data == NULL && bytes.size == 0);
    assert_int_equal(cf_bytes_resize(&bytes, 10), CF_OK);
    assert_int_equal(cf_bytes_resize(&bytes, 0), CF_OK); /* frees */
    assert_true(bytes.data == NULL && bytes.size == 0);
    cf_bytes_free(&bytes);
    cf_bytes_free(&bytes);
    cf_bytes_free(NULL);
    assert_int_equal(cf_bytes_resize(NULL, 10), CF_INVALID);
    assert_int_equal(cf_bytes_resize(NULL, 0), CF_INVALID);
}

static void test_more_bytes_than_there_are(void **state)
{
    (void)state;
    cf_bytes bytes = { NULL, 0 };
    assert_int_equal(cf_bytes_resize(&bytes, 3), CF_OK);
    memcpy(bytes.data, "abc", 3);
    const cf_bytes before = bytes;
    assert_int_equal(cf_bytes_resize(&bytes, SIZE_MAX / 4), CF_NOMEM);
    assert_ptr_equal(bytes.data, before.data);
    assert_int_equal(bytes.size, 3);
    assert_memory_equal(bytes.data, "abc", 3);
    cf_bytes_free(&bytes);
}

/* ---- cf_raise ---- */

static int return_7(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 7;
}

static int raise_with_numbers(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise(-3, "%s: %d", "out of", 4);
}

static int raise_0(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise(0, "zero");
}

static int raise_twice(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise(1, "first");
    return cf_raise(2, "second");
}

static int raise_and_return_another(const void *arg, void *result)
{
    (void)arg, (void)result;
    CHECK(cf_raise(1, "raised") == 1);
    return 9;
}

static void test_why_a_task_failed(void **state)
{
    (void)state;
    fails_with(return_7, 7, "the task returned a non-zero code");
    fails_with(raise_with_numbers, -3, "out of: 4");
    fails_with(raise_0, -1, "zero");
    fails_with(raise_twice, 2, "second");
    fails_with(raise_and_return_another, 9, "raised");
}

static int raise_long(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise(1, "%0600d", 5);
}

static void test_what_it_says_is_cut(void **state)
{
    (void)state;
    char zeros[512];
    memset(zeros, '0', 511);
    zeros[511] = '\0';
    fails_with(raise_long, 1, zeros);
}

static int raise_a_local(const void *arg, void *result)
{
    (void)arg, (void)result;
    char text[16] = "gone afterwards";
    int code = cf_raise(1, "%s", text);
    memset(text, 'x', sizeof text);
    return code;
}

static void test_what_it_says_is_copied(void **state)
{
    (void)state;
    fails_with(raise_a_local, 1, "gone afterwards");
}

static int raise_and_succeed(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise(1, "not so bad");
    return 0;
}

static void test_whoever_succeeds_has_no_message(void **state)
{
    (void)state;
    cf_future *f = run(raise_and_succeed);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    assert_null(cf_future_exception(f));
    cf_future_unref(f);
}

static int run_one_below(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise(1, "above");
    cf_future *below = run(raise_with_numbers);
    CHECK(cf_future_exception(below)->code == -3);
    cf_future_unref(below);
    return 1;
}

static void test_a_task_within_a_task_has_its_own(void **state)
{
    (void)state;
    fails_with(run_one_below, 1, "above");
}

static void test_raising_outside_a_task(void **state)
{
    (void)state;
    assert_int_equal(cf_raise(5, "nobody hears %d", 1), 5);
    assert_int_equal(cf_raise(0, "nobody"), -1);
    fails_with(return_7, 7, "the task returned a non-zero code"); /* and none comes later */
}

/* ---- cf_raise_object ---- */

static unsigned destroyed; /* objects: sum of what they are */

static void destroy(void *object)
{
    destroyed += *(unsigned *)object;
}

static unsigned one = 1, ten = 10;

static int raise_one(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise_object(6, &one, destroy);
}

static int raise_one_then_ten(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise_object(6, &one, destroy);
    CHECK(destroyed == 0);
    int code = cf_raise_object(0, &ten, destroy);
    CHECK(destroyed == 1);
    return code;
}

static int raise_one_then_a_message(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise_object(6, &one, destroy);
    return cf_raise(7, "in words");
}

static int raise_a_message_then_one(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise(7, "in words");
    return cf_raise_object(6, &one, destroy);
}

static int raise_one_and_succeed(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_raise_object(6, &one, destroy);
    return 0;
}

static int raise_one_without_destroy(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise_object(6, &one, NULL);
}

static int raise_null(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise_object(6, NULL, destroy);
}

struct raising {
    cf_fn *fn;
    cf_status status;
    int code;
    void *object;
    const char *message;
    unsigned destroyed_by_then, destroyed_at_last;
};

static void test_objects(void **state)
{
    (void)state;
    const char *general = "the task returned a non-zero code";
    const struct raising cases[] = {
        { raise_one, CF_FAILED, 6, &one, general, 0, 1 },
        { raise_one_then_ten, CF_FAILED, -1, &ten, general, 1, 11 },
        { raise_one_then_a_message, CF_FAILED, 7, NULL, "in words", 1, 1 },
        { raise_a_message_then_one, CF_FAILED, 6, &one, general, 0, 1 },
        { raise_one_and_succeed, CF_OK, 0, NULL, NULL, 1, 1 },
        { raise_one_without_destroy, CF_FAILED, 6, &one, general, 0, 0 },
        { raise_null, CF_FAILED, 6, NULL, general, 0, 0 },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct raising *c = &cases[i];
        destroyed = 0;
        cf_future *f = run(c->fn), *second = cf_future_ref(f);
        assert_int_equal(cf_future_result(f, 0, NULL, 0), c->status);
        assert_ptr_equal(cf_future_exception_object(f), c->object);
        if (c->message) {
            assert_int_equal(cf_future_exception(f)->code, c->code);
            assert_string_equal(cf_future_exception(f)->message, c->message);
        }
        cf_future_unref(second);
        assert_int_equal(destroyed, c->destroyed_by_then);
        cf_future_unref(f);
        assert_int_equal(destroyed, c->destroyed_at_last);
    }
}

static void test_an_object_outside_a_task(void **state)
{
    (void)state;
    destroyed = 0;
    assert_int_equal(cf_raise_object(5, &one, destroy), 5);
    assert_int_equal(destroyed, 1);
    assert_int_equal(cf_raise_object(0, &ten, destroy), -1);
    assert_int_equal(destroyed, 11);
    assert_int_equal(cf_raise_object(5, &one, NULL), 5);
    assert_int_equal(cf_raise_object(5, NULL, destroy), 5);
    assert_int_equal(destroyed, 11);
    assert_null(cf_future_exception_object(NULL));
}

/* ---- asked to stop ---- */

static int stop_myself(const void *arg, void *result)
{
    (void)result;
    cf_future *myself = executor.futures[executor.count - 1];
    CHECK(!cf_stop_requested());
    CHECK(!cf_future_cancel(myself));
    CHECK(cf_future_stop(myself, 0));
    CHECK(cf_stop_requested());
    return *(const int *)arg;
}

static cf_future *run_one_that_stops(int code)
{
    const cf_task task = {
        .size = sizeof task, .fn = stop_myself, .arg = &code, .arg_size = sizeof code
    };
    return manual_submit_and_run(&executor, &task);
}

static void test_stopped_if_it_then_fails(void **state)
{
    (void)state;
    cf_future *f = run_one_that_stops(-4);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->status, CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->code, -4);
    assert_int_not_equal(strlen(cf_future_exception(f)->message), 0);
    assert_false(cf_future_stop(f, 0));
    cf_future_unref(f);
}

static void test_done_if_it_then_succeeds(void **state)
{
    (void)state;
    cf_future *f = run_one_that_stops(0);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    cf_future_unref(f);
}

static int stop_and_say_so(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_future_stop(executor.futures[executor.count - 1], 0);
    return cf_raise(8, "as you like");
}

static void test_stopped_with_a_message(void **state)
{
    (void)state;
    cf_future *f = run(stop_and_say_so);
    assert_int_equal(cf_future_exception(f)->status, CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->code, 8);
    assert_string_equal(cf_future_exception(f)->message, "as you like");
    cf_future_unref(f);
}

static int ask_above_and_below(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_future *below = run_one_that_stops(1);
    CHECK(cf_future_result(below, 0, NULL, 0) == CF_STOPPED);
    cf_future_unref(below);
    CHECK(!cf_stop_requested()); /* it was the inner one that was asked */
    return 3;
}

static void test_only_the_one_that_was_asked(void **state)
{
    (void)state;
    assert_false(cf_stop_requested());
    cf_future *f = run(ask_above_and_below);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_FAILED);
    assert_false(cf_stop_requested());
    cf_future_unref(f);
}

static int run_until_stopped(const void *arg, void *result)
{
    (void)arg, (void)result;
    WAIT_UNTIL(cf_stop_requested());
    return 5;
}

static void test_a_run_limit_stops_it(void **state)
{
    (void)state;
    const cf_task task = { .size = sizeof task, .fn = run_until_stopped, .run_limit_ns = CF_MS(2) };
    int64_t before = cfi_now();
    cf_future *f = manual_submit_and_run(&executor, &task);
    assert_true(cfi_now() - before >= CF_MS(2));
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->code, 5);
    cf_future_unref(f);
}

static int64_t stop_at;

static int take_stop_at(const void *arg, void *result)
{
    (void)arg, (void)result;
    stop_at = cfi_future_extra(executor.futures[executor.count - 1])->stop_at;
    return 0;
}

static void test_a_run_limit_begins_with_the_run(void **state)
{
    (void)state;
    cf_future *f = NULL;
    const cf_task task = { .size = sizeof task, .fn = take_stop_at, .run_limit_ns = CF_SECONDS(9) };
    assert_int_equal(cf_submit_task(executor.executor, &task, &f), CF_OK);
    int64_t submitted = cfi_now();
    WAIT_UNTIL(cfi_now() > submitted + CF_MS(1));
    int64_t begun = cfi_now();
    manual_run(&executor, executor.count - 1);
    assert_true(stop_at >= begun + CF_SECONDS(9));
    cf_future_unref(f);
}

static int is_not_asked(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_stop_requested() ? 1 : 0;
}

static void test_no_run_limit(void **state)
{
    (void)state;
    static const int64_t limits[] = { 0, CF_FOREVER, CF_FOREVER - 1, CF_SECONDS(3600) };
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        const cf_task task = { .size = sizeof task, .fn = is_not_asked, .run_limit_ns = limits[i] };
        cf_future *f = manual_submit_and_run(&executor, &task);
        assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
        cf_future_unref(f);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_executor, close_executor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_grow_and_shrink),
        cmocka_unit_test(test_no_bytes),
        cmocka_unit_test(test_more_bytes_than_there_are),
        TEST(test_why_a_task_failed),
        TEST(test_what_it_says_is_cut),
        TEST(test_what_it_says_is_copied),
        TEST(test_whoever_succeeds_has_no_message),
        TEST(test_a_task_within_a_task_has_its_own),
        TEST(test_raising_outside_a_task),
        TEST(test_objects),
        TEST(test_an_object_outside_a_task),
        TEST(test_stopped_if_it_then_fails),
        TEST(test_done_if_it_then_succeeds),
        TEST(test_stopped_with_a_message),
        TEST(test_only_the_one_that_was_asked),
        TEST(test_a_run_limit_stops_it),
        TEST(test_a_run_limit_begins_with_the_run),
        TEST(test_no_run_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
