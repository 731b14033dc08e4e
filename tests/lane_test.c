/* SPDX-License-Identifier: MIT */
/* The lane: first in, first out, over many segments; shares; closing; several who put and take. */
#define _GNU_SOURCE
#include "support.h"

#include "threads/lane.h"

/* A lane does not look at the tasks: addresses in an array will do. */
enum { MANY = 1000 };
static char things[MANY];

static cf_future *thing(int i)
{
    return (cf_future *)(void *)&things[i];
}

static int number_of(const cf_future *f)
{
    return (int)((const char *)(const void *)f - things);
}

static void put_things(struct cfi_lane *lane, int begin, int end)
{
    for (int i = begin; i < end; i++)
        assert_int_equal(cfi_lane_put(lane, thing(i), false), CF_OK);
}

static void assert_takes(struct cfi_lane *lane, unsigned max, unsigned divisor, int begin, int end)
{
    cf_future *tasks[MANY];
    assert_int_equal(cfi_lane_take(lane, tasks, max, divisor), end - begin);
    for (int i = begin; i < end; i++)
        assert_int_equal(number_of(tasks[i - begin]), i);
}

/* ---- one thread ---- */

static void test_an_empty_lane(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    assert_true(cfi_lane_is_empty(&lane));
    assert_takes(&lane, MANY, 1, 0, 0);
    put_things(&lane, 0, 1);
    assert_false(cfi_lane_is_empty(&lane));
    assert_takes(&lane, MANY, 1, 0, 1);
    assert_true(cfi_lane_is_empty(&lane));
    assert_takes(&lane, MANY, 1, 0, 0);
    cfi_lane_destroy(&lane);
}

static void test_the_order_over_many_segments(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    put_things(&lane, 0, MANY);
    assert_takes(&lane, 1, 1, 0, 1);
    assert_takes(&lane, MANY / 2, 1, 1, MANY / 2 + 1);
    assert_takes(&lane, MANY, 1, MANY / 2 + 1, MANY);
    assert_true(cfi_lane_is_empty(&lane));
    cfi_lane_destroy(&lane);
}

/* Segments come back into use at every offset. */
static void test_it_goes_round_for_long(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    for (int round = 0; round < 300; round++) {
        int count = 1 + round * 7 % 400;
        put_things(&lane, 0, count);
        assert_takes(&lane, MANY, 1, 0, count);
    }
    assert_true(cfi_lane_is_empty(&lane));
    cfi_lane_destroy(&lane);
}

static void test_what_is_left_goes_with_it(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    put_things(&lane, 0, MANY);
    assert_takes(&lane, 300, 1, 0, 300); /* some segments are spare, some full, one begun */
    cfi_lane_destroy(&lane);
    struct cfi_lane never_used = { 0 };
    cfi_lane_destroy(&never_used);
}

static void test_a_taker_leaves_a_share_to_others(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    put_things(&lane, 0, 100);
    assert_takes(&lane, MANY, 4, 0, 26);    /* 1 + 100 / 4 */
    assert_takes(&lane, MANY, 100, 26, 27); /* 1 + 74 / 100 */
    assert_takes(&lane, 5, 4, 27, 32);      /* no more than asked for */
    assert_takes(&lane, MANY, 1, 32, 100);  /* 1 + 68, but there are only 68 */
    cfi_lane_destroy(&lane);
}

static void test_another_taker_is_not_waited_for(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    put_things(&lane, 0, 3);
    cfi_lock(&lane.out);
    assert_takes(&lane, MANY, 1, 0, 0);
    cfi_unlock(&lane.out);
    assert_takes(&lane, MANY, 1, 0, 3);
    cfi_lane_destroy(&lane);
}

static void test_a_closed_lane(void **state)
{
    (void)state;
    struct cfi_lane lane = { 0 };
    put_things(&lane, 0, 2);
    cfi_lane_close(&lane);
    assert_int_equal(cfi_lane_put(&lane, thing(9), false), CF_SHUTDOWN);
    assert_int_equal(cfi_lane_put(&lane, thing(2), true), CF_OK);
    assert_takes(&lane, MANY, 1, 0, 3);
    assert_true(cfi_lane_is_empty(&lane));
    cfi_lane_destroy(&lane);
}

