/* SPDX-License-Identifier: MIT */
/* Bytes from outside, made up by libFuzzer: requests, replies, and the answers of workers to a map's
 * pieces.  The first byte of an input says which, the next few how; the rest is what came.
 *
 * Damage is found by a checksum, so most inputs are sealed again here, as an attacker would.  Such a
 * request may name any function of the process, and it would be called: here the names of all but a few
 * functions, each with its own kind of request, lead nowhere; and no library is loaded.  For that the
 * linker puts the functions __wrap_... below in the place of the real ones, and wire.c is a part of this
 * file.
 *
 * usage: wire_fuzz CORPUS: writes inputs to begin with there; all else as libFuzzer says. */
#define _GNU_SOURCE
#include "wire/wire.c"

#include "wire/piece.h"

#include <dlfcn.h>
#include <stdio.h>
#include <sys/stat.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* A request may ask for more than there is: malloc shall say so, not abort. */
enum { MOST_MIB = 500 };
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=500";
}

static void check(bool condition)
{
    if (!condition)
        abort();
}

/* ---- the functions that may be called ---- */

static int nothing(const void *arg, void *result)
{
    check((uintptr_t)arg % 16 == 0 && (uintptr_t)result % 16 == 0);
    return 0;
}

static int fails(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_raise(3, "it failed");
}

static int twice(const void *arg, size_t size, cf_bytes *result)
{
    check((uintptr_t)arg % 16 == 0);
    if (cf_bytes_resize(result, 2 * size) != CF_OK)
        return -1;
    for (size_t i = 0; i < 2 * size; i++)
        ((char *)result->data)[i] = ((const char *)arg)[i % size];
    return 0;
}

static unsigned wanted; /* the type of the request */

cfi_function *__real_cfi_image_function(unsigned number, uint64_t offset);
cfi_function *__wrap_cfi_image_function(unsigned number, uint64_t offset);
void *__real_dlopen(const char *file, int mode);
void *__wrap_dlopen(const char *file, int mode);

cfi_function *__wrap_cfi_image_function(unsigned number, uint64_t offset)
{
    cfi_function *fn = __real_cfi_image_function(number, offset);
    bool may_be_called = wanted == REQUEST_BYTES
                             ? fn == (cfi_function *)twice
                             : fn == (cfi_function *)nothing || fn == (cfi_function *)fails;
    return may_be_called ? fn : NULL;
}

void *__wrap_dlopen(const char *file, int mode)
{
    return mode & RTLD_NOLOAD ? __real_dlopen(file, mode) : NULL;
}

/* ---- an executor that keeps the last task ---- */

static cf_future *kept;

static cf_status keep(void *self, cf_future *future)
{
    (void)self;
    kept = future;
    return CF_OK;
}

enum { KINDS = 3, RESULT_SIZE = 24 };

/* A future and its executor's reference, both the caller's. */
static cf_future *submit(unsigned kind)
{
    static cf_executor *executor;
    static const cf_executor_ops ops = { .size = sizeof ops, .submit = keep };
    const cf_task tasks[KINDS] = {
        { .fn = nothing, .arg = "argument", .arg_size = 9, .result_size = RESULT_SIZE },
        { .fn = fails },
        { .bytes_fn = twice, .arg = "some bytes", .arg_size = 10 },
    };
    cf_task task = tasks[kind % KINDS];
    task.size = sizeof task;
    cf_future *future = NULL;
    check(executor || cf_executor_new(&ops, NULL, &executor) == CF_OK);
    check(cf_submit_task(executor, &task, &future) == CF_OK);
    cf_future_unref(kept);
    return future;
}

static void let_go(cf_future *future)
{
    (void)cf_future_cancel(future);
    cf_future_unref(future);
}

/* ---- requests ---- */

enum how { SEAL = 1, MISALIGN = 2, FIT = 4 };

/* In memory of just that size. */
static unsigned char *exact_copy(const uint8_t *data, size_t size, unsigned how, void **ret_block)
{
    unsigned shift = how & MISALIGN ? 1 : 0;
    unsigned char *block = malloc(size + shift + !size);
    check(block);
    if (size)
        memcpy(block + shift, data, size);
    *ret_block = block;
    return block + shift;
}

static void seal_again(unsigned char *frame, size_t size, bool has_tag, uint64_t tag)
{
    struct head head;
    if (size < sizeof head)
        return;
    memcpy(&head, frame, sizeof head);
    head.tag = has_tag ? tag : head.tag;
    memcpy(frame, &head, sizeof head);
    head.checksum = checksum(frame, size);
    memcpy(frame, &head, sizeof head);
}

