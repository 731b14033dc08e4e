/* SPDX-License-Identifier: MIT */
/* The parker: a token is kept, counts once and is never lost; its owner may free it at once. */
#define _GNU_SOURCE
#include "support.h"

#include "base/clock.h"
#include "base/park.h"

/* ---- one thread ---- */

static void test_the_token_comes_first(void **state)
{
    (void)state;
    struct cfi_parker parker = { 0 };
    assert_false(cfi_has_token(&parker));
    cfi_unpark(&parker);
    assert_true(cfi_has_token(&parker));
    assert_int_equal(cfi_park(&parker, CFI_NEVER), CFI_WOKEN);
    assert_false(cfi_has_token(&parker));
    cfi_unpark(&parker);
    assert_int_equal(cfi_park(&parker, 0), CFI_WOKEN); /* also when the time has passed */
}

static void test_two_tokens_are_one(void **state)
{
    (void)state;
    struct cfi_parker parker = { 0 };
    cfi_unpark(&parker);
    cfi_unpark(&parker);
    assert_int_equal(cfi_park(&parker, CFI_NEVER), CFI_WOKEN);
    assert_int_equal(cfi_park(&parker, 0), CFI_TIMED_OUT);
}

static void test_a_deadline_ends_it(void **state)
{
    (void)state;
    struct cfi_parker parker = { 0 };
    assert_int_equal(cfi_park(&parker, 0), CFI_TIMED_OUT);
    int64_t soon = cfi_now() + 1000000;
    assert_int_equal(cfi_park(&parker, soon), CFI_TIMED_OUT);
    assert_true(cfi_now() >= soon);
    assert_false(cfi_has_token(&parker));
    cfi_unpark(&parker); /* and it is as new */
    assert_int_equal(cfi_park(&parker, CFI_NEVER), CFI_WOKEN);
}

static bool stop(void *data, bool signalled)
{
    (void)signalled;
    if (data)
        cfi_unpark(data);
    return false;
}

/* With a hook that ends each sleep, and before that leaves a token if it has a parker for it. */
static enum cfi_woken park_with_a_veto(struct cfi_parker *parker, struct cfi_parker *unpark)
{
    const struct cfi_sleep_hooks hooks = { .data = unpark, .after = stop };
    *cfi_sleep_hooks() = &hooks;
    enum cfi_woken woken = cfi_park(parker, cfi_now() + 1000000);
    *cfi_sleep_hooks() = NULL;
    return woken;
}

static void test_a_hook_ends_it(void **state)
{
    (void)state;
    struct cfi_parker parker = { 0 };
    assert_int_equal(park_with_a_veto(&parker, NULL), CFI_SIGNALLED);
    assert_false(cfi_has_token(&parker));
    assert_int_equal(cfi_park(&parker, 0), CFI_TIMED_OUT); /* and it is as new */
}

static void test_a_token_beats_the_hook(void **state)
{
    (void)state;
    struct cfi_parker parker = { 0 };
    assert_int_equal(park_with_a_veto(&parker, &parker), CFI_WOKEN);
    assert_false(cfi_has_token(&parker));
    cfi_unpark(&parker);
    assert_int_equal(park_with_a_veto(&parker, NULL), CFI_WOKEN); /* no sleep, no hook */
}

/* ---- two threads ---- */

enum { PING_PONGS = 100000 };

static struct {
    struct cfi_parker ping, pong;
    unsigned value; /* plain: only the tokens order it */
} table;

static void *play_pong(void *data)
{
    (void)data;
    for (unsigned i = 0; i < PING_PONGS; i++) {
        CHECK(cfi_park(&table.ping, CFI_NEVER) == CFI_WOKEN);
        CHECK(table.value == 2 * i + 1);
        table.value++;
        cfi_unpark(&table.pong);
    }
    return NULL;
}

static void test_no_wake_up_is_lost(void **state)
{
    (void)state;
    pthread_t pong = start_thread(play_pong, NULL);
    for (unsigned i = 0; i < PING_PONGS; i++) {
        table.value++;
        cfi_unpark(&table.ping);
        CHECK(cfi_park(&table.pong, CFI_NEVER) == CFI_WOKEN);
        CHECK(table.value == 2 * i + 2);
    }
    join_thread(pong);
    assert_checks();
}

enum { TOKENS = 20000 };

struct tokens {
    struct cfi_parker parker;
    atomic_uint given, taken;
};

static void *give_tokens(void *data)
{
    struct tokens *t = data;
    for (unsigned i = 0; i < TOKENS; i++) {
        WAIT_UNTIL(atomic_load(&t->taken) == i);
        atomic_fetch_add(&t->given, 1);
        cfi_unpark(&t->parker);
    }
    return NULL;
}

/* Sleeps so short that tokens come while the owner gives up: each is taken, and once. */
static void test_tokens_against_deadlines(void **state)
{
    (void)state;
    struct tokens t = { .given = 0 };
    pthread_t giver = start_thread(give_tokens, &t);
    for (unsigned i = 1; i <= TOKENS; i++) {
        enum cfi_woken woken;
        for (int64_t pause = 0; (woken = cfi_park(&t.parker, cfi_now() + pause)) != CFI_WOKEN;) {
            CHECK(woken == CFI_TIMED_OUT);
            pause = (pause + 1000) % 20000;
        }
        CHECK(atomic_load(&t.given) == i);
        atomic_fetch_add(&t.taken, 1);
    }
    join_thread(giver);
    assert_checks();
    assert_int_equal(cfi_park(&t.parker, 0), CFI_TIMED_OUT);
}

/* ---- the owner frees it as soon as it has the token ---- */

struct lifetime {
    struct cfi_parker *parker;
};

static void new_parker(void *data)
{
    struct lifetime *l = data;
    l->parker = calloc(1, sizeof *l->parker);
    CHECK(l->parker != NULL);
}

static void park_and_free(void *data)
{
    struct lifetime *l = data;
    struct cfi_parker *parker = l->parker;
    CHECK(cfi_park(parker, CFI_NEVER) == CFI_WOKEN);
    free(parker);
}

static void unpark_once(void *data)
{
    struct lifetime *l = data;
    cfi_unpark(l->parker);
}

static void nothing(void *data)
{
    (void)data;
}

static void test_the_parker_may_go_at_once(void **state)
{
    (void)state;
    struct lifetime l = { NULL };
    struct race race = { .prepare = new_parker,
                         .here = park_and_free,
                         .there = unpark_once,
                         .finish = nothing,
                         .data = &l };
    run_race(&race, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_token_comes_first),
        cmocka_unit_test(test_two_tokens_are_one),
        cmocka_unit_test(test_a_deadline_ends_it),
        cmocka_unit_test(test_a_hook_ends_it),
        cmocka_unit_test(test_a_token_beats_the_hook),
        cmocka_unit_test(test_no_wake_up_is_lost),
        cmocka_unit_test(test_tokens_against_deadlines),
        cmocka_unit_test(test_the_parker_may_go_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
