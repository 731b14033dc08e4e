/* SPDX-License-Identifier: MIT */
/* Tasks as bytes: there and back, in every shape; and that no damage, wherever it is, makes a wrong
 * result.  Includes wire.c itself, to make requests and replies that are sealed and wrong. */
#define _GNU_SOURCE
#include "manual.h"

/* Between these two the allocations of wire.c can be refused. */
#include "core/future.h"
#include "core/map.h"

enum { UNLIMITED = -1 };
static int may_allocate = UNLIMITED; /* so often; 0: not once more */

static bool is_refused(void)
{
    bool refused = may_allocate == 0;
    may_allocate -= may_allocate > 0;
    return refused;
}

static cf_status scarce_resize(cf_bytes *bytes, size_t size)
{
    return is_refused() ? cfi_fail(CF_NOMEM, "refused") : cf_bytes_resize(bytes, size);
}

static void *scarce_malloc(size_t size)
{
    return is_refused() ? NULL : malloc(size);
}

#define cf_bytes_resize scarce_resize
#define malloc          scarce_malloc
#include "wire/wire.c"
#undef malloc
#undef cf_bytes_resize

/* A request may ask for more than there is: a sanitizer's malloc shall say so, not abort. */
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

static struct manual executor;
static unsigned runs; /* how often a task ran in this process */

static int open_executor(void **state)
{
    (void)state;
    manual_open(&executor);
    runs = 0;
    return 0;
}

static int close_executor(void **state)
{
    (void)state;
    manual_close(&executor);
    return 0;
}

/* ---- tasks ---- */

struct pair {
    int64_t a, b;
};

static int add(const void *arg, void *result)
{
    const struct pair *pair = arg;
    const int64_t sum = pair->a + pair->b;
    runs++;
    memcpy(result, &sum, sizeof sum);
    return 0;
}

static int nothing(const void *arg, void *result)
{
    CHECK(arg && result);
    runs++;
    return 0;
}

/* Its argument twice. */
static int twice(const void *arg, size_t size, cf_bytes *result)
{
    runs++;
    if (cf_bytes_resize(result, 2 * size) != CF_OK)
        return -1;
    if (size) {
        memcpy(result->data, arg, size);
        memcpy((char *)result->data + size, arg, size);
    }
    return 0;
}

static int copy_number(const void *arg, void *result)
{
    CHECK((uintptr_t)arg % 16 == 0);
    CHECK((uintptr_t)result % 16 == 0);
    memcpy(result, arg, sizeof(int64_t));
    return 0;
}

static int says_why(const void *arg, void *result)
{
    (void)result;
    runs++;
    return cf_raise(*(const int *)arg, "it is %d", *(const int *)arg);
}

static int says_nothing(const void *arg, size_t size, cf_bytes *result)
{
    (void)arg, (void)size;
    return cf_bytes_resize(result, 10) == CF_OK ? 7 : 8;
}

static int says_much(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise(1, "%0600d", 5);
}

static int says_and_succeeds(const void *arg, void *result)
{
    (void)arg;
    (void)cf_raise(1, "almost");
    memset(result, 'x', 3);
    return 0;
}

static int leaves_out(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 0;
}

/* ---- there and back ---- */

static cf_task number_task(const struct pair *pair)
{
    return (cf_task){ .size = sizeof(cf_task),
                      .fn = add,
                      .arg = pair,
                      .arg_size = sizeof *pair,
                      .result_size = sizeof(int64_t) };
}

static cf_task bytes_task(const void *arg, size_t size)
{
    return (cf_task){ .size = sizeof(cf_task), .bytes_fn = twice, .arg = arg, .arg_size = size };
}

static cf_future *submit(const cf_task *task)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(executor.executor, task, &f), CF_OK);
    return f;
}

/* The last that was submitted: both references go. */
static void let_go(cf_future *f)
{
    (void)cf_future_cancel(f);
    cf_future_unref(f);
    manual_release(&executor, --executor.count);
}

static cf_bytes encode(cf_future *f)
{
    cf_bytes request = { NULL, 0 };
    assert_int_equal(cf_wire_encode(f, &request), CF_OK);
    return request;
}

static cf_bytes call(const cf_bytes *request)
{
    cf_bytes reply = { NULL, 0 };
    assert_int_equal(cf_wire_call(request->data, request->size, &reply), CF_OK);
    return reply;
}

