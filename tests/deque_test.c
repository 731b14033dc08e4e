/* SPDX-License-Identifier: MIT */
/* The deque of a worker: the owner at the bottom, everybody else at the top, and how it grows. */
#define _GNU_SOURCE
#include "support.h"

#include "threads/deque.h"

enum { MANY = 1000 };
static char things[MANY];

static cf_future *thing(int i)
{
    return (cf_future *)(void *)&things[i];
}

static bool keep(cf_future *f)
{
    (void)f;
    return false;
}

static void push_things(struct cfi_deque *d, int begin, int end)
{
    for (int i = begin; i < end; i++)
        assert_true(cfi_deque_push(d, thing(i), keep));
}

static void assert_steals(struct cfi_deque *d, int begin, int end)
{
    for (int i = begin; i < end; i++)
        assert_ptr_equal(cfi_deque_steal(d, 0), thing(i));
}

/* ---- one thread ---- */

static void test_an_empty_deque(void **state)
{
    (void)state;
    struct cfi_deque d = { 0 };
    assert_true(cfi_deque_is_empty(&d));
    assert_null(cfi_deque_steal(&d, 0));
    assert_false(cfi_deque_pop_if(&d, thing(0)));
    assert_int_equal(cfi_deque_bottom(&d), 0);
    cfi_deque_destroy(&d);
}

static void test_thieves_take_the_oldest(void **state)
{
    (void)state;
    struct cfi_deque d = { 0 };
    push_things(&d, 0, 3);
    assert_false(cfi_deque_is_empty(&d));
    assert_int_equal(cfi_deque_bottom(&d), 3);
    assert_steals(&d, 0, 3);
    assert_true(cfi_deque_is_empty(&d));
    assert_null(cfi_deque_steal(&d, 0));
    cfi_deque_destroy(&d);
}

static void test_the_owner_takes_only_what_it_asks_for(void **state)
{
    (void)state;
    struct cfi_deque d = { 0 };
    push_things(&d, 0, 3);
    assert_false(cfi_deque_pop_if(&d, thing(1)));
    assert_false(cfi_deque_pop_if(&d, thing(0)));
    assert_true(cfi_deque_pop_if(&d, thing(2)));
    assert_false(cfi_deque_pop_if(&d, thing(2)));
    assert_true(cfi_deque_pop_if(&d, thing(1)));
    assert_true(cfi_deque_pop_if(&d, thing(0))); /* the last one */
    assert_true(cfi_deque_is_empty(&d));
    assert_false(cfi_deque_pop_if(&d, thing(0)));
    push_things(&d, 3, 5);
    assert_steals(&d, 3, 4);
    assert_true(cfi_deque_pop_if(&d, thing(4)));
    assert_null(cfi_deque_steal(&d, 0));
    cfi_deque_destroy(&d);
}

static void test_only_from_a_position_on(void **state)
{
    (void)state;
    struct cfi_deque d = { 0 };
    push_things(&d, 0, 2);
    int64_t mark = cfi_deque_bottom(&d);
    push_things(&d, 2, 4);
    assert_null(cfi_deque_steal(&d, mark)); /* older ones are in front */
    assert_steals(&d, 0, 2);
    assert_ptr_equal(cfi_deque_steal(&d, mark), thing(2));
    assert_null(cfi_deque_steal(&d, mark + 2));
    assert_ptr_equal(cfi_deque_steal(&d, mark), thing(3));
    assert_null(cfi_deque_steal(&d, mark));
    cfi_deque_destroy(&d);
}

/* It grows while it has wrapped, at every offset. */
static void test_it_grows(void **state)
{
    (void)state;
    for (int offset = 0; offset < 70; offset++) {
        struct cfi_deque d = { 0 };
        push_things(&d, 0, offset);
        assert_steals(&d, 0, offset);
        push_things(&d, 0, MANY);
        assert_steals(&d, 0, MANY / 2);
        for (int i = MANY - 1; i >= MANY / 2; i--)
            assert_true(cfi_deque_pop_if(&d, thing(i)));
        assert_true(cfi_deque_is_empty(&d));
        cfi_deque_destroy(&d);
    }
}

static int dropped;

static bool drop_even(cf_future *f)
{
    bool even = ((char *)(void *)f - things) % 2 == 0;
    dropped += even;
    return even;
}

