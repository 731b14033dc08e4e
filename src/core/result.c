/* SPDX-License-Identifier: MIT */
/* Reading a future: copy, take, peek. */
#include "future.h"
#include "wait.h"

#include <string.h>

/* Waits until the future has a result; else the last error says why not. */
static inline cf_status reach_result(cf_future *f, int64_t timeout_ns)
{
    if (CFI_UNLIKELY(!f))
        return cfi_fail(CF_INVALID, "the future is NULL");
    uint64_t word = cfi_load_acquire(&f->word); /* pairs with the swap that settled it */
    if (!cfi_is_final(word)) {
        cf_status s = cfi_await(f, timeout_ns);
        if (s != CF_OK)
            return s;
        word = cfi_load_acquire(&f->word);
    }
    return CFI_LIKELY(cfi_state(word) == CFI_DONE_OK) ? CF_OK : cfi_fail_as_future(f);
}

static CFI_COLD cf_status wrong_size(size_t asked, size_t has)
{
    return cfi_fail(CF_INVALID, "result_size is %zu, but the task's result has %zu bytes", asked,
                    has);
}

static cf_status taken(void)
{
    return cfi_fail(CF_INVALID, "the result has been taken");
}

static inline bool is_taken(cf_future *f)
{
    return cfi_load_acquire(&f->word) & CFI_TAKEN;
}

cf_status cf_future_result(cf_future *future, int64_t timeout_ns, void *result, size_t result_size)
{
    cf_status s = reach_result(future, timeout_ns);
    if (CFI_UNLIKELY(s != CF_OK))
        return s;
    if (CFI_UNLIKELY(is_taken(future)))
        return taken();
    if (!result && result_size == 0)
        return CF_OK;
    if (CFI_UNLIKELY(future->kind == CFI_KIND_BYTES))
        return cfi_fail(CF_INVALID, "the result is a cf_bytes: take it or peek");
    if (CFI_UNLIKELY(result_size != cfi_result_size(future)))
        return wrong_size(result_size, cfi_result_size(future));
    if (CFI_UNLIKELY(!result))
        return cfi_fail(CF_INVALID, "result is NULL, but result_size is not 0");
    memcpy(result, cfi_future_slot(future), result_size);
    return CF_OK;
}

cf_status cf_future_take(cf_future *future, int64_t timeout_ns, void *result, size_t result_size)
{
    cf_status s = reach_result(future, timeout_ns);
    if (s != CF_OK)
        return s;
    if (is_taken(future))
        return taken();
    if (!result && result_size == 0)
        return CF_OK; /* the status only: nothing is taken */
    if (result_size != cfi_result_size(future))
        return wrong_size(result_size, cfi_result_size(future));
    if (!result)
        return cfi_fail(CF_INVALID, "result is NULL, but result_size is not 0");
    if (cfi_or_acq_rel(&future->word, (uint64_t)CFI_TAKEN) & CFI_TAKEN) /* one winner */
        return taken();
    memcpy(result, cfi_future_slot(future), result_size);
    return CF_OK;
}

cf_status cf_future_peek(cf_future *future, int64_t timeout_ns, const void **ret_data,
                         size_t *ret_size)
{
    cf_status s = reach_result(future, timeout_ns);
    if (s != CF_OK)
        return s;
    if (is_taken(future))
        return taken();
    const cf_bytes *bytes = cfi_future_slot(future);
    bool is_bytes = future->kind == CFI_KIND_BYTES;
    if (ret_data)
        *ret_data = is_bytes ? bytes->data : (const void *)bytes;
    if (ret_size)
        *ret_size = is_bytes ? bytes->size : cfi_result_size(future);
    return CF_OK;
}
