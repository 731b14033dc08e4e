/* SPDX-License-Identifier: MIT */
/* The lives of the workers: a channel is made, the fork server is asked for a process, it is born, says
 * that it is ready, and some day it dies: because it was told to quit, or because of a task.
 *
 * A death is seen by the worker's pidfd; how it died, by what the fork server says of it, a moment
 * later.  At once what the dead one had not begun goes back to the queue and a new one is started; the
 * task that it ran waits in a struct cfi_death until the status is known, or a tenth of a second has
 * passed. */
#define _GNU_SOURCE
#include "pool.h"

#include "../base/oom.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_AGAIN_NS = 100000000, STATUS_WAIT_NS = 2000000000, MOST_MESSAGES = 4096 };

/* ---- making a channel ---- */

static struct cfi_child *child_new(struct cfi_process_pool *pool, unsigned index)
{
    struct cfi_child *c = aligned_alloc(CFI_CACHE_LINE, sizeof *c);
    if (!c)
        return NULL;
    memset(c, 0, sizeof *c);
    c->pool = pool;
    c->index = index;
    c->socket = c->eventfd = c->pidfd = -1;
    return c;
}

/* Descriptors below 3 are the program's, even when it has closed them. */
static int high_descriptor(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int error = errno;
    (void)close(fd);
    errno = error;
    return high;
}

/* A new arena in the place of the old one, so that its address never changes. */
static int new_arena(struct cfi_child *c, int *ret_fd)
{
    void *data;
    int error = cfi_memory_new("cfutures channel", sizeof *c->arena, false, ret_fd, &data);
    if (error)
        return error;
    if (c->arena && mremap(data, sizeof *c->arena, sizeof *c->arena, MREMAP_MAYMOVE | MREMAP_FIXED,
                           c->arena) == MAP_FAILED) {
        error = errno;
        (void)munmap(data, sizeof *c->arena);
        (void)close(*ret_fd);
        return error;
    }
    if (!c->arena)
        c->arena = data;
    return 0;
}

static int new_sockets(struct cfi_child *c, int *ret_theirs)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return errno;
    c->socket = high_descriptor(pair[0]);
    *ret_theirs = high_descriptor(pair[1]);
    c->eventfd = high_descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (c->socket < 0 || *ret_theirs < 0 || c->eventfd < 0 ||
        fcntl(c->socket, F_SETFL, O_NONBLOCK) != 0)
        return errno ? errno : EMFILE;
    return 0;
}

static void tell_function(struct cfi_child *c, const struct cfi_identity *function)
{
    c->arena->images[function->image] = *cfi_image_name(function->image);
    c->images |= UINT64_C(1) << function->image;
}

