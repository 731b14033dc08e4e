/* SPDX-License-Identifier: MIT */
/* The clock against the system's own, and deadlines at the ends of their range. */
#define _GNU_SOURCE
#include "support.h"

#include <time.h>

#include "base/clock.h"

#define HOUR (INT64_C(3600) * 1000000000)

static int64_t monotonic(void)
{
    struct timespec t;
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &t), 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void test_now_is_the_monotonic_clock(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        int64_t before = monotonic(), now = cfi_now(), after = monotonic();
        assert_true(before <= now && now <= after);
    }
}

static void test_a_deadline_counts_from_the_call(void **state)
{
    (void)state;
    int64_t before = cfi_now(), deadline = cfi_deadline(HOUR), after = cfi_now();
    assert_true(before + HOUR <= deadline && deadline <= after + HOUR);
    before = cfi_now(), deadline = cfi_deadline(1), after = cfi_now();
    assert_true(before + 1 <= deadline && deadline <= after + 1);
}

static void test_no_time_has_passed_already(void **state)
{
    (void)state;
    assert_int_equal(cfi_deadline(0), 0);
    assert_int_equal(cfi_deadline(-1), 0);
    assert_int_equal(cfi_deadline(INT64_MIN), 0);
}

static void test_sums_saturate(void **state)
{
    (void)state;
    assert_true(cfi_deadline(CFI_NEVER) == CFI_NEVER);
    assert_true(cfi_deadline(CFI_NEVER - 1) == CFI_NEVER);
    assert_true(cfi_deadline(CFI_NEVER - cfi_now() + HOUR) == CFI_NEVER);
    int64_t far = cfi_deadline(CFI_NEVER - cfi_now() - HOUR); /* just fits */
    assert_true(far > CFI_NEVER - 2 * HOUR && far < CFI_NEVER);
}

static void test_deadlines_pass(void **state)
{
    (void)state;
    assert_true(cfi_deadline_passed(0));
    assert_true(cfi_deadline_passed(cfi_now()));
    assert_false(cfi_deadline_passed(cfi_now() + HOUR));
    assert_false(cfi_deadline_passed(CFI_NEVER));
    int64_t soon = cfi_deadline(100000);
    WAIT_UNTIL(cfi_deadline_passed(soon));
    assert_true(cfi_now() >= soon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_now_is_the_monotonic_clock),
        cmocka_unit_test(test_a_deadline_counts_from_the_call),
        cmocka_unit_test(test_no_time_has_passed_already),
        cmocka_unit_test(test_sums_saturate),
        cmocka_unit_test(test_deadlines_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
