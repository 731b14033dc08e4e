/* SPDX-License-Identifier: MIT */
/* What every executor does alike: one table of behaviours, run over each kind of executor.  A new
 * kind is one line in `kinds`.  What tasks tell the test they tell by their results, or on the board,
 * which worker processes see too. */
#define _GNU_SOURCE
#include "process_support.h"

struct kind {
    const char *name;
    cf_status (*make)(cf_executor **ret);
    bool defers;    /* a submit may come back before the task has begun */
    bool is_remote; /* tasks run in other processes */
};

static cf_status make_one_thread(cf_executor **ret)
{
    return cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 1), ret);
}

static cf_status make_threads(cf_executor **ret)
{
    return cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), ret);
}

static cf_status make_bounded(cf_executor **ret)
{
    return cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .max_pending = 4), ret);
}

static cf_status make_one_process(cf_executor **ret)
{
    return cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 1), ret);
}

static cf_status make_processes(cf_executor **ret)
{
    return cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 3), ret);
}

static cf_status make_bounded_processes(cf_executor **ret)
{
    return cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_pending = 4), ret);
}

static cf_status make_short_lived_processes(cf_executor **ret)
{
    return cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_tasks_per_child = 7),
                               ret);
}

static const struct kind kinds[] = {
    { "inline", cf_inline_executor_new, false, false },
    { "one thread", make_one_thread, true, false },
    { "threads", make_threads, true, false },
    { "bounded threads", make_bounded, true, false },
    { "one process", make_one_process, true, true },
    { "processes", make_processes, true, true },
    { "bounded processes", make_bounded_processes, true, true },
    { "short-lived processes", make_short_lived_processes, true, true },
};

/* What a behaviour is tried on. */
struct subject {
    const struct kind *kind;
    cf_executor *executor; /* NULL: the behaviour has freed it */
};

static void assert_message(const char *part)
{
    if (!strstr(cf_last_error()->message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, cf_last_error()->message);
}

/* ---- submit ---- */

static int add_one(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg + 1;
    return 0;
}

static cf_future *plus_one(struct subject *s, int i)
{
    return submitted(s->executor, add_one, &i, sizeof i, sizeof i);
}

static void check_submit(struct subject *s)
{
    int arg = 1, value = 0;
    cf_future *f = NULL;
    assert_int_equal(CF_SUBMIT(s->executor, add_one, &arg, int, &f), CF_OK);
    arg = 100; /* it has a copy */
    assert_int_equal(CF_RESULT(f, LIMIT, &value), CF_OK);
    assert_int_equal(value, 2);
    assert_true(cf_future_done(f));
    assert_false(cf_future_running(f) || cf_future_cancelled(f));
    assert_null(cf_future_exception(f));
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_OK);
    cf_future_unref(f);
    assert_int_equal(cf_submit(s->executor, do_nothing, NULL, 0, 0, NULL), CF_OK);
}

static void check_futures_of_executors_that_do_not_defer(struct subject *s)
{
    cf_future *f = submitted(s->executor, do_nothing, NULL, 0, 0);
    assert_true(s->kind->defers || cf_future_done(f));
    assert_ends(f, CF_OK);
}

struct large {
    _Alignas(16) unsigned char bytes[5000];
};

static int reverse(const void *arg, void *result)
{
    const struct large *from = arg;
    struct large *to = result;
    if ((uintptr_t)arg % 16 != 0 || (uintptr_t)result % 16 != 0)
        return cf_raise(1, "not aligned");
    for (size_t i = 0; i < sizeof from->bytes; i++)
        to->bytes[i] = from->bytes[sizeof from->bytes - 1 - i];
    return 0;
}

static void check_large_arguments_and_results(struct subject *s)
{
    static struct large from, to;
    for (size_t i = 0; i < sizeof from.bytes; i++)
        from.bytes[i] = (unsigned char)(i * 7);
    cf_future *f = submitted(s->executor, reverse, &from, sizeof from, sizeof to);
    assert_int_equal(CF_RESULT(f, LIMIT, &to), CF_OK);
    for (size_t i = 0; i < sizeof from.bytes; i++)
        assert_int_equal(to.bytes[i], from.bytes[sizeof from.bytes - 1 - i]);
    cf_future_unref(f);
}

