/* SPDX-License-Identifier: MIT */
/* A piece of a map as bytes: some elements that a worker does one after the other, and what became of
 * them.  cf_map and its kin over processes cut their arrays into these (processes/map.c). */
#ifndef CFI_WIRE_PIECE_H
#define CFI_WIRE_PIECE_H

#include "../base/atomics.h"
#include "../core/map.h"
#include "identity.h"

/* ---- in the worker ---- */

/* Does the piece that `arg` describes and makes its answer.  `shared`: what all pieces of the map
 * have in common (a range's context), or NULL.  Returns what a cf_bytes_fn returns: 0 also when an
 * element failed, since the answer says so. */
int cfi_piece_run(cfi_function *fn, const void *arg, size_t arg_size, const void *shared,
                  cfi_i64 *progress, cf_bytes *answer);

/* ---- where the map was called ---- */

/* How many bytes describe `count` elements from `begin` on; SIZE_MAX: more than memory can hold.  With
 * is_shared the context of a range is not among them. */
size_t cfi_piece_size(const struct cfi_map_work *work, size_t begin, size_t count, bool is_shared);

/* Writes the description to `arg`, aligned to 16. */
void cfi_piece_write(const struct cfi_map_work *work, size_t begin, size_t count, bool is_shared,
                     void *arg);

enum { CFI_PIECE_TEXT = 512 };

/* How it ended. */
struct cfi_piece_end {
    size_t done;      /* elements that succeeded, the first ones: their results are in the array */
    int64_t took;     /* nanoseconds */
    cf_status status; /* of the element after them: CF_FAILED, CF_STOPPED, CF_NOMEM.  CF_OK: none
                         failed; if not all are done the piece was asked to stop */
    int code;
    int pid;
    char text[CFI_PIECE_TEXT];
};

/* Reads the answer, whose bytes may be hostile, and puts the results into the map's array; those of a
 * single element of varying size are moved out of it.  false: it is no answer to this piece. */
bool cfi_piece_read(const struct cfi_map_work *work, size_t begin, size_t count, cf_bytes *answer,
                    struct cfi_piece_end *ret);

#endif
