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

static void put(struct cfi_deque *d, struct cfi_ring *r, int64_t bottom, cf_future *f)
{
    set(r, bottom, f);
    cfi_store_release(&d->bottom, bottom + 1); /* pairs with the load in steal */
}

/* Owner: takes the entry at `last`, the one above the bottom, unless a thief has it. */
static bool take_last(struct cfi_deque *d, int64_t last)
{
    cfi_store_relaxed(&d->bottom, last);
    cfi_fence_seq_cst(); /* pairs with the one in steal: one of us sees the other */
    int64_t top = cfi_load_relaxed(&d->top);
    bool ours = top < last || (top == last && cfi_cas_seq_cst(&d->top, &top, top + 1));
    if (top >= last) /* it was the only one, whoever got it */
        cfi_store_relaxed(&d->bottom, last + 1);
    return ours;
}

/* Takes everything out and puts back, in order, what may not go: a waiter may have run a task where it
 * lay, or it was cancelled.  A task that for ever submits and waits would pile such entries up. */
static void drop_some(struct cfi_deque *d, struct cfi_ring *r, cfi_drop_fn *drop)
{
    cf_future **kept = malloc((size_t)r->size * sizeof(cf_future *));
    int64_t count = 0, last;
    while (kept && (last = cfi_load_relaxed(&d->bottom) - 1) >= cfi_load_relaxed(&d->top)) {
        cf_future *f = get(r, last);
        if (!take_last(d, last))
            break;
        if (!drop(f))
            kept[count++] = f;
    }
    while (count > 0)
        put(d, r, cfi_load_relaxed(&d->bottom), kept[--count]);
    free(kept);
}

/* A ring with room for one more at the bottom; NULL: out of memory. */
static CFI_COLD struct cfi_ring *make_room(struct cfi_deque *d, cfi_drop_fn *drop)
{
    struct cfi_ring *r = cfi_load_relaxed(&d->ring);
    if (r)
        drop_some(d, r, drop);
    int64_t bottom = cfi_load_relaxed(&d->bottom), top = cfi_load_acquire(&d->top);
    return r && bottom - top <= r->size / 2 ? r : grow(d, r, top, bottom);
}

bool cfi_deque_push(struct cfi_deque *d, cf_future *f, cfi_drop_fn *drop)
{
    int64_t bottom = cfi_load_relaxed(&d->bottom);
    int64_t top = cfi_load_acquire(&d->top); /* pairs with the swap in steal: the slot is free */
    struct cfi_ring *r = cfi_load_relaxed(&d->ring);
    if (CFI_UNLIKELY(!r || bottom - top >= r->size)) {
        r = make_room(d, drop);
        if (!r)
            return false;
        bottom = cfi_load_relaxed(&d->bottom);
    }
    put(d, r, bottom, f);
    return true;
}

bool cfi_deque_pop_if(struct cfi_deque *d, const cf_future *f)
{
    int64_t last = cfi_load_relaxed(&d->bottom) - 1;
    struct cfi_ring *r = cfi_load_relaxed(&d->ring);
    return r && cfi_load_relaxed(&d->top) <= last && get(r, last) == f && take_last(d, last);
}

cf_future *cfi_deque_steal(struct cfi_deque *d, int64_t from)
{
    int64_t top = cfi_load_acquire(&d->top);
    cfi_fence_seq_cst(); /* pairs with the one in take_last */
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
