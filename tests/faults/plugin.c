/* SPDX-License-Identifier: MIT */
/* A library that is loaded while a pool runs.  It is built twice, with different answers. */
#include <cfutures.h>
#include <string.h>

int plugin_plus(const void *arg, void *result);
int plugin_name(const void *arg, size_t arg_size, cf_bytes *result);

int plugin_plus(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg + PLUGIN_PLUS;
    return 0;
}

int plugin_name(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    if (cf_bytes_resize(result, sizeof PLUGIN_NAME) != CF_OK)
        return 1;
    memcpy(result->data, PLUGIN_NAME, sizeof PLUGIN_NAME);
    return 0;
}
