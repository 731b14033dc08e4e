/* SPDX-License-Identifier: MIT */
/* The process pool in ordinary use: its options one by one, what workers see, callbacks, cancelling,
 * and the life of a worker that nothing happens to. */
#define _GNU_SOURCE
#include "process_support.h"

/* ---- options ---- */

static int succeed(void *data)
{
    (void)data;
    return 0;
}

static int not_code = 5;

struct bad {
    const char *named;
    cf_process_pool_options options;
};

#define BAD(named, ...)                                                                            \
    {                                                                                              \
        named,                                                                                     \
        {                                                                                          \
            .size = sizeof(cf_process_pool_options), __VA_ARGS__                                   \
        }                                                                                          \
    }

static void test_options_are_checked(void **unused)
{
    (void)unused;
    static const cf_host empty_host = { .size = 0 };
    const struct bad bad[] = {
        { "size", { .size = 8 } },
        BAD("max_workers", .max_workers = 4097),
        BAD("when_full", .when_full = CF_WHEN_FULL_RUN_IN_CALLER, .max_pending = 1),
        BAD("when_full", .when_full = (cf_when_full)7, .max_pending = 1),
        BAD("when_full_limit_ns", .when_full_limit_ns = -1, .max_pending = 1),
        BAD("max_pending", .max_pending = SIZE_MAX),
        BAD("initializer_data", .initializer = succeed, .initializer_data_size = 4),
        BAD("initializer", .initializer = (int (*)(void *))(uintptr_t)&not_code),
        BAD("finalizer", .finalizer = (void (*)(void *))(uintptr_t)&not_code),
        BAD("start_method", .start_method = (cf_start_method)9),
        BAD("on_crash", .on_crash = (cf_on_crash)2),
        BAD("restart_window_ns", .restart_window_ns = -1),
        BAD("size", .host = &empty_host),
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cf_executor *pool = NULL;
        cf_status status = cf_process_pool_new(&bad[i].options, &pool);
        if (status != CF_INVALID || !strstr(cf_last_error()->message, bad[i].named))
            fail_msg("%zu: %s: %s, \"%s\"", i, bad[i].named, cf_status_name(status),
                     cf_last_error()->message);
        assert_null(pool);
    }
    assert_int_equal(cf_process_pool_new(NULL, NULL), CF_INVALID);
}

static void test_options_that_a_later_library_knows(void **unused)
{
    (void)unused;
    struct {
        cf_process_pool_options options;
        unsigned char later[16];
    } longer = { .options = { .max_workers = 1 } };
    cf_executor *pool = NULL;
    longer.options.size = sizeof longer;
    assert_int_equal(cf_process_pool_new(&longer.options, &pool), CF_OK);
    assert_works(pool);
    end_pool(pool);
    longer.later[5] = 1;
    pool = NULL;
    assert_int_equal(cf_process_pool_new(&longer.options, &pool), CF_INVALID);
    assert_null(pool);
}

static void test_no_options_at_all(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_with(NULL);
    assert_works(pool);
    end_pool(pool);
}

/* ---- workers, initializers, finalizers ---- */

static int count_initialized(void *data)
{
    (void)data;
    cell_raise(INITIALIZED);
    return 0;
}

static void count_finalized(void *data)
{
    (void)data;
    cell_raise(FINALIZED);
}

static cf_executor *counted_processes(unsigned max_workers)
{
    return processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = max_workers,
                                                  .initializer = count_initialized,
                                                  .finalizer = count_finalized));
}

static void test_workers_start_when_they_are_needed(void **unused)
{
    (void)unused;
    enum { WORKERS = 3 };
    cf_future *f[WORKERS + 2];
    cf_executor *pool = counted_processes(WORKERS);
    for (int i = 0; i < 20; i++)
        assert_works(pool);
    assert_int_equal(cell_now(INITIALIZED), 1);
    for (int i = 0; i < WORKERS; i++)
        f[i] = busy(pool);
    assert_int_equal(cell_now(INITIALIZED), WORKERS);
    for (int i = WORKERS; i < WORKERS + 2; i++)
        f[i] = submitted(pool, wait_for_opening, NULL, 0, 0);
    cell_set(OPENED, 1);
    for (int i = 0; i < WORKERS + 2; i++)
        assert_ends(f[i], CF_OK);
    end_pool(pool);
    assert_int_equal(cell_now(INITIALIZED), WORKERS);
    assert_int_equal(cell_now(FINALIZED), WORKERS);
}

