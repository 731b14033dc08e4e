/* SPDX-License-Identifier: MIT */
/* What the library knows of the calling thread: the task it runs, the pool it works for, what it
 * waits for, its last error. */
#ifndef CFI_CORE_SELF_H
#define CFI_CORE_SELF_H

#include "../base/futex.h"

#include <cfutures/provider.h>
#include <stdbool.h>

struct cfi_wait;
struct cfi_last_error;

/* One running task (or initializer: future is NULL).  Frames lie on the stack of the thread that
 * runs them; a wait that helps puts the helped task's frame above the waiting one's. */
struct cfi_frame {
    struct cfi_frame *below;
    cf_future *future;
    char *message; /* of cf_raise: malloc'ed, or NULL */
    bool message_lost;
    bool said;                 /* any of these is set */
    struct cfi_raised *raised; /* of cf_raise_object */
};

/* A call into an executor from which tasks may run on this thread. */
struct cfi_visit {
    const cf_executor *executor;
    struct cfi_visit *below;
};

/* A binding's own error object; whoever holds this owns the object. */
struct cfi_raised {
    void *object;
    void (*destroy)(void *object);
};
void cfi_raised_free(struct cfi_raised *raised);

struct cfi_self {
    struct cfi_frame *frame;
    struct cfi_visit *visit;
    cf_executor *executor; /* whose worker this is, or NULL */
    const struct cfi_wait
        *waiting;       /* what this thread sleeps for; guarded by the wait graph's lock */
    bool visited;       /* by the walk through the graph */
    unsigned callbacks; /* how deep in callbacks */
    struct cfi_last_error *error;
    const cf_wait_hooks *hooks; /* as set by the binding, and as base wants them */
    struct cfi_sleep_hooks sleep_hooks;
};

extern _Thread_local struct cfi_self cfi_this;

/* In a worker process: is the task there asked to stop?  For frames without a future.  NULL: there is
 * nobody who could ask. */
extern bool (*cfi_stop_asked)(void);

/* Puts a frame on top of the thread's frames, and takes it off again. */
static inline void cfi_frame_push(struct cfi_frame *frame, cf_future *future)
{
    *frame = (struct cfi_frame){ .below = cfi_this.frame, .future = future };
    cfi_this.frame = frame;
}

/* Drops what was raised in the frame. */
void cfi_frame_forget(struct cfi_frame *frame);

static inline void cfi_frame_pop(struct cfi_frame *frame)
{
    cfi_this.frame = frame->below;
}

#endif
