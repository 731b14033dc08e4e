/* SPDX-License-Identifier: MIT */
#include "inbox.h"

#include "../base/clock.h"

static bool spin_for_token(struct cfi_parker *parker)
{
    for (int i = 0; i < cfi_spins && !cfi_has_token(parker); i++)
        cfi_pause();
    return cfi_has_token(parker);
}

cf_status cfi_park_in_graph(struct cfi_parker *parker, const struct cfi_wait *wait,
                            int64_t deadline)
{
    cfi_rest_begin();
    bool has_token = spin_for_token(parker);
    cf_status s = has_token ? CF_OK : cfi_wait_begin(wait);
    enum cfi_woken woken = s == CF_OK ? cfi_park(parker, deadline) : CFI_WOKEN;
    if (!has_token && s == CF_OK)
        cfi_wait_end();
    if (!cfi_rest_end() && woken == CFI_TIMED_OUT)
        woken = CFI_SIGNALLED;
    if (s != CF_OK)
        return s;
    return woken == CFI_WOKEN ? CF_OK : cfi_fail_woken(woken, "the futures were not done in time");
}

static void append(struct cfi_inbox *inbox, struct cfi_inbox_entry *e)
{
    e->next = NULL;
    *inbox->last = e;
    inbox->last = &e->next;
}

static void notify_entry(struct cfi_watcher *watcher, bool failed)
{
    (void)failed;
    struct cfi_inbox_entry *e = (struct cfi_inbox_entry *)watcher;
    struct cfi_inbox *inbox = e->inbox;
    cfi_lock(&inbox->lock);
    append(inbox, e);
    cfi_unpark(&inbox->parker);
    cfi_unlock(&inbox->lock); /* our last touch: the consumer gets at the entry only after it */
}

void cfi_inbox_init(struct cfi_inbox *inbox)
{
    *inbox = (struct cfi_inbox){ .last = &inbox->first };
}

void cfi_inbox_watch(struct cfi_inbox *inbox, struct cfi_inbox_entry *entry, cf_future *f)
{
    entry->inbox = inbox;
    entry->watcher.notify = notify_entry;
    if (cfi_future_is_done(f) || !cfi_future_watch(f, &entry->watcher))
        notify_entry(&entry->watcher, false);
}

struct cfi_inbox_entry *cfi_inbox_take(struct cfi_inbox *inbox)
{
    cfi_lock(&inbox->lock);
    struct cfi_inbox_entry *e = inbox->first;
    if (e) {
        inbox->first = e->next;
        if (!inbox->first)
            inbox->last = &inbox->first;
    }
    cfi_unlock(&inbox->lock);
    return e;
}

cf_status cfi_inbox_await(struct cfi_inbox *inbox, const struct cfi_wait *wait, int64_t deadline)
{
    return cfi_park_in_graph(&inbox->parker, wait, deadline);
}
