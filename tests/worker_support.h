/* SPDX-License-Identifier: MIT */
/* A parent for one worker process, as simple as it can be: it sends tasks, looks at their slots, and
 * writes to no socket and no word that it need not. */
#ifndef TESTS_WORKER_SUPPORT_H
#define TESTS_WORKER_SUPPORT_H

#include "support.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/futex.h"
#include "processes/channel.h"

#include <cfutures/provider.h>

struct parent {
    struct cfi_arena *arena;
    int arena_fd, channel, event, host, theirs; /* theirs: the worker's end, until it is forked */
    pid_t pid;
    uint32_t sent, received;
    uint64_t args_at;
    uint32_t blocks;
    struct cfi_message welcome;
};

/* Counts of the child's are written when it ends as it should. */
extern void __gcov_dump(void) __attribute__((__weak__));

static inline int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* valgrind 3.19 does not know them. */
static inline bool has_pidfds(void)
{
    int fd = open_pidfd(getpid());
    return fd >= 0 && close(fd) == 0;
}

static inline void parent_open(struct parent *p)
{
    *p = (struct parent){ .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                          .host = open_pidfd(getpid()) };
    int ends[2];
    void *arena;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(cfi_memory_new("arena", sizeof(struct cfi_arena), false, &p->arena_fd, &arena),
                     0);
    p->channel = ends[0];
    p->theirs = ends[1];
    p->arena = arena;
    p->welcome = (struct cfi_message){ .type = CFI_WELCOME,
                                       .version = CFI_CHANNEL_VERSION,
                                       .size = sizeof *p->arena,
                                       .text = "test" };
}

static inline struct cfi_identity parent_identify(struct parent *p, cfi_function *fn)
{
    struct cfi_identity identity;
    assert_int_equal(cfi_identify(fn, &identity), CF_OK);
    p->arena->images[identity.image] = *cfi_image_name(identity.image);
    return identity;
}

static inline void parent_fork(struct parent *p)
{
    fflush(NULL);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        static const int caught_by_cmocka[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS };
        for (size_t i = 0; i < COUNT_OF(caught_by_cmocka); i++)
            signal(caught_by_cmocka[i], SIG_DFL);
        alarm(40);
        close(p->channel);
        int status = cf_worker_run_channel(p->theirs);
        if (__gcov_dump)
            __gcov_dump();
        _exit(status);
    }
    close(p->theirs);
}

static inline void parent_welcome(struct parent *p, int data_fd)
{
    const int fds[4] = { p->arena_fd, p->event, p->host, data_fd };
    assert_int_equal(cfi_message_send(p->channel, &p->welcome, fds, data_fd < 0 ? 3 : 4), 0);
}

static inline void parent_hear(struct parent *p, struct cfi_message *message, int *ret_fd)
{
    int fds[4], count;
    assert_int_equal(cfi_message_receive(p->channel, message, 0, fds, &count), 0);
    assert_int_equal(count, ret_fd ? 1 : 0);
    if (ret_fd)
        *ret_fd = fds[0];
}

static inline void parent_start(struct parent *p)
{
    struct cfi_message ready;
    parent_open(p);
    parent_welcome(p, -1);
    parent_fork(p);
    parent_hear(p, &ready, NULL);
    assert_int_equal(ready.type, CFI_READY);
}

static inline void parent_wake(struct parent *p)
{
    uint32_t asleep = CFI_ASLEEP;
    if (cfi_cas_seq_cst(&p->arena->worker_bell, &asleep, CFI_AWAKE))
        cfi_shared_wake(&p->arena->worker_bell, 1);
}

/* The exit status, or 128 and the signal's number. */
static inline int parent_wait(struct parent *p)
{
    int status;
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void parent_close(struct parent *p)
{
    munmap(p->arena, sizeof *p->arena);
    close(p->arena_fd);
    close(p->channel);
    close(p->event);
    close(p->host);
}

static inline void parent_end(struct parent *p)
{
    cfi_store_seq_cst(&p->arena->quit, true);
    parent_wake(p);
    assert_int_equal(parent_wait(p), 0);
    parent_close(p);
}

/* ---- tasks ---- */

/* The next slot, with all but its argument and state filled in. */
static inline struct cfi_slot *parent_slot(struct parent *p, enum cfi_call call, cfi_function *fn,
                                           size_t result_size)
{
    struct cfi_slot *slot = &p->arena->slots[p->sent % CFI_SLOTS];
    struct cfi_identity identity = parent_identify(p, fn);
    slot->call = (uint8_t)call;
    slot->image = identity.image;
    slot->offset = identity.offset;
    slot->arg_place = CFI_INLINE;
    slot->arg_size = 0;
    slot->result_size = result_size;
    slot->shared = 0;
    slot->is_timed = 0;
    return slot;
}

static inline void parent_set_arg(struct parent *p, struct cfi_slot *slot, const void *arg,
                                  size_t size)
{
    void *to = slot->arg;
    slot->arg_size = size;
    if (size > CFI_INLINE_ARG) {
        slot->arg_place = CFI_IN_HEAP;
        slot->arg_at = cfi_heap_fit(p->args_at, size);
        p->args_at = slot->arg_at + size;
        to = p->arena->arg_heap + slot->arg_at % CFI_HEAP;
    }
    memcpy(to, arg, size);
}

static inline uint32_t parent_send(struct parent *p, struct cfi_slot *slot)
{
    (void)cfi_exchange_seq_cst(&slot->state, CFI_SENT);
    parent_wake(p);
    return p->sent++;
}

static inline bool parent_has_result(struct parent *p)
{
    return cfi_load_seq_cst(&p->arena->slots[p->received % CFI_SLOTS].state) == CFI_SLOT_DONE;
}

/* The oldest task's slot, when it is done. */
static inline struct cfi_slot *parent_receive(struct parent *p)
{
    struct cfi_slot *slot = &p->arena->slots[p->received % CFI_SLOTS];
    WAIT_UNTIL(cfi_load_seq_cst(&slot->state) == CFI_SLOT_DONE);
    p->received++;
    return slot;
}

/* Where a result or text lies that is in no block; its place in the heap is then read. */
static inline const void *parent_result(struct parent *p, const struct cfi_slot *slot)
{
    if (slot->result_place == CFI_INLINE)
        return slot->result;
    assert_int_equal(slot->result_place, CFI_IN_HEAP);
    cfi_store_release(&p->arena->results_read, slot->at + slot->size);
    return p->arena->result_heap + slot->at % CFI_HEAP;
}

/* Sends a task and waits for its end. */
static inline struct cfi_slot *parent_do(struct parent *p, enum cfi_call call, cfi_function *fn,
                                         const void *arg, size_t arg_size, size_t result_size)
{
    struct cfi_slot *slot = parent_slot(p, call, fn, result_size);
    parent_set_arg(p, slot, arg, arg_size);
    parent_send(p, slot);
    return parent_receive(p);
}

#endif
