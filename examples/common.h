/* SPDX-License-Identifier: MIT */
/* What every example needs besides the library: an end for errors that it cannot go on after, the
 * time, and a sleep.  Include it first: it asks the C library for POSIX. */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <cfutures.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Ends the program with the place and the reason, unless the call returns CF_OK. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((call) != CF_OK)                                                                       \
            give_up(__FILE__, __LINE__);                                                           \
    } while (0)

static inline _Noreturn void give_up(const char *file, int line)
{
    const cf_error *error = cf_last_error();
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, cf_status_name(error->status), error->message);
    exit(1);
}

/* Seconds on a clock that nobody sets. */
static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void sleep_for(double seconds)
{
    struct timespec t = { .tv_sec = (time_t)seconds };
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    while (nanosleep(&t, &t) != 0)
        continue;
}

#endif
