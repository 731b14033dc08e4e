/* SPDX-License-Identifier: MIT */
/* Names of functions: what has one, that it is found again, and that a library which comes where
 * another one was is never taken for it.  How programs are linked: identity/program.c. */
#define _GNU_SOURCE
#include "support.h"

#include "identity/plugin.h"
#include "wire/identity.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>

static int of_the_test(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 0;
}

static struct cfi_identity name(cfi_function *fn)
{
    struct cfi_identity identity = { CFI_MAX_IMAGES, 0 };
    assert_int_equal(cfi_identify(fn, &identity), CF_OK);
    return identity;
}

static cfi_function *at(const void *address)
{
    return (cfi_function *)(uintptr_t)address;
}

/* ---- naming ---- */

static void assert_is_found_again(cfi_function *fn)
{
    struct cfi_identity identity = name(fn);
    const struct cfi_image_name *image = cfi_image_name(identity.image);
    assert_non_null(image);
    unsigned number = CFI_MAX_IMAGES;
    assert_int_equal(cfi_image_find(image, &number), CF_OK);
    assert_int_equal(number, identity.image);
    assert_ptr_equal(cfi_image_function(number, identity.offset), fn);
}

static void test_functions(void **unused)
{
    (void)unused;
    assert_is_found_again((cfi_function *)of_the_test);
    assert_is_found_again((cfi_function *)cf_map);
    assert_is_found_again((cfi_function *)qsort);
    assert_is_found_again((cfi_function *)dlopen);
}

static void test_what_an_image_is_called(void **unused)
{
    (void)unused;
    const struct cfi_image_name *program = cfi_image_name(name((cfi_function *)of_the_test).image);
    const struct cfi_image_name *libc = cfi_image_name(name((cfi_function *)abs).image);
    assert_string_equal(program->path, "");
    assert_int_equal(libc->path[0], '/');
    assert_int_not_equal(memcmp(program->id, libc->id, sizeof libc->id), 0);
    const struct cfi_image_name zero = { .kind = 0 };
    assert_memory_equal(libc->id + libc->id_size, zero.id, sizeof zero.id - libc->id_size);
    size_t length = strlen(libc->path);
    assert_memory_equal(libc->path + length, zero.path, sizeof zero.path - length);
}

/* More than the cache has room for, so that they push each other out. */
static void test_many_addresses(void **unused)
{
    (void)unused;
    enum { ADDRESSES = 2000 };
    const char *begin = (const char *)(uintptr_t)qsort;
    struct cfi_identity first = name((cfi_function *)qsort);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < ADDRESSES; i++) {
            struct cfi_identity identity = name(at(begin + i));
            assert_int_equal(identity.image, first.image);
            assert_int_equal(identity.offset, first.offset + i);
        }
    }
}

static void assert_has_no_name(const void *address)
{
    struct cfi_identity identity = { 7, 7 };
    char message[100];
    snprintf(message, sizeof message, "%#llx is not the code of a program or library",
             (unsigned long long)(uintptr_t)address);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cfi_identify(at(address), &identity), CF_INVALID);
        assert_string_equal(cf_last_error()->message, message);
        assert_int_equal(identity.image, 7);
        assert_int_equal(identity.offset, 7);
    }
}

static void test_what_is_no_function(void **unused)
{
    (void)unused;
    static int variable;
    static const int constant = 5;
    void *heap = malloc(1);
    void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(code, MAP_FAILED);
    assert_has_no_name(NULL);
    assert_has_no_name(&variable);
    assert_has_no_name(&constant);
    assert_has_no_name("text");
    assert_has_no_name(&heap);
    assert_has_no_name(heap);
    assert_has_no_name(code);
    assert_has_no_name((const void *)UINTPTR_MAX);
    assert_has_no_name((const void *)(uintptr_t)1);
    munmap(code, 4096);
    free(heap);
}

/* ---- finding ---- */

