/* SPDX-License-Identifier: MIT */
/* Races around the thread pool, each run for a while: made for ThreadSanitizer, but whatever is
 * lost or done twice is seen without it too. */
#define _GNU_SOURCE
#include "pool_support.h"

/* ---- submit against shutdown ---- */

enum { SUBMITTERS = 4, AT_MOST = 3000 };

struct submitter {
    struct contest *contest;
    cf_future *futures[AT_MOST];
    unsigned accepted;
};

struct contest {
    cf_executor *pool;
    atomic_uint begun, ran;
    cf_status refusal; /* what a refused submit is to return */
    struct submitter submitters[SUBMITTERS];
};

static int count_run(const void *arg, void *result)
{
    (void)result;
    atomic_fetch_add(&(*(struct contest *const *)arg)->ran, 1);
    return 0;
}

static void *submit_until_refused(void *data)
{
    struct submitter *s = data;
    struct contest *c = s->contest;
    cf_status status = CF_OK;
    while (status == CF_OK && s->accepted < AT_MOST) {
        status = cf_submit(c->pool, count_run, &c, sizeof c, 0, &s->futures[s->accepted]);
        if (status != CF_OK)
            break;
        if (s->accepted++ == 0)
            atomic_fetch_add(&c->begun, 1);
        if (s->accepted % 64 == 0) /* so that the queue is now and then empty */
            (void)cf_future_result(s->futures[s->accepted - 1], CF_MS(20), NULL, 0);
    }
    CHECK(status == CF_OK || status == c->refusal);
    CHECK(status == CF_OK || cf_last_error()->status == status);
    return NULL;
}

/* Every accepted future has settled, as one of the two; returns how many ran. */
static unsigned settled(struct contest *c, cf_status other)
{
    unsigned ran = 0;
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        struct submitter *s = &c->submitters[i];
        for (unsigned k = 0; k < s->accepted; k++) {
            cf_status status = cf_future_result(s->futures[k], 0, NULL, 0);
            if (status != CF_OK && status != other)
                fail_msg("a future is %s after the shutdown", cf_status_name(status));
            ran += status == CF_OK;
        }
        cf_future_unref_all(s->futures, s->accepted);
    }
    return ran;
}

static void start_submitters(struct contest *c, pthread_t *threads)
{
    atomic_store(&c->begun, 0);
    atomic_store(&c->ran, 0);
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        c->submitters[i].contest = c;
        c->submitters[i].accepted = 0;
        threads[i] = start_thread(submit_until_refused, &c->submitters[i]);
    }
}

static void join_all(pthread_t *threads, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        join_thread(threads[i]);
}

static void submit_against(cf_shutdown_mode mode, unsigned workers)
{
    static struct contest c;
    c.refusal = CF_SHUTDOWN;
    pthread_t threads[SUBMITTERS];
    int64_t begun = cfi_now();
    for (unsigned round = 0; is_time_left(begun); round++) {
        c.pool = pool_of(workers);
        start_submitters(&c, threads);
        WAIT_UNTIL(atomic_load(&c.begun) >= 1 + round % SUBMITTERS);
        assert_int_equal(cf_executor_shutdown(c.pool, mode, LIMIT), CF_OK);
        join_all(threads, SUBMITTERS);
        assert_checks();
        unsigned ran = settled(&c, mode == CF_FINISH_PENDING ? CF_OK : CF_CANCELLED);
        assert_int_equal(ran, atomic_load(&c.ran));
        cf_executor_free(c.pool);
    }
}

static void test_submit_against_shutdown(void **state)
{
    (void)state;
    submit_against(CF_FINISH_PENDING, 1);
    submit_against(CF_FINISH_PENDING, 3);
}

static void test_submit_against_cancelling_shutdown(void **state)
{
    (void)state;
    submit_against(CF_CANCEL_PENDING, 1);
    submit_against(CF_CANCEL_PENDING, 3);
}

/* ---- what a shutdown finds still has all workers ---- */

static int meet(const void *arg, void *result)
{
    (void)result;
    struct level *level = *(struct level *const *)arg;
    level_raise(level);
    return level_reaches(level, 2) ? 0 : 1;
}

/* Two workers become free at the same moment, in a pool that is shut down, and find two tasks that
 * need each other. */
