/* SPDX-License-Identifier: MIT */
/* Memory that the pool shares with workers, beyond the channels' own: blocks.
 *
 * Page faults decide what large payloads cost (a fresh 64 MiB takes 40 ms to touch, a warm one 10), so
 * blocks are kept and used again: up to CFI_KEPT_BLOCKS and CFI_KEPT_BYTES for the arguments of a pool
 * and for the results of each worker.
 *
 * Arguments: the pool makes the blocks, and a worker is sent a block's memfd when a task in it is first
 * sent to that worker.  A submit takes a free one of those kept, and copies the argument right into it;
 * if none is free the argument waits in the future's own memory, and the manager copies it when its turn
 * comes, so the number of descriptors does not grow with the queue.
 *
 * Results: the worker makes the blocks (an inflow is what the pool knows of them).  A bytes result is
 * handed to the user where it lies, and the worker gets a kept block back when the user frees it;
 * the bytes may outlive worker and pool, for which the pool's memory is kept as well. */
#ifndef CFI_PROCESSES_BLOCK_H
#define CFI_PROCESSES_BLOCK_H

#include "../base/atomics.h"
#include "../base/lock.h"
#include "channel.h"

struct cfi_child;
struct cfi_process_pool;

struct cfi_block {
    cfi_u32 references;
    uint32_t number; /* how workers call it */
    void *data;
    size_t size; /* what it can hold */
    int fd;
    bool kept, is_free;     /* guarded by blocks->lock */
    struct cfi_block *next; /* of those kept */
    uint16_t told[];        /* by child: the generation that was sent it; guarded by pool->lock */
};

struct cfi_blocks {
    struct cfi_lock lock;
    struct cfi_block *kept;
    unsigned count;
    uint64_t bytes;
    cfi_u32 next_number;
};

/* A block for `size` bytes, with one reference: a kept one, or if `must` any; NULL: there is none. */
struct cfi_block *cfi_block_get(struct cfi_process_pool *pool, size_t size, bool must);
void cfi_block_put(struct cfi_process_pool *pool, struct cfi_block *block); /* NULL is allowed */

/* Lets the free ones go. */
void cfi_blocks_trim(struct cfi_process_pool *pool);
bool cfi_blocks_can_be_trimmed(struct cfi_process_pool *pool);

struct cfi_arrived {
    void *data; /* NULL: none */
    size_t size;
    uint32_t number;
    bool in_use;  /* it is being read, or in a user's hands */
    bool is_lost; /* there was no descriptor or no memory for it here */
};

/* One that is used once; they are announced in the order of the results that they are for. */
struct cfi_once {
    struct cfi_arrived block;
    struct cfi_once *next;
};

struct cfi_inflow { /* guarded by blocks->lock */
    struct cfi_arrived kept[CFI_KEPT_BLOCKS];
    struct cfi_once *once;
    unsigned once_count;
};

/* A block has come from the worker; closes fd.  0, ENOMEM, or EPROTO: it is not what it should be. */
int cfi_inflow_add(struct cfi_child *c, uint32_t number, size_t size, int fd);

/* A block has come, but could not be received.  false: the worker sends too many. */
bool cfi_inflow_lose(struct cfi_child *c, uint32_t number);
bool cfi_inflow_is_lost(struct cfi_child *c, uint32_t number);

/* The first `size` bytes of that block, in use from now on until one of the next two; NULL: there is
 * none such, or it is in use. */
void *cfi_inflow_peek(struct cfi_child *c, uint32_t number, size_t size);
/* Makes it a user's, until cf_bytes_free.  false: out of memory. */
bool cfi_inflow_lend(struct cfi_child *c, uint32_t number);
/* It has been copied: back to the worker. */
void cfi_inflow_done(struct cfi_child *c, uint32_t number);
/* The worker is dead. */
void cfi_inflow_clear(struct cfi_child *c);

#endif
