/* SPDX-License-Identifier: MIT */
/* The thread pool's behaviour: its workers, their initializers and stacks, bounds, priorities.
 * How it ends is in pool_end_test.c. */
#define _GNU_SOURCE
#include "pool_support.h"

#include <limits.h>

#include "threads/pool.h"

/* ---- options ---- */

static void assert_refused(const cf_thread_pool_options *options, const char *what)
{
    cf_executor *pool = NULL;
    assert_int_equal(cf_thread_pool_new(options, &pool), CF_INVALID);
    assert_null(pool);
    assert_int_equal(cf_last_error()->status, CF_INVALID);
    if (!strstr(cf_last_error()->message, what))
        fail_msg("\"%s\" does not name %s", cf_last_error()->message, what);
}

static void test_options_are_checked(void **state)
{
    (void)state;
    struct {
        cf_thread_pool_options known;
        char later[16];
    } longer = { .known = { .size = sizeof longer } };
    const cf_host host = { .size = 1 };
    assert_refused(CF_THREAD_POOL_OPTIONS(.max_workers = 65535), "max_workers");
    assert_refused(CF_THREAD_POOL_OPTIONS(.when_full = (cf_when_full)3), "when_full");
    assert_refused(CF_THREAD_POOL_OPTIONS(.when_full_limit_ns = -1), "when_full_limit_ns");
    assert_refused(CF_THREAD_POOL_OPTIONS(.host = &host), "cf_host");
    assert_refused(&(cf_thread_pool_options){ .max_workers = 1 }, "size");
    longer.later[3] = 1;
    assert_refused(&longer.known, "cf_thread_pool_options");
    longer.later[3] = 0;
    end_pool(pool_with(&longer.known));
    assert_int_equal(cf_thread_pool_new(NULL, NULL), CF_INVALID);
    end_pool(pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 65534)));
}

/* ---- workers ---- */

static void wait_until_one_sleeps(cf_executor *executor)
{
    struct cfi_pool *pool = executor->self;
    WAIT_UNTIL(cfi_idle_top(cfi_load_acquire(&pool->idle.word)) != 0);
}

static void test_threads_start_when_none_is_idle(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 3, .name = "lazy"));
    assert_threads("lazy_", 0);
    for (int i = 0; i < 50; i++) {
        assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
        wait_until_one_sleeps(pool);
        assert_threads("lazy_", 1);
    }
    cf_future *busy[5];
    for (unsigned i = 0; i < 3; i++) {
        busy[i] = occupied(pool, &gate);
        assert_threads("lazy_", 1 + i);
    }
    for (int i = 3; i < 5; i++)
        busy[i] = submitted_with(pool, wait_before_gate, &gate);
    assert_threads("lazy_", 3);
    gate_open(&gate);
    for (int i = 0; i < 5; i++)
        assert_ends(busy[i], CF_OK);
    end_pool(pool);
    assert_threads("lazy_", 0);
}

static void test_the_default_number_of_workers(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    unsigned wanted = cf_cpu_count() + 4 < 32 ? cf_cpu_count() + 4 : 32;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.name = "many"));
    for (unsigned i = 0; i < wanted; i++)
        cf_future_unref(occupied(pool, &gate));
    cf_future *more = submitted(pool, do_nothing, NULL, 0, 0);
    assert_threads("many_", wanted);
    assert_int_equal(cf_future_result(more, CF_MS(10), NULL, 0), CF_TIMEOUT);
    gate_open(&gate);
    assert_ends(more, CF_OK);
    end_pool(pool);
}

/* Each pool has workers of its own. */
static void test_eight_pools_at_once(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    cf_executor *pools[8];
    cf_future *busy[8];
    for (int i = 0; i < 8; i++) {
        pools[i] = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .name = "eight"));
        busy[i] = occupied(pools[i], &gate);
    }
    assert_threads("eight_0", 8);
    gate_open(&gate);
    for (int i = 0; i < 8; i++) {
        assert_ends(busy[i], CF_OK);
        end_pool(pools[i]);
    }
    assert_threads("eight_0", 0);
}

struct name {
    char text[32];
};

static struct gate name_gate = GATE_INIT;

static int get_name(const void *arg, void *result)
{
    (void)arg;
    struct name *name = result;
    CHECK(pthread_getname_np(pthread_self(), name->text, sizeof name->text) == 0);
    const struct gate *gate = &name_gate;
    return wait_before_gate(&gate, NULL);
}

