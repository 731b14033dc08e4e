/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "thread.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef CFI_SCHEDULE
int cfi_schedule_thread_start(cfi_thread *thread, void *(*run)(void *), void *arg);
void cfi_schedule_thread_join(cfi_thread thread);
#endif

/* Faults of the thread itself must still reach their handlers; everything else goes to the host's
 * threads. */
static void block_asynchronous_signals(sigset_t *before)
{
    static const int synchronous[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(&blocked, synchronous[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, before);
}

static size_t usable_stack_size(size_t wanted)
{
    size_t least = (size_t)PTHREAD_STACK_MIN, page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = wanted < least ? least : wanted;
    return size > SIZE_MAX - page ? size : (size + page - 1) / page * page;
}

int cfi_thread_start(cfi_thread *thread, void *(*run)(void *), void *arg, size_t stack_size)
{
#ifdef CFI_SCHEDULE
    (void)stack_size;
    return cfi_schedule_thread_start(thread, run, arg);
#else
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0)
        return rc;
    rc = pthread_attr_setstacksize(&attr, usable_stack_size(stack_size));
    if (rc == 0) {
        sigset_t before;
        block_asynchronous_signals(&before);
        rc = pthread_create(thread, &attr, run, arg);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attr);
    return rc;
#endif
}

void cfi_thread_join(cfi_thread thread)
{
#ifdef CFI_SCHEDULE
    cfi_schedule_thread_join(thread);
#else
    pthread_join(thread, NULL);
#endif
}

void cfi_thread_detach(cfi_thread thread)
{
#ifndef CFI_SCHEDULE
    pthread_detach(thread);
#else
    (void)thread;
#endif
}

cfi_thread cfi_thread_self(void)
{
    return pthread_self();
}

bool cfi_thread_is_self(cfi_thread thread)
{
    return pthread_equal(thread, pthread_self());
}

void cfi_thread_name(const char *name, unsigned number)
{
    char digits[12], text[16];
    int n = snprintf(digits, sizeof digits, "_%u", number);
    snprintf(text, sizeof text, "%.*s%s", (int)sizeof text - 1 - n, name, digits);
    pthread_setname_np(pthread_self(), text);
}

enum { MAX_EXIT_FUNCTIONS = 2 };
static _Thread_local void (*exit_functions[MAX_EXIT_FUNCTIONS])(void);
static pthread_key_t exit_key;
static bool exit_key_made;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;

static void run_exit_functions(void *unused)
{
    (void)unused;
    for (int i = 0; i < MAX_EXIT_FUNCTIONS; i++) {
        void (*fn)(void) = exit_functions[i];
        exit_functions[i] = NULL;
        if (fn)
            fn();
    }
}

static void make_exit_key(void)
{
    exit_key_made = pthread_key_create(&exit_key, run_exit_functions) == 0;
}

bool cfi_on_thread_exit(void (*fn)(void))
{
    pthread_once(&exit_once, make_exit_key);
    if (!exit_key_made || pthread_setspecific(exit_key, &exit_key) != 0)
        return false;
    int at = MAX_EXIT_FUNCTIONS;
    for (int i = MAX_EXIT_FUNCTIONS - 1; i >= 0; i--) {
        if (exit_functions[i] == fn)
            return true;
        if (exit_functions[i] == NULL)
            at = i;
    }
    if (at < MAX_EXIT_FUNCTIONS)
        exit_functions[at] = fn;
    return at < MAX_EXIT_FUNCTIONS;
}

int cfi_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(prepare, parent, child);
}

void cfi_call_once(cfi_once *once, void (*fn)(void))
{
    pthread_once(once, fn);
}