static void test_a_pool_that_is_never_used(void **unused)
{
    (void)unused;
    cf_executor *pool = counted_processes(4);
    assert_null(cf_executor_free(pool));
    assert_int_equal(cell_now(INITIALIZED), 0);
    pool = counted_processes(4);
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, LIMIT), CF_OK);
    cf_executor_free(pool);
}

struct config {
    char text[100];
    int factor;
};
static struct config worker_config;

static int take_config(void *data)
{
    worker_config = *(struct config *)data;
    ((struct config *)data)->factor = 1000; /* a copy of its own, and the finalizer's */
    return 0;
}

static void check_config(void *data)
{
    WORKER_CHECK(((struct config *)data)->factor == 1000);
    WORKER_CHECK(worker_config.factor == 7);
    cell_raise(FINALIZED);
}

static int by_config(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg * worker_config.factor;
    return strcmp(worker_config.text, "configured") == 0 ? 0 : 1;
}

static void test_initializers_get_their_bytes(void **unused)
{
    (void)unused;
    struct config config = { "configured", 7 };
    int value = 6, result = 0;
    cf_executor *pool = processes_with(
        CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .initializer = take_config,
                                .finalizer = check_config, .initializer_data = &config,
                                .initializer_data_size = sizeof config));
    config.factor = 0;
    cf_future *f = submitted(pool, by_config, &value, sizeof value, sizeof result);
    assert_int_equal(CF_RESULT(f, LIMIT, &result), CF_OK);
    assert_int_equal(result, 42);
    cf_future_unref(f);
    end_pool(pool);
    assert_int_equal(cell_now(FINALIZED), 1);
    assert_int_equal(worker_config.factor, 0); /* this process has its own */
}

enum { MANY_BYTES = 3 << 20 };

static int sum_many(void *data)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < MANY_BYTES; i++) {
        if (bytes[i] != (unsigned char)(i * 31))
            return cf_raise(1, "byte %zu", i);
    }
    return 0;
}

static void test_initializers_get_many_bytes(void **unused)
{
    (void)unused;
    unsigned char *bytes = malloc(MANY_BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < MANY_BYTES; i++)
        bytes[i] = (unsigned char)(i * 31);
    cf_executor *pool = processes_with(
        CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .initializer = sum_many,
                                .initializer_data = bytes, .initializer_data_size = MANY_BYTES));
    free(bytes);
    assert_works(pool);
    end_pool(pool);
}

static int refuse_to_begin(void *data)
{
    (void)data;
    cell_raise(INITIALIZED);
    return cf_raise(12, "no licence for %s", "this machine");
}

static void test_initializers_that_fail_break_the_pool(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .initializer = refuse_to_begin,
                                               .finalizer = count_finalized));
    cf_status status = cf_submit(pool, do_nothing, NULL, 0, 0, &f);
    if (status == CF_OK) {
        assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
        assert_non_null(strstr(cf_future_exception(f)->message, "no licence for this machine"));
        cf_future_unref(f);
    }
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, NULL), CF_BROKEN);
    assert_non_null(strstr(cf_last_error()->message, "no licence for this machine"));
    end_pool(pool);
    assert_in_range(cell_now(INITIALIZED), 1, 2);
    assert_int_equal(cell_now(FINALIZED), 0);
}

static int tell_name(const void *arg, void *result)
{
    (void)arg;
    return prctl(PR_GET_NAME, result);
}

static void test_processes_have_names(void **unused)
{
    (void)unused;
    char name[16] = "";
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .name = "a_very_long_name"));
    cf_future *f = submitted(pool, tell_name, NULL, 0, sizeof name);
    assert_int_equal(CF_RESULT(f, LIMIT, &name), CF_OK);
    assert_int_equal(strncmp(name, "a_very_long", 11), 0);
    cf_future_unref(f);
    end_pool(pool);
}

