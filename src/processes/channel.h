/* SPDX-License-Identifier: MIT */
/* The channel between a pool and one worker process: what lies in the memory they share, and what goes
 * through the socket beside it.  pool.h tells the parent's side, worker.c the worker's.
 *
 * Slots.  Task number i (counted from 0, modulo 2^32) lies in slot i % CFI_SLOTS; the result comes
 * back in the same slot.  The slot's state is the whole protocol:
 *
 *     EMPTY --parent--> SENT --worker--> RUNNING --worker--> DONE    (and on to SENT, a lap later)
 *                        | `--parent--> EMPTY                        taken back
 *                        `--parent--> SKIP --worker--> DONE          cancelled: it does not run; or to EMPTY, taken back
 *
 * The worker takes the slots in order and one at a time, so at most one is RUNNING: if the worker
 * dies, that is the task that it dies of.  Only SENT and SKIP mean something to the worker, all else
 * is "nothing yet".  The parent reads a slot as a result only between what it has read and what it
 * has sent; every field is copied before it is checked before it is used, since the worker can write
 * all of this at any time.
 *
 * Orders: a slot's content is published by the swap of its state (release) and read after a load or
 * swap of it (acquire).  Two pairs of "write mine, then look at yours" decide who is woken, so these
 * four are seq_cst: state = SENT, then worker_bell (parent); worker_bell = ASLEEP, then state (worker);
 * state = DONE, then bell and ring_at (worker); ring_at and bell, then state (parent).
 *
 * Bells.  worker_bell: the word that an idle worker sleeps on; the parent swaps ASLEEP for AWAKE and
 * wakes it.  bell: what the worker does when it has done a task number >= ring_at: nothing (QUIET), write
 * to the eventfd (MANAGER), or wake the thread that sleeps on this word (WAITER); it swaps the word
 * for QUIET first, so it rings once each time it is asked to.  It rings unasked (by the eventfd if the
 * word is QUIET) when the result heap is half full.
 *
 * Larger things.  Arguments and results that do not fit into the slot lie in one of two heaps, which are
 * rings: position p lies at p % CFI_HEAP, nothing wraps around, positions only grow.  Beyond
 * CFI_HEAP_LARGEST they lie in blocks: sealed memfds, sent once through the socket and then named by
 * number.  The parent's blocks can be mapped by the worker for reading only.  The worker numbers its own:
 * 0 to CFI_KEPT_BLOCKS - 1 are used again when the parent has set block_back, others once. */
#ifndef CFI_PROCESSES_CHANNEL_H
#define CFI_PROCESSES_CHANNEL_H

#include "../base/atomics.h"
#include "../wire/identity.h"

enum {
    CFI_SLOTS = 512,
    CFI_INLINE_ARG = 80,
    CFI_INLINE_RESULT = 96,
    CFI_HEAP = 256 * 1024,
    CFI_HEAP_LARGEST = 64 * 1024,
    CFI_KEPT_BLOCKS = 8,
    CFI_MOST_TEXT = 512 /* what a task says when it fails, with the 0 at its end */
};
/* Kept blocks of one side may hold so much together; what is larger is used once. */
#define CFI_KEPT_BYTES (UINT64_C(256) << 20)

enum cfi_slot_state { CFI_EMPTY, CFI_SENT, CFI_SLOT_RUNNING, CFI_SLOT_DONE, CFI_SKIP };

enum cfi_call {
    CFI_CALL_FN,    /* cf_fn                                                */
    CFI_CALL_BYTES, /* cf_bytes_fn                                          */
    CFI_CALL_PIECE  /* cf_fn, cf_bytes_fn or cf_range_fn on a piece of a map: wire/piece.h */
};

enum cfi_place { CFI_INLINE, CFI_IN_HEAP, CFI_IN_BLOCK };

struct cfi_slot {
    /* The parent's: */
    cfi_u32 state;
    uint8_t call;
    uint8_t arg_place;
    uint16_t image; /* of the function: index into cfi_arena.images */
    uint64_t offset;
    uint64_t arg_size;
    uint64_t arg_at;      /* position in the heap, or the block's number  */
    uint64_t result_size; /* CFI_CALL_FN                             */
    uint32_t shared;      /* CFI_CALL_PIECE: block with what all pieces of a map share; 0: none */
    uint32_t is_timed;    /* the worker shall say when it began           */
    unsigned char arg[CFI_INLINE_ARG];
    /* The worker's: */
    _Alignas(CFI_CACHE_LINE) int32_t code; /* what the function returned  */
    uint8_t status;       /* CF_OK: it ran.  Else why not: a cf_status, with a text */
    uint8_t result_place; /* of the result, or when it failed of its text  */
    uint16_t has_text;    /* it failed, and the result is what it said     */
    uint64_t size;        /* of the result or text                         */
    uint64_t at;          /* position in the heap, or the block's number   */
    cfi_i64 began_at;     /* CLOCK_MONOTONIC, if is_timed; of a piece: how many elements are done */
    unsigned char result[CFI_INLINE_RESULT];
};
_Static_assert(sizeof(struct cfi_slot) == 256, "two lines there, two lines back");

