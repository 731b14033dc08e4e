/* SPDX-License-Identifier: MIT */
/* What a program was asked for, and the one line that it answers: PEER WORKLOAD WORKERS N, then
 * key=value words.  For threads and processes alike. */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct run {
    const char *peer;
    const char *workload;
    int workers;
    long n;
    int producers;     /* threads that submit */
    bool caller_works; /* pools whose waiting caller runs tasks count it as one of the workers */
};
extern struct run run;

/* Reads WORKLOAD WORKERS N.  false: they are not that, and it has said so. */
bool bench_read_arguments(const char *peer, int argc, char **argv);

void bench_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void bench_die(const char *what);

#ifdef __cplusplus
}
#endif
#endif
