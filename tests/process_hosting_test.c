/* SPDX-License-Identifier: MIT */
/* A process pool whose processes a host makes: when they start, how their ends are known, and the calls
 * that only a host needs. */
#define _GNU_SOURCE
#include "process_support.h"

#include <sys/wait.h>

#ifdef CFI_TSAN /* it allows no fork beside threads */

int main(void)
{
    return 77;
}

#else

enum { STARTED = FREE_CELLS, LEFT, ASKED };

/* ---- a host that forks ---- */

static int start_fork(void *data, int channel, unsigned number, int *ret_pid)
{
    (void)data, (void)number;
    cell_raise(STARTED);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int status = cf_worker_run_channel(channel);
        cell_raise(LEFT); /* not if it was killed */
        _exit(status);
    }
    *ret_pid = (int)pid;
    return pid > 0 ? 0 : errno;
}

static int refuse(void *data, int channel, unsigned number, int *ret_pid)
{
    (void)data, (void)channel, (void)number, (void)ret_pid;
    return EMFILE;
}

static bool know_status(void *data, int pid, int *ret_status)
{
    (void)data, (void)pid;
    cell_raise(ASKED);
    *ret_status = 77 << 8;
    return true;
}

static const cf_host forks = { .size = sizeof forks, .start_process = start_fork };

static cf_executor *hosted(unsigned workers, const cf_host *host)
{
    return processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = workers, .host = host));
}

static void end(cf_executor *pool)
{
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    cf_executor_free(pool);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

/* ---- starting ---- */

static void test_workers_start_before_there_is_work(void **unused)
{
    (void)unused;
    cf_executor *pool = hosted(2, &forks);
    assert_int_equal(cf_process_pool_start_worker(pool), CF_OK);
    assert_int_equal(cf_process_pool_start_worker(pool), CF_OK);
    assert_int_equal(cf_process_pool_start_worker(pool), CF_FULL);
    assert_int_equal(cell_now(STARTED), 2);
    int value = 4, result = 0;
    cf_future *f = submitted(pool, twice, &value, sizeof value, sizeof value);
    assert_int_equal(CF_RESULT(f, LIMIT, &result), CF_OK);
    assert_int_equal(result, 8);
    cf_future_unref(f);
    assert_int_equal(cell_now(STARTED), 2);
    end(pool);
    assert_int_equal(cell_now(LEFT), 2);
}

static void test_workers_without_work_leave(void **unused)
{
    (void)unused;
    cf_executor *pool = hosted(3, &forks);
    assert_int_equal(cf_process_pool_start_worker(pool), CF_OK);
    end(pool);
    assert_int_equal(cell_now(LEFT), 1);
}

static void test_starting_is_refused(void **unused)
{
    (void)unused;
    const cf_host refuses = { .size = sizeof refuses, .start_process = refuse };
    cf_executor *pool = hosted(1, &refuses), *threads = NULL;
    assert_int_equal(cf_process_pool_start_worker(pool), CF_SYSTEM);
    assert_int_equal(cf_last_error()->code, EMFILE);
    end(pool);
    assert_int_equal(cf_thread_pool_new(NULL, &threads), CF_OK);
    assert_int_equal(cf_process_pool_start_worker(threads), CF_INVALID);
    assert_int_equal(cf_process_pool_start_worker(NULL), CF_INVALID);
    cf_executor_free(threads);
    pool = hosted(1, &forks);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    assert_int_equal(cf_process_pool_start_worker(pool), CF_SHUTDOWN);
    cf_executor_free(pool);
}

/* ---- ends ---- */

static int leave(const void *arg, void *result)
{
    (void)arg, (void)result;
    _exit(3);
}

static int exit_code_of_leave(cf_executor *pool)
{
    cf_future *f = submitted(pool, leave, NULL, 0, 0);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
    int code = cf_future_exception(f)->exit_code;
    cf_future_unref(f);
    return code;
}

static void test_the_host_is_asked_how_a_worker_ended(void **unused)
{
    (void)unused;
    const cf_host knows = { .size = sizeof knows,
                            .start_process = start_fork,
                            .process_status = know_status };
    cf_executor *pool = hosted(1, &knows);
    assert_int_equal(exit_code_of_leave(pool), 3); /* a child tells it itself */
    assert_int_equal(cell_now(ASKED), 0);
    void (*former)(int) = signal(SIGCHLD, SIG_IGN); /* now they are gone at once */
    assert_int_equal(exit_code_of_leave(pool), 77);
    (void)signal(SIGCHLD, former);
    assert_true(cell_now(ASKED) > 0);
    end(pool);
}

static int fail_to_initialize(void *data)
{
    (void)data;
    return cf_raise(1, "no");
}

static void test_an_unfit_worker_leaves_before_the_pool_breaks(void **unused)
{
    (void)unused;
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .initializer = fail_to_initialize,
                                               .host = &forks));
    assert_false(cf_process_pool_is_broken(pool));
    cf_future *f = submitted(pool, leave, NULL, 0, 0);
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_BROKEN);
    assert_string_equal(cf_last_error()->message, "no");
    assert_int_equal(cell_now(LEFT), 1);
    assert_true(cf_process_pool_is_broken(pool));
    cf_future_unref(f);
    end(pool);
}

