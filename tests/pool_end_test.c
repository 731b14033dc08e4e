/* SPDX-License-Identifier: MIT */
/* How a thread pool ends: shutdown in its modes, with limits, from inside; stopping and cancelling
 * tasks; and what outlives it. */
#define _GNU_SOURCE
#include "pool_support.h"

#include <errno.h>

static struct gate gate = GATE_INIT;

static int set_up(void **state)
{
    (void)state;
    gate_close(&gate);
    return 0;
}

static void count_call(cf_future *f, void *data)
{
    CHECK(cf_future_done(f));
    atomic_fetch_add((atomic_int *)data, 1);
}

/* ---- what is there to do ---- */

enum { QUEUED = 300 };

static void submit_queue(cf_executor *pool, cf_future **f, atomic_int *calls)
{
    for (int i = 0; i < QUEUED; i++) {
        f[i] = submitted(pool, do_nothing, NULL, 0, 0);
        assert_int_equal(cf_future_add_done_callback(f[i], count_call, calls), CF_OK);
    }
}

static void assert_refuses(cf_executor *pool)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, &f), CF_SHUTDOWN);
    assert_null(f);
    assert_int_equal(cf_last_error()->status, CF_SHUTDOWN);
    assert_int_equal(cf_submit_task(pool, CF_TASK(.fn = do_nothing, .priority = 1), &f),
                     CF_SHUTDOWN);
}

static void test_finish_pending(void **state)
{
    (void)state;
    cf_future *f[QUEUED];
    atomic_int calls = 0;
    cf_executor *pool = pool_of(2);
    cf_future *busy = occupied(pool, &gate);
    submit_queue(pool, f, &calls);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    assert_refuses(pool);
    gate_open(&gate);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
    assert_int_equal(atomic_load(&calls), QUEUED);
    for (int i = 0; i < QUEUED; i++) {
        assert_true(cf_future_done(f[i]));
        assert_ends(f[i], CF_OK);
    }
    assert_ends(busy, CF_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(cf_executor_shutdown(pool, (cf_shutdown_mode)i, CF_FOREVER), CF_OK);
    assert_refuses(pool);
    end_pool(pool);
}

static void test_cancel_pending(void **state)
{
    (void)state;
    cf_future *f[QUEUED];
    atomic_int calls = 0;
    cf_executor *pool = pool_of(1);
    cf_future *busy = occupied(pool, &gate);
    submit_queue(pool, f, &calls);
    const cf_task urgent = { .size = sizeof urgent, .fn = do_nothing, .priority = 1 };
    cf_future *g = NULL;
    assert_int_equal(cf_submit_task(pool, &urgent, &g), CF_OK);
    assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, 0), CF_TIMEOUT);
    assert_int_equal(atomic_load(&calls), QUEUED); /* at once, although the worker is busy */
    for (int i = 0; i < QUEUED; i++)
        assert_ends(f[i], CF_CANCELLED);
    assert_ends(g, CF_CANCELLED);
    gate_open(&gate);
    assert_ends(busy, CF_OK);
    end_pool(pool);
}

static int wait_for_stop(const void *arg, void *result)
{
    (void)result;
    int code = *(const int *)arg;
    level_raise(&gate.came);
    WAIT_UNTIL(cf_stop_requested());
    return code;
}

static void test_stop_running(void **state)
{
    (void)state;
    static const int obeys = 3, succeeds = 0;
    cf_executor *pool = pool_of(2);
    cf_future *f[3];
    f[0] = submitted(pool, wait_for_stop, &obeys, sizeof obeys, 0);
    f[1] = submitted(pool, wait_for_stop, &succeeds, sizeof succeeds, 0);
    assert_true(level_reaches(&gate.came, 2));
    f[2] = submitted(pool, do_nothing, NULL, 0, 0);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_MS(5)), CF_TIMEOUT);
    assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, CF_MS(5)), CF_TIMEOUT);
    assert_false(cf_future_done(f[0]));
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, LIMIT), CF_OK);
    assert_int_equal(cf_future_exception(f[0])->code, 3);
    assert_ends(f[0], CF_STOPPED);
    assert_ends(f[1], CF_OK);
    assert_ends(f[2], CF_CANCELLED);
    end_pool(pool);
}

