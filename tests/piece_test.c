/* SPDX-License-Identifier: MIT */
/* Pieces of a map as bytes: there and back in one process, and bytes that are none. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>

#include "core/map.h"
#include "wire/piece.h"

/* AddressSanitizer would rather end the program than let malloc return NULL. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- the journey ---- */

/* Where it begins and ends, in memory that ends where the bytes do. */
struct parcel {
    unsigned char *data;
    size_t size;
};

static struct parcel pack(const struct cfi_map_work *work, size_t begin, size_t count,
                          bool is_shared)
{
    struct parcel p = { .size = cfi_piece_size(work, begin, count, is_shared) };
    p.data = malloc(p.size);
    assert_non_null(p.data);
    cfi_piece_write(work, begin, count, is_shared, p.data);
    return p;
}

static cf_bytes answer_to(const struct cfi_map_work *work, size_t begin, size_t count,
                          const void *shared)
{
    struct parcel p = pack(work, begin, count, shared);
    cf_bytes answer = { NULL, 0 };
    assert_int_equal(
        cfi_piece_run((cfi_function *)work->call.fn, p.data, p.size, shared, NULL, &answer), 0);
    free(p.data);
    return answer;
}

static struct cfi_piece_end travel(const struct cfi_map_work *work, size_t begin, size_t count,
                                   const void *shared)
{
    struct cfi_piece_end end;
    cf_bytes answer = answer_to(work, begin, count, shared);
    assert_true(cfi_piece_read(work, begin, count, &answer, &end));
    cf_bytes_free(&answer);
    assert_checks();
    return end;
}

static void assert_all_done(struct cfi_piece_end end, size_t count)
{
    assert_int_equal(end.status, CF_OK);
    assert_int_equal(end.done, count);
    assert_true(end.took >= 0);
    assert_string_equal(end.text, "");
}

static void assert_failed(struct cfi_piece_end end, size_t done, int code, const char *text)
{
    assert_int_equal(end.status, CF_FAILED);
    assert_int_equal(end.done, done);
    assert_int_equal(end.code, code);
    assert_int_equal(end.pid, getpid());
    assert_string_equal(end.text, text);
}

/* ---- elements of one size ---- */

static struct cfi_map_work map_of(cf_fn *fn, const void *args, size_t count, size_t arg_size,
                                  void *results, size_t result_size)
{
    return (struct cfi_map_work){ .kind = CFI_MAP_FN,
                                  .name = "cf_map",
                                  .call.fn = fn,
                                  .args = args,
                                  .results = results,
                                  .count = count,
                                  .arg_size = arg_size,
                                  .result_size = result_size };
}

static int square(const void *arg, void *result)
{
    int x = *(const int *)arg;
    CHECK((uintptr_t)arg % sizeof(int) == 0 && (uintptr_t)result % sizeof(int64_t) == 0);
    *(int64_t *)result = (int64_t)x * x;
    return 0;
}

enum { COUNT = 20 };
static int numbers[COUNT];
static int64_t results[COUNT];

static void set_up_numbers(void)
{
    for (int i = 0; i < COUNT; i++) {
        numbers[i] = i;
        results[i] = -1;
    }
}

static void test_elements(void **state)
{
    (void)state;
    set_up_numbers();
    struct cfi_map_work work = map_of(square, numbers, COUNT, sizeof(int), results, 8);
    assert_all_done(travel(&work, 5, 7, NULL), 7);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(results[i], i >= 5 && i < 12 ? i * i : -1);
}

static int calls;

static int expect_nulls(const void *arg, void *result)
{
    CHECK(arg == NULL && result == NULL);
    calls++;
    return 0;
}

static void test_nothing_but_calls(void **state)
{
    (void)state;
    calls = 0;
    struct cfi_map_work work = map_of(expect_nulls, NULL, 1000, 0, NULL, 0);
    assert_all_done(travel(&work, 100, 900, NULL), 900);
    assert_int_equal(calls, 900);
}

static int fail_at_7(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int64_t *)result = x;
    calls++;
    if (x == 6)
        (void)cf_raise(1, "this was nothing");
    return x == 7 ? cf_raise(x, "%d is too much", x) : 0;
}

static void test_stops_at_the_first_failure(void **state)
{
    (void)state;
    set_up_numbers();
    calls = 0;
    struct cfi_map_work work = map_of(fail_at_7, numbers, COUNT, sizeof(int), results, 8);
    assert_failed(travel(&work, 3, 10, NULL), 4, 7, "7 is too much");
    assert_int_equal(calls, 5);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(results[i], i >= 3 && i < 7 ? i : -1);
}

