/* SPDX-License-Identifier: MIT */
/* Waiting for one future: time, who wakes it, hooks and signals, what a forked child sees, and the
 * graph that tells a wait that could never end. */
#define _GNU_SOURCE
#include "manual.h"

#include "base/clock.h"
#include "core/executor.h"
#include "core/future.h"
#include "core/wait.h"

static cf_future *new_promise(void)
{
    cf_future *f = NULL;
    CHECK(cf_future_new(sizeof(int), NULL, &f) == CF_OK);
    return f;
}

static cf_status wait_for_result(cf_future *f, int64_t timeout_ns)
{
    int value = 0;
    cf_status s = CF_RESULT(f, timeout_ns, &value);
    CHECK(value == (s == CF_OK ? ANSWER : 0));
    return s;
}

static cf_status wait_to_take(cf_future *f, int64_t timeout_ns)
{
    int value = 0;
    cf_status s = CF_TAKE(f, timeout_ns, &value);
    CHECK(value == (s == CF_OK ? ANSWER : 0));
    return s;
}

static cf_status wait_to_peek(cf_future *f, int64_t timeout_ns)
{
    const void *data = NULL;
    cf_status s = cf_future_peek(f, timeout_ns, &data, NULL);
    CHECK((data != NULL) == (s == CF_OK));
    return s;
}

static cf_status wait_for_set(cf_future *f, int64_t timeout_ns)
{
    return cf_wait(&f, 1, CF_ALL_COMPLETED, timeout_ns, NULL);
}

static cf_status wait_for_iterator(cf_future *f, int64_t timeout_ns)
{
    cf_completed *c = NULL;
    size_t index = 1;
    CHECK(cf_as_completed(&f, 1, timeout_ns, &c) == CF_OK);
    cf_status s = cf_completed_next(c, &index);
    CHECK(index == (s == CF_OK ? 0 : 1));
    cf_completed_free(c);
    return s;
}

/* Every way to wait for one future; the first three read it. */
enum { READS = 3 };
static cf_status (*const waits[])(cf_future *, int64_t) = { wait_for_result, wait_to_take,
                                                            wait_to_peek, wait_for_set,
                                                            wait_for_iterator };

/* ---- time ---- */

static void test_no_time_only_asks(void **unused)
{
    (void)unused;
    static const int64_t none[] = { 0, -1, INT64_MIN };
    cf_future *f = new_promise();
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        for (size_t k = 0; k < COUNT_OF(none); k++) {
            assert_int_equal(waits[i](f, none[k]), CF_TIMEOUT);
            assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
        }
    }
    assert_int_equal(state_of(f), PENDING);
    cf_future_unref(f);
    assert_checks();
}

static void test_time_passes(void **unused)
{
    (void)unused;
    static const int64_t times[] = { 1, 1000, CF_MS(1), CF_MS(20) };
    cf_future *f = new_promise();
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        for (size_t k = 0; k < COUNT_OF(times); k++) {
            int64_t before = cfi_now();
            assert_int_equal(waits[i](f, times[k]), CF_TIMEOUT);
            assert_true(cfi_now() >= before + times[k]);
            assert_int_equal(cf_last_error()->status, CF_TIMEOUT);
            assert_int_not_equal(strlen(cf_last_error()->message), 0);
        }
    }
    cf_future_unref(f);
    assert_checks();
}

static void test_what_is_done_takes_no_time(void **unused)
{
    (void)unused;
    static const int64_t times[] = { INT64_MIN, 0, 1, CF_FOREVER - 1, CF_FOREVER };
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        for (size_t k = 0; k < COUNT_OF(times); k++) {
            cf_future *f = new_promise();
            settle_promise(f, false);
            assert_int_equal(waits[i](f, times[k]), CF_OK);
            cf_future_unref(f);
        }
    }
    assert_checks();
}

/* ---- waking ---- */

struct waiting {
    cf_future *future;
    cf_status (*wait)(cf_future *, int64_t);
    cf_status expected;
    int64_t timeout_ns;
};

static void *wait_on_thread(void *data)
{
    const struct waiting *w = data;
    CHECK(w->wait(w->future, w->timeout_ns) == w->expected);
    return NULL;
}

static void fail_it(cf_future *f)
{
    settle_promise(f, true);
}

static void keep_it(cf_future *f)
{
    settle_promise(f, false);
}

