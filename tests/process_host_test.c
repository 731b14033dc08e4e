/* SPDX-License-Identifier: MIT */
/* The process pool and the program around it: nobody outlives it however it ends, nothing of its own is
 * touched, and it may close, fork, ignore and reap what it likes.
 *
 * Most tests run their program in a child, so that they can kill it.  Orphans come to this process:
 * no one that was left behind goes unnoticed. */
#define _GNU_SOURCE
#include "process_support.h"

#include <spawn.h>
#include <sys/stat.h>
#include <sys/time.h>

extern char **environ;

enum { READY = FREE_CELLS, CHILD, DONE, EXITED };

static const cf_start_method methods[] = { CF_START_FORK_SERVER, CF_START_FORK, CF_START_SPAWN };

static cf_executor *make_pool(unsigned workers, cf_start_method method)
{
    cf_executor *pool = NULL;
    cf_status status = cf_process_pool_new(
        CF_PROCESS_POOL_OPTIONS(.max_workers = workers, .start_method = method), &pool);
    CHECK(status == CF_OK);
    return pool;
}

static int run_twice(cf_executor *pool, int value)
{
    int result = 0;
    cf_future *f = NULL;
    if (CF_SUBMIT(pool, twice, &value, int, &f) != CF_OK || CF_RESULT(f, LIMIT, &result) != CF_OK)
        return -1;
    cf_future_unref(f);
    return result;
}

/* ---- the host dies ---- */

struct killing {
    cf_fn *fn; /* NULL: idle workers */
    cf_start_method method;
};

static int wait_to_be_killed(void *data)
{
    const struct killing *killing = data;
    cf_executor *pool = make_pool(2, killing->method);
    HOST_CHECK(run_twice(pool, 3) == 6);
    for (int i = 0; killing->fn && i < 5; i++)
        HOST_CHECK(cf_submit(pool, killing->fn, NULL, 0, 0, NULL) == CF_OK);
    HOST_CHECK(!killing->fn || cell_reaches(CAME, 2));
    cell_raise(READY);
    for (;;)
        pause();
    return 1;
}

static void assert_killed_with_all(cf_fn *fn, cf_start_method method, int signal_number)
{
    struct killing killing = { fn, method };
    clear_board();
    pid_t host = start_host(wait_to_be_killed, &killing);
    assert_true(cell_reaches(READY, 1));
    kill(host, signal_number);
    assert_int_equal(host_ended(host), 128 + signal_number);
    assert_nobody_left();
}

static int stop_here(const void *arg, void *result)
{
    (void)arg, (void)result;
    cell_raise(CAME);
    raise(SIGSTOP);
    return 0;
}

static void test_nobody_outlives_the_host(void **unused)
{
    (void)unused;
    cf_fn *const tasks[] = { NULL, sleep_long, spin, spin_deaf, stop_here };
    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        for (size_t j = 0; j < COUNT_OF(methods); j++)
            assert_killed_with_all(tasks[i], methods[j], i % 2 ? SIGTERM : SIGKILL);
    }
}

/* Killed at any moment of its pool's life. */
static int live_and_die(void *data)
{
    (void)data;
    cell_raise(READY);
    for (;;) {
        cf_executor *pool = make_pool(3, CF_START_DEFAULT);
        for (int i = 0; i < 6; i++)
            (void)cf_submit(pool, i % 2 ? sleep_long : do_nothing, NULL, 0, 0, NULL);
        usleep(3000);
        (void)cf_executor_shutdown(pool, CF_STOP_RUNNING, CF_MS(5));
        cf_executor_free(pool);
    }
    return 1;
}

static void test_the_host_dies_at_any_moment(void **unused)
{
    (void)unused;
    int64_t begun = cfi_now();
    for (unsigned i = 0; i < 20 || is_time_left(begun); i++) {
        clear_board();
        pid_t host = start_host(live_and_die, NULL);
        assert_true(cell_reaches(READY, 1));
        usleep((i * 7919) % 15000);
        kill(host, SIGKILL);
        assert_int_equal(host_ended(host), 128 + SIGKILL);
        assert_nobody_left();
    }
}

