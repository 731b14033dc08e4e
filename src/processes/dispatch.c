/* SPDX-License-Identifier: MIT */
/* Tasks on their way to the workers.  Everything here is under pool->lock.
 *
 * A new task goes to an idle worker, else it brings a new one to life, else it goes into the channel of
 * a worker whose window has room, else into the queue.  The window of a worker is as many tasks as take
 * about 500 us by what the last ones took, so tiny tasks go in large batches and long ones nearly
 * alone.  A window may be too large without harm: when a worker has nothing to do and the queue is
 * empty it gets half of what another has not begun, by one compare-and-swap a slot, and a
 * task that was not begun when its worker died goes to the queue's front. */
#define _GNU_SOURCE
#include "pool.h"

#include <string.h>

enum { SLACK_NS = 20000 }; /* a few wake-ups */

/* ---- lists ---- */

void cfi_list_append(struct cfi_list *list, cf_future *f)
{
    cfi_parcel_of(f)->next = NULL;
    if (list->last)
        cfi_parcel_of(list->last)->next = f;
    else
        list->first = f;
    list->last = f;
}

void cfi_list_prepend(struct cfi_list *list, cf_future *f)
{
    cfi_parcel_of(f)->next = list->first;
    list->first = f;
    if (!list->last)
        list->last = f;
}

cf_future *cfi_list_take(struct cfi_list *list)
{
    cf_future *f = list->first;
    if (f) {
        list->first = cfi_parcel_of(f)->next;
        if (!list->first)
            list->last = NULL;
    }
    return f;
}

/* ---- the queue ---- */

static void set_queued(struct cfi_process_pool *pool, cf_future *f, bool queued)
{
    struct cfi_parcel *p = cfi_parcel_of(f);
    if (p->queued != queued)
        pool->queued += queued ? (size_t)1 : (size_t)-1;
    p->queued = queued;
}

/* From the first priority on a worker has one task at a time: what waits in its channel could not be
 * overtaken. */
static void become_strict(struct cfi_process_pool *pool)
{
    pool->is_strict = true;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c))
            cfi_take_back_all(c);
    }
}

void cfi_enqueue(struct cfi_process_pool *pool, cf_future *f)
{
    set_queued(pool, f, true);
    int64_t priority = cfi_future_extra(f)->task.priority;
    if (priority && !pool->is_strict)
        become_strict(pool);
    /* Without memory for the heap it is a task like any other. */
    if (!priority || cfi_heap_put(&pool->heap, f, priority) != CF_OK)
        cfi_list_append(&pool->pending, f);
}

/* It was cancelled: it stays in its list until it is come past, but counts no more. */
void cfi_unqueue(struct cfi_process_pool *pool, cf_future *f)
{
    set_queued(pool, f, false);
}

void cfi_put_back(struct cfi_process_pool *pool, cf_future *f)
{
    set_queued(pool, f, true);
    cfi_list_prepend(&pool->front, f);
}

static cf_future *take_any(struct cfi_process_pool *pool)
{
    cf_future *f = NULL;
    if (cfi_load_relaxed(&pool->heap.urgent))
        f = cfi_heap_take(&pool->heap, true);
    if (!f)
        f = cfi_list_take(&pool->front);
    if (!f)
        f = cfi_list_take(&pool->pending);
    if (!f && cfi_load_relaxed(&pool->heap.background))
        f = cfi_heap_take(&pool->heap, false);
    return f;
}

static bool needs_block(cf_future *f)
{
    return !cfi_parcel_of(f)->block && cfi_arg_size(f) > CFI_HEAP_LARGEST;
}

/* The next task that can be sent at once; NULL: there is none. */
static cf_future *take(struct cfi_process_pool *pool)
{
    cf_future *f;
    while ((f = take_any(pool))) {
        if (cfi_future_is_done(f)) {
            cfi_future_drop(f); /* it was cancelled */
        } else if (needs_block(f)) {
            cfi_list_append(&pool->to_load, f); /* still counts as queued */
            cfi_wake_manager(pool);
        } else {
            set_queued(pool, f, false);
            return f;
        }
    }
    return NULL;
}

cf_future *cfi_take_queued(struct cfi_process_pool *pool)
{
    cf_future *f = take_any(pool);
    if (!f)
        f = cfi_list_take(&pool->to_load);
    if (f)
        set_queued(pool, f, false);
    return f;
}

