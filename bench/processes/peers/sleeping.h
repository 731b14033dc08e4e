/* SPDX-License-Identifier: MIT */
/* To wait for a word in shared memory that one process alone changes, and to change it.
 *
 * The sleeper says which value it sleeps on, and who changes the word leaves a sleeper on the value that
 * it has just written alone: with a mere flag it could take back the announcement of the *next* sleep,
 * find nobody to wake yet, and the sleeper would sleep on. */
#ifndef BENCH_PEERS_SLEEPING_H
#define BENCH_PEERS_SLEEPING_H

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct word {
    _Alignas(128) atomic_uint value;
    _Alignas(128) _Atomic uint64_t sleeper; /* 2^32 + the value that it sleeps on; 0: nobody */
};

static inline void word_sleep(struct word *word, unsigned old)
{
    syscall(SYS_futex, &word->value, FUTEX_WAIT, old, NULL, NULL, 0);
}

static inline void word_wake(struct word *word)
{
    syscall(SYS_futex, &word->value, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Now and then a spinner hands over its core: who was just woken may be waiting for that very one. */
static inline void word_pause(int turn)
{
    if (turn % 32 == 31)
        sched_yield();
    else
        __builtin_ia32_pause();
}

/* Waits until the word is no longer `old`, at first without sleeping; returns what it is. */
static inline unsigned word_await(struct word *word, unsigned old, int spins)
{
    unsigned value;
    for (int i = 0; i < spins; i++) {
        if ((value = atomic_load_explicit(&word->value, memory_order_acquire)) != old)
            return value;
        word_pause(i);
    }
    for (;;) {
        atomic_store(&word->sleeper, UINT64_C(1) << 32 | old);
        if ((value = atomic_load(&word->value)) != old)
            break;
        word_sleep(word, old);
    }
    atomic_store(&word->sleeper, 0);
    return value;
}

static inline void word_set(struct word *word, unsigned value)
{
    atomic_store(&word->value, value);
    uint64_t sleeper = atomic_load(&word->sleeper);
    if (sleeper != 0 && (unsigned)sleeper != value &&
        atomic_compare_exchange_strong(&word->sleeper, &sleeper, 0))
        word_wake(word);
}

#endif
