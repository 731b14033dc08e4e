/* SPDX-License-Identifier: MIT */
/* Map over words: arguments and results of any size, each result the caller's to free. */
#include "common.h"
#include <ctype.h>

static int upper(const void *word, size_t size, cf_bytes *result)
{
    if (cf_bytes_resize(result, size) != CF_OK)
        return cf_raise(1, "no memory");
    for (size_t i = 0; i < size; i++)
        ((char *)result->data)[i] = (char)toupper(((const unsigned char *)word)[i]);
    return 0;
}

int main(void)
{
    static char items[4][8] = { "apple", "banana", "cherry", "date" };
    cf_bytes words[4], results[4];
    for (int i = 0; i < 4; i++)
        words[i] = (cf_bytes){ items[i], strlen(items[i]) + 1 };

    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 2), &executor));
    TRY(cf_map_bytes(executor, upper, words, 4, results, CF_FOREVER));
    for (int i = 0; i < 4; i++) {
        puts(results[i].data);
        cf_bytes_free(&results[i]);
    }
    return 0;
}
