/* SPDX-License-Identifier: MIT */
/* A place for one thread to sleep, with a token so that a wake-up before the sleep is not lost.
 *
 * States: EMPTY -> (unpark) -> TOKEN -> (park takes it) -> EMPTY; EMPTY -> (park) -> ASLEEP ->
 * (unpark)
 * -> TOKEN.  Only the owner writes EMPTY and ASLEEP, only wakers write TOKEN: a waker never clears
 * an announcement, which is how wake-ups get lost (tests/spin models it). */
#ifndef CFI_BASE_PARK_H
#define CFI_BASE_PARK_H

#include "futex.h"

struct cfi_parker {
    cfi_u32 state;
};

/* Sleeps until the token is there, and takes it.  CFI_TIMED_OUT and CFI_SIGNALLED: without the
 * token. */
enum cfi_woken cfi_park(struct cfi_parker *parker, int64_t deadline);

/* Leaves the token and wakes the owner if it sleeps.  What was written before is visible after
 * park. The parker may be gone as soon as the token is out: only its address is used from then on.
 */
void cfi_unpark(struct cfi_parker *parker);

/* Has the token arrived?  For spinning before cfi_park. */
static inline bool cfi_has_token(struct cfi_parker *parker)
{
    return cfi_load_acquire(&parker->state) == 1;
}

#endif
