/* SPDX-License-Identifier: MIT */
/* Executors as providers make them: what reaches their hooks and when, what submit refuses, shutting
 * down, breaking, and what becomes of an executor in a forked child and at exit. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>

#include <cfutures/provider.h>

#include "base/clock.h"
#include "core/error.h"

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

/* ---- a provider that writes down what it hears ---- */

struct provider {
    cf_executor *executor;
    cf_future *last; /* submitted, with the executor's reference */
    cf_status answer, shutdown_answer;
    bool stop_answer, closed;
    unsigned submits, cancels, stops, helps, shutdowns, destroys;
    int64_t grace, deadline;
    cf_shutdown_mode mode;
    void (*in_submit)(cf_future *future);
};

static cf_status on_submit(void *self, cf_future *future)
{
    struct provider *p = self;
    p->submits++;
    CHECK(!p->closed);
    if (p->in_submit)
        p->in_submit(future);
    if (p->answer == CF_OK)
        p->last = future;
    return p->answer;
}

static void on_cancelled(void *self, cf_future *future)
{
    struct provider *p = self;
    CHECK(cf_future_cancelled(future) && future == p->last);
    p->cancels++;
    p->last = cf_future_unref(p->last);
}

static bool on_stop(void *self, cf_future *future, int64_t grace_ns)
{
    struct provider *p = self;
    CHECK(cf_future_running(future));
    p->stops++;
    p->grace = grace_ns;
    return p->stop_answer;
}

static bool on_help(void *self, cf_future *awaited)
{
    struct provider *p = self;
    p->helps++;
    if (awaited != p->last)
        return false;
    p->last = NULL;
    cf_future_run(awaited);
    cf_future_unref(awaited);
    return true;
}

static cf_status on_shutdown(void *self, cf_shutdown_mode mode, int64_t deadline_ns)
{
    struct provider *p = self;
    p->closed = true;
    p->shutdowns++;
    p->mode = mode;
    p->deadline = deadline_ns;
    return p->shutdown_answer;
}

static void on_destroy(void *self)
{
    ((struct provider *)self)->destroys++;
}

static const cf_executor_ops all_hooks = { .size = sizeof all_hooks,
                                           .kind = "test",
                                           .room = 40,
                                           .submit = on_submit,
                                           .cancelled = on_cancelled,
                                           .stop = on_stop,
                                           .help = on_help,
                                           .shutdown = on_shutdown,
                                           .destroy = on_destroy };
static const cf_executor_ops no_hooks = { .size = sizeof no_hooks, .submit = on_submit };

static struct provider provider;

static void open_with(const cf_executor_ops *ops)
{
    provider = (struct provider){ .stop_answer = true };
    assert_int_equal(cf_executor_new(ops, &provider, &provider.executor), CF_OK);
}

static int open_provider(void **state)
{
    (void)state;
    open_with(&all_hooks);
    return 0;
}

static void run_last(void)
{
    cf_future *f = provider.last;
    provider.last = NULL;
    cf_future_run(f);
    cf_future_unref(f);
}

static int close_provider(void **state)
{
    (void)state;
    if (provider.last)
        run_last();
    provider.executor = cf_executor_free(provider.executor);
    assert_int_equal(provider.destroys, 1);
    assert_checks();
    return 0;
}

/* ---- tasks ---- */

static unsigned runs, args_destroyed;

static int count_run(const void *arg, void *result)
{
    (void)arg, (void)result;
    runs++;
    return 0;
}

static int count_bytes_run(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    return count_run(arg, result);
}

static void count_arg_destroyed(void *arg)
{
    (void)arg;
    args_destroyed++;
}

static void ignore_result(void *result)
{
    (void)result;
}

static cf_future *submit(cf_fn *fn)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit(provider.executor, fn, NULL, 0, 0, &f), CF_OK);
    assert_non_null(f);
    return f;
}

/* Runs fn as a task of the provider, on this thread. */
static void run_inside(cf_fn *fn)
{
    cf_future *f = submit(fn);
    run_last();
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    cf_future_unref(f);
    assert_checks();
}

static void last_is(cf_status status, const char *message)
{
    assert_int_equal(cf_last_error()->status, status);
    assert_string_equal(cf_last_error()->message, message);
}

/* ---- making ---- */

static void test_wrong_executors(void **unused)
{
    (void)unused;
    cf_executor *ex = (cf_executor *)&runs;
    assert_int_equal(cf_executor_new(NULL, NULL, &ex), CF_INVALID);
    last_is(CF_INVALID, "cf_executor_new: ops is NULL");
    assert_int_equal(cf_executor_new(&all_hooks, NULL, NULL), CF_INVALID);
    last_is(CF_INVALID, "cf_executor_new: ret is NULL");

    cf_executor_ops ops = all_hooks;
    ops.submit = NULL;
    assert_int_equal(cf_executor_new(&ops, NULL, &ex), CF_INVALID);
    last_is(CF_INVALID, "cf_executor_ops: submit is NULL");
    ops = all_hooks;
    ops.size--;
    assert_int_equal(cf_executor_new(&ops, NULL, &ex), CF_INVALID);
    ops.size = 0;
    assert_int_equal(cf_executor_new(&ops, NULL, &ex), CF_INVALID);
    ops = all_hooks;
    ops.room = 3073;
    assert_int_equal(cf_executor_new(&ops, NULL, &ex), CF_INVALID);
    ops.room = SIZE_MAX;
    assert_int_equal(cf_executor_new(&ops, NULL, &ex), CF_INVALID);

    assert_ptr_equal(ex, (cf_executor *)&runs);
}

