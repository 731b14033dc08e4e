/* SPDX-License-Identifier: MIT */
/* What the tests of process pools share: memory that the test and its workers see, tasks for workers,
 * ways to die, hosts in processes of their own, and the count of what must not stay behind. */
#ifndef TESTS_PROCESS_SUPPORT_H
#define TESTS_PROCESS_SUPPORT_H

#include "pool_support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- the board: numbers that the test, its children and all workers see ---- */

enum { CAME, OPENED, RAN, INITIALIZED, FINALIZED, FAILED_CHECKS, WORKER, FREE_CELLS };

struct board {
    atomic_int cell[4096];
};
static struct board *board;

#define BOARD_VARIABLE "CFUTURES_TEST_BOARD"

/* Stands before cf_worker_main: a fresh image of the program finds the board of the first by name.  If
 * it cannot, it has one of its own. */
static inline void open_board(void)
{
    char name[64];
    const char *known = getenv(BOARD_VARIABLE);
    int fd = known ? open(known, O_RDWR | O_CLOEXEC) : memfd_create("board", MFD_CLOEXEC);
    if (!known && ftruncate(fd, sizeof *board) != 0)
        _exit(98);
    int kind = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, kind, fd, 0);
    if (board == MAP_FAILED)
        _exit(98);
    if (known) {
        close(fd);
        return;
    }
    snprintf(name, sizeof name, "/proc/%d/fd/%d", (int)getpid(), fd);
    setenv(BOARD_VARIABLE, name, 1);
}

/* All but the failed checks of workers, which are the whole test's. */
static inline void clear_board(void)
{
    for (size_t i = 0; i < COUNT_OF(board->cell); i++) {
        if (i != FAILED_CHECKS)
            atomic_store(&board->cell[i], 0);
    }
}

static inline int cell_now(int number)
{
    return atomic_load(&board->cell[number]);
}

static inline int cell_raise(int number)
{
    return atomic_fetch_add(&board->cell[number], 1);
}

static inline void cell_set(int number, int height)
{
    atomic_store(&board->cell[number], height);
}

/* false: it did not come so far. */
static inline bool cell_reaches(int number, int height)
{
    int64_t begun = cfi_now();
    while (cell_now(number) < height && cfi_now() - begun < LIMIT)
        usleep(200);
    return cell_now(number) >= height;
}