static int fail_wordless(const void *arg, void *result)
{
    (void)result;
    if (*(const int *)arg == 0)
        (void)cf_raise(1, "this was nothing");
    return *(const int *)arg == 1 ? -5 : 0;
}

static void test_nobody_is_blamed_for_another(void **state)
{
    (void)state;
    set_up_numbers();
    struct cfi_map_work work = map_of(fail_wordless, numbers, COUNT, sizeof(int), NULL, 0);
    assert_failed(travel(&work, 0, 3, NULL), 1, -5, "the task returned a non-zero code");
}

static int say_much(const void *arg, void *result)
{
    (void)arg, (void)result;
    char text[2000];
    memset(text, 'x', sizeof text);
    return cf_raise(1, "%.*s", (int)sizeof text, text);
}

static void test_long_text_is_cut(void **state)
{
    (void)state;
    struct cfi_map_work work = map_of(say_much, NULL, 1, 0, NULL, 0);
    struct cfi_piece_end end = travel(&work, 0, 1, NULL);
    assert_int_equal(strlen(end.text), 511);
    assert_int_equal(strspn(end.text, "x"), 511);
}

static int destroyed;

static void destroy(void *object)
{
    CHECK(object == &destroyed);
    destroyed++;
}

static int raise_object(const void *arg, void *result)
{
    (void)result;
    int code = cf_raise_object(3, &destroyed, destroy);
    return *(const int *)arg == 2 ? code : 0;
}

static void test_raised_objects_stay_behind(void **state)
{
    (void)state;
    set_up_numbers();
    destroyed = 0;
    struct cfi_map_work work = map_of(raise_object, numbers, COUNT, sizeof(int), NULL, 0);
    assert_failed(travel(&work, 0, COUNT, NULL), 2, 3, "the task returned a non-zero code");
    assert_int_equal(destroyed, 3);
}

static void test_no_memory_for_results(void **state)
{
    (void)state;
    calls = 0;
    struct cfi_map_work work = map_of(expect_nulls, NULL, 2, 0, results, SIZE_MAX / 16);
    struct cfi_piece_end end = travel(&work, 0, 2, NULL);
    assert_int_equal(end.status, CF_NOMEM);
    assert_int_equal(end.done, 0);
    assert_string_equal(end.text, cfi_plain_error(CF_NOMEM)->message);
    assert_int_equal(calls, 0);
}

/* ---- elements of any size ---- */

static struct cfi_map_work map_of_bytes(cf_bytes_fn *fn, const cf_bytes *args, size_t count,
                                        cf_bytes *made)
{
    return (struct cfi_map_work){ .kind = CFI_MAP_BYTES,
                                  .name = "cf_map_bytes",
                                  .call.bytes_fn = fn,
                                  .args = args,
                                  .results = made,
                                  .count = count,
                                  .arg_size = sizeof *args,
                                  .result_size = sizeof *made };
}

/* Every word twice; of the empty one nothing; 5 letters fail. */
static int twice(const void *word, size_t size, cf_bytes *result)
{
    CHECK(size ? (uintptr_t)word % 16 == 0 : word == NULL);
    CHECK(result->data == NULL && result->size == 0);
    if (size && cf_bytes_resize(result, 2 * size) != CF_OK)
        return cf_raise(ENOMEM, "no memory");
    for (size_t i = 0; i < 2 * size; i++)
        ((char *)result->data)[i] = ((const char *)word)[i % size];
    return size == 5 ? cf_raise(5, "five") : 0;
}

enum { WORDS = 40 };
static char letters[WORDS];

static void words_of(size_t first, cf_bytes args[WORDS], cf_bytes made[WORDS])
{
    for (size_t i = 0; i < WORDS; i++) {
        letters[i] = (char)('a' + i % 26);
        args[i] = (cf_bytes){ first + i ? letters : NULL, (first + i) % WORDS };
        made[i] = (cf_bytes){ NULL, 0 };
    }
}

static void assert_twice(const cf_bytes *result, const cf_bytes *arg)
{
    assert_int_equal(result->size, 2 * arg->size);
    assert_int_equal(result->data != NULL, arg->size != 0);
    for (size_t i = 0; i < result->size; i++)
        assert_int_equal(((char *)result->data)[i], letters[i % arg->size]);
}

