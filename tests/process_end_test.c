/* SPDX-License-Identifier: MIT */
/* How tasks, workers and pools of processes end: stopped by force, by a limit, by a crash and its
 * rules (retries, restarts, break), and by a shutdown in each of its modes. */
#define _GNU_SOURCE
#include "process_support.h"

/* ---- stopping one task ---- */

static int listen_and_return(const void *arg, void *result)
{
    (void)result;
    cell_raise(CAME);
    while (!cf_stop_requested())
        usleep(200);
    return *(const int *)arg;
}

static void test_stop_asks_first(void **unused)
{
    (void)unused;
    static const int codes[] = { 7, 0 };
    cf_executor *pool = processes_of(1);
    for (int i = 0; i < 2; i++) {
        cf_future *f = submitted(pool, listen_and_return, &codes[i], sizeof codes[i], 0);
        assert_true(cell_reaches(CAME, i + 1));
        assert_true(cf_future_stop(f, LIMIT));
        assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), i == 0 ? CF_STOPPED : CF_OK);
        assert_false(cf_future_stop(f, LIMIT));
        if (i == 0) {
            assert_int_equal(cf_future_exception(f)->code, 7);
            assert_int_equal(cf_future_exception(f)->signal_number, 0);
        }
        cf_future_unref(f);
        assert_works(pool);
    }
    end_pool(pool);
}

/* Stopped by force: says so, and costs no other task. */
static void assert_stopped(cf_fn *fn, int64_t grace_ns, int signal_number)
{
    const int ran = RAN;
    cf_future *others[10];
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, fn, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 1));
    for (size_t i = 0; i < COUNT_OF(others); i++)
        others[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    int pid = cell_now(WORKER);
    assert_true(cf_future_stop(f, grace_ns));
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->status, CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->worker_pid, pid);
    assert_int_equal(cf_future_exception(f)->signal_number, signal_number);
    assert_int_not_equal(strlen(cf_future_exception(f)->message), 0);
    cf_future_unref(f);
    for (size_t i = 0; i < COUNT_OF(others); i++)
        assert_ends(others[i], CF_OK);
    assert_int_equal(cell_now(RAN), COUNT_OF(others));
    end_pool(pool);
    assert_true(has_gone(pid));
}

static void test_stop_terminates(void **unused)
{
    (void)unused;
    assert_stopped(spin, 0, SIGTERM);
}

static void test_stop_terminates_who_sleeps(void **unused)
{
    (void)unused;
    assert_stopped(sleep_long, CF_MS(30), SIGTERM);
}

static void test_stop_kills_who_does_not_hear(void **unused)
{
    (void)unused;
    assert_stopped(spin_deaf, 0, SIGKILL);
}

static int stop_itself(const void *arg, void *result)
{
    (void)arg, (void)result;
    cell_set(WORKER, (int)getpid());
    cell_raise(CAME);
    raise(SIGSTOP);
    for (;;)
        pause();
    return 0;
}

static void test_stop_kills_who_is_stopped(void **unused)
{
    (void)unused;
    assert_stopped(stop_itself, CF_MS(10), SIGKILL);
}

static void test_a_later_stop_is_stricter(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, spin, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 1));
    assert_true(cf_future_stop(f, CF_FOREVER));
    assert_int_equal(cf_future_result(f, CF_MS(30), NULL, 0), CF_TIMEOUT);
    assert_true(cf_future_stop(f, 0));
    assert_ends(f, CF_STOPPED);
    assert_works(pool);
    end_pool(pool);
}

static void test_stop_of_what_has_not_begun_cancels(void **unused)
{
    (void)unused;
    const int ran = RAN;
    cf_executor *pool = processes_of(1);
    cf_future *running = busy(pool), *f = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    assert_true(cf_future_stop(f, 0));
    assert_true(cf_future_cancelled(f));
    cell_set(OPENED, 1);
    assert_ends(running, CF_OK);
    assert_ends(f, CF_CANCELLED);
    assert_works(pool);
    assert_int_equal(cell_now(RAN), 0);
    end_pool(pool);
}

