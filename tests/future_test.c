/* SPDX-License-Identifier: MIT */
/* Futures: what each call answers and changes in each state, references, destroy functions that run
 * exactly once whatever happens, callbacks, and all of these against each other on two threads. */
#define _GNU_SOURCE
#include "manual.h"

#include "base/atomics.h"
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

static cf_future *new_promise(void)
{
    return make(PROMISE, PENDING);
}

/* ---- the states ---- */

static void test_asking(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            assert_int_equal(cf_future_running(f), state == RUNNING);
            assert_int_equal(cf_future_done(f), state >= OK);
            assert_int_equal(cf_future_cancelled(f), state == CANCELLED);
            cf_future_unref(f);
        }
    }
}

static void test_cancelling(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            bool cancelled = state == PENDING || state == CANCELLED;
            for (int i = 0; i < 2; i++) {
                assert_int_equal(cf_future_cancel(f), cancelled);
                assert_int_equal(state_of(f), cancelled ? CANCELLED : state);
            }
            cf_future_unref(f);
        }
    }
}

static void test_stopping(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            assert_int_equal(cf_future_stop(f, 0), state == PENDING || state == RUNNING);
            assert_int_equal(state_of(f), state == PENDING ? CANCELLED : state);
            assert_int_equal(cf_future_stop(f, CF_SECONDS(1)), state == RUNNING);
            cf_future_unref(f);
        }
    }
}

static void test_why_there_is_no_result(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            const cf_error *e = cf_future_exception(f);
            assert_int_equal(e != NULL, state == FAILED || state == CANCELLED);
            if (state == FAILED) {
                assert_int_equal(e->status, CF_FAILED);
                assert_int_equal(e->code, FAILURE);
                assert_int_equal(e->exit_code, origin == PROMISE ? 0 : -1);
            } else if (state == CANCELLED) {
                assert_int_equal(e->status, CF_CANCELLED);
                assert_string_equal(e->message, "cancelled");
            }
            assert_null(cf_future_exception_object(f));
            cf_future_unref(f);
        }
    }
}

static void add_one(cf_future *future, void *data)
{
    CHECK(cf_future_done(future));
    ++*(unsigned *)data;
}

static void test_callbacks_in_each_state(void **unused)
{
    (void)unused;
    FOR_EACH_ORIGIN(origin)
    {
        FOR_EACH_STATE(state)
        {
            cf_future *f = make(origin, state);
            unsigned calls = 0;
            assert_int_equal(cf_future_add_done_callback(f, add_one, &calls), CF_OK);
            assert_int_equal(calls, state >= OK);
            if (origin == PROMISE)
                cf_future_unref(f); /* the only reference: abandoned, if not done */
            else if (state == RUNNING)
                settle_promise(f, true);
            else
                cf_future_run(f);
            assert_int_equal(calls, 1);
            if (origin != PROMISE)
                cf_future_unref(f);
        }
    }
}

