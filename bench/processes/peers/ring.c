/* SPDX-License-Identifier: MIT */
/* How fast it could be: rings in shared memory, and nothing else that a pool has to do.  No futures, no
 * functions to be found, nobody who notices a death; one thread submits, one process is one worker.
 * A result is copied to its cell. */
#define _GNU_SOURCE
#include "../pool.h"
#include "sleeping.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MOST_WORKERS 16
#define SLOTS        1024u
#define SPINS        200  /* enough to catch what comes at once                         */
#define LONG_SPINS   5000 /* longer than waking takes: where each process has its core */
#define HEAP         (64u << 20)

struct cell {
    struct message result;
    struct worker *worker;
    bool done;
};

struct shared {
    struct word sent, answered;
    struct message args[SLOTS], results[SLOTS];
    unsigned char heap[HEAP];
};

struct worker {
    pid_t pid;
    struct shared *shared;
    unsigned sent, received;
    struct cell *window[SLOTS];
};

static struct worker workers[MOST_WORKERS];
static int spins;

static const char *version(void)
{
    return "";
}

static void answer(struct shared *shared, const struct message *arg, struct message *result)
{
    size_t size = (size_t)arg->number;
    bench_answer(arg, result);
    if (arg->steps == BENCH_SEND)
        result->number = (int64_t)bench_read(shared->heap, size);
    if (arg->steps == BENCH_FETCH)
        bench_fill(shared->heap, size);
}

static void work(struct shared *shared)
{
    unsigned sent = 0, done = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        if (done == sent)
            sent = word_await(&shared->sent, done, spins);
        struct message arg = shared->args[done % SLOTS];
        if (arg.steps == BENCH_QUIT)
            _exit(0);
        answer(shared, &arg, &shared->results[done % SLOTS]);
        word_set(&shared->answered, ++done);
    }
}

static void start(struct worker *worker)
{
    worker->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    worker->pid = worker->shared == MAP_FAILED ? -1 : fork();
    if (worker->pid < 0)
        bench_die("no process");
    if (worker->pid == 0)
        work(worker->shared);
}

static void open_pool(void)
{
    if (run.workers > MOST_WORKERS)
        bench_die("too many workers");
    spins = run.workers < bench_cpu_count() ? LONG_SPINS : SPINS;
    for (int i = 0; i < run.workers; i++)
        start(&workers[i]);
}

static void put(struct worker *worker, struct cell *cell, const struct message *arg)
{
    worker->window[worker->sent % SLOTS] = cell;
    worker->shared->args[worker->sent % SLOTS] = *arg;
    word_set(&worker->shared->sent, ++worker->sent);
}

static void settle_until(struct worker *worker, unsigned answered)
{
    for (; worker->received != answered; worker->received++) {
        struct cell *cell = worker->window[worker->received % SLOTS];
        cell->result = worker->shared->results[worker->received % SLOTS];
        cell->done = true;
    }
}

static void await_results(struct worker *worker)
{
    settle_until(worker, word_await(&worker->shared->answered, worker->received, spins));
}

static void close_pool(void)
{
    struct message quit = { .steps = BENCH_QUIT };
    for (int i = 0; i < run.workers; i++)
        put(&workers[i], NULL, &quit);
    for (int i = 0; i < run.workers; i++) {
        waitpid(workers[i].pid, NULL, 0);
        munmap(workers[i].shared, sizeof(struct shared));
    }
    memset(workers, 0, sizeof(workers));
}

static unsigned in_hand(const struct worker *worker)
{
    return worker->sent - worker->received;
}

static struct worker *least_busy(void)
{
    struct worker *best = &workers[0];
    for (int i = 1; i < run.workers; i++)
        if (in_hand(&workers[i]) < in_hand(best))
            best = &workers[i];
    return best;
}

static void submit(void *place, const struct message *arg)
{
    struct cell *cell = place;
    struct worker *worker = least_busy();
    for (; in_hand(worker) == SLOTS; worker = least_busy())
        await_results(worker);
    cell->worker = worker;
    cell->done = false;
    put(worker, cell, arg);
}

static void collect(void *place, struct message *result)
{
    struct cell *cell = place;
    while (!cell->done)
        await_results(cell->worker);
    *result = cell->result;
}

static struct message ask(const struct message *arg)
{
    struct cell cell;
    struct message result;
    submit(&cell, arg);
    collect(&cell, &result);
    return result;
}

static uint64_t send_large(const void *data, size_t size)
{
    struct message arg = { .number = (int64_t)size, .steps = BENCH_SEND };
    if (size > HEAP)
        bench_die("too large");
    memcpy(workers[0].shared->heap, data, size);
    return (uint64_t)ask(&arg).number;
}

static uint64_t fetch_large(size_t size)
{
    struct message arg = { .number = (int64_t)size, .steps = BENCH_FETCH };
    if (size > HEAP)
        bench_die("too large");
    ask(&arg);
    return bench_read(workers[0].shared->heap, size);
}

const struct peer peer = {
    .name = "ring",
    .version = version,
    .open = open_pool,
    .close = close_pool,
    .cell_size = sizeof(struct cell),
    .submit = submit,
    .collect = collect,
    .send = send_large,
    .fetch = fetch_large,
};
