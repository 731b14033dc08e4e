/* SPDX-License-Identifier: MIT */
/* The process pool in a program that never calls cf_worker_main: workers are forks of this process
 * then, which is refused where threads would make it dangerous. */
#define _GNU_SOURCE
#include "process_support.h"

static int set_in_main;

static int tell_what_is_set(const void *arg, void *result)
{
    (void)arg;
    *(int *)result = set_in_main;
    return 0;
}

static int see(cf_executor *pool)
{
    int seen = -1;
    cf_future *f = submitted(pool, tell_what_is_set, NULL, 0, sizeof seen);
    assert_int_equal(CF_RESULT(f, LIMIT, &seen), CF_OK);
    cf_future_unref(f);
    return seen;
}

static void test_workers_are_forks(void **unused)
{
    (void)unused;
    static const cf_start_method methods[] = { CF_START_DEFAULT, CF_START_FORK_SERVER,
                                               CF_START_FORK };
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        set_in_main = (int)i + 5;
        cf_executor *pool =
            processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .start_method = methods[i]));
        assert_int_equal(see(pool), set_in_main);
        assert_ends(submit_way(pool, BY_SEGV), CF_BROKEN);
        assert_int_equal(see(pool), set_in_main);
        assert_works(pool);
        end_pool(pool);
    }
}

static void assert_refused(cf_start_method method, const char *named)
{
    cf_executor *pool = NULL;
    assert_int_equal(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.start_method = method), &pool),
                     CF_INVALID);
    assert_null(pool);
    if (!strstr(cf_last_error()->message, named))
        fail_msg("\"%s\" is not in \"%s\"", named, cf_last_error()->message);
}

static void test_spawn_is_refused(void **unused)
{
    (void)unused;
    assert_refused(CF_START_SPAWN, "cf_worker_main");
}

static void *wait_for_event(void *data)
{
    event_wait(data);
    return NULL;
}

static void test_threads_are_in_the_way(void **unused)
{
    (void)unused;
    struct event over = EVENT_INIT;
    pthread_t thread = start_thread(wait_for_event, &over);
    assert_refused(CF_START_DEFAULT, "thread");
    assert_refused(CF_START_FORK_SERVER, "cf_worker_main");
    assert_refused(CF_START_SPAWN, "cf_worker_main");
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .start_method = CF_START_FORK));
    assert_works(pool);
    end_pool(pool);
    event_set(&over);
    join_thread(thread);
    pool = processes_of(1); /* now there is none */
    assert_works(pool);
    end_pool(pool);
}

/* One pool's own threads are not in the next one's way, or the next one is refused by name. */
static void test_a_second_pool(void **unused)
{
    (void)unused;
    cf_executor *first = processes_of(1), *second = NULL;
    assert_works(first);
    cf_status status = cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 1), &second);
    assert_true(status == CF_OK || status == CF_INVALID);
    if (second) {
        assert_works(second);
        end_pool(second);
    }
    assert_works(first);
    end_pool(first);
}

/* Replacements come from the same fork server, whatever this process has become meanwhile. */
static void test_replacements_beside_threads(void **unused)
{
    (void)unused;
    struct event over = EVENT_INIT;
    set_in_main = 1;
    cf_executor *pool = processes_of(1);
    assert_int_equal(see(pool), 1);
    pthread_t thread = start_thread(wait_for_event, &over);
    set_in_main = 2;
    for (int i = 0; i < 5; i++) {
        assert_ends(submit_way(pool, BY_KILL), CF_BROKEN);
        assert_int_equal(see(pool), 1);
    }
    event_set(&over);
    join_thread(thread);
    end_pool(pool);
}

static int map_squares(const void *arg, void *result)
{
    int args[30], results[30];
    cf_executor *pool = NULL;
    (void)arg;
    for (int i = 0; i < 30; i++)
        args[i] = i;
    cf_status status = cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 2), &pool);
    if (status != CF_OK)
        return cf_raise(status, "%s", cf_last_error()->message);
    status = CF_MAP(pool, twice, args, 30, results, LIMIT);
    *(int *)result = results[29];
    cf_executor_free(pool);
    return (int)status;
}

/* In a worker there is a thread of the library's own; it knows that. */
static void test_a_pool_in_a_worker(void **unused)
{
    (void)unused;
    int last = 0;
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, map_squares, NULL, 0, sizeof last);
    cf_status status = CF_RESULT(f, LIMIT, &last);
    assert_true(status == CF_OK || status == CF_FAILED);
    if (status == CF_OK)
        assert_int_equal(last, 58);
    else
        assert_int_equal(cf_future_exception(f)->code, CF_INVALID);
    cf_future_unref(f);
    assert_works(pool);
    end_pool(pool);
}

int main(void)
{
    open_board();
    leave_no_cores();
    const struct CMUnitTest tests[] = {
        TALLIED(test_workers_are_forks),           TALLIED(test_spawn_is_refused),
        TALLIED(test_threads_are_in_the_way),      TALLIED(test_a_second_pool),
        TALLIED(test_replacements_beside_threads), TALLIED(test_a_pool_in_a_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