static void test_where_there_is_no_code(void **unused)
{
    (void)unused;
    static int variable;
    struct cfi_identity identity = name((cfi_function *)of_the_test);
    uint64_t base = (uintptr_t)of_the_test - identity.offset;
    assert_null(cfi_image_function(identity.image, (uintptr_t)&variable - base));
    assert_null(cfi_image_function(identity.image, UINT64_MAX));
    assert_null(cfi_image_function(identity.image, (uint64_t)INT64_MAX));
    static const unsigned numbers[] = { CFI_MAX_IMAGES - 1, CFI_MAX_IMAGES, UINT16_MAX, UINT_MAX };
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        assert_null(cfi_image_function(numbers[i], identity.offset));
        assert_null(cfi_image_name(numbers[i]));
    }
}

static struct cfi_image_name made_up(const char *path)
{
    struct cfi_image_name image = { .kind = CFI_IMAGE_BUILD_ID, .id_size = 20 };
    memcpy(image.id, "\xab\x12\xcd\x0f is no build-id", 20);
    snprintf(image.path, sizeof image.path, "%s", path);
    return image;
}

static void assert_not_found(const struct cfi_image_name *image, const char *message)
{
    unsigned number = 77;
    assert_int_equal(cfi_image_find(image, &number), CF_INVALID);
    assert_string_equal(cf_last_error()->message, message);
    assert_int_equal(number, 77);
}

static void test_an_unknown_image(void **unused)
{
    (void)unused;
    static const struct {
        const char *path, *message;
    } cases[] = {
        { "", "the program (build-id ab12cd0f..) is not in this process" },
        { "libx.so", "libx.so (build-id ab12cd0f..) is not in this process" },
        { "../libx.so", "libx.so (build-id ab12cd0f..) is not in this process" },
        { "/nowhere/libx.so", "libx.so (build-id ab12cd0f..) is not in this process" },
        { "/", " (build-id ab12cd0f..) is not in this process" },
        { "/dev/zero", "zero (build-id ab12cd0f..) is not in this process" },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cfi_image_name image = made_up(cases[i].path);
        assert_not_found(&image, cases[i].message);
    }
    struct cfi_image_name image = made_up("libx.so");
    image.kind = CFI_IMAGE_HASH;
    assert_not_found(&image, "libx.so (hash ab12cd0f..) is not in this process");
    image.id_size = 1;
    assert_not_found(&image, "libx.so (hash ab..) is not in this process");
}

/* The loader says why in its own words. */
static void test_a_file_that_is_no_library(void **unused)
{
    (void)unused;
    static const char message[] = "passwd (build-id ab12cd0f..) is not in this process: ";
    struct cfi_image_name image = made_up("/etc/passwd");
    unsigned number;
    assert_int_equal(cfi_image_find(&image, &number), CF_INVALID);
    assert_memory_equal(cf_last_error()->message, message, sizeof message - 1);
}

static void test_a_damaged_name(void **unused)
{
    (void)unused;
    static const uint8_t kinds[] = { 0, 3, 255 }, sizes[] = { 0, 31, 255 };
    struct cfi_image_name good = *cfi_image_name(name((cfi_function *)of_the_test).image);
    for (size_t i = 0; i < 3; i++) {
        struct cfi_image_name kind = good, size = good;
        kind.kind = kinds[i];
        size.id_size = sizes[i];
        assert_not_found(&kind, "the name of a program or library is damaged");
        assert_not_found(&size, "the name of a program or library is damaged");
    }
    struct cfi_image_name endless = made_up("");
    memset(endless.path, '/', sizeof endless.path);
    assert_not_found(&endless, "the name of a program or library is damaged");
}

/* A part of an id is another one, and so is the same one of another kind. */
static void test_a_similar_id(void **unused)
{
    (void)unused;
    struct cfi_image_name good = *cfi_image_name(name((cfi_function *)of_the_test).image);
    unsigned number;
    for (size_t i = 0; i < good.id_size; i++) {
        struct cfi_image_name other = good;
        other.id[i] ^= 1;
        assert_int_equal(cfi_image_find(&other, &number), CF_INVALID);
        other = good;
        other.id_size = (uint8_t)i;
        assert_int_equal(cfi_image_find(&other, &number), CF_INVALID);
    }
    struct cfi_image_name other = good;
    other.kind = good.kind == CFI_IMAGE_HASH ? CFI_IMAGE_BUILD_ID : CFI_IMAGE_HASH;
    assert_int_equal(cfi_image_find(&other, &number), CF_INVALID);
}

