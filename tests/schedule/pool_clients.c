/* SPDX-License-Identifier: MIT */
/* Clients of a small thread pool: waking, stealing, shutting down. */
#include "scheduler.h"

#include "core/wait.h"

#include <cfutures/provider.h>

static cf_executor *pool;
static int runs[8]; /* how often each task ran */

static int run_task(const void *arg, void *result)
{
    int number = *(const int *)arg;
    runs[number]++;
    *(int *)result = number;
    return 0;
}

static unsigned allowed, born; /* workers */

static int count_worker(void *data)
{
    (void)data;
    CHECK(++born <= allowed);
    return 0;
}

static void new_pool(unsigned workers)
{
    allowed = workers;
    CHECK(cf_thread_pool_new(
              CF_THREAD_POOL_OPTIONS(.max_workers = workers, .initializer = count_worker), &pool) ==
          CF_OK);
}

static cf_status submit(int number, cf_future **ret)
{
    return CF_SUBMIT(pool, run_task, &number, int, ret);
}

static void await(cf_future *f, int number)
{
    int value = -1;
    CHECK(CF_RESULT(f, CF_FOREVER, &value) == CF_OK && value == number && runs[number] == 1);
    cf_future_unref(f);
}

/* ---- a task that keeps a worker busy until it is let go ---- */

static cf_future *begun[2], *gate[2];

static int wait_for_gate(const void *arg, void *result)
{
    (void)result;
    int i = *(const int *)arg;
    CHECK(cf_future_set_result(begun[i], NULL) == CF_OK);
    return cf_future_result(gate[i], CF_FOREVER, NULL, 0) == CF_OK ? 0 : 1;
}

static void occupy_worker(int i)
{
    CHECK(cf_future_new(0, NULL, &begun[i]) == CF_OK && cf_future_new(0, NULL, &gate[i]) == CF_OK);
    CHECK(cf_submit(pool, wait_for_gate, &i, sizeof i, 0, NULL) == CF_OK);
    CHECK(cf_future_result(begun[i], CF_FOREVER, NULL, 0) == CF_OK);
}

static void open_gate(int i)
{
    CHECK(cf_future_set_result(gate[i], NULL) == CF_OK);
}

static void free_gate(int i)
{
    cf_future_unref(begun[i]);
    cf_future_unref(gate[i]);
}

/* ---- submit against a worker that is about to park ---- */

static void submit_park(void)
{
    cf_future *first, *second;
    new_pool(1);
    CHECK(submit(0, &first) == CF_OK);
    CHECK(submit(1, &second) == CF_OK);
    await(first, 0);
    await(second, 1);
    cf_executor_free(pool);
}

/* The same with spinning: the submitter waits a little for a busy worker, the worker for a task. */
static void submit_park_spinning(void)
{
    cfi_spins = 1;
    submit_park();
}

static void submit_1(void)
{
    CHECK(submit(1, NULL) == CF_OK);
}

static void submit_against_submit(unsigned workers)
{
    new_pool(workers);
    spawn(submit_1);
    CHECK(submit(0, NULL) == CF_OK);
    join_spawned();
    cf_executor_free(pool);
    CHECK(runs[0] == 1 && runs[1] == 1);
}

static void submit_submit(void)
{
    submit_against_submit(1);
}
static void submit_submit_2(void)
{
    submit_against_submit(2);
}

/* ---- two tasks that need each other: both workers must get up ---- */

static cf_future *met[2];

static int meet(const void *arg, void *result)
{
    (void)result;
    int me = *(const int *)arg;
    CHECK(cf_future_set_result(met[me], NULL) == CF_OK);
    return cf_future_result(met[1 - me], CF_FOREVER, NULL, 0) == CF_OK ? 0 : 1;
}

static void submit_meet(int i, cf_future **ret)
{
    CHECK(cf_submit(pool, meet, &i, sizeof i, 0, ret) == CF_OK);
}

static void submit_meeting(cf_future **ret)
{
    for (int i = 0; i < 2; i++)
        submit_meet(i, &ret[i]);
}

