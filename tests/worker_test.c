/* SPDX-License-Identifier: MIT */
/* A worker: in which order it finds tasks, what it runs while it waits inside one, and the waits
 * that could never end. */
#define _GNU_SOURCE
#include "pool_support.h"

#include <errno.h>

/* Where the tasks of a test find the pool and each other. */
static struct {
    cf_executor *pool, *other;
    struct gate gate;
    struct level ready; /* all futures are in the table */
    cf_future *futures[8];
} scene;

static void set_scene(unsigned workers)
{
    scene.pool = pool_of(workers);
    scene.other = NULL;
    gate_close(&scene.gate);
    level_set(&scene.ready, 0);
    memset(scene.futures, 0, sizeof scene.futures);
}

static void end_scene(void)
{
    cf_future_unref_all(scene.futures, COUNT_OF(scene.futures));
    end_pool(scene.pool);
    if (scene.other)
        end_pool(scene.other);
}

static void assert_all_end(size_t count, cf_status status)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(cf_future_result(scene.futures[i], LIMIT, NULL, 0), status);
}

/* For tasks. */
static cf_future *child(cf_fn *fn, const void *arg, size_t arg_size, size_t result_size)
{
    cf_future *f = NULL;
    CHECK(cf_submit(scene.pool, fn, arg, arg_size, result_size, &f) == CF_OK);
    return f;
}

static void check_ends(cf_future *f)
{
    CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_OK);
    cf_future_unref(f);
}

/* ---- the order ---- */

static atomic_int turn;

static int note_turn(const void *arg, void *result)
{
    (void)arg;
    *(int *)result = atomic_fetch_add(&turn, 1);
    return 0;
}

static int turn_of(cf_future *f)
{
    int value = -1;
    assert_int_equal(CF_RESULT(f, LIMIT, &value), CF_OK);
    cf_future_unref(f);
    return value;
}

enum { ROW = 300 };

static void test_first_come_first_served(void **state)
{
    (void)state;
    cf_future *f[ROW];
    set_scene(1);
    atomic_store(&turn, 0);
    cf_future *busy = occupied(scene.pool, &scene.gate);
    for (int i = 0; i < ROW; i++)
        f[i] = submitted(scene.pool, note_turn, NULL, 0, sizeof(int));
    gate_open(&scene.gate);
    for (int i = 0; i < ROW; i++)
        assert_int_equal(turn_of(f[i]), i);
    assert_ends(busy, CF_OK);
    end_scene();
}

enum { CHILDREN = 3, QUEUED = 10 };

/* When the queue is full, submits children into the worker's own. */
static int submit_children(const void *arg, void *result)
{
    (void)arg;
    cf_future **children = result;
    level_raise(&scene.gate.came);
    CHECK(level_reaches(&scene.gate.opened, 1));
    for (int i = 0; i < CHILDREN; i++)
        children[i] = child(note_turn, NULL, 0, sizeof(int));
    return 0;
}

/* Whether the children of a running task came after all that was queued before them. */
static bool came_after_the_queue(void)
{
    cf_future *f[QUEUED], *children[CHILDREN];
    gate_close(&scene.gate);
    atomic_store(&turn, 0);
    cf_future *parent = submitted(scene.pool, submit_children, NULL, 0, sizeof children);
    assert_true(level_reaches(&scene.gate.came, 1));
    for (int i = 0; i < QUEUED; i++)
        f[i] = submitted(scene.pool, note_turn, NULL, 0, sizeof(int));
    gate_open(&scene.gate);
    assert_int_equal(CF_RESULT(parent, LIMIT, &children), CF_OK);
    cf_future_unref(parent);
    for (int i = 0, last = -1; i < QUEUED; i++) {
        int now = turn_of(f[i]);
        assert_true(now > last);
        last = now;
    }
    bool after = true;
    for (int i = 0, last = -1; i < CHILDREN; i++) {
        int now = turn_of(children[i]);
        assert_true(now > last);
        after &= now == QUEUED + i;
        last = now;
    }
    return after;
}

