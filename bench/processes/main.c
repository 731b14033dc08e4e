/* SPDX-License-Identifier: MIT */
/* PEER WORKLOAD[:PARAMETER] WORKERS N: one measurement, one line.
 * Exit status 2: this peer has no way to say that.  1: it went wrong. */
#include "pool.h"

#include <stdio.h>
#include <string.h>

long bench_parameter, bench_second_parameter;

static const struct workload *find(const struct workload *list, const char *name)
{
    for (; list != NULL && list->name != NULL; list++)
        if (strncmp(list->name, name, strcspn(name, ":")) == 0 &&
            strlen(list->name) == strcspn(name, ":"))
            return list;
    return NULL;
}

static void read_parameters(const char *name)
{
    const char *colon = strchr(name, ':');
    if (colon != NULL)
        sscanf(colon, ":%ld/%ld", &bench_parameter, &bench_second_parameter);
}

int main(int argc, char **argv)
{
    if (peer.first != NULL)
        peer.first();
    if (argc == 2 && strcmp(argv[1], "version") == 0)
        return puts(peer.version()) < 0;
    if (!bench_read_arguments(peer.name, argc, argv))
        return 1;
    read_parameters(run.workload);
    if (peer.begin != NULL)
        peer.begin();
    const struct workload *workload = find(peer.own, run.workload);
    if (workload == NULL)
        workload = find(bench_workloads, run.workload);
    if (workload == NULL)
        return 2;
    workload->go();
    return 0;
}