static void test_bytes(void **state)
{
    (void)state;
    cf_bytes args[WORDS], made[WORDS];
    words_of(6, args, made); /* 6 ... 39, 0, 1 ... 5 letters */
    struct cfi_map_work work = map_of_bytes(twice, args, WORDS, made);
    assert_all_done(travel(&work, 2, WORDS - 3, NULL), WORDS - 3);
    for (size_t i = 2; i < WORDS - 1; i++) {
        assert_twice(&made[i], &args[i]);
        cf_bytes_free(&made[i]);
    }
    assert_null(made[0].data);
    assert_null(made[1].data);
    assert_null(made[WORDS - 1].data);
}

static void test_bytes_before_a_failure(void **state)
{
    (void)state;
    cf_bytes args[WORDS], made[WORDS];
    words_of(0, args, made);
    struct cfi_map_work work = map_of_bytes(twice, args, WORDS, made);
    assert_failed(travel(&work, 0, WORDS, NULL), 5, 5, "five");
    for (size_t i = 0; i < 5; i++) {
        assert_twice(&made[i], &args[i]);
        cf_bytes_free(&made[i]);
    }
    for (size_t i = 5; i < WORDS; i++)
        assert_null(made[i].data);
}

static void test_single_result_is_moved(void **state)
{
    (void)state;
    static char large[1 << 20];
    memset(large, 'l', sizeof large);
    memset(letters, 'l', sizeof letters);
    cf_bytes args[2] = { { large, sizeof large }, { NULL, 0 } }, made[2];
    memset(made, 0, sizeof made);
    struct cfi_map_work work = map_of_bytes(twice, args, 2, made);
    cf_bytes answer = answer_to(&work, 0, 1, NULL);
    void *data = answer.data;
    struct cfi_piece_end end;
    assert_true(cfi_piece_read(&work, 0, 1, &answer, &end));
    assert_all_done(end, 1);
    assert_ptr_equal(made[0].data, data);
    assert_int_equal(made[0].size, 2 * sizeof large);
    assert_null(answer.data);
    cf_bytes_free(&made[0]);
    assert_all_done(travel(&work, 1, 1, NULL), 1);
    assert_null(made[1].data);
}

/* ---- ranges ---- */

static struct cfi_map_work map_of_range(cf_range_fn *fn, const void *context, size_t context_size,
                                        size_t count, void *made, size_t result_size)
{
    return (struct cfi_map_work){ .kind = CFI_MAP_RANGE,
                                  .name = "cf_map_range",
                                  .call.range_fn = fn,
                                  .args = context,
                                  .results = made,
                                  .count = count,
                                  .arg_size = context_size,
                                  .result_size = result_size };
}

static const void *expected_context;

static int add_offset(const void *context, size_t begin, size_t end, void *made)
{
    CHECK((uintptr_t)context % 16 == 0);
    CHECK(!expected_context || context == expected_context);
    CHECK(begin < end && end <= COUNT);
    for (size_t i = begin; i < end; i++)
        ((int64_t *)made)[i - begin] = (int64_t)i + *(const int *)context;
    return begin == 11 ? cf_raise(11, "eleven") : 0;
}

static void test_range(void **state)
{
    (void)state;
    _Alignas(16) int offset = 100;
    for (int shared = 0; shared < 2; shared++) {
        set_up_numbers();
        expected_context = shared ? &offset : NULL;
        struct cfi_map_work work =
            map_of_range(add_offset, &offset, sizeof offset, COUNT, results, 8);
        assert_all_done(travel(&work, 3, 9, shared ? &offset : NULL), 9);
        for (int i = 0; i < COUNT; i++)
            assert_int_equal(results[i], i >= 3 && i < 12 ? 100 + i : -1);
    }
    expected_context = NULL;
}

static void test_range_fails_as_a_whole(void **state)
{
    (void)state;
    _Alignas(16) int offset = 100;
    set_up_numbers();
    struct cfi_map_work work = map_of_range(add_offset, &offset, sizeof offset, COUNT, results, 8);
    assert_failed(travel(&work, 11, 9, NULL), 0, 11, "eleven");
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(results[i], -1);
}

static int expect_no_memory(const void *context, size_t begin, size_t end, void *made)
{
    CHECK(context == NULL && made == NULL);
    calls += (int)(end - begin);
    return 0;
}

static void test_range_without_anything(void **state)
{
    (void)state;
    calls = 0;
    struct cfi_map_work work = map_of_range(expect_no_memory, NULL, 0, COUNT, NULL, 0);
    assert_all_done(travel(&work, 2, 18, NULL), 18);
    assert_int_equal(calls, 18);
}

/* ---- stopping ---- */

static bool asked_to_stop(void)
{
    return calls >= 3;
}

static int count_call(const void *arg, void *result)
{
    (void)result;
    calls++;
    return *(const int *)arg;
}

