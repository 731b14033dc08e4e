/* SPDX-License-Identifier: MIT */
/* Reading a future: by copy, by move, borrowed, in every state; and whose the result is then. */
#define _GNU_SOURCE
#include "manual.h"

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

static const cf_status expected[STATES] = { [PENDING] = CF_TIMEOUT,
                                            [RUNNING] = CF_TIMEOUT,
                                            [OK] = CF_OK,
                                            [FAILED] = CF_FAILED,
                                            [CANCELLED] = CF_CANCELLED };

static void last_is(cf_status status)
{
    if (status == CF_OK)
        return;
    assert_int_equal(cf_last_error()->status, status);
    assert_int_equal(cf_last_error()->code, status == CF_FAILED ? FAILURE : 0);
    assert_int_not_equal(strlen(cf_last_error()->message), 0);
}

/* ---- every state ---- */

static void test_copies(void **unused)
{
    (void)unused;
    for (enum origin origin = PROMISE; origin <= FN; origin++) {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            for (int i = 0; i < 3; i++) {
                int value = -1;
                assert_int_equal(CF_RESULT(f, 0, &value), expected[state]);
                last_is(expected[state]);
                assert_int_equal(value, state == OK ? ANSWER : -1);
            }
            cf_future_unref(f);
        }
    }
}

static void test_taking(void **unused)
{
    (void)unused;
    for (enum origin origin = PROMISE; origin <= FN; origin++) {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            int value = -1;
            assert_int_equal(CF_TAKE(f, 0, &value), expected[state]);
            last_is(expected[state]);
            assert_int_equal(value, state == OK ? ANSWER : -1);
            value = -1;
            assert_int_equal(CF_TAKE(f, 0, &value), state == OK ? CF_INVALID : expected[state]);
            assert_int_equal(value, -1);
            cf_future_unref(f);
        }
    }
}

static void test_peeking(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            const void *data = &executor, *again = NULL;
            size_t size = 99;
            assert_int_equal(cf_future_peek(f, 0, &data, &size), expected[state]);
            last_is(expected[state]);
            if (state == OK) {
                assert_int_equal(size, origin == BYTES ? 1 : sizeof(int));
                assert_int_equal(*(const unsigned char *)data, ANSWER);
                assert_int_equal(cf_future_peek(f, 0, &again, NULL), CF_OK);
                assert_ptr_equal(again, data); /* it is where it was */
                assert_int_equal(cf_future_peek(f, 0, NULL, NULL), CF_OK);
            } else {
                assert_ptr_equal(data, &executor);
                assert_int_equal(size, 99);
            }
            cf_future_unref(f);
        }
    }
}

/* (NULL, 0) asks for the status only. */
static void test_asking_for_the_status(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            assert_int_equal(cf_future_result(f, 0, NULL, 0), expected[state]);
            last_is(expected[state]);
            assert_int_equal(cf_future_take(f, 0, NULL, 0), expected[state]);
            last_is(expected[state]);
            const void *data;
            assert_int_equal(cf_future_peek(f, 0, &data, NULL), expected[state]); /* not taken */
            cf_future_unref(f);
        }
    }
}

static void test_no_future(void **unused)
{
    (void)unused;
    int value = -1;
    assert_int_equal(CF_RESULT((cf_future *)NULL, 0, &value), CF_INVALID);
    assert_int_equal(CF_TAKE((cf_future *)NULL, CF_FOREVER, &value), CF_INVALID);
    assert_int_equal(cf_future_peek(NULL, 0, NULL, NULL), CF_INVALID);
    assert_int_equal(value, -1);
}

/* ---- what was taken ---- */

static void test_after_it_was_taken(void **unused)
{
    (void)unused;
    cf_future *f = make(FN, OK);
    int value = 0;
    const void *data = &executor;
    assert_int_equal(CF_TAKE(f, 0, &value), CF_OK);
    assert_int_equal(CF_RESULT(f, 0, &value), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "the result has been taken");
    assert_int_equal(CF_TAKE(f, CF_FOREVER, &value), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "the result has been taken");
    assert_int_equal(cf_future_peek(f, 0, &data, NULL), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "the result has been taken");
    assert_ptr_equal(data, &executor);
    assert_int_equal(state_of(f), OK);
    cf_future_unref(f);
}

static void test_copies_before_it_is_taken(void **unused)
{
    (void)unused;
    cf_future *f = make(FN, OK);
    int copy = 0, mine = 0;
    assert_int_equal(CF_RESULT(f, 0, &copy), CF_OK);
    assert_int_equal(CF_TAKE(f, 0, &mine), CF_OK);
    assert_true(copy == ANSWER && mine == ANSWER);
    cf_future_unref(f);
}

/* ---- wrong arguments ---- */

static void is_refused(cf_status status, const char *message)
{
    assert_int_equal(status, CF_INVALID);
    assert_string_equal(cf_last_error()->message, message);
}