static void test_no_future(void **unused)
{
    (void)unused;
    unsigned calls = 0;
    assert_false(cf_future_cancel(NULL));
    assert_false(cf_future_stop(NULL, 0));
    assert_false(cf_future_cancelled(NULL));
    assert_false(cf_future_running(NULL));
    assert_false(cf_future_done(NULL));
    assert_null(cf_future_exception(NULL));
    assert_null(cf_future_ref(NULL));
    assert_null(cf_future_unref(NULL));
    cf_future_unref_all(NULL, 0);
    assert_int_equal(cf_future_add_done_callback(NULL, add_one, &calls), CF_INVALID);
    cf_future *f = new_promise();
    assert_int_equal(cf_future_add_done_callback(f, NULL, &calls), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_future_add_done_callback: fn is NULL");
    cf_future_unref(f);
    assert_int_equal(calls, 0);
}

/* ---- references ---- */

static void test_each_reference_counts(void **unused)
{
    (void)unused;
    unsigned calls = 0;
    cf_future *f = new_promise();
    cf_future_add_done_callback(f, add_one, &calls);
    assert_ptr_equal(cf_future_ref(f), f);
    assert_ptr_equal(cf_future_ref(f), f);
    assert_null(cf_future_unref(f));
    assert_null(cf_future_unref(f));
    assert_int_equal(calls, 0);
    assert_int_equal(state_of(f), PENDING);
    assert_null(cf_future_unref(f)); /* abandoned */
    assert_int_equal(calls, 1);
}

static void test_letting_go_of_many(void **unused)
{
    (void)unused;
    unsigned calls = 0;
    cf_future *futures[] = { new_promise(), NULL, new_promise(), new_promise() };
    for (size_t i = 0; i < COUNT_OF(futures); i++) {
        if (futures[i])
            cf_future_add_done_callback(futures[i], add_one, &calls);
    }
    cf_future_unref_all(futures, 3);
    assert_int_equal(calls, 2);
    assert_true(!futures[0] && !futures[2] && futures[3]);
    cf_future_unref_all(futures, COUNT_OF(futures));
    assert_int_equal(calls, 3);
}

/* ---- destroy functions ---- */

struct payload {
    unsigned value;
    char rest[60];
};

static unsigned args_destroyed, results_destroyed;
static const struct payload given = { .value = 11 };

static void destroy_arg(void *arg)
{
    CHECK(arg != &given && ((struct payload *)arg)->value == 11);
    args_destroyed++;
}

static void destroy_result(void *result)
{
    CHECK(((struct payload *)result)->value == 12);
    results_destroyed++;
}

static int increment(const void *arg, void *result)
{
    CHECK(args_destroyed == 0);
    ((struct payload *)result)->value = ((const struct payload *)arg)->value + 1;
    return 0;
}

static int increment_and_fail(const void *arg, void *result)
{
    increment(arg, result);
    return cf_raise(1, "after all");
}

static cf_future *submit(cf_fn *fn)
{
    const cf_task task = { .size = sizeof task,
                           .fn = fn,
                           .arg = &given,
                           .arg_size = sizeof given,
                           .result_size = sizeof given,
                           .arg_destroy = destroy_arg,
                           .result_destroy = destroy_result };
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(executor.executor, &task, &f), executor.answer);
    return f;
}

static void run_last(void)
{
    manual_run(&executor, executor.count - 1);
}

static void end_ok(void)
{
    cf_future *f = submit(increment);
    run_last();
    assert_int_equal(args_destroyed, 1); /* as soon as it has run */
    assert_int_equal(results_destroyed, 0);
    cf_future_unref(f);
}

static void end_copied(void)
{
    cf_future *f = submit(increment);
    struct payload copy;
    run_last();
    assert_int_equal(CF_RESULT(f, 0, &copy), CF_OK);
    assert_int_equal(copy.value, 12);
    cf_future_unref(f);
}

static void end_taken(void)
{
    cf_future *f = submit(increment);
    struct payload mine;
    run_last();
    assert_int_equal(CF_TAKE(f, 0, &mine), CF_OK);
    assert_int_equal(mine.value, 12);
    cf_future_unref(f);
}

static void end_failed(void)
{
    cf_future *f = submit(increment_and_fail);
    run_last();
    assert_int_equal(args_destroyed, 1);
    cf_future_unref(f);
}

static void end_cancelled(void)
{
    cf_future *f = submit(increment);
    assert_true(cf_future_cancel(f));
    assert_int_equal(args_destroyed, 1); /* before the return */
    assert_true(cf_future_cancel(f));
    run_last();
    cf_future_unref(f);
}

static void end_set_by_provider(void)
{
    cf_future *f = submit(increment);
    const struct payload result = { .value = 12 };
    assert_true(cf_future_start(f));
    assert_int_equal(cf_future_set_result(f, &result), CF_OK);
    assert_int_equal(args_destroyed, 1);
    cf_future_unref(f);
}

static void end_failed_by_provider(void)
{
    cf_future *f = submit(increment);
    const cf_error error = { .size = sizeof error, .status = CF_SYSTEM, .message = "lost" };
    assert_int_equal(cf_future_set_exception(f, &error), CF_OK);
    assert_int_equal(args_destroyed, 1);
    cf_future_unref(f);
}

static void end_not_submitted(void)
{
    executor.answer = CF_FULL;
    assert_null(submit(increment));
    executor.answer = CF_OK;
}

static void end_given_up_pending(void)
{
    cf_future_unref(submit(increment));
    manual_release(&executor, executor.count - 1);
}

