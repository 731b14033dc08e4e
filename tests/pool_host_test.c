/* SPDX-License-Identifier: MIT */
/* Threads that a host makes, and the hooks around sleeps. */
#define _GNU_SOURCE
#include "pool_support.h"

#include <errno.h>

/* ---- a host ---- */

enum { MAX_THREADS = 8 };

static struct {
    pthread_t threads[MAX_THREADS];
    unsigned count;   /* made so far */
    int error;        /* for the numbers from `refused` on */
    unsigned refused; /* MAX_THREADS: none */
    atomic_int refusals;
    struct level entered, returned;
    struct gate start; /* passed by who starts number 1, if it is armed */
    bool armed;
    const cf_wait_hooks *hooks; /* of each worker */
} host;

static void *lend_thread(void *worker)
{
    CHECK(pthread_setname_np(pthread_self(), "lent") == 0);
    (void)cf_set_wait_hooks(host.hooks);
    level_raise(&host.entered);
    cf_worker_run(worker);
    (void)cf_set_wait_hooks(NULL);
    level_raise(&host.returned);
    return NULL;
}

/* Called by one thread at a time, since workers start one after the other. */
static int start_lent(void *data, cf_worker *worker, unsigned number)
{
    CHECK(data == &host);
    if (host.armed && number > 0) {
        const struct gate *gate = &host.start;
        (void)wait_before_gate(&gate, NULL);
    }
    if (number >= host.refused) {
        atomic_fetch_add(&host.refusals, 1);
        return host.error;
    }
    CHECK(number == host.count && number < MAX_THREADS);
    host.count++;
    return pthread_create(&host.threads[number], NULL, lend_thread, worker);
}

static const cf_host lending = { .size = sizeof lending,
                                 .data = &host,
                                 .start_thread = start_lent };

static int set_up(void **state)
{
    (void)state;
    host.count = 0;
    host.refused = MAX_THREADS;
    host.armed = false;
    host.hooks = NULL;
    atomic_store(&host.refusals, 0);
    level_set(&host.entered, 0);
    level_set(&host.returned, 0);
    gate_close(&host.start);
    return 0;
}

static void end_hosted(cf_executor *pool)
{
    end_pool(pool);
    for (unsigned i = 0; i < host.count; i++)
        join_thread(host.threads[i]);
    assert_int_equal(level_now(&host.returned), host.count);
    assert_checks();
}

static cf_executor *hosted(unsigned max_workers)
{
    return pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = max_workers, .host = &lending));
}

static int check_is_lent(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    char name[16] = "";
    CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0);
    CHECK(strcmp(name, "lent") == 0);
    return 0;
}

static void test_the_host_makes_the_threads(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    cf_executor *pool = hosted(3);
    assert_int_equal(level_now(&host.entered), 0);
    for (int i = 0; i < 3; i++) {
        cf_future_unref(occupied(pool, &gate));
        assert_int_equal(level_now(&host.entered), i + 1);
    }
    gate_open(&gate);
    for (int i = 0; i < 100; i++)
        cf_future_unref(submitted(pool, check_is_lent, NULL, 0, 0));
    end_hosted(pool);
    assert_int_equal(host.count, 3);
}

static const cf_host on_request = {
    .size = sizeof on_request, .data = &host, .start_thread = start_lent, .on_request = true
};

static void test_threads_on_request(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 3, .host = &on_request));
    cf_future_unref(occupied(pool, &gate));
    for (unsigned i = 2; i <= 3; i++) {
        cf_future *f = submitted(pool, check_is_lent, NULL, 0, 0);
        assert_int_equal(host.count, i - 1); /* it alone starts none */
        assert_int_equal(cf_thread_pool_start_worker(pool), CF_OK);
        assert_int_equal(level_now(&host.entered), i);
        assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_OK);
        cf_future_unref(f);
        cf_future_unref(occupied(pool, &gate));
    }
    assert_int_equal(cf_thread_pool_start_worker(pool), CF_FULL);
    gate_open(&gate);
    end_hosted(pool);
}