static void cancel_it(cf_future *f)
{
    CHECK(cf_future_cancel(f));
}

static const struct {
    void (*end)(cf_future *);
    cf_status status;
} ends[] = { { keep_it, CF_OK }, { fail_it, CF_FAILED }, { cancel_it, CF_CANCELLED } };

static void await_sleeper(cf_future *f)
{
    WAIT_UNTIL(cfi_load_acquire(&f->word) & (CFI_WAITED | CFI_WATCHED));
}

static void test_every_end_wakes(void **unused)
{
    (void)unused;
    static const int64_t times[] = { CF_FOREVER, CF_FOREVER - 1, CF_SECONDS(50) };
    for (size_t i = 0; i < COUNT_OF(waits) * COUNT_OF(ends) * COUNT_OF(times); i++) {
        size_t end = i % COUNT_OF(ends), wait = i / COUNT_OF(ends) % COUNT_OF(waits);
        struct waiting w = { .future = new_promise(),
                             .wait = waits[wait],
                             .expected = wait < READS ? ends[end].status : CF_OK,
                             .timeout_ns = times[i / COUNT_OF(ends) / COUNT_OF(waits)] };
        pthread_t waiter = start_thread(wait_on_thread, &w);
        await_sleeper(w.future);
        ends[end].end(w.future);
        join_thread(waiter);
        cf_future_unref(w.future);
        assert_checks();
    }
}

static void test_all_who_wait_are_woken(void **unused)
{
    (void)unused;
    for (int round = 0; round < 50; round++) {
        pthread_t threads[6];
        struct waiting w = { .future = new_promise(),
                             .wait = wait_for_result,
                             .expected = CF_OK,
                             .timeout_ns = CF_FOREVER };
        for (size_t i = 0; i < COUNT_OF(threads); i++)
            threads[i] = start_thread(wait_on_thread, &w);
        await_sleeper(w.future);
        settle_promise(w.future, false);
        for (size_t i = 0; i < COUNT_OF(threads); i++)
            join_thread(threads[i]);
        cf_future_unref(w.future);
    }
    assert_checks();
}

/* Neither to begin nor to be asked to stop is an end: the sleeper sleeps on. */
static void test_other_changes_do_not_end_it(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        struct waiting w = {
            .future = new_promise(), .wait = waits[i], .expected = CF_OK, .timeout_ns = CF_FOREVER
        };
        pthread_t waiter = start_thread(wait_on_thread, &w);
        await_sleeper(w.future);
        assert_true(cf_future_start(w.future));
        assert_true(cf_future_stop(w.future, 0));
        cf_future_unref(cf_future_ref(w.future));
        settle_promise(w.future, false);
        join_thread(waiter);
        cf_future_unref(w.future);
    }
    assert_checks();
}

/* ---- races ---- */

static struct {
    cf_future *future;
    int64_t timeout_ns;
    cf_status here, expected;
} shared;

static void new_shared(void *data)
{
    (void)data;
    shared.future = cf_future_ref(new_promise());
}

static void wait_here(void *data)
{
    cf_status (*const *wait)(cf_future *, int64_t) = data;
    shared.here = (*wait)(shared.future, shared.timeout_ns);
    cf_future_unref(shared.future);
}

static void settle_there(void *data)
{
    (void)data;
    settle_promise(shared.future, false);
    cf_future_unref(shared.future);
}

static void it_was_in_time(void *data)
{
    (void)data;
    CHECK(shared.here == CF_OK);
}

static void it_was_in_time_or_not(void *data)
{
    (void)data;
    CHECK(shared.here == CF_OK || shared.here == CF_TIMEOUT);
    shared.timeout_ns = (shared.timeout_ns + 500) % 20000;
}

static void race_with_each_wait(int64_t timeout_ns, void (*finish)(void *), unsigned rounds)
{
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        shared.timeout_ns = timeout_ns;
        struct race race = { .prepare = new_shared,
                             .here = wait_here,
                             .there = settle_there,
                             .finish = finish,
                             .data = (void *)(uintptr_t)&waits[i] };
        run_race(&race, rounds);
    }
}

static void test_wait_against_settle(void **unused)
{
    (void)unused;
    race_with_each_wait(CF_FOREVER, it_was_in_time, 3000);
}

static void test_time_against_settle(void **unused)
{
    (void)unused;
    race_with_each_wait(0, it_was_in_time_or_not, 3000);
}

