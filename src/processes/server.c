/* SPDX-License-Identifier: MIT */
#include <cfutures.h>

void cf_worker_main(void) {}
