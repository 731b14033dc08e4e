/* SPDX-License-Identifier: MIT */
/* Blocks: apart from each other, aligned, recycled within a thread, between threads, and when one
 * ends.  Sizes are those of futures: never 0. */
#define _GNU_SOURCE
#include "support.h"

#include "base/atomics.h"
#include "base/blocks.h"

/* Builds that use malloc instead: what is reused, and when, is malloc's affair there. */
#if defined(CFI_ASAN) || (defined(CFI_DEBUG) && !defined(CFI_TSAN))
#define PLAIN_MALLOC 1
#endif

enum { CACHED_MAX = CFI_BLOCK_STEP * CFI_BLOCK_CLASSES };

static int compare_addresses(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

static size_t count_different(uintptr_t *addresses, size_t count)
{
    qsort(addresses, count, sizeof *addresses, compare_addresses);
    size_t different = count > 0;
    for (size_t i = 1; i < count; i++)
        different += addresses[i] != addresses[i - 1];
    return different;
}

/* ---- one thread ---- */

static void test_capacity_is_a_multiple_of_the_step(void **state)
{
    (void)state;
    assert_int_equal(cfi_block_capacity(1), CFI_BLOCK_STEP);
    assert_int_equal(cfi_block_capacity(CFI_BLOCK_STEP), CFI_BLOCK_STEP);
    assert_int_equal(cfi_block_capacity(CFI_BLOCK_STEP + 1), 2 * CFI_BLOCK_STEP);
    assert_int_equal(cfi_block_capacity(CACHED_MAX), CACHED_MAX);
}

static const size_t sizes[] = {
    1, 31, 32, 33, 96, 100, 512, 992, 993, 1023, 1024, 1025, 5000, 70000
};

static bool is_filled(const unsigned char *block, size_t size, unsigned char with)
{
    for (size_t i = 0; i < size; i++) {
        if (block[i] != with)
            return false;
    }
    return true;
}

/* All sizes at once, several magazines of each, and every byte of what each really holds. */
static void test_blocks_lie_apart(void **state)
{
    (void)state;
    enum { EACH = 200 };
    static unsigned char *blocks[COUNT_OF(sizes)][EACH];
    for (size_t i = 0; i < EACH; i++) {
        for (size_t s = 0; s < COUNT_OF(sizes); s++) {
            blocks[s][i] = cfi_block_new(sizes[s]);
            assert_non_null(blocks[s][i]);
            assert_int_equal((uintptr_t)blocks[s][i] % _Alignof(max_align_t), 0);
            size_t holds = sizes[s] > CACHED_MAX ? sizes[s] : cfi_block_capacity(sizes[s]);
            memset(blocks[s][i], (int)((i + s) % 251), holds);
        }
    }
    for (size_t s = 0; s < COUNT_OF(sizes); s++) {
        for (size_t i = 0; i < EACH; i++) {
            assert_true(is_filled(blocks[s][i], sizes[s], (unsigned char)((i + s) % 251)));
            cfi_block_free(blocks[s][i], sizes[s]);
        }
    }
}

static void skip_if_malloced(void)
{
#ifdef PLAIN_MALLOC
    skip();
#endif
}

static void test_a_thread_reuses_its_blocks(void **state)
{
    (void)state;
    enum { LIVE = 300, ROUNDS = 50 };
    static uintptr_t addresses[LIVE * ROUNDS];
    skip_if_malloced();
    for (size_t round = 0; round < ROUNDS; round++) {
        uintptr_t *live = addresses + round * LIVE;
        for (size_t i = 0; i < LIVE; i++)
            live[i] = (uintptr_t)cfi_block_new(128);
        for (size_t i = 0; i < LIVE; i++)
            cfi_block_free((void *)live[i], 128);
    }
    assert_in_range(count_different(addresses, COUNT_OF(addresses)), LIVE, 2 * LIVE);
}

/* ---- from one thread to another ---- */

enum { BATCH = 500, BATCHES = 200 };

static struct {
    struct start_line line;
    uintptr_t *full; /* of the batch that is on its way */
    uintptr_t addresses[BATCH * BATCHES];
} belt = { .line = { .parties = 2 } };

static void *free_batches(void *data)
{
    (void)data;
    for (int b = 0; b < BATCHES; b++) {
        line_up(&belt.line);
        for (int i = 0; i < BATCH; i++) {
            const uint64_t *block = (void *)belt.full[i];
            CHECK(*block == (uint64_t)i);
            cfi_block_free((void *)belt.full[i], 64);
        }
        line_up(&belt.line);
    }
    return NULL;
}

/* What one thread takes and another gives back comes round through the depot. */
static void test_blocks_come_round(void **state)
{
    (void)state;
    pthread_t consumer = start_thread(free_batches, NULL);
    for (int b = 0; b < BATCHES; b++) {
        belt.full = belt.addresses + (size_t)b * BATCH;
        for (int i = 0; i < BATCH; i++) {
            uint64_t *block = cfi_block_new(64);
            CHECK(block != NULL);
            *block = (uint64_t)i;
            belt.full[i] = (uintptr_t)block;
        }
        line_up(&belt.line);
        line_up(&belt.line);
    }
    join_thread(consumer);
    assert_checks();
    skip_if_malloced();
    assert_in_range(count_different(belt.addresses, COUNT_OF(belt.addresses)), BATCH, 4 * BATCH);
}

struct sharing {
    struct start_line line;
    atomic_uint mark;
};

static void *take_and_give(void *data)
{
    struct sharing *s = data;
    unsigned char *blocks[100];
    unsigned char mark = (unsigned char)atomic_fetch_add(&s->mark, 1);
    line_up(&s->line);
    for (unsigned round = 0; round < 500; round++) {
        size_t size = 640 + (round + mark) % 8 * 32; /* each begins with another one */
        for (size_t i = 0; i < COUNT_OF(blocks); i++) {
            blocks[i] = cfi_block_new(size);
            memset(blocks[i], mark, size);
        }
        for (size_t i = 0; i < COUNT_OF(blocks); i++) {
            CHECK(is_filled(blocks[i], size, mark));
            cfi_block_free(blocks[i], size);
        }
    }
    return NULL;
}

static void test_threads_do_not_share_blocks(void **state)
{
    (void)state;
    struct sharing s = { .line = { .parties = 4 } };
    run_on_threads(4, take_and_give, &s);
    assert_checks();
}

/* ---- a thread's end ---- */

enum { SHORT_THREADS = 1000, BLOCKS_EACH = 200, TO_MAIN = BLOCKS_EACH / 2 };

static void *take_many(void *data)
{
    uintptr_t *addresses = data;
    for (int i = 0; i < BLOCKS_EACH; i++)
        addresses[i] = (uintptr_t)cfi_block_new(192);
    for (int i = TO_MAIN; i < BLOCKS_EACH; i++)
        cfi_block_free((void *)addresses[i], 192);
    return NULL;
}

static void test_a_thread_that_ends_leaves_its_blocks(void **state)
{
    (void)state;
    static uintptr_t addresses[SHORT_THREADS * BLOCKS_EACH];
    skip_if_malloced();
    for (int t = 0; t < SHORT_THREADS; t++) {
        uintptr_t *own = addresses + t * BLOCKS_EACH;
        join_thread(start_thread(take_many, own));
        for (int i = 0; i < TO_MAIN; i++)
            cfi_block_free((void *)own[i], 192);
    }
    assert_in_range(count_different(addresses, COUNT_OF(addresses)), BLOCKS_EACH, 5 * BLOCKS_EACH);
}

static void *take_a_few(void *data)
{
    uintptr_t *addresses = data;
    for (int i = 0; i < 10; i++)
        addresses[i] = (uintptr_t)cfi_block_new(320);
    return NULL;
}

/* Its unused memory goes to others, without what is still in use. */
static void test_what_it_leaves_lies_apart(void **state)
{
    (void)state;
    uintptr_t addresses[600];
    for (size_t i = 0; i < 100; i += 10)
        join_thread(start_thread(take_a_few, addresses + i));
    for (size_t i = 100; i < COUNT_OF(addresses); i++)
        addresses[i] = (uintptr_t)cfi_block_new(320);
    qsort(addresses, COUNT_OF(addresses), sizeof *addresses, compare_addresses);
    for (size_t i = 1; i < COUNT_OF(addresses); i++)
        assert_true(addresses[i] - addresses[i - 1] >= 320);
    for (size_t i = 0; i < COUNT_OF(addresses); i++)
        cfi_block_free((void *)addresses[i], 320);
}

static void *take_one(void *data)
{
    *(uintptr_t *)data = (uintptr_t)cfi_block_new(416);
    return NULL;
}

/* Also what it never took: threads that take one block each share their pages. */
static void test_it_leaves_what_it_did_not_use(void **state)
{
    (void)state;
    uintptr_t addresses[64], pages[64];
    for (size_t i = 0; i < COUNT_OF(addresses); i++)
        join_thread(start_thread(take_one, &addresses[i]));
    for (size_t i = 0; i < COUNT_OF(addresses); i++) {
        pages[i] = addresses[i] / 4096;
        cfi_block_free((void *)addresses[i], 416);
    }
    skip_if_malloced();
    assert_in_range(count_different(pages, COUNT_OF(pages)), 1, 20);
}

/* ---- fork ---- */

static void *take_and_give_until(void *stop)
{
    while (!atomic_load((atomic_bool *)stop))
        cfi_block_free(cfi_block_new(256), 256);
    return NULL;
}

/* With the locks taken no thread is inside, and both sides go on when they are given back. */
static void test_all_locks_can_be_held(void **state)
{
    (void)state;
    atomic_bool stop = false;
    pthread_t other = start_thread(take_and_give_until, &stop);
    for (int i = 0; i < 1000; i++) {
        cfi_blocks_lock_all();
        cfi_blocks_unlock_all();
    }
    atomic_store(&stop, true);
    join_thread(other);
    cfi_block_free(cfi_block_new(256), 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capacity_is_a_multiple_of_the_step),
        cmocka_unit_test(test_blocks_lie_apart),
        cmocka_unit_test(test_a_thread_reuses_its_blocks),
        cmocka_unit_test(test_blocks_come_round),
        cmocka_unit_test(test_threads_do_not_share_blocks),
        cmocka_unit_test(test_a_thread_that_ends_leaves_its_blocks),
        cmocka_unit_test(test_what_it_leaves_lies_apart),
        cmocka_unit_test(test_it_leaves_what_it_did_not_use),
        cmocka_unit_test(test_all_locks_can_be_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
