/* SPDX-License-Identifier: MIT */
/* The fork server's own process.  It has one thread and does nothing but fork, wait and report; so a
 * worker forked from it finds no lock held, and how it ended is known for certain: nobody else can
 * reap it.
 *
 *     poll { socket, the host's pidfd, signalfd of SIGCHLD }
 *
 * A worker's pidfd is opened before it can be reaped, so it is never another process's.  Nothing outlives
 * the host: the server ends when the host does or says so, and takes the workers with it; if it is
 * killed itself, the kernel kills them (PR_SET_PDEATHSIG).
 *
 * The server is a fork of the host, or a fresh image of its program that comes here by way of
 * cf_worker_main.  That trusts an environment variable only so far as to look at a descriptor: it must
 * be a socket that a process of the same user made, with our own message in it.  Programs with
 * another user's rights (setuid) do not even look. */
#define _GNU_SOURCE
#include "../base/atomics.h"
#include "server_talk.h"
#include "worker.h"

#include <cfutures/provider.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
    pid_t pid;
    bool is_dropped;
    uint64_t tag;
};

struct here {
    int socket, host, signals;
    bool is_spawn;
    pid_t pid;
    struct child *children;
    size_t count, room;
};

/* Else a fresh image is called "exe", and a worker as its server is. */
static void name_process(const char *name)
{
    (void)prctl(PR_SET_NAME, name);
}

/* ---- the end ---- */

/* The workers are reaped too: where the host is process 1 they would become its zombies. */
static noreturn void leave(struct here *here)
{
    for (size_t i = 0; i < here->count; i++)
        (void)kill(here->children[i].pid, SIGKILL);
    for (size_t i = 0; i < here->count; i++)
        while (waitpid(here->children[i].pid, NULL, 0) < 0 && errno == EINTR)
            ;
    _exit(0);
}

/* Sends a message, waiting for room in the socket as long as there is a host. */
static int say(struct here *here, struct cfi_server_message message, int fd)
{
    for (;;) {
        int error = cfi_server_send(here->socket, message, fd);
        if (error != EAGAIN && error != EPIPE)
            return error;
        struct pollfd fds[] = { { .fd = here->socket, .events = POLLOUT },
                                { .fd = here->host, .events = POLLIN } };
        if (error == EPIPE || (poll(fds, 2, -1) > 0 && fds[1].revents))
            leave(here);
    }
}

/* ---- children ---- */

static bool make_room(struct here *here)
{
    if (here->count < here->room)
        return true;
    size_t room = here->room ? here->room * 2 : 16;
    struct child *children = realloc(here->children, room * sizeof *children);
    if (!children)
        return false;
    here->children = children;
    here->room = room;
    return true;
}

/* The workers are the first to go when memory runs out: a task is lost then, not the host. */
static void offer_to_the_oom_killer(void)
{
    enum { MORE = 300, MOST = 1000 };
    char text[16] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, text, sizeof text - 1) > 0) {
        long score = strtol(text, NULL, 10) + MORE;
        int length = snprintf(text, sizeof text, "%ld", score < MOST ? score : MOST);
        if (pwrite(fd, text, (size_t)length, 0) < 0)
            (void)0; /* then it has the same chances as the others */
    }
    (void)close(fd);
}

static noreturn void become_fresh_image(int channel)
{
    char number[16];
    snprintf(number, sizeof number, "%d", channel);
    if (fcntl(channel, F_SETFD, 0) == 0 && setenv(CFI_WORKER_VARIABLE, number, 1) == 0)
        (void)execl(cfi_own_image(), program_invocation_name, (char *)NULL);
    _exit(127);
}

static noreturn void be_worker(const struct here *here, int channel)
{
    sigset_t none;
    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != here->pid)
        _exit(127); /* the server has died before it could take us with it */
    (void)close(here->socket);
    (void)close(here->host);
    (void)close(here->signals);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    name_process("cfutures-worker");
    offer_to_the_oom_killer();
    if (here->is_spawn)
        become_fresh_image(channel);
    _exit(cfi_worker_serve(channel, true));
}