static bool remove_from(struct cfi_list *list, cf_future *f)
{
    cf_future **at = &list->first, *before = NULL;
    while (*at && *at != f) {
        before = *at;
        at = &cfi_parcel_of(*at)->next;
    }
    if (!*at)
        return false;
    *at = cfi_parcel_of(f)->next;
    if (list->last == f)
        list->last = before;
    return true;
}

/* Only for a submit that fails: there are few. */
bool cfi_remove_queued(struct cfi_process_pool *pool, cf_future *f)
{
    bool found = remove_from(&pool->front, f) || remove_from(&pool->pending, f) ||
                 remove_from(&pool->to_load, f) || cfi_heap_remove(&pool->heap, f);
    if (found)
        set_queued(pool, f, false);
    return found;
}

/* ---- a worker's channel ---- */

static uint32_t outstanding(struct cfi_child *c)
{
    return c->sent - cfi_load_acquire(&c->seen); /* pairs with the reader's store */
}

void cfi_set_idle(struct cfi_child *c, bool idle)
{
    uint64_t bit = UINT64_C(1) << (c->index % 64), *word = &c->pool->idle[c->index / 64];
    *word = idle ? *word | bit : *word & ~bit;
    if (idle)
        c->pool->recent = c->index;
}

static bool is_idle(struct cfi_process_pool *pool, unsigned index)
{
    return pool->idle[index / 64] >> (index % 64) & 1;
}

/* The one that was idle last, as it may still be awake; else any. */
static struct cfi_child *idle_child(struct cfi_process_pool *pool)
{
    if (is_idle(pool, pool->recent))
        return cfi_child_at(pool, pool->recent);
    for (unsigned i = 0; i <= (pool->options.max_workers - 1) / 64; i++) {
        if (pool->idle[i])
            return cfi_child_at(pool, i * 64 + (unsigned)__builtin_ctzll(pool->idle[i]));
    }
    return NULL;
}

static bool takes_tasks(const struct cfi_child *c)
{
    return (cfi_state_of(c) == CFI_CHILD_ASKED || cfi_state_of(c) == CFI_CHILD_READY) && !c->closed;
}

/* How many tasks it may have: follows what the last ones took, by the worker's word, so within bounds. */
static unsigned window_of(struct cfi_child *c)
{
    uint64_t cost = cfi_load_relaxed(&c->arena->cost) / 16;
    uint64_t fit = cost ? CFI_TARGET_NS / cost : 2;
    if (cfi_load_relaxed(&c->arena->cost) && !cost)
        fit = CFI_SLOTS;
    if (fit > 4 * (uint64_t)c->window) /* step by step */
        fit = 4 * (uint64_t)c->window;
    if (fit > CFI_SLOTS - 1)
        fit = CFI_SLOTS - 1;
    return fit < 2 ? 2 : (unsigned)fit;
}

static bool has_room(struct cfi_child *c)
{
    unsigned limit = c->pool->options.max_tasks_per_child;
    if (!takes_tasks(c) || (limit && c->tasks >= limit))
        return false;
    return outstanding(c) < (c->pool->is_strict ? 1 : c->window);
}

/* ---- sending ---- */

void cfi_tell_image(struct cfi_child *c, unsigned image)
{
    if (c->images >> image & 1)
        return;
    c->arena->images[image] = *cfi_image_name(image);
    c->images |= UINT64_C(1) << image;
}

/* Blocks that this worker has not been sent yet go through its socket; false: that is full. */
static bool tell_block(struct cfi_child *c, struct cfi_block *b)
{
    if (!b || b->told[c->index] == cfi_generation_of(c))
        return true;
    const struct cfi_message m = { .type = CFI_BLOCK, .number = b->number, .size = b->size };
    if (cfi_message_send(c->socket, &m, &b->fd, 1) != 0)
        return false;
    b->told[c->index] = cfi_generation_of(c);
    return true;
}

/* Puts the argument where the worker finds it; false: there is no room. */
static bool put_argument(struct cfi_child *c, struct cfi_slot *slot, cf_future *f,
                         uint64_t *ret_end)
{
    const struct cfi_parcel *p = cfi_parcel_of(f);
    const cf_task *task = &cfi_future_extra(f)->task;
    size_t size = task->arg_size;
    *ret_end = c->heap_at;
    slot->arg_size = size;
    if (p->block) {
        slot->arg_place = CFI_IN_BLOCK;
        slot->arg_at = p->block->number;
        return tell_block(c, p->block);
    }
    if (size <= CFI_INLINE_ARG) {
        slot->arg_place = CFI_INLINE;
        memcpy(slot->arg, task->arg, size);
        return true;
    }
    uint64_t at = cfi_heap_fit(c->heap_at, size);
    if (at + size - cfi_load_acquire(&c->heap_read) > CFI_HEAP) /* pairs with the reader's store */
        return false;
    slot->arg_place = CFI_IN_HEAP;
    slot->arg_at = at;
    memcpy(c->arena->arg_heap + at % CFI_HEAP, task->arg, size);
    *ret_end = at + size;
    return true;
}

