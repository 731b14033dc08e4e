/* SPDX-License-Identifier: MIT */
/* The count of out-of-memory kills on made-up machines. */
#define _GNU_SOURCE
#include "made_up.h"

#include "base/oom.h"

#define GROUP          "proc/self/cgroup"
#define MOUNTS         "proc/self/mountinfo"
#define VMSTAT         "proc/vmstat"
#define V1_MOUNT       "33 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define V2_MOUNT       "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define CONTROL(kills) "oom_kill_disable 1\nunder_oom 1\noom_kill " kills "\n"
#define EVENTS(kills)  "low 1\nhigh 2\nmax 3\noom 4\noom_kill " kills "\noom_group_kill 5\n"

struct oom_case {
    const char *name;
    uint64_t kills;
    struct file files[8];
};

static const struct oom_case cases[] = {
    { "nothing at all", 0, { { 0 } } },
    { "v2",
      3,
      { { GROUP, "0::/job\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/job/memory.events", EVENTS("3") } } },
    { "v1",
      7,
      { { GROUP, "4:memory:/job\n" },
        { MOUNTS, V1_MOUNT },
        { "sys/fs/cgroup/memory/job/memory.oom_control", CONTROL("7") } } },
    { "more than 32 bits",
      UINT64_C(18446744073709551615),
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/memory.events", EVENTS("18446744073709551615") } } },
    { "the own group counts, not those above, beside or below it",
      1,
      { { GROUP, "0::/pod/job\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/pod/job/memory.events", EVENTS("1") },
        { "sys/fs/cgroup/pod/memory.events", EVENTS("9") },
        { "sys/fs/cgroup/pod/job2/memory.events", EVENTS("9") },
        { "sys/fs/cgroup/pod/job/below/memory.events", EVENTS("9") } } },
    { "a container's mount",
      2,
      { { GROUP, "0::/docker/abc\n" },
        { MOUNTS, "32 31 0:29 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/memory.events", EVENTS("2") } } },
    { "a container's mount, the path told from inside",
      2,
      { { GROUP, "0::/\n" },
        { MOUNTS, "32 31 0:29 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/memory.events", EVENTS("2") } } },
    { "hybrid: memory is in v1",
      5,
      { { GROUP, "4:memory:/job\n0::/job\n" },
        { MOUNTS, V1_MOUNT "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/memory/job/memory.oom_control", CONTROL("5") },
        { "sys/fs/cgroup/unified/job/cgroup.procs", "1\n" } } },
    { "a tree that is mounted twice counts once",
      4,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT "36 24 0:30 / /cg rw - cgroup2 cgroup2 rw\n" },
        { "sys/fs/cgroup/memory.events", EVENTS("4") },
        { "cg/memory.events", EVENTS("4") } } },

    { "no group's file: the machine's count",
      6,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { VMSTAT, "pgfault 12\noom_kill 6\noom_kill_x 7\n" } } },
    { "no cgroups at all", 8, { { VMSTAT, "nr_oom_kill 7\noom_kill 8\n" } } },
    { "the group's 0 comes before the machine's count",
      0,
      { { GROUP, "0::/\n" },
        { MOUNTS, V2_MOUNT },
        { "sys/fs/cgroup/memory.events", EVENTS("0") },
        { VMSTAT, "oom_kill 6\n" } } },
    { "old kernels have no such line",
      2,
      { { GROUP, "4:memory:/\n" },
        { MOUNTS, V1_MOUNT },
        { "sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n" },
        { VMSTAT, "oom_kill 2\n" } } },
    { "nothing that is a number",
      0,
      { { VMSTAT, "oom_kill\noom_kill \noom_kill x\noom_kill -1\noom_kill +1\noom_kill  1\n"
                  "oom_kill 1 \noom_kill 1x\noom_kill 18446744073709551616\n" } } },
};

static void test_kills(void **state)
{
    const struct oom_case *c = *state;
    for (const struct file *file = c->files; file->path; file++)
        put(file);
    unsigned before = open_descriptors();
    assert_int_equal(cfi_oom_kills(root), c->kills);
    assert_int_equal(open_descriptors(), before);
}

/* A group whose file has a path that is too long to open. */
static void test_path_too_long(void **state)
{
    (void)state;
    char group[2 * PATH_MAX] = "0::/top";
    for (size_t n = strlen(group); n < PATH_MAX + 100; n += 2)
        memcpy(group + n, "/d", 3);
    put(&(struct file){ GROUP, group });
    put(&(struct file){ MOUNTS, V2_MOUNT });
    put(&(struct file){ VMSTAT, "oom_kill 1\n" });
    assert_int_equal(cfi_oom_kills(root), 1);
}

/* What this machine says cannot shrink. */
static void test_this_machine(void **state)
{
    (void)state;
    uint64_t before = cfi_oom_kills("");
    assert_true(cfi_oom_kills("") >= before);
}

int main(void)
{
    enum { CASES = sizeof cases / sizeof cases[0] };
    struct CMUnitTest counts[CASES];
    for (size_t i = 0; i < CASES; i++)
        counts[i] = (struct CMUnitTest){ cases[i].name, test_kills, make_root, remove_root,
                                         (void *)(uintptr_t)&cases[i] };
    const struct CMUnitTest others[] = {
        cmocka_unit_test_setup_teardown(test_path_too_long, make_root, remove_root),
        cmocka_unit_test(test_this_machine),
    };
    int failed = cmocka_run_group_tests_name("counts", counts, NULL, NULL);
    return failed + cmocka_run_group_tests_name("others", others, NULL, NULL);
}
