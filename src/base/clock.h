/* SPDX-License-Identifier: MIT */
/* Time: nanoseconds of CLOCK_MONOTONIC.  A relative time becomes an absolute deadline once, at the
 * entrance of a call; everything inside waits until that deadline, however often it wakes. */
#ifndef CFI_BASE_CLOCK_H
#define CFI_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CFI_NEVER INT64_MAX /* the deadline that does not come */

int64_t cfi_now(void);

/* 0 or less: a deadline that has passed (0); CFI_NEVER stays; sums saturate at CFI_NEVER. */
int64_t cfi_deadline(int64_t timeout_ns);

static inline bool cfi_deadline_passed(int64_t deadline)
{
    return deadline != CFI_NEVER && cfi_now() >= deadline;
}

#endif