static void test_hooks_of_a_later_version(void **unused)
{
    (void)unused;
    struct {
        cf_executor_ops ops;
        void (*unknown)(void);
    } later = { .ops = no_hooks };
    later.ops.size = sizeof later;
    cf_executor *ex = NULL;
    assert_int_equal(cf_executor_new(&later.ops, &provider, &ex), CF_OK);
    cf_executor_free(ex);
    later.unknown = abort;
    assert_int_equal(cf_executor_new(&later.ops, &provider, &ex), CF_INVALID);
}

static void test_the_largest_room(void **unused)
{
    (void)unused;
    cf_executor_ops ops = all_hooks;
    ops.room = 3072;
    open_with(&ops);
    cf_future *f = submit(count_run);
    memset(cf_future_room(f), 0xFF, 3072);
    cf_future_unref(f);
    close_provider(NULL);
}

static void test_hooks_are_copied(void **unused)
{
    (void)unused;
    cf_executor_ops ops = all_hooks;
    open_with(&ops);
    memset(&ops, 0, sizeof ops);
    run_inside(count_run);
    close_provider(NULL);
}

/* Only submit has to be there. */
static void test_an_executor_without_hooks(void **unused)
{
    (void)unused;
    open_with(&no_hooks);
    cf_future *f = submit(count_run);
    assert_true(cf_future_cancel(f));
    cf_future_unref(f);
    provider.last = cf_future_unref(provider.last);
    f = submit(count_run);
    assert_true(cf_future_start(f));
    assert_true(cf_future_stop(f, 0));
    assert_int_equal(cf_future_set_result(f, NULL), CF_OK);
    cf_future_unref(f);
    provider.last = cf_future_unref(provider.last);
    assert_int_equal(cf_executor_shutdown(provider.executor, CF_STOP_RUNNING, 0), CF_OK);
    cf_executor_free(provider.executor);
    assert_checks();
}

/* ---- what reaches the provider ---- */

struct point {
    double x, y, z;
};

static void test_the_task_as_submitted(void **unused)
{
    (void)unused;
    const struct point arg = { 1, 2, 3 };
    const cf_task task = { .size = sizeof task,
                           .fn = count_run,
                           .arg = &arg,
                           .arg_size = sizeof arg,
                           .result_size = 9,
                           .arg_destroy = count_arg_destroyed,
                           .result_destroy = ignore_result,
                           .run_limit_ns = CF_SECONDS(5),
                           .priority = -6 };
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(provider.executor, &task, &f), CF_OK);
    assert_ptr_equal(f, provider.last);
    assert_false(cf_future_running(f) || cf_future_done(f));
    const cf_task *seen = cf_future_task(f);
    assert_true(seen->size == sizeof task && seen->fn == count_run && !seen->bytes_fn);
    assert_true(seen->arg_size == sizeof arg && seen->result_size == 9);
    assert_true(seen->arg_destroy == count_arg_destroyed && seen->result_destroy == ignore_result);
    assert_true(seen->run_limit_ns == CF_SECONDS(5) && seen->priority == -6);
    assert_ptr_not_equal(seen->arg, &arg);
    assert_int_equal((uintptr_t)seen->arg % 16, 0);
    assert_memory_equal(seen->arg, &arg, sizeof arg);
    run_last();
    cf_future_unref(f);
}

static void test_room_for_the_provider(void **unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) { /* memory that has been used before, too */
        cf_future *f = submit(count_run);
        unsigned char *room = cf_future_room(f);
        assert_int_equal((uintptr_t)room % sizeof(void *), 0);
        for (int k = 0; k < 40; k++)
            assert_int_equal(room[k], 0);
        memset(room, 0xFF, 40);
        cf_future_ref(f);
        run_last();
        for (int k = 0; k < 40; k++)
            assert_int_equal(room[k], 0xFF); /* it lasts as long as the reference */
        cf_future_unref(f);
        cf_future_unref(f);
    }
}

static void test_nobody_will_ask(void **unused)
{
    (void)unused;
    runs = 0;
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL), CF_OK);
    run_last();
    assert_int_equal(runs, 1);
}

static void run_and_unref(cf_future *future)
{
    cf_future_run(future);
    cf_future_unref(future);
}

static void test_done_within_the_submit(void **unused)
{
    (void)unused;
    provider.in_submit = run_and_unref;
    cf_future *f = submit(count_run);
    provider.last = NULL;
    assert_true(cf_future_done(f));
    cf_future_unref(f);
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL), CF_OK);
    provider.last = NULL;
}