/* Nothing is wrong with a large result, but to make one takes long. */
static bool is_slow(const unsigned char *frame, size_t size)
{
    struct request request = { .result_size = 0 };
    if (size >= sizeof request)
        memcpy(&request, frame, sizeof request);
    return request.result_size > 1 << 16 && request.result_size >> 20 <= MOST_MIB;
}

/* Says the length that the frame has, also if that is below 0. */
static void fit_request(unsigned char *frame, size_t size)
{
    struct request request;
    if (size < sizeof request)
        return;
    memcpy(&request, frame, sizeof request);
    request.arg_size = size - sizeof request - CFI_ALIGN((size_t)request.path_size);
    memcpy(frame, &request, sizeof request);
}

static void fit_reply(unsigned char *frame, size_t size)
{
    struct reply reply;
    if (size < sizeof reply)
        return;
    memcpy(&reply, frame, sizeof reply);
    reply.size = size - sizeof reply;
    memcpy(frame, &reply, sizeof reply);
}

static void fuzz_request(unsigned how, const uint8_t *data, size_t size)
{
    void *block;
    unsigned char *frame = exact_copy(data, size, how, &block);
    struct head head = { .type = 0 };
    if (how & FIT)
        fit_request(frame, size);
    if (how & SEAL)
        seal_again(frame, size, false, 0);
    if (size >= sizeof head)
        memcpy(&head, frame, sizeof head);
    wanted = head.type;
    cf_bytes reply = { NULL, 0 };
    cf_status s = is_slow(frame, size) ? CF_NOMEM : cf_wire_call(frame, size, &reply);
    check(s == CF_OK || s == CF_NOMEM);
    if (s == CF_OK) {
        struct reply answer;
        check(is_sealed(reply.data, reply.size, sizeof answer));
        memcpy(&answer, reply.data, sizeof answer);
        check(answer.head.type == REPLY && answer.size == reply.size - sizeof answer);
        check(size < sizeof head || answer.head.tag == head.tag);
        check(answer.status == CF_OK || answer.size > 0);
    }
    cf_bytes_free(&reply);
    free(block);
}

/* ---- replies ---- */

static void fuzz_reply(unsigned how, unsigned kind, const uint8_t *data, size_t size)
{
    void *block;
    unsigned char *frame = exact_copy(data, size, how, &block);
    cf_future *future = submit(kind);
    if (how & FIT)
        fit_reply(frame, size);
    if (how & SEAL)
        seal_again(frame, size, true, tag_of(future));
    cf_status s = cf_wire_settle(future, frame, size);
    check(s == CF_OK || s == CF_INVALID || s == CF_NOMEM);
    check(cf_future_done(future) == (s == CF_OK));
    if (s == CF_OK && !cf_future_exception(future)) {
        const void *result = NULL;
        size_t result_size = 0;
        check(cf_future_peek(future, 0, &result, &result_size) == CF_OK);
        check(result_size == size - sizeof(struct reply));
        check(!result_size || memcmp(result, frame + sizeof(struct reply), result_size) == 0);
    }
    let_go(future);
    free(block);
}

/* ---- answers to pieces ---- */

static void check_bytes(cf_bytes *results, size_t begin, size_t done, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i < begin || i >= begin + done)
            check(!results[i].data && !results[i].size);
        else if (results[i].size)
            memset(results[i].data, 0, results[i].size);
        cf_bytes_free(&results[i]);
    }
}

static void fuzz_answer(unsigned shape, unsigned result_size, const uint8_t *data, size_t size)
{
    enum { BEGIN = 2, UNTOUCHED = 0xa5 };
    struct cfi_map_work work = { .kind = shape % 3 ? CFI_MAP_FN : CFI_MAP_BYTES, .name = "fuzz" };
    size_t count = 1 + shape / 3 % 6, all = BEGIN + count + 1;
    bool is_bytes = work.kind == CFI_MAP_BYTES;
    work.count = all;
    work.result_size = is_bytes ? sizeof(cf_bytes) : result_size % 40;
    unsigned char *results = malloc(all * work.result_size + 1);
    cf_bytes answer = { NULL, 0 };
    struct cfi_piece_end end = { .done = 0 };
    check(results && cf_bytes_resize(&answer, size) == CF_OK);
    memset(results, is_bytes ? 0 : UNTOUCHED, all * work.result_size);
    if (size)
        memcpy(answer.data, data, size);
    work.results = results;
    bool good = cfi_piece_read(&work, BEGIN, count, &answer, &end);
    size_t done = good ? end.done : 0;
    check(done <= count && memchr(end.text, 0, sizeof end.text));
    if (is_bytes) {
        check_bytes((cf_bytes *)(void *)results, BEGIN, done, all);
    } else {
        for (size_t i = 0; i < all * work.result_size; i++)
            check((i >= BEGIN * work.result_size && i < (BEGIN + done) * work.result_size) ||
                  results[i] == UNTOUCHED);
    }
    cf_bytes_free(&answer);
    free(results);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return -1;
    switch (data[0] % 3) {
    case 0:
        fuzz_request(data[1], data + 3, size - 3);
        break;
    case 1:
        fuzz_reply(data[1], data[2], data + 3, size - 3);
        break;
    default:
        fuzz_answer(data[1], data[2], data + 3, size - 3);
    }
    return 0;
}