/* ---- hooks ---- */

static struct {
    unsigned before, after, signalled;
    bool go_on;
    cf_future *settle; /* when the thread is about to sleep */
} heard;

static void hear_before(void *data)
{
    CHECK(data == &heard);
    heard.before++;
    if (heard.settle)
        settle_promise(heard.settle, false);
    heard.settle = NULL;
}

static bool hear_after(void *data, bool signalled)
{
    CHECK(data == &heard);
    heard.after++;
    heard.signalled += signalled;
    CHECK(heard.before == heard.after);
    return heard.go_on;
}

static const cf_wait_hooks both_hooks = {
    .size = sizeof both_hooks, .data = &heard, .before = hear_before, .after = hear_after
};

static int listen_to_waits(void **state)
{
    (void)state;
    memset(&heard, 0, sizeof heard);
    heard.go_on = true;
    return cf_set_wait_hooks(&both_hooks) == NULL ? 0 : -1;
}

static int listen_no_more(void **state)
{
    (void)state;
    return cf_set_wait_hooks(NULL) == &both_hooks ? 0 : -1;
}

static void test_hooks_around_a_sleep(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        heard.before = heard.after = 0;
        cf_future *f = heard.settle = new_promise();
        assert_int_equal(waits[i](f, CF_FOREVER), CF_OK);
        assert_true(heard.before > 0 && heard.before == heard.after);
        assert_int_equal(heard.signalled, 0);
        cf_future_unref(f);
    }
    assert_checks();
}

static void test_hooks_around_one_that_ends_by_time(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        heard.before = heard.after = 0;
        assert_int_equal(waits[i](f, CF_MS(1)), CF_TIMEOUT);
        assert_true(heard.before > 0 && heard.before == heard.after);
    }
    cf_future_unref(f);
    assert_checks();
}

static void test_no_hooks_without_a_sleep(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        cf_future *f = new_promise();
        assert_int_equal(waits[i](f, 0), CF_TIMEOUT);
        settle_promise(f, false);
        assert_int_equal(waits[i](f, CF_FOREVER), CF_OK);
        cf_future_unref(f);
    }
    assert_int_equal(heard.before, 0);
    assert_checks();
}

static void test_a_hook_interrupts(void **unused)
{
    (void)unused;
    heard.go_on = false;
    cf_future *f = new_promise();
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        heard.before = heard.after = 0;
        assert_int_equal(waits[i](f, CF_MS(1)), CF_INTERRUPTED);
        assert_int_equal(cf_last_error()->status, CF_INTERRUPTED);
        assert_int_equal(heard.after, 1);
        assert_int_equal(state_of(f), PENDING);
    }
    cf_future_unref(f);
    assert_checks();
}

static void test_what_is_done_is_not_interrupted(void **unused)
{
    (void)unused;
    heard.go_on = false;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        cf_future *f = heard.settle = new_promise();
        assert_int_equal(waits[i](f, CF_FOREVER), CF_OK);
        cf_future_unref(f);
    }
    assert_checks();
}

static void test_an_interrupted_iteration_goes_on(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    cf_completed *c = NULL;
    size_t index = 1;
    assert_int_equal(cf_as_completed(&f, 1, CF_FOREVER, &c), CF_OK);
    heard.go_on = false;
    heard.settle = f; /* both at once: it is given */
    assert_int_equal(cf_completed_next(c, &index), CF_OK);
    assert_int_equal(index, 0);
    cf_completed_free(c);
    cf_future_unref(f);

    f = new_promise();
    assert_int_equal(cf_as_completed(&f, 1, CF_SECONDS(1) / 100, &c), CF_OK);
    index = 1;
    assert_int_equal(cf_completed_next(c, &index), CF_INTERRUPTED);
    assert_int_equal(index, 1);
    settle_promise(f, false);
    assert_int_equal(cf_completed_next(c, &index), CF_OK);
    assert_int_equal(index, 0);
    cf_completed_free(c);
    cf_future_unref(f);
    assert_checks();
}

static void *look_for_hooks(void *data)
{
    (void)data;
    CHECK(cf_set_wait_hooks(&both_hooks) == NULL);
    CHECK(cf_set_wait_hooks(NULL) == &both_hooks);
    return NULL;
}