/* The worker that starts as number i is called so. */
static void assert_names(const char *prefix, const char *const *names, unsigned count)
{
    struct name name;
    cf_future *f[12];
    assert_in_range(count, 1, COUNT_OF(f));
    gate_close(&name_gate);
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = count, .name = prefix));
    for (unsigned i = 0; i < count; i++) {
        f[i] = submitted(pool, get_name, NULL, 0, sizeof name);
        assert_true(level_reaches(&name_gate.came, (int)i + 1));
    }
    gate_open(&name_gate);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(CF_RESULT(f[i], LIMIT, &name), CF_OK);
        assert_string_equal(name.text, names[i]);
        cf_future_unref(f[i]);
    }
    end_pool(pool);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const work[] = { "work_0", "work_1", "work_2" };
    static const char *const empty[] = { "_0" };
    static const char *const fits[] = { "thirteen_char_0", "thirteen_char_1" };
    static const char *const cut[] = {
        "a_much_too_lo_0", "a_much_too_lo_1", "a_much_too_lo_2", "a_much_too_lo_3",
        "a_much_too_lo_4", "a_much_too_lo_5", "a_much_too_lo_6", "a_much_too_lo_7",
        "a_much_too_lo_8", "a_much_too_lo_9", "a_much_too_l_10",
    };
    assert_names("work", work, COUNT_OF(work));
    assert_names("", empty, COUNT_OF(empty));
    assert_names("thirteen_char", fits, COUNT_OF(fits));
    assert_names("a_much_too_long_name", cut, COUNT_OF(cut));
}

/* ---- stacks ---- */

static int get_stack_size(const void *arg, void *result)
{
    (void)arg;
    pthread_attr_t attr;
    CHECK(pthread_getattr_np(pthread_self(), &attr) == 0);
    CHECK(pthread_attr_getstacksize(&attr, result) == 0);
    pthread_attr_destroy(&attr);
    return 0;
}

static size_t stack_of_worker(size_t option)
{
    size_t size = 0;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .stack_size = option));
    cf_future *f = submitted(pool, get_stack_size, NULL, 0, sizeof size);
    assert_int_equal(CF_RESULT(f, LIMIT, &size), CF_OK);
    cf_future_unref(f);
    end_pool(pool);
    return size;
}

static void test_stack_sizes(void **state)
{
    (void)state;
    const size_t mib = 1 << 20;
    assert_in_range(stack_of_worker(0), 8 * mib, 9 * mib);
    assert_in_range(stack_of_worker(64 * mib), 64 * mib, 65 * mib);
    assert_in_range(stack_of_worker(mib / 2 + 1), mib / 2 + 1, mib);
    assert_in_range(stack_of_worker(1), PTHREAD_STACK_MIN, mib); /* what the system demands */
}

enum { FRAME = 16 * 1024 };

static int recurse(int depth)
{
    volatile char frame[FRAME];
    memset((char *)(uintptr_t)frame, depth, sizeof frame);
    return depth == 0 ? 0 : recurse(depth - 1) + (frame[FRAME / 2] != (char)depth);
}

static int recurse_deep(const void *arg, void *result)
{
    (void)result;
    return recurse(*(const int *)arg);
}

static void test_a_deep_recursion(void **state)
{
    (void)state;
    const int six_mib = 6 * 1024 * 1024 / FRAME;
    cf_executor *pool = pool_of(1);
    assert_ends(submitted(pool, recurse_deep, &six_mib, sizeof six_mib, 0), CF_OK);
    end_pool(pool);
}

/* ---- initializers and finalizers ---- */

static struct {
    atomic_int initialized, finalized;
    struct gate gate;
} life;

static _Thread_local int stage;

static int initialize(void *data)
{
    CHECK(data == &life && stage == 0);
    stage = 1;
    atomic_fetch_add(&life.initialized, 1);
    return 0;
}

static void finalize(void *data)
{
    CHECK(data == &life && stage == 1);
    stage = 2;
    atomic_fetch_add(&life.finalized, 1);
}

static int check_stage(const void *arg, void *result)
{
    CHECK(stage == 1);
    return wait_before_gate(arg, result);
}

