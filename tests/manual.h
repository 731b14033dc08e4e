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

#endif
