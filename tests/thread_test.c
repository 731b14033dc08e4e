/* SPDX-License-Identifier: MIT */
/* Threads: how they are made, what they are called, and what runs when they end. */
#define _GNU_SOURCE
#include "support.h"

#include <limits.h>

#include "base/thread.h"

enum { STACK = 256 * 1024 };

static cfi_thread start(void *(*run)(void *), void *arg)
{
    cfi_thread thread;
    assert_int_equal(cfi_thread_start(&thread, run, arg, STACK), 0);
    return thread;
}

/* ---- starting ---- */

static void *return_nothing(void *data)
{
    (void)data;
    return NULL;
}

static void *write_5(void *data)
{
    *(int *)data = 5;
    return NULL;
}

static void test_it_runs_with_its_argument(void **state)
{
    (void)state;
    int value = 0;
    cfi_thread_join(start(write_5, &value));
    assert_int_equal(value, 5);
}

static void *is_self(void *data)
{
    CHECK(!cfi_thread_is_self(*(cfi_thread *)data));
    CHECK(cfi_thread_is_self(pthread_self()));
    return NULL;
}

static void test_who_am_i(void **state)
{
    (void)state;
    cfi_thread self = pthread_self();
    assert_true(cfi_thread_is_self(self));
    cfi_thread other = start(is_self, &self);
    assert_false(cfi_thread_is_self(other));
    cfi_thread_join(other);
    assert_checks();
}

static void *set_event(void *data)
{
    event_set(data);
    return NULL;
}

static void test_nobody_joins_a_detached_one(void **state)
{
    (void)state;
    static struct event ran = EVENT_INIT; /* the thread may outlive the test */
    cfi_thread_detach(start(set_event, &ran));
    event_wait(&ran);
}

/* ---- signals ---- */

static void *take_signal_mask(void *mask)
{
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, mask) == 0);
    return NULL;
}

static void test_signals_go_to_other_threads(void **state)
{
    (void)state;
    sigset_t inside, mine, after;
    sigemptyset(&mine);
    sigaddset(&mine, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &mine, NULL);
    cfi_thread_join(start(take_signal_mask, &inside));
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_checks();

    static const int blocked[] = { SIGINT,  SIGTERM, SIGHUP, SIGALRM,  SIGCHLD, SIGUSR1,
                                   SIGUSR2, SIGPIPE, SIGIO,  SIGWINCH, SIGURG,  SIGPROF };
    for (size_t i = 0; i < COUNT_OF(blocked); i++) {
        assert_int_equal(sigismember(&inside, blocked[i]), 1);
        assert_int_equal(sigismember(&after, blocked[i]), blocked[i] == SIGUSR2);
    }
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    for (size_t i = 0; i < COUNT_OF(faults); i++)
        assert_int_equal(sigismember(&inside, faults[i]), 0);
}

/* ---- stacks ---- */

static void *take_stack_size(void *size)
{
    pthread_attr_t attr;
    CHECK(pthread_getattr_np(pthread_self(), &attr) == 0);
    CHECK(pthread_attr_getstacksize(&attr, size) == 0);
    pthread_attr_destroy(&attr);
    return NULL;
}

static void test_stack_sizes_are_rounded_up(void **state)
{
    (void)state;
    const size_t least = (size_t)PTHREAD_STACK_MIN;
    const size_t wanted[] = { 0, 1, least - 1, least, least + 1, 100001, STACK, 8 << 20 };
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        cfi_thread thread;
        size_t size = 0;
        assert_int_equal(cfi_thread_start(&thread, take_stack_size, &size, wanted[i]), 0);
        cfi_thread_join(thread);
        assert_checks();
        assert_true(size >= wanted[i] && size >= least);
    }
}

static void test_no_thread_without_memory_for_its_stack(void **state)
{
    (void)state;
    sigset_t mine, after;
    sigemptyset(&mine);
    pthread_sigmask(SIG_SETMASK, &mine, NULL);
    cfi_thread thread;
    assert_int_not_equal(cfi_thread_start(&thread, return_nothing, NULL, SIZE_MAX / 4), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&after, SIGINT), 0);
}

/* ---- names ---- */

struct naming {
    const char *name;
    unsigned number;
    const char *expected;
    char got[16];
};

static void *take_name(void *data)
{
    struct naming *n = data;
    cfi_thread_name(n->name, n->number);
    CHECK(pthread_getname_np(pthread_self(), n->got, sizeof n->got) == 0);
    return NULL;
}

static void test_names_are_cut_and_numbers_kept(void **state)
{
    (void)state;
    struct naming names[] = {
        { .name = "cfutures", .number = 0, .expected = "cfutures_0" },
        { .name = "", .number = 3, .expected = "_3" },
        { .name = "thirteen bytes", .number = 7, .expected = "thirteen byte_7" },
        { .name = "exactly 12 b", .number = 99, .expected = "exactly 12 b_99" },
        { .name = "much longer than that", .number = 1234, .expected = "much longe_1234" },
        { .name = "much longer", .number = UINT_MAX, .expected = "much_4294967295" },
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        cfi_thread_join(start(take_name, &names[i]));
        assert_checks();
        assert_string_equal(names[i].got, names[i].expected);
    }
}

