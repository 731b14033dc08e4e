/* SPDX-License-Identifier: MIT */
/* What the kernel says about processes: what they did, and how much memory is free. */
#ifndef BENCH_PROC_H
#define BENCH_PROC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct activity {
    int64_t cpu_ns;
    long switches; /* voluntary: each one is a wake-up later */
    int processes, threads;
};

void bench_watch_process(pid_t pid); /* may be said again; this process is watched anyhow */
/* Of all that are watched since they began, without the calling thread. */
struct activity bench_activity(void);

size_t bench_available_memory(void); /* bytes */

#endif
