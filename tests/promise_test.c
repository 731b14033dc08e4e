/* SPDX-License-Identifier: MIT */
/* The provider's side of a future: making one, starting it, settling it once, and whose the result
 * is afterwards. */
#define _GNU_SOURCE
#include "manual.h"

#include "core/future.h"

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

static cf_future *make(enum origin origin, enum state state)
{
    return make_in_state(&executor, origin, state);
}

static cf_future *new_promise(size_t result_size)
{
    cf_future *f = NULL;
    assert_int_equal(cf_future_new(result_size, NULL, &f), CF_OK);
    return f;
}

/* ---- making ---- */

static void test_a_new_promise(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 0, 1, 8, 9, 100, 1024, 5000 };
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        cf_future *f = new_promise(sizes[i]);
        assert_int_equal(state_of(f), PENDING);
        const unsigned char *slot = cf_future_slot(f);
        assert_non_null(slot);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(slot[k], 0);
        assert_null(cf_future_task(f));
        assert_null(cf_future_room(f));
        cf_future_unref(f);
    }
}

static void test_no_place_for_it(void **unused)
{
    (void)unused;
    assert_int_equal(cf_future_new(4, NULL, NULL), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_future_new: ret is NULL");
}

static void test_sizes_that_overflow(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    assert_int_equal(cf_future_new(SIZE_MAX, NULL, &f), CF_INVALID);
    assert_null(f);
}

/* ---- starting ---- */

static void test_starting(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            assert_int_equal(cf_future_start(f), state == PENDING);
            assert_int_equal(state_of(f), state == PENDING ? RUNNING : state);
            assert_false(cf_future_start(f));
            cf_future_unref(f);
        }
    }
    assert_false(cf_future_start(NULL));
}

static void test_running(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            cf_future_run(f);
            assert_int_equal(state_of(f), state == PENDING && origin != PROMISE ? OK : state);
            cf_future_unref(f);
        }
    }
    cf_future_run(NULL);
}

/* ---- what the runner may look at ---- */

static void test_the_slot(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            assert_int_equal(cf_future_slot(f) != NULL, state == PENDING || state == RUNNING);
            cf_future_unref(f);
        }
    }
    assert_null(cf_future_slot(NULL));
}

static void test_the_task(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            bool there = origin != PROMISE && (state == PENDING || state == RUNNING);
            const cf_task *task = cf_future_task(f);
            assert_int_equal(task != NULL, there);
            if (there) {
                assert_int_equal(task->fn == answer, origin == FN);
                assert_int_equal(task->bytes_fn == answer_in_bytes, origin == BYTES);
                assert_int_equal(task->arg_size, sizeof(bool));
                assert_false(*(const bool *)task->arg);
            }
            cf_future_unref(f);
        }
    }
    assert_null(cf_future_task(NULL));
    assert_null(cf_future_room(NULL));
}

/* ---- results ---- */

static void test_setting_a_result(void **unused)
{
    (void)unused;
    const int value = 5;
    FOR_EACH_STATE(state)
    {
        cf_future *f = make(PROMISE, state);
        bool settles = state == PENDING || state == RUNNING;
        assert_int_equal(cf_future_set_result(f, &value), settles ? CF_OK : CF_INVALID);
        assert_int_equal(state_of(f), settles ? OK : state);
        int got = 0;
        if (state_of(f) == OK) {
            assert_int_equal(CF_RESULT(f, 0, &got), CF_OK);
            assert_int_equal(got, settles ? 5 : ANSWER);
        }
        cf_future_unref(f);
    }
    assert_int_equal(cf_future_set_result(NULL, &value), CF_INVALID);
}

static void test_setting_a_tasks_result(void **unused)
{
    (void)unused;
    const int value = 5;
    FOR_EACH_STATE(state)
    {
        cf_future *f = make(FN, state);
        bool settles = state == PENDING || state == RUNNING;
        assert_int_equal(cf_future_set_result(f, &value), settles ? CF_OK : CF_INVALID);
        assert_int_equal(state_of(f), settles ? OK : state);
        cf_future_run(f); /* too late */
        assert_int_equal(state_of(f), settles ? OK : state);
        cf_future_unref(f);
    }
}

static void test_a_result_in_the_slot(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        if (origin == BYTES)
            continue;
        cf_future *f = make(origin, RUNNING);
        *(int *)cf_future_slot(f) = 6;
        assert_int_equal(cf_future_set_result(f, NULL), CF_OK);
        int got = 0;
        assert_int_equal(CF_RESULT(f, 0, &got), CF_OK);
        assert_int_equal(got, 6);
        cf_future_unref(f);
    }
}

