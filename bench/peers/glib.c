/* SPDX-License-Identifier: MIT */
/* GLib's GThreadPool: one function a pool, no results. */
#include "measure.h"
#include "peer.h"
#include "slots.h"

#include <glib.h>

static GThreadPool *pool;

static const char *version(void)
{
    return "GLib " G_STRINGIFY(GLIB_MAJOR_VERSION) "." G_STRINGIFY(
        GLIB_MINOR_VERSION) "." G_STRINGIFY(GLIB_MICRO_VERSION);
}

static void run_slot(gpointer data, gpointer unused)
{
    (void)unused;
    slot_run(data);
}

static void open_pool(void)
{
    pool = g_thread_pool_new(run_slot, NULL, run.workers, TRUE, NULL);
    if (pool == NULL)
        bench_die("no pool");
}

static void close_pool(void)
{
    g_thread_pool_free(pool, FALSE, TRUE);
}

static void submit(void *cell, int arg)
{
    slot_fill(cell, arg);
    g_thread_pool_push(pool, cell, NULL);
}

const struct peer peer = {
    .name = "glib",
    .version = version,
    .cell_size = sizeof(struct slot),
    .open = open_pool,
    .close = close_pool,
    .expect = slots_expect,
    .submit = submit,
    .collect = slots_collect,
    .fib = slots_fib,
};
