/* SPDX-License-Identifier: MIT */
/* A provider's executor that does nothing by itself: it keeps what was submitted until the test
 * runs it, starts it or settles it. */
#ifndef TESTS_MANUAL_H
#define TESTS_MANUAL_H

#include "support.h"

#include <cfutures/provider.h>

struct manual {
    cf_executor *executor;
    cf_future *futures[64]; /* as submitted, with the executor's reference; NULL: given back */
    size_t count;
    cf_status answer; /* what submit returns; unless it is CF_OK nothing is kept */
    unsigned destroyed;
};

static inline cf_status manual_submit(void *self, cf_future *future)
{
    struct manual *m = self;
    CHECK(m->count < COUNT_OF(m->futures));
    if (m->answer == CF_OK)
        m->futures[m->count++] = future;
    return m->answer;
}

static inline void manual_destroy(void *self)
{
    struct manual *m = self;
    m->destroyed++;
}

static inline void manual_open(struct manual *m)
{
    static const cf_executor_ops ops = {
        .size = sizeof ops, .kind = "manual", .submit = manual_submit, .destroy = manual_destroy
    };
    memset(m, 0, sizeof *m);
    assert_int_equal(cf_executor_new(&ops, m, &m->executor), CF_OK);
}

/* Gives the executor's reference to the future back. */
static inline void manual_release(struct manual *m, size_t index)
{
    m->futures[index] = cf_future_unref(m->futures[index]);
}

static inline void manual_run(struct manual *m, size_t index)
{
    cf_future_run(m->futures[index]);
    manual_release(m, index);
}

/* All futures have to be settled, and the test's own references given back. */
static inline void manual_close(struct manual *m)
{
    for (size_t i = 0; i < m->count; i++)
        manual_release(m, i);
    m->executor = cf_executor_free(m->executor);
    assert_int_equal(m->destroyed, 1);
    assert_checks();
}

/* Submits one task and runs it here; the future is the caller's. */
static inline cf_future *manual_submit_and_run(struct manual *m, const cf_task *task)
{
    cf_future *future = NULL;
    assert_int_equal(cf_submit_task(m->executor, task, &future), CF_OK);
    manual_run(m, m->count - 1);
    return future;
}

/* ---- every state ---- */

enum origin { PROMISE, FN, BYTES, ORIGINS };
enum state { PENDING, RUNNING, OK, FAILED, CANCELLED, STATES };
#define FOR_EACH_ORIGIN(origin) for (enum origin origin = PROMISE; origin < ORIGINS; origin++)
#define FOR_EACH_STATE(state)   for (enum state state = PENDING; state < STATES; state++)

enum { ANSWER = 42, FAILURE = 7 }; /* an int, or one byte */

static inline int answer(const void *fails, void *result)
{
    *(int *)result = ANSWER;
    return *(const bool *)fails ? FAILURE : 0;
}

static inline int answer_in_bytes(const void *fails, size_t size, cf_bytes *result)
{
    CHECK(size == sizeof(bool));
    CHECK(cf_bytes_resize(result, 1) == CF_OK);
    *(unsigned char *)result->data = ANSWER;
    return *(const bool *)fails ? FAILURE : 0;
}

/* A pending future, to fail or to succeed; the caller's. */
static inline cf_future *make_pending(struct manual *m, enum origin origin, bool fails)
{
    cf_future *f = NULL;
    if (origin == PROMISE)
        assert_int_equal(cf_future_new(sizeof(int), NULL, &f), CF_OK);
    else if (origin == FN)
        assert_int_equal(cf_submit(m->executor, answer, &fails, sizeof fails, sizeof(int), &f),
                         CF_OK);
    else
        assert_int_equal(cf_submit_bytes(m->executor, answer_in_bytes, &fails, sizeof fails, &f),
                         CF_OK);
    return f;
}

static inline void settle_promise(cf_future *f, bool fails)
{
    const int value = ANSWER;
    const cf_error error = { .size = sizeof error, .status = CF_FAILED, .code = FAILURE };
    CHECK((fails ? cf_future_set_exception(f, &error) : cf_future_set_result(f, &value)) == CF_OK);
}

static inline cf_future *make_in_state(struct manual *m, enum origin origin, enum state state)
{
    cf_future *f = make_pending(m, origin, state == FAILED);
    if (state == RUNNING)
        assert_true(cf_future_start(f));
    else if (state == CANCELLED)
        assert_true(cf_future_cancel(f));
    else if (state != PENDING && origin == PROMISE)
        settle_promise(f, state == FAILED);
    else if (state != PENDING)
        cf_future_run(f);
    return f;
}

static inline enum state state_of(cf_future *f)
{
    if (!cf_future_done(f))
        return cf_future_running(f) ? RUNNING : PENDING;
    if (cf_future_cancelled(f))
        return CANCELLED;
    return cf_future_exception(f) ? FAILED : OK;
}

#endif