static void test_cancelling_reaches_the_provider(void **unused)
{
    (void)unused;
    cf_future *f = submit(count_run);
    assert_true(cf_future_cancel(f));
    assert_true(cf_future_cancel(f));
    assert_int_equal(provider.cancels, 1);
    cf_future_unref(f);
    f = submit(count_run);
    assert_true(cf_future_stop(f, 5)); /* pending: that is a cancel */
    assert_int_equal(provider.cancels, 2);
    assert_int_equal(provider.stops, 0);
    cf_future_unref(f);
    f = submit(count_run);
    assert_true(cf_future_start(f));
    assert_false(cf_future_cancel(f));
    assert_int_equal(cf_future_set_result(f, NULL), CF_OK);
    assert_false(cf_future_cancel(f));
    provider.last = cf_future_unref(provider.last);
    cf_future_unref(f);
    assert_int_equal(provider.cancels, 2);
}

static void only_count(void *self, cf_future *future)
{
    (void)future;
    ((struct provider *)self)->cancels++;
}

/* A provider that lets the last reference go has none left to give back. */
static void test_giving_up_is_no_cancel(void **unused)
{
    (void)unused;
    cf_executor_ops ops = all_hooks;
    ops.cancelled = only_count;
    open_with(&ops);
    cf_future_unref(submit(count_run));
    provider.last = cf_future_unref(provider.last);
    assert_int_equal(provider.cancels, 0);
    close_provider(NULL);
}

static void test_stopping_reaches_the_provider(void **unused)
{
    (void)unused;
    cf_future *f = submit(count_run);
    assert_true(cf_future_start(f));
    assert_true(cf_future_stop(f, 17));
    assert_int_equal(provider.grace, 17);
    provider.stop_answer = false;
    assert_false(cf_future_stop(f, 18));
    assert_int_equal(provider.grace, 18);
    assert_int_equal(provider.stops, 2);
    assert_int_equal(cf_future_set_result(f, NULL), CF_OK);
    assert_false(cf_future_stop(f, 19));
    assert_int_equal(provider.stops, 2);
    provider.last = cf_future_unref(provider.last);
    cf_future_unref(f);
}

/* ---- helping ---- */

static cf_status wait_for_result(cf_future *f, int64_t timeout_ns)
{
    return cf_future_result(f, timeout_ns, NULL, 0);
}

static cf_status wait_for_set(cf_future *f, int64_t timeout_ns)
{
    return cf_wait(&f, 1, CF_ALL_COMPLETED, timeout_ns, NULL);
}

static cf_status wait_for_iterator(cf_future *f, int64_t timeout_ns)
{
    cf_completed *c = NULL;
    size_t index = 1;
    CHECK(cf_as_completed(&f, 1, timeout_ns, &c) == CF_OK);
    cf_status s = cf_completed_next(c, &index);
    cf_completed_free(c);
    return s;
}

static cf_status (*const waits[])(cf_future *, int64_t) = { wait_for_result, wait_for_set,
                                                            wait_for_iterator };

static int wait_for_own(const void *arg, void *result)
{
    (void)arg, (void)result;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        cf_future *below = NULL;
        CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, &below) == CF_OK);
        unsigned helps = provider.helps;
        CHECK(waits[i](below, 0) == CF_TIMEOUT); /* only asks, and runs nothing */
        CHECK(provider.helps == helps);
        CHECK(waits[i](below, CF_FOREVER) == CF_OK);
        CHECK(provider.helps == helps + 1);
        cf_future_unref(below);
    }
    return 0;
}

static void test_a_task_that_waits_helps(void **unused)
{
    (void)unused;
    runs = 0;
    run_inside(wait_for_own);
    assert_int_equal(runs, COUNT_OF(waits));
}

static int wait_for_one_that_cannot_be_helped(const void *arg, void *result)
{
    (void)arg, (void)result;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        cf_future *own = NULL, *promise = NULL;
        CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, &own) == CF_OK);
        provider.last = NULL; /* so that the hook finds nothing to run */
        CHECK(waits[i](own, CF_MS(1)) == CF_TIMEOUT);
        CHECK(provider.helps > 0);
        provider.helps = 0;
        CHECK(cf_future_cancel(own));
        cf_future_unref(own);
        CHECK(cf_future_new(0, NULL, &promise) == CF_OK);
        CHECK(waits[i](promise, CF_MS(1)) == CF_TIMEOUT);
        CHECK(provider.helps == 0); /* it is none of this executor */
        cf_future_unref(promise);
    }
    return 0;
}

static void on_cancelled_elsewhere(void *self, cf_future *future)
{
    (void)self;
    cf_future_unref(future);
}

static void test_a_wait_without_help_sleeps(void **unused)
{
    (void)unused;
    cf_executor_ops ops = all_hooks;
    ops.cancelled = on_cancelled_elsewhere;
    open_with(&ops);
    run_inside(wait_for_one_that_cannot_be_helped);
    close_provider(NULL);
}

static int wait_for_other(const void *arg, void *result)
{
    (void)result;
    cf_future *f = *(cf_future *const *)arg;
    for (size_t i = 0; i < COUNT_OF(waits); i++)
        CHECK(waits[i](f, CF_MS(1)) == CF_TIMEOUT);
    return 0;
}

