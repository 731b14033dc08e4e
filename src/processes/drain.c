/* SPDX-License-Identifier: MIT */
/* Results on their way back, and who waits for them.
 *
 * Whoever holds a child's role reads its channel: copies each field once, checks it, and copies the
 * result into the future.  Then, with no lock held, it settles what it has read.  The role is only tried:
 * who does not get it may go, because its holder looks again after letting go.
 *
 * A thread that waits for a task that was sent attends to its worker: it takes the role, asks the worker
 * to wake it when that task is done, and sleeps on the channel's own bell, so a round trip is two
 * wake-ups and not four.  What else may end such a wait (a cancel, a death, a task that is taken back)
 * nudges it: it looks again. */
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cfi_release_argument(cf_future *f)
{
    cfi_future_destroy_arg(f); /* it may lie in the block */
    struct cfi_parcel *p = cfi_parcel_of(f);
    struct cfi_process_pool *pool = f->executor->self;
    struct cfi_block *block = p->block, *shared = p->shared;
    p->block = p->shared = NULL;
    free(p->own);
    p->own = NULL;
    cfi_block_put(pool, block);
    cfi_block_put(pool, shared);
}

void cfi_fail_task(struct cfi_process_pool *pool, cf_future *f, const cf_error *error)
{
    cfi_release_argument(f);
    cfi_future_fail(f, error);
    cfi_finished(pool, 1);
}

/* ---- reading ---- */

/* A slot's answer, copied: the worker can no longer change it. */
struct answer {
    int32_t code;
    cf_status status;
    enum cfi_place place;
    bool has_text;
    uint64_t size, at;
    const struct cfi_slot *slot;
};

static struct answer copy_answer(const struct cfi_slot *slot)
{
    const volatile struct cfi_slot *v = slot;
    return (struct answer){ .code = v->code,
                            .status = (cf_status)v->status,
                            .place = (enum cfi_place)v->result_place,
                            .has_text = v->has_text,
                            .size = v->size,
                            .at = v->at,
                            .slot = slot };
}

/* Where the bytes of an answer lie; NULL: nowhere that they may. */
static const void *bytes_of(struct cfi_child *c, const struct answer *a)
{
    if (a->place == CFI_INLINE)
        return a->size <= CFI_INLINE_RESULT ? a->slot->result : NULL;
    if (a->place == CFI_IN_HEAP) {
        bool fits = a->size <= CFI_HEAP && a->at % CFI_HEAP + a->size <= CFI_HEAP;
        c->results_read = a->at + a->size;
        return fits ? c->arena->result_heap + a->at % CFI_HEAP : NULL;
    }
    if (a->place != CFI_IN_BLOCK || a->at > UINT32_MAX)
        return NULL;
    cfi_child_messages(c); /* it was announced before; the number may have been another block's */
    return cfi_inflow_peek(c, (uint32_t)a->at, a->size);
}

static void done_with(struct cfi_child *c, const struct answer *a)
{
    if (a->place == CFI_IN_BLOCK)
        cfi_inflow_done(c, (uint32_t)a->at);
}

static char *text_of(struct cfi_child *c, const struct answer *a)
{
    const char *text = bytes_of(c, a);
    char *copy =
        text && a->size ? strndup(text, a->size < CFI_MOST_TEXT ? a->size : CFI_MOST_TEXT) : NULL;
    if (text)
        done_with(c, a);
    return copy;
}

/* There is no result: the worker is to blame, or we had no room for its block. */
static cf_status why_not(struct cfi_child *c, const struct answer *a)
{
    bool is_lost =
        a->place == CFI_IN_BLOCK && a->at <= UINT32_MAX && cfi_inflow_is_lost(c, (uint32_t)a->at);
    return is_lost ? CF_NOMEM : CF_INVALID;
}

static cf_status take_fixed(struct cfi_child *c, const struct answer *a, cf_future *f)
{
    const void *data = bytes_of(c, a);
    if (!data)
        return why_not(c, a);
    bool fits = a->size == cfi_result_size(f);
    if (fits)
        memcpy(cfi_future_slot(f), data, a->size);
    done_with(c, a);
    return fits ? CF_OK : CF_INVALID;
}

static cf_status take_bytes(struct cfi_child *c, const struct answer *a, cf_future *f)
{
    cf_bytes *result = cfi_future_slot(f);
    if (a->size == 0)
        return CF_OK;
    const void *data = bytes_of(c, a);
    if (!data)
        return why_not(c, a);
    if (a->place == CFI_IN_BLOCK) {
        if (!cfi_inflow_lend(c, (uint32_t)a->at)) {
            done_with(c, a);
            return CF_NOMEM;
        }
        *result = (cf_bytes){ (void *)(uintptr_t)data, a->size };
        return CF_OK;
    }
    void *copy = malloc(a->size);
    if (!copy)
        return CF_NOMEM;
    memcpy(copy, data, a->size);
    *result = (cf_bytes){ copy, a->size };
    return CF_OK;
}

