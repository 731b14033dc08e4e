/* SPDX-License-Identifier: MIT */
/* Sleeping on a word: when it ends and with what answer, and the hooks around it. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>

#include "base/clock.h"
#include "base/futex.h"

#define SECONDS(n) (INT64_C(1000000000) * (n))

/* ---- how a wait ends ---- */

static void test_another_value_does_not_sleep(void **state)
{
    (void)state;
    cfi_u32 word = 7;
    assert_int_equal(cfi_futex_wait(&word, 8, CFI_NEVER), CFI_WOKEN);
}

static void test_a_deadline_ends_it(void **state)
{
    (void)state;
    cfi_u32 word = 7;
    assert_int_equal(cfi_futex_wait(&word, 7, 0), CFI_TIMED_OUT);
    assert_int_equal(cfi_futex_wait(&word, 7, cfi_now() - 1), CFI_TIMED_OUT);
    int64_t soon = cfi_now() + SECONDS(1) / 1000;
    assert_int_equal(cfi_futex_wait(&word, 7, soon), CFI_TIMED_OUT);
    assert_true(cfi_now() >= soon);
}

static void test_errno_is_kept(void **state)
{
    (void)state;
    cfi_u32 word = 7;
    errno = EDOM;
    (void)cfi_futex_wait(&word, 7, 0);             /* ETIMEDOUT */
    (void)cfi_futex_wait(&word, 8, 0);             /* EAGAIN */
    cfi_futex_wake((cfi_u32 *)(uintptr_t)4097, 1); /* EINVAL */
    assert_int_equal(errno, EDOM);
}

static void test_the_low_half(void **state)
{
    (void)state;
    cfi_u64 word = UINT64_C(0x1122334455667788);
    assert_int_equal(*cfi_low_half(&word), 0x55667788);
}

/* ---- waking ---- */

enum { SLEEPERS = 4 };

static struct {
    cfi_u32 word;
    atomic_int threads[SLEEPERS];
    atomic_uint begun, woken;
} dormitory;

static void *sleep_while_0(void *data)
{
    (void)data;
    atomic_store(&dormitory.threads[atomic_fetch_add(&dormitory.begun, 1)], gettid());
    CHECK(cfi_futex_wait(&dormitory.word, 0, cfi_now() + SECONDS(50)) == CFI_WOKEN);
    atomic_fetch_add(&dormitory.woken, 1);
    return NULL;
}

static bool is_asleep(int thread)
{
    char path[64], status = '?';
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    int fields = fscanf(file, "%*d (%*[^)]) %c", &status);
    fclose(file);
    return fields == 1 && status == 'S';
}

static void test_waking_wakes_so_many(void **state)
{
    (void)state;
    pthread_t threads[SLEEPERS];
    for (int i = 0; i < SLEEPERS; i++)
        threads[i] = start_thread(sleep_while_0, NULL);
    for (int i = 0; i < SLEEPERS; i++) {
        WAIT_UNTIL(atomic_load(&dormitory.threads[i]) != 0);
        WAIT_UNTIL(is_asleep(atomic_load(&dormitory.threads[i])));
    }
    for (unsigned i = 1; i <= 2; i++) {
        cfi_futex_wake(&dormitory.word, 1);
        WAIT_UNTIL(atomic_load(&dormitory.woken) >= i);
        assert_int_equal(atomic_load(&dormitory.woken), i);
    }
    cfi_futex_wake(&dormitory.word, INT32_MAX);
    for (int i = 0; i < SLEEPERS; i++)
        join_thread(threads[i]);
    assert_checks();
}

static void test_waking_none(void **state)
{
    (void)state;
    cfi_u32 word = 0;
    cfi_futex_wake(&word, 1);
    cfi_futex_wake(&word, INT32_MAX);
    assert_int_equal(cfi_futex_wait(&word, 0, 0), CFI_TIMED_OUT); /* no wake-up was kept */
}

/* ---- signals ---- */

static atomic_uint signals;

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

static void handle_signals(void)
{
    struct sigaction action = { .sa_handler = count_signal }; /* without SA_RESTART */
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
}

struct signalled {
    enum cfi_woken (*wait)(cfi_u32 *word, uint32_t expected, int64_t deadline);
    enum cfi_woken expected;
    atomic_bool over;
};

static void *sleep_for_a_signal(void *data)
{
    struct signalled *s = data;
    cfi_u32 word = 0;
    CHECK(s->wait(&word, 0, cfi_now() + SECONDS(50)) == s->expected);
    atomic_store(&s->over, true);
    return NULL;
}

static void signal_until_over(struct signalled *s)
{
    handle_signals();
    pthread_t thread = start_thread(sleep_for_a_signal, s);
    while (!atomic_load(&s->over)) {
        unsigned before = atomic_load(&signals);
        pthread_kill(thread, SIGUSR1);
        WAIT_UNTIL(atomic_load(&signals) > before || atomic_load(&s->over));
    }
    join_thread(thread);
    assert_checks();
}

