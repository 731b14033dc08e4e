/* SPDX-License-Identifier: MIT */
/* Messages and shared memory: what the two ends of a channel have in common.  Neither end trusts the
 * other, so what arrives is measured before it is used. */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { MOST_FDS = 4 };

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(MOST_FDS * sizeof(int))];
};

/* ---- messages ---- */

/* The other side has closed without reading all: to us that is no news. */
static int error_of_socket(void)
{
    return errno == ECONNRESET ? EPIPE : errno;
}

int cfi_message_send(int socket, const struct cfi_message *message, const int *fds, int count)
{
    union control control = { .room = { 0 } };
    struct iovec part = { (void *)(uintptr_t)message, sizeof *message };
    struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > 0) {
        size_t size = (size_t)count * sizeof(int);
        packet.msg_control = control.room;
        packet.msg_controllen = CMSG_SPACE(size);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(&control.header), fds, size);
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &packet, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? error_of_socket() : 0;
}

/* Takes the descriptors out of what came with a message. */
static int take_descriptors(struct msghdr *packet, int fds[MOST_FDS])
{
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c; c = CMSG_NXTHDR(packet, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t size = c->cmsg_len - CMSG_LEN(0); /* the kernel wrote it: no more than fits */
        memcpy(fds + count, CMSG_DATA(c), size);
        count += (int)(size / sizeof(int));
    }
    return count;
}

int cfi_message_receive(int socket, struct cfi_message *message, int flags, int fds[MOST_FDS],
                        int *ret_count)
{
    union control control;
    struct iovec part = { message, sizeof *message };
    struct msghdr packet = { .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room };
    ssize_t got;
    do
        got = recvmsg(socket, &packet, flags | MSG_CMSG_CLOEXEC);
    while (got < 0 &&
           (errno == EINTR || errno == ECONNRESET)); /* said once, before what lies there */
    if (got < 0)
        return error_of_socket();
    int count = take_descriptors(&packet, fds);
    if (got == sizeof *message && !(packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        message->text[sizeof message->text - 1] = '\0';
        *ret_count = count;
        return 0;
    }
    while (count > 0)
        close(fds[--count]);
    if (got == sizeof *message && !(packet.msg_flags & MSG_TRUNC))
        return EMFILE; /* the message is whole, but its descriptors are lost */
    return got == 0 ? EPIPE : EPROTO;
}

/* ---- memory ---- */

/* Gives each page memory now.  A signal interrupts fallocate, which then begins again: in pieces, or
 * a program with a fast timer would never get through. */
static int allocate(int fd, size_t size)
{
    const size_t piece = (size_t)16 << 20;
    for (size_t at = 0; at < size;) {
        size_t part = size - at < piece ? size - at : piece;
        if (fallocate(fd, 0, (off_t)at, (off_t)part) == 0)
            at += part;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

/* What the kernel would not refuse: it would kill for more memory than there is, and send a signal
 * beyond the limit on the size of files. */
static int check_size(size_t size)
{
    struct sysinfo machine;
    struct rlimit limit;
    if (sysinfo(&machine) != 0 || getrlimit(RLIMIT_FSIZE, &limit) != 0)
        return errno;
    if (size / machine.mem_unit >= machine.totalram + machine.totalswap)
        return ENOMEM;
    return size > limit.rlim_cur ? EFBIG : 0;
}

static int fill_and_seal(int fd, size_t size, bool read_only, void **ret_data)
{
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | (read_only ? F_SEAL_FUTURE_WRITE : 0);
    int error = check_size(size);
    if (error == 0 && ftruncate(fd, (off_t)size) != 0)
        error = errno;
    if (error == 0)
        error = allocate(fd, size);
    if (error != 0)
        return error;
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return errno;
    if (fcntl(fd, F_ADD_SEALS, seals) != 0) {
        error = errno;
        munmap(data, size);
        return error;
    }
    *ret_data = data;
    return 0;
}

int cfi_memory_new(const char *name, size_t size, bool read_only, int *ret_fd, void **ret_data)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return errno;
    int error = fill_and_seal(fd, size, read_only, ret_data);
    if (error == 0)
        *ret_fd = fd;
    else
        close(fd);
    return error;
}

int cfi_memory_map(int fd, size_t size, bool read_only, void **ret_data)
{
    struct stat about;
    int seals = fcntl(fd, F_GET_SEALS); /* EINVAL: it is no memfd */
    if (seals < 0 || fstat(fd, &about) != 0)
        return errno;
    if (!(seals & F_SEAL_SHRINK) || (uint64_t)about.st_size != size)
        return EINVAL;
    void *data =
        mmap(NULL, size, read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return errno;
    *ret_data = data;
    return 0;
}

int cfi_high_descriptor(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int error = errno;
    (void)close(fd);
    errno = error;
    return high;
}
