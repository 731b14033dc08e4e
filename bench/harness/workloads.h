/* SPDX-License-Identifier: MIT */
#ifndef BENCH_WORKLOADS_H
#define BENCH_WORKLOADS_H

#include "peer.h"

extern const struct workload bench_workloads[]; /* ended by an empty one */

#endif
