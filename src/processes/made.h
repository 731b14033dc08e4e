/* SPDX-License-Identifier: MIT */
/* In a worker process: blocks for results.  cf_bytes_resize makes large bytes in them, so that a result
 * is in its place before the task returns.
 *
 * The first few are kept: mapped here and by the parent, they go back and forth without a system call.
 * All others serve once.  New, without a use, and for what else the task needs memory, a block is like
 * any other: only the one that becomes a result is sent. */
#ifndef CFI_PROCESSES_MADE_H
#define CFI_PROCESSES_MADE_H

#include "channel.h"

/* From now on cf_bytes_resize uses blocks. */
void cfi_made_begin(struct cfi_arena *arena);

/* Any thread: */
void *cfi_made_new(size_t size); /* at a page's start; NULL: no memory */
bool cfi_made_free(void *data);  /* false: it is none of these     */
bool cfi_made_has(void *data);

/* The thread that does the tasks: */

/* The block becomes a result, and is announced if the parent does not have it yet.  false: it cannot,
 * see cf_last_error; it is still the caller's. */
bool cfi_made_send(int channel, void *data, uint64_t *ret_number);

/* After the result is out: lets go of what served once. */
void cfi_made_clear(void);

/* When the worker is idle: gives the memory of kept blocks back, and keeps their addresses. */
void cfi_made_trim(void);

#endif
