/* SPDX-License-Identifier: MIT */
/* Tasks as bytes.  A request and a reply are one block each:
 *
 *     struct request | path of the image | zeros up to a multiple of 16 | argument
 *     struct reply   | result, or the text of the failure
 *
 * The blocks come from outside: every field is copied out before it is looked at, every length is held
 * against what is there, and a checksum over all of it finds what was damaged on the way.  It finds no
 * malice: whoever may send requests may have any function of the program called.
 *
 * A reply belongs to the request with the same tag, which no other future ever has: a random number of
 * the process and the future's own, hashed. */
#define _GNU_SOURCE
#include "identity.h"

#include "../base/clock.h"
#include "../base/thread.h"
#include "../core/future.h"
#include "../core/map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAGIC = 0x77664331, VERSION = 1, MOST_TEXT = 511 };
enum type { REQUEST_FN = 1, REQUEST_BYTES, REPLY };

/* What both begin with.  In another byte order the magic number is another one. */
struct head {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint64_t checksum; /* of all bytes but these */
    uint64_t tag;
};

struct request {
    struct head head;
    uint64_t offset; /* of the function in its image */
    uint64_t result_size;
    uint64_t arg_size;
    uint8_t image_kind, id_size, id[30]; /* as in struct cfi_image_name */
    uint16_t path_size;
    uint8_t zeros[14];
};

struct reply {
    struct head head;
    int32_t status;
    int32_t code;
    uint64_t size;
    uint64_t zero;
};

/* So what follows them is aligned if they are. */
_Static_assert(sizeof(struct request) % 16 == 0 && sizeof(struct reply) % 16 == 0, "aligned");
_Static_assert(sizeof(struct request) == 96 && sizeof(struct reply) == 48, "no padding");

/* ---- hashes ---- */

/* Each step can be undone, so a word that differs always makes another hash. */
static uint64_t hash(uint64_t h, const void *data, size_t size)
{
    const unsigned char *at = data;
    for (;;) {
        uint64_t word = 0;
        size_t step = size < sizeof word ? size : sizeof word;
        if (step == 0)
            return h;
        memcpy(&word, at, step);
        h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        h ^= h >> 32;
        at += step;
        size -= step;
    }
}

static uint64_t checksum(const void *frame, size_t size)
{
    const unsigned char *bytes = frame;
    const size_t before = offsetof(struct head, checksum), after = offsetof(struct head, tag);
    return hash(hash(size, bytes, before), bytes + after, size - after);
}

static uint64_t random_number;

static void draw_random_number(void)
{
    if (getrandom(&random_number, sizeof random_number, 0) != (ssize_t)sizeof random_number)
        random_number = (uint64_t)cfi_now(); /* there is none: other processes differ by chance */
}

/* The number of a future is drawn when the first request is made of it. */
static uint64_t tag_of(cf_future *future)
{
    static cfi_once once = CFI_ONCE_INIT;
    static cfi_u64 last;
    cfi_call_once(&once, draw_random_number);
    cfi_u64 *ticket = &cfi_future_extra(future)->ticket;
    uint64_t number = cfi_load_relaxed(ticket), none = 0;
    if (!number) {
        number = cfi_add_relaxed(&last, 1) + 1;
        if (!cfi_cas_acq_rel(ticket, &none, number))
            number = none;
    }
    const uint64_t whose[] = { random_number, (uint64_t)getpid(), number };
    return hash(0, whose, sizeof whose);
}

/* ---- frames ---- */

static void seal(void *frame, size_t size, enum type type, uint64_t tag)
{
    struct head head = { .magic = MAGIC, .version = VERSION, .type = (uint16_t)type, .tag = tag };
    memcpy(frame, &head, sizeof head);
    head.checksum = checksum(frame, size);
    memcpy(frame, &head, sizeof head);
}

/* Is this a whole frame, with `room` bytes of headers? */
static bool is_sealed(const void *frame, size_t size, size_t room)
{
    struct head head;
    if (size < room)
        return false;
    memcpy(&head, frame, sizeof head);
    return head.magic == MAGIC && head.version == VERSION && head.checksum == checksum(frame, size);
}

/* ---- making a request ---- */

static void fill_request(void *frame, const cf_task *task, const struct cfi_identity *identity)
{
    const struct cfi_image_name *name = cfi_image_name(identity->image);
    size_t path_size = strlen(name->path), room = CFI_ALIGN(path_size);
    struct request request = { .offset = identity->offset,
                               .result_size = task->result_size,
                               .arg_size = task->arg_size,
                               .image_kind = name->kind,
                               .id_size = name->id_size,
                               .path_size = (uint16_t)path_size };
    memcpy(request.id, name->id, sizeof request.id);
    unsigned char *at = frame;
    memcpy(at, &request, sizeof request);
    memset(at + sizeof request, 0, room);
    memcpy(at + sizeof request, name->path, path_size);
    if (task->arg_size)
        memcpy(at + sizeof request + room, task->arg, task->arg_size);
}