/* Now and then a worker looks at its own queue first, so not always. */
static void test_children_come_after_what_was_queued(void **state)
{
    (void)state;
    set_scene(1);
    int after = 0;
    for (int i = 0; i < 20; i++)
        after += came_after_the_queue();
    assert_in_range(after, 11, 20);
    end_scene();
}

static void test_children_are_not_forgotten_for_a_long_queue(void **state)
{
    (void)state;
    cf_future *children[CHILDREN];
    set_scene(1);
    atomic_store(&turn, 0);
    cf_future *parent = submitted(scene.pool, submit_children, NULL, 0, sizeof children);
    assert_true(level_reaches(&scene.gate.came, 1));
    for (int i = 0; i < 20000; i++)
        cf_future_unref(submitted(scene.pool, note_turn, NULL, 0, sizeof(int)));
    gate_open(&scene.gate);
    assert_int_equal(CF_RESULT(parent, LIMIT, &children), CF_OK);
    cf_future_unref(parent);
    assert_in_range(turn_of(children[0]), 0, 19000);
    for (int i = 1; i < CHILDREN; i++)
        cf_future_unref(children[i]);
    end_scene();
}

/* One worker has taken several tasks at once; the first of them holds it up, the others do not wait
 * for it. */
static void test_no_task_waits_behind_a_long_one(void **state)
{
    (void)state;
    set_scene(2);
    for (int i = 0; i < 500; i++) { /* so that the workers have learnt that tasks are short */
        cf_future *f[20];
        for (int k = 0; k < 20; k++)
            f[k] = submitted(scene.pool, do_nothing, NULL, 0, 0);
        for (int k = 0; k < 20; k++)
            assert_ends(f[k], CF_OK);
    }
    struct gate *gate = &scene.gate;
    cf_future *busy = submitted_with(scene.pool, wait_before_gate, gate), *f[100];
    for (int i = 0; i < 100; i++)
        f[i] = submitted(scene.pool, do_nothing, NULL, 0, 0);
    for (int i = 0; i < 100; i++)
        assert_ends(f[i], CF_OK);
    assert_false(cf_future_done(busy));
    gate_open(gate);
    assert_ends(busy, CF_OK);
    end_scene();
}

/* ---- helping ---- */

struct part {
    int *numbers;
    int count;
};

/* Sorts one side in a task of its own. */
static int quicksort(const void *arg, void *result)
{
    (void)result;
    struct part p = *(const struct part *)arg;
    if (p.count < 2)
        return 0;
    int pivot = p.numbers[p.count / 2], left = 0, right = p.count - 1;
    while (left <= right) {
        while (p.numbers[left] < pivot)
            left++;
        while (p.numbers[right] > pivot)
            right--;
        if (left <= right) {
            int t = p.numbers[left];
            p.numbers[left++] = p.numbers[right];
            p.numbers[right--] = t;
        }
    }
    const struct part lower = { p.numbers, right + 1 },
                      upper = { p.numbers + left, p.count - left };
    cf_future *f = child(quicksort, &lower, sizeof lower, 0);
    (void)quicksort(&upper, NULL);
    check_ends(f);
    return 0;
}

static void test_quicksort(void **state)
{
    (void)state;
    static int numbers[20000];
    for (unsigned workers = 1; workers <= 4; workers += 3) {
        set_scene(workers);
        uint32_t random = 1;
        for (size_t i = 0; i < COUNT_OF(numbers); i++)
            numbers[i] = (int)(random = random * 1664525 + 1013904223);
        const struct part whole = { numbers, COUNT_OF(numbers) };
        assert_ends(submitted(scene.pool, quicksort, &whole, sizeof whole, 0), CF_OK);
        for (size_t i = 1; i < COUNT_OF(numbers); i++)
            assert_true(numbers[i - 1] <= numbers[i]);
        end_scene();
    }
}

/* The only worker waits for a task that another thread queued behind others. */
static int wait_for_last(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    CHECK(level_reaches(&scene.ready, 1));
    CHECK(cf_future_result(scene.futures[7], LIMIT, NULL, 0) == CF_OK);
    CHECK(!cf_future_done(scene.futures[1]));
    return 0;
}

