/* SPDX-License-Identifier: MIT */
#include <cfutures/provider.h>

int cf_worker_run_channel(int channel)
{
    (void)channel;
    return 1;
}
