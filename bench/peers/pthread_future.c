/* SPDX-License-Identifier: MIT */
/* The same by hand with a real future for each task, as Python's are made: allocated, counted,
 * with a mutex and a condition of its own. */
#include "measure.h"
#include "peer.h"

#include <gnu/libc-version.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct future {
    pthread_mutex_t lock;
    pthread_cond_t settled;
    bool done;
    int arg, result;
    atomic_int references;
    bench_fn *fn;
    struct future *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static struct future *head, *tail;
static bool closing;
static pthread_t *threads;

static const char *version(void)
{
    static char text[32];
    snprintf(text, sizeof(text), "glibc %s", gnu_get_libc_version());
    return text;
}

static struct future *future_new(bench_fn *fn, int arg)
{
    struct future *future = malloc(sizeof(*future));
    if (future == NULL)
        bench_die("no memory");
    *future = (struct future){ .fn = fn, .arg = arg };
    pthread_mutex_init(&future->lock, NULL);
    pthread_cond_init(&future->settled, NULL);
    atomic_init(&future->references, 2);
    return future;
}

static void future_unref(struct future *future)
{
    if (atomic_fetch_sub(&future->references, 1) != 1)
        return;
    pthread_mutex_destroy(&future->lock);
    pthread_cond_destroy(&future->settled);
    free(future);
}

static void future_run(struct future *future)
{
    int result = future->fn(future->arg);
    pthread_mutex_lock(&future->lock);
    future->result = result;
    future->done = true;
    pthread_cond_broadcast(&future->settled);
    pthread_mutex_unlock(&future->lock);
    future_unref(future);
}

static int future_result(struct future *future)
{
    pthread_mutex_lock(&future->lock);
    while (!future->done)
        pthread_cond_wait(&future->settled, &future->lock);
    int result = future->result;
    pthread_mutex_unlock(&future->lock);
    return result;
}

static struct future *pop(void)
{
    pthread_mutex_lock(&lock);
    while (head == NULL && !closing)
        pthread_cond_wait(&filled, &lock);
    struct future *future = head;
    if (future != NULL)
        head = future->next;
    pthread_mutex_unlock(&lock);
    return future;
}

static void push(struct future *future)
{
    pthread_mutex_lock(&lock);
    if (head == NULL)
        head = future;
    else
        tail->next = future;
    tail = future;
    pthread_cond_signal(&filled);
    pthread_mutex_unlock(&lock);
}

static void *work(void *unused)
{
    for (struct future *future; (future = pop()) != NULL;)
        future_run(future);
    return unused;
}

static void open_pool(void)
{
    threads = calloc((size_t)run.workers, sizeof(*threads));
    for (int i = 0; i < run.workers; i++)
        if (threads == NULL || pthread_create(&threads[i], NULL, work, NULL) != 0)
            bench_die("no thread");
}

static void close_pool(void)
{
    pthread_mutex_lock(&lock);
    closing = true;
    pthread_cond_broadcast(&filled);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < run.workers; i++)
        pthread_join(threads[i], NULL);
    free(threads);
}

static void submit(void *cell, int arg)
{
    struct future *future = future_new(bench_task, arg);
    *(struct future **)cell = future;
    push(future);
}

static void drop(void *cell)
{
    future_unref(*(struct future **)cell);
}

static long collect(void *cells, long n)
{
    struct future **futures = cells;
    long sum = 0;
    for (long i = 0; i < n; i++) {
        sum += future_result(futures[i]);
        future_unref(futures[i]);
    }
    return sum;
}

const struct peer peer = {
    .name = "pthread-future",
    .version = version,
    .cell_size = sizeof(struct future *),
    .open = open_pool,
    .close = close_pool,
    .submit = submit,
    .collect = collect,
    .drop = drop,
    .fib = bench_fib,
};