static bool was_asked_to_stop(struct cfi_child *c, cf_future *f, uint32_t number)
{
    return cfi_load_relaxed(&f->word) & CFI_STOP || cfi_load_relaxed(&c->asked) == number + 1 ||
           cfi_load_relaxed(&f->executor->stopping);
}

/* What the answer means for the future.  CF_INVALID without a text: it means nothing. */
static struct cfi_outcome read_answer(struct cfi_child *c, cf_future *f, uint32_t number)
{
    const struct answer a = copy_answer(cfi_slot_of(c, number));
    struct cfi_outcome out = { .future = f, .code = a.code, .pid = (int)cfi_load_relaxed(&c->pid) };
    if (a.status != CF_OK) {
        out.status = a.status == CF_NOMEM ? CF_NOMEM : CF_INVALID;
        out.text = text_of(c, &a);
    } else if (a.code != 0) {
        out.status = was_asked_to_stop(c, f, number) ? CF_STOPPED : CF_FAILED;
        out.text = a.has_text ? text_of(c, &a) : NULL;
    } else {
        out.status = f->kind == CFI_KIND_BYTES ? take_bytes(c, &a, f) : take_fixed(c, &a, f);
    }
    return out;
}

static void condemn(struct cfi_child *c)
{
    cfi_store_seq_cst(&c->condemned, true);
    cfi_wake_manager(c->pool);
}

static void read_result(struct cfi_child *c, cf_future *f, uint32_t number, struct cfi_outcome *out)
{
    uint64_t word = cfi_load_acquire(&f->word);
    if (cfi_state(word) == CFI_RUNNING || cfi_future_claim(f))
        *out = read_answer(c, f, number);
    else /* it was cancelled, and its worker lies */
        *out = (struct cfi_outcome){ .future = f, .status = CF_CANCELLED };
    if (out->status == CF_INVALID && !out->text)
        condemn(c);
}

/* The result at `seen`; false: there is none, or it is not to be believed. */
static bool read_one(struct cfi_child *c, struct cfi_outcome *out, unsigned *n)
{
    if (cfi_load_relaxed(&c->condemned) || !cfi_has_result(c))
        return false;
    uint32_t seen = cfi_load_relaxed(&c->seen);
    cf_future *f = cfi_load_acquire(&c->tasks_sent[seen % CFI_SLOTS]);
    do {
        if (f == CFI_MARK_BUSY) /* who cancels it looks again afterwards */
            return false;
    } while (!cfi_cas_acq_rel(&c->tasks_sent[seen % CFI_SLOTS], &f, NULL));
    if (!f) {
        condemn(c);
        return false;
    }
    if (f != CFI_MARK_SKIPPED)
        read_result(c, f, seen, &out[(*n)++]);
    cfi_store_release(&c->heap_read, c->heap_ends[seen % CFI_SLOTS]);
    cfi_store_release(&c->seen, seen + 1); /* pairs with the sender's load */
    return true;
}

unsigned cfi_read_results(struct cfi_child *c, struct cfi_outcome *out)
{
    unsigned n = 0;
    while (n < CFI_DRAIN_BATCH && read_one(c, out, &n))
        __builtin_prefetch(&cfi_slot_of(c, cfi_load_relaxed(&c->seen) + 2)->code);
    cfi_store_release(&c->arena->results_read, c->results_read);
    return n;
}

/* ---- settling ---- */

static const char *general_text(const struct cfi_outcome *o)
{
    if (o->status == CF_STOPPED)
        return "the task stopped as it was asked to";
    if (o->status == CF_FAILED)
        return "the task returned a non-zero code";
    if (o->status == CF_NOMEM)
        return "no memory, or no descriptor, for the result";
    return "the worker's answer makes no sense";
}

static void settle_failed(const struct cfi_outcome *o)
{
    const cf_error error = { .size = sizeof error,
                             .status = o->status == CF_INVALID && !o->text ? CF_BROKEN : o->status,
                             .code = o->status == CF_INVALID ? 0 : o->code,
                             .message = o->text ? o->text : general_text(o),
                             .worker_pid = o->pid,
                             .exit_code = -1 };
    cfi_future_fail(o->future, &error);
    free(o->text);
}

void cfi_settle_outcomes(struct cfi_process_pool *pool, const struct cfi_outcome *out, unsigned n)
{
    size_t finished = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct cfi_outcome *o = &out[i];
        if (o->status == CF_CANCELLED) { /* it was counted when it was cancelled */
            cfi_future_drop(o->future);
            continue;
        }
        cfi_release_argument(o->future);
        if (o->status == CF_OK)
            cfi_future_succeed(o->future);
        else
            settle_failed(o);
        finished++;
    }
    cfi_finished(pool, finished);
}

static void after_reading(struct cfi_child *c)
{
    struct cfi_process_pool *pool = c->pool;
    cfi_lock(&pool->lock);
    cfi_refill(c);
    cfi_feed_idle(pool);
    c->dry |=
        pool->started > 1 && c->sent != cfi_load_relaxed(&c->seen); /* then it may help others */
    (void)cfi_arm(c);
    cfi_unlock(&pool->lock);
    cfi_tell_room(pool);
}

