/* SPDX-License-Identifier: MIT */
/* Maps over arrays, in worker processes: cuts them into pieces (wire/piece.h), keeps a window of these
 * submitted, and puts what comes back into the caller's array.
 *
 * A piece begins with one element and grows until it takes about 400 us in the worker, or holds
 * PIECE_BYTES of argument or result; and it is no more than a fair part of what is left, so that the
 * workers end together.  Each worker has two: one to do while the other travels.
 *
 * All is done by the caller's thread, and nothing in a worker refers to the caller's arrays: a map
 * whose time is up just leaves its pieces behind.  The first failure ends the submitting, calls off
 * the pieces that have not begun, and asks the others to stop after their current element, without
 * force: what runs may be anything.  They are waited for, since an element with a lower index may
 * fail, too, or succeed. */
#define _POSIX_C_SOURCE 200809L
#include "../core/map.h"

#include "../core/wait.h"
#include "../wire/piece.h"
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECES_PER_WORKER = 2,
    PIECE_BYTES = 1 << 20,
    INLINE_CONTEXT = 4096,
    JOURNEY = 4, /* pieces are so many times as large as those for threads: each is a journey */
    PATIENCE_NS = 2 * JOURNEY * CFI_PIECE_NS
};

struct piece {
    size_t begin, count;
    bool is_slow; /* not to be waited for alone any more */
};

struct map {
    struct cfi_process_pool *pool;
    const struct cfi_map_work *work;
    int64_t deadline;
    size_t workers;
    struct cfi_block *context; /* of a range, if it is too large for each piece; a reference */
    size_t fit;                /* how many elements the next piece should have, by their time */
    size_t next;               /* the first element that was not submitted */
    size_t done;
    cf_error failure; /* CF_OK: none yet */
    char text[CFI_PIECE_TEXT];
    size_t window, submitted;
    struct piece *pieces; /* of each future */
    cf_future *futures[]; /* NULL: a free place */
};

/* ---- failures ---- */

/* Without force: CF_FOREVER is how long they have. */
static void call_off(struct map *m)
{
    for (size_t i = 0; i < m->window; i++) {
        if (m->futures[i])
            (void)cf_future_stop(m->futures[i], CF_FOREVER);
    }
}

/* Those that only followed from another one's failure never hide it. */
static int weight(cf_status status)
{
    return status == CF_OK ? 0 : status == CF_CANCELLED ? 1 : status == CF_STOPPED ? 2 : 3;
}

static void record(struct map *m, const cf_error *error, size_t index)
{
    int difference = weight(error->status) - weight(m->failure.status);
    if (difference < 0 || (difference == 0 && index >= m->failure.index))
        return;
    bool is_first = m->failure.status == CF_OK;
    snprintf(m->text, sizeof m->text, "%s", error->message);
    m->failure = *error;
    m->failure.message = m->text;
    m->failure.index = index;
    if (is_first)
        call_off(m);
}

static void record_end(struct map *m, const struct cfi_piece_end *end, size_t index)
{
    const cf_error error = { .size = sizeof error,
                             .status = end->status,
                             .code = end->code,
                             .message = end->text,
                             .worker_pid = end->pid,
                             .exit_code = -1 };
    record(m, end->text[0] ? &error : cfi_plain_error(end->status), index);
}

/* ---- to the workers ---- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* So many elements of fixed size, at most, keep within PIECE_BYTES. */
static size_t most_by_size(const struct cfi_map_work *work)
{
    size_t arg = work->kind == CFI_MAP_RANGE ? 0 : work->arg_size, result = work->result_size;
    size_t size = arg > result ? arg : result;
    return size > PIECE_BYTES ? 1 : size ? PIECE_BYTES / size : SIZE_MAX;
}

