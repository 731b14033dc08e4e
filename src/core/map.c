/* SPDX-License-Identifier: MIT */
/* Maps over arrays.
 *
 * One job, and for each worker a runner: a task that takes piece after piece of the array until the
 * end.  A piece begins with one element and grows until it takes about 100 us, so tiny elements
 * cost no more than a loop; and it is never more than a fair part of what is left, so the runners
 * end together.
 *
 * Who owns what.  The job belongs to the caller and the runners' tasks together: each task's
 * argument is a pointer to it and one reference, which the argument's destroy function gives back,
 * whether the task has run or never will.  Without a time limit the elements are the caller's own
 * arrays, so the call returns only when every runner has ended or is cancelled; only the job may be
 * touched after that.  With a limit the arrays are copies and part of the job, and the call leaves
 * when the time is up.
 *
 * The first failure sets `stop`, at which each runner ends after its current element, and the
 * caller asks the tasks to stop.  Of several failures the lowest index counts, but one that just
 * obeyed (CF_STOPPED) never hides the one that it stopped for. */
#define _POSIX_C_SOURCE 200809L
#include "map.h"

#include "../base/cpus.h"
#include "../base/lock.h"
#include "executor.h"
#include "future.h"
#include "wait.h"

#include <stdlib.h>
#include <string.h>

/* ---- shared with the lazy map ---- */

size_t cfi_map_workers(const cf_executor *ex)
{
    size_t workers = ex->pool ? ex->pool->worker_count(ex->self) : cfi_cpu_count();
    return workers ? workers : 1;
}

size_t cfi_map_fit(size_t size, int64_t took)
{
    double fit = took > 0 ? (double)size * CFI_PIECE_NS / (double)took : (double)SIZE_MAX;
    return fit < 1 ? 1 : fit < (double)(SIZE_MAX / 2) ? (size_t)fit : SIZE_MAX;
}

size_t cfi_map_piece(size_t size, int64_t took)
{
    size_t fit = cfi_map_fit(size, took);
    return fit / CFI_PIECE_GROWTH >= size ? size * CFI_PIECE_GROWTH : fit;
}

struct cfi_ending cfi_map_failed(struct cfi_frame *frame, int code)
{
    struct cfi_ending ending = { .status = cf_stop_requested() ? CF_STOPPED : CF_FAILED,
                                 .code = code,
                                 .text = frame->message,
                                 .text_lost = frame->message_lost };
    frame->message = NULL;
    cfi_frame_forget(frame);
    return ending;
}

const char *cfi_map_text(const struct cfi_ending *ending)
{
    if (ending->text)
        return ending->text;
    if (ending->text_lost)
        return "the task failed, and there was no memory for what it said";
    if (ending->status == CF_FAILED)
        return "the task returned a non-zero code";
    return cfi_plain_error(ending->status)->message;
}

cf_status cfi_map_fail(const struct cfi_ending *ending, size_t index)
{
    const cf_error error = { .size = sizeof error,
                             .status = ending->status,
                             .code = ending->code,
                             .message = cfi_map_text(ending),
                             .index = index,
                             .exit_code = -1 };
    return cfi_fail_with(&error);
}

/* ---- the job ---- */

struct job {
    _Alignas(CFI_CACHE_LINE) cfi_size next; /* the first element that nobody has taken */
    /* Read at every element, so not on the line of `next`: */
    _Alignas(CFI_CACHE_LINE) cfi_bool stop;
    struct cfi_map_work work;
    size_t workers;
    /* Touched once by each runner: */
    _Alignas(CFI_CACHE_LINE) cfi_u32 references;
    cfi_size done; /* elements that succeeded in runners that have ended */
    struct cfi_lock lock;
    struct cfi_ending failure; /* guarded by the lock; CF_OK: none yet */
    size_t failed;             /* its element */
    /* With a time limit: */
    bool has_copies;
    void *own_args, *own_results;
    void *users_results;
    /* The caller's: one for each worker, the last submitted first, before it NULLs. */
    size_t submitted;
    cf_future *runners[];
};

/* What depends on the kind of work. */
struct way {
    /* Does the elements begin..end-1; returns how far it came. */
    size_t (*run)(struct job *job, struct cfi_frame *frame, size_t begin, size_t end);
    void *(*copy_args)(const struct cfi_map_work *work); /* malloc'ed; NULL: out of memory */
};
static const struct way ways[CFI_MAP_RANGE + 1];

