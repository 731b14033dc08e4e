/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "server_talk.h"

#include "../base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Room for one descriptor, aligned as its header is. */
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int cfi_server_send(int socket, struct cfi_server_message message, int fd)
{
    struct iovec data = { &message, sizeof message };
    struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1 };
    union control control;
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = sizeof control.bytes;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0;
    return errno == ECONNRESET ? EPIPE : errno;
}

int cfi_above_stdio(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int error = errno;
    (void)close(fd);
    errno = error;
    return above;
}

static int descriptor_of(struct msghdr *header)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return cfi_above_stdio(fd);
}

int cfi_server_receive(int socket, struct cfi_server_message *message, int *ret_fd)
{
    union control control;
    struct iovec data = { message, sizeof *message };
    struct msghdr header = { .msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control.bytes };
    ssize_t got;
    /* The other side has closed its end with messages unread: said once, before what it has sent. */
    do
        got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && (errno == EINTR || errno == ECONNRESET));
    if (got <= 0)
        return got == 0 ? EPIPE : errno;
    *ret_fd = descriptor_of(&header);
    if (got == sizeof *message && message->magic == CFI_SERVER_MAGIC &&
        message->version == CFI_SERVER_VERSION)
        return 0;
    if (*ret_fd >= 0)
        (void)close(*ret_fd);
    return EPROTO;
}

int cfi_server_await(int fd, short events, int64_t deadline)
{
    enum { SECOND = 1000000000 };
    struct pollfd watched = { .fd = fd, .events = events };
    for (;;) {
        int64_t left = deadline == CFI_NEVER ? CFI_NEVER : deadline - cfi_now();
        if (left < 0)
            left = 0;
        struct timespec time = { .tv_sec = left / SECOND, .tv_nsec = left % SECOND };
        int n = ppoll(&watched, 1, deadline == CFI_NEVER ? NULL : &time, NULL);
        if (n != 0 && (n > 0 || errno != EINTR))
            return n > 0 ? 0 : errno;
        if (n == 0 && cfi_deadline_passed(deadline))
            return ETIMEDOUT;
    }
}

const char *cfi_own_image(void)
{
    static const char by_proc[] = "/proc/self/exe";
    const char *name = (const char *)getauxval(AT_EXECFN);
    return access(by_proc, F_OK) == 0 || !name || !strchr(name, '/') ? by_proc : name;
}
