/* SPDX-License-Identifier: MIT */
/* How the host comes by its fork server.
 *
 * A fresh image of the program is the better one: it shares no memory with the host and no locks, so it
 * does not matter how many threads the host has or how large it is.  It is possible when the program is
 * known to come by cf_worker_main; else the program would only run a second time.
 *
 * A fork of a process with other threads keeps every lock that they hold just then, for ever (only
 * malloc's and stdio's are made good by the C library): some task would hang, some time.  So that is done
 * on demand only.
 *
 * Either way the server is not the host's child but a grandchild whose parent has ended, and the one in
 * between is waited for here: the host's own wait() must not see anything of it.  For a fresh image
 * the one in between borrows the host's memory, as vfork's child does, but with a stack of its own,
 * and its end raises no SIGCHLD; for a fork it is a fork. */
#define _GNU_SOURCE
#include "../base/atomics.h"
#include "../base/clock.h"
#include "../core/error.h"
#include "../core/executor.h"
#include "../core/self.h"
#include "server_talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#else
#define __libc_single_threaded false /* not known */
#endif

/* ---- the rules ---- */

/* Threads of the library's own that hold no lock while they sleep.  In the upper half the process that
 * they were counted in: a forked child has none of them. */
static cfi_u64 own_threads;

static uint32_t own_thread_count(uint64_t word)
{
    uint64_t process = cfi_load_relaxed(&cfi_process) >> 1;
    return word >> 32 == process ? (uint32_t)word : 0;
}

void cfi_own_thread(int delta)
{
    uint64_t process = cfi_load_relaxed(&cfi_process) >> 1;
    uint64_t word = cfi_load_relaxed(&own_threads), next;
    do
        next = process << 32 | (own_thread_count(word) + (uint32_t)delta);
    while (!cfi_cas_acq_rel(&own_threads, &word, next));
}

/* ThreadSanitizer has a thread of its own, and takes every clone for a fork.  It may be in the program
 * alone, so it is looked for where this runs. */
extern void __tsan_init(void) __attribute__((weak));

static bool is_thread_sanitized(void)
{
    return __tsan_init != NULL;
}

/* How many threads this process has; below 0: several, or there have been, and there is no /proc. */
static long thread_count(void)
{
    struct stat task;
    if (stat("/proc/self/task", &task) != 0 || task.st_nlink < 3)
        return __libc_single_threaded ? 1 : -1;
    return (long)task.st_nlink - 2 - is_thread_sanitized();
}

/* How many of them a fork need not mind.  On a pool's own thread, which may be counted already, that is
 * not the caller too: somebody else's is there besides. */
static long harmless_count(void)
{
    return (long)own_thread_count(cfi_load_acquire(&own_threads)) + (cfi_this.executor ? 0 : 1);
}

static cf_status allow_fork(void)
{
    /* A thread that was joined a moment ago is counted until the kernel has cleared it away. */
    int64_t deadline = cfi_deadline(CF_MS(20));
    long threads;
    while ((threads = thread_count()) > harmless_count() && !cfi_deadline_passed(deadline))
        (void)sched_yield();
    if (threads >= 0 && threads <= harmless_count())
        return CF_OK;
    char which[64] = "may have other threads (there is no /proc)";
    if (threads >= 0)
        snprintf(which, sizeof which, "has %ld threads", threads);
    return cfi_fail(
        CF_INVALID,
        "this process %s: call cf_worker_main first in main, make the pool before starting "
        "threads, or ask for CF_START_FORK",
        which);
}

static cf_status choose(cf_start_method method, bool *ret_is_fork)
{
    *ret_is_fork = method == CF_START_FORK || !cfi_worker_main_was_called();
    if (getauxval(AT_SECURE))
        return cfi_fail(CF_INVALID,
                        "a process with another user's rights makes no worker processes");
    switch (method) {
    case CF_START_DEFAULT:
    case CF_START_FORK_SERVER:
        return *ret_is_fork ? allow_fork() : CF_OK;
    case CF_START_FORK:
        return CF_OK;
    case CF_START_SPAWN:
        return *ret_is_fork
                   ? cfi_fail(CF_INVALID, "CF_START_SPAWN: call cf_worker_main first in main")
                   : CF_OK;
    default:
        return cfi_fail(CF_INVALID, "start_method is %d, which is none", (int)method);
    }
}

/* ---- who is in between ---- */

struct start {
    struct cfi_server *server;
    int theirs; /* the server's end */
    bool is_fork;
    char **environment;
    sigset_t mask; /* of this thread before */
};

