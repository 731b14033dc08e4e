/* SPDX-License-Identifier: MIT */
/* What the process pool does when its process is refused something: the n-th call of each kind fails,
 * alone or with all after it, for every n.  Making a pool is all or nothing; what was accepted ends;
 * the pool can always be shut down; nothing stays behind. */
#define _GNU_SOURCE
#include "process_support.h"

#include <dlfcn.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#if !defined(__GLIBC__) || defined(CFI_ASAN) || defined(CFI_TSAN)

int main(void)
{
    return 77;
}

#else

/* ---- refusing ---- */

enum kind {
    MEMORY,
    MAPPING,
    MEMFD,
    SIZING,
    ALLOCATING,
    SOCKET,
    EVENTFD,
    EPOLL,
    EPOLL_ADD,
    THREAD,
    SPAWN,
    FORK,
    DUPLICATE,
    SEND,
    RECEIVE,
    OPEN,
    RAW,
    KINDS
};

static const struct {
    const char *name;
    int error;
} kinds[KINDS] = {
    [MEMORY] = { "memory", ENOMEM },        [MAPPING] = { "mmap", ENOMEM },
    [MEMFD] = { "memfd_create", EMFILE },   [SIZING] = { "ftruncate", ENOSPC },
    [ALLOCATING] = { "fallocate", ENOSPC }, [SOCKET] = { "socketpair", EMFILE },
    [EVENTFD] = { "eventfd", EMFILE },      [EPOLL] = { "epoll_create1", EMFILE },
    [EPOLL_ADD] = { "epoll_ctl", ENOSPC },  [THREAD] = { "pthread_create", EAGAIN },
    [SPAWN] = { "posix_spawn", EAGAIN },    [FORK] = { "fork", EAGAIN },
    [DUPLICATE] = { "fcntl", EMFILE },      [SEND] = { "sendmsg", ENOBUFS },
    [RECEIVE] = { "recvmsg", ENOMEM },      [OPEN] = { "open", EMFILE },
    [RAW] = { "syscall", EAGAIN },
};

/* While it is armed, `length` calls of that kind fail from the `first` on. */
static struct {
    atomic_bool armed;
    atomic_int kind;
    atomic_long calls, first, length;
} refusal;

static void refuse(enum kind kind, long first, long length)
{
    atomic_store(&refusal.kind, (int)kind);
    atomic_store(&refusal.calls, 0);
    atomic_store(&refusal.first, first);
    atomic_store(&refusal.length, length);
    atomic_store(&refusal.armed, true);
}

/* Ends it; has a call failed? */
static bool has_refused(void)
{
    atomic_store(&refusal.armed, false);
    return atomic_load(&refusal.calls) >= atomic_load(&refusal.first);
}

static pid_t host;

/* Who borrows this process's memory to start another has no one to tell that it cannot speak. */
static bool is_concerned(enum kind kind)
{
    return atomic_load(&refusal.armed) && atomic_load(&refusal.kind) == (int)kind &&
           (kind != SEND || getpid() == host);
}

static bool is_refused(enum kind kind)
{
    if (!is_concerned(kind))
        return false;
    long after = atomic_fetch_add(&refusal.calls, 1) + 1 - atomic_load(&refusal.first);
    bool refused = after >= 0 && after < atomic_load(&refusal.length);
    if (refused)
        errno = kinds[kind].error;
    return refused;
}

/* ---- in the place of libc's ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    return is_refused(MEMORY) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return is_refused(MEMORY) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return is_refused(MEMORY) ? NULL : __libc_realloc(block, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return is_refused(MEMORY) ? NULL : __libc_memalign(alignment, size);
}

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* The real function behind a name, found once. */
#define REAL(result, name, ...)                                                                    \
    static result (*real)(__VA_ARGS__);                                                            \
    if (!real)                                                                                     \
    *(void **)&real = next(#name)

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    REAL(void *, mmap, void *, size_t, int, int, int, off_t);
    return is_refused(MAPPING) ? MAP_FAILED : real(at, size, protection, flags, fd, offset);
}

