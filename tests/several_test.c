/* SPDX-License-Identifier: MIT */
/* Waiting for several futures: cf_wait by a table of all states of three futures, before and after it
 * went to sleep, and cf_as_completed. */
#define _GNU_SOURCE
#include "manual.h"

#include "base/clock.h"
#include "core/future.h"

static cf_future *new_promise(void)
{
    cf_future *f = NULL;
    CHECK(cf_future_new(sizeof(int), NULL, &f) == CF_OK);
    return f;
}

/* To any of the final states, or to none. */
static void bring_to(cf_future *f, enum state state)
{
    if (state == CANCELLED)
        CHECK(cf_future_cancel(f));
    else if (state != PENDING)
        settle_promise(f, state == FAILED);
}

static const enum state four_states[] = { PENDING, OK, FAILED, CANCELLED };
static const cf_return_when rules[] = { CF_ALL_COMPLETED, CF_FIRST_COMPLETED, CF_FIRST_EXCEPTION };

enum { THREE = 3, COMBINATIONS = 4 * 4 * 4 };

struct combination {
    enum state states[THREE];
};

static struct combination combination_of(int number)
{
    struct combination c;
    for (int i = 0; i < THREE; i++, number /= 4)
        c.states[i] = four_states[number % 4];
    return c;
}

static void make_three(cf_future **futures, const struct combination *c)
{
    for (int i = 0; i < THREE; i++) {
        futures[i] = new_promise();
        bring_to(futures[i], c->states[i]);
    }
}

/* The rules once more, in other words than the engine's. */
static bool rule_holds(const struct combination *c, cf_return_when rule)
{
    bool some_is_done = false, some_has_failed = false, some_is_pending = false;
    for (int i = 0; i < THREE; i++) {
        some_is_pending |= c->states[i] == PENDING;
        some_is_done |= c->states[i] != PENDING;
        some_has_failed |= c->states[i] == FAILED;
    }
    if (!some_is_pending)
        return true;
    return rule == CF_FIRST_COMPLETED ? some_is_done
                                      : rule == CF_FIRST_EXCEPTION && some_has_failed;
}

static size_t done_of(const struct combination *c)
{
    size_t done = 0;
    for (int i = 0; i < THREE; i++)
        done += c->states[i] != PENDING;
    return done;
}

static bool is_watched(cf_future *f)
{
    return cfi_load_acquire(&f->word) & CFI_WATCHED;
}

/* ---- cf_wait: what is so at the call ---- */

static void test_every_combination(void **unused)
{
    (void)unused;
    for (int number = 0; number < COMBINATIONS * (int)COUNT_OF(rules); number++) {
        const struct combination c = combination_of(number % COMBINATIONS);
        cf_return_when rule = rules[number / COMBINATIONS];
        cf_future *futures[THREE];
        make_three(futures, &c);
        size_t done = 99;
        cf_status expected = rule_holds(&c, rule) ? CF_OK : CF_TIMEOUT;
        assert_int_equal(cf_wait(futures, THREE, rule, 0, &done), expected);
        assert_int_equal(done, done_of(&c));
        if (number % 5 == 0) { /* a few also asleep */
            assert_int_equal(cf_wait(futures, THREE, rule, 100000, &done), expected);
            assert_int_equal(done, done_of(&c));
        }
        assert_int_equal(cf_wait(futures, THREE, rule, -1, NULL), expected);
        cf_future_unref_all(futures, THREE);
    }
    assert_checks();
}

/* Where nothing has to be waited for, nothing is written to a future either. */
static void test_no_registration_without_a_wait(void **unused)
{
    (void)unused;
    for (int number = 0; number < COMBINATIONS * (int)COUNT_OF(rules); number++) {
        const struct combination c = combination_of(number % COMBINATIONS);
        cf_return_when rule = rules[number / COMBINATIONS];
        cf_future *futures[THREE];
        make_three(futures, &c);
        (void)cf_wait(futures, THREE, rule, rule_holds(&c, rule) ? CF_FOREVER : 0, NULL);
        for (int i = 0; i < THREE; i++)
            assert_false(is_watched(futures[i]) || futures[i]->watchers);
        cf_future_unref_all(futures, THREE);
    }
    assert_checks();
}