/* And so many of varying size: those from `begin` on, at most `count`. */
static size_t most_by_data(const cf_bytes *args, size_t begin, size_t count)
{
    size_t size = 0, i = 0;
    while (i < count && args[begin + i].size <= PIECE_BYTES - size)
        size += args[begin + i++].size;
    return i ? i : 1;
}

static size_t size_of_next(const struct map *m)
{
    const struct cfi_map_work *w = m->work;
    size_t left = w->count - m->next, fair = left / (PIECES_PER_WORKER * m->workers);
    size_t least = smaller(m->fit / CFI_PIECE_GROWTH + 1, left); /* less is not worth a journey */
    size_t count = smaller(smaller(m->fit, most_by_size(w)), fair > least ? fair : least);
    return w->kind == CFI_MAP_BYTES ? most_by_data(w->args, m->next, count) : count;
}

static cf_status submit(struct map *m, const struct piece *piece, cf_future **ret)
{
    void *arg;
    size_t size = cfi_piece_size(m->work, piece->begin, piece->count, m->context);
    cf_future *f =
        cfi_process_piece_new(m->pool, (cfi_function *)m->work->call.fn, size, m->context, &arg);
    if (!f)
        return cf_last_error()->status;
    cfi_piece_write(m->work, piece->begin, piece->count, m->context, arg);
    cf_status s = cfi_process_submit(m->pool, f);
    if (s == CF_OK)
        *ret = f;
    return s;
}

static bool is_more(const struct map *m)
{
    return m->next < m->work->count && m->failure.status == CF_OK &&
           !cfi_deadline_passed(m->deadline);
}

/* Submits pieces to all free places.  A full pool has time: something of ours is done soon. */
static void fill(struct map *m)
{
    for (size_t i = 0; i < m->window && m->submitted < m->window && is_more(m); i++) {
        if (m->futures[i])
            continue;
        m->pieces[i] = (struct piece){ .begin = m->next, .count = size_of_next(m) };
        cf_status s = submit(m, &m->pieces[i], &m->futures[i]);
        if (s == CF_FULL && m->submitted)
            return;
        if (s != CF_OK) {
            record(m, cf_last_error(), m->next);
            return;
        }
        m->next += m->pieces[i].count;
        m->submitted++;
    }
}

/* ---- and back ---- */

/* While the size of pieces grows step by step, a late answer of a small one is no ground for less. */
static void learn(struct map *m, size_t count, int64_t took)
{
    took /= JOURNEY;
    size_t fit = cfi_map_fit(count, took), step = cfi_map_piece(count, took);
    if (fit == step || step > m->fit)
        m->fit = step;
}

static void damaged(struct map *m, size_t index)
{
    cf_error error = *cfi_plain_error(CF_BROKEN);
    error.message = "the worker process gave an answer that is none";
    record(m, &error, index);
}

static void read_answer(struct map *m, const struct piece *piece, cf_bytes *answer)
{
    struct cfi_piece_end end;
    if (!cfi_piece_read(m->work, piece->begin, piece->count, answer, &end)) {
        damaged(m, piece->begin);
        return;
    }
    m->done += end.done;
    if (end.done)
        learn(m, end.done, end.took);
    if (end.status == CF_OK && end.done < piece->count)
        end.status = CF_CANCELLED; /* it stopped between two elements */
    if (end.status != CF_OK)
        record_end(m, &end, piece->begin + end.done);
}

/* Of a worker that died: how far it had come, by its own word. */
static size_t progress_of(const struct piece *piece, const cf_error *error)
{
    return error->index < piece->count ? error->index : piece->count - 1;
}

static void collect(struct map *m, size_t place)
{
    cf_future *f = m->futures[place];
    const struct piece *piece = &m->pieces[place];
    cf_bytes answer = { NULL, 0 };
    if (cf_future_take(f, 0, &answer, sizeof answer) == CF_OK)
        read_answer(m, piece, &answer);
    else
        record(m, cf_last_error(), piece->begin + progress_of(piece, cf_last_error()));
    cf_bytes_free(&answer);
    m->futures[place] = cf_future_unref(f);
    m->submitted--;
}

