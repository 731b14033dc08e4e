/* SPDX-License-Identifier: MIT */
/* A piece of a map as bytes: some elements that a worker does one after the other, and what became of
 * them.  cf_map and its kin over processes cut their arrays into these (processes/map.c). */
#ifndef CFI_WIRE_PIECE_H
#define CFI_WIRE_PIECE_H

#include "identity.h"

/* In the worker: does the piece that `arg` describes and makes its answer.  `shared`: what all pieces
 * of the map have in common (a range's context), or NULL.  Returns what a cf_bytes_fn returns: 0 also
 * when an element failed, since the answer says so. */
int cfi_piece_run(cfi_function *fn, const void *arg, size_t arg_size, const void *shared,
                  cf_bytes *answer);

#endif
