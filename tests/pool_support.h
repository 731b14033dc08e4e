/* SPDX-License-Identifier: MIT */
/* What the tests of pools share: making and ending them with a limit, levels that threads wait for,
 * gates that keep a worker busy, and limits for races. */
#ifndef TESTS_POOL_SUPPORT_H
#define TESTS_POOL_SUPPORT_H

#include "support.h"

#include <cfutures/provider.h>
#include <dirent.h>
#include <time.h>

#include "base/clock.h"

/* What has not happened after so long never will. */
enum { LIMIT_SECONDS = 20 };
#define LIMIT CF_SECONDS(LIMIT_SECONDS)

/* ---- levels: a number that rises, and those who wait until it is high enough ---- */

struct level {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int height;
};
#define LEVEL_INIT                                                                                 \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                                     \
    }

static inline void level_set(struct level *level, int height)
{
    pthread_mutex_lock(&level->mutex);
    level->height = height;
    pthread_cond_broadcast(&level->changed);
    pthread_mutex_unlock(&level->mutex);
}

static inline void level_raise(struct level *level)
{
    pthread_mutex_lock(&level->mutex);
    level->height++;
    pthread_cond_broadcast(&level->changed);
    pthread_mutex_unlock(&level->mutex);
}

/* false: it did not come so far. */
static inline bool level_reaches(struct level *level, int height)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += LIMIT_SECONDS;
    int error = 0;
    pthread_mutex_lock(&level->mutex);
    while (level->height < height && error == 0)
        error = pthread_cond_timedwait(&level->changed, &level->mutex, &end);
    bool reached = level->height >= height;
    pthread_mutex_unlock(&level->mutex);
    return reached;
}

static inline int level_now(struct level *level)
{
    pthread_mutex_lock(&level->mutex);
    int height = level->height;
    pthread_mutex_unlock(&level->mutex);
    return height;
}

/* ---- tasks ---- */

static inline int do_nothing(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    return 0;
}

/* A gate: tasks that wait before it keep their workers busy until it is opened. */
struct gate {
    struct level came, opened;
};
#define GATE_INIT                                                                                  \
    {                                                                                              \
        LEVEL_INIT, LEVEL_INIT                                                                     \
    }

static inline void gate_close(struct gate *gate)
{
    level_set(&gate->came, 0);
    level_set(&gate->opened, 0);
}

static inline void gate_open(struct gate *gate)
{
    level_set(&gate->opened, 1);
}

static inline int wait_before_gate(const void *arg, void *result)
{
    (void)result;
    struct gate *gate = *(struct gate *const *)arg;
    level_raise(&gate->came);
    CHECK(level_reaches(&gate->opened, 1));
    return 0;
}

/* ---- pools ---- */

static inline cf_executor *pool_with(const cf_thread_pool_options *options)
{
    cf_executor *pool = NULL;
    assert_int_equal(cf_thread_pool_new(options, &pool), CF_OK);
    assert_non_null(pool);
    return pool;
}

static inline cf_executor *pool_of(unsigned max_workers)
{
    return pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = max_workers));
}

/* Ends a pool; one that cannot end fails the test instead of stopping it. */
static inline void end_pool(cf_executor *pool)
{
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    cf_executor_free(pool);
    assert_checks();
}

static inline cf_future *submitted(cf_executor *executor, cf_fn *fn, const void *arg,
                                   size_t arg_size, size_t result_size)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit(executor, fn, arg, arg_size, result_size, &f), CF_OK);
    assert_non_null(f);
    return f;
}

/* A task whose argument is a pointer. */
static inline cf_future *submitted_with(cf_executor *executor, cf_fn *fn, const void *pointer)
{
    return submitted(executor, fn, &pointer, sizeof pointer, 0);
}

/* Keeps one more worker busy, and returns when it is. */
static inline cf_future *occupied(cf_executor *pool, struct gate *gate)
{
    int before = level_now(&gate->came);
    cf_future *f = submitted_with(pool, wait_before_gate, gate);
    assert_true(level_reaches(&gate->came, before + 1));
    return f;
}

static inline void assert_ends(cf_future *f, cf_status status)
{
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), status);
    cf_future_unref(f);
}

/* ---- races ---- */

/* Short races are run again and again for so long. */
#define RACE_TIME CF_SECONDS(1)

static inline bool is_time_left(int64_t begun)
{
    return cfi_now() - begun < RACE_TIME;
}

/* ---- the process ---- */

static inline unsigned entries_of(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    unsigned count = 0;
    for (struct dirent *e; (e = readdir(dir));)
        count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* Threads of this process whose names begin so. */
static inline unsigned threads_called(const char *prefix)
{
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    unsigned count = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
        FILE *file = fopen(path, "r");
        count +=
            file && fgets(name, sizeof name, file) && strncmp(name, prefix, strlen(prefix)) == 0;
        if (file)
            fclose(file);
    }
    closedir(dir);
    return count;
}

/* A thread that was joined, or ends by itself, may be seen a moment longer. */
static inline void assert_threads(const char *prefix, unsigned count)
{
    int64_t begun = cfi_now();
    unsigned there = threads_called(prefix);
    while (there != count && cfi_now() - begun < LIMIT) {
        sched_yield();
        there = threads_called(prefix);
    }
    assert_int_equal(there, count);
}

#endif
