/* SPDX-License-Identifier: MIT */
/* Where the files of this process's control groups are. */
#ifndef CFI_BASE_CGROUP_H
#define CFI_BASE_CGROUP_H

#include <stdbool.h>

enum cfi_cgroup_version { CFI_CGROUP_V1 = 1, CFI_CGROUP_V2 };

/* A group: the directory "MOUNT" "PATH", where PATH is empty or begins with a slash.  The groups
 * above it, as far as they are to be seen, are found by cutting PATH shorter. */
typedef void cfi_cgroup_fn(void *data, enum cfi_cgroup_version version, const char *mount,
                           const char *path);

/* Calls fn for the process's group wherever a tree is mounted that may have the controller: that
 * of version 2, and that of version 1 which is the controller's.  The files of /proc and /sys are
 * looked for under `root`; "" is the real one. */
void cfi_cgroups(const char *root, const char *controller, cfi_cgroup_fn *fn, void *data);

/* Calls fn for each line of the file "ROOT" "NAME", without its end; fn may write into it.  false:
 * it cannot be opened. */
typedef void cfi_line_fn(void *data, char *line);
bool cfi_each_line(const char *root, const char *name, cfi_line_fn *fn, void *data);

#endif