/* A child of the host that lives on has copies of all that the pool's channels are. */
static int leave_a_child_behind(void *data)
{
    cf_executor *pool = make_pool(2, *(cf_start_method *)data);
    HOST_CHECK(cf_submit(pool, spin_deaf, NULL, 0, 0, NULL) == CF_OK);
    HOST_CHECK(cell_reaches(CAME, 1));
    pid_t child = fork();
    if (child == 0) {
        cell_reaches(OPENED, 1);
        _exit(0);
    }
    cell_set(CHILD, (int)child);
    cell_raise(READY);
    for (;;)
        pause();
    return 1;
}

static bool is_only_child(int pid)
{
    int other;
    while ((other = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    char path[64], list[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    if (!fgets(list, sizeof list, file))
        list[0] = 0;
    fclose(file);
    return atoi(list) == pid && strchr(list, ' ') && !strchr(list, ' ')[1];
}

static void test_a_child_of_the_host_keeps_nobody_alive(void **unused)
{
    (void)unused;
    SKIP_UNDER_TSAN();
    if (access("/proc/self/task", R_OK) != 0)
        skip();
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        clear_board();
        pid_t host = start_host(leave_a_child_behind, &method);
        assert_true(cell_reaches(READY, 1));
        kill(host, SIGKILL);
        assert_int_equal(host_ended(host), 128 + SIGKILL);
        int64_t begun = cfi_now();
        while (!is_only_child(cell_now(CHILD)) && cfi_now() - begun < LIMIT)
            usleep(1000);
        assert_true(is_only_child(cell_now(CHILD)));
        cell_set(OPENED, 1);
        assert_nobody_left();
    }
}

/* One Ctrl-C goes to the whole group: it ends the program, quietly. */
static int work_with_output(void *data)
{
    int fd = *(int *)data;
    struct killing killing = { spin, CF_START_DEFAULT };
    dup2(fd, 1);
    dup2(fd, 2);
    return wait_to_be_killed(&killing);
}

static void test_an_interrupt_ends_the_program(void **unused)
{
    (void)unused;
    char name[] = "/tmp/cfutures-output-XXXXXX";
    struct stat output;
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    pid_t host = start_host(work_with_output, &fd);
    assert_true(cell_reaches(READY, 1));
    kill(-host, SIGINT);
    assert_int_equal(host_ended(host), 128 + SIGINT);
    assert_nobody_left();
    assert_int_equal(fstat(fd, &output), 0);
    assert_int_equal(output.st_size, 0);
    close(fd);
}

static volatile sig_atomic_t interrupts;

static void count_interrupt(int number)
{
    (void)number;
    interrupts++;
}

/* The host decides what it means: its workers go on. */
static int survive_interrupts(void *data)
{
    (void)data;
    cf_future *f = NULL;
    signal(SIGINT, count_interrupt);
    cf_executor *pool = make_pool(1, CF_START_DEFAULT);
    HOST_CHECK(cf_submit(pool, wait_for_opening, NULL, 0, 0, &f) == CF_OK);
    HOST_CHECK(cell_reaches(CAME, 1));
    cell_raise(READY);
    HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_OK);
    HOST_CHECK(interrupts > 0);
    HOST_CHECK(run_twice(pool, 4) == 8);
    cf_executor_free(pool);
    cf_future_unref(f);
    return 0;
}

static void test_an_interrupt_is_the_hosts(void **unused)
{
    (void)unused;
    pid_t host = start_host(survive_interrupts, NULL);
    assert_true(cell_reaches(READY, 1));
    kill(-host, SIGINT);
    usleep(1000);
    cell_set(OPENED, 1);
    assert_int_equal(host_ended(host), 0);
    assert_nobody_left();
}

/* ---- the host exits ---- */

static int exit_with_work(void *data)
{
    const int ran = RAN;
    static cf_executor *pool; /* still reachable at the end */
    pool = make_pool(2, *(cf_start_method *)data);
    for (int i = 0; i < 2; i++)
        HOST_CHECK(cf_submit(pool, spin, NULL, 0, 0, NULL) == CF_OK);
    HOST_CHECK(cell_reaches(CAME, 2));
    for (int i = 0; i < 1000; i++)
        HOST_CHECK(cf_submit(pool, raise_cell, &ran, sizeof ran, 0, NULL) == CF_OK);
    exit(7);
}

static void test_exit_waits_for_nobody(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        clear_board();
        assert_int_equal(run_host(exit_with_work, &method), 7);
        assert_nobody_left();
        assert_int_equal(cell_now(RAN), 0);
    }
}