/* ---- plugins: each test in a child, where none is loaded yet ---- */

static char directory[4096]; /* where they lie: beside this program */

static const char *path_of(const char *plugin)
{
    static char path[5000];
    snprintf(path, sizeof path, "%s/identity/libidentity_%s.so", directory, plugin);
    return path;
}

static void *open_plugin(const char *plugin)
{
    void *handle = dlopen(path_of(plugin), RTLD_NOW);
    if (!handle)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(handle);
    return handle;
}

static bool is_loaded(const char *plugin)
{
    return dlopen(path_of(plugin), RTLD_NOW | RTLD_NOLOAD) != NULL;
}

static plugin_function *visible(void *handle)
{
    return (plugin_function *)(uintptr_t)dlsym(handle, "plugin_answer");
}

static plugin_function *hidden(void *handle)
{
    return ((plugin_function * (*)(void))(uintptr_t)dlsym(handle, "plugin_hidden"))();
}

/* What travels between processes. */
struct named {
    struct cfi_image_name image;
    uint64_t offset;
};

static struct named name_of(plugin_function *fn)
{
    struct cfi_identity identity = { CFI_MAX_IMAGES, 0 };
    CHECK(cfi_identify((cfi_function *)fn, &identity) == CF_OK);
    struct named named = { .offset = identity.offset };
    if (cfi_image_name(identity.image))
        named.image = *cfi_image_name(identity.image);
    return named;
}

static plugin_function *find(const struct named *named)
{
    unsigned number;
    if (cfi_image_find(&named->image, &number) != CF_OK)
        return NULL;
    return (plugin_function *)cfi_image_function(number, named->offset);
}

static bool answers(plugin_function *fn, int value)
{
    return fn && fn() == value;
}

static void others_come_to_its_place(void *data)
{
    const char *const *plugins = data;
    void *handle = open_plugin(plugins[0]);
    void *place = (void *)(uintptr_t)visible(handle);
    CHECK(dlclose(handle) == 0); /* it was never named: it goes */
    CHECK(!is_loaded(plugins[0]));
    handle = open_plugin(plugins[1]);
    CHECK(place == (void *)(uintptr_t)visible(handle)); /* or the test shows nothing */
    struct named second = name_of(visible(handle)), second_hidden = name_of(hidden(handle));
    CHECK(dlclose(handle) == 0); /* it was named: it stays */
    CHECK(is_loaded(plugins[1]));
    handle = open_plugin(plugins[0]);
    struct named first = name_of(visible(handle));
    CHECK(memcmp(&first.image, &second.image, sizeof first.image) != 0);
    CHECK(answers(find(&second), 2 + (second.image.kind == CFI_IMAGE_HASH ? 2 : 0)));
    CHECK(answers(find(&second_hidden), find(&second)() + 100));
    CHECK(answers(find(&first), visible(handle)()));
    CHECK(find(&first)() != find(&second)());
}

static void test_others_come_to_its_place(void **unused)
{
    (void)unused;
    const char *plugins[] = { "first", "second" };
    assert_int_equal(in_child(others_come_to_its_place, plugins), 0);
}

static void test_others_without_a_build_id_come_to_its_place(void **unused)
{
    (void)unused;
    const char *plugins[] = { "nameless", "nameless_too" };
    assert_int_equal(in_child(others_come_to_its_place, plugins), 0);
}

/* A child opens a plugin and sends its function's name. */
static int ends[2];

static void send_name(void *data)
{
    struct named named = name_of(hidden(open_plugin(data)));
    CHECK(write(ends[1], &named, sizeof named) == (ssize_t)sizeof named);
}

