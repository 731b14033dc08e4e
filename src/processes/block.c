/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "block.h"

#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

/* ---- arguments ---- */

/* Powers of two up to 8 MiB, then steps of 1 MiB: so that a block fits the next argument too. */
static size_t capacity_for(size_t size)
{
    size_t capacity = 64 * 1024;
    while (capacity < size && capacity < (size_t)8 * MIB)
        capacity *= 2;
    return capacity >= size ? capacity : (size + MIB - 1) / MIB * MIB;
}

static struct cfi_block *block_new(struct cfi_process_pool *pool, size_t size)
{
    struct cfi_block *b = calloc(1, sizeof *b + pool->options.max_workers * sizeof *b->told);
    if (!b)
        return NULL;
    b->size = capacity_for(size);
    if (cfi_memory_new("cfutures argument", b->size, true, &b->fd, &b->data) != 0) {
        free(b);
        return NULL;
    }
    b->number = cfi_add_relaxed(&pool->blocks.next_number, 1) + 1;
    cfi_init(&b->references, 1);
    return b;
}

/* A worker keeps it mapped until it is told otherwise.  One whose socket is full keeps it. */
static void tell_gone(struct cfi_process_pool *pool, const struct cfi_block *b)
{
    const struct cfi_message gone = { .type = CFI_BLOCK_GONE, .number = b->number };
    cfi_lock(&pool->lock);
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = b->told[i] ? cfi_child_at(pool, i) : NULL;
        if (cfi_has_channel(c) && b->told[i] == cfi_generation_of(c)) {
            (void)cfi_message_send(c->socket, &gone, NULL, 0);
            cfi_wake_worker(c); /* an idle one looks at its socket before it sleeps again */
        }
    }
    cfi_unlock(&pool->lock);
}

/* In a forked child the workers are the parent's. */
static void block_free(struct cfi_process_pool *pool, struct cfi_block *b)
{
    if (!cfi_executor_is_foreign(&pool->executor))
        tell_gone(pool, b);
    (void)munmap(b->data, b->size);
    (void)close(b->fd);
    free(b);
}

static void free_list(struct cfi_process_pool *pool, struct cfi_block *list)
{
    while (list) {
        struct cfi_block *next = list->next;
        block_free(pool, list);
        list = next;
    }
}

/* The smallest free one that is large enough, and not four times too large. */
static struct cfi_block *take_kept(struct cfi_blocks *blocks, size_t size)
{
    struct cfi_block *best = NULL;
    for (struct cfi_block *b = blocks->kept; b; b = b->next) {
        bool fits = b->is_free && b->size >= size && b->size / 4 <= capacity_for(size);
        if (fits && (!best || b->size < best->size))
            best = b;
    }
    if (best) {
        best->is_free = false;
        cfi_init(&best->references, 1);
    }
    return best;
}

/* Takes the first free one off and puts it on the other list; false: none is free. */
static bool take_off(struct cfi_blocks *blocks, struct cfi_block **dropped)
{
    struct cfi_block **at = &blocks->kept;
    while (*at && !(*at)->is_free)
        at = &(*at)->next;
    struct cfi_block *b = *at;
    if (!b)
        return false;
    *at = b->next;
    blocks->count--;
    blocks->bytes -= b->size;
    b->next = *dropped;
    *dropped = b;
    return true;
}

/* Takes free blocks off until one more of this capacity can be kept; false: it cannot. */
static bool make_room(struct cfi_blocks *blocks, size_t capacity, struct cfi_block **dropped)
{
    while (blocks->count >= CFI_KEPT_BLOCKS || blocks->bytes + capacity > CFI_KEPT_BYTES) {
        if (!take_off(blocks, dropped))
            return false;
    }
    blocks->count++;
    blocks->bytes += capacity;
    return true;
}

/* One that has just been counted. */
static struct cfi_block *keep_new(struct cfi_process_pool *pool, size_t size)
{
    struct cfi_blocks *blocks = &pool->blocks;
    struct cfi_block *b = block_new(pool, size);
    cfi_lock(&blocks->lock);
    if (b) {
        b->kept = true;
        b->next = blocks->kept;
        blocks->kept = b;
    } else {
        blocks->count--;
        blocks->bytes -= capacity_for(size);
    }
    cfi_unlock(&blocks->lock);
    return b;
}