static void test_it_runs_what_it_waits_for_wherever_that_is_queued(void **state)
{
    (void)state;
    set_scene(1);
    scene.futures[0] = submitted(scene.pool, wait_for_last, NULL, 0, 0);
    for (int i = 1; i < 8; i++)
        scene.futures[i] = submitted(scene.pool, do_nothing, NULL, 0, 0);
    level_raise(&scene.ready);
    assert_all_end(8, CF_OK);
    end_scene();
}

/* Waits for its own children in each of the ways. */
static int wait_in_all_ways(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    cf_future *f[20];
    size_t done = 0, index;
    for (int way = 0; way < 4; way++) {
        for (size_t i = 0; i < COUNT_OF(f); i++)
            f[i] = child(do_nothing, NULL, 0, 0);
        cf_completed *completed = NULL;
        switch (way) {
        case 0:
            CHECK(cf_wait(f, COUNT_OF(f), CF_ALL_COMPLETED, CF_FOREVER, &done) == CF_OK);
            CHECK(done == COUNT_OF(f));
            break;
        case 1:
            CHECK(cf_wait(f, COUNT_OF(f), CF_FIRST_COMPLETED, CF_FOREVER, &done) == CF_OK);
            CHECK(done >= 1);
            break;
        case 2:
            CHECK(cf_wait(f, COUNT_OF(f), CF_FIRST_EXCEPTION, CF_FOREVER, &done) == CF_OK);
            CHECK(done == COUNT_OF(f));
            break;
        default:
            CHECK(cf_as_completed(f, COUNT_OF(f), CF_FOREVER, &completed) == CF_OK);
            for (size_t i = 0; i < COUNT_OF(f); i++)
                CHECK(cf_completed_next(completed, &index) == CF_OK);
            CHECK(cf_completed_next(completed, &index) == CF_END);
            cf_completed_free(completed);
        }
        cf_future_unref_all(f, COUNT_OF(f));
    }
    return 0;
}

static void test_all_ways_to_wait_for_children(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 3; workers++) {
        set_scene(workers);
        for (int i = 0; i < 8; i++)
            scene.futures[i] = submitted(scene.pool, wait_in_all_ways, NULL, 0, 0);
        assert_all_end(8, CF_OK);
        end_scene();
    }
}

/* Each waits for the next, all on one stack. */
static int wait_for_next(const void *arg, void *result)
{
    (void)result;
    int left = *(const int *)arg - 1;
    if (left > 0)
        check_ends(child(wait_for_next, &left, sizeof left, 0));
    return 0;
}

static void test_a_long_chain_on_one_worker(void **state)
{
    (void)state;
    const int links = 1000;
    set_scene(1);
    assert_ends(submitted(scene.pool, wait_for_next, &links, sizeof links, 0), CF_OK);
    end_scene();
}

static int wait_for_priorities(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    static const int64_t priorities[] = { -1, 5, 0, -7, 5, 1 };
    cf_future *f[COUNT_OF(priorities)];
    for (size_t i = 0; i < COUNT_OF(f); i++) {
        const cf_task task = { .size = sizeof task, .fn = do_nothing, .priority = priorities[i] };
        CHECK(cf_submit_task(scene.pool, &task, &f[i]) == CF_OK);
    }
    for (size_t i = 0; i < COUNT_OF(f); i++)
        check_ends(f[i]);
    return 0;
}

/* Whatever queue the children are in, and whether there is room for them. */
static void test_children_of_all_sorts(void **state)
{
    (void)state;
    for (size_t max_pending = 0; max_pending <= 2; max_pending++) {
        set_scene(1);
        end_pool(scene.pool);
        scene.pool =
            pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = max_pending));
        for (int i = 0; i < 8; i++)
            scene.futures[i] =
                submitted(scene.pool, i % 2 ? wait_for_priorities : wait_in_all_ways, NULL, 0, 0);
        assert_all_end(8, CF_OK);
        end_scene();
    }
}