static void free_own_results(struct job *job);

static void job_free(struct job *job)
{
    free_own_results(job);
    free(job->own_args);
    free(job->failure.text);
    free(job);
}

static void job_unref(struct job *job)
{
    if (cfi_sub_acq_rel(&job->references, 1) == 1)
        job_free(job);
}

static void let_go(void *arg)
{
    job_unref(*(struct job **)arg);
}

static bool copy_arrays(struct job *job)
{
    struct cfi_map_work *w = &job->work;
    if (w->arg_size) {
        w->args = job->own_args = ways[w->kind].copy_args(w);
        if (!w->args)
            return false;
    }
    job->users_results = w->results;
    if (w->result_size) {
        w->results = job->own_results = calloc(w->count, w->result_size);
        if (!w->results)
            return false;
    }
    return true;
}

static struct job *job_new(size_t workers, const struct cfi_map_work *work, bool copies)
{
    size_t size = sizeof(struct job) + workers * sizeof(cf_future *);
    size = (size + CFI_CACHE_LINE - 1) / CFI_CACHE_LINE * CFI_CACHE_LINE;
    struct job *job = aligned_alloc(CFI_CACHE_LINE, size);
    if (!job)
        return NULL;
    memset(job, 0, size);
    cfi_init(&job->references, 1);
    job->work = *work;
    job->workers = workers;
    job->has_copies = copies;
    if (copies && !copy_arrays(job)) {
        job_free(job);
        return NULL;
    }
    return job;
}

/* ---- running ---- */

static bool counts_more(const struct cfi_ending *a, size_t i, const struct cfi_ending *b, size_t j)
{
    return b->status == CF_OK || (a->status == b->status ? i < j : a->status == CF_FAILED);
}

static CFI_COLD void record(struct job *job, struct cfi_frame *frame, size_t i, int code)
{
    struct cfi_ending loser = cfi_map_failed(frame, code);
    cfi_lock(&job->lock);
    if (counts_more(&loser, i, &job->failure, job->failed)) {
        struct cfi_ending winner = loser;
        loser = job->failure;
        job->failure = winner;
        job->failed = i;
    }
    cfi_unlock(&job->lock);
    free(loser.text);
    cfi_store_relaxed(&job->stop, true);
}

/* After an element's (or a range's) function has returned: did it succeed? */
static inline bool succeeded(struct job *job, struct cfi_frame *frame, size_t i, int code)
{
    if (CFI_UNLIKELY(code != 0)) {
        record(job, frame, i, code);
        return false;
    }
    if (CFI_UNLIKELY(frame->said))
        cfi_frame_forget(frame);
    return true;
}

/* Addresses are numbers here, since with size 0 there may be no array to point into. */
static size_t run_elements(struct job *job, struct cfi_frame *frame, size_t begin, size_t end)
{
    const struct cfi_map_work *w = &job->work;
    uintptr_t arg = (uintptr_t)w->args + begin * w->arg_size;
    uintptr_t result = (uintptr_t)w->results + begin * w->result_size;
    for (size_t i = begin; i < end; i++) {
        int code = w->call.fn((const void *)arg, (void *)result);
        if (CFI_UNLIKELY((code != 0 || frame->said) && !succeeded(job, frame, i, code)))
            return i;
        if (CFI_UNLIKELY(cfi_load_relaxed(&job->stop)))
            return i + 1;
        arg += w->arg_size;
        result += w->result_size;
    }
    return end;
}

static size_t run_bytes(struct job *job, struct cfi_frame *frame, size_t begin, size_t end)
{
    const cf_bytes *args = job->work.args;
    cf_bytes *results = job->work.results;
    for (size_t i = begin; i < end; i++) {
        if (CFI_UNLIKELY(cfi_load_relaxed(&job->stop)))
            return i;
        int code = job->work.call.bytes_fn(args[i].data, args[i].size, &results[i]);
        if (!succeeded(job, frame, i, code)) {
            cf_bytes_free(&results[i]);
            return i;
        }
    }
    return end;
}