/* Who is stopped just when it ends: the next task on that worker does not suffer. */
static void test_stop_never_hits_the_next_task(void **unused)
{
    (void)unused;
    const int ran = RAN;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_restarts = MOST_RESTARTS));
    int64_t begun = cfi_now();
    for (int i = 0; i < 20 || is_time_left(begun); i++) {
        cf_future *f = submitted(pool, raise_cell, &ran, sizeof ran, 0),
                  *g = submitted(pool, raise_cell, &ran, sizeof ran, 0);
        for (volatile int wait = (i * 37) % 5000; wait > 0; wait--)
            ;
        (void)cf_future_stop(f, 0);
        cf_status status = cf_future_result(f, LIMIT, NULL, 0);
        if (status != CF_OK && status != CF_CANCELLED && status != CF_STOPPED)
            fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
        assert_ends(g, CF_OK);
        cf_future_unref(f);
    }
    end_pool(pool);
}

static void assert_run_limit(cf_fn *fn)
{
    const int ran = RAN;
    cf_executor *pool = processes_of(1);
    cf_future *f = NULL, *g = NULL;
    assert_int_equal(cf_submit_task(pool, CF_TASK(.fn = fn, .run_limit_ns = CF_MS(50)), &f), CF_OK);
    assert_int_equal(cf_submit_task(pool,
                                    CF_TASK(.fn = raise_cell, .arg = &ran, .arg_size = sizeof ran,
                                            .run_limit_ns = LIMIT),
                                    &g),
                     CF_OK);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_STOPPED);
    assert_int_not_equal(cf_future_exception(f)->signal_number, 0);
    cf_future_unref(f);
    assert_ends(g, CF_OK);
    end_pool(pool);
}

static void test_run_limits(void **unused)
{
    (void)unused;
    assert_run_limit(spin);
    assert_run_limit(spin_deaf);
    assert_run_limit(sleep_long);
}

/* The time counts from the task's own beginning, not from the submit. */
static void test_run_limits_begin_with_the_task(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    cf_future *first = busy(pool), *f = NULL;
    assert_int_equal(
        cf_submit_task(pool, CF_TASK(.fn = do_nothing, .run_limit_ns = CF_MS(100)), &f), CF_OK);
    usleep(150000);
    cell_set(OPENED, 1);
    assert_ends(f, CF_OK);
    assert_ends(first, CF_OK);
    end_pool(pool);
}

/* ---- crashes and their rules ---- */

struct attempt {
    int cell, deaths_first;
};

static int die_first(const void *arg, void *result)
{
    const struct attempt *attempt = arg;
    *(int *)result = cell_raise(attempt->cell) + 1;
    if (*(int *)result <= attempt->deaths_first)
        die(BY_KILL);
    return 0;
}

static cf_future *submit_attempt(cf_executor *pool, int cell, int deaths_first)
{
    const struct attempt attempt = { cell, deaths_first };
    return submitted(pool, die_first, &attempt, sizeof attempt, sizeof(int));
}

static void test_retries(void **unused)
{
    (void)unused;
    int runs = 0;
    cf_executor *pool = processes_with(
        CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_retries = 2, .max_restarts = 100));
    cf_future *f = submit_attempt(pool, FREE_CELLS, 2),
              *g = submit_attempt(pool, FREE_CELLS + 1, 9),
              *h = submit_attempt(pool, FREE_CELLS + 2, 0);
    assert_int_equal(CF_RESULT(f, LIMIT, &runs), CF_OK);
    assert_int_equal(runs, 3);
    assert_int_equal(cf_future_result(g, LIMIT, NULL, 0), CF_BROKEN);
    assert_int_equal(cf_future_exception(g)->signal_number, SIGKILL);
    assert_int_equal(CF_RESULT(h, LIMIT, &runs), CF_OK);
    assert_int_equal(runs, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(cell_now(FREE_CELLS + i), i == 2 ? 1 : 3);
    cf_future_unref_all((cf_future *[]){ f, g, h }, 3);
    end_pool(pool);
}

