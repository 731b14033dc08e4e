/* SPDX-License-Identifier: MIT */
/* A piece on its way: to a worker as a head and the elements' arguments, back as their results and a
 * tail.
 *
 *     head | arguments, one after the other                             cf_map
 *     head | their sizes | each argument, beginning at a multiple of 16  cf_map_bytes
 *     head | the context, unless it is shared                           cf_map_range
 *
 *     results, one after the other | text | tail                        cf_map, cf_map_range
 *     results, one after the other | their sizes | text | tail          cf_map_bytes
 *
 * The results come first so that they are made where they travel, and so that the one result of a
 * large element is handed on as it is.  The text is what the element said that failed. */
#include "piece.h"

#include "../base/clock.h"
#include "../core/future.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct head {
    _Alignas(16) uint64_t begin;
    uint64_t count;
    uint64_t arg_size; /* of one element; cf_map_range: of the context that follows */
    uint64_t result_size;
    uint32_t kind;
};

struct tail {
    uint64_t done;
    int64_t took;
    int32_t code, pid;
    uint16_t text_size;
    uint8_t status;
};

/* ---- the worker's side ---- */

struct doing {
    struct head head;
    const unsigned char *args;
    size_t args_size;
    const void *context;
    cf_bytes *answer; /* its size is what there is room for; */
    size_t used;      /* so much is made */
    uint64_t *sizes;  /* cf_map_bytes: of the results, malloc'ed */
    size_t done;
    cfi_i64 *progress; /* the same for the parent; NULL: it need not know */
    struct cfi_frame frame;
    struct cfi_ending ending; /* CF_OK: none failed */
};

static bool fits(uint64_t count, uint64_t size, uint64_t room)
{
    return !size || count <= room / size;
}

static bool is_good(const struct doing *d)
{
    const struct head *h = &d->head;
    if (!h->count || h->begin > SIZE_MAX - h->count ||
        !fits(h->count, h->result_size, SIZE_MAX / 4))
        return false;
    switch (h->kind) {
    case CFI_MAP_FN:
        return fits(h->count, h->arg_size, d->args_size);
    case CFI_MAP_BYTES:
        return fits(h->count, sizeof(uint64_t), d->args_size);
    default:
        return h->kind == CFI_MAP_RANGE && h->arg_size <= d->args_size;
    }
}

static void lack_memory(struct doing *d)
{
    free(d->ending.text);
    d->ending = (struct cfi_ending){ .status = CF_NOMEM };
}

/* After an element's (or a range's) function has returned: did it succeed? */
static bool succeeded(struct doing *d, int code)
{
    if (code != 0) {
        d->ending = cfi_map_failed(&d->frame, code);
        return false;
    }
    if (CFI_UNLIKELY(d->frame.said))
        cfi_frame_forget(&d->frame);
    return true;
}

/* Addresses are numbers here, since with size 0 there is nothing to point to. */
/* One element more is done.  Relaxed: it is read when this process is dead. */
static inline void step(struct doing *d)
{
    d->done++;
    if (d->progress)
        cfi_store_relaxed(d->progress, (int64_t)d->done);
}

static void run_elements(struct doing *d, cf_fn *fn)
{
    uintptr_t arg = d->head.arg_size ? (uintptr_t)d->args : 0;
    uintptr_t result = d->head.result_size ? (uintptr_t)d->answer->data : 0;
    while (d->done < d->head.count) {
        int code = fn((const void *)arg, (void *)result);
        if (CFI_UNLIKELY((code != 0 || d->frame.said) && !succeeded(d, code)))
            return;
        step(d);
        if (CFI_UNLIKELY(cf_stop_requested()))
            return;
        arg += d->head.arg_size;
        result += d->head.result_size;
    }
}

static void run_range(struct doing *d, cf_range_fn *fn)
{
    size_t begin = d->head.begin, end = begin + d->head.count;
    int code = fn(d->context, begin, end, d->head.result_size ? d->answer->data : NULL);
    if (succeeded(d, code))
        d->done = d->head.count;
}

/* Appends a result, which is used up. */
static bool append(struct doing *d, cf_bytes *result)
{
    if (!d->used) { /* the first goes on as it is */
        cf_bytes_free(d->answer);
        *d->answer = *result;
        d->used = result->size;
        return true;
    }
    size_t size = d->used + result->size;
    bool has_room = size <= d->answer->size || cf_bytes_resize(d->answer, size + size / 2) == CF_OK;
    if (has_room && result->size)
        memcpy((char *)d->answer->data + d->used, result->data, result->size);
    d->used += has_room ? result->size : 0;
    cf_bytes_free(result);
    return has_room;
}

/* The size of argument i, which lies at `at`; false: it does not lie within the arguments. */
static bool arg_size_of(const struct doing *d, size_t i, size_t at, uint64_t *ret)
{
    memcpy(ret, d->args + i * sizeof *ret, sizeof *ret);
    return at <= d->args_size && *ret <= d->args_size - at;
}