static void test_what_the_break_kills_names_the_first_death(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_with(
        CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .on_crash = CF_ON_CRASH_BREAK, .host = &forks));
    cf_future *held = submitted(pool, sleep_long, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 1));
    assert_int_equal(exit_code_of_leave(pool), 3);
    assert_int_equal(cf_future_result(held, LIMIT, NULL, 0), CF_BROKEN);
    assert_int_equal(cf_last_error()->exit_code, 3);
    cf_future_unref(held);
    end(pool);
    assert_int_equal(cell_now(STARTED), 2); /* nobody in their places */
}

/* ---- submitting what is not written yet ---- */

struct letter {
    size_t size;
    unsigned written;
};

static void write_letter(void *data, void *to)
{
    struct letter *letter = data;
    memset(to, 7, letter->size);
    letter->written++;
}

static int sum_bytes(const void *arg, size_t size, cf_bytes *result)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += ((const unsigned char *)arg)[i];
    if (cf_bytes_resize(result, sizeof sum) != CF_OK)
        return 1;
    memcpy(result->data, &sum, sizeof sum);
    return 0;
}

static void send_letter(cf_executor *pool, size_t size)
{
    struct letter letter = { .size = size };
    const cf_task task = { .size = sizeof task, .bytes_fn = sum_bytes, .arg_size = size };
    cf_future *f = NULL;
    cf_bytes result = { NULL, 0 };
    assert_int_equal(cf_process_pool_submit(pool, &task, write_letter, &letter, &f), CF_OK);
    assert_int_equal(letter.written, 1);
    assert_int_equal(cf_future_take(f, LIMIT, &result, sizeof result), CF_OK);
    uint64_t sum;
    memcpy(&sum, result.data, sizeof sum);
    assert_int_equal(sum, 7 * size);
    cf_bytes_free(&result);
    cf_future_unref(f);
}

static void test_arguments_are_written_where_they_travel(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 0, 1, 80, 81, 256, 257, 65536, 65537, 3000000 };
    cf_executor *pool = hosted(2, &forks);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        send_letter(pool, sizes[i]);
    const cf_task none = { .size = sizeof none };
    struct letter letter = { .size = 0 };
    cf_future *f = NULL;
    assert_int_equal(cf_process_pool_submit(pool, &none, write_letter, &letter, &f), CF_INVALID);
    assert_int_equal(cf_process_pool_submit(NULL, &none, write_letter, &letter, &f), CF_INVALID);
    assert_int_equal(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT), CF_OK);
    const cf_task task = { .size = sizeof task, .bytes_fn = sum_bytes, .arg_size = 1000 };
    letter.size = 1000;
    assert_int_equal(cf_process_pool_submit(pool, &task, write_letter, &letter, &f), CF_SHUTDOWN);
    assert_int_equal(cf_process_pool_unfinished(pool), 0);
    end(pool);
}

static void test_unfinished_tasks_are_counted(void **unused)
{
    (void)unused;
    cf_executor *pool = hosted(1, &forks);
    cf_future *f = submitted(pool, sleep_long, NULL, 0, 0);
    assert_true(cell_reaches(CAME, 1));
    assert_int_equal(cf_process_pool_unfinished(pool), 1);
    assert_int_equal(cf_process_pool_unfinished(NULL), 0);
    assert_true(cf_future_stop(f, 0));
    assert_int_equal(cf_future_result(f, LIMIT, NULL, 0), CF_STOPPED);
    cf_future_unref(f);
    end(pool);
}

int main(void)
{
    begin_process_tests();
    const struct CMUnitTest tests[] = {
        TALLIED(test_workers_start_before_there_is_work),
        TALLIED(test_workers_without_work_leave),
        TALLIED(test_starting_is_refused),
        TALLIED(test_the_host_is_asked_how_a_worker_ended),
        TALLIED(test_an_unfit_worker_leaves_before_the_pool_breaks),
        TALLIED(test_what_the_break_kills_names_the_first_death),
        TALLIED(test_arguments_are_written_where_they_travel),
        TALLIED(test_unfinished_tasks_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
