/* SPDX-License-Identifier: MIT */
/* Arguments and results of every size, both ways, kept, unread and in a crowd; with CFUTURES_LONG
 * beyond 4 GiB too. */
#define _GNU_SOURCE
#include "process_support.h"

/* ---- patterns ---- */

/* Fills, and checks, eight bytes at a time: the largest are gigabytes. */
static uint64_t pattern(uint64_t seed, size_t at)
{
    return (seed + at) * UINT64_C(0x9E3779B97F4A7C15);
}

static void fill(void *data, size_t size, uint64_t seed)
{
    char *to = data;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t value = pattern(seed, at);
        memcpy(to + at, &value, size - at < 8 ? size - at : 8);
    }
}

static bool is_filled(const void *data, size_t size, uint64_t seed)
{
    const char *from = data;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t value = pattern(seed, at);
        if (memcmp(from + at, &value, size - at < 8 ? size - at : 8) != 0)
            return false;
    }
    return true;
}

static const size_t sizes[] = { 0,       1,       2,       8,       79,      80,
                                81,      95,      96,      97,      255,     256,
                                257,     4095,    4096,    4097,    65519,   65520,
                                65535,   65536,   65537,   262143,  262144,  262145,
                                1000000, 1048576, 1048577, 4194304, 9000001, 16777216 };

/* ---- bytes there and back ---- */

/* The argument: how many bytes to answer, and then bytes by that as seed. */
struct order {
    size_t answer;
    uint64_t seed;
};

static int answer_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    const struct order *order = arg;
    if ((uintptr_t)arg % 16 != 0)
        return cf_raise(1, "the argument is not aligned");
    if (!is_filled(order + 1, arg_size - sizeof *order, order->seed))
        return cf_raise(2, "the argument of %zu bytes is damaged", arg_size);
    if (cf_bytes_resize(result, order->answer) != CF_OK)
        return cf_raise(3, "%s", cf_last_error()->message);
    fill(result->data, result->size, order->seed + 1);
    return 0;
}

static cf_future *submit_order(cf_executor *pool, size_t there, size_t back, uint64_t seed)
{
    cf_future *f = NULL;
    struct order *order = malloc(sizeof *order + there);
    assert_non_null(order);
    *order = (struct order){ back, seed };
    fill(order + 1, there, seed);
    assert_int_equal(cf_submit_bytes(pool, answer_bytes, order, sizeof *order + there, &f), CF_OK);
    free(order);
    return f;
}

static void assert_answer(cf_future *f, size_t back, uint64_t seed)
{
    const void *data = NULL;
    size_t size = 1;
    cf_status status = cf_future_peek(f, LIMIT, &data, &size);
    if (status != CF_OK)
        fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
    assert_int_equal(size, back);
    assert_int_equal((uintptr_t)data % 16, 0);
    assert_true(is_filled(data, size, seed + 1));
    cf_future_unref(f);
}

static void test_bytes_of_every_size(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        cf_future *there = submit_order(pool, sizes[i], 3, i),
                  *back = submit_order(pool, 3, sizes[i], i),
                  *both = submit_order(pool, sizes[i], sizes[i], i);
        assert_answer(there, 3, i);
        assert_answer(back, sizes[i], i);
        assert_answer(both, sizes[i], i);
    }
    end_pool(pool);
}

/* ---- fixed sizes ---- */

struct fixed {
    size_t arg_size, result_size;
    uint64_t seed;
};

static int answer_fixed(const void *arg, void *result)
{
    const struct fixed *fixed = arg;
    if ((uintptr_t)arg % 16 != 0 || (fixed->result_size > 8 && (uintptr_t)result % 16 != 0))
        return cf_raise(1, "not aligned");
    if (!is_filled(fixed + 1, fixed->arg_size - sizeof *fixed, fixed->seed))
        return cf_raise(2, "the argument of %zu bytes is damaged", fixed->arg_size);
    fill(result, fixed->result_size, fixed->seed + 1);
    return 0;
}

static void test_fixed_results_of_every_size(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        size_t arg_size = sizeof(struct fixed) + sizes[COUNT_OF(sizes) - 1 - i], size = 1;
        struct fixed *fixed = malloc(arg_size);
        const void *data = NULL;
        assert_non_null(fixed);
        *fixed = (struct fixed){ arg_size, sizes[i], i };
        fill(fixed + 1, arg_size - sizeof *fixed, i);
        cf_future *f = submitted(pool, answer_fixed, fixed, arg_size, sizes[i]);
        free(fixed);
        assert_int_equal(cf_future_peek(f, LIMIT, &data, &size), CF_OK);
        assert_int_equal(size, sizes[i]);
        assert_true(is_filled(data, size, i + 1));
        cf_future_unref(f);
    }
    end_pool(pool);
}

/* ---- crowds ---- */

