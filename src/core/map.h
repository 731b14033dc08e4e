/* SPDX-License-Identifier: MIT */
/* What the array maps and the lazy map share: how far to split, and what an element said when it
 * failed. */
#ifndef CFI_CORE_MAP_H
#define CFI_CORE_MAP_H

#include "../base/clock.h"
#include "error.h"
#include "self.h"

enum cfi_map_kind { CFI_MAP_FN, CFI_MAP_BYTES, CFI_MAP_RANGE };

/* What a map over arrays is to do, arguments checked.  For a range `args` is the context, and arg_size
 * the size of all of it. */
struct cfi_map_work {
    enum cfi_map_kind kind;
    const char *name, *args_name; /* for messages */
    union {
        cf_fn *fn;
        cf_bytes_fn *bytes_fn;
        cf_range_fn *range_fn;
    } call;
    const void *args;
    void *results;
    size_t count, arg_size, result_size;
};

/* How many tasks can run at once on this executor; at least 1. */
size_t cfi_map_workers(const cf_executor *ex);

enum { CFI_PIECE_NS = 100000, CFI_PIECE_GROWTH = 8 };

/* How many elements take about CFI_PIECE_NS when `size` of them took `took` nanoseconds; at least 1. */
size_t cfi_map_fit(size_t size, int64_t took);

/* How many elements to take next when the last `size` took `took` nanoseconds: as many as take
 * about CFI_PIECE_NS, but at most CFI_PIECE_GROWTH times as many; at least 1. */
size_t cfi_map_piece(size_t size, int64_t took);

/* What is left of a call's time, for those that take a timeout. */
static inline int64_t cfi_time_left(int64_t deadline)
{
    return deadline == CFI_NEVER ? CF_FOREVER : deadline - cfi_now();
}

/* How one element ended that has no result. */
struct cfi_ending {
    cf_status status;
    int code;
    char *text; /* of cf_raise: malloc'ed, or NULL */
    bool text_lost;
};

/* The ending of an element that returned `code`.  Takes over what it raised. */
struct cfi_ending cfi_map_failed(struct cfi_frame *frame, int code);

/* What it says, or a general text; never NULL. */
const char *cfi_map_text(const struct cfi_ending *ending);

/* Reports an ending as this thread's last error; returns its status. */
cf_status cfi_map_fail(const struct cfi_ending *ending, size_t index) CFI_COLD;

/* Reports that the map's time has passed: CF_TIMEOUT. */
cf_status cfi_map_timed_out(const struct cfi_map_work *work) CFI_COLD;

/* What a map submits: tasks whose argument points to what the map has in this process. */
cf_fn cfi_map_run_job, cfi_map_run_chunk;

/* A frame for elements on top of the one of the task that they are in. */
static inline void cfi_map_push(struct cfi_frame *frame)
{
    cfi_frame_push(frame, cfi_this.frame ? cfi_this.frame->future : NULL);
}

#endif
