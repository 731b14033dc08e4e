/* SPDX-License-Identifier: MIT */
/* oneTBB's task_group: no results, and the producer runs tasks while it waits, so that
 * submit-and-wait need not leave its thread. */
#include "peer.h"
#include "slots.h"
#include "tbb_arena.h"

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_group.h>

namespace
{

thread_local tbb::task_group *group;
void (*producer_body)(int producer);

void run_with_group(int producer)
{
    arena->execute([producer] {
        tbb::task_group own;
        group = &own;
        producer_body(producer);
        own.wait();
    });
}

void produce(void (*body)(int producer))
{
    producer_body = body;
    bench_threads(run_with_group);
}

void submit(void *cell, int arg)
{
    auto *slot = static_cast<struct slot *>(cell);
    group->run([slot, arg] { slot->result = bench_task(arg); });
}

long collect(void *cells, long n)
{
    group->wait();
    return slots_sum(cells, n);
}

int fib(int n)
{
    if (n < 2)
        return n;
    int first = 0;
    tbb::task_group own;
    own.run([&first, n] { first = fib(n - 1); });
    int second = fib(n - 2);
    own.wait();
    return first + second;
}

void range(bench_range *fn, const int *in, int *out, long n)
{
    arena->execute([=] {
        tbb::parallel_for(tbb::blocked_range<size_t>(0, static_cast<size_t>(n)),
                          [=](const tbb::blocked_range<size_t> &part) {
                              fn(in, part.begin(), part.end(), out + part.begin());
                          });
    });
}

} // namespace

extern "C" const struct peer peer = {
    .name = "tbb",
    .version = tbb_version,
    .cell_size = sizeof(struct slot),
    .open = open_arena,
    .close = close_arena,
    .produce = produce,
    .submit = submit,
    .collect = collect,
    .fib = fib,
    .range = range,
};
