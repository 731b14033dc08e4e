/* SPDX-License-Identifier: MIT */
/* A block is absent, being made, free, in use here, or sent: then the parent has it, until it says
 * otherwise in block_back.
 *
 * Number n of the kept ones lies in entry n.  Which are kept changes as sizes change: when none fits, a
 * free one makes way.  The others lie in the entries behind and are numbered when they are sent. */
#define _GNU_SOURCE
#include "made.h"

#include "../base/lock.h"
#include "../core/error.h"
#include "../core/mapped.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ONCE_BLOCKS = 16, /* each has a descriptor until it is sent, of which a process has not many */
    BLOCKS = CFI_KEPT_BLOCKS + ONCE_BLOCKS,
    SMALLEST = 64 * 1024,
    STEP = 1024 * 1024
};
static const size_t largest_power = (size_t)8 << 20; /* sizes above it are multiples of STEP */

enum state { ABSENT, MAKING, FREE, USED, SENT };

struct block {
    enum state state;
    bool is_cold; /* its memory was given back */
    int fd;       /* -1: the parent has it     */
    void *data;
    size_t size;
};

static struct {
    struct cfi_lock lock;
    struct block blocks[BLOCKS];
    uint64_t kept_bytes;
    struct cfi_arena *arena;
    uint32_t next_number;
    pid_t process; /* a child that a task has forked shares these blocks, and must not use them */
    bool has_sent_once;
} made;

/* ---- finding ---- */

static size_t class_of(size_t size)
{
    if (size > largest_power)
        return size > SIZE_MAX - STEP ? 0 : (size + STEP - 1) / STEP * STEP;
    size_t class = SMALLEST;
    while (class < size)
        class *= 2;
    return class;
}

static bool is_in_child(void)
{
    return getpid() != made.process;
}

/* The block in use with that content; NULL: there is none. */
static struct block *find(const void *data)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        if (made.blocks[i].state == USED && made.blocks[i].data == data)
            return &made.blocks[i];
    }
    return NULL;
}

static void take_back(void)
{
    for (size_t i = 0; i < CFI_KEPT_BLOCKS; i++) {
        struct block *block = &made.blocks[i];
        /* Acquire: the parent has read it before it is written again. */
        if (block->state == SENT && cfi_load_acquire(&made.arena->block_back[i])) {
            cfi_store_relaxed(&made.arena->block_back[i], false);
            block->state = FREE;
        }
    }
}

/* The smallest free one that is large enough, and not much too large. */
static struct block *find_free(size_t size)
{
    struct block *best = NULL;
    for (size_t i = 0; i < CFI_KEPT_BLOCKS; i++) {
        struct block *block = &made.blocks[i];
        if (block->state == FREE && block->size >= size && block->size / 2 <= size &&
            (!best || block->size < best->size))
            best = block;
    }
    return best;
}

static struct block *find_absent(size_t from, size_t end)
{
    for (size_t i = from; i < end; i++) {
        if (made.blocks[i].state == ABSENT)
            return &made.blocks[i];
    }
    return NULL;
}

/* ---- making and unmaking ---- */

static void unmap(const struct block *block)
{
    munmap(block->data, block->size);
    if (block->fd >= 0)
        close(block->fd);
}

/* Takes a block out of the table; the caller unmaps it, without the lock. */
static struct block take_out(struct block *block)
{
    struct block out = *block;
    if (block < made.blocks + CFI_KEPT_BLOCKS)
        made.kept_bytes -= block->size;
    *block = (struct block){ .state = ABSENT };
    return out;
}

static bool has_place(size_t size)
{
    return made.kept_bytes + size <= CFI_KEPT_BYTES && find_absent(0, CFI_KEPT_BLOCKS);
}

/* Makes free ones go until there is a place for a kept block of that size; how many have gone. */
static size_t make_way(size_t size, struct block gone[CFI_KEPT_BLOCKS])
{
    size_t count = 0;
    for (size_t i = 0; i < CFI_KEPT_BLOCKS && !has_place(size); i++) {
        if (made.blocks[i].state == FREE)
            gone[count++] = take_out(&made.blocks[i]);
    }
    return count;
}

/* An entry for a new block; NULL: there is none. */
static struct block *new_entry(size_t size, struct block gone[CFI_KEPT_BLOCKS], size_t *ret_gone)
{
    struct block *block = NULL;
    *ret_gone = 0;
    if (size <= CFI_KEPT_BYTES) {
        *ret_gone = make_way(size, gone);
        if (has_place(size)) {
            block = find_absent(0, CFI_KEPT_BLOCKS);
            made.kept_bytes += size;
        }
    }
    if (!block)
        block = find_absent(CFI_KEPT_BLOCKS, BLOCKS);
    if (block)
        *block = (struct block){ .state = MAKING, .fd = -1, .size = size };
    return block;
}

/* Outside the lock: this takes milliseconds for a large one. */
static void *fill(struct block *block)
{
    int fd = -1;
    void *data = NULL;
    int error = cfi_memory_new("cfutures-result", block->size, false, &fd, &data);
    cfi_lock(&made.lock);
    if (error == 0) {
        block->fd = fd;
        block->data = data;
        block->state = USED;
    } else {
        (void)take_out(block);
    }
    cfi_unlock(&made.lock);
    return data;
}

