/* SPDX-License-Identifier: MIT */
/* The fork server, and how the host comes by it.  Workers here are given a channel that is closed, and
 * end at once, or one that says nothing, and wait.
 *
 * What depends on cf_worker_main not being called, or on the program being lost, is done by this program
 * again, with a scenario's name as its argument. */
#define _GNU_SOURCE
#include "support.h"

#include "base/clock.h"
#include "core/self.h"
#include "processes/server_talk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static const int64_t limit = CF_SECONDS(50);
static const cf_start_method methods[] = { CF_START_FORK_SERVER, CF_START_FORK, CF_START_SPAWN };

/* ---- what /proc says ---- */

static unsigned count_descriptors(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *list = opendir(path);
    if (!list)
        return 0;
    unsigned count = 0;
    while (readdir(list))
        count++;
    closedir(list);
    return count - 2 - (pid == getpid()); /* . and .., and the list itself */
}

/* A line of /proc/PID/status, as the hexadecimal number that it holds. */
static unsigned long long status_of(pid_t pid, const char *name)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    unsigned long long value = ULLONG_MAX;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoull(line + strlen(name) + 1, NULL, 16);
    }
    if (file)
        fclose(file);
    return value;
}

/* The signals that are ignored there.  The C library's own two do not count: they are what posix_spawn
 * makes of them. */
static unsigned long long ignored_by(pid_t pid)
{
    return status_of(pid, "SigIgn") & ~(3ULL << 31);
}

static long oom_score(pid_t pid)
{
    char path[64], text[16] = "";
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
    FILE *file = fopen(path, "r");
    long score = file && fgets(text, sizeof text, file) ? strtol(text, NULL, 10) : -1;
    if (file)
        fclose(file);
    return score;
}

static bool points_to(pid_t pid, int fd, const char *name)
{
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    ssize_t length = readlink(path, target, sizeof target);
    return length == (ssize_t)strlen(name) && memcmp(target, name, strlen(name)) == 0;
}

static pid_t pid_of(int pidfd)
{
    char path[64], line[64];
    int pid = -1;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    FILE *file = fopen(path, "r");
    while (file && pid < 0 && fgets(line, sizeof line, file)) {
        if (strncmp(line, "Pid:", 4) == 0)
            pid = atoi(line + 4);
    }
    if (file)
        fclose(file);
    return pid;
}

static bool has_ended(int pidfd)
{
    return cfi_server_await(pidfd, POLLIN, cfi_deadline(limit)) == 0;
}

static bool has_no_children(void)
{
    return wait(NULL) == -1 && errno == ECHILD;
}

/* ---- servers and workers; all of these CHECK, so that children can use them ---- */

struct fake {
    pid_t pid;
    int pidfd, channel; /* our end */
};

static bool started(cf_start_method method, struct cfi_server *server)
{
    cf_status s = cfi_server_start(method, server);
    if (s != CF_OK)
        fprintf(stderr, "method %d: %s\n", (int)method, cf_last_error()->message);
    CHECK(s == CF_OK);
    return s == CF_OK;
}

static struct cfi_server_event next_event(struct cfi_server *server)
{
    struct cfi_server_event event = { .error = -1 };
    int64_t deadline = cfi_deadline(limit);
    int error = 0;
    while (!cfi_server_next(server, &event) && error == 0)
        error = cfi_server_await(server->socket, POLLIN, deadline);
    CHECK(error == 0);
    return event;
}

/* Our end of the channel of the worker that was asked for. */
static int requested(struct cfi_server *server, uint64_t tag)
{
    int ends[2] = { -1, -1 };
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    int above = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
    CHECK(cfi_server_request(server, tag, ends[1]) == 0);
    close(ends[0]);
    close(ends[1]);
    return above;
}

