/* SPDX-License-Identifier: MIT */
/* Twelve users fetched by five workers.  Two of the addresses are bad: user 11 does not exist, and
 * nobody listens where user 12 should be.  The index of a future leads back to its address. */
#include "http_get.h"
#include "http_server.h"
#include <jansson.h>

enum { USERS = 12 };

static int take_name(const cf_bytes *page, cf_bytes *result)
{
    json_t *user = json_loadb(page->data, page->size, 0, NULL);
    const char *name = json_string_value(json_object_get(user, "name"));
    int code = 0;
    if (name == NULL)
        code = cf_raise(1, "no name in the answer");
    else if (cf_bytes_resize(result, strlen(name) + 1) != CF_OK)
        code = cf_raise(1, "no memory");
    else
        memcpy(result->data, name, result->size);
    json_decref(user);
    return code;
}

/* The argument is an address, the result the name of the user who lives there. */
static int fetch_user_name(const void *url, size_t url_size, cf_bytes *result)
{
    cf_bytes page = { NULL, 0 };
    (void)url_size;
    int code = http_get(url, &page);
    if (code == 0)
        code = take_name(&page, result);
    cf_bytes_free(&page);
    return code;
}

static void print_users(cf_future **futures, char urls[][64])
{
    cf_completed *completed;
    size_t i;
    TRY(cf_as_completed(futures, USERS, CF_SECONDS(30), &completed));
    while (cf_completed_next(completed, &i) == CF_OK) {
        const void *name;
        size_t size;
        if (cf_future_peek(futures[i], 0, &name, &size) == CF_OK)
            printf("User %zu: %s\n", i + 1, (const char *)name);
        else
            printf("User %zu failed: %s (%s)\n", i + 1, cf_last_error()->message, urls[i]);
    }
    cf_completed_free(completed);
}

int main(void)
{
    char urls[USERS][64];
    cf_future *futures[USERS];
    cf_auto_executor *executor = NULL;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    unsigned port = http_server_start(100);
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 5), &executor));
    for (int i = 0; i < USERS; i++) {
        snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%u/users/%d", i < 11 ? port : 1, i + 1);
        TRY(cf_submit_bytes(executor, fetch_user_name, urls[i], strlen(urls[i]) + 1, &futures[i]));
    }
    print_users(futures, urls);
    cf_future_unref_all(futures, USERS);
    http_server_stop();
    curl_global_cleanup();
    return 0;
}
