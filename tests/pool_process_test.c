/* SPDX-License-Identifier: MIT */
/* The thread pool and its process: exit while there is work, forks, signals, and CPU time.
 *
 * The tests that exit come first and each in a child, before this process has had a thread. */
#define _GNU_SOURCE
#include "pool_support.h"

#include "base/compiler.h"

#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>

/* ThreadSanitizer starts no threads in the child of a process with threads; AddressSanitizer's
 * malloc may be left locked there. */
#if defined(__SANITIZE_THREAD__)
#define CHILD_MAY_START_THREADS 0
#elif defined(__SANITIZE_ADDRESS__)
#define CHILD_MAY_ALLOCATE 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHILD_MAY_START_THREADS 0
#elif __has_feature(address_sanitizer)
#define CHILD_MAY_ALLOCATE 0
#endif
#endif
#ifndef CHILD_MAY_START_THREADS
#define CHILD_MAY_START_THREADS 1
#endif
#ifndef CHILD_MAY_ALLOCATE
#define CHILD_MAY_ALLOCATE 1
#endif

static struct gate gate = GATE_INIT;

/* ---- exit ---- */

/* Seen by the child that exits and by the test. */
struct report {
    atomic_bool ran_late, waited, handled;
    atomic_int worker, wait_status, submit_status;
};
static struct report *report;

static struct {
    cf_executor *pool;
    cf_future *queued;
    struct level running, exiting, ended;
} ending = { .running = LEVEL_INIT, .exiting = LEVEL_INIT, .ended = LEVEL_INIT };

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

/* Registered before the library's handler, so called after it: what it finds is a pool that knows of
 * the exit.  Lets the running task end, and waits until its worker has settled down. */
static void late_in_exit(void)
{
    atomic_store(&report->submit_status, (int)cf_submit(ending.pool, do_nothing, NULL, 0, 0, NULL));
    level_raise(&ending.exiting);
    CHECK(level_reaches(&ending.ended, 1));
    WAIT_UNTIL(is_asleep(atomic_load(&report->worker)));
    cf_executor_free(ending.pool);
    atomic_store(&report->handled, all_checks_held());
}

static int run_late(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    atomic_store(&report->ran_late, true);
    return 0;
}

static int run_until_exit(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    atomic_store(&report->worker, gettid());
    level_raise(&ending.running);
    CHECK(level_reaches(&ending.exiting, 1));
    level_raise(&ending.ended);
    return 0;
}

static int wait_in_exit(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    atomic_store(&report->worker, gettid());
    level_raise(&ending.running);
    CHECK(level_reaches(&ending.exiting, 1));
    atomic_store(&report->wait_status, (int)cf_future_result(ending.queued, CF_MS(20), NULL, 0));
    level_raise(&ending.ended);
    return 0;
}

static void exit_with_work(void *first)
{
    atexit(late_in_exit);
    ending.pool = pool_of(1);
    cf_future *running = submitted(ending.pool, *(cf_fn **)first, NULL, 0, 0);
    assert_true(level_reaches(&ending.running, 1));
    ending.queued = submitted(ending.pool, run_late, NULL, 0, 0);
    cf_future_unref(running);
    exit(0);
}

static int set_up_report(void **state)
{
    (void)state;
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return report == MAP_FAILED;
}

static int tear_down_report(void **state)
{
    (void)state;
    return munmap(report, sizeof *report);
}

static void test_exit_begins_no_task(void **state)
{
    (void)state;
    cf_fn *first = run_until_exit;
    assert_int_equal(in_child(exit_with_work, &first), 0);
    assert_true(atomic_load(&report->handled));
    assert_false(atomic_load(&report->ran_late));
    assert_int_equal(atomic_load(&report->submit_status), CF_SHUTDOWN);
}

/* Nor does a running task that waits for one. */
static void test_exit_lets_no_wait_begin_a_task(void **state)
{
    (void)state;
    cf_fn *first = wait_in_exit;
    assert_int_equal(in_child(exit_with_work, &first), 0);
    assert_true(atomic_load(&report->handled));
    assert_false(atomic_load(&report->ran_late));
    assert_int_not_equal(atomic_load(&report->wait_status), CF_OK);
}

static int run_for_ever(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    level_raise(&ending.running);
    for (;;)
        pause();
    return 0;
}

static int spin_for_ever(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    level_raise(&ending.running);
    for (;;)
        sched_yield();
    return 0;
}