static struct named received_name(const char *plugin)
{
    struct named named;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(in_child(send_name, (void *)(uintptr_t)plugin), 0);
    assert_int_equal(read(ends[0], &named, sizeof named), sizeof named);
    close(ends[0]);
    close(ends[1]);
    return named;
}

static void is_loaded_to_be_called(void *data)
{
    const struct named *named = data;
    bool is_hash = named->image.kind == CFI_IMAGE_HASH;
    CHECK(!is_loaded(is_hash ? "nameless" : "first"));
    CHECK(answers(find(named), is_hash ? 103 : 101));
    CHECK(answers(find(named), is_hash ? 103 : 101));
}

static void test_a_plugin_is_loaded(void **unused)
{
    (void)unused;
    struct named named = received_name("first");
    assert_int_equal(named.image.kind, CFI_IMAGE_BUILD_ID);
    assert_int_equal(in_child(is_loaded_to_be_called, &named), 0);
    named = received_name("nameless");
    assert_int_equal(named.image.kind, CFI_IMAGE_HASH);
    assert_int_equal(in_child(is_loaded_to_be_called, &named), 0);
}

static void other_build_is_refused(void *data)
{
    struct named named = *(struct named *)data;
    (void)memccpy(named.image.path, path_of("second"), 0, sizeof named.image.path);
    CHECK(!find(&named));
    CHECK(strstr(cf_last_error()->message, "is not in this process: its file is of another build"));
    CHECK(!is_loaded("second"));
}

static void test_a_file_of_another_build(void **unused)
{
    (void)unused;
    static const char *const plugins[] = { "first", "nameless" };
    for (size_t i = 0; i < COUNT_OF(plugins); i++) {
        struct named named = received_name(plugins[i]);
        assert_int_equal(in_child(other_build_is_refused, &named), 0);
    }
}

static void relative_name_is_refused(void *data)
{
    struct named named = *(struct named *)data;
    CHECK(chdir(directory) == 0);
    snprintf(named.image.path, sizeof named.image.path, "./identity/libidentity_first.so");
    CHECK(!find(&named));
    CHECK(!is_loaded("first"));
}

static void test_a_relative_name(void **unused)
{
    (void)unused;
    struct named named = received_name("first");
    assert_int_equal(in_child(relative_name_is_refused, &named), 0);
}

/* How the loader got to it does not matter to others. */
static void relative_path(void *data)
{
    (void)data;
    CHECK(chdir(directory) == 0);
    void *handle = dlopen("./identity/libidentity_first.so", RTLD_NOW);
    CHECK(handle);
    struct named named = name_of(visible(handle));
    CHECK(named.image.path[0] == '/');
    CHECK(strcmp(strrchr(named.image.path, '/'), "/libidentity_first.so") == 0);
}

static void test_a_relative_path(void **unused)
{
    (void)unused;
    assert_int_equal(in_child(relative_path, NULL), 0);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[1 << 16];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    CHECK(in >= 0 && out >= 0);
    for (ssize_t size; (size = read(in, buffer, sizeof buffer)) > 0;)
        CHECK(write(out, buffer, (size_t)size) == size);
    close(in);
    close(out);
}

static void more_images_than_there_is_room_for(void *data)
{
    char folder[] = "/tmp/cfutures-identity-XXXXXX", path[100];
    struct cfi_identity identity = { 0, 0 };
    cf_status s = CF_OK;
    (void)data;
    CHECK(mkdtemp(folder));
    for (unsigned i = 0; s == CF_OK; i++) {
        snprintf(path, sizeof path, "%s/%u.so", folder, i);
        copy_file(path_of("nameless"), path);
        void *handle = dlopen(path, RTLD_NOW);
        unlink(path);
        CHECK(handle && i <= CFI_MAX_IMAGES);
        if (!handle || i > CFI_MAX_IMAGES)
            break;
        uint16_t last = identity.image;
        s = cfi_identify((cfi_function *)visible(handle), &identity);
        CHECK(i == 0 || s != CF_OK || identity.image == last + 1);
    }
    CHECK(s == CF_INVALID && identity.image == CFI_MAX_IMAGES - 1);
    CHECK(strcmp(cf_last_error()->message,
                 "the functions lie in more than 64 programs and libraries") == 0);
    rmdir(folder);
}