static int count_bytes_call(const void *arg, size_t size, cf_bytes *result)
{
    (void)arg, (void)result;
    CHECK(size == 0);
    calls++;
    return 0;
}

static void test_stops_after_the_current_element(void **state)
{
    (void)state;
    memset(numbers, 0, sizeof numbers);
    cf_bytes made[COUNT], args[COUNT];
    memset(args, 0, sizeof args);
    memset(made, 0, sizeof made);
    const struct cfi_map_work works[] = { map_of(count_call, numbers, COUNT, 4, NULL, 0),
                                          map_of_bytes(count_bytes_call, args, COUNT, made) };
    cfi_stop_asked = asked_to_stop;
    for (size_t i = 0; i < COUNT_OF(works); i++) {
        calls = 0;
        assert_all_done(travel(&works[i], 0, COUNT, NULL), 3);
        assert_int_equal(calls, 3);
    }
    cfi_stop_asked = NULL;
}

static void test_who_obeys_was_stopped(void **state)
{
    (void)state;
    memset(numbers, 0, sizeof numbers);
    numbers[2] = 9;
    calls = 0;
    struct cfi_map_work work = map_of(count_call, numbers, COUNT, 4, NULL, 0);
    cfi_stop_asked = asked_to_stop;
    struct cfi_piece_end end = travel(&work, 0, COUNT, NULL);
    cfi_stop_asked = NULL;
    assert_int_equal(end.status, CF_STOPPED);
    assert_int_equal(end.code, 9);
    assert_int_equal(end.done, 2);
}

/* ---- what is no piece, and what is no answer ---- */

/* One of each kind that comes back with everything in it: results, a failure, a text. */
static cf_bytes some_args[WORDS], some_results[WORDS];
static _Alignas(16) int some_context[5] = { 1, 2, 3, 4, 5 };
enum { KINDS = 5 };

static struct cfi_map_work work_of_kind(size_t i)
{
    set_up_numbers();
    words_of(i == 2 ? 6 : 0, some_args, some_results);
    const struct cfi_map_work works[KINDS] = {
        map_of(fail_at_7, numbers, COUNT, 4, results, 8),
        map_of_bytes(twice, some_args, 10, some_results),
        map_of_bytes(twice, some_args, 1, some_results),
        map_of_range(add_offset, some_context, sizeof some_context, COUNT, results, 8),
        map_of(expect_nulls, NULL, COUNT, 0, NULL, 0),
    };
    return works[i];
}

static void free_results(const struct cfi_map_work *work)
{
    for (size_t i = 0; work->kind == CFI_MAP_BYTES && i < work->count; i++)
        cf_bytes_free((cf_bytes *)work->results + i);
}

/* Reads what may be an answer, in memory that ends where it does. */
static bool read_hostile(const struct cfi_map_work *work, const void *data, size_t size)
{
    cf_bytes answer = { NULL, 0 };
    assert_int_equal(cf_bytes_resize(&answer, size), CF_OK);
    if (size)
        memcpy(answer.data, data, size);
    struct cfi_piece_end end;
    bool read = cfi_piece_read(work, 0, work->count, &answer, &end);
    if (read) {
        assert_true(end.done <= work->count);
        assert_true(end.status == CF_OK || end.done < work->count);
        assert_true(end.status == CF_OK || end.status == CF_FAILED || end.status == CF_STOPPED ||
                    end.status == CF_NOMEM);
        assert_true(strlen(end.text) < sizeof end.text);
    }
    for (size_t i = 0; work->kind == CFI_MAP_BYTES && i < work->count; i++)
        assert_true(((cf_bytes *)work->results)[i].size <= (read ? size : 0));
    cf_bytes_free(&answer);
    free_results(work);
    return read;
}

static void test_every_truncated_answer(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct cfi_map_work work = work_of_kind(kind);
        cf_bytes answer = answer_to(&work, 0, work.count, NULL);
        for (size_t size = 0; size < answer.size; size++)
            (void)read_hostile(&work, answer.data, size);
        for (size_t size = 0; size < 32; size++) /* its tail is not even whole */
            assert_false(read_hostile(&work, answer.data, size));
        assert_true(read_hostile(&work, answer.data, answer.size));
        cf_bytes_free(&answer);
    }
}

static void test_every_damaged_byte(void **state)
{
    (void)state;
    static const unsigned char flips[] = { 0x01, 0x02, 0x04, 0x10, 0x40, 0x80, 0x7f, 0xff };
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct cfi_map_work work = work_of_kind(kind);
        cf_bytes answer = answer_to(&work, 0, work.count, NULL);
        unsigned char *bytes = answer.data;
        for (size_t i = 0; i < answer.size; i++) {
            for (size_t j = 0; j < COUNT_OF(flips); j++) {
                bytes[i] ^= flips[j];
                (void)read_hostile(&work, bytes, answer.size);
                bytes[i] ^= flips[j];
            }
        }
        cf_bytes_free(&answer);
    }
}

