/* SPDX-License-Identifier: MIT */
/* The result is made where it travels: in the slot, in the heap, or in a block.  Room for that of a cf_fn
 * is found before the call, so a task whose result cannot be had does not run. */
#define _POSIX_C_SOURCE 200809L
#include "call.h"

#include "../base/clock.h"
#include "../core/self.h"
#include "../wire/piece.h"
#include "given.h"
#include "made.h"

#include <string.h>

/* ---- asked to stop ---- */

static struct {
    struct cfi_arena *arena;
    cfi_u32 running; /* number + 1 of the task that runs; 0: none */
} stop;

/* Called on any thread that the task has made, too. */
static bool is_asked_to_stop(void)
{
    uint32_t running = cfi_load_relaxed(&stop.running);
    return cfi_load_relaxed(&stop.arena->stop_all) ||
           (running != 0 && cfi_load_relaxed(&stop.arena->stop_at) == running);
}

/* ---- functions ---- */

void cfi_caller_init(struct cfi_caller *caller, struct cfi_arena *arena, int channel)
{
    memset(caller, 0, sizeof *caller);
    caller->arena = arena;
    caller->channel = channel;
    caller->rung_at = UINT64_MAX;
    stop.arena = arena;
    cfi_stop_asked = is_asked_to_stop;
}

static bool find_image(struct cfi_caller *caller, unsigned image)
{
    if (image >= CFI_MAX_IMAGES) {
        (void)cfi_fail(CF_INVALID, "a task names an image that cannot be");
        return false;
    }
    if (caller->images[image] == 0) {
        struct cfi_image_name name = caller->arena->images[image];
        unsigned number;
        if (cfi_image_find(&name, &number) != CF_OK)
            return false;
        caller->images[image] = number + 1;
    }
    return true;
}

cfi_function *cfi_caller_find(struct cfi_caller *caller, unsigned image, uint64_t offset)
{
    if (caller->latest.fn && caller->latest.image == image && caller->latest.offset == offset)
        return caller->latest.fn;
    if (!find_image(caller, image))
        return NULL;
    cfi_function *fn = cfi_image_function(caller->images[image] - 1, offset);
    if (!fn) {
        (void)cfi_fail(CF_INVALID, "the task's function is not in the worker's copy of its image");
        return NULL;
    }
    caller->latest.image = image;
    caller->latest.offset = offset;
    caller->latest.fn = fn;
    return fn;
}

/* ---- arguments ---- */

/* NULL: see cf_last_error. */
static const void *find_argument(struct cfi_caller *caller, const struct cfi_slot *slot)
{
    switch ((enum cfi_place)slot->arg_place) {
    case CFI_INLINE:
        return slot->arg;
    case CFI_IN_HEAP:
        return caller->arena->arg_heap + slot->arg_at % CFI_HEAP;
    case CFI_IN_BLOCK:
        return cfi_given_find(caller->channel, (uint32_t)slot->arg_at, slot->arg_size);
    }
    (void)cfi_fail(CF_INVALID, "a task's argument lies in no known place");
    return NULL;
}

/* ---- room for results ---- */

struct room {
    enum cfi_place place;
    void *data; /* NULL: there is none */
    uint64_t at;
};

static struct room room_in_heap(struct cfi_caller *caller, uint64_t size)
{
    uint64_t at = cfi_heap_fit(caller->results_at, size);
    /* Acquire: what is written there comes after the parent has read what was there before. */
    uint64_t read = cfi_load_acquire(&caller->arena->results_read);
    bool fits = at + size - read <= CFI_HEAP;
    return (struct room){ CFI_IN_HEAP, fits ? caller->arena->result_heap + at % CFI_HEAP : NULL,
                          at };
}

static struct room find_room(struct cfi_caller *caller, struct cfi_slot *slot, uint64_t size)
{
    if (size <= CFI_INLINE_RESULT)
        return (struct room){ CFI_INLINE, slot->result, 0 };
    if (size <= CFI_HEAP_LARGEST) {
        struct room room = room_in_heap(caller, size);
        if (room.data)
            return room;
    }
    return (struct room){ CFI_IN_BLOCK, cfi_made_new(size), 0 };
}

static void leave_room(struct room *room)
{
    if (room->place == CFI_IN_BLOCK)
        (void)cfi_made_free(room->data);
}

/* Blocks take what the heap has no room for, but cost far more than a word with the parent in time. */
static void look_at_heap(struct cfi_caller *caller)
{
    uint64_t read = cfi_load_relaxed(&caller->arena->results_read);
    if (caller->results_at - read > CFI_HEAP / 2 && read != caller->rung_at) {
        caller->rung_at = read;
        caller->must_ring = true;
    }
}

/* What lies in the room becomes the answer. */
static void answer(struct cfi_caller *caller, struct cfi_slot *slot, const struct room *room,
                   uint64_t size)
{
    if (room->place == CFI_IN_HEAP) {
        caller->results_at = room->at + size;
        look_at_heap(caller);
    }
    slot->result_place = (uint8_t)room->place;
    slot->at = room->at;
    slot->size = size;
}

/* Answers with a text, if there is one.  It is cut rather than put into a block. */
static void say(struct cfi_caller *caller, struct cfi_slot *slot, const char *text)
{
    if (!text)
        return;
    size_t size = strnlen(text, CFI_MOST_TEXT - 1);
    struct room room = { CFI_INLINE, slot->result, 0 };
    if (size > CFI_INLINE_RESULT) {
        struct room in_heap = room_in_heap(caller, size);
        if (in_heap.data)
            room = in_heap;
        else
            size = CFI_INLINE_RESULT;
    }
    memcpy(room.data, text, size);
    answer(caller, slot, &room, size);
    slot->has_text = 1;
}