static void test_wrong_sizes(void **unused)
{
    (void)unused;
    cf_future *f = make(FN, OK);
    char buffer[8] = "unused!";
    const char *less = "result_size is 3, but the task's result has 4 bytes";
    const char *more = "result_size is 5, but the task's result has 4 bytes";
    const char *none = "result_size is 0, but the task's result has 4 bytes";
    is_refused(cf_future_result(f, 0, buffer, 3), less);
    is_refused(cf_future_result(f, 0, buffer, 5), more);
    is_refused(cf_future_result(f, 0, buffer, 0), none);
    is_refused(cf_future_take(f, 0, buffer, 3), less);
    is_refused(cf_future_take(f, 0, buffer, 5), more);
    is_refused(cf_future_take(f, 0, buffer, 0), none);
    is_refused(cf_future_result(f, 0, NULL, 4), "result is NULL, but result_size is not 0");
    is_refused(cf_future_take(f, 0, NULL, 4), "result is NULL, but result_size is not 0");
    assert_string_equal(buffer, "unused!");
    int value;
    assert_int_equal(CF_TAKE(f, 0, &value), CF_OK); /* none of these took it */
    cf_future_unref(f);
}

static void test_how_it_ended_comes_first(void **unused)
{
    (void)unused;
    char buffer[8];
    FOR_EACH_STATE(state)
    {
        if (state == OK)
            continue;
        cf_future *f = make(FN, state);
        assert_int_equal(cf_future_result(f, 0, buffer, 3), expected[state]);
        assert_int_equal(cf_future_take(f, 0, buffer, 3), expected[state]);
        cf_future_unref(f);
    }
}

static int succeed(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 0;
}

static void test_a_result_of_no_bytes(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .fn = succeed };
    cf_future *f = manual_submit_and_run(&executor, &task);
    const void *data;
    size_t size = 99;
    int value;
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    assert_int_equal(cf_future_result(f, 0, &value, 0), CF_OK);
    assert_int_equal(cf_future_peek(f, 0, &data, &size), CF_OK);
    assert_int_equal(size, 0);
    assert_int_equal(cf_future_take(f, 0, NULL, 0), CF_OK);
    assert_int_equal(cf_future_take(f, 0, NULL, 0), CF_OK);
    assert_int_equal(CF_RESULT(f, 0, &value), CF_INVALID);
    cf_future_unref(f);
}

/* ---- bytes ---- */

static void test_taking_bytes(void **unused)
{
    (void)unused;
    cf_future *f = make(BYTES, OK);
    const void *data = NULL;
    size_t size = 0;
    assert_int_equal(cf_future_peek(f, 0, &data, &size), CF_OK);
    cf_bytes mine = { NULL, 0 };
    assert_int_equal(CF_TAKE(f, 0, &mine), CF_OK);
    assert_ptr_equal(mine.data, data); /* moved, not copied */
    assert_int_equal(mine.size, 1);
    cf_bytes theirs = { NULL, 0 };
    assert_int_equal(CF_TAKE(f, 0, &theirs), CF_INVALID);
    assert_null(theirs.data);
    cf_future_unref(f);
    assert_int_equal(*(unsigned char *)mine.data, ANSWER); /* they outlive the future */
    cf_bytes_free(&mine);
}

static void test_bytes_are_not_copied(void **unused)
{
    (void)unused;
    cf_future *f = make(BYTES, OK);
    cf_bytes bytes = { NULL, 0 };
    is_refused(CF_RESULT(f, 0, &bytes), "the result is a cf_bytes: take it or peek");
    assert_null(bytes.data);
    char one;
    assert_int_equal(CF_RESULT(f, 0, &one), CF_INVALID);
    assert_int_equal(CF_TAKE(f, 0, &one), CF_INVALID);
    assert_int_equal(CF_TAKE(f, 0, &bytes), CF_OK); /* none of these took them */
    cf_bytes_free(&bytes);
    cf_future_unref(f);
}

static int leave_empty(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg;
    CHECK(arg_size == 0 && result->data == NULL && result->size == 0);
    return 0;
}

static void test_no_bytes(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .bytes_fn = leave_empty };
    cf_future *f = manual_submit_and_run(&executor, &task);
    const void *data = &executor;
    size_t size = 99;
    assert_int_equal(cf_future_peek(f, 0, &data, &size), CF_OK);
    assert_true(data == NULL && size == 0);
    cf_bytes bytes = { &executor, 99 };
    assert_int_equal(CF_TAKE(f, 0, &bytes), CF_OK);
    assert_true(bytes.data == NULL && bytes.size == 0);
    cf_future_unref(f);
}

/* ---- lifetimes ---- */

