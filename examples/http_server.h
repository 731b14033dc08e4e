/* SPDX-License-Identifier: MIT */
/* A small HTTP server on the loopback interface, so that the page examples need no network. */
#ifndef EXAMPLES_HTTP_SERVER_H
#define EXAMPLES_HTTP_SERVER_H

/* Serves /posts/1 to /posts/100, /posts?userId=1 to 10 (ten posts with text) and /users/1 to
 * /users/10 as JSON, each answer after `delay_ms`; anything else is a 404.  Returns the port that
 * the system chose; ends the program if it cannot. */
unsigned http_server_start(unsigned delay_ms);
void http_server_stop(void);

#endif
