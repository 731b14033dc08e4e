/* SPDX-License-Identifier: MIT */
/* The CPU count on made-up machines: each case is the files that such a machine shows. */
#define _GNU_SOURCE
#include "made_up.h"

#include <sched.h>

#include "base/cpus.h"

/* ---- a kernel with as many CPUs as the test wants ---- */

static int fake_cpus;       /* in the mask                                 */
static size_t fake_machine; /* a smaller set than this many CPUs is EINVAL */
static int fake_error;
static int fake_calls;

/* Stands in front of libc's. */
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
    assert_int_equal(pid, 0);
    fake_calls++;
    if (fake_error != 0 || size * CHAR_BIT < fake_machine) {
        errno = fake_error ? fake_error : EINVAL;
        return -1;
    }
    memset(set, 0, size);
    for (int i = 0; i < fake_cpus; i++)
        CPU_SET_S(fake_machine - 1 - (size_t)i, size, set);
    return 0;
}

static void machine_of(int cpus, size_t largest)
{
    fake_cpus = cpus;
    fake_machine = largest;
    fake_error = 0;
}

static int make_machine(void **state)
{
    machine_of(4, 1024);
    return make_root(state);
}

/* ---- quotas ---- */

#define V1_MOUNT "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
#define V2_MOUNT "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1(group, quota, period)                                                                   \
    { "sys/fs/cgroup/cpu" group "/cpu.cfs_quota_us", quota "\n" },                                 \
    {                                                                                              \
        "sys/fs/cgroup/cpu" group "/cpu.cfs_period_us", period "\n"                                \
    }
#define GROUP  "proc/self/cgroup"
#define MOUNTS "proc/self/mountinfo"

struct quota_case {
    const char *name;
    double quota;
    struct file files[8];
};