static int only_ask(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    size_t done = 9;
    cf_future *f = child(do_nothing, NULL, 0, 0);
    CHECK(cf_future_result(f, 0, NULL, 0) == CF_TIMEOUT);
    CHECK(cf_wait(&f, 1, CF_ALL_COMPLETED, 0, &done) == CF_TIMEOUT && done == 0);
    cf_completed *completed = NULL;
    CHECK(cf_as_completed(&f, 1, 0, &completed) == CF_OK);
    CHECK(cf_completed_next(completed, &done) == CF_TIMEOUT);
    cf_completed_free(completed);
    CHECK(!cf_future_done(f));
    cf_future_unref(f);
    return 0;
}

static void test_to_ask_runs_nothing(void **state)
{
    (void)state;
    set_scene(1);
    assert_ends(submitted(scene.pool, only_ask, NULL, 0, 0), CF_OK);
    end_scene();
}

/* ---- whom it helps, and whom not ---- */

static pthread_mutex_t no_recursion;

/* Holds a lock while it waits: whoever runs a sibling on top of it finds the lock held by itself. */
static int wait_under_lock(const void *arg, void *result)
{
    (void)result;
    int depth = *(const int *)arg;
    CHECK(pthread_mutex_lock(&no_recursion) == 0);
    for (int i = 0; i < 3; i++) {
        cf_future *f[4];
        for (int k = 0; k < 4; k++)
            f[k] = child(do_nothing, NULL, 0, 0);
        if (i == 0)
            CHECK(cf_wait(f, 4, CF_ALL_COMPLETED, LIMIT, NULL) == CF_OK);
        for (int k = 3; k >= 0; k--)
            check_ends(f[k]);
    }
    CHECK(pthread_mutex_unlock(&no_recursion) == 0);
    int left = depth - 1;
    if (depth > 0) { /* its children may take the lock again: it does not hold it any more */
        cf_future *f = child(wait_under_lock, &left, sizeof left, 0);
        cf_future *g = child(wait_under_lock, &left, sizeof left, 0);
        check_ends(f);
        check_ends(g);
    }
    return 0;
}

static void test_it_runs_nothing_unrelated(void **state)
{
    (void)state;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&no_recursion, &attr);
    const int depth = 2;
    for (unsigned workers = 1; workers <= 4; workers++) {
        set_scene(workers);
        cf_future *f[40];
        for (size_t i = 0; i < COUNT_OF(f); i++)
            f[i] = submitted(scene.pool, wait_under_lock, &depth, sizeof depth, 0);
        for (size_t i = 0; i < COUNT_OF(f); i++)
            assert_ends(f[i], CF_OK);
        end_scene();
    }
    pthread_mutexattr_destroy(&attr);
}

static struct level helped, waiter_came;
static atomic_int on_the_waiters_thread;
static pthread_t waiter;

static int note_where_it_runs(const void *arg, void *result)
{
    (void)result;
    if (pthread_equal(pthread_self(), waiter))
        atomic_fetch_add(&on_the_waiters_thread, 1);
    level_raise(&helped);
    int64_t busy_until = cfi_now() + *(const int64_t *)arg;
    while (cfi_now() < busy_until)
        sched_yield();
    return 0;
}

enum { DESCENDANTS = 40 };

/* Leaves children in its worker's queue and stays before the gate, not in a wait. */
static int leave_children(const void *arg, void *result)
{
    (void)result;
    CHECK(level_reaches(&waiter_came, 1)); /* no worker is free to take them */
    for (int i = 0; i < DESCENDANTS; i++)
        cf_future_unref(child(note_where_it_runs, arg, sizeof(int64_t), 0));
    level_raise(&scene.ready);
    const struct gate *gate = &scene.gate;
    return wait_before_gate(&gate, NULL);
}

struct long_wait {
    int64_t timeout;
    cf_status status;
    int helped; /* meanwhile */
};

static int wait_for_first(const void *arg, void *result)
{
    (void)result;
    struct long_wait *wait = *(struct long_wait *const *)arg;
    waiter = pthread_self();
    level_raise(&waiter_came);
    CHECK(level_reaches(&scene.ready, 1));
    wait->status = cf_future_result(scene.futures[0], wait->timeout, NULL, 0);
    wait->helped = atomic_load(&on_the_waiters_thread);
    return 0;
}