static void test_shutdown_with_a_limit(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    cf_future *busy = occupied(pool, &gate);
    int64_t begun = cfi_now();
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_MS(20)), CF_TIMEOUT);
    assert_true(cfi_now() - begun >= CF_MS(20));
    assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
    gate_open(&gate);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, 0), CF_OK);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, -1), CF_OK);
    assert_ends(busy, CF_OK);
    end_pool(pool);
}

static void test_shutdown_of_a_pool_that_never_worked(void **state)
{
    (void)state;
    for (int mode = CF_FINISH_PENDING; mode <= CF_STOP_RUNNING; mode++) {
        cf_executor *pool = pool_of(2);
        assert_int_equal(cf_executor_shutdown(pool, (cf_shutdown_mode)mode, 0), CF_OK);
        assert_refuses(pool);
        end_pool(pool);
    }
    assert_null(cf_executor_free(pool_of(2)));
    assert_null(cf_executor_free(NULL));
}

static void test_shutdown_is_checked(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    assert_int_equal(cf_executor_shutdown(NULL, CF_FINISH_PENDING, 0), CF_INVALID);
    assert_int_equal(cf_executor_shutdown(pool, (cf_shutdown_mode)3, 0), CF_INVALID);
    assert_int_equal(cf_executor_shutdown(pool, (cf_shutdown_mode)-1, 0), CF_INVALID);
    assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK); /* nothing was changed */
    end_pool(pool);
}

struct meeting {
    struct level level;
    int parties;
};

static int meet(const void *arg, void *result)
{
    (void)result;
    struct meeting *meeting = *(struct meeting *const *)arg;
    level_raise(&meeting->level);
    return level_reaches(&meeting->level, meeting->parties) ? 0 : 1;
}

/* Accepted work gets its workers, also when the pool is shut down before they have begun. */
static void test_a_shutdown_does_not_keep_workers_from_starting(void **state)
{
    (void)state;
    static struct meeting meeting = { LEVEL_INIT, 4 };
    cf_executor *pool = pool_of(4);
    cf_future *f[4];
    for (int i = 0; i < 4; i++)
        f[i] = submitted_with(pool, meet, &meeting);
    end_pool(pool);
    for (int i = 0; i < 4; i++)
        assert_ends(f[i], CF_OK);
}

static int submit_in_shutdown(const void *arg, void *result)
{
    cf_executor *pool = *(cf_executor *const *)arg;
    const struct gate *before = &gate;
    (void)wait_before_gate(&before, NULL);
    *(cf_status *)result = cf_submit(pool, do_nothing, NULL, 0, 0, NULL);
    return 0;
}

static void test_tasks_cannot_submit_in_a_shutdown(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    cf_future *f = submitted(pool, submit_in_shutdown, &pool, sizeof pool, sizeof(cf_status));
    assert_true(level_reaches(&gate.came, 1));
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    gate_open(&gate);
    cf_status status = CF_OK;
    assert_int_equal(CF_RESULT(f, LIMIT, &status), CF_OK);
    assert_int_equal(status, CF_SHUTDOWN);
    cf_future_unref(f);
    end_pool(pool);
}

/* What a task waits for in a pool that cancels is cancelled, not waited for. */
static int wait_for_cancelled(const void *arg, void *result)
{
    cf_executor *pool = *(cf_executor *const *)arg;
    const struct gate *before = &gate;
    cf_future *f = NULL;
    CHECK(cf_submit(pool, do_nothing, NULL, 0, 0, &f) == CF_OK);
    (void)wait_before_gate(&before, NULL);
    *(cf_status *)result = cf_future_result(f, LIMIT, NULL, 0);
    cf_future_unref(f);
    return 0;
}