static int send_welcome(struct cfi_child *c, int arena_fd)
{
    struct cfi_process_pool *pool = c->pool;
    struct cfi_message m = { .type = CFI_WELCOME,
                             .version = CFI_CHANNEL_VERSION,
                             .size = sizeof *c->arena,
                             .number = c->index,
                             .has_initializer = pool->options.initializer != NULL,
                             .has_finalizer = pool->options.finalizer != NULL,
                             .initializer = pool->initializer,
                             .finalizer = pool->finalizer,
                             .data_size = pool->options.initializer_data_size };
    snprintf(m.text, sizeof m.text, "%s", pool->name);
    if (m.has_initializer)
        tell_function(c, &pool->initializer);
    if (m.has_finalizer)
        tell_function(c, &pool->finalizer);
    cfi_lock(&pool->server_lock); /* the server's descriptors may be another's soon */
    const int fds[] = { arena_fd, c->eventfd, pool->server.host, pool->data_fd };
    int error = cfi_message_send(c->socket, &m, fds, pool->data_fd >= 0 ? 4 : 3);
    cfi_unlock(&pool->server_lock);
    return error;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static void close_all_but_pidfd(struct cfi_child *c)
{
    close_one(&c->socket);
    close_one(&c->eventfd);
}

/* All that belongs to a life begins anew; nobody else uses the child while it is STARTING. */
static void begin_life(struct cfi_child *c)
{
    cfi_lock(
        &c->role); /* who still looks for a task of the former life sees all of it or nothing */
    cfi_store_relaxed(&c->seen, 0);
    cfi_store_relaxed(&c->sent, 0);
    cfi_store_relaxed(&c->pid, 0);
    cfi_store_relaxed(&c->heap_read, 0);
    cfi_store_relaxed(&c->condemned, false);
    cfi_store_relaxed(&c->is_dead, false);
    cfi_store_relaxed(&c->has_hung_up, false);
    cfi_store_relaxed(&c->asked, 0);
    memset(c->heap_ends, 0, sizeof c->heap_ends);
    c->heap_at = c->results_read = c->images = 0;
    c->eager = c->dry = c->attended = c->is_stuck = c->closed = false;
    c->said_ready = c->has_timed = c->signalled = false;
    c->tasks = 0;
    c->window = 2;
    c->stop_signal = 0;
    c->hung_up_at = 0;
    cfi_unlock(&c->role);
}

/* ---- asking for a process ---- */

static void has_process(struct cfi_child *c, pid_t pid, int pidfd)
{
    cfi_lock(&c->pool->lock);
    c->pidfd = pidfd;
    cfi_store_relaxed(&c->pid, (uint32_t)pid);
    cfi_unlock(&c->pool->lock);
}

static int ask_host(struct cfi_child *c, int theirs)
{
    int pid = 0, error;
    error = c->pool->host.start_process(c->pool->host.data, theirs, c->index, &pid);
    if (error)
        return error;
    int pidfd = high_descriptor((int)syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0)
        return errno; /* the worker goes when its channel closes */
    has_process(c, (pid_t)pid, pidfd);
    return cfi_watch_process(c, pidfd);
}

static int ask_for_process(struct cfi_child *c, int theirs)
{
    struct cfi_process_pool *pool = c->pool;
    if (pool->host.start_process)
        return ask_host(c, theirs);
    cfi_lock(&pool->server_lock);
    int error = pool->has_server ? cfi_server_request(&pool->server, c->death->tag, theirs) : EPIPE;
    cfi_unlock(&pool->server_lock);
    return error;
}

static int open_channel(struct cfi_child *c, int *ret_theirs)
{
    int arena_fd = -1, error;
    begin_life(c);
    c->death = calloc(1, sizeof *c->death);
    error = c->death ? new_arena(c, &arena_fd) : ENOMEM;
    if (!error) {
        error = new_sockets(c, ret_theirs);
        if (!error)
            error = send_welcome(c, arena_fd);
        (void)close(arena_fd);
    }
    if (!error)
        *c->death =
            (struct cfi_death){ .tag = c->tag, .pidfd = -1, .oom_kills = cfi_oom_kills("") };
    if (error)
        close_one(ret_theirs);
    return error;
}

/* ---- starting ---- */

static struct cfi_child *reserve(struct cfi_process_pool *pool)
{
    unsigned i = 0;
    struct cfi_child *c = NULL;
    for (; i < pool->options.max_workers; i++) {
        c = cfi_child_at(pool, i);
        if (!c || cfi_state_of(c) == CFI_CHILD_ABSENT)
            break;
    }
    if (i == pool->options.max_workers)
        return NULL;
    if (!c && (c = child_new(pool, i)))
        cfi_store_release(&pool->children[i], c);
    if (!c)
        return NULL;
    cfi_set_state(c, CFI_CHILD_STARTING);
    c->tag = ++pool->next_tag;
    cfi_store_release(&c->life, cfi_generation_of(c) == UINT16_MAX ? 1 : cfi_generation_of(c) + 1U);
    pool->started++;
    return c;
}

static void not_opened(struct cfi_child *c, int error)
{
    struct cfi_process_pool *pool = c->pool;
    close_all_but_pidfd(c);
    free(c->death);
    c->death = NULL;
    cfi_lock(&pool->lock);
    cfi_set_state(c, CFI_CHILD_ABSENT);
    pool->started--;
    pool->start_error = error;
    pool->start_again_at = cfi_now() + START_AGAIN_NS;
    cfi_unlock(&pool->lock);
    cfi_wake_manager(pool); /* it tries again */
}

static void never_born(struct cfi_child *c, uint16_t generation, uint64_t tag, int error);

/* From here on others see it, and what happens to its process. */
static int bring_to_life(struct cfi_child *c, int theirs)
{
    struct cfi_process_pool *pool = c->pool;
    bool has_server = !pool->host.start_process;
    if (has_server) /* until it is asked nobody buries it, whatever becomes of the server */
        cfi_lock(&c->role);
    cfi_lock(&pool->lock);
    cfi_set_state(c, CFI_CHILD_ASKED);
    cfi_unlock(&pool->lock);
    int error = cfi_watch_child(c);
    if (!error)
        error = ask_for_process(c, theirs);
    if (has_server)
        cfi_unlock(&c->role);
    cfi_fence_seq_cst(); /* as everybody who has had the role */
    cfi_drain(c);
    (void)close(theirs);
    return error;
}

int cfi_start_child(struct cfi_process_pool *pool)
{
    int theirs = -1;
    cfi_lock(&pool->lock);
    struct cfi_child *c = reserve(pool);
    cfi_unlock(&pool->lock);
    if (!c)
        return ENOMEM;
    int error = open_channel(c, &theirs);
    if (error) {
        not_opened(c, error);
        return error;
    }
    uint16_t generation = cfi_generation_of(c);
    uint64_t tag = c->tag;
    error = bring_to_life(c, theirs);
    if (error) {
        never_born(c, generation, tag, error);
        return error;
    }
    cfi_lock(&pool->lock);
    pool->start_again_at = 0;
    cfi_refill(c);
    cfi_arm_or_wake(c);
    cfi_unlock(&pool->lock);
    cfi_tell_room(pool);
    return 0;
}

/* Counts a death; true: there have been too many. */
static bool is_one_too_many(struct cfi_process_pool *pool, int64_t now)
{
    unsigned most = pool->options.max_restarts + 1;
    pool->crashes[pool->crash_next] = now;
    pool->crash_next = (pool->crash_next + 1) % most;
    if (pool->crash_count < most)
        pool->crash_count++;
    int64_t oldest = pool->crashes[pool->crash_next];
    return pool->crash_count == most && now - oldest < pool->options.restart_window_ns;
}

static void say_broken(struct cfi_process_pool *pool, int code, const char *message, uint32_t pid)
{
    const cf_error error = { .size = sizeof error,
                             .status = CF_BROKEN,
                             .code = code,
                             .message = message,
                             .worker_pid = (int)pid,
                             .exit_code = -1 };
    cfi_process_pool_break(pool, &error);
}

/* After a failed start. */
static void break_if_hopeless(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    bool hopeless = pool->started == 0 && is_one_too_many(pool, cfi_now());
    int error = pool->start_error;
    cfi_unlock(&pool->lock);
    if (hopeless) {
        char text[CFI_MOST_TEXT];
        snprintf(text, sizeof text, "no worker process can be started: %s", strerror(error));
        say_broken(pool, error, text, 0);
    }
}

/* Where even the first worker cannot be started the pool breaks after a while. */
void cfi_retry_start(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    bool wants = cfi_wants_child(pool) && pool->start_again_at;
    cfi_unlock(&pool->lock);
    if (wants && cfi_start_child(pool) != 0)
        break_if_hopeless(pool);
}

void cfi_start_wanted(struct cfi_process_pool *pool)
{
    for (;;) {
        cfi_lock(&pool->lock);
        bool wants = cfi_wants_child(pool);
        cfi_unlock(&pool->lock);
        if (!wants || cfi_start_child(pool) != 0)
            return;
    }
}

/* ---- what workers and the server say ---- */

/* Its initializer has failed: so will every other's. */
static void is_unfit(struct cfi_child *c, const struct cfi_message *m)
{
    char text[CFI_MOST_TEXT];
    snprintf(text, sizeof text, "%.*s", (int)sizeof m->text - 1,
             m->text[0] ? m->text : "the initializer returned a non-zero code");
    cfi_lock(&c->pool->lock);
    cfi_take_back_all(c);
    cfi_tell_quit(c);
    cfi_unlock(&c->pool->lock);
    say_broken(c->pool, m->code, text, cfi_load_relaxed(&c->pid));
}

/* Handles a message; what it says of the initializer is kept for later. */
static int handle(struct cfi_child *c, const struct cfi_message *m, int fd,
                  struct cfi_message *unfit)
{
    if (m->type == CFI_BLOCK)
        return fd >= 0 ? cfi_inflow_add(c, m->number, m->size, fd) : EPROTO;
    if (fd >= 0)
        (void)close(fd);
    if (m->type != CFI_READY && m->type != CFI_UNFIT)
        return EPROTO;
    cfi_lock(&c->pool->lock);
    bool first = !c->said_ready;
    c->said_ready = true;
    if (cfi_state_of(c) == CFI_CHILD_ASKED && m->type == CFI_READY)
        cfi_set_state(c, CFI_CHILD_READY);
    cfi_unlock(&c->pool->lock);
    if (first && m->type == CFI_UNFIT)
        *unfit = *m;
    return first ? 0 : EPROTO;
}

/* Reads all that is there; 0 or what is wrong with it. */
static int read_messages(struct cfi_child *c, struct cfi_message *unfit)
{
    for (int i = 0; i < MOST_MESSAGES; i++) {
        struct cfi_message m;
        int fds[4], count = 0;
        int error = cfi_message_receive(c->socket, &m, MSG_DONTWAIT, fds, &count);
        if (error)
            return error == EAGAIN ? 0 : error;
        for (int k = 1; k < count; k++)
            (void)close(fds[k]);
        error = handle(c, &m, count > 0 ? fds[0] : -1, unfit);
        if (error)
            return error;
    }
    return EPROTO; /* a flood */
}

void cfi_child_messages(struct cfi_child *c)
{
    struct cfi_message unfit = { .type = 0 };
    cfi_lock(&c->mail);
    int error = c->socket >= 0 ? read_messages(c, &unfit) : 0;
    cfi_unlock(&c->mail);
    if (unfit.type)
        is_unfit(c, &unfit);
    if (error == EPIPE || error == ECONNRESET) { /* it dies, or it has closed its channel */
        cfi_store_seq_cst(&c->has_hung_up, true);
    } else if (error) {
        cfi_store_seq_cst(&c->condemned, true);
        cfi_wake_manager(c->pool);
    }
}

/* ---- how it ended, in words ---- */

/* Each kill is the end of one process: those before its birth were not its own, nor those that have
 * explained another's. */
static bool ran_out_of_memory(struct cfi_process_pool *pool, const struct cfi_death *d, int status)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || d->stopped)
        return false;
    if (pool->oom_kills < d->oom_kills)
        pool->oom_kills = d->oom_kills;
    bool is_one = cfi_oom_kills("") > pool->oom_kills;
    pool->oom_kills += is_one;
    return is_one;
}

