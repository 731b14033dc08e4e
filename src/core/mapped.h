/* SPDX-License-Identifier: MIT */
/* Bytes that do not lie in malloc's memory: a result that came in a block shared with another process,
 * or one that is being made in such a block.  They begin at the start of a page, which nothing from
 * cf_bytes_resize does by itself except by chance, so only then is it asked here. */
#ifndef CFI_CORE_MAPPED_H
#define CFI_CORE_MAPPED_H

#include <stdbool.h>
#include <stddef.h>

/* A source of such memory for cf_bytes_resize: a worker process has one.  Called from any thread. */
struct cfi_bytes_memory {
    size_t from; /* sizes from here on are asked for first */
    /* As realloc, for data NULL or its own.  NULL: data is not its own, or it has no memory. */
    void *(*resize)(void *data, size_t size);
    bool (*free)(void *data); /* false: not its own */
};
extern const struct cfi_bytes_memory *cfi_bytes_memory; /* NULL: none */

/* In the parent: the owner of mapped bytes is told when they are freed.  One for each mapping that is
 * in a cf_bytes; the struct is the owner's. */
struct cfi_mapped {
    struct cfi_mapped *next;
    void *data;
    void (*release)(struct cfi_mapped *mapped); /* they are freed; called with no lock held */
};
void cfi_mapped_add(struct cfi_mapped *mapped);
bool cfi_mapped_free(void *data); /* false: it is not mapped */
bool cfi_is_mapped(void *data);

static inline bool cfi_may_be_mapped(const void *data)
{
    return data && ((size_t)data & 4095) == 0;
}

/* Around a fork. */
void cfi_mapped_lock(void);
void cfi_mapped_unlock(void);

#endif
