/* SPDX-License-Identifier: MIT */
/* The thread pool's behaviour: its workers, their initializers, bounds, priorities, and its end. */
#define _GNU_SOURCE
#include "pool_support.h"

/* ---- workers ---- */

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

static int wait_on_second_worker(void *data)
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
        pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .initializer = wait_on_second_worker,
                                         .initializer_data = &initializer));
    cf_future *busy = occupied(pool, &gate);
    cf_future *second = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(level_reaches(&initializer.came, 3));
    gate_open(&gate);
    assert_ends(busy, CF_OK);
    assert_ends(second, CF_OK);
    for (int i = 0; i < 20; i++) { /* by now the first has nothing to do but to park */
        cf_future *f = submitted(pool, do_nothing, NULL, 0, 0);
        cf_status s = cf_future_result(f, CF_SECONDS(5), NULL, 0);
        cf_future_unref(f);
        if (s != CF_OK)
            gate_open(&initializer);
        assert_int_equal(s, CF_OK);
        usleep(500);
    }
    gate_open(&initializer);
    end_pool(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_shutdown_does_not_keep_workers_from_starting),
        cmocka_unit_test(test_a_slow_initializer_holds_up_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
