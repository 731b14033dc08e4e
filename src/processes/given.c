/* SPDX-License-Identifier: MIT */
/* A worker that cannot go on here leaves: its parent has gone or talks nonsense, or there is no memory
 * for a few bytes.  The pool then makes another. */
#include "given.h"

#include "../core/error.h"
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct given {
    uint32_t number;
    int error; /* why it could not be mapped */
    void *data;
    size_t size;
};

static struct {
    struct given *blocks;
    size_t count, room;
} table;

static struct given *find(uint32_t number)
{
    for (size_t i = table.count; i > 0; i--) { /* the latest are asked for most */
        if (table.blocks[i - 1].number == number)
            return &table.blocks[i - 1];
    }
    return NULL;
}

static void drop(uint32_t number)
{
    struct given *block = find(number);
    if (!block)
        return;
    if (block->error == 0)
        munmap(block->data, block->size);
    *block = table.blocks[--table.count];
}

static void add(const struct cfi_message *message, int fd)
{
    if (table.count == table.room) {
        size_t room = table.room * 2 + 8;
        struct given *blocks = realloc(table.blocks, room * sizeof *blocks);
        if (!blocks)
            _exit(1);
        table.blocks = blocks;
        table.room = room;
    }
    struct given *block = &table.blocks[table.count++];
    *block = (struct given){ .number = message->number, .size = message->size };
    block->error = cfi_memory_map(fd, block->size, true, &block->data);
}

/* Sees to one message; false: there is none, and the flags say not to wait. */
static bool take_message(int channel, int flags)
{
    struct cfi_message message;
    int fds[4], count;
    int error = cfi_message_receive(channel, &message, flags, fds, &count);
    if (error == EAGAIN)
        return false;
    if (error != 0)
        _exit(1);
    if (message.type == CFI_BLOCK || message.type == CFI_BLOCK_GONE)
        drop(message.number);
    if (message.type == CFI_BLOCK && count == 1)
        add(&message, fds[0]);
    while (count > 0)
        close(fds[--count]);
    return true;
}

const void *cfi_given_find(int channel, uint32_t number, size_t size)
{
    struct given *block;
    while (!(block = find(number)))
        (void)take_message(channel, 0);
    if (block->error != 0) {
        (void)cfi_fail(CF_NOMEM, "the worker cannot map an argument of %zu bytes: %s", block->size,
                       strerror(block->error));
        return NULL;
    }
    if (block->size < size) {
        (void)cfi_fail(CF_INVALID, "an argument of %zu bytes lies in a block of %zu", size,
                       block->size);
        return NULL;
    }
    return block->data;
}

void cfi_given_look(int channel)
{
    while (take_message(channel, MSG_DONTWAIT))
        ;
}
