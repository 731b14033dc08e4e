/* SPDX-License-Identifier: MIT */
/* Log lines as Python's logging prints them: [2017-04-02 12:01:39,748] [thread_0] 0 start */
#ifndef EXAMPLES_LOG_H
#define EXAMPLES_LOG_H

#include "common.h"
#include <pthread.h>
#include <stdarg.h>
#include <unistd.h>

static inline void log_thread_name(char *name, size_t size)
{
    if (gettid() == getpid())
        snprintf(name, size, "MainThread");
    else
        pthread_getname_np(pthread_self(), name, size);
}

static inline void log_info(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

static inline void log_info(const char *format, ...)
{
    char when[32], name[16], text[128];
    struct timespec t;
    struct tm local;
    va_list args;
    clock_gettime(CLOCK_REALTIME, &t);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&t.tv_sec, &local));
    log_thread_name(name, sizeof name);
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("[%s,%03ld] [%s] %s\n", when, t.tv_nsec / 1000000, name, text);
    fflush(stdout);
}

#endif
