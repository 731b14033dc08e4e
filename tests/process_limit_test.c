/* SPDX-License-Identifier: MIT */
/* The process pool where something is missing: descriptors, memory, processes, system calls, /proc,
 * rights.  It works, or it refuses as a whole and says why; it never hangs and leaves nothing. */
#define _GNU_SOURCE
#include "process_support.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* ---- a host that tries what it can ---- */

enum { WORKED = 0, REFUSED = 10, CANNOT_TRY = 77 };

struct trial {
    int (*limit)(long value); /* before the pool is made; non-zero: it cannot be done here */
    int (*limit_later)(long value);
    long value;
    const char *named; /* what a refusal must name; NULL: whatever it says */
    bool must_work;    /* a refusal is a failure */
};

static bool is_refusal(cf_status status)
{
    return status == CF_SYSTEM || status == CF_NOMEM;
}

static int refused(const struct trial *trial, const struct tally *before, cf_status status)
{
    const char *message = cf_last_error()->message;
    HOST_CHECK(is_refusal(status) || status == CF_INVALID);
    HOST_CHECK(strlen(message) > 0);
    if (trial->named && !strstr(message, trial->named)) {
        fprintf(stderr, "\"%s\" is not in \"%s\"\n", trial->named, message);
        return 2;
    }
    if (trial->must_work) {
        fprintf(stderr, "refused: %s\n", message);
        return 3;
    }
    HOST_CHECK(is_as_before(before));
    return REFUSED;
}

enum { TASKS = 12, LARGE = 300000 };

/* Each is refused, or ends in some way; nothing hangs. */
static int submit_all(cf_executor *pool, bool must_work)
{
    static char large[LARGE];
    cf_future *f[TASKS] = { NULL };
    for (int i = 0; i < TASKS; i++) {
        cf_status status = i % 3 == 2 ? cf_submit(pool, do_nothing, large, LARGE, LARGE, &f[i])
                                      : CF_SUBMIT(pool, twice, &i, int, &f[i]);
        HOST_CHECK(status == CF_OK || is_refusal(status) || status == CF_BROKEN);
        HOST_CHECK(status == CF_OK || !f[i]);
    }
    for (int i = 0; i < TASKS; i++) {
        cf_status status = f[i] ? cf_future_result(f[i], LIMIT, NULL, 0) : CF_SYSTEM;
        HOST_CHECK(status != CF_TIMEOUT);
        HOST_CHECK(!must_work || status == CF_OK);
        cf_future_unref(f[i]);
    }
    return 0;
}

static int crash_one(cf_executor *pool)
{
    const enum way way = BY_SEGV;
    int value = 4, result = 0;
    cf_future *f = NULL;
    HOST_CHECK(cf_submit(pool, die_in_a_way, &way, sizeof way, 0, &f) == CF_OK);
    HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_BROKEN);
    HOST_CHECK(cf_future_exception(f)->signal_number == SIGSEGV);
    cf_future_unref(f);
    HOST_CHECK(CF_SUBMIT(pool, twice, &value, int, &f) == CF_OK);
    HOST_CHECK(CF_RESULT(f, LIMIT, &result) == CF_OK && result == 8);
    cf_future_unref(f);
    return 0;
}

static int try_pool(void *data)
{
    const struct trial *trial = data;
    cf_executor *pool = NULL;
    if (trial->limit && trial->limit(trial->value) != 0)
        return CANNOT_TRY;
    struct tally before = tally_now();
    cf_status status = cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 3), &pool);
    HOST_CHECK((status == CF_OK) == (pool != NULL));
    if (status != CF_OK)
        return refused(trial, &before, status);
    if (trial->limit_later && trial->limit_later(trial->value) != 0)
        return CANNOT_TRY;
    int code = submit_all(pool, trial->must_work);
    if (code == 0 && trial->must_work)
        code = crash_one(pool);
    if (code != 0)
        return code;
    HOST_CHECK(cf_executor_shutdown(pool, CF_FINISH_PENDING, LIMIT) == CF_OK);
    cf_executor_free(pool);
    HOST_CHECK(trial->limit_later || is_as_before(&before));
    return WORKED;
}

static int outcome(const struct trial *trial)
{
    struct trial copy = *trial;
    int code = run_host(try_pool, &copy);
    assert_nobody_left();
    if (code != WORKED && code != REFUSED && code != CANNOT_TRY)
        fail_msg("value %ld: the host returned %d", trial->value, code);
    return code;
}

/* ---- descriptors ---- */

static int limit_descriptors(long value)
{
    return setrlimit(RLIMIT_NOFILE, &(struct rlimit){ (rlim_t)value, (rlim_t)value });
}