static void exit_with_endless_tasks(void *unused)
{
    (void)unused;
    static cf_executor *pool; /* still reachable at the end */
    pool = pool_of(3);
    cf_future_unref(submitted(pool, run_for_ever, NULL, 0, 0));
    cf_future_unref(submitted(pool, spin_for_ever, NULL, 0, 0));
    assert_true(level_reaches(&ending.running, 2));
    for (int i = 0; i < 1000; i++)
        cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0));
    exit(0);
}

static void test_exit_waits_for_nobody(void **state)
{
    (void)state;
    int64_t begun = cfi_now();
    assert_int_equal(in_child(exit_with_endless_tasks, NULL), 0);
    assert_true(cfi_now() - begun < LIMIT);
}

static int exit_here(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    exit(3);
}

static void exit_in_task(void *unused)
{
    (void)unused;
    static cf_executor *pool;
    pool = pool_of(2);
    for (int i = 0; i < 100; i++)
        cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0));
    cf_future_unref(submitted(pool, exit_here, NULL, 0, 0));
    for (;;)
        pause();
}

static void test_exit_by_a_task(void **state)
{
    (void)state;
    assert_int_equal(in_child(exit_in_task, NULL), 3);
}

/* ---- fork ---- */

/* What the parent had when it forked. */
static struct {
    cf_executor *pool;
    cf_future *done, *failed, *running, *pending;
} parent;

static int fail_with_message(const void *arg, void *result)
{
    (void)arg;
    (void)result;
    return cf_raise(EIO, "before the fork");
}

static int answer(const void *arg, void *result)
{
    (void)arg;
    *(int *)result = 42;
    return 0;
}

static void set_up_parent(size_t max_pending)
{
    gate_close(&gate);
    parent.pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 1, .max_pending = max_pending));
    parent.done = submitted(parent.pool, answer, NULL, 0, sizeof(int));
    parent.failed = submitted(parent.pool, fail_with_message, NULL, 0, 0);
    assert_int_equal(
        cf_wait((cf_future *[]){ parent.done, parent.failed }, 2, CF_ALL_COMPLETED, LIMIT, NULL),
        CF_OK);
    parent.running = occupied(parent.pool, &gate);
    parent.pending = submitted(parent.pool, do_nothing, NULL, 0, 0);
}

static void end_parent(void)
{
    assert_false(cf_future_done(parent.pending));
    gate_open(&gate);
    cf_future_unref(parent.done);
    cf_future_unref(parent.failed);
    assert_ends(parent.running, CF_OK);
    assert_ends(parent.pending, CF_OK);
    assert_ends(submitted(parent.pool, do_nothing, NULL, 0, 0), CF_OK);
    end_pool(parent.pool);
}

static void use_what_is_done(void)
{
    int value = 0;
    CHECK(CF_RESULT(parent.done, CF_FOREVER, &value) == CF_OK && value == 42);
    CHECK(cf_future_result(parent.failed, CF_FOREVER, NULL, 0) == CF_FAILED);
    CHECK(strcmp(cf_future_exception(parent.failed)->message, "before the fork") == 0);
}

static void wait_for_what_cannot_come(cf_future *f)
{
    size_t index;
    cf_completed *completed = NULL;
    CHECK(!cf_future_done(f));
    CHECK(cf_future_result(f, CF_FOREVER, NULL, 0) == CF_SHUTDOWN);
    CHECK(cf_last_error()->status == CF_SHUTDOWN);
    CHECK(cf_wait(&f, 1, CF_ALL_COMPLETED, CF_FOREVER, NULL) == CF_SHUTDOWN);
    CHECK(cf_as_completed(&f, 1, CF_FOREVER, &completed) == CF_OK);
    CHECK(cf_completed_next(completed, &index) == CF_SHUTDOWN);
    cf_completed_free(completed);
}

static void use_in_child(void *unused)
{
    (void)unused;
    cf_future *f = NULL;
    CHECK(cf_submit(parent.pool, do_nothing, NULL, 0, 0, &f) == CF_SHUTDOWN);
    CHECK(f == NULL);
    use_what_is_done();
    wait_for_what_cannot_come(parent.running);
    wait_for_what_cannot_come(parent.pending);
    for (int mode = CF_FINISH_PENDING; mode <= CF_STOP_RUNNING; mode++)
        CHECK(cf_executor_shutdown(parent.pool, (cf_shutdown_mode)mode, CF_FOREVER) == CF_OK);
    CHECK(cf_executor_free(parent.pool) == NULL);
    use_what_is_done();
    cf_future_unref(parent.done);
    cf_future_unref(parent.failed);
}

