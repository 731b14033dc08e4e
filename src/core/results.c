/* SPDX-License-Identifier: MIT */
/* The lazy map: a window over a source of tasks.
 *
 * A chunk is one submitted task that does some items after the other: copies of their arguments,
 * their results, and how each ended.  The iterator keeps as many items submitted and not yet read
 * as its buffer says; when so many have been read that a chunk fits, it asks the source for one
 * more.  How many items a chunk gets, and the window where the user does not say it, follow from what
 * the chunks before took: a chunk runs for about 100 us, and each worker has a few of them.
 *
 * Who owns what.  A chunk has two owners, the iterator and its task; the task's share is given back
 * by the destroy function of its argument, a pointer to the chunk, whether the task has run or
 * never will.  While the task may run the chunk is the task's, and the iterator looks at nothing
 * but the future; when that is done the items are the iterator's, up to the one that it has read.
 * Only arguments of items that did not run are destroyed by the task's share, since a cancel may
 * still be at it when the iterator reads that the future is cancelled.  What both need for longer
 * (the task as the user described it, the measured size) is the plan, which all chunks share.
 *
 * Chunks are used again, so an endless source needs no more memory than its window.
 *
 * Where tasks run in another process a chunk is one item, and its future the item's own: nothing but
 * bytes can go there, and such an executor does its own batching.  How many items make 100 us then
 * follows from how fast they are read. */
#define _POSIX_C_SOURCE 200809L
#include "../base/clock.h"
#include "executor.h"
#include "future.h"
#include "inbox.h"
#include "map.h"
#include "wait.h"

#include <stdlib.h>
#include <string.h>

/* ---- the plan ---- */

struct plan {
    cfi_u32 references;
    cf_task task;
    size_t stride;     /* from one result to the next */
    size_t chunk_size; /* 0: chosen */
    cfi_size fit;      /* how many items take about 100 us, as far as is known */
};

static struct plan *plan_new(const cf_task *task, size_t chunk_size)
{
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return NULL;
    cfi_init(&plan->references, 1);
    plan->task = *task;
    plan->stride = task->bytes_fn ? sizeof(cf_bytes) : CFI_ALIGN(task->result_size);
    plan->chunk_size = task->run_limit_ns ? 1 : chunk_size; /* the limit is each item's own */
    cfi_init(&plan->fit, 1);
    return plan;
}

static void plan_unref(struct plan *plan)
{
    if (cfi_sub_acq_rel(&plan->references, 1) == 1)
        free(plan);
}

/* Learns from a chunk of `count` items.  Where the size of chunks follows, it grows step by step: a
 * chunk smaller than the others is no ground for more. */
static void learn(struct plan *plan, size_t count, int64_t took)
{
    size_t fit = cfi_map_fit(count, took), step = cfi_map_piece(count, took);
    if (plan->chunk_size || fit == step)
        cfi_store_relaxed(&plan->fit, fit);
    else if (count >= cfi_load_relaxed(&plan->fit))
        cfi_store_relaxed(&plan->fit, step);
}

/* ---- chunks ---- */

struct buffer {
    void *data;
    size_t room;
};

struct item {
    size_t arg, arg_size; /* where in the chunk's args */
    bool has_result;
    struct cfi_ending ending;
};

struct chunk {
    struct plan *plan;
    cfi_u32 references;
    cfi_bool dropped;             /* nobody wants the items that have not begun */
    struct cfi_inbox_entry entry; /* unordered */
    struct chunk *before, *after; /* among those that have been submitted and not read */
    cf_future *future;
    size_t first; /* index of its first item */
    size_t count, ran, read;
    size_t args_size;
    struct buffer items, args, results;
};

static bool reserve(struct buffer *b, size_t size)
{
    if (size < b->room)
        return true;
    size_t room = size < b->room * 2 ? b->room * 2 : size < 64 ? 64 : size;
    void *data = realloc(b->data, room);
    if (!data)
        return false;
    *b = (struct buffer){ data, room };
    return true;
}

static struct item *item_at(const struct chunk *c, size_t i)
{
    return (struct item *)c->items.data + i;
}

static void *arg_at(const struct chunk *c, size_t i)
{
    return (char *)c->args.data + item_at(c, i)->arg;
}

static void *result_at(const struct chunk *c, size_t i)
{
    return (char *)c->results.data + i * c->plan->stride;
}