/* Submits a task and has it run by way of the bytes. */
static cf_future *carry(const cf_task *task)
{
    cf_future *f = submit(task);
    cf_bytes request = encode(f), reply = call(&request);
    assert_true(cf_future_start(f));
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_OK);
    assert_true(cf_future_done(f));
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
    return f;
}

static void test_a_function(void **unused)
{
    (void)unused;
    const struct pair pair = { 40, 2 };
    const cf_task task = number_task(&pair);
    cf_future *f = carry(&task);
    int64_t result = 0;
    assert_int_equal(CF_RESULT(f, 0, &result), CF_OK);
    assert_int_equal(result, 42);
    assert_int_equal(runs, 1);
    let_go(f);
}

static void test_nothing_there_and_nothing_back(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .fn = nothing };
    cf_future *f = carry(&task);
    assert_int_equal(cf_future_result(f, 0, NULL, 0), CF_OK);
    assert_int_equal(runs, 1);
    let_go(f);
}

static void test_bytes(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 0, 1, 7, 8, 15, 16, 17, 4096, 3000001 };
    char *data = malloc(sizes[COUNT_OF(sizes) - 1]);
    memset(data, 'b', sizes[COUNT_OF(sizes) - 1]);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        const cf_task task = bytes_task(sizes[i] ? data : NULL, sizes[i]);
        cf_future *f = carry(&task);
        cf_bytes result;
        assert_int_equal(cf_future_take(f, 0, &result, sizeof result), CF_OK);
        assert_int_equal(result.size, 2 * sizes[i]);
        for (size_t k = 0; k < 2; k++)
            assert_int_equal(
                sizes[i] ? memcmp((char *)result.data + k * sizes[i], data, sizes[i]) : 0, 0);
        cf_bytes_free(&result);
        let_go(f);
    }
    free(data);
}

static void test_a_failure(void **unused)
{
    (void)unused;
    const int code = -3;
    const cf_task task = { .size = sizeof task, .fn = says_why, .arg = &code, .arg_size = 4 };
    cf_future *f = carry(&task);
    const cf_error *error = cf_future_exception(f);
    assert_int_equal(error->status, CF_FAILED);
    assert_int_equal(error->code, -3);
    assert_string_equal(error->message, "it is -3");
    assert_int_equal(error->exit_code, -1);
    assert_int_equal(error->worker_pid, 0);
    let_go(f);
}

static void test_a_failure_without_a_message(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .bytes_fn = says_nothing };
    cf_future *f = carry(&task);
    assert_int_equal(cf_future_exception(f)->code, 7);
    assert_string_equal(cf_future_exception(f)->message, "the task returned a non-zero code");
    let_go(f);
}

static void test_the_longest_message(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .fn = says_much };
    cf_future *f = carry(&task);
    assert_int_equal(strlen(cf_future_exception(f)->message), 511);
    let_go(f);
}

static void test_what_was_said_before_it_succeeded(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .fn = says_and_succeeds, .result_size = 3 };
    cf_future *f = carry(&task);
    char result[3] = "";
    assert_int_equal(cf_future_result(f, 0, result, sizeof result), CF_OK);
    assert_memory_equal(result, "xxx", 3);
    let_go(f);
}

/* No memory of the process goes out with a reply. */
static void test_what_a_task_leaves_out_is_zero(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .fn = leaves_out, .result_size = 100 };
    for (int i = 0; i < 10; i++) {
        char *used = malloc(sizeof(struct reply) + 100), result[100], zero[100] = "";
        memset(used, 'x', sizeof(struct reply) + 100);
        __asm__ __volatile__("" : : "r"(used) : "memory");
        free(used);
        cf_future *f = carry(&task);
        assert_int_equal(cf_future_result(f, 0, result, sizeof result), CF_OK);
        assert_memory_equal(result, zero, sizeof zero);
        let_go(f);
    }
}

static void test_requests_that_are_not_aligned(void **unused)
{
    (void)unused;
    const int64_t number = INT64_C(0x0123456789abcdef);
    const cf_task task = { .size = sizeof task,
                           .fn = copy_number,
                           .arg = &number,
                           .arg_size = sizeof number,
                           .result_size = sizeof number };
    cf_future *f = submit(&task);
    cf_bytes request = encode(f);
    char *buffer = aligned_alloc(16, CFI_ALIGN(request.size + 16));
    for (size_t at = 0; at < 16; at++) {
        cf_bytes reply = { NULL, 0 };
        memcpy(buffer + at, request.data, request.size);
        assert_int_equal(cf_wire_call(buffer + at, request.size, &reply), CF_OK);
        assert_memory_equal(content_of(&reply), &number, sizeof number);
        cf_bytes_free(&reply);
    }
    free(buffer);
    cf_bytes_free(&request);
    let_go(f);
}

