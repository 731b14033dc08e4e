/* SPDX-License-Identifier: MIT */
/* Errors: the thread's last one, and helpers that set it and hand the status on. */
#ifndef CFI_CORE_ERROR_H
#define CFI_CORE_ERROR_H

#include "../base/compiler.h"

#include <cfutures.h>

/* Each sets this thread's last error and returns its status. */
cf_status cfi_fail(cf_status status, const char *format, ...) CFI_PRINTF(2, 3) CFI_COLD;
cf_status cfi_fail_system(int error, const char *what) CFI_COLD; /* CF_SYSTEM; also sets errno */
cf_status cfi_fail_with(const cf_error *error) CFI_COLD;         /* a copy of a future's error */
cf_status cfi_fail_fixed(cf_status status,
                         const char *literal); /* cheap: for polls and time-outs */

/* An error that is only a status, for those who need a cf_error and have nothing to say. */
const cf_error *cfi_plain_error(cf_status status);

/* A copy of `options` with everything this library knows: NULL gives zeros.  CF_INVALID when its
 * size is below `least` or bytes beyond `known` are not zero; `what` names the struct in the
 * message. */
cf_status cfi_options_copy(void *copy, size_t known, size_t least, const void *options,
                           const char *what);

#endif