static const struct quota_case cases[] = {
    { "nothing at all", 0, { { 0 } } },

    /* version 1 */
    { "v1",
      1.5,
      { { GROUP, "1:cpu:/job\n" }, { MOUNTS, V1_MOUNT }, V1("/job", "150000", "100000") } },
    { "v1 without a limit",
      0,
      { { GROUP, "1:cpu:/" }, { MOUNTS, V1_MOUNT }, V1("", "-1", "100000") } },
    { "v1 in the root group",
      3,
      { { GROUP, "1:cpu:/" }, { MOUNTS, V1_MOUNT }, V1("", "30000", "10000") } },
    { "v1 mounted together with cpuacct",
      2,
      { { GROUP, "9:memory:/m\n4:cpuacct,cpu:/job\n" },
        { MOUNTS, "30 31 0:28 / /sys/fs/cgroup/memory rw - cgroup x,cpu,y rw,memory\n"
                  "32 31 0:29 / /cg rw - cgroup cgroup rw,cpu,cpuacct\n" },
        { "cg/job/cpu.cfs_quota_us", "200000\n" },
        { "cg/job/cpu.cfs_period_us", "100000\n" },
        { "sys/fs/cgroup/memory/job/cpu.cfs_quota_us", "100000\n" },
        { "sys/fs/cgroup/memory/job/cpu.cfs_period_us", "100000\n" } } },
    { "v1 cpuset is another controller",
      0,
      { { GROUP, "1:cpuset:/job\n" }, { MOUNTS, V1_MOUNT }, V1("/job", "150000", "100000") } },
    { "v1 ancestor is tighter",
      0.5,
      { { GROUP, "1:cpu:/pod/job\n" },
        { MOUNTS, V1_MOUNT },
        V1("/pod/job", "400000", "100000"),
        V1("/pod", "50000", "100000") } },
    { "v1 without a period",
      0,
      { { GROUP, "1:cpu:/job\n" },
        { MOUNTS, V1_MOUNT },
        { "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "150000\n" } } },
    { "v1 period 0",
      0,
      { { GROUP, "1:cpu:/job\n" }, { MOUNTS, V1_MOUNT }, V1("/job", "150000", "0") } },

    /* version 2 */
    { "v2",
      2.5,
      { { GROUP, "0::/job\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/job/cpu.max", "250000 100000\n" } } },
    { "v2 max",
      0,
      { { GROUP, "0::/job\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/job/cpu.max", "max 100000\n" } } },
    { "v2 grandparent is tighter",
      1,
      { { GROUP, "0::/a/b/c\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/a/b/c/cpu.max", "300000 100000\n" },
        { "sys/fs/cgroup/a/b/cpu.max", "max 100000\n" },
        { "sys/fs/cgroup/a/cpu.max", "50000 50000\n" } } },
    { "v2 own group is tighter",
      1,
      { { GROUP, "0::/a/b\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/a/b/cpu.max", "100000 100000\n" },
        { "sys/fs/cgroup/a/cpu.max", "300000 100000\n" } } },
    { "v2 group is gone, its parent is not",
      2,
      { { GROUP, "0::/a/b (deleted)\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/a/cpu.max", "200000 100000\n" } } },
    { "v2 siblings and the namesake do not count",
      0,
      { { GROUP, "0::/job\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/job2/cpu.max", "100000 100000\n" },
        { "sys/fs/cgroup/job/below/cpu.max", "100000 100000\n" } } },

    /* both */
    { "hybrid: cpu is in v1",
      2,
      { { GROUP, "1:cpu,cpuacct:/job\n0::/job\n" },
        { MOUNTS, V1_MOUNT "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" },
        V1("/job", "200000", "100000"),
        { "sys/fs/cgroup/unified/job/cgroup.procs", "1\n" } } },
    { "hybrid: cpu is in v2",
      3,
      { { GROUP, "1:name=systemd:/job\n0::/job\n" },
        { MOUNTS, "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
                  "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/unified/job/cpu.max", "300000 100000\n" } } },

    { "a mounted tree without a group in it",
      2,
      { { GROUP, "1:cpu:/job\n" },
        { MOUNTS, V1_MOUNT V2_MOUNT },
        V1("/job", "200000", "100000"),
        { "sys/fs/cgroup/cpu.max", "100000 100000\n" } } },

    /* containers */
    { "mount starts at the own group, path as the host sees it",
      2,
      { { GROUP, "1:cpu:/docker/abc\n" },
        { MOUNTS, "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n" },
        V1("", "200000", "100000") } },
    { "group below the mount's root",
      1,
      { { GROUP, "0::/docker/abc/sub\n" },
        { MOUNTS, "32 31 0:29 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/sub/cpu.max", "100000 100000\n" },
        { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "mount's root is deeper than the path",
      2,
      { { GROUP, "0::/\n" },
        { MOUNTS, "32 31 0:29 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "mount's root only begins like the path",
      4,
      { { GROUP, "0::/docker/abcdef\n" },
        { MOUNTS, "32 31 0:29 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/def/cpu.max", "100000 100000\n" },
        { "sys/fs/cgroup/cpu.max", "400000 100000\n" } } },
    { "another group's mount counts for nothing beside the own",
      3,
      { { GROUP, "0::/job\n" },
        { MOUNTS, "51 31 0:30 /other /mnt/other rw - cgroup2 cgroup2 rw\n" V2_MOUNT
                  "52 31 0:30 /other2 /mnt/other2 rw - cgroup2 cgroup2 rw\n" },
        { "mnt/other/cpu.max", "100000 100000\n" },
        { "mnt/other2/cpu.max", "100000 100000\n" },
        { "sys/fs/cgroup/job/cpu.max", "300000 100000\n" } } },
    { "group above the namespace",
      2,
      { { GROUP, "0::/../sibling\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/sibling/cpu.max", "100000 100000\n" },
        { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "group whose name begins with dots",
      2,
      { { GROUP, "0::/..job\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/..job/cpu.max", "200000 100000\n" } } },

    /* names */
    { "blanks and backslashes in the mount",
      2,
      { { GROUP, "0::/my job\\/sub\n" },
        { MOUNTS, "35 24 0:30 /my\\040job\\134 /c\\040g\\011 rw a:1 b:2 - cgroup2 none rw\n" },
        { "c g\t/sub/cpu.max", "200000 100000\n" } } },
    { "backslash without three octal digits",
      2,
      { { GROUP, "0::/\n" },
        { MOUNTS, "35 24 0:30 / /c\\09g\\04g\\4 rw - cgroup2 none rw\n" },
        { "c\\09g\\04g\\4/cpu.max", "200000 100000\n" } } },
    { "colon in the group's name",
      2,
      { { GROUP, "0::/a:b\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/a:b/cpu.max", "200000 100000\n" } } },
    { "mount without a source",
      2,
      { { GROUP, "0::/\n" },
        { MOUNTS, "35 24 0:30 / /sys/fs/cgroup rw -  x\n35 24 0:30 / /cg rw - cgroup2  rw\n" },
        { "cg/cpu.max", "200000 100000\n" } } },

    /* files that make no sense */
    { "no mountinfo", 0, { { GROUP, "0::/\n" }, { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "no cgroup", 0, { { MOUNTS, V2_MOUNT }, { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "no group's files", 0, { { GROUP, "1:cpu:/\n0::/\n" }, { MOUNTS, V1_MOUNT V2_MOUNT } } },
    { "garbage in cgroup",
      0,
      { { GROUP, "\n:\n::\n0:\n0::\n0::job\n\x01\xff\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "the first group of a tree counts",
      2,
      { { GROUP, "0::/a\n0::/b\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/a/cpu.max", "200000 100000\n" },
        { "sys/fs/cgroup/b/cpu.max", "100000 100000\n" } } },
    { "garbage in mountinfo, then a good line",
      2,
      { { GROUP, "0::/\n" },
        { MOUNTS, "\n \n-\n - \n1 2 3 4 5 6 -\n1 2 3 4 5 6 - cgroup2\n1 2 3 4 5 6 7 cgroup2 a b\n"
                  "1 2 3 4 5 6 - cgroup2 x\n" V2_MOUNT },
        { "sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
    { "empty cpu.max",
      0,
      { { GROUP, "0::/\n" }, { MOUNTS, V2_MOUNT }, { "sys/fs/cgroup/cpu.max", "" } } },
    { "cpu.max is a word",
      0,
      { { GROUP, "0::/\n" }, { MOUNTS, V2_MOUNT }, { "sys/fs/cgroup/cpu.max", "lots\n" } } },
    { "cpu.max without a period",
      0,
      { { GROUP, "0::/\n" }, { MOUNTS, V2_MOUNT }, { "sys/fs/cgroup/cpu.max", "200000\n" } } },
    { "cpu.max with another separator",
      0,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/cpu.max", "200000/100000\n" } } },
    { "cpu.max with more than that",
      0,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/cpu.max", "200000 100000 7\n" } } },
    { "cpu.max below 0",
      0,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/cpu.max", "-200000 -100000\n" } } },
    { "cpu.max beyond any number",
      0,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/cpu.max", "99999999999999999999 99999999999999999999\n" } } },
    { "v1 quota is a word",
      0,
      { { GROUP, "1:cpu:/\n" }, { MOUNTS, V1_MOUNT }, V1("", "1e5", "100000") } },
};

static void test_quota(void **state)
{
    const struct quota_case *c = *state;
    for (const struct file *file = c->files; file->path; file++)
        put(file);
    double quota = cfi_cgroup_quota(root);
    if (quota < c->quota || quota > c->quota)
        fail_msg("%s: %g CPUs, not %g", c->name, quota, c->quota);
}

/* An ancestor's limit counts even where the group's own path is too long to open. */
static void test_path_too_long(void **state)
{
    (void)state;
    char group[2 * PATH_MAX] = "0::/top";
    for (size_t n = strlen(group); n < PATH_MAX + 100; n += 2)
        memcpy(group + n, "/d", 3);
    put(&(struct file){ GROUP, group });
    put(&(struct file){ MOUNTS, V2_MOUNT });
    put(&(struct file){ "sys/fs/cgroup/top/cpu.max", "200000 100000\n" });
    assert_true(cfi_cgroup_quota(root) == 2.0);
}

/* ---- counts ---- */

static void count_is(const char *cpu_max, unsigned expected)
{
    put(&(struct file){ GROUP, "0::/\n" });
    put(&(struct file){ MOUNTS, V2_MOUNT });
    put(&(struct file){ "sys/fs/cgroup/cpu.max", cpu_max });
    assert_int_equal(cfi_cpu_count_under(root), expected);
}

static void test_count(void **state)
{
    (void)state;
    count_is("max 100000\n", 4);
    count_is("1000 100000\n", 1);
    count_is("100000 100000\n", 1);
    count_is("100001 100000\n", 2);
    count_is("250000 100000\n", 3);
    count_is("300000 100000\n", 3);
    count_is("350000 100000\n", 4);
    count_is("400000 100000\n", 4);
    count_is("900000 100000\n", 4);
    count_is("9000000000000000000 1\n", 4);
    machine_of(1, 1024);
    count_is("900000 100000\n", 1);
}

static void test_large_machines(void **state)
{
    (void)state;
    machine_of(1500, 1500);
    assert_int_equal(cfi_cpu_count_under(root), 1500);
    machine_of(3, 70000);
    assert_int_equal(cfi_cpu_count_under(root), 3);
}

static void test_affinity_fails(void **state)
{
    (void)state;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    fake_error = EPERM;
    fake_calls = 0;
    assert_int_equal(cfi_cpu_count_under(root), online);
    assert_int_equal(fake_calls, 1); /* a larger set would not help */
    fake_error = 0;
    fake_machine = SIZE_MAX; /* no set is large enough */
    assert_int_equal(cfi_cpu_count_under(root), online);
    count_is("1 100000\n", 1);
}

static void test_no_descriptor_is_left(void **state)
{
    (void)state;
    unsigned before = open_descriptors();
    count_is("200000 100000\n", 2);
    assert_int_equal(open_descriptors(), before);
}

static void test_this_machine(void **state)
{
    (void)state;
    machine_of(2, 1024);
    assert_in_range(cfi_cpu_count(), 1, 2);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_machine, remove_root)

int main(void)
{
    enum { CASES = sizeof cases / sizeof cases[0] };
    struct CMUnitTest quotas[CASES];
    for (size_t i = 0; i < CASES; i++)
        quotas[i] = (struct CMUnitTest){ cases[i].name, test_quota, make_machine, remove_root,
                                         (void *)(uintptr_t)&cases[i] };
    const struct CMUnitTest counts[] = {
        TEST(test_path_too_long),  TEST(test_count),        TEST(test_large_machines),
        TEST(test_affinity_fails), TEST(test_this_machine), TEST(test_no_descriptor_is_left),
    };
    int failed = cmocka_run_group_tests_name("quotas", quotas, NULL, NULL);
    return failed + cmocka_run_group_tests_name("counts", counts, NULL, NULL);
}
