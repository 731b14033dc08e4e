/* SPDX-License-Identifier: MIT */
#include "heap.h"

#include <stdlib.h>

static bool goes_before(const struct cfi_heap_entry *a, const struct cfi_heap_entry *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->order < b->order;
}

static void swap(struct cfi_heap_entry *a, struct cfi_heap_entry *b)
{
    struct cfi_heap_entry t = *a;
    *a = *b;
    *b = t;
}

static void sift_up(struct cfi_heap *heap, size_t at)
{
    struct cfi_heap_entry *e = heap->entries;
    for (; at > 0 && goes_before(&e[at], &e[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&e[at], &e[(at - 1) / 2]);
}

static void sift_down(struct cfi_heap *heap, size_t at)
{
    struct cfi_heap_entry *e = heap->entries;
    for (size_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && goes_before(&e[child + 1], &e[child]))
            child++;
        if (!goes_before(&e[child], &e[at]))
            return;
        swap(&e[child], &e[at]);
    }
}

static bool make_room(struct cfi_heap *heap)
{
    if (heap->count < heap->room)
        return true;
    size_t room = heap->room ? 2 * heap->room : 16;
    struct cfi_heap_entry *entries = realloc(heap->entries, room * sizeof *entries);
    if (!entries)
        return false;
    heap->entries = entries;
    heap->room = room;
    return true;
}

static cfi_size *counter_of(struct cfi_heap *heap, int64_t priority)
{
    return priority > 0 ? &heap->urgent : &heap->background;
}

static cf_status put_locked(struct cfi_heap *heap, cf_future *f, int64_t priority)
{
    if (heap->closed)
        return CF_SHUTDOWN;
    if (!make_room(heap))
        return CF_NOMEM;
    heap->entries[heap->count] = (struct cfi_heap_entry){ priority, heap->next_order++, f };
    sift_up(heap, heap->count++);
    (void)cfi_add_relaxed(counter_of(heap, priority),
                          1); /* a hint: who acts on it takes the lock */
    return CF_OK;
}

cf_status cfi_heap_put(struct cfi_heap *heap, cf_future *f, int64_t priority)
{
    cfi_lock(&heap->lock);
    cf_status s = put_locked(heap, f, priority);
    cfi_unlock(&heap->lock);
    cfi_fence_after_rmw();
    return s;
}

/* The last one takes its place, and rises or sinks from there. */
static void remove_at(struct cfi_heap *heap, size_t at)
{
    (void)cfi_sub_acq_rel(counter_of(heap, heap->entries[at].priority), 1);
    heap->entries[at] = heap->entries[--heap->count];
    if (at < heap->count) {
        sift_up(heap, at);
        sift_down(heap, at);
    }
}

cf_future *cfi_heap_take(struct cfi_heap *heap, bool urgent_only)
{
    cf_future *f = NULL;
    cfi_lock(&heap->lock);
    if (heap->count && (!urgent_only || heap->entries[0].priority > 0)) {
        f = heap->entries[0].future;
        remove_at(heap, 0);
    }
    cfi_unlock(&heap->lock);
    return f;
}

bool cfi_heap_remove(struct cfi_heap *heap, const cf_future *f)
{
    size_t at = 0;
    cfi_lock(&heap->lock);
    while (at < heap->count && heap->entries[at].future != f)
        at++;
    bool found = at < heap->count;
    if (found)
        remove_at(heap, at);
    cfi_unlock(&heap->lock);
    return found;
}

void cfi_heap_close(struct cfi_heap *heap)
{
    cfi_lock(&heap->lock);
    heap->closed = true;
    cfi_unlock(&heap->lock);
}

void cfi_heap_destroy(struct cfi_heap *heap)
{
    free(heap->entries);
}