static void test_a_request_that_fails(void **state)
{
    (void)state;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .host = &on_request));
    assert_int_equal(cf_thread_pool_start_worker(pool), CF_OK); /* the first comes with a task */
    assert_int_equal(host.count, 0);
    host.refused = 1;
    host.error = EMFILE;
    for (int i = 0; i < 2; i++) {
        cf_future *f = submitted(pool, check_is_lent, NULL, 0, 0);
        assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_OK);
        cf_future_unref(f);
        assert_int_equal(cf_thread_pool_start_worker(pool), CF_SYSTEM); /* each asks the host */
        assert_int_equal(cf_last_error()->code, EMFILE);
    }
    assert_int_equal(atomic_load(&host.refusals), 2);
    end_hosted(pool);
    pool = hosted(1);
    assert_int_equal(cf_thread_pool_start_worker(pool), CF_INVALID);
    assert_int_equal(cf_thread_pool_start_worker(NULL), CF_INVALID);
    end_pool(pool);
}

static int set_name_back(void *data)
{
    level_raise(data);
    return check_is_lent(NULL, NULL);
}

static void note_end(void *data)
{
    level_raise(data);
    (void)check_is_lent(NULL, NULL);
}

static void test_lent_threads_are_initialized_and_finalized(void **state)
{
    (void)state;
    static struct level calls = LEVEL_INIT;
    cf_executor *pool = pool_with(
        CF_THREAD_POOL_OPTIONS(.max_workers = 1, .host = &lending, .initializer = set_name_back,
                               .finalizer = note_end, .initializer_data = &calls));
    assert_ends(submitted(pool, check_is_lent, NULL, 0, 0), CF_OK);
    assert_int_equal(level_now(&calls), 1);
    end_hosted(pool);
    assert_int_equal(level_now(&calls), 2);
}

static void free_in_callback(cf_future *f, void *data)
{
    (void)f;
    (void)cf_executor_free(data);
}

/* The pool goes on a thread that is not its own. */
static void test_free_on_a_lent_thread(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    for (int i = 0; i < 50; i++) {
        (void)set_up(NULL);
        gate_close(&gate);
        cf_executor *pool = hosted(2);
        cf_future *f = occupied(pool, &gate);
        assert_int_equal(cf_future_add_done_callback(f, free_in_callback, pool), CF_OK);
        cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0));
        gate_open(&gate);
        assert_ends(f, CF_OK);
        assert_true(level_reaches(&host.returned, 1));
        for (unsigned k = 0; k < host.count; k++)
            join_thread(host.threads[k]);
    }
}

/* ---- a host that refuses ---- */

static int count_run(const void *arg, void *result)
{
    (void)result;
    atomic_fetch_add(*(atomic_int *const *)arg, 1);
    return 0;
}

static void test_no_thread_at_all(void **state)
{
    (void)state;
    atomic_int runs = 0, *arg = &runs;
    cf_executor *pool = hosted(2);
    cf_future *f = NULL;
    host.refused = 0;
    host.error = EAGAIN;
    errno = 0;
    assert_int_equal(cf_submit(pool, count_run, &arg, sizeof arg, 0, &f), CF_SYSTEM);
    assert_null(f);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(cf_last_error()->code, EAGAIN);
    assert_true(strlen(cf_last_error()->message) > 0);
    host.refused = MAX_THREADS;
    while (cf_submit(pool, count_run, &arg, sizeof arg, 0, &f) == CF_SYSTEM)
        sched_yield(); /* it does not ask again at once */
    assert_non_null(f);
    assert_ends(f, CF_OK);
    end_hosted(pool);
    assert_int_equal(atomic_load(&runs), 1); /* what was refused did not run */
}

static void test_a_pool_that_got_no_thread_ends(void **state)
{
    (void)state;
    host.refused = 0;
    host.error = EPERM;
    cf_executor *pool = hosted(2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cf_submit(pool, do_nothing, NULL, 0, 0, NULL), CF_SYSTEM);
        assert_int_equal(cf_last_error()->code, EPERM);
    }
    end_hosted(pool);
}

static void test_fewer_threads_do_it_too(void **state)
{
    (void)state;
    host.refused = 1;
    host.error = EAGAIN;
    cf_executor *pool = hosted(4);
    cf_future *f[200];
    for (int i = 0; i < 200; i++)
        f[i] = submitted(pool, do_nothing, NULL, 0, 0);
    for (int i = 0; i < 200; i++)
        assert_ends(f[i], CF_OK);
    end_hosted(pool);
    assert_int_equal(host.count, 1);
}

