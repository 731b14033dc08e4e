/* SPDX-License-Identifier: MIT */
/* What base and core do without memory: a call fails as a whole and can be made again, and settling,
 * failing and freeing always succeed. */
#define _GNU_SOURCE
#include "manual.h"

#include <errno.h>

#include "base/blocks.h"
#include "core/error.h"
#include "core/future.h"
#include "core/self.h"

/* The sanitizers have these functions themselves; and they must be glibc's. */
#if !defined(__GLIBC__) || defined(CFI_ASAN) || defined(CFI_TSAN)

int main(void)
{
    return 77;
}

#else

/* ---- in the place of libc's ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

enum { UNLIMITED = -1 };
static _Thread_local int left = UNLIMITED; /* allocations that this thread may still make */

static bool is_refused(void)
{
    if (left == 0) {
        errno = ENOMEM;
        return true;
    }
    left -= left > 0;
    return false;
}

void *malloc(size_t size)
{
    return is_refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return is_refused() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return is_refused() ? NULL : __libc_realloc(block, size);
}

/* Calls with no allocation allowed, then with one, ... until it does not run out of memory. */
static cf_status refuse_each(cf_status (*call)(void *data), void *data)
{
    cf_status s = CF_NOMEM;
    for (int allowed = 0; s == CF_NOMEM; allowed++) {
        assert_in_range(allowed, 0, 20);
        left = allowed;
        s = call(data);
        left = UNLIMITED;
        if (s == CF_NOMEM) {
            assert_int_equal(cf_last_error()->status, CF_NOMEM);
            assert_int_not_equal(strlen(cf_last_error()->message), 0);
        }
        if (allowed == 0)
            assert_int_equal(s, CF_NOMEM);
    }
    return s;
}

static int have_a_last_error(void **state)
{
    (void)state;
    return cfi_fail(CF_TIMEOUT, "so that its buffer is there") == CF_TIMEOUT ? 0 : -1;
}

/* ---- making ---- */

enum { LARGE = 4096 }; /* no block of that size is kept in reserve */

static cf_status make_promise(void *data)
{
    cf_future **f = data;
    return cf_future_new(LARGE, NULL, f);
}

static cf_status make_executor(void *data)
{
    static const cf_executor_ops ops = { .size = sizeof ops, .submit = manual_submit };
    return cf_executor_new(&ops, NULL, data);
}

static cf_status make_inline_executor(void *data)
{
    return cf_inline_executor_new(data);
}

static void test_making(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *ex = NULL;
    assert_int_equal(refuse_each(make_promise, &f), CF_OK);
    cf_future_unref(f);
    assert_int_equal(refuse_each(make_executor, &ex), CF_OK);
    cf_executor_free(ex);
    assert_int_equal(refuse_each(make_inline_executor, &ex), CF_OK);
    cf_executor_free(ex);
}

/* ---- submitting ---- */

static unsigned args_destroyed;

static void count_arg_destroyed(void *arg)
{
    (void)arg;
    args_destroyed++;
}

static int do_nothing(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 0;
}

struct submitting {
    struct manual executor;
    cf_future *future;
};

static cf_status submit_large(void *data)
{
    static const char arg[LARGE];
    static const cf_task task = { .size = sizeof task,
                                  .fn = do_nothing,
                                  .arg = arg,
                                  .arg_size = sizeof arg,
                                  .arg_destroy = count_arg_destroyed };
    struct submitting *s = data;
    return cf_submit_task(s->executor.executor, &task, &s->future);
}

static void test_submitting(void **unused)
{
    (void)unused;
    struct submitting s = { .future = NULL };
    manual_open(&s.executor);
    args_destroyed = 0;
    assert_int_equal(refuse_each(submit_large, &s), CF_OK);
    assert_int_equal(s.executor.count, 1);
    assert_int_equal(args_destroyed, 0);
    manual_run(&s.executor, 0);
    assert_int_equal(cf_future_result(s.future, 0, NULL, 0), CF_OK);
    cf_future_unref(s.future);
    assert_int_equal(args_destroyed, 1);
    manual_close(&s.executor);
}

/* ---- waiting ---- */

enum { MANY = 20 }; /* more than fit on the stack */
static cf_future *many[MANY];
static unsigned called;

static void make_many(void)
{
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(cf_future_new(0, NULL, &many[i]), CF_OK);
}

static void nobody_watches(void)
{
    for (size_t i = 0; i < MANY; i++)
        assert_null(many[i]->watchers);
}

