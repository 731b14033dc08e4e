/* SPDX-License-Identifier: MIT */
/* What a pool's process (the host) and its fork server say to each other: one struct a message, through
 * a SOCK_SEQPACKET socket, some with a descriptor.  In the order of a server's life:
 *
 *     HELLO    host; lies in the socket before the server exists.  Descriptor: the host's pidfd
 *     MADE     who made the server, and ends then: the server's pidfd, or the error
 *     READY    server: it takes requests, or the error that it ends with
 *     REQUEST  host: a worker, please.  Descriptor: the worker's end of its channel
 *     BORN     server: here it is.  Descriptor: its pidfd.  Or UNBORN: the error
 *     DROP     host: kill that worker and say no more of it
 *     DIED     server: how a worker has ended; always after its BORN
 *     QUIT     host: end, and all workers with you.  The end of the socket says the same */
#ifndef CFI_PROCESSES_SERVER_TALK_H
#define CFI_PROCESSES_SERVER_TALK_H

#include "server.h"

#include <stdnoreturn.h>

enum { CFI_SERVER_VERSION = 1 };
#define CFI_SERVER_MAGIC                                                                           \
    UINT64_C(0x6366757475726573) /* what no other program's message begins with */

struct cfi_server_message {
    uint64_t magic;
    uint32_t version;
    enum {
        CFI_SERVER_HELLO = 1,
        CFI_SERVER_MADE,
        CFI_SERVER_READY,
        CFI_SERVER_REQUEST,
        CFI_SERVER_BORN,
        CFI_SERVER_UNBORN,
        CFI_SERVER_DROP,
        CFI_SERVER_DIED,
        CFI_SERVER_QUIT
    } type;
    uint64_t tag;      /* REQUEST, BORN, UNBORN, DROP, DIED  */
    int32_t pid;       /* BORN, DIED                         */
    int32_t status;    /* DIED: as of waitpid                */
    int32_t error;     /* MADE, READY, UNBORN: an errno or 0 */
    uint32_t is_spawn; /* HELLO: the workers are fresh images too */
};

/* The message of a type, with these fields set. */
#define CFI_SAY(type_, ...)                                                                        \
    ((struct cfi_server_message){ .magic = CFI_SERVER_MAGIC,                                       \
                                  .version = CFI_SERVER_VERSION,                                   \
                                  .type = CFI_SERVER_##type_,                                      \
                                  __VA_ARGS__ })

/* Sends a message, with a descriptor unless it is below 0, without waiting.  0 or an errno: EAGAIN, EPIPE. */
int cfi_server_send(int socket, struct cfi_server_message message, int fd);

/* Receives one, without waiting.  *ret_fd: what came with it, above 2 and the caller's, or -1.  0 or an
 * errno: EAGAIN, EPIPE: the other side has gone. */
int cfi_server_receive(int socket, struct cfi_server_message *message, int *ret_fd);

/* Waits until poll has one of these events for the descriptor.  0, ETIMEDOUT or an errno. */
int cfi_server_await(int fd, short events, int64_t deadline);

/* The same descriptor with a number that is none of stdin, stdout, stderr: those may be closed, and
 * what is put in their place is written to by whoever believes in them.  Below 0: with errno. */
int cfi_above_stdio(int fd);

int cfi_pidfd_open(pid_t pid);            /* above stdio; below 0: with errno */
int cfi_close_range(int first, int last); /* below 0: with errno              */

/* The life of a server: the process that calls this.  The first message in the socket is HELLO. */
noreturn void cfi_server_run(int socket);

/* Whether this program comes by cf_worker_main when it is started again. */
bool cfi_worker_main_was_called(void);

/* What to execute for a fresh image of this program.  Where /proc is not mounted: the name that it was
 * started by.  Should that be another program by now, its functions are not found there. */
const char *cfi_own_image(void);
/* The variables that tell the copy what it is. */
#define CFI_SERVER_VARIABLE "CFUTURES_SERVER"
#define CFI_WORKER_VARIABLE "CFUTURES_WORKER"

#endif