/* A child is another process: its functions lie elsewhere in a fresh image (identity/program.c). */
struct shared {
    int there, back;
    cf_bytes request;
};

static void call_in_child(void *data)
{
    struct shared *shared = data;
    cf_bytes reply = { NULL, 0 };
    CHECK(cf_wire_call(shared->request.data, shared->request.size, &reply) == CF_OK);
    CHECK(write(shared->there, reply.data, reply.size) == (ssize_t)reply.size);
}

static void test_another_process(void **unused)
{
    (void)unused;
    const struct pair pair = { 1, 2 };
    const cf_task task = number_task(&pair);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    cf_future *f = submit(&task);
    struct shared shared = { .there = ends[1], .request = encode(f) };
    assert_int_equal(in_child(call_in_child, &shared), 0);
    assert_int_equal(runs, 0);
    char reply[200];
    ssize_t size = read(ends[0], reply, sizeof reply);
    assert_true(size > 0);
    assert_int_equal(cf_wire_settle(f, reply, (size_t)size), CF_OK);
    int64_t result = 0;
    assert_int_equal(CF_RESULT(f, 0, &result), CF_OK);
    assert_int_equal(result, 3);
    cf_bytes_free(&shared.request);
    close(ends[0]);
    close(ends[1]);
    let_go(f);
}

/* A service may call what it receives in a task of its own, which is then asked to stop. */
static cf_bytes nested_request, nested_reply;
static cf_future *stopped;

static int obeys(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_stop_requested() ? 5 : 0;
}

static int calls_in_a_task(const void *arg, void *result)
{
    (void)arg, (void)result;
    CHECK(cf_future_stop(stopped, 0));
    CHECK(cf_wire_call(nested_request.data, nested_request.size, &nested_reply) == CF_OK);
    return 0;
}

static void test_a_task_that_was_stopped(void **unused)
{
    (void)unused;
    const cf_task inner = { .size = sizeof inner, .fn = obeys };
    const cf_task outer = { .size = sizeof outer, .fn = calls_in_a_task };
    cf_future *f = submit(&inner);
    nested_request = encode(f);
    stopped = submit(&outer);
    cf_future_run(executor.futures[1]);
    assert_int_equal(cf_wire_settle(f, nested_reply.data, nested_reply.size), CF_OK);
    assert_int_equal(cf_future_exception(f)->status, CF_STOPPED);
    assert_int_equal(cf_future_exception(f)->code, 5);
    let_go(stopped);
    let_go(f);
    cf_bytes_free(&nested_request);
    cf_bytes_free(&nested_reply);
}

/* ---- what cannot travel ---- */

static void assert_cannot_travel(cf_future *f)
{
    cf_bytes request = { (void *)1, 1 };
    assert_int_equal(cf_wire_encode(f, &request), CF_INVALID);
    assert_string_equal(cf_last_error()->message,
                        "cf_wire_encode: the future is done or not of a provider");
    assert_ptr_equal(request.data, (void *)1);
    assert_int_equal(cf_wire_settle(f, "", 0), CF_INVALID);
    assert_string_equal(cf_last_error()->message,
                        "cf_wire_settle: the future is done or not of a provider");
}

static void test_futures_of_others(void **unused)
{
    (void)unused;
    assert_cannot_travel(NULL);
    cf_future *promise = NULL;
    assert_int_equal(cf_future_new(8, NULL, &promise), CF_OK);
    assert_cannot_travel(promise);
    cf_future_unref(promise);
    cf_executor *ex = NULL;
    const cf_task task = { .size = sizeof task, .fn = leaves_out, .priority = 1 };
    assert_int_equal(cf_inline_executor_new(&ex), CF_OK);
    cf_future *f = NULL;
    assert_int_equal(cf_submit_task(ex, &task, &f), CF_OK);
    assert_cannot_travel(f);
    cf_future_unref(f);
    cf_executor_free(ex);
}

/* While it waits in a pool of the library, whatever it carries. */
static struct event may_end = EVENT_INIT;

static int waits(const void *arg, void *result)
{
    (void)arg, (void)result;
    event_wait(&may_end);
    return 0;
}

