/* SPDX-License-Identifier: MIT */
/* Names of statuses, the last error of each thread, and structs that carry their size. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <limits.h>

#include "core/error.h"

/* ---- statuses ---- */

static const struct {
    cf_status status;
    int value;
    const char *name;
} statuses[] = {
    { CF_OK, 0, "CF_OK" },
    { CF_TIMEOUT, 1, "CF_TIMEOUT" },
    { CF_CANCELLED, 2, "CF_CANCELLED" },
    { CF_STOPPED, 3, "CF_STOPPED" },
    { CF_FAILED, 4, "CF_FAILED" },
    { CF_BROKEN, 5, "CF_BROKEN" },
    { CF_SHUTDOWN, 6, "CF_SHUTDOWN" },
    { CF_FULL, 7, "CF_FULL" },
    { CF_DEADLOCK, 8, "CF_DEADLOCK" },
    { CF_NOMEM, 9, "CF_NOMEM" },
    { CF_INVALID, 10, "CF_INVALID" },
    { CF_SYSTEM, 11, "CF_SYSTEM" },
    { CF_INTERRUPTED, 12, "CF_INTERRUPTED" },
    { CF_END, -1, "CF_END" },
};

static void test_the_version(void **state)
{
    (void)state;
    assert_int_equal(cf_version(), CF_VERSION);
}

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        assert_int_equal(statuses[i].status, statuses[i].value);
        assert_string_equal(cf_status_name(statuses[i].status), statuses[i].name);
    }
}

static void test_what_is_no_status(void **state)
{
    (void)state;
    static const int none[] = { -2, 13, 14, INT_MAX, INT_MIN };
    for (size_t i = 0; i < COUNT_OF(none); i++)
        assert_string_equal(cf_status_name((cf_status)none[i]), "CF_UNKNOWN");
}

static void test_a_plain_error_for_each(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        const cf_error *e = cfi_plain_error(statuses[i].status);
        assert_int_equal(e->size, sizeof *e);
        assert_int_equal(e->status, statuses[i].status);
        assert_non_null(e->message);
        assert_int_not_equal(strlen(e->message), 0);
        assert_int_equal(e->exit_code, -1);
    }
    assert_non_null(cfi_plain_error((cf_status)13)->message);
}

/* ---- the last error ---- */

static void last_is(cf_status status, const char *message)
{
    assert_int_equal(cf_last_error()->status, status);
    assert_string_equal(cf_last_error()->message, message);
}

static void *look_before_the_first(void *data)
{
    (void)data;
    const cf_error *e = cf_last_error();
    CHECK(e != NULL);
    CHECK(e && e->size == sizeof *e && e->status == CF_OK && e->message != NULL);
    CHECK(e && e->code == 0 && e->worker_pid == 0 && e->signal_number == 0 && e->exit_code == -1);
    return NULL;
}

static void test_before_the_first(void **state)
{
    (void)state;
    run_on_threads(1, look_before_the_first, NULL);
    assert_checks();
}

static void test_failing(void **state)
{
    (void)state;
    assert_int_equal(cfi_fail(CF_FULL, "%s %d", "twice", 2), CF_FULL);
    last_is(CF_FULL, "twice 2");
    assert_int_equal(cf_last_error()->exit_code, -1);
    assert_int_equal(cfi_fail_fixed(CF_TIMEOUT, "late"), CF_TIMEOUT);
    last_is(CF_TIMEOUT, "late");
}

static void test_success_leaves_it(void **state)
{
    (void)state;
    cf_bytes bytes = { NULL, 0 };
    cfi_fail(CF_FULL, "no room for %d", 7);
    const cf_error *e = cf_last_error();
    assert_int_equal(cf_bytes_resize(&bytes, 10), CF_OK);
    cf_bytes_free(&bytes);
    assert_ptr_equal(cf_last_error(), e);
    last_is(CF_FULL, "no room for 7");
}

/* All that an earlier failure said is gone with the next. */
static void test_nothing_of_the_former_stays(void **state)
{
    (void)state;
    const cf_error former = { .size = sizeof former,
                              .status = CF_BROKEN,
                              .code = 1,
                              .message = "m",
                              .index = 2,
                              .worker_pid = 3,
                              .signal_number = 4,
                              .exit_code = 5,
                              .out_of_memory = 1 };
    cfi_fail_with(&former);
    cfi_fail(CF_INVALID, "next");
    const cf_error *e = cf_last_error();
    assert_true(e->code == 0 && e->index == 0 && e->worker_pid == 0 && e->signal_number == 0 &&
                e->exit_code == -1 && e->out_of_memory == 0);
}

static void test_messages_are_cut(void **state)
{
    (void)state;
    char text[600];
    for (size_t length = 509; length < 514; length++) {
        memset(text, 'x', length);
        text[length] = '\0';
        cfi_fail(CF_INVALID, "%s", text);
        assert_int_equal(strlen(cf_last_error()->message), length < 511 ? length : 511);
    }
}

