/* SPDX-License-Identifier: MIT */
/* In a worker process: the parent's blocks, mapped for reading while the parent has a use for them. */
#ifndef CFI_PROCESSES_GIVEN_H
#define CFI_PROCESSES_GIVEN_H

#include <stddef.h>
#include <stdint.h>

/* The block's content; waits for the message that announces it.  NULL, with the last error set: it
 * cannot be mapped, or has less than `size` bytes.  Only the thread that does the tasks calls this. */
const void *cfi_given_find(int channel, uint32_t number, size_t size);

/* Sees to what has come through the channel by now. */
void cfi_given_look(int channel);

#endif
