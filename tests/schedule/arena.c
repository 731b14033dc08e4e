/* SPDX-License-Identifier: MIT */
/* Memory for one run of a client: nothing is used twice, so a touch of freed memory is seen, and
 * addresses are the same in every run, so a schedule can be replayed.  The linker sends the calls
 * of the engine and the clients here (--wrap); all is serialized by the scheduler. */
#define _GNU_SOURCE
#include "scheduler.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **ret, size_t alignment, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **ret, size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *block);

enum { GRANULE = 64, ARENA = 64 * 1024 * 1024, FRESH = 0xAA, FREED = 0xDD };

struct block {
    struct block *former;
    char *data;
    size_t size;
    bool freed;
};

static KEPT char *base;             /* of the arena */
static KEPT size_t used, permanent; /* bytes of it; those that stay from run to run */
static KEPT bool on;                /* else the ordinary malloc is used */
static KEPT struct block *blocks;   /* all of this run, latest first; they lie in the arena too */
static KEPT unsigned char *freed_granules;

static void map_arena(void)
{
    void *wanted = (void *)(uintptr_t)0x100000000000;
    base = mmap(wanted, ARENA, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    freed_granules = __real_calloc(ARENA / GRANULE, 1);
    if (base != wanted || !freed_granules) {
        perror("the arena");
        exit(1);
    }
}

void arena_begin(void)
{
    if (!base)
        map_arena();
    memset(freed_granules + permanent / GRANULE, 0, (used - permanent) / GRANULE);
    used = permanent;
    blocks = NULL;
    on = true;
}

static bool is_inside(const volatile void *p)
{
    return base && (const volatile char *)p >= base && (const volatile char *)p < base + ARENA;
}

bool arena_is_freed(const volatile void *address)
{
    return is_inside(address) &&
           freed_granules[(size_t)((const volatile char *)address - base) / GRANULE];
}

void arena_keep(void)
{
    permanent = used;
}

static size_t whole_granules(size_t size)
{
    return (size + GRANULE - 1) / GRANULE * GRANULE;
}

static const char *was_written(const struct block *b)
{
    for (size_t i = 0; i < b->size; i++) {
        if ((unsigned char)b->data[i] != FREED)
            return "freed memory was written to";
    }
    return NULL;
}

const char *arena_end(void)
{
    on = false;
    const char *wrong = NULL;
    for (struct block *b = blocks; b && !wrong; b = b->former)
        wrong = b->freed ? was_written(b) : "something allocated was not freed";
    return wrong;
}

/* Every block starts on a granule of its own, behind the one that describes it. */
static void *take(size_t size)
{
    size_t whole = GRANULE + whole_granules(size ? size : 1);
    if (size > ARENA || used + whole > ARENA) {
        errno = ENOMEM;
        return NULL;
    }
    struct block *b = (struct block *)(void *)(base + used);
    *b = (struct block){ .former = blocks, .data = base + used + GRANULE, .size = size };
    used += whole;
    blocks = b;
    return memset(b->data, FRESH, size);
}

static struct block *block_of(void *data)
{
    struct block *b = (struct block *)(void *)((char *)data - GRANULE);
    if (b->data != data)
        schedule_fail("a pointer was freed that malloc did not return");
    if (b->freed)
        schedule_fail("a block was freed twice");
    return b;
}

void *__wrap_malloc(size_t size)
{
    return on ? take(size) : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    if (!on)
        return __real_calloc(count, size);
    void *data = take(count * size);
    return data ? memset(data, 0, count * size) : NULL;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    if (!on)
        return __real_aligned_alloc(alignment, size);
    return alignment <= GRANULE ? take(size) : NULL;
}

int __wrap_posix_memalign(void **ret, size_t alignment, size_t size)
{
    if (!on)
        return __real_posix_memalign(ret, alignment, size);
    *ret = alignment <= GRANULE ? take(size) : NULL;
    return *ret ? 0 : ENOMEM;
}

void *__wrap_realloc(void *old, size_t size)
{
    if (!on || (old && !is_inside(old)))
        return __real_realloc(old, size);
    void *new = take(size);
    if (new &&old) {
        size_t had = block_of(old)->size;
        memcpy(new, old, had < size ? had : size);
        __wrap_free(old);
    }
    return new;
}

char *__wrap_strdup(const char *text)
{
    char *copy = __wrap_malloc(strlen(text) + 1);
    return copy ? strcpy(copy, text) : NULL;
}

void __wrap_free(void *data)
{
    if (!is_inside(data)) {
        __real_free(data);
        return;
    }
    struct block *b = block_of(data);
    b->freed = true;
    memset(b->data, FREED, b->size);
    memset(freed_granules + (size_t)(b->data - base) / GRANULE, 1,
           whole_granules(b->size ? b->size : 1) / GRANULE);
}