static void *submit_one(void *pool)
{
    cf_status s = cf_submit(pool, do_nothing, NULL, 0, 0, NULL);
    CHECK(s == CF_OK || s == CF_SHUTDOWN);
    return NULL;
}

static void *shut_down(void *pool)
{
    CHECK(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT) == CF_OK);
    return NULL;
}

static bool is_asleep(int tid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *file = fopen(path, "r");
    bool read = file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
    if (file)
        fclose(file);
    return read && state == 'S';
}

static atomic_int sleeper;

static void *shut_down_noted(void *pool)
{
    atomic_store(&sleeper, gettid());
    return shut_down(pool);
}

/* A second thread is on its way when the first worker ends, and then is refused: the shutdown must
 * hear that nobody is left. */
static void test_a_start_fails_in_a_shutdown(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    gate_close(&gate);
    atomic_store(&sleeper, 0);
    host.refused = 1;
    host.error = EAGAIN;
    host.armed = true;
    cf_executor *pool = hosted(2);
    cf_future *busy = occupied(pool, &gate);
    pthread_t submitter = start_thread(submit_one, pool);
    assert_true(level_reaches(&host.start.came, 1)); /* it is in start_lent */
    pthread_t ender = start_thread(shut_down_noted, pool);
    WAIT_UNTIL(atomic_load(&sleeper) != 0 && is_asleep(atomic_load(&sleeper)));
    gate_open(&gate);
    assert_true(level_reaches(&host.returned, 1));
    gate_open(&host.start);
    join_thread(submitter);
    join_thread(ender);
    assert_ends(busy, CF_OK);
    end_hosted(pool);
}

/* ---- hooks ---- */

static struct {
    atomic_int before, after, signalled;
    atomic_bool veto;
    struct level asleep;
} hooked;

static void count_before(void *data)
{
    CHECK(data == &hooked);
    CHECK(atomic_fetch_add(&hooked.before, 1) >= atomic_load(&hooked.after));
    level_raise(&hooked.asleep);
}

static bool count_after(void *data, bool signalled)
{
    CHECK(data == &hooked);
    atomic_fetch_add(&hooked.after, 1);
    if (signalled)
        atomic_fetch_add(&hooked.signalled, 1);
    return !atomic_load(&hooked.veto);
}

static const cf_wait_hooks counting = {
    .size = sizeof counting, .data = &hooked, .before = count_before, .after = count_after
};

static int set_up_hooks(void **state)
{
    atomic_store(&hooked.before, 0);
    atomic_store(&hooked.after, 0);
    atomic_store(&hooked.signalled, 0);
    atomic_store(&hooked.veto, false);
    level_set(&hooked.asleep, 0);
    return set_up(state);
}

static void ignore_signal(int number)
{
    (void)number;
}

static int catch_signal(void **state)
{
    (void)state;
    struct sigaction action = { .sa_handler = ignore_signal };
    return sigaction(SIGUSR1, &action, NULL);
}

static void test_an_idle_worker_sleeps_between_hooks(void **state)
{
    (void)state;
    host.hooks = &counting;
    cf_executor *pool = hosted(1);
    for (int i = 1; i <= 20; i++) {
        assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
        assert_true(level_reaches(&hooked.asleep, i)); /* it has gone to sleep since */
    }
    end_hosted(pool);
    assert_int_equal(atomic_load(&hooked.before), atomic_load(&hooked.after));
}

/* Signals that reach an idle worker, and a hook that says no to each: that ends waits, no workers. */
static void test_a_veto_does_not_end_a_worker(void **state)
{
    (void)state;
    host.hooks = &counting;
    atomic_store(&hooked.veto, true);
    cf_executor *pool = hosted(1);
    for (int i = 0; i < 20; i++) {
        assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
        int signalled = atomic_load(&hooked.signalled);
        while (atomic_load(&hooked.signalled) < signalled + 3) {
            assert_int_equal(pthread_kill(host.threads[0], SIGUSR1), 0);
            sched_yield();
        }
    }
    end_hosted(pool);
}

/* A thread that sleeps in one of the ways, and what that then returns. */
enum way { RESULT, WAIT, AS_COMPLETED, SUBMIT, SHUTDOWN, WAYS };