static int exit_idle(void *data)
{
    static cf_executor *pool;
    pool = make_pool(2, *(cf_start_method *)data);
    HOST_CHECK(run_twice(pool, 1) == 2);
    exit(7);
}

static void test_exit_without_a_shutdown(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        assert_int_equal(run_host(exit_idle, &method), 7);
        assert_nobody_left();
    }
}

static int become_another_program(void *data)
{
    static cf_executor *pool;
    (void)data;
    pool = make_pool(2, CF_START_DEFAULT);
    HOST_CHECK(cf_submit(pool, spin_deaf, NULL, 0, 0, NULL) == CF_OK);
    HOST_CHECK(cell_reaches(CAME, 1));
    execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
    return 1;
}

static void test_the_host_becomes_another_program(void **unused)
{
    (void)unused;
    assert_int_equal(run_host(become_another_program, NULL), 7);
    assert_nobody_left();
}

static void count_exit(void)
{
    cell_raise(EXITED);
}

/* What the host has not flushed yet is written once, and its exit functions run once. */
static int print_and_exit(void *data)
{
    const struct killing *how = data;
    FILE *out = fdopen(cell_now(CHILD), "w");
    HOST_CHECK(out != NULL);
    atexit(count_exit);
    fprintf(out, "once\n");
    cf_executor *pool = make_pool(2, how->method);
    for (int i = 0; i < 4; i++)
        HOST_CHECK(run_twice(pool, i) == 2 * i);
    if (how->fn) {
        cf_future *f = NULL;
        HOST_CHECK(cf_submit(pool, how->fn, NULL, 0, 0, &f) == CF_OK);
        HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_BROKEN);
        cf_future_unref(f);
    }
    cf_executor_free(pool);
    exit(0);
}

static int die_of_segv(const void *arg, void *result)
{
    (void)arg, (void)result;
    die(BY_SEGV);
    return 0;
}

static void test_nothing_is_written_twice(void **unused)
{
    (void)unused;
    cf_fn *const fns[] = { NULL, die_of_segv };
    for (size_t i = 0; i < 2 * COUNT_OF(methods); i++) {
        char name[] = "/tmp/cfutures-output-XXXXXX", text[64] = "";
        struct killing how = { fns[i % 2], methods[i / 2] };
        int fd = mkstemp(name);
        assert_true(fd >= 0);
        unlink(name);
        clear_board();
        cell_set(CHILD, fd);
        assert_int_equal(run_host(print_and_exit, &how), 0);
        assert_int_equal(pread(fd, text, sizeof text - 1, 0), 5);
        assert_string_equal(text, "once\n");
        assert_int_equal(cell_now(EXITED), 1);
        close(fd);
        assert_nobody_left();
    }
}

/* ---- the host's signals and children ---- */

/* Handlers and their flags; the rest of a struct sigaction is not the same twice. */
struct disposition {
    void (*handler)(int number);
    int flags;
};

static void note_dispositions(struct disposition all[65], sigset_t *blocked)
{
    memset(all, 0, 65 * sizeof *all);
    for (int i = 1; i < 65; i++) {
        struct sigaction action = { .sa_flags = 0 };
        (void)sigaction(i, NULL, &action);
        all[i].handler = action.sa_handler;
        all[i].flags = action.sa_flags;
    }
    memset(blocked, 0, sizeof *blocked);
    pthread_sigmask(SIG_BLOCK, NULL, blocked);
}

static int use_and_compare(void *data)
{
    static struct disposition before[65], after[65];
    sigset_t blocked_before, blocked_after;
    (void)data;
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGUSR1, count_interrupt);
    mode_t mask = umask(027);
    note_dispositions(before, &blocked_before);
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_future *f = NULL;
        const enum way way = BY_SEGV;
        cf_executor *pool = make_pool(2, methods[i]);
        HOST_CHECK(run_twice(pool, 2) == 4);
        HOST_CHECK(cf_submit(pool, die_in_a_way, &way, sizeof way, 0, &f) == CF_OK);
        HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_BROKEN);
        HOST_CHECK(cf_future_exception(f)->signal_number == SIGSEGV);
        HOST_CHECK(run_twice(pool, 2) == 4);
        note_dispositions(after, &blocked_after);
        HOST_CHECK(memcmp(before, after, sizeof before) == 0);
        cf_executor_free(pool);
        cf_future_unref(f);
    }
    note_dispositions(after, &blocked_after);
    HOST_CHECK(memcmp(before, after, sizeof before) == 0);
    HOST_CHECK(memcmp(&blocked_before, &blocked_after, sizeof blocked_before) == 0);
    HOST_CHECK(umask(mask) == 027);
    return 0;
}