static void test_each_worker_is_initialized_and_finalized_once(void **state)
{
    (void)state;
    const struct gate *gate = &life.gate;
    gate_close(&life.gate);
    cf_executor *pool =
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 4, .initializer = initialize,
                                         .finalizer = finalize, .initializer_data = &life));
    assert_int_equal(atomic_load(&life.initialized), 0);
    for (int i = 0; i < 3; i++) {
        cf_future_unref(submitted(pool, check_stage, &gate, sizeof gate, 0));
        assert_true(level_reaches(&life.gate.came, i + 1));
    }
    assert_int_equal(atomic_load(&life.initialized), 3);
    gate_open(&life.gate);
    for (int i = 0; i < 100; i++)
        cf_future_unref(submitted(pool, check_stage, &gate, sizeof gate, 0));
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_in_range(atomic_load(&life.initialized), 3, 4);
    assert_int_equal(atomic_load(&life.finalized), atomic_load(&life.initialized));
    end_pool(pool);
}

static int wait_before_gate_once(void *gate)
{
    return wait_before_gate(&gate, NULL);
}

/* One task brings one worker, however long its initializer takes. */
static void test_a_slow_initializer_starts_no_second(void **state)
{
    (void)state;
    static struct gate initializer = GATE_INIT;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 4, .name = "slow",
                                                         .initializer = wait_before_gate_once,
                                                         .initializer_data = &initializer));
    cf_future *f = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(level_reaches(&initializer.came, 1));
    assert_threads("slow_", 1);
    gate_open(&initializer);
    assert_ends(f, CF_OK);
    wait_until_one_sleeps(pool);
    assert_threads("slow_", 1);
    end_pool(pool);
}

static void never_finalize(void *data)
{
    (void)data;
    check_failed("a worker that was not initialized is not finalized");
}

static int fail_after_gate(void *data)
{
    (void)wait_before_gate(&data, NULL);
    return cf_raise(7, "no %s for a worker", "database");
}

static void assert_broken(const cf_error *error, const char *message, int code)
{
    assert_int_equal(error->status, CF_BROKEN);
    assert_string_equal(error->message, message);
    assert_int_equal(error->code, code);
}

static void test_a_failing_initializer_breaks_the_pool(void **state)
{
    (void)state;
    static const char message[] = "no database for a worker";
    static struct gate gate = GATE_INIT;
    gate_close(&gate);
    cf_executor *pool =
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .initializer = fail_after_gate,
                                         .finalizer = never_finalize, .initializer_data = &gate));
    cf_future *f[300], *none = NULL;
    for (size_t i = 0; i < COUNT_OF(f); i++)
        f[i] = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(cf_future_cancel(f[1]));
    gate_open(&gate);
    for (size_t i = 0; i < COUNT_OF(f); i++) {
        cf_status wanted = i == 1 ? CF_CANCELLED : CF_BROKEN;
        assert_int_equal(cf_future_result(f[i], LIMIT, NULL, 0), wanted);
        if (i != 1)
            assert_broken(cf_future_exception(f[i]), message, 7);
    }
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, &none), CF_BROKEN);
    assert_null(none);
    assert_broken(cf_last_error(), message, 7);
    assert_int_equal(cf_executor_shutdown(pool, CF_CANCEL_PENDING, LIMIT), CF_OK);
    assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, &none), CF_BROKEN);
    end_pool(pool);
    assert_broken(cf_future_exception(f[0]), message, 7); /* it has its own copy */
    cf_future_unref_all(f, COUNT_OF(f));
}

static struct gate second_initializer = GATE_INIT;

static int fail_on_second(void *data)
{
    const struct gate *before = &second_initializer;
    if (atomic_fetch_add((atomic_int *)data, 1) == 0)
        return 0;
    return wait_before_gate(&before, NULL) == 0 ? 1 : 2;
}

/* What runs on the others is not disturbed. */
static void test_a_second_initializer_fails(void **state)
{
    (void)state;
    static atomic_int workers;
    static struct gate gate = GATE_INIT;
    cf_executor *pool =
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .initializer = fail_on_second,
                                         .initializer_data = &workers));
    cf_future *running = occupied(pool, &gate);
    cf_future *queued = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(level_reaches(&second_initializer.came, 1));
    gate_open(&second_initializer);
    assert_int_equal(cf_future_result(queued, LIMIT, NULL, 0), CF_BROKEN);
    assert_true(strlen(cf_future_exception(queued)->message) > 0);
    assert_int_equal(cf_future_exception(queued)->code, 1);
    cf_future_unref(queued);
    assert_true(cf_future_running(running));
    gate_open(&gate);
    assert_ends(running, CF_OK);
    end_pool(pool);
}

static int wait_on_second(void *data)
{
    struct gate *gate = data;
    level_raise(&gate->came);
    return level_now(&gate->came) == 2 ? wait_before_gate(&data, NULL) : 0;
}