static cf_status wait_for_many(void *data)
{
    size_t *done = data;
    return cf_wait(many, MANY, CF_ALL_COMPLETED, CF_MS(1), done);
}

static cf_status wait_for_many_in_a_task(void *data)
{
    struct cfi_frame frame;
    size_t *done = data;
    cfi_frame_push(&frame, many[0]);
    cf_status s = cf_wait(many, MANY, CF_FIRST_EXCEPTION, CF_MS(1), done);
    cfi_frame_pop(&frame);
    return s;
}

static cf_status begin_iteration(void *data)
{
    nobody_watches();
    return cf_as_completed(many, MANY, CF_FOREVER, data);
}

static void count_call(cf_future *future, void *data)
{
    (void)future, (void)data;
    called++;
}

static cf_status add_callback(void *data)
{
    return cf_future_add_done_callback(data, count_call, NULL);
}

static void test_waiting(void **unused)
{
    (void)unused;
    make_many();
    size_t done = 99;
    left = 0;
    assert_int_equal(wait_for_many(&done), CF_NOMEM);
    left = UNLIMITED;
    assert_int_equal(done, 99);
    assert_int_equal(refuse_each(wait_for_many, &done), CF_TIMEOUT);
    assert_int_equal(done, 0);
    assert_int_equal(refuse_each(wait_for_many_in_a_task, &done), CF_TIMEOUT);
    nobody_watches();
    cf_future_unref_all(many, MANY);
}

static void test_iterating(void **unused)
{
    (void)unused;
    make_many();
    cf_completed *c = NULL;
    assert_int_equal(refuse_each(begin_iteration, &c), CF_OK);
    cf_completed_free(c);
    nobody_watches();
    called = 0;
    cf_future_add_done_callback(many[0], count_call, NULL);
    cf_future_unref_all(many, MANY);
    assert_int_equal(called, 1); /* nobody has kept a reference */
}

static void test_callbacks(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    assert_int_equal(cf_future_new(0, NULL, &f), CF_OK);
    called = 0;
    assert_int_equal(refuse_each(add_callback, f), CF_OK);
    assert_true(cf_future_cancel(f));
    assert_int_equal(called, 1); /* those that were refused are not called */
    cf_future_unref(f);
}

static cf_status grow(void *data)
{
    return cf_bytes_resize(data, 1000);
}

static void test_growing(void **unused)
{
    (void)unused;
    cf_bytes bytes = { NULL, 0 };
    assert_int_equal(cf_bytes_resize(&bytes, 3), CF_OK);
    memcpy(bytes.data, "abc", 3);
    left = 0;
    assert_int_equal(cf_bytes_resize(&bytes, 1000), CF_NOMEM);
    left = UNLIMITED;
    assert_int_equal(bytes.size, 3);
    assert_memory_equal(bytes.data, "abc", 3);
    assert_int_equal(refuse_each(grow, &bytes), CF_OK);
    assert_memory_equal(bytes.data, "abc", 3);
    cf_bytes_free(&bytes);
}

/* ---- settling cannot fail ---- */

static void settle_without_memory(cf_future *f)
{
    const int value = ANSWER;
    left = 0;
    assert_int_equal(cf_future_set_result(f, &value), CF_OK);
    left = UNLIMITED;
    int got = 0;
    assert_int_equal(CF_RESULT(f, 0, &got), CF_OK);
    assert_int_equal(got, ANSWER);
}

static void fail_without_memory(cf_future *f)
{
    const cf_error error = {
        .size = sizeof error, .status = CF_SYSTEM, .code = 7, .message = "lost"
    };
    left = 0;
    assert_int_equal(cf_future_set_exception(f, &error), CF_OK);
    left = UNLIMITED;
    assert_int_equal(cf_future_exception(f)->status, CF_SYSTEM);
    assert_string_equal(cf_future_exception(f)->message, cfi_plain_error(CF_SYSTEM)->message);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_SYSTEM);
    assert_int_equal(cf_last_error()->code, 7); /* status and code are never lost */
}

static void cancel_without_memory(cf_future *f)
{
    left = 0;
    assert_true(cf_future_cancel(f));
    left = UNLIMITED;
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_CANCELLED);
}