static int bear(struct here *here, uint64_t tag, int channel)
{
    if (channel < 0)
        return EMFILE;
    if (!make_room(here))
        return ENOMEM;
    pid_t pid = fork();
    if (pid < 0)
        return errno;
    if (pid == 0)
        be_worker(here, channel);
    here->children[here->count++] = (struct child){ .pid = pid, .tag = tag };
    int pidfd = cfi_pidfd_open(pid);
    int error = pidfd < 0 ? errno : say(here, CFI_SAY(BORN, .tag = tag, .pid = pid), pidfd);
    if (pidfd >= 0)
        (void)close(pidfd);
    if (error != 0) { /* nobody has heard of it */
        here->count--;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    return error;
}

static void make_worker(struct here *here, uint64_t tag, int channel)
{
    int error = bear(here, tag, channel);
    if (channel >= 0)
        (void)close(channel);
    if (error != 0)
        (void)say(here, CFI_SAY(UNBORN, .tag = tag, .error = error), -1);
}

static void drop_worker(struct here *here, uint64_t tag)
{
    for (size_t i = 0; i < here->count; i++) {
        if (here->children[i].tag == tag) {
            here->children[i].is_dropped = true;
            (void)kill(here->children[i].pid, SIGKILL);
        }
    }
}

static void report_death(struct here *here, pid_t pid, int status)
{
    size_t i = 0;
    while (i < here->count && here->children[i].pid != pid)
        i++;
    if (i == here->count) /* not ours: a constructor of the program made it */
        return;
    struct child child = here->children[i];
    here->children[i] = here->children[--here->count];
    if (!child.is_dropped)
        (void)say(here, CFI_SAY(DIED, .tag = child.tag, .pid = pid, .status = status), -1);
}

static void reap(struct here *here)
{
    struct signalfd_siginfo unused[4]; /* at most one is pending */
    if (read(here->signals, unused, sizeof unused) < 0)
        return;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        report_death(here, pid, status);
}

/* ---- serving ---- */

static void answer(struct here *here)
{
    struct cfi_server_message message;
    int fd = -1;
    int error = cfi_server_receive(here->socket, &message, &fd);
    if (error == EAGAIN)
        return;
    if (error != 0 || message.type == CFI_SERVER_QUIT)
        leave(here);
    if (message.type == CFI_SERVER_REQUEST)
        make_worker(here, message.tag, fd);
    else if (message.type == CFI_SERVER_DROP)
        drop_worker(here, message.tag);
}

static noreturn void serve(struct here *here)
{
    struct pollfd fds[] = { { .fd = here->socket, .events = POLLIN },
                            { .fd = here->host, .events = POLLIN },
                            { .fd = here->signals, .events = POLLIN } };
    for (;;) {
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[1].revents)
            leave(here);
        if (fds[2].revents)
            reap(here);
        if (fds[0].revents)
            answer(here);
    }
}

/* ---- setting up ---- */

/* For a kernel or sandbox without close_range. */
static int close_listed(int kept)
{
    DIR *list = opendir("/proc/self/fd");
    if (!list)
        return errno;
    for (const struct dirent *entry; (entry = readdir(list));) {
        int fd = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
        if (fd > STDERR_FILENO && fd != dirfd(list) && fd != kept)
            (void)close(fd);
    }
    (void)closedir(list);
    return 0;
}

/* Closes everything above stderr except one. */
static int close_all_but(int kept)
{
    bool is_done =
        (kept == STDERR_FILENO + 1 || cfi_close_range(STDERR_FILENO + 1, kept - 1) == 0) &&
        cfi_close_range(kept + 1, INT_MAX) == 0;
    return is_done ? 0 : close_listed(kept);
}

/* The host's input is the host's.  Its output is everybody's, but a closed one must not become the
 * first file that a task opens. */