static void test_no_futures(void **unused)
{
    (void)unused;
    cf_future *nothing[3] = { NULL, NULL, NULL };
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        for (int forever = 0; forever < 2; forever++) {
            int64_t timeout_ns = forever ? CF_FOREVER : 0;
            size_t done = 99;
            assert_int_equal(cf_wait(NULL, 0, rules[i], timeout_ns, &done), CF_OK);
            assert_int_equal(done, 0);
            done = 99;
            assert_int_equal(cf_wait(nothing, 0, rules[i], timeout_ns, &done), CF_OK);
            assert_int_equal(done, 0);
            done = 99;
            assert_int_equal(cf_wait(nothing, 3, rules[i], timeout_ns, &done), CF_OK);
            assert_int_equal(done, 0);
        }
    }
}

static void test_missing_ones_are_skipped(void **unused)
{
    (void)unused;
    cf_future *f = new_promise(), *g = new_promise();
    cf_future *const futures[] = { NULL, f, NULL, NULL, g };
    size_t done = 99;
    assert_int_equal(cf_wait(futures, 5, CF_ALL_COMPLETED, 1000, &done), CF_TIMEOUT);
    assert_int_equal(done, 0);
    settle_promise(f, false);
    assert_int_equal(cf_wait(futures, 5, CF_FIRST_COMPLETED, CF_FOREVER, &done), CF_OK);
    assert_int_equal(done, 1);
    assert_int_equal(cf_wait(futures, 5, CF_ALL_COMPLETED, 1000, &done), CF_TIMEOUT);
    settle_promise(g, true);
    assert_int_equal(cf_wait(futures, 5, CF_ALL_COMPLETED, CF_FOREVER, &done), CF_OK);
    assert_int_equal(done, 2);
    cf_future_unref(f);
    cf_future_unref(g);
}

static void test_duplicates_count_as_entries(void **unused)
{
    (void)unused;
    cf_future *f = new_promise(), *g = new_promise();
    cf_future *const futures[] = { f, g, f, f };
    size_t done = 99;
    assert_int_equal(cf_wait(futures, 4, CF_FIRST_COMPLETED, 1000, &done), CF_TIMEOUT);
    assert_int_equal(done, 0);
    settle_promise(f, false);
    assert_int_equal(cf_wait(futures, 4, CF_FIRST_COMPLETED, 0, &done), CF_OK);
    assert_int_equal(done, 3);
    assert_int_equal(cf_wait(futures, 4, CF_ALL_COMPLETED, 1000, &done), CF_TIMEOUT);
    assert_int_equal(done, 3);
    settle_promise(g, true);
    assert_int_equal(cf_wait(futures, 4, CF_ALL_COMPLETED, 0, &done), CF_OK);
    assert_int_equal(done, 4);
    cf_future_unref(f);
    cf_future_unref(g);
}

static void test_wrong_waits(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    size_t done = 99;
    assert_int_equal(cf_wait(NULL, 2, CF_ALL_COMPLETED, 0, &done), CF_INVALID);
    assert_string_equal(cf_last_error()->message, "cf_wait: futures is NULL, but count is 2");
    for (int rule = -1; rule <= 3; rule += 4) {
        assert_int_equal(cf_wait(&f, 1, (cf_return_when)rule, 0, &done), CF_INVALID);
        assert_int_equal(cf_wait(NULL, 0, (cf_return_when)rule, 0, &done), CF_INVALID);
    }
    assert_int_equal(cf_wait(&f, SIZE_MAX, CF_ALL_COMPLETED, 0, &done), CF_INVALID);
    assert_int_equal(cf_wait(&f, SIZE_MAX / 8, CF_ALL_COMPLETED, 0, &done), CF_INVALID);
    assert_int_equal(done, 99);
    cf_future_unref(f);
}

/* ---- cf_wait: what happens while it sleeps ---- */

/* One thread waits again and again; the test changes what it waits for. */
static struct {
    struct start_line line;
    atomic_bool over;
    cf_future *futures[THREE];
    cf_return_when rule;
    cf_status status;
    size_t done;
    atomic_bool returned;
} waiter = { .line = { .parties = 2 } };