static size_t run_range(struct job *job, struct cfi_frame *frame, size_t begin, size_t end)
{
    const struct cfi_map_work *w = &job->work;
    void *results = w->results ? (char *)w->results + begin * w->result_size : NULL;
    int code = w->call.range_fn(w->args, begin, end, results);
    return succeeded(job, frame, begin, code) ? end : begin;
}

static bool is_work_left(struct job *job)
{
    return cfi_load_relaxed(&job->next) < job->work.count && !cfi_load_relaxed(&job->stop);
}

/* Takes the next piece, if any is left, and returns its size. */
static size_t take(struct job *job, size_t wanted, size_t *ret_begin)
{
    size_t next = cfi_load_relaxed(&job->next), size;
    do {
        if (next >= job->work.count || cfi_load_relaxed(&job->stop))
            return 0;
        size_t fair = (job->work.count - next) / (2 * job->workers);
        size = wanted < fair ? wanted : fair ? fair : 1;
    } while (!cfi_cas_acquire(&job->next, &next, next + size)); /* orders nothing: a counter */
    *ret_begin = next;
    return size;
}

/* A runner's task.  Fails if an element did, so that a wait can tell. */
int cfi_map_run_job(const void *arg, void *unused)
{
    (void)unused;
    struct job *job = *(struct job *const *)arg;
    struct cfi_frame frame;
    cfi_map_push(&frame);
    size_t size = 1, done = 0, begin, end;
    int64_t start = cfi_now();
    while ((size = take(job, size, &begin))) {
        end = ways[job->work.kind].run(job, &frame, begin, begin + size);
        done += end - begin;
        if (end < begin + size)
            break;
        int64_t now = cfi_now();
        size = cfi_map_piece(size, now - start);
        start = now;
    }
    cfi_frame_pop(&frame);
    (void)cfi_add_relaxed(&job->done, done); /* the task's end publishes it */
    return cfi_load_relaxed(&job->stop);
}

/* ---- the caller ---- */

/* Fewer runners than there might be are enough: one does all the work. */
static cf_status submit_runners(cf_executor *ex, struct job *job)
{
    const cf_task task = { .size = sizeof task,
                           .fn = cfi_map_run_job,
                           .arg = &job,
                           .arg_size = sizeof job,
                           .arg_destroy = let_go };
    while (job->submitted < job->workers && is_work_left(job)) {
        (void)cfi_add_relaxed(&job->references, 1);
        cf_status s = cf_submit_task(ex, &task, &job->runners[job->workers - 1 - job->submitted]);
        if (s != CF_OK) {
            job_unref(job);
            return job->submitted ? CF_OK : s;
        }
        job->submitted++;
    }
    return CF_OK;
}

/* Cancels the runners that have not begun; after a failure asks the others to stop. */
static void call_off(struct job *job)
{
    bool stop = cfi_load_relaxed(&job->stop);
    for (size_t i = 0; i < job->workers; i++) {
        if (stop)
            (void)cf_future_stop(job->runners[i], 0);
        else
            (void)cf_future_cancel(job->runners[i]);
    }
}

/* Waits without regard to what should end a wait: while a runner uses the caller's arrays there is
 * no way back. */
static void wait_out(cf_future *f)
{
    while (cfi_future_announce_wait(f)) {
        uint64_t word = cfi_load_acquire(&f->word); /* pairs with the swap that settles */
        if (cfi_is_final(word))
            return;
        (void)cfi_sleep(cfi_low_half(&f->word), (uint32_t)word, CFI_NEVER);
    }
}

/* The first runner that ends has found nothing more to take, or failed: no other needs to begin. */
static cf_status wait_for_runners(struct job *job, int64_t deadline)
{
    static const cf_return_when steps[] = { CF_FIRST_COMPLETED, CF_FIRST_EXCEPTION,
                                            CF_ALL_COMPLETED };
    cf_status s = CF_OK;
    for (size_t i = 0; s == CF_OK && i < sizeof steps / sizeof *steps; i++) {
        s = cf_wait(job->runners, job->workers, steps[i], cfi_time_left(deadline), NULL);
        if (s != CF_OK)
            cfi_store_relaxed(&job->stop, true);
        call_off(job);
    }
    for (size_t i = 0; s != CF_OK && !job->has_copies && i < job->workers; i++) {
        if (job->runners[i])
            wait_out(job->runners[i]);
    }
    return s;
}

