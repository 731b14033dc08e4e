/* SPDX-License-Identifier: MIT */
/* A kill counts in the group of the process that was killed, whichever group's limit was hit, and in
 * version 2 in all groups above it as well.  So the process's own group is the only one to ask, as
 * long as its children stay in it. */
#define _GNU_SOURCE
#include "oom.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"

struct count {
    uint64_t kills;
    bool found;
};

/* "oom_kill 3".  A group that is mounted twice still counts once. */
static void read_count(void *data, char *line)
{
    static const char key[] = "oom_kill ";
    struct count *count = data;
    if (strncmp(line, key, sizeof key - 1) != 0)
        return;
    const char *text = line + sizeof key - 1;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0')
        return;
    count->found = true;
    if (n > count->kills)
        count->kills = n;
}

static void read_group(void *data, enum cfi_cgroup_version version, const char *mount,
                       const char *path)
{
    const char *name = version == CFI_CGROUP_V1 ? "memory.oom_control" : "memory.events";
    char file[PATH_MAX];
    int length = snprintf(file, sizeof file, "%s/%s", path, name);
    if (length >= 0 && (size_t)length < sizeof file)
        (void)cfi_each_line(mount, file, read_count, data);
}

uint64_t cfi_oom_kills(const char *root)
{
    struct count count = { 0, false };
    cfi_cgroups(root, "memory", read_group, &count);
    if (!count.found)
        (void)cfi_each_line(root, "/proc/vmstat", read_count, &count);
    return count.kills;
}
