/* SPDX-License-Identifier: MIT */
/* PEER WORKLOAD WORKERS N: one measurement, one line.
 * Exit status 2: this pool has no way to say that.  3, 4: see bench_watch.  1: it went wrong. */
#include "measure.h"
#include "peer.h"
#include "workloads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct workload *find(const struct workload *list, const char *name)
{
    for (; list != NULL && list->name != NULL; list++)
        if (strcmp(list->name, name) == 0)
            return list;
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "version") == 0)
        return puts(peer.version()) < 0;
    if (!bench_read_arguments(peer.name, argc, argv))
        return 1;
    const struct workload *workload = find(bench_workloads, run.workload);
    if (workload == NULL)
        workload = find(peer.own, run.workload);
    if (workload == NULL)
        return 2;
    run.producers = workload->producers;
    run.caller_works = workload->caller_works;
    workload->go();
    return 0;
}