static struct fake born(struct cfi_server *server, uint64_t tag)
{
    struct fake fake = { .channel = requested(server, tag) };
    struct cfi_server_event event = next_event(server);
    CHECK(event.type == CFI_WORKER_BORN && event.tag == tag);
    CHECK(event.pidfd > STDERR_FILENO && pid_of(event.pidfd) == event.pid);
    fake.pid = event.pid;
    fake.pidfd = event.pidfd;
    return fake;
}

static void release(struct fake *fake)
{
    close(fake->channel);
    close(fake->pidfd);
}

/* How the worker has ended, said once and by the server. */
static int death_of(struct cfi_server *server, const struct fake *fake, uint64_t tag)
{
    struct cfi_server_event event = next_event(server);
    CHECK(event.type == CFI_WORKER_DIED && event.tag == tag && event.pid == fake->pid);
    CHECK(has_ended(fake->pidfd));
    return event.status;
}

/* Both ways to die, and no trace of either. */
static void use(struct cfi_server *server)
{
    struct fake fake = born(server, 7);
    close(fake.channel);
    fake.channel = -1;
    int status = death_of(server, &fake, 7);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    release(&fake);
    fake = born(server, UINT64_MAX);
    cfi_pidfd_signal(fake.pidfd, SIGKILL);
    status = death_of(server, &fake, UINT64_MAX);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    release(&fake);
}

static void start_use_stop(cf_start_method method)
{
    struct cfi_server server;
    if (!started(method, &server))
        return;
    use(&server);
    cfi_server_stop(&server);
}

/* ---- the ordinary life ---- */

static void test_each_method_leaves_nothing_behind(void **state)
{
    (void)state;
    unsigned before = count_descriptors(getpid());
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        struct cfi_server server = { 0 };
        assert_true(started(methods[i], &server));
        int pidfd = dup(server.pidfd);
        assert_int_equal(pid_of(server.host), getpid());
        assert_true(has_no_children());
        use(&server);
        assert_true(has_no_children());
        assert_int_equal(cfi_server_await(pidfd, POLLIN, 0), ETIMEDOUT); /* it lives */
        cfi_server_stop(&server);
        assert_int_equal(cfi_server_await(pidfd, POLLIN, 0), 0);
        assert_int_equal(server.socket, -1);
        close(pidfd);
        assert_true(has_no_children());
        assert_int_equal(count_descriptors(getpid()), before);
        assert_checks();
    }
}

static void test_a_method_that_is_none(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_int_equal(cfi_server_start((cf_start_method)4, &server), CF_INVALID);
    assert_non_null(strstr(cf_last_error()->message, "start_method"));
}

enum { MANY = 40 };

/* Every other one is told to leave, then all events are heard. */
static void use_many(struct cfi_server *server, pid_t pids[MANY], int channels[MANY])
{
    int alive = 0, dead = 0;
    for (unsigned k = 0; k < MANY; k++)
        channels[k] = requested(server, k);
    for (unsigned k = 0; k < MANY; k += 2)
        close(channels[k]);
    while (alive < MANY || dead < MANY / 2) {
        struct cfi_server_event event = next_event(server);
        assert_checks();
        assert_true(event.tag < MANY);
        if (event.type == CFI_WORKER_BORN) {
            assert_int_equal(pids[event.tag], 0);
            pids[event.tag] = event.pid;
            close(event.pidfd);
            alive++;
        } else {
            assert_int_equal(event.type, CFI_WORKER_DIED);
            assert_int_equal(event.pid, pids[event.tag]); /* it was born before */
            assert_int_equal(event.tag % 2, 0);
            dead++;
        }
    }
}

static void test_many_workers_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        struct cfi_server server;
        assert_true(started(methods[i], &server));
        int channels[MANY];
        pid_t pids[MANY] = { 0 };
        use_many(&server, pids, channels);
        cfi_server_stop(&server);
        for (unsigned k = 1; k < MANY; k += 2) {
            WAIT_UNTIL(kill(pids[k], 0) == -1 && errno == ESRCH);
            close(channels[k]);
        }
    }
}

