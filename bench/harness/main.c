/* SPDX-License-Identifier: MIT */
/* PEER WORKLOAD WORKERS N: one measurement, one line.
 * Exit status 2: this pool has no way to say that.  3, 4: see bench_watch.  1: it went wrong. */
#include "measure.h"
#include "peer.h"
#include "workloads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run run;

void bench_print(const char *format, ...)
{
    va_list args;
    printf("%s %s %d %ld ", peer.name, run.workload, run.workers, run.n);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static const struct workload *find(const struct workload *list, const char *name)
{
    for (; list != NULL && list->name != NULL; list++)
        if (strcmp(list->name, name) == 0)
            return list;
    return NULL;
}

static int usage(const char *program)
{
    fprintf(stderr, "usage: %s WORKLOAD WORKERS N\n       %s version\n", program, program);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "version") == 0)
        return puts(peer.version()) < 0;
    if (argc != 4)
        return usage(argv[0]);
    run = (struct run){ .workload = argv[1], .workers = atoi(argv[2]), .n = atol(argv[3]) };
    if (run.workers < 1 || run.n < 1)
        return usage(argv[0]);
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