/* CHECK for what runs in a worker: counted on the board, and told by check_tally. */
#define WORKER_CHECK(condition)                                                                    \
    ((condition) ? (void)0 : worker_check_failed(CHECK_TEXT(__LINE__, #condition)))

static inline void worker_check_failed(const char *what)
{
    fprintf(stderr, "in worker %d: %s\n", (int)getpid(), what);
    cell_raise(FAILED_CHECKS);
}

/* ---- what must be as before ---- */

struct tally {
    unsigned descriptors, threads;
};
static struct tally tally;

/* Without descriptors of its own, and where there is no /proc without threads. */
static inline struct tally tally_now(void)
{
    struct tally now = { 0, 0 };
    struct stat task;
    for (int fd = 0; fd < 1024; fd++)
        now.descriptors += fcntl(fd, F_GETFD) >= 0;
    if (stat("/proc/self/task", &task) == 0)
        now.threads = (unsigned)task.st_nlink - 2;
    return now;
}

/* A process without children; those that are dead are not counted. */
static inline bool is_childless(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

static inline bool is_as_before(const struct tally *before)
{
    struct tally now = tally_now();
    return now.descriptors == before->descriptors && now.threads == before->threads &&
           is_childless();
}

/* ThreadSanitizer allows no fork beside threads, and its own thread outlives others. */
#ifdef CFI_TSAN
#define SKIP_UNDER_TSAN() skip()
#else
#define SKIP_UNDER_TSAN() ((void)0)
#endif

#ifdef CFI_TSAN
static void *end_at_once(void *unused)
{
    return unused;
}
#endif

/* ThreadSanitizer starts a thread of its own with the first of the program. */
static inline void meet_sanitizer(void)
{
#ifdef CFI_TSAN
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, end_at_once, NULL), 0);
    pthread_join(thread, NULL);
#endif
}

static inline int begin_tally(void **state)
{
    (void)state;
    meet_sanitizer();
    clear_board();
    atomic_store(&board->cell[FAILED_CHECKS], 0);
    (void)is_childless();
    tally = tally_now();
    return 0;
}

static inline int check_tally(void **state)
{
    (void)state;
    int64_t begun = cfi_now();
    while (!is_as_before(&tally) && cfi_now() - begun < LIMIT / 4)
        usleep(1000);
    struct tally now = tally_now();
    if (!is_as_before(&tally)) {
        print_error("%u descriptors, were %u; %u threads, were %u; children: %s\n", now.descriptors,
                    tally.descriptors, now.threads, tally.threads, is_childless() ? "no" : "yes");
        return -1;
    }
    return cell_now(FAILED_CHECKS) == 0 ? 0 : -1;
}

/* A test that leaves no descriptor, thread or child behind. */
#define TALLIED(test)                                                                              \
    {                                                                                              \
#test, test, begin_tally, check_tally, NULL                                                \
    }

/* ---- tasks ---- */

/* Tells that it runs, and waits until the test lets it go. */
static inline int wait_for_opening(const void *arg, void *result)
{
    (void)arg, (void)result;
    cell_set(WORKER, (int)getpid());
    cell_raise(CAME);
    return cell_reaches(OPENED, 1) ? 0 : 1;
}

static inline int tell_pid(const void *arg, void *result)
{
    (void)arg;
    *(int *)result = (int)getpid();
    return 0;
}

static inline int raise_cell(const void *arg, void *result)
{
    (void)result;
    cell_raise(*(const int *)arg);
    return 0;
}

static inline int twice(const void *arg, void *result)
{
    *(int *)result = 2 * *(const int *)arg;
    return 0;
}

/* Runs until it is killed, or asked to stop if it listens to that. */
static inline int spin(const void *arg, void *result)
{
    (void)arg, (void)result;
    cell_set(WORKER, (int)getpid());
    cell_raise(CAME);
    for (;;)
        sched_yield();
    return 0;
}

static inline int spin_deaf(const void *arg, void *result)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    signal(SIGTERM, SIG_IGN);
    return spin(arg, result);
}

static inline int sleep_long(const void *arg, void *result)
{
    (void)arg, (void)result;
    cell_set(WORKER, (int)getpid());
    cell_raise(CAME);
    for (;;)
        pause();
    return 0;
}

/* ---- ways to die ---- */

enum way {
    BY_KILL,
    BY_SEGV,
    BY_BUS,
    BY_ABORT,
    BY_EXIT_3,
    BY_EXIT_0,
    BY_EXIT_FUNCTION,
    BY_EXIT_OF_THREAD,
    BY_STACK,
    BY_TERM,
    BY_EXEC,
    WAYS
};

struct death {
    enum way way;
    int signal_number, exit_code;
};

static const struct death all_deaths[WAYS] = {
    { BY_KILL, SIGKILL, -1 },   { BY_SEGV, SIGSEGV, -1 },    { BY_BUS, SIGBUS, -1 },
    { BY_ABORT, SIGABRT, -1 },  { BY_EXIT_3, 0, 3 },         { BY_EXIT_0, 0, 0 },
    { BY_EXIT_FUNCTION, 0, 4 }, { BY_EXIT_OF_THREAD, 0, 5 }, { BY_STACK, SIGSEGV, -1 },
    { BY_TERM, SIGTERM, -1 },   { BY_EXEC, 0, 0 },
};

static inline void *exit_from_thread(void *unused)
{
    (void)unused;
    exit(5);
}

/* To a depth that no stack has. */
static inline int overflow_stack(unsigned depth)
{
    volatile char frame[4096];
    frame[depth % sizeof frame] = 1;
    return depth == UINT_MAX ? 0 : overflow_stack(depth + 1) + frame[0];
}

static inline void exit_in_a_way(enum way way)
{
    pthread_t thread;
    switch (way) {
    case BY_EXIT_3:
        _exit(3);
    case BY_EXIT_FUNCTION:
        exit(4);
    case BY_EXIT_OF_THREAD:
        if (pthread_create(&thread, NULL, exit_from_thread, NULL) == 0)
            pthread_join(thread, NULL);
        _exit(99);
    case BY_EXEC:
        execl("/bin/true", "true", (char *)NULL);
        _exit(99);
    default:
        _exit(0);
    }
}

static inline void die(enum way way)
{
    /* Sanitizers and cmocka catch some of these. */
    static const int caught[] = { SIGSEGV, SIGBUS, SIGABRT };
    static volatile int *volatile nowhere = (volatile int *)16; /* no compiler knows that */
    for (size_t i = 0; i < COUNT_OF(caught); i++)
        signal(caught[i], SIG_DFL);
    switch (way) {
    case BY_KILL:
        kill(getpid(), SIGKILL);
        break;
    case BY_SEGV:
        *nowhere = 1;
        break;
    case BY_BUS:
        raise(SIGBUS);
        break;
    case BY_ABORT:
        abort();
    case BY_STACK:
        overflow_stack(0);
        break;
    case BY_TERM:
        raise(SIGTERM);
        break;
    default:
        exit_in_a_way(way);
    }
    _exit(97);
}

static inline int die_in_a_way(const void *arg, void *result)
{
    (void)result;
    cell_raise(RAN);
    die(*(const enum way *)arg);
    return 0;
}

/* ---- pools ---- */

enum { MOST_RESTARTS = 1000000 };

static inline cf_executor *processes_with(const cf_process_pool_options *options)
{
    cf_executor *pool = NULL;
    cf_status status = cf_process_pool_new(options, &pool);
    if (status != CF_OK)
        fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
    assert_non_null(pool);
    return pool;
}

static inline cf_executor *processes_of(unsigned max_workers)
{
    return processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = max_workers));
}