static const char *text_of_end(const struct cfi_death *d, const cf_error *e, char *text,
                               size_t size)
{
    const char *where = d->in_initializer ? " before it took tasks" : "";
    if (d->condemned)
        snprintf(text, size, "worker process %d closed or damaged its channel, and was killed",
                 e->worker_pid);
    else if (e->out_of_memory)
        snprintf(text, size, "worker process %d was killed%s: out of memory", e->worker_pid, where);
    else if (e->signal_number)
        snprintf(text, size, "worker process %d was killed%s by signal %d (%s)", e->worker_pid,
                 where, e->signal_number, strsignal(e->signal_number));
    else if (e->exit_code >= 0)
        snprintf(text, size, "worker process %d exited%s with code %d", e->worker_pid, where,
                 e->exit_code);
    else
        snprintf(text, size, "worker process %d died%s, nobody knows how", e->worker_pid, where);
    return text;
}

/* status -1: not known. */
static cf_error error_of_end(struct cfi_process_pool *pool, const struct cfi_death *d, int status,
                             char *text, size_t size)
{
    bool known = status != -1;
    cf_error e = { .size = sizeof e,
                   .status = d->stopped ? CF_STOPPED : CF_BROKEN,
                   .worker_pid = (int)d->pid,
                   .signal_number = known && WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                   .exit_code = known && WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                   .out_of_memory = known && ran_out_of_memory(pool, d, status) };
    e.message = text_of_end(d, &e, text, size);
    return e;
}

