/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "clock.h"

#include <time.h>

#ifdef CFI_SCHEDULE
int64_t cfi_schedule_now(void);
#endif

int64_t cfi_now(void)
{
#ifdef CFI_SCHEDULE
    return cfi_schedule_now();
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail: the clock exists and &t is ours */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

int64_t cfi_deadline(int64_t timeout_ns)
{
    if (timeout_ns <= 0)
        return 0;
    if (timeout_ns == CFI_NEVER)
        return CFI_NEVER;
    int64_t now = cfi_now();
    return timeout_ns > CFI_NEVER - now ? CFI_NEVER : now + timeout_ns;
}