static void await_meeting(cf_future **tasks)
{
    for (int i = 0; i < 2; i++) {
        CHECK(cf_future_result(tasks[i], CF_FOREVER, NULL, 0) == CF_OK);
        cf_future_unref(tasks[i]);
    }
    cf_future_unref_all(met, 2);
}

static void new_meeting(void)
{
    for (int i = 0; i < 2; i++)
        CHECK(cf_future_new(0, NULL, &met[i]) == CF_OK);
}

static void two_meet(void)
{
    cf_future *tasks[2];
    new_pool(2);
    new_meeting();
    submit_meeting(tasks);
    await_meeting(tasks);
    cf_executor_free(pool);
}

/* Each submitted by a thread of its own, to a pool that has no worker yet. */
static void submit_meet_0(void)
{
    submit_meet(0, NULL);
}

static void two_meet_from_two(void)
{
    cf_future *f;
    new_pool(2);
    new_meeting();
    spawn(submit_meet_0);
    submit_meet(1, &f);
    CHECK(cf_future_result(f, CF_FOREVER, NULL, 0) == CF_OK);
    join_spawned();
    cf_future_unref(f);
    cf_executor_free(pool);
    cf_future_unref_all(met, 2);
}

/* One worker is busy, the other sleeps: the submitter waits for the busy one, but only a little. */
static void wake_sleeper_spinning(void)
{
    cf_future *f;
    new_pool(2);
    occupy_worker(0);
    for (int i = 0; i < 2; i++) {
        cfi_spins = i; /* not before the other sleeps */
        CHECK(submit(i, &f) == CF_OK);
        await(f, i);
    }
    open_gate(0);
    cf_executor_free(pool);
    free_gate(0);
}

/* The same with both in what one worker takes at once: the other must get at the second. */
static void two_meet_in_batch(void)
{
    cf_future *tasks[2];
    new_pool(2);
    new_meeting();
    occupy_worker(0);
    occupy_worker(1);
    CHECK(submit(0, NULL) == CF_OK); /* after this one a worker takes two at a time */
    submit_meeting(tasks);
    for (int i = 1; i < 3; i++)
        CHECK(submit(i, NULL) == CF_OK);
    open_gate(0);
    open_gate(1);
    await_meeting(tasks);
    cf_executor_free(pool);
    CHECK(runs[0] == 1 && runs[1] == 1 && runs[2] == 1);
    free_gate(0);
    free_gate(1);
}

/* ---- stealing against the owner, who waits for its own submits ---- */

static int submit_two_and_wait(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    cf_future *first, *second;
    CHECK(submit(1, &first) == CF_OK);
    CHECK(submit(2, &second) == CF_OK);
    await(second, 2);
    await(first, 1);
    return 0;
}

static void steal_pop(void)
{
    cf_future *f;
    new_pool(2);
    CHECK(cf_submit(pool, submit_two_and_wait, NULL, 0, 0, &f) == CF_OK);
    CHECK(cf_future_result(f, CF_FOREVER, NULL, 0) == CF_OK);
    cf_future_unref(f);
    cf_executor_free(pool);
    CHECK(runs[1] == 1 && runs[2] == 1);
}

/* ---- submit against shutdown ---- */

static cf_future *late;
static cf_status late_status;

static void submit_late(void)
{
    late_status = submit(1, &late);
    CHECK(late_status == CF_OK || late_status == CF_SHUTDOWN);
}

/* What was accepted has ended when shutdown and submit have returned; what was refused never runs.
 */
static void shut_down_against_submit(unsigned workers, cf_shutdown_mode mode)
{
    cf_future *early;
    new_pool(workers);
    CHECK(submit(0, &early) == CF_OK);
    spawn(submit_late);
    CHECK(cf_executor_shutdown(pool, mode, CF_FOREVER) == CF_OK);
    join_spawned();
    CHECK(cf_executor_shutdown(pool, mode, CF_FOREVER) == CF_OK);
    CHECK(cf_future_done(early) && runs[0] == !cf_future_cancelled(early));
    if (late_status == CF_OK) {
        CHECK(cf_future_done(late) && runs[1] == !cf_future_cancelled(late));
        CHECK(mode != CF_FINISH_PENDING || runs[1] == 1);
    } else {
        CHECK(runs[1] == 0);
    }
    cf_future_unref(early);
    cf_future_unref(late);
    cf_executor_free(pool);
}

