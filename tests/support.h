/* SPDX-License-Identifier: MIT */
/* What the unit tests share: checks that any thread may make, events, threads that start together,
 * and forked children.
 *
 * cmocka's assertions leave by longjmp: only the main thread may assert, and only where no function
 * of the library is below it.  Tasks, callbacks, hooks and other threads CHECK instead: the first
 * condition that did not hold is kept until the main thread calls assert_checks. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/compiler.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* ---- checks ---- */

static _Atomic(const char *) first_failure;

#define CHECK_TEXT_(line, text) __FILE__ ":" #line ": " text
#define CHECK_TEXT(line, text)  CHECK_TEXT_(line, text)
#define CHECK(condition)        ((condition) ? (void)0 : check_failed(CHECK_TEXT(__LINE__, #condition)))

static inline void check_failed(const char *what)
{
    const char *none = NULL;
    atomic_compare_exchange_strong(&first_failure, &none, what);
}

static inline bool all_checks_held(void)
{
    return atomic_load(&first_failure) == NULL;
}

static inline void assert_checks(void)
{
    const char *what = atomic_exchange(&first_failure, NULL);
    if (what)
        fail_msg("%s", what);
}

/* ---- events and threads ---- */

/* Looks again and again; the test's time limit ends it. */
#define WAIT_UNTIL(condition)                                                                      \
    do                                                                                             \
        while (!(condition))                                                                       \
            sched_yield();                                                                         \
    while (0)

/* Happens once; whoever waits for it goes on from then. */
struct event {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool happened;
};
#define EVENT_INIT                                                                                 \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false                                 \
    }

static inline void event_set(struct event *event)
{
    pthread_mutex_lock(&event->mutex);
    event->happened = true;
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->mutex);
}

static inline void event_wait(struct event *event)
{
    pthread_mutex_lock(&event->mutex);
    while (!event->happened)
        pthread_cond_wait(&event->changed, &event->mutex);
    pthread_mutex_unlock(&event->mutex);
}

static inline pthread_t start_thread(void *(*run)(void *data), void *data)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, data), 0);
    return thread;
}

static inline void join_thread(pthread_t thread)
{
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Runs the same on several threads and waits for them all. */
static inline void run_on_threads(unsigned count, void *(*run)(void *data), void *data)
{
    pthread_t threads[16];
    assert_in_range(count, 1, COUNT_OF(threads));
    for (unsigned i = 0; i < count; i++)
        threads[i] = start_thread(run, data);
    for (unsigned i = 0; i < count; i++)
        join_thread(threads[i]);
}

/* ---- races ---- */

/* A line from which so many threads start together, as often as they like. */
struct start_line {
    unsigned parties;
    atomic_uint arrived;
};

/* Spins first, for a fraction of a time slice: a thread that sleeps starts too late for a race.  Then
 * lets each go after a different moment, or who came last would always be ahead. */
static inline void line_up(struct start_line *line)
{
    enum { SPINS = 2000 };
    unsigned mine = atomic_fetch_add(&line->arrived, 1);
    unsigned all = (mine / line->parties + 1) * line->parties;
    for (unsigned turn = 0; atomic_load(&line->arrived) < all; turn++) {
        if (turn >= SPINS)
            sched_yield();
    }
    volatile unsigned moment = mine * 2654435761U >> 24;
    while (moment > 0)
        moment--;
}

/* Two threads on one CPU hardly race: gives the calling thread the first, second, ... of these. */
static inline void run_on_cpu(const cpu_set_t *allowed, int number)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, allowed) && number-- == 0)
            CPU_SET(cpu, &one);
    }
    if (CPU_COUNT(&one) == 1)
        (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

/* One round of a race: prepare and finish run on the main thread, `here` and `there` at the same
 * time on the main thread and on another.  All of them CHECK. */
struct race {
    void (*prepare)(void *data);
    void (*here)(void *data);
    void (*there)(void *data);
    void (*finish)(void *data);
    void *data;
    /* From here on the race's own: */
    struct start_line line;
    atomic_bool over;
    cpu_set_t cpus;
};

static inline void *race_there(void *data)
{
    struct race *race = data;
    run_on_cpu(&race->cpus, 1);
    for (;;) {
        line_up(&race->line);
        if (atomic_load(&race->over))
            return NULL;
        race->there(race->data);
        line_up(&race->line);
    }
}

static inline void run_race(struct race *race, unsigned rounds)
{
    race->line.parties = 2;
    CPU_ZERO(&race->cpus);
    (void)pthread_getaffinity_np(pthread_self(), sizeof race->cpus, &race->cpus);
    run_on_cpu(&race->cpus, 0);
    pthread_t there = start_thread(race_there, race);
    for (unsigned i = 0; i < rounds && all_checks_held(); i++) {
        race->prepare(race->data);
        line_up(&race->line);
        race->here(race->data);
        line_up(&race->line);
        race->finish(race->data);
    }
    atomic_store(&race->over, true);
    line_up(&race->line);
    join_thread(there);
    (void)pthread_setaffinity_np(pthread_self(), sizeof race->cpus, &race->cpus);
    assert_checks();
}

/* ---- children ---- */

/* Forks, and ends the child after run(data): 0 if its checks held.  128 and the number of the
 * signal that ended it otherwise. */
static inline int in_child(void (*run)(void *data), void *data)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static const int caught_by_cmocka[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS };
        for (size_t i = 0; i < COUNT_OF(caught_by_cmocka); i++)
            signal(caught_by_cmocka[i], SIG_DFL);
        alarm(40);
        run(data);
        const char *what = atomic_load(&first_failure);
        if (what)
            fprintf(stderr, "in the child: %s\n", what);
        fflush(stderr);
        _exit(what ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