/* Results that do not fit into their slots lie in a heap, which has not room for very many. */
static bool has_room_for_result(struct cfi_child *c, cf_future *f)
{
    uint64_t size = cfi_result_size(f);
    return size <= CFI_INLINE_RESULT || size > CFI_HEAP_LARGEST ||
           outstanding(c) * size <= CFI_HEAP / 2;
}

static bool fill_slot(struct cfi_child *c, struct cfi_slot *slot, cf_future *f)
{
    const struct cfi_parcel *p = cfi_parcel_of(f);
    uint64_t end;
    if (!has_room_for_result(c, f) || !tell_block(c, p->shared) || !put_argument(c, slot, f, &end))
        return false;
    cfi_tell_image(c, p->function.image);
    slot->call = p->call;
    slot->image = p->function.image;
    slot->offset = p->function.offset;
    slot->result_size = p->call == CFI_CALL_FN ? cfi_result_size(f) : 0;
    slot->shared = p->shared ? p->shared->number : 0;
    slot->is_timed = cfi_future_extra(f)->task.run_limit_ns > 0;
    c->heap_ends[c->sent % CFI_SLOTS] = c->heap_at = end;
    c->limits[c->sent % CFI_SLOTS] = cfi_future_extra(f)->task.run_limit_ns;
    c->has_timed |= slot->is_timed;
    return true;
}

static bool is_wanted(cf_future *f)
{
    return cfi_load_relaxed(&f->word) & (CFI_WAITED | CFI_WATCHED);
}

/* The reader believes a slot only below `sent`, and only with a future in tasks_sent: both first. */
static bool send_task(struct cfi_child *c, cf_future *f)
{
    struct cfi_slot *slot = cfi_slot_of(c, c->sent);
    if (outstanding(c) >= CFI_SLOTS - 1 || !fill_slot(c, slot, f))
        return false;
    uint32_t number = c->sent;
    cfi_set_idle(c, false);
    c->tasks++;
    cfi_store_relaxed(&slot->state, CFI_EMPTY); /* the lap before has left DONE there */
    cfi_store_relaxed(&c->tasks_sent[number % CFI_SLOTS], f);
    cfi_store_release(&cfi_parcel_of(f)->place, cfi_place(c->index, cfi_generation_of(c), number));
    cfi_store_release(&c->sent, number + 1); /* pairs with the reader's load */
    cfi_store_seq_cst(&slot->state, CFI_SENT);
    c->eager |= is_wanted(f);
    c->dry |= !c->pool->awake; /* else the manager comes past by itself */
    if (c->dry && !c->eager && !c->attended)
        cfi_store_relaxed(&c->arena->ring_at, number);
    if (slot->is_timed)
        cfi_wake_manager(c->pool);
    return true;
}

void cfi_wake_worker(struct cfi_child *c)
{
    uint32_t asleep = CFI_ASLEEP;
    if (cfi_load_seq_cst(&c->arena->worker_bell) == CFI_ASLEEP &&
        cfi_cas_seq_cst(&c->arena->worker_bell, &asleep, CFI_AWAKE))
        cfi_shared_wake(&c->arena->worker_bell, 1);
}

/* ---- where a task goes ---- */

static bool send_new(struct cfi_child *c, cf_future *f)
{
    if (!c || !has_room(c) || !send_task(c, f))
        return false;
    cfi_wake_worker(c);
    if (c->eager || c->dry)
        cfi_arm_or_wake(c);
    return true;
}

/* One worker's window is filled before the next one's: so this looks at few of them. */
static struct cfi_child *child_with_room(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, pool->cursor);
        if (c && has_room(c))
            return c;
        pool->cursor = (pool->cursor + 1) % pool->options.max_workers;
    }
    return NULL;
}

bool cfi_wants_child(struct cfi_process_pool *pool)
{
    return pool->queued && pool->started < pool->options.max_workers && !pool->is_unfit &&
           !idle_child(pool) &&
           (!pool->start_again_at || cfi_deadline_passed(pool->start_again_at));
}