static cf_bytes some_bytes(void)
{
    cf_bytes bytes = { NULL, 0 };
    assert_int_equal(cf_bytes_resize(&bytes, 100), CF_OK);
    memset(bytes.data, 'x', 100);
    return bytes;
}

static void test_bytes_in_the_slot_or_given(void **unused)
{
    (void)unused;
    for (int given = 0; given < 2; given++) {
        cf_future *f = make(BYTES, RUNNING);
        cf_bytes bytes = some_bytes();
        if (!given)
            *(cf_bytes *)cf_future_slot(f) = bytes;
        assert_int_equal(cf_future_set_result(f, given ? &bytes : NULL), CF_OK);
        const void *data = NULL;
        size_t size = 0;
        assert_int_equal(cf_future_peek(f, 0, &data, &size), CF_OK);
        assert_ptr_equal(data, bytes.data); /* not a copy: the future owns them now */
        assert_int_equal(size, 100);
        cf_future_unref(f);
    }
}

static void test_bytes_of_one_that_fails(void **unused)
{
    (void)unused;
    cf_future *f = make(BYTES, RUNNING);
    *(cf_bytes *)cf_future_slot(f) = some_bytes();
    settle_promise(f, true); /* frees them */
    cf_future_unref(f);
}

static unsigned destroyed; /* sum of the results */

static void destroy_int(void *result)
{
    destroyed += *(unsigned *)result;
}

/* The second result stays the caller's: it is neither kept nor destroyed. */
static void test_a_second_result_is_the_callers(void **unused)
{
    (void)unused;
    const unsigned first = 1, second = 10;
    cf_future *f = NULL;
    destroyed = 0;
    assert_int_equal(cf_future_new(sizeof first, destroy_int, &f), CF_OK);
    assert_int_equal(cf_future_set_result(f, &first), CF_OK);
    assert_int_equal(cf_future_set_result(f, &second), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "the future is settled already");
    assert_int_equal(destroyed, 0);
    cf_future_unref(f);
    assert_int_equal(destroyed, 1);
}

static void test_a_result_after_a_cancel_is_the_callers(void **unused)
{
    (void)unused;
    const unsigned value = 1;
    cf_future *f = NULL;
    destroyed = 0;
    assert_int_equal(cf_future_new(sizeof value, destroy_int, &f), CF_OK);
    assert_true(cf_future_cancel(f));
    assert_int_equal(cf_future_set_result(f, &value), CF_INVALID);
    cf_future_unref(f);
    assert_int_equal(destroyed, 0);
}

static void test_no_result_is_destroyed_where_there_is_none(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    destroyed = 0;
    assert_int_equal(cf_future_new(sizeof(unsigned), destroy_int, &f), CF_OK);
    *(unsigned *)cf_future_slot(f) = 1;
    settle_promise(f, true);
    cf_future_unref(f);
    assert_int_equal(cf_future_new(sizeof(unsigned), destroy_int, &f), CF_OK);
    cf_future_unref(f);
    assert_int_equal(destroyed, 0);
}

/* ---- while it settles, the task's arg_destroy runs: it is running, and already decided ---- */

static cf_future *settling;

static void look_while_settling(void *arg)
{
    const int value = 1;
    const cf_error error = { .size = sizeof error, .status = CF_FAILED };
    (void)arg;
    CHECK(state_of(settling) == RUNNING);
    CHECK(!cf_future_cancel(settling));
    CHECK(!cf_future_start(settling));
    CHECK(cf_future_set_result(settling, &value) == CF_INVALID);
    CHECK(cf_future_set_exception(settling, &error) == CF_INVALID);
    CHECK(cf_future_result(settling, 0, NULL, 0) == CF_TIMEOUT);
}

static void test_two_cannot_settle_at_once(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task,
                           .fn = answer,
                           .arg = "",
                           .arg_size = 1,
                           .result_size = sizeof(int),
                           .arg_destroy = look_while_settling };
    for (int fails = 0; fails < 2; fails++) {
        assert_int_equal(cf_submit_task(executor.executor, &task, &settling), CF_OK);
        settle_promise(settling, fails);
        assert_int_equal(state_of(settling), fails ? FAILED : OK);
        cf_future_unref(settling);
        assert_checks();
    }
}

/* Likewise while its task runs: only that can end it. */
static int look_while_running(const void *arg, void *result)
{
    look_while_settling(NULL);
    CHECK(cf_future_slot(settling) == result);
    return answer(arg, result);
}