static void *wait_again_and_again(void *data)
{
    (void)data;
    for (;;) {
        line_up(&waiter.line);
        if (atomic_load(&waiter.over))
            return NULL;
        waiter.status = cf_wait(waiter.futures, THREE, waiter.rule, CF_FOREVER, &waiter.done);
        atomic_store(&waiter.returned, true);
        line_up(&waiter.line);
    }
}

/* Which of the pending ones ends first, second, third, and how: `plan` counts through them all. */
static int next_choice(int *plan, int choices)
{
    int choice = *plan % choices;
    *plan /= choices;
    return choice;
}

static void end_next(struct combination *c, int *plan)
{
    int pending[THREE], count = 0;
    for (int i = 0; i < THREE; i++) {
        if (c->states[i] == PENDING)
            pending[count++] = i;
    }
    int chosen = pending[next_choice(plan, count)];
    c->states[chosen] = four_states[1 + next_choice(plan, 3)];
    bring_to(waiter.futures[chosen], c->states[chosen]);
}

static void await_registration(const struct combination *c)
{
    for (int i = 0; i < THREE; i++) {
        if (c->states[i] == PENDING)
            WAIT_UNTIL(is_watched(waiter.futures[i]));
    }
}

/* What does not satisfy the rule does not end the wait: if it did, it would show about now. */
static void let_waiter_err(void)
{
    for (int i = 0; i < 30 && !atomic_load(&waiter.returned); i++)
        sched_yield();
    CHECK(!atomic_load(&waiter.returned));
}

/* Settles one after the other: the wait returns when the rule holds, and not before. */
static void wait_through(struct combination c, cf_return_when rule, int plan)
{
    make_three(waiter.futures, &c);
    waiter.rule = rule;
    waiter.done = 99;
    atomic_store(&waiter.returned, false);
    line_up(&waiter.line);
    await_registration(&c);
    while (!rule_holds(&c, rule)) {
        let_waiter_err();
        end_next(&c, &plan);
    }
    line_up(&waiter.line);
    CHECK(waiter.status == CF_OK);
    CHECK(waiter.done == done_of(&c));
    for (int i = 0; i < THREE; i++)
        CHECK(waiter.futures[i]->watchers == NULL);
    cf_future_unref_all(waiter.futures, THREE);
}

static void test_every_course_of_events(void **unused)
{
    (void)unused;
    static const int plans[] = { 1, 1 * 3, 2 * 3 * 1 * 3, 3 * 3 * 2 * 3 * 1 * 3 };
    pthread_t thread = start_thread(wait_again_and_again, NULL);
    for (size_t rule = 0; rule < COUNT_OF(rules); rule++) {
        for (int number = 0; number < COMBINATIONS; number++) {
            const struct combination c = combination_of(number);
            if (rule_holds(&c, rules[rule]))
                continue;
            for (int plan = 0; plan < plans[THREE - done_of(&c)] && all_checks_held(); plan++)
                wait_through(c, rules[rule], plan);
        }
    }
    atomic_store(&waiter.over, true);
    line_up(&waiter.line);
    join_thread(thread);
    assert_checks();
}

struct set {
    cf_future **futures;
    size_t count, done;
    cf_return_when rule;
    cf_status status;
};

static void *wait_for_set(void *data)
{
    struct set *s = data;
    s->status = cf_wait(s->futures, s->count, s->rule, CF_FOREVER, &s->done);
    return NULL;
}

static void test_duplicates_all_wake(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        cf_future *f = new_promise();
        cf_future *futures[] = { f, f, NULL, f };
        struct set s = { .futures = futures, .count = 4, .rule = rules[i] };
        pthread_t thread = start_thread(wait_for_set, &s);
        WAIT_UNTIL(is_watched(f));
        settle_promise(f, false);
        join_thread(thread);
        assert_int_equal(s.status, CF_OK);
        assert_int_equal(s.done, 3);
        cf_future_unref(f);
    }
}

