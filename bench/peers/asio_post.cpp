/* SPDX-License-Identifier: MIT */
/* Boost.Asio's thread_pool and post: no results. */
#include "peer.h"
#include "slots.h"

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>

namespace
{

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
    auto *slot = static_cast<struct slot *>(cell);
    slot_fill(slot, arg);
    boost::asio::post(*pool, [slot] { slot_run(slot); });
}

} // namespace

extern "C" const struct peer peer = {
    .name = "asio-post",
    .version = version,
    .cell_size = sizeof(struct slot),
    .open = open_pool,
    .close = close_pool,
    .expect = slots_expect,
    .submit = submit,
    .collect = slots_collect,
    .fib = slots_fib,
};