static void test_workers_are_replaced_after_so_many_tasks(void **unused)
{
    (void)unused;
    enum { TASKS = 100, EACH = 7 };
    int pids[TASKS];
    cf_future *f[TASKS];
    cf_executor *pool = processes_with(
        CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_tasks_per_child = EACH,
                                .initializer = count_initialized, .finalizer = count_finalized));
    for (int i = 0; i < TASKS; i++)
        f[i] = submitted(pool, tell_pid, NULL, 0, sizeof *pids);
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(CF_RESULT(f[i], LIMIT, &pids[i]), CF_OK);
        cf_future_unref(f[i]);
    }
    for (int i = 0; i < TASKS; i++) {
        int same = 0;
        for (int j = 0; j < TASKS; j++)
            same += pids[j] == pids[i];
        assert_in_range(same, 1, EACH);
    }
    end_pool(pool);
    assert_true(cell_now(INITIALIZED) >= (TASKS + EACH - 1) / EACH);
    assert_int_equal(cell_now(FINALIZED), cell_now(INITIALIZED));
}

/* ---- order, bounds, priorities ---- */

static int tell_turn(const void *arg, void *result)
{
    (void)arg;
    *(int *)result = cell_raise(RAN);
    return 0;
}

static void test_tasks_begin_in_order(void **unused)
{
    (void)unused;
    enum { TASKS = 3000 };
    static cf_future *f[TASKS];
    cf_executor *pool = processes_of(1);
    for (int i = 0; i < TASKS; i++)
        f[i] = submitted(pool, tell_turn, NULL, 0, sizeof(int));
    for (int i = 0; i < TASKS; i++) {
        int turn = -1;
        assert_int_equal(CF_RESULT(f[i], LIMIT, &turn), CF_OK);
        assert_int_equal(turn, i);
        cf_future_unref(f[i]);
    }
    end_pool(pool);
}

static void test_higher_priorities_run_first(void **unused)
{
    (void)unused;
    static const int64_t priorities[] = { 0, -3, 7, 7, INT64_MAX, 0, INT64_MIN };
    static const int turns[] = { 3, 5, 1, 2, 0, 4, 6 };
    cf_future *f[COUNT_OF(turns)];
    cf_executor *pool = processes_of(1);
    cf_future *first = busy(pool);
    for (size_t i = 0; i < COUNT_OF(turns); i++)
        assert_int_equal(cf_submit_task(pool,
                                        CF_TASK(.fn = tell_turn, .result_size = sizeof(int),
                                                .priority = priorities[i]),
                                        &f[i]),
                         CF_OK);
    cell_set(OPENED, 1);
    for (size_t i = 0; i < COUNT_OF(turns); i++) {
        int turn = -1;
        assert_int_equal(CF_RESULT(f[i], LIMIT, &turn), CF_OK);
        assert_int_equal(turn, turns[i]);
        cf_future_unref(f[i]);
    }
    assert_ends(first, CF_OK);
    end_pool(pool);
}

static void test_bounded_pools_refuse(void **unused)
{
    (void)unused;
    cf_future *f[2], *none = NULL;
    cf_executor *pool = processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_pending = 2,
                                                               .when_full = CF_WHEN_FULL_REJECT));
    cf_future *running = busy(pool);
    for (int i = 0; i < 2; i++)
        f[i] = submitted(pool, tell_turn, NULL, 0, sizeof(int));
    assert_int_equal(cf_submit(pool, tell_turn, NULL, 0, sizeof(int), &none), CF_FULL);
    assert_null(none);
    assert_true(cf_future_cancel(f[0])); /* its place is free at once */
    cf_future_unref(f[0]);
    f[0] = submitted(pool, tell_turn, NULL, 0, sizeof(int));
    assert_int_equal(cf_submit(pool, tell_turn, NULL, 0, sizeof(int), &none), CF_FULL);
    cell_set(OPENED, 1);
    assert_ends(f[0], CF_OK);
    assert_ends(f[1], CF_OK);
    assert_ends(running, CF_OK);
    assert_works(pool);
    end_pool(pool);
    assert_int_equal(cell_now(RAN), 2);
}