static void test_tasks_that_need_each_other_in_a_shutdown(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    static struct level level = LEVEL_INIT;
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        cf_executor *pool = pool_of(2);
        cf_future *f[4];
        gate_close(&gate);
        level_set(&level, 0);
        f[0] = occupied(pool, &gate);
        f[1] = occupied(pool, &gate);
        f[2] = submitted_with(pool, meet, &level);
        f[3] = submitted_with(pool, meet, &level);
        assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, 0), CF_TIMEOUT);
        gate_open(&gate);
        for (int i = 0; i < 4; i++)
            assert_ends(f[i], CF_OK);
        end_pool(pool);
    }
}

static void *shut_down(void *pool)
{
    cf_status s = cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT);
    CHECK(s == CF_OK);
    return NULL;
}

static void test_two_shutdowns_at_once(void **state)
{
    (void)state;
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        cf_executor *pool = pool_of(3);
        cf_future *f[8];
        for (int i = 0; i < 8; i++)
            f[i] = submitted(pool, do_nothing, NULL, 0, 0);
        run_on_threads(2, shut_down, pool);
        for (int i = 0; i < 8; i++) {
            assert_true(cf_future_done(f[i]));
            assert_ends(f[i], CF_OK);
        }
        end_pool(pool);
    }
}

/* ---- cancel against run ---- */

enum { CANDIDATES = 64 };

static struct {
    cf_executor *pool;
    cf_future *futures[CANDIDATES];
    atomic_uint runs[CANDIDATES];
    bool cancelled[CANDIDATES];
} candidates;

static int run_candidate(const void *arg, void *result)
{
    (void)result;
    atomic_fetch_add(&candidates.runs[*(const int *)arg], 1);
    return 0;
}

static void submit_and_cancel_each(void)
{
    for (int i = 0; i < CANDIDATES; i++) {
        atomic_store(&candidates.runs[i], 0);
        candidates.futures[i] = submitted(candidates.pool, run_candidate, &i, sizeof i, 0);
        candidates.cancelled[i] = cf_future_cancel(candidates.futures[i]);
    }
}

static void *cancel_candidates(void *data)
{
    (void)data;
    for (int i = 0; i < CANDIDATES; i++)
        (void)cf_future_cancel(candidates.futures[i]);
    return NULL;
}

static void judge_candidates(void)
{
    for (int i = 0; i < CANDIDATES; i++) {
        cf_status s = cf_future_result(candidates.futures[i], LIMIT, NULL, 0);
        bool cancelled = cf_future_cancelled(candidates.futures[i]);
        assert_int_equal(s, cancelled ? CF_CANCELLED : CF_OK);
        assert_true(cancelled || !candidates.cancelled[i]);
        assert_int_equal(atomic_load(&candidates.runs[i]), cancelled ? 0 : 1);
    }
}

static void test_cancel_against_run(void **state)
{
    (void)state;
    candidates.pool = pool_of(2);
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        submit_and_cancel_each();
        cancel_candidates(NULL);
        judge_candidates();
        cf_future_unref_all(candidates.futures, CANDIDATES);
    }
    end_pool(candidates.pool);
}

/* The same from two threads, behind a gate that opens meanwhile. */
static void test_two_cancels_against_run(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    candidates.pool = pool_of(1);
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        gate_close(&gate);
        cf_future *busy = occupied(candidates.pool, &gate);
        for (int i = 0; i < CANDIDATES; i++) {
            atomic_store(&candidates.runs[i], 0);
            candidates.cancelled[i] = false;
            candidates.futures[i] = submitted(candidates.pool, run_candidate, &i, sizeof i, 0);
        }
        gate_open(&gate);
        run_on_threads(2, cancel_candidates, NULL);
        judge_candidates();
        cf_future_unref_all(candidates.futures, CANDIDATES);
        assert_ends(busy, CF_OK);
    }
    end_pool(candidates.pool);
}

/* ---- callbacks and waits against the settling ---- */

static void count_call(cf_future *f, void *data)
{
    CHECK(cf_future_done(f));
    atomic_fetch_add((atomic_uint *)data, 1);
}

/* Each is called exactly once, whether it came before the end, after it, or at the same moment. */
static void test_callbacks_against_settle(void **state)
{
    (void)state;
    static atomic_uint calls;
    cf_executor *pool = pool_of(2);
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        cf_future *f[CANDIDATES];
        atomic_store(&calls, 0);
        for (int i = 0; i < CANDIDATES; i++) {
            f[i] = submitted(pool, do_nothing, NULL, 0, 0);
            for (int k = 0; k < 3; k++)
                assert_int_equal(cf_future_add_done_callback(f[i], count_call, &calls), CF_OK);
            if (i % 8 == 0)
                (void)cf_future_cancel(f[i]);
        }
        cf_future_unref_all(f, CANDIDATES);
        WAIT_UNTIL(atomic_load(&calls) == 3 * CANDIDATES);
    }
    end_pool(pool);
}

