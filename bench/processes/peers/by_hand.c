/* SPDX-License-Identifier: MIT */
/* What is commonly written by hand: worker processes that read tasks and write results, through two
 * pipes each or (BENCH_SOCKETS) one socket pair.  One write for each task and each result; the parent
 * reads as many results as there are.  Results come back in order, so no number needs to travel. */
#define _GNU_SOURCE
#include "../pool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef BENCH_SOCKETS
#define NAME "socketpair"
#else
#define NAME "pipe"
#endif

#define MOST_WORKERS 16
#define WINDOW       256 /* tasks that a worker has at most: less than a pipe holds */
#define BUFFER       (1 << 20)

struct cell {
    struct message arg, result;
    struct worker *worker;
    bool done;
};

struct worker {
    pid_t pid;
    int to, from;
    struct cell *window[WINDOW];
    unsigned sent, received;
};

static struct worker workers[MOST_WORKERS];

static const char *version(void)
{
    return "";
}

/* ---- bytes; false: there is nobody at the other end ------------------------------------------ */

static bool write_all(int fd, const void *data, size_t size)
{
    for (const char *bytes = data; size > 0;) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* At least `least` of the `size` bytes, and more if they are there.  0: nobody. */
static size_t read_some(int fd, void *data, size_t least, size_t size)
{
    size_t got = 0;
    while (got < least) {
        ssize_t n = read(fd, (char *)data + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        got += (size_t)n;
    }
    return got;
}

static bool read_all(int fd, void *data, size_t size)
{
    return read_some(fd, data, size, size) == size;
}

/* ---- the worker ----------------------------------------------------------------------------- */

static void *room_for(size_t size)
{
    static void *data;
    static size_t room;
    if (size > room) {
        free(data);
        data = malloc(room = size);
    }
    return data;
}

static bool answer_large(int from, int to, const struct message *arg)
{
    size_t size = (size_t)arg->number;
    void *data = room_for(size);
    struct message result = { .number = arg->number };
    if (arg->steps == BENCH_FETCH) {
        bench_fill(data, size);
        return write_all(to, data, size);
    }
    if (!read_all(from, data, size))
        return false;
    result.number = (int64_t)bench_read(data, size);
    return write_all(to, &result, sizeof(result));
}

static void work(int from, int to)
{
    struct message arg, result;
    bool go_on = true;
    while (go_on && read_all(from, &arg, sizeof(arg))) {
        if (arg.steps == BENCH_SEND || arg.steps == BENCH_FETCH) {
            go_on = answer_large(from, to, &arg);
        } else {
            bench_answer(&arg, &result);
            go_on = write_all(to, &result, sizeof(result));
        }
    }
    _exit(0);
}

/* ---- the parent ----------------------------------------------------------------------------- */

#ifdef BENCH_SOCKETS
static void make_channel(int parent[2], int child[2])
{
    int ends[2], size = BUFFER;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        bench_die("no socket");
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    parent[0] = ends[0], parent[1] = dup(ends[0]);
    child[0] = ends[1], child[1] = dup(ends[1]);
}
#else
static void make_channel(int parent[2], int child[2])
{
    int there[2], back[2];
    if (pipe(there) != 0 || pipe(back) != 0)
        bench_die("no pipe");
    fcntl(there[1], F_SETPIPE_SZ, BUFFER);
    fcntl(back[1], F_SETPIPE_SZ, BUFFER);
    parent[0] = back[0], parent[1] = there[1];
    child[0] = there[0], child[1] = back[1];
}
#endif

static void hang_up(struct worker *worker)
{
    if (worker->pid == 0)
        return;
    close(worker->to);
    close(worker->from);
}

static void start(struct worker *worker)
{
    int parent[2], child[2];
    make_channel(parent, child);
    worker->pid = 0;
    pid_t pid = fork();
    if (pid < 0)
        bench_die("no process");
    if (pid == 0) {
        for (int i = 0; i < run.workers; i++)
            hang_up(&workers[i]); /* or they would never see their end */
        close(parent[0]);
        close(parent[1]);
        work(child[0], child[1]);
    }
    close(child[0]);
    close(child[1]);
    worker->pid = pid;
    worker->from = parent[0];
    worker->to = parent[1];
}

static void open_pool(void)
{
    if (run.workers > MOST_WORKERS)
        bench_die("too many workers");
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < run.workers; i++)
        start(&workers[i]);
}

static void close_pool(void)
{
    for (int i = 0; i < run.workers; i++)
        hang_up(&workers[i]);
    for (int i = 0; i < run.workers; i++)
        waitpid(workers[i].pid, NULL, 0);
    memset(workers, 0, sizeof(workers));
}

/* It has died: another one gets what it has not answered. */
static void replace(struct worker *worker)
{
    hang_up(worker);
    waitpid(worker->pid, NULL, 0);
    start(worker);
    for (unsigned i = worker->received; i != worker->sent; i++)
        if (!write_all(worker->to, &worker->window[i % WINDOW]->arg, sizeof(struct message)))
            bench_die("the new worker is gone too");
}

static unsigned in_hand(const struct worker *worker)
{
    return worker->sent - worker->received;
}

static void receive(struct worker *worker)
{
    struct message results[WINDOW];
    size_t waiting = in_hand(worker) * sizeof(struct message);
    size_t got = read_some(worker->from, results, sizeof(struct message), waiting);
    if (got == 0) {
        replace(worker);
        return;
    }
    size_t rest = got % sizeof(struct message);
    if (rest != 0 && !read_all(worker->from, (char *)results + got, sizeof(struct message) - rest))
        bench_die("half a result");
    size_t count = (got + sizeof(struct message) - 1) / sizeof(struct message);
    for (size_t i = 0; i < count; i++) {
        struct cell *cell = worker->window[worker->received++ % WINDOW];
        cell->result = results[i];
        cell->done = true;
    }
}

static void receive_any(void)
{
    struct pollfd fds[MOST_WORKERS];
    if (run.workers == 1) {
        receive(&workers[0]);
        return;
    }
    for (int i = 0; i < run.workers; i++)
        fds[i] = (struct pollfd){ .fd = workers[i].from, .events = POLLIN };
    if (poll(fds, (nfds_t)run.workers, -1) < 0 && errno != EINTR)
        bench_die("poll");
    for (int i = 0; i < run.workers; i++)
        if (fds[i].revents != 0)
            receive(&workers[i]);
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
    for (; in_hand(worker) == WINDOW; worker = least_busy())
        receive_any();
    cell->arg = *arg;
    cell->done = false;
    worker->window[worker->sent++ % WINDOW] = cell;
    if (!write_all(worker->to, arg, sizeof(*arg)))
        replace(worker);
}

static void collect(void *place, struct message *result)
{
    struct cell *cell = place;
    while (!cell->done)
        receive_any();
    *result = cell->result;
}

static uint64_t send_large(const void *data, size_t size)
{
    struct message arg = { .number = (int64_t)size, .steps = BENCH_SEND }, result;
    if (!write_all(workers[0].to, &arg, sizeof(arg)) || !write_all(workers[0].to, data, size) ||
        !read_all(workers[0].from, &result, sizeof(result)))
        bench_die("the worker is gone");
    return (uint64_t)result.number;
}

static uint64_t fetch_large(size_t size)
{
    struct message arg = { .number = (int64_t)size, .steps = BENCH_FETCH };
    void *data = malloc(size);
    if (data == NULL || !write_all(workers[0].to, &arg, sizeof(arg)) ||
        !read_all(workers[0].from, data, size))
        bench_die("the worker is gone");
    uint64_t sum = bench_read(data, size);
    free(data);
    return sum;
}

const struct peer peer = {
    .name = NAME,
    .version = version,
    .open = open_pool,
    .close = close_pool,
    .cell_size = sizeof(struct cell),
    .replaces = true,
    .submit = submit,
    .collect = collect,
    .send = send_large,
    .fetch = fetch_large,
};