static void test_the_signal_that_ended_a_worker(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_true(started(CF_START_FORK, &server));
    static const int signals[] = { SIGTERM, SIGUSR1, SIGHUP };
    for (size_t i = 0; i < COUNT_OF(signals); i++) {
        struct fake fake = born(&server, i);
        cfi_pidfd_signal(fake.pidfd, signals[i]);
        int status = death_of(&server, &fake, i);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), signals[i]);
        release(&fake);
    }
    cfi_server_stop(&server);
    assert_checks();
}

/* ---- what a worker inherits ---- */

static void inherit(void *data)
{
    const cf_start_method method = *(const cf_start_method *)data;
    struct cfi_server server;
    long score = oom_score(getpid());
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* as nohup does: this alone goes on to them */
    const unsigned long long ignored = 1ULL << (SIGINT - 1) | 1ULL << (SIGHUP - 1);
    sigset_t blocked;
    sigfillset(&blocked);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    int extra[] = { open("/dev/zero", O_RDONLY), fcntl(STDOUT_FILENO, F_DUPFD, 200) };
    CHECK(extra[0] >= 0 && extra[1] >= 200);
    if (!started(method, &server))
        return;
    struct fake fake = born(&server, 1);
    pid_t server_pid = pid_of(server.pidfd);
    WAIT_UNTIL(count_descriptors(fake.pid) == 4); /* the channel besides */
    WAIT_UNTIL(points_to(fake.pid, STDIN_FILENO, "/dev/null"));
    WAIT_UNTIL(status_of(fake.pid, "SigBlk") == 0);
    WAIT_UNTIL(oom_score(fake.pid) == (score > 700 ? 1000 : score + 300));
    CHECK(ignored_by(fake.pid) == ignored);
    WAIT_UNTIL(count_descriptors(server_pid) == 6);
    CHECK(ignored_by(server_pid) == ignored);
    CHECK(oom_score(server_pid) == score);
    release(&fake);
    cfi_server_stop(&server);
}

static void test_what_a_worker_inherits_of_the_host(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        assert_int_equal(in_child(inherit, &method), 0);
    }
}

static void without_stdio(void *data)
{
    struct cfi_server server;
    int error = dup(STDERR_FILENO); /* for what the checks say */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        close(fd);
    if (started(*(const cf_start_method *)data, &server)) {
        CHECK(server.socket > STDERR_FILENO && server.pidfd > STDERR_FILENO &&
              server.host > STDERR_FILENO);
        struct fake fake = born(&server, 1);
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
            WAIT_UNTIL(points_to(fake.pid, fd, "/dev/null"));
        release(&fake);
        CHECK(next_event(&server).type == CFI_WORKER_DIED);
        use(&server);
        cfi_server_stop(&server);
        CHECK(fcntl(STDIN_FILENO, F_GETFD) < 0 && fcntl(STDERR_FILENO, F_GETFD) < 0);
    }
    dup2(error, STDERR_FILENO);
}

static void test_a_host_without_stdio(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        assert_int_equal(in_child(without_stdio, &method), 0);
    }
}

static void test_an_interrupt_does_not_reach_it(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_true(started(CF_START_FORK_SERVER, &server));
    struct fake fake = born(&server, 1);
    cfi_pidfd_signal(server.pidfd, SIGINT);
    cfi_pidfd_signal(fake.pidfd, SIGINT);
    use(&server);
    assert_int_equal(cfi_server_await(fake.pidfd, POLLIN, 0), ETIMEDOUT);
    release(&fake);
    cfi_server_stop(&server);
    assert_checks();
}

/* ---- what the host does with its children ---- */

static atomic_int child_signals;

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&child_signals, 1);
}

static void ignore_children(void *unused)
{
    (void)unused;
    signal(SIGCHLD, SIG_IGN);
    for (size_t i = 0; i < COUNT_OF(methods); i++)
        start_use_stop(methods[i]);
}