cf_status cf_wire_encode(cf_future *future, cf_bytes *ret_request)
{
    if (!ret_request)
        return cfi_fail(CF_INVALID, "cf_wire_encode: ret_request is NULL");
    const cf_task *task = cf_future_task(future);
    if (!task)
        return cfi_fail(CF_INVALID, "cf_wire_encode: the future is done or not of a provider");
    if (task->fn == cfi_map_run_job || task->fn == cfi_map_run_chunk)
        return cfi_fail(CF_INVALID, "cf_wire_encode: the pieces of a map cannot travel");
    struct cfi_identity identity;
    cf_status s = cfi_identify(task->fn ? (cfi_function *)task->fn : (cfi_function *)task->bytes_fn,
                               &identity);
    if (s != CF_OK)
        return s;
    size_t path_room = CFI_ALIGN(strlen(cfi_image_name(identity.image)->path));
    cf_bytes frame = { NULL, 0 };
    s = cf_bytes_resize(&frame, sizeof(struct request) + path_room + task->arg_size);
    if (s != CF_OK)
        return s;
    fill_request(frame.data, task, &identity);
    seal(frame.data, frame.size, task->fn ? REQUEST_FN : REQUEST_BYTES, tag_of(future));
    *ret_request = frame;
    return CF_OK;
}

/* ---- reading a request ---- */

struct call {
    enum type type;
    cfi_function *fn;
    const void *arg; /* aligned */
    size_t arg_size, result_size;
    void *copy; /* of the argument, malloc'ed, or NULL */
};

static cf_status is_damaged(const char *what)
{
    return cfi_fail(CF_INVALID, "the %s is damaged", what);
}

static cf_status find_function(const struct request *request, const char *path, cfi_function **ret)
{
    struct cfi_image_name name = { .kind = request->image_kind, .id_size = request->id_size };
    memcpy(name.id, request->id, sizeof name.id);
    memcpy(name.path, path, request->path_size);
    unsigned number;
    cf_status s = cfi_image_find(&name, &number);
    if (s != CF_OK)
        return s;
    *ret = cfi_image_function(number, request->offset);
    return *ret ? CF_OK : is_damaged("request");
}

static cf_status align_arg(struct call *call)
{
    if ((uintptr_t)call->arg % 16 == 0)
        return CF_OK;
    call->copy = malloc(call->arg_size + 1); /* one more: never NULL */
    if (!call->copy)
        return cfi_fail(CF_NOMEM, "out of memory for an argument of %zu bytes", call->arg_size);
    memcpy(call->copy, call->arg, call->arg_size);
    call->arg = call->copy;
    return CF_OK;
}

static cf_status read_request(const void *frame, size_t size, struct call *call)
{
    struct request request;
    if (!is_sealed(frame, size, sizeof request))
        return is_damaged("request");
    memcpy(&request, frame, sizeof request);
    const char *path = (const char *)frame + sizeof request;
    size_t left = size - sizeof request, path_room = CFI_ALIGN((size_t)request.path_size);
    bool is_fn = request.head.type == REQUEST_FN;
    if (request.path_size >= CFI_IMAGE_PATH || left < path_room ||
        request.arg_size != left - path_room || request.result_size > (is_fn ? CFI_LARGEST : 0) ||
        !(is_fn || request.head.type == REQUEST_BYTES))
        return is_damaged("request");
    *call = (struct call){ .type = (enum type)request.head.type,
                           .arg = path + path_room,
                           .arg_size = left - path_room,
                           .result_size = (size_t)request.result_size };
    cf_status s = find_function(&request, path, &call->fn);
    return s == CF_OK ? align_arg(call) : s;
}

/* What the reply to a damaged request is about, as far as that can be known. */
static uint64_t tag_in(const void *frame, size_t size)
{
    struct head head = { .tag = 0 };
    if (size >= sizeof head)
        memcpy(&head, frame, sizeof head);
    return head.tag;
}

/* ---- making a reply ---- */

static cf_status new_reply(cf_status status, int code, size_t size, cf_bytes *ret)
{
    cf_bytes frame = { NULL, 0 };
    const struct reply reply = { .status = (int32_t)status, .code = code, .size = size };
    cf_status s = cf_bytes_resize(&frame, sizeof reply + size);
    if (s != CF_OK)
        return s;
    memcpy(frame.data, &reply, sizeof reply);
    *ret = frame;
    return CF_OK;
}

static void *content_of(const cf_bytes *reply)
{
    return (char *)reply->data + sizeof(struct reply);
}

static cf_status reply_with_failure(cf_status status, int code, const char *text, cf_bytes *ret)
{
    size_t size = strlen(text);
    size = size < MOST_TEXT ? size : MOST_TEXT;
    cf_status s = new_reply(status, code, size, ret);
    if (s == CF_OK)
        memcpy(content_of(ret), text, size);
    return s;
}

/* This thread's last error, which says why nothing could be called. */
static cf_status reply_with_error(cf_bytes *ret)
{
    const cf_error *error = cf_last_error();
    return reply_with_failure(error->status, error->code, error->message, ret);
}

