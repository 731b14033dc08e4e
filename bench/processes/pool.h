/* SPDX-License-Identifier: MIT */
/* A peer is one way to have tasks run in other processes, behind the same few calls.  Each program is
 * this harness and one file that fills in `peer`.
 *
 * A task is 64 bytes that go in and 64 that come out: bench_answer.  The caller keeps a cell for
 * each: a future's handle, or what a peer needs instead of one. */
#ifndef BENCH_POOL_H
#define BENCH_POOL_H

#include "measure.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct message {
    int64_t number; /* the answer has twice of it                   */
    int64_t steps;  /* of work; or one of the negative ones below    */
    int32_t worker; /* BENCH_WHO is answered with these two          */
    int32_t parent;
    char rest[40];
};

enum {
    BENCH_WHO = -1,   /* who runs this?                                                 */
    BENCH_SEND = -2,  /* number bytes follow: read them all (for peers that need a word) */
    BENCH_FETCH = -3, /* make number bytes                                               */
    BENCH_QUIT = -4
};

/* What the worker does, in every peer. */
void bench_answer(const struct message *arg, struct message *result);
/* One byte of each line, added up; and bytes to be read so. */
uint64_t bench_read(const void *data, size_t size);
void bench_fill(void *data, size_t size);

struct workload {
    const char *name;
    void (*go)(void);
};
extern const struct workload bench_workloads[]; /* ended by an empty one */
extern long bench_parameter;                    /* what follows the colon in P4:10 ... */
extern long bench_second_parameter;             /* ... and the slash in P5:1000/100    */

struct peer {
    const char *name;
    const char *(*version)(void);
    void (*first)(void); /* NULL, or: first in main           */
    void (*begin)(void); /* NULL, or: when `run` is known     */
    void (*open)(void);  /* run.workers of them               */
    void (*close)(void);
    size_t cell_size;
    bool one_at_a_time; /* never more than one task         */
    bool replaces;      /* a worker that was killed          */
    void (*submit)(void *cell, const struct message *arg);
    void (*collect)(void *cell, struct message *result); /* waits; the cell is free again */
    /* Both wait.  NULL: nobody would do that so. */
    uint64_t (*send)(const void *data, size_t size); /* a task that reads all of it, and its sum */
    uint64_t (*fetch)(size_t size); /* a task that fills `size` bytes; reads them, lets them go */
    const struct workload *own;     /* what only this peer can do; may be NULL */
};
extern const struct peer peer;

/* Tasks that take so many microseconds or so, or one in 64 a thousand times as long. */
int64_t bench_steps_of(long i, long us, bool mixed);
/* Nanoseconds that as many processes as can run together take for the same work, split evenly
 * beforehand.  Call it before the pool is opened or after it was closed. */
double bench_ideal(long n, long us, bool mixed);
/* Prints a time beside that ideal. */
void bench_print_beside(double took, double ideal);

#endif
