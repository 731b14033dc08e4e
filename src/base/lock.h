/* SPDX-License-Identifier: MIT */
/* A mutex of one word (Ulrich Drepper, "Futexes Are Tricky", mutex3): 0 free, 1 held, 2 held and
 * somebody may sleep.  For sections of a few instructions in which no user code runs. */
#ifndef CFI_BASE_LOCK_H
#define CFI_BASE_LOCK_H

#include "atomics.h"

struct cfi_lock {
    cfi_u32 word;
};

#define CFI_LOCK_INIT                                                                              \
    {                                                                                              \
        0                                                                                          \
    }

void cfi_lock_slow(struct cfi_lock *lock);
void cfi_unlock_slow(struct cfi_lock *lock);

static inline bool cfi_try_lock(struct cfi_lock *lock)
{
    uint32_t free = 0;
    return cfi_load_relaxed(&lock->word) == 0 && cfi_cas_acquire(&lock->word, &free, 1);
}

static inline void cfi_lock(struct cfi_lock *lock)
{
    uint32_t free = 0;
    if (!cfi_cas_acquire(&lock->word, &free, 1)) /* pairs with the exchange in cfi_unlock */
        cfi_lock_slow(lock);
}

static inline void cfi_unlock(struct cfi_lock *lock)
{
    if (cfi_exchange_release(&lock->word, 0) == 2) /* pairs with the swap in cfi_lock */
        cfi_unlock_slow(lock);
}

#endif