/* Three who wait for the same futures by different rules. */
static void test_sets_do_not_disturb_each_other(void **unused)
{
    (void)unused;
    for (int round = 0; round < 100; round++) {
        cf_future *futures[] = { new_promise(), new_promise(), new_promise() };
        struct set sets[3];
        pthread_t threads[3];
        for (size_t i = 0; i < 3; i++) {
            sets[i] = (struct set){ .futures = futures, .count = 3, .rule = rules[i] };
            threads[i] = start_thread(wait_for_set, &sets[i]);
        }
        settle_promise(futures[1], false);
        join_thread(threads[1]); /* FIRST_COMPLETED */
        settle_promise(futures[0], true);
        join_thread(threads[2]); /* FIRST_EXCEPTION */
        assert_true(cf_future_cancel(futures[2]));
        join_thread(threads[0]);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(sets[i].status, CF_OK);
        assert_true(sets[0].done == 3 && sets[1].done >= 1 && sets[2].done >= 2);
        cf_future_unref_all(futures, 3);
    }
    assert_checks();
}

/* ---- cf_wait: many, and what it leaves behind ---- */

enum { MANY = 10000 };
static cf_future *many[MANY];

static void make_many(void)
{
    for (size_t i = 0; i < MANY; i++)
        many[i] = new_promise();
}

/* In an order that is not theirs: 7919 is prime to their number. */
static size_t shuffled(size_t i)
{
    return i * 7919 % MANY;
}

static void *settle_many(void *data)
{
    (void)data;
    for (size_t i = 0; i < MANY; i++)
        settle_promise(many[shuffled(i)], i % 3 == 2);
    return NULL;
}

static void test_many(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        make_many();
        pthread_t thread = start_thread(settle_many, NULL);
        size_t done = 0;
        assert_int_equal(cf_wait(many, MANY, rules[i], CF_FOREVER, &done), CF_OK);
        assert_true(rules[i] == CF_ALL_COMPLETED ? done == MANY : done >= 1);
        join_thread(thread);
        cf_future_unref_all(many, MANY);
    }
    assert_checks();
}

static void test_nothing_stays_registered(void **unused)
{
    (void)unused;
    static const size_t counts[] = { 1, 16, 17, MANY }; /* on the stack, and not */
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        make_many();
        size_t done = 99;
        for (size_t k = 0; k < COUNT_OF(rules); k++)
            assert_int_equal(cf_wait(many, counts[i], rules[k], 1000, &done), CF_TIMEOUT);
        assert_int_equal(done, 0);
        for (size_t k = 0; k < counts[i]; k++)
            assert_null(many[k]->watchers);
        settle_many(NULL); /* into memory that is gone, if anything were left */
        cf_future_unref_all(many, MANY);
    }
    assert_checks();
}

static bool give_up(void *data, bool signalled)
{
    (void)data, (void)signalled;
    return false;
}

static void test_no_count_of_an_interrupted_wait(void **unused)
{
    (void)unused;
    const cf_wait_hooks hooks = { .size = sizeof hooks, .after = give_up };
    cf_future *f = new_promise();
    size_t done = 99;
    cf_set_wait_hooks(&hooks);
    assert_int_equal(cf_wait(&f, 1, CF_ALL_COMPLETED, CF_MS(1), &done), CF_INTERRUPTED);
    cf_set_wait_hooks(NULL);
    assert_int_equal(done, 99);
    assert_null(f->watchers);
    cf_future_unref(f);
}

/* ---- races of cf_wait ---- */

static struct {
    cf_future *futures[THREE];
    cf_return_when rule;
    cf_completed *completed;
} shared;

static void new_three(void *data)
{
    (void)data;
    for (int i = 0; i < THREE; i++)
        shared.futures[i] = new_promise();
}

static void wait_here(void *data)
{
    size_t done = 0;
    (void)data;
    CHECK(cf_wait(shared.futures, THREE, shared.rule, CF_FOREVER, &done) == CF_OK);
    CHECK(done >= (shared.rule == CF_ALL_COMPLETED ? THREE : 1));
}

static void settle_there(void *data)
{
    (void)data;
    for (int i = 0; i < THREE; i++)
        settle_promise(shared.futures[i], i == 1);
}

static void unref_three(void *data)
{
    (void)data;
    for (int i = 0; i < THREE; i++)
        CHECK(shared.futures[i]->watchers == NULL);
    cf_future_unref_all(shared.futures, THREE);
}

static void test_wait_against_settle(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        shared.rule = rules[i];
        struct race race = {
            .prepare = new_three, .here = wait_here, .there = settle_there, .finish = unref_three
        };
        run_race(&race, 3000);
    }
}

/* ---- cf_as_completed ---- */