static void test_a_host_that_ignores_its_children(void **state)
{
    (void)state;
    assert_int_equal(in_child(ignore_children, NULL), 0);
}

static void watch_children(void *unused)
{
    (void)unused;
    signal(SIGCHLD, count_signal);
    start_use_stop(CF_START_FORK_SERVER);
    start_use_stop(CF_START_SPAWN);
    CHECK(atomic_load(&child_signals) == 0);
}

static void test_a_host_hears_no_signal_of_a_fresh_image(void **state)
{
    (void)state;
#ifdef CFI_TSAN
    skip(); /* there the one in between is a fork */
#endif
    assert_int_equal(in_child(watch_children, NULL), 0);
}

/* Orphans become its children, as they become those of process 1. */
static void inherit_orphans(void *unused)
{
    (void)unused;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        struct cfi_server server;
        if (!started(methods[i], &server))
            return;
        use(&server);
        struct fake fakes[] = { born(&server, 1), born(&server, 2) };
        cfi_server_stop(&server);
        CHECK(has_ended(fakes[0].pidfd) && has_ended(fakes[1].pidfd));
        CHECK(has_no_children());
        release(&fakes[0]);
        release(&fakes[1]);
    }
}

static void test_no_zombies_where_orphans_are_inherited(void **state)
{
    (void)state;
    assert_int_equal(in_child(inherit_orphans, NULL), 0);
}

static void lose_server_with_orphans(void *unused)
{
    (void)unused;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    struct cfi_server server;
    if (!started(CF_START_FORK, &server))
        return;
    struct fake fake = born(&server, 1);
    cfi_pidfd_signal(server.pidfd, SIGKILL);
    CHECK(has_ended(fake.pidfd));
    cfi_server_stop(&server);
    cfi_pidfd_reap(fake.pidfd);
    CHECK(has_no_children());
    release(&fake);
}

static void test_an_orphaned_worker_is_cleared_away(void **state)
{
    (void)state;
    assert_int_equal(in_child(lose_server_with_orphans, NULL), 0);
}

/* ---- the end of a server ---- */

static void test_a_killed_server(void **state)
{
    (void)state;
    unsigned before = count_descriptors(getpid());
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        struct cfi_server server;
        assert_true(started(methods[i], &server));
        struct fake fake = born(&server, 1);
        cfi_pidfd_signal(server.pidfd, SIGKILL);
        assert_true(has_ended(fake.pidfd));
        for (int k = 0; k < 3; k++)
            assert_int_equal(next_event(&server).type, CFI_SERVER_GONE);
        assert_int_equal(cfi_server_request(&server, 2, STDERR_FILENO), EPIPE);
        cfi_server_stop(&server);
        release(&fake);
        assert_int_equal(count_descriptors(getpid()), before);
    }
    assert_checks();
}

/* What a server said before it died is still heard, whatever it left unread. */
static void test_last_words(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_true(started(CF_START_FORK, &server));
    struct fake fake = born(&server, 1);
    cfi_pidfd_signal(fake.pidfd, SIGTERM);
    assert_int_equal(cfi_server_await(server.socket, POLLIN, cfi_deadline(limit)), 0);
    cfi_pidfd_signal(server.pidfd, SIGSTOP);
    close(requested(&server, 2));
    cfi_pidfd_signal(server.pidfd, SIGKILL);
    assert_true(has_ended(server.pidfd));
    int status = death_of(&server, &fake, 1);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    struct cfi_server_event event;
    while ((event = next_event(&server)).type == CFI_WORKER_BORN) /* it was faster than the stop */
        close(event.pidfd);
    assert_int_equal(event.type, CFI_SERVER_GONE);
    cfi_server_stop(&server);
    release(&fake);
    assert_checks();
}