static void test_a_message_may_quote_the_former(void **state)
{
    (void)state;
    cfi_fail(CF_FULL, "full");
    cfi_fail(CF_BROKEN, "it was %s", cf_last_error()->message);
    last_is(CF_BROKEN, "it was full");
}

static void test_a_system_call_failed(void **state)
{
    (void)state;
    errno = 0;
    assert_int_equal(cfi_fail_system(EMFILE, "opening"), CF_SYSTEM);
    assert_int_equal(errno, EMFILE);
    assert_int_equal(cf_last_error()->status, CF_SYSTEM);
    assert_int_equal(cf_last_error()->code, EMFILE);
    char expected[128];
    snprintf(expected, sizeof expected, "opening: %s", strerror(EMFILE));
    assert_string_equal(cf_last_error()->message, expected);
}

static void test_a_copy_of_another_error(void **state)
{
    (void)state;
    char message[1000];
    memset(message, 'y', sizeof message - 1);
    message[sizeof message - 1] = '\0';
    cf_error error = { .size = sizeof error,
                       .status = CF_FAILED,
                       .code = -7,
                       .message = message,
                       .index = 8,
                       .worker_pid = 9,
                       .signal_number = 10,
                       .exit_code = 11,
                       .out_of_memory = 1 };
    assert_int_equal(cfi_fail_with(&error), CF_FAILED);
    message[0] = 'n';
    error.code = 0;
    const cf_error *e = cf_last_error();
    assert_true(e->status == CF_FAILED && e->code == -7 && e->index == 8 && e->worker_pid == 9 &&
                e->signal_number == 10 && e->exit_code == 11 && e->out_of_memory == 1);
    assert_int_equal(strlen(e->message), 511);
    assert_int_equal(e->message[0], 'y');
    assert_int_equal(cfi_fail_with(e), CF_FAILED); /* itself: nothing changes */
    assert_int_equal(strlen(cf_last_error()->message), 511);
}

/* ---- each thread has its own ---- */

static void *fail_often(void *data)
{
    int number = (int)atomic_fetch_add((atomic_uint *)data, 1);
    char expected[32];
    for (int i = 0; i < 2000; i++) {
        cfi_fail(CF_FULL, "%d of %d", i, number);
        snprintf(expected, sizeof expected, "%d of %d", i, number);
        CHECK(strcmp(cf_last_error()->message, expected) == 0);
    }
    return NULL;
}

static void test_threads_do_not_mix(void **state)
{
    (void)state;
    atomic_uint number = 0;
    cfi_fail(CF_INVALID, "mine");
    run_on_threads(4, fail_often, &number);
    assert_checks();
    last_is(CF_INVALID, "mine");
}

/* ---- structs that carry their size ---- */

struct version_2 {
    size_t size;
    int a, b;
};
enum { VERSION_1 = offsetof(struct version_2, b) };

static void test_no_options_are_zeros(void **state)
{
    (void)state;
    struct version_2 copy = { 1, 2, 3 };
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, NULL, "t"), CF_OK);
    assert_true(copy.size == 0 && copy.a == 0 && copy.b == 0);
}

static void test_options_of_each_age(void **state)
{
    (void)state;
    struct version_2 copy, same = { sizeof same, 2, 3 };
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, &same, "t"), CF_OK);
    assert_true(copy.a == 2 && copy.b == 3);
    struct version_2 old = { VERSION_1, 2, 3 }; /* b is beyond what it has */
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, &old, "t"), CF_OK);
    assert_true(copy.a == 2 && copy.b == 0);
    struct {
        struct version_2 known;
        char unknown[40];
    } newer = { .known = { sizeof newer, 2, 3 } };
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, &newer, "t"), CF_OK);
    assert_true(copy.a == 2 && copy.b == 3);
    newer.unknown[39] = 1;
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, &newer, "t"), CF_INVALID);
    assert_memory_equal(cf_last_error()->message, "t: ", 3);
}

static void test_options_that_are_too_small(void **state)
{
    (void)state;
    struct version_2 copy, options = { VERSION_1 - 1, 2, 3 };
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, &options, "t"), CF_INVALID);
    last_is(CF_INVALID, "t: size is 11, must be at least 12");
    options.size = 0;
    assert_int_equal(cfi_options_copy(&copy, sizeof copy, VERSION_1, &options, "t"), CF_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_version),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_is_no_status),
        cmocka_unit_test(test_a_plain_error_for_each),
        cmocka_unit_test(test_before_the_first),
        cmocka_unit_test(test_failing),
        cmocka_unit_test(test_success_leaves_it),
        cmocka_unit_test(test_nothing_of_the_former_stays),
        cmocka_unit_test(test_messages_are_cut),
        cmocka_unit_test(test_a_message_may_quote_the_former),
        cmocka_unit_test(test_a_system_call_failed),
        cmocka_unit_test(test_a_copy_of_another_error),
        cmocka_unit_test(test_threads_do_not_mix),
        cmocka_unit_test(test_no_options_are_zeros),
        cmocka_unit_test(test_options_of_each_age),
        cmocka_unit_test(test_options_that_are_too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