/* In the one in between, who alone can be sure whose pidfd it opens. */
static void tell_made(int socket, pid_t pid, int error)
{
    int pidfd = error == 0 ? cfi_pidfd_open(pid) : -1;
    if (error == 0 && pidfd < 0)
        error = errno;
    (void)cfi_server_send(socket, CFI_SAY(MADE, .error = error), pidfd);
    if (pidfd >= 0)
        (void)close(pidfd);
}

static cf_status wait_for(pid_t pid, const char *what)
{
    if (pid < 0)
        return cfi_fail_system(errno, what);
    /* It may be gone: the host ignores SIGCHLD, or waits for whatever there is. */
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    return CF_OK;
}

/* In a fork: what the host has not written yet, or not read yet, stays the host's. */
static void disown_streams(void)
{
    __fpurge(stdin);
    __fpurge(stdout);
    __fpurge(stderr);
}

/* ---- a fresh image ---- */

/* What the host did to signals is undone in it, except that under nohup the workers go on too; SIGINT
 * stays blocked until it is ignored. */
static int spawn_attributes(posix_spawnattr_t *attributes)
{
    sigset_t all, interrupt;
    sigfillset(&all);
    sigdelset(&all, SIGHUP); /* an exec resets it unless it is ignored */
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    int error = posix_spawnattr_init(attributes);
    if (error != 0)
        return error;
    (void)posix_spawnattr_setsigdefault(attributes, &all);
    (void)posix_spawnattr_setsigmask(attributes, &interrupt);
    return posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
}

/* Runs on the host's memory but with descriptors of its own: only this server inherits the socket. */
static int spawn_server(void *data)
{
    struct start *start = data;
    char *arguments[] = { program_invocation_name, NULL };
    posix_spawnattr_t attributes;
    pid_t pid = -1;
    int error = spawn_attributes(&attributes);
    if (error == 0) {
        error = fcntl(start->theirs, F_SETFD, 0) == 0
                    ? posix_spawn(&pid, cfi_own_image(), NULL, &attributes, arguments,
                                  start->environment)
                    : errno;
        (void)posix_spawnattr_destroy(&attributes);
    }
    tell_made(start->theirs, pid, error);
    return 0;
}

static bool is_ours(const char *variable)
{
    return strncmp(variable, CFI_SERVER_VARIABLE "=", sizeof CFI_SERVER_VARIABLE) == 0 ||
           strncmp(variable, CFI_WORKER_VARIABLE "=", sizeof CFI_WORKER_VARIABLE) == 0;
}

/* The environment with our variable, in one block: free gives it back.  NULL: out of memory. */
static char **environment_with(int socket)
{
    enum { LONGEST = sizeof CFI_SERVER_VARIABLE + 12 };
    size_t count = 0;
    while (environ && environ[count])
        count++;
    char **copy = malloc((count + 2) * sizeof *copy + LONGEST);
    if (!copy)
        return NULL;
    char *own = (char *)(copy + count + 2);
    snprintf(own, LONGEST, CFI_SERVER_VARIABLE "=%d", socket);
    size_t n = 0;
    for (size_t i = 0; i < count && environ[i]; i++) {
        if (!is_ours(environ[i]))
            copy[n++] = environ[i];
    }
    copy[n++] = own;
    copy[n] = NULL;
    return copy;
}

/* Exit signal 0: only a wait that names it, or __WALL, ever sees it. */
static pid_t clone_between(struct start *start, char *stack_end)
{
    if (!is_thread_sanitized())
        return clone(spawn_server, stack_end, CLONE_VM | CLONE_VFORK, start);
    pid_t pid = fork();
    if (pid == 0) {
        disown_streams();
        _exit(spawn_server(start));
    }
    return pid;
}

static cf_status make_by_exec(struct start *start)
{
    enum { STACK = 128 * 1024 };
    start->environment = environment_with(start->theirs);
    if (!start->environment)
        return cfi_fail_fixed(CF_NOMEM, "the fork server: out of memory");
    char *stack =
        mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    cf_status s;
    if (stack == MAP_FAILED) {
        s = cfi_fail_system(errno, "mmap: a stack for the fork server");
    } else {
        s = wait_for(clone_between(start, stack + STACK), "clone: the fork server");
        (void)munmap(stack, STACK);
    }
    free(start->environment);
    return s;
}

/* ---- a fork ---- */