static void test_a_child_cannot_use_the_pool(void **state)
{
    (void)state;
    for (size_t max_pending = 0; max_pending <= 4; max_pending += 4) {
        set_up_parent(max_pending);
        assert_int_equal(in_child(use_in_child, NULL), 0);
        end_parent();
    }
}

static void give_back_in_child(void *unused)
{
    (void)unused;
    CHECK(cf_future_cancel(parent.pending));
    cf_future_unref(parent.pending);
    cf_future_unref(parent.done);
    CHECK(cf_executor_free(parent.pool) == NULL);
    cf_future_unref(parent.failed);
    cf_future_unref(parent.running);
}

/* Cancelled, given back and freed in the child, and all of it lives on in the parent. */
static void test_a_child_gives_back_what_it_has(void **state)
{
    (void)state;
    for (size_t max_pending = 0; max_pending <= 4; max_pending += 4) {
        set_up_parent(max_pending);
        assert_int_equal(in_child(give_back_in_child, NULL), 0);
        end_parent();
    }
}

#if defined(__GLIBC__) && CHILD_MAY_ALLOCATE && CHILD_MAY_START_THREADS
static void free_and_measure(void *unused)
{
    (void)unused;
    size_t before = mallinfo2().uordblks;
    cf_executor_free(parent.pool);
    CHECK(mallinfo2().uordblks < before);
}

/* To free it there releases its memory, although it has workers. */
static void test_a_child_frees_the_pool(void **state)
{
    (void)state;
    set_up_parent(0);
    assert_int_equal(in_child(free_and_measure, NULL), 0);
    end_parent();
}
#else
static void test_a_child_frees_the_pool(void **state)
{
    (void)state;
    skip();
}
#endif

static void use_new_pool(void *unused)
{
    (void)unused;
    cf_executor *pool = NULL;
    cf_future *f = NULL;
    CHECK(cf_thread_pool_new(NULL, &pool) == CF_OK);
    for (int i = 0; CHILD_MAY_START_THREADS && i < 100; i++) {
        CHECK(cf_submit(pool, do_nothing, NULL, 0, 0, &f) == CF_OK);
        CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_OK);
        cf_future_unref(f);
    }
    CHECK(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT) == CF_OK);
    cf_executor_free(pool);
}

static void test_a_child_makes_a_pool(void **state)
{
    (void)state;
    set_up_parent(0);
    assert_int_equal(in_child(use_new_pool, NULL), 0);
    end_parent();
}

/* ---- forks at any moment ---- */

static atomic_bool forks_are_over;

static void *keep_pool_busy(void *pool)
{
    while (!atomic_load(&forks_are_over)) {
        cf_future *f[40];
        size_t index;
        for (int i = 0; i < 40; i++) {
            const cf_task task = { .size = sizeof task, .fn = do_nothing, .priority = i % 5 == 0 };
            CHECK(cf_submit_task(pool, &task, &f[i]) == CF_OK);
        }
        cf_completed *completed = NULL;
        CHECK(cf_as_completed(f, 40, LIMIT, &completed) == CF_OK);
        for (int i = 0; i < 20; i++)
            CHECK(cf_completed_next(completed, &index) == CF_OK);
        cf_completed_free(completed);
        CHECK(cf_wait(f, 40, CF_ALL_COMPLETED, LIMIT, NULL) == CF_OK);
        cf_future_unref_all(f, 40);
    }
    return NULL;
}

/* Whatever the parent's threads held at the fork, the child does not wait for them. */
static void use_library_in_child(void *pool)
{
    cf_future *f = NULL;
    CHECK(!CHILD_MAY_ALLOCATE || cf_submit(pool, do_nothing, NULL, 0, 0, &f) == CF_SHUTDOWN);
    for (size_t size = 0; CHILD_MAY_ALLOCATE && size < 1200; size += 100) {
        CHECK(cf_future_new(size, NULL, &f) == CF_OK);
        CHECK(cf_future_set_result(f, NULL) == CF_OK);
        CHECK(cf_wait(&f, 1, CF_ALL_COMPLETED, CF_FOREVER, NULL) == CF_OK);
        cf_future_unref(f);
    }
    CHECK(cf_executor_shutdown(pool, CF_CANCEL_PENDING, CF_FOREVER) == CF_OK);
    if (CHILD_MAY_ALLOCATE)
        cf_executor_free(pool);
}