static void test_settling(void **unused)
{
    (void)unused;
    static void (*const ends[])(cf_future *) = { settle_without_memory, fail_without_memory,
                                                 cancel_without_memory };
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        cf_future *f = NULL;
        called = 0;
        assert_int_equal(cf_future_new(sizeof(int), NULL, &f), CF_OK);
        cf_future_add_done_callback(f, count_call, NULL);
        ends[i](f);
        assert_int_equal(called, 1);
        cf_future_unref(f);
    }
}

/* ---- tasks that fail without memory for why ---- */

static int may_allocate; /* in the task */

static int raise_words(const void *arg, void *result)
{
    (void)arg, (void)result;
    left = may_allocate;
    int code = cf_raise(9, "%s", "words");
    CHECK(code == 9);
    return code;
}

static unsigned objects_destroyed;

static void destroy_object(void *object)
{
    (void)object;
    objects_destroyed++;
}

static int raise_object(const void *arg, void *result)
{
    (void)arg;
    left = may_allocate;
    int code = cf_raise_object(9, result, destroy_object);
    CHECK(code == 9);
    return code;
}

/* Fails with its code, whatever there was no memory for. */
static void run_short_of_memory(struct manual *executor, cf_fn *fn, int allowed)
{
    cf_future *f = NULL;
    objects_destroyed = 0;
    may_allocate = allowed;
    assert_int_equal(cf_submit(executor->executor, fn, NULL, 0, sizeof(int), &f), CF_OK);
    manual_run(executor, executor->count - 1);
    left = UNLIMITED;
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_FAILED);
    assert_int_equal(cf_last_error()->code, 9);
    assert_int_not_equal(strlen(cf_future_exception(f)->message), 0);
    bool kept = cf_future_exception_object(f) != NULL;
    assert_int_equal(objects_destroyed, fn == raise_object && !kept);
    cf_future_unref(f);
    assert_int_equal(objects_destroyed, fn == raise_object);
}

static void test_failing(void **unused)
{
    (void)unused;
    struct manual executor;
    manual_open(&executor);
    for (int allowed = 0; allowed < 4; allowed++) {
        run_short_of_memory(&executor, raise_words, allowed);
        run_short_of_memory(&executor, raise_object, allowed);
    }
    manual_close(&executor);
}

static void test_breaking(void **unused)
{
    (void)unused;
    const cf_error why = { .size = sizeof why, .status = CF_BROKEN, .message = "lost" };
    struct manual executor;
    manual_open(&executor);
    left = 0;
    cf_executor_break(executor.executor, &why);
    left = UNLIMITED;
    assert_int_equal(cf_submit(executor.executor, do_nothing, NULL, 0, 0, NULL), CF_BROKEN);
    assert_string_equal(cf_last_error()->message, cfi_plain_error(CF_BROKEN)->message);
    manual_close(&executor);
}

/* ---- a thread that never got anything ---- */

static void *fail_without_a_buffer(void *data)
{
    (void)data;
    left = 0;
    CHECK(cfi_fail(CF_FULL, "%s", "words") == CF_FULL);
    CHECK(cfi_fail_fixed(CF_FULL, "words") == CF_FULL);
    CHECK(cfi_fail_system(EMFILE, "words") == CF_SYSTEM && errno == EMFILE);
    CHECK(cfi_fail_with(cfi_plain_error(CF_FULL)) == CF_FULL);
    const cf_error *e = cf_last_error();
    CHECK(e && e->status == CF_NOMEM && e->message && e->size == sizeof *e);
    left = UNLIMITED;
    CHECK(cfi_fail(CF_FULL, "%s", "words") == CF_FULL);
    CHECK(strcmp(cf_last_error()->message, "words") == 0);
    return NULL;
}

static void *free_without_a_cache(void *block)
{
    left = 0;
    CHECK(cfi_block_new(100) == NULL);
    cfi_block_free(block, 100);
    left = UNLIMITED;
    block = cfi_block_new(100);
    CHECK(block != NULL);
    cfi_block_free(block, 100);
    return NULL;
}

static void test_a_fresh_thread(void **unused)
{
    (void)unused;
    run_on_threads(1, fail_without_a_buffer, NULL);
    run_on_threads(1, free_without_a_cache, cfi_block_new(100));
    assert_checks();
}

#define TEST(fn) cmocka_unit_test_setup(fn, have_a_last_error)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_making),    TEST(test_submitting),     TEST(test_waiting),  TEST(test_iterating),
        TEST(test_callbacks), TEST(test_growing),        TEST(test_settling), TEST(test_failing),
        TEST(test_breaking),  TEST(test_a_fresh_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