static void test_a_pools_future(void **unused)
{
    (void)unused;
    cf_executor *ex = NULL;
    cf_future *f = NULL;
    const cf_task task = { .size = sizeof task, .fn = waits, .priority = 1 };
    assert_int_equal(cf_thread_pool_new(NULL, &ex), CF_OK);
    assert_int_equal(cf_submit_task(ex, &task, &f), CF_OK);
    assert_cannot_travel(f);
    event_set(&may_end);
    cf_executor_free(ex);
    cf_future_unref(f);
}

static void test_a_future_that_is_done(void **unused)
{
    (void)unused;
    const struct pair pair = { 1, 2 };
    const cf_task task = number_task(&pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f), reply = call(&request);
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_OK);
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_INVALID);
    assert_cannot_travel(f);
    let_go(f);
    f = submit(&task);
    assert_true(cf_future_cancel(f));
    assert_cannot_travel(f);
    let_go(f);
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
}

/* An executor that makes a request of whatever it gets. */
static cf_status encode_at_once(void *self, cf_future *future)
{
    cf_bytes request = { NULL, 0 };
    cf_status s = cf_wire_encode(future, &request);
    (void)self;
    CHECK(s == CF_INVALID && !request.data);
    return s;
}

static bool one_more(void *data, size_t index, cf_task *task)
{
    (void)data, (void)task;
    return index < 3;
}

static void test_the_pieces_of_a_map(void **unused)
{
    (void)unused;
    static const cf_executor_ops ops = { .size = sizeof ops, .submit = encode_at_once };
    static const char message[] = "cf_wire_encode: the pieces of a map cannot travel";
    const struct pair pairs[3] = { { 1, 2 } };
    int64_t sums[3];
    cf_executor *ex = NULL;
    assert_int_equal(cf_executor_new(&ops, NULL, &ex), CF_OK);
    assert_int_equal(CF_MAP(ex, add, pairs, 3, sums, CF_FOREVER), CF_INVALID);
    assert_string_equal(cf_last_error()->message, message);
    cf_results *results = NULL;
    const cf_task task = { .size = sizeof task, .fn = nothing };
    cf_status s = cf_map_from(ex, &task, one_more, NULL, NULL, CF_FOREVER, &results);
    if (s == CF_OK)
        s = cf_results_next(results, NULL, 0, NULL);
    assert_int_equal(s, CF_INVALID);
    assert_string_equal(cf_last_error()->message, message);
    cf_results_free(results);
    cf_executor_free(ex);
}

static void test_no_function(void **unused)
{
    (void)unused;
    static int variable;
    const cf_task task = { .size = sizeof task, .fn = (cf_fn *)(uintptr_t)&variable };
    cf_future *f = submit(&task);
    cf_bytes request = { NULL, 0 };
    assert_int_equal(cf_wire_encode(f, &request), CF_INVALID);
    assert_non_null(strstr(cf_last_error()->message, "is not the code of a program or library"));
    let_go(f);
}

