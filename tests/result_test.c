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
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_INVALID); /* so is the status alone */
    assert_int_equal(cf_future_take(f, 0, NULL, 0), CF_INVALID);
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

enum { RESULT_SIZE = 64, FUTURES = 50, ROUNDS = 400 };

struct reading {
    cf_status status;
    char got[RESULT_SIZE];
};

static struct {
    struct start_line line; /* for each future */
    cf_future *futures[FUTURES];
    struct reading here[FUTURES], there[FUTURES];
    atomic_uint destroyed;
} shared = { .line = { .parties = 2 } };

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
    memset(shared.here, 0, sizeof shared.here);
    memset(shared.there, 0, sizeof shared.there);
    for (int i = 0; i < FUTURES; i++) {
        CHECK(cf_future_new(RESULT_SIZE, count_destroyed, &shared.futures[i]) == CF_OK);
        CHECK(cf_future_set_result(shared.futures[i], result) == CF_OK);
        cf_future_ref(shared.futures[i]);
    }
}

static void take_all(struct reading *readings)
{
    for (int i = 0; i < FUTURES; i++) {
        line_up(&shared.line);
        readings[i].status = CF_TAKE(shared.futures[i], 0, &readings[i].got);
        cf_future_unref(shared.futures[i]);
    }
}

static void take_here(void *data)
{
    (void)data;
    take_all(shared.here);
}

static void take_there(void *data)
{
    (void)data;
    take_all(shared.there);
}

static void copy_there(void *data)
{
    (void)data;
    for (int i = 0; i < FUTURES; i++) {
        line_up(&shared.line);
        shared.there[i].status = CF_RESULT(shared.futures[i], 0, &shared.there[i].got);
        cf_future_unref(shared.futures[i]);
    }
}

static void unref_there(void *data)
{
    (void)data;
    for (int i = 0; i < FUTURES; i++) {
        line_up(&shared.line);
        cf_future_unref(shared.futures[i]);
    }
}

/* All of it or nothing, and that according to the status. */
static bool is_right(const struct reading *reading)
{
    char each = reading->status == CF_OK ? 'r' : 0;
    for (int i = 0; i < RESULT_SIZE; i++) {
        if (reading->got[i] != each)
            return false;
    }
    return reading->status == CF_OK || reading->status == CF_INVALID;
}

static void one_has_taken_each(void *data)
{
    (void)data;
    for (int i = 0; i < FUTURES; i++) {
        CHECK(is_right(&shared.here[i]) && is_right(&shared.there[i]));
        CHECK(shared.here[i].status != shared.there[i].status);
    }
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void they_were_taken_and_perhaps_copied(void *data)
{
    (void)data;
    for (int i = 0; i < FUTURES; i++) {
        CHECK(is_right(&shared.here[i]) && is_right(&shared.there[i]));
        CHECK(shared.here[i].status == CF_OK);
    }
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void they_were_taken(void *data)
{
    (void)data;
    for (int i = 0; i < FUTURES; i++)
        CHECK(is_right(&shared.here[i]) && shared.here[i].status == CF_OK);
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void race(void (*here)(void *), void (*there)(void *), void (*finish)(void *))
{
    struct race r = { .prepare = prepare, .here = here, .there = there, .finish = finish };
    run_race(&r, ROUNDS);
}

static void test_take_against_take(void **unused)
{
    (void)unused;
    race(take_here, take_there, one_has_taken_each);
}

static void test_take_against_copy(void **unused)
{
    (void)unused;
    race(take_here, copy_there, they_were_taken_and_perhaps_copied);
}

static void test_take_against_unref(void **unused)
{
    (void)unused;
    race(take_here, unref_there, they_were_taken);
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
