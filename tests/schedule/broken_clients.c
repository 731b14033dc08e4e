/* SPDX-License-Identifier: MIT */
/* Clients that are wrong on purpose, one for each thing that the explorer is there to find. */
#include "scheduler.h"

#include "base/clock.h"
#include "base/futex.h"
#include "base/lock.h"

#include <stdlib.h>

static cfi_u32 word;
static struct cfi_lock locks[2];
static cfi_u32 *block;

static void increment(void)
{
    uint32_t before = cfi_load_relaxed(&word);
    cfi_store_relaxed(&word, before + 1);
}

static void lost_update(void)
{
    spawn(increment);
    increment();
    join_spawned();
    CHECK(cfi_load_relaxed(&word) == 2);
}

/* The waker looks whether somebody sleeps, the sleeper announces itself too late. */
static cfi_u32 sleeper;

static void wake_if_asleep(void)
{
    cfi_store_seq_cst(&word, 1);
    if (cfi_load_seq_cst(&sleeper))
        cfi_futex_wake(&sleeper, 1);
}

static void lost_wakeup(void)
{
    spawn(wake_if_asleep);
    if (cfi_load_seq_cst(&word) == 0) {
        cfi_store_seq_cst(&sleeper, 1);
        (void)cfi_futex_wait(&sleeper, 1, CFI_NEVER);
    }
    join_spawned();
}

static void lock_both(int first)
{
    cfi_lock(&locks[first]);
    cfi_lock(&locks[1 - first]);
    cfi_unlock(&locks[1 - first]);
    cfi_unlock(&locks[first]);
}

static void lock_10(void)
{
    lock_both(1);
}

static void lock_order(void)
{
    spawn(lock_10);
    lock_both(0);
    join_spawned();
}

static void raise_block(void)
{
    cfi_store_seq_cst(block, 1);
}

static void use_after_free(void)
{
    block = calloc(1, sizeof *block);
    spawn(raise_block);
    if (cfi_load_seq_cst(block))
        join_spawned();
    free(block);
}

static void free_block(void)
{
    free(cfi_load_seq_cst(&word) ? NULL : block);
}

static void double_free(void)
{
    block = calloc(1, sizeof *block);
    spawn(free_block);
    free_block();
    join_spawned();
}

static void leak(void)
{
    block = calloc(1, sizeof *block);
    spawn(increment);
    if (cfi_load_relaxed(&word) == 0)
        free(block);
    join_spawned();
}

static void no_end(void)
{
    spawn(increment);
    while (cfi_load_relaxed(&word) != 2)
        cfi_pause();
    join_spawned();
}

int main(int argc, char **argv)
{
    static const struct client clients[] = {
        { "lost_update", lost_update, 2 }, { "lost_wakeup", lost_wakeup, 2 },
        { "lock_order", lock_order, 2 },   { "use_after_free", use_after_free, 2 },
        { "double_free", double_free, 2 }, { "leak", leak, 2 },
        { "no_end", no_end, 2 },
    };
    return schedule_main(clients, sizeof clients / sizeof *clients, NULL, argc, argv);
}
