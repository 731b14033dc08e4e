/* SPDX-License-Identifier: MIT */
/* Running a claimed task, and how it ends. */
#include "../base/clock.h"
#include "executor.h"
#include "future.h"
#include "self.h"

#include <stdlib.h>
#include <string.h>

/* ---- asked to stop ---- */

static bool was_asked_to_stop(cf_future *f)
{
    if (cfi_load_relaxed(&f->word) & CFI_STOP)
        return true;
    if (f->executor && cfi_load_relaxed(&f->executor->stopping))
        return true;
    return f->flags & CFI_HAS_EXTRA && cfi_deadline_passed(cfi_future_extra(f)->stop_at);
}

bool (*cfi_stop_asked)(void);

bool cf_stop_requested(void)
{
    const struct cfi_frame *frame = cfi_this.frame;
    if (frame && frame->future)
        return was_asked_to_stop(frame->future);
    return frame && cfi_stop_asked && cfi_stop_asked();
}

/* ---- failing ---- */

/* What the failure says, in memory of its own; NULL: there is none.  Takes over what was raised. */
static struct cfi_failure *failure_new(const cf_error *error, struct cfi_raised *raised)
{
    const char *text = error->message ? error->message : cfi_plain_error(error->status)->message;
    size_t size = strlen(text) + 1;
    struct cfi_failure *failure = malloc(sizeof *failure + size);
    if (!failure) {
        cfi_raised_free(raised);
        return NULL;
    }
    memcpy(failure->text, text, size);
    failure->error = *error;
    failure->error.size = sizeof(cf_error);
    failure->error.message = failure->text;
    failure->raised = raised;
    return failure;
}

static void fail(cf_future *f, const cf_error *error, struct cfi_raised *raised)
{
    if (f->kind == CFI_KIND_BYTES)
        cf_bytes_free(cfi_future_slot(f));
    f->tail.end.failure = failure_new(error, raised);
    f->tail.end.status = error->status;
    f->tail.end.code = error->code;
    cfi_future_settle(f, CFI_DONE_FAILED);
}

void cfi_future_fail(cf_future *f, const cf_error *error)
{
    cfi_future_destroy_arg(f);
    fail(f, error, NULL);
}

void cfi_future_succeed(cf_future *f)
{
    cfi_future_destroy_arg(f);
    cfi_future_settle(f, CFI_DONE_OK);
}

static CFI_COLD void fail_with_code(cf_future *f, struct cfi_frame *frame, int code)
{
    bool stopped = was_asked_to_stop(f);
    const char *said = frame->message ? frame->message
                       : frame->message_lost
                           ? "the task failed, and there was no memory for what it said"
                       : stopped ? "the task stopped as it was asked to"
                                 : "the task returned a non-zero code";
    const cf_error error = {
        .status = stopped ? CF_STOPPED : CF_FAILED, .code = code, .message = said, .exit_code = -1
    };
    char *message = frame->message;
    fail(f, &error, frame->raised);
    free(message);
}

/* ---- running ---- */

/* Where it runs is written over what to call: nobody calls it again. */
static inline int call(cf_future *f, uint64_t place)
{
    if (CFI_LIKELY(f->kind == CFI_KIND_FN)) {
        cf_fn *fn = f->at.fn;
        cfi_store_release(&f->at.place, place); /* pairs with who helps or walks the wait graph */
        return fn(cfi_future_arg(f), cfi_future_slot(f));
    }
    cf_bytes_fn *bytes_fn = f->at.bytes_fn;
    cfi_store_release(&f->at.place, place);
    return bytes_fn(cfi_future_arg(f), cfi_arg_size(f), cfi_future_slot(f));
}

void cfi_future_execute(cf_future *f, uint64_t place)
{
    struct cfi_frame frame;
    cfi_frame_push(&frame, f);
    if (CFI_UNLIKELY(f->flags & CFI_HAS_EXTRA) && cfi_future_extra(f)->task.run_limit_ns > 0)
        cfi_future_extra(f)->stop_at = cfi_deadline(cfi_future_extra(f)->task.run_limit_ns);
    int code = call(f, place);
    cfi_frame_pop(&frame);
    cfi_future_destroy_arg(f);
    if (CFI_UNLIKELY(code != 0)) {
        fail_with_code(f, &frame, code);
        return;
    }
    if (CFI_UNLIKELY(frame.said)) /* why it fails, and then it did not */
        cfi_frame_forget(&frame);
    cfi_future_settle(f, CFI_DONE_OK);
}