static void test_a_stopped_server_ends(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_true(started(CF_START_FORK_SERVER, &server));
    struct fake fake = born(&server, 1);
    int pidfd = dup(server.pidfd);
    cfi_pidfd_signal(server.pidfd, SIGSTOP);
    cfi_server_stop(&server);
    assert_int_equal(cfi_server_await(pidfd, POLLIN, 0), 0);
    assert_true(has_ended(fake.pidfd));
    close(pidfd);
    release(&fake);
    assert_checks();
}

/* A server, two workers, and their pidfds on the way to whoever holds the other end. */
struct remote_host {
    cf_start_method method;
    int socket;
};

static void host_until_killed(const struct remote_host *remote)
{
    struct cfi_server server;
    if (!started(remote->method, &server))
        return;
    struct fake fakes[] = { born(&server, 1), born(&server, 2) };
    int pidfds[] = { server.pidfd, fakes[0].pidfd, fakes[1].pidfd };
    for (size_t i = 0; i < COUNT_OF(pidfds); i++)
        CHECK(cfi_server_send(remote->socket, CFI_SAY(BORN, .pid = getpid()), pidfds[i]) == 0);
    for (;;)
        pause();
}

static void kill_host_of(cf_start_method method)
{
    int ends[2], pidfds[3];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    struct remote_host remote = { method, ends[1] };
    pid_t host = fork();
    assert_true(host >= 0);
    if (host == 0) {
        host_until_killed(&remote);
        _exit(1);
    }
    close(ends[1]);
    for (size_t k = 0; k < COUNT_OF(pidfds); k++) {
        struct cfi_server_message message;
        assert_int_equal(cfi_server_await(ends[0], POLLIN, cfi_deadline(limit)), 0);
        assert_int_equal(cfi_server_receive(ends[0], &message, &pidfds[k]), 0);
        assert_int_equal(message.pid, host);
    }
    assert_int_equal(kill(host, SIGKILL), 0);
    assert_int_equal(waitpid(host, NULL, 0), host);
    for (size_t k = 0; k < COUNT_OF(pidfds); k++) {
        assert_true(has_ended(pidfds[k]));
        close(pidfds[k]);
    }
    close(ends[0]);
}

static void test_nothing_outlives_the_host(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(methods); i++)
        kill_host_of(methods[i]);
}

static void forget(void *server)
{
    cfi_server_forget(server);
}

static void test_a_forked_child_leaves_it_alone(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_true(started(CF_START_FORK_SERVER, &server));
    assert_int_equal(in_child(forget, &server), 0);
    use(&server);
    cfi_server_stop(&server);
    assert_checks();
}

/* ---- what fails ---- */

static int first_free_descriptor(void)
{
    int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
}

static void set_descriptor_limit(int most)
{
    struct rlimit now;
    CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0);
    now.rlim_cur = (rlim_t)most;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
}

static void start_with_few_descriptors(void *data)
{
    int used = first_free_descriptor(), failures = 0;
    for (int more = 0; more < 12; more++) {
        struct cfi_server server;
        set_descriptor_limit(used + more);
        cf_status s = cfi_server_start(*(const cf_start_method *)data, &server);
        if (s == CF_OK)
            cfi_server_stop(&server);
        else
            failures += s == CF_SYSTEM && errno == EMFILE && cf_last_error()->code == EMFILE;
        CHECK(s == CF_OK || failures == more + 1);
        set_descriptor_limit(used + 100);
        CHECK(first_free_descriptor() == used);
        CHECK(has_no_children());
    }
    CHECK(failures > 0 && failures < 12);
}

static void test_too_few_descriptors_to_start(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_start_method method = methods[i];
        assert_int_equal(in_child(start_with_few_descriptors, &method), 0);
    }
}