static void test_more_images_than_there_is_room_for(void **unused)
{
    (void)unused;
    assert_int_equal(in_child(more_images_than_there_is_room_for, NULL), 0);
}

/* ---- several threads ---- */

static const char *const all_plugins[] = { "first", "second", "nameless", "nameless_too" };
static atomic_uint numbers[COUNT_OF(all_plugins)]; /* and 1, so that 0 is none */

static void *name_on_thread(void *data)
{
    for (size_t i = 0; i < COUNT_OF(all_plugins); i++) {
        char path[5000];
        snprintf(path, sizeof path, "%s/identity/libidentity_%s.so", directory, all_plugins[i]);
        void *handle = dlopen(path, RTLD_NOW);
        struct cfi_identity identity = { 0, 0 };
        plugin_function *fn = visible(handle);
        line_up(data);
        CHECK(cfi_identify((cfi_function *)fn, &identity) == CF_OK);
        CHECK(cfi_image_function(identity.image, identity.offset) == (cfi_function *)fn);
        CHECK(answers(fn, (int)i + 1));
        dlclose(handle);
        unsigned others = 0; /* all get the same number */
        if (!atomic_compare_exchange_strong(&numbers[i], &others, identity.image + 1U))
            CHECK(others == identity.image + 1U);
    }
    return NULL;
}

static void all_at_once(void *data)
{
    (void)data;
    struct start_line line = { .parties = 3 };
    pthread_t threads[3];
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        CHECK(pthread_create(&threads[i], NULL, name_on_thread, &line) == 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void test_all_at_once(void **unused)
{
    (void)unused;
    for (int i = 0; i < 40; i++)
        assert_int_equal(in_child(all_at_once, NULL), 0);
}

/* Addresses that fall on the same places of the cache. */
static void *name_again_and_again(void *data)
{
    const char *begin = (const char *)(uintptr_t)qsort;
    struct cfi_identity first, identity;
    (void)data;
    CHECK(cfi_identify((cfi_function *)qsort, &first) == CF_OK);
    for (size_t i = 0; i < 50000; i++) {
        size_t step = i * 7919 % 1500;
        CHECK(cfi_identify(at(begin + step), &identity) == CF_OK);
        CHECK(identity.image == first.image && identity.offset == first.offset + step);
        CHECK(cfi_identify((cfi_function *)of_the_test, &identity) == CF_OK);
        CHECK(cfi_image_function(identity.image, identity.offset) == (cfi_function *)of_the_test);
    }
    return NULL;
}

static void test_one_cache_for_all_threads(void **unused)
{
    (void)unused;
    run_on_threads(4, name_again_and_again, NULL);
    assert_checks();
}

int main(int argc, char **argv)
{
    (void)argc;
    char *self = realpath("/proc/self/exe", NULL);
    snprintf(directory, sizeof directory, "%s", self ? self : argv[0]);
    free(self);
    *strrchr(directory, '/') = 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_what_an_image_is_called),
        cmocka_unit_test(test_many_addresses),
        cmocka_unit_test(test_what_is_no_function),
        cmocka_unit_test(test_where_there_is_no_code),
        cmocka_unit_test(test_an_unknown_image),
        cmocka_unit_test(test_a_file_that_is_no_library),
        cmocka_unit_test(test_a_damaged_name),
        cmocka_unit_test(test_a_similar_id),
        cmocka_unit_test(test_others_come_to_its_place),
        cmocka_unit_test(test_others_without_a_build_id_come_to_its_place),
        cmocka_unit_test(test_a_plugin_is_loaded),
        cmocka_unit_test(test_a_file_of_another_build),
        cmocka_unit_test(test_a_relative_name),
        cmocka_unit_test(test_a_relative_path),
        cmocka_unit_test(test_more_images_than_there_is_room_for),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_one_cache_for_all_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