static cf_status reply_with_code(struct cfi_frame *frame, int code, cf_bytes *ret)
{
    struct cfi_ending ending = cfi_map_failed(frame, code);
    cf_status s = reply_with_failure(ending.status, code, cfi_map_text(&ending), ret);
    free(ending.text);
    return s;
}

/* After the task has returned: did it succeed? */
static bool succeeded(struct cfi_frame *frame, int code)
{
    cfi_frame_pop(frame);
    if (code == 0 && frame->said)
        cfi_frame_forget(frame);
    return code == 0;
}

/* The result is made where it lies in the reply.  What the task leaves out is zero, not what lay in
 * this process's memory. */
static cf_status run_fn(const struct call *call, cf_bytes *ret)
{
    cf_status s = new_reply(CF_OK, 0, call->result_size, ret);
    if (s != CF_OK)
        return reply_with_error(ret);
    memset(content_of(ret), 0, call->result_size);
    struct cfi_frame frame;
    cfi_map_push(&frame);
    int code = ((cf_fn *)call->fn)(call->arg, content_of(ret));
    if (succeeded(&frame, code))
        return CF_OK;
    cf_bytes_free(ret);
    return reply_with_code(&frame, code, ret);
}

static cf_status run_bytes(const struct call *call, cf_bytes *ret)
{
    cf_bytes result = { NULL, 0 };
    struct cfi_frame frame;
    cfi_map_push(&frame);
    int code = ((cf_bytes_fn *)call->fn)(call->arg, call->arg_size, &result);
    bool ok = succeeded(&frame, code);
    cf_status s = ok ? new_reply(CF_OK, 0, result.size, ret) : reply_with_code(&frame, code, ret);
    if (s == CF_OK && ok && result.size)
        memcpy(content_of(ret), result.data, result.size);
    cf_bytes_free(&result);
    return s;
}

cf_status cf_wire_call(const void *request, size_t size, cf_bytes *ret_reply)
{
    if (!request || !ret_reply)
        return cfi_fail(CF_INVALID, "cf_wire_call: %s is NULL", request ? "ret_reply" : "request");
    struct call call = { .copy = NULL };
    cf_bytes reply = { NULL, 0 };
    cf_status s = read_request(request, size, &call);
    if (s != CF_OK)
        s = reply_with_error(&reply);
    else
        s = call.type == REQUEST_FN ? run_fn(&call, &reply) : run_bytes(&call, &reply);
    free(call.copy);
    if (s != CF_OK)
        return s;
    seal(reply.data, reply.size, REPLY, tag_in(request, size));
    *ret_reply = reply;
    return CF_OK;
}

/* ---- reading a reply ---- */

static cf_status settle_with_error(cf_future *future, const struct reply *reply, const char *text)
{
    char message[MOST_TEXT + 1] = "";
    memcpy(message, text, reply->size);
    const cf_error error = { .size = sizeof error,
                             .status = (cf_status)reply->status,
                             .code = reply->code,
                             .message = message,
                             .exit_code = -1 };
    return cf_future_set_exception(future, &error);
}

static cf_status settle_with_bytes(cf_future *future, const void *data, size_t size)
{
    cf_bytes bytes = { NULL, 0 };
    cf_status s = cf_bytes_resize(&bytes, size);
    if (s != CF_OK)
        return s;
    if (size)
        memcpy(bytes.data, data, size);
    s = cf_future_set_result(future, &bytes);
    if (s != CF_OK)
        cf_bytes_free(&bytes);
    return s;
}

/* Can that be said of this task? */
static bool fits(const struct reply *reply, const cf_task *task)
{
    switch (reply->status) {
    case CF_OK:
        return task->bytes_fn || reply->size == task->result_size;
    case CF_FAILED:
    case CF_STOPPED:
    case CF_NOMEM:
    case CF_INVALID:
        return reply->size <= MOST_TEXT;
    default:
        return false;
    }
}

cf_status cf_wire_settle(cf_future *future, const void *reply, size_t size)
{
    struct reply head;
    if (!reply)
        return cfi_fail(CF_INVALID, "cf_wire_settle: reply is NULL");
    const cf_task *task = cf_future_task(future);
    if (!task)
        return cfi_fail(CF_INVALID, "cf_wire_settle: the future is done or not of a provider");
    if (!is_sealed(reply, size, sizeof head))
        return is_damaged("reply");
    memcpy(&head, reply, sizeof head);
    const void *content = (const char *)reply + sizeof head;
    if (head.head.type != REPLY || head.size != size - sizeof head)
        return is_damaged("reply");
    if (head.head.tag != tag_of(future))
        return cfi_fail(CF_INVALID, "the reply is another task's");
    if (!fits(&head, task))
        return is_damaged("reply");
    if (head.status != CF_OK)
        return settle_with_error(future, &head, content);
    return task->bytes_fn ? settle_with_bytes(future, content, size - sizeof head)
                          : cf_future_set_result(future, content);
}