static int limit_more_descriptors(long value)
{
    int next = open("/dev/null", O_RDONLY);
    close(next);
    return limit_descriptors(next + value);
}

static void test_few_descriptors(void **unused)
{
    (void)unused;
    bool refusal = false, work = false;
    for (long more = 0; more < 40; more++) {
        int code = outcome(&(struct trial){ .limit = limit_more_descriptors, .value = more });
        refusal |= code == REFUSED;
        work |= code == WORKED;
    }
    assert_true(refusal && work);
}

static void test_descriptors_run_out_later(void **unused)
{
    (void)unused;
    for (long more = 0; more < 16; more++)
        (void)outcome(&(struct trial){ .limit_later = limit_more_descriptors, .value = more });
}

/* ---- processes ---- */

static int be_nobody(long value)
{
    (void)value;
    enum { NOBODY = 65534 };
    return geteuid() == 0 &&
           (setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0);
}

static int limit_processes(long value)
{
    return be_nobody(0) ||
           setrlimit(RLIMIT_NPROC, &(struct rlimit){ (rlim_t)value, (rlim_t)value });
}

static void test_few_processes(void **unused)
{
    (void)unused;
    for (long number = 1; number < 9; number++)
        (void)outcome(&(struct trial){ .limit = limit_processes, .value = number });
}

static void test_another_user(void **unused)
{
    (void)unused;
    int code = outcome(&(struct trial){ .limit = be_nobody });
    if (code == CANNOT_TRY)
        skip();
}

/* ---- memory ---- */

static long size_of_this_process(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld", &pages) != 1)
        return -1;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static int limit_memory(long value)
{
    long size = size_of_this_process();
    rlim_t limit = (rlim_t)(size + value);
    return size < 0 || setrlimit(RLIMIT_AS, &(struct rlimit){ limit, limit });
}

static void test_little_memory(void **unused)
{
    (void)unused;
#if defined(CFI_ASAN) || defined(CFI_TSAN)
    skip();
#endif
    bool refusal = false, work = false;
    for (long more = 0; more < 40; more++) {
        int code = outcome(&(struct trial){ .limit = limit_memory, .value = more * more * 16384 });
        refusal |= code == REFUSED;
        work |= code == WORKED;
    }
    assert_true(refusal && work);
}

static void test_memory_runs_out_later(void **unused)
{
    (void)unused;
#if defined(CFI_ASAN) || defined(CFI_TSAN)
    skip();
#endif
    for (long more = 0; more < 20; more++)
        (void)outcome(&(struct trial){ .limit_later = limit_memory, .value = more * more * 16384 });
}

static int limit_files(long value)
{
    return setrlimit(RLIMIT_FSIZE, &(struct rlimit){ (rlim_t)value, (rlim_t)value });
}

/* Memory that is shared counts as a file: a limit must not end the host by SIGXFSZ. */
static void test_small_files(void **unused)
{
    (void)unused;
    static const long limits[] = { 0, 1, 4096, 100000, 400000, 1000000, 100000000 };
    for (size_t i = 0; i < COUNT_OF(limits); i++)
        (void)outcome(&(struct trial){ .limit = limit_files, .value = limits[i] });
    for (size_t i = 0; i < COUNT_OF(limits); i++)
        (void)outcome(&(struct trial){ .limit_later = limit_files, .value = limits[i] });
}

/* ---- control groups ---- */

/* Enters a new group of that kind with a limit; non-zero: there are none, or not for us. */
static int write_group(const char *dir, const char *file, const char *value)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY);
    bool written = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    if (fd >= 0)
        close(fd);
    return written ? 0 : -1;
}

static void group_path(char path[128], const char *kind, int pid)
{
    snprintf(path, 128, "/sys/fs/cgroup/%s/cfutures-test-%d", kind, pid);
}

static int enter_group(const char *kind, const char *file, long value)
{
    char path[128], number[32];
    group_path(path, kind, (int)getpid());
    snprintf(number, sizeof number, "%ld", value);
    return mkdir(path, 0755) != 0 || write_group(path, file, number) != 0 ||
           write_group(path, "cgroup.procs", "0") != 0;
}

static void remove_group(const char *kind, int pid)
{
    char path[128];
    group_path(path, kind, pid);
    for (int i = 0; i < 1000 && rmdir(path) != 0 && errno == EBUSY; i++)
        usleep(1000);
}

static int enter_pids_group(long value)
{
    return enter_group("pids", "pids.max", value);
}

