/* SPDX-License-Identifier: MIT */
/* What every measurement needs: clocks, memory, a median, work of a known size, and a watch that
 * turns a pool that has stopped for ever into a result. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "run.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int64_t bench_now(void);           /* nanoseconds                                       */
int64_t bench_resident(void);      /* bytes of this process in memory                   */
int64_t bench_cpu_of_others(void); /* CPU time of all threads but the calling one       */
int bench_cpu_count(void);         /* that this process may use                         */
double bench_median(double *values, int count); /* sorts them                           */
void bench_steps(long count); /* a chain of dependent steps, 2 ns or so each      */
void bench_spin(int units);   /* a chain of dependent steps, a microsecond or so each */

/* From here on: prints DEADLOCK and exits with 3 once the process has used next to no CPU time for
 * a second, and TOO_SLOW with 4 after `seconds`. */
void bench_watch(int seconds);

#ifdef __cplusplus
}
#endif
#endif