static void test_each_thread_has_its_hooks(void **unused)
{
    (void)unused;
    run_on_threads(2, look_for_hooks, NULL);
    assert_checks();
}

/* ---- signals ---- */

static atomic_uint sent;
static atomic_bool is_over;

static void ignore_signal(int number)
{
    (void)number;
}

/* Not as fast as it can: the receiver has to get on in between. */
static void *send_signals(void *receiver)
{
    while (!atomic_load(&is_over)) {
        pthread_kill(*(pthread_t *)receiver, SIGUSR1);
        atomic_fetch_add(&sent, 1);
        for (int i = 0; i < 100; i++)
            sched_yield();
    }
    return NULL;
}

static pthread_t start_signals(pthread_t *self)
{
    struct sigaction action = { .sa_handler = ignore_signal }; /* without SA_RESTART */
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    atomic_store(&is_over, false);
    *self = pthread_self();
    return start_thread(send_signals, self);
}

static void stop_signals(pthread_t sender)
{
    atomic_store(&is_over, true);
    join_thread(sender);
}

static void *settle_after_signals(void *f)
{
    await_sleeper(f);
    unsigned before = atomic_load(&sent);
    WAIT_UNTIL(atomic_load(&sent) > before + 20);
    settle_promise(f, false);
    return NULL;
}

static void test_signals_do_not_end_it(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        pthread_t self, sender = start_signals(&self);
        cf_future *f = new_promise();
        int64_t before = cfi_now();
        cf_status s = waits[i](f, CF_MS(5));
        int64_t after = cfi_now();
        pthread_t settler = start_thread(settle_after_signals, f);
        cf_status t = waits[i](f, CF_FOREVER);
        stop_signals(sender);
        join_thread(settler);
        assert_int_equal(s, CF_TIMEOUT);
        assert_true(after >= before + CF_MS(5));
        assert_int_equal(t, CF_OK);
        cf_future_unref(f);
        assert_checks();
    }
}

static bool stop_if_signalled(void *data, bool signalled)
{
    (void)data;
    heard.signalled += signalled;
    return !signalled;
}

static void test_hooks_hear_of_signals(void **unused)
{
    (void)unused;
    const cf_wait_hooks hooks = { .size = sizeof hooks, .after = stop_if_signalled };
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        cf_future *f = new_promise();
        heard.signalled = 0;
        cf_set_wait_hooks(&hooks);
        pthread_t self, sender = start_signals(&self);
        cf_status s = waits[i](f, CF_FOREVER);
        stop_signals(sender);
        cf_set_wait_hooks(NULL);
        assert_int_equal(s, CF_INTERRUPTED);
        assert_int_equal(heard.signalled, 1);
        cf_future_unref(f);
    }
    assert_checks();
}

/* ---- a forked child ---- */

struct inherited {
    cf_future *settled, *failed, *cancelled, *pending, *running;
    cf_completed *completed;
};

static void read_in_child(void *data)
{
    struct inherited *i = data;
    for (size_t k = 0; k < COUNT_OF(waits); k++) {
        CHECK(waits[k](i->pending, CF_FOREVER) == CF_SHUTDOWN); /* at once */
        CHECK(waits[k](i->running, CF_SECONDS(30)) == CF_SHUTDOWN);
        CHECK(waits[k](i->running, 0) == CF_SHUTDOWN);
        CHECK(cf_last_error()->status == CF_SHUTDOWN);
    }
    CHECK(wait_for_result(i->settled, CF_FOREVER) == CF_OK);
    CHECK(wait_to_peek(i->settled, CF_FOREVER) == CF_OK);
    CHECK(wait_for_result(i->failed, CF_FOREVER) == CF_FAILED);
    CHECK(cf_future_exception(i->failed)->code == FAILURE);
    CHECK(wait_for_result(i->cancelled, CF_FOREVER) == CF_CANCELLED);
    CHECK(wait_for_set(i->settled, CF_FOREVER) == CF_OK);
    CHECK(wait_to_take(i->settled, CF_FOREVER) == CF_OK);
}

static void iterate_in_child(void *data)
{
    struct inherited *i = data;
    size_t index = 9;
    CHECK(cf_completed_next(i->completed, &index) == CF_OK && index == 1); /* it was done */
    CHECK(cf_completed_next(i->completed, &index) == CF_SHUTDOWN);
    cf_completed_free(i->completed);
}