static void collect_done(struct map *m)
{
    for (size_t i = 0; i < m->window; i++) {
        if (m->futures[i] && cf_future_done(m->futures[i]))
            collect(m, i);
    }
}

/* The place of the piece that should be done first; m->window: all have turned out to be slow. */
static size_t next_due(const struct map *m)
{
    size_t due = m->window;
    for (size_t i = 0; i < m->window; i++) {
        if (m->futures[i] && !m->pieces[i].is_slow &&
            (due == m->window || m->pieces[i].begin < m->pieces[due].begin))
            due = i;
    }
    return due;
}

/* Until some piece may be done.  A wait for one takes its result right out of the channel, a wait for any
 * takes the way over the pool's manager; so that is for pieces that are not done soon. */
static cf_status wait_for_some(struct map *m)
{
    int64_t left = cfi_time_left(m->deadline);
    size_t i = next_due(m);
    if (i == m->window)
        return cf_wait(m->futures, m->window, CF_FIRST_COMPLETED, left, NULL);
    cf_status s = cfi_await(m->futures[i], left < PATIENCE_NS ? left : PATIENCE_NS);
    if (s != CF_TIMEOUT || left < PATIENCE_NS)
        return s;
    m->pieces[i].is_slow = true;
    return CF_OK;
}

static cf_status run(struct map *m)
{
    cf_status s = CF_OK;
    fill(m);
    while (s == CF_OK && m->submitted) {
        s = wait_for_some(m);
        if (s == CF_OK) {
            collect_done(m);
            fill(m);
        }
    }
    return s;
}

/* ---- beginning and end ---- */

static bool share_context(struct map *m)
{
    const struct cfi_map_work *w = m->work;
    if (w->kind != CFI_MAP_RANGE || w->arg_size <= INLINE_CONTEXT)
        return true;
    m->context = cfi_process_share(m->pool, w->args, w->arg_size);
    return m->context;
}

static void map_free(struct map *m)
{
    for (size_t i = 0; i < m->window; i++)
        cf_future_unref(m->futures[i]);
    cfi_process_unshare(m->pool, m->context);
    free(m->pieces);
    free(m);
}

static struct map *map_new(struct cfi_process_pool *pool, const struct cfi_map_work *work,
                           int64_t timeout_ns)
{
    size_t workers = smaller(cfi_map_workers(&pool->executor), work->count);
    size_t window = PIECES_PER_WORKER * workers;
    struct map *m = calloc(1, sizeof *m + window * sizeof *m->futures);
    if (!m)
        return NULL;
    m->pool = pool;
    m->work = work;
    m->deadline = cfi_deadline(timeout_ns);
    m->workers = workers;
    m->window = window;
    m->fit = 1;
    m->pieces = calloc(window, sizeof *m->pieces);
    if (m->pieces && share_context(m))
        return m;
    map_free(m);
    return NULL;
}

/* After a time-out an element that was stopped is no failure: it obeyed. */
static cf_status outcome(struct map *m, cf_status waited)
{
    if (waited != CF_OK && waited != CF_TIMEOUT)
        return waited;
    cf_status s = m->failure.status;
    if (s != CF_OK && (waited == CF_OK || weight(s) == weight(CF_FAILED)))
        return cfi_fail_with(&m->failure);
    return m->done == m->work->count ? CF_OK : cfi_map_timed_out(m->work);
}

cf_status cfi_process_map(void *self, const struct cfi_map_work *work, int64_t timeout_ns)
{
    struct map *m = map_new(self, work, timeout_ns);
    if (!m)
        return cfi_fail(CF_NOMEM, "%s: out of memory for %zu elements", work->name, work->count);
    cf_status waited = run(m);
    call_off(m);
    cf_status s = outcome(m, waited);
    map_free(m);
    return s;
}