static void test_random_answers(void **state)
{
    (void)state;
    unsigned char bytes[96];
    uint32_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = seed >> 30 ? 0 : (unsigned char)(seed >> 20);
        }
        struct cfi_map_work work = work_of_kind(seed >> 8 & 3);
        (void)read_hostile(&work, bytes, (seed >> 10) % sizeof bytes);
    }
}

/* Longer than any text, but not longer than the answer. */
static void test_text_that_is_too_long(void **state)
{
    (void)state;
    struct cfi_map_work work = map_of(say_much, NULL, 1, 0, NULL, 0);
    cf_bytes answer = answer_to(&work, 0, 1, NULL);
    unsigned char bytes[2000] = { 0 };
    unsigned char *at = bytes + sizeof bytes - answer.size;
    memcpy(at, answer.data, answer.size);
    assert_true(read_hostile(&work, bytes, sizeof bytes));
    const uint16_t is = 511, claimed = 1500;
    at = memmem(bytes + sizeof bytes - 32, 32, &is, sizeof is);
    assert_non_null(at);
    memcpy(at, &claimed, sizeof claimed);
    assert_false(read_hostile(&work, bytes, sizeof bytes));
    cf_bytes_free(&answer);
}

/* Another one's answer, with more results than there is room for. */
static void test_answers_of_others(void **state)
{
    (void)state;
    struct cfi_map_work many = map_of(expect_nulls, NULL, 1000, 0, NULL, 0);
    cf_bytes answer = answer_to(&many, 0, 1000, NULL);
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct cfi_map_work work = work_of_kind(kind);
        assert_false(read_hostile(&work, answer.data, answer.size));
    }
    cf_bytes_free(&answer);
}

static void run_damaged(const struct cfi_map_work *work, const void *data, size_t size, bool is_cut)
{
    struct parcel p = { malloc(size ? size : 1), size };
    assert_non_null(p.data);
    memcpy(p.data, data, size);
    cf_bytes answer = { NULL, 0 };
    int code = cfi_piece_run((cfi_function *)work->call.fn, p.data, size, NULL, NULL, &answer);
    if (is_cut && code == 0) /* of cf_map_bytes the last elements may lack theirs */
        assert_true(work->kind == CFI_MAP_BYTES);
    cf_bytes_free(&answer);
    free(p.data);
}

static void test_truncated_pieces(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct cfi_map_work work = work_of_kind(kind);
        struct parcel p = pack(&work, 0, work.count, false);
        for (size_t size = 0; size < p.size; size++)
            run_damaged(&work, p.data, size, true);
        run_damaged(&work, p.data, p.size, false);
        free(p.data);
    }
    assert_checks();
}

static void test_too_large_for_memory(void **state)
{
    (void)state;
    cf_bytes args[2] = { { letters, SIZE_MAX - 4 }, { letters, SIZE_MAX / 2 } };
    struct cfi_map_work work = map_of_bytes(twice, args, 2, NULL);
    assert_int_equal(cfi_piece_size(&work, 0, 1, false), SIZE_MAX);
    assert_int_equal(cfi_piece_size(&work, 1, 1, false), SIZE_MAX);
    assert_int_equal(cfi_piece_size(&work, 0, 2, false), SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements),
        cmocka_unit_test(test_nothing_but_calls),
        cmocka_unit_test(test_stops_at_the_first_failure),
        cmocka_unit_test(test_nobody_is_blamed_for_another),
        cmocka_unit_test(test_long_text_is_cut),
        cmocka_unit_test(test_raised_objects_stay_behind),
        cmocka_unit_test(test_no_memory_for_results),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bytes_before_a_failure),
        cmocka_unit_test(test_single_result_is_moved),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_range_fails_as_a_whole),
        cmocka_unit_test(test_range_without_anything),
        cmocka_unit_test(test_stops_after_the_current_element),
        cmocka_unit_test(test_who_obeys_was_stopped),
        cmocka_unit_test(test_every_truncated_answer),
        cmocka_unit_test(test_every_damaged_byte),
        cmocka_unit_test(test_random_answers),
        cmocka_unit_test(test_text_that_is_too_long),
        cmocka_unit_test(test_answers_of_others),
        cmocka_unit_test(test_truncated_pieces),
        cmocka_unit_test(test_too_large_for_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