bool cfi_place_task(struct cfi_process_pool *pool, cf_future *f)
{
    if (pool->queued || pool->front.first || needs_block(f))
        return false;
    if (send_new(idle_child(pool), f))
        return true;
    if (pool->started < pool->options.max_workers && !pool->start_again_at)
        return false; /* a new worker will take it from the queue */
    return send_new(child_with_room(pool), f);
}

/* ---- refilling ---- */

/* Could another worker begin what would wait in this one's channel? */
static bool is_another_free(struct cfi_process_pool *pool)
{
    return idle_child(pool) || (pool->started < pool->options.max_workers && !pool->start_again_at);
}

/* No more than its share of what is left: so that all end together. */
static unsigned share_of(struct cfi_child *c)
{
    if (is_another_free(c->pool)) /* one at a time, as long as they begin at once */
        return outstanding(c) == 0;
    size_t fair = c->pool->queued / (2 * (size_t)c->pool->options.max_workers) + 1;
    unsigned have = outstanding(c), room = c->window > have ? c->window - have : 0;
    return fair < room ? (unsigned)fair : room;
}

static unsigned send_queued(struct cfi_child *c)
{
    unsigned sent = 0;
    for (unsigned share = share_of(c); sent < share && has_room(c); sent++) {
        cf_future *f = take(c->pool);
        if (!f)
            break;
        if (!send_task(c, f)) {
            cfi_put_back(c->pool, f);
            if (outstanding(c) == 0) { /* then nobody comes past by himself */
                if (!c->pool->try_again)
                    cfi_wake_manager(c->pool);
                c->pool->try_again = true;
            }
            break;
        }
    }
    return sent;
}

/* Takes the last task back that it has not begun; NULL: there is none. */
static cf_future *take_back(struct cfi_child *c)
{
    uint32_t last = c->sent - 1, sent = CFI_SENT, skip = CFI_SKIP;
    struct cfi_slot *slot = cfi_slot_of(c, last);
    if (outstanding(c) == 0 || (!cfi_cas_seq_cst(&slot->state, &sent, CFI_EMPTY) &&
                                !cfi_cas_seq_cst(&slot->state, &skip, CFI_EMPTY)))
        return NULL;
    cf_future *f = cfi_exchange_acq_rel(&c->tasks_sent[last % CFI_SLOTS], NULL);
    if (!f) /* it lied: the reader has had it */
        return NULL;
    bool skipped = f == CFI_MARK_SKIPPED;
    cfi_store_release(&c->sent, last);
    c->heap_at = c->heap_ends[(last - 1) % CFI_SLOTS];
    c->tasks--;
    if (skipped)
        return take_back(c);
    cfi_store_release(&cfi_parcel_of(f)->place, 0);
    return f;
}

/* At most so many; they go to the queue's front. */
static void take_back_some(struct cfi_child *c, uint32_t count)
{
    cf_future *f;
    for (; count > 0 && (f = take_back(c)); count--) {
        if (cfi_future_is_done(f))
            cfi_future_drop(f); /* it was cancelled */
        else
            cfi_put_back(c->pool, f);
    }
    cfi_nudge(c);
    cfi_arm_or_wake(c); /* the last task has another number now */
}

void cfi_take_back_all(struct cfi_child *c)
{
    take_back_some(c, UINT32_MAX);
    if (outstanding(c) == 0)
        cfi_set_idle(c, has_room(c));
}

void cfi_take_back_later(struct cfi_child *c)
{
    if (outstanding(c) > 1)
        take_back_some(c, outstanding(c) - 1);
}

/* The worker that has most to do, if it has anything behind what it does now. */
static struct cfi_child *most_loaded(struct cfi_process_pool *pool)
{
    struct cfi_child *most = NULL;
    uint32_t count = 1;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c) && outstanding(c) > count) {
            most = c;
            count = outstanding(c);
        }
    }
    return most;
}

/* Would it be through with what it has before another could begin? */
static bool is_nearly_done(struct cfi_child *c)
{
    uint64_t cost = cfi_load_relaxed(&c->arena->cost) / 16;
    return !c->is_stuck && cost < SLACK_NS && outstanding(c) * cost < SLACK_NS;
}

/* Half of what another has not begun. */
static void take_from_another(struct cfi_child *c)
{
    struct cfi_child *victim = most_loaded(c->pool);
    if (victim && victim != c && !is_nearly_done(victim))
        take_back_some(victim, outstanding(victim) / 2);
}

