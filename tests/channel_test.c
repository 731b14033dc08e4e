/* SPDX-License-Identifier: MIT */
/* Messages with descriptors, sealed memory, and the rings that lie in it. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "processes/channel.h"

static int ends[2];

static int open_socket(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

static int close_socket(void **state)
{
    (void)state;
    close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
    return 0;
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* ---- messages ---- */

static void test_a_message_arrives(void **state)
{
    (void)state;
    struct cfi_message sent = { .type = CFI_UNFIT, .code = 5, .text = "why" }, got;
    int fds[4], count = -1;
    assert_int_equal(cfi_message_send(ends[0], &sent, NULL, 0), 0);
    assert_int_equal(cfi_message_receive(ends[1], &got, 0, fds, &count), 0);
    assert_memory_equal(&sent, &got, sizeof sent);
    assert_int_equal(count, 0);
}

static void test_descriptors_arrive(void **state)
{
    (void)state;
    struct cfi_message message = { .type = CFI_BLOCK };
    for (int n = 1; n <= 4; n++) {
        int pipes[4][2], mine[4], got[4], count = 0;
        for (int i = 0; i < n; i++) {
            assert_int_equal(pipe(pipes[i]), 0);
            mine[i] = pipes[i][1];
        }
        assert_int_equal(cfi_message_send(ends[0], &message, mine, n), 0);
        assert_int_equal(cfi_message_receive(ends[1], &message, 0, got, &count), 0);
        assert_int_equal(count, n);
        for (int i = 0; i < n; i++) {
            char c;
            assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
            assert_int_equal(write(got[i], "x", 1), 1);
            assert_int_equal(read(pipes[i][0], &c, 1), 1); /* in their order */
            close(got[i]);
            close(pipes[i][0]);
            close(pipes[i][1]);
        }
    }
}

static void test_nothing_there(void **state)
{
    (void)state;
    struct cfi_message message;
    int fds[4], count;
    assert_int_equal(cfi_message_receive(ends[1], &message, MSG_DONTWAIT, fds, &count), EAGAIN);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(cfi_message_receive(ends[1], &message, 0, fds, &count), EAGAIN);
}

static void test_a_full_socket(void **state)
{
    (void)state;
    const struct cfi_message message = { .type = CFI_READY };
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    int error;
    do
        error = cfi_message_send(ends[0], &message, NULL, 0);
    while (error == 0);
    assert_int_equal(error, EAGAIN);
}

static void test_the_other_side_has_gone(void **state)
{
    (void)state;
    struct cfi_message message = { .type = CFI_READY };
    int fds[4], count;
    assert_int_equal(cfi_message_send(ends[0], &message, NULL, 0), 0);
    assert_int_equal(cfi_message_send(ends[1], &message, NULL, 0), 0);
    close(ends[1]);
    ends[1] = -1;
    assert_int_equal(cfi_message_send(ends[0], &message, NULL, 0), EPIPE); /* and no signal */
    int error;
    do /* what it had said, and that it did not read what we had */
        error = cfi_message_receive(ends[0], &message, 0, fds, &count);
    while (error == 0);
    assert_int_equal(error, EPIPE);
    assert_int_equal(cfi_message_receive(ends[0], &message, 0, fds, &count), EPIPE);
}

/* Sends any bytes, with descriptors. */
static void send_raw(const void *bytes, size_t size, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(8 * sizeof(int))];
    } control = { .room = { 0 } };
    struct iovec part = { (void *)(uintptr_t)bytes, size };
    struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > 0) {
        packet.msg_control = control.room;
        packet.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
    }
    assert_int_equal(sendmsg(ends[0], &packet, 0), size);
}

static void assert_refused(int error)
{
    struct cfi_message message;
    int fds[4], count, before = open_descriptors();
    assert_int_equal(cfi_message_receive(ends[1], &message, 0, fds, &count), error);
    assert_int_equal(open_descriptors(), before);
}

static void test_what_is_no_message(void **state)
{
    (void)state;
    static char bytes[2 * sizeof(struct cfi_message)];
    const int fds[8] = { 0, 1, 2, 0, 1, 2, 0, 1 };
    send_raw(bytes, 1, NULL, 0);
    assert_refused(EPROTO);
    send_raw(bytes, sizeof(struct cfi_message) - 1, fds, 2);
    assert_refused(EPROTO);
    send_raw(bytes, sizeof(struct cfi_message) + 1, fds, 4);
    assert_refused(EPROTO);
    send_raw(bytes, sizeof(struct cfi_message), fds, 5);
    assert_refused(EMFILE); /* a message, but with more than there is room for */
    send_raw(bytes, sizeof(struct cfi_message), fds, 8);
    assert_refused(EMFILE);
}

static void test_a_text_has_an_end(void **state)
{
    (void)state;
    struct cfi_message message;
    int fds[4], count;
    memset(&message, 'x', sizeof message);
    assert_int_equal(cfi_message_send(ends[0], &message, NULL, 0), 0);
    assert_int_equal(cfi_message_receive(ends[1], &message, 0, fds, &count), 0);
    assert_int_equal(strlen(message.text), sizeof message.text - 1);
}

/* ---- memory ---- */

enum { SIZE = 100000 };