static void test_nobody_helps_outside_its_tasks(void **unused)
{
    (void)unused;
    cf_future *f = submit(count_run);
    wait_for_other(&f, NULL); /* in no task */
    cf_executor *other = NULL;
    assert_int_equal(cf_inline_executor_new(&other), CF_OK);
    assert_int_equal(cf_submit(other, wait_for_other, &f, sizeof(cf_future *), 0, NULL), CF_OK);
    cf_executor_free(other);
    assert_int_equal(provider.helps, 0);
    cf_future_unref(f);
}

/* ---- what submit refuses ---- */

static void test_the_providers_answer_is_handed_on(void **unused)
{
    (void)unused;
    static const cf_status answers[] = { CF_FULL,     CF_NOMEM,   CF_SYSTEM,     CF_BROKEN,
                                         CF_SHUTDOWN, CF_INVALID, CF_INTERRUPTED };
    const cf_task task = { .size = sizeof task,
                           .fn = count_run,
                           .arg = &task,
                           .arg_size = 8,
                           .arg_destroy = count_arg_destroyed };
    runs = args_destroyed = 0;
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        cf_future *f = (cf_future *)&runs;
        provider.answer = answers[i];
        assert_int_equal(cf_submit_task(provider.executor, &task, &f), answers[i]);
        assert_ptr_equal(f, (cf_future *)&runs);
        assert_int_equal(cf_submit_task(provider.executor, &task, NULL), answers[i]);
    }
    assert_true(runs == 0 && args_destroyed == 0);
}

/* Also to those who look why: the hook has no way to say it itself. */
static void test_the_providers_answer_is_the_last_error(void **unused)
{
    (void)unused;
    assert_int_equal(cf_future_new(0, NULL, NULL), CF_INVALID);
    provider.answer = CF_FULL;
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL), CF_FULL);
    assert_int_equal(cf_last_error()->status, CF_FULL);
}

static void test_a_failed_submit_keeps_no_executor(void **unused)
{
    (void)unused;
    open_with(&all_hooks);
    provider.answer = CF_FULL;
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL), CF_FULL);
    cf_executor_free(provider.executor);
    assert_int_equal(provider.destroys, 1);
}

static void test_wrong_tasks(void **unused)
{
    (void)unused;
    const cf_task good = { .size = sizeof good, .fn = count_run };
    static const struct {
        cf_task task;
        const char *message;
    } wrong[] = {
        { { .fn = NULL }, "submit: fn is NULL" },
        { { .fn = count_run, .bytes_fn = count_bytes_run },
          "submit: both fn and bytes_fn are set" },
        { { .fn = count_run, .arg_size = 3 }, "submit: arg is NULL, but arg_size is 3" },
        { { .bytes_fn = count_bytes_run, .arg_size = 3 },
          "submit: arg is NULL, but arg_size is 3" },
        { { .fn = count_run, .run_limit_ns = -1 }, "submit: run_limit_ns is negative" },
        { { .fn = count_run, .run_limit_ns = INT64_MIN }, "submit: run_limit_ns is negative" },
        { { .bytes_fn = count_bytes_run, .result_size = 1 },
          "submit: result_size and result_destroy go with fn only" },
        { { .bytes_fn = count_bytes_run, .result_destroy = ignore_result },
          "submit: result_size and result_destroy go with fn only" },
    };
    cf_future *f = NULL;
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        cf_task task = wrong[i].task;
        task.size = sizeof task;
        assert_int_equal(cf_submit_task(provider.executor, &task, &f), CF_INVALID);
        last_is(CF_INVALID, wrong[i].message);
    }
    assert_int_equal(cf_submit_task(provider.executor, NULL, &f), CF_INVALID);
    last_is(CF_INVALID, "cf_submit_task: task is NULL");
    assert_int_equal(cf_submit_task(NULL, &good, &f), CF_INVALID);
    last_is(CF_INVALID, "submit: executor is NULL");
    assert_null(f);
    assert_int_equal(provider.submits, 0);
}

static void test_wrong_short_forms(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *ex = provider.executor;
    assert_int_equal(cf_submit(NULL, count_run, NULL, 0, 0, &f), CF_INVALID);
    assert_int_equal(cf_submit(ex, NULL, NULL, 0, 0, &f), CF_INVALID);
    assert_int_equal(cf_submit(ex, count_run, NULL, 1, 0, &f), CF_INVALID);
    assert_int_equal(cf_submit_bytes(NULL, count_bytes_run, NULL, 0, &f), CF_INVALID);
    assert_int_equal(cf_submit_bytes(ex, NULL, NULL, 0, &f), CF_INVALID);
    assert_int_equal(cf_submit_bytes(ex, count_bytes_run, NULL, 1, &f), CF_INVALID);
    assert_null(f);
    assert_int_equal(provider.submits, 0);
}

