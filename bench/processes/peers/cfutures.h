/* SPDX-License-Identifier: MIT */
/* What the two files of the cfutures peer share. */
#ifndef BENCH_PROCESSES_CFUTURES_H
#define BENCH_PROCESSES_CFUTURES_H

#include "../pool.h"

#include <cfutures.h>

extern cf_executor *pool; /* between open_pool and close_pool */
void open_pool(void);
void close_pool(void);

int call_task(const void *arg, void *result); /* bench_answer as a cf_fn */
void check(cf_status status);                 /* ends the program unless it is CF_OK */

extern const struct workload cfutures_workloads[];

#endif