static void test_both_sides_see_it(void **state)
{
    (void)state;
    int fd;
    void *here, *there;
    assert_int_equal(cfi_memory_new("test", SIZE, false, &fd, &here), 0);
    assert_int_equal(cfi_memory_map(fd, SIZE, false, &there), 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    memset(here, 1, SIZE);
    ((char *)there)[SIZE - 1] = 2;
    assert_int_equal(((char *)there)[0], 1);
    assert_int_equal(((char *)here)[SIZE - 1], 2);
    munmap(here, SIZE);
    munmap(there, SIZE);
    close(fd);
}

static void test_its_memory_is_there(void **state)
{
    (void)state;
    struct stat about;
    int fd;
    void *data;
    const size_t size = (size_t)40 << 20; /* more than is allocated at once */
    assert_int_equal(cfi_memory_new("test", size, false, &fd, &data), 0);
    assert_int_equal(fstat(fd, &about), 0);
    assert_true((size_t)about.st_blocks * 512 >= size);
    munmap(data, size);
    close(fd);
}

static void test_it_keeps_its_size(void **state)
{
    (void)state;
    int fd;
    void *data;
    assert_int_equal(cfi_memory_new("test", SIZE, false, &fd, &data), 0);
    assert_int_equal(ftruncate(fd, 1), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, SIZE + 1), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    munmap(data, SIZE);
    close(fd);
}

static void test_read_only_for_others(void **state)
{
    (void)state;
    int fd;
    void *here, *there;
    assert_int_equal(cfi_memory_new("test", SIZE, true, &fd, &here), 0);
    assert_int_not_equal(cfi_memory_map(fd, SIZE, false, &there), 0);
    assert_int_equal(cfi_memory_map(fd, SIZE, true, &there), 0);
    memset(here, 5, SIZE);
    assert_int_equal(((const char *)there)[SIZE - 1], 5);
    assert_int_not_equal(mprotect(there, SIZE, PROT_READ | PROT_WRITE), 0);
    munmap(here, SIZE);
    munmap(there, SIZE);
    close(fd);
}

static void test_what_cannot_be_mapped(void **state)
{
    (void)state;
    int fd;
    void *data = NULL, *none = NULL;
    assert_int_equal(cfi_memory_new("test", SIZE, false, &fd, &data), 0);
    assert_int_equal(cfi_memory_map(fd, SIZE + 1, false, &none), EINVAL);
    assert_int_equal(cfi_memory_map(fd, SIZE - 1, false, &none), EINVAL);
    assert_int_equal(cfi_memory_map(fd, 0, false, &none), EINVAL);
    assert_int_equal(cfi_memory_map(ends[0], SIZE, false, &none), EINVAL);
    assert_int_equal(cfi_memory_map(-1, SIZE, false, &none), EBADF);
    int loose = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* could shrink under us */
    assert_int_equal(ftruncate(loose, SIZE), 0);
    assert_int_equal(cfi_memory_map(loose, SIZE, false, &none), EINVAL);
    assert_null(none);
    close(loose);
    munmap(data, SIZE);
    close(fd);
}

static void exceed_limits(void *unused)
{
    (void)unused;
    int fd = -5, before = open_descriptors();
    void *data = NULL;
    const struct rlimit limit = { SIZE, SIZE };
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK(cfi_memory_new("test", SIZE_MAX, false, &fd, &data) == ENOMEM);
    CHECK(cfi_memory_new("test", SIZE_MAX / 2, false, &fd, &data) == ENOMEM);
    CHECK(cfi_memory_new("test", SIZE + 1, false, &fd, &data) == EFBIG); /* and no SIGXFSZ */
    CHECK(cfi_memory_new("test", 0, false, &fd, &data) != 0);
    CHECK(fd == -5 && !data && open_descriptors() == before);
    CHECK(cfi_memory_new("test", SIZE, false, &fd, &data) == 0);
}

/* In a child with a limit, so that a library that lets them pass does not take all of the memory. */
static void test_too_much(void **state)
{
    (void)state;
    assert_int_equal(in_child(exceed_limits, NULL), 0);
}

/* ---- rings ---- */

static void test_the_heap_fits(void **state)
{
    (void)state;
    assert_int_equal(cfi_heap_fit(0, 10), 0);
    assert_int_equal(cfi_heap_fit(1, 10), 16);
    assert_int_equal(cfi_heap_fit(16, 10), 16);
    assert_int_equal(cfi_heap_fit(CFI_HEAP - 16, 16), CFI_HEAP - 16);
    assert_int_equal(cfi_heap_fit(CFI_HEAP - 16, 17), CFI_HEAP);
    assert_int_equal(cfi_heap_fit(CFI_HEAP - 15, 1), CFI_HEAP);
    assert_int_equal(cfi_heap_fit(5 * (uint64_t)CFI_HEAP + 17, CFI_HEAP_LARGEST),
                     5 * (uint64_t)CFI_HEAP + 32);
}

int main(void)
{
#define WITH_SOCKET(test) cmocka_unit_test_setup_teardown(test, open_socket, close_socket)
    const struct CMUnitTest tests[] = {
        WITH_SOCKET(test_a_message_arrives),
        WITH_SOCKET(test_descriptors_arrive),
        WITH_SOCKET(test_nothing_there),
        WITH_SOCKET(test_a_full_socket),
        WITH_SOCKET(test_the_other_side_has_gone),
        WITH_SOCKET(test_what_is_no_message),
        WITH_SOCKET(test_a_text_has_an_end),
        cmocka_unit_test(test_both_sides_see_it),
        cmocka_unit_test(test_its_memory_is_there),
        cmocka_unit_test(test_it_keeps_its_size),
        cmocka_unit_test(test_read_only_for_others),
        WITH_SOCKET(test_what_cannot_be_mapped),
        cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_the_heap_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
