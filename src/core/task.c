/* SPDX-License-Identifier: MIT */
/* What a task function may call: its bytes, its error. */
#define _POSIX_C_SOURCE 200809L
#include "error.h"
#include "mapped.h"
#include "self.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Frees data that is not malloc's; false: it is. */
static bool free_mapped(void *data)
{
    if (!cfi_may_be_mapped(data))
        return false;
    return (cfi_bytes_memory && cfi_bytes_memory->free(data)) || cfi_mapped_free(data);
}

/* From one kind of memory to another. */
static void *move_to_new(const cf_bytes *bytes, size_t size)
{
    void *data = NULL;
    if (cfi_bytes_memory && size >= cfi_bytes_memory->from)
        data = cfi_bytes_memory->resize(NULL, size);
    if (!data)
        data = malloc(size);
    if (!data || !bytes->data)
        return data;
    memcpy(data, bytes->data, size < bytes->size ? size : bytes->size);
    if (!free_mapped(bytes->data))
        free(bytes->data);
    return data;
}

static bool is_in_a_source(const void *data)
{
    return cfi_bytes_memory && cfi_may_be_mapped(data);
}

static void *resize(const cf_bytes *bytes, size_t size)
{
    if (is_in_a_source(bytes->data)) {
        void *data = cfi_bytes_memory->resize(bytes->data, size);
        if (data)
            return data;
    }
    bool wants_source = cfi_bytes_memory && size >= cfi_bytes_memory->from;
    if (CFI_UNLIKELY(wants_source ||
                     (cfi_may_be_mapped(bytes->data) && cfi_is_mapped(bytes->data))))
        return move_to_new(bytes, size);
    return realloc(bytes->data, size);
}

cf_status cf_bytes_resize(cf_bytes *bytes, size_t size)
{
    if (!bytes)
        return cfi_fail(CF_INVALID, "cf_bytes_resize: bytes is NULL");
    if (size == 0) {
        cf_bytes_free(bytes);
        return CF_OK;
    }
    void *data = resize(bytes, size);
    if (!data)
        return cfi_fail(CF_NOMEM, "cf_bytes_resize: out of memory for %zu bytes", size);
    *bytes = (cf_bytes){ data, size };
    return CF_OK;
}

void cf_bytes_free(cf_bytes *bytes)
{
    if (!bytes)
        return;
    if (CFI_LIKELY(!free_mapped(bytes->data)))
        free(bytes->data);
    *bytes = (cf_bytes){ NULL, 0 };
}

void cfi_raised_free(struct cfi_raised *raised)
{
    if (raised && raised->object && raised->destroy)
        raised->destroy(raised->object);
    free(raised);
}

void cfi_frame_forget(struct cfi_frame *frame)
{
    free(frame->message);
    frame->message = NULL;
    frame->message_lost = false;
    cfi_raised_free(frame->raised);
    frame->raised = NULL;
    frame->said = false;
}

int cf_raise(int code, const char *format, ...)
{
    struct cfi_frame *frame = cfi_this.frame;
    if (frame) {
        char text[512]; /* longer ones are cut */
        va_list args;
        va_start(args, format);
        int length = vsnprintf(text, sizeof text, format, args);
        va_end(args);
        char *copy = length >= 0
                         ? strdup(text)
                         : NULL; /* before it is forgotten: the arguments may be the old text */
        cfi_frame_forget(frame); /* of two in one task the later counts */
        frame->said = true;
        frame->message = copy;
        frame->message_lost = !copy;
    }
    return code ? code : -1; /* raising must fail */
}

int cf_raise_object(int code, void *object, void (*destroy)(void *object))
{
    struct cfi_frame *frame = cfi_this.frame;
    struct cfi_raised *raised = frame ? malloc(sizeof *raised) : NULL;
    if (raised) {
        *raised = (struct cfi_raised){ object, destroy };
        cfi_frame_forget(frame);
        frame->said = true;
        frame->raised = raised;
    } else if (object && destroy) {
        destroy(object); /* outside a task, or without memory, nobody can own it */
    }
    return code ? code : -1;
}