/* Settles what is there; the role is held, and let go. */
static void drain_and_leave(struct cfi_child *c)
{
    struct cfi_outcome out[CFI_DRAIN_BATCH];
    uint32_t before = cfi_load_relaxed(&c->seen);
    unsigned n = cfi_read_results(c, out);
    bool moved = cfi_load_relaxed(&c->seen) != before; /* cancelled ones have no outcome */
    cfi_unlock(&c->role);
    cfi_fence_seq_cst(); /* pairs with who failed to get the role, having seen a result before */
    if (moved)
        after_reading(c);
    if (n)
        cfi_settle_outcomes(c->pool, out, n);
}

void cfi_drain(struct cfi_child *c)
{
    while (cfi_has_result(c) && !cfi_load_relaxed(&c->condemned)) {
        if (!cfi_try_lock(&c->role))
            return;
        drain_and_leave(c);
    }
}

/* ---- waiting ---- */

/* The child that the task was sent to; NULL: none. */
static struct cfi_child *child_of(struct cfi_process_pool *pool, cf_future *f, uint32_t *number)
{
    uint64_t place = cfi_load_acquire(&cfi_parcel_of(f)->place);
    *number = (uint32_t)place;
    return place ? cfi_child_at(pool, cfi_place_child(place)) : NULL;
}

/* Only under the lock is it sure that the slot is this task's. */
static void mark_running(cf_future *f, struct cfi_child *c, uint32_t number)
{
    if (cfi_load_relaxed(&cfi_slot_of(c, number)->state) != CFI_SLOT_RUNNING)
        return;
    cfi_lock(&c->pool->lock);
    if (cfi_load_relaxed(&cfi_parcel_of(f)->place) ==
            cfi_place(c->index, cfi_generation_of(c), number) &&
        cfi_runs(c, number))
        (void)cfi_future_claim(f);
    cfi_unlock(&c->pool->lock);
}

void cfi_look(void *self, cf_future *f)
{
    uint32_t number;
    struct cfi_child *c = child_of(self, f, &number);
    if (!c || cfi_executor_is_foreign(f->executor))
        return;
    if (cfi_load_relaxed(&cfi_slot_of(c, number)->state) == CFI_SLOT_DONE)
        cfi_drain(c);
    else if (cfi_future_is_pending(f))
        mark_running(f, c, number);
}

/* Has the task been sent there, and has nobody read its result?  With the role held. */
static bool is_there(struct cfi_child *c, cf_future *f, uint32_t number)
{
    return cfi_load_acquire(&cfi_parcel_of(f)->place) ==
               cfi_place(c->index, cfi_generation_of(c), number) &&
           (int32_t)(number - cfi_load_relaxed(&c->seen)) >= 0;
}

/* Asks the worker to wake this thread at the end of that task, or of an earlier one that somebody waits
 * for; false: there is something to do first. */
static bool ask_for(struct cfi_child *c, cf_future *f, uint32_t number)
{
    struct cfi_process_pool *pool = c->pool;
    cfi_lock(&pool->lock);
    c->attended = true;
    c->awaited = number;
    cfi_store_seq_cst(&c->arena->bell, CFI_RING_WAITER);
    bool wait = !cfi_arm(c) && is_there(c, f, number);
    cfi_unlock(&pool->lock);
    return wait && !cfi_future_is_done(f) && !cfi_load_seq_cst(&c->is_dead);
}

static void leave(struct cfi_child *c)
{
    drain_and_leave(c);
    cfi_lock(&c->pool->lock);
    (void)cfi_arm(c); /* a result that is there already is read below */
    cfi_unlock(&c->pool->lock);
    cfi_drain(c);
}

bool cfi_attend(void *self, cf_future *f, int64_t deadline, enum cfi_woken *ret)
{
    uint32_t number, waiter = CFI_RING_WAITER;
    if (cfi_executor_is_foreign(f->executor))
        return false;
    struct cfi_child *c = child_of(self, f, &number);
    if (c && !cfi_load_seq_cst(&c->is_dead) && cfi_try_lock(&c->role)) {
        bool there = is_there(c, f, number);
        *ret = CFI_WOKEN;
        if (there && ask_for(c, f, number))
            *ret = cfi_shared_sleep(&c->arena->bell, CFI_RING_WAITER, deadline);
        cfi_lock(&c->pool->lock);
        c->attended = false;
        (void)cfi_cas_seq_cst(&c->arena->bell, &waiter, CFI_QUIET);
        cfi_unlock(&c->pool->lock);
        leave(c);
        if (there)
            return true;
    }
    cfi_expect(self, f);
    return false;
}

void cfi_expect(void *self, cf_future *f)
{
    struct cfi_process_pool *pool = self;
    uint32_t number;
    struct cfi_child *c;
    bool ready = false;
    if (cfi_executor_is_foreign(f->executor))
        return;
    cfi_lock(&pool->lock);
    c = child_of(pool, f, &number);
    if (c && !c->eager) {
        c->eager = true;
        ready = cfi_arm(c);
    }
    cfi_unlock(&pool->lock);
    if (ready)
        cfi_drain(c);
}