static void test_a_group_of_few_processes(void **unused)
{
    (void)unused;
    for (long room = 1; room < 10; room++) {
        struct trial trial = { .limit = enter_pids_group, .value = room };
        pid_t host = start_host(try_pool, &trial);
        int code = host_ended(host);
        assert_nobody_left();
        remove_group("pids", (int)host);
        if (code == CANNOT_TRY)
            skip();
        if (code != WORKED && code != REFUSED)
            fail_msg("room for %ld: the host returned %d", room, code);
    }
}

static int take_memory(const void *arg, void *result)
{
    enum { MIB = 1 << 20 };
    (void)arg, (void)result;
    for (int i = 0; i < 400; i++) {
        volatile char *block = malloc(MIB); /* or it would be optimized away */
        for (size_t at = 0; block && at < MIB; at += 1024)
            block[at] = 1;
    }
    return 0;
}

static int be_out_of_memory(void *data)
{
    (void)data;
    cf_executor *pool = NULL;
    cf_future *f = NULL, *g = NULL;
    int value = 4, result = 0;
    if (enter_group("memory", "memory.limit_in_bytes", 100 << 20) != 0)
        return CANNOT_TRY;
    HOST_CHECK(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 2), &pool) == CF_OK);
    HOST_CHECK(cf_submit(pool, take_memory, NULL, 0, 0, &f) == CF_OK);
    HOST_CHECK(CF_SUBMIT(pool, twice, &value, int, &g) == CF_OK);
    HOST_CHECK(cf_future_result(f, LIMIT, NULL, 0) == CF_BROKEN);
    HOST_CHECK(cf_future_exception(f)->signal_number == SIGKILL);
    HOST_CHECK(cf_future_exception(f)->out_of_memory == 1);
    HOST_CHECK(strstr(cf_future_exception(f)->message, "memory") != NULL);
    HOST_CHECK(CF_RESULT(g, LIMIT, &result) == CF_OK && result == 8);
    cf_future_unref(f);
    cf_future_unref(g);
    cf_executor_free(pool);
    return WORKED;
}

static void test_a_worker_takes_too_much_memory(void **unused)
{
    (void)unused;
    pid_t host = start_host(be_out_of_memory, NULL);
    int code = host_ended(host);
    assert_nobody_left();
    remove_group("memory", (int)host);
    if (code == CANNOT_TRY)
        skip();
    assert_int_equal(code, WORKED);
}

/* ---- older kernels, stricter containers ---- */

struct denial {
    const char *name;
    long number;
    int error;
};
static const struct denial *denied;

static int deny(long unused)
{
    (void)unused;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)denied->number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)denied->error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { COUNT_OF(code), code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0;
}

#define DENY(call, error)                                                                          \
    {                                                                                              \
#call, SYS_##call, error                                                                   \
    }

/* There is no need to work without these, but there is to say so. */
static void test_system_calls_that_are_missing(void **unused)
{
    (void)unused;
#if defined(CFI_ASAN) || defined(CFI_TSAN) /* they need some themselves */
    skip();
#endif
    static const struct denial denials[] = {
        DENY(memfd_create, ENOSYS),  DENY(memfd_create, EPERM),   DENY(eventfd2, ENOSYS),
        DENY(socketpair, EACCES),    DENY(pidfd_open, ENOSYS),    DENY(pidfd_open, EPERM),
        DENY(clone3, EPERM),         DENY(fallocate, EOPNOTSUPP), DENY(mmap, ENOMEM),
        DENY(sendmsg, EPERM),        DENY(recvmsg, EPERM),        DENY(execve, EACCES),
        DENY(epoll_create1, EMFILE), DENY(ftruncate, EPERM),      DENY(clone, EAGAIN),
    };
    for (size_t i = 0; i < COUNT_OF(denials); i++) {
        denied = &denials[i];
        int code = outcome(&(struct trial){ .limit = deny, .value = (long)i });
        if (code == CANNOT_TRY)
            skip();
    }
}

/* Without these it works all the same. */
static void test_system_calls_that_are_new(void **unused)
{
    (void)unused;
#if defined(CFI_ASAN) || defined(CFI_TSAN) /* they need some themselves */
    skip();
#endif
    static const struct denial denials[] = {
        DENY(clone3, ENOSYS),     DENY(close_range, ENOSYS),
        DENY(close_range, EPERM), DENY(statx, ENOSYS),

        DENY(membarrier, ENOSYS), DENY(madvise, EPERM),
        DENY(mlock, EPERM),       DENY(sched_getaffinity, EPERM),
        DENY(ptrace, EPERM),      DENY(process_vm_readv, EPERM),
        DENY(kcmp, EPERM),        DENY(ioctl, ENOTTY),
        DENY(setpriority, EPERM),
    };
    for (size_t i = 0; i < COUNT_OF(denials); i++) {
        denied = &denials[i];
        int code = outcome(&(struct trial){ .limit = deny, .value = (long)i, .must_work = true });
        if (code == CANNOT_TRY)
            skip();
    }
}