static void make_its_own_in_child(void *data)
{
    (void)data;
    cf_future *f = new_promise();
    CHECK(wait_for_result(f, CF_MS(1)) == CF_TIMEOUT);
    settle_promise(f, false);
    CHECK(wait_for_result(f, CF_FOREVER) == CF_OK);
    cf_future_unref(f);
}

static void settle_in_child(void *data)
{
    struct inherited *i = data;
    settle_promise(i->pending, false);
    CHECK(wait_for_result(i->pending, CF_FOREVER) == CF_OK);
    CHECK(cf_future_cancel(i->cancelled));
    cf_future_unref(i->running);
}

static void fork_again(void *data)
{
    CHECK(in_child(read_in_child, data) == 0);
}

static void test_a_forked_child(void **unused)
{
    (void)unused;
    struct inherited i = { new_promise(), new_promise(), new_promise(),
                           new_promise(), new_promise(), NULL };
    settle_promise(i.settled, false);
    settle_promise(i.failed, true);
    assert_true(cf_future_cancel(i.cancelled));
    assert_true(cf_future_start(i.running));
    cf_future *const both[] = { i.pending, i.settled };
    assert_int_equal(cf_as_completed(both, 2, CF_FOREVER, &i.completed), CF_OK);

    assert_int_equal(in_child(read_in_child, &i), 0);
    assert_int_equal(in_child(iterate_in_child, &i), 0);
    assert_int_equal(in_child(make_its_own_in_child, &i), 0);
    assert_int_equal(in_child(settle_in_child, &i), 0);
    assert_int_equal(in_child(fork_again, &i), 0);

    settle_promise(i.pending, false); /* nothing has changed here */
    assert_int_equal(wait_for_result(i.pending, CF_FOREVER), CF_OK);
    cf_completed_free(i.completed);
    cf_future *all[] = { i.settled, i.failed, i.cancelled, i.pending, i.running };
    cf_future_unref_all(all, COUNT_OF(all));
    assert_checks();
}

/* A fork waits until no thread is inside the engine: the child finds every lock free. */
static atomic_bool stop_using_locks;

static void hear_nothing(struct cfi_watcher *watcher, bool failed)
{
    (void)watcher, (void)failed;
}

static void *watch_until_stopped(void *data)
{
    cf_future **futures = data;
    struct cfi_watcher watcher = { NULL, hear_nothing };
    for (size_t i = 0; !atomic_load(&stop_using_locks); i++) {
        cf_future *f = futures[i % 64];
        CHECK(cfi_future_watch(f, &watcher));
        cfi_future_unwatch(f, &watcher);
    }
    return NULL;
}

static void *use_graph_until_stopped(void *data)
{
    (void)data;
    while (!atomic_load(&stop_using_locks)) {
        cfi_wait_graph_lock();
        cfi_wait_graph_unlock();
    }
    return NULL;
}

static void use_all_locks(void *data)
{
    cf_completed *c = NULL;
    CHECK(cf_as_completed(data, 64, 0, &c) == CF_OK);
    cf_completed_free(c);
    cfi_wait_graph_lock();
    cfi_wait_graph_unlock();
}

static void test_forks_while_threads_are_inside(void **unused)
{
    (void)unused;
#ifdef CFI_ASAN
    skip(); /* its own malloc does not look after forks */
#endif
    cf_future *futures[64];
    for (size_t i = 0; i < COUNT_OF(futures); i++)
        futures[i] = new_promise();
    atomic_store(&stop_using_locks, false);
    pthread_t watcher = start_thread(watch_until_stopped, futures);
    pthread_t walker = start_thread(use_graph_until_stopped, NULL);
    int failed = 0;
    for (int i = 0; i < 100 && failed == 0; i++)
        failed = in_child(use_all_locks, futures);
    atomic_store(&stop_using_locks, true);
    join_thread(watcher);
    join_thread(walker);
    assert_int_equal(failed, 0);
    cf_future_unref_all(futures, COUNT_OF(futures));
    assert_checks();
}

/* ---- the graph ---- */

/* A pool that has no threads: the test says who runs what, and who waits for what. */
static struct {
    cf_executor executor;
    struct cfi_self workers[3];
    unsigned count;
    bool free;
    cf_future *tasks[3]; /* what each runs */
} pool;

