/* SPDX-License-Identifier: MIT */
/* Sleeping again and again for the first of many futures: `while pending: done, pending =
 * wait(pending, return_when=FIRST_COMPLETED)`.
 *
 * Watchers that each call puts into all futures and takes out again would be most of its cost.  So
 * a future is hooked once (cfpy_future_hook) and for good; each call only marks it with its number,
 * and when the future is done, whoever has that number is woken.  A mark that is left behind means
 * nothing: no other call gets the number (until they wrap around, which wakes somebody in vain).
 *
 * All this is guarded by the GIL.  In a child after a fork the places of the parent's sleepers stay
 * taken; their futures can never be done there. */
#include "binding.h"

enum { PLACES = 64 };

static struct cfpy_sleeper places[PLACES];

static struct cfpy_sleeper *sleeper_of(const cfpy_future *f)
{
    struct cfpy_sleeper *s = &places[f->sleeper % PLACES];
    return f->sleeper && s->number == f->sleeper ? s : NULL;
}

static struct cfpy_sleeper *free_place(void)
{
    for (int i = 0; i < PLACES; i++) {
        if (!places[i].number)
            return &places[i];
    }
    return NULL;
}

/* Tells the place, and is never 0. */
static uint32_t next_number(const struct cfpy_sleeper *s)
{
    static uint32_t calls;
    calls = (calls + 1) % (UINT32_MAX / PLACES);
    return (calls + 1) * PLACES + (uint32_t)(s - places);
}

struct cfpy_sleeper *cfpy_sleeper_new(void)
{
    struct cfpy_sleeper *s = free_place();
    if (!s || cf_future_new(0, NULL, &s->gate) != CF_OK)
        return NULL;
    s->count = 0;
    s->number = next_number(s);
    return s;
}

void cfpy_sleeper_free(struct cfpy_sleeper *sleeper)
{
    unsigned count = sleeper->count < CFPY_FOUND ? sleeper->count : CFPY_FOUND;
    cfpy_future *found[CFPY_FOUND];
    memcpy(found, sleeper->found, sizeof found);
    cf_future_unref(sleeper->gate);
    sleeper->number = 0; /* from here on the place may be another one's */
    while (count > 0)
        Py_DECREF(found[--count]);
}

bool cfpy_sleeper_add(struct cfpy_sleeper *sleeper, cfpy_future *future)
{
    if (sleeper_of(future))
        return false;
    future->sleeper = sleeper->number;
    if (future->hooked || cfpy_future_hook(future) == 0)
        return true;
    PyErr_Clear();
    return false;
}

void cfpy_tell_sleeper(cfpy_future *future)
{
    struct cfpy_sleeper *s = sleeper_of(future);
    if (!s)
        return;
    if (s->count < CFPY_FOUND)
        s->found[s->count] = (cfpy_future *)Py_NewRef(future);
    if (s->count++ == 0)
        (void)cf_future_set_result(s->gate, NULL);
}