static void shutdown_submit(void)
{
    shut_down_against_submit(1, CF_FINISH_PENDING);
}
static void shutdown_submit_2(void)
{
    shut_down_against_submit(2, CF_FINISH_PENDING);
}
static void shutdown_cancel(void)
{
    shut_down_against_submit(1, CF_CANCEL_PENDING);
}
static void shutdown_cancel_2(void)
{
    shut_down_against_submit(2, CF_CANCEL_PENDING);
}

/* The late submit finds the only worker busy, so it starts another one while the pool shuts down.
 */
static void shutdown_start(void)
{
    new_pool(2);
    occupy_worker(0);
    spawn(submit_late);
    open_gate(0);
    CHECK(cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER) == CF_OK);
    join_spawned();
    cf_executor_free(pool);
    CHECK(runs[1] == (late_status == CF_OK));
    cf_future_unref(late);
    free_gate(0);
}

/* ---- cancel against a worker ---- */

static cf_future *task;
static bool cancelled;

static void cancel_task(void)
{
    cancelled = cf_future_cancel(task);
}

static void cancel_worker(void)
{
    new_pool(1);
    CHECK(submit(0, &task) == CF_OK);
    spawn(cancel_task);
    int value = -1;
    cf_status s = CF_RESULT(task, CF_FOREVER, &value);
    join_spawned();
    CHECK(s == (cancelled ? CF_CANCELLED : CF_OK));
    CHECK(runs[0] == !cancelled);
    cf_future_unref(task);
    cf_executor_free(pool);
}

/* Nobody keeps a handle: the worker frees the task. */
static void forget_task(void)
{
    new_pool(1);
    CHECK(submit(0, NULL) == CF_OK);
    CHECK(submit(1, NULL) == CF_OK);
    cf_executor_free(pool);
    CHECK(runs[0] == 1 && runs[1] == 1);
}

/* Nobody keeps a handle, but somebody wants to hear of the end. */
static int told;

static void on_done(cf_future *future, void *data)
{
    (void)data;
    CHECK(cf_future_done(future));
    told++;
}

static void forget_watched(void)
{
    cf_future *f;
    new_pool(1);
    CHECK(submit(0, &f) == CF_OK);
    CHECK(cf_future_add_done_callback(f, on_done, NULL) == CF_OK);
    cf_future_unref(f);
    cf_executor_free(pool);
    CHECK(runs[0] == 1 && told == 1);
}

static void warm_up(void)
{
    new_pool(1);
    pool = cf_executor_free(pool);
}

int main(int argc, char **argv)
{
    static const struct client clients[] = {
        { "submit_park", submit_park, 2 },
        { "submit_park_spinning", submit_park_spinning, 3 },
        { "submit_submit", submit_submit, 2 },
        { "submit_submit_2", submit_submit_2, 2 },
        { "two_meet", two_meet, 2 },
        { "wake_sleeper_spinning", wake_sleeper_spinning, 2 },
        { "two_meet_from_two", two_meet_from_two, 2 },
        { "two_meet_in_batch", two_meet_in_batch, 2 },
        { "steal_pop", steal_pop, 2 },
        { "shutdown_submit", shutdown_submit, 3 },
        { "shutdown_submit_2", shutdown_submit_2, 2 },
        { "shutdown_cancel", shutdown_cancel, 2 },
        { "shutdown_cancel_2", shutdown_cancel_2, 2 },
        { "shutdown_start", shutdown_start, 2 },
        { "cancel_worker", cancel_worker, 3 },
        { "forget_task", forget_task, 3 },
        { "forget_watched", forget_watched, 3 },
    };
    return schedule_main(clients, sizeof clients / sizeof *clients, warm_up, argc, argv);
}