/* The task that was asked to stop has ended by itself: the worker can be used again. */
static void end_stop(struct cfi_child *c)
{
    c->stop_signal = 0;
    if (c->signalled) { /* that may still arrive, and would meet another task */
        cfi_tell_quit(c);
        return;
    }
    c->closed = false;
    cfi_store_seq_cst(&c->arena->stop_at, 0); /* `asked` stays: its result may not be read yet */
}

void cfi_refill(struct cfi_child *c)
{
    if (cfi_has_channel(c) && c->stop_signal && !cfi_runs(c, c->stop_number))
        end_stop(c);
    if (takes_tasks(c)) {
        c->window = window_of(c);
        if (!c->pool->queued && outstanding(c) == 0)
            take_from_another(c);
        if (c->pool->queued && outstanding(c) <= c->window / 2 && send_queued(c))
            cfi_wake_worker(c);
    }
    if (cfi_has_channel(c) && outstanding(c) == 0) {
        c->eager = c->dry = c->has_timed = false;
        cfi_set_idle(c, has_room(c));
        if (takes_tasks(c) && !has_room(c)) /* it has had all the tasks of its life */
            cfi_tell_quit(c);
    }
}

void cfi_refill_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers && pool->queued; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c && takes_tasks(c)) {
            cfi_refill(c);
            cfi_arm_or_wake(c);
        }
    }
}

void cfi_eager_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c)) {
            c->eager = true;
            cfi_arm_or_wake(c);
        }
    }
}

void cfi_feed_idle(struct cfi_process_pool *pool)
{
    struct cfi_child *c;
    while (pool->queued && (c = idle_child(pool))) {
        cfi_refill(c);
        cfi_arm_or_wake(c);
        if (is_idle(pool, c->index)) /* what is queued cannot be sent yet */
            return;
    }
}

/* What a bounded pool counts: queued, or behind the first in a channel. */
size_t cfi_count_pending(struct cfi_process_pool *pool)
{
    size_t count = pool->queued;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        uint32_t have = cfi_has_channel(c) ? outstanding(c) : 0;
        for (uint32_t n = 1; n < have; n++)
            count += cfi_load_relaxed(&cfi_slot_of(c, cfi_load_relaxed(&c->seen) + n)->state) ==
                     CFI_SENT;
    }
    return count;
}

/* ---- bells ---- */

/* The first task whose end the worker shall tell; false: none. */
static bool ring_number(struct cfi_child *c, uint32_t *ret)
{
    uint32_t seen = cfi_load_relaxed(&c->seen), have = c->sent - seen;
    if (have == 0)
        return false;
    /* At half there is time to send more; and a ring costs as much as many short tasks.  If they turn out
     * to be long the manager asks again, as long as it is awake. */
    bool wanted = c->eager || c->pool->queued;
    bool patient = !c->eager || (c->pool->awake && !c->is_stuck);
    *ret = seen + (!wanted ? have - 1 : patient ? (have - 1) / 2 : 0);
    return wanted || c->dry;
}

/* The same with whoever sleeps on the bell. */
static bool first_number(struct cfi_child *c, uint32_t *ret)
{
    uint32_t seen = cfi_load_relaxed(&c->seen);
    bool any = ring_number(c, ret);
    if (!c->attended || (any && *ret - seen <= c->awaited - seen))
        return any;
    *ret = c->awaited;
    return true;
}

bool cfi_arm(struct cfi_child *c)
{
    uint32_t number, quiet = CFI_QUIET;
    if (!cfi_has_channel(c) || !first_number(c, &number))
        return false;
    cfi_store_seq_cst(&c->arena->ring_at, number);
    (void)cfi_cas_seq_cst(&c->arena->bell, &quiet, CFI_RING_MANAGER);
    bool ready = cfi_load_seq_cst(&cfi_slot_of(c, number)->state) == CFI_SLOT_DONE;
    if (ready)
        cfi_nudge(c);
    return ready;
}

void cfi_arm_or_wake(struct cfi_child *c)
{
    if (cfi_arm(c))
        cfi_wake_manager(c->pool);
}

void cfi_help_stuck(struct cfi_child *c)
{
    struct cfi_child *idle = idle_child(c->pool);
    if (idle && outstanding(c) > 1) {
        cfi_refill(idle);
        cfi_arm_or_wake(idle);
    }
}

void cfi_nudge(struct cfi_child *c)
{
    uint32_t waiter = CFI_RING_WAITER;
    if (cfi_has_channel(c) && cfi_cas_seq_cst(&c->arena->bell, &waiter, CFI_QUIET))
        cfi_shared_wake(&c->arena->bell, 1);
}
