/* SPDX-License-Identifier: MIT */
/* Workers that die, hang and go mad: it costs the task that did it and no other, its future says
 * how, and the pool goes on. */
#define _GNU_SOURCE
#include "process_support.h"

#include <sys/socket.h>

/* More memory than there is shall be refused, not reported. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void assert_death(cf_future *f, const struct death *death)
{
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
    const cf_error *error = cf_future_exception(f);
    assert_int_equal(error->status, CF_BROKEN);
    if (error->signal_number != death->signal_number || error->exit_code != death->exit_code)
        fail_msg("way %d: signal %d, exit code %d: %s", (int)death->way, error->signal_number,
                 error->exit_code, error->message);
    assert_true(error->worker_pid > 0);
    assert_int_equal(error->out_of_memory, 0);
    assert_int_not_equal(strlen(error->message), 0);
    assert_true(cf_future_done(f));
    assert_false(cf_future_cancelled(f));
    cf_future_unref(f);
}

/* ---- by itself ---- */

static void test_each_death_costs_one_task(void **unused)
{
    (void)unused;
    enum { OTHERS = 30 };
    const int ran = FREE_CELLS;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_restarts = 100));
    for (size_t way = 0; way < WAYS; way++) {
        cf_future *others[OTHERS], *dying = NULL;
        clear_board();
        for (int i = 0; i < OTHERS; i++) {
            if (i == OTHERS / 2)
                dying = submit_way(pool, (enum way)way);
            others[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
        }
        assert_death(dying, &all_deaths[way]);
        for (int i = 0; i < OTHERS; i++)
            assert_ends(others[i], CF_OK);
        assert_int_equal(cell_now(FREE_CELLS), OTHERS);
        assert_int_equal(cell_now(RAN), 1);
        assert_works(pool);
    }
    end_pool(pool);
}

static void test_deaths_under_each_start_method(void **unused)
{
    (void)unused;
    static const cf_start_method methods[] = { CF_START_FORK_SERVER, CF_START_FORK,
                                               CF_START_SPAWN };
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_executor *pool =
            processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .start_method = methods[i]));
        assert_death(submit_way(pool, BY_SEGV), &all_deaths[BY_SEGV]);
        assert_death(submit_way(pool, BY_EXIT_3), &all_deaths[BY_EXIT_3]);
        assert_works(pool);
        end_pool(pool);
    }
}

/* Its thread ends, but not its process: nobody is left to do the task. */
static int end_the_thread(const void *arg, void *result)
{
    (void)arg, (void)result;
    pthread_exit(NULL);
}

static void test_a_task_ends_its_thread(void **unused)
{
    (void)unused;
    SKIP_UNDER_TSAN();
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, end_the_thread, NULL, 0, 0);
    assert_ends(f, CF_BROKEN);
    assert_works(pool);
    end_pool(pool);
}

/* A large argument, a large result, and death in the middle of making it. */
static int die_in_the_middle(const void *arg, size_t arg_size, cf_bytes *result)
{
    if (cf_bytes_resize(result, arg_size) != CF_OK)
        return 1;
    memcpy(result->data, arg, arg_size / 2);
    die(BY_KILL);
    return 0;
}

static int copy_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    if (cf_bytes_resize(result, arg_size) != CF_OK)
        return 1;
    memcpy(result->data, arg, arg_size);
    return 0;
}

static void test_deaths_with_much_in_hand(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 10, 5000, 60000, 300000, 5000000 };
    char *bytes = calloc(1, 5000000);
    assert_non_null(bytes);
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_restarts = 1000));
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            cf_future *dying = NULL, *others[6];
            for (size_t j = 0; j < COUNT_OF(others); j++) {
                if (j == 3)
                    assert_int_equal(
                        cf_submit_bytes(pool, die_in_the_middle, bytes, sizes[i], &dying), CF_OK);
                assert_int_equal(cf_submit_bytes(pool, copy_bytes, bytes, sizes[i], &others[j]),
                                 CF_OK);
            }
            assert_death(dying, &all_deaths[BY_KILL]);
            for (size_t j = 0; j < COUNT_OF(others); j++) {
                size_t size = 0;
                assert_int_equal(cf_future_peek(others[j], LIMIT, NULL, &size), CF_OK);
                assert_int_equal(size, sizes[i]);
                cf_future_unref(others[j]);
            }
        }
    }
    free(bytes);
    end_pool(pool);
}