static void test_forks_at_any_moment(void **state)
{
    (void)state;
#ifdef CFI_ASAN
    skip(); /* its allocator may be locked in the child for ever: it is not made ready for a fork */
#endif
    cf_executor *pool = pool_of(3);
    pthread_t busy[2];
    for (int i = 0; i < 2; i++)
        busy[i] = start_thread(keep_pool_busy, pool);
    for (int i = 0; i < 200; i++)
        assert_int_equal(in_child(use_library_in_child, pool), 0);
    atomic_store(&forks_are_over, true);
    for (int i = 0; i < 2; i++)
        join_thread(busy[i]);
    end_pool(pool);
}

/* ---- forks in tasks ---- */

static int fork_and_wait(const void *arg, void *result)
{
    cf_executor *pool = *(cf_executor *const *)arg;
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a child that hangs goes with the test */
        bool refused = cf_executor_shutdown(pool, CF_FINISH_PENDING, CF_FOREVER) == CF_OK;
        if (CHILD_MAY_ALLOCATE)
            refused &= cf_submit(pool, do_nothing, NULL, 0, 0, NULL) == CF_SHUTDOWN;
        _exit(refused ? 0 : 1);
    }
    return waitpid(pid, result, 0) != pid;
}

static void test_a_task_forks(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(3);
    cf_future *f[30];
    for (int i = 0; i < 30; i++)
        f[i] = submitted(pool, fork_and_wait, &pool, sizeof pool, sizeof(int));
    for (int i = 0; i < 30; i++) {
        int status = -1;
        assert_int_equal(CF_RESULT(f[i], LIMIT, &status), CF_OK);
        assert_int_equal(status, 0);
        cf_future_unref(f[i]);
    }
    end_pool(pool);
}

/* ---- signals ---- */

static int get_mask(const void *arg, void *result)
{
    (void)arg;
    return pthread_sigmask(SIG_SETMASK, NULL, result);
}

static void test_workers_block_asynchronous_signals(void **state)
{
    (void)state;
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    sigset_t mask, before, after;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &before), 0);
    cf_executor *pool = pool_of(1);
    cf_future *f = submitted(pool, get_mask, NULL, 0, sizeof mask);
    assert_int_equal(CF_RESULT(f, LIMIT, &mask), CF_OK);
    cf_future_unref(f);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
    for (int number = 1; number <= SIGRTMAX; number++) {
        bool fault = number == SIGKILL || number == SIGSTOP ||
                     (number >= 32 && number < SIGRTMIN); /* the kernel's and libc's own */
        for (size_t i = 0; i < COUNT_OF(faults); i++)
            fault |= number == faults[i];
        if (sigismember(&mask, number) == fault && !(number >= 32 && number < SIGRTMIN))
            fail_msg("signal %d is %s", number, fault ? "blocked" : "not blocked");
        assert_int_equal(sigismember(&after, number), sigismember(&before, number));
    }
    end_pool(pool);
}

static pthread_t handled_on;
static atomic_int handled;

static void note_signal(int number)
{
    (void)number;
    handled_on = pthread_self();
    atomic_fetch_add(&handled, 1);
}

static void handle(int number)
{
    const struct sigaction action = { .sa_handler = note_signal };
    assert_int_equal(sigaction(number, &action, NULL), 0);
    atomic_store(&handled, 0);
}

static void test_signals_go_to_the_host(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(4);
    gate_close(&gate);
    for (int i = 0; i < 4; i++)
        cf_future_unref(occupied(pool, &gate));
    handle(SIGUSR1);
    for (int i = 1; i <= 50; i++) {
        assert_int_equal(kill(getpid(), SIGUSR1), 0);
        WAIT_UNTIL(atomic_load(&handled) == i);
        assert_true(pthread_equal(handled_on, pthread_self()));
    }
    gate_open(&gate);
    end_pool(pool);
    signal(SIGUSR1, SIG_DFL);
}

static cf_executor *fib_pool;

