/* SPDX-License-Identifier: MIT */
/* How many CPUs this process may use: what its affinity mask lets it run on, and no more than its
 * cgroups give it time for.  In a container the second is often the smaller. */
#ifndef CFI_BASE_CPUS_H
#define CFI_BASE_CPUS_H

/* At least 1.  Asks anew each time: both limits can change while the process runs. */
unsigned cfi_cpu_count(void);

/* The same with the files of /proc and /sys looked for under `root`; "" is the real one. */
unsigned cfi_cpu_count_under(const char *root);

/* The tightest CPU quota of the process's cgroups and all their ancestors, in CPUs (1.5 is 150 ms
 * of each 100 ms).  0: none, or none that can be read. */
double cfi_cgroup_quota(const char *root);

#endif