/* ---- maps ---- */

static int die_at_element(const void *arg, void *result)
{
    int element = *(const int *)arg;
    if (element == 777)
        die(BY_ABORT);
    *(int *)result = 2 * element;
    return 0;
}

static void test_a_death_in_a_map(void **unused)
{
    (void)unused;
    enum { COUNT = 2000 };
    static int args[COUNT], results[COUNT];
    cf_executor *pool = processes_of(2);
    for (int i = 0; i < COUNT; i++)
        args[i] = i;
    assert_int_equal(CF_MAP(pool, die_at_element, args, COUNT, results, CF_FOREVER), CF_BROKEN);
    assert_int_equal(cf_last_error()->index, 777);
    assert_int_equal(cf_last_error()->signal_number, SIGABRT);
    assert_int_equal(CF_MAP(pool, die_at_element, args, 777, results, CF_FOREVER), CF_OK);
    for (int i = 0; i < 777; i++)
        assert_int_equal(results[i], 2 * i);
    end_pool(pool);
}

/* ---- killed from outside ---- */

static void test_a_running_worker_is_killed(void **unused)
{
    (void)unused;
    enum { TASKS = 8 };
    cf_future *f[TASKS];
    cf_executor *pool = processes_of(2);
    for (int i = 0; i < TASKS; i++)
        f[i] = submitted(pool, wait_for_opening, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 2));
    int pid = cell_now(WORKER);
    kill(pid, SIGKILL);
    assert_int_equal(cf_wait(f, TASKS, CF_FIRST_EXCEPTION, LIMIT, NULL), CF_OK);
    cell_set(OPENED, 1);
    int killed = 0;
    for (int i = 0; i < TASKS; i++) {
        cf_status status = cf_future_result(f[i], LIMIT, NULL, 0);
        if (status == CF_BROKEN) {
            killed++;
            assert_int_equal(cf_future_exception(f[i])->signal_number, SIGKILL);
            assert_int_equal(cf_future_exception(f[i])->worker_pid, pid);
        }
        cf_future_unref(f[i]);
    }
    assert_int_equal(killed, 1);
    assert_works(pool);
    end_pool(pool);
}

static int pid_of_a_worker(cf_executor *pool)
{
    int pid = 0;
    cf_future *f = submitted(pool, tell_pid, NULL, 0, sizeof pid);
    assert_int_equal(CF_RESULT(f, LIMIT, &pid), CF_OK);
    cf_future_unref(f);
    return pid;
}

/* Nothing ran: no task may pay for it. */
static void test_an_idle_worker_is_killed(void **unused)
{
    (void)unused;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_restarts = 1000));
    for (int i = 0; i < 20; i++) {
        int pid = pid_of_a_worker(pool);
        kill(pid, SIGKILL);
        while (i % 2 ? !has_gone(pid) : is_alive(pid))
            sched_yield();
        assert_works(pool); /* also before the pool has heard of the death */
    }
    end_pool(pool);
}

/* A task that was sent, but not begun, costs nothing, however often its worker dies. */
static void test_tasks_not_begun_survive(void **unused)
{
    (void)unused;
    enum { TASKS = 300 };
    cf_future *f[TASKS];
    const int ran = RAN;
    cf_executor *pool = processes_of(1);
    cf_future *running = busy(pool);
    for (int i = 0; i < TASKS; i++)
        f[i] = submitted(pool, raise_cell, &ran, sizeof ran, 0);
    kill(cell_now(WORKER), SIGKILL);
    assert_ends(running, CF_BROKEN);
    for (int i = 0; i < TASKS; i++)
        assert_ends(f[i], CF_OK);
    assert_int_equal(cell_now(RAN), TASKS);
    end_pool(pool);
}