static void leave_and_wait(struct long_wait *wait, int64_t each)
{
    set_scene(2);
    level_set(&helped, 0);
    level_set(&waiter_came, 0);
    atomic_store(&on_the_waiters_thread, 0);
    scene.futures[0] = submitted(scene.pool, leave_children, &each, sizeof each, 0);
    scene.futures[1] = submitted_with(scene.pool, wait_for_first, wait);
}

static void test_it_runs_what_the_awaited_task_submitted(void **state)
{
    (void)state;
    struct long_wait wait = { .timeout = LIMIT };
    leave_and_wait(&wait, 0);
    assert_true(level_reaches(&scene.ready, 1));
    cf_future *unrelated = submitted(scene.pool, do_nothing, NULL, 0, 0);
    assert_true(level_reaches(&helped, DESCENDANTS)); /* only the waiter can have run them */
    assert_false(cf_future_done(unrelated));
    gate_open(&scene.gate);
    assert_all_end(2, CF_OK);
    assert_int_equal(wait.status, CF_OK);
    assert_int_equal(wait.helped, DESCENDANTS);
    assert_ends(unrelated, CF_OK);
    end_scene();
}

/* The wait overruns its time by what runs just then, not by all that it might run. */
static void test_help_ends_with_the_time(void **state)
{
    (void)state;
    struct long_wait wait = { .timeout = CF_MS(20) };
    leave_and_wait(&wait, CF_MS(10));
    assert_int_equal(cf_future_result(scene.futures[1], LIMIT, NULL, 0), CF_OK);
    assert_int_equal(wait.status, CF_TIMEOUT);
    assert_in_range(wait.helped, 0, DESCENDANTS / 2);
    gate_open(&scene.gate);
    end_scene();
}

/* Runs a task on top of others that it leaves in its worker's queue. */
static int run_above_others(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    const int64_t no_time = 0;
    const struct gate *gate = &scene.gate;
    CHECK(level_reaches(&waiter_came, 1));
    for (int i = 0; i < DESCENDANTS; i++)
        cf_future_unref(child(note_where_it_runs, &no_time, sizeof no_time, 0));
    scene.futures[0] = child(wait_before_gate, &gate, sizeof gate, 0);
    level_raise(&scene.ready);
    CHECK(cf_future_result(scene.futures[0], LIMIT, NULL, 0) == CF_OK);
    return 0;
}

/* What lies in that queue, but was not submitted by the awaited task, is none of the waiter's. */
static void test_it_leaves_what_others_submitted(void **state)
{
    (void)state;
    struct long_wait wait = { .timeout = LIMIT };
    set_scene(2);
    level_set(&helped, 0);
    level_set(&waiter_came, 0);
    atomic_store(&on_the_waiters_thread, 0);
    scene.futures[1] = submitted(scene.pool, run_above_others, NULL, 0, 0);
    WAIT_UNTIL(cf_future_running(scene.futures[1]));
    scene.futures[2] = submitted_with(scene.pool, wait_for_first, &wait);
    assert_true(level_reaches(&scene.gate.came, 1));
    assert_int_equal(cf_future_result(scene.futures[2], CF_MS(20), NULL, 0), CF_TIMEOUT);
    assert_int_equal(level_now(&helped), 0);
    gate_open(&scene.gate);
    assert_true(level_reaches(&helped, DESCENDANTS));
    assert_all_end(3, CF_OK);
    assert_int_equal(wait.status, CF_OK);
    assert_int_equal(wait.helped, 0);
    end_scene();
}

/* What a helped task says and is told is its own. */
static int raise_in_child(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    CHECK(!cf_stop_requested());
    return cf_raise(5, "the child");
}

static int raise_around_child(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    int code = cf_raise(4, "the parent");
    CHECK(level_reaches(&scene.ready, 1));
    CHECK(cf_stop_requested());
    cf_future *f = child(raise_in_child, NULL, 0, 0);
    CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_FAILED);
    CHECK(cf_future_exception(f)->code == 5);
    CHECK(strcmp(cf_future_exception(f)->message, "the child") == 0);
    CHECK(cf_stop_requested());
    cf_future_unref(f);
    return code;
}