static void test_dispositions_stay_as_they_are(void **unused)
{
    (void)unused;
    assert_int_equal(run_host(use_and_compare, NULL), 0);
    assert_nobody_left();
}

static atomic_bool reaping_is_over;

static void *reap_everything(void *unused)
{
    while (!atomic_load(&reaping_is_over)) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        usleep(100);
    }
    return unused;
}

static int live_beside_a_reaper(void *data)
{
    pthread_t thread;
    (void)data;
    HOST_CHECK(pthread_create(&thread, NULL, reap_everything, NULL) == 0);
    for (int i = 0; i < 10; i++) {
        cf_future *f = NULL;
        enum way way = i % 2 ? BY_SEGV : BY_EXIT_3;
        cf_executor *pool = make_pool(2, i % 3 ? CF_START_DEFAULT : CF_START_SPAWN);
        HOST_CHECK(cf_submit(pool, die_in_a_way, &way, sizeof way, 0, &f) == CF_OK);
        HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_BROKEN);
        HOST_CHECK(cf_future_exception(f)->signal_number == all_deaths[way].signal_number);
        HOST_CHECK(cf_future_exception(f)->exit_code == all_deaths[way].exit_code);
        HOST_CHECK(run_twice(pool, 2) == 4);
        cf_executor_free(pool);
        cf_future_unref(f);
    }
    atomic_store(&reaping_is_over, true);
    pthread_join(thread, NULL);
    return 0;
}

static void test_a_host_that_reaps_every_child(void **unused)
{
    (void)unused;
    assert_int_equal(run_host(live_beside_a_reaper, NULL), 0);
    assert_nobody_left();
}

/* Interrupted every few hundred microseconds, on whatever thread. */
static int live_with_a_timer(void *data)
{
    (void)data;
    struct sigaction count = { .sa_handler = count_interrupt }; /* no SA_RESTART */
    struct itimerval often = { { 0, 300 }, { 0, 300 } };
    static char bytes[300000];
    sigaction(SIGALRM, &count, NULL);
    HOST_CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; i < 5; i++) {
        cf_executor *pool = make_pool(2, methods[i % 3]);
        for (int j = 0; j < 100; j++)
            HOST_CHECK(run_twice(pool, j) == 2 * j);
        for (int j = 0; j < 20; j++) {
            cf_future *f = NULL;
            HOST_CHECK(cf_submit(pool, do_nothing, bytes, sizeof bytes, 0, &f) == CF_OK);
            HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_OK);
            cf_future_unref(f);
        }
        HOST_CHECK(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT) == CF_OK);
        cf_executor_free(pool);
    }
    HOST_CHECK(interrupts > 10);
    setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 0 }, { 0, 0 } }, NULL);
    return 0;
}

static void test_a_host_with_many_signals(void **unused)
{
    (void)unused;
    assert_int_equal(run_host(live_with_a_timer, NULL), 0);
    assert_nobody_left();
}

static int work_on(void *data)
{
    (void)data;
    cf_executor *pool = make_pool(2, CF_START_DEFAULT);
    cell_raise(READY);
    while (cell_now(DONE) == 0)
        HOST_CHECK(run_twice(pool, 8) == 16);
    HOST_CHECK(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT) == CF_OK);
    cf_executor_free(pool);
    return 0;
}

static void test_the_host_is_stopped_for_a_while(void **unused)
{
    (void)unused;
    int64_t seconds = is_long_run() ? 10 : 1;
    pid_t host = start_host(work_on, NULL);
    assert_true(cell_reaches(READY, 1));
    usleep(20000);
    kill(host, SIGSTOP);
    usleep((useconds_t)(seconds * 500000));
    kill(host, SIGCONT);
    usleep(20000);
    cell_set(DONE, 1);
    assert_int_equal(host_ended(host), 0);
    assert_nobody_left();
}

/* ---- the host's descriptors ---- */