static int never(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    worker_check_failed("a task ran whose submit has failed");
    return 0;
}

static int never_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    return never(arg, result);
}

static void assert_bad_task(struct subject *s, const cf_task *task, const char *what)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(s->executor, task, &f), CF_INVALID);
    assert_null(f);
    assert_message(what);
}

static void check_submits_are_checked(struct subject *s)
{
    assert_int_equal(cf_submit(NULL, never, NULL, 0, 0, NULL), CF_INVALID);
    assert_int_equal(cf_submit(s->executor, NULL, NULL, 0, 0, NULL), CF_INVALID);
    assert_message("fn");
    assert_int_equal(cf_submit(s->executor, never, NULL, 4, 0, NULL), CF_INVALID);
    assert_message("arg");
    assert_int_equal(cf_submit_task(s->executor, NULL, NULL), CF_INVALID);
    assert_bad_task(s, &(cf_task){ .fn = never }, "size");
    assert_bad_task(s, CF_TASK(.fn = NULL), "fn");
    assert_bad_task(s, CF_TASK(.fn = never, .bytes_fn = never_bytes), "both");
    assert_bad_task(s, CF_TASK(.fn = never, .run_limit_ns = -1), "run_limit_ns");
    assert_bad_task(s, CF_TASK(.bytes_fn = never_bytes, .result_size = 1), "result_size");
}

/* ---- reading ---- */

static void check_take_and_peek(struct subject *s)
{
    int value = 0;
    const void *data = NULL;
    size_t size = 0;
    cf_future *f = plus_one(s, 1);
    assert_int_equal(cf_future_peek(f, LIMIT, &data, &size), CF_OK);
    assert_int_equal(size, sizeof(int));
    assert_int_equal(*(const int *)data, 2);
    assert_int_equal(cf_future_result(f, LIMIT, &value, 1), CF_INVALID);
    assert_message("1");
    assert_int_equal(cf_future_take(f, LIMIT, NULL, 0), CF_OK);
    assert_int_equal(CF_TAKE(f, LIMIT, &value), CF_OK);
    assert_int_equal(value, 2);
    assert_int_equal(CF_TAKE(f, LIMIT, &value), CF_INVALID);
    assert_int_equal(CF_RESULT(f, LIMIT, &value), CF_INVALID);
    assert_int_equal(cf_future_peek(f, LIMIT, &data, &size), CF_INVALID);
    cf_future_unref(f);
}

/* ---- bytes ---- */

static int repeat(const void *arg, size_t arg_size, cf_bytes *result)
{
    if (result->data || result->size != 0)
        return cf_raise(1, "the result does not begin empty");
    if (arg_size == 0)
        return 0;
    if (cf_bytes_resize(result, 2 * arg_size) != CF_OK)
        return 1;
    memcpy(result->data, arg, arg_size);
    memcpy((char *)result->data + arg_size, arg, arg_size);
    return *(const char *)arg == '!' ? cf_raise(8, "an exclamation") : 0;
}

static void check_bytes(struct subject *s)
{
    cf_future *f = NULL;
    cf_bytes bytes = { NULL, 0 };
    const void *data = NULL;
    size_t size = 9;
    assert_int_equal(cf_submit_bytes(s->executor, repeat, "abc", 3, &f), CF_OK);
    assert_int_equal(cf_future_peek(f, LIMIT, &data, &size), CF_OK);
    assert_int_equal(size, 6);
    assert_memory_equal(data, "abcabc", 6);
    assert_int_equal(CF_RESULT(f, LIMIT, &bytes), CF_INVALID);
    assert_int_equal(CF_TAKE(f, LIMIT, &bytes), CF_OK);
    cf_future_unref(f);
    assert_int_equal(bytes.size, 6);
    assert_memory_equal(bytes.data, "abcabc", 6);
    cf_bytes_free(&bytes);
    assert_int_equal(cf_submit_bytes(s->executor, repeat, NULL, 0, &f), CF_OK);
    assert_int_equal(cf_future_peek(f, LIMIT, &data, &size), CF_OK);
    assert_int_equal(size, 0);
    cf_future_unref(f);
    assert_int_equal(cf_submit_bytes(s->executor, repeat, "!", 1, &f), CF_OK);
    assert_int_equal(CF_TAKE(f, LIMIT, &bytes), CF_FAILED);
    assert_null(bytes.data);
    assert_ends(f, CF_FAILED);
}

