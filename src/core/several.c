/* SPDX-License-Identifier: MIT */
/* Waiting for several futures at once: cf_wait and cf_as_completed.
 *
 * Each future that is not done gets a watcher of the set; whoever settles it calls the watcher's
 * notify under the future's watcher lock.  So the cost is one registration a future and one
 * notification a completion, whatever the number.
 *
 * cf_wait sleeps on one token, which the completion that satisfies the rule leaves: one wake-up for
 * any number of futures.  as_completed collects what is done in an inbox (inbox.h), from which the
 * consumer takes one after the other. */
#include "../base/clock.h"
#include "../base/park.h"
#include "executor.h"
#include "inbox.h"
#include "wait.h"

#include <stdlib.h>
#include <string.h>

/* ---- cf_wait ---- */

struct set {
    cfi_i64 needed;           /* completions until the rule holds; at 0 or less it does */
    int64_t failure_weight;   /* 1, or enough to end the wait */
    struct cfi_parker parker; /* gets its token when `needed` crosses 0 */
};

struct member {
    struct cfi_watcher watcher;
    struct set *set;
};

static void notify_member(struct cfi_watcher *watcher, bool failed)
{
    struct set *set = ((struct member *)watcher)->set;
    int64_t weight = failed ? set->failure_weight : 1;
    int64_t before = cfi_sub_acq_rel(&set->needed, weight);
    if (before > 0 && before <= weight)
        cfi_unpark(&set->parker); /* from here on the set may be gone */
}

struct tally {
    size_t present, done, failed;
    size_t foreign; /* not done, and of the process before a fork */
};

static struct tally tally(cf_future *const *futures, size_t count)
{
    struct tally t = { 0, 0, 0, 0 };
    uint8_t generation = cfi_generation();
    for (size_t i = 0; i < count; i++) {
        if (!futures[i])
            continue;
        uint64_t word =
            cfi_load_acquire(&futures[i]->word); /* pairs with the swap that settled it */
        t.present++;
        t.done += cfi_is_final(word);
        t.failed += cfi_state(word) == CFI_DONE_FAILED;
        t.foreign += !cfi_is_final(word) && futures[i]->generation != generation;
    }
    return t;
}

static bool holds(struct tally t, cf_return_when rule)
{
    return t.done == t.present || (rule == CF_FIRST_COMPLETED && t.done > 0) ||
           (rule == CF_FIRST_EXCEPTION && t.failed > 0);
}

/* Registers with every future, sleeps once, and takes back what has not been notified. */
static cf_status sleep_for(struct member *members, cf_future *const *futures, size_t count,
                           cf_return_when rule, int64_t deadline)
{
    struct tally t = tally(futures, count);
    if (holds(t, rule))
        return CF_OK;
    struct set set = { .failure_weight = rule == CF_FIRST_EXCEPTION ? (int64_t)t.present : 1 };
    cfi_init(&set.needed, rule == CF_FIRST_COMPLETED ? 1 : (int64_t)t.present);
    size_t registered = 0;
    for (; registered < count && !cfi_has_token(&set.parker); registered++) {
        struct member *m = &members[registered];
        cf_future *f = futures[registered];
        *m = (struct member){ { NULL, notify_member }, &set };
        if (f && !cfi_future_watch(f, &m->watcher))
            notify_member(&m->watcher, cf_future_exception(f) && !cf_future_cancelled(f));
    }
    const struct cfi_wait wait = { futures, count, rule != CF_ALL_COMPLETED,
                                   deadline != CFI_NEVER };
    cf_status s = cfi_park_in_graph(&set.parker, &wait, deadline);
    if (s == CF_OK && rule == CF_ALL_COMPLETED)
        return CF_OK; /* all have been notified: nothing to take back */
    for (size_t i = 0; i < registered; i++) {
        if (futures[i])
            cfi_future_unwatch(futures[i], &members[i].watcher);
    }
    return s;
}

/* Inside a task: runs what is awaited, as long as the rule does not hold. */
static void help_all(cf_future *const *futures, size_t count, cf_return_when rule, int64_t deadline)
{
    for (size_t i = 0; i < count; i++) {
        while (futures[i] && !cfi_future_is_done(futures[i]) && cfi_wait_help(futures[i])) {
            if (cfi_deadline_passed(deadline) ||
                (rule != CF_ALL_COMPLETED && holds(tally(futures, count), rule)))
                return;
        }
    }
}