static int arrange_stdio(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return errno;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        bool is_wanted = fd == STDIN_FILENO || fd == null || fcntl(fd, F_GETFD) < 0;
        if (is_wanted && (fd == null ? fcntl(fd, F_SETFD, 0) : dup2(null, fd)) < 0)
            return errno;
    }
    if (null > STDERR_FILENO)
        (void)close(null);
    return 0;
}

static int arrange_signals(struct here *here)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    /* Ctrl-C reaches the whole group of processes; what it ends is for the host to say. */
    if (signal(SIGINT, SIG_IGN) == SIG_ERR || signal(SIGCHLD, SIG_DFL) == SIG_ERR ||
        sigprocmask(SIG_SETMASK, &child, NULL) != 0)
        return errno;
    here->signals = cfi_above_stdio(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    return here->signals < 0 ? errno : 0;
}

static int hear_hello(struct here *here)
{
    struct cfi_server_message hello;
    int error = cfi_server_receive(here->socket, &hello, &here->host);
    if (error == 0 && hello.type != CFI_SERVER_HELLO)
        error = EPROTO;
    if (error == 0 && here->host < 0)
        error = EMFILE;
    here->is_spawn = error == 0 && hello.is_spawn != 0;
    return error;
}

static int arrange_all(struct here *here)
{
    int error = close_all_but(here->socket);
    if (error == 0)
        error = hear_hello(here);
    if (error == 0)
        error = arrange_stdio();
    return error == 0 ? arrange_signals(here) : error;
}

void cfi_server_run(int socket)
{
    struct here here = { .socket = socket, .host = -1, .signals = -1, .pid = getpid() };
    name_process("cfutures-server");
    int error = arrange_all(&here);
    (void)say(&here, CFI_SAY(READY, .error = error), -1);
    if (error != 0)
        _exit(1);
    serve(&here);
}

/* ---- a fresh image of the program ---- */

static cfi_bool was_called;

bool cfi_worker_main_was_called(void)
{
    return cfi_load_acquire(&was_called); /* pairs with cf_worker_main */
}

/* The descriptor that a variable names; the variable is gone then, so that no other program sees it.
 * Below 0: none. */
static int take_descriptor(const char *variable)
{
    const char *text = secure_getenv(variable);
    if (!text)
        return -1;
    char *end;
    errno = 0;
    long fd = strtol(text, &end, 10);
    bool is_one = isdigit((unsigned char)*text) && *end == '\0' && errno == 0 && fd <= INT_MAX;
    (void)unsetenv(variable);
    return is_one ? (int)fd : -1;
}

static bool option_is(int fd, int option, int wanted)
{
    int value;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
}

/* Is it one end of a socket pair that a process of this user made? */
static bool is_from_us(int fd)
{
    struct ucred maker;
    socklen_t size = sizeof maker;
    return fd > STDERR_FILENO && option_is(fd, SO_DOMAIN, AF_UNIX) &&
           option_is(fd, SO_TYPE, SOCK_SEQPACKET) &&
           getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &size) == 0 && maker.uid == geteuid();
}

/* Ends the process if the host has gone meanwhile. */
static bool begins_with_hello(int socket)
{
    uint64_t magic = 0;
    ssize_t n = recv(socket, &magic, sizeof magic, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        _exit(1);
    return n == sizeof magic && magic == CFI_SERVER_MAGIC;
}

/* Whoever is meant must not return: its main would run, and make pools, and these more workers. */
void cf_worker_main(void)
{
    cfi_store_release(&was_called, true);
    int socket = take_descriptor(CFI_SERVER_VARIABLE);
    if (is_from_us(socket) && begins_with_hello(socket))
        cfi_server_run(socket); /* if it has another version, the host is told so */
    int channel = take_descriptor(CFI_WORKER_VARIABLE);
    if (is_from_us(channel)) {
        (void)fcntl(channel, F_SETFD, FD_CLOEXEC);
        name_process("cfutures-worker");
        _exit(cfi_worker_serve(channel, true));
    }
}