static void test_results_outlive_the_executor(void **unused)
{
    (void)unused;
    struct manual other;
    manual_open(&other);
    cf_future *ok = make_in_state(&other, FN, OK), *failed = make_in_state(&other, FN, FAILED);
    cf_future *bytes = make_in_state(&other, BYTES, OK);
    manual_release(&other, 0);
    manual_release(&other, 1);
    manual_release(&other, 2);
    cf_executor_free(other.executor);
    assert_int_equal(other.destroyed, 0); /* it stays as long as its futures */
    int value = 0;
    assert_int_equal(CF_RESULT(ok, CF_FOREVER, &value), CF_OK);
    assert_int_equal(value, ANSWER);
    assert_int_equal(CF_RESULT(failed, CF_FOREVER, &value), CF_FAILED);
    cf_bytes mine;
    assert_int_equal(CF_TAKE(bytes, CF_FOREVER, &mine), CF_OK);
    cf_future_unref(ok);
    cf_future_unref(failed);
    assert_int_equal(other.destroyed, 0);
    cf_future_unref(bytes);
    assert_int_equal(other.destroyed, 1);
    cf_bytes_free(&mine);
}

/* ---- races ---- */

enum { RESULT_SIZE = 64 };

static struct {
    cf_future *future;
    cf_status here, there;
    char here_got[RESULT_SIZE], there_got[RESULT_SIZE];
    atomic_uint destroyed;
} shared;

static void count_destroyed(void *result)
{
    CHECK(*(char *)result == 'r');
    atomic_fetch_add(&shared.destroyed, 1);
}

/* Settled, with a reference for each of the two. */
static void prepare(void *data)
{
    char result[RESULT_SIZE];
    (void)data;
    memset(result, 'r', sizeof result);
    atomic_store(&shared.destroyed, 0);
    memset(shared.here_got, 0, RESULT_SIZE);
    memset(shared.there_got, 0, RESULT_SIZE);
    CHECK(cf_future_new(RESULT_SIZE, count_destroyed, &shared.future) == CF_OK);
    CHECK(cf_future_set_result(shared.future, result) == CF_OK);
    cf_future_ref(shared.future);
}

static void take_here(void *data)
{
    (void)data;
    shared.here = CF_TAKE(shared.future, 0, &shared.here_got);
    cf_future_unref(shared.future);
}

static void take_there(void *data)
{
    (void)data;
    shared.there = CF_TAKE(shared.future, 0, &shared.there_got);
    cf_future_unref(shared.future);
}

static void copy_there(void *data)
{
    (void)data;
    shared.there = CF_RESULT(shared.future, 0, &shared.there_got);
    cf_future_unref(shared.future);
}

static void unref_there(void *data)
{
    (void)data;
    cf_future_unref(shared.future);
}

static bool is_complete(const char *got)
{
    for (int i = 0; i < RESULT_SIZE; i++) {
        if (got[i] != 'r')
            return false;
    }
    return true;
}

static void one_has_taken_it(void *data)
{
    (void)data;
    CHECK((shared.here == CF_OK) != (shared.there == CF_OK));
    CHECK((shared.here == CF_INVALID) != (shared.there == CF_INVALID));
    CHECK(is_complete(shared.here_got) == (shared.here == CF_OK));
    CHECK(is_complete(shared.there_got) == (shared.there == CF_OK));
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void it_was_taken_and_perhaps_copied(void *data)
{
    (void)data;
    CHECK(shared.here == CF_OK && is_complete(shared.here_got));
    CHECK(shared.there == CF_OK || shared.there == CF_INVALID);
    CHECK(is_complete(shared.there_got) == (shared.there == CF_OK));
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void it_was_taken(void *data)
{
    (void)data;
    CHECK(shared.here == CF_OK && is_complete(shared.here_got));
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void race(void (*here)(void *), void (*there)(void *), void (*finish)(void *))
{
    struct race r = { .prepare = prepare, .here = here, .there = there, .finish = finish };
    run_race(&r, 4000);
}

static void test_take_against_take(void **unused)
{
    (void)unused;
    race(take_here, take_there, one_has_taken_it);
}

static void test_take_against_copy(void **unused)
{
    (void)unused;
    race(take_here, copy_there, it_was_taken_and_perhaps_copied);
}

static void test_take_against_unref(void **unused)
{
    (void)unused;
    race(take_here, unref_there, it_was_taken);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_executor, close_executor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_copies),
        TEST(test_taking),
        TEST(test_peeking),
        TEST(test_asking_for_the_status),
        TEST(test_no_future),
        TEST(test_after_it_was_taken),
        TEST(test_copies_before_it_is_taken),
        TEST(test_wrong_sizes),
        TEST(test_how_it_ended_comes_first),
        TEST(test_a_result_of_no_bytes),
        TEST(test_taking_bytes),
        TEST(test_bytes_are_not_copied),
        TEST(test_no_bytes),
        TEST(test_results_outlive_the_executor),
        TEST(test_take_against_take),
        TEST(test_take_against_copy),
        TEST(test_take_against_unref),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