static struct {
    enum way way;
    cf_executor *pool;
    cf_future *busy;
    cf_status status;
    struct level returned;
} sleep_in;

static cf_status sleep_in_one_way(void)
{
    cf_completed *completed = NULL;
    size_t index;
    cf_status s;
    switch (sleep_in.way) {
    case RESULT:
        return cf_future_result(sleep_in.busy, LIMIT, NULL, 0);
    case WAIT:
        return cf_wait(&sleep_in.busy, 1, CF_ALL_COMPLETED, LIMIT, NULL);
    case AS_COMPLETED:
        s = cf_as_completed(&sleep_in.busy, 1, LIMIT, &completed);
        CHECK(s == CF_OK);
        s = cf_completed_next(completed, &index);
        cf_completed_free(completed);
        return s;
    case SUBMIT:
        return cf_submit(sleep_in.pool, do_nothing, NULL, 0, 0, NULL);
    default:
        return cf_executor_shutdown(sleep_in.pool, CF_FINISH_PENDING, LIMIT);
    }
}

static void *sleep_between_hooks(void *data)
{
    CHECK(cf_set_wait_hooks(&counting) == NULL);
    sleep_in.status = sleep_in_one_way();
    CHECK(sleep_in.status != CF_INTERRUPTED || cf_last_error()->status == CF_INTERRUPTED);
    CHECK(cf_set_wait_hooks(NULL) == &counting);
    level_raise(&sleep_in.returned);
    return data;
}

/* Signals the sleeper until it returns, or so often. */
static void disturb(pthread_t thread, bool veto)
{
    atomic_store(&hooked.veto, veto);
    if (veto) {
        while (level_now(&sleep_in.returned) == 0) {
            assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
            sched_yield();
        }
    } else {
        while (atomic_load(&hooked.signalled) < 3) {
            assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
            sched_yield();
        }
    }
}

static cf_status disturbed(enum way way, bool veto)
{
    static struct gate gate = GATE_INIT;
    (void)set_up_hooks(NULL);
    gate_close(&gate);
    level_set(&sleep_in.returned, 0);
    sleep_in.way = way;
    sleep_in.pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = 1));
    sleep_in.busy = occupied(sleep_in.pool, &gate);
    cf_future *queued = submitted(sleep_in.pool, do_nothing, NULL, 0, 0);
    pthread_t thread = start_thread(sleep_between_hooks, NULL);
    assert_true(level_reaches(&hooked.asleep, 1));
    disturb(thread, veto);
    gate_open(&gate);
    join_thread(thread);
    assert_int_equal(atomic_load(&hooked.before), atomic_load(&hooked.after));
    assert_ends(sleep_in.busy, CF_OK);
    assert_ends(queued, CF_OK);
    end_pool(sleep_in.pool);
    return sleep_in.status;
}

static void test_signals_do_not_end_a_wait(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++)
        assert_int_equal(disturbed((enum way)way, false), CF_OK);
}

static void test_a_veto_ends_each_wait(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++)
        assert_int_equal(disturbed((enum way)way, true), CF_INTERRUPTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_host_makes_the_threads, set_up),
        cmocka_unit_test_setup(test_lent_threads_are_initialized_and_finalized, set_up),
        cmocka_unit_test_setup(test_threads_on_request, set_up),
        cmocka_unit_test_setup(test_a_request_that_fails, set_up),
        cmocka_unit_test_setup(test_free_on_a_lent_thread, set_up),
        cmocka_unit_test_setup(test_no_thread_at_all, set_up),
        cmocka_unit_test_setup(test_a_pool_that_got_no_thread_ends, set_up),
        cmocka_unit_test_setup(test_fewer_threads_do_it_too, set_up),
        cmocka_unit_test_setup(test_a_start_fails_in_a_shutdown, set_up),
        cmocka_unit_test_setup(test_an_idle_worker_sleeps_between_hooks, set_up_hooks),
        cmocka_unit_test_setup(test_a_veto_does_not_end_a_worker, set_up_hooks),
        cmocka_unit_test(test_signals_do_not_end_a_wait),
        cmocka_unit_test(test_a_veto_ends_each_wait),
    };
    return cmocka_run_group_tests(tests, catch_signal, NULL);
}