/* Both sides are full at once and nobody reads: nothing gets stuck, nothing is lost. */
static void crowd(cf_executor *pool, size_t count, size_t there, size_t back)
{
    cf_future **f = calloc(count, sizeof *f);
    assert_non_null(f);
    for (size_t i = 0; i < count; i++)
        f[i] = submit_order(pool, there, back, i);
    assert_int_equal(cf_wait(f, count, CF_ALL_COMPLETED, LIMIT, NULL), CF_OK);
    for (size_t i = 0; i < count; i++)
        assert_answer(f[i], back, i);
    free(f);
}

static void test_crowds_of_large_ones(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    crowd(pool, 2000, 1000, 1000);
    crowd(pool, 500, 60000, 60000);
    crowd(pool, 300, 100, 65536);
    crowd(pool, 100, 200000, 200000);
    crowd(pool, 40, 2000000, 3000000);
    crowd(pool, 3000, 100, 0);
    end_pool(pool);
}

static void test_sizes_mixed(void **unused)
{
    (void)unused;
    enum { TASKS = 600 };
    static cf_future *f[TASKS];
    size_t back[TASKS];
    cf_executor *pool = processes_of(2);
    for (size_t i = 0; i < TASKS; i++) {
        back[i] = sizes[(i * 7) % (COUNT_OF(sizes) - 4)];
        f[i] = submit_order(pool, sizes[(i * 11) % (COUNT_OF(sizes) - 4)], back[i], i);
    }
    for (size_t i = TASKS; i-- > 0;)
        assert_answer(f[i], back[i], i);
    end_pool(pool);
}

/* ---- who owns them ---- */

static void test_bytes_outlive_their_pool(void **unused)
{
    (void)unused;
    enum { KEPT = 40 };
    static const size_t kept_sizes[] = { 10, 5000, 300000, 2000000 };
    cf_bytes bytes[KEPT];
    cf_future *last = NULL;
    cf_executor *pool = processes_of(2);
    for (size_t i = 0; i < KEPT; i++) {
        cf_future *f = submit_order(pool, 10, kept_sizes[i % 4], i);
        assert_int_equal(cf_future_take(f, LIMIT, &bytes[i], sizeof bytes[i]), CF_OK);
        assert_int_equal(bytes[i].size, kept_sizes[i % 4]);
        cf_future_unref(f);
    }
    last = submit_order(pool, 10, 700000, 1);
    end_pool(pool);
    assert_answer(last, 700000, 1);
    for (size_t i = 0; i < KEPT; i++) {
        size_t size = bytes[i].size;
        assert_true(is_filled(bytes[i].data, size, i + 1));
        fill(bytes[i].data, size, 77); /* they are ours to write */
        assert_int_equal(cf_bytes_resize(&bytes[i], i % 2 ? size * 3 : size / 3), CF_OK);
        assert_true(is_filled(bytes[i].data, i % 2 ? size : size / 3 / 8 * 8, 77));
        cf_bytes_free(&bytes[i]);
    }
}

/* Written after it was shown: another task's answer must not change it. */
static void test_answers_do_not_share_memory(void **unused)
{
    (void)unused;
    enum { KEPT = 30 };
    cf_future *f[KEPT];
    cf_executor *pool = processes_of(1);
    for (size_t i = 0; i < KEPT; i++) {
        f[i] = submit_order(pool, 10, 400000, i);
        assert_int_equal(cf_future_result(f[i], LIMIT, NULL, 0), CF_OK);
    }
    for (size_t i = 0; i < 50; i++)
        assert_answer(submit_order(pool, 10, 400000, 1000 + i), 400000, 1000 + i);
    for (size_t i = 0; i < KEPT; i++)
        assert_answer(f[i], 400000, i);
    end_pool(pool);
}

static int resize_often(const void *arg, size_t arg_size, cf_bytes *result)
{
    static const size_t steps[] = { 10, 100, 100000, 50, 300000, 3000000, 2000000, 0, 400000 };
    cf_bytes other = { NULL, 0 };
    (void)arg, (void)arg_size;
    size_t kept = 0;
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        if (cf_bytes_resize(result, steps[i]) != CF_OK ||
            cf_bytes_resize(&other, steps[i]) != CF_OK)
            return 1;
        kept = kept < steps[i] ? kept : steps[i];
        if (!is_filled(result->data, kept / 8 * 8, 5) || !is_filled(other.data, kept / 8 * 8, 6))
            return cf_raise(2, "step %zu", i);
        fill(result->data, result->size, 5);
        fill(other.data, other.size, 6);
        kept = steps[i];
    }
    cf_bytes_free(&other);
    return 0;
}

static int free_the_result(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    if (cf_bytes_resize(result, 500000) != CF_OK)
        return 1;
    cf_bytes_free(result);
    return 0;
}