/* ---- many threads ---- */

enum { PUTTERS = 3, TAKERS = 2, EACH = 60000 };

static struct {
    struct cfi_lane lane;
    char things[PUTTERS * EACH];
    atomic_uchar taken[PUTTERS * EACH];
    atomic_int putters, left;
} shared;

static void *put_each(void *data)
{
    (void)data;
    char *mine = shared.things + (size_t)atomic_fetch_add(&shared.putters, 1) * EACH;
    for (int i = 0; i < EACH; i++)
        CHECK(cfi_lane_put(&shared.lane, (cf_future *)(void *)(mine + i), false) == CF_OK);
    return NULL;
}

/* What one taker gets of one putter comes in the order in which it was put. */
static void *take_all(void *data)
{
    (void)data;
    long last[PUTTERS] = { -1, -1, -1 };
    while (atomic_load(&shared.left) > 0 && all_checks_held()) {
        cf_future *tasks[64];
        unsigned count = cfi_lane_take(&shared.lane, tasks, 64, 3);
        for (unsigned i = 0; i < count; i++) {
            long number = (char *)(void *)tasks[i] - shared.things;
            CHECK(number > last[number / EACH]);
            last[number / EACH] = number;
            CHECK(atomic_fetch_add(&shared.taken[number], 1) == 0);
        }
        atomic_fetch_sub(&shared.left, (int)count);
        if (count == 0)
            sched_yield();
    }
    return NULL;
}

static void test_each_is_taken_once_and_in_order(void **state)
{
    (void)state;
    atomic_store(&shared.left, PUTTERS * EACH);
    pthread_t threads[PUTTERS + TAKERS];
    for (int i = 0; i < PUTTERS + TAKERS; i++)
        threads[i] = start_thread(i < PUTTERS ? put_each : take_all, NULL);
    for (int i = 0; i < PUTTERS + TAKERS; i++)
        join_thread(threads[i]);
    assert_checks();
    for (int i = 0; i < PUTTERS * EACH; i++)
        assert_int_equal(atomic_load(&shared.taken[i]), 1);
    assert_true(cfi_lane_is_empty(&shared.lane));
    cfi_lane_destroy(&shared.lane);
}

/* What was accepted before the closing is there after it. */
static struct {
    struct cfi_lane lane;
    atomic_uint accepted;
    unsigned taken;
} closing;

static void renew_lane(void *data)
{
    (void)data;
    closing.lane = (struct cfi_lane){ 0 };
    atomic_store(&closing.accepted, 0);
}

static void put_until_closed(void *data)
{
    (void)data;
    unsigned accepted = 0;
    while (cfi_lane_put(&closing.lane, thing(0), false) == CF_OK)
        atomic_store(&closing.accepted, ++accepted);
}

static void close_and_count(void *data)
{
    (void)data;
    WAIT_UNTIL(atomic_load(&closing.accepted) > 0);
    cfi_lane_close(&closing.lane);
    cf_future *tasks[64];
    unsigned count;
    closing.taken = 0;
    while ((count = cfi_lane_take(&closing.lane, tasks, 64, 1)) > 0)
        closing.taken += count;
}

static void judge_lane(void *data)
{
    (void)data;
    CHECK(cfi_lane_is_empty(&closing.lane));
    CHECK(closing.taken == atomic_load(&closing.accepted));
    cfi_lane_destroy(&closing.lane);
}

static void test_put_against_close(void **state)
{
    (void)state;
    struct race race = { .prepare = renew_lane,
                         .here = close_and_count,
                         .there = put_until_closed,
                         .finish = judge_lane };
    run_race(&race, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_lane),
        cmocka_unit_test(test_the_order_over_many_segments),
        cmocka_unit_test(test_it_goes_round_for_long),
        cmocka_unit_test(test_what_is_left_goes_with_it),
        cmocka_unit_test(test_a_taker_leaves_a_share_to_others),
        cmocka_unit_test(test_another_taker_is_not_waited_for),
        cmocka_unit_test(test_a_closed_lane),
        cmocka_unit_test(test_each_is_taken_once_and_in_order),
        cmocka_unit_test(test_put_against_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