static struct cfi_self *runner(void *self, const cf_future *f)
{
    (void)self;
    for (unsigned i = 0; i < pool.count; i++) {
        if (pool.tasks[i] == f)
            return &pool.workers[i];
    }
    return cfi_this.frame && cfi_this.frame->future == f ? &cfi_this : NULL;
}

static bool has_free_worker(void *self)
{
    (void)self;
    return pool.free;
}

static unsigned worker_count(void *self)
{
    (void)self;
    return pool.count;
}

static struct cfi_self *worker(void *self, unsigned number)
{
    (void)self;
    return &pool.workers[number];
}

static bool no_help(void *self, cf_future *awaited)
{
    (void)self, (void)awaited;
    return false;
}

static const struct cfi_pool_ops pool_ops = { .runner = runner,
                                              .has_free_worker = has_free_worker,
                                              .worker_count = worker_count,
                                              .worker = worker };

static void open_pool(unsigned workers, bool has_free)
{
    static const cf_executor_ops ops = { .size = sizeof ops, .help = no_help };
    memset(&pool, 0, sizeof pool);
    cfi_executor_init(&pool.executor, &ops, &pool, &pool_ops, false);
    pool.count = workers;
    pool.free = has_free;
}

static cf_future *make_task(bool running)
{
    static const cf_task task = { .size = sizeof task, .fn = answer };
    cf_future *f = cfi_future_make(CFI_KIND_FN, &task, false, 0);
    assert_non_null(f);
    f->executor = &pool.executor;
    if (running)
        assert_true(cfi_future_claim(f));
    return f;
}

/* What a task of the pool gets that runs here and waits. */
static cf_status wait_as(cf_future *task, cf_future *const *futures, size_t count,
                         cf_return_when rule, int64_t timeout_ns)
{
    struct cfi_frame frame;
    cfi_frame_push(&frame, task);
    cf_status s = count == 1 ? cf_future_result(futures[0], timeout_ns, NULL, 0)
                             : cf_wait(futures, count, rule, timeout_ns, NULL);
    cfi_frame_pop(&frame);
    assert_null(cfi_this.waiting);
    return s;
}

static void end_all(cf_future **futures, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!cf_future_cancel(futures[i]) && !cf_future_done(futures[i]))
            cfi_future_succeed(cf_future_ref(futures[i]));
    }
    cf_future_unref_all(futures, count);
}

static void test_waiting_for_oneself(void **unused)
{
    (void)unused;
    open_pool(0, true);
    cf_future *self = make_task(true);
    assert_int_equal(wait_as(self, &self, 1, CF_ALL_COMPLETED, CF_FOREVER), CF_DEADLOCK);
    assert_int_equal(cf_last_error()->status, CF_DEADLOCK);
    assert_int_equal(wait_as(self, &self, 1, CF_ALL_COMPLETED, CF_SECONDS(30)), CF_DEADLOCK);
    assert_int_equal(wait_as(self, &self, 1, CF_ALL_COMPLETED, 0), CF_TIMEOUT); /* only asks */
    end_all(&self, 1);
}

static void test_waiting_in_a_circle(void **unused)
{
    (void)unused;
    open_pool(3, false);
    cf_future *tasks[] = { make_task(true), make_task(true), make_task(true) };
    struct cfi_wait first = { &tasks[1], 1, false, false }, second = { &tasks[2], 1, false, false };
    pool.tasks[0] = tasks[0], pool.tasks[1] = tasks[1];
    pool.workers[0].waiting = &first; /* 0 waits for 1, 1 for 2: which is us */
    pool.workers[1].waiting = &second;
    assert_int_equal(wait_as(tasks[2], &tasks[0], 1, CF_ALL_COMPLETED, CF_FOREVER), CF_DEADLOCK);
    second.bounded = true; /* its time will pass */
    assert_int_equal(wait_as(tasks[2], &tasks[0], 1, CF_ALL_COMPLETED, CF_MS(1)), CF_TIMEOUT);
    second.bounded = false;
    cf_future *done_or_we[] = { make_task(true), tasks[2] };
    struct cfi_wait for_any = { done_or_we, 2, true, false };
    pool.tasks[2] = done_or_we[0];
    pool.workers[2].waiting = &second; /* in its next task */
    pool.workers[1].waiting = &for_any;
    cfi_future_succeed(cf_future_ref(done_or_we[0])); /* 1 is about to wake */
    assert_int_equal(wait_as(tasks[2], &tasks[0], 1, CF_ALL_COMPLETED, CF_MS(1)), CF_TIMEOUT);
    pool.workers[1].waiting = NULL; /* it does something */
    assert_int_equal(wait_as(tasks[2], &tasks[0], 1, CF_ALL_COMPLETED, CF_MS(1)), CF_TIMEOUT);
    end_all(done_or_we, 1);
    end_all(tasks, COUNT_OF(tasks));
}

