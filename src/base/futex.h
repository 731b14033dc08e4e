/* SPDX-License-Identifier: MIT */
/* The two ways to sleep on a word: raw, for short internal locks, and hooked, for waits that last
 * (a future, an idle worker, a full queue), around which a binding may let go of its own lock. */
#ifndef CFI_BASE_FUTEX_H
#define CFI_BASE_FUTEX_H

#include "atomics.h"

enum cfi_woken { CFI_WOKEN, CFI_TIMED_OUT, CFI_SIGNALLED };

/* Sleeps while *word == expected, until woken, until the absolute deadline, or until a signal
 * handler has run.  CFI_WOKEN may be spurious: the caller looks at its condition again. */
enum cfi_woken cfi_futex_wait(cfi_u32 *word, uint32_t expected, int64_t deadline);

/* Wakes at most `count` sleepers.  Reads no memory: the word may be gone by now. */
void cfi_futex_wake(cfi_u32 *word, int count);

/* The half of a 64-bit word that holds its low 32 bits: what a futex can sleep on. */
static inline cfi_u32 *cfi_low_half(cfi_u64 *word)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (cfi_u32 *)(void *)word + 1;
#else
    return (cfi_u32 *)(void *)word;
#endif
}

/* What a binding wants done around this thread's long sleeps; after() may veto going on (false). */
struct cfi_sleep_hooks {
    void *data;
    void (*before)(void *data);
    bool (*after)(void *data, bool signalled);
};
const struct cfi_sleep_hooks **cfi_sleep_hooks(void); /* this thread's slot */

/* For a thread that looks a while before it sleeps: the hooks stand around all of it, and not around
 * each sleep in it.  false: after() said stop. */
void cfi_rest_begin(void);
bool cfi_rest_end(void);

/* cfi_futex_wait between the thread's hooks.  CFI_SIGNALLED only when after() said stop: without
 * hooks a signal is a spurious wake-up. */
enum cfi_woken cfi_sleep(cfi_u32 *word, uint32_t expected, int64_t deadline);

/* The same two for a word in memory that processes share: cfi_sleep and cfi_futex_wake, whoever the
 * sleepers and wakers are. */
enum cfi_woken cfi_shared_sleep(cfi_u32 *word, uint32_t expected, int64_t deadline);
void cfi_shared_wake(cfi_u32 *word, int count);

#endif