static cf_completed *complete(cf_future *const *futures, size_t count, int64_t timeout_ns)
{
    cf_completed *c = NULL;
    assert_int_equal(cf_as_completed(futures, count, timeout_ns, &c), CF_OK);
    return c;
}

static void next_is(cf_completed *c, size_t expected)
{
    size_t index = 99;
    assert_int_equal(cf_completed_next(c, &index), CF_OK);
    assert_int_equal(index, expected);
}

static void next_fails(cf_completed *c, cf_status status)
{
    size_t index = 99;
    assert_int_equal(cf_completed_next(c, &index), status);
    assert_int_equal(index, 99);
    if (status != CF_END)
        assert_int_equal(cf_last_error()->status, status);
}

static void test_in_order_of_completion(void **unused)
{
    (void)unused;
    cf_future *futures[] = { new_promise(), new_promise(), new_promise(), new_promise() };
    bring_to(futures[2], FAILED);
    cf_completed *c = complete(futures, 4, CF_FOREVER);
    bring_to(futures[3], CANCELLED);
    bring_to(futures[0], OK);
    next_is(c, 2); /* was done before */
    next_is(c, 3);
    bring_to(futures[1], OK);
    next_is(c, 0);
    next_is(c, 1);
    for (int i = 0; i < 3; i++)
        next_fails(c, CF_END);
    assert_null(cf_completed_free(c));
    cf_future_unref_all(futures, 4);
}

static void test_all_combinations_are_given_once(void **unused)
{
    (void)unused;
    for (int number = 0; number < COMBINATIONS; number++) {
        const struct combination c = combination_of(number);
        cf_future *futures[THREE];
        bool given[THREE] = { false, false, false };
        make_three(futures, &c);
        cf_completed *it = complete(futures, THREE, 0);
        for (size_t i = 0; i < done_of(&c); i++) {
            size_t index = 99;
            assert_int_equal(cf_completed_next(it, &index), CF_OK);
            assert_in_range(index, 0, THREE - 1);
            assert_true(c.states[index] != PENDING && !given[index]);
            given[index] = true;
        }
        next_fails(it, done_of(&c) == THREE ? CF_END : CF_TIMEOUT);
        cf_completed_free(it);
        cf_future_unref_all(futures, THREE);
    }
}

static void test_duplicates_once(void **unused)
{
    (void)unused;
    cf_future *f = new_promise(), *g = new_promise();
    cf_future *const futures[] = { NULL, f, g, f, NULL, g, f };
    settle_promise(g, false);
    cf_completed *c = complete(futures, COUNT_OF(futures), CF_FOREVER);
    next_is(c, 2);
    settle_promise(f, false);
    next_is(c, 1);
    next_fails(c, CF_END);
    cf_completed_free(c);
    cf_future_unref(f);
    cf_future_unref(g);
}

static void test_nothing_to_complete(void **unused)
{
    (void)unused;
    cf_future *const nothing[] = { NULL, NULL };
    for (int forever = 0; forever < 2; forever++) {
        int64_t timeout_ns = forever ? CF_FOREVER : 0;
        cf_completed *c = complete(NULL, 0, timeout_ns);
        next_fails(c, CF_END);
        next_fails(c, CF_END);
        cf_completed_free(c);
        c = complete(nothing, 2, timeout_ns);
        next_fails(c, CF_END);
        cf_completed_free(c);
    }
    assert_null(cf_completed_free(NULL));
}

static void test_wrong_iterations(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    cf_completed *c = NULL;
    size_t index = 99;
    assert_int_equal(cf_as_completed(&f, 1, 0, NULL), CF_INVALID);
    assert_int_equal(cf_as_completed(NULL, 1, 0, &c), CF_INVALID);
    assert_int_equal(cf_as_completed(&f, SIZE_MAX, 0, &c), CF_INVALID);
    assert_int_equal(cf_as_completed(&f, SIZE_MAX / 8, 0, &c), CF_INVALID);
    assert_null(c);
    assert_int_equal(cf_completed_next(NULL, &index), CF_INVALID);
    settle_promise(f, false);
    c = complete(&f, 1, 0);
    assert_int_equal(cf_completed_next(c, NULL), CF_INVALID);
    next_is(c, 0); /* it was not passed over */
    cf_completed_free(c);
    cf_future_unref(f);
    assert_int_equal(index, 99);
}