static void run_bytes(struct doing *d, cf_bytes_fn *fn)
{
    size_t at = CFI_ALIGN(d->head.count * sizeof(uint64_t));
    uint64_t size;
    while (d->done < d->head.count && arg_size_of(d, d->done, at, &size)) {
        cf_bytes result = { NULL, 0 };
        if (!succeeded(d, fn(size ? d->args + at : NULL, size, &result))) {
            cf_bytes_free(&result);
            return;
        }
        d->sizes[d->done] = result.size;
        if (!append(d, &result)) {
            lack_memory(d);
            return;
        }
        step(d);
        if (cf_stop_requested())
            return;
        at += CFI_ALIGN(size);
    }
}

/* Memory for the results; those of cf_map_bytes come as they are made. */
static bool make_room(struct doing *d)
{
    size_t size = d->head.count * d->head.result_size;
    if (d->head.kind == CFI_MAP_BYTES)
        return (d->sizes = malloc(d->head.count * sizeof *d->sizes));
    return cf_bytes_resize(d->answer, size + sizeof(struct tail)) == CF_OK;
}

static void run(struct doing *d, cfi_function *fn)
{
    if (!make_room(d))
        lack_memory(d);
    else if (d->head.kind == CFI_MAP_FN)
        run_elements(d, (cf_fn *)fn);
    else if (d->head.kind == CFI_MAP_BYTES)
        run_bytes(d, (cf_bytes_fn *)fn);
    else
        run_range(d, (cf_range_fn *)fn);
    if (d->head.kind != CFI_MAP_BYTES)
        d->used = d->done * d->head.result_size;
}

static void put(struct doing *d, const void *data, size_t size)
{
    if (size)
        memcpy((char *)d->answer->data + d->used, data, size);
    d->used += size;
}

/* Puts what follows the results behind them.  false: there is no memory for that. */
static bool finish(struct doing *d, int64_t took)
{
    bool failed = d->ending.status != CF_OK;
    const char *text = failed ? cfi_map_text(&d->ending) : "";
    size_t table = d->sizes ? d->done * sizeof *d->sizes : 0;
    const struct tail tail = { .done = d->done,
                               .took = took,
                               .code = d->ending.code,
                               .pid = failed ? getpid() : 0,
                               .text_size = (uint16_t)strlen(text),
                               .status = (uint8_t)d->ending.status };
    if (cf_bytes_resize(d->answer, d->used + table + tail.text_size + sizeof tail) != CF_OK)
        return false;
    put(d, d->sizes, table);
    put(d, text, tail.text_size);
    put(d, &tail, sizeof tail);
    return true;
}

/* The least of all answers. */
static bool finish_without_results(struct doing *d)
{
    cf_bytes_free(d->answer);
    d->used = d->done = 0;
    lack_memory(d);
    return finish(d, 0);
}

int cfi_piece_run(cfi_function *fn, const void *arg, size_t arg_size, const void *shared,
                  cfi_i64 *progress, cf_bytes *answer)
{
    int64_t start = cfi_now();
    struct doing d = { .answer = answer, .progress = progress };
    if (arg_size < sizeof d.head)
        return cf_raise(EINVAL, "this is no piece of a map");
    memcpy(&d.head, arg, sizeof d.head);
    d.args = (const unsigned char *)arg + sizeof d.head;
    d.args_size = arg_size - sizeof d.head;
    d.context = shared ? shared : d.head.arg_size ? d.args : NULL;
    if (!is_good(&d))
        return cf_raise(EINVAL, "this is no piece of a map");
    cfi_map_push(&d.frame);
    run(&d, fn);
    cfi_frame_pop(&d.frame);
    bool finished = finish(&d, cfi_now() - start) || finish_without_results(&d);
    free(d.ending.text);
    free(d.sizes);
    return finished ? 0 : cf_raise(ENOMEM, "out of memory for the results of a map");
}

/* ---- the map's side: what goes out ---- */

static size_t sum(size_t a, size_t b)
{
    return a > SIZE_MAX / 2 || b > SIZE_MAX / 2 ? SIZE_MAX : a + b;
}

static size_t size_of_bytes(const cf_bytes *args, size_t count)
{
    size_t size = CFI_ALIGN(count * sizeof(uint64_t));
    for (size_t i = 0; i < count; i++)
        size = sum(size, args[i].size > SIZE_MAX / 2 ? SIZE_MAX : CFI_ALIGN(args[i].size));
    return size;
}

size_t cfi_piece_size(const struct cfi_map_work *work, size_t begin, size_t count, bool is_shared)
{
    size_t size = work->kind == CFI_MAP_FN ? count * work->arg_size
                  : work->kind == CFI_MAP_BYTES
                      ? size_of_bytes((const cf_bytes *)work->args + begin, count)
                  : is_shared ? 0
                              : work->arg_size;
    return sum(sizeof(struct head), size);
}