static void destroy_result(const struct chunk *c, size_t i)
{
    if (c->plan->task.bytes_fn)
        cf_bytes_free(result_at(c, i));
    else if (c->plan->task.result_destroy)
        c->plan->task.result_destroy(result_at(c, i));
}

/* Drops what is left of items that have run. */
static void chunk_clear(struct chunk *c)
{
    for (size_t i = 0; i < c->ran; i++) {
        free(item_at(c, i)->ending.text);
        if (item_at(c, i)->has_result)
            destroy_result(c, i);
    }
    c->count = c->ran = c->read = c->args_size = 0;
}

static void chunk_unref(struct chunk *c)
{
    if (cfi_sub_acq_rel(&c->references, 1) != 1)
        return;
    chunk_clear(c);
    free(c->items.data);
    free(c->args.data);
    free(c->results.data);
    plan_unref(c->plan);
    free(c);
}

static struct chunk *chunk_new(struct plan *plan)
{
    struct chunk *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    (void)cfi_add_relaxed(&plan->references, 1);
    c->plan = plan;
    cfi_init(&c->references, 1);
    return c;
}

static bool add_item(struct chunk *c, const cf_task *task)
{
    if (task->arg_size > SIZE_MAX / 4 ||
        !reserve(&c->args, c->args_size + CFI_ALIGN(task->arg_size)) ||
        !reserve(&c->items, (c->count + 1) * sizeof(struct item)))
        return false;
    struct item *item = item_at(c, c->count);
    *item = (struct item){ .arg = c->args_size,
                           .arg_size = task->arg_size,
                           .ending.status = CF_CANCELLED }; /* until it has run */
    c->count++;
    if (task->arg_size)
        memcpy((char *)c->args.data + item->arg, task->arg, task->arg_size);
    c->args_size += CFI_ALIGN(task->arg_size);
    return true;
}

static bool reserve_results(struct chunk *c)
{
    size_t stride = c->plan->stride;
    return (!stride || c->count <= SIZE_MAX / 4 / stride) &&
           reserve(&c->results, c->count * stride);
}

static void destroy_args_not_run(struct chunk *c)
{
    for (size_t i = c->ran; c->plan->task.arg_destroy && i < c->count; i++)
        c->plan->task.arg_destroy(arg_at(c, i));
}

/* ---- the task's side of a chunk ---- */

static void task_lets_go(void *arg)
{
    struct chunk *c = *(struct chunk **)arg;
    destroy_args_not_run(c);
    chunk_unref(c);
}

static int call(const cf_task *task, const void *arg, size_t arg_size, void *result)
{
    if (task->fn)
        return task->fn(arg, result);
    *(cf_bytes *)result = (cf_bytes){ NULL, 0 };
    int code = task->bytes_fn(arg, arg_size, result);
    if (code != 0)
        cf_bytes_free(result);
    return code;
}

static void run_item(struct chunk *c, size_t i, struct cfi_frame *frame)
{
    const cf_task *task = &c->plan->task;
    struct item *item = item_at(c, i);
    int code = call(task, arg_at(c, i), item->arg_size, result_at(c, i));
    item->has_result = code == 0;
    if (code != 0)
        item->ending = cfi_map_failed(frame, code);
    else
        item->ending.status = CF_OK;
    if (frame->said)
        cfi_frame_forget(frame);
    if (task->arg_destroy)
        task->arg_destroy(arg_at(c, i));
}

/* Its first item has begun with the chunk: a stop is its own affair. */
static bool is_called_off(struct chunk *c)
{
    return cfi_load_relaxed(&c->dropped) || (c->ran && cf_stop_requested());
}

int cfi_map_run_chunk(const void *arg, void *unused)
{
    (void)unused;
    struct chunk *c = *(struct chunk *const *)arg;
    struct cfi_frame frame;
    cfi_map_push(&frame);
    int64_t start = cfi_now();
    while (c->ran < c->count && !is_called_off(c))
        run_item(c, c->ran++, &frame);
    if (c->ran)
        learn(c->plan, c->ran, cfi_now() - start);
    cfi_frame_pop(&frame);
    return 0;
}

/* ---- the iterator ---- */

