/* SPDX-License-Identifier: MIT */
/* Who sleeps, and whom to wake.
 *
 * One word: {tag, searching, top}.  `top` is the first of a stack of sleeping workers (number + 1;
 * the most recently parked first, its cache is warm), `searching` counts the workers that look for
 * work or are on their way up, `tag` changes with every push and pop, so a stale swap fails.
 *
 * The rule that makes submitting cheap: nobody is woken while somebody searches.
 *
 * Why no wake-up is lost.  A submitter publishes the task, passes a full fence, reads the word.  If
 * it sees no searcher and a sleeper it wakes one.  If it sees a searcher, that searcher's leaving
 * of the search is later in the word's order than this read; a searcher that leaves as the last one
 * passes a full fence and looks at all queues once more (after parking itself, or after it found a
 * task), so it sees the task and wakes somebody, possibly itself.  If it sees neither searcher nor
 * sleeper, every worker is running, and looks at all queues before it parks.  tests/spin/idle.pml
 * is this argument as a model. */
#ifndef CFI_THREADS_IDLE_H
#define CFI_THREADS_IDLE_H

#include "../base/atomics.h"

enum { CFI_MAX_WORKERS = 65534 };

struct cfi_idle {
    cfi_u64 word;
};

static inline uint32_t cfi_idle_top(uint64_t word)
{
    return (uint32_t)word & 0xffff;
}
static inline uint32_t cfi_idle_searching(uint64_t word)
{
    return (uint32_t)word >> 16;
}

enum { CFI_ONE_SEARCHER = 1 << 16 };

static inline uint64_t cfi_idle_pack(uint64_t word, uint32_t searching, uint32_t top)
{
    return ((word >> 32) + 1) << 32 | searching << 16 | top;
}

#endif
