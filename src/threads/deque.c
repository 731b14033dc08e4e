/* SPDX-License-Identifier: MIT */
#include "deque.h"

#include <stdlib.h>

enum { FIRST_SIZE = 64 };

struct cfi_ring {
    struct cfi_ring *former;
    int64_t size; /* a power of two */
    CFI_ATOMIC(cf_future *) slots[];
};

static cf_future *get(struct cfi_ring *r, int64_t at)
{
    return cfi_load_relaxed(&r->slots[at & (r->size - 1)]);
}

static void set(struct cfi_ring *r, int64_t at, cf_future *f)
{
    cfi_store_relaxed(&r->slots[at & (r->size - 1)], f);
}

static struct cfi_ring *grow(struct cfi_deque *d, struct cfi_ring *old, int64_t top, int64_t bottom)
{
    int64_t size = old ? 2 * old->size : FIRST_SIZE;
    struct cfi_ring *r = malloc(sizeof *r + (size_t)size * sizeof r->slots[0]);
    if (!r)
        return NULL;
    r->former = old;
    r->size = size;
    for (int64_t i = top; i < bottom; i++)
        set(r, i, get(old, i));
    cfi_store_release(&d->ring, r); /* pairs with the load in steal */
    return r;
}

bool cfi_deque_push(struct cfi_deque *d, cf_future *f)
{
    int64_t bottom = cfi_load_relaxed(&d->bottom);
    int64_t top = cfi_load_acquire(&d->top); /* pairs with the swap in steal: the slot is free */
    struct cfi_ring *r = cfi_load_relaxed(&d->ring);
    if (CFI_UNLIKELY(!r || bottom - top >= r->size)) {
        r = grow(d, r, top, bottom);
        if (!r)
            return false;
    }
    set(r, bottom, f);
    cfi_store_release(&d->bottom, bottom + 1); /* pairs with the load in steal */
    return true;
}

bool cfi_deque_pop_if(struct cfi_deque *d, const cf_future *f)
{
    int64_t bottom = cfi_load_relaxed(&d->bottom) - 1;
    struct cfi_ring *r = cfi_load_relaxed(&d->ring);
    if (!r || cfi_load_relaxed(&d->top) > bottom || get(r, bottom) != f)
        return false;
    cfi_store_relaxed(&d->bottom, bottom);
    cfi_fence_seq_cst(); /* pairs with the one in steal: one of us sees the other */
    int64_t top = cfi_load_relaxed(&d->top);
    bool ours = top < bottom || (top == bottom && cfi_cas_seq_cst(&d->top, &top, top + 1));
    if (top >= bottom) /* it was the last one, whoever got it */
        cfi_store_relaxed(&d->bottom, bottom + 1);
    return ours;
}

cf_future *cfi_deque_steal(struct cfi_deque *d, int64_t from)
{
    int64_t top = cfi_load_acquire(&d->top);
    cfi_fence_seq_cst(); /* pairs with the one in pop_if */
    int64_t bottom = cfi_load_acquire(&d->bottom);
    if (top >= bottom || top < from)
        return NULL;
    cf_future *f = get(cfi_load_acquire(&d->ring), top);
    return cfi_cas_seq_cst(&d->top, &top, top + 1) ? f : NULL;
}

void cfi_deque_destroy(struct cfi_deque *d)
{
    struct cfi_ring *r = cfi_load_relaxed(&d->ring);
    while (r) {
        struct cfi_ring *former = r->former;
        free(r);
        r = former;
    }
}
