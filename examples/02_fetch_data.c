/* SPDX-License-Identifier: MIT */
/* Three slow calls at once, with strings in and strings out: sizes that vary are a cf_bytes. */
#include "common.h"

static int fetch_data(const void *endpoint, size_t size, cf_bytes *result)
{
    printf("Fetching %s\n", (const char *)endpoint);
    sleep_for(0.5);
    if (cf_bytes_resize(result, strlen("Data from ") + size) != CF_OK)
        return cf_raise(1, "no memory");
    snprintf(result->data, result->size, "Data from %s", (const char *)endpoint);
    return 0;
}

int main(void)
{
    static const char *const endpoints[] = { "api/data1", "api/data2", "api/data3" };
    cf_auto_executor *executor = NULL;
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 3), &executor));

    double start = now();
    cf_future *futures[3];
    for (int i = 0; i < 3; i++)
        TRY(cf_submit_bytes(executor, fetch_data, endpoints[i], strlen(endpoints[i]) + 1,
                            &futures[i]));

    cf_completed *completed;
    size_t i;
    TRY(cf_as_completed(futures, 3, CF_FOREVER, &completed));
    while (cf_completed_next(completed, &i) == CF_OK) {
        const void *text;
        size_t size;
        TRY(cf_future_peek(futures[i], 0, &text, &size));
        puts(text);
    }
    printf("Three calls of 0.5 s each took %.2f s\n", now() - start);
    cf_completed_free(completed);
    cf_future_unref_all(futures, 3);
    return 0;
}