static void end_given_up_running(void)
{
    cf_future *f = submit(increment);
    assert_true(cf_future_start(f));
    cf_future_unref(f);
    manual_release(&executor, executor.count - 1);
}

static void end_without_anybody(void)
{
    cf_future_unref(submit(increment));
    run_last();
}

static void end_failed_without_anybody(void)
{
    cf_future_unref(submit(increment_and_fail));
    run_last();
}

static void test_destroy_functions_run_once(void **unused)
{
    (void)unused;
    static const struct {
        void (*end)(void);
        unsigned args, results;
    } ends[] = {
        { end_ok, 1, 1 },
        { end_copied, 1, 1 },
        { end_taken, 1, 0 },
        { end_failed, 1, 0 },
        { end_cancelled, 1, 0 },
        { end_set_by_provider, 1, 1 },
        { end_failed_by_provider, 1, 0 },
        { end_not_submitted, 0, 0 },
        { end_given_up_pending, 1, 0 },
        { end_given_up_running, 1, 0 },
        { end_without_anybody, 1, 1 },
        { end_failed_without_anybody, 1, 0 },
    };
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        args_destroyed = results_destroyed = 0;
        ends[i].end();
        for (size_t k = 0; k < executor.count; k++)
            manual_release(&executor, k);
        executor.count = 0;
        assert_checks();
        if (args_destroyed != ends[i].args || results_destroyed != ends[i].results)
            fail_msg("end %zu: %u arguments and %u results", i, args_destroyed, results_destroyed);
    }
}

/* ---- blocks: argument, result and room lie apart in them, whatever their sizes ---- */

static const size_t some_sizes[] = { 0,    1,    7,    8,    9,    15,    16,    17,   31,  32,
                                     33,   48,   100,  239,  240,  254,   255,   256,  257, 511,
                                     1000, 1023, 1024, 1025, 4096, 65535, 65536, 70000 };
static const struct shape {
    bool extra;
    size_t room;
} shapes[] = { { false, 0 }, { true, 0 }, { true, 1 }, { true, 24 }, { true, 1000 } };

static struct {
    size_t arg, result;
    int code;
} wanted;

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 7 + 1);
}

static int fill_result(const void *arg, void *result)
{
    const unsigned char *bytes = arg;
    memset(result, 0xA5, wanted.result);
    for (size_t i = 0; i < wanted.arg; i++)
        CHECK(bytes[i] == byte_at(i));
    CHECK((uintptr_t)arg % 16 == 0);
    CHECK((uintptr_t)result % (wanted.result > 8 ? 16 : 8) == 0);
    return wanted.code;
}

static bool all_are(const void *start, size_t size, unsigned char value)
{
    const unsigned char *bytes = start;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != value)
            return false;
    }
    return true;
}

static cf_future *run_in_shape(const struct shape *shape, const void *arg)
{
    const cf_task task = { .size = sizeof task,
                           .fn = fill_result,
                           .arg = arg,
                           .arg_size = wanted.arg,
                           .result_size = wanted.result };
    cf_future *f = cfi_future_make(CFI_KIND_FN, &task, shape->extra, shape->room);
    assert_non_null(f);
    assert_true(cfi_future_claim(f));
    void *room = cf_future_room(f);
    if (shape->extra) {
        assert_true(all_are(room, shape->room, 0));
        memset(room, 0x5A, shape->room);
    }
    cfi_future_execute(cf_future_ref(f), 0);
    if (shape->extra)
        assert_true(all_are(room, shape->room, 0x5A));
    return f;
}

static void fills_its_result(const struct shape *shape, const void *arg)
{
    const void *data = NULL;
    size_t size = 1;
    wanted.code = 0;
    cf_future *f = run_in_shape(shape, arg);
    assert_int_equal(cf_future_peek(f, 0, &data, &size), CF_OK);
    assert_int_equal(size, wanted.result);
    assert_true(all_are(data, size, 0xA5));
    cf_future_unref(f);
}

static void keeps_its_failure(const struct shape *shape, const void *arg)
{
    wanted.code = 0x01020304;
    cf_future *f = run_in_shape(shape, arg);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_FAILED);
    assert_int_equal(cf_last_error()->code, wanted.code);
    assert_int_equal(cf_future_exception(f)->code, wanted.code);
    cf_future_unref(f);
}

