/* SPDX-License-Identifier: MIT */
/* Did memory run out?  A process that the kernel's out-of-memory killer ends looks like one that
 * somebody killed; only the kernel's counts tell them apart. */
#ifndef CFI_BASE_OOM_H
#define CFI_BASE_OOM_H

#include <stdint.h>

/* How often the killer has struck: in this process's memory cgroup, or where that does not say, on
 * the whole machine.  0 where nothing says.  Only the difference of two counts means something. */
uint64_t cfi_oom_kills(const char *root);

#endif