static int live_without_stdio(void *data)
{
    const cf_start_method *method = data;
    static const char text[] = "not for you";
    close(0), close(1), close(2);
    cf_executor *pool = make_pool(2, *method);
    for (int i = 0; i < 50; i++) {
        /* A program that was started like this still prints and reads. */
        char buffer[16];
        for (int fd = 0; fd < 3; fd++)
            (void)!write(fd, text, sizeof text);
        fcntl(0, F_SETFL, O_NONBLOCK);
        (void)!read(0, buffer, sizeof buffer);
        if (run_twice(pool, i) != 2 * i)
            return 3;
    }
    return cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT) == CF_OK ? 0 : 4;
}

static void test_a_host_without_stdio(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        assert_int_equal(run_host(live_without_stdio, &method), 0);
        assert_nobody_left();
    }
}

static int print_here(const void *arg, void *result)
{
    (void)arg, (void)result;
    printf("from a task\n");
    fflush(stdout);
    fprintf(stderr, "from a task\n");
    return getchar() == EOF ? 0 : 1;
}

static int print_in_tasks(void *data)
{
    cf_future *f = NULL;
    close(0), close(1), close(2);
    cf_executor *pool = make_pool(1, *(cf_start_method *)data);
    for (int i = 0; i < 10; i++) {
        if (cf_submit(pool, print_here, NULL, 0, 0, &f) != CF_OK ||
            cf_future_result(f, LIMIT, NULL, 0) != CF_OK || run_twice(pool, i) != 2 * i)
            return 3;
        cf_future_unref(f);
    }
    cf_executor_free(pool);
    return 0;
}

static void test_tasks_print_without_stdio(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        assert_int_equal(run_host(print_in_tasks, &method), 0);
        assert_nobody_left();
    }
}

/* An exec'ed child of the host gets nothing of ours. */
static void test_descriptors_close_on_exec(void **unused)
{
    (void)unused;
    enum { HIGHEST = 1000 };
    bool before[HIGHEST];
    for (int fd = 0; fd < HIGHEST; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    cf_executor *pool = processes_of(2);
    static char bytes[400000];
    cf_future *f[] = { busy(pool), busy(pool),
                       submitted(pool, do_nothing, bytes, sizeof bytes, 0) };
    for (int fd = 0; fd < HIGHEST; fd++) {
        int flags = fcntl(fd, F_GETFD);
        assert_true(before[fd] || flags < 0 || (flags & FD_CLOEXEC));
        assert_true(before[fd] || flags < 0 || fd > 2);
    }
    cell_set(OPENED, 1);
    for (int i = 0; i < 3; i++)
        assert_ends(f[i], CF_OK);
    end_pool(pool);
}

/* ---- the host forks ---- */

struct forking {
    cf_executor *pool;
    cf_future *done, *running;
};

static int use_in_child(void *data)
{
    const struct forking *forking = data;
    int value = 0;
    HOST_CHECK(cf_submit(forking->pool, do_nothing, NULL, 0, 0, NULL) == CF_SHUTDOWN);
    HOST_CHECK(CF_RESULT(forking->done, 0, &value) == CF_OK && value == 42);
    HOST_CHECK(cf_future_result(forking->running, LIMIT, NULL, 0) == CF_SHUTDOWN);
    HOST_CHECK(cf_executor_shutdown(forking->pool, CF_STOP_RUNNING, CF_FOREVER) == CF_OK);
    cf_executor_free(forking->pool);
    cf_future_unref(forking->running);
    cf_future_unref(forking->done);
    cf_executor *pool = make_pool(1, CF_START_DEFAULT); /* one of its own */
    HOST_CHECK(run_twice(pool, 5) == 10);
    cf_executor_free(pool);
    exit(0);
}

static void test_a_child_of_the_host(void **unused)
{
    (void)unused;
    SKIP_UNDER_TSAN();
    int value = 21;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        clear_board();
        cf_executor *pool =
            processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .start_method = methods[i]));
        struct forking forking = { pool, submitted(pool, twice, &value, sizeof value, sizeof value),
                                   NULL };
        assert_int_equal(cf_future_result(forking.done, LIMIT, NULL, 0), CF_OK);
        forking.running = busy(pool);
        assert_int_equal(run_host(use_in_child, &forking), 0);
        cell_set(OPENED, 1);
        assert_ends(forking.running, CF_OK);
        cf_future_unref(forking.done);
        assert_works(pool);
        end_pool(pool);
    }
}