static void test_all_sizes(void **unused)
{
    (void)unused;
    static unsigned char arg[70000];
    for (size_t i = 0; i < sizeof arg; i++)
        arg[i] = byte_at(i);
    for (size_t i = 0; i < COUNT_OF(some_sizes); i++) {
        for (size_t k = 0; k < COUNT_OF(some_sizes) * COUNT_OF(shapes); k++) {
            const struct shape *shape = &shapes[k % COUNT_OF(shapes)];
            wanted.arg = some_sizes[i];
            wanted.result = some_sizes[k / COUNT_OF(shapes)];
            fills_its_result(shape, arg);
            keeps_its_failure(shape, arg);
        }
    }
    assert_checks();
}

/* For any type of their size. */
static void test_results_are_aligned(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(some_sizes); i++) {
        cf_future *f = NULL;
        assert_int_equal(cf_future_new(some_sizes[i], NULL, &f), CF_OK);
        assert_int_equal((uintptr_t)cf_future_slot(f) % (some_sizes[i] > 8 ? 16 : 8), 0);
        cf_future_unref(f);
    }
}

/* ---- callbacks ---- */

static char calls[32]; /* a letter for each */

static void log_letter(cf_future *future, void *letter)
{
    CHECK(cf_future_done(future));
    strcat(calls, letter);
}

static void add_letters(cf_future *f, const char *letters)
{
    static const char alphabet[][2] = { "a", "b", "c", "d" };
    calls[0] = '\0';
    for (; *letters; letters++)
        assert_int_equal(
            cf_future_add_done_callback(f, log_letter, (void *)(uintptr_t)alphabet[*letters - 'a']),
            CF_OK);
}

static void abandon(cf_future *f)
{
    cf_future_unref(f);
}

static void start_and_abandon(cf_future *f)
{
    assert_true(cf_future_start(f));
    cf_future_unref(f);
}

static void set_result(cf_future *f)
{
    settle_promise(f, false);
    cf_future_unref(f);
}

static void set_exception(cf_future *f)
{
    settle_promise(f, true);
    cf_future_unref(f);
}

static void cancel(cf_future *f)
{
    assert_true(cf_future_cancel(f));
    cf_future_unref(f);
}

static void test_callbacks_in_order_of_addition(void **unused)
{
    (void)unused;
    static void (*const ends[])(cf_future *) = { abandon, start_and_abandon, set_result,
                                                 set_exception, cancel };
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        cf_future *f = new_promise();
        add_letters(f, "abcda");
        assert_string_equal(calls, "");
        ends[i](f);
        assert_string_equal(calls, "abcda");
    }
}

static void test_callbacks_of_a_task(void **unused)
{
    (void)unused;
    for (int fails = 0; fails < 2; fails++) {
        cf_future *f = make_pending(&executor, FN, fails);
        add_letters(f, "ab");
        cf_future_run(f);
        assert_string_equal(calls, "ab");
        add_letters(f, "c"); /* at once now */
        assert_string_equal(calls, "c");
        cf_future_unref(f);
    }
}

static void test_no_callback_comes_twice(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    add_letters(f, "a");
    assert_true(cf_future_cancel(f));
    assert_true(cf_future_cancel(f));
    assert_string_equal(calls, "a");
    cf_future_unref(f);
    assert_string_equal(calls, "a");
}

static void add_d(cf_future *future, void *data)
{
    (void)data;
    strcat(calls, "+");
    CHECK(cf_future_add_done_callback(future, log_letter, "d") == CF_OK);
    strcat(calls, "-");
}

static void test_a_callback_added_by_a_callback(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    add_letters(f, "a");
    cf_future_add_done_callback(f, add_d, NULL);
    cf_future_add_done_callback(f, log_letter, "b");
    set_result(f);
    assert_string_equal(calls, "a+d-b");
}

static void cancel_another(cf_future *future, void *another)
{
    strcat(calls, "(");
    CHECK(cf_future_cancel(future) == cf_future_cancelled(future));
    CHECK(cf_future_cancel(another));
    strcat(calls, ")");
}