/* ---- what runs at the end ---- */

static char ends[16]; /* one letter for each call; the threads are joined in between */
static unsigned repeats;

static void end_a(void)
{
    strcat(ends, "a");
}

static void end_b(void)
{
    strcat(ends, "b");
}

static void end_and_repeat(void)
{
    strcat(ends, "r");
    if (repeats-- > 0)
        CHECK(cfi_on_thread_exit(end_and_repeat));
}

static void end_and_add_b(void)
{
    strcat(ends, "+");
    CHECK(cfi_on_thread_exit(end_b));
}

static void *add_a_often(void *data)
{
    (void)data;
    for (int i = 0; i < 3; i++)
        CHECK(cfi_on_thread_exit(end_a));
    CHECK(strcmp(ends, "") == 0);
    return NULL;
}

static void *add_a_and_b(void *data)
{
    (void)data;
    CHECK(cfi_on_thread_exit(end_a) && cfi_on_thread_exit(end_b));
    CHECK(cfi_on_thread_exit(end_a) && cfi_on_thread_exit(end_b));
    return NULL;
}

static void *add_three(void *data)
{
    (void)data;
    CHECK(cfi_on_thread_exit(end_a) && cfi_on_thread_exit(end_b));
    CHECK(!cfi_on_thread_exit(end_and_repeat)); /* there are places for two */
    CHECK(cfi_on_thread_exit(end_a));
    return NULL;
}

static void *add_one_that_repeats(void *data)
{
    (void)data;
    CHECK(cfi_on_thread_exit(end_and_repeat));
    return NULL;
}

static void *add_a_and_one_that_repeats(void *data)
{
    (void)data;
    CHECK(cfi_on_thread_exit(end_a) && cfi_on_thread_exit(end_and_repeat));
    return NULL;
}

static void *add_both_and_b_again(void *data)
{
    (void)data;
    CHECK(cfi_on_thread_exit(end_and_add_b) && cfi_on_thread_exit(end_b));
    return NULL;
}

static void ends_are(void *(*run)(void *), const char *expected)
{
    ends[0] = '\0';
    cfi_thread_join(start(run, NULL));
    assert_checks();
    assert_string_equal(ends, expected);
}

static void test_it_runs_once_when_the_thread_ends(void **state)
{
    (void)state;
    ends_are(add_a_often, "a");
    ends_are(return_nothing, "");
    ends_are(add_a_and_b, "ab");
    ends_are(add_three, "ab");
}

static void test_it_may_ask_for_another_time(void **state)
{
    (void)state;
    repeats = 1;
    ends_are(add_one_that_repeats, "rr");
    repeats = 1;
    ends_are(add_a_and_one_that_repeats, "arr");
}

/* The first asks for the second, which is still to come: that is no second time. */
static void test_it_is_kept_once(void **state)
{
    (void)state;
    ends_are(add_both_and_b_again, "+b");
}

/* ---- once, fork ---- */

static cfi_once once = CFI_ONCE_INIT;
static unsigned first_calls; /* plain: cfi_call_once orders it */

static void count_first_call(void)
{
    for (int i = 0; i < 1000; i++)
        sched_yield();
    first_calls++;
}

static void *call_once(void *data)
{
    (void)data;
    cfi_call_once(&once, count_first_call);
    CHECK(first_calls == 1);
    return NULL;
}

static void test_once_for_all(void **state)
{
    (void)state;
    run_on_threads(4, call_once, NULL);
    assert_checks();
}

static char forks[8];

static void fork_prepare(void)
{
    strcat(forks, "p");
}

static void fork_in_parent(void)
{
    strcat(forks, "P");
}

static void fork_in_child(void)
{
    strcat(forks, "C");
}

static void check_in_child(void *data)
{
    (void)data;
    CHECK(strcmp(forks, "pC") == 0);
}

static void test_around_a_fork(void **state)
{
    (void)state;
    assert_int_equal(cfi_at_fork(fork_prepare, fork_in_parent, fork_in_child), 0);
    assert_int_equal(in_child(check_in_child, NULL), 0);
    assert_string_equal(forks, "pP");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_runs_with_its_argument),
        cmocka_unit_test(test_who_am_i),
        cmocka_unit_test(test_nobody_joins_a_detached_one),
        cmocka_unit_test(test_signals_go_to_other_threads),
        cmocka_unit_test(test_stack_sizes_are_rounded_up),
        cmocka_unit_test(test_no_thread_without_memory_for_its_stack),
        cmocka_unit_test(test_names_are_cut_and_numbers_kept),
        cmocka_unit_test(test_it_runs_once_when_the_thread_ends),
        cmocka_unit_test(test_it_may_ask_for_another_time),
        cmocka_unit_test(test_it_is_kept_once),
        cmocka_unit_test(test_once_for_all),
        cmocka_unit_test(test_around_a_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