static void test_retried_tasks_can_be_cancelled_and_stopped(void **unused)
{
    (void)unused;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_retries = UINT_MAX,
                                               .max_restarts = MOST_RESTARTS));
    cf_future *f = submit_attempt(pool, FREE_CELLS, INT_MAX);
    assert_true(cell_reaches(FREE_CELLS, 5));
    (void)cf_future_stop(f, 0);
    cf_status status = cf_future_result(f, LIMIT, NULL, 0);
    if (status != CF_STOPPED && status != CF_CANCELLED && status != CF_BROKEN) /* died meanwhile */
        fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
    cf_future_unref(f);
    assert_works(pool);
    end_pool(pool);
}

static void test_a_crash_may_break_the_pool(void **unused)
{
    (void)unused;
    enum { PENDING = 20 };
    cf_future *pending[PENDING];
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .on_crash = CF_ON_CRASH_BREAK));
    cf_future *other = busy(pool), *f = submit_way(pool, BY_EXIT_3);
    cf_status status = CF_OK;
    size_t accepted = 0;
    while (accepted < PENDING && status == CF_OK) {
        status = cf_submit(pool, wait_for_opening, NULL, 0, 0, &pending[accepted]);
        accepted += status == CF_OK;
    }
    assert_true(status == CF_OK || status == CF_BROKEN);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
    assert_int_equal(cf_future_exception(f)->exit_code, 3);
    for (size_t i = 0; i < accepted; i++)
        assert_ends(pending[i], CF_BROKEN);
    assert_ends(other, CF_BROKEN);
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, NULL), CF_BROKEN);
    assert_int_not_equal(strlen(cf_last_error()->message), 0);
    cf_future_unref(f);
    end_pool(pool);
}

static void test_too_many_deaths_break_the_pool(void **unused)
{
    (void)unused;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_restarts = 3));
    for (int i = 0; i < 3; i++) {
        assert_ends(submit_way(pool, BY_EXIT_3), CF_BROKEN);
        assert_works(pool);
    }
    assert_ends(submit_way(pool, BY_EXIT_3), CF_BROKEN);
    cf_future *f = NULL;
    int64_t begun = cfi_now();
    while (cf_submit(pool, do_nothing, NULL, 0, 0, &f) == CF_OK && cfi_now() - begun < LIMIT)
        cf_future_unref(f);
    assert_int_equal(cf_last_error()->status, CF_BROKEN);
    assert_int_not_equal(strlen(cf_last_error()->message), 0);
    end_pool(pool);
}

static void test_deaths_are_forgotten(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_restarts = 1,
                                                               .restart_window_ns = CF_MS(1)));
    for (int i = 0; i < 10; i++) {
        assert_ends(submit_way(pool, BY_EXIT_3), CF_BROKEN);
        usleep(2000);
        assert_works(pool);
    }
    end_pool(pool);
}

static int die_at_first(void *data)
{
    const int *deaths = data;
    if (cell_raise(INITIALIZED) < *deaths)
        die(BY_SEGV);
    return 0;
}

static cf_executor *dying_initializers(int deaths)
{
    return processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .initializer = die_at_first,
                                                  .initializer_data = &deaths,
                                                  .initializer_data_size = sizeof deaths,
                                                  .max_restarts = 4));
}

static void test_initializers_that_crash_twice(void **unused)
{
    (void)unused;
    cf_executor *pool = dying_initializers(2);
    assert_works(pool);
    end_pool(pool);
    assert_in_range(cell_now(INITIALIZED), 3, 4);
}

/* No endless forking: the budget ends it, and the cause is told. */
static void test_initializers_that_always_crash(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *pool = dying_initializers(INT_MAX);
    if (cf_submit(pool, do_nothing, NULL, 0, 0, &f) == CF_OK) {
        assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
        assert_int_not_equal(strlen(cf_future_exception(f)->message), 0);
        cf_future_unref(f);
    }
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, NULL), CF_BROKEN);
    end_pool(pool);
    assert_in_range(cell_now(INITIALIZED), 1, 4 + 2);
}

/* ---- shutdown ---- */