static void test_what_a_helped_task_says_is_its_own(void **state)
{
    (void)state;
    set_scene(1);
    scene.futures[0] = submitted(scene.pool, raise_around_child, NULL, 0, 0);
    WAIT_UNTIL(cf_future_running(scene.futures[0]));
    assert_true(cf_future_stop(scene.futures[0], 0));
    level_raise(&scene.ready);
    assert_int_equal(cf_future_result(scene.futures[0], LIMIT, NULL, 0), CF_STOPPED);
    assert_int_equal(cf_future_exception(scene.futures[0])->code, 4);
    assert_string_equal(cf_future_exception(scene.futures[0])->message, "the parent");
    end_scene();
}

static void submit_and_wait(cf_future *f, void *data)
{
    (void)f;
    check_ends(child(do_nothing, NULL, 0, 0));
    level_raise(data);
}

/* A callback on the only worker submits and waits. */
static void test_callbacks_submit_and_wait(void **state)
{
    (void)state;
    static struct level called = LEVEL_INIT;
    set_scene(1);
    cf_future *busy = occupied(scene.pool, &scene.gate);
    for (int i = 0; i < 3; i++)
        assert_int_equal(cf_future_add_done_callback(busy, submit_and_wait, &called), CF_OK);
    gate_open(&scene.gate);
    assert_true(level_reaches(&called, 3));
    assert_ends(busy, CF_OK);
    end_scene();
}

/* ---- waits that could never end ---- */

static void note_sleep(void *data)
{
    level_raise(data);
}

/* Awaits the future with that number; before it sleeps it raises `asleep`. */
struct waiting {
    int number;
    int way; /* 0 result, 1 wait for all, 2 as they complete */
    int64_t timeout;
    struct level *asleep; /* may be NULL */
};

static cf_status wait_in_one_way(cf_future *f, const struct waiting *w)
{
    if (w->way == 0)
        return cf_future_result(f, w->timeout, NULL, 0);
    cf_future *f_and_done[2] = { NULL, f };
    CHECK(cf_future_new(0, NULL, &f_and_done[0]) == CF_OK);
    CHECK(cf_future_set_result(f_and_done[0], NULL) == CF_OK);
    cf_status s;
    if (w->way == 1) {
        s = cf_wait(f_and_done, 2, CF_ALL_COMPLETED, w->timeout, NULL);
    } else {
        cf_completed *completed = NULL;
        size_t index;
        CHECK(cf_as_completed(f_and_done, 2, w->timeout, &completed) == CF_OK);
        CHECK(cf_completed_next(completed, &index) == CF_OK && index == 0);
        s = cf_completed_next(completed, &index);
        cf_completed_free(completed);
    }
    cf_future_unref(f_and_done[0]);
    return s;
}

static int wait_for_number(const void *arg, void *result)
{
    const struct waiting *w = arg;
    const cf_wait_hooks hooks = { .size = sizeof hooks, .data = w->asleep, .before = note_sleep };
    CHECK(level_reaches(&scene.ready, 1));
    if (w->asleep)
        (void)cf_set_wait_hooks(&hooks);
    *(cf_status *)result = wait_in_one_way(scene.futures[w->number], w);
    (void)cf_set_wait_hooks(NULL);
    return 0;
}

static cf_future *waiter_for(cf_executor *pool, int number, int way, int64_t timeout)
{
    const struct waiting w = { number, way, timeout, NULL };
    return submitted(pool, wait_for_number, &w, sizeof w, sizeof(cf_status));
}

/* Once they run, nobody can help with them. */
static void wait_until_running(int count)
{
    for (int i = 0; i < count; i++)
        WAIT_UNTIL(cf_future_running(scene.futures[i]));
}

/* How the wait inside the task ended. */
static cf_status wait_of(int number)
{
    cf_status status = CF_INVALID;
    assert_int_equal(CF_RESULT(scene.futures[number], LIMIT, &status), CF_OK);
    return status;
}

static void test_a_task_waits_for_itself(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        for (int limited = 0; limited < 2; limited++) {
            set_scene(2);
            scene.futures[0] = waiter_for(scene.pool, 0, way, limited ? LIMIT : CF_FOREVER);
            level_raise(&scene.ready);
            assert_int_equal(wait_of(0), CF_DEADLOCK);
            end_scene();
        }
    }
}