static void test_a_signal_ends_it(void **state)
{
    (void)state;
    struct signalled s = { .wait = cfi_futex_wait, .expected = CFI_SIGNALLED };
    signal_until_over(&s);
}

static void test_without_hooks_a_signal_is_a_wake_up(void **state)
{
    (void)state;
    struct signalled s = { .wait = cfi_sleep, .expected = CFI_WOKEN };
    signal_until_over(&s);
}

/* ---- hooks ---- */

struct record {
    char calls[8];
    bool signalled, go_on;
};

static void record_before(void *data)
{
    struct record *r = data;
    strcat(r->calls, "b");
}

static bool record_after(void *data, bool signalled)
{
    struct record *r = data;
    strcat(r->calls, "a");
    r->signalled |= signalled;
    return r->go_on;
}

static void with_hooks(const struct cfi_sleep_hooks *hooks)
{
    *cfi_sleep_hooks() = hooks;
}

static void test_hooks_surround_the_sleep(void **state)
{
    (void)state;
    struct record r = { .go_on = true };
    const struct cfi_sleep_hooks hooks = { &r, record_before, record_after };
    cfi_u32 word = 7;
    with_hooks(&hooks);
    assert_int_equal(cfi_sleep(&word, 7, 0), CFI_TIMED_OUT);
    assert_string_equal(r.calls, "ba");
    assert_int_equal(cfi_sleep(&word, 8, 0), CFI_WOKEN);
    assert_string_equal(r.calls, "baba");
    assert_false(r.signalled);
    with_hooks(NULL);
    assert_int_equal(cfi_sleep(&word, 7, 0), CFI_TIMED_OUT);
    assert_string_equal(r.calls, "baba");
}

static void test_a_raw_wait_calls_no_hooks(void **state)
{
    (void)state;
    struct record r = { .go_on = false };
    const struct cfi_sleep_hooks hooks = { &r, record_before, record_after };
    cfi_u32 word = 7;
    with_hooks(&hooks);
    assert_int_equal(cfi_futex_wait(&word, 7, 0), CFI_TIMED_OUT);
    with_hooks(NULL);
    assert_string_equal(r.calls, "");
}

static void test_either_hook_may_be_missing(void **state)
{
    (void)state;
    struct record r = { .go_on = false };
    const struct cfi_sleep_hooks before = { &r, record_before, NULL };
    const struct cfi_sleep_hooks after = { &r, NULL, record_after };
    const struct cfi_sleep_hooks none = { &r, NULL, NULL };
    cfi_u32 word = 7;
    with_hooks(&none);
    assert_int_equal(cfi_sleep(&word, 7, 0), CFI_TIMED_OUT);
    with_hooks(&before);
    assert_int_equal(cfi_sleep(&word, 7, 0), CFI_TIMED_OUT);
    with_hooks(&after);
    assert_int_equal(cfi_sleep(&word, 7, 0), CFI_SIGNALLED);
    with_hooks(NULL);
    assert_string_equal(r.calls, "ba");
}

static void test_a_hook_ends_it(void **state)
{
    (void)state;
    struct record r = { .go_on = false };
    const struct cfi_sleep_hooks hooks = { &r, record_before, record_after };
    cfi_u32 word = 7;
    with_hooks(&hooks);
    assert_int_equal(cfi_sleep(&word, 7, 0), CFI_SIGNALLED);
    assert_int_equal(cfi_sleep(&word, 8, 0), CFI_SIGNALLED);
    with_hooks(NULL);
}

static enum cfi_woken sleep_with_hooks(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    struct record r = { .go_on = false };
    const struct cfi_sleep_hooks hooks = { &r, record_before, record_after };
    with_hooks(&hooks);
    enum cfi_woken woken = cfi_sleep(word, expected, deadline);
    CHECK(r.signalled);
    return woken;
}

static void test_the_hook_hears_of_a_signal(void **state)
{
    (void)state;
    struct signalled s = { .wait = sleep_with_hooks, .expected = CFI_SIGNALLED };
    signal_until_over(&s);
    assert_null(*cfi_sleep_hooks()); /* hooks are the thread's own */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_value_does_not_sleep),
        cmocka_unit_test(test_a_deadline_ends_it),
        cmocka_unit_test(test_errno_is_kept),
        cmocka_unit_test(test_the_low_half),
        cmocka_unit_test(test_waking_wakes_so_many),
        cmocka_unit_test(test_waking_none),
        cmocka_unit_test(test_a_signal_ends_it),
        cmocka_unit_test(test_without_hooks_a_signal_is_a_wake_up),
        cmocka_unit_test(test_hooks_surround_the_sleep),
        cmocka_unit_test(test_a_raw_wait_calls_no_hooks),
        cmocka_unit_test(test_either_hook_may_be_missing),
        cmocka_unit_test(test_a_hook_ends_it),
        cmocka_unit_test(test_the_hook_hears_of_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