static void *open_soon(void *unused)
{
    usleep(20000);
    cell_set(OPENED, 1);
    return unused;
}

static void test_bounded_pools_wait(void **unused)
{
    (void)unused;
    cf_future *f = NULL, *none = NULL;
    cf_executor *pool = processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_pending = 1,
                                                               .when_full_limit_ns = CF_MS(20)));
    cf_future *running = busy(pool), *pending = submitted(pool, do_nothing, NULL, 0, 0);
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, &none), CF_FULL);
    assert_null(none);
    cell_set(OPENED, 1);
    assert_ends(running, CF_OK);
    assert_ends(pending, CF_OK);
    end_pool(pool);

    cell_set(OPENED, 0);
    pool = processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_pending = 1));
    running = busy(pool), pending = submitted(pool, do_nothing, NULL, 0, 0);
    pthread_t thread = start_thread(open_soon, NULL);
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, &f), CF_OK);
    join_thread(thread);
    assert_ends(running, CF_OK);
    assert_ends(pending, CF_OK);
    assert_ends(f, CF_OK);
    end_pool(pool);
}

/* ---- running, cancelling ---- */

static void test_states(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    cf_future *running = busy(pool), *pending = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(cf_future_running(running));
    assert_false(cf_future_done(running) || cf_future_cancel(running));
    assert_false(cf_future_running(pending) || cf_future_done(pending));
    assert_int_equal(cf_future_result(pending, CF_MS(1), NULL, 0), CF_TIMEOUT);
    assert_null(cf_future_exception(running));
    cell_set(OPENED, 1);
    assert_ends(pending, CF_OK);
    assert_ends(running, CF_OK);
    end_pool(pool);
}

/* Many of them lie with the worker already. */
static void test_cancelled_tasks_never_run(void **unused)
{
    (void)unused;
    enum { TASKS = 2000 };
    static cf_future *f[TASKS];
    const int ran = RAN;
    cf_executor *pool = processes_of(1);
    assert_works(pool);
    cf_future *running = busy(pool);
    for (int i = 0; i < TASKS; i++)
        f[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    for (int i = 0; i < TASKS; i++) {
        if (i % 10 != 0)
            assert_true(cf_future_cancel(f[i]));
    }
    cell_set(OPENED, 1);
    for (int i = 0; i < TASKS; i++)
        assert_ends(f[i], i % 10 == 0 ? CF_OK : CF_CANCELLED);
    assert_ends(running, CF_OK);
    assert_works(pool);
    assert_int_equal(cell_now(RAN), TASKS / 10);
    end_pool(pool);
}

static int mark_cell(const void *arg, void *result)
{
    (void)result;
    cell_raise(FREE_CELLS + *(const int *)arg);
    return 0;
}

/* Each was cancelled and never ran, or ran once. */
static void test_cancel_races_with_the_worker(void **unused)
{
    (void)unused;
    enum { TASKS = 1000 };
    static cf_future *f[TASKS];
    static bool cancelled[TASKS];
    cf_executor *pool = processes_of(2);
    int64_t begun = cfi_now();
    for (int round = 0; round < 3 || is_time_left(begun); round++) {
        clear_board();
        for (int i = 0; i < TASKS; i++) {
            f[i] = submitted(pool, mark_cell, &i, sizeof i, 0);
            int other = i - (round * 7) % 40;
            if (other >= 0 && i % 2 == 0)
                (void)cf_future_cancel(f[other]);
        }
        assert_int_equal(cf_wait(f, TASKS, CF_ALL_COMPLETED, LIMIT, NULL), CF_OK);
        for (int i = 0; i < TASKS; i++) {
            cancelled[i] = cf_future_cancelled(f[i]);
            assert_ends(f[i], cancelled[i] ? CF_CANCELLED : CF_OK);
        }
        assert_works(pool);
        for (int i = 0; i < TASKS; i++)
            assert_int_equal(cell_now(FREE_CELLS + i), cancelled[i] ? 0 : 1);
    }
    end_pool(pool);
}

/* ---- callbacks ---- */

struct called {
    cf_executor *pool;
    pthread_t here;
    struct level level;
    cf_status status;
};

static void note_thread(cf_future *f, void *data)
{
    struct called *called = data;
    CHECK(cf_future_done(f));
    CHECK(!pthread_equal(called->here, pthread_self()));
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    CHECK(sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGINT));
    level_raise(&called->level);
}