static void free_own_results(struct job *job)
{
    bool is_bytes = job->own_results && job->work.kind == CFI_MAP_BYTES;
    for (size_t i = 0; is_bytes && i < job->work.count; i++)
        cf_bytes_free((cf_bytes *)job->own_results + i);
    free(job->own_results);
}

/* All runners have ended: what they have made is the caller's. */
static void hand_over_results(struct job *job)
{
    if (job->own_results)
        memcpy(job->users_results, job->own_results, job->work.count * job->work.result_size);
    free(job->own_results);
    job->own_results = NULL;
}

/* After a time-out an element that was stopped is no failure: it obeyed. */
static cf_status report_failure(struct job *job, cf_status waited)
{
    cfi_lock(&job->lock); /* after a time-out runners may still be failing */
    cf_status s = job->failure.status;
    if (waited == CF_TIMEOUT && s == CF_STOPPED)
        s = CF_OK;
    if (s != CF_OK)
        (void)cfi_map_fail(&job->failure, job->failed);
    cfi_unlock(&job->lock);
    return s;
}

/* Some elements have not been done, and none has failed: the runners were cancelled or broken. */
static cf_status report_runners(const struct job *job)
{
    for (size_t i = job->workers; i-- > 0;) {
        if (cf_future_exception(job->runners[i]))
            return cfi_fail_as_future(job->runners[i]);
    }
    return cfi_fail_with(cfi_plain_error(CF_CANCELLED));
}

cf_status cfi_map_timed_out(const struct cfi_map_work *work)
{
    return cfi_fail(CF_TIMEOUT, "%s: %zu elements were not done in time", work->name, work->count);
}

static cf_status outcome(struct job *job, cf_status waited)
{
    if (waited != CF_OK && waited != CF_TIMEOUT)
        return waited;
    if (waited == CF_OK)
        hand_over_results(job);
    cf_status s = report_failure(job, waited);
    if (s != CF_OK)
        return s;
    if (waited == CF_TIMEOUT)
        return cfi_map_timed_out(&job->work);
    return cfi_load_relaxed(&job->done) == job->work.count ? CF_OK : report_runners(job);
}

static cf_status map(cf_executor *ex, const struct cfi_map_work *work, int64_t timeout_ns)
{
    if (work->count == 0)
        return CF_OK;
    if (timeout_ns <= 0)
        return cfi_map_timed_out(work);
    if (ex->pool && ex->pool->remote)
        return ex->pool->remote->map(ex->self, work, timeout_ns);
    int64_t deadline = cfi_deadline(timeout_ns);
    size_t workers = cfi_map_workers(ex);
    struct job *job =
        job_new(workers < work->count ? workers : work->count, work, deadline != CFI_NEVER);
    if (!job)
        return cfi_fail(CF_NOMEM, "%s: out of memory for %zu elements", work->name, work->count);
    cf_status s = submit_runners(ex, job);
    if (s == CF_OK)
        s = outcome(job, wait_for_runners(job, deadline));
    cf_future_unref_all(job->runners, job->workers);
    job_unref(job);
    return s;
}

/* ---- copies of arguments ---- */

static void *copy_of(const void *data, size_t size)
{
    void *copy = malloc(size);
    return copy ? memcpy(copy, data, size) : NULL;
}

static void *copy_elements(const struct cfi_map_work *work)
{
    return copy_of(work->args, work->count * work->arg_size);
}

static void *copy_context(const struct cfi_map_work *work)
{
    return copy_of(work->args, work->arg_size);
}

/* The array and what its entries point to in one block.  0: more than memory can hold. */
static size_t size_with_data(const cf_bytes *args, size_t count)
{
    size_t size = count * sizeof *args;
    for (size_t i = 0; i < count; i++) {
        if (args[i].size > SIZE_MAX / 2 - size)
            return 0;
        size += CFI_ALIGN(args[i].size);
    }
    return size;
}

static void *copy_with_data(const struct cfi_map_work *work)
{
    const cf_bytes *args = work->args;
    size_t size = size_with_data(args, work->count);
    cf_bytes *copy = size ? malloc(size) : NULL;
    if (!copy)
        return NULL;
    char *at = (char *)(copy + work->count);
    for (size_t i = 0; i < work->count; i++) {
        copy[i] = (cf_bytes){ at, args[i].size };
        if (args[i].size)
            memcpy(at, args[i].data, args[i].size);
        at += CFI_ALIGN(args[i].size);
    }
    return copy;
}