struct cfi_block *cfi_block_get(struct cfi_process_pool *pool, size_t size, bool must)
{
    struct cfi_blocks *blocks = &pool->blocks;
    struct cfi_block *dropped = NULL;
    cfi_lock(&blocks->lock);
    struct cfi_block *b = take_kept(blocks, size);
    bool room = !b && capacity_for(size) <= CFI_KEPT_BYTES &&
                make_room(blocks, capacity_for(size), &dropped);
    cfi_unlock(&blocks->lock);
    free_list(pool, dropped);
    if (!b && room)
        b = keep_new(pool, size);
    return b || !must ? b : block_new(pool, size);
}

void cfi_block_put(struct cfi_process_pool *pool, struct cfi_block *block)
{
    if (!block || cfi_sub_acq_rel(&block->references, 1) != 1)
        return;
    if (!block->kept) {
        block_free(pool, block);
        return;
    }
    cfi_lock(&pool->blocks.lock);
    block->is_free = true;
    cfi_unlock(&pool->blocks.lock);
}

bool cfi_blocks_can_be_trimmed(struct cfi_process_pool *pool)
{
    bool any = false;
    cfi_lock(&pool->blocks.lock);
    for (const struct cfi_block *b = pool->blocks.kept; b; b = b->next)
        any |= b->is_free;
    cfi_unlock(&pool->blocks.lock);
    return any;
}

void cfi_blocks_trim(struct cfi_process_pool *pool)
{
    struct cfi_block *dropped = NULL;
    cfi_lock(&pool->blocks.lock);
    while (take_off(&pool->blocks, &dropped))
        ;
    cfi_unlock(&pool->blocks.lock);
    free_list(pool, dropped);
}

/* ---- results ---- */

enum { MOST_ONCE = 2 * CFI_SLOTS };

/* With blocks->lock; NULL: there is none of that number. */
static struct cfi_arrived *arrived(struct cfi_child *c, uint32_t number)
{
    if (number < CFI_KEPT_BLOCKS)
        return &c->inflow.kept[number];
    struct cfi_once *o = c->inflow.once;
    while (o && o->block.number != number)
        o = o->next;
    return o ? &o->block : NULL;
}

/* The worker has made a larger one in the place of one that was given back. */
static bool replace_kept(struct cfi_child *c, struct cfi_arrived *news)
{
    cfi_lock(&c->pool->blocks.lock);
    struct cfi_arrived *a = &c->inflow.kept[news->number], old = *a;
    bool may = !old.in_use;
    if (may)
        *a = *news;
    cfi_unlock(&c->pool->blocks.lock);
    *news = may ? old : *news;
    return may;
}

static bool append_once(struct cfi_child *c, const struct cfi_arrived *news)
{
    struct cfi_once *o = malloc(sizeof *o);
    if (!o)
        return false;
    *o = (struct cfi_once){ .block = *news };
    cfi_lock(&c->pool->blocks.lock);
    struct cfi_once **at = &c->inflow.once;
    while (*at)
        at = &(*at)->next;
    bool may = c->inflow.once_count < MOST_ONCE;
    if (may) {
        *at = o;
        c->inflow.once_count++;
    }
    cfi_unlock(&c->pool->blocks.lock);
    if (!may)
        free(o);
    return may;
}

int cfi_inflow_add(struct cfi_child *c, uint32_t number, size_t size, int fd)
{
    struct cfi_arrived news = { .size = size, .number = number };
    int error = cfi_memory_map(fd, size, false, &news.data);
    (void)close(fd);
    if (error)
        return error == ENOMEM && cfi_inflow_lose(c, number) ? 0 : EPROTO;
    if (number >= CFI_KEPT_BLOCKS) {
        if (append_once(c, &news))
            return 0;
        (void)munmap(news.data, news.size);
        return EPROTO;
    }
    bool taken = replace_kept(c, &news);
    if (news.data) /* the old one, or the new one if it was refused */
        (void)munmap(news.data, news.size);
    return taken ? 0 : EPROTO;
}

/* Takes a block that is used once off the list; with blocks->lock. */
static struct cfi_arrived take_once(struct cfi_child *c, uint32_t number)
{
    struct cfi_once **at = &c->inflow.once;
    while (*at && (*at)->block.number != number)
        at = &(*at)->next;
    struct cfi_once *o = *at;
    struct cfi_arrived block = o->block;
    *at = o->next;
    c->inflow.once_count--;
    free(o);
    return block;
}