static void test_children_are_cancelled_too(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    cf_future *f = submitted(pool, wait_for_cancelled, &pool, sizeof pool, sizeof(cf_status));
    assert_true(level_reaches(&gate.came, 1));
    assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, 0), CF_TIMEOUT);
    gate_open(&gate);
    cf_status status = CF_OK;
    assert_int_equal(CF_RESULT(f, LIMIT, &status), CF_OK);
    assert_int_equal(status, CF_CANCELLED);
    cf_future_unref(f);
    end_pool(pool);
}

/* ---- from inside ---- */

static int shut_down_own_pool(const void *arg, void *result)
{
    cf_executor *pool = *(cf_executor *const *)arg;
    *(cf_status *)result = cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER);
    return 0;
}

static void test_shutdown_by_a_task(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    cf_future *busy = occupied(pool, &gate);
    cf_future *f = submitted(pool, shut_down_own_pool, &pool, sizeof pool, sizeof(cf_status));
    cf_status status = CF_OK;
    assert_int_equal(CF_RESULT(f, LIMIT, &status), CF_OK);
    assert_int_equal(status, CF_DEADLOCK);
    cf_future_unref(f);
    assert_refuses(pool); /* it has begun */
    gate_open(&gate);
    assert_ends(busy, CF_OK);
    end_pool(pool);
}

struct inside {
    cf_executor *pool;
    cf_status status;
    struct level called;
};

static void shut_down_in_callback(cf_future *f, void *data)
{
    (void)f;
    struct inside *inside = data;
    inside->status = cf_executor_shutdown(inside->pool, CF_FINISH_PENDING, LIMIT);
    level_raise(&inside->called);
}

static void test_shutdown_by_a_callback_on_a_worker(void **state)
{
    (void)state;
    static struct inside inside = { .called = LEVEL_INIT };
    inside.pool = pool_of(2);
    cf_future *f = occupied(inside.pool, &gate);
    assert_int_equal(cf_future_add_done_callback(f, shut_down_in_callback, &inside), CF_OK);
    gate_open(&gate);
    assert_true(level_reaches(&inside.called, 1));
    assert_int_equal(inside.status, CF_DEADLOCK);
    assert_refuses(inside.pool);
    assert_ends(f, CF_OK);
    end_pool(inside.pool);
}

/* A callback that runs elsewhere can wait. */
static void test_shutdown_by_a_callback_elsewhere(void **state)
{
    (void)state;
    static struct inside inside = { .called = LEVEL_INIT };
    inside.pool = pool_of(1);
    cf_future *f = submitted(inside.pool, do_nothing, NULL, 0, 0);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_OK);
    assert_int_equal(cf_future_add_done_callback(f, shut_down_in_callback, &inside), CF_OK);
    assert_int_equal(inside.status, CF_OK); /* called at once, here */
    cf_future_unref(f);
    end_pool(inside.pool);
}

static int free_own_pool(const void *arg, void *result)
{
    (void)result;
    const struct gate *before = &gate;
    (void)wait_before_gate(&before, NULL);
    CHECK(cf_executor_free(*(cf_executor *const *)arg) == NULL);
    return 0;
}

/* The pool ends by itself, when all that was submitted has run. */
static void test_free_by_a_task(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 3; workers++) {
        gate_close(&gate);
        cf_executor *pool =
            pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = workers, .name = "freed"));
        cf_future *f[50];
        f[0] = submitted(pool, free_own_pool, &pool, sizeof pool, 0);
        for (size_t i = 1; i < COUNT_OF(f); i++)
            f[i] = submitted(pool, do_nothing, NULL, 0, 0);
        gate_open(&gate);
        for (size_t i = 0; i < COUNT_OF(f); i++)
            assert_ends(f[i], CF_OK);
        assert_threads("freed_", 0);
    }
    assert_checks();
}

static void free_in_callback(cf_future *f, void *data)
{
    (void)f;
    CHECK(cf_executor_free(data) == NULL);
}