enum cfi_worker_bell { CFI_AWAKE, CFI_ASLEEP };
enum cfi_bell { CFI_QUIET, CFI_RING_MANAGER, CFI_RING_WAITER };

struct cfi_arena {
    _Alignas(CFI_CACHE_LINE) cfi_u32 bell;
    cfi_u32 ring_at;
    _Alignas(CFI_CACHE_LINE) cfi_u32 worker_bell;
    _Alignas(
        CFI_CACHE_LINE) cfi_u32 stop_at; /* number + 1 of the task that is asked to stop; 0: none */
    cfi_bool stop_all;                   /* shutdown: whatever runs is asked to stop */
    cfi_bool quit;                       /* when there is nothing SENT: finalize and leave */
    cfi_u64 results_read; /* position up to which the parent has copied the result heap */
    cfi_bool block_back[CFI_KEPT_BLOCKS]; /* the parent is done with it; the worker clears it */
    _Alignas(
        CFI_CACHE_LINE) cfi_u64 cost; /* the worker's: ns a task takes, times 16; 0: not known */
    /* Written by the parent before the first slot that names them is SENT: */
    _Alignas(CFI_CACHE_LINE) struct cfi_image_name images[CFI_MAX_IMAGES];
    _Alignas(4096) struct cfi_slot slots[CFI_SLOTS];
    unsigned char arg_heap[CFI_HEAP];
    unsigned char result_heap[CFI_HEAP];
};

/* Where a ring's next item of `size` bytes goes: the first position from `at` on, a multiple of 16,
 * at which it does not wrap around. */
static inline uint64_t cfi_heap_fit(uint64_t at, uint64_t size)
{
    at = (at + 15) & ~UINT64_C(15);
    return at % CFI_HEAP + size <= CFI_HEAP ? at : (at / CFI_HEAP + 1) * CFI_HEAP;
}

/* ---- the socket: SOCK_SEQPACKET, one struct cfi_message each, with descriptors where it says so ---- */

enum { CFI_CHANNEL_VERSION = 1 };

enum cfi_message_type {
    CFI_WELCOME = 1, /* parent, first: descriptors are arena, eventfd, the parent's pidfd and, with
                        data_size, the initializer's data (a memfd)                                */
    CFI_READY, /* worker: it takes tasks now                                                 */
    CFI_UNFIT, /* worker: its initializer failed, with `code` and `text`; it leaves          */
    CFI_BLOCK, /* either: a block of `size` bytes, `number`; its memfd.  If there is one with that
                  number (a kept one that was given back), this takes its place                  */
    CFI_BLOCK_GONE /* parent: no slot will name its block `number` any more                      */
};

struct cfi_message {
    uint32_t type;
    uint32_t version; /* CFI_WELCOME */
    uint64_t size;    /* CFI_WELCOME: of the arena */
    uint32_t number;  /* CFI_WELCOME: of the worker */
    int32_t code;
    /* CFI_WELCOME: */
    uint8_t has_initializer, has_finalizer;
    struct cfi_identity initializer, finalizer; /* images as in the arena */
    uint64_t data_size;
    char text[CFI_MOST_TEXT]; /* CFI_WELCOME: the pool's name */
};

/* Sends a message with `count` descriptors (at most 4); 0 or an errno. */
int cfi_message_send(int socket, const struct cfi_message *message, const int *fds, int count);

/* Receives one, without waiting if `flags` has MSG_DONTWAIT.  Descriptors that come with it are
 * CLOEXEC and the caller's: *ret_count of them, at most 4.  0, an errno (EAGAIN: there is none;
 * EPROTO: it is none, and its descriptors are closed; EMFILE: it is one, but there was no room for its descriptors), or EPIPE when the other side has gone. */
int cfi_message_receive(int socket, struct cfi_message *message, int flags, int fds[4],
                        int *ret_count);

/* A sealed memfd of `size` bytes, with memory of its own (else ENOSPC or ENOMEM, never SIGBUS), mapped
 * for reading and writing.  With read_only others can map it for reading only.  0 or an errno. */
int cfi_memory_new(const char *name, size_t size, bool read_only, int *ret_fd, void **ret_data);

/* Moves a descriptor that is to be kept away from the numbers of the standard streams, even if the program
 * has closed these.  -1 for -1, and with errno if it cannot be moved: then it is closed. */
int cfi_high_descriptor(int fd);

/* Maps another's memfd after it was checked: it has `size` bytes and cannot shrink.  0 or an errno. */
int cfi_memory_map(int fd, size_t size, bool read_only, void **ret_data);

#endif
