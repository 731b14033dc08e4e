/* SPDX-License-Identifier: MIT */
/* The lives of the workers: a channel is made, the fork server is asked for a process, it is born, says
 * that it is ready, and some day it is told to quit, or dies of a task (death.c). */
#define _GNU_SOURCE
#include "pool.h"

#include "../base/oom.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_MESSAGES = 4096 }; /* in one go: more is a flood */

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
    c->socket = cfi_high_descriptor(pair[0]);
    *ret_theirs = cfi_high_descriptor(pair[1]);
    c->eventfd = cfi_high_descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (c->socket < 0 || *ret_theirs < 0 || c->eventfd < 0 ||
        fcntl(c->socket, F_SETFL, O_NONBLOCK) != 0)
        return errno ? errno : EMFILE;
    return 0;
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
        cfi_tell_image(c, pool->initializer.image);
    if (m.has_finalizer)
        cfi_tell_image(c, pool->finalizer.image);
    cfi_lock(&pool->server_lock); /* the server's descriptors may be another's soon */
    const int fds[] = { arena_fd, c->eventfd, pool->server.host, pool->data_fd };
    int error = cfi_message_send(c->socket, &m, fds, pool->data_fd >= 0 ? 4 : 3);
    cfi_unlock(&pool->server_lock);
    return error;
}

void cfi_close_one(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void cfi_close_channel(struct cfi_child *c)
{
    cfi_close_one(&c->socket);
    cfi_close_one(&c->eventfd);
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

void cfi_has_process(struct cfi_child *c, pid_t pid, int pidfd)
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
    int pidfd = cfi_high_descriptor((int)syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0)
        return errno; /* the worker goes when its channel closes */
    cfi_has_process(c, (pid_t)pid, pidfd);
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
        cfi_close_one(ret_theirs);
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
    cfi_close_channel(c);
    free(c->death);
    c->death = NULL;
    cfi_lock(&pool->lock);
    cfi_set_state(c, CFI_CHILD_ABSENT);
    pool->started--;
    pool->start_error = error;
    pool->start_again_at = cfi_now() + CFI_START_AGAIN_NS;
    cfi_unlock(&pool->lock);
    cfi_wake_manager(pool); /* it tries again */
}

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
        cfi_never_born(c, generation, tag, error);
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

/* Where even the first worker cannot be started the pool breaks after a while. */
void cfi_retry_start(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    bool wants = cfi_wants_child(pool) && pool->start_again_at;
    cfi_unlock(&pool->lock);
    if (wants && cfi_start_child(pool) != 0)
        cfi_break_if_hopeless(pool);
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

/* Its initializer has failed: so will every other's.  A break kills them all, so one that a host has
 * made, and that may have last words of its runtime's to send, leaves first. */
static void is_unfit(struct cfi_child *c, const struct cfi_message *m)
{
    char text[CFI_MOST_TEXT];
    snprintf(text, sizeof text, "%.*s", (int)sizeof m->text - 1,
             m->text[0] ? m->text : "the initializer returned a non-zero code");
    cfi_lock(&c->pool->lock);
    if (c->pool->host.start_process && !c->unfit)
        c->unfit = strdup(text);
    bool breaks_later = c->unfit;
    c->pool->is_unfit = true;
    cfi_take_back_all(c);
    cfi_tell_quit(c);
    cfi_unlock(&c->pool->lock);
    if (!breaks_later)
        cfi_say_broken(c->pool, m->code, text, cfi_load_relaxed(&c->pid));
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
        if (error == EMFILE && m.type == CFI_BLOCK && cfi_inflow_lose(c, m.number))
            continue;
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

void cfi_child_free(struct cfi_child *c)
{
    if (!c)
        return;
    if (c->arena)
        (void)munmap(c->arena, sizeof *c->arena);
    cfi_close_channel(c);
    cfi_close_one(&c->pidfd);
    free(c->death);
    free(c->unfit);
    free(c);
}