static void receive_without_room(void *unused)
{
    (void)unused;
    struct cfi_server server;
    if (!started(CF_START_FORK, &server))
        return;
    int channel = requested(&server, 5);
    CHECK(cfi_server_await(server.socket, POLLIN, cfi_deadline(limit)) == 0);
    set_descriptor_limit(first_free_descriptor());
    struct cfi_server_event event;
    CHECK(cfi_server_next(&server, &event));
    CHECK(event.type == CFI_WORKER_UNBORN && event.tag == 5 && event.error == EMFILE);
    set_descriptor_limit(100);
    WAIT_UNTIL(kill(event.pid, 0) < 0);
    close(channel);
    use(&server); /* and nothing of the death of the other */
    cfi_server_stop(&server);
}

static void test_no_room_for_a_pidfd(void **state)
{
    (void)state;
    assert_int_equal(in_child(receive_without_room, NULL), 0);
}

static void test_a_server_without_descriptors(void **state)
{
    (void)state;
    struct cfi_server server;
    assert_true(started(CF_START_FORK_SERVER, &server));
    pid_t pid = pid_of(server.pidfd);
    assert_true(pid > 0);
    struct rlimit before, few;
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, NULL, &before), 0);
    few = before;
    for (rlim_t most = 6; most < 8; most++) { /* no channel; no pidfd */
        few.rlim_cur = most;
        assert_int_equal(prlimit(pid, RLIMIT_NOFILE, &few, NULL), 0);
        int channel = requested(&server, most);
        struct cfi_server_event event = next_event(&server);
        assert_int_equal(event.type, CFI_WORKER_UNBORN);
        assert_int_equal(event.tag, most);
        assert_int_equal(event.error, EMFILE);
        close(channel);
    }
    assert_int_equal(prlimit(pid, RLIMIT_NOFILE, &before, NULL), 0);
    use(&server);
    cfi_server_stop(&server);
    assert_checks();
}

/* A system that refuses a call to the host and all its descendants. */
static bool refuse_call(unsigned number, unsigned error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { COUNT_OF(filter), filter };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct refusal {
    unsigned number, error;
    cf_start_method method;
    bool still_starts;
};

static void start_without_call(void *data)
{
    const struct refusal *refused = data;
    int used = first_free_descriptor();
    CHECK(refuse_call(refused->number, refused->error));
    if (refused->still_starts) {
        start_use_stop(refused->method);
    } else {
        struct cfi_server server;
        CHECK(cfi_server_start(refused->method, &server) == CF_SYSTEM);
        CHECK(errno == (int)refused->error && cf_last_error()->code == errno);
        if (!all_checks_held())
            fprintf(stderr, "call %u: %s\n", refused->number, cf_last_error()->message);
    }
    CHECK(first_free_descriptor() == used);
    CHECK(has_no_children());
}

static void test_a_system_that_refuses_a_call(void **state)
{
    (void)state;
    const struct refusal refusals[] = {
        { SYS_socketpair, EPERM, CF_START_FORK, false },
        { SYS_pidfd_open, ENOSYS, CF_START_FORK_SERVER, false },
        { SYS_pidfd_open, ENOSYS, CF_START_FORK, false },
        { SYS_sendmsg, EPERM, CF_START_FORK, false },
        { SYS_clone, EAGAIN, CF_START_FORK, false },
        { SYS_clone, EAGAIN, CF_START_FORK_SERVER, false },
        { SYS_execve, EACCES, CF_START_FORK_SERVER, false },
        { SYS_execve, EACCES, CF_START_SPAWN, false },
        { SYS_signalfd4, ENOSYS, CF_START_FORK_SERVER, false },
        { SYS_signalfd4, ENOSYS, CF_START_FORK, false },
        { SYS_close_range, ENOSYS, CF_START_FORK_SERVER, true },
        { SYS_close_range, EPERM, CF_START_FORK, true },
    };
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        struct refusal refused = refusals[i];
        assert_int_equal(in_child(start_without_call, &refused), 0);
    }
}

/* ---- threads ---- */

enum { THREADS = 8 };
static struct event threads_end = EVENT_INIT;

static void *wait_for_end(void *unused)
{
    event_wait(&threads_end);
    return unused;
}

