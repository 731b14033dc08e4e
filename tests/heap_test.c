/* SPDX-License-Identifier: MIT */
/* The heap: highest priority first, first come first served among equals. */
#define _GNU_SOURCE
#include "support.h"

#include "core/heap.h"

enum { MANY = 2000 };
static char things[MANY];

static cf_future *thing(int i)
{
    return (cf_future *)(void *)&things[i];
}

static void put(struct cfi_heap *heap, int i, int64_t priority)
{
    assert_int_equal(cfi_heap_put(heap, thing(i), priority), CF_OK);
}

static void assert_counts(struct cfi_heap *heap, size_t urgent, size_t background)
{
    assert_int_equal(atomic_load(&heap->urgent), urgent);
    assert_int_equal(atomic_load(&heap->background), background);
}

/* ---- one thread ---- */

static void test_an_empty_heap(void **state)
{
    (void)state;
    struct cfi_heap heap = { 0 };
    assert_null(cfi_heap_take(&heap, false));
    assert_null(cfi_heap_take(&heap, true));
    assert_counts(&heap, 0, 0);
    cfi_heap_destroy(&heap);
}

static void test_the_highest_comes_first(void **state)
{
    (void)state;
    static const int64_t priorities[] = { 3, INT64_MIN, 5, INT64_MAX, -1, 4, -7 };
    static const int order[] = { 3, 2, 5, 0, 4, 6, 1 };
    struct cfi_heap heap = { 0 };
    for (int i = 0; i < (int)COUNT_OF(priorities); i++)
        put(&heap, i, priorities[i]);
    assert_counts(&heap, 4, 3);
    for (size_t i = 0; i < COUNT_OF(order); i++)
        assert_ptr_equal(cfi_heap_take(&heap, false), thing(order[i]));
    assert_null(cfi_heap_take(&heap, false));
    assert_counts(&heap, 0, 0);
    cfi_heap_destroy(&heap);
}

static void test_equals_are_served_as_they_came(void **state)
{
    (void)state;
    struct cfi_heap heap = { 0 };
    for (int i = 0; i < 300; i++)
        put(&heap, i, i % 3 + 1);
    for (int priority = 3; priority >= 1; priority--) {
        for (int i = priority - 1; i < 300; i += 3)
            assert_ptr_equal(cfi_heap_take(&heap, true), thing(i));
    }
    cfi_heap_destroy(&heap);
}

static void test_only_the_urgent(void **state)
{
    (void)state;
    struct cfi_heap heap = { 0 };
    put(&heap, 0, -1);
    put(&heap, 1, 1);
    assert_ptr_equal(cfi_heap_take(&heap, true), thing(1));
    assert_null(cfi_heap_take(&heap, true));
    assert_counts(&heap, 0, 1);
    assert_ptr_equal(cfi_heap_take(&heap, false), thing(0));
    cfi_heap_destroy(&heap);
}

static void test_closed(void **state)
{
    (void)state;
    struct cfi_heap heap = { 0 };
    put(&heap, 0, 1);
    cfi_heap_close(&heap);
    assert_int_equal(cfi_heap_put(&heap, thing(1), 1), CF_SHUTDOWN);
    assert_counts(&heap, 1, 0);
    assert_ptr_equal(cfi_heap_take(&heap, true), thing(0));
    assert_null(cfi_heap_take(&heap, false));
    cfi_heap_destroy(&heap);
}

/* Puts and takes at random, against a search through all that is there. */
struct model {
    int64_t priority[MANY];
    bool there[MANY];
};

static int first_of(const struct model *m, int count)
{
    int first = -1;
    for (int i = 0; i < count; i++) {
        if (m->there[i] && (first < 0 || m->priority[i] > m->priority[first]))
            first = i;
    }
    return first;
}

static void test_at_random(void **state)
{
    (void)state;
    static struct model m;
    struct cfi_heap heap = { 0 };
    uint32_t random = 1;
    for (int count = 0; count < MANY;) {
        random = random * 1664525 + 1013904223;
        if (random >> 30) { /* three of four */
            m.priority[count] = (int64_t)(random >> 16) % 17 - 8;
            m.there[count] = true;
            put(&heap, count, m.priority[count]);
            count++;
        } else {
            int first = first_of(&m, count);
            cf_future *f = cfi_heap_take(&heap, false);
            assert_ptr_equal(f, first < 0 ? NULL : thing(first));
            if (first >= 0)
                m.there[first] = false;
        }
    }
    for (int first; (first = first_of(&m, MANY)) >= 0; m.there[first] = false)
        assert_ptr_equal(cfi_heap_take(&heap, false), thing(first));
    assert_null(cfi_heap_take(&heap, false));
    cfi_heap_destroy(&heap);
}

/* ---- many threads ---- */

enum { PUTTERS = 2, TAKERS = 2, EACH = 40000 };

static struct {
    struct cfi_heap heap;
    char things[PUTTERS * EACH];
    atomic_uchar taken[PUTTERS * EACH];
    atomic_int putters, left;
} shared;

static void *put_each(void *data)
{
    (void)data;
    char *mine = shared.things + (size_t)atomic_fetch_add(&shared.putters, 1) * EACH;
    for (int i = 0; i < EACH; i++)
        CHECK(cfi_heap_put(&shared.heap, (cf_future *)(void *)(mine + i), i % 7 - 3) == CF_OK);
    return NULL;
}

static void *take_all(void *data)
{
    (void)data;
    while (atomic_load(&shared.left) > 0) {
        cf_future *f = cfi_heap_take(&shared.heap, atomic_load(&shared.heap.urgent) > 0);
        if (!f)
            continue;
        CHECK(atomic_fetch_add(&shared.taken[(char *)(void *)f - shared.things], 1) == 0);
        atomic_fetch_sub(&shared.left, 1);
    }
    return NULL;
}

static void test_each_is_taken_once(void **state)
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
    assert_counts(&shared.heap, 0, 0);
    cfi_heap_destroy(&shared.heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_heap),
        cmocka_unit_test(test_the_highest_comes_first),
        cmocka_unit_test(test_equals_are_served_as_they_came),
        cmocka_unit_test(test_only_the_urgent),
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_at_random),
        cmocka_unit_test(test_each_is_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