static void test_tasks_of_each_age(void **unused)
{
    (void)unused;
    struct {
        cf_task task;
        char unknown[8];
    } later = { .task = { .size = sizeof later, .fn = count_run } };
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(provider.executor, &later.task, &f), CF_OK);
    run_last();
    f = cf_future_unref(f);
    later.unknown[7] = 1;
    assert_int_equal(cf_submit_task(provider.executor, &later.task, &f), CF_INVALID);
    cf_task small = { .size = sizeof small - 1, .fn = count_run };
    assert_int_equal(cf_submit_task(provider.executor, &small, &f), CF_INVALID);
    small.size = 0;
    assert_int_equal(cf_submit_task(provider.executor, &small, &f), CF_INVALID);
    assert_null(f);
}

static void test_more_memory_than_there_is(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *ex = provider.executor;
    assert_int_equal(cf_submit(ex, count_run, &runs, SIZE_MAX / 8, 0, &f), CF_NOMEM);
    assert_int_equal(cf_submit(ex, count_run, NULL, 0, SIZE_MAX / 8, &f), CF_NOMEM);
    assert_int_equal(cf_submit_bytes(ex, count_bytes_run, &runs, SIZE_MAX / 8, &f), CF_NOMEM);
    assert_int_equal(cf_last_error()->status, CF_NOMEM);
    assert_null(f);
    assert_int_equal(provider.submits, 0);
}

static void test_sizes_that_overflow(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *ex = provider.executor;
    assert_int_equal(cf_submit(ex, count_run, &runs, SIZE_MAX, 0, &f), CF_INVALID);
    assert_int_equal(cf_submit(ex, count_run, NULL, 0, SIZE_MAX, &f), CF_INVALID);
    assert_int_equal(cf_submit_bytes(ex, count_bytes_run, &runs, SIZE_MAX, &f), CF_INVALID);
    assert_null(f);
    assert_int_equal(provider.submits, 0);
}

/* ---- breaking ---- */

static void test_a_broken_executor(void **unused)
{
    (void)unused;
    char message[] = "the cable is out";
    const cf_error why = { .size = sizeof why,
                           .status = CF_SYSTEM, /* it becomes CF_BROKEN */
                           .code = 4,
                           .message = message,
                           .worker_pid = 5,
                           .signal_number = 6,
                           .exit_code = 7,
                           .out_of_memory = 1 };
    const cf_error again = { .size = sizeof again, .status = CF_FAILED, .message = "again" };
    cf_future *before = submit(count_run), *f = NULL;
    cf_executor_break(provider.executor, &why);
    memset(message, 'x', sizeof message - 1);
    cf_executor_break(provider.executor, &again); /* the first counts */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, &f), CF_BROKEN);
        const cf_error *e = cf_last_error();
        last_is(CF_BROKEN, "the cable is out");
        assert_true(e->code == 4 && e->worker_pid == 5 && e->signal_number == 6 &&
                    e->exit_code == 7 && e->out_of_memory == 1);
    }
    assert_null(f);
    assert_int_equal(provider.submits, 1);
    run_last(); /* what was submitted before is still the provider's */
    assert_int_equal(cf_future_result(before, 0, NULL, 0), CF_OK);
    cf_future_unref(before);
}

static void test_broken_without_a_message(void **unused)
{
    (void)unused;
    const cf_error why = { .size = sizeof why, .status = CF_BROKEN };
    cf_executor_break(provider.executor, NULL);
    cf_executor_break(NULL, &why);
    cf_future_unref(submit(count_run));
    run_last();
    cf_executor_break(provider.executor, &why);
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL), CF_BROKEN);
    last_is(CF_BROKEN, cfi_plain_error(CF_BROKEN)->message);
}

/* ---- shutting down ---- */

