/* SPDX-License-Identifier: MIT */
/* An arena with as many workers as were asked for, beside the producers' own places in it. */
#ifndef BENCH_TBB_ARENA_H
#define BENCH_TBB_ARENA_H

#include "peer.h"

#include <memory>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/version.h>

static std::unique_ptr<tbb::global_control> limit;
static std::unique_ptr<tbb::task_arena> arena;

static const char *tbb_version()
{
    return "oneTBB " TBB_VERSION_STRING;
}

static void open_arena()
{
    int threads = run.workers + (run.caller_works ? 0 : run.producers);
    limit = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism,
                                                  static_cast<size_t>(threads));
    arena = std::make_unique<tbb::task_arena>(threads, static_cast<unsigned>(run.producers));
    arena->initialize();
}

static void close_arena()
{
    arena.reset();
    limit.reset();
}

#endif
