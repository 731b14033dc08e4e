/* SPDX-License-Identifier: MIT */
/* The executor that runs each task inside submit, on the caller's thread: the same program without
 * concurrency, for a debugger.  Written on the provider's interface alone. */
#include "error.h"

#include <cfutures/provider.h>

static cf_status run_at_once(void *self, cf_future *future)
{
    (void)self;
    cf_future_run(future);
    cf_future_unref(future); /* the executor's reference */
    return CF_OK;
}

cf_status cf_inline_executor_new(cf_executor **ret)
{
    static const cf_executor_ops ops = { .size = sizeof ops,
                                         .kind = "inline",
                                         .submit = run_at_once };
    return cf_executor_new(&ops, NULL, ret);
}
