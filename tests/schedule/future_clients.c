/* SPDX-License-Identifier: MIT */
/* Clients of one future: promises, so that no pool is in the way and the state spaces stay small.
 */
#include "scheduler.h"

#include <cfutures/provider.h>

static cf_future *f;
static int told;      /* how often the callback ran */
static int destroyed; /* how often a result was destroyed */
static bool cancelled[2], settled[2];
static cf_status seen[2];
static int value[2];

static void new_future(void (*destroy)(void *))
{
    CHECK(cf_future_new(sizeof(int), destroy, &f) == CF_OK);
}

static void set_to(int number, int v)
{
    settled[number] = cf_future_set_result(f, &v) == CF_OK;
}

static void on_done(cf_future *future, void *data)
{
    CHECK(cf_future_done(future));
    ++*(int *)data;
}

static void count_destroyed(void *result)
{
    CHECK(*(int *)result == 7);
    destroyed++;
}

/* ---- cancel against run against result ---- */

static void run_it(void)
{
    settled[0] = cf_future_start(f);
    if (settled[0])
        CHECK(cf_future_set_result(f, &(int){ 7 }) == CF_OK);
}

static void cancel_0(void)
{
    cancelled[0] = cf_future_cancel(f);
}
static void cancel_1(void)
{
    cancelled[1] = cf_future_cancel(f);
}

static void cancel_run_result(void)
{
    new_future(NULL);
    spawn(run_it);
    spawn(cancel_0);
    cf_status s = CF_RESULT(f, CF_FOREVER, &value[0]);
    join_spawned();
    CHECK(settled[0] != cancelled[0]);
    CHECK(s == (settled[0] ? CF_OK : CF_CANCELLED));
    CHECK(s != CF_OK || value[0] == 7);
    CHECK(cf_future_cancelled(f) == cancelled[0]);
    f = cf_future_unref(f);
}

/* ---- two cancels against run ---- */

static void cancel_cancel_run(void)
{
    new_future(NULL);
    CHECK(cf_future_add_done_callback(f, on_done, &told) == CF_OK);
    spawn(cancel_0);
    spawn(cancel_1);
    run_it();
    join_spawned();
    CHECK(cancelled[0] == cancelled[1] && cancelled[0] != settled[0]);
    CHECK(told == 1);
    f = cf_future_unref(f);
}

/* ---- settle against a wait that may time out ---- */

static void set_7(void)
{
    set_to(0, 7);
}
static void set_8(void)
{
    set_to(1, 8);
}

static void wait_shortly(void)
{
    seen[1] = CF_RESULT(f, CF_MS(1), &value[1]);
    CHECK(seen[1] == CF_TIMEOUT || (seen[1] == CF_OK && value[1] == 7));
}

static void settle_timeout(void)
{
    new_future(NULL);
    spawn(set_7);
    spawn(wait_shortly);
    CHECK(CF_RESULT(f, CF_FOREVER, &value[0]) == CF_OK && value[0] == 7);
    join_spawned();
    f = cf_future_unref(f);
}

/* ---- settle against add_done_callback ---- */

static void add_callback(void)
{
    CHECK(cf_future_add_done_callback(f, on_done, &told) == CF_OK);
}

static void settle_callback(void)
{
    new_future(NULL);
    spawn(set_7);
    spawn(add_callback);
    add_callback();
    join_spawned();
    CHECK(told == 2);
    f = cf_future_unref(f);
}

/* ---- references ---- */

static void drop(void)
{
    cf_future_unref(f);
}

static void set_7_and_drop(void)
{
    set_to(0, 7);
    cf_future_unref(f);
}

static void unref_settle(void)
{
    new_future(count_destroyed);
    CHECK(cf_future_add_done_callback(f, on_done, &told) == CF_OK);
    cf_future_ref(f);
    cf_future_ref(f);
    spawn(set_7_and_drop);
    spawn(drop);
    drop();
    join_spawned();
    CHECK(settled[0] && destroyed == 1 && told == 1);
}

/* Nobody settles: who lets go last cancels, so that the callback hears of an end. */
static void unref_unref(void)
{
    new_future(NULL);
    CHECK(cf_future_add_done_callback(f, on_done, &told) == CF_OK);
    cf_future_ref(f);
    spawn(drop);
    drop();
    join_spawned();
    CHECK(told == 1);
}

/* ---- taking ---- */

static void take_0(void)
{
    seen[0] = CF_TAKE(f, CF_FOREVER, &value[0]);
}
static void take_1(void)
{
    seen[1] = CF_TAKE(f, CF_FOREVER, &value[1]);
}

static void take_take_settle(void)
{
    new_future(count_destroyed);
    spawn(take_0);
    spawn(take_1);
    set_to(0, 7);
    join_spawned();
    CHECK((seen[0] == CF_OK) != (seen[1] == CF_OK));
    CHECK(value[seen[0] == CF_OK ? 0 : 1] == 7);
    CHECK(seen[seen[0] == CF_OK ? 1 : 0] == CF_INVALID);
    f = cf_future_unref(f);
    CHECK(destroyed == 0);
}

static void take_result(void)
{
    new_future(count_destroyed);
    set_to(0, 7);
    spawn(take_0);
    spawn(take_1);
    int copy = 0;
    cf_status s = CF_RESULT(f, 0, &copy);
    CHECK((s == CF_OK && copy == 7) || s == CF_INVALID);
    join_spawned();
    CHECK((seen[0] == CF_OK) != (seen[1] == CF_OK));
    CHECK(CF_RESULT(f, 0, &copy) == CF_INVALID);
    f = cf_future_unref(f);
    CHECK(destroyed == 0);
}

/* ---- promises ---- */

static void set_set_cancel(void)
{
    new_future(NULL);
    CHECK(cf_future_add_done_callback(f, on_done, &told) == CF_OK);
    spawn(set_7);
    spawn(set_8);
    cancel_0();
    join_spawned();
    CHECK(settled[0] + settled[1] + cancelled[0] == 1);
    int v = 0;
    cf_status s = CF_RESULT(f, 0, &v);
    CHECK(s == (cancelled[0] ? CF_CANCELLED : CF_OK));
    CHECK(cancelled[0] || v == (settled[0] ? 7 : 8));
    CHECK(told == 1);
    f = cf_future_unref(f);
}

static void warm_up(void)
{
    cf_future *any;
    CHECK(cf_future_new(0, NULL, &any) == CF_OK);
    cf_future_unref(any);
}

int main(int argc, char **argv)
{
    static const struct client clients[] = {
        { "cancel_run_result", cancel_run_result, 4 },
        { "cancel_cancel_run", cancel_cancel_run, 9 },
        { "settle_timeout", settle_timeout, 4 },
        { "settle_callback", settle_callback, 5 },
        { "unref_settle", unref_settle, 6 },
        { "unref_unref", unref_unref, 9 },
        { "take_take_settle", take_take_settle, 4 },
        { "take_result", take_result, 9 },
        { "set_set_cancel", set_set_cancel, 9 },
    };
    return schedule_main(clients, sizeof clients / sizeof *clients, warm_up, argc, argv);
}
