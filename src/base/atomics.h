/* SPDX-License-Identifier: MIT */
/* Atomic operations whose names carry their memory order, so that one search lists every use (the
 * idea is mimalloc's).  An operation without an order in its name does not exist here.
 *
 * With CFI_SCHEDULE each operation first reports to a scheduler that decides which thread goes on:
 * so a test can run every interleaving of a small program (tests/schedule). */
#ifndef CFI_BASE_ATOMICS_H
#define CFI_BASE_ATOMICS_H

#include "compiler.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint32_t cfi_u32;
typedef _Atomic uint64_t cfi_u64;
typedef _Atomic int64_t cfi_i64;
typedef _Atomic size_t cfi_size;
typedef _Atomic bool cfi_bool;
#define CFI_ATOMIC(type) _Atomic(type)

#ifdef CFI_SCHEDULE
void cfi_schedule_point(const volatile void *address);
#define CFI_POINT(p) cfi_schedule_point(p)
#else
#define CFI_POINT(p) ((void)0)
#endif

#define cfi_init(p, v)          atomic_init(p, v) /* before anybody else can see it */

#define cfi_load_relaxed(p)     (CFI_POINT(p), atomic_load_explicit(p, memory_order_relaxed))
#define cfi_load_acquire(p)     (CFI_POINT(p), atomic_load_explicit(p, memory_order_acquire))
#define cfi_load_seq_cst(p)     (CFI_POINT(p), atomic_load_explicit(p, memory_order_seq_cst))
#define cfi_store_relaxed(p, v) (CFI_POINT(p), atomic_store_explicit(p, v, memory_order_relaxed))
#define cfi_store_release(p, v) (CFI_POINT(p), atomic_store_explicit(p, v, memory_order_release))
#define cfi_store_seq_cst(p, v) (CFI_POINT(p), atomic_store_explicit(p, v, memory_order_seq_cst))

#define cfi_exchange_acquire(p, v)                                                                 \
    (CFI_POINT(p), atomic_exchange_explicit(p, v, memory_order_acquire))
#define cfi_exchange_release(p, v)                                                                 \
    (CFI_POINT(p), atomic_exchange_explicit(p, v, memory_order_release))
#define cfi_exchange_acq_rel(p, v)                                                                 \
    (CFI_POINT(p), atomic_exchange_explicit(p, v, memory_order_acq_rel))
#define cfi_exchange_seq_cst(p, v)                                                                 \
    (CFI_POINT(p), atomic_exchange_explicit(p, v, memory_order_seq_cst))

#define cfi_add_relaxed(p, v) (CFI_POINT(p), atomic_fetch_add_explicit(p, v, memory_order_relaxed))
#define cfi_add_acq_rel(p, v) (CFI_POINT(p), atomic_fetch_add_explicit(p, v, memory_order_acq_rel))
#define cfi_add_seq_cst(p, v) (CFI_POINT(p), atomic_fetch_add_explicit(p, v, memory_order_seq_cst))
#define cfi_sub_acq_rel(p, v) (CFI_POINT(p), atomic_fetch_sub_explicit(p, v, memory_order_acq_rel))
#define cfi_sub_seq_cst(p, v) (CFI_POINT(p), atomic_fetch_sub_explicit(p, v, memory_order_seq_cst))
#define cfi_or_acq_rel(p, v)  (CFI_POINT(p), atomic_fetch_or_explicit(p, v, memory_order_acq_rel))

/* Compare-and-swap, never failing spuriously; on failure *expected is what was found. */
#define cfi_cas_acquire(p, expected, desired)                                                      \
    (CFI_POINT(p), atomic_compare_exchange_strong_explicit(                                        \
                       p, expected, desired, memory_order_acquire, memory_order_relaxed))
#define cfi_cas_acq_rel(p, expected, desired)                                                      \
    (CFI_POINT(p), atomic_compare_exchange_strong_explicit(                                        \
                       p, expected, desired, memory_order_acq_rel, memory_order_acquire))
#define cfi_cas_seq_cst(p, expected, desired)                                                      \
    (CFI_POINT(p), atomic_compare_exchange_strong_explicit(                                        \
                       p, expected, desired, memory_order_seq_cst, memory_order_seq_cst))

/* ThreadSanitizer does not model fences; there the fence is an operation on a word that it can see.
 */
static inline void cfi_fence_seq_cst(void)
{
#ifdef CFI_TSAN
    static cfi_u32 word;
    (void)atomic_fetch_add_explicit(&word, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* After a locked operation: on x86 that already was a full fence, elsewhere not. */
static inline void cfi_fence_after_rmw(void)
{
#if defined(__x86_64__) || defined(__i386__)
    atomic_signal_fence(memory_order_seq_cst);
#else
    cfi_fence_seq_cst();
#endif
}

/* One turn of a spin loop.  Under the explorer it hands over, or a spinning thread would spin for
 * ever. */
static inline void cfi_pause(void)
{
#if defined(CFI_SCHEDULE)
    void cfi_schedule_yield(void);
    cfi_schedule_yield();
#elif defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static inline void cfi_yield(void)
{
#if !defined(CFI_SCHEDULE)
    (void)sched_yield();
#else
    cfi_pause();
#endif
}

/* Turn number `turn` of a spin for somebody else: whom this thread has just woken may be waiting for
 * this very CPU. */
static inline void cfi_pause_for_another(int turn)
{
    if (turn % 32 == 31)
        cfi_yield();
    else
        cfi_pause();
}

#define CFI_CACHE_LINE 64

#endif