static void test_null(void **unused)
{
    (void)unused;
    const cf_task task = { .size = sizeof task, .fn = nothing };
    cf_future *f = submit(&task);
    cf_bytes reply = { NULL, 0 };
    assert_int_equal(cf_wire_encode(f, NULL), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_wire_encode: ret_request is NULL");
    assert_int_equal(cf_wire_call(NULL, 0, &reply), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_wire_call: request is NULL");
    assert_int_equal(cf_wire_call("", 0, NULL), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_wire_call: ret_reply is NULL");
    assert_int_equal(cf_wire_settle(f, NULL, 0), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_wire_settle: reply is NULL");
    assert_false(cf_future_done(f));
    let_go(f);
}

/* ---- replies to others ---- */

static void test_another_tasks_reply(void **unused)
{
    (void)unused;
    const struct pair pair = { 1, 2 };
    const cf_task task = number_task(&pair);
    cf_future *one = submit(&task), *other = submit(&task);
    cf_bytes request = encode(one), reply = call(&request);
    assert_int_equal(cf_wire_settle(other, reply.data, reply.size), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "the reply is another task's");
    assert_false(cf_future_done(other));
    assert_int_equal(cf_wire_settle(one, reply.data, reply.size), CF_OK);
    let_go(other);
    let_go(one);
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
}

/* The same task once more, perhaps in the same place: it is another one. */
static void test_a_late_reply(void **unused)
{
    (void)unused;
    const struct pair pair = { 1, 2 };
    const cf_task task = number_task(&pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f), reply = call(&request);
    let_go(f);
    for (int i = 0; i < 3; i++) {
        f = submit(&task);
        assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_INVALID);
        assert_string_equal(cf_last_error()->message, "the reply is another task's");
        let_go(f);
    }
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
}

/* Whoever answers, and from whichever of several requests. */
static void test_one_task_asked_for_twice(void **unused)
{
    (void)unused;
    const struct pair pair = { 1, 2 };
    const cf_task task = number_task(&pair);
    cf_future *f = submit(&task);
    cf_bytes first = encode(f), second = encode(f), reply = call(&second);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_OK);
    let_go(f);
    cf_bytes_free(&first);
    cf_bytes_free(&second);
    cf_bytes_free(&reply);
}

/* A child's future may lie just where one of the parent's does. */
static void settle_the_parents(void *data)
{
    const cf_bytes *reply = data;
    CHECK(cf_wire_settle(executor.futures[0], reply->data, reply->size) == CF_INVALID);
    CHECK(strcmp(cf_last_error()->message, "the reply is another task's") == 0);
}

static void test_another_processes_reply(void **unused)
{
    (void)unused;
    const struct pair pair = { 1, 2 };
    const cf_task task = number_task(&pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f), reply = call(&request);
    assert_int_equal(in_child(settle_the_parents, &reply), 0);
    let_go(f);
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
}

/* ---- without memory ---- */

/* How the call with so few allocations ends, as its reply says or without one. */
static cf_status call_with(int allocations, const void *request, size_t size)
{
    cf_bytes reply = { (void *)1, 1 };
    may_allocate = allocations;
    cf_status s = cf_wire_call(request, size, &reply);
    may_allocate = UNLIMITED;
    if (s != CF_OK) {
        assert_ptr_equal(reply.data, (void *)1);
        return s;
    }
    struct reply head;
    memcpy(&head, reply.data, sizeof head);
    cf_bytes_free(&reply);
    return (cf_status)head.status;
}

static void test_no_memory(void **unused)
{
    (void)unused;
    const int code = 9;
    const struct {
        cf_task task;
        int allocations; /* that a call needs, the argument's copy among them */
        cf_status status;
    } cases[] = {
        { { .bytes_fn = twice, .arg = "some", .arg_size = 4 }, 2, CF_OK },
        { { .fn = leaves_out, .arg = "some", .arg_size = 4, .result_size = 99 }, 2, CF_OK },
        { { .fn = says_why, .arg = &code, .arg_size = sizeof code }, 3, CF_FAILED },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cf_task task = cases[i].task;
        task.size = sizeof task;
        cf_future *f = submit(&task);
        cf_bytes request = { (void *)1, 1 };
        may_allocate = 0;
        assert_int_equal(cf_wire_encode(f, &request), CF_NOMEM);
        assert_ptr_equal(request.data, (void *)1);
        may_allocate = UNLIMITED;
        request = encode(f);
        char *odd = malloc(request.size + 1);
        memcpy(odd + 1, request.data, request.size);
        for (int k = 0; k < cases[i].allocations; k++)
            assert_int_equal(call_with(k, odd + 1, request.size), CF_NOMEM);
        assert_int_equal(call_with(cases[i].allocations, odd + 1, request.size), cases[i].status);
        free(odd);
        cf_bytes_free(&request);
        let_go(f);
    }
}

static void test_no_memory_for_the_result(void **unused)
{
    (void)unused;
    const cf_task task = bytes_task("some bytes", 10);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f), reply = call(&request);
    may_allocate = 0;
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_NOMEM);
    may_allocate = UNLIMITED;
    assert_false(cf_future_done(f));
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_OK);
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
    let_go(f);
}

/* ---- damage ---- */

static const struct pair some_pair = { 1000, 7 };
static const char some_text[] = "some bytes that are not aligned";

static cf_task some_task(size_t number)
{
    static const int code = 9;
    switch (number) {
    case 0:
        return number_task(&some_pair);
    case 1:
        return bytes_task(some_text, sizeof some_text);
    default:
        return (cf_task){ .size = sizeof(cf_task), .fn = says_why, .arg = &code, .arg_size = 4 };
    }
}
enum { SOME_TASKS = 3 };

