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

static void submit_candidates(void *data)
{
    (void)data;
    for (int i = 0; i < CANDIDATES; i++)
        atomic_store(&candidates.runs[i], 0);
}

static void submit_them(void *data)
{
    (void)data;
    for (int i = 0; i < CANDIDATES; i++) {
        cf_future *f = NULL;
        CHECK(cf_submit(candidates.pool, run_candidate, &i, sizeof i, 0, &f) == CF_OK);
        candidates.futures[i] = f;
        candidates.cancelled[i] = cf_future_cancel(f);
    }
}

static void *cancel_them_again(void *data)
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
        submit_candidates(NULL);
        submit_them(NULL);
        cancel_them_again(NULL);
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
        run_on_threads(2, cancel_them_again, NULL);
        judge_candidates();
        cf_future_unref_all(candidates.futures, CANDIDATES);
        assert_ends(busy, CF_OK);
    }
    end_pool(candidates.pool);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
