/* SPDX-License-Identifier: MIT */
/* Clients that wait for two futures at once, while two threads settle them. */
#include "scheduler.h"

#include <cfutures/provider.h>

static cf_future *futures[2];
static int destroyed;

static void count_destroyed(void *result)
{
    (void)result;
    destroyed++;
}

static void new_futures(void)
{
    for (int i = 0; i < 2; i++)
        CHECK(cf_future_new(sizeof(int), count_destroyed, &futures[i]) == CF_OK);
}

static void free_futures(void)
{
    join_spawned();
    cf_future_unref_all(futures, 2);
    CHECK(destroyed == 2);
}

static void set(int i)
{
    CHECK(cf_future_set_result(futures[i], &(int){ i }) == CF_OK);
}
static void set_0(void)
{
    set(0);
}
static void set_1(void)
{
    set(1);
}

static void fail_1(void)
{
    const cf_error error = { .size = sizeof error, .status = CF_FAILED, .message = "on purpose" };
    CHECK(cf_future_set_exception(futures[1], &error) == CF_OK);
}

static size_t wait_for(cf_return_when rule, int64_t timeout_ns, cf_status *ret)
{
    size_t done = 0;
    *ret = cf_wait(futures, 2, rule, timeout_ns, &done);
    CHECK(*ret == CF_OK || (*ret == CF_TIMEOUT && timeout_ns != CF_FOREVER));
    return done;
}

/* ---- cf_wait ---- */

static void wait_first(void)
{
    cf_status s;
    new_futures();
    spawn(set_0);
    spawn(set_1);
    CHECK(wait_for(CF_FIRST_COMPLETED, CF_FOREVER, &s) >= 1);
    free_futures();
}

static void wait_all(void)
{
    cf_status s;
    new_futures();
    spawn(set_0);
    spawn(set_1);
    CHECK(wait_for(CF_ALL_COMPLETED, CF_FOREVER, &s) == 2);
    free_futures();
}

static void wait_exception(void)
{
    cf_status s;
    new_futures();
    destroyed = 1; /* a failure has no result */
    spawn(set_0);
    spawn(fail_1);
    CHECK(wait_for(CF_FIRST_EXCEPTION, CF_FOREVER, &s) >= 1);
    CHECK(cf_future_exception(futures[1]));
    free_futures();
}

/* The time may be up at any moment; then the wait's own memory must be out of reach. */
static void wait_timeout(void)
{
    cf_status s;
    new_futures();
    spawn(set_0);
    spawn(set_1);
    size_t done = wait_for(CF_ALL_COMPLETED, CF_MS(1), &s);
    CHECK(s != CF_OK || done == 2);
    free_futures();
}

/* Two threads wait for the same futures by different rules. */
static void wait_for_one(void)
{
    cf_status s;
    CHECK(wait_for(CF_FIRST_COMPLETED, CF_FOREVER, &s) >= 1);
}

static void wait_wait(void)
{
    cf_status s;
    new_futures();
    spawn(wait_for_one);
    spawn(set_0);
    set_1();
    CHECK(wait_for(CF_ALL_COMPLETED, CF_FOREVER, &s) == 2);
    free_futures();
}

/* ---- cf_as_completed ---- */

static void completed_next(void)
{
    cf_completed *completed;
    size_t first = 9, second = 9, none = 9;
    new_futures();
    spawn(set_0);
    spawn(set_1);
    CHECK(cf_as_completed(futures, 2, CF_FOREVER, &completed) == CF_OK);
    CHECK(cf_completed_next(completed, &first) == CF_OK && cf_future_done(futures[first]));
    CHECK(cf_completed_next(completed, &second) == CF_OK && first + second == 1);
    CHECK(cf_completed_next(completed, &none) == CF_END && none == 9);
    cf_completed_free(completed);
    free_futures();
}

static void completed_free(void)
{
    cf_completed *completed;
    new_futures();
    spawn(set_0);
    spawn(set_1);
    CHECK(cf_as_completed(futures, 2, CF_FOREVER, &completed) == CF_OK);
    cf_completed_free(completed);
    free_futures();
}

static void completed_timeout(void)
{
    cf_completed *completed;
    size_t index = 9;
    new_futures();
    spawn(set_0);
    spawn(set_1);
    CHECK(cf_as_completed(futures, 2, CF_MS(1), &completed) == CF_OK);
    cf_status s = cf_completed_next(completed, &index);
    CHECK((s == CF_OK && index < 2) || (s == CF_TIMEOUT && index == 9));
    cf_completed_free(completed);
    free_futures();
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
        { "wait_first", wait_first, 3 },         { "wait_all", wait_all, 3 },
        { "wait_exception", wait_exception, 3 }, { "wait_timeout", wait_timeout, 3 },
        { "wait_wait", wait_wait, 3 },           { "completed_next", completed_next, 3 },
        { "completed_free", completed_free, 3 }, { "completed_timeout", completed_timeout, 3 },
    };
    return schedule_main(clients, sizeof clients / sizeof *clients, warm_up, argc, argv);
}