static void test_cancelling_in_a_callback(void **unused)
{
    (void)unused;
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        cf_future *f = new_promise(), *another = new_promise();
        add_letters(another, "a");
        cf_future_add_done_callback(f, cancel_another, another);
        cf_future_add_done_callback(f, log_letter, "b");
        (cancelled ? cancel : set_result)(f);
        assert_string_equal(calls, "(a)b");
        cf_future_unref(another);
    }
}

static void unref_in_callback(cf_future *future, void *data)
{
    (void)data;
    strcat(calls, "u");
    cf_future_unref(future);
}

static void set_result_borrowed(cf_future *f)
{
    settle_promise(f, false);
}

static void set_exception_borrowed(cf_future *f)
{
    settle_promise(f, true);
}

static void cancel_borrowed(cf_future *f)
{
    CHECK(cf_future_cancel(f));
}

/* The reference that the settling call was given is the last, and a callback gives it back. */
static void test_the_last_reference_goes_in_a_callback(void **unused)
{
    (void)unused;
    static void (*const ends[])(cf_future *) = { set_result_borrowed, set_exception_borrowed,
                                                 cancel_borrowed };
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        cf_future *f = new_promise();
        add_letters(f, "ab");
        cf_future_add_done_callback(f, unref_in_callback, NULL);
        ends[i](f);
        assert_string_equal(calls, "abu");
    }
    cf_future *f = make(PROMISE, OK);
    calls[0] = '\0';
    cf_future_add_done_callback(f, unref_in_callback, NULL); /* at once */
    assert_string_equal(calls, "u");
}

static void keep_reference(cf_future *future, void *kept)
{
    *(cf_future **)kept = cf_future_ref(future);
}

static void test_a_callback_keeps_an_abandoned_one(void **unused)
{
    (void)unused;
    for (int started = 0; started < 2; started++) {
        cf_future *f = new_promise(), *kept = NULL;
        cf_future_add_done_callback(f, keep_reference, &kept);
        (started ? start_and_abandon : abandon)(f);
        assert_ptr_equal(kept, f);
        assert_int_equal(cf_future_exception(kept)->status, started ? CF_BROKEN : CF_CANCELLED);
        assert_int_not_equal(strlen(cf_future_exception(kept)->message), 0);
        cf_future_unref(kept);
    }
}

static void look_inside(cf_future *future, void *data)
{
    int value = 0;
    CHECK(cf_future_done(future) && !cf_future_running(future));
    CHECK(CF_RESULT(future, 0, &value) == CF_OK && value == ANSWER);
    CHECK(CF_RESULT(future, CF_FOREVER, &value) == CF_OK);
    *(pthread_t *)data = pthread_self();
}

static void *set_result_on_thread(void *f)
{
    settle_promise(f, false);
    return NULL;
}

static void test_callbacks_run_where_it_settles(void **unused)
{
    (void)unused;
    pthread_t ran_on = pthread_self();
    cf_future *f = new_promise();
    cf_future_add_done_callback(f, look_inside, &ran_on);
    pthread_t other = start_thread(set_result_on_thread, f);
    join_thread(other);
    assert_true(pthread_equal(ran_on, other));
    cf_future_add_done_callback(f, look_inside, &ran_on);
    assert_true(pthread_equal(ran_on, pthread_self()));
    cf_future_unref(f);
}

static int raise_object(const void *arg, void *result)
{
    (void)result;
    return cf_raise_object(3, *(void *const *)arg, NULL);
}

static void take_object(cf_future *future, void *data)
{
    *(void **)data = cf_future_exception_object(future);
}

static void test_a_callback_sees_the_exception_object(void **unused)
{
    (void)unused;
    int object;
    void *arg = &object, *seen = NULL;
    cf_future *f = NULL;
    assert_int_equal(cf_submit(executor.executor, raise_object, &arg, sizeof arg, 0, &f), CF_OK);
    cf_future_add_done_callback(f, take_object, &seen);
    cf_future_run(f);
    assert_ptr_equal(seen, &object);
    cf_future_unref(f);
}

/* ---- waiters go on before the callbacks ---- */

static struct event waiter_is_through;

static void *wait_for_one(void *f)
{
    CHECK(cf_future_result(f, CF_FOREVER, NULL, 0) == CF_OK);
    event_set(&waiter_is_through);
    return NULL;
}