static const struct way ways[] = { [CFI_MAP_FN] = { run_elements, copy_elements },
                                   [CFI_MAP_BYTES] = { run_bytes, copy_with_data },
                                   [CFI_MAP_RANGE] = { run_range, copy_context } };

/* ---- the calls ---- */

static cf_status check_null(const cf_executor *ex, const struct cfi_map_work *work)
{
    const char *null = !ex                                                  ? "executor"
                       : !work->call.fn                                     ? "fn"
                       : work->count && work->arg_size && !work->args       ? work->args_name
                       : work->count && work->result_size && !work->results ? "results"
                                                                            : NULL;
    return null ? cfi_fail(CF_INVALID, "%s: %s is NULL", work->name, null) : CF_OK;
}

static cf_status check_sizes(const struct cfi_map_work *work)
{
    bool is_array = work->kind != CFI_MAP_RANGE;
    if (!work->result_size && work->results)
        return cfi_fail(CF_INVALID, "%s: results is not NULL, but result_size is 0", work->name);
    if (work->result_size && work->count > SIZE_MAX / work->result_size)
        return cfi_fail(CF_INVALID, "%s: %zu results of %zu bytes are too many", work->name,
                        work->count, work->result_size);
    if (is_array && work->arg_size && work->count > SIZE_MAX / work->arg_size)
        return cfi_fail(CF_INVALID, "%s: %zu args of %zu bytes are too many", work->name,
                        work->count, work->arg_size);
    return CF_OK;
}

static cf_status check(const cf_executor *ex, const struct cfi_map_work *work)
{
    cf_status s = check_null(ex, work);
    return s == CF_OK ? check_sizes(work) : s;
}

cf_status cf_map(cf_executor *executor, cf_fn *fn, const void *args, size_t count, size_t arg_size,
                 void *results, size_t result_size, int64_t timeout_ns)
{
    const struct cfi_map_work work = { .kind = CFI_MAP_FN,
                                       .name = "cf_map",
                                       .args_name = "args",
                                       .call.fn = fn,
                                       .args = args,
                                       .results = results,
                                       .count = count,
                                       .arg_size = arg_size,
                                       .result_size = result_size };
    cf_status s = check(executor, &work);
    return s == CF_OK ? map(executor, &work, timeout_ns) : s;
}

static cf_status check_data(const cf_bytes *args, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (args[i].size && !args[i].data)
            return cfi_fail(CF_INVALID, "cf_map_bytes: args[%zu].data is NULL, but its size is %zu",
                            i, args[i].size);
    }
    return CF_OK;
}

cf_status cf_map_bytes(cf_executor *executor, cf_bytes_fn *fn, const cf_bytes *args, size_t count,
                       cf_bytes *results, int64_t timeout_ns)
{
    const struct cfi_map_work work = { .kind = CFI_MAP_BYTES,
                                       .name = "cf_map_bytes",
                                       .args_name = "args",
                                       .call.bytes_fn = fn,
                                       .args = args,
                                       .results = results,
                                       .count = count,
                                       .arg_size = sizeof *args,
                                       .result_size = sizeof *results };
    cf_status s = check(executor, &work);
    if (s == CF_OK)
        s = check_data(args, count);
    if (s != CF_OK)
        return s;
    for (size_t i = 0; i < count; i++)
        results[i] = (cf_bytes){ NULL, 0 };
    return map(executor, &work, timeout_ns);
}

cf_status cf_map_range(cf_executor *executor, cf_range_fn *fn, const void *context,
                       size_t context_size, size_t count, void *results, size_t result_size,
                       int64_t timeout_ns)
{
    const struct cfi_map_work work = { .kind = CFI_MAP_RANGE,
                                       .name = "cf_map_range",
                                       .args_name = "context",
                                       .call.range_fn = fn,
                                       .args = context,
                                       .results = results,
                                       .count = count,
                                       .arg_size = context_size,
                                       .result_size = result_size };
    cf_status s = check(executor, &work);
    return s == CF_OK ? map(executor, &work, timeout_ns) : s;
}