/* In memory of just that size, so that a sanitizer sees who reads beyond it. */
static void *exact_copy(const void *data, size_t size)
{
    void *copy = malloc(size ? size : 1);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static void assert_request_is_refused(cf_future *f, const void *frame, size_t size)
{
    void *copy = exact_copy(frame, size);
    cf_bytes reply = { NULL, 0 };
    assert_int_equal(cf_wire_call(copy, size, &reply), CF_OK);
    free(copy);
    assert_int_equal(runs, 0);
    struct reply head;
    memcpy(&head, reply.data, sizeof head);
    assert_int_equal(head.status, CF_INVALID);
    if (cf_wire_settle(f, reply.data, reply.size) != CF_OK) { /* the tag is damaged too */
        assert_string_equal(cf_last_error()->message, "the reply is another task's");
        assert_false(cf_future_done(f));
    } else {
        assert_int_equal(cf_future_exception(f)->status, CF_INVALID);
        assert_string_equal(cf_future_exception(f)->message, "the request is damaged");
    }
    cf_bytes_free(&reply);
}

static void assert_reply_is_refused(cf_future *f, const void *frame, size_t size)
{
    void *copy = exact_copy(frame, size);
    assert_int_equal(cf_wire_settle(f, copy, size), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "the reply is damaged");
    assert_false(cf_future_done(f));
    free(copy);
}

/* Calls check with every frame that differs in one byte, or is shorter or longer. */
static void damage(const cf_task *task, bool is_reply)
{
    cf_future *f = submit(task);
    cf_bytes request = encode(f), frame = request;
    if (is_reply)
        frame = call(&request);
    runs = 0;
    unsigned char *bytes = exact_copy(frame.data, frame.size);
    static const unsigned char flips[] = { 1, 0x10, 0x80, 0xff };
    for (size_t i = 0; i < frame.size * COUNT_OF(flips); i++) {
        bytes[i / COUNT_OF(flips)] ^= flips[i % COUNT_OF(flips)];
        if (is_reply) {
            assert_reply_is_refused(f, bytes, frame.size);
        } else {
            assert_request_is_refused(f, bytes, frame.size);
            let_go(f);
            f = submit(task);
        }
        bytes[i / COUNT_OF(flips)] ^= flips[i % COUNT_OF(flips)];
    }
    if (is_reply) {
        assert_int_equal(cf_wire_settle(f, bytes, frame.size), CF_OK);
        cf_bytes_free(&frame);
    }
    free(bytes);
    cf_bytes_free(&request);
    let_go(f);
}

static void test_a_damaged_byte_in_a_request(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SOME_TASKS; i++) {
        const cf_task task = some_task(i);
        damage(&task, false);
    }
}

static void test_a_damaged_byte_in_a_reply(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SOME_TASKS; i++) {
        const cf_task task = some_task(i);
        damage(&task, true);
    }
}

static void test_other_lengths(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SOME_TASKS; i++) {
        const cf_task task = some_task(i);
        cf_future *f = submit(&task);
        cf_bytes request = encode(f), reply = call(&request);
        runs = 0;
        char *longer = calloc(1, (request.size > reply.size ? request.size : reply.size) + 20);
        memcpy(longer, reply.data, reply.size);
        for (size_t size = 0; size < reply.size + 20; size++) {
            if (size != reply.size)
                assert_reply_is_refused(f, longer, size);
        }
        memset(longer, 0, reply.size);
        memcpy(longer, request.data, request.size);
        for (size_t size = 0; size < request.size + 20; size++) {
            if (size == request.size)
                continue;
            assert_request_is_refused(f, longer, size);
            let_go(f);
            f = submit(&task);
        }
        free(longer);
        cf_bytes_free(&request);
        cf_bytes_free(&reply);
        let_go(f);
    }
}

static void test_a_request_is_no_reply(void **unused)
{
    (void)unused;
    const cf_task task = number_task(&some_pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f), reply = call(&request);
    runs = 0;
    assert_reply_is_refused(f, request.data, request.size);
    assert_request_is_refused(f, reply.data, reply.size);
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
    let_go(f);
}

/* ---- sealed and wrong: by one who knows how ---- */

struct forged_request {
    size_t at,
        size; /* which field, and how large; size 0: the frame's length is changed by `value` */
    uint64_t value;
    cf_status status;
    const char *message;
};

#define FIELD(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)
#define DAMAGED            CF_INVALID, "the request is damaged"

