/* SPDX-License-Identifier: MIT */
#include "run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct run run;

bool bench_read_arguments(const char *peer, int argc, char **argv)
{
    if (argc == 4)
        run = (struct run){ peer, argv[1], atoi(argv[2]), atol(argv[3]), 1, false };
    if (run.workers > 0 && run.n > 0)
        return true;
    fprintf(stderr, "usage: %s WORKLOAD WORKERS N\n       %s version\n", argv[0], argv[0]);
    return false;
}

void bench_print(const char *format, ...)
{
    va_list args;
    printf("%s %s %d %ld ", run.peer, run.workload, run.workers, run.n);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void bench_die(const char *what)
{
    fprintf(stderr, "%s %s: %s\n", run.peer, run.workload, what);
    exit(1);
}
