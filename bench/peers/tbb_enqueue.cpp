/* SPDX-License-Identifier: MIT */
/* oneTBB's task_arena::enqueue: no results, and another thread runs the task. */
#include "peer.h"
#include "slots.h"
#include "tbb_arena.h"

namespace
{

void submit(void *cell, int arg)
{
    auto *slot = static_cast<struct slot *>(cell);
    slot_fill(slot, arg);
    arena->enqueue([slot] { slot_run(slot); });
}

} // namespace

extern "C" const struct peer peer = {
    .name = "tbb-enqueue",
    .version = tbb_version,
    .cell_size = sizeof(struct slot),
    .open = open_arena,
    .close = close_arena,
    .expect = slots_expect,
    .submit = submit,
    .collect = slots_collect,
    .fib = slots_fib,
};
