/* SPDX-License-Identifier: MIT */
/* Results for pools that have none: a task writes its slot and counts its batch down; the last one
 * wakes the producer.  This is what a program around such a pool would do. */
#ifndef BENCH_SLOTS_H
#define BENCH_SLOTS_H

#ifdef __cplusplus
extern "C" {
#endif

struct slot {
    int arg;
    int result;
    struct batch *batch;
};

void slots_expect(long n);                  /* this thread's next batch                         */
void slot_fill(struct slot *slot, int arg); /* before the pool gets it                           */
void slot_run(struct slot *slot);           /* in the pool: the task, and the count             */
long slots_collect(void *slots, long n);    /* waits for the batch                               */
long slots_sum(const void *slots, long n);
int slots_fib(int n); /* a batch of one for every call                    */

#ifdef __cplusplus
}
#endif
#endif