static void test_free_by_a_callback(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 3; workers++) {
        for (size_t max_pending = 0; max_pending <= 60; max_pending += 60) {
            gate_close(&gate);
            cf_executor *pool =
                pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = workers, .max_pending = max_pending,
                                                 .name = "freed"));
            cf_future *f = occupied(pool, &gate);
            assert_int_equal(cf_future_add_done_callback(f, free_in_callback, pool), CF_OK);
            for (int i = 0; i < 20; i++)
                cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0));
            gate_open(&gate);
            assert_ends(f, CF_OK);
            assert_threads("freed_", 0);
        }
    }
    assert_checks();
}

static size_t address_space(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Whichever worker is the last to go, nobody is left to join it. */
static void test_free_from_inside_leaves_no_stack(void **state)
{
    (void)state;
    const size_t stack_size = 64 << 20;
    size_t before = address_space();
    for (int i = 0; i < 40; i++) {
        gate_close(&gate);
        cf_executor *pool = pool_with(
            CF_THREAD_POOL_OPTIONS(.max_workers = 1, .stack_size = stack_size, .name = "freed"));
        cf_future *f = submitted(pool, free_own_pool, &pool, sizeof pool, 0);
        gate_open(&gate);
        assert_ends(f, CF_OK);
        assert_threads("freed_", 0);
    }
    assert_true(address_space() < before + 20 * stack_size);
}

/* ---- stop, limits, cancel ---- */

static cf_future *limited(cf_executor *pool, const int *code, int64_t run_limit_ns)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(pool,
                                    CF_TASK(.fn = wait_for_stop, .arg = code,
                                            .arg_size = sizeof *code, .run_limit_ns = run_limit_ns),
                                    &f),
                     CF_OK);
    return f;
}

static void test_run_limits(void **state)
{
    (void)state;
    static const int obeys = 9, succeeds = 0;
    cf_executor *pool = pool_of(2);
    int64_t begun = cfi_now();
    cf_future *f = limited(pool, &obeys, CF_MS(20)), *g = limited(pool, &succeeds, CF_MS(20));
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_STOPPED);
    assert_true(cfi_now() - begun >= CF_MS(20));
    assert_int_equal(cf_last_error()->code, 9);
    assert_int_equal(cf_future_exception(f)->code, 9);
    cf_future_unref(f);
    assert_ends(g, CF_OK);
    assert_int_equal(cf_submit_task(pool, CF_TASK(.fn = do_nothing, .run_limit_ns = -1), NULL),
                     CF_INVALID);
    end_pool(pool);
}

static int is_not_stopped(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    return cf_stop_requested();
}

/* The limit counts from the beginning of the task, not from its submit. */
static void test_a_run_limit_counts_from_the_beginning(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(1);
    cf_future *busy = occupied(pool, &gate), *f = NULL;
    assert_int_equal(
        cf_submit_task(pool, CF_TASK(.fn = is_not_stopped, .run_limit_ns = CF_SECONDS(5)), &f),
        CF_OK);
    int64_t until = cfi_now() + CF_MS(20);
    WAIT_UNTIL(cfi_now() > until);
    gate_open(&gate);
    assert_ends(f, CF_OK);
    assert_ends(busy, CF_OK);
    end_pool(pool);
}

static void test_stopping_one(void **state)
{
    (void)state;
    static const int obeys = 4;
    cf_executor *pool = pool_of(1);
    cf_future *f = submitted(pool, wait_for_stop, &obeys, sizeof obeys, 0);
    assert_true(level_reaches(&gate.came, 1));
    cf_future *pending = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(cf_future_stop(pending, 0)); /* like a cancel */
    assert_true(cf_future_cancelled(pending));
    assert_false(cf_future_cancel(f));
    assert_true(cf_future_stop(f, 0));
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->code, 4);
    assert_false(cf_future_stop(f, 0));
    assert_false(cf_future_stop(pending, 0));
    assert_false(cf_stop_requested());
    assert_ends(submitted(pool, is_not_stopped, NULL, 0, 0), CF_OK); /* only that one */
    cf_future_unref(pending);
    cf_future_unref(f);
    end_pool(pool);
}

