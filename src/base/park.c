/* SPDX-License-Identifier: MIT */
#include "park.h"

enum { EMPTY = 0, TOKEN = 1, ASLEEP = 2 };

static bool take_token(struct cfi_parker *parker)
{
    uint32_t token = TOKEN;
    return cfi_cas_acquire(&parker->state, &token, EMPTY); /* pairs with the exchange in unpark */
}

enum cfi_woken cfi_park(struct cfi_parker *parker, int64_t deadline)
{
    uint32_t empty = EMPTY;
    if (!cfi_cas_acquire(&parker->state, &empty, ASLEEP))
        return take_token(parker) ? CFI_WOKEN : CFI_TIMED_OUT;
    for (;;) {
        enum cfi_woken woken = cfi_sleep(&parker->state, ASLEEP, deadline);
        if (take_token(parker))
            return CFI_WOKEN;
        uint32_t asleep = ASLEEP;
        if (woken != CFI_WOKEN && cfi_cas_acquire(&parker->state, &asleep, EMPTY))
            return woken;
    }
}

void cfi_unpark(struct cfi_parker *parker)
{
    if (cfi_exchange_acq_rel(&parker->state, TOKEN) == ASLEEP) /* release: pairs with take_token */
        cfi_futex_wake(&parker->state, 1);
}