/* Given on from one task to the next, or kept for ever. */
static int keep_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    static cf_bytes kept;
    (void)arg, (void)arg_size;
    *result = kept;
    kept = (cf_bytes){ NULL, 0 };
    if (cf_bytes_resize(&kept, 300000) != CF_OK)
        return 1;
    fill(kept.data, kept.size, 9);
    return 0;
}

static int resize_and_fail(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    return cf_bytes_resize(result, 500000) == CF_OK ? cf_raise(4, "after all") : 5;
}

static void assert_bytes_task(cf_executor *pool, cf_bytes_fn *fn, cf_status status, size_t size,
                              uint64_t seed)
{
    cf_future *f = NULL;
    const void *data = NULL;
    size_t has = 0;
    assert_int_equal(cf_submit_bytes(pool, fn, NULL, 0, &f), CF_OK);
    assert_int_equal(cf_future_peek(f, LIMIT, &data, &has), status);
    if (status == CF_OK) {
        assert_int_equal(has, size);
        assert_true(is_filled(data, size, seed));
    }
    cf_future_unref(f);
}

static void test_bytes_in_a_worker(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    for (int i = 0; i < 20; i++) {
        assert_bytes_task(pool, resize_often, CF_OK, 400000, 5);
        assert_bytes_task(pool, free_the_result, CF_OK, 0, 0);
        assert_bytes_task(pool, keep_bytes, CF_OK, i == 0 ? 0 : 300000, 9);
        assert_bytes_task(pool, resize_and_fail, CF_FAILED, 0, 0);
    }
    end_pool(pool);
}

/* What was sent is not to be written on by who receives it; here that is a crash of its own. */
static int write_on_argument(const void *arg, void *result)
{
    (void)result;
    signal(SIGSEGV, SIG_DFL);
    ((volatile char *)(uintptr_t)arg)[100000] = 1;
    return 0;
}

static void test_large_arguments_are_read_only(void **unused)
{
    (void)unused;
    enum { SIZE = 200000 };
    char *bytes = calloc(1, SIZE);
    assert_non_null(bytes);
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, write_on_argument, bytes, SIZE, 0);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
    assert_int_equal(cf_future_exception(f)->signal_number, SIGSEGV);
    cf_future_unref(f);
    assert_works(pool);
    free(bytes);
    end_pool(pool);
}

/* ---- memory that comes back ---- */

/* AddressSanitizer keeps what was freed, up to 256 MiB of it. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_FREED_MEMORY true
#elif defined(__has_feature)
#define KEEPS_FREED_MEMORY __has_feature(address_sanitizer)
#else
#define KEEPS_FREED_MEMORY false
#endif

static long resident_kib(void)
{
    long pages = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld %ld", &pages, &shared), 2);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void test_memory_does_not_grow(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    for (size_t i = 0; i < 100; i++)
        assert_answer(submit_order(pool, 1000000, 1000000, i), 1000000, i);
    long before = resident_kib();
    unsigned descriptors = entries_of("/proc/self/fd");
    for (size_t i = 0; i < 500; i++)
        assert_answer(submit_order(pool, 1000000 + i, 1000000 - i, i), 1000000 - i, i);
    if (!KEEPS_FREED_MEMORY)
        assert_true(resident_kib() < before + 64 * 1024);
    assert_true(entries_of("/proc/self/fd") <= descriptors + 16);
    end_pool(pool);
}

/* ---- beyond 32 bits ---- */

static void test_gigabytes(void **unused)
{
    (void)unused;
    static const size_t large[] = { ((size_t)1 << 31) - 1, (size_t)1 << 31, ((size_t)1 << 32) + 1 };
    if (!is_long_run())
        skip();
    cf_executor *pool = processes_of(1);
    for (size_t i = 0; i < COUNT_OF(large); i++) {
        alarm(600);
        cf_future *f = submit_order(pool, large[i], 5, i);
        assert_int_equal(cf_future_result(f, CF_FOREVER, NULL, 0), CF_OK);
        assert_answer(f, 5, i);
        f = submit_order(pool, 5, large[i], i);
        assert_int_equal(cf_future_result(f, CF_FOREVER, NULL, 0), CF_OK);
        assert_answer(f, large[i], i);
    }
    end_pool(pool);
}

int main(void)
{
    begin_process_tests();
    const struct CMUnitTest tests[] = {
        TALLIED(test_bytes_of_every_size),      TALLIED(test_fixed_results_of_every_size),
        TALLIED(test_crowds_of_large_ones),     TALLIED(test_sizes_mixed),
        TALLIED(test_bytes_outlive_their_pool), TALLIED(test_answers_do_not_share_memory),
        TALLIED(test_bytes_in_a_worker),        TALLIED(test_large_arguments_are_read_only),
        TALLIED(test_memory_does_not_grow),     TALLIED(test_gigabytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
