/* SPDX-License-Identifier: MIT */
/* One thread for each connection, so that a slow answer keeps no other waiting. */
#include "http_server.h"
#include "common.h"
#include <arpa/inet.h>
#include <microhttpd.h>

static struct MHD_Daemon *server;
static unsigned answer_delay_ms;

static const char *const users[] = {
    "Ada Lovelace",    "Alan Turing",  "Barbara Liskov",    "Dennis Ritchie", "Donald Knuth",
    "Edsger Dijkstra", "Grace Hopper", "Katherine Johnson", "Ken Thompson",   "Tony Hoare",
};

static void write_post(FILE *page, unsigned id)
{
    fprintf(page, "{\"userId\": %u, \"id\": %u, \"title\": \"Post number %u\"", (id - 1) / 10 + 1,
            id, id);
}

/* The ten posts of a user, with some text in each. */
static void write_posts_of(FILE *page, unsigned user)
{
    static const char *const words[] = { "a",   "task",   "is",  "done",  "when",
                                         "the", "last",   "one", "waits", "for",
                                         "the", "future", "of",  "all",   "others" };
    unsigned random = user;
    for (unsigned i = 1; i <= 10; i++) {
        fputs(i == 1 ? "[" : ", ", page);
        write_post(page, (user - 1) * 10 + i);
        fputs(", \"body\": \"and", page);
        for (int word = 0; word < 500; word++) {
            random = random * 1664525 + 1013904223;
            fprintf(page, " %s", words[(random >> 16) % (sizeof words / sizeof *words)]);
        }
        fputs("\"}", page);
    }
    fputs("]", page);
}

/* Writes the JSON text for a path, or returns false for one that does not exist. */
static bool write_page(FILE *page, const char *path, const char *user)
{
    unsigned id = user != NULL ? (unsigned)atoi(user) : 0;
    if (strcmp(path, "/posts") == 0 && id >= 1 && id <= 10) {
        write_posts_of(page, id);
        return true;
    }
    if (sscanf(path, "/users/%u", &id) == 1 && id >= 1 && id <= 10) {
        fprintf(page, "{\"id\": %u, \"name\": \"%s\"}", id, users[id - 1]);
        return true;
    }
    if (sscanf(path, "/posts/%u", &id) == 1 && id >= 1 && id <= 100) {
        write_post(page, id);
        fputs("}", page);
        return true;
    }
    fputs("{}", page);
    return false;
}

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    char *text = NULL;
    size_t size = 0;
    (void)data, (void)method, (void)version, (void)upload, (void)upload_size, (void)state;
    const char *user = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "userId");
    FILE *page = open_memstream(&text, &size);
    if (page == NULL)
        return MHD_NO;
    unsigned code = write_page(page, path, user) ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
    fclose(page);
    sleep_for(answer_delay_ms / 1000.0);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE);
    enum MHD_Result queued = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return queued;
}

unsigned http_server_start(unsigned delay_ms)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    answer_delay_ms = delay_ms;
    server =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION, 0, NULL,
                         NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_END);
    if (server == NULL) {
        fprintf(stderr, "cannot start the HTTP server\n");
        exit(1);
    }
    return MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT)->port;
}

void http_server_stop(void)
{
    MHD_stop_daemon(server);
}