static void refuse(struct cfi_caller *caller, struct cfi_slot *slot, const cf_error *error)
{
    slot->status = (uint8_t)error->status;
    say(caller, slot, error->message);
}

static void refuse_for_memory(struct cfi_caller *caller, struct cfi_slot *slot, uint64_t size)
{
    (void)cfi_fail(CF_NOMEM, "the worker has no memory for a result of %llu bytes",
                   (unsigned long long)size);
    refuse(caller, slot, cf_last_error());
}

/* As answer, but a block must be announced first. */
static void answer_from(struct cfi_caller *caller, struct cfi_slot *slot, struct room *room,
                        uint64_t size)
{
    if (room->place == CFI_IN_BLOCK && !cfi_made_send(caller->channel, room->data, &room->at)) {
        leave_room(room);
        refuse(caller, slot, cf_last_error());
        return;
    }
    answer(caller, slot, room, size);
}

/* ---- calls ---- */

static void end_in_failure(struct cfi_caller *caller, struct cfi_slot *slot,
                           const struct cfi_frame *frame, int code)
{
    slot->code = code;
    say(caller, slot, frame->message);
}

static void call_fn(struct cfi_caller *caller, struct cfi_slot *slot, cfi_function *fn,
                    const void *arg, const struct cfi_frame *frame)
{
    uint64_t size = slot->result_size;
    struct room room = find_room(caller, slot, size);
    if (CFI_UNLIKELY(!room.data)) {
        refuse_for_memory(caller, slot, size);
        return;
    }
    int code = ((cf_fn *)fn)(arg, room.data);
    if (CFI_LIKELY(code == 0)) {
        answer_from(caller, slot, &room, size);
    } else {
        leave_room(&room);
        end_in_failure(caller, slot, frame, code);
    }
}

/* Bytes that the task has made.  Those that are large lie in a block already, unless there was no memory
 * for one then. */
static void answer_with_bytes(struct cfi_caller *caller, struct cfi_slot *slot, cf_bytes *bytes)
{
    if (bytes->size > CFI_HEAP_LARGEST && cfi_made_has(bytes->data)) {
        struct room room = { CFI_IN_BLOCK, bytes->data, 0 };
        answer_from(caller, slot, &room, bytes->size);
        return;
    }
    struct room room = find_room(caller, slot, bytes->size);
    if (!room.data) {
        refuse_for_memory(caller, slot, bytes->size);
    } else {
        if (bytes->size > 0)
            memcpy(room.data, bytes->data, bytes->size);
        answer_from(caller, slot, &room, bytes->size);
    }
    cf_bytes_free(bytes);
}

static int call_piece(struct cfi_caller *caller, struct cfi_slot *slot, cfi_function *fn,
                      const void *arg, cf_bytes *bytes)
{
    const void *shared = NULL;
    if (slot->shared != 0) {
        shared = cfi_given_find(caller->channel, slot->shared, 0);
        if (!shared) {
            refuse(caller, slot, cf_last_error());
            return 0;
        }
    }
    cfi_store_relaxed(&slot->began_at, 0);
    return cfi_piece_run(fn, arg, slot->arg_size, shared, &slot->began_at, bytes);
}

static void call_for_bytes(struct cfi_caller *caller, struct cfi_slot *slot, cfi_function *fn,
                           const void *arg, const struct cfi_frame *frame)
{
    cf_bytes bytes = { NULL, 0 };
    int code = slot->call == CFI_CALL_PIECE ? call_piece(caller, slot, fn, arg, &bytes)
                                            : ((cf_bytes_fn *)fn)(arg, slot->arg_size, &bytes);
    if (code == 0 && slot->status == CF_OK) {
        answer_with_bytes(caller, slot, &bytes);
        return;
    }
    cf_bytes_free(&bytes);
    if (code != 0)
        end_in_failure(caller, slot, frame, code);
}

static void call(struct cfi_caller *caller, struct cfi_slot *slot, cfi_function *fn,
                 const void *arg)
{
    struct cfi_frame frame;
    cfi_frame_push(&frame, NULL);
    if (slot->is_timed)
        cfi_store_release(&slot->began_at, cfi_now());
    if (slot->call == CFI_CALL_FN)
        call_fn(caller, slot, fn, arg, &frame);
    else
        call_for_bytes(caller, slot, fn, arg, &frame);
    cfi_frame_pop(&frame);
    if (slot->is_timed)
        cfi_store_relaxed(&slot->began_at, 0); /* or the next one there would look old */
    if (CFI_UNLIKELY(frame.said))
        cfi_frame_forget(&frame);
}

void cfi_caller_run(struct cfi_caller *caller, uint32_t number, struct cfi_slot *slot)
{
    slot->code = 0;
    slot->status = CF_OK;
    slot->result_place = CFI_INLINE;
    slot->has_text = 0;
    slot->size = 0;
    cfi_function *fn = cfi_caller_find(caller, slot->image, slot->offset);
    const void *arg = fn ? find_argument(caller, slot) : NULL;
    if (CFI_UNLIKELY(!arg)) {
        refuse(caller, slot, cf_last_error());
        return;
    }
    cfi_store_relaxed(&stop.running, number + 1);
    call(caller, slot, fn, arg);
    cfi_store_relaxed(&stop.running, 0);
}