/* ---- death ---- */

/* Takes the role of a worker that is dead: whoever sleeps on its bell is sent away. */
static void take_role(struct cfi_child *c)
{
    cfi_store_seq_cst(&c->is_dead, true);
    while (!cfi_try_lock(&c->role)) {
        cfi_nudge(c);
        sched_yield();
    }
}

static void note_progress(cf_future *f, struct cfi_slot *slot)
{
    int64_t done = cfi_load_relaxed(&slot->began_at);
    bool is_piece = cfi_parcel_of(f)->call == CFI_CALL_PIECE && done > 0;
    cfi_parcel_of(f)->done = is_piece ? (size_t)done : 0;
}

/* What it began goes with it; what it did not begin goes back. */
static void sort_tasks(struct cfi_child *c, struct cfi_death *d)
{
    uint32_t seen = cfi_load_relaxed(&c->seen);
    cfi_take_back_all(c);
    for (uint32_t n = c->sent; n != seen; n--) {
        cf_future *f = cfi_exchange_acq_rel(&c->tasks_sent[(n - 1) % CFI_SLOTS], NULL);
        if (!f || f == CFI_MARK_SKIPPED)
            continue;
        cfi_store_release(&cfi_parcel_of(f)->place, 0);
        note_progress(f, cfi_slot_of(c, n - 1));
        (void)cfi_future_claim(f); /* it ran: nobody cancels it any more */
        cfi_parcel_of(f)->next = d->guilty;
        d->guilty = f;
        d->guilty_count++;
    }
    cfi_store_release(&c->sent, seen);
}

