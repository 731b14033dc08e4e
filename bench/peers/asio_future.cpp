/* SPDX-License-Identifier: MIT */
/* Boost.Asio's thread_pool with use_future: a std::future for each task. */
#include "peer.h"

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <future>
#include <memory>

namespace
{

using future = std::future<int>;

std::unique_ptr<boost::asio::thread_pool> pool;

const char *version()
{
    return "Boost " BOOST_LIB_VERSION;
}

void open_pool()
{
    pool = std::make_unique<boost::asio::thread_pool>(run.workers);
}

void close_pool()
{
    pool->join();
    pool.reset();
}

void submit(void *cell, int arg)
{
    auto task = [arg] { return bench_task(arg); };
    new (cell) future(boost::asio::post(*pool, boost::asio::use_future(task)));
}

void drop(void *cell)
{
    static_cast<future *>(cell)->~future();
}

long collect(void *cells, long n)
{
    auto *futures = static_cast<future *>(cells);
    long sum = 0;
    for (long i = 0; i < n; i++) {
        sum += futures[i].get();
        futures[i].~future();
    }
    return sum;
}

} // namespace

extern "C" const struct peer peer = {
    .name = "asio-future",
    .version = version,
    .cell_size = sizeof(future),
    .open = open_pool,
    .close = close_pool,
    .submit = submit,
    .collect = collect,
    .drop = drop,
    .fib = bench_fib,
};
