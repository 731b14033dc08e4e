/* SPDX-License-Identifier: MIT */
/* The batch: its owner takes from the front, thieves the later half, each task goes to one. */
#define _GNU_SOURCE
#include "support.h"

#include "threads/batch.h"

static char things[1 << 16];

static cf_future *thing(unsigned i)
{
    return (cf_future *)(void *)&things[i % sizeof things];
}

static void fill(struct cfi_batch *b, unsigned begin, unsigned end)
{
    cf_future *tasks[CFI_BATCH];
    for (unsigned i = begin; i < end; i++)
        tasks[i - begin] = thing(i);
    cfi_batch_fill(b, tasks, end - begin);
}

static void assert_pops(struct cfi_batch *b, unsigned begin, unsigned end)
{
    for (unsigned i = begin; i < end; i++)
        assert_ptr_equal(cfi_batch_pop(b), thing(i));
}

static void assert_steals(struct cfi_batch *b, unsigned begin, unsigned end)
{
    cf_future *tasks[CFI_BATCH];
    assert_int_equal(cfi_batch_steal(b, tasks), end - begin);
    for (unsigned i = begin; i < end; i++)
        assert_ptr_equal(tasks[i - begin], thing(i));
}

/* ---- one thread ---- */

static void test_an_empty_batch(void **state)
{
    (void)state;
    struct cfi_batch b = { 0 };
    assert_true(cfi_batch_is_empty(&b));
    assert_null(cfi_batch_pop(&b));
    assert_steals(&b, 0, 0);
}

static void test_the_owner_takes_the_first(void **state)
{
    (void)state;
    struct cfi_batch b = { 0 };
    fill(&b, 0, 5);
    assert_false(cfi_batch_is_empty(&b));
    assert_pops(&b, 0, 5);
    assert_true(cfi_batch_is_empty(&b));
    assert_null(cfi_batch_pop(&b));
    fill(&b, 5, 5 + CFI_BATCH); /* all the room there is, and it wraps */
    assert_pops(&b, 5, 5 + CFI_BATCH);
    assert_null(cfi_batch_pop(&b));
}

static void test_a_thief_takes_the_later_half(void **state)
{
    (void)state;
    struct cfi_batch b = { 0 };
    fill(&b, 0, 10);
    assert_pops(&b, 0, 1);
    assert_steals(&b, 5, 10);
    assert_steals(&b, 3, 5);
    assert_pops(&b, 1, 2);
    assert_steals(&b, 2, 3); /* the last one too */
    assert_steals(&b, 0, 0);
    assert_null(cfi_batch_pop(&b));
    assert_true(cfi_batch_is_empty(&b));
}

static void test_a_full_batch_is_halved(void **state)
{
    (void)state;
    struct cfi_batch b = { 0 };
    fill(&b, 0, CFI_BATCH);
    assert_steals(&b, CFI_BATCH / 2, CFI_BATCH);
    assert_pops(&b, 0, CFI_BATCH / 2);
    assert_null(cfi_batch_pop(&b));
}

/* Positions are never used twice, so after 2^32 tasks they begin anew. */
static void test_positions_overflow(void **state)
{
    (void)state;
    const uint32_t next = UINT32_MAX - 2;
    struct cfi_batch b = { .word = (uint64_t)next << 32 | next, .next = next };
    assert_true(cfi_batch_is_empty(&b));
    fill(&b, 0, 8);
    assert_false(cfi_batch_is_empty(&b));
    assert_pops(&b, 0, 1);
    assert_steals(&b, 4, 8);
    assert_pops(&b, 1, 4);
    assert_null(cfi_batch_pop(&b));
    fill(&b, 0, CFI_BATCH);
    assert_pops(&b, 0, CFI_BATCH);
}

/* A thief that read the slots before they were filled anew does not get what it read. */
static void test_a_former_word_does_not_come_back(void **state)
{
    (void)state;
    struct cfi_batch b = { 0 };
    fill(&b, 0, 4);
    uint64_t seen = atomic_load(&b.word);
    assert_pops(&b, 0, 4);
    fill(&b, 4, 8);
    assert_int_not_equal(atomic_load(&b.word), seen);
    assert_pops(&b, 4, 8);
}

/* ---- many threads ---- */

enum { THIEVES = 2, ALL = 1 << 19 };

static struct {
    struct cfi_batch batch;
    char things[ALL];
    atomic_uchar taken[ALL];
    atomic_bool over;
} shared;

static void take(const cf_future *f)
{
    const char *it = (const char *)(const void *)f;
    CHECK(*it == 1); /* what was written before the batch was filled */
    CHECK(atomic_fetch_add(&shared.taken[it - shared.things], 1) == 0);
}

static void *steal_until_over(void *data)
{
    (void)data;
    while (!atomic_load(&shared.over)) {
        cf_future *tasks[CFI_BATCH];
        uint32_t count = cfi_batch_steal(&shared.batch, tasks);
        for (uint32_t i = 0; i < count; i++)
            take(tasks[i]);
    }
    return NULL;
}

static void *fill_and_pop(void *data)
{
    (void)data;
    for (unsigned begun = 0, size = 1; begun < ALL; size = size % CFI_BATCH + 1) {
        cf_future *tasks[CFI_BATCH], *f;
        uint32_t count = 0;
        for (; count < size && begun < ALL; begun++) {
            shared.things[begun] = 1;
            tasks[count++] = (cf_future *)(void *)&shared.things[begun];
        }
        cfi_batch_fill(&shared.batch, tasks, count);
        while ((f = cfi_batch_pop(&shared.batch)))
            take(f);
        CHECK(cfi_batch_is_empty(&shared.batch));
    }
    atomic_store(&shared.over, true);
    return NULL;
}

static void test_each_is_taken_once(void **state)
{
    (void)state;
    pthread_t threads[THIEVES + 1];
    for (int i = 0; i <= THIEVES; i++)
        threads[i] = start_thread(i < THIEVES ? steal_until_over : fill_and_pop, NULL);
    for (int i = 0; i <= THIEVES; i++)
        join_thread(threads[i]);
    assert_checks();
    for (int i = 0; i < ALL; i++)
        assert_int_equal(atomic_load(&shared.taken[i]), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_batch),
        cmocka_unit_test(test_the_owner_takes_the_first),
        cmocka_unit_test(test_a_thief_takes_the_later_half),
        cmocka_unit_test(test_a_full_batch_is_halved),
        cmocka_unit_test(test_positions_overflow),
        cmocka_unit_test(test_a_former_word_does_not_come_back),
        cmocka_unit_test(test_each_is_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