/* FIRST_EXCEPTION inside a task: any completion may leave only such as can never end, which the
 * wait graph tells only to who asks again.  So wake at each. */
static cf_status sleep_for_exception(struct member *members, cf_future *const *futures,
                                     size_t count, int64_t deadline)
{
    cf_future **pending = malloc(count * sizeof(cf_future *));
    if (!pending)
        return cfi_fail(CF_NOMEM, "cf_wait: out of memory for %zu futures", count);
    cf_status s = CF_OK;
    while (s == CF_OK && !holds(tally(futures, count), CF_FIRST_EXCEPTION)) {
        size_t n = 0;
        for (size_t i = 0; i < count; i++) {
            if (futures[i] && !cfi_future_is_done(futures[i]))
                pending[n++] = futures[i];
        }
        s = sleep_for(members, pending, n, CF_FIRST_COMPLETED, deadline);
    }
    free(pending);
    return s;
}

/* *t: how things are now, and then. */
static cf_status wait_longer(cf_future *const *futures, size_t count, cf_return_when rule,
                             int64_t timeout_ns, struct tally *t)
{
    if (t->foreign)
        return cfi_fail_fixed(CF_SHUTDOWN, "a future belongs to the process before a fork");
    if (timeout_ns <= 0)
        return cfi_fail_fixed(CF_TIMEOUT, "the futures are not done");
    int64_t deadline = cfi_deadline(timeout_ns);
    if (cfi_is_waited_for())
        help_all(futures, count, rule, deadline);
    struct member few[16], *members = few;
    if (count > sizeof few / sizeof *few)
        members = malloc(count * sizeof *members);
    if (!members)
        return cfi_fail(CF_NOMEM, "cf_wait: out of memory for %zu futures", count);
    bool step_by_step = rule == CF_FIRST_EXCEPTION && cfi_is_waited_for();
    cf_status s = step_by_step ? sleep_for_exception(members, futures, count, deadline)
                               : sleep_for(members, futures, count, rule, deadline);
    if (members != few)
        free(members);
    *t = tally(futures, count);
    return s;
}

cf_status cf_wait(cf_future *const *futures, size_t count, cf_return_when return_when,
                  int64_t timeout_ns, size_t *ret_done)
{
    if (!futures && count)
        return cfi_fail(CF_INVALID, "cf_wait: futures is NULL, but count is %zu", count);
    if (count > SIZE_MAX / 2 / sizeof(struct member))
        return cfi_fail(CF_INVALID, "cf_wait: count %zu is too large", count);
    if ((int)return_when < CF_ALL_COMPLETED || return_when > CF_FIRST_EXCEPTION)
        return cfi_fail(CF_INVALID, "cf_wait: return_when %d is unknown", (int)return_when);
    struct tally t = tally(futures, count);
    cf_status s = CF_OK;
    if (!holds(t, return_when))
        s = wait_longer(futures, count, return_when, timeout_ns, &t);
    if (ret_done && (s == CF_OK || s == CF_TIMEOUT))
        *ret_done = t.done;
    return s;
}

/* ---- cf_as_completed ---- */

struct cf_completed {
    struct cfi_inbox inbox;
    int64_t deadline;
    size_t total, left; /* different futures; those not yet given out */
    size_t count;
    size_t helped;   /* entries before this one have begun */
    size_t given;    /* entries before this one have been given out */
    bool is_foreign; /* one of them can never settle in this process */
    uint8_t generation;
    cf_future **futures; /* a reference each; NULL once given out */
    struct cfi_inbox_entry entries[];
};

/* Marks which entries are the first of their future: a table of twice their number, open
 * addressing. */
static cf_status find_duplicates(cf_future *const *futures, size_t count, cf_future **unique)
{
    size_t slots = 4;
    while (slots < 2 * count)
        slots *= 2;
    cf_future **table = calloc(slots, sizeof *table);
    if (!table)
        return cfi_fail_fixed(CF_NOMEM, "cf_as_completed: out of memory");
    for (size_t i = 0; i < count; i++) {
        cf_future *f = futures[i];
        size_t at = ((uintptr_t)f >> 5) * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (slots - 1);
        while (table[at] && table[at] != f)
            at = (at + 1) & (slots - 1);
        unique[i] = table[at] ? NULL : f;
        table[at] = f;
    }
    free(table);
    return CF_OK;
}