static void test_callbacks_run_on_a_thread_of_the_pool(void **unused)
{
    (void)unused;
    struct called called = { .here = pthread_self(), .level = LEVEL_INIT };
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, wait_for_opening, NULL, 0, 0);
    assert_int_equal(cf_future_add_done_callback(f, note_thread, &called), CF_OK);
    cell_set(OPENED, 1);
    assert_true(level_reaches(&called.level, 1)); /* while nobody waits for the future */
    cf_future_unref(f);
    end_pool(pool);
}

static void wait_for_another(cf_future *f, void *data)
{
    struct called *called = data;
    (void)f;
    int value = 4, result = 0;
    cf_future *other = NULL;
    CHECK(CF_SUBMIT(called->pool, twice, &value, int, &other) == CF_OK);
    CHECK(CF_RESULT(other, LIMIT, &result) == CF_OK && result == 8);
    cf_future_unref(other);
    level_raise(&called->level);
}

static void test_callbacks_may_wait(void **unused)
{
    (void)unused;
    struct called called = { .level = LEVEL_INIT, .pool = processes_of(1) };
    cf_future *f = submitted(called.pool, wait_for_opening, NULL, 0, 0);
    assert_int_equal(cf_future_add_done_callback(f, wait_for_another, &called), CF_OK);
    assert_int_equal(cf_future_add_done_callback(f, wait_for_another, &called), CF_OK);
    cell_set(OPENED, 1);
    assert_true(level_reaches(&called.level, 2));
    cf_future_unref(f);
    end_pool(called.pool);
}

static void shut_down_here(cf_future *f, void *data)
{
    struct called *called = data;
    (void)f;
    called->status = cf_executor_shutdown(called->pool, CF_FINISH_PENDING, CF_FOREVER);
    level_raise(&called->level);
}

static void test_shutdown_in_a_callback(void **unused)
{
    (void)unused;
    struct called called = { .level = LEVEL_INIT, .pool = processes_of(1) };
    cf_future *f = submitted(called.pool, wait_for_opening, NULL, 0, 0);
    assert_int_equal(cf_future_add_done_callback(f, shut_down_here, &called), CF_OK);
    cell_set(OPENED, 1);
    assert_true(level_reaches(&called.level, 1));
    assert_int_equal(called.status, CF_DEADLOCK);
    assert_int_equal(cf_submit(called.pool, do_nothing, NULL, 0, 0, NULL), CF_SHUTDOWN);
    cf_future_unref(f);
    end_pool(called.pool);
}

static void free_here(cf_future *f, void *data)
{
    struct called *called = data;
    (void)f;
    CHECK(cf_executor_free(called->pool) == NULL);
    level_raise(&called->level);
}

static void test_free_in_a_callback(void **unused)
{
    (void)unused;
    const int ran = RAN;
    struct called called = { .level = LEVEL_INIT, .pool = processes_of(2) };
    cf_future *f = submitted(called.pool, wait_for_opening, NULL, 0, 0), *g[20];
    assert_int_equal(cf_future_add_done_callback(f, free_here, &called), CF_OK);
    for (size_t i = 0; i < COUNT_OF(g); i++)
        g[i] = submitted(called.pool, raise_cell, &ran, sizeof ran, 0);
    cell_set(OPENED, 1);
    assert_true(level_reaches(&called.level, 1));
    for (size_t i = 0; i < COUNT_OF(g); i++)
        assert_ends(g[i], CF_OK);
    cf_future_unref(f);
    assert_checks();
    assert_int_equal(cell_now(RAN), COUNT_OF(g));
}

