/* SPDX-License-Identifier: MIT */
/* What a C program writes by hand: a list of malloc'd nodes, one mutex, one condition, no results.
 */
#include "measure.h"
#include "peer.h"
#include "slots.h"

#include <gnu/libc-version.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct node {
    void (*fn)(void *arg);
    void *arg;
    struct node *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static struct node *head, *tail;
static bool closing;
static pthread_t *threads;

static const char *version(void)
{
    static char text[32];
    snprintf(text, sizeof(text), "glibc %s", gnu_get_libc_version());
    return text;
}

static struct node *pop(void)
{
    pthread_mutex_lock(&lock);
    while (head == NULL && !closing)
        pthread_cond_wait(&filled, &lock);
    struct node *node = head;
    if (node != NULL)
        head = node->next;
    pthread_mutex_unlock(&lock);
    return node;
}

static void push(struct node *node)
{
    pthread_mutex_lock(&lock);
    if (head == NULL)
        head = node;
    else
        tail->next = node;
    tail = node;
    pthread_cond_signal(&filled);
    pthread_mutex_unlock(&lock);
}

static void *work(void *unused)
{
    for (struct node *node; (node = pop()) != NULL; free(node))
        node->fn(node->arg);
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

static void run_slot(void *arg)
{
    slot_run(arg);
}

static void submit(void *cell, int arg)
{
    struct node *node = malloc(sizeof(*node));
    if (node == NULL)
        bench_die("no memory");
    slot_fill(cell, arg);
    *node = (struct node){ .fn = run_slot, .arg = cell };
    push(node);
}

const struct peer peer = {
    .name = "pthread-queue",
    .version = version,
    .cell_size = sizeof(struct slot),
    .open = open_pool,
    .close = close_pool,
    .expect = slots_expect,
    .submit = submit,
    .collect = slots_collect,
    .fib = slots_fib,
};