static struct cf_completed *completed_new(size_t count, int64_t timeout_ns)
{
    struct cf_completed *c =
        calloc(1, sizeof *c + count * (sizeof(struct cfi_inbox_entry) + sizeof(cf_future *)));
    if (!c)
        return NULL;
    cfi_inbox_init(&c->inbox);
    c->deadline = cfi_deadline(timeout_ns);
    c->generation = cfi_generation();
    c->count = count;
    c->futures = (cf_future **)(void *)(c->entries + count);
    return c;
}

static void watch_all(struct cf_completed *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (!c->futures[i])
            continue;
        cf_future_ref(c->futures[i]);
        c->total++;
        cfi_inbox_watch(&c->inbox, &c->entries[i], c->futures[i]);
    }
    c->left = c->total;
    c->is_foreign = tally(c->futures, c->count).foreign > 0;
}

cf_status cf_as_completed(cf_future *const *futures, size_t count, int64_t timeout_ns,
                          cf_completed **ret)
{
    if (!ret || (!futures && count))
        return cfi_fail(CF_INVALID, "cf_as_completed: %s is NULL", ret ? "futures" : "ret");
    if (count > SIZE_MAX / 4 / sizeof(struct cfi_inbox_entry))
        return cfi_fail(CF_INVALID, "cf_as_completed: count %zu is too large", count);
    struct cf_completed *c = completed_new(count, timeout_ns);
    if (!c)
        return cfi_fail(CF_NOMEM, "cf_as_completed: out of memory for %zu futures", count);
    cf_status s = find_duplicates(futures, count, c->futures);
    if (s != CF_OK) {
        free(c);
        return s;
    }
    watch_all(c);
    *ret = c;
    return CF_OK;
}

/* Inside a task: runs one of the awaited. */
static bool help_one(struct cf_completed *c)
{
    for (; c->helped < c->count; c->helped++) {
        cf_future *f = c->futures[c->helped];
        if (f && !cfi_future_is_done(f) && cfi_wait_help(f))
            return true;
    }
    return false;
}

/* Until something is in the list. */
static cf_status await_entry(struct cf_completed *c)
{
    if (c->is_foreign || c->generation != cfi_generation())
        return cfi_fail_fixed(CF_SHUTDOWN, "a future belongs to the process before a fork");
    if (cfi_deadline_passed(c->deadline))
        return cfi_fail(CF_TIMEOUT, "%zu (of %zu) futures unfinished", c->left, c->total);
    if (cfi_is_waited_for() && help_one(c))
        return CF_OK;
    while (!c->futures[c->given])
        c->given++; /* there is one: some are left */
    const struct cfi_wait wait = { c->futures + c->given, c->count - c->given, true,
                                   c->deadline != CFI_NEVER };
    cf_status s = cfi_inbox_await(&c->inbox, &wait, c->deadline);
    return s == CF_TIMEOUT ? cfi_fail(s, "%zu (of %zu) futures unfinished", c->left, c->total) : s;
}

cf_status cf_completed_next(cf_completed *completed, size_t *ret_index)
{
    if (!completed || !ret_index)
        return cfi_fail(CF_INVALID, "cf_completed_next: %s is NULL",
                        completed ? "ret_index" : "completed");
    if (completed->left == 0)
        return CF_END;
    struct cfi_inbox_entry *e;
    while (!(e = cfi_inbox_take(&completed->inbox))) {
        cf_status s = await_entry(completed);
        if (s != CF_OK)
            return s;
    }
    size_t index = (size_t)(e - completed->entries);
    completed->left--;
    completed->futures[index] = cf_future_unref(completed->futures[index]);
    *ret_index = index;
    return CF_OK;
}

cf_completed *cf_completed_free(cf_completed *completed)
{
    if (!completed)
        return NULL;
    for (size_t i = 0; i < completed->count; i++) {
        if (!completed->futures[i])
            continue;
        cfi_future_unwatch(completed->futures[i], &completed->entries[i].watcher);
        cf_future_unref(completed->futures[i]);
    }
    free(completed);
    return NULL;
}