struct cf_results {
    cf_executor *executor; /* a reference */
    struct plan *plan;     /* a reference */
    cf_next_fn *next;
    void *data;
    bool unordered;
    bool is_remote;     /* tasks run in another process: a chunk is an item's own task */
    bool ended;         /* the source is not asked any more */
    size_t buffer_size; /* 0: chosen */
    size_t workers;
    int64_t deadline;
    size_t asked;   /* items that the source has given */
    size_t unread;  /* of those that were submitted */
    size_t level;   /* of unread ones, at which the next chunk is due */
    size_t counted; /* remote: read since then */
    int64_t since;
    size_t lost; /* the last ones: they could not be submitted, and why not: */
    cf_error error;
    char *error_text;
    struct chunk *oldest, *newest, *current;
    struct chunk *spare; /* to be used again; linked by `after` */
    struct cfi_inbox inbox;
};

enum { CHUNKS_PER_WORKER = 4, MOST_CHOSEN = 1024, MOST_MEASURED = 64, MOST_KEPT = 1 << 20 };

static size_t times(size_t a, size_t b)
{
    return b > SIZE_MAX / a ? SIZE_MAX : a * b; /* a is not 0 */
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t chunks_per_worker(const struct cf_results *r, size_t size)
{
    return times(times(CHUNKS_PER_WORKER, r->workers), size);
}

/* No more items than these are submitted and not read, however small they are. */
static size_t most_unread(const struct cf_results *r)
{
    if (r->buffer_size)
        return r->buffer_size;
    return larger(MOST_CHOSEN, chunks_per_worker(r, larger(r->plan->chunk_size, 1)));
}

static size_t size_of_next(const struct cf_results *r)
{
    if (r->plan->chunk_size)
        return smaller(r->plan->chunk_size, most_unread(r));
    size_t most = most_unread(r) / times(2, r->workers);
    return larger(smaller(cfi_load_relaxed(&r->plan->fit), most), 1);
}

/* With so many items unread there is room for a chunk of this size. */
static size_t level_for(const struct cf_results *r, size_t size)
{
    size_t window = most_unread(r);
    if (!r->buffer_size)
        window =
            smaller(window, chunks_per_worker(r, larger(size, cfi_load_relaxed(&r->plan->fit))));
    return window - size;
}

static void keep_or_free(struct cf_results *r, struct chunk *c)
{
    bool is_ours = cfi_load_acquire(&c->references) == 1; /* pairs with the task's unref */
    if (r->ended || !is_ours || c->items.room + c->args.room + c->results.room > MOST_KEPT) {
        chunk_unref(c);
        return;
    }
    chunk_clear(c);
    c->after = r->spare;
    r->spare = c;
}

static struct chunk *empty_chunk(struct cf_results *r)
{
    struct chunk *c = r->spare;
    if (c)
        r->spare = c->after;
    else
        c = chunk_new(r->plan);
    return c;
}

static void append(struct cf_results *r, struct chunk *c)
{
    c->before = r->newest;
    c->after = NULL;
    *(r->newest ? &r->newest->after : &r->oldest) = c;
    r->newest = c;
    r->unread += c->count;
}

static void unlink_chunk(struct cf_results *r, struct chunk *c)
{
    *(c->before ? &c->before->after : &r->oldest) = c->after;
    *(c->after ? &c->after->before : &r->newest) = c->before;
}

/* ---- from the source to the executor ---- */

/* The last `count` items from the source cannot be submitted: they are reported after the others.
 */
static void lose(struct cf_results *r, size_t count, cf_status status)
{
    r->ended = true;
    r->lost += count;
    r->error = *cf_last_error();
    r->error.status = status;
    free(r->error_text);
    r->error_text = strdup(r->error.message);
    r->error.message = r->error_text ? r->error_text : cfi_plain_error(status)->message;
}

static void destroy_source(struct cf_results *r, const cf_task *task)
{
    if (r->plan->task.arg_destroy && task->arg)
        r->plan->task.arg_destroy((void *)(uintptr_t)task->arg);
}

static void lose_item(struct cf_results *r, const cf_task *task)
{
    bool is_null = task->arg_size && !task->arg;
    lose(r, 1,
         is_null ? cfi_fail(CF_INVALID, "cf_map_from: arg of item %zu is NULL, but its size is %zu",
                            r->asked - 1, task->arg_size)
                 : cfi_fail_fixed(CF_NOMEM, "cf_map_from: out of memory for an argument"));
    destroy_source(r, task);
}

static void accept(struct cf_results *r, struct chunk *c)
{
    append(r, c);
    if (r->unordered)
        cfi_inbox_watch(&r->inbox, &c->entry, c->future);
}

static void submit(struct cf_results *r, struct chunk *c)
{
    const cf_task task = { .size = sizeof task,
                           .fn = cfi_map_run_chunk,
                           .arg = &c,
                           .arg_size = sizeof c,
                           .arg_destroy = task_lets_go,
                           .run_limit_ns = r->plan->task.run_limit_ns,
                           .priority = r->plan->task.priority };
    (void)cfi_add_relaxed(&c->references, 1);
    cf_status s = reserve_results(c)
                      ? cf_submit_task(r->executor, &task, &c->future)
                      : cfi_fail_fixed(CF_NOMEM, "cf_map_from: out of memory for results");
    if (s != CF_OK) {
        lose(r, c->count, s);
        task_lets_go(&c);
        keep_or_free(r, c);
        return;
    }
    accept(r, c);
}

static bool ask(struct cf_results *r, cf_task *task)
{
    *task = r->plan->task;
    r->ended = !r->next(r->data, r->asked, task);
    r->asked += !r->ended;
    return !r->ended;
}

/* Items of a slow source are not held back until there are enough of them.  Looks at the clock at
 * 1, 2, 4, 8... items. */
static bool is_slow(const struct chunk *c, int64_t start)
{
    return start && !(c->count & (c->count - 1)) && cfi_now() - start > CFI_PIECE_NS;
}

/* Puts the source's next item into the chunk, which is made for the first one.  false: there is none,
 * or it is lost. */
static bool add_next(struct cf_results *r, struct chunk **c)
{
    cf_task task;
    if (!ask(r, &task))
        return false;
    if (!*c && (*c = empty_chunk(r)))
        (*c)->first = r->asked - 1;
    if (*c && (task.arg || !task.arg_size) && add_item(*c, &task))
        return true;
    lose_item(r, &task);
    return false;
}

/* Asks for the items of one chunk and submits it. */
static void add_chunk(struct cf_results *r, size_t size)
{
    struct chunk *c = NULL;
    int64_t start = !r->plan->chunk_size && size > 1 ? cfi_now() : 0;
    while ((!c || (c->count < size && !is_slow(c, start))) && add_next(r, &c))
        ;
    if (c && c->count)
        submit(r, c);
    else if (c)
        keep_or_free(r, c);
}

/* Submits the source's next item as a task of its own. */
static bool submit_next(struct cf_results *r)
{
    cf_task item, task = r->plan->task;
    if (!ask(r, &item))
        return false;
    task.size = sizeof task;
    task.arg = item.arg;
    task.arg_size = item.arg_size;
    struct chunk *c = empty_chunk(r);
    cf_status s = c ? cf_submit_task(r->executor, &task, &c->future)
                    : cfi_fail_fixed(CF_NOMEM, "cf_map_from: out of memory for an item");
    if (s == CF_OK) {
        c->first = r->asked - 1;
        c->count = 1;
        accept(r, c);
        return true;
    }
    lose(r, 1, s);
    destroy_source(r, &item);
    if (c)
        keep_or_free(r, c);
    return false;
}

static void add_tasks(struct cf_results *r, size_t count)
{
    while (count && submit_next(r))
        count--;
}

static void fill(struct cf_results *r)
{
    while (!r->ended && r->unread <= r->level && !cfi_deadline_passed(r->deadline)) {
        size_t size = size_of_next(r);
        r->level = level_for(r, size);
        if (r->unread > r->level)
            return;
        if (r->is_remote)
            add_tasks(r, size);
        else
            add_chunk(r, size);
    }
}

/* ---- from the executor to the reader ---- */

static cf_status timed_out(const struct cf_results *r)
{
    return cfi_fail(CF_TIMEOUT, "the map's time has passed, %zu results have not been read",
                    r->unread);
}

/* Inside a task: runs one of the chunks. */
static bool help_one(struct cf_results *r)
{
    for (struct chunk *c = r->oldest; c; c = c->after) {
        if (!cfi_future_is_done(c->future) && cfi_wait_help(c->future))
            return true;
    }
    return false;
}

/* Inside a task: the wait graph wants to know all that may end the wait. */
static cf_status await_in_graph(struct cf_results *r)
{
    size_t count = 0;
    for (const struct chunk *c = r->oldest; c; c = c->after)
        count++;
    cf_future **futures = malloc(count * sizeof *futures);
    if (!futures)
        return cfi_fail_fixed(CF_NOMEM, "cf_results_next: out of memory");
    count = 0;
    for (const struct chunk *c = r->oldest; c; c = c->after)
        futures[count++] = c->future;
    const struct cfi_wait wait = { futures, count, true, r->deadline != CFI_NEVER };
    cf_status s = cfi_inbox_await(&r->inbox, &wait, r->deadline);
    free(futures);
    return s;
}

static cf_status await_any(struct cf_results *r)
{
    static const struct cfi_wait outside;
    if (cfi_deadline_passed(r->deadline))
        return CF_TIMEOUT;
    if (r->oldest->future->generation != cfi_generation())
        return cfi_fail_fixed(CF_SHUTDOWN, "the map belongs to the process before a fork");
    if (!cfi_is_waited_for())
        return cfi_inbox_await(&r->inbox, &outside, r->deadline);
    return help_one(r) ? CF_OK : await_in_graph(r);
}

/* Until there may be a chunk to read. */
static cf_status await_chunk(struct cf_results *r)
{
    cf_status s =
        r->unordered ? await_any(r) : cfi_await(r->oldest->future, cfi_time_left(r->deadline));
    return s == CF_TIMEOUT ? timed_out(r) : s;
}

/* The chunk to read from; NULL: it is not there yet. */
static struct chunk *ready_chunk(struct cf_results *r)
{
    if (r->current)
        return r->current;
    if (r->unordered) {
        struct cfi_inbox_entry *e = cfi_inbox_take(&r->inbox);
        if (e)
            r->current = (struct chunk *)(void *)((char *)e - offsetof(struct chunk, entry));
    } else if (cfi_future_is_done(r->oldest->future)) {
        r->current = r->oldest;
    }
    return r->current;
}

static void retire(struct cf_results *r, struct chunk *c)
{
    unlink_chunk(r, c);
    c->future = cf_future_unref(c->future);
    r->current = NULL;
    keep_or_free(r, c);
}

static cf_status fail_item(const cf_error *error, size_t index)
{
    cf_error copy = *error;
    copy.index = index;
    return cfi_fail_with(&copy);
}

static cf_status give(struct chunk *c, size_t i, void *result, size_t result_size)
{
    const cf_error *error = cf_future_exception(c->future);
    if (error) /* of the whole chunk: it never ran */
        return fail_item(error, c->first + i);
    if (!c->ran) /* it was the item's own task */
        return result_size ? cf_future_take(c->future, 0, result, result_size) : CF_OK;
    struct item *item = item_at(c, i);
    if (item->ending.status != CF_OK)
        return cfi_map_fail(&item->ending, c->first + i);
    if (result_size) { /* else the result goes with the chunk */
        memcpy(result, result_at(c, i), result_size);
        item->has_result = false;
    }
    return CF_OK;
}

/* Each worker does as many items as have been read for each of them. */
static void measure(struct cf_results *r)
{
    size_t count = smaller(cfi_load_relaxed(&r->plan->fit), MOST_MEASURED);
    if (++r->counted < count * r->workers)
        return;
    int64_t now = cfi_now();
    learn(r->plan, count, now - r->since);
    r->since = now;
    r->counted = 0;
}

static cf_status nothing_unread(struct cf_results *r, size_t *ret_index)
{
    if (!r->lost)
        return r->ended ? CF_END : timed_out(r);
    size_t index = r->asked - r->lost--;
    if (ret_index)
        *ret_index = index;
    return fail_item(&r->error, index);
}

static cf_status check_result(const struct cf_results *r, const void *result, size_t result_size)
{
    if (!r)
        return cfi_fail(CF_INVALID, "cf_results_next: results is NULL");
    size_t size = r->plan->task.bytes_fn ? sizeof(cf_bytes) : r->plan->task.result_size;
    if (result ? result_size != size : result_size != 0)
        return cfi_fail(CF_INVALID,
                        "cf_results_next: result_size is %zu, but a result has %zu bytes",
                        result_size, size);
    return CF_OK;
}

cf_status cf_results_next(cf_results *results, void *result, size_t result_size, size_t *ret_index)
{
    cf_status s = check_result(results, result, result_size);
    if (s != CF_OK)
        return s;
    fill(results);
    if (!results->oldest)
        return nothing_unread(results, ret_index);
    struct chunk *c;
    while (!(c = ready_chunk(results))) {
        s = await_chunk(results);
        if (s != CF_OK)
            return s;
    }
    size_t i = c->read++;
    results->unread--;
    if (ret_index)
        *ret_index = c->first + i;
    s = give(c, i, result, result_size);
    if (results->is_remote)
        measure(results);
    if (c->read == c->count)
        retire(results, c);
    return s;
}

/* ---- beginning and end ---- */

static cf_status check_task(const cf_task *task)
{
    if (!task->fn == !task->bytes_fn)
        return cfi_fail(CF_INVALID, "cf_map_from: %s",
                        task->fn ? "both fn and bytes_fn are set" : "fn is NULL");
    if (task->bytes_fn && (task->result_size || task->result_destroy))
        return cfi_fail(CF_INVALID, "cf_map_from: result_size and result_destroy go with fn only");
    if (task->result_size > SIZE_MAX / 4)
        return cfi_fail(CF_INVALID, "cf_map_from: result_size %zu is too large", task->result_size);
    if (task->run_limit_ns < 0)
        return cfi_fail(CF_INVALID, "cf_map_from: run_limit_ns is negative");
    return CF_OK;
}

static cf_status results_new(cf_executor *ex, const cf_task *task, const cf_map_options *options,
                             cf_results **ret)
{
    struct cf_results *r = calloc(1, sizeof *r);
    struct plan *plan = r ? plan_new(task, options->chunk_size) : NULL;
    if (!plan) {
        free(r);
        return cfi_fail_fixed(CF_NOMEM, "cf_map_from: out of memory");
    }
    cfi_executor_ref(ex);
    r->executor = ex;
    r->plan = plan;
    r->unordered = options->unordered;
    r->is_remote = ex->pool && ex->pool->remote;
    r->since = cfi_now();
    r->buffer_size = options->buffer_size;
    r->workers = cfi_map_workers(ex);
    r->deadline = CFI_NEVER;
    r->level = SIZE_MAX;
    cfi_inbox_init(&r->inbox);
    *ret = r;
    return CF_OK;
}

/* The first fill is the call's own work, whatever the time. */
static cf_status begin(struct cf_results *r, cf_next_fn *next, void *data, int64_t deadline)
{
    r->next = next;
    r->data = data;
    fill(r);
    r->deadline = deadline;
    return r->lost && !r->oldest ? cfi_fail_with(&r->error) : CF_OK;
}

cf_status cf_map_from(cf_executor *executor, const cf_task *task, cf_next_fn *next, void *data,
                      const cf_map_options *options, int64_t timeout_ns, cf_results **ret)
{
    if (!executor || !task || !next || !ret)
        return cfi_fail(CF_INVALID, "cf_map_from: %s is NULL",
                        !executor ? "executor"
                        : !task   ? "task"
                        : !next   ? "next"
                                  : "ret");
    int64_t deadline = cfi_deadline(timeout_ns);
    cf_task each;
    cf_map_options how;
    struct cf_results *r = NULL;
    cf_status s = cfi_options_copy(&each, sizeof each, sizeof each, task, "cf_task");
    if (s == CF_OK)
        s = cfi_options_copy(&how, sizeof how, sizeof how, options, "cf_map_options");
    if (s == CF_OK)
        s = check_task(&each);
    if (s == CF_OK)
        s = results_new(executor, &each, &how, &r);
    if (s == CF_OK)
        s = begin(r, next, data, deadline);
    if (s == CF_OK)
        *ret = r;
    else
        cf_results_free(r);
    return s;
}

/* From here on nobody tells the inbox, and nothing more begins. */
static void call_off(struct cf_results *r)
{
    for (struct chunk *c = r->oldest; c; c = c->after) {
        if (r->unordered)
            cfi_future_unwatch(c->future, &c->entry.watcher);
        cfi_store_relaxed(&c->dropped, true);
        (void)cf_future_cancel(c->future);
    }
}

static void unref_chunks(struct chunk *first)
{
    for (struct chunk *c = first, *next; c; c = next) {
        next = c->after;
        cf_future_unref(c->future);
        chunk_unref(c);
    }
}

cf_results *cf_results_free(cf_results *results)
{
    if (!results)
        return NULL;
    call_off(results);
    unref_chunks(results->oldest);
    unref_chunks(results->spare);
    plan_unref(results->plan);
    cfi_executor_unref(results->executor);
    free(results->error_text);
    free(results);
    return NULL;
}