static void test_shutdown_finishes_what_is_pending(void **unused)
{
    (void)unused;
    const int ran = RAN;
    cf_executor *pool = processes_of(2);
    cf_future *running = busy(pool), *f[50];
    for (size_t i = 0; i < COUNT_OF(f); i++)
        f[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_MS(5)), CF_TIMEOUT);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, NULL), CF_SHUTDOWN);
    cell_set(OPENED, 1);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_true(cf_future_done(running));
    cf_future_unref(running);
    for (size_t i = 0; i < COUNT_OF(f); i++) {
        assert_true(cf_future_done(f[i]));
        assert_ends(f[i], CF_OK);
    }
    assert_int_equal(cell_now(RAN), COUNT_OF(f));
    assert_true(is_childless());
    cf_executor_free(pool);
}

static void test_shutdown_cancels_what_is_pending(void **unused)
{
    (void)unused;
    const int ran = RAN;
    cf_executor *pool = processes_of(1);
    cf_future *running = busy(pool), *f[50];
    for (size_t i = 0; i < COUNT_OF(f); i++)
        f[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, 0), CF_TIMEOUT);
    for (size_t i = 0; i < COUNT_OF(f); i++)
        assert_ends(f[i], CF_CANCELLED);
    cell_set(OPENED, 1);
    assert_ends(running, CF_OK);
    end_pool(pool);
    assert_int_equal(cell_now(RAN), 0);
}

/* Three tasks for two workers: two are stopped, one never begins. */
static void assert_stopping_shutdown(cf_fn *fn, int64_t timeout_ns)
{
    cf_executor *pool = processes_of(2);
    cf_future *f[3];
    int stopped = 0, cancelled = 0;
    clear_board();
    for (int i = 0; i < 3; i++)
        f[i] = submitted(pool, fn, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 2));
    cf_status status = cf_executor_shutdown(pool, CF_STOP_RUNNING, timeout_ns);
    assert_true(status == CF_OK || status == CF_TIMEOUT);
    for (int i = 0; i < 3; i++) {
        status = cf_future_result(f[i], LIMIT, NULL, 0);
        stopped += status == CF_STOPPED && cf_future_exception(f[i])->signal_number != 0;
        cancelled += status == CF_CANCELLED;
        cf_future_unref(f[i]);
    }
    assert_int_equal(stopped, 2);
    assert_int_equal(cancelled, 1);
    end_pool(pool);
    assert_int_equal(cell_now(CAME), 2);
}

static void test_shutdown_stops_what_runs(void **unused)
{
    (void)unused;
    assert_stopping_shutdown(spin, LIMIT);
    assert_stopping_shutdown(sleep_long, CF_MS(200));
    assert_stopping_shutdown(spin_deaf, CF_MS(100));
    assert_stopping_shutdown(stop_itself, CF_MS(100));
    assert_stopping_shutdown(spin_deaf, 0);
}

static void test_shutdown_asks_what_runs(void **unused)
{
    (void)unused;
    const int code = 5;
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, listen_and_return, &code, sizeof code, 0);
    assert_true(cell_reaches(CAME, 1));
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, LIMIT), CF_OK);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_STOPPED);
    cf_future_unref(f);
    cf_executor_free(pool);
}

static void test_shutdown_becomes_stricter(void **unused)
{
    (void)unused;
    const int ran = RAN;
    cf_executor *pool = processes_of(1);
    cf_future *running = submitted(pool, spin, NULL, 0, 0),
              *pending = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    assert_true(cell_reaches(CAME, 1));
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_MS(5)), CF_TIMEOUT);
    assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, CF_MS(5)), CF_TIMEOUT);
    assert_ends(pending, CF_CANCELLED);
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, LIMIT), CF_OK);
    assert_ends(running, CF_STOPPED);
    cf_executor_free(pool);
    assert_int_equal(cell_now(RAN), 0);
}