static void *wait_for_set(void *data)
{
    cf_future *f = data;
    CHECK(cf_wait(&f, 1, CF_ALL_COMPLETED, CF_FOREVER, NULL) == CF_OK);
    event_set(&waiter_is_through);
    return NULL;
}

static void await_waiter(cf_future *future, void *data)
{
    (void)future, (void)data;
    event_wait(&waiter_is_through);
}

static void waiter_goes_first(void *(*wait)(void *), uint64_t flag)
{
    waiter_is_through = (struct event)EVENT_INIT;
    cf_future *f = new_promise();
    pthread_t waiter = start_thread(wait, f);
    WAIT_UNTIL(cfi_load_acquire(&f->word) & flag);
    cf_future_add_done_callback(f, await_waiter, NULL);
    settle_promise(f, false); /* would never return if the callback came first */
    join_thread(waiter);
    cf_future_unref(f);
    assert_checks();
}

static void test_waiters_wake_before_callbacks(void **unused)
{
    (void)unused;
    waiter_goes_first(wait_for_one, CFI_WAITED);
    waiter_goes_first(wait_for_set, CFI_WATCHED);
}

/* ---- races ---- */

enum { ROUNDS = 4000 };

static struct {
    cf_future *future;
    atomic_uint ran, destroyed, called;
    bool here, there; /* what the two calls answered */
} shared;

static void count_call(cf_future *future, void *data)
{
    (void)data;
    CHECK(cf_future_done(future));
    atomic_fetch_add(&shared.called, 1);
}

static void count_destroyed(void *arg)
{
    (void)arg;
    atomic_fetch_add(&shared.destroyed, 1);
}

static int count_run(const void *arg, void *result)
{
    (void)arg, (void)result;
    atomic_fetch_add(&shared.ran, 1);
    return 0;
}

static void reset_shared(void)
{
    atomic_store(&shared.ran, 0);
    atomic_store(&shared.destroyed, 0);
    atomic_store(&shared.called, 0);
}

static void prepare_task(void *data)
{
    (void)data;
    reset_shared();
    const cf_task task = { .size = sizeof task,
                           .fn = count_run,
                           .arg = &given,
                           .arg_size = 1,
                           .arg_destroy = count_destroyed };
    executor.count = 0;
    CHECK(cf_submit_task(executor.executor, &task, &shared.future) == CF_OK);
    CHECK(cf_future_add_done_callback(shared.future, count_call, NULL) == CF_OK);
}

static void prepare_promise(void *data)
{
    (void)data;
    reset_shared();
    CHECK(cf_future_new(sizeof(int), count_destroyed, &shared.future) == CF_OK);
}

static void prepare_watched_promise(void *data)
{
    prepare_promise(data);
    CHECK(cf_future_add_done_callback(shared.future, count_call, NULL) == CF_OK);
}

/* For two who each give a reference back. */
static void prepare_two_references(void *data)
{
    prepare_watched_promise(data);
    cf_future_ref(shared.future);
}

static void prepare_settled(void *data)
{
    prepare_two_references(data);
    settle_promise(shared.future, false);
}

static void cancel_here(void *data)
{
    (void)data;
    shared.here = cf_future_cancel(shared.future);
}

static void cancel_there(void *data)
{
    (void)data;
    shared.there = cf_future_cancel(shared.future);
}

static void run_there(void *data)
{
    (void)data;
    cf_future_run(shared.future);
}

static void set_result_there(void *data)
{
    (void)data;
    const int value = ANSWER;
    shared.there = cf_future_set_result(shared.future, &value) == CF_OK;
}

static void add_callbacks_here(void *data)
{
    (void)data;
    for (int i = 0; i < 4; i++)
        CHECK(cf_future_add_done_callback(shared.future, count_call, NULL) == CF_OK);
}

static void unref_one(void *data)
{
    (void)data;
    cf_future_unref(shared.future);
}

static void set_result_and_unref(void *data)
{
    (void)data;
    settle_promise(shared.future, false);
    cf_future_unref(shared.future);
}

static void task_ended_once(void *data)
{
    (void)data;
    bool cancelled = cf_future_cancelled(shared.future);
    CHECK(cf_future_done(shared.future));
    CHECK(shared.here == cancelled);
    CHECK(atomic_load(&shared.ran) == !cancelled);
    CHECK(atomic_load(&shared.destroyed) == 1);
    CHECK(atomic_load(&shared.called) == 1);
    cf_future_unref(shared.future);
    manual_release(&executor, 0);
}