bool cfi_inflow_lose(struct cfi_child *c, uint32_t number)
{
    struct cfi_arrived lost = { .number = number, .is_lost = true };
    if (number >= CFI_KEPT_BLOCKS)
        return append_once(c, &lost);
    bool replaced = replace_kept(c, &lost);
    if (replaced && lost.data)
        (void)munmap(lost.data, lost.size);
    return replaced;
}

bool cfi_inflow_is_lost(struct cfi_child *c, uint32_t number)
{
    cfi_lock(&c->pool->blocks.lock);
    struct cfi_arrived *a = arrived(c, number);
    bool is_lost = a && a->is_lost;
    if (is_lost && number >= CFI_KEPT_BLOCKS)
        (void)take_once(c, number);
    cfi_unlock(&c->pool->blocks.lock);
    return is_lost;
}

void *cfi_inflow_peek(struct cfi_child *c, uint32_t number, size_t size)
{
    void *data = NULL;
    cfi_lock(&c->pool->blocks.lock);
    struct cfi_arrived *a = arrived(c, number);
    if (a && a->data && size <= a->size && !a->in_use) {
        a->in_use = true;
        data = a->data;
    }
    cfi_unlock(&c->pool->blocks.lock);
    return data;
}

/* What a user's cf_bytes lies in. */
struct lent {
    struct cfi_mapped mapped;
    struct cfi_process_pool *pool;
    struct cfi_child *child; /* NULL: it is used once */
    size_t size;
    uint32_t number;
};

/* A kept block goes back to the worker, unless that has died: then it is nobody's. */
static bool give_back(struct cfi_child *c, uint32_t number, const void *data)
{
    struct cfi_arrived *a = &c->inflow.kept[number];
    cfi_lock(&c->pool->blocks.lock);
    bool is_there = a->data == data;
    if (is_there) {
        a->in_use = false;
        cfi_store_release(&c->arena->block_back[number], true);
    }
    cfi_unlock(&c->pool->blocks.lock);
    return is_there;
}

static void release(struct cfi_mapped *mapped)
{
    struct lent *lent = (struct lent *)mapped;
    struct cfi_process_pool *pool = lent->pool;
    /* In a forked child the worker and its blocks are the parent's, and so are the locks. */
    bool is_ours = lent->child && !cfi_executor_is_foreign(&pool->executor);
    if (!is_ours || !give_back(lent->child, lent->number, lent->mapped.data))
        (void)munmap(lent->mapped.data, lent->size);
    free(lent);
    cfi_executor_unref(&pool->executor);
}

bool cfi_inflow_lend(struct cfi_child *c, uint32_t number)
{
    struct lent *lent = malloc(sizeof *lent);
    if (!lent)
        return false;
    bool is_kept = number < CFI_KEPT_BLOCKS;
    cfi_lock(&c->pool->blocks.lock);
    struct cfi_arrived *a = arrived(c, number);
    *lent = (struct lent){ .mapped = { .data = a->data, .release = release },
                           .pool = c->pool,
                           .child = is_kept ? c : NULL,
                           .size = a->size,
                           .number = number };
    if (!is_kept)
        (void)take_once(c, number);
    cfi_unlock(&c->pool->blocks.lock);
    cfi_executor_ref(&c->pool->executor);
    cfi_mapped_add(&lent->mapped);
    return true;
}

void cfi_inflow_done(struct cfi_child *c, uint32_t number)
{
    if (number < CFI_KEPT_BLOCKS) {
        (void)give_back(c, number, c->inflow.kept[number].data); /* in use: nobody replaces it */
        return;
    }
    cfi_lock(&c->pool->blocks.lock);
    struct cfi_arrived a = take_once(c, number);
    cfi_unlock(&c->pool->blocks.lock);
    (void)munmap(a.data, a.size);
}

void cfi_inflow_clear(struct cfi_child *c)
{
    struct cfi_inflow old;
    cfi_lock(&c->pool->blocks.lock);
    old = c->inflow;
    c->inflow = (struct cfi_inflow){ .once = NULL };
    cfi_unlock(&c->pool->blocks.lock);
    for (unsigned i = 0; i < CFI_KEPT_BLOCKS; i++) {
        if (old.kept[i].data && !old.kept[i].in_use)
            (void)munmap(old.kept[i].data, old.kept[i].size);
    }
    while (old.once) {
        struct cfi_once *o = old.once;
        old.once = o->next;
        if (o->block.data)
            (void)munmap(o->block.data, o->block.size);
        free(o);
    }
}
