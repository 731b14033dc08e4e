/* SPDX-License-Identifier: MIT */
/* /proc/self/cgroup says which group the process is in, /proc/self/mountinfo where the tree of
 * groups is mounted and which part of it: a container's mount starts at the container's own group,
 * while the path may still be told as the host sees it.  Version 1 (a tree for the cpu controller)
 * and version 2 (one tree for all) can be mounted side by side; only one of them has the cpu
 * controller, and the files of the other are simply not there.
 *
 * The kernel writes these files, yet sandboxes and containers show pieces of them: whatever is
 * missing or makes no sense is no limit. */
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

/* One tree of groups, as found so far. */
struct tree {
    char *path;    /* the process's group in it, or NULL */
    bool located;  /* a mount shows that group           */
    double limit;  /* the tightest quota on its way up   */
    double likely; /* the same for mounts that do not    */
};

struct search {
    const char *root;
    struct tree v1, v2;
};

struct mount {
    const char *root;  /* the group that is mounted */
    const char *point; /* where                     */
};

typedef void line_fn(struct search *search, char *line);
typedef double quota_fn(const char *directory);

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

/* ---- from the group up to the root of a mount ---- */

/* `rest` is the group's path below the mount's root: empty, or it begins with a slash. */
static double tightest_up(const char *root, const char *point, const char *rest, quota_fn *quota)
{
    double limit = 0;
    for (size_t n = strlen(rest);;) {
        char path[PATH_MAX];
        /* A path that is cut here has no room for the name of a file either. */
        (void)snprintf(path, sizeof path, "%s%s%.*s", root, point, (int)n, rest);
        limit = tighter(limit, quota(path));
        if (n == 0)
            return limit;
        while (rest[--n] != '/')
            ;
    }
}

static bool is_above(const char *path)
{
    return strncmp(path, "/..", 3) == 0 && (path[3] == '/' || path[3] == '\0');
}

/* What remains of `path` below the group `top`; NULL: it is elsewhere, or above the namespace. */
static const char *below(const char *top, const char *path)
{
    size_t length = strcmp(top, "/") == 0 ? 0 : strlen(top);
    if (strncmp(top, path, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return NULL;
    const char *rest = path + length;
    return is_above(rest) ? NULL : rest;
}

/* A mount that does not show our group may still be our container's, with the path told from
 * outside or from inside: then its root is the best guess.  It may as well be somebody else's part
 * of the tree, so a mount that shows our group takes precedence. */
static void look_at(struct tree *tree, const struct mount *mount, const char *root, quota_fn *quota)
{
    if (!tree->path)
        return;
    const char *rest = below(mount->root, tree->path);
    double limit = tightest_up(root, mount->point, rest ? rest : "", quota);
    if (rest) {
        tree->located = true;
        tree->limit = tighter(tree->limit, limit);
    } else {
        tree->likely = tighter(tree->likely, limit);
    }
}

static double found(const struct tree *tree)
{
    return tree->located ? tree->limit : tree->likely;
}

/* ---- the two files of /proc ---- */

static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (;;) {
        size_t n = strcspn(list, ",");
        if (n == length && memcmp(list, word, n) == 0)
            return true;
        if (list[n] == '\0')
            return false;
        list += n + 1;
    }
}

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

/* mountinfo writes blanks, backslashes and the like as a backslash and three octal digits. */
static char *unescape(char *text)
{
    char *out = text;
    for (char *in = text; *in; out++) {
        if (in[0] == '\\' && is_octal(in[1]) && is_octal(in[2]) && is_octal(in[3])) {
            *out = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 4;
        } else {
            *out = *in++;
        }
    }
    *out = '\0';
    return text;
}

/* "4:cpu,cpuacct:/path", or "0::/path" for version 2. */
static void read_group(struct search *search, char *line)
{
    (void)strsep(&line, ":");
    const char *controllers = strsep(&line, ":");
    if (!line || line[0] != '/')
        return;
    struct tree *tree = controllers[0] == '\0' ? &search->v2 : &search->v1;
    if (!tree->path && (tree == &search->v2 || has_word(controllers, "cpu")))
        tree->path = strdup(line);
}

/* "id parent device root point options [optional ...] - type source options" */
static void read_mount(struct search *search, char *line)
{
    char *field[6];
    for (int i = 0; i < 6; i++)
        field[i] = strsep(&line, " ");
    const char *word;
    do
        word = strsep(&line, " ");
    while (word && strcmp(word, "-") != 0);
    const char *type = strsep(&line, " ");
    (void)strsep(&line, " ");
    if (!line)
        return;
    const struct mount mount = { unescape(field[3]), unescape(field[4]) };
    if (strcmp(type, "cgroup2") == 0)
        look_at(&search->v2, &mount, search->root, v2_quota);
    else if (strcmp(type, "cgroup") == 0 && has_word(line, "cpu"))
        look_at(&search->v1, &mount, search->root, v1_quota);
}

static void for_lines(struct search *search, const char *name, line_fn *fn)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/proc/self/%s", search->root, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return;
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        fn(search, line);
    }
    free(line);
    (void)fclose(file);
}

double cfi_cgroup_quota(const char *root)
{
    struct search search = { .root = root };
    for_lines(&search, "cgroup", read_group);
    if (search.v1.path || search.v2.path)
        for_lines(&search, "mountinfo", read_mount);
    free(search.v1.path);
    free(search.v2.path);
    return tighter(found(&search.v1), found(&search.v2));
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
