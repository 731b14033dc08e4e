/* SPDX-License-Identifier: MIT */
/* A thread's cache has, for each size, a list in use, one spare magazine, and an untouched piece of
 * a slab.  Taking: list, piece, spare, depot, new piece.  Giving: list; a full list becomes the
 * spare; a second full one goes to the depot.  So a thread that only takes and one that only gives
 * both touch the depot once in 64 calls.  Slabs are never unmapped: blocks of one slab end up
 * everywhere.
 *
 * Builds that hunt for memory errors (AddressSanitizer, debug under valgrind) and the schedule
 * explorer use malloc instead, so that the tools see each block's life. */
#define _GNU_SOURCE
#include "blocks.h"

#include "lock.h"
#include "thread.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(CFI_ASAN) || defined(CFI_SCHEDULE) || (defined(CFI_DEBUG) && !defined(CFI_TSAN))
#define PLAIN_MALLOC 1
#endif

#ifdef PLAIN_MALLOC

void *cfi_block_new(size_t size)
{
    return malloc(cfi_block_capacity(size));
}

void cfi_block_free(void *block, size_t size)
{
    (void)size;
    free(block);
}

void cfi_blocks_lock_all(void) {}
void cfi_blocks_unlock_all(void) {}

#else

enum { MAGAZINE = 64 };

/* A free block.  The last two are only valid in the first block of a magazine. */
struct node {
    struct node *next;
    struct node *next_magazine;
    unsigned count;
};

struct bin {
    struct node *list;
    unsigned count;
    unsigned spare_count;
    struct node *spare;
    char *piece;  /* MAGAZINE blocks of untouched memory, */
    unsigned cut; /* of which so many have been handed out */
};

struct cache {
    struct bin bins[CFI_BLOCK_CLASSES];
};

struct depot {
    struct cfi_lock lock;
    struct node *magazines;
};

static struct depot depots[CFI_BLOCK_CLASSES];
static struct {
    struct cfi_lock lock;
    char *at, *end;
    size_t next_size;
} slab;

static _Thread_local struct cache *cache;

/* ---- slabs ---- */

enum { SLAB_MIN = 64 * 1024, SLAB_MAX = 2 * 1024 * 1024 };

/* Small programs get small slabs.  No huge pages: where the machine's memory is lent page by page
 * (most virtual machines) the first touch of one cost up to ten times what it saved. */
static bool new_slab(void)
{
    size_t size = slab.next_size ? slab.next_size : SLAB_MIN;
    char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return false;
    slab.at = map;
    slab.end = map + size;
    slab.next_size = size < SLAB_MAX ? 2 * size : SLAB_MAX;
    return true;
}

/* What is left of a slab when the next piece does not fit is lost: at most 64 KiB of 2 MiB. */
static bool cut_piece(struct bin *bin, size_t block_size)
{
    size_t size = MAGAZINE * block_size;
    cfi_lock(&slab.lock);
    bool ok = (size_t)(slab.end - slab.at) >= size || new_slab(); /* a new one always suffices */
    if (ok) {
        bin->piece = slab.at;
        bin->cut = 0;
        slab.at += size;
    }
    cfi_unlock(&slab.lock);
    return ok;
}

/* The piece's next block.  Not in the order of addresses but every eighth: neighbours share a cache
 * line, and the task handed out a moment ago is just being run on another core. */
static void *next_of_piece(struct bin *bin, size_t block_size)
{
    unsigned i = bin->cut++;
    return bin->piece + (i % 8 * 8 + i / 8) * block_size;
}

static bool has_piece(const struct bin *bin)
{
    return bin->piece && bin->cut < MAGAZINE;
}

/* ---- depot ---- */

static void give_magazine(unsigned class, struct node *list, unsigned count)
{
    struct depot *d = &depots[class];
    list->count = count;
    cfi_lock(&d->lock);
    list->next_magazine = d->magazines;
    d->magazines = list;
    cfi_unlock(&d->lock);
}