int memfd_create(const char *name, unsigned flags)
{
    REAL(int, memfd_create, const char *, unsigned);
    return is_refused(MEMFD) ? -1 : real(name, flags);
}

int ftruncate(int fd, off_t size)
{
    REAL(int, ftruncate, int, off_t);
    return is_refused(SIZING) ? -1 : real(fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    REAL(int, fallocate, int, int, off_t, off_t);
    return is_refused(ALLOCATING) ? -1 : real(fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    REAL(int, posix_fallocate, int, off_t, off_t);
    return is_refused(ALLOCATING) ? ENOSPC : real(fd, offset, size);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
    REAL(int, socketpair, int, int, int, int *);
    return is_refused(SOCKET) ? -1 : real(domain, type, protocol, fds);
}

int eventfd(unsigned count, int flags)
{
    REAL(int, eventfd, unsigned, int);
    return is_refused(EVENTFD) ? -1 : real(count, flags);
}

int epoll_create1(int flags)
{
    REAL(int, epoll_create1, int);
    return is_refused(EPOLL) ? -1 : real(flags);
}

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    REAL(int, epoll_ctl, int, int, int, struct epoll_event *);
    return is_refused(EPOLL_ADD) ? -1 : real(epoll, what, fd, event);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *data)
{
    REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return is_refused(THREAD) ? EAGAIN : real(thread, attributes, run, data);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const argv[], char *const env[])
{
    REAL(int, posix_spawn, pid_t *, const char *, const posix_spawn_file_actions_t *,
         const posix_spawnattr_t *, char *const *, char *const *);
    return is_refused(SPAWN) ? EAGAIN : real(pid, path, actions, attributes, argv, env);
}

pid_t fork(void)
{
    REAL(pid_t, fork, void);
    return is_refused(FORK) ? -1 : real();
}

int fcntl(int fd, int what, ...)
{
    va_list list;
    va_start(list, what);
    void *argument = va_arg(list, void *);
    va_end(list);
    REAL(int, fcntl, int, int, ...);
    return (what == F_DUPFD || what == F_DUPFD_CLOEXEC) && is_refused(DUPLICATE)
               ? -1
               : real(fd, what, argument);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
    return is_refused(SEND) ? -1 : real(fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(ssize_t, recvmsg, int, struct msghdr *, int);
    return is_refused(RECEIVE) ? -1 : real(fd, message, flags);
}

int open(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, mode_t);
    va_end(list);
    REAL(int, open, const char *, int, ...);
    return is_refused(OPEN) ? -1 : real(path, flags, mode);
}

/* Only those that may fail for want of something: a futex may not. */
long syscall(long number, ...)
{
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    REAL(long, syscall, long, ...);
    bool may_fail = number == SYS_pidfd_open || number == SYS_clone3 || number == SYS_memfd_create;
    return may_fail && is_refused(RAW) ? -1 : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- the life of a pool ---- */

enum { LARGE = 300000 };

static int copy_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    if (cf_bytes_resize(result, arg_size) != CF_OK)
        return 1;
    memcpy(result->data, arg, arg_size);
    return 0;
}

static bool may_be_refused(cf_status status)
{
    return status == CF_OK || status == CF_NOMEM || status == CF_SYSTEM || status == CF_BROKEN;
}

static void must_end(cf_future *f, int number)
{
    cf_status status = f ? cf_future_result(f, LIMIT, NULL, 0) : CF_OK;
    if (!may_be_refused(status) && status != CF_FAILED && status != CF_STOPPED)
        fail_msg("future %d, call %ld: %s: %s", number, atomic_load(&refusal.first),
                 cf_status_name(status), cf_last_error()->message);
    cf_future_unref(f);
}

static void submit_each_kind(cf_executor *pool, cf_future *f[8])
{
    static char large[LARGE];
    const int ran = RAN;
    const enum way way = BY_KILL;
    cf_status status[8];
    status[0] = cf_submit(pool, raise_cell, &ran, sizeof ran, 0, &f[0]);
    status[1] = cf_submit_bytes(pool, copy_bytes, large, LARGE, &f[1]);
    status[2] = cf_submit(pool, die_in_a_way, &way, sizeof way, 0, &f[2]);
    status[3] = cf_submit_bytes(pool, copy_bytes, large, 10000, &f[3]);
    status[4] = cf_submit(pool, do_nothing, NULL, 0, LARGE, &f[4]);
    status[5] = cf_submit_task(pool, CF_TASK(.fn = spin, .run_limit_ns = CF_MS(5)), &f[5]);
    status[6] = cf_submit(pool, raise_cell, &ran, sizeof ran, 0, &f[6]);
    status[7] = cf_submit_task(pool, CF_TASK(.fn = do_nothing, .priority = 5), &f[7]);
    for (int i = 0; i < 8; i++) {
        if (!may_be_refused(status[i]))
            fail_msg("submit %d: %s: %s", i, cf_status_name(status[i]), cf_last_error()->message);
        assert_true(status[i] == CF_OK || !f[i]);
    }
}

/* Is there a call of that kind left to refuse? */
static bool live(enum kind kind, long first, long length)
{
    cf_future *f[8] = { NULL };
    cf_executor *pool = NULL;
    struct tally before = tally_now();
    refuse(kind, first, length);
    cf_status status = cf_process_pool_new(
        CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_retries = 1, .max_restarts = 3), &pool);
    if (status != CF_OK) {
        assert_true(has_refused());
        assert_true(status == CF_NOMEM || status == CF_SYSTEM);
        assert_null(pool);
        assert_int_not_equal(strlen(cf_last_error()->message), 0);
        if (!is_as_before(&before))
            fail_msg("%s, %ld: something stayed behind", kinds[kind].name, first);
        return true;
    }
    submit_each_kind(pool, f);
    for (int i = 0; i < 8; i++)
        must_end(f[i], i);
    status = cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT);
    bool refused = has_refused();
    if (status != CF_OK)
        fail_msg("%s, %ld: shutdown: %s", kinds[kind].name, first, cf_status_name(status));
    cf_executor_free(pool);
    return refused;
}