struct killer {
    atomic_bool over;
    atomic_int kills;
};

static void *kill_workers(void *data)
{
    struct killer *killer = data;
    while (!atomic_load(&killer->over)) {
        int pid = atomic_exchange(&board->cell[WORKER], 0);
        if (pid > 0 && kill(pid, SIGKILL) == 0)
            atomic_fetch_add(&killer->kills, 1);
        usleep(3000);
    }
    return NULL;
}

static int tell_worker(const void *arg, void *result)
{
    cell_set(WORKER, (int)getpid());
    cell_raise(RAN);
    *(int *)result = *(const int *)arg;
    return 0;
}

/* Workers are killed at any moment, and leave after so many tasks as well. */
static void test_kills_at_any_moment(void **unused)
{
    (void)unused;
    enum { TASKS = 4000 };
    static cf_future *f[TASKS];
    struct killer killer = { .over = false };
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_tasks_per_child = 50,
                                               .max_restarts = MOST_RESTARTS));
    pthread_t thread = start_thread(kill_workers, &killer);
    int broken = 0;
    for (int i = 0; i < TASKS; i++) {
        f[i] = submitted(pool, tell_worker, &i, sizeof i, sizeof i);
        if (i % 64 == 63)
            (void)cf_future_result(f[i - 32], LIMIT, NULL, 0);
    }
    for (int i = 0; i < TASKS; i++) {
        int value = -1;
        cf_status status = CF_RESULT(f[i], LIMIT, &value);
        if (status == CF_BROKEN)
            broken++;
        else if (status != CF_OK)
            fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
        else
            assert_int_equal(value, i);
        cf_future_unref(f[i]);
    }
    atomic_store(&killer.over, true);
    join_thread(thread);
    assert_true(broken <= atomic_load(&killer.kills));
    assert_true(cell_now(RAN) >= TASKS - broken);
    assert_true(cell_now(RAN) <= TASKS);
    assert_works(pool);
    end_pool(pool);
}

static void test_the_server_is_killed(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    for (int i = 0; i < 3; i++) {
        assert_works(pool);
        clear_board();
        cf_future *running = submitted(pool, wait_for_opening, NULL, 0, 0);
        assert_true(cell_reaches(CAME, 1));
        int server = parent_of(cell_now(WORKER));
        assert_int_not_equal(server, getpid());
        kill(server, SIGKILL);
        assert_ends(running, CF_BROKEN); /* it dies with the server */
        assert_works(pool);
    }
    end_pool(pool);
}

/* ---- stopped ---- */

static void test_a_stopped_worker_stops_nobody_else(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    cf_future *stuck = busy(pool);
    int pid = cell_now(WORKER);
    kill(pid, SIGSTOP);
    for (int i = 0; i < 50; i++)
        assert_works(pool);
    assert_int_equal(cf_future_result(stuck, CF_MS(50), NULL, 0), CF_TIMEOUT);
    cf_status status = cf_executor_shutdown(pool, CF_STOP_RUNNING, CF_MS(200));
    assert_true(status == CF_OK || status == CF_TIMEOUT);
    assert_ends(stuck, CF_STOPPED);
    end_pool(pool);
    assert_true(has_gone(pid));
}

/* Frozen and thawed, nobody has died: all results are right. */
static void test_all_workers_are_stopped_for_a_while(void **unused)
{
    (void)unused;
    enum { TASKS = 200 };
    cf_future *f[TASKS];
    cf_executor *pool = processes_of(1);
    int pid = pid_of_a_worker(pool);
    kill(pid, SIGSTOP);
    for (int i = 0; i < TASKS; i++)
        f[i] = submitted(pool, tell_pid, NULL, 0, sizeof(int));
    assert_int_equal(cf_wait(f, TASKS, CF_ALL_COMPLETED, CF_MS(300), NULL), CF_TIMEOUT);
    kill(pid, SIGCONT);
    for (int i = 0; i < TASKS; i++) {
        int other = 0;
        assert_int_equal(CF_RESULT(f[i], LIMIT, &other), CF_OK);
        assert_int_equal(other, pid);
        cf_future_unref(f[i]);
    }
    end_pool(pool);
}