/* ---- what tasks own ---- */

static void count_destroy(void *data)
{
    atomic_fetch_add(*(atomic_int *const *)data, 1);
}

static int copy_pointer(const void *arg, void *result)
{
    memcpy(result, arg, sizeof(void *));
    return 0;
}

static int copy_pointer_and_fail(const void *arg, void *result)
{
    memcpy(result, arg, sizeof(void *));
    return 1;
}

static cf_future *owning(struct subject *s, cf_fn *fn, atomic_int *count)
{
    cf_future *f = NULL;
    assert_int_equal(
        cf_submit_task(s->executor,
                       CF_TASK(.fn = fn, .arg = &count, .arg_size = sizeof count,
                               .result_size = sizeof(void *), .arg_destroy = count_destroy,
                               .result_destroy = count_destroy),
                       &f),
        CF_OK);
    return f;
}

static void check_destroy_functions(struct subject *s)
{
    atomic_int count = 0, *taken = NULL;
    cf_future *f = owning(s, copy_pointer, &count);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_OK);
    assert_int_equal(atomic_load(&count), 1); /* the argument */
    cf_future_unref(f);
    if (!s->kind->defers)
        assert_int_equal(atomic_load(&count), 2); /* and the result */
    f = owning(s, copy_pointer, &count);
    assert_int_equal(CF_TAKE(f, LIMIT, &taken), CF_OK);
    assert_ptr_equal(taken, &count);
    cf_future_unref(f);
    f = owning(s, copy_pointer_and_fail, &count);
    assert_ends(f, CF_FAILED);
    assert_int_equal(cf_executor_shutdown(s->executor, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_int_equal(atomic_load(&count), 4); /* three arguments, one result */
    f = NULL;
    const cf_task refused = { .size = sizeof refused,
                              .fn = never,
                              .arg = &taken,
                              .arg_size = sizeof taken,
                              .arg_destroy = count_destroy };
    assert_int_equal(cf_submit_task(s->executor, &refused, &f), CF_SHUTDOWN);
    assert_int_equal(atomic_load(&count), 4); /* then it is still the caller's */
}

/* ---- errors ---- */

static int fail_in_a_way(const void *arg, void *result)
{
    (void)result;
    switch (*(const int *)arg) {
    case 0:
        return 17;
    case 1:
        return cf_raise(EIO, "no %s in %d", "bits", 3);
    case 2:
        return cf_raise(0, "but it fails");
    case 3:
        (void)cf_raise(1, "the first");
        return cf_raise(2, "the second");
    case 4:
        (void)cf_raise(1, "never mind");
        return 0;
    default:
        return cf_raise(-5, "%0600d", 1);
    }
}

static void assert_fails(struct subject *s, int way, int code, const char *message)
{
    cf_future *f = submitted(s->executor, fail_in_a_way, &way, sizeof way, 0);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_FAILED);
    const cf_error *last = cf_last_error(), *error = cf_future_exception(f);
    assert_int_equal(last->status, CF_FAILED);
    assert_int_equal(last->code, code);
    assert_int_equal(error->status, CF_FAILED);
    assert_int_equal(error->code, code);
    assert_string_equal(error->message, last->message);
    if (message)
        assert_string_equal(error->message, message);
    else
        assert_true(strlen(error->message) > 0);
    assert_true(cf_future_done(f));
    assert_false(cf_future_cancelled(f));
    cf_future_unref(f);
}