/* While one worker is still being initialized, an idle one takes what comes. */
static void test_a_slow_initializer_holds_up_nobody_else(void **state)
{
    (void)state;
    static struct gate initializer = GATE_INIT, gate = GATE_INIT;
    cf_executor *pool =
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .initializer = wait_on_second,
                                         .initializer_data = &initializer));
    cf_future *busy = occupied(pool, &gate);
    cf_future *second = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(level_reaches(&initializer.came, 3));
    gate_open(&gate);
    assert_ends(busy, CF_OK);
    assert_ends(second, CF_OK);
    wait_until_one_sleeps(pool);
    cf_future *f = submitted(pool, do_nothing, NULL, 0, 0);
    cf_status s = cf_future_result(f, CF_SECONDS(5), NULL, 0);
    gate_open(&initializer);
    assert_int_equal(s, CF_OK);
    cf_future_unref(f);
    end_pool(pool);
}

enum { MEETING = 3 };

static int meet(void *data)
{
    level_raise(data);
    return level_reaches(data, MEETING) ? 0 : 1;
}

/* Initializers may wait for each other: each accepted task brings a worker. */
static void test_initializers_that_need_each_other(void **state)
{
    (void)state;
    static struct level level = LEVEL_INIT;
    cf_executor *pool =
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = MEETING, .initializer = meet,
                                         .initializer_data = &level));
    cf_future *f[MEETING];
    for (int i = 0; i < MEETING; i++)
        f[i] = submitted(pool, do_nothing, NULL, 0, 0);
    for (int i = 0; i < MEETING; i++)
        assert_ends(f[i], CF_OK);
    end_pool(pool);
}

/* ---- bounds ---- */

/* A pool whose only worker is busy and whose only place is taken. */
struct full {
    struct gate gate;
    cf_executor *pool;
    cf_future *busy, *queued;
};

static struct full full;

static void fill(cf_when_full when_full, int64_t limit_ns)
{
    gate_close(&full.gate);
    full.pool =
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = 1, .when_full = when_full,
                                         .when_full_limit_ns = limit_ns));
    full.busy = occupied(full.pool, &full.gate);
    full.queued = submitted(full.pool, do_nothing, NULL, 0, 0);
}

static void empty(void)
{
    gate_open(&full.gate);
    assert_ends(full.busy, CF_OK);
    cf_future_unref(full.queued);
    end_pool(full.pool);
}

static void test_full_refuses(void **state)
{
    (void)state;
    fill(CF_WHEN_FULL_REJECT, 0);
    cf_future *f = NULL;
    for (int i = 0; i < 3; i++)
        assert_int_equal(cf_submit(full.pool, do_nothing, NULL, 0, 0, &f), CF_FULL);
    assert_null(f);
    assert_int_equal(cf_last_error()->status, CF_FULL);
    assert_true(cf_future_cancel(full.queued)); /* its place is free at once */
    f = submitted(full.pool, do_nothing, NULL, 0, 0);
    assert_int_equal(cf_submit(full.pool, do_nothing, NULL, 0, 0, NULL), CF_FULL);
    gate_open(&full.gate);
    assert_ends(f, CF_OK);
    empty();
}

static void test_full_waits_for_so_long(void **state)
{
    (void)state;
    fill(CF_WHEN_FULL_WAIT, CF_MS(30));
    int64_t begun = cfi_now();
    assert_int_equal(cf_submit(full.pool, do_nothing, NULL, 0, 0, NULL), CF_FULL);
    assert_true(cfi_now() - begun >= CF_MS(30));
    empty();
}

static int note_thread(const void *arg, void *result)
{
    (void)arg;
    *(pthread_t *)result = pthread_self();
    return 0;
}

static void test_full_runs_in_the_caller(void **state)
{
    (void)state;
    fill(CF_WHEN_FULL_RUN_IN_CALLER, 0);
    cf_future *f = submitted(full.pool, note_thread, NULL, 0, sizeof(pthread_t));
    assert_true(cf_future_done(f));
    pthread_t thread;
    assert_int_equal(CF_RESULT(f, 0, &thread), CF_OK);
    assert_true(pthread_equal(thread, pthread_self()));
    cf_future_unref(f);
    assert_false(cf_future_done(full.queued));
    assert_true(cf_future_cancel(full.queued));
    f = submitted(full.pool, note_thread, NULL, 0, sizeof(pthread_t)); /* there is room again */
    gate_open(&full.gate);
    assert_int_equal(CF_RESULT(f, LIMIT, &thread), CF_OK);
    assert_false(pthread_equal(thread, pthread_self()));
    cf_future_unref(f);
    empty();
}