static void wait_for_one(cf_executor *pool, unsigned turn)
{
    cf_future *f[3];
    for (int i = 0; i < 3; i++)
        f[i] = submitted(pool, do_nothing, NULL, 0, 0);
    size_t done = 9, index = 9;
    cf_completed *completed = NULL;
    if (turn % 4 == 0) {
        assert_int_equal(cf_future_result(f[0], LIMIT, NULL, 0), CF_OK);
    } else if (turn % 4 == 1) {
        assert_int_equal(cf_wait(f, 3, CF_ALL_COMPLETED, LIMIT, &done), CF_OK);
        assert_int_equal(done, 3);
    } else if (turn % 4 == 2) {
        assert_int_equal(cf_wait(f, 3, CF_FIRST_COMPLETED, LIMIT, &done), CF_OK);
        assert_in_range(done, 1, 3);
    } else {
        assert_int_equal(cf_as_completed(f, 3, LIMIT, &completed), CF_OK);
        for (int i = 0; i < (int)(turn / 4 % 4); i++) {
            assert_int_equal(cf_completed_next(completed, &index), CF_OK);
            assert_true(cf_future_done(f[index]));
        }
        cf_completed_free(completed);
    }
    cf_future_unref_all(f, 3);
}

static void test_waits_against_settle(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(2);
    int64_t begun = cfi_now();
    for (unsigned turn = 0; is_time_left(begun); turn++)
        wait_for_one(pool, turn);
    end_pool(pool);
}

/* Several wait for the same futures, in all ways, with and without a limit. */
static void *wait_for_candidates(void *data)
{
    (void)data;
    size_t done;
    cf_status s = cf_wait(candidates.futures, CANDIDATES, CF_FIRST_COMPLETED, CF_MS(1), &done);
    CHECK(s == CF_OK || s == CF_TIMEOUT);
    for (int i = 0; i < CANDIDATES; i += 5) {
        s = cf_future_result(candidates.futures[i], CF_MS(0.01), NULL, 0);
        CHECK(s == CF_OK || s == CF_TIMEOUT);
        CHECK(cf_future_result(candidates.futures[i], LIMIT, NULL, 0) == CF_OK);
    }
    CHECK(cf_wait(candidates.futures, CANDIDATES, CF_ALL_COMPLETED, LIMIT, &done) == CF_OK);
    CHECK(done == CANDIDATES);
    return NULL;
}

static void test_many_wait_for_the_same(void **state)
{
    (void)state;
    candidates.pool = pool_of(2);
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        for (int i = 0; i < CANDIDATES; i++)
            candidates.futures[i] = submitted(candidates.pool, run_candidate, &i, sizeof i, 0);
        run_on_threads(3, wait_for_candidates, NULL);
        cf_future_unref_all(candidates.futures, CANDIDATES);
        assert_checks();
    }
    end_pool(candidates.pool);
}

/* ---- references given back everywhere ---- */

static atomic_uint alive;

static int make_result(const void *arg, void *result)
{
    atomic_fetch_add(&alive, 1);
    *(int *)result = *(const int *)arg;
    return 0;
}

static void destroy_result(void *result)
{
    CHECK(*(int *)result == 7);
    *(int *)result = 0;
    atomic_fetch_sub(&alive, 1);
}

static void unref_in_callback(cf_future *f, void *data)
{
    (void)f;
    cf_future_unref(data);
}

static void *unref_candidates(void *data)
{
    (void)data;
    for (int i = 0; i < CANDIDATES; i++)
        cf_future_unref(candidates.futures[i]);
    return NULL;
}

static void test_unrefs_everywhere(void **state)
{
    (void)state;
    const int seven = 7;
    const cf_task task = { .size = sizeof task,
                           .fn = make_result,
                           .arg = &seven,
                           .arg_size = sizeof seven,
                           .result_size = sizeof(int),
                           .result_destroy = destroy_result };
    candidates.pool = pool_of(2);
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        for (int i = 0; i < CANDIDATES; i++) {
            cf_future *f = NULL;
            assert_int_equal(cf_submit_task(candidates.pool, &task, &f), CF_OK);
            candidates.futures[i] = cf_future_ref(f); /* two: one for each thread */
            if (i % 3 == 0)
                assert_int_equal(
                    cf_future_add_done_callback(f, unref_in_callback, cf_future_ref(f)), CF_OK);
        }
        run_on_threads(2, unref_candidates, NULL);
    }
    end_pool(candidates.pool);
    assert_int_equal(atomic_load(&alive), 0);
}

