/* SPDX-License-Identifier: MIT */
/* A thread's last error lives in a buffer that is made at its first failure; when even that fails,
 * a constant stands in, so that cf_last_error never returns NULL and failing never fails. */
#define _POSIX_C_SOURCE 200809L
#include "error.h"

#include "../base/thread.h"
#include "self.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cfi_last_error {
    cf_error error;
    char text[512];
};

_Thread_local struct cfi_self cfi_this;

#define PLAIN(s, text)                                                                             \
    {                                                                                              \
        .size = sizeof(cf_error), .status = (s), .message = (text), .exit_code = -1                \
    }

static const cf_error plain[] = {
    [CF_OK] = PLAIN(CF_OK, "no error"),
    [CF_TIMEOUT] = PLAIN(CF_TIMEOUT, "timed out"),
    [CF_CANCELLED] = PLAIN(CF_CANCELLED, "cancelled"),
    [CF_STOPPED] = PLAIN(CF_STOPPED, "stopped"),
    [CF_FAILED] = PLAIN(CF_FAILED, "the task failed"),
    [CF_BROKEN] = PLAIN(CF_BROKEN, "the pool is broken"),
    [CF_SHUTDOWN] = PLAIN(CF_SHUTDOWN, "the executor has been shut down"),
    [CF_FULL] = PLAIN(CF_FULL, "the executor is full"),
    [CF_DEADLOCK] = PLAIN(CF_DEADLOCK, "waiting here would never end"),
    [CF_NOMEM] = PLAIN(CF_NOMEM, "out of memory"),
    [CF_INVALID] = PLAIN(CF_INVALID, "invalid argument"),
    [CF_SYSTEM] = PLAIN(CF_SYSTEM, "a system call failed"),
    [CF_INTERRUPTED] = PLAIN(CF_INTERRUPTED, "interrupted"),
};
static const cf_error end_error = PLAIN(CF_END, "nothing more");
static const cf_error unknown_error = PLAIN(CF_INVALID, "unknown status");

static const char *const names[] = {
    "CF_OK",      "CF_TIMEOUT",  "CF_CANCELLED",   "CF_STOPPED",  "CF_FAILED",
    "CF_BROKEN",  "CF_SHUTDOWN", "CF_FULL",        "CF_DEADLOCK", "CF_NOMEM",
    "CF_INVALID", "CF_SYSTEM",   "CF_INTERRUPTED",
};

static bool has_name(cf_status status)
{
    return (int)status >= 0 && (size_t)status < sizeof names / sizeof *names;
}

const char *cf_status_name(cf_status status)
{
    if (status == CF_END)
        return "CF_END";
    return has_name(status) ? names[status] : "CF_UNKNOWN";
}

const cf_error *cfi_plain_error(cf_status status)
{
    if (status == CF_END)
        return &end_error;
    return has_name(status) ? &plain[status] : &unknown_error;
}

unsigned cf_version(void)
{
    return CF_VERSION;
}

static void drop_last_error(void)
{
    free(cfi_this.error);
    cfi_this.error = NULL;
}

/* The buffer of the thread, or NULL when there is no memory for it. */
static struct cfi_last_error *last_error(void)
{
    static const cf_error none = PLAIN(CF_OK, "no error");
    if (!cfi_this.error && cfi_on_thread_exit(drop_last_error)) {
        cfi_this.error = malloc(sizeof *cfi_this.error);
        if (cfi_this.error)
            cfi_this.error->error = none;
    }
    return cfi_this.error;
}

const cf_error *cf_last_error(void)
{
    static const cf_error lost = PLAIN(CF_NOMEM, "out of memory: the error could not be kept");
    struct cfi_last_error *e = last_error();
    return e ? &e->error : &lost;
}

cf_status cfi_fail_fixed(cf_status status, const char *literal)
{
    struct cfi_last_error *e = last_error();
    if (e) {
        e->error = *cfi_plain_error(status);
        e->error.message = literal;
    }
    return status;
}

cf_status cfi_fail(cf_status status, const char *format, ...)
{
    struct cfi_last_error *e = last_error();
    if (!e)
        return status;
    char text[sizeof e->text]; /* the arguments may point into the old text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(e->text, text, sizeof text);
    return cfi_fail_fixed(status, e->text);
}

cf_status cfi_fail_system(int error, const char *what)
{
    char text[128];
    if (strerror_r(error, text, sizeof text) != 0)
        snprintf(text, sizeof text, "error %d", error);
    (void)cfi_fail(CF_SYSTEM, "%s: %s", what, text);
    if (cfi_this.error)
        cfi_this.error->error.code = error;
    errno = error;
    return CF_SYSTEM;
}

cf_status cfi_fail_with(const cf_error *error)
{
    struct cfi_last_error *e = last_error();
    if (e && error != &e->error) {
        snprintf(e->text, sizeof e->text, "%s", error->message);
        e->error = *error;
        e->error.message = e->text;
    }
    return error->status;
}

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

cf_status cfi_options_copy(void *copy, size_t known, size_t least, const void *options,
                           const char *what)
{
    memset(copy, 0, known);
    if (!options)
        return CF_OK;
    size_t size = *(const size_t *)options; /* every such struct begins with its size */
    if (size < least)
        return cfi_fail(CF_INVALID, "%s: size is %zu, must be at least %zu", what, size, least);
    if (size > known && !all_zero((const unsigned char *)options + known, size - known))
        return cfi_fail(CF_INVALID, "%s: has fields set that this version does not know", what);
    memcpy(copy, options, size < known ? size : known);
    return CF_OK;
}
