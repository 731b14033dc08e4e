/* SPDX-License-Identifier: MIT */
/* Everything at once, from a seed: pools of processes are made with options at hazard, threads submit,
 * wait, cancel, stop, map and shut down, tasks crash in all ways, workers and their fork servers are killed
 * and stopped from outside.  What must hold meanwhile:
 *
 *   each future ends once, in a way that fits what its task does;
 *   a task that succeeded has run, one that was cancelled has not, none ran more often than allowed;
 *   nothing hangs; no descriptor, child or thread is left.
 *
 * usage: chaos [SECONDS [SEED]]    CFUTURES_LONG=1: an hour */
#define _GNU_SOURCE
#include "process_support.h"

enum { TASKS = 150, THREADS = 3, RETRIES = 2 };

/* ---- chance ---- */

static uint64_t next_of(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static unsigned below(uint64_t *state, unsigned limit)
{
    return (unsigned)((next_of(state) >> 16) % limit);
}

static uint64_t round_seed;

static void broke(const char *what, int line)
{
    fprintf(stderr, "chaos.c:%d: %s (%s: %s)\nthe round's seed: %llu\n", line, what,
            cf_status_name(cf_last_error()->status), cf_last_error()->message,
            (unsigned long long)round_seed);
    fflush(stderr);
    abort();
}

static void tell_hang(int number)
{
    (void)number;
    broke("nothing goes on", __LINE__);
}

#define MUST(condition) ((condition) ? (void)0 : broke(#condition, __LINE__))

/* ---- tasks ---- */

enum deed { SUCCEED, FAIL, DIE, SPIN, SLEEP, LISTEN, DEAF };

struct order {
    int number;
    enum deed deed;
    enum way way;
    unsigned microseconds;
    size_t back;
};

static int ran_cell(int number)
{
    return FREE_CELLS + number;
}

static void spend(unsigned microseconds)
{
    for (int64_t end = cfi_now() + (int64_t)microseconds * 1000; cfi_now() < end;)
        ;
}

static void run_on(const struct order *order)
{
    if (order->deed == DEAF)
        signal(SIGTERM, SIG_IGN);
    while (order->deed != LISTEN || !cf_stop_requested()) {
        if (order->deed == SLEEP || order->deed == LISTEN)
            usleep(200);
    }
}

static int obey(const void *arg, size_t arg_size, cf_bytes *result)
{
    const struct order *order = arg;
    for (size_t i = sizeof *order; i < arg_size; i++) {
        if (((const unsigned char *)arg)[i] != (unsigned char)(i + (size_t)order->number))
            return cf_raise(99, "the argument is damaged at %zu", i);
    }
    cell_raise(ran_cell(order->number));
    spend(order->microseconds);
    if (order->deed == DIE)
        die(order->way);
    if (order->deed == FAIL)
        return cf_raise(3, "as ordered");
    if (order->deed != SUCCEED)
        run_on(order);
    if (cf_bytes_resize(result, order->back) != CF_OK)
        return cf_raise(98, "%s", cf_last_error()->message);
    if (order->back)
        memset(result->data, order->number, order->back);
    return 0;
}

/* ---- a round ---- */

struct play {
    cf_executor *pool;
    struct order orders[TASKS];
    _Atomic(cf_future *) futures[TASKS];
    atomic_int called[TASKS];
    atomic_bool stopped[TASKS];
    atomic_bool ending; /* the main thread has begun to shut down */
    unsigned max_retries;
    cf_shutdown_mode mode;
    uint64_t seeds[THREADS + 1];
};

struct actor {
    struct play *play;
    int index;
};

static void count_call(cf_future *f, void *data)
{
    MUST(cf_future_done(f));
    atomic_fetch_add((atomic_int *)data, 1);
}

static struct order any_order(uint64_t *state, int number)
{
    static const size_t backs[] = { 0, 10, 96, 97, 5000, 65536, 65537, 300000, 1500000 };
    static const enum deed deeds[] = { FAIL, DIE, DIE, DIE, DIE, SPIN, SPIN, SLEEP, LISTEN, DEAF };
    struct order order = { .number = number,
                           .deed = below(state, 8) ? SUCCEED : deeds[below(state, COUNT_OF(deeds))],
                           .way = (enum way)below(state, WAYS),
                           .microseconds = below(state, 3) ? 0 : below(state, 3000),
                           .back = backs[below(state, 3) ? 1 : below(state, COUNT_OF(backs))] };
    return order;
}

static bool runs_on(enum deed deed)
{
    return deed == SPIN || deed == SLEEP || deed == LISTEN || deed == DEAF;
}

static void submit_one(struct play *play, uint64_t *state, int number)
{
    static const size_t sizes[] = { 0, 20, 100, 9000, 70000, 400000 };
    size_t size = sizeof(struct order) + sizes[below(state, 4) ? 0 : below(state, COUNT_OF(sizes))];
    unsigned char *arg = malloc(size);
    cf_future *f = NULL;
    MUST(arg != NULL);
    struct order *order = &play->orders[number];
    *order = any_order(state, number);
    for (size_t i = 0; i < size; i++)
        arg[i] = (unsigned char)(i + (size_t)number);
    memcpy(arg, order, sizeof *order);
    cf_task task = { .size = sizeof task, .bytes_fn = obey, .arg = arg, .arg_size = size };
    if (runs_on(order->deed))
        task.run_limit_ns = CF_MS(1 + below(state, 40));
    if (below(state, 8) == 0)
        task.priority = (int64_t)below(state, 5) - 2;
    cf_status status = cf_submit_task(play->pool, &task, &f);
    free(arg);
    if (status != CF_OK) {
        MUST(status == CF_SHUTDOWN || status == CF_BROKEN || status == CF_FULL);
        MUST(!f);
        return;
    }
    if (below(state, 3))
        MUST(cf_future_add_done_callback(f, count_call, &play->called[number]) == CF_OK);
    else
        atomic_store(&play->called[number], -1);
    atomic_store(&play->futures[number], f);
}

/* ---- what threads do to futures ---- */

static void kill_some(uint64_t *state)
{
    static const int signals[] = { SIGKILL, SIGKILL, SIGTERM, SIGSEGV, SIGSTOP };
    int pid = cell_now(WORKER), signal_number = signals[below(state, COUNT_OF(signals))];
    if (pid <= 0 || !is_alive(pid))
        return;
    if (below(state, 20) == 0) {
        char kind = 0;
        int parent = 0;
        if (read_stat(pid, &kind, &parent) && parent > 1 && parent != getpid())
            pid = parent; /* the fork server */
    }
    kill(pid, signal_number);
    if (signal_number == SIGSTOP) {
        usleep(below(state, 5000));
        kill(pid, SIGCONT);
    }
}

static void do_something(struct play *play, uint64_t *state, int most)
{
    int number = (int)below(state, (unsigned)most + 1);
    cf_future *f = atomic_load(&play->futures[number]);
    if (!f)
        return;
    switch (below(state, 12)) {
    case 0:
    case 1:
        (void)cf_future_cancel(f);
        break;
    case 2:
        atomic_store(&play->stopped[number], true);
        (void)cf_future_stop(f, (int64_t)below(state, 5000000));
        break;
    case 3:
        kill_some(state);
        break;
    case 4:
        (void)cf_wait(&f, 1, CF_FIRST_COMPLETED, (int64_t)below(state, 2000000), NULL);
        break;
    case 5:
        (void)cf_future_running(f);
        (void)cf_future_exception(f);
        break;
    case 6:
        usleep(below(state, 2000));
        break;
    default:
        (void)cf_future_peek(f, (int64_t)below(state, 3000000), NULL, NULL);
    }
}

static int tell_worker(const void *arg, void *result)
{
    cell_set(WORKER, (int)getpid());
    return twice(arg, result);
}

static void map_some(struct play *play, uint64_t *state)
{
    int args[50] = { 0 }, results[50];
    unsigned count = 1 + below(state, 50);
    for (unsigned i = 0; i < count; i++)
        args[i] = (int)i;
    cf_status status = CF_MAP(play->pool, tell_worker, args, count, results,
                              below(state, 2) ? CF_FOREVER : (int64_t)below(state, 5000000));
    for (unsigned i = 0; status == CF_OK && i < count; i++)
        MUST(results[i] == 2 * (int)i);
}

static void *act(void *data)
{
    const struct actor *actor = data;
    struct play *play = actor->play;
    uint64_t *state = &play->seeds[actor->index];
    for (int number = actor->index; number < TASKS; number += THREADS) {
        submit_one(play, state, number);
        for (unsigned n = below(state, 3); n > 0; n--)
            do_something(play, state, number);
        if (below(state, 40) == 0)
            map_some(play, state);
    }
    return NULL;
}

/* ---- the end of a round ---- */

/* Killed from outside it may be at any time, so BROKEN is always in order. */
static bool fits(struct play *play, int number, cf_status status)
{
    const struct order *order = &play->orders[number];
    bool may_stop = runs_on(order->deed) || atomic_load(&play->stopped[number]) ||
                    play->mode == CF_STOP_RUNNING;
    switch (status) {
    case CF_OK:
        return order->deed == SUCCEED || order->deed == LISTEN;
    case CF_FAILED:
        return order->deed == FAIL;
    case CF_STOPPED:
        return may_stop;
    case CF_BROKEN:
    case CF_CANCELLED:
        return true;
    default:
        return false;
    }
}

static void check_bytes(cf_future *f, const struct order *order)
{
    const unsigned char *data = NULL;
    size_t size = 0;
    MUST(cf_future_peek(f, 0, (const void **)&data, &size) == CF_OK);
    MUST(size == order->back);
    for (size_t i = 0; i < size; i++)
        MUST(data[i] == (unsigned char)order->number);
}

static void check_one(struct play *play, int number)
{
    cf_future *f = atomic_load(&play->futures[number]);
    int ran = cell_now(ran_cell(number));
    if (!f) {
        MUST(ran == 0);
        return;
    }
    cf_status status = cf_future_result(f, LIMIT, NULL, 0);
    if (!fits(play, number, status)) {
        fprintf(stderr, "task %d, deed %d: ", number, (int)play->orders[number].deed);
        broke("its end does not fit", __LINE__);
    }
    if (status == CF_OK)
        check_bytes(f, &play->orders[number]);
    MUST(status != CF_OK || ran >= 1);
    MUST(status != CF_CANCELLED || ran <= (int)play->max_retries);
    MUST(ran <= 1 + (int)play->max_retries);
    cf_future_unref(f);
}

/* A callback may still be on its way when the future is done; not when the pool has ended. */
static void check_calls(struct play *play)
{
    for (int i = 0; i < TASKS; i++) {
        int called = atomic_load(&play->called[i]);
        MUST(called == (atomic_load(&play->futures[i]) ? (called < 0 ? -1 : 1) : 0));
    }
}

static void end_play(struct play *play)
{
    cf_status status = CF_TIMEOUT;
    uint64_t *state = &play->seeds[THREADS];
    int64_t begun = cfi_now();
    while (status == CF_TIMEOUT && cfi_now() - begun < LIMIT)
        status = cf_executor_shutdown(play->pool, play->mode, (int64_t)below(state, 30000000));
    MUST(status == CF_OK);
    for (int i = 0; i < TASKS; i++)
        MUST(!atomic_load(&play->futures[i]) || cf_future_done(atomic_load(&play->futures[i])));
    cf_executor_free(play->pool);
    check_calls(play);
}

/* ---- rounds ---- */

static int maybe_initialize(void *data)
{
    (void)data;
    cell_set(WORKER, (int)getpid());
    return 0;
}

static cf_executor *any_pool(uint64_t *state, struct play *play)
{
#ifdef CFI_ASAN /* its malloc does not always come through a fork beside threads */
    enum { BY_FORK = CF_START_FORK_SERVER };
#else
    enum { BY_FORK = CF_START_FORK };
#endif
    static const cf_start_method methods[] = { CF_START_FORK_SERVER, CF_START_FORK_SERVER,
                                               (cf_start_method)BY_FORK, CF_START_SPAWN };
    static const cf_shutdown_mode modes[] = { CF_FINISH_PENDING, CF_FINISH_PENDING,
                                              CF_CANCEL_PENDING, CF_STOP_RUNNING };
    cf_executor *pool = NULL;
    play->max_retries = below(state, 2) ? 0 : below(state, RETRIES + 1);
    play->mode = modes[below(state, COUNT_OF(modes))];
    cf_process_pool_options options = {
        .size = sizeof options,
        .max_workers = 1 + below(state, 4),
        .max_pending = below(state, 3) ? 0 : 1 + below(state, 50),
        .when_full = below(state, 2) ? CF_WHEN_FULL_WAIT : CF_WHEN_FULL_REJECT,
        .initializer = below(state, 2) ? maybe_initialize : NULL,
        .start_method = methods[below(state, COUNT_OF(methods))],
        .on_crash = below(state, 8) ? CF_ON_CRASH_REPLACE : CF_ON_CRASH_BREAK,
        .max_tasks_per_child = below(state, 3) ? 0 : 1 + below(state, 30),
        .max_retries = play->max_retries,
        .max_restarts = below(state, 8) ? MOST_RESTARTS : 1 + below(state, 20),
    };
    MUST(cf_process_pool_new(&options, &pool) == CF_OK);
    return pool;
}

static void play_round(uint64_t seed)
{
    static struct play play;
    struct actor actors[THREADS];
    pthread_t threads[THREADS];
    uint64_t state = seed;
    round_seed = seed;
    memset(&play, 0, sizeof play);
    (void)begin_tally(NULL);
    alarm(3 * LIMIT_SECONDS);
    play.pool = any_pool(&state, &play);
    for (int i = 0; i <= THREADS; i++)
        play.seeds[i] = next_of(&state);
    for (int i = 0; i < THREADS; i++) {
        actors[i] = (struct actor){ &play, i };
        MUST(pthread_create(&threads[i], NULL, act, &actors[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    end_play(&play);
    for (int i = 0; i < TASKS; i++)
        check_one(&play, i);
    MUST(check_tally(NULL) == 0);
}

int main(int argc, char **argv)
{
    begin_process_tests();
    int64_t seconds = argc > 1 ? atoll(argv[1]) : 20;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)cfi_now();
    if (is_long_run())
        seconds = 3600;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    adopt_orphans();
    signal(SIGALRM, tell_hang);
    int64_t begun = cfi_now();
    unsigned rounds = 0;
    seed = seed ? seed : 1;
    for (uint64_t state = seed; rounds == 0 || cfi_now() - begun < seconds * 1000000000; rounds++) {
        play_round(state);
        (void)next_of(&state);
    }
    printf("%u rounds\n", rounds);
    return 0;
}