static void check_errors(struct subject *s)
{
    const int raises_and_succeeds = 4;
    char cut[512];
    memset(cut, '0', 511);
    cut[511] = 0;
    assert_fails(s, 0, 17, NULL);
    assert_fails(s, 1, EIO, "no bits in 3");
    assert_fails(s, 2, -1, "but it fails");
    assert_fails(s, 3, 2, "the second");
    assert_fails(s, 5, -5, cut);
    assert_ends(submitted(s->executor, fail_in_a_way, &raises_and_succeeds, sizeof(int), 0), CF_OK);
    assert_int_equal(cf_raise(7, "outside a task"), 7);
    assert_int_equal(cf_raise(0, "outside a task"), -1);
}

/* ---- stopping and cancelling ---- */

static int run_until_stopped(const void *arg, void *result)
{
    (void)result;
    int64_t begun = cfi_now();
    while (!cf_stop_requested() && cfi_now() - begun < LIMIT)
        sched_yield();
    return *(const int *)arg;
}

static void check_run_limits(struct subject *s)
{
    const int obeys = 3, succeeds = 0;
    const int *const codes[] = { &obeys, &succeeds };
    for (int i = 0; i < 2; i++) {
        cf_future *f = NULL;
        assert_int_equal(cf_submit_task(s->executor,
                                        CF_TASK(.fn = run_until_stopped, .arg = codes[i],
                                                .arg_size = sizeof(int), .run_limit_ns = CF_MS(10)),
                                        &f),
                         CF_OK);
        cf_status status = cf_future_result(f, LIMIT, NULL, 0);
        bool was_killed = status == CF_STOPPED && cf_future_exception(f)->signal_number != 0;
        assert_true(s->kind->is_remote || !was_killed);
        if (!was_killed) {
            assert_int_equal(status, i == 0 ? CF_STOPPED : CF_OK);
            assert_true(i == 1 || cf_future_exception(f)->code == 3);
        }
        cf_future_unref(f);
    }
    assert_false(cf_stop_requested());
}

static void check_cancel_of_what_is_done(struct subject *s)
{
    cf_future *f = plus_one(s, 1);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_OK);
    assert_false(cf_future_cancel(f));
    assert_false(cf_future_stop(f, 0));
    assert_false(cf_future_cancelled(f));
    assert_ends(f, CF_OK);
    assert_false(cf_future_cancel(NULL));
    assert_false(cf_future_stop(NULL, 0));
}

static void note_cancelled(cf_future *f, void *data)
{
    *(bool *)data = cf_future_cancelled(f);
}

enum { MANY = 100 };

/* Whether a future could be cancelled is up to chance; what then holds is not. */
static void check_cancel(struct subject *s)
{
    for (int i = 0; i < MANY; i++) {
        bool called_cancelled = false;
        cf_future *f = plus_one(s, i);
        bool cancelled = cf_future_cancel(f);
        assert_true(s->kind->defers || !cancelled);
        assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), cancelled ? CF_CANCELLED : CF_OK);
        assert_int_equal(cf_future_cancelled(f), cancelled);
        assert_int_equal(cf_future_cancel(f), cancelled);
        assert_true(cf_future_done(f));
        if (cancelled)
            assert_string_equal(cf_future_exception(f)->message, "cancelled");
        assert_int_equal(cf_future_add_done_callback(f, note_cancelled, &called_cancelled), CF_OK);
        assert_int_equal(called_cancelled, cancelled);
        cf_future_unref(f);
    }
}

/* ---- waiting ---- */

