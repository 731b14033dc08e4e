/* SPDX-License-Identifier: MIT */
/* Threads: making them, naming them, and what runs when one ends. */
#ifndef CFI_BASE_THREAD_H
#define CFI_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef pthread_t cfi_thread;

/* Starts `run(arg)` on a thread with all asynchronous signals blocked, so that the host's handlers
 * run on the host's threads.  stack_size is rounded up to what the system demands.  Returns 0 or an
 * errno; the caller joins or detaches. */
int cfi_thread_start(cfi_thread *thread, void *(*run)(void *), void *arg, size_t stack_size);
void cfi_thread_join(cfi_thread thread);
void cfi_thread_detach(cfi_thread thread);
cfi_thread cfi_thread_self(void);
bool cfi_thread_is_self(cfi_thread thread);

/* Names the calling thread "name_number"; the kernel keeps 15 bytes, so the name is cut, not the
 * number. */
void cfi_thread_name(const char *name, unsigned number);

/* Calls fn on this thread when it ends (not for the thread that returns from main).  Each fn is
 * kept once; may be called again from within fn.  At most two different functions.  false: out of
 * memory. */
bool cfi_on_thread_exit(void (*fn)(void));

/* Calls the three around every fork of the process; see pthread_atfork.  Returns 0 or an errno. */
int cfi_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

/* Calls fn once per process, whoever comes first; the others wait for it. */
typedef pthread_once_t cfi_once;
#define CFI_ONCE_INIT PTHREAD_ONCE_INIT
void cfi_call_once(cfi_once *once, void (*fn)(void));

#endif