static void test_free_waits_for_what_is_pending(void **unused)
{
    (void)unused;
    const int ran = RAN;
    cf_executor *pool = processes_of(2);
    cf_future *f[100];
    for (size_t i = 0; i < COUNT_OF(f); i++)
        f[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    assert_null(cf_executor_free(pool));
    for (size_t i = 0; i < COUNT_OF(f); i++) {
        assert_true(cf_future_done(f[i]));
        assert_ends(f[i], CF_OK);
    }
    assert_int_equal(cell_now(RAN), COUNT_OF(f));
}

/* Several threads submit while one shuts down: what was accepted is done, what not is refused. */
struct rush {
    cf_executor *pool;
    struct start_line line;
    cf_shutdown_mode mode;
    atomic_int accepted, settled;
};

static void *rush_in(void *data)
{
    enum { EACH = 50 };
    struct rush *rush = data;
    cf_future *f[EACH];
    int accepted = 0;
    const int ran = RAN;
    line_up(&rush->line);
    for (; accepted < EACH; accepted++) {
        cf_status status = cf_submit(rush->pool, raise_cell, &ran, sizeof ran, 0, &f[accepted]);
        if (status != CF_OK) {
            CHECK(status == CF_SHUTDOWN);
            break;
        }
    }
    for (int i = 0; i < accepted; i++) {
        cf_status status = cf_future_result(f[i], LIMIT, NULL, 0);
        CHECK(status == CF_OK || (rush->mode != CF_FINISH_PENDING && status == CF_CANCELLED) ||
              (rush->mode == CF_STOP_RUNNING && status == CF_STOPPED));
        atomic_fetch_add(&rush->settled, status == CF_OK);
        cf_future_unref(f[i]);
    }
    return NULL;
}

static void test_shutdown_races_with_submits(void **unused)
{
    (void)unused;
    int64_t begun = cfi_now();
    int rounds = is_long_run() ? 10000 : 30;
    for (int i = 0; i < rounds && (is_long_run() || i < 9 || is_time_left(begun)); i++) {
        struct rush rush = { .line = { .parties = 5 }, .mode = (cf_shutdown_mode)(i % 3) };
        pthread_t threads[4];
        clear_board();
        rush.pool = processes_of(2);
        if (i % 2)
            assert_works(rush.pool);
        for (int j = 0; j < 4; j++)
            threads[j] = start_thread(rush_in, &rush);
        line_up(&rush.line);
        for (volatile int wait = (i * 9973) % 100000; wait > 0; wait--)
            ;
        assert_int_equal(cf_executor_shutdown(rush.pool, rush.mode, LIMIT), CF_OK);
        for (int j = 0; j < 4; j++)
            join_thread(threads[j]);
        cf_executor_free(rush.pool);
        assert_checks();
        if (rush.mode != CF_STOP_RUNNING)
            assert_int_equal(cell_now(RAN), atomic_load(&rush.settled));
    }
}

int main(void)
{
    begin_process_tests();
    const struct CMUnitTest tests[] = {
        TALLIED(test_stop_asks_first),
        TALLIED(test_stop_terminates),
        TALLIED(test_stop_terminates_who_sleeps),
        TALLIED(test_stop_kills_who_does_not_hear),
        TALLIED(test_stop_kills_who_is_stopped),
        TALLIED(test_a_later_stop_is_stricter),
        TALLIED(test_stop_of_what_has_not_begun_cancels),
        TALLIED(test_stop_never_hits_the_next_task),
        TALLIED(test_run_limits),
        TALLIED(test_run_limits_begin_with_the_task),
        TALLIED(test_retries),
        TALLIED(test_retried_tasks_can_be_cancelled_and_stopped),
        TALLIED(test_a_crash_may_break_the_pool),
        TALLIED(test_too_many_deaths_break_the_pool),
        TALLIED(test_deaths_are_forgotten),
        TALLIED(test_initializers_that_crash_twice),
        TALLIED(test_initializers_that_always_crash),
        TALLIED(test_shutdown_finishes_what_is_pending),
        TALLIED(test_shutdown_cancels_what_is_pending),
        TALLIED(test_shutdown_stops_what_runs),
        TALLIED(test_shutdown_asks_what_runs),
        TALLIED(test_shutdown_becomes_stricter),
        TALLIED(test_free_waits_for_what_is_pending),
        TALLIED(test_shutdown_races_with_submits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