static void test_shutdown_reaches_the_provider(void **unused)
{
    (void)unused;
    cf_executor *ex = provider.executor;
    provider.shutdown_answer = CF_TIMEOUT;
    assert_int_equal(cf_executor_shutdown(ex, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    assert_true(provider.mode == CF_FINISH_PENDING && provider.deadline == 0);
    assert_int_equal(cf_executor_shutdown(ex, CF_CANCEL_PENDING, -5), CF_TIMEOUT);
    assert_true(provider.mode == CF_CANCEL_PENDING && provider.deadline == 0);
    int64_t before = cfi_now();
    provider.shutdown_answer = CF_INTERRUPTED;
    assert_int_equal(cf_executor_shutdown(ex, CF_STOP_RUNNING, CF_SECONDS(5)), CF_INTERRUPTED);
    assert_int_equal(provider.mode, CF_STOP_RUNNING);
    assert_in_range(provider.deadline, before + CF_SECONDS(5), cfi_now() + CF_SECONDS(5));
    provider.shutdown_answer = CF_OK;
    assert_int_equal(cf_executor_shutdown(ex, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
    assert_true(provider.deadline == CF_FOREVER);
    assert_int_equal(provider.shutdowns, 4);
}

static void test_no_task_after_shutdown(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    provider.shutdown_answer = CF_TIMEOUT; /* begun is enough */
    assert_int_equal(cf_executor_shutdown(provider.executor, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, &f), CF_SHUTDOWN);
    last_is(CF_SHUTDOWN, "the executor has been shut down");
    assert_null(f);
    assert_int_equal(provider.submits, 0);
    provider.shutdown_answer = CF_OK;
}

static void test_wrong_shutdowns(void **unused)
{
    (void)unused;
    assert_int_equal(cf_executor_shutdown(NULL, CF_FINISH_PENDING, 0), CF_INVALID);
    for (int mode = -1; mode <= 3; mode += 4) {
        cf_status s = cf_executor_shutdown(provider.executor, (cf_shutdown_mode)mode, 0);
        assert_int_equal(s, CF_INVALID);
    }
    assert_int_equal(provider.shutdowns, 0);
    cf_future_unref(submit(count_run)); /* it takes work as before */
}

static void test_freeing_shuts_down(void **unused)
{
    (void)unused;
    open_with(&all_hooks);
    assert_null(cf_executor_free(provider.executor));
    assert_int_equal(provider.shutdowns, 1);
    assert_int_equal(provider.mode, CF_FINISH_PENDING);
    assert_true(provider.deadline == CF_FOREVER);
    assert_int_equal(provider.destroys, 1);
    assert_null(cf_executor_free(NULL));
}

static void test_the_last_future_destroys(void **unused)
{
    (void)unused;
    open_with(&all_hooks);
    cf_future *f = submit(count_run), *g = NULL;
    run_last();
    g = submit(count_run);
    cf_executor_free(provider.executor);
    run_last(); /* the provider finishes what it has */
    assert_int_equal(cf_future_result(g, 0, NULL, 0), CF_OK);
    cf_future_unref(f);
    assert_int_equal(provider.destroys, 0);
    cf_future_unref(g);
    assert_int_equal(provider.destroys, 1);
    assert_checks();
}

/* ---- shutting down from inside ---- */

static void shut_down_inside(int64_t timeout_ns)
{
    CHECK(cf_executor_shutdown(provider.executor, CF_CANCEL_PENDING, timeout_ns) == CF_DEADLOCK);
    CHECK(cf_last_error()->status == CF_DEADLOCK);
    CHECK(provider.shutdowns == 1 && provider.deadline == 0); /* begun, not waited for */
    CHECK(provider.mode == CF_CANCEL_PENDING);
    CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL) == CF_SHUTDOWN);
}

static int shut_down_in_task(const void *arg, void *result)
{
    (void)arg, (void)result;
    shut_down_inside(CF_FOREVER);
    return 0;
}

static void test_shutdown_from_its_own_task(void **unused)
{
    (void)unused;
    run_inside(shut_down_in_task);
}

static void shut_down_in_callback(cf_future *future, void *data)
{
    (void)future, (void)data;
    shut_down_inside(CF_MS(1));
}

static void run_with_callback(cf_future *future)
{
    CHECK(cf_future_add_done_callback(future, shut_down_in_callback, NULL) == CF_OK);
    run_and_unref(future);
}

/* Of a task that runs in submit: the shutdown would wait for that submit. */
static void test_shutdown_from_its_own_callback(void **unused)
{
    (void)unused;
    provider.in_submit = run_with_callback;
    assert_int_equal(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL), CF_OK);
    provider.last = NULL;
    assert_checks();
}

static int free_inside(const void *arg, void *result)
{
    (void)arg, (void)result;
    provider.executor = cf_executor_free(provider.executor);
    CHECK(provider.shutdowns == 1 && provider.deadline == 0);
    CHECK(provider.destroys == 0);
    return 0;
}

static void test_freed_by_its_own_task(void **unused)
{
    (void)unused;
    open_with(&all_hooks);
    run_inside(free_inside);
    assert_int_equal(provider.destroys, 1);
}

/* ---- shutting down while somebody submits ---- */

static struct event submit_begun, submit_may_end;

static void block_in_submit(cf_future *future)
{
    (void)future;
    event_set(&submit_begun);
    event_wait(&submit_may_end);
    CHECK(provider.shutdowns == 0);
}

static void *submit_on_thread(void *data)
{
    *(cf_status *)data = cf_submit(provider.executor, count_run, NULL, 0, 0, NULL);
    return NULL;
}

static bool give_up(void *data, bool signalled)
{
    (void)data, (void)signalled;
    return false;
}

static void let_submit_end(void *data)
{
    (void)data;
    event_set(&submit_may_end);
}

static void test_shutdown_waits_for_submits(void **unused)
{
    (void)unused;
    cf_executor *ex = provider.executor;
    cf_status there = CF_INVALID;
    submit_begun = submit_may_end = (struct event)EVENT_INIT;
    provider.in_submit = block_in_submit;
    pthread_t other = start_thread(submit_on_thread, &there);
    event_wait(&submit_begun);
    assert_int_equal(cf_executor_shutdown(ex, CF_FINISH_PENDING, 0), CF_TIMEOUT);
    assert_int_equal(cf_executor_shutdown(ex, CF_FINISH_PENDING, CF_MS(1)), CF_TIMEOUT);
    assert_int_equal(provider.shutdowns, 0);
    assert_int_equal(cf_submit(ex, count_run, NULL, 0, 0, NULL), CF_SHUTDOWN); /* closed by now */

    const cf_wait_hooks impatient = { .size = sizeof impatient, .after = give_up };
    cf_set_wait_hooks(&impatient);
    assert_int_equal(cf_executor_shutdown(ex, CF_FINISH_PENDING, CF_MS(1)), CF_INTERRUPTED);
    assert_int_equal(provider.shutdowns, 0);
    const cf_wait_hooks hooks = { .size = sizeof hooks, .before = let_submit_end };
    cf_set_wait_hooks(&hooks); /* the submit ends when the shutdown goes to sleep */
    assert_int_equal(cf_executor_shutdown(ex, CF_FINISH_PENDING, CF_FOREVER), CF_OK);
    cf_set_wait_hooks(NULL);
    assert_int_equal(provider.shutdowns, 1);
    join_thread(other);
    assert_int_equal(there, CF_OK);
}

/* ---- fork and exit ---- */

static void use_in_child(void *inherited)
{
    cf_future *f = NULL;
    CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, &f) == CF_SHUTDOWN);
    CHECK(f == NULL && provider.submits == 1);
    CHECK(cf_executor_shutdown(provider.executor, CF_FINISH_PENDING, CF_FOREVER) == CF_OK);
    CHECK(cf_executor_shutdown(NULL, CF_FINISH_PENDING, 0) == CF_INVALID);
    cf_executor_free(provider.executor);
    CHECK(provider.shutdowns == 0); /* that would touch what the child does not have */
    CHECK(provider.destroys == 0);
    CHECK(cf_future_cancel(inherited) && provider.cancels == 1);
    cf_future_unref(inherited);
    CHECK(provider.destroys == 1);
}