static struct level asleep = LEVEL_INIT;

static void note_sleep(void *data)
{
    level_raise(data);
}

/* Says when it begins to sleep. */
static void *submit_to_full(void *data)
{
    const cf_wait_hooks hooks = { .size = sizeof hooks, .data = &asleep, .before = note_sleep };
    (void)cf_set_wait_hooks(&hooks);
    cf_future *f = NULL;
    cf_status s = cf_submit(full.pool, do_nothing, NULL, 0, 0, &f);
    CHECK(s == *(cf_status *)data);
    CHECK((f != NULL) == (s == CF_OK));
    if (f)
        CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_OK);
    cf_future_unref(f);
    (void)cf_set_wait_hooks(NULL);
    return NULL;
}

static pthread_t waiting_submitter(cf_status *status)
{
    level_set(&asleep, 0);
    pthread_t thread = start_thread(submit_to_full, status);
    assert_true(level_reaches(&asleep, 1));
    return thread;
}

static void test_full_waits_until_a_task_begins(void **state)
{
    (void)state;
    cf_status wanted = CF_OK;
    fill(CF_WHEN_FULL_WAIT, 0);
    pthread_t thread = waiting_submitter(&wanted);
    gate_open(&full.gate);
    join_thread(thread);
    empty();
}

static void test_full_waits_until_one_is_cancelled(void **state)
{
    (void)state;
    cf_status wanted = CF_OK;
    fill(CF_WHEN_FULL_WAIT, 0);
    pthread_t thread = waiting_submitter(&wanted);
    assert_true(cf_future_cancel(full.queued));
    cf_future *f = NULL; /* the other one has the place now, or is about to */
    struct cfi_pool *pool = full.pool->self;
    WAIT_UNTIL(cfi_load_acquire(&pool->pending) == 1 && cfi_load_acquire(&pool->room_waiters) == 0);
    assert_false(cf_future_done(full.busy));
    gate_open(&full.gate);
    join_thread(thread);
    cf_future_unref(f);
    empty();
}

static void test_full_waits_until_shutdown(void **state)
{
    (void)state;
    cf_status wanted = CF_SHUTDOWN;
    fill(CF_WHEN_FULL_WAIT, 0);
    pthread_t thread = waiting_submitter(&wanted);
    assert_int_equal(cf_executor_shutdown(full.pool, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    join_thread(thread);
    empty();
}

static struct level submitted_more = LEVEL_INIT;

static void submit_more(cf_future *f, void *data)
{
    (void)f;
    for (int i = 0; i < 5; i++)
        CHECK(cf_submit(data, do_nothing, NULL, 0, 0, NULL) == CF_OK);
    level_raise(&submitted_more);
}

static int submit_beyond(const void *arg, void *result)
{
    (void)result;
    const struct gate *gate = &full.gate;
    (void)wait_before_gate(&gate, NULL);
    submit_more(NULL, *(cf_executor *const *)arg);
    return 0;
}

/* For them to wait would be to wait for themselves. */
static void test_workers_and_callbacks_exceed_the_bound(void **state)
{
    (void)state;
    for (int rule = CF_WHEN_FULL_WAIT; rule <= CF_WHEN_FULL_RUN_IN_CALLER; rule++) {
        gate_close(&full.gate);
        level_set(&submitted_more, 0);
        cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = 1,
                                                             .when_full = (cf_when_full)rule));
        cf_future *busy = submitted(pool, submit_beyond, &pool, sizeof pool, 0);
        assert_true(level_reaches(&full.gate.came, 1));
        cf_future *queued = submitted(pool, do_nothing, NULL, 0, 0);
        assert_int_equal(cf_future_add_done_callback(queued, submit_more, pool), CF_OK);
        gate_open(&full.gate);
        assert_true(level_reaches(&submitted_more, 2));
        assert_ends(busy, CF_OK);
        assert_ends(queued, CF_OK);
        end_pool(pool);
    }
}

/* Each cancel makes room for exactly one. */
static void test_cancelled_tasks_do_not_count(void **state)
{
    (void)state;
    fill(CF_WHEN_FULL_REJECT, 0);
    for (int i = 0; i < 500; i++) {
        assert_true(cf_future_cancel(full.queued));
        assert_true(cf_future_cancel(full.queued));
        cf_future_unref(full.queued);
        full.queued = submitted(full.pool, do_nothing, NULL, 0, 0);
        assert_int_equal(cf_submit(full.pool, do_nothing, NULL, 0, 0, NULL), CF_FULL);
    }
    empty();
}