/* ---- what a worker is ---- */

static int counter;

static int count_here(const void *arg, void *result)
{
    (void)arg;
    *(int *)result = ++counter;
    return 0;
}

static void test_memory_of_workers_is_their_own(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    for (int i = 1; i <= 5; i++) {
        int here = 0;
        cf_future *f = submitted(pool, count_here, NULL, 0, sizeof here);
        assert_int_equal(CF_RESULT(f, LIMIT, &here), CF_OK);
        assert_int_equal(here, i);
        cf_future_unref(f);
    }
    assert_int_equal(counter, 0);
    end_pool(pool);
}

static int set_in_main, set_by_constructor;

__attribute__((__constructor__)) static void set_early(void)
{
    set_by_constructor = 1;
}

struct sight {
    int pid, set_in_main, set_by_constructor, sigint_ignored;
};

static int look_around(const void *arg, void *result)
{
    (void)arg;
    struct sigaction interrupt;
    sigaction(SIGINT, NULL, &interrupt);
    *(struct sight *)result = (struct sight){ .pid = (int)getpid(),
                                              .set_in_main = set_in_main,
                                              .set_by_constructor = set_by_constructor,
                                              .sigint_ignored = interrupt.sa_handler == SIG_IGN };
    return 0;
}

static struct sight seen_by(cf_start_method method)
{
    struct sight sight;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .start_method = method));
    cf_future *f = submitted(pool, look_around, NULL, 0, sizeof sight);
    assert_int_equal(CF_RESULT(f, LIMIT, &sight), CF_OK);
    cf_future_unref(f);
    end_pool(pool);
    assert_int_not_equal(sight.pid, getpid());
    assert_int_equal(sight.set_by_constructor, 1);
    assert_true(sight.sigint_ignored);
    return sight;
}

static void test_start_methods(void **unused)
{
    (void)unused;
    set_in_main = 1;
    assert_int_equal(seen_by(CF_START_DEFAULT).set_in_main, 0);
    assert_int_equal(seen_by(CF_START_FORK_SERVER).set_in_main, 0);
    assert_int_equal(seen_by(CF_START_SPAWN).set_in_main, 0);
    assert_int_equal(seen_by(CF_START_FORK).set_in_main, 1);
}

/* Only its own: nothing of the host's, and nothing of its siblings'. */
static int list_descriptors(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[300], target[256];
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        ssize_t length = readlink(path, target, sizeof target);
        if (length <= 0 || atoi(e->d_name) == dirfd(dir))
            continue;
        size_t before = result->size;
        if (cf_bytes_resize(result, before + (size_t)length + 1) != CF_OK)
            return 1;
        memcpy((char *)result->data + before, target, (size_t)length);
        ((char *)result->data)[before + (size_t)length] = '\n';
    }
    if (dir)
        closedir(dir);
    return cf_bytes_resize(result, result->size + 1) == CF_OK
               ? ((char *)result->data)[result->size - 1] = 0
               : 1;
}

static void test_workers_inherit_no_descriptors(void **unused)
{
    (void)unused;
    static const cf_start_method methods[] = { CF_START_FORK_SERVER, CF_START_FORK,
                                               CF_START_SPAWN };
    int leaky = open("/etc/passwd", O_RDONLY); /* not CLOEXEC */
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        const void *list = NULL;
        cf_future *f[3], *last = NULL;
        cf_executor *pool =
            processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 3, .start_method = methods[i]));
        cell_set(OPENED, 0);
        for (int j = 0; j < 3; j++)
            f[j] = busy(pool);
        cell_set(OPENED, 1);
        for (int j = 0; j < 3; j++)
            assert_ends(f[j], CF_OK);
        assert_int_equal(cf_submit_bytes(pool, list_descriptors, NULL, 0, &last), CF_OK);
        assert_int_equal(cf_future_peek(last, LIMIT, &list, NULL), CF_OK);
        if (strstr(list, "/etc/passwd"))
            fail_msg("method %d: %s", (int)methods[i], (const char *)list);
        int sockets = 0;
        for (const char *at = list; (at = strstr(at, "socket:")); at++)
            sockets++;
        if (sockets > 2)
            fail_msg("method %d: %d sockets: %s", (int)methods[i], sockets, (const char *)list);
        cf_future_unref(last);
        end_pool(pool);
    }
    close(leaky);
}