static void check_wait(struct subject *s)
{
    const int fails = 0;
    cf_future *f[MANY];
    size_t done = 9;
    for (int i = 0; i < MANY; i++)
        f[i] = plus_one(s, i);
    assert_int_equal(cf_wait(f, MANY, CF_FIRST_COMPLETED, LIMIT, &done), CF_OK);
    assert_in_range(done, 1, MANY);
    assert_int_equal(cf_wait(f, MANY, CF_FIRST_EXCEPTION, LIMIT, &done), CF_OK);
    assert_int_equal(done, MANY); /* none fails: that is when all are done */
    assert_int_equal(cf_wait(f, MANY, CF_ALL_COMPLETED, 0, &done), CF_OK);
    assert_int_equal(done, MANY);
    cf_future *failed = submitted(s->executor, fail_in_a_way, &fails, sizeof fails, 0);
    cf_future *some[] = { f[0], NULL, f[0], failed, NULL };
    assert_int_equal(cf_wait(some, COUNT_OF(some), CF_FIRST_EXCEPTION, LIMIT, &done), CF_OK);
    assert_int_equal(done, 3); /* entries, not futures */
    assert_int_equal(cf_wait(NULL, 0, CF_FIRST_COMPLETED, CF_FOREVER, &done), CF_OK);
    assert_int_equal(done, 0);
    assert_int_equal(cf_wait(NULL, 1, CF_ALL_COMPLETED, 0, &done), CF_INVALID);
    assert_int_equal(cf_wait(f, MANY, (cf_return_when)3, 0, &done), CF_INVALID);
    cf_future_unref_all(f, MANY);
    assert_null(f[MANY - 1]);
    cf_future_unref(failed);
}

static void check_as_completed(struct subject *s)
{
    cf_future *f[MANY + 2];
    bool yielded[MANY + 2] = { false };
    size_t index = 0;
    cf_completed *completed = NULL;
    for (int i = 0; i < MANY; i++)
        f[i] = plus_one(s, i);
    f[MANY] = f[3]; /* the first of duplicates is yielded, once */
    f[MANY + 1] = NULL;
    assert_int_equal(cf_as_completed(f, MANY + 2, LIMIT, &completed), CF_OK);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(cf_completed_next(completed, &index), CF_OK);
        assert_in_range(index, 0, MANY - 1);
        assert_false(yielded[index]);
        assert_true(cf_future_done(f[index]));
        yielded[index] = true;
    }
    assert_int_equal(cf_completed_next(completed, &index), CF_END);
    assert_int_equal(cf_completed_next(completed, &index), CF_END);
    assert_null(cf_completed_free(completed));
    assert_int_equal(cf_as_completed(NULL, 0, 0, &completed), CF_OK);
    assert_int_equal(cf_completed_next(completed, &index), CF_END);
    cf_completed_free(completed);
    assert_int_equal(cf_as_completed(f, MANY, LIMIT, &completed), CF_OK); /* and left half-way */
    assert_int_equal(cf_completed_next(completed, &index), CF_OK);
    cf_completed_free(completed);
    cf_future_unref_all(f, MANY);
}

/* ---- callbacks ---- */

struct calls {
    struct level level;
    char order[8];
};

struct call {
    struct calls *calls;
    char name;
};

static void note_call(cf_future *f, void *data)
{
    const struct call *call = data;
    CHECK(cf_future_done(f));
    call->calls->order[level_now(&call->calls->level)] = call->name;
    level_raise(&call->calls->level);
}

static void add_another(cf_future *f, void *data)
{
    note_call(f, data);
    struct call inner = { ((struct call *)data)->calls, 'i' };
    CHECK(cf_future_add_done_callback(f, note_call, &inner) == CF_OK); /* called at once */
}

static void check_callbacks(struct subject *s)
{
    struct calls calls = { .level = LEVEL_INIT };
    struct call a = { &calls, 'a' }, b = { &calls, 'b' }, c = { &calls, 'c' };
    const int fails = 0;
    cf_future *f = submitted(s->executor, fail_in_a_way, &fails, sizeof fails, 0);
    assert_int_equal(cf_future_add_done_callback(f, note_call, &a), CF_OK);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_FAILED);
    assert_true(level_reaches(&calls.level, 1));
    assert_int_equal(cf_future_add_done_callback(f, add_another, &b), CF_OK);
    assert_int_equal(cf_future_add_done_callback(f, note_call, &c), CF_OK);
    assert_int_equal(level_now(&calls.level), 4); /* at once, here */
    assert_string_equal(calls.order, "abic");
    assert_int_equal(cf_future_add_done_callback(f, NULL, NULL), CF_INVALID);
    assert_int_equal(cf_future_add_done_callback(NULL, note_call, NULL), CF_INVALID);
    cf_future_unref(f);
}

