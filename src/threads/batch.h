/* SPDX-License-Identifier: MIT */
/* What a worker took from the lanes at once and has not begun.  One word, {limit, head}, decides
 * who gets a task: the owner claims at the head, idle workers take from the limit, each by one
 * compare-and-swap, so no task waits behind a long one while a worker is idle.
 *
 * A thief reads slots before its swap.  So that a swap can only succeed if they are still the ones
 * it read, positions are never used twice: the owner refills an empty batch beyond all former
 * positions (a word that returned to an old value would hand out a task twice; tests/spin has the
 * model). */
#ifndef CFI_THREADS_BATCH_H
#define CFI_THREADS_BATCH_H

#include "../base/atomics.h"

#include <cfutures.h>

enum { CFI_BATCH = 64 };

struct cfi_batch {
    cfi_u64 word;  /* limit << 32 | head */
    uint32_t next; /* the owner's: where the next refill begins */
    CFI_ATOMIC(cf_future *) slots[CFI_BATCH];
};

static inline uint32_t cfi_batch_head(uint64_t word)
{
    return (uint32_t)word;
}
static inline uint32_t cfi_batch_limit(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static inline bool cfi_batch_is_empty(struct cfi_batch *b)
{
    uint64_t word = cfi_load_relaxed(&b->word);
    return cfi_batch_head(word) == cfi_batch_limit(word);
}

static inline uint32_t cfi_batch_count(struct cfi_batch *b)
{
    uint64_t word = cfi_load_relaxed(&b->word);
    return cfi_batch_limit(word) - cfi_batch_head(word);
}

/* The owner's next task, or NULL. */
static inline cf_future *cfi_batch_pop(struct cfi_batch *b)
{
    uint64_t word = cfi_load_relaxed(&b->word);
    while (cfi_batch_head(word) != cfi_batch_limit(word)) {
        cf_future *f = cfi_load_relaxed(&b->slots[cfi_batch_head(word) % CFI_BATCH]);
        uint64_t claimed = (word & ~(uint64_t)UINT32_MAX) | (uint32_t)(word + 1);
        if (cfi_cas_acq_rel(&b->word, &word, claimed))
            return f;
    }
    return NULL;
}

/* The owner fills its empty batch with `count` tasks. */
static inline void cfi_batch_fill(struct cfi_batch *b, cf_future *const *tasks, uint32_t count)
{
    uint32_t head = b->next;
    for (uint32_t i = 0; i < count; i++)
        cfi_store_relaxed(&b->slots[(head + i) % CFI_BATCH], tasks[i]);
    b->next = head + count;
    cfi_store_release(&b->word, (uint64_t)b->next << 32 | head); /* pairs with the load in steal */
}

/* A thief takes the later half, at least one; 0: there was none, or somebody was faster. */
static inline uint32_t cfi_batch_steal(struct cfi_batch *b, cf_future **tasks)
{
    uint64_t word = cfi_load_acquire(&b->word);
    uint32_t limit = cfi_batch_limit(word), count = (limit - cfi_batch_head(word) + 1) / 2;
    if (count == 0 || count > CFI_BATCH)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        tasks[i] = cfi_load_relaxed(&b->slots[(limit - count + i) % CFI_BATCH]);
    uint64_t left = (uint64_t)(limit - count) << 32 | cfi_batch_head(word);
    return cfi_cas_acq_rel(&b->word, &word, left) ? count : 0;
}

#endif