static void test_nobody_settles_a_task_that_runs(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task,
                           .fn = look_while_running,
                           .arg = "",
                           .arg_size = 1,
                           .result_size = sizeof(int) };
    assert_int_equal(cf_submit_task(executor.executor, &task, &settling), CF_OK);
    cf_future_run(settling);
    int value = 0;
    assert_int_equal(CF_RESULT(settling, 0, &value), CF_OK);
    assert_int_equal(value, ANSWER);
    cf_future_unref(settling);
    assert_checks();
}

/* ---- exceptions ---- */

static void test_setting_an_exception(void **unused)
{
    (void)unused;
    const cf_error error = { .size = sizeof error, .status = CF_SYSTEM, .message = "set" };
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            bool settles = state == PENDING || state == RUNNING;
            assert_int_equal(cf_future_set_exception(f, &error), settles ? CF_OK : CF_INVALID);
            assert_int_equal(state_of(f), settles ? FAILED : state);
            if (settles)
                assert_string_equal(cf_future_exception(f)->message, "set");
            cf_future_unref(f);
        }
    }
}

static void test_which_statuses_are_failures(void **unused)
{
    (void)unused;
    for (int status = -3; status < 16; status++) {
        cf_future *f = new_promise(0);
        const cf_error error = { .size = sizeof error, .status = (cf_status)status };
        bool is_failure = status >= CF_TIMEOUT && status <= CF_SYSTEM && status != CF_CANCELLED;
        assert_int_equal(cf_future_set_exception(f, &error), is_failure ? CF_OK : CF_INVALID);
        assert_int_equal(state_of(f), is_failure ? FAILED : PENDING);
        if (is_failure) {
            assert_int_equal(cf_future_result(f, 0, NULL, 0), status);
            assert_int_equal(cf_future_exception(f)->status, status);
        }
        cf_future_unref(f);
    }
}

static void test_no_exception(void **unused)
{
    (void)unused;
    cf_future *f = new_promise(0);
    cf_error error = { .size = sizeof error, .status = CF_FAILED };
    assert_int_equal(cf_future_set_exception(NULL, &error), CF_INVALID);
    assert_int_equal(cf_future_set_exception(f, NULL), CF_INVALID);
    error.size = sizeof error - 1;
    assert_int_equal(cf_future_set_exception(f, &error), CF_INVALID);
    assert_memory_equal(cf_last_error()->message, "cf_error: ", 10);
    assert_int_equal(state_of(f), PENDING);
    cf_future_unref(f);
}

static void test_an_exception_is_copied(void **unused)
{
    (void)unused;
    char message[2000];
    memset(message, 'm', sizeof message - 1);
    message[sizeof message - 1] = '\0';
    cf_error error = { .size = sizeof error,
                       .status = CF_BROKEN,
                       .code = -5,
                       .message = message,
                       .index = 6,
                       .worker_pid = 7,
                       .signal_number = 9,
                       .exit_code = 10,
                       .out_of_memory = 1 };
    cf_future *f = new_promise(4);
    assert_int_equal(cf_future_set_exception(f, &error), CF_OK);
    memset(message, 'n', sizeof message - 1);
    memset(&error, 0, sizeof error);
    const cf_error *e = cf_future_exception(f);
    assert_true(e->size == sizeof *e && e->status == CF_BROKEN && e->code == -5 && e->index == 6 &&
                e->worker_pid == 7 && e->signal_number == 9 && e->exit_code == 10 &&
                e->out_of_memory == 1);
    assert_int_equal(strlen(e->message), sizeof message - 1);
    assert_int_equal(e->message[0], 'm');

    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_BROKEN);
    const cf_error *last = cf_last_error(); /* a copy of it, with a message that is cut */
    assert_true(last->code == -5 && last->index == 6 && last->worker_pid == 7 &&
                last->signal_number == 9 && last->exit_code == 10 && last->out_of_memory == 1);
    assert_int_equal(strlen(last->message), 511);
    cf_future_unref(f);
    assert_int_equal(cf_last_error()->message[510], 'm'); /* it outlives the future */
}

static void test_an_exception_without_a_message(void **unused)
{
    (void)unused;
    const cf_error error = { .size = sizeof error, .status = CF_NOMEM };
    cf_future *f = new_promise(0);
    assert_int_equal(cf_future_set_exception(f, &error), CF_OK);
    assert_string_equal(cf_future_exception(f)->message, cfi_plain_error(CF_NOMEM)->message);
    cf_future_unref(f);
}