struct adding {
    struct calls calls;
    struct call a, b, c;
};

/* Of several that were added before the end the first comes first. */
static void check_callbacks_come_in_order(struct subject *s)
{
    static struct adding adding = { .calls = { .level = LEVEL_INIT } };
    if (!s->kind->defers)
        return;
    level_set(&adding.calls.level, 0);
    adding.a = (struct call){ &adding.calls, 'a' };
    adding.b = (struct call){ &adding.calls, 'b' };
    adding.c = (struct call){ &adding.calls, 'c' };
    cf_future *f = submitted(s->executor, wait_for_opening, NULL, 0, 0);
    assert_int_equal(cf_future_add_done_callback(f, note_call, &adding.a), CF_OK);
    assert_int_equal(cf_future_add_done_callback(f, add_another, &adding.b), CF_OK);
    assert_int_equal(cf_future_add_done_callback(f, note_call, &adding.c), CF_OK);
    cell_set(OPENED, 1);
    assert_true(level_reaches(&adding.calls.level, 4));
    assert_memory_equal(adding.calls.order, "abic", 4);
    cf_future_unref(f);
}

/* ---- callbacks and tasks that use their executor ---- */

struct asking {
    cf_executor *executor;
    struct level *answered;
    atomic_int *sum;
};

static void submit_and_wait_in_callback(cf_future *f, void *data)
{
    const struct asking *asking = data;
    int value = 0;
    cf_future *inner = NULL;
    CHECK(CF_RESULT(f, 0, &value) == CF_OK);
    CHECK(CF_SUBMIT(asking->executor, add_one, &value, int, &inner) == CF_OK);
    CHECK(CF_RESULT(inner, LIMIT, &value) == CF_OK);
    cf_future_unref(inner);
    atomic_fetch_add(asking->sum, value);
    level_raise(asking->answered);
}

static void check_callbacks_submit_and_wait(struct subject *s)
{
    struct level answered = LEVEL_INIT;
    atomic_int sum = 0;
    struct asking asking = { s->executor, &answered, &sum };
    for (int i = 0; i < 10; i++) {
        cf_future *f = plus_one(s, i);
        assert_int_equal(cf_future_add_done_callback(f, submit_and_wait_in_callback, &asking),
                         CF_OK);
        cf_future_unref(f);
    }
    assert_true(level_reaches(&answered, 10));
    assert_int_equal(atomic_load(&sum), 65);
}

static int submit_and_wait(const void *arg, void *result)
{
    struct subject *s = *(struct subject *const *)arg;
    int values[10];
    cf_future *f[10];
    *(int *)result = 0;
    for (int i = 0; i < 10; i++)
        CHECK(CF_SUBMIT(s->executor, add_one, &i, int, &f[i]) == CF_OK);
    for (int i = 0; i < 10; i++) {
        CHECK(CF_RESULT(f[i], LIMIT, &values[i]) == CF_OK);
        *(int *)result += values[i];
        cf_future_unref(f[i]);
    }
    return 0;
}

static void check_tasks_submit_and_wait(struct subject *s)
{
    cf_future *f[20];
    for (int i = 0; i < 20; i++)
        f[i] = submitted(s->executor, submit_and_wait, &s, sizeof s, sizeof(int));
    for (int i = 0; i < 20; i++) {
        int sum = 0;
        assert_int_equal(CF_RESULT(f[i], LIMIT, &sum), CF_OK);
        assert_int_equal(sum, 55);
        cf_future_unref(f[i]);
    }
}

static int shut_down(const void *arg, void *result)
{
    struct subject *s = *(struct subject *const *)arg;
    *(cf_status *)result = cf_executor_shutdown(s->executor, CF_FINISH_PENDING, CF_FOREVER);
    return 0;
}