static cf_bytes forge(const cf_bytes *frame, size_t at, size_t size, uint64_t value)
{
    cf_bytes forged = { NULL, 0 };
    size_t longer = size ? 0 : (size_t)value;
    struct head head;
    assert_int_equal(cf_bytes_resize(&forged, frame->size + longer), CF_OK);
    memcpy(forged.data, frame->data, frame->size < forged.size ? frame->size : forged.size);
    memcpy((char *)forged.data + at, &value, size);
    memcpy(&head, forged.data, sizeof head);
    head.checksum = checksum(forged.data, forged.size);
    memcpy(forged.data, &head, sizeof head);
    return forged;
}

static void test_forged_requests(void **unused)
{
    (void)unused;
    static const struct forged_request cases[] = {
        { FIELD(request, head.magic), 0x31436677, DAMAGED },
        { FIELD(request, head.version), 2, DAMAGED },
        { FIELD(request, head.type), 0, DAMAGED },
        { FIELD(request, head.type), REQUEST_BYTES, DAMAGED }, /* it has a result_size */
        { FIELD(request, head.type), REPLY, DAMAGED },
        { FIELD(request, head.type), 4, DAMAGED },
        { FIELD(request, offset), 0, DAMAGED },
        { FIELD(request, offset), UINT64_MAX, DAMAGED },
        { FIELD(request, result_size), CFI_LARGEST + 1, DAMAGED },
        { FIELD(request, result_size), UINT64_MAX, DAMAGED },
        { FIELD(request, result_size), CFI_LARGEST, CF_NOMEM, NULL },
        { FIELD(request, arg_size), 0, DAMAGED },
        { FIELD(request, arg_size), sizeof(struct pair) + 1, DAMAGED },
        { FIELD(request, arg_size), UINT64_MAX, DAMAGED },
        { FIELD(request, image_kind), 0, CF_INVALID,
          "the name of a program or library is damaged" },
        { FIELD(request, id_size), 31, CF_INVALID, "the name of a program or library is damaged" },
        { FIELD(request, id_size), 0, CF_INVALID, "the name of a program or library is damaged" },
        { FIELD(request, path_size), 1, DAMAGED },
        { FIELD(request, path_size), CFI_IMAGE_PATH, DAMAGED },
        { FIELD(request, path_size), UINT16_MAX, DAMAGED },
        { 0, 0, 16, DAMAGED },
        { 0, 0, (uint64_t)-1, DAMAGED },
        { 0, 0, (uint64_t)-16, DAMAGED },
    };
    const cf_task task = number_task(&some_pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cf_bytes forged = forge(&request, cases[i].at, cases[i].size, cases[i].value);
        cf_bytes reply = call(&forged);
        struct reply head;
        memcpy(&head, reply.data, sizeof head);
        assert_int_equal(head.status, cases[i].status);
        if (cases[i].message) {
            assert_int_equal(head.size, strlen(cases[i].message));
            assert_memory_equal(content_of(&reply), cases[i].message, head.size);
        }
        cf_bytes_free(&forged);
        cf_bytes_free(&reply);
    }
    assert_int_equal(runs, 0);
    cf_bytes_free(&request);
    let_go(f);
}

/* Lengths that are right together, or would be if they did not overflow. */
static void test_forged_lengths(void **unused)
{
    (void)unused;
    static const struct {
        uint16_t path_size;
        int64_t arg_size;
    } cases[] = { { 32, -16 }, { 65520, 16 - 65520 }, { CFI_IMAGE_PATH, 0 }, { 496, 0 } };
    const cf_task task = bytes_task(NULL, 0);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t longer = cases[i].arg_size ? 16 : cases[i].path_size;
        cf_bytes longer_one = forge(&request, 0, 0, longer);
        memset((char *)longer_one.data + request.size, '/', longer);
        cf_bytes half = forge(&longer_one, FIELD(request, arg_size), (uint64_t)cases[i].arg_size);
        cf_bytes forged = forge(&half, FIELD(request, path_size), cases[i].path_size);
        assert_request_is_refused(f, forged.data, forged.size);
        let_go(f);
        f = submit(&task);
        cf_bytes_free(&longer_one);
        cf_bytes_free(&half);
        cf_bytes_free(&forged);
    }
    cf_bytes_free(&request);
    let_go(f);
}