static bool bury(struct cfi_child *c)
{
    struct cfi_process_pool *pool = c->pool;
    struct cfi_death *d = c->death;
    c->death = NULL;
    cfi_lock(&pool->lock);
    bool expected = cfi_state_of(c) == CFI_CHILD_LEAVING;
    d->in_initializer = cfi_state_of(c) == CFI_CHILD_ASKED;
    d->stopped = c->signalled || pool->stopping;
    d->condemned = cfi_load_relaxed(&c->condemned);
    d->pid = (pid_t)cfi_load_relaxed(&c->pid);
    d->pidfd = c->pidfd;
    d->expected = expected;
    c->pidfd = -1;
    sort_tasks(c, d);
    d->deadline = cfi_now() + STATUS_WAIT_NS;
    d->next = pool->deaths;
    pool->deaths = d;
    cfi_set_state(c, CFI_CHILD_ABSENT);
    cfi_set_idle(c, false);
    pool->started--;
    bool wants = !expected && !cfi_load_relaxed(&pool->closing);
    cfi_unlock(&pool->lock);
    return wants;
}

void cfi_child_died(struct cfi_child *c, uint16_t generation)
{
    take_role(c);
    if (cfi_generation_of(c) != generation || !cfi_has_channel(c)) { /* it was buried before */
        cfi_store_seq_cst(&c->is_dead, false);
        cfi_unlock(&c->role);
        return;
    }
    cfi_child_messages(c);
    struct cfi_outcome out[CFI_DRAIN_BATCH];
    uint32_t before;
    do { /* its last words */
        before = cfi_load_relaxed(&c->seen);
        unsigned n = cfi_read_results(c, out);
        cfi_unlock(&c->role);
        cfi_settle_outcomes(c->pool, out, n);
        take_role(c);
    } while (cfi_load_relaxed(&c->seen) != before);
    cfi_inflow_clear(c);
    cfi_lock(&c->mail);
    close_all_but_pidfd(c);
    cfi_unlock(&c->mail);
    bool replace = bury(c);
    cfi_unlock(&c->role);
    if (replace) /* at once: there may be work soon */
        (void)cfi_start_child(c->pool);
    else
        cfi_start_wanted(c->pool);
    cfi_lock(&c->pool->lock);
    cfi_feed_idle(c->pool); /* with what came back */
    cfi_unlock(&c->pool->lock);
    cfi_tell_room(c->pool);
}

