/* SPDX-License-Identifier: MIT */
/* The host's side of a fork server that runs: asking it, hearing from it, ending it; and pidfds. */
#define _GNU_SOURCE
#include "../base/clock.h"
#include "server_talk.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what the C library may be too old to have; the numbers are the same everywhere ---- */

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
enum { WAIT_FOR_PIDFD = 3 }; /* P_PIDFD */

int cfi_pidfd_open(pid_t pid)
{
    return cfi_above_stdio((int)syscall(SYS_pidfd_open, pid, 0));
}

void cfi_pidfd_signal(int pidfd, int signal_number)
{
    (void)syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0);
}

void cfi_pidfd_reap(int pidfd)
{
    siginfo_t unused;
    (void)waitid((idtype_t)WAIT_FOR_PIDFD, (id_t)pidfd, &unused, WEXITED | WNOHANG | __WALL);
}

int cfi_close_range(int first, int last)
{
    return (int)syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0);
}

/* ---- asking ---- */

int cfi_server_request(struct cfi_server *server, uint64_t tag, int channel)
{
    return cfi_server_send(server->socket, CFI_SAY(REQUEST, .tag = tag), channel);
}

/* A worker whose pidfd did not arrive, since there was no room for a descriptor, cannot be kept. */
static void refuse(struct cfi_server *server, struct cfi_server_event *event)
{
    event->type = CFI_WORKER_UNBORN;
    event->error = EMFILE;
    (void)cfi_server_send(server->socket, CFI_SAY(DROP, .tag = event->tag), -1);
}

/* false: the message is none that says anything here. */
static bool understand(struct cfi_server *server, const struct cfi_server_message *message, int fd,
                       struct cfi_server_event *ret)
{
    *ret = (struct cfi_server_event){ .tag = message->tag,
                                      .pid = message->pid,
                                      .pidfd = fd,
                                      .status = message->status,
                                      .error = message->error };
    switch (message->type) {
    case CFI_SERVER_BORN:
        ret->type = CFI_WORKER_BORN;
        if (fd < 0)
            refuse(server, ret);
        return true;
    case CFI_SERVER_UNBORN:
        ret->type = CFI_WORKER_UNBORN;
        return true;
    case CFI_SERVER_DIED:
        ret->type = CFI_WORKER_DIED;
        return true;
    default:
        return false;
    }
}

bool cfi_server_next(struct cfi_server *server, struct cfi_server_event *ret)
{
    struct cfi_server_message message;
    for (;;) {
        int fd = -1;
        int error = cfi_server_receive(server->socket, &message, &fd);
        if (error == EAGAIN)
            return false;
        if (error != 0) {
            *ret = (struct cfi_server_event){ .type = CFI_SERVER_GONE, .pidfd = -1 };
            return true;
        }
        if (understand(server, &message, fd, ret))
            return true;
        if (fd >= 0)
            (void)close(fd);
    }
}

/* ---- the end ---- */

static void close_one(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void cfi_server_forget(struct cfi_server *server)
{
    close_one(&server->socket);
    close_one(&server->pidfd);
    close_one(&server->host);
}

void cfi_server_stop(struct cfi_server *server)
{
    if (server->socket >= 0)
        (void)cfi_server_send(server->socket, CFI_SAY(QUIT, .tag = 0), -1);
    close_one(&server->socket);
    if (server->pidfd >= 0) {
        if (cfi_server_await(server->pidfd, POLLIN, cfi_deadline(CF_MS(200))) != 0) {
            cfi_pidfd_signal(server->pidfd, SIGKILL); /* stopped, or busy with its workers' ends */
            (void)cfi_server_await(server->pidfd, POLLIN, CFI_NEVER);
        }
        cfi_pidfd_reap(server->pidfd); /* ours where we are the parent of orphans */
    }
    cfi_server_forget(server);
}
