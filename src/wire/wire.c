/* SPDX-License-Identifier: MIT */
#include "../core/error.h"

#include <cfutures/provider.h>
#include <errno.h>

cf_status cf_wire_encode(cf_future *future, cf_bytes *ret_request)
{
    (void)future, (void)ret_request;
    return cfi_fail_system(ENOSYS, "cf_wire_encode");
}
cf_status cf_wire_call(const void *request, size_t size, cf_bytes *ret_reply)
{
    (void)request, (void)size, (void)ret_reply;
    return cfi_fail_system(ENOSYS, "cf_wire_call");
}
cf_status cf_wire_settle(cf_future *future, const void *reply, size_t size)
{
    (void)future, (void)reply, (void)size;
    return cfi_fail_system(ENOSYS, "cf_wire_settle");
}
