/* SPDX-License-Identifier: MIT */
/* In a worker process: what a slot asks for is found, called, and answered. */
#ifndef CFI_PROCESSES_CALL_H
#define CFI_PROCESSES_CALL_H

#include "channel.h"

struct cfi_caller {
    struct cfi_arena *arena;
    int channel;
    uint64_t results_at; /* position in the result heap: of what comes next */
    uint64_t rung_at;    /* what the parent had read when it was last told that the heap fills up */
    bool must_ring;      /* tell it now */
    unsigned images[CFI_MAX_IMAGES]; /* by the parent's number: this process's + 1; 0: not known */
    struct {
        uint64_t image, offset;
        cfi_function *fn; /* NULL: there was none yet */
    } latest;
};

/* `channel` is where blocks come from and go to. */
void cfi_caller_init(struct cfi_caller *caller, struct cfi_arena *arena, int channel);

/* A function that the parent names; NULL: it is not here, see cf_last_error. */
cfi_function *cfi_caller_find(struct cfi_caller *caller, unsigned image, uint64_t offset);

/* Does the task `number`, which is RUNNING in its slot, and fills in the worker's half of the slot. */
void cfi_caller_run(struct cfi_caller *caller, uint32_t number, struct cfi_slot *slot);

#endif