static int fib(const void *arg, void *result)
{
    const long n = *(const long *)arg, less[2] = { n - 1, n - 2 };
    long values[2] = { 1, 0 };
    cf_future *f[2];
    for (int i = 0; n > 1 && i < 2; i++)
        CHECK(CF_SUBMIT(fib_pool, fib, &less[i], long, &f[i]) == CF_OK);
    for (int i = 0; n > 1 && i < 2; i++) {
        CHECK(CF_RESULT(f[i], LIMIT, &values[i]) == CF_OK);
        cf_future_unref(f[i]);
    }
    *(long *)result = n < 2 ? n : values[0] + values[1];
    return 0;
}

static void wait_in_storm(void)
{
    const long n = 10;
    long value = 0;
    size_t done = 0, index = 9;
    gate_close(&gate);
    fib_pool = pool_of(2);
    cf_future *f = submitted(fib_pool, fib, &n, sizeof n, sizeof value);
    assert_int_equal(CF_RESULT(f, LIMIT, &value), CF_OK);
    assert_int_equal(value, 55);
    cf_future_unref(f);
    cf_future *busy = occupied(fib_pool, &gate);
    int64_t begun = cfi_now();
    assert_int_equal(cf_future_result(busy, CF_MS(30), NULL, 0), CF_TIMEOUT);
    assert_int_equal(cf_wait(&busy, 1, CF_ALL_COMPLETED, CF_MS(30), &done), CF_TIMEOUT);
    cf_completed *completed = NULL;
    assert_int_equal(cf_as_completed(&busy, 1, CF_MS(30), &completed), CF_OK);
    assert_int_equal(cf_completed_next(completed, &index), CF_TIMEOUT);
    cf_completed_free(completed);
    assert_int_equal(cf_executor_shutdown(fib_pool, CF_FINISH_PENDING, CF_MS(30)), CF_TIMEOUT);
    assert_true(cfi_now() - begun >= CF_MS(120));
    gate_open(&gate);
    assert_ends(busy, CF_OK);
    end_pool(fib_pool);
}

/* Handlers that run every millisecond change no result and shorten no wait. */
static void test_a_storm_of_signals(void **state)
{
    (void)state;
    const struct itimerval each_ms = { .it_interval = { 0, 1000 }, .it_value = { 0, 1000 } };
    const struct itimerval never = { .it_value = { 0, 0 } };
    handle(SIGALRM);
    assert_int_equal(setitimer(ITIMER_REAL, &each_ms, NULL), 0);
    for (int i = 0; i < 3; i++)
        wait_in_storm();
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_true(atomic_load(&handled) > 0);
    signal(SIGALRM, SIG_DFL);
}

static void test_no_disposition_is_changed(void **state)
{
    (void)state;
    struct sigaction before[65], after;
    for (int number = 1; number < 65; number++)
        (void)sigaction(number, NULL, &before[number]);
    cf_executor *pool = pool_of(2);
    assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
    for (int number = 1; number < 65; number++) {
        if (sigaction(number, NULL, &after) == 0)
            assert_true(after.sa_handler == before[number].sa_handler);
    }
    end_pool(pool);
}

/* ---- CPU time ---- */

static int64_t cpu_time(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return CF_SECONDS(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (int64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static void test_an_idle_pool_burns_nothing(void **state)
{
    (void)state;
    cf_executor *pool = pool_of(4 * cf_cpu_count());
    for (int i = 0; i < 10000; i++)
        cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0));
    assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
    usleep(50000); /* the last ones still search a little */
    int64_t before = cpu_time();
    usleep(500000);
    assert_true(cpu_time() - before < CF_MS(50));
    end_pool(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exit_begins_no_task, set_up_report, tear_down_report),
        cmocka_unit_test_setup_teardown(test_exit_lets_no_wait_begin_a_task, set_up_report,
                                        tear_down_report),
        cmocka_unit_test(test_exit_waits_for_nobody),
        cmocka_unit_test(test_exit_by_a_task),
        cmocka_unit_test(test_a_child_cannot_use_the_pool),
        cmocka_unit_test(test_a_child_gives_back_what_it_has),
        cmocka_unit_test(test_a_child_frees_the_pool),
        cmocka_unit_test(test_a_child_makes_a_pool),
        cmocka_unit_test(test_forks_at_any_moment),
        cmocka_unit_test(test_a_task_forks),
        cmocka_unit_test(test_workers_block_asynchronous_signals),
        cmocka_unit_test(test_signals_go_to_the_host),
        cmocka_unit_test(test_a_storm_of_signals),
        cmocka_unit_test(test_no_disposition_is_changed),
        cmocka_unit_test(test_an_idle_pool_burns_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
