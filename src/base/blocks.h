/* SPDX-License-Identifier: MIT */
/* Memory for tasks: blocks of a few sizes, recycled through a cache of each thread.
 *
 * A block is usually freed by another thread than the one that took it, so full magazines of 64
 * blocks travel between the threads' caches through a depot (Bonwick and Adams, "Magazines and
 * Vmem", 2001): one lock for 64 blocks.  Fresh blocks are cut from large slabs in the order of
 * their addresses, which is the order in which a producer fills them and a consumer reads them. */
#ifndef CFI_BASE_BLOCKS_H
#define CFI_BASE_BLOCKS_H

#include <stddef.h>

enum { CFI_BLOCK_STEP = 32, CFI_BLOCK_CLASSES = 32 }; /* cached sizes: 32, 64, ... 1024 bytes */

/* At least `size` bytes, aligned for any type, contents undefined; NULL: out of memory. */
void *cfi_block_new(size_t size);

/* Takes a block back; `size` as it was given to cfi_block_new. */
void cfi_block_free(void *block, size_t size);

/* What a block of this size really holds. */
static inline size_t cfi_block_capacity(size_t size)
{
    return (size + CFI_BLOCK_STEP - 1) / CFI_BLOCK_STEP * CFI_BLOCK_STEP;
}

/* Around a fork: so that the child never finds the depot locked by a thread that it does not have.
 */
void cfi_blocks_lock_all(void);
void cfi_blocks_unlock_all(void);

#endif