static inline cf_future *submit_way(cf_executor *pool, enum way way)
{
    return submitted(pool, die_in_a_way, &way, sizeof way, 0);
}

/* Keeps one more worker busy until OPENED, and returns when it is. */
static inline cf_future *busy(cf_executor *pool)
{
    int before = cell_now(CAME);
    cf_future *f = submitted(pool, wait_for_opening, NULL, 0, 0);
    assert_true(cell_reaches(CAME, before + 1));
    return f;
}

/* The pool does what it is asked. */
static inline void assert_works(cf_executor *pool)
{
    int value = 21, result = 0;
    cf_future *f = submitted(pool, twice, &value, sizeof value, sizeof result);
    cf_status status = CF_RESULT(f, LIMIT, &result);
    if (status != CF_OK)
        fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
    assert_int_equal(result, 42);
    cf_future_unref(f);
}

/* Reads from /proc/PID/stat; false: there is no such process. */
static inline bool read_stat(int pid, char *state, int *parent)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    bool read = file && fscanf(file, "%*d (%*[^)]) %c %d", state, parent) == 2;
    if (file)
        fclose(file);
    return read;
}

/* Neither gone nor dead and waiting to be reaped. */
static inline bool is_alive(int pid)
{
    char state = 0;
    int parent = 0;
    return read_stat(pid, &state, &parent) && state != 'Z' && state != 'X';
}

static inline int parent_of(int pid)
{
    char state = 0;
    int parent = 0;
    assert_true(read_stat(pid, &state, &parent));
    return parent;
}

static inline bool has_gone(int pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* ---- hosts: processes with a pool of their own, to be killed, stopped and limited ---- */

/* Forks a process that runs run(data) in a group of its own and leaves with what it returns. */
static inline pid_t start_host(int (*run)(void *data), void *data)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static const int caught_by_cmocka[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS };
        for (size_t i = 0; i < COUNT_OF(caught_by_cmocka); i++)
            signal(caught_by_cmocka[i], SIG_DFL);
        setpgid(0, 0);
        alarm(LIMIT_SECONDS * 2);
        int code = run(data);
        const char *what = atomic_load(&first_failure);
        if (what)
            fprintf(stderr, "in the host: %s\n", what);
        fflush(stderr);
        _exit(what ? 1 : code);
    }
    setpgid(pid, pid);
    return pid;
}

/* Its exit code, or 128 and the number of the signal that ended it. */
static inline int host_ended(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline int run_host(int (*run)(void *data), void *data)
{
    return host_ended(start_host(run, data));
}

/* In a host, where cmocka's assertions would run the test on in the wrong process. */
#define HOST_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "in the host: %s (%s: %s)\n", CHECK_TEXT(__LINE__, #condition),        \
                    cf_status_name(cf_last_error()->status), cf_last_error()->message);            \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

/* Whoever loses its parent below here becomes our child: nobody escapes is_childless. */
static inline void adopt_orphans(void)
{
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static inline void assert_nobody_left(void)
{
    int64_t begun = cfi_now();
    while (!is_childless() && cfi_now() - begun < LIMIT)
        usleep(1000);
    assert_true(is_childless());
}

/* ---- main ---- */

/* A core of each worker that dies on purpose would fill the disk. */
static inline void leave_no_cores(void)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
}

/* First in main; does not return in a worker. */
static inline void begin_process_tests(void)
{
    bool is_fresh_image = getenv(BOARD_VARIABLE) != NULL;
    open_board();
    leave_no_cores();
    cf_worker_main();
    if (is_fresh_image) { /* it would go on to make pools, and these more images */
        worker_check_failed("a fresh image went past cf_worker_main");
        _exit(96);
    }
}

static inline bool is_long_run(void)
{
    const char *value = getenv("CFUTURES_LONG");
    return value && *value && strcmp(value, "0") != 0;
}

#endif