/* Each of a ring waits for the next: at least one learns that it would be for ever, and so all end. */
static void wait_in_a_ring(unsigned workers, int size, int way)
{
    set_scene(workers);
    for (int i = 0; i < size; i++)
        scene.futures[i] = waiter_for(scene.pool, (i + 1) % size, way, CF_FOREVER);
    level_raise(&scene.ready);
    int deadlocks = 0;
    for (int i = 0; i < size; i++) {
        cf_status s = wait_of(i);
        assert_true(s == CF_OK || s == CF_DEADLOCK);
        deadlocks += s == CF_DEADLOCK;
    }
    assert_in_range(deadlocks, 1, size);
    end_scene();
}

static void test_two_wait_for_each_other(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        for (int i = 0; i < 30; i++)
            wait_in_a_ring(2, 2, way);
        wait_in_a_ring(1, 2, way); /* one helps the other, on one stack */
    }
}

static void test_a_ring_waits(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        wait_in_a_ring(3, 3, i % 3);
        wait_in_a_ring(4, 8, i % 3);
        wait_in_a_ring(2, 5, i % 3);
    }
}

/* One pool's only worker waits for a task of another pool, which waits for one that the first pool
 * has queued. */
static void test_a_cycle_over_two_pools(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        set_scene(1);
        scene.other = pool_of(1);
        scene.futures[0] = waiter_for(scene.pool, 1, 0, CF_FOREVER);
        WAIT_UNTIL(cf_future_running(scene.futures[0]));
        scene.futures[1] = waiter_for(scene.other, 2, way == 1 ? 0 : way, CF_FOREVER);
        scene.futures[2] = submitted(scene.pool, do_nothing, NULL, 0, 0);
        level_raise(&scene.ready);
        (void)wait_of(1);
        assert_true(wait_of(0) == CF_DEADLOCK || wait_of(1) == CF_DEADLOCK);
        assert_int_equal(cf_future_result(scene.futures[2], LIMIT, NULL, 0), CF_OK);
        end_scene();
    }
}

/* The same, but the first pool has a worker to spare. */
static void test_no_cycle_where_a_worker_is_free(void **state)
{
    (void)state;
    set_scene(2);
    scene.other = pool_of(1);
    scene.futures[0] = waiter_for(scene.pool, 1, 0, CF_FOREVER);
    scene.futures[1] = waiter_for(scene.other, 2, 0, CF_FOREVER);
    scene.futures[2] = submitted(scene.pool, do_nothing, NULL, 0, 0);
    level_raise(&scene.ready);
    for (int i = 0; i < 2; i++)
        assert_int_equal(wait_of(i), CF_OK);
    end_scene();
}

/* ---- waits that can end ---- */

static int wait_for_any(const void *arg, void *result)
{
    (void)arg;
    CHECK(level_reaches(&scene.ready, 1));
    *(cf_status *)result = cf_wait(&scene.futures[1], 2, CF_FIRST_COMPLETED, CF_FOREVER, NULL);
    return 0;
}

/* 0 waits for 1 or 2, and 1 for 0: as long as there is 2, that is no deadlock. */
static void test_one_way_out_is_enough(void **state)
{
    (void)state;
    set_scene(3);
    static struct level asleep = LEVEL_INIT;
    level_set(&asleep, 0);
    const struct waiting w = { 0, 0, CF_FOREVER, &asleep };
    scene.futures[0] = submitted(scene.pool, wait_for_any, NULL, 0, sizeof(cf_status));
    scene.futures[1] = submitted(scene.pool, wait_for_number, &w, sizeof w, sizeof(cf_status));
    scene.futures[2] = submitted_with(scene.pool, wait_before_gate, &scene.gate);
    wait_until_running(3);
    level_raise(&scene.ready);
    assert_true(level_reaches(&asleep, 1)); /* no deadlock for 1 */
    gate_open(&scene.gate);
    assert_int_equal(wait_of(0), CF_OK);
    assert_int_equal(wait_of(1), CF_OK);
    end_scene();
}

