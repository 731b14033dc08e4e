/* SPDX-License-Identifier: MIT */
/* A quota is found in the process's group and all those above it; where the files are, cgroup.h
 * tells.  Whatever is missing there or makes no sense is no limit. */
#define _GNU_SOURCE
#include "cpus.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"

static double tighter(double a, double b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* ---- the quota of one group ---- */

enum { SMALL = 64 }; /* both numbers of cpu.max have at most 20 digits */

static bool read_small(const char *directory, const char *name, char text[SMALL])
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, SMALL - 1);
    (void)close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* The number that starts at `text`, in whole microseconds; 0: there is none, or not above 0. */
static double microseconds(const char *text, const char **ret_end)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    *ret_end = end;
    return errno == 0 && n > 0 ? (double)n : 0;
}

static bool ends(const char *text)
{
    return *text == '\0' || strcmp(text, "\n") == 0;
}

static double ratio(double quota, double period)
{
    return period > 0 ? quota / period : 0;
}

static double v1_number(const char *directory, const char *name)
{
    char text[SMALL];
    const char *end;
    if (!read_small(directory, name, text))
        return 0;
    double n = microseconds(text, &end);
    return ends(end) ? n : 0;
}

static double v1_quota(const char *directory)
{
    return ratio(v1_number(directory, "cpu.cfs_quota_us"),
                 v1_number(directory, "cpu.cfs_period_us"));
}

/* cpu.max is "QUOTA PERIOD"; a quota of "max" is none. */
static double v2_quota(const char *directory)
{
    char text[SMALL];
    const char *end;
    if (!read_small(directory, "cpu.max", text))
        return 0;
    double quota = microseconds(text, &end);
    if (*end != ' ')
        return 0;
    double period = microseconds(end + 1, &end);
    return ends(end) ? ratio(quota, period) : 0;
}

/* ---- the quota of a group and those above it ---- */

static void look_up(void *data, enum cfi_cgroup_version version, const char *mount,
                    const char *group)
{
    double *limit = data;
    for (size_t n = strlen(group);;) {
        char path[PATH_MAX];
        /* A path that is cut here has no room for the name of a file either. */
        (void)snprintf(path, sizeof path, "%s%.*s", mount, (int)n, group);
        *limit = tighter(*limit, version == CFI_CGROUP_V1 ? v1_quota(path) : v2_quota(path));
        if (n == 0)
            return;
        while (group[--n] != '/')
            ;
    }
}

double cfi_cgroup_quota(const char *root)
{
    double limit = 0;
    cfi_cgroups(root, "cpu", look_up, &limit);
    return limit;
}

/* ---- counting ---- */

enum { FIRST_SET = 1024, LARGEST_SET = 1 << 20 };

/* 0 or errno; EINVAL: this machine's mask needs a larger set. */
static int count_mask(size_t cpus, unsigned *ret_count)
{
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set)
        return ENOMEM;
    size_t size = CPU_ALLOC_SIZE(cpus);
    int error = sched_getaffinity(0, size, set) == 0 ? 0 : errno;
    if (error == 0)
        *ret_count = (unsigned)CPU_COUNT_S(size, set);
    CPU_FREE(set);
    return error;
}

static unsigned affinity(void)
{
    unsigned count = 0;
    int error = EINVAL;
    for (size_t cpus = FIRST_SET; error == EINVAL && cpus <= LARGEST_SET; cpus *= 2)
        error = count_mask(cpus, &count);
    if (count > 0)
        return count;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

unsigned cfi_cpu_count_under(const char *root)
{
    unsigned cpus = affinity();
    double quota = cfi_cgroup_quota(root);
    if (quota == 0 || quota >= cpus)
        return cpus;
    unsigned whole = (unsigned)quota;
    return whole < quota ? whole + 1 : whole;
}

unsigned cfi_cpu_count(void)
{
    return cfi_cpu_count_under("");
}
