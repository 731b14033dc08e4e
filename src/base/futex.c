/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "futex.h"

#include "clock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef CFI_SCHEDULE
int cfi_schedule_futex_wait(cfi_u32 *word, uint32_t expected,
                            int64_t deadline); /* 0 or ETIMEDOUT */
void cfi_schedule_futex_wake(cfi_u32 *word, int count);
#endif

static _Thread_local const struct cfi_sleep_hooks *hooks;
static _Thread_local bool rests; /* the hooks stand around more than one sleep */

/* `operation`: with or without FUTEX_PRIVATE_FLAG. */
static int system_wait(cfi_u32 *word, int operation, uint32_t expected, int64_t deadline)
{
    struct timespec t = { .tv_sec = (time_t)(deadline / 1000000000),
                          .tv_nsec = (long)(deadline % 1000000000) };
    long rc = syscall(SYS_futex, word, operation, expected, deadline == CFI_NEVER ? NULL : &t, NULL,
                      FUTEX_BITSET_MATCH_ANY);
    return rc == 0 ? 0 : errno;
}

static int futex_wait(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
#ifdef CFI_SCHEDULE
    return cfi_schedule_futex_wait(word, expected, deadline);
#else
    /* WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC; plain WAIT a relative one. */
    return system_wait(word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline);
#endif
}

static enum cfi_woken woken_by(int error)
{
    return error == ETIMEDOUT ? CFI_TIMED_OUT : error == EINTR ? CFI_SIGNALLED : CFI_WOKEN;
}

enum cfi_woken cfi_futex_wait(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    int saved = errno;
    int error = futex_wait(word, expected, deadline);
    errno = saved;
    return woken_by(error);
}

static void system_wake(cfi_u32 *word, int operation, int count)
{
    int saved = errno;
    (void)syscall(SYS_futex, word, operation, count, NULL, NULL, 0);
    errno = saved;
}

void cfi_futex_wake(cfi_u32 *word, int count)
{
#ifdef CFI_SCHEDULE
    cfi_schedule_futex_wake(word, count);
#else
    system_wake(word, FUTEX_WAKE_PRIVATE, count);
#endif
}

static enum cfi_woken shared_futex_wait(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    int saved = errno;
    int error = system_wait(word, FUTEX_WAIT_BITSET, expected, deadline);
    errno = saved;
    return woken_by(error);
}

void cfi_shared_wake(cfi_u32 *word, int count)
{
    system_wake(word, FUTEX_WAKE, count);
}

const struct cfi_sleep_hooks **cfi_sleep_hooks(void)
{
    return &hooks;
}

static void before_sleep(void)
{
    if (hooks && hooks->before)
        hooks->before(hooks->data);
}

static bool after_sleep(bool signalled)
{
    return !hooks || !hooks->after || hooks->after(hooks->data, signalled);
}

void cfi_rest_begin(void)
{
    if (!rests)
        before_sleep();
    rests = true;
}

bool cfi_rest_end(void)
{
    bool rested = rests;
    rests = false;
    return !rested || after_sleep(false);
}

static enum cfi_woken sleep_between_hooks(enum cfi_woken (*wait)(cfi_u32 *, uint32_t, int64_t),
                                          cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    bool rested = rests;
    cfi_rest_begin();
    enum cfi_woken woken = wait(word, expected, deadline);
    if (rested && woken != CFI_SIGNALLED)
        return woken;
    rests = false;
    if (!after_sleep(woken == CFI_SIGNALLED))
        return CFI_SIGNALLED;
    if (rested)
        cfi_rest_begin();
    return woken == CFI_SIGNALLED ? CFI_WOKEN : woken;
}

enum cfi_woken cfi_sleep(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    return sleep_between_hooks(cfi_futex_wait, word, expected, deadline);
}

enum cfi_woken cfi_shared_sleep(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    return sleep_between_hooks(shared_futex_wait, word, expected, deadline);
}