static struct node *take_magazine(unsigned class)
{
    struct depot *d = &depots[class];
    cfi_lock(&d->lock);
    struct node *list = d->magazines;
    if (list)
        d->magazines = list->next_magazine;
    cfi_unlock(&d->lock);
    return list;
}

/* ---- a thread's cache ---- */

static void flush_cache(void)
{
    struct cache *c = cache;
    cache = NULL;
    for (unsigned class = 0; c && class < CFI_BLOCK_CLASSES; class ++) {
        struct bin *bin = &c->bins[class];
        size_t size = (class + 1) * (size_t)CFI_BLOCK_STEP;
        while (has_piece(bin)) {
            struct node *n = next_of_piece(bin, size);
            n->next = bin->list;
            bin->list = n;
            bin->count++;
        }
        if (bin->list)
            give_magazine(class, bin->list, bin->count);
        if (bin->spare)
            give_magazine(class, bin->spare, bin->spare_count);
    }
    free(c);
}

static struct cache *this_cache(void)
{
    if (!cache && cfi_on_thread_exit(flush_cache))
        cache = calloc(1, sizeof *cache);
    return cache;
}

static bool refill(struct bin *bin, unsigned class)
{
    if (bin->spare) {
        bin->list = bin->spare;
        bin->count = bin->spare_count;
        bin->spare = NULL;
        return true;
    }
    bin->list = take_magazine(class);
    if (bin->list)
        bin->count = bin->list->count;
    return bin->list != NULL;
}

static void *take(struct bin *bin)
{
    struct node *n = bin->list;
    bin->list = n->next;
    bin->count--;
    return n;
}

static void *take_slow(struct bin *bin, unsigned class)
{
    size_t size = (class + 1) * (size_t)CFI_BLOCK_STEP;
    if (!has_piece(bin) && refill(bin, class))
        return take(bin);
    return has_piece(bin) || cut_piece(bin, size) ? next_of_piece(bin, size) : NULL;
}

static unsigned class_of(size_t size)
{
    return (unsigned)((size - 1) / CFI_BLOCK_STEP);
}

void *cfi_block_new(size_t size)
{
    if (size > (size_t)CFI_BLOCK_STEP * CFI_BLOCK_CLASSES)
        return malloc(size);
    struct cache *c = cache ? cache : this_cache();
    if (!c)
        return NULL;
    unsigned class = class_of(size);
    struct bin *bin = &c->bins[class];
    return bin->list ? take(bin) : take_slow(bin, class);
}

static void overflow(struct bin *bin, unsigned class)
{
    if (bin->spare)
        give_magazine(class, bin->spare, bin->spare_count);
    bin->spare = bin->list;
    bin->spare_count = bin->count;
    bin->list = NULL;
    bin->count = 0;
}

void cfi_block_free(void *block, size_t size)
{
    if (size > (size_t)CFI_BLOCK_STEP * CFI_BLOCK_CLASSES) {
        free(block);
        return;
    }
    unsigned class = class_of(size);
    struct node *n = block;
    n->next = NULL;
    struct cache *c = cache ? cache : this_cache();
    if (!c) { /* no memory even for a cache: freeing must not fail */
        give_magazine(class, n, 1);
        return;
    }
    struct bin *bin = &c->bins[class];
    n->next = bin->list;
    bin->list = n;
    if (++bin->count >= MAGAZINE)
        overflow(bin, class);
}

void cfi_blocks_lock_all(void)
{
    for (unsigned class = 0; class < CFI_BLOCK_CLASSES; class ++)
        cfi_lock(&depots[class].lock);
    cfi_lock(&slab.lock);
}

void cfi_blocks_unlock_all(void)
{
    cfi_unlock(&slab.lock);
    for (unsigned class = 0; class < CFI_BLOCK_CLASSES; class ++)
        cfi_unlock(&depots[class].lock);
}

#endif