static bool may_retry(struct cfi_process_pool *pool, const struct cfi_death *d, cf_future *f)
{
    return !d->stopped && !(cfi_load_relaxed(&f->word) & CFI_STOP) &&
           !cfi_load_relaxed(&pool->no_retries) &&
           cfi_parcel_of(f)->crashes++ < pool->options.max_retries;
}

/* Unless a shutdown or a break has emptied the queue meanwhile. */
static bool try_again(struct cfi_process_pool *pool, cf_future *f)
{
    cfi_lock(&pool->lock);
    bool may = !cfi_load_relaxed(&pool->no_retries);
    if (may) {
        cfi_parcel_of(f)->queued = true;
        pool->queued++;
        cfi_list_prepend(&pool->front, f);
        cfi_refill_all(pool);
    }
    cfi_unlock(&pool->lock);
    return may;
}

static void settle_guilty(struct cfi_process_pool *pool, struct cfi_death *d, const cf_error *error)
{
    for (cf_future *f = d->guilty, *next; f; f = next) {
        next = cfi_parcel_of(f)->next;
        if (may_retry(pool, d, f) && try_again(pool, f))
            continue;

        cf_error own = *error;
        own.index = cfi_parcel_of(f)->done;
        cfi_release_argument(f);
        cfi_future_fail(f, &own);
        cfi_finished(pool, 1);
    }
}

static void break_for(struct cfi_process_pool *pool, const cf_error *last, bool too_many)
{
    char text[CFI_MOST_TEXT + 128];
    cf_error error = *last;
    error.status = CF_BROKEN;
    if (too_many)
        snprintf(text, sizeof text, "%u workers have died within %g s, the last: %s",
                 pool->options.max_restarts + 1, (double)pool->options.restart_window_ns / 1e9,
                 last->message);
    else
        snprintf(text, sizeof text, "%s", last->message);
    error.message = text;
    cfi_process_pool_break(pool, &error);
}

/* The status is known, or will never be. */
static void conclude(struct cfi_process_pool *pool, struct cfi_death *d, int status)
{
    char text[256];
    const cf_error error = error_of_end(pool, d, status, text, sizeof text);
    bool crash = !d->expected && !d->stopped;
    bool too_many = crash && is_one_too_many(pool, cfi_now());
    if (too_many || (crash && pool->options.on_crash == CF_ON_CRASH_BREAK))
        break_for(pool, &error, too_many);
    settle_guilty(pool, d, &error);
    cfi_start_wanted(pool);
    if (d->pidfd >= 0)
        (void)close(d->pidfd);
    free(d);
}

/* Takes the death that meets the condition off the list; NULL: none. */
static struct cfi_death *take_death(struct cfi_process_pool *pool, uint64_t tag, int64_t now)
{
    cfi_lock(&pool->lock);
    struct cfi_death **at = &pool->deaths;
    while (*at && !(tag ? (*at)->tag == tag : (*at)->deadline <= now))
        at = &(*at)->next;
    struct cfi_death *d = *at;
    if (d)
        *at = d->next;
    cfi_unlock(&pool->lock);
    return d;
}

/* A process that a host's runtime has made is not the server's: it is asked for its status, and left
 * for the runtime to reap. */
