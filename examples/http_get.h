/* SPDX-License-Identifier: MIT */
/* One HTTP request with libcurl, made to be called inside a task. */
#ifndef EXAMPLES_HTTP_GET_H
#define EXAMPLES_HTTP_GET_H

#include "common.h"
#include <curl/curl.h>

static inline size_t http_append(char *data, size_t size, size_t count, void *body_of_page)
{
    cf_bytes *body = body_of_page;
    size_t old = body->size;
    if (cf_bytes_resize(body, old + size * count) != CF_OK)
        return 0; /* libcurl takes this for a failed write and ends the transfer */
    memcpy((char *)body->data + old, data, size * count);
    return size * count;
}

/* Appends the page to `body`.  Returns 0, or the code of a cf_raise that says what went wrong. */
static inline int http_get(const char *url, cf_bytes *body)
{
    char message[CURL_ERROR_SIZE] = "";
    CURL *curl = curl_easy_init();
    if (curl == NULL)
        return cf_raise(CURLE_OUT_OF_MEMORY, "no memory");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L); /* threads and SIGALRM do not go together */
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 20L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, http_append);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_cleanup(curl);
    if (code == CURLE_OK)
        return 0;
    return cf_raise((int)code, "%s", message[0] != '\0' ? message : curl_easy_strerror(code));
}

#endif
