/* SPDX-License-Identifier: MIT */
/* The provider's side of a future: making a bare one, starting it, settling it from outside. */
#include "executor.h"
#include "future.h"
#include "self.h"

#include <string.h>

cf_status cf_future_new(size_t result_size, void (*result_destroy)(void *result), cf_future **ret)
{
    if (!ret)
        return cfi_fail(CF_INVALID, "cf_future_new: ret is NULL");
    if (result_size > CFI_LARGEST)
        return cfi_fail(CF_INVALID, "cf_future_new: result_size %zu is too large", result_size);
    cf_status s = cfi_process_watch();
    if (s != CF_OK)
        return s;
    const cf_task task = { .result_size = result_size, .result_destroy = result_destroy };
    cf_future *f = cfi_future_make(CFI_KIND_PROMISE, &task, result_destroy != NULL, 0);
    if (!f)
        return cfi_fail_fixed(CF_NOMEM, "cf_future_new: out of memory");
    memset(cfi_future_slot(f), 0, result_size);
    *ret = f;
    return CF_OK;
}

bool cf_future_start(cf_future *future)
{
    return future && cfi_future_claim(future);
}

void *cf_future_slot(cf_future *future)
{
    return future && !cfi_future_is_done(future) ? cfi_future_slot(future) : NULL;
}

/* Wins the right to settle: from PENDING, or from RUNNING too.  Others then see a running future. */
static bool begin_settling(cf_future *f, uint32_t last)
{
    uint64_t word = cfi_load_relaxed(&f->word);
    while (cfi_state(word) <= last) {
        uint64_t settling = (word & ~(uint64_t)CFI_STATE) | CFI_SETTLING;
        if (cfi_cas_acq_rel(&f->word, &word,
                            settling)) /* acquire: pairs with who made or started it */
            return true;
    }
    return false;
}

/* A pool's tasks are settled by their workers alone. */
static bool is_settable(const cf_future *f)
{
    return f->kind == CFI_KIND_PROMISE || f->flags & CFI_SETTABLE;
}

static cf_status cannot_settle(const cf_future *f)
{
    return cfi_fail_fixed(CF_INVALID, cfi_future_is_done(f) ? "the future is settled already"
                                                            : "the future's task is being run");
}

cf_status cf_future_set_result(cf_future *future, const void *result)
{
    if (!future)
        return cfi_fail(CF_INVALID, "cf_future_set_result: future is NULL");
    if (!is_settable(future) || !begin_settling(future, CFI_RUNNING))
        return cannot_settle(future);
    if (result)
        memcpy(cfi_future_slot(future), result, cfi_result_size(future));
    cfi_future_succeed(cf_future_ref(future));
    return CF_OK;
}

cf_status cf_future_set_exception(cf_future *future, const cf_error *error)
{
    if (!future || !error)
        return cfi_fail(CF_INVALID, "cf_future_set_exception: %s is NULL",
                        future ? "error" : "future");
    cf_error copy;
    cf_status s = cfi_options_copy(&copy, sizeof copy, sizeof copy, error, "cf_error");
    if (s != CF_OK)
        return s;
    if (copy.status <= CF_OK || copy.status == CF_CANCELLED || copy.status > CF_SYSTEM)
        return cfi_fail(CF_INVALID, "cf_error: %s is no failure", cf_status_name(copy.status));
    if (!is_settable(future) || !begin_settling(future, CFI_RUNNING))
        return cannot_settle(future);
    cfi_future_fail(cf_future_ref(future), &copy);
    return CF_OK;
}

const cf_task *cf_future_task(const cf_future *future)
{
    if (!future || !(future->flags & CFI_SETTABLE) || cfi_future_is_done(future))
        return NULL;
    return &cfi_future_extra((cf_future *)(uintptr_t)future)->task;
}

void *cf_future_room(cf_future *future)
{
    return future && future->flags & CFI_HAS_EXTRA ? cfi_future_extra(future) + 1 : NULL;
}

/* SETTLING already while it runs: nobody else may write where its result goes. */
void cf_future_run(cf_future *future)
{
    if (future && future->flags & CFI_SETTABLE && begin_settling(future, CFI_PENDING))
        cfi_future_execute(cf_future_ref(future), 0);
}