static noreturn void become_server(int socket)
{
    sigset_t none;
    sigemptyset(&none);
    for (int n = 1; n < NSIG; n++) {
        if (signal(n, SIG_DFL) == SIG_IGN && n == SIGHUP)
            (void)signal(n, SIG_IGN);
    }
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    cfi_server_run(socket);
}

static cf_status make_by_fork(struct start *start)
{
    pid_t between = fork();
    if (between != 0)
        return wait_for(between, "fork: the fork server");
    disown_streams();
    pid_t pid = fork();
    if (pid == 0)
        become_server(start->theirs);
    tell_made(start->theirs, pid, pid < 0 ? errno : 0);
    _exit(0);
}

/* ---- the handshake ---- */

static cf_status no_answer(const struct start *start, int error)
{
    if (error == EPIPE && !start->is_fork)
        return cfi_fail_system(error,
                               "the fork server ended before it answered (main does not come to "
                               "cf_worker_main, or ld.so started the program)");
    if (error == ETIMEDOUT)
        return cfi_fail_system(error, "the fork server did not answer within 30 s");
    return cfi_fail_system(error, "the fork server did not answer");
}

static cf_status hear(struct start *start, const struct cfi_server_message *message, int fd,
                      bool *is_ready)
{
    if (message->error != 0) {
        if (fd >= 0)
            (void)close(fd);
        return cfi_fail_system(message->error,
                               message->type == CFI_SERVER_READY ? "setting up the fork server"
                               : start->is_fork ? "fork, pidfd_open: the fork server"
                                                : "posix_spawn, pidfd_open: the fork server");
    }
    if (message->type == CFI_SERVER_READY)
        *is_ready = true;
    else if (fd < 0)
        return cfi_fail_system(EMFILE, "recvmsg: the fork server's pidfd");
    else
        start->server->pidfd = fd;
    return CF_OK;
}

static cf_status shake_hands(struct start *start)
{
    int64_t deadline = cfi_deadline(CF_SECONDS(30));
    bool is_ready = false;
    while (!is_ready || start->server->pidfd < 0) {
        struct cfi_server_message message;
        int fd = -1;
        int error = cfi_server_receive(start->server->socket, &message, &fd);
        cf_status s = CF_OK;
        if (error == EAGAIN)
            error = cfi_server_await(start->server->socket, POLLIN, deadline);
        else if (error == 0)
            s = hear(start, &message, fd, &is_ready);
        if (s == CF_OK && error != 0)
            s = no_answer(start, error);
        if (s != CF_OK)
            return s;
    }
    return CF_OK;
}

/* ---- all of it ---- */

static cf_status open_sockets(struct start *start)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return cfi_fail_system(errno, "socketpair: the fork server");
    start->server->socket = cfi_above_stdio(ends[0]);
    int error = errno;
    start->theirs = cfi_above_stdio(ends[1]);
    if (start->server->socket < 0 || start->theirs < 0)
        return cfi_fail_system(start->theirs < 0 ? errno : error,
                               "fcntl: the fork server's socket");
    return CF_OK;
}

static cf_status prepare(struct start *start, cf_start_method method)
{
    cf_status s = open_sockets(start);
    if (s != CF_OK)
        return s;
    start->server->host = cfi_pidfd_open(getpid());
    if (start->server->host < 0)
        return cfi_fail_system(errno, "pidfd_open: this process");
    int error =
        cfi_server_send(start->server->socket, CFI_SAY(HELLO, .is_spawn = method == CF_START_SPAWN),
                        start->server->host);
    return error == 0 ? CF_OK : cfi_fail_system(error, "sendmsg: to the fork server");
}

/* No handler of the host runs in the processes on the way, on borrowed memory. */
static cf_status make(struct start *start)
{
    sigset_t all;
    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &start->mask);
    cf_status s = start->is_fork ? make_by_fork(start) : make_by_exec(start);
    (void)sigprocmask(SIG_SETMASK, &start->mask, NULL);
    return s;
}

cf_status cfi_server_start(cf_start_method method, struct cfi_server *server)
{
    struct cfi_server new = { .socket = -1, .pidfd = -1, .host = -1 };
    struct start start = { .server = &new, .theirs = -1 };
    cf_status s = choose(method, &start.is_fork);
    if (s != CF_OK)
        return s;
    s = prepare(&start, method);
    if (s == CF_OK)
        s = make(&start);
    if (start.theirs >= 0)
        (void)close(start.theirs);
    if (s == CF_OK)
        s = shake_hands(&start);
    if (s == CF_OK) {
        *server = new;
        return CF_OK;
    }
    int error = errno;
    cfi_server_stop(&new);
    errno = error;
    return s;
}
