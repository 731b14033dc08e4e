/* SPDX-License-Identifier: MIT */
/* Which function a worker calls: the one that was submitted, wherever it lies, or none.
 *
 * CFUTURES_PLUGIN and CFUTURES_OTHER_PLUGIN are two libraries that export the same names and do
 * different things.  Each test works on copies of its own, since a library that a pool has named
 * stays loaded. */
#define _GNU_SOURCE
#include "process_support.h"

#include <dlfcn.h>

#define SCRATCH "/tmp/cfutures-plugin-XXXXXX"

static void copy_file(const char *from, const char *to)
{
    static char buffer[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        assert_int_equal(fwrite(buffer, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

struct plugin {
    char dir[sizeof SCRATCH], path[64];
    void *handle;
    cf_fn *plus;
    cf_bytes_fn *name;
};

static struct plugin load(const char *library)
{
    struct plugin plugin = { .dir = SCRATCH };
    assert_non_null(mkdtemp(plugin.dir));
    snprintf(plugin.path, sizeof plugin.path, "%s/plugin.so", plugin.dir);
    copy_file(library, plugin.path);
    plugin.handle = dlopen(plugin.path, RTLD_NOW | RTLD_LOCAL);
    if (!plugin.handle)
        fail_msg("%s", dlerror());
    *(void **)&plugin.plus = dlsym(plugin.handle, "plugin_plus");
    *(void **)&plugin.name = dlsym(plugin.handle, "plugin_name");
    assert_true(plugin.plus && plugin.name);
    return plugin;
}

static void unload(struct plugin *plugin)
{
    if (plugin->handle)
        dlclose(plugin->handle);
    unlink(plugin->path);
    rmdir(plugin->dir);
}

static void assert_plus(cf_executor *pool, cf_fn *plus, int expected)
{
    int value = 1, result = 0;
    cf_future *f = submitted(pool, plus, &value, sizeof value, sizeof result);
    cf_status status = CF_RESULT(f, LIMIT, &result);
    if (status != CF_OK)
        fail_msg("%s: %s", cf_status_name(status), cf_last_error()->message);
    assert_int_equal(result, expected);
    cf_future_unref(f);
}

static int plus_one(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg + 1;
    return 0;
}

static void test_static_functions(void **unused)
{
    (void)unused;
    static const cf_start_method methods[] = { CF_START_FORK_SERVER, CF_START_FORK,
                                               CF_START_SPAWN };
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        cf_executor *pool =
            processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 1, .start_method = methods[i]));
        assert_plus(pool, plus_one, 2);
        end_pool(pool);
    }
}

static void assert_no_function(cf_executor *pool, cf_fn *fn)
{
    cf_future *f = NULL;
    assert_int_equal(cf_submit(pool, fn, NULL, 0, 0, &f), CF_INVALID);
    assert_null(f);
    assert_int_not_equal(strlen(cf_last_error()->message), 0);
}

static void test_what_is_no_function(void **unused)
{
    (void)unused;
    static int data;
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    cf_executor *pool = processes_of(1);
    assert_no_function(pool, NULL);
    assert_no_function(pool, (cf_fn *)(uintptr_t)&data);
    assert_no_function(pool, (cf_fn *)(uintptr_t)page);
    assert_no_function(pool, (cf_fn *)1);
    assert_works(pool);
    end_pool(pool);
    munmap(page, 4096);
}

static void test_code_that_was_made_at_run_time(void **unused)
{
    (void)unused;
    void *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        skip();
    cf_executor *pool = processes_of(1);
    assert_no_function(pool, (cf_fn *)(uintptr_t)page);
    end_pool(pool);
    munmap(page, 4096);
}

static void test_libraries_loaded_before_the_pool(void **unused)
{
    (void)unused;
    struct plugin plugin = load(CFUTURES_PLUGIN);
    cf_executor *pool = processes_of(1);
    assert_plus(pool, plugin.plus, 11);
    end_pool(pool);
    unload(&plugin);
}

static void test_libraries_loaded_after_the_workers(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(2);
    cf_future *f[2] = { busy(pool), busy(pool) };
    struct plugin plugin = load(CFUTURES_PLUGIN), other = load(CFUTURES_OTHER_PLUGIN);
    cell_set(OPENED, 1);
    for (int i = 0; i < 50; i++) {
        assert_plus(pool, plugin.plus, 11);
        assert_plus(pool, other.plus, 101); /* of the same name, at the same place in its file */
        assert_plus(pool, plus_one, 2);
    }
    assert_ends(f[0], CF_OK);
    assert_ends(f[1], CF_OK);
    end_pool(pool);
    unload(&plugin);
    unload(&other);
}

static void test_bytes_functions_of_libraries(void **unused)
{
    (void)unused;
    struct plugin plugin = load(CFUTURES_OTHER_PLUGIN);
    const void *name = NULL;
    size_t size = 0;
    cf_future *f = NULL;
    cf_executor *pool = processes_of(1);
    assert_int_equal(cf_submit_bytes(pool, plugin.name, NULL, 0, &f), CF_OK);
    assert_int_equal(cf_future_peek(f, LIMIT, &name, &size), CF_OK);
    assert_string_equal(name, "other");
    cf_future_unref(f);
    end_pool(pool);
    unload(&plugin);
}

/* The file is another one by the time that a worker looks for it. */
static void test_libraries_that_were_replaced(void **unused)
{
    (void)unused;
    int value = 1, result = 0;
    cf_executor *pool = processes_of(1);
    assert_works(pool);
    struct plugin plugin = load(CFUTURES_PLUGIN);
    unlink(plugin.path);
    copy_file(CFUTURES_OTHER_PLUGIN, plugin.path);
    cf_future *f = NULL;
    cf_status status = CF_SUBMIT(pool, plugin.plus, &value, int, &f);
    if (status == CF_OK)
        status = CF_RESULT(f, LIMIT, &result);
    if (status == CF_OK)
        assert_int_equal(result, 11);
    else
        assert_non_null(strstr(cf_last_error()->message, "plugin.so"));
    cf_future_unref(f);
    assert_works(pool);
    end_pool(pool);
    unload(&plugin);
}

static void test_libraries_that_are_gone(void **unused)
{
    (void)unused;
    int value = 1, result = 0;
    cf_future *f = NULL;
    cf_executor *pool = processes_of(1);
    assert_works(pool);
    struct plugin plugin = load(CFUTURES_PLUGIN);
    unlink(plugin.path);
    cf_status status = CF_SUBMIT(pool, plugin.plus, &value, int, &f);
    if (status == CF_OK)
        status = CF_RESULT(f, LIMIT, &result);
    if (status == CF_OK)
        assert_int_equal(result, 11);
    else
        assert_non_null(strstr(cf_last_error()->message, "plugin.so"));
    cf_future_unref(f);
    assert_works(pool);
    end_pool(pool);
    unload(&plugin);
}

/* Another library may come to lie where the first one lay: it is never taken for it. */
static void test_libraries_that_come_and_go(void **unused)
{
    (void)unused;
    cf_executor *pool = processes_of(1);
    for (int i = 0; i < 10; i++) {
        struct plugin plugin = load(i % 2 ? CFUTURES_OTHER_PLUGIN : CFUTURES_PLUGIN);
        assert_plus(pool, plugin.plus, i % 2 ? 101 : 11);
        unload(&plugin);
    }
    end_pool(pool);
}

int main(void)
{
    begin_process_tests();
    const struct CMUnitTest tests[] = {
        TALLIED(test_static_functions),
        TALLIED(test_what_is_no_function),
        TALLIED(test_code_that_was_made_at_run_time),
        TALLIED(test_libraries_loaded_before_the_pool),
        TALLIED(test_libraries_loaded_after_the_workers),
        TALLIED(test_bytes_functions_of_libraries),
        TALLIED(test_libraries_that_were_replaced),
        TALLIED(test_libraries_that_are_gone),
        TALLIED(test_libraries_that_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
