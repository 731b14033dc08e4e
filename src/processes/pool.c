/* SPDX-License-Identifier: MIT */
#include "../core/error.h"

#include <errno.h>

cf_status cf_process_pool_new(const cf_process_pool_options *options, cf_executor **ret)
{
    (void)options, (void)ret;
    return cfi_fail_system(ENOSYS, "cf_process_pool_new");
}
