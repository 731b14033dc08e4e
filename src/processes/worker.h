/* SPDX-License-Identifier: MIT */
/* The whole life of a worker process, see worker.c. */
#ifndef CFI_PROCESSES_WORKER_H
#define CFI_PROCESSES_WORKER_H

#include <stdbool.h>

/* Returns the exit status.  A worker of the fork server dies with it; any other watches its host itself,
 * for which it needs a second thread. */
int cfi_worker_serve(int channel, bool has_server);

#endif
