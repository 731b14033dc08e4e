/* SPDX-License-Identifier: MIT */
/* Four pages from a web server, one after the other and then all at once.  Each answer takes
 * 200 ms, and four threads wait for four of them in the time of one. */
#include "http_get.h"
#include "http_server.h"

enum { PAGES = 4 };

struct url {
    char text[64];
};

static int fetch_url(const void *arg, void *result)
{
    const struct url *url = arg;
    cf_bytes body = { NULL, 0 };
    int code = http_get(url->text, &body);
    *(size_t *)result = body.size;
    cf_bytes_free(&body);
    return code;
}

int main(void)
{
    struct url urls[PAGES];
    size_t one_by_one[PAGES], at_once[PAGES];
    curl_global_init(CURL_GLOBAL_DEFAULT);
    unsigned port = http_server_start(200);
    for (int i = 0; i < PAGES; i++)
        snprintf(urls[i].text, sizeof urls[i].text, "http://127.0.0.1:%u/posts/%d", port, i + 1);

    double start = now();
    for (int i = 0; i < PAGES; i++)
        if (fetch_url(&urls[i], &one_by_one[i]) != 0)
            return 1;
    printf("Sequential: %.3f s\n", now() - start);

    start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), &executor));
        TRY(CF_MAP(executor, fetch_url, urls, PAGES, at_once, CF_FOREVER));
    }
    printf("Concurrent: %.3f s\n", now() - start);

    for (int i = 0; i < PAGES; i++)
        printf("/posts/%d: %zu bytes, %zu bytes\n", i + 1, one_by_one[i], at_once[i]);
    http_server_stop();
    curl_global_cleanup();
    return 0;
}