/* ---- places that are missing ---- */

static int cover(const char *place)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return -1;
    return mount("none", place, "tmpfs", 0, "size=4096");
}

static int cover_proc(long unused)
{
    (void)unused;
    return cover("/proc");
}

static int cover_shm(long unused)
{
    (void)unused;
    return access("/dev/shm", F_OK) == 0 ? cover("/dev/shm") : -1;
}

static int cover_tmp(long unused)
{
    (void)unused;
    unsetenv("HOME");
    unsetenv("TMPDIR");
    return cover("/tmp") == 0 && chmod("/tmp", 0) == 0 ? 0 : -1;
}

static void test_without_proc(void **unused)
{
    (void)unused;
    if (outcome(&(struct trial){ .limit = cover_proc }) == CANNOT_TRY)
        skip();
}

static void test_without_shared_memory_files(void **unused)
{
    (void)unused;
    if (outcome(&(struct trial){ .limit = cover_shm, .must_work = true }) == CANNOT_TRY)
        skip();
}

static void test_without_a_place_for_files(void **unused)
{
    (void)unused;
    if (outcome(&(struct trial){ .limit = cover_tmp, .must_work = true }) == CANNOT_TRY)
        skip();
}

/* ---- one CPU, and none used when idle ---- */

static int use_one_cpu(void *data)
{
    enum { MANY = 20000 };
    static cf_future *f[MANY];
    cpu_set_t allowed, one;
    (void)data;
    HOST_CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &allowed))
            CPU_SET(cpu, &one);
    }
    HOST_CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    cf_executor *pool = NULL;
    HOST_CHECK(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 8), &pool) == CF_OK);
    for (int i = 0; i < MANY; i++)
        HOST_CHECK(CF_SUBMIT(pool, twice, &i, int, &f[i]) == CF_OK);
    HOST_CHECK(cf_wait(f, MANY, CF_ALL_COMPLETED, LIMIT, NULL) == CF_OK);
    for (int i = 0; i < MANY; i++) {
        int value = 0;
        HOST_CHECK(CF_RESULT(f[i], 0, &value) == CF_OK && value == 2 * i);
        cf_future_unref(f[i]);
    }
    cf_executor_free(pool);
    return WORKED;
}

static void test_one_cpu(void **unused)
{
    (void)unused;
    assert_int_equal(run_host(use_one_cpu, NULL), WORKED);
    assert_nobody_left();
}

static int64_t cpu_time_of(int pid)
{
    char path[64];
    long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file,
                            "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld",
                            &user, &system),
                     2);
    fclose(file);
    return (user + system) * (INT64_C(1000000000) / sysconf(_SC_CLK_TCK));
}

static void test_idle_pools_use_no_cpu(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(4);
    cf_future *f[4];
    for (int i = 0; i < 4; i++)
        f[i] = busy(pool);
    int worker = cell_now(WORKER), server = parent_of(worker);
    cell_set(OPENED, 1);
    for (int i = 0; i < 4; i++)
        assert_ends(f[i], CF_OK);
    for (int i = 0; i < 1000; i++)
        assert_works(pool);
    usleep(50000);
    int64_t before = cpu_time_of(getpid()) + cpu_time_of(worker) + cpu_time_of(server);
    usleep(is_long_run() ? 10000000 : 1000000);
    int64_t after = cpu_time_of(getpid()) + cpu_time_of(worker) + cpu_time_of(server);
    assert_true(after - before <= CF_MS(50));
    end_pool(pool);
}

int main(void)
{
    begin_process_tests();
    adopt_orphans();
    const struct CMUnitTest tests[] = {
        TALLIED(test_few_descriptors),
        TALLIED(test_descriptors_run_out_later),
        TALLIED(test_few_processes),
        TALLIED(test_another_user),
        TALLIED(test_little_memory),
        TALLIED(test_memory_runs_out_later),
        TALLIED(test_small_files),
        TALLIED(test_a_group_of_few_processes),
        TALLIED(test_a_worker_takes_too_much_memory),
        TALLIED(test_system_calls_that_are_missing),
        TALLIED(test_system_calls_that_are_new),
        TALLIED(test_without_proc),
        TALLIED(test_without_shared_memory_files),
        TALLIED(test_without_a_place_for_files),
        TALLIED(test_one_cpu),
        TALLIED(test_idle_pools_use_no_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