/* ---- mad ---- */

static int close_all(const void *arg, void *result)
{
    (void)arg, (void)result;
    cell_raise(CAME);
    for (int fd = 0; fd < 1000; fd++)
        close(fd);
    return 0;
}

static int write_to_all(const void *arg, void *result)
{
    (void)result;
    static const char garbage[5000] = "garbage";
    static const size_t sizes[] = { 1, 8, 700, 704, sizeof garbage };
    for (int fd = 3; fd < 100; fd++) {
        int type;
        socklen_t size = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0)
            (void)!send(fd, garbage, sizes[*(const int *)arg % 5], MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            (void)!write(fd, garbage, sizes[*(const int *)arg % 5]);
    }
    return 0;
}

static int shut_all_down(const void *arg, void *result)
{
    (void)result;
    for (int fd = 0; fd < 100; fd++)
        (void)shutdown(fd, *(const int *)arg % 3);
    return 0;
}

static int replace_all(const void *arg, void *result)
{
    (void)arg, (void)result;
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 100; fd++) {
        if (fd != null)
            (void)dup2(null, fd);
    }
    return 0;
}

static int read_from_all(const void *arg, void *result)
{
    (void)arg, (void)result;
    char buffer[5000];
    for (int fd = 0; fd < 100; fd++) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        (void)!read(fd, buffer, sizeof buffer);
    }
    return 0;
}

/* Whatever a task does with descriptors, it is done or fails, and the next ones are not harmed. */
static void test_tasks_wreck_descriptors(void **unused)
{
    (void)unused;
    cf_fn *const wrecks[] = { close_all, write_to_all, shut_all_down, replace_all, read_from_all };
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_restarts = 1000));
    for (int i = 0; i < 50; i++) {
        cf_future *f = submitted(pool, wrecks[i % 5], &i, sizeof i, 0);
        cf_status status = cf_future_result(f, LIMIT, NULL, 0);
        if (status != CF_OK && status != CF_BROKEN)
            fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
        cf_future_unref(f);
        /* One that is sent to the wreck may fail with it, one later may not. */
        f = submitted(pool, tell_pid, NULL, 0, sizeof(int));
        (void)cf_future_result(f, LIMIT, NULL, 0);
        assert_true(cf_future_done(f));
        cf_future_unref(f);
    }
    end_pool(pool);
}

/* What a task leaves changed in its process changes nothing in the host, and not in other workers. */
static int change_process(const void *arg, void *result)
{
    (void)arg, (void)result;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    umask(0);
    setenv("CHANGED", "yes", 1);
    (void)!nice(5);
    (void)setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 64, 64 });
    (void)signal(SIGTERM, SIG_IGN);
    (void)setpgid(0, 0);
    return chdir("/");
}

static void test_tasks_change_their_process(void **unused)
{
    (void)unused;
    char before[PATH_MAX], after[PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    mode_t mask = umask(022);
    cf_executor *pool = processes_of(1);
    assert_ends(submitted(pool, change_process, NULL, 0, 0), CF_OK);
    assert_works(pool);
    cf_future *f = submitted(pool, spin, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 1));
    assert_true(cf_future_stop(f, 0)); /* it can still be stopped */
    assert_ends(f, CF_STOPPED);
    assert_works(pool);
    end_pool(pool);
    assert_non_null(getcwd(after, sizeof after));
    assert_string_equal(after, before);
    assert_int_equal(umask(mask), 022);
    assert_null(getenv("CHANGED"));
}

/* ---- children of tasks ---- */

/* A grandchild that holds all that its parent had. */
static int leave_a_child(const void *arg, void *result)
{
    (void)arg;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        cell_reaches(OPENED, 1);
        _exit(0);
    }
    *(int *)result = (int)pid;
    return pid > 0 ? 0 : 1;
}

