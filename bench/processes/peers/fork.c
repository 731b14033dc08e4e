/* SPDX-License-Identifier: MIT */
/* A process for each task, at most as many at once as there shall be workers.  It sees its argument,
 * as it sees all memory of its parent, and writes its result to memory that both have. */
#define _GNU_SOURCE
#include "../pool.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_WORKERS 16

struct cell {
    struct message result;
    bool done;
};

static struct {
    pid_t pid; /* 0: free */
    struct cell *cell;
} children[MOST_WORKERS];
static struct message *answers; /* one for each child */

static const char *version(void)
{
    return "";
}

static void *shared(size_t size)
{
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        bench_die("no memory");
    return data;
}

static void open_pool(void)
{
    if (run.workers > MOST_WORKERS)
        bench_die("too many workers");
    answers = shared(MOST_WORKERS * sizeof(*answers));
}

static void close_pool(void)
{
    munmap(answers, MOST_WORKERS * sizeof(*answers));
}

static int child_with(pid_t pid)
{
    for (int i = 0; i < run.workers; i++)
        if (children[i].pid == pid)
            return i;
    return -1;
}

static void reap(void)
{
    int i = child_with(waitpid(-1, NULL, 0));
    if (i < 0)
        bench_die("no child");
    children[i].pid = 0;
    children[i].cell->result = answers[i];
    children[i].cell->done = true;
}

static pid_t fork_child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        bench_die("no process");
    return pid;
}

static void submit(void *place, const struct message *arg)
{
    struct cell *cell = place;
    int i;
    while ((i = child_with(0)) < 0)
        reap();
    cell->done = false;
    pid_t pid = fork_child();
    if (pid == 0) {
        bench_answer(arg, &answers[i]);
        _exit(0);
    }
    children[i].pid = pid;
    children[i].cell = cell;
}

static void collect(void *place, struct message *result)
{
    struct cell *cell = place;
    while (!cell->done)
        reap();
    *result = cell->result;
}

static uint64_t send_large(const void *data, size_t size)
{
    pid_t pid = fork_child();
    if (pid == 0) {
        answers[0].number = (int64_t)bench_read(data, size);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return (uint64_t)answers[0].number;
}

static uint64_t fetch_large(size_t size)
{
    void *data = shared(size);
    pid_t pid = fork_child();
    if (pid == 0) {
        bench_fill(data, size);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    uint64_t sum = bench_read(data, size);
    munmap(data, size);
    return sum;
}

const struct peer peer = {
    .name = "fork",
    .version = version,
    .open = open_pool,
    .close = close_pool,
    .cell_size = sizeof(struct cell),
    .submit = submit,
    .collect = collect,
    .send = send_large,
    .fetch = fetch_large,
};
