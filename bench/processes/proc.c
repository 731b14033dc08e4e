/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "proc.h"
#include "run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_PROCESSES 64

static pid_t watched[MOST_PROCESSES];
static int watched_count;

void bench_watch_process(pid_t pid)
{
    if (watched_count == 0)
        watched[watched_count++] = getpid();
    for (int i = 0; i < watched_count; i++)
        if (watched[i] == pid)
            return;
    if (pid > 1 && watched_count < MOST_PROCESSES)
        watched[watched_count++] = pid;
}

/* The number after `key`, at the beginning of a line. */
static long long number_in(const char *path, const char *format)
{
    char line[200];
    long long number = -1;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0; /* it has ended */
    while (number < 0 && fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, format, &number) != 1)
            number = -1;
    fclose(file);
    if (number < 0)
        bench_die("cannot read what a process did");
    return number;
}

static void add_thread(struct activity *sum, pid_t pid, const char *thread)
{
    char path[400];
    snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, thread);
    sum->cpu_ns += number_in(path, "%lld");
    snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, thread);
    sum->switches += (long)number_in(path, "voluntary_ctxt_switches: %lld");
    sum->threads++;
}

static void add_process(struct activity *sum, pid_t pid)
{
    char path[400];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    if (threads == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(threads)) != NULL;)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != gettid())
            add_thread(sum, pid, entry->d_name);
    closedir(threads);
    sum->processes++;
}

struct activity bench_activity(void)
{
    struct activity sum = { 0 };
    for (int i = 0; i < watched_count; i++)
        add_process(&sum, watched[i]);
    return sum;
}

size_t bench_available_memory(void)
{
    return (size_t)number_in("/proc/meminfo", "MemAvailable: %lld") * 1024;
}