static void check_shutdown_by_a_task(struct subject *s)
{
    cf_status status = CF_OK;
    cf_future *f = submitted(s->executor, shut_down, &s, sizeof s, sizeof status);
    assert_int_equal(CF_RESULT(f, LIMIT, &status), CF_OK);
    assert_int_equal(status, CF_DEADLOCK);
    cf_future_unref(f);
    assert_int_equal(cf_submit(s->executor, never, NULL, 0, 0, NULL), CF_SHUTDOWN);
}

/* ---- the end ---- */

static void check_shutdown(struct subject *s)
{
    cf_future *f[MANY], *none = NULL;
    for (int i = 0; i < MANY; i++)
        f[i] = plus_one(s, i);
    assert_int_equal(cf_executor_shutdown(s->executor, (cf_shutdown_mode)-1, 0), CF_INVALID);
    assert_int_equal(cf_executor_shutdown(s->executor, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_int_equal(cf_submit(s->executor, never, NULL, 0, 0, &none), CF_SHUTDOWN);
    assert_null(none);
    assert_int_equal(cf_last_error()->status, CF_SHUTDOWN);
    assert_int_equal(cf_executor_shutdown(s->executor, CF_STOP_RUNNING, 0), CF_OK);
    for (int i = 0; i < MANY; i++) {
        int value = 0;
        assert_int_equal(CF_RESULT(f[i], 0, &value), CF_OK);
        assert_int_equal(value, i + 1);
        cf_future_unref(f[i]);
    }
}

static void check_cancelling_shutdown(struct subject *s)
{
    cf_future *f[MANY];
    for (int i = 0; i < MANY; i++)
        f[i] = plus_one(s, i);
    assert_int_equal(cf_executor_shutdown(s->executor, CF_CANCEL_PENDING, LIMIT), CF_OK);
    for (int i = 0; i < MANY; i++) {
        cf_status status = cf_future_result(f[i], 0, NULL, 0);
        assert_true(status == CF_OK || (s->kind->defers && status == CF_CANCELLED));
        cf_future_unref(f[i]);
    }
}

static void check_futures_outlive_the_executor(struct subject *s)
{
    int value = 0;
    const int fails = 1;
    cf_future *f = plus_one(s, 41),
              *g = submitted(s->executor, fail_in_a_way, &fails, sizeof fails, 0);
    s->executor = cf_executor_free(s->executor);
    assert_null(s->executor);
    assert_int_equal(CF_RESULT(f, 0, &value), CF_OK);
    assert_int_equal(value, 42);
    assert_string_equal(cf_future_exception(g)->message, "no bits in 3");
    assert_false(cf_future_cancel(f));
    assert_int_equal(cf_wait((cf_future *[]){ f, g }, 2, CF_ALL_COMPLETED, 0, NULL), CF_OK);
    cf_future_unref(f);
    cf_future_unref(g);
}

/* ---- maps ---- */

static int add_ranges(const void *context, size_t begin, size_t end, void *results)
{
    for (size_t i = begin; i < end; i++)
        ((int *)results)[i - begin] = *(const int *)context + (int)i;
    return 0;
}

static bool next_int(void *data, size_t index, cf_task *task)
{
    *(int *)data = (int)index;
    task->arg = data;
    return index < MANY;
}

static void check_maps(struct subject *s)
{
    int args[MANY], results[MANY], buffer = 0, value = 0;
    const int base = 5;
    size_t index = 0;
    cf_results *iterator = NULL;
    for (int i = 0; i < MANY; i++)
        args[i] = i;
    assert_int_equal(CF_MAP(s->executor, add_one, args, MANY, results, CF_FOREVER), CF_OK);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(results[i], i + 1);
    assert_int_equal(cf_map_range(s->executor, add_ranges, &base, sizeof base, MANY, results,
                                  sizeof *results, LIMIT),
                     CF_OK);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(results[i], i + 5);
    const cf_task task = {
        .size = sizeof task, .fn = add_one, .arg_size = sizeof buffer, .result_size = sizeof value
    };
    assert_int_equal(cf_map_from(s->executor, &task, next_int, &buffer, NULL, LIMIT, &iterator),
                     CF_OK);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(cf_results_next(iterator, &value, sizeof value, &index), CF_OK);
        assert_int_equal(value, i + 1);
        assert_int_equal(index, i);
    }
    assert_int_equal(cf_results_next(iterator, &value, sizeof value, &index), CF_END);
    cf_results_free(iterator);
}

static void check_map_bytes(struct subject *s)
{
    cf_bytes args[3] = { { "ab", 2 }, { NULL, 0 }, { "!", 1 } }, results[3];
    assert_int_equal(cf_map_bytes(s->executor, repeat, args, 2, results, CF_FOREVER), CF_OK);
    assert_memory_equal(results[0].data, "abab", 4);
    assert_null(results[1].data);
    cf_bytes_free(&results[0]);
    assert_int_equal(cf_map_bytes(s->executor, repeat, args, 3, results, CF_FOREVER), CF_FAILED);
    assert_int_equal(cf_last_error()->index, 2);
    assert_int_equal(cf_last_error()->code, 8);
    for (int i = 0; i < 3; i++)
        cf_bytes_free(&results[i]);
}

/* ---- the table ---- */

static const struct behaviour {
    const char *name;
    void (*check)(struct subject *subject);
    bool is_local; /* its tasks use the test's own memory, or the executor itself */
} behaviours[] = {
    { "submit", check_submit, false },
    { "done in submit, unless deferred", check_futures_of_executors_that_do_not_defer, false },
    { "large arguments and results", check_large_arguments_and_results, false },
    { "submits are checked", check_submits_are_checked, false },
    { "take and peek", check_take_and_peek, false },
    { "bytes", check_bytes, false },
    { "destroy functions", check_destroy_functions, false },
    { "errors", check_errors, false },
    { "run limits", check_run_limits, false },
    { "cancel of what is done", check_cancel_of_what_is_done, false },
    { "cancel", check_cancel, false },
    { "callbacks submit and wait", check_callbacks_submit_and_wait, false },
    { "wait", check_wait, false },
    { "as completed", check_as_completed, false },
    { "callbacks", check_callbacks, false },
    { "callbacks come in order", check_callbacks_come_in_order, false },
    { "tasks submit and wait", check_tasks_submit_and_wait, true },
    { "shutdown by a task", check_shutdown_by_a_task, true },
    { "shutdown", check_shutdown, false },
    { "cancelling shutdown", check_cancelling_shutdown, false },
    { "futures outlive the executor", check_futures_outlive_the_executor, false },
    { "maps", check_maps, false },
    { "map of bytes", check_map_bytes, false },
};

struct item {
    char name[80];
    const struct kind *kind;
    const struct behaviour *behaviour;
};

static void check_item(void **state)
{
    const struct item *item = *state;
    struct subject subject = { .kind = item->kind };
    (void)begin_tally(state);
    assert_int_equal(item->kind->make(&subject.executor), CF_OK);
    item->behaviour->check(&subject);
    if (subject.executor)
        end_pool(subject.executor);
    assert_checks();
    assert_int_equal(check_tally(state), 0);
}

int main(void)
{
    enum { KINDS = COUNT_OF(kinds), BEHAVIOURS = COUNT_OF(behaviours) };
    static struct item items[KINDS * BEHAVIOURS];
    static struct CMUnitTest tests[KINDS * BEHAVIOURS];
    size_t count = 0;
    begin_process_tests();
    for (size_t i = 0; i < KINDS * BEHAVIOURS; i++) {
        struct item *item = &items[count];
        *item = (struct item){ .kind = &kinds[i / BEHAVIOURS],
                               .behaviour = &behaviours[i % BEHAVIOURS] };
        if (item->kind->is_remote && item->behaviour->is_local)
            continue;
        snprintf(item->name, sizeof item->name, "%s: %s", item->kind->name, item->behaviour->name);
        tests[count++] = (struct CMUnitTest){ .name = item->name,
                                              .test_func = check_item,
                                              .initial_state = item };
    }
    return _cmocka_run_group_tests("conformance", tests, count, NULL, NULL);
}