/* From one future to another: the error is this thread's last one. */
static void test_an_exception_is_passed_on(void **unused)
{
    (void)unused;
    const cf_error error = {
        .size = sizeof error, .status = CF_FAILED, .code = 3, .message = "below"
    };
    cf_future *below = new_promise(0), *f = new_promise(0);
    assert_int_equal(cf_future_set_exception(below, &error), CF_OK);
    assert_int_equal(cf_future_result(below, 0, NULL, 0), CF_FAILED);
    assert_int_equal(cf_future_set_exception(f, cf_last_error()), CF_OK);
    cf_future_unref(below);
    assert_int_equal(cf_future_exception(f)->code, 3);
    assert_string_equal(cf_future_exception(f)->message, "below");
    cf_future_unref(f);
}

/* ---- races ---- */

static struct {
    cf_future *future;
    bool here, there;
} shared;

static void new_shared(void *data)
{
    (void)data;
    shared.future = new_promise(100);
    destroyed = 0;
}

static bool set_all_bytes(char letter)
{
    char result[100];
    memset(result, letter, sizeof result);
    return cf_future_set_result(shared.future, result) == CF_OK;
}

static void set_result_here(void *data)
{
    (void)data;
    shared.here = set_all_bytes('h');
}

static void set_result_there(void *data)
{
    (void)data;
    shared.there = set_all_bytes('t');
}

static void set_exception_there(void *data)
{
    const cf_error error = { .size = sizeof error, .status = CF_FAILED, .message = "there" };
    (void)data;
    shared.there = cf_future_set_exception(shared.future, &error) == CF_OK;
}

static void start_here(void *data)
{
    (void)data;
    shared.here = cf_future_start(shared.future);
}

static void start_there(void *data)
{
    (void)data;
    shared.there = cf_future_start(shared.future);
}

static void cancel_there(void *data)
{
    (void)data;
    shared.there = cf_future_cancel(shared.future);
}

static void one_result_is_there(void *data)
{
    char result[100] = "";
    (void)data;
    CHECK(shared.here != shared.there);
    CHECK(CF_RESULT(shared.future, 0, &result) == CF_OK);
    for (size_t i = 0; i < sizeof result; i++)
        CHECK(result[i] == (shared.here ? 'h' : 't'));
    cf_future_unref(shared.future);
}

static void one_of_both_is_there(void *data)
{
    (void)data;
    CHECK(shared.here != shared.there);
    CHECK(state_of(shared.future) == (shared.here ? OK : FAILED));
    cf_future_unref(shared.future);
}

static void one_has_started_it(void *data)
{
    (void)data;
    CHECK(shared.here != shared.there);
    CHECK(state_of(shared.future) == RUNNING);
    cf_future_unref(shared.future);
}

static void it_runs_or_is_cancelled(void *data)
{
    (void)data;
    CHECK(shared.here != shared.there);
    CHECK(state_of(shared.future) == (shared.here ? RUNNING : CANCELLED));
    cf_future_unref(shared.future);
}

static void race(void (*here)(void *), void (*there)(void *), void (*finish)(void *))
{
    struct race r = { .prepare = new_shared, .here = here, .there = there, .finish = finish };
    run_race(&r, 4000);
}

static void test_result_against_result(void **unused)
{
    (void)unused;
    race(set_result_here, set_result_there, one_result_is_there);
}

static void test_result_against_exception(void **unused)
{
    (void)unused;
    race(set_result_here, set_exception_there, one_of_both_is_there);
}

static void test_start_against_start(void **unused)
{
    (void)unused;
    race(start_here, start_there, one_has_started_it);
}

static void test_start_against_cancel(void **unused)
{
    (void)unused;
    race(start_here, cancel_there, it_runs_or_is_cancelled);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_executor, close_executor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_promise),
        TEST(test_no_place_for_it),
        TEST(test_sizes_that_overflow),
        TEST(test_starting),
        TEST(test_running),
        TEST(test_the_slot),
        TEST(test_the_task),
        TEST(test_setting_a_result),
        TEST(test_setting_a_tasks_result),
        TEST(test_a_result_in_the_slot),
        TEST(test_bytes_in_the_slot_or_given),
        TEST(test_bytes_of_one_that_fails),
        TEST(test_a_second_result_is_the_callers),
        TEST(test_a_result_after_a_cancel_is_the_callers),
        TEST(test_no_result_is_destroyed_where_there_is_none),
        TEST(test_two_cannot_settle_at_once),
        TEST(test_nobody_settles_a_task_that_runs),
        TEST(test_setting_an_exception),
        TEST(test_which_statuses_are_failures),
        TEST(test_no_exception),
        TEST(test_an_exception_is_copied),
        TEST(test_an_exception_without_a_message),
        TEST(test_an_exception_is_passed_on),
        TEST(test_result_against_result),
        TEST(test_result_against_exception),
        TEST(test_start_against_start),
        TEST(test_start_against_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