static int leave_a_child_and_die(const void *arg, void *result)
{
    int pid = 0;
    (void)result;
    if (leave_a_child(arg, &pid) == 0)
        cell_set(WORKER, pid);
    die(BY_SEGV);
    return 0;
}

static void test_children_of_tasks(void **unused)
{
    (void)unused;
    int pid = 0;
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, leave_a_child, NULL, 0, sizeof pid);
    assert_int_equal(CF_RESULT(f, LIMIT, &pid), CF_OK);
    cf_future_unref(f);
    f = submitted(pool, leave_a_child_and_die, NULL, 0, 0);
    assert_death(f, &all_deaths[BY_SEGV]); /* though its child still holds the channel */
    assert_works(pool);
    end_pool(pool); /* nor does that wait for them */
    cell_set(OPENED, 1);
    assert_nobody_left();
}

static int child_returns(const void *arg, void *result)
{
    fflush(NULL);
    if (fork() == 0)
        return 0; /* the child goes on as if it were the worker */
    return tell_pid(arg, result);
}

static void test_a_child_that_comes_back_from_its_task(void **unused)
{
    (void)unused;
    int pid = 0;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_restarts = 100));
    for (int i = 0; i < 5; i++) {
        cf_future *f = submitted(pool, child_returns, NULL, 0, sizeof pid);
        cf_status status = CF_RESULT(f, LIMIT, &pid);
        assert_true(status == CF_OK || status == CF_BROKEN);
        cf_future_unref(f);
        f = submitted(pool, tell_pid, NULL, 0, sizeof pid);
        (void)cf_future_result(f, LIMIT, NULL, 0);
        assert_true(cf_future_done(f));
        cf_future_unref(f);
    }
    end_pool(pool);
}

/* ---- messages ---- */

static int raise_much(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise(5, "%02000d", 1);
}

static void test_errors_that_are_too_long(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    cf_future *f = submitted(pool, raise_much, NULL, 0, 0);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_FAILED);
    assert_int_equal(strlen(cf_future_exception(f)->message), 511);
    cf_future_unref(f);
    assert_works(pool);
    end_pool(pool);
}

/* Results larger than there is memory for: that task fails. */
static int ask_for_too_much(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    cf_status status = cf_bytes_resize(result, SIZE_MAX / 2);
    return status == CF_OK ? 0 : cf_raise(6, "%s", cf_status_name(status));
}

static void test_bytes_beyond_all_memory(void **unused)
{
    (void)unused;
    cf_future *f = NULL;
    cf_executor *pool = processes_of(1);
    assert_int_equal(cf_submit_bytes(pool, ask_for_too_much, NULL, 0, &f), CF_OK);
    assert_int_equal(cf_future_peek(f, LIMIT, NULL, NULL), CF_FAILED);
    assert_string_equal(cf_future_exception(f)->message, "CF_NOMEM");
    cf_future_unref(f);
    assert_works(pool);
    end_pool(pool);
}

int main(void)
{
    begin_process_tests();
    adopt_orphans();
    const struct CMUnitTest tests[] = {
        TALLIED(test_each_death_costs_one_task),
        TALLIED(test_deaths_under_each_start_method),
        TALLIED(test_a_task_ends_its_thread),
        TALLIED(test_deaths_with_much_in_hand),
        TALLIED(test_a_death_in_a_map),
        TALLIED(test_a_running_worker_is_killed),
        TALLIED(test_an_idle_worker_is_killed),
        TALLIED(test_tasks_not_begun_survive),
        TALLIED(test_kills_at_any_moment),
        TALLIED(test_the_server_is_killed),
        TALLIED(test_a_stopped_worker_stops_nobody_else),
        TALLIED(test_all_workers_are_stopped_for_a_while),
        TALLIED(test_tasks_wreck_descriptors),
        TALLIED(test_tasks_change_their_process),
        TALLIED(test_children_of_tasks),
        TALLIED(test_a_child_that_comes_back_from_its_task),
        TALLIED(test_errors_that_are_too_long),
        TALLIED(test_bytes_beyond_all_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