static void use_a_new_one_in_child(void *data)
{
    (void)data;
    provider = (struct provider){ .answer = CF_OK };
    CHECK(cf_executor_new(&all_hooks, &provider, &provider.executor) == CF_OK);
    cf_future *f = NULL;
    CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, &f) == CF_OK);
    run_last();
    CHECK(cf_future_result(f, CF_FOREVER, NULL, 0) == CF_OK);
    cf_future_unref(f);
    cf_executor_free(provider.executor);
    CHECK(provider.shutdowns == 1 && provider.destroys == 1);
}

static void test_in_a_forked_child(void **unused)
{
    (void)unused;
    cf_future *f = submit(count_run);
    assert_int_equal(in_child(use_in_child, f), 0);
    assert_int_equal(in_child(use_a_new_one_in_child, NULL), 0);
    run_last(); /* nothing has changed here */
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    cf_future_unref(f);
}

static int fork_in_task(const void *arg, void *result)
{
    (void)arg, (void)result;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(cf_executor_shutdown(provider.executor, CF_FINISH_PENDING, CF_FOREVER) == CF_OK ? 0
                                                                                              : 1);
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    return 0;
}

static void test_forked_by_a_task(void **unused)
{
    (void)unused;
    run_inside(fork_in_task);
}

static bool checks_the_exit; /* in a child that is to end by exit() */

static void at_exit(void)
{
    if (!checks_the_exit)
        return;
    CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, NULL) == CF_SHUTDOWN);
    CHECK(cf_executor_shutdown(provider.executor, CF_FINISH_PENDING, CF_FOREVER) == CF_OK);
    cf_executor_free(provider.executor);
    CHECK(provider.submits == 0 && provider.shutdowns == 0 && provider.destroys == 0);
    _exit(all_checks_held() ? 0 : 1);
}

static void exit_now(void *data)
{
    (void)data;
    cf_executor_free(provider.executor); /* the one from before the fork */
    provider = (struct provider){ .answer = CF_OK };
    CHECK(cf_executor_new(&all_hooks, &provider, &provider.executor) == CF_OK);
    checks_the_exit = true;
    exit(2);
}

static void test_while_the_process_exits(void **unused)
{
    (void)unused;
    assert_int_equal(in_child(exit_now, NULL), 0);
}

/* ---- races ---- */

enum { ROUNDS = 3000 };

static struct {
    cf_status there;
    cf_future *future;
} shared;

static void new_provider(void *data)
{
    (void)data;
    provider = (struct provider){ .stop_answer = true };
    CHECK(cf_executor_new(&all_hooks, &provider, &provider.executor) == CF_OK);
    shared.future = NULL;
}

static void submit_there(void *data)
{
    (void)data;
    shared.there = cf_submit(provider.executor, count_run, NULL, 0, 0, &shared.future);
}

static void shut_down_here(void *data)
{
    (void)data;
    CHECK(cf_executor_shutdown(provider.executor, CF_FINISH_PENDING, CF_FOREVER) == CF_OK);
}

static void break_here(void *data)
{
    const cf_error why = { .size = sizeof why, .status = CF_BROKEN, .message = "it is" };
    (void)data;
    cf_executor_break(provider.executor, &why);
}

static void accepted_or(cf_status refusal)
{
    CHECK(shared.there == CF_OK || shared.there == refusal);
    CHECK(provider.submits == (shared.there == CF_OK));
    CHECK((shared.future != NULL) == (shared.there == CF_OK));
    if (provider.last)
        run_last();
    cf_future_unref(shared.future);
    cf_executor_free(provider.executor);
    CHECK(provider.destroys == 1);
}