static void test_a_fresh_image_of_a_host_with_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(wait_for_end, NULL);
    for (size_t i = 0; i < COUNT_OF(methods); i++)
        start_use_stop(methods[i]);
    event_set(&threads_end);
    for (int i = 0; i < THREADS; i++)
        join_thread(threads[i]);
    assert_checks();
}

/* ---- scenarios: this program again, where cf_worker_main was not called ---- */

static void refuses(cf_start_method method, const char *why)
{
    struct cfi_server server;
    CHECK(cfi_server_start(method, &server) == CF_INVALID);
    if (!strstr(cf_last_error()->message, why))
        fprintf(stderr, "it says: %s\n", cf_last_error()->message);
    CHECK(strstr(cf_last_error()->message, why));
}

static void fork_alone(void)
{
    start_use_stop(CF_START_DEFAULT);
    start_use_stop(CF_START_FORK_SERVER);
    refuses(CF_START_SPAWN, "cf_worker_main");
}

static void fork_with_threads(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_for_end, NULL) == 0);
    refuses(CF_START_DEFAULT, "9 threads: call cf_worker_main");
    refuses(CF_START_FORK_SERVER, "9 threads");
    refuses(CF_START_SPAWN, "cf_worker_main");
    start_use_stop(CF_START_FORK);
    cfi_own_thread(1);
    refuses(CF_START_DEFAULT, "9 threads");
    for (int i = 1; i < THREADS; i++)
        cfi_own_thread(1);
    start_use_stop(CF_START_DEFAULT);
    cfi_this.executor = (cf_executor *)&threads_end; /* now this is one of the eight */
    refuses(CF_START_DEFAULT, "9 threads");
    cfi_this.executor = NULL;
    for (int i = 0; i < THREADS; i++)
        cfi_own_thread(-1);
    refuses(CF_START_DEFAULT, "9 threads");
    event_set(&threads_end);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    start_use_stop(CF_START_DEFAULT); /* they have gone, though the kernel may still count one */
}

static int flush_all(const void *arg, void *result)
{
    (void)arg, (void)result;
    return printf("the task's, ") < 0 || fflush(NULL) != 0;
}

/* What the host has not written yet is not written by its workers too. */
static void fork_unflushed(void)
{
    char text[64] = "";
    int file = memfd_create("output", MFD_CLOEXEC), output = dup(STDOUT_FILENO);
    CHECK(file >= 0 && output >= 0 && dup2(file, STDOUT_FILENO) >= 0);
    CHECK(printf("the host's") > 0);
    cf_executor *pool = NULL;
    cf_future *f = NULL;
    CHECK(cf_process_pool_new(NULL, &pool) == CF_OK);
    CHECK(cf_submit(pool, flush_all, NULL, 0, 0, &f) == CF_OK);
    CHECK(cf_future_result(f, limit, NULL, 0) == CF_OK);
    cf_future_unref(f);
    cf_executor_free(pool);
    CHECK(fflush(stdout) == 0);
    CHECK(pread(file, text, sizeof text - 1, 0) > 0);
    CHECK(strcmp(text, "the task's, the host's") == 0);
    CHECK(dup2(output, STDOUT_FILENO) >= 0);
    close(file);
    close(output);
}

/* A variable that somebody else has set, or left: it is taken away, and that is all. */
static void stray_variables(void)
{
    int ends[2], pipes[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0 && pipe(pipes) == 0);
    CHECK(send(ends[1], "something else", 14, 0) == 14);
    char values[6][32] = { "", "x", "-1", "99999999999999999999" };
    snprintf(values[4], sizeof values[4], "%d", pipes[0]);
    snprintf(values[5], sizeof values[5], "%d", ends[0]);
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        CHECK(setenv(CFI_SERVER_VARIABLE, values[i], 1) == 0);
        if (i < 5)
            CHECK(setenv(CFI_WORKER_VARIABLE, values[i], 1) == 0);
        cf_worker_main();
        CHECK(!getenv(CFI_SERVER_VARIABLE) && !getenv(CFI_WORKER_VARIABLE));
    }
    char text[16];
    CHECK(recv(ends[0], text, sizeof text, 0) == 14);
}

