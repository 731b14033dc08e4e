/* SPDX-License-Identifier: MIT */
/* How fast two processes can wake each other: one slot for a task, one for a result, and a futex or
 * (BENCH_EVENTFD) two eventfds, no spinning. */
#define _GNU_SOURCE
#include "../pool.h"
#include "sleeping.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#ifdef BENCH_EVENTFD
#define NAME "eventfd"
#else
#define NAME "futex"
#endif

struct bell {
    struct word word;
    int fd;
};

static struct {
    struct bell there, back;
    struct message arg, result;
} * shared;
static pid_t worker;

static const char *version(void)
{
    return "";
}

#ifdef BENCH_EVENTFD
static void make_bell(struct bell *bell)
{
    bell->fd = eventfd(0, EFD_CLOEXEC);
}
static void ring(struct bell *bell)
{
    eventfd_write(bell->fd, 1);
}
static void await(struct bell *bell, unsigned count)
{
    eventfd_t value;
    (void)count;
    eventfd_read(bell->fd, &value);
}
#else
static void make_bell(struct bell *bell)
{
    bell->fd = -1;
}
static void ring(struct bell *bell)
{
    atomic_fetch_add(&bell->word.value, 1);
    word_wake(&bell->word);
}
static void await(struct bell *bell, unsigned count)
{
    while (atomic_load(&bell->word.value) == count)
        word_sleep(&bell->word, count);
}
#endif

static unsigned rung; /* how often each bell was */

static void work(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned count = 0;; count++) {
        await(&shared->there, count);
        if (shared->arg.steps == BENCH_QUIT)
            _exit(0);
        bench_answer(&shared->arg, &shared->result);
        ring(&shared->back);
    }
}

static void open_pool(void)
{
    if (run.workers != 1)
        exit(2);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        bench_die("no memory");
    make_bell(&shared->there);
    make_bell(&shared->back);
    rung = 0;
    worker = fork();
    if (worker < 0)
        bench_die("no process");
    if (worker == 0)
        work();
}

static void submit(void *place, const struct message *arg)
{
    (void)place;
    shared->arg = *arg;
    ring(&shared->there);
}

static void collect(void *place, struct message *result)
{
    (void)place;
    await(&shared->back, rung++);
    *result = shared->result;
}

static void close_pool(void)
{
    submit(NULL, &(struct message){ .steps = BENCH_QUIT });
    waitpid(worker, NULL, 0);
    munmap(shared, sizeof(*shared));
}

const struct peer peer = {
    .name = NAME,
    .version = version,
    .open = open_pool,
    .close = close_pool,
    .cell_size = 1,
    .one_at_a_time = true,
    .submit = submit,
    .collect = collect,
};