static void test_waiting_for_one_that_nobody_begins(void **unused)
{
    (void)unused;
    open_pool(2, false);
    cf_future *self = make_task(true), *pending = make_task(false);
    struct cfi_wait for_us = { &self, 1, false, false };
    pool.workers[0].waiting = pool.workers[1].waiting = &for_us;
    assert_int_equal(wait_as(self, &pending, 1, CF_ALL_COMPLETED, CF_FOREVER), CF_DEADLOCK);
    pool.free = true;
    assert_int_equal(wait_as(self, &pending, 1, CF_ALL_COMPLETED, CF_MS(1)), CF_TIMEOUT);
    pool.free = false;
    pool.workers[1].waiting = NULL; /* it will come to it */
    assert_int_equal(wait_as(self, &pending, 1, CF_ALL_COMPLETED, CF_MS(1)), CF_TIMEOUT);
    end_all(&pending, 1);
    end_all(&self, 1);
}

static void test_waiting_for_several(void **unused)
{
    (void)unused;
    open_pool(0, false);
    cf_future *self = make_task(true), *promise = new_promise();
    cf_future *const futures[] = { self, promise, NULL };
    assert_int_equal(wait_as(self, futures, 3, CF_ALL_COMPLETED, CF_FOREVER), CF_DEADLOCK);
    /* The promise may come, and ends these: */
    assert_int_equal(wait_as(self, futures, 3, CF_FIRST_COMPLETED, CF_MS(1)), CF_TIMEOUT);
    assert_int_equal(wait_as(self, futures, 3, CF_FIRST_EXCEPTION, CF_MS(1)), CF_TIMEOUT);
    settle_promise(promise, false); /* which leaves only ourselves */
    assert_int_equal(wait_as(self, futures, 3, CF_FIRST_COMPLETED, CF_FOREVER), CF_OK);
    assert_int_equal(wait_as(self, futures, 3, CF_FIRST_EXCEPTION, CF_FOREVER), CF_DEADLOCK);
    end_all(&promise, 1);
    end_all(&self, 1);
}

static void test_others_wait_as_they_like(void **unused)
{
    (void)unused;
    open_pool(0, false);
    cf_future *running = make_task(true);
    assert_int_equal(cf_future_result(running, CF_MS(1), NULL, 0), CF_TIMEOUT); /* no task waits */
    end_all(&running, 1);
}

#define HOOKED(fn) cmocka_unit_test_setup_teardown(fn, listen_to_waits, listen_no_more)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_time_only_asks),
        cmocka_unit_test(test_time_passes),
        cmocka_unit_test(test_what_is_done_takes_no_time),
        cmocka_unit_test(test_every_end_wakes),
        cmocka_unit_test(test_all_who_wait_are_woken),
        cmocka_unit_test(test_other_changes_do_not_end_it),
        cmocka_unit_test(test_wait_against_settle),
        cmocka_unit_test(test_time_against_settle),
        HOOKED(test_hooks_around_a_sleep),
        HOOKED(test_hooks_around_one_that_ends_by_time),
        HOOKED(test_no_hooks_without_a_sleep),
        HOOKED(test_a_hook_interrupts),
        HOOKED(test_what_is_done_is_not_interrupted),
        HOOKED(test_an_interrupted_iteration_goes_on),
        HOOKED(test_each_thread_has_its_hooks),
        cmocka_unit_test(test_signals_do_not_end_it),
        cmocka_unit_test(test_hooks_hear_of_signals),
        cmocka_unit_test(test_a_forked_child),
        cmocka_unit_test(test_forks_while_threads_are_inside),
        cmocka_unit_test(test_waiting_for_oneself),
        cmocka_unit_test(test_waiting_in_a_circle),
        cmocka_unit_test(test_waiting_for_one_that_nobody_begins),
        cmocka_unit_test(test_waiting_for_several),
        cmocka_unit_test(test_others_wait_as_they_like),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