static void accepted_or_too_late(void *data)
{
    (void)data;
    accepted_or(CF_SHUTDOWN);
}

static void accepted_or_broken(void *data)
{
    (void)data;
    accepted_or(CF_BROKEN);
}

static void test_submit_against_shutdown(void **unused)
{
    (void)unused;
    struct race race = { .prepare = new_provider,
                         .here = shut_down_here,
                         .there = submit_there,
                         .finish = accepted_or_too_late };
    run_race(&race, ROUNDS);
}

static void test_submit_against_break(void **unused)
{
    (void)unused;
    struct race race = { .prepare = new_provider,
                         .here = break_here,
                         .there = submit_there,
                         .finish = accepted_or_broken };
    run_race(&race, ROUNDS);
}

static void free_here(void *data)
{
    (void)data;
    cf_executor_free(provider.executor);
}

static void submitted_before(void *data)
{
    new_provider(data);
    CHECK(cf_submit(provider.executor, count_run, NULL, 0, 0, &shared.future) == CF_OK);
}

static void run_and_let_go_there(void *data)
{
    (void)data;
    run_last();
    cf_future_unref(shared.future);
}

static void it_went_once(void *data)
{
    (void)data;
    CHECK(provider.destroys == 1);
}

static void test_free_against_the_last_future(void **unused)
{
    (void)unused;
    struct race race = { .prepare = submitted_before,
                         .here = free_here,
                         .there = run_and_let_go_there,
                         .finish = it_went_once };
    run_race(&race, ROUNDS);
}

/* A provider links its futures through the room, while users cancel them. */
static void submitted_with_an_arg(void *data)
{
    new_provider(data);
    const cf_task task = { .size = sizeof task,
                           .fn = count_run,
                           .arg = "",
                           .arg_size = 1,
                           .arg_destroy = count_arg_destroyed };
    CHECK(cf_submit_task(provider.executor, &task, &shared.future) == CF_OK);
    args_destroyed = 0;
    cf_future_ref(provider.last); /* of the one who looks */
}

static void cancel_here(void *data)
{
    (void)data;
    CHECK(cf_future_cancel(shared.future));
}

static void link_there(void *data)
{
    (void)data;
    *(void **)cf_future_room(shared.future) = &shared;
    const cf_task *task = cf_future_task(shared.future);
    CHECK(!task || task->fn == count_run);
}

static void it_was_cancelled(void *data)
{
    (void)data;
    CHECK(args_destroyed == 1 && provider.cancels == 1);
    cf_future_unref(shared.future);
    cf_future_unref(shared.future);
    cf_executor_free(provider.executor);
    CHECK(provider.destroys == 1);
}

static void test_cancel_against_the_room(void **unused)
{
    (void)unused;
    struct race race = { .prepare = submitted_with_an_arg,
                         .here = cancel_here,
                         .there = link_there,
                         .finish = it_was_cancelled };
    run_race(&race, ROUNDS);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_provider, close_provider)

int main(void)
{
    atexit(at_exit); /* before the library's own, so that it runs after that */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_executors),
        cmocka_unit_test(test_hooks_of_a_later_version),
        cmocka_unit_test(test_the_largest_room),
        cmocka_unit_test(test_hooks_are_copied),
        cmocka_unit_test(test_an_executor_without_hooks),
        TEST(test_the_task_as_submitted),
        TEST(test_room_for_the_provider),
        TEST(test_nobody_will_ask),
        TEST(test_done_within_the_submit),
        TEST(test_cancelling_reaches_the_provider),
        cmocka_unit_test(test_giving_up_is_no_cancel),
        TEST(test_stopping_reaches_the_provider),
        TEST(test_a_task_that_waits_helps),
        cmocka_unit_test(test_a_wait_without_help_sleeps),
        TEST(test_nobody_helps_outside_its_tasks),
        TEST(test_the_providers_answer_is_handed_on),
        TEST(test_the_providers_answer_is_the_last_error),
        cmocka_unit_test(test_a_failed_submit_keeps_no_executor),
        TEST(test_wrong_tasks),
        TEST(test_wrong_short_forms),
        TEST(test_tasks_of_each_age),
        TEST(test_more_memory_than_there_is),
        TEST(test_sizes_that_overflow),
        TEST(test_a_broken_executor),
        TEST(test_broken_without_a_message),
        TEST(test_shutdown_reaches_the_provider),
        TEST(test_no_task_after_shutdown),
        TEST(test_wrong_shutdowns),
        cmocka_unit_test(test_freeing_shuts_down),
        cmocka_unit_test(test_the_last_future_destroys),
        TEST(test_shutdown_from_its_own_task),
        TEST(test_shutdown_from_its_own_callback),
        cmocka_unit_test(test_freed_by_its_own_task),
        TEST(test_shutdown_waits_for_submits),
        TEST(test_in_a_forked_child),
        TEST(test_forked_by_a_task),
        TEST(test_while_the_process_exits),
        cmocka_unit_test(test_submit_against_shutdown),
        cmocka_unit_test(test_submit_against_break),
        cmocka_unit_test(test_free_against_the_last_future),
        cmocka_unit_test(test_cancel_against_the_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