static void task_was_cancelled_once(void *data)
{
    CHECK(shared.there);
    CHECK(cf_future_cancelled(shared.future));
    task_ended_once(data);
}

static void promise_was_kept_or_cancelled(void *data)
{
    (void)data;
    CHECK(shared.here != shared.there);
    CHECK(cf_future_cancelled(shared.future) == shared.here);
    CHECK(atomic_load(&shared.called) == 1);
    cf_future_unref(shared.future);
    CHECK(atomic_load(&shared.destroyed) == shared.there);
}

static void all_were_called(void *data)
{
    (void)data;
    CHECK(atomic_load(&shared.called) == 4);
    cf_future_unref(shared.future);
}

static void it_ended_once(void *data)
{
    (void)data;
    CHECK(atomic_load(&shared.called) == 1);
    CHECK(atomic_load(&shared.destroyed) == 1);
}

static void it_was_abandoned_once(void *data)
{
    (void)data;
    CHECK(atomic_load(&shared.called) == 1);
    CHECK(atomic_load(&shared.destroyed) == 0);
}

static void race(void (*prepare)(void *), void (*here)(void *), void (*there)(void *),
                 void (*finish)(void *))
{
    struct race r = { .prepare = prepare, .here = here, .there = there, .finish = finish };
    run_race(&r, ROUNDS);
}

static void test_cancel_against_run(void **unused)
{
    (void)unused;
    race(prepare_task, cancel_here, run_there, task_ended_once);
}

static void test_cancel_against_cancel(void **unused)
{
    (void)unused;
    race(prepare_task, cancel_here, cancel_there, task_was_cancelled_once);
}

static void test_cancel_against_settle(void **unused)
{
    (void)unused;
    race(prepare_watched_promise, cancel_here, set_result_there, promise_was_kept_or_cancelled);
}

static void test_callbacks_against_settle(void **unused)
{
    (void)unused;
    race(prepare_promise, add_callbacks_here, set_result_there, all_were_called);
}

static void test_callbacks_against_cancel(void **unused)
{
    (void)unused;
    race(prepare_promise, add_callbacks_here, cancel_there, all_were_called);
}

static void test_unref_against_settle(void **unused)
{
    (void)unused;
    race(prepare_two_references, unref_one, set_result_and_unref, it_ended_once);
}

static void test_unref_against_unref(void **unused)
{
    (void)unused;
    race(prepare_settled, unref_one, unref_one, it_ended_once);
}

/* Whichever was the last: those who watch hear that nobody can settle it any more. */
static void test_abandoned_by_two_at_once(void **unused)
{
    (void)unused;
    race(prepare_two_references, unref_one, unref_one, it_was_abandoned_once);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_executor, close_executor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_asking),
        TEST(test_cancelling),
        TEST(test_stopping),
        TEST(test_why_there_is_no_result),
        TEST(test_callbacks_in_each_state),
        TEST(test_no_future),
        TEST(test_each_reference_counts),
        TEST(test_letting_go_of_many),
        TEST(test_destroy_functions_run_once),
        TEST(test_all_sizes),
        TEST(test_results_are_aligned),
        TEST(test_callbacks_in_order_of_addition),
        TEST(test_callbacks_of_a_task),
        TEST(test_no_callback_comes_twice),
        TEST(test_a_callback_added_by_a_callback),
        TEST(test_cancelling_in_a_callback),
        TEST(test_the_last_reference_goes_in_a_callback),
        TEST(test_a_callback_keeps_an_abandoned_one),
        TEST(test_callbacks_run_where_it_settles),
        TEST(test_a_callback_sees_the_exception_object),
        TEST(test_waiters_wake_before_callbacks),
        TEST(test_cancel_against_run),
        TEST(test_cancel_against_cancel),
        TEST(test_cancel_against_settle),
        TEST(test_callbacks_against_settle),
        TEST(test_callbacks_against_cancel),
        TEST(test_unref_against_settle),
        TEST(test_unref_against_unref),
        TEST(test_abandoned_by_two_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