static void sweep(enum kind kind, long length)
{
    /* Each of the first ones, which make the pool and its workers; then some. */
    long most = is_long_run() ? 1000 : 60, step = is_long_run() ? 1 : 9;
    for (long first = 1; first <= most && live(kind, first, length);
         first += first < 16 ? 1 : step) {
        if (check_tally(NULL) != 0)
            fail_msg("%s: call %ld of %ld", kinds[kind].name, first, length);
    }
}

static void test_one_call_fails(void **state)
{
    sweep(*(enum kind *)*state, 1);
}

static void test_all_calls_fail(void **state)
{
    sweep(*(enum kind *)*state, LONG_MAX);
}

static int begin_kind(void **state)
{
    return begin_tally(state);
}

int main(void)
{
    static enum kind each[KINDS];
    static struct CMUnitTest tests[2 * KINDS];
    static char names[2 * KINDS][40];
    begin_process_tests();
    host = getpid();
    for (int i = 0; i < KINDS; i++)
        each[i] = (enum kind)i;
    size_t count = 0;
    for (size_t i = 0; i < COUNT_OF(tests); i++) {
        if (i == 2 * SEND + 1) /* a socket that never takes anything again is none */
            continue;
        snprintf(names[i], sizeof names[i], "%s, %s", kinds[i / 2].name, i % 2 ? "all" : "one");
        tests[count++] =
            (struct CMUnitTest){ names[i], i % 2 ? test_all_calls_fail : test_one_call_fails,
                                 begin_kind, check_tally, &each[i / 2] };
    }
    return _cmocka_run_group_tests("refusals", tests, count, NULL, NULL);
}

#endif