static void write_bytes(const cf_bytes *args, size_t count, unsigned char *to)
{
    unsigned char *data = to + CFI_ALIGN(count * sizeof(uint64_t));
    for (size_t i = 0; i < count; i++) {
        const uint64_t size = args[i].size;
        memcpy(to + i * sizeof size, &size, sizeof size);
        if (size)
            memcpy(data, args[i].data, size);
        data += CFI_ALIGN(size);
    }
}

void cfi_piece_write(const struct cfi_map_work *work, size_t begin, size_t count, bool is_shared,
                     void *arg)
{
    const bool is_array = work->kind == CFI_MAP_FN;
    const struct head head = { .begin = begin,
                               .count = count,
                               .arg_size = is_shared ? 0 : work->arg_size,
                               .result_size = work->kind == CFI_MAP_BYTES ? 0 : work->result_size,
                               .kind = work->kind };
    memcpy(arg, &head, sizeof head);
    unsigned char *to = (unsigned char *)arg + sizeof head;
    if (work->kind == CFI_MAP_BYTES)
        write_bytes((const cf_bytes *)work->args + begin, count, to);
    else if (head.arg_size)
        memcpy(to, (const char *)work->args + (is_array ? begin * work->arg_size : 0),
               is_array ? count * work->arg_size : work->arg_size);
}

/* ---- and what comes back ---- */

static bool read_elements(const struct cfi_map_work *work, size_t begin, size_t done,
                          const char *data, size_t size)
{
    if (!fits(done, work->result_size, size))
        return false;
    if (done && work->result_size)
        memcpy((char *)work->results + begin * work->result_size, data, done * work->result_size);
    return true;
}

/* A result of its own memory; false: there is none. */
static bool copy_result(cf_bytes *result, const char *data, size_t size)
{
    if (!size)
        return true;
    if (cf_bytes_resize(result, size) != CF_OK)
        return false;
    memcpy(result->data, data, size);
    return true;
}

static bool take_back(cf_bytes *results, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cf_bytes_free(&results[i]);
    return false;
}

static bool read_bytes(cf_bytes *results, const char *data, size_t size, struct cfi_piece_end *end)
{
    if (!fits(end->done, sizeof(uint64_t), size))
        return false;
    size_t at = 0, results_size = size - end->done * sizeof(uint64_t);
    for (size_t i = 0; i < end->done; i++) {
        uint64_t length;
        memcpy(&length, data + results_size + i * sizeof length, sizeof length);
        if (length > results_size - at)
            return take_back(results, i);
        if (!copy_result(&results[i], data + at, length)) {
            end->done = i;
            end->status = CF_NOMEM;
            end->code = 0;
            end->text[0] = 0;
        }
        at += length;
    }
    return true;
}

/* The only result of a piece: what comes behind it stays behind it. */
static bool move_bytes(cf_bytes *result, cf_bytes *answer, size_t size)
{
    uint64_t length;
    if (size < sizeof length)
        return false;
    memcpy(&length, (char *)answer->data + size - sizeof length, sizeof length);
    if (length != size - sizeof length)
        return false;
    if (length) {
        *result = (cf_bytes){ answer->data, length };
        *answer = (cf_bytes){ NULL, 0 };
    }
    return true;
}

static bool is_ending(const struct tail *tail, size_t count)
{
    switch (tail->status) {
    case CF_OK:
        return tail->done <= count;
    case CF_FAILED:
    case CF_STOPPED:
    case CF_NOMEM:
        return tail->done < count;
    default:
        return false;
    }
}

/* Reads the tail and the text before it; *ret_size is the size of what comes before these. */
static bool read_end(const cf_bytes *answer, size_t count, struct cfi_piece_end *ret,
                     size_t *ret_size)
{
    struct tail tail;
    if (answer->size < sizeof tail)
        return false;
    size_t size = answer->size - sizeof tail;
    memcpy(&tail, (const char *)answer->data + size, sizeof tail);
    if (!is_ending(&tail, count) || tail.text_size > size || tail.text_size >= sizeof ret->text)
        return false;
    ret->done = tail.done;
    ret->took = tail.took;
    ret->status = (cf_status)tail.status;
    ret->code = tail.code;
    ret->pid = tail.pid;
    *ret_size = size - tail.text_size;
    memcpy(ret->text, (const char *)answer->data + *ret_size, tail.text_size);
    ret->text[tail.text_size] = 0;
    return true;
}

bool cfi_piece_read(const struct cfi_map_work *work, size_t begin, size_t count, cf_bytes *answer,
                    struct cfi_piece_end *ret)
{
    size_t size;
    if (!read_end(answer, count, ret, &size))
        return false;
    if (work->kind != CFI_MAP_BYTES)
        return read_elements(work, begin, ret->done, answer->data, size);
    cf_bytes *results = (cf_bytes *)work->results + begin;
    return count == 1 && ret->done == 1 ? move_bytes(results, answer, size)
                                        : read_bytes(results, answer->data, size, ret);
}