/* ---- priorities ---- */

static struct {
    int order[64];
    atomic_int count;
} ran;

static int note_order(const void *arg, void *result)
{
    (void)result;
    ran.order[atomic_fetch_add(&ran.count, 1)] = *(const int *)arg;
    return 0;
}

/* Submits tasks of these priorities to a busy worker, and checks in which order they run. */
static void assert_order(const int64_t *priorities, const int *order, int count)
{
    static struct gate gate = GATE_INIT;
    gate_close(&gate);
    atomic_store(&ran.count, 0);
    cf_executor *pool = pool_of(1);
    cf_future_unref(occupied(pool, &gate));
    for (int i = 0; i < count; i++) {
        const cf_task task = { .size = sizeof task,
                               .fn = note_order,
                               .arg = &i,
                               .arg_size = sizeof i,
                               .priority = priorities[i] };
        assert_int_equal(cf_submit_task(pool, &task, NULL), CF_OK);
    }
    gate_open(&gate);
    end_pool(pool);
    assert_int_equal(atomic_load(&ran.count), count);
    for (int i = 0; i < count; i++)
        assert_int_equal(ran.order[i], order[i]);
}

static void test_priorities(void **state)
{
    (void)state;
    static const int64_t mixed[] = { 0, -1, 5, 0, INT64_MAX, 5, -1, INT64_MIN, 0, 1 };
    static const int by_priority[] = { 4, 2, 5, 9, 0, 3, 8, 1, 6, 7 };
    assert_order(mixed, by_priority, COUNT_OF(mixed));
    int64_t equal[40];
    int as_they_came[40];
    for (int i = 0; i < 40; i++) {
        equal[i] = 3;
        as_they_came[i] = i;
    }
    assert_order(equal, as_they_came, 40);
}

static int submit_urgent(const void *arg, void *result)
{
    int i = *(const int *)arg;
    if (i == 5) {
        i = 99;
        const cf_task task = {
            .size = sizeof task, .fn = note_order, .arg = &i, .arg_size = sizeof i, .priority = 1
        };
        CHECK(cf_submit_task(full.pool, &task, NULL) == CF_OK);
    }
    return note_order(arg, result);
}

/* It comes before those that a worker has already taken from the queue. */
static void test_an_urgent_task_is_next(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    gate_close(&gate);
    full.pool = pool_of(1);
    atomic_store(&ran.count, 0);
    for (int i = 0; i < 2000; i++) /* so that the worker takes many at once */
        cf_future_unref(submitted(full.pool, do_nothing, NULL, 0, 0));
    cf_future_unref(occupied(full.pool, &gate));
    for (int i = 0; i < 50; i++)
        cf_future_unref(submitted(full.pool, submit_urgent, &i, sizeof i, 0));
    gate_open(&gate);
    WAIT_UNTIL(atomic_load(&ran.count) == 51);
    end_pool(full.pool);
    assert_int_equal(ran.order[5], 5);
    assert_int_equal(ran.order[6], 99);
    assert_int_equal(ran.order[7], 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_threads_start_when_none_is_idle),
        cmocka_unit_test(test_the_default_number_of_workers),
        cmocka_unit_test(test_eight_pools_at_once),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_stack_sizes),
        cmocka_unit_test(test_a_deep_recursion),
        cmocka_unit_test(test_each_worker_is_initialized_and_finalized_once),
        cmocka_unit_test(test_a_slow_initializer_starts_no_second),
        cmocka_unit_test(test_a_failing_initializer_breaks_the_pool),
        cmocka_unit_test(test_a_second_initializer_fails),
        cmocka_unit_test(test_a_slow_initializer_holds_up_nobody_else),
        cmocka_unit_test(test_initializers_that_need_each_other),
        cmocka_unit_test(test_full_refuses),
        cmocka_unit_test(test_full_waits_for_so_long),
        cmocka_unit_test(test_full_runs_in_the_caller),
        cmocka_unit_test(test_full_waits_until_a_task_begins),
        cmocka_unit_test(test_full_waits_until_one_is_cancelled),
        cmocka_unit_test(test_full_waits_until_shutdown),
        cmocka_unit_test(test_workers_and_callbacks_exceed_the_bound),
        cmocka_unit_test(test_cancelled_tasks_do_not_count),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_an_urgent_task_is_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