/* A server of another version says so and ends. */
static void other_version(void)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct cfi_server_message hello = CFI_SAY(HELLO, .tag = 0);
        hello.version++;
        char number[16];
        snprintf(number, sizeof number, "%d", ends[0]);
        if (send(ends[1], &hello, sizeof hello, 0) == sizeof hello &&
            setenv(CFI_SERVER_VARIABLE, number, 1) == 0)
            cf_worker_main();
        _exit(77);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 1);
    struct cfi_server_message message = { .error = 0 };
    int fd = -1;
    CHECK(cfi_server_receive(ends[1], &message, &fd) == 0);
    CHECK(message.type == CFI_SERVER_READY && message.error == EPROTO);
}

/* Its copy, which has no argument, ends before it comes to cf_worker_main. */
static void get_lost(void)
{
    struct cfi_server server;
    cf_worker_main();
    CHECK(setenv("SERVER_TEST_LOST", "", 1) == 0);
    CHECK(cfi_server_start(CF_START_DEFAULT, &server) == CF_SYSTEM);
    CHECK(strstr(cf_last_error()->message, "cf_worker_main"));
    CHECK(has_no_children());
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    { "fork_alone", fork_alone },         { "fork_with_threads", fork_with_threads },
    { "fork_unflushed", fork_unflushed }, { "stray", stray_variables },
    { "other_version", other_version },   { "get_lost", get_lost },
};

static int run_scenario(const char *name)
{
    alarm(50);
    unsigned before = count_descriptors(getpid());
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        if (strcmp(scenarios[i].name, name) != 0)
            continue;
        scenarios[i].run();
        if (strstr(name, "fork"))
            CHECK(count_descriptors(getpid()) == before);
        const char *what = atomic_load(&first_failure);
        if (what)
            fprintf(stderr, "%s: %s\n", name, what);
        return what ? 1 : 0;
    }
    return 2;
}

static void test_scenarios(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            execl("/proc/self/exe", "server_test", scenarios[i].name, (char *)NULL);
            _exit(127);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
            fail_msg("%s: status %x", scenarios[i].name, (unsigned)status);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return run_scenario(argv[1]);
    if (getenv("SERVER_TEST_LOST"))
        return 3;
    cf_worker_main();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_method_leaves_nothing_behind),
        cmocka_unit_test(test_a_method_that_is_none),
        cmocka_unit_test(test_many_workers_at_once),
        cmocka_unit_test(test_the_signal_that_ended_a_worker),
        cmocka_unit_test(test_what_a_worker_inherits_of_the_host),
        cmocka_unit_test(test_a_host_without_stdio),
        cmocka_unit_test(test_an_interrupt_does_not_reach_it),
        cmocka_unit_test(test_a_host_that_ignores_its_children),
        cmocka_unit_test(test_a_host_hears_no_signal_of_a_fresh_image),
        cmocka_unit_test(test_no_zombies_where_orphans_are_inherited),
        cmocka_unit_test(test_an_orphaned_worker_is_cleared_away),
        cmocka_unit_test(test_a_killed_server),
        cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_a_stopped_server_ends),
        cmocka_unit_test(test_nothing_outlives_the_host),
        cmocka_unit_test(test_a_forked_child_leaves_it_alone),
        cmocka_unit_test(test_too_few_descriptors_to_start),
        cmocka_unit_test(test_no_room_for_a_pidfd),
        cmocka_unit_test(test_a_server_without_descriptors),
        cmocka_unit_test(test_a_system_that_refuses_a_call),
        cmocka_unit_test(test_a_fresh_image_of_a_host_with_threads),
        cmocka_unit_test(test_scenarios),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