/* ---- inputs to begin with ---- */

static void write_seed(const char *corpus, const char *name, const uint8_t head[3],
                       const cf_bytes *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s-%u-%u", corpus, name, head[1], head[2]);
    FILE *file = fopen(path, "we");
    if (!file || fwrite(head, 1, 3, file) != 3 ||
        fwrite(bytes->data, 1, bytes->size, file) != bytes->size || fclose(file) != 0) {
        perror(path);
        exit(EXIT_FAILURE);
    }
}

static void write_frames(const char *corpus)
{
    for (uint8_t kind = 0; kind < KINDS; kind++) {
        cf_future *future = submit(kind);
        cf_bytes request, reply;
        wanted = kind == 2 ? REQUEST_BYTES : REQUEST_FN;
        check(cf_wire_encode(future, &request) == CF_OK);
        check(cf_wire_call(request.data, request.size, &reply) == CF_OK);
        for (uint8_t how = 0; how < 8; how++) {
            write_seed(corpus, "request", (const uint8_t[]){ 0, how, kind }, &request);
            write_seed(corpus, "reply", (const uint8_t[]){ 1, how, kind }, &reply);
        }
        let_go(future);
        cf_bytes_free(&request);
        cf_bytes_free(&reply);
    }
}

static void write_answer(const char *corpus, const struct cfi_map_work *work, uint8_t shape)
{
    size_t count = 1 + shape / 3 % 6, size = cfi_piece_size(work, 0, count, false);
    void *arg = aligned_alloc(16, CFI_ALIGN(size));
    cf_bytes answer = { NULL, 0 };
    check(arg);
    cfi_piece_write(work, 0, count, false, arg);
    check(cfi_piece_run((cfi_function *)work->call.fn, arg, size, NULL, NULL, &answer) == 0);
    write_seed(corpus, "answer", (const uint8_t[]){ 2, shape, (uint8_t)work->result_size },
               &answer);
    cf_bytes_free(&answer);
    free(arg);
}

static int eight(const void *arg, void *result)
{
    memcpy(result, arg, 8);
    return 0;
}

static int all_of_it(const void *arg, size_t size, cf_bytes *result)
{
    if (cf_bytes_resize(result, size) == CF_OK && size)
        memcpy(result->data, arg, size);
    return size == 4 ? cf_raise(4, "four") : 0;
}

static void write_answers(const char *corpus)
{
    const uint64_t numbers[6] = { 1, 2, 3, 4, 5, 6 };
    const cf_bytes bytes[6] = { { "abcdef", 6 },       { "", 0 },     { "xyz", 3 },
                                { "longer ones", 11 }, { "four", 4 }, { "", 0 } };
    const struct cfi_map_work of_eight = { .kind = CFI_MAP_FN,
                                           .call.fn = eight,
                                           .args = numbers,
                                           .arg_size = 8,
                                           .result_size = 8,
                                           .count = 6 };
    const struct cfi_map_work of_bytes = { .kind = CFI_MAP_BYTES,
                                           .call.bytes_fn = all_of_it,
                                           .args = bytes,
                                           .arg_size = sizeof *bytes,
                                           .result_size = sizeof *bytes,
                                           .count = 6 };
    for (uint8_t count = 0; count < 6; count++) {
        write_answer(corpus, &of_bytes, (uint8_t)(3 * count));
        write_answer(corpus, &of_eight, (uint8_t)(3 * count + 1));
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (int i = 1; i < *argc; i++) {
        struct stat about;
        if ((*argv)[i][0] != '-' && stat((*argv)[i], &about) == 0 && S_ISDIR(about.st_mode)) {
            write_frames((*argv)[i]);
            write_answers((*argv)[i]);
        }
    }
    return 0;
}