/* A function of a program that this process does not have. */
static void test_a_function_that_is_not_here(void **unused)
{
    (void)unused;
    const cf_task task = number_task(&some_pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f);
    cf_bytes forged = forge(&request, FIELD(request, id[0]) + 3, 0x04030201), reply = call(&forged);
    assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_OK);
    assert_int_equal(cf_future_exception(f)->status, CF_INVALID);
    assert_string_equal(cf_future_exception(f)->message,
                        cfi_image_name(0)->kind == CFI_IMAGE_HASH
                            ? "the program (hash 01020304..) is not in this process"
                            : "the program (build-id 01020304..) is not in this process");
    cf_bytes_free(&request);
    cf_bytes_free(&forged);
    cf_bytes_free(&reply);
    let_go(f);
}

static void test_forged_replies(void **unused)
{
    (void)unused;
    static const struct {
        size_t at, size;
        uint64_t value;
    } cases[] = {
        { FIELD(reply, head.magic), 0 },
        { FIELD(reply, head.version), 2 },
        { FIELD(reply, head.type), REQUEST_FN },
        { FIELD(reply, status), CF_TIMEOUT },
        { FIELD(reply, status), CF_CANCELLED },
        { FIELD(reply, status), UINT32_MAX },
        { FIELD(reply, status), 13 },
        { FIELD(reply, size), 7 },
        { FIELD(reply, size), 9 },
        { FIELD(reply, size), UINT64_MAX },
        { 0, 0, 1 },
        { 0, 0, (uint64_t)-1 },
    };
    const cf_task task = number_task(&some_pair);
    cf_future *f = submit(&task);
    cf_bytes request = encode(f), reply = call(&request);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cf_bytes forged = forge(&reply, cases[i].at, cases[i].size, cases[i].value);
        assert_reply_is_refused(f, forged.data, forged.size);
        cf_bytes_free(&forged);
    }
    cf_bytes_free(&request);
    cf_bytes_free(&reply);
    let_go(f);
}

/* All of it is right, but it is not a result of this task. */
static cf_bytes made_up_reply(cf_future *f, cf_status status, size_t size)
{
    cf_bytes reply = { NULL, 0 };
    assert_int_equal(new_reply(status, 3, size, &reply), CF_OK);
    memset(content_of(&reply), 't', size);
    seal(reply.data, reply.size, REPLY, tag_of(f));
    return reply;
}

static void test_a_result_of_another_size(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 0, 7, 9, 1000 };
    const cf_task task = number_task(&some_pair);
    cf_future *f = submit(&task);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        cf_bytes reply = made_up_reply(f, CF_OK, sizes[i]);
        assert_reply_is_refused(f, reply.data, reply.size);
        cf_bytes_free(&reply);
    }
    let_go(f);
}

static void test_a_message_that_is_too_long(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 0, 511, 512, 100000 };
    const cf_task task = number_task(&some_pair);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        cf_future *f = submit(&task);
        cf_bytes reply = made_up_reply(f, CF_FAILED, sizes[i]);
        if (sizes[i] > 511) {
            assert_reply_is_refused(f, reply.data, reply.size);
        } else {
            assert_int_equal(cf_wire_settle(f, reply.data, reply.size), CF_OK);
            assert_int_equal(strlen(cf_future_exception(f)->message), sizes[i]);
        }
        cf_bytes_free(&reply);
        let_go(f);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, open_executor, close_executor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_function),
        TEST(test_nothing_there_and_nothing_back),
        TEST(test_bytes),
        TEST(test_a_failure),
        TEST(test_a_failure_without_a_message),
        TEST(test_the_longest_message),
        TEST(test_what_was_said_before_it_succeeded),
        TEST(test_what_a_task_leaves_out_is_zero),
        TEST(test_requests_that_are_not_aligned),
        TEST(test_another_process),
        TEST(test_a_task_that_was_stopped),
        TEST(test_futures_of_others),
        TEST(test_a_pools_future),
        TEST(test_a_future_that_is_done),
        TEST(test_the_pieces_of_a_map),
        TEST(test_no_function),
        TEST(test_null),
        TEST(test_another_tasks_reply),
        TEST(test_a_late_reply),
        TEST(test_one_task_asked_for_twice),
        TEST(test_another_processes_reply),
        TEST(test_no_memory),
        TEST(test_no_memory_for_the_result),
        TEST(test_a_damaged_byte_in_a_request),
        TEST(test_a_damaged_byte_in_a_reply),
        TEST(test_other_lengths),
        TEST(test_a_request_is_no_reply),
        TEST(test_forged_requests),
        TEST(test_forged_lengths),
        TEST(test_a_function_that_is_not_here),
        TEST(test_forged_replies),
        TEST(test_a_result_of_another_size),
        TEST(test_a_message_that_is_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