static void count_destroy(void *data)
{
    atomic_fetch_add(*(atomic_int **)data, 1);
}

static int copy_pointer(const void *arg, void *result)
{
    memcpy(result, arg, sizeof(void *));
    return 0;
}

static cf_task counted_task(atomic_int **arg)
{
    return (cf_task){ .size = sizeof(cf_task),
                      .fn = copy_pointer,
                      .arg = arg,
                      .arg_size = sizeof *arg,
                      .result_size = sizeof *arg,
                      .arg_destroy = count_destroy,
                      .result_destroy = count_destroy };
}

/* The argument of each goes once; a result only where there is one. */
static void test_what_tasks_own_is_destroyed(void **state)
{
    (void)state;
    atomic_int destroyed = 0, *arg = &destroyed;
    const cf_task task = counted_task(&arg);
    cf_executor *pool = pool_of(1);
    cf_future *busy = occupied(pool, &gate), *f[20];
    for (int i = 0; i < 20; i++)
        assert_int_equal(cf_submit_task(pool, &task, &f[i]), CF_OK);
    for (int i = 0; i < 5; i++)
        assert_true(cf_future_cancel(f[i]));
    assert_int_equal(atomic_load(&destroyed), 5);
    gate_open(&gate);
    assert_int_equal(cf_wait(f, 20, CF_ALL_COMPLETED, LIMIT, NULL), CF_OK);
    assert_int_equal(atomic_load(&destroyed), 20);
    cf_future_unref_all(f, 20);
    assert_ends(busy, CF_OK);
    end_pool(pool);
    assert_int_equal(atomic_load(&destroyed), 35);
    pool = pool_of(1);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_int_equal(cf_submit_task(pool, &task, NULL), CF_SHUTDOWN); /* then it stays ours */
    assert_int_equal(atomic_load(&destroyed), 35);
    end_pool(pool);
}

/* Nobody holds a future: it goes on the worker, after its task. */
static void test_the_last_reference_goes_on_a_worker(void **state)
{
    (void)state;
    atomic_int destroyed = 0, *arg = &destroyed;
    const cf_task task = counted_task(&arg);
    for (size_t max_pending = 0; max_pending <= 60; max_pending += 60) {
        cf_executor *pool =
            pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .max_pending = max_pending));
        cf_future *busy = occupied(pool, &gate);
        for (int i = 0; i < 20; i++)
            assert_int_equal(cf_submit_task(pool, &task, NULL), CF_OK);
        cf_future_unref(busy);
        gate_open(&gate);
        end_pool(pool);
        assert_int_equal(atomic_exchange(&destroyed, 0), 40);
        gate_close(&gate);
    }
}

/* ---- what outlives the pool ---- */

static int fail_task(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    return cf_raise(EIO, "it failed");
}

static int write_hello(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg;
    (void)arg_size;
    CHECK(cf_bytes_resize(result, 6) == CF_OK);
    memcpy(result->data, "hello", 6);
    return 0;
}

static void assert_still_there(cf_future **f)
{
    int value = 0;
    const void *data = NULL;
    size_t size = 0;
    assert_int_equal(CF_RESULT(f[0], 0, &value), CF_OK);
    assert_int_equal(value, 42);
    assert_int_equal(cf_future_peek(f[1], 0, &data, &size), CF_OK);
    assert_int_equal(size, 6);
    assert_string_equal(data, "hello");
    assert_int_equal(cf_future_result(f[2], 0, NULL, 0), CF_FAILED);
    assert_string_equal(cf_future_exception(f[2])->message, "it failed");
    assert_int_equal(cf_future_exception(f[2])->code, EIO);
    assert_true(cf_future_cancelled(f[3]));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(cf_future_cancel(f[i]), i == 3);
        assert_false(cf_future_stop(f[i], 0));
        assert_false(cf_future_running(f[i]));
    }
}

static int copy_int(const void *arg, void *result)
{
    memcpy(result, arg, sizeof(int));
    return 0;
}

