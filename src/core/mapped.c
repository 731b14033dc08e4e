/* SPDX-License-Identifier: MIT */
/* The list of mapped bytes that are in users' hands, hashed by address. */
#include "mapped.h"

#include "../base/lock.h"

#include <stdint.h>

const struct cfi_bytes_memory *cfi_bytes_memory;

enum { BUCKETS = 256 };
static struct cfi_lock lock; /* guards the buckets */
static struct cfi_mapped *buckets[BUCKETS];

static struct cfi_mapped **find(const void *data)
{
    struct cfi_mapped **at = &buckets[((uintptr_t)data >> 12) % BUCKETS];
    while (*at && (*at)->data != data)
        at = &(*at)->next;
    return at;
}

void cfi_mapped_add(struct cfi_mapped *mapped)
{
    cfi_lock(&lock);
    struct cfi_mapped **at = &buckets[((uintptr_t)mapped->data >> 12) % BUCKETS];
    mapped->next = *at;
    *at = mapped;
    cfi_unlock(&lock);
}

bool cfi_mapped_free(void *data)
{
    cfi_lock(&lock);
    struct cfi_mapped **at = find(data), *mapped = *at;
    if (mapped)
        *at = mapped->next;
    cfi_unlock(&lock);
    if (mapped)
        mapped->release(mapped);
    return mapped;
}

bool cfi_is_mapped(void *data)
{
    cfi_lock(&lock);
    bool found = *find(data);
    cfi_unlock(&lock);
    return found;
}

void cfi_mapped_lock(void)
{
    cfi_lock(&lock);
}

void cfi_mapped_unlock(void)
{
    cfi_unlock(&lock);
}