static int just_exit(void *data)
{
    (void)data;
    exit(0);
}

static void test_children_that_only_exit(void **unused)
{
    (void)unused;
    SKIP_UNDER_TSAN();
    cf_executor *pool = processes_of(2);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(run_host(just_exit, NULL), 0);
        assert_works(pool);
    }
    end_pool(pool);
}

struct forker {
    atomic_bool over;
    atomic_int forks;
};

static void *fork_at_random(void *data)
{
    struct forker *forker = data;
    while (!atomic_load(&forker->over)) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
        atomic_fetch_add(&forker->forks, 1);
    }
    return NULL;
}

static void test_forks_at_any_moment(void **unused)
{
    (void)unused;
    SKIP_UNDER_TSAN();
    struct forker forker = { .over = false };
    pthread_t thread = start_thread(fork_at_random, &forker);
    int64_t begun = cfi_now();
    int wanted = is_long_run() ? 1000 : 50;
    while (atomic_load(&forker.forks) < wanted || is_time_left(begun)) {
        cf_executor *pool = processes_of(2);
        for (int i = 0; i < 200; i++)
            assert_works(pool);
        assert_ends(submit_way(pool, BY_KILL), CF_BROKEN);
        end_pool(pool);
    }
    atomic_store(&forker.over, true);
    join_thread(thread);
    assert_checks();
}

/* ---- the host has threads ---- */

static void *make_in_thread(void *data)
{
    *(cf_executor **)data = processes_of(2);
    assert_works(*(cf_executor **)data);
    return NULL;
}

/* Who made the pool may go: it belongs to the process. */
static void test_the_thread_that_made_the_pool_ends(void **unused)
{
    (void)unused;
    cf_executor *pool = NULL;
    pthread_t thread = start_thread(make_in_thread, &pool);
    join_thread(thread);
    for (int i = 0; i < 20; i++)
        assert_works(pool);
    cf_future *f[2] = { busy(pool), busy(pool) };
    cell_set(OPENED, 1);
    assert_ends(f[0], CF_OK);
    assert_ends(f[1], CF_OK);
    end_pool(pool);
}

static atomic_bool hammering_is_over;

static void *hammer(void *data)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    FILE *null = fopen("/dev/null", "w");
    for (size_t i = 0; !atomic_load(&hammering_is_over); i++) {
        pthread_mutex_lock(&mutex);
        free(malloc(i % 5000));
        pthread_mutex_unlock(&mutex);
        fprintf(null, "%zu\n", i);
        setenv("HAMMERED", i % 2 ? "a" : "b", 1);
        if (i % 64 == 0)
            sched_yield();
    }
    fclose(null);
    return data;
}

static int use_what_threads_use(const void *arg, void *result)
{
    (void)arg, (void)result;
    free(malloc(3000));
    setenv("MINE", "yes", 1);
    FILE *null = fopen("/dev/null", "w");
    fprintf(null, "%d\n", 5);
    return fclose(null);
}

static void test_pools_made_while_threads_are_busy(void **unused)
{
    (void)unused;
    SKIP_UNDER_TSAN();
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    int pools = is_long_run() ? 200 : 15;
    atomic_store(&hammering_is_over, false);
    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(hammer, NULL);
    for (int i = 0; i < pools; i++) {
        cf_executor *pool = processes_of(2);
        cf_future *f[] = { submitted(pool, use_what_threads_use, NULL, 0, 0),
                           submitted(pool, use_what_threads_use, NULL, 0, 0) };
        assert_ends(f[0], CF_OK);
        assert_ends(f[1], CF_OK);
        end_pool(pool);
    }
    atomic_store(&hammering_is_over, true);
    for (int i = 0; i < THREADS; i++)
        join_thread(threads[i]);
}

/* ---- where the program lies, and with what rights ---- */

