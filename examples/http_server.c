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

/* The JSON text for a path, or false for one that does not exist. */
static bool write_page(const char *path, char *text, size_t size)
{
    unsigned id = 0;
    if (sscanf(path, "/users/%u", &id) == 1 && id >= 1 && id <= 10) {
        snprintf(text, size, "{\"id\": %u, \"name\": \"%s\"}", id, users[id - 1]);
        return true;
    }
    if (sscanf(path, "/posts/%u", &id) == 1 && id >= 1 && id <= 100) {
        snprintf(text, size, "{\"userId\": %u, \"id\": %u, \"title\": \"Post number %u\"}",
                 (id - 1) / 10 + 1, id, id);
        return true;
    }
    snprintf(text, size, "{}");
    return false;
}

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    char text[128];
    (void)data, (void)method, (void)version, (void)upload, (void)upload_size, (void)state;
    unsigned code = write_page(path, text, sizeof text) ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
    sleep_for(answer_delay_ms / 1000.0);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
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
