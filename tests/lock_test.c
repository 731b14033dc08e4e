/* SPDX-License-Identifier: MIT */
/* The lock: its three states, exclusion among threads, and nobody left asleep. */
#define _GNU_SOURCE
#include "support.h"

#include "base/lock.h"

enum { FREE, HELD, HELD_AND_AWAITED };

static uint32_t state_of(struct cfi_lock *lock)
{
    return cfi_load_acquire(&lock->word);
}

static void test_the_word(void **state)
{
    (void)state;
    struct cfi_lock lock = CFI_LOCK_INIT;
    cfi_lock(&lock);
    assert_int_equal(state_of(&lock), HELD);
    cfi_unlock(&lock);
    assert_int_equal(state_of(&lock), FREE);
}

static void test_trying(void **state)
{
    (void)state;
    struct cfi_lock lock = CFI_LOCK_INIT;
    assert_true(cfi_try_lock(&lock));
    assert_false(cfi_try_lock(&lock));
    cfi_unlock(&lock);
    assert_true(cfi_try_lock(&lock));
    cfi_unlock(&lock);
}

/* ---- exclusion ---- */

enum { THREADS = 4, ROUNDS = 20000 };

static struct {
    struct cfi_lock lock;
    unsigned inside, count; /* plain: only the lock orders them */
} shared;

static void enter_and_leave(void)
{
    CHECK(++shared.inside == 1);
    shared.count++;
    shared.inside--;
    cfi_unlock(&shared.lock);
}

static void *lock_often(void *data)
{
    (void)data;
    for (int i = 0; i < ROUNDS; i++) {
        cfi_lock(&shared.lock);
        enter_and_leave();
    }
    return NULL;
}

static void *lock_and_try_often(void *data)
{
    (void)data;
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 2 == 0)
            cfi_lock(&shared.lock);
        else
            WAIT_UNTIL(cfi_try_lock(&shared.lock));
        enter_and_leave();
    }
    return NULL;
}

static void exclude(void *(*run)(void *))
{
    shared.count = 0;
    run_on_threads(THREADS, run, NULL);
    assert_checks();
    assert_int_equal(shared.count, THREADS * ROUNDS);
    assert_int_equal(state_of(&shared.lock), FREE);
}

static void test_one_at_a_time(void **state)
{
    (void)state;
    exclude(lock_often);
}

static void test_one_at_a_time_with_tries(void **state)
{
    (void)state;
    exclude(lock_and_try_often);
}

/* ---- sleeping ---- */

static void *lock_once(void *data)
{
    (void)data;
    cfi_lock(&shared.lock);
    enter_and_leave();
    return NULL;
}

/* Each sleeper has to wake the next: the first one out only knows that there may be others. */
static void test_all_sleepers_wake(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        pthread_t sleepers[3];
        cfi_lock(&shared.lock);
        for (size_t i = 0; i < COUNT_OF(sleepers); i++)
            sleepers[i] = start_thread(lock_once, NULL);
        WAIT_UNTIL(state_of(&shared.lock) == HELD_AND_AWAITED);
        cfi_unlock(&shared.lock);
        for (size_t i = 0; i < COUNT_OF(sleepers); i++)
            join_thread(sleepers[i]);
        assert_int_equal(state_of(&shared.lock), FREE);
    }
    assert_checks();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_word),          cmocka_unit_test(test_trying),
        cmocka_unit_test(test_one_at_a_time),     cmocka_unit_test(test_one_at_a_time_with_tries),
        cmocka_unit_test(test_all_sleepers_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
