/* SPDX-License-Identifier: MIT */
/* A peer is one pool behind the same few calls.  Each program is this harness and one file that
 * fills in `peer`; the harness has the workloads, so that all peers are asked the same.
 *
 * A task is an int that goes in and an int that comes out: bench_task(arg).  The caller keeps a
 * cell for each: a future's handle where the pool has futures, else a slot that the result is
 * written to. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include "run.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_CELL_MAX 192 /* cell_size may not exceed it */

typedef int bench_fn(int arg);
extern bench_fn *bench_task; /* the function of all tasks of this run */

typedef int bench_element(const void *arg, void *result);
typedef int bench_range(const void *context, size_t begin, size_t end, void *results);

struct workload {
    const char *name;
    void (*go)(void);
    int producers;
    bool caller_works;
};

struct peer {
    const char *name;
    const char *(*version)(void);
    size_t cell_size;
    size_t request_size; /* the part of a cell that the pool itself keeps in the caller's memory */

    void (*open)(void); /* as `run` says */
    void (*close)(void);
    /* Calls body(0) ... body(producers - 1) on threads that may submit.  NULL: any thread may. */
    void (*produce)(void (*body)(int producer));

    void (*expect)(long n); /* NULL, or: this thread's next n submits are one batch */
    void (*submit)(void *cell, int arg);
    long (*collect)(void *cells,
                    long n);  /* waits for them, gives back their sum; cells are free again */
    void (*drop)(void *cell); /* lets a future go unread; NULL: there are no futures */
    bench_fn *fib;            /* a task for every call; NULL: a task cannot submit */

    /* NULL: the harness cuts the loop into four tasks a worker. */
    void (*range)(bench_range *fn, const int *in, int *out, long n);
    void (*map)(bench_element *fn, const int *in, int *out, long n); /* NULL: by range */

    const struct workload *own; /* what only this peer can do, ended by an empty one; may be NULL */
};
extern const struct peer peer;

void bench_produce(void (*body)(int producer)); /* peer.produce, or plain threads */
void bench_threads(void (*body)(int producer));
void bench_expect(long n);
int bench_fib(int n); /* for pools whose collect may be called in a task for one cell alone */

/* Skewed work, serial, parallel and serial again; `parallel` returns its nanoseconds. */
int bench_skewed(int arg);
void bench_against_ideal(int64_t (*parallel)(void));

#ifdef __cplusplus
}
#endif
#endif
