/* SPDX-License-Identifier: MIT */
/* The fork server: a process that makes a pool's workers, is the parent of them all, and so knows how
 * each has ended, whatever the pool's process does with SIGCHLD.  See server.c. */
#ifndef CFI_PROCESSES_SERVER_H
#define CFI_PROCESSES_SERVER_H

#include <cfutures.h>
#include <stdint.h>
#include <sys/types.h>

struct cfi_server {
    int socket; /* non-blocking; readable: cfi_server_next has something */
    int pidfd;  /* of the server's process */
    int host;   /* pidfd of this process, for the server and the workers */
};

/* Starts a server as the method says, and waits until it answers.  All or nothing.  CF_OK, CF_INVALID,
 * CF_SYSTEM, CF_NOMEM. */
cf_status cfi_server_start(cf_start_method method, struct cfi_server *server);

/* Asks for a worker that calls cf_worker_run_channel(channel).  The descriptor is copied.  0 or an
 * errno (EAGAIN: it is busy). */
int cfi_server_request(struct cfi_server *server, uint64_t tag, int channel);

struct cfi_server_event {
    enum {
        CFI_WORKER_BORN,   /* pid, pidfd (the caller's from now on) */
        CFI_WORKER_UNBORN, /* error: an errno */
        CFI_WORKER_DIED,   /* pid, status: as of waitpid */
        CFI_SERVER_GONE    /* the server itself has died; comes again and again */
    } type;
    uint64_t tag; /* of the request */
    pid_t pid;
    int pidfd;
    int status;
    int error;
};

/* The next thing that has happened; false: nothing.  Never waits. */
bool cfi_server_next(struct cfi_server *server, struct cfi_server_event *ret);

/* Ends the server, and with it every worker that still lives; waits until it has gone (it cannot refuse).
 * Closes the descriptors. */
void cfi_server_stop(struct cfi_server *server);

/* In a forked child: closes the descriptors and leaves the server alone. */
void cfi_server_forget(struct cfi_server *server);

/* Sends a signal to a process by its pidfd. */
void cfi_pidfd_signal(int pidfd, int signal_number);

/* Where this process inherits orphans (as process 1 does), a worker whose server was killed ends up
 * as its child: when it is dead this clears it away.  Anywhere else it does nothing. */
void cfi_pidfd_reap(int pidfd);

/* Counts a thread of the library's own that has been started (1) or joined (-1), and that may be there
 * when the process forks: it holds no lock then. */
void cfi_own_thread(int delta);

#endif