/* ---- break against submit ---- */

static int fail_third(void *data)
{
    return atomic_fetch_add((atomic_uint *)data, 1) == 2 ? cf_raise(3, "no third worker") : 0;
}

static void test_submit_against_break(void **state)
{
    (void)state;
    static struct contest c;
    static atomic_uint initialized;
    c.refusal = CF_BROKEN;
    pthread_t threads[SUBMITTERS];
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        atomic_store(&initialized, 0);
        c.pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 4, .initializer = fail_third,
                                                  .initializer_data = &initialized));
        start_submitters(&c, threads);
        join_all(threads, SUBMITTERS);
        assert_checks();
        assert_int_equal(cf_executor_shutdown(c.pool, CF_FINISH_PENDING, LIMIT), CF_OK);
        assert_int_equal(settled(&c, CF_BROKEN), atomic_load(&c.ran));
        cf_executor_free(c.pool);
    }
}

/* ---- park against submit ---- */

enum { ROUND_TRIPS = 100000 };

static void one_task_at_a_time(unsigned workers)
{
    cf_executor *pool = pool_of(workers);
    int64_t begun = cfi_now();
    for (int i = 0; i < ROUND_TRIPS && is_time_left(begun); i++) {
        assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
        for (int k = i % 512; k > 0; k--) /* so that submits meet every stage of falling asleep */
            atomic_signal_fence(memory_order_seq_cst);
    }
    end_pool(pool);
}

static void test_park_against_submit(void **state)
{
    (void)state;
    one_task_at_a_time(1);
    one_task_at_a_time(2);
    one_task_at_a_time(4);
}

/* The tasks of two submitters, so that one may come while the other's wakes. */
static void *submit_and_wait(void *pool)
{
    int64_t begun = cfi_now();
    while (is_time_left(begun) && all_checks_held()) {
        cf_future *f = NULL;
        CHECK(cf_submit(pool, do_nothing, NULL, 0, 0, &f) == CF_OK);
        CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_OK);
        cf_future_unref(f);
    }
    return NULL;
}

static void test_two_submitters_against_park(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(3);
    run_on_threads(2, submit_and_wait, pool);
    end_pool(pool);
}

/* ---- steals ---- */

enum { TREE_DEPTH = 11 };

static struct {
    cf_executor *pool;
    atomic_uint nodes;
    struct level whole;
} tree;

/* Submits two children and forgets them. */
static int grow(const void *arg, void *result)
{
    (void)result;
    int left = *(const int *)arg - 1;
    for (int i = 0; left > 0 && i < 2; i++)
        CHECK(cf_submit(tree.pool, grow, &left, sizeof left, 0, NULL) == CF_OK);
    if (atomic_fetch_add(&tree.nodes, 1) + 1 == (1U << TREE_DEPTH) - 1)
        level_raise(&tree.whole);
    return 0;
}

static void test_tasks_that_submit_tasks(void **state)
{
    (void)state;
    const int depth = TREE_DEPTH;
    tree.pool = pool_of(4);
    level_set(&tree.whole, 0);
    int64_t begun = cfi_now();
    for (int round = 1; is_time_left(begun); round++) {
        atomic_store(&tree.nodes, 0);
        assert_int_equal(cf_submit(tree.pool, grow, &depth, sizeof depth, 0, NULL), CF_OK);
        assert_true(level_reaches(&tree.whole, round));
    }
    end_pool(tree.pool);
    assert_int_equal(atomic_load(&tree.nodes), (1U << TREE_DEPTH) - 1);
}

/* The same, and a shutdown comes at some moment: whoever was accepted runs. */
static int grow_until_refused(const void *arg, void *result)
{
    (void)result;
    int left = *(const int *)arg - 1;
    for (int i = 0; left > 0 && i < 2; i++) {
        atomic_fetch_add(&tree.nodes, 1);
        cf_status s = cf_submit(tree.pool, grow_until_refused, &left, sizeof left, 0, NULL);
        CHECK(s == CF_OK || s == CF_SHUTDOWN);
        if (s != CF_OK)
            atomic_fetch_sub(&tree.nodes, 1);
    }
    atomic_fetch_sub(&tree.nodes, 1);
    return 0;
}