static void *make(size_t size)
{
    struct block gone[CFI_KEPT_BLOCKS];
    size_t count;
    cfi_lock(&made.lock);
    struct block *block = new_entry(size, gone, &count);
    cfi_unlock(&made.lock);
    for (size_t i = 0; i < count; i++)
        unmap(&gone[i]);
    return block ? fill(block) : NULL;
}

/* Memory that was given back comes again with the first touch, and a signal if there is none: ask for
 * it in a way that can fail. */
static bool warm(void *data, size_t size)
{
#ifndef MADV_POPULATE_WRITE
    enum { MADV_POPULATE_WRITE = 23 };
#endif
    int error;
    do
        error = madvise(data, size, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
    while (error == EINTR);
    return error == 0 || error == EINVAL; /* a kernel that does not know this */
}

void *cfi_made_new(size_t size)
{
    size_t class = class_of(size);
    if (class == 0 || is_in_child())
        return NULL;
    cfi_lock(&made.lock);
    take_back();
    struct block *block = find_free(class);
    bool is_cold = block && block->is_cold;
    if (block) {
        block->state = USED;
        block->is_cold = false;
    }
    cfi_unlock(&made.lock);
    if (!block)
        return make(class);
    if (!is_cold || warm(block->data, block->size))
        return block->data;
    (void)cfi_made_free(block->data);
    return NULL;
}

bool cfi_made_free(void *data)
{
    if (is_in_child()) /* the lock may be held for ever there */
        return find(data);
    cfi_lock(&made.lock);
    struct block *block = find(data), gone;
    bool is_kept = block && block < made.blocks + CFI_KEPT_BLOCKS;
    if (is_kept)
        block->state = FREE;
    else if (block)
        gone = take_out(block);
    cfi_unlock(&made.lock);
    if (block && !is_kept)
        unmap(&gone);
    return block;
}

bool cfi_made_has(void *data)
{
    cfi_lock(&made.lock);
    bool has = find(data);
    cfi_unlock(&made.lock);
    return has;
}

/* ---- what cf_bytes_resize asks ---- */

/* Grown step by step, bytes shall not be copied at each: half as much again has room for the next. */
static void *move(void *data, size_t old_size, size_t size)
{
    size_t roomy = old_size + old_size / 2;
    void *moved = cfi_made_new(size > roomy ? size : roomy);
    if (moved) {
        memcpy(moved, data, old_size);
        (void)cfi_made_free(data);
    }
    return moved;
}

static void *resize(void *data, size_t size)
{
    if (!data)
        return cfi_made_new(size);
    if (is_in_child())
        return NULL;
    cfi_lock(&made.lock);
    const struct block *block = find(data);
    size_t old_size = block ? block->size : 0;
    cfi_unlock(&made.lock);
    if (!block || size <= old_size)
        return block ? data : NULL;
    return move(data, old_size, size);
}

void cfi_made_begin(struct cfi_arena *arena)
{
    static const struct cfi_bytes_memory memory = { .from = CFI_HEAP_LARGEST + 1,
                                                    .resize = resize,
                                                    .free = cfi_made_free };
    made.arena = arena;
    made.process = getpid();
    made.next_number = CFI_KEPT_BLOCKS;
    cfi_bytes_memory = &memory;
}

/* ---- results ---- */

static bool announce(int channel, const struct block *block, uint32_t number)
{
    struct cfi_message message = { .type = CFI_BLOCK, .size = block->size, .number = number };
    int error = cfi_message_send(channel, &message, &block->fd, 1);
    if (error != 0)
        (void)cfi_fail_system(error, "a worker's result cannot be sent");
    return error == 0;
}

bool cfi_made_send(int channel, void *data, uint64_t *ret_number)
{
    cfi_lock(&made.lock);
    struct block *block = find(data); /* stays where it is: it is this thread's */
    cfi_unlock(&made.lock);
    bool is_kept = block < made.blocks + CFI_KEPT_BLOCKS;
    uint32_t number = is_kept ? (uint32_t)(block - made.blocks) : made.next_number;
    if (block->fd >= 0) {
        if (!announce(channel, block, number))
            return false;
        close(block->fd);
    }
    if (!is_kept)
        made.next_number++;
    made.has_sent_once = made.has_sent_once || !is_kept;
    cfi_lock(&made.lock);
    block->fd = -1;
    block->state = SENT;
    cfi_unlock(&made.lock);
    *ret_number = number;
    return true;
}

void cfi_made_clear(void)
{
    if (CFI_LIKELY(!made.has_sent_once))
        return;
    made.has_sent_once = false;
    struct block *block = made.blocks + CFI_KEPT_BLOCKS;
    while (block < made.blocks + BLOCKS && block->state != SENT)
        block++;
    cfi_lock(&made.lock);
    struct block gone = take_out(block);
    cfi_unlock(&made.lock);
    unmap(&gone);
}

void cfi_made_trim(void)
{
    cfi_lock(&made.lock);
    take_back();
    for (size_t i = 0; i < CFI_KEPT_BLOCKS; i++) {
        struct block *block = &made.blocks[i];
        if (block->state == FREE && !block->is_cold)
            block->is_cold = madvise(block->data, block->size, MADV_REMOVE) == 0;
    }
    cfi_unlock(&made.lock);
}