static int use_pools_here(const void *arg, void *result)
{
    int args[50], results[50];
    cf_executor *threads = NULL, *processes = NULL;
    (void)arg;
    *(int *)result = 0;
    for (int i = 0; i < 50; i++)
        args[i] = i;
    if (cf_thread_pool_new(NULL, &threads) != CF_OK ||
        CF_MAP(threads, twice, args, 50, results, LIMIT) != CF_OK)
        return cf_raise(1, "threads: %s", cf_last_error()->message);
    for (int i = 0; i < 50; i++)
        *(int *)result += results[i];
    cf_executor_free(threads);
    if (cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 2), &processes) != CF_OK ||
        CF_MAP(processes, twice, args, 50, results, LIMIT) != CF_OK)
        return cf_raise(2, "processes: %s", cf_last_error()->message);
    for (int i = 0; i < 50; i++)
        *(int *)result += results[i];
    cf_executor_free(processes);
    return 0;
}

static void test_pools_in_a_worker(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    for (int i = 0; i < 3; i++) {
        int sum = 0;
        cf_future *f = submitted(pool, use_pools_here, NULL, 0, sizeof sum);
        cf_status status = CF_RESULT(f, LIMIT, &sum);
        if (status != CF_OK)
            fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
        assert_int_equal(sum, 2 * 2450);
        cf_future_unref(f);
    }
    end_pool(pool);
}

/* ---- many pools ---- */

static void test_pools_beside_each_other(void **unused)
{
    (void)unused;
    enum { POOLS = 5 };
    cf_executor *pools[POOLS];
    for (int i = 0; i < POOLS; i++)
        pools[i] = processes_of(2);
    for (int i = 0; i < POOLS; i++)
        assert_works(pools[i]);
    for (int i = 0; i < POOLS; i++)
        end_pool(pools[(i + 2) % POOLS]);
}

static void test_pools_one_after_the_other(void **unused)
{
    (void)unused;
    int count = is_long_run() ? 1000 : 60;
    for (int i = 0; i < count; i++) {
        cf_executor *pool = processes_of(1 + (unsigned)i % 3);
        for (int j = 0; j < i % 4; j++)
            assert_works(pool);
        end_pool(pool);
    }
}

int main(void)
{
    begin_process_tests();
    const struct CMUnitTest tests[] = {
        TALLIED(test_options_are_checked),
        TALLIED(test_options_that_a_later_library_knows),
        TALLIED(test_no_options_at_all),
        TALLIED(test_workers_start_when_they_are_needed),
        TALLIED(test_a_pool_that_is_never_used),
        TALLIED(test_initializers_get_their_bytes),
        TALLIED(test_initializers_get_many_bytes),
        TALLIED(test_initializers_that_fail_break_the_pool),
        TALLIED(test_processes_have_names),
        TALLIED(test_workers_are_replaced_after_so_many_tasks),
        TALLIED(test_tasks_begin_in_order),
        TALLIED(test_higher_priorities_run_first),
        TALLIED(test_bounded_pools_refuse),
        TALLIED(test_bounded_pools_wait),
        TALLIED(test_states),
        TALLIED(test_cancelled_tasks_never_run),
        TALLIED(test_cancel_races_with_the_worker),
        TALLIED(test_callbacks_run_on_a_thread_of_the_pool),
        TALLIED(test_callbacks_may_wait),
        TALLIED(test_shutdown_in_a_callback),
        TALLIED(test_free_in_a_callback),
        TALLIED(test_memory_of_workers_is_their_own),
        TALLIED(test_start_methods),
        TALLIED(test_workers_inherit_no_descriptors),
        TALLIED(test_pools_in_a_worker),
        TALLIED(test_pools_beside_each_other),
        TALLIED(test_pools_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