/* Without the board's variable: only a pool's images have that. */
static int run_program(const char *path, const char *mode, bool has_environment)
{
    static char *none[] = { NULL };
    char board_variable[64];
    int status = 0;
    pid_t pid = 0;
    char *argv[] = { (char *)(uintptr_t)path, (char *)(uintptr_t)mode, NULL };
    snprintf(board_variable, sizeof board_variable, "%s", getenv(BOARD_VARIABLE));
    unsetenv(BOARD_VARIABLE);
    int error = posix_spawn(&pid, path, NULL, NULL, argv, has_environment ? environ : none);
    setenv(BOARD_VARIABLE, board_variable, 1);
    assert_int_equal(error, 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void copy_this_program(const char *path)
{
    static char buffer[1 << 16];
    FILE *in = fopen("/proc/self/exe", "rb"), *out = fopen(path, "wb");
    assert_true(in && out);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        assert_int_equal(fwrite(buffer, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

static int be_deleted(const char *path)
{
    if (unlink(path) != 0 || chdir("/") != 0)
        return 2;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_executor *pool = make_pool(2, methods[i]);
        if (!all_checks_held() || run_twice(pool, 4) != 8)
            return 3;
        cf_executor_free(pool);
    }
    return 0;
}

static int be_privileged(void)
{
    cf_executor *pool = NULL;
    cf_status status = cf_process_pool_new(NULL, &pool);
    return status == CF_INVALID ? 0 : 3;
}

static void in_scratch(char path[64], const char *name, char dir[64])
{
    strcpy(dir, "/tmp/cfutures-host-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0755), 0);
    snprintf(path, 64, "%.40s/%s", dir, name);
    copy_this_program(path);
}

static void test_a_program_that_is_deleted(void **unused)
{
    (void)unused;
    char path[64], dir[64];
    in_scratch(path, "deleted", dir);
    assert_int_equal(run_program(path, "deleted", true), 0);
    rmdir(dir);
    assert_nobody_left();
}

static void test_a_program_without_an_environment(void **unused)
{
    (void)unused;
    char path[64], dir[64];
    in_scratch(path, "bare", dir);
    assert_int_equal(run_program(path, "deleted", false), 0);
    rmdir(dir);
    assert_nobody_left();
}

/* Whoever starts it has another user's rights at hand: no workers for him. */
static void test_a_program_with_anothers_rights(void **unused)
{
    (void)unused;
    enum { NOBODY = 65534 };
    char path[64], dir[64];
#if defined(CFI_ASAN) || defined(CFI_TSAN) /* which do not start there */
    skip();
#endif
    if (geteuid() != 0)
        skip();
    in_scratch(path, "setuid", dir);
    assert_int_equal(chown(path, NOBODY, NOBODY), 0);
    assert_int_equal(chmod(path, 04755), 0);
    int code = run_program(path, "setuid", true);
    unlink(path);
    rmdir(dir);
    assert_nobody_left();
    if (code == 77)
        skip();
    assert_int_equal(code, 0);
}

static int run_mode(const char *path, const char *mode)
{
    if (strcmp(mode, "deleted") == 0)
        return be_deleted(path);
    if (strcmp(mode, "setuid") == 0)
        return geteuid() == getuid() ? 77 : be_privileged();
    return 2;
}

int main(int argc, char **argv)
{
    begin_process_tests();
    if (argc == 2)
        return run_mode(argv[0], argv[1]);
    adopt_orphans();
    const struct CMUnitTest tests[] = {
        TALLIED(test_nobody_outlives_the_host),
        TALLIED(test_the_host_dies_at_any_moment),
        TALLIED(test_a_child_of_the_host_keeps_nobody_alive),
        TALLIED(test_an_interrupt_ends_the_program),
        TALLIED(test_an_interrupt_is_the_hosts),
        TALLIED(test_exit_waits_for_nobody),
        TALLIED(test_exit_without_a_shutdown),
        TALLIED(test_the_host_becomes_another_program),
        TALLIED(test_nothing_is_written_twice),
        TALLIED(test_dispositions_stay_as_they_are),
        TALLIED(test_a_host_that_reaps_every_child),
        TALLIED(test_a_host_with_many_signals),
        TALLIED(test_the_host_is_stopped_for_a_while),
        TALLIED(test_a_host_without_stdio),
        TALLIED(test_tasks_print_without_stdio),
        TALLIED(test_descriptors_close_on_exec),
        TALLIED(test_a_child_of_the_host),
        TALLIED(test_children_that_only_exit),
        TALLIED(test_forks_at_any_moment),
        TALLIED(test_the_thread_that_made_the_pool_ends),
        TALLIED(test_pools_made_while_threads_are_busy),
        TALLIED(test_a_program_that_is_deleted),
        TALLIED(test_a_program_without_an_environment),
        TALLIED(test_a_program_with_anothers_rights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