static void test_no_way_out(void **state)
{
    (void)state;
    set_scene(3);
    scene.futures[0] = submitted(scene.pool, wait_for_any, NULL, 0, sizeof(cf_status));
    scene.futures[1] = waiter_for(scene.pool, 0, 0, CF_FOREVER);
    scene.futures[2] = waiter_for(scene.pool, 0, 0, CF_FOREVER);
    wait_until_running(3);
    level_raise(&scene.ready);
    int deadlocks = 0;
    for (int i = 0; i < 3; i++)
        deadlocks += wait_of(i) == CF_DEADLOCK;
    assert_in_range(deadlocks, 1, 3);
    end_scene();
}

static struct level first_asleep = LEVEL_INIT;

static int wait_for_the_sleeper(const void *arg, void *result)
{
    (void)arg;
    CHECK(level_reaches(&first_asleep, 1));
    *(cf_status *)result = cf_future_result(scene.futures[0], CF_FOREVER, NULL, 0);
    return 0;
}

/* A wait with a limit ends by itself: whoever waits for its task may sleep. */
static void test_a_limit_breaks_the_cycle(void **state)
{
    (void)state;
    set_scene(2);
    level_set(&first_asleep, 0);
    const struct waiting w = { 1, 0, CF_MS(100), &first_asleep };
    scene.futures[0] = submitted(scene.pool, wait_for_number, &w, sizeof w, sizeof(cf_status));
    scene.futures[1] = submitted(scene.pool, wait_for_the_sleeper, NULL, 0, sizeof(cf_status));
    wait_until_running(2);
    level_raise(&scene.ready);
    assert_int_equal(wait_of(0), CF_TIMEOUT);
    assert_int_equal(wait_of(1), CF_OK);
    end_scene();
}

/* What somebody else may settle is no deadlock. */
static void test_a_promise_is_waited_for(void **state)
{
    (void)state;
    static struct level asleep = LEVEL_INIT;
    set_scene(1);
    level_set(&asleep, 0);
    const struct waiting w = { 1, 0, CF_FOREVER, &asleep };
    assert_int_equal(cf_future_new(0, NULL, &scene.futures[1]), CF_OK);
    scene.futures[0] = submitted(scene.pool, wait_for_number, &w, sizeof w, sizeof(cf_status));
    level_raise(&scene.ready);
    assert_true(level_reaches(&asleep, 1));
    assert_int_equal(cf_future_set_result(scene.futures[1], NULL), CF_OK);
    assert_int_equal(wait_of(0), CF_OK);
    end_scene();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_children_come_after_what_was_queued),
        cmocka_unit_test(test_children_are_not_forgotten_for_a_long_queue),
        cmocka_unit_test(test_no_task_waits_behind_a_long_one),
        cmocka_unit_test(test_quicksort),
        cmocka_unit_test(test_it_runs_what_it_waits_for_wherever_that_is_queued),
        cmocka_unit_test(test_all_ways_to_wait_for_children),
        cmocka_unit_test(test_a_long_chain_on_one_worker),
        cmocka_unit_test(test_children_of_all_sorts),
        cmocka_unit_test(test_to_ask_runs_nothing),
        cmocka_unit_test(test_it_runs_nothing_unrelated),
        cmocka_unit_test(test_it_runs_what_the_awaited_task_submitted),
        cmocka_unit_test(test_it_leaves_what_others_submitted),
        cmocka_unit_test(test_help_ends_with_the_time),
        cmocka_unit_test(test_what_a_helped_task_says_is_its_own),
        cmocka_unit_test(test_callbacks_submit_and_wait),
        cmocka_unit_test(test_a_task_waits_for_itself),
        cmocka_unit_test(test_two_wait_for_each_other),
        cmocka_unit_test(test_a_ring_waits),
        cmocka_unit_test(test_a_cycle_over_two_pools),
        cmocka_unit_test(test_no_cycle_where_a_worker_is_free),
        cmocka_unit_test(test_one_way_out_is_enough),
        cmocka_unit_test(test_no_way_out),
        cmocka_unit_test(test_a_limit_breaks_the_cycle),
        cmocka_unit_test(test_a_promise_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
