/* SPDX-License-Identifier: MIT */
/* Tasks that crash, leave, or never end.  In a worker process that is a task's own affair: its
 * future says what has become of it, the others do not notice, and a new worker takes the place of
 * the old one. */
#include "common.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum deed { NEVER_END, FINISH_LATE, CRASH, CALL_EXIT, FAIL, FINISH, DEEDS };

static const char *const names[DEEDS] = { "never ends", "finishes late", "crashes",
                                          "calls exit", "fails",         "finishes" };

static void crash(void)
{
    char *volatile nowhere = (char *)1;
    *nowhere = 1;
}

static int task(const void *arg, void *result)
{
    enum deed deed = *(const enum deed *)arg;
    while (deed == NEVER_END)
        pause();
    if (deed == FINISH_LATE)
        sleep_for(0.1);
    if (deed == CRASH)
        crash();
    if (deed == CALL_EXIT)
        exit(3);
    if (deed == FAIL)
        return cf_raise(EDOM, "not with this argument");
    *(int *)result = 42;
    return 0;
}

static void print_error(const cf_error *error)
{
    printf("%s: %s\n", cf_status_name(error->status), error->message);
    if (error->signal_number != 0 || error->exit_code != -1)
        printf("    worker_pid %d, signal_number %d, exit_code %d\n", error->worker_pid,
               error->signal_number, error->exit_code);
}

/* Six tasks on two workers, of which three do not survive. */
static void post_mortem(void)
{
    cf_auto_executor *executor = NULL;
    cf_future *futures[DEEDS];
    cf_completed *completed;
    size_t i;
    TRY(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 2), &executor));
    for (int deed = 0; deed < DEEDS; deed++)
        TRY(cf_submit_task(executor,
                           CF_TASK(.fn = task, .arg = &deed, .arg_size = sizeof deed,
                                   .result_size = sizeof(int),
                                   .run_limit_ns = deed == NEVER_END ? CF_SECONDS(0.5) : 0),
                           &futures[deed]));
    TRY(cf_as_completed(futures, DEEDS, CF_FOREVER, &completed));
    while (cf_completed_next(completed, &i) == CF_OK) {
        int result;
        printf("task %zu %s: ", i, names[i]);
        if (CF_RESULT(futures[i], 0, &result) == CF_OK)
            printf("%d\n", result);
        else
            print_error(cf_future_exception(futures[i]));
    }
    cf_completed_free(completed);
    cf_future_unref_all(futures, DEEDS);
}

/* A task that crashes at first.  It counts its attempts in a file: what a worker has in its memory
 * dies with it. */
struct work {
    char path[64];
    int crashes;
};

static int work_at_last(const void *arg, void *result)
{
    const struct work *work = arg;
    struct stat status;
    int file = open(work->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    bool is_counted = write(file, "x", 1) == 1 && fstat(file, &status) == 0;
    close(file);
    if (!is_counted)
        return cf_raise(errno, "%s: %s", work->path, strerror(errno));
    if (status.st_size <= work->crashes)
        crash();
    *(int *)result = (int)status.st_size;
    return 0;
}

static void retry(cf_executor *executor, int crashes)
{
    struct work work = { "/tmp/attempts_XXXXXX", crashes };
    cf_auto_future *future = NULL;
    int attempts, file = mkstemp(work.path);
    if (file < 0) {
        perror(work.path);
        exit(1);
    }
    close(file);
    TRY(CF_SUBMIT(executor, work_at_last, &work, int, &future));
    printf("two retries, and it crashes %d times: ", crashes);
    if (CF_RESULT(future, CF_FOREVER, &attempts) == CF_OK)
        printf("done at attempt %d\n", attempts);
    else
        print_error(cf_future_exception(future));
    unlink(work.path);
}

int main(void)
{
    cf_worker_main();
    post_mortem();
    cf_auto_executor *executor = NULL;
    TRY(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .max_retries = 2),
                            &executor));
    retry(executor, 0);
    retry(executor, 2);
    retry(executor, 3);
    return 0;
}