static void test_futures_outlive_the_pool(void **state)
{
    (void)state;
    const int answer = 42;
    for (size_t max_pending = 0; max_pending <= 60; max_pending += 60) {
        atomic_int calls = 0;
        gate_close(&gate);
        cf_executor *pool =
            pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = max_pending));
        cf_future *busy = occupied(pool, &gate), *f[4];
        f[0] = submitted(pool, copy_int, &answer, sizeof answer, sizeof answer);
        assert_int_equal(cf_submit_bytes(pool, write_hello, NULL, 0, &f[1]), CF_OK);
        f[2] = submitted(pool, fail_task, NULL, 0, 0);
        f[3] = submitted(pool, do_nothing, NULL, 0, 0);
        assert_true(cf_future_cancel(f[3]));
        gate_open(&gate);
        assert_ends(busy, CF_OK);
        end_pool(pool);
        assert_still_there(f);
        size_t done = 0;
        assert_int_equal(cf_wait(f, 4, CF_ALL_COMPLETED, CF_FOREVER, &done), CF_OK);
        assert_int_equal(done, 4);
        for (int i = 0; i < 4; i++)
            assert_int_equal(cf_future_add_done_callback(f[i], count_call, &calls), CF_OK);
        assert_int_equal(atomic_load(&calls), 4);
        cf_bytes bytes = { NULL, 0 };
        assert_int_equal(CF_TAKE(f[1], 0, &bytes), CF_OK);
        cf_future_unref_all(f, 4);
        assert_string_equal(bytes.data, "hello");
        cf_bytes_free(&bytes);
    }
}

static void test_a_thousand_pools_leave_nothing(void **state)
{
    (void)state;
    unsigned descriptors = entries_of("/proc/self/fd");
    for (unsigned i = 0; i < 1000; i++) {
        cf_executor *pool =
            pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1 + i % 3, .max_pending = i % 2 * 8));
        for (unsigned k = 0; k < i % 4; k++)
            cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0));
        if (i % 5)
            end_pool(pool);
        else
            cf_executor_free(pool);
    }
    assert_threads("thousand_", 0);
    assert_int_equal(entries_of("/proc/self/fd"), descriptors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_finish_pending, set_up),
        cmocka_unit_test_setup(test_cancel_pending, set_up),
        cmocka_unit_test_setup(test_stop_running, set_up),
        cmocka_unit_test_setup(test_shutdown_with_a_limit, set_up),
        cmocka_unit_test_setup(test_shutdown_of_a_pool_that_never_worked, set_up),
        cmocka_unit_test_setup(test_shutdown_is_checked, set_up),
        cmocka_unit_test_setup(test_a_shutdown_does_not_keep_workers_from_starting, set_up),
        cmocka_unit_test_setup(test_tasks_cannot_submit_in_a_shutdown, set_up),
        cmocka_unit_test_setup(test_children_are_cancelled_too, set_up),
        cmocka_unit_test_setup(test_shutdown_by_a_task, set_up),
        cmocka_unit_test_setup(test_shutdown_by_a_callback_on_a_worker, set_up),
        cmocka_unit_test_setup(test_shutdown_by_a_callback_elsewhere, set_up),
        cmocka_unit_test_setup(test_free_by_a_task, set_up),
        cmocka_unit_test_setup(test_free_by_a_callback, set_up),
        cmocka_unit_test_setup(test_free_from_inside_leaves_no_stack, set_up),
        cmocka_unit_test_setup(test_run_limits, set_up),
        cmocka_unit_test_setup(test_a_run_limit_counts_from_the_beginning, set_up),
        cmocka_unit_test_setup(test_stopping_one, set_up),
        cmocka_unit_test_setup(test_what_tasks_own_is_destroyed, set_up),
        cmocka_unit_test_setup(test_the_last_reference_goes_on_a_worker, set_up),
        cmocka_unit_test_setup(test_futures_outlive_the_pool, set_up),
        cmocka_unit_test_setup(test_a_thousand_pools_leave_nothing, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