/* ---- the time of an iteration ---- */

static void test_time_counts_from_the_beginning(void **unused)
{
    (void)unused;
    cf_future *futures[] = { new_promise(), NULL, new_promise(), new_promise() };
    settle_promise(futures[0], false);
    settle_promise(futures[3], false);
    cf_completed *c = complete(futures, 4, CF_MS(2));
    int64_t passed = cfi_deadline(CF_MS(2));
    WAIT_UNTIL(cfi_deadline_passed(passed));
    next_is(c, 0); /* what is done is given all the same */
    next_is(c, 3);
    for (int i = 0; i < 2; i++) {
        next_fails(c, CF_TIMEOUT);
        assert_string_equal(cf_last_error()->message, "1 (of 3) futures unfinished");
    }
    settle_promise(futures[2], false);
    next_is(c, 2);
    next_fails(c, CF_END);
    cf_completed_free(c);
    cf_future_unref_all(futures, 4);
}

static void test_how_many_are_unfinished(void **unused)
{
    (void)unused;
    cf_future *f = new_promise(), *g = new_promise();
    cf_future *const futures[] = { f, f, NULL, g, f };
    cf_completed *c = complete(futures, COUNT_OF(futures), 0);
    next_fails(c, CF_TIMEOUT);
    assert_string_equal(cf_last_error()->message, "2 (of 2) futures unfinished");
    cf_completed_free(c);
    c = complete(futures, COUNT_OF(futures), CF_MS(1)); /* asleep */
    next_fails(c, CF_TIMEOUT);
    assert_string_equal(cf_last_error()->message, "2 (of 2) futures unfinished");
    cf_completed_free(c);
    cf_future_unref(f);
    cf_future_unref(g);
}

/* ---- whose futures they are ---- */

static unsigned results_destroyed, callbacks;

static void count_destroyed(void *result)
{
    (void)result;
    results_destroyed++;
}

static void count_callback(cf_future *future, void *data)
{
    (void)future, (void)data;
    callbacks++;
}

static void test_it_has_its_own_references(void **unused)
{
    (void)unused;
    cf_future *futures[] = { NULL, NULL };
    results_destroyed = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cf_future_new(4, count_destroyed, &futures[i]), CF_OK);
        assert_int_equal(cf_future_set_result(futures[i], NULL), CF_OK);
    }
    cf_completed *c = complete(futures, 2, CF_FOREVER);
    cf_future_unref_all(futures, 2);
    assert_int_equal(results_destroyed, 0);
    next_is(c, 0); /* lets go of it */
    assert_int_equal(results_destroyed, 1);
    cf_completed_free(c);
    assert_int_equal(results_destroyed, 2);
}

static void test_nobody_else_holds_them(void **unused)
{
    (void)unused;
    cf_future *f = new_promise();
    callbacks = 0;
    cf_future_add_done_callback(f, count_callback, NULL);
    cf_completed *c = complete(&f, 1, CF_MS(1));
    cf_future_unref(f);
    next_fails(c, CF_TIMEOUT);
    assert_int_equal(callbacks, 0);
    cf_completed_free(c); /* the last reference: abandoned */
    assert_int_equal(callbacks, 1);
}

static void test_freed_before_they_are_done(void **unused)
{
    (void)unused;
    for (int sleep = 0; sleep < 2; sleep++) {
        cf_future *futures[] = { new_promise(), new_promise(), new_promise() };
        cf_completed *c = complete(futures, 3, sleep ? CF_MS(1) : CF_FOREVER);
        settle_promise(futures[1], false);
        if (sleep) {
            next_is(c, 1);
            next_fails(c, CF_TIMEOUT);
        }
        cf_completed_free(c);
        assert_true(!futures[0]->watchers && !futures[2]->watchers);
        settle_promise(futures[0], false);
        assert_true(cf_future_cancel(futures[2]));
        cf_future_unref_all(futures, 3);
    }
}

