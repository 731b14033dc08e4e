/* SPDX-License-Identifier: MIT */
#include "lock.h"

#include "clock.h"
#include "futex.h"

enum { SPINS = 40 };

void cfi_lock_slow(struct cfi_lock *lock)
{
    for (int i = 0; i < SPINS; i++) {
        cfi_pause();
        if (cfi_try_lock(lock))
            return;
    }
    /* Once we have slept we cannot know who else does: keep the word at 2 until our own unlock. */
    while (cfi_exchange_acquire(&lock->word, 2) != 0)
        (void)cfi_futex_wait(&lock->word, 2, CFI_NEVER);
}

void cfi_unlock_slow(struct cfi_lock *lock)
{
    cfi_futex_wake(&lock->word, 1);
}
