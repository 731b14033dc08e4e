/* SPDX-License-Identifier: MIT */
#include "slots.h"
#include "measure.h"
#include "peer.h"

#include <semaphore.h>
#include <stdatomic.h>

struct batch {
    atomic_long left;
    sem_t done;
};

static _Thread_local struct batch whole;
static _Thread_local struct batch *current;

static void batch_begin(struct batch *batch, long n)
{
    if (sem_init(&batch->done, 0, 0) != 0)
        bench_die("no semaphore");
    atomic_init(&batch->left, n);
    current = batch;
}

static void batch_wait(struct batch *batch)
{
    while (sem_wait(&batch->done) != 0)
        continue; /* a signal */
}

void slots_expect(long n)
{
    batch_begin(&whole, n);
}

void slot_fill(struct slot *slot, int arg)
{
    slot->arg = arg;
    slot->batch = current;
}

void slot_run(struct slot *slot)
{
    struct batch *batch = slot->batch;
    slot->result = bench_task(slot->arg);
    if (atomic_fetch_sub_explicit(&batch->left, 1, memory_order_acq_rel) == 1)
        sem_post(&batch->done);
}

long slots_sum(const void *slots, long n)
{
    const struct slot *slot = slots;
    long sum = 0;
    for (long i = 0; i < n; i++)
        sum += slot[i].result;
    return sum;
}

long slots_collect(void *slots, long n)
{
    batch_wait(&whole);
    return slots_sum(slots, n);
}

int slots_fib(int n)
{
    if (n < 2)
        return n;
    struct batch mine, *outer = current;
    struct slot slot;
    batch_begin(&mine, 1);
    peer.submit(&slot, n - 1);
    current = outer;
    int rest = slots_fib(n - 2);
    batch_wait(&mine);
    return slot.result + rest;
}