static void test_two_iterators(void **unused)
{
    (void)unused;
    cf_future *futures[] = { new_promise(), new_promise() };
    cf_completed *c = complete(futures, 2, CF_FOREVER), *d = complete(futures, 2, CF_FOREVER);
    settle_promise(futures[1], false);
    next_is(c, 1);
    next_is(d, 1);
    cf_completed_free(c);
    settle_promise(futures[0], true);
    next_is(d, 0);
    next_fails(d, CF_END);
    cf_completed_free(d);
    cf_future_unref_all(futures, 2);
}

/* ---- while others settle them ---- */

static void test_many_complete(void **unused)
{
    (void)unused;
    make_many();
    cf_completed *c = complete(many, MANY, CF_FOREVER);
    pthread_t thread = start_thread(settle_many, NULL);
    for (size_t i = 0; i < MANY; i++) {
        size_t index = MANY;
        CHECK(cf_completed_next(c, &index) == CF_OK);
        CHECK(index == shuffled(i)); /* in the order of their ends */
    }
    join_thread(thread);
    assert_checks();
    next_fails(c, CF_END);
    cf_completed_free(c);
    cf_future_unref_all(many, MANY);
}

static void begin_iteration(void *data)
{
    new_three(data);
    CHECK(cf_as_completed(shared.futures, THREE, CF_FOREVER, &shared.completed) == CF_OK);
}

static void iterate_here(void *data)
{
    (void)data;
    for (size_t i = 0; i < THREE; i++) {
        size_t index = 99;
        CHECK(cf_completed_next(shared.completed, &index) == CF_OK && index == i);
    }
    size_t index = 99;
    CHECK(cf_completed_next(shared.completed, &index) == CF_END && index == 99);
    cf_completed_free(shared.completed);
}

static void make_and_iterate_here(void *data)
{
    unsigned given = 0;
    size_t index = 99;
    (void)data;
    cf_completed *c = NULL;
    CHECK(cf_as_completed(shared.futures, THREE, CF_FOREVER, &c) == CF_OK);
    while (cf_completed_next(c, &index) == CF_OK)
        given |= 1U << index;
    CHECK(given == 7);
    cf_completed_free(c);
}

static void free_here(void *data)
{
    (void)data;
    cf_completed_free(shared.completed);
}

static void free_after_one_here(void *data)
{
    size_t index = 99;
    (void)data;
    CHECK(cf_completed_next(shared.completed, &index) == CF_OK && index == 0);
    cf_completed_free(shared.completed);
}

static void race(void (*prepare)(void *), void (*here)(void *))
{
    struct race r = {
        .prepare = prepare, .here = here, .there = settle_there, .finish = unref_three
    };
    run_race(&r, 3000);
}

static void test_iteration_against_settle(void **unused)
{
    (void)unused;
    race(begin_iteration, iterate_here);
    race(new_three, make_and_iterate_here);
}

static void test_free_against_settle(void **unused)
{
    (void)unused;
    race(begin_iteration, free_here);
    race(begin_iteration, free_after_one_here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_combination),
        cmocka_unit_test(test_no_registration_without_a_wait),
        cmocka_unit_test(test_no_futures),
        cmocka_unit_test(test_missing_ones_are_skipped),
        cmocka_unit_test(test_duplicates_count_as_entries),
        cmocka_unit_test(test_wrong_waits),
        cmocka_unit_test(test_every_course_of_events),
        cmocka_unit_test(test_duplicates_all_wake),
        cmocka_unit_test(test_sets_do_not_disturb_each_other),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_nothing_stays_registered),
        cmocka_unit_test(test_no_count_of_an_interrupted_wait),
        cmocka_unit_test(test_wait_against_settle),
        cmocka_unit_test(test_in_order_of_completion),
        cmocka_unit_test(test_all_combinations_are_given_once),
        cmocka_unit_test(test_duplicates_once),
        cmocka_unit_test(test_nothing_to_complete),
        cmocka_unit_test(test_wrong_iterations),
        cmocka_unit_test(test_time_counts_from_the_beginning),
        cmocka_unit_test(test_how_many_are_unfinished),
        cmocka_unit_test(test_it_has_its_own_references),
        cmocka_unit_test(test_nobody_else_holds_them),
        cmocka_unit_test(test_freed_before_they_are_done),
        cmocka_unit_test(test_two_iterators),
        cmocka_unit_test(test_many_complete),
        cmocka_unit_test(test_iteration_against_settle),
        cmocka_unit_test(test_free_against_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