static int status_by_pidfd(const struct cfi_death *d)
{
    siginfo_t info = { .si_pid = 0 };
    if (d->pidfd < 0 || waitid(P_PIDFD, (id_t)d->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0)
        return -1;
    return info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
}

void cfi_check_deaths(struct cfi_process_pool *pool, int64_t now)
{
    struct cfi_death *d;
    int64_t when = pool->host.start_process ? CFI_NEVER : now;
    while ((d = take_death(pool, 0, when)))
        conclude(pool, d, status_by_pidfd(d));
}

/* No process came of it: what it had been sent goes elsewhere, and this is no crash. */
static void never_born(struct cfi_child *c, uint16_t generation, uint64_t tag, int error)
{
    struct cfi_process_pool *pool = c->pool;
    cfi_lock(&pool->lock);
    pool->start_error = error;
    pool->start_again_at = cfi_now() + START_AGAIN_NS;
    if (cfi_generation_of(c) == generation && cfi_has_channel(c))
        cfi_set_state(c, CFI_CHILD_LEAVING);
    cfi_unlock(&pool->lock);
    cfi_child_died(c, generation);
    cfi_wake_manager(pool); /* it tries again */
    struct cfi_death *d = take_death(pool, tag, 0);
    if (d)
        conclude(pool, d, -1);
}

/* ---- the fork server's news ---- */

static struct cfi_child *child_of_tag(struct cfi_process_pool *pool, uint64_t tag)
{
    struct cfi_child *found = NULL;
    cfi_lock(&pool->lock);
    for (unsigned i = 0; !found && i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c && cfi_state_of(c) != CFI_CHILD_ABSENT && c->tag == tag)
            found = c;
    }
    cfi_unlock(&pool->lock);
    return found;
}

static void born(struct cfi_process_pool *pool, const struct cfi_server_event *e)
{
    struct cfi_child *c = child_of_tag(pool, e->tag);
    if (!c) { /* it was given up meanwhile */
        cfi_pidfd_signal(e->pidfd, SIGKILL);
        (void)close(e->pidfd);
        return;
    }
    int pidfd = high_descriptor(e->pidfd);
    has_process(c, e->pid, pidfd);
    bool is_useless = cfi_load_relaxed(&pool->executor.is_broken); /* whose death was missed */
    if (cfi_watch_process(c, pidfd) != 0 ||
        is_useless) /* a worker that cannot be watched is no use */
        cfi_pidfd_signal(pidfd, SIGKILL);
}

static void died(struct cfi_process_pool *pool, const struct cfi_server_event *e)
{
    struct cfi_child *c = child_of_tag(pool, e->tag);
    if (c)
        cfi_child_died(c, cfi_generation_of(c));
    struct cfi_death *d = take_death(pool, e->tag, 0);
    if (d)
        conclude(pool, d, e->status);
}

static void unborn(struct cfi_process_pool *pool, const struct cfi_server_event *e)
{
    struct cfi_child *c = child_of_tag(pool, e->tag);
    if (!c)
        return;
    never_born(c, cfi_generation_of(c), e->tag, e->error);
    break_if_hopeless(pool);
}

/* The workers went with it; how they ended nobody knows. */
static void bury_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c))
            cfi_child_died(c, cfi_generation_of(c));
    }
    struct cfi_death *d;
    while ((d = take_death(pool, 0, CFI_NEVER))) {
        if (d->pidfd >= 0)
            cfi_pidfd_reap(d->pidfd); /* it may have become this process's child */
        conclude(pool, d, -1);
    }
}

static void break_without_server(struct cfi_process_pool *pool, const char *why)
{
    char text[CFI_MOST_TEXT];
    snprintf(text, sizeof text, "the pool's fork server has died%s%s", why ? ": " : "",
             why ? why : "");
    say_broken(pool, 0, text, 0);
}

static bool replace_server(struct cfi_process_pool *pool)
{
    struct cfi_server new;
    if (cfi_server_start(pool->options.start_method, &new) != CF_OK)
        return false;
    cfi_lock(&pool->server_lock);
    pool->server = new;
    pool->has_server = true;
    cfi_unlock(&pool->server_lock);
    return cfi_watch_server(pool) == 0;
}

