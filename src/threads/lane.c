/* SPDX-License-Identifier: MIT */
#include "lane.h"

#include <stdlib.h>

enum { SEGMENT = 126 }; /* with the link: 1 KiB */

struct cfi_segment {
    CFI_ATOMIC(struct cfi_segment *)
    next; /* set before the first task behind it is counted in `put` */
    cf_future *slots[SEGMENT];
};

static struct cfi_segment *new_segment(struct cfi_lane *lane)
{
    struct cfi_segment *s = cfi_load_relaxed(&lane->spare);
    if (s)
        s = cfi_exchange_acquire(&lane->spare, NULL); /* pairs with recycle */
    if (!s)
        s = malloc(sizeof *s);
    if (s)
        cfi_init(&s->next, NULL);
    return s;
}

static void recycle(struct cfi_lane *lane, struct cfi_segment *s)
{
    free(cfi_exchange_acq_rel(&lane->spare, s));
}

static bool make_room(struct cfi_lane *lane)
{
    struct cfi_segment *s = new_segment(lane);
    if (!s)
        return false;
    if (lane->tail)
        cfi_store_release(&lane->tail->next, s);
    else
        cfi_store_release(&lane->head, s);
    lane->tail = s;
    lane->tail_at = 0;
    return true;
}

static cf_status put_locked(struct cfi_lane *lane, cf_future *f, bool force)
{
    if (lane->closed && !force)
        return CF_SHUTDOWN;
    if ((!lane->tail || lane->tail_at == SEGMENT) && !make_room(lane))
        return CF_NOMEM;
    lane->tail->slots[lane->tail_at++] = f;
    cfi_store_release(&lane->put,
                      cfi_load_relaxed(&lane->put) + 1); /* pairs with the load in take */
    return CF_OK;
}

cf_status cfi_lane_put(struct cfi_lane *lane, cf_future *f, bool force)
{
    cfi_lock(&lane->in);
    cf_status s = put_locked(lane, f, force);
    cfi_unlock(&lane->in);
    cfi_fence_after_rmw();
    return s;
}

static void take_locked(struct cfi_lane *lane, cf_future **tasks, unsigned count)
{
    struct cfi_segment *head = cfi_load_acquire(&lane->head);
    for (unsigned i = 0; i < count; i++) {
        if (lane->head_at == SEGMENT) {
            struct cfi_segment *next =
                cfi_load_acquire(&head->next); /* there: more is counted than it holds */
            recycle(lane, head);
            head = next;
            lane->head_at = 0;
        }
        tasks[i] = head->slots[lane->head_at++];
    }
    cfi_store_relaxed(&lane->head, head);
    uint64_t taken = cfi_load_relaxed(&lane->taken) + count;
    cfi_store_release(&lane->taken, taken); /* pairs with cfi_lane_count */
}

unsigned cfi_lane_take(struct cfi_lane *lane, cf_future **tasks, unsigned max, unsigned divisor)
{
    if (cfi_lane_is_empty(lane) || !cfi_try_lock(&lane->out))
        return 0;
    uint64_t there = cfi_load_acquire(&lane->put) - cfi_load_relaxed(&lane->taken);
    uint64_t fair = 1 + there / divisor;
    unsigned count = there == 0 ? 0 : max < fair ? max : (unsigned)fair;
    if (count > there)
        count = (unsigned)there;
    if (count)
        take_locked(lane, tasks, count);
    cfi_unlock(&lane->out);
    return count;
}

void cfi_lane_close(struct cfi_lane *lane)
{
    cfi_lock(&lane->in);
    lane->closed = true;
    cfi_unlock(&lane->in);
}

void cfi_lane_destroy(struct cfi_lane *lane)
{
    struct cfi_segment *s = cfi_load_relaxed(&lane->head);
    while (s) {
        struct cfi_segment *next = cfi_load_relaxed(&s->next);
        free(s);
        s = next;
    }
    free(cfi_load_relaxed(&lane->spare));
}