/* Before it grows, what may go goes; the rest stays in order. */
static void test_it_drops_before_it_grows(void **state)
{
    (void)state;
    struct cfi_deque d = { 0 };
    for (int i = 0; i < MANY; i++)
        assert_true(cfi_deque_push(&d, thing(i), drop_even));
    assert_in_range(dropped, MANY / 4, MANY / 2);
    int last = -1, odd = 0;
    for (cf_future *f; (f = cfi_deque_steal(&d, 0));) {
        int i = (int)((char *)(void *)f - things);
        assert_true(i > last);
        odd += i % 2;
        last = i;
    }
    assert_int_equal(odd, MANY / 2);
    cfi_deque_destroy(&d);
}

/* ---- many threads ---- */

enum { THIEVES = 2, ALL = 1 << 19 };

static struct {
    struct cfi_deque deque;
    char things[ALL];
    atomic_uchar taken[ALL];
    atomic_bool over;
} shared;

static void take(const cf_future *f)
{
    const char *it = (const char *)(const void *)f;
    CHECK(*it == 1); /* what was written before the push */
    CHECK(atomic_fetch_add(&shared.taken[it - shared.things], 1) == 0);
}

static void *steal_until_over(void *data)
{
    (void)data;
    while (!atomic_load(&shared.over)) {
        cf_future *f = cfi_deque_steal(&shared.deque, 0);
        if (f)
            take(f);
    }
    return NULL;
}

/* Now and then a long row, so that it grows while the thieves are at it; mostly one or two. */
static void *push_and_pop(void *data)
{
    (void)data;
    for (int begun = 0, turn = 0; begun < ALL; turn++) {
        int row = turn % 1000 == 0 ? 1 << (turn / 1000 % 12) : 1 + turn % 2, end = begun;
        for (; end < begun + row && end < ALL; end++) {
            shared.things[end] = 1;
            CHECK(cfi_deque_push(&shared.deque, (cf_future *)(void *)&shared.things[end], keep));
        }
        for (int i = end - 1; i >= begun; i--) {
            cf_future *f = (cf_future *)(void *)&shared.things[i];
            if (cfi_deque_pop_if(&shared.deque, f))
                take(f);
        }
        begun = end;
    }
    WAIT_UNTIL(cfi_deque_is_empty(&shared.deque));
    atomic_store(&shared.over, true);
    return NULL;
}

static void test_each_is_taken_once(void **state)
{
    (void)state;
    pthread_t threads[THIEVES + 1];
    for (int i = 0; i <= THIEVES; i++)
        threads[i] = start_thread(i < THIEVES ? steal_until_over : push_and_pop, NULL);
    for (int i = 0; i <= THIEVES; i++)
        join_thread(threads[i]);
    assert_checks();
    for (int i = 0; i < ALL; i++)
        assert_int_equal(atomic_load(&shared.taken[i]), 1);
    cfi_deque_destroy(&shared.deque);
}

/* The last one: the owner or the thief, never both, never neither. */
static struct {
    struct cfi_deque deque;
    bool popped, stolen;
} last;

static void push_one(void *data)
{
    (void)data;
    CHECK(cfi_deque_push(&last.deque, thing(0), keep));
}

static void pop_it(void *data)
{
    (void)data;
    last.popped = cfi_deque_pop_if(&last.deque, thing(0));
}

static void steal_it(void *data)
{
    (void)data;
    last.stolen = cfi_deque_steal(&last.deque, 0) != NULL;
}

static void judge(void *data)
{
    (void)data;
    CHECK(last.popped + last.stolen == 1);
    CHECK(cfi_deque_is_empty(&last.deque));
}

static void test_the_last_one_goes_to_one(void **state)
{
    (void)state;
    struct race race = { .prepare = push_one, .here = pop_it, .there = steal_it, .finish = judge };
    run_race(&race, 30000);
    cfi_deque_destroy(&last.deque);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_deque),
        cmocka_unit_test(test_thieves_take_the_oldest),
        cmocka_unit_test(test_the_owner_takes_only_what_it_asks_for),
        cmocka_unit_test(test_only_from_a_position_on),
        cmocka_unit_test(test_it_grows),
        cmocka_unit_test(test_it_drops_before_it_grows),
        cmocka_unit_test(test_each_is_taken_once),
        cmocka_unit_test(test_the_last_one_goes_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
