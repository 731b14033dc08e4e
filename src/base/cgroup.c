/* SPDX-License-Identifier: MIT */
/* /proc/self/cgroup says which group the process is in, /proc/self/mountinfo where the tree of
 * groups is mounted and which part of it: a container's mount starts at the container's own group,
 * while the path may still be told as the host sees it.  Version 1 (a tree for each controller) and
 * version 2 (one tree for all) can be mounted side by side; only one of them has the controller that
 * is asked for, and the files of the other are simply not there.
 *
 * The kernel writes these files, yet sandboxes and containers show pieces of them: whatever is
 * missing or makes no sense is passed over. */
#define _GNU_SOURCE
#include "cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tree of groups, as found so far. */
struct tree {
    char *path;   /* the process's group in it, or NULL */
    bool located; /* a mount shows that group           */
};

struct search {
    const char *root, *controller;
    struct tree v1, v2;
    bool guess; /* second time: trees of which no mount shows our group */
    cfi_cgroup_fn *fn;
    void *data;
};

struct mount {
    const char *root;  /* the group that is mounted */
    const char *point; /* where                     */
};

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

static void report(const struct search *search, enum cfi_cgroup_version version, const char *point,
                   const char *path)
{
    char mount[PATH_MAX];
    int length = snprintf(mount, sizeof mount, "%s%s", search->root, point);
    if (length >= 0 && (size_t)length < sizeof mount)
        search->fn(search->data, version, mount, path);
}

/* A mount that does not show our group may still be our container's, with the path told from
 * outside or from inside: then its root is the best guess.  It may as well be somebody else's part
 * of the tree, so a mount that shows our group takes precedence. */
static void look_at(struct search *search, enum cfi_cgroup_version version,
                    const struct mount *mount)
{
    struct tree *tree = version == CFI_CGROUP_V1 ? &search->v1 : &search->v2;
    if (!tree->path)
        return;
    const char *rest = below(mount->root, tree->path);
    if (search->guess && !tree->located) {
        report(search, version, mount->point, "");
    } else if (!search->guess && rest) {
        tree->located = true;
        report(search, version, mount->point, rest);
    }
}

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
static void read_group(void *data, char *line)
{
    struct search *search = data;
    (void)strsep(&line, ":");
    const char *controllers = strsep(&line, ":");
    if (!line || line[0] != '/')
        return;
    struct tree *tree = controllers[0] == '\0' ? &search->v2 : &search->v1;
    if (!tree->path && (tree == &search->v2 || has_word(controllers, search->controller)))
        tree->path = strdup(line);
}

/* "id parent device root point options [optional ...] - type source options" */
static void read_mount(void *data, char *line)
{
    struct search *search = data;
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
        look_at(search, CFI_CGROUP_V2, &mount);
    else if (strcmp(type, "cgroup") == 0 && has_word(line, search->controller))
        look_at(search, CFI_CGROUP_V1, &mount);
}

bool cfi_each_line(const char *root, const char *name, cfi_line_fn *fn, void *data)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s%s", root, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        fn(data, line);
    }
    free(line);
    (void)fclose(file);
    return true;
}

static bool is_missing(const struct tree *tree)
{
    return tree->path && !tree->located;
}

void cfi_cgroups(const char *root, const char *controller, cfi_cgroup_fn *fn, void *data)
{
    struct search search = { .root = root, .controller = controller, .fn = fn, .data = data };
    (void)cfi_each_line(root, "/proc/self/cgroup", read_group, &search);
    if (search.v1.path || search.v2.path)
        (void)cfi_each_line(root, "/proc/self/mountinfo", read_mount, &search);
    search.guess = is_missing(&search.v1) || is_missing(&search.v2);
    if (search.guess)
        (void)cfi_each_line(root, "/proc/self/mountinfo", read_mount, &search);
    free(search.v1.path);
    free(search.v2.path);
}