static void test_tasks_that_submit_tasks_against_shutdown(void **state)
{
    (void)state;
    const int depth = TREE_DEPTH;
    int64_t begun = cfi_now();
    for (unsigned round = 0; is_time_left(begun); round++) {
        tree.pool = pool_of(1 + round % 4);
        atomic_store(&tree.nodes, 1);
        assert_int_equal(cf_submit(tree.pool, grow_until_refused, &depth, sizeof depth, 0, NULL),
                         CF_OK);
        for (unsigned k = round % 64 * 64; k > 0; k--)
            atomic_signal_fence(memory_order_seq_cst);
        end_pool(tree.pool);
        assert_int_equal(atomic_load(&tree.nodes), 0); /* accepted and not run */
    }
}

static int fib(const void *arg, void *result)
{
    const long n = *(const long *)arg, less[2] = { n - 1, n - 2 };
    long values[2] = { 1, 0 };
    cf_future *f[2];
    for (int i = 0; n > 1 && i < 2; i++)
        CHECK(CF_SUBMIT(tree.pool, fib, &less[i], long, &f[i]) == CF_OK);
    for (int i = 0; n > 1 && i < 2; i++) {
        CHECK(CF_RESULT(f[i], LIMIT, &values[i]) == CF_OK);
        cf_future_unref(f[i]);
    }
    *(long *)result = n < 2 ? n : values[0] + values[1];
    return 0;
}

static void test_nested_waits(void **state)
{
    (void)state;
    const long n = 12;
    for (unsigned workers = 1; workers <= 4; workers++) {
        tree.pool = pool_of(workers);
        int64_t begun = cfi_now();
        while (cfi_now() - begun < RACE_TIME / 2) {
            long value = 0;
            cf_future *f = submitted(tree.pool, fib, &n, sizeof n, sizeof value);
            assert_int_equal(CF_RESULT(f, LIMIT, &value), CF_OK);
            assert_int_equal(value, 144);
            cf_future_unref(f);
        }
        end_pool(tree.pool);
    }
}

/* ---- bounded ---- */

static void *submit_to_bounded(void *data)
{
    struct contest *c = data;
    int64_t begun = cfi_now();
    for (unsigned i = 0; is_time_left(begun) && all_checks_held(); i++) {
        cf_future *f = NULL;
        CHECK(cf_submit(c->pool, count_run, &c, sizeof c, 0, &f) == CF_OK);
        atomic_fetch_add(&c->begun, 1);
        if (i % 4 == 0 && cf_future_cancel(f))
            atomic_fetch_sub(&c->begun, 1);
        cf_future_unref(f);
    }
    return NULL;
}

/* Room is handed on: no submitter is forgotten, and nothing runs twice. */
static void test_submitters_of_a_full_pool(void **state)
{
    (void)state;
    static struct contest c;
    c.pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .max_pending = 2));
    run_on_threads(SUBMITTERS, submit_to_bounded, &c);
    end_pool(c.pool);
    assert_int_equal(atomic_load(&c.ran), atomic_load(&c.begun));
}

static void test_submitters_of_a_full_pool_against_shutdown(void **state)
{
    (void)state;
    static struct contest c;
    c.refusal = CF_SHUTDOWN;
    pthread_t threads[SUBMITTERS];
    int64_t begun = cfi_now();
    while (is_time_left(begun)) {
        c.pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .max_pending = 2));
        start_submitters(&c, threads);
        WAIT_UNTIL(atomic_load(&c.begun) > 0);
        assert_int_equal(cf_executor_shutdown(c.pool, CF_FINISH_PENDING, LIMIT), CF_OK);
        join_all(threads, SUBMITTERS);
        assert_checks();
        assert_int_equal(settled(&c, CF_OK), atomic_load(&c.ran));
        cf_executor_free(c.pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_against_shutdown),
        cmocka_unit_test(test_submit_against_cancelling_shutdown),
        cmocka_unit_test(test_tasks_that_need_each_other_in_a_shutdown),
        cmocka_unit_test(test_two_shutdowns_at_once),
        cmocka_unit_test(test_cancel_against_run),
        cmocka_unit_test(test_two_cancels_against_run),
        cmocka_unit_test(test_callbacks_against_settle),
        cmocka_unit_test(test_waits_against_settle),
        cmocka_unit_test(test_many_wait_for_the_same),
        cmocka_unit_test(test_unrefs_everywhere),
        cmocka_unit_test(test_submit_against_break),
        cmocka_unit_test(test_park_against_submit),
        cmocka_unit_test(test_two_submitters_against_park),
        cmocka_unit_test(test_tasks_that_submit_tasks),
        cmocka_unit_test(test_tasks_that_submit_tasks_against_shutdown),
        cmocka_unit_test(test_nested_waits),
        cmocka_unit_test(test_submitters_of_a_full_pool),
        cmocka_unit_test(test_submitters_of_a_full_pool_against_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