/* Another one takes its place, if there can be one: a fork of this process can not, since by now it has
 * threads. */
static void server_gone(struct cfi_process_pool *pool)
{
    cfi_unwatch_server(pool);
    cfi_lock(&pool->server_lock);
    struct cfi_server old = pool->server;
    pool->has_server = false;
    cfi_unlock(&pool->server_lock);
    cfi_server_stop(&old);
    bool needed = !cfi_load_relaxed(&pool->executor.is_broken) && !cfi_load_relaxed(&pool->closing);
    bool too_many = needed && is_one_too_many(pool, cfi_now());
    if (needed && (too_many || !replace_server(pool)))
        break_without_server(pool, too_many ? NULL : cf_last_error()->message);
    bury_all(pool);
    cfi_start_wanted(pool);
}

void cfi_server_events(struct cfi_process_pool *pool)
{
    struct cfi_server_event e;
    while (pool->has_server &&
           cfi_server_next(&pool->server, &e)) { /* this thread alone changes it */
        if (e.type == CFI_WORKER_BORN)
            born(pool, &e);
        else if (e.type == CFI_WORKER_DIED)
            died(pool, &e);
        else if (e.type == CFI_WORKER_UNBORN)
            unborn(pool, &e);
        else {
            server_gone(pool);
            return;
        }
    }
}

/* ---- leaving ---- */

void cfi_tell_quit(struct cfi_child *c)
{
    cfi_set_state(c, CFI_CHILD_LEAVING);
    cfi_set_idle(c, false);
    cfi_store_seq_cst(&c->arena->quit, true);
    cfi_wake_worker(c);
}

void cfi_quit_children(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c && (cfi_state_of(c) == CFI_CHILD_ASKED || cfi_state_of(c) == CFI_CHILD_READY))
            cfi_tell_quit(c);
    }
    cfi_unlock(&pool->lock);
}

/* ---- breaking ---- */

/* All that is queued and all that was not begun, as one list. */
static cf_future *take_everything(struct cfi_process_pool *pool)
{
    struct cfi_list all = { NULL, NULL };
    cf_future *f;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c && c->arena && cfi_state_of(c) != CFI_CHILD_ABSENT)
            cfi_take_back_all(c);
    }
    while ((f = cfi_take_queued(pool)))
        cfi_list_append(&all, f);
    return all.first;
}

static void kill_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c && c->pidfd >= 0 && cfi_state_of(c) != CFI_CHILD_ABSENT)
            cfi_pidfd_signal(c->pidfd, SIGKILL);
    }
}

void cfi_process_pool_break(struct cfi_process_pool *pool, const cf_error *error)
{
    cf_executor_break(&pool->executor, error);
    cfi_lock(&pool->lock);
    cfi_store_seq_cst(&pool->no_retries, true);
    pool->closed = true;
    cf_future *f = take_everything(pool);
    kill_all(pool);
    cfi_unlock(&pool->lock);
    cfi_store_seq_cst(&pool->closing, true);
    while (f) {
        cf_future *next = cfi_parcel_of(f)->next;
        if (cfi_future_claim(f) ||
            !cfi_future_is_done(f)) { /* one that is to run again is RUNNING */
            cfi_release_argument(f);
            cfi_future_fail(f, error);
            cfi_finished(pool, 1);
        } else {
            cfi_future_drop(f);
        }
        f = next;
    }
    (void)cfi_add_seq_cst(&pool->room_event, 1);
    cfi_futex_wake(&pool->room_event, 1 << 30);
    cfi_wake_manager(pool);
}

void cfi_child_free(struct cfi_child *c)
{
    if (!c)
        return;
    if (c->arena)
        (void)munmap(c->arena, sizeof *c->arena);
    close_all_but_pidfd(c);
    close_one(&c->pidfd);
    free(c->death);
    free(c);
}
