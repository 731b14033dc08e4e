/* SPDX-License-Identifier: MIT */
/* A worker process's life: it is welcomed, initialized, does what comes, and leaves when asked to or at
 * once when its parent has gone.  The last is the fork server's affair.  A worker that a host has made
 * has a second thread for it, since a task may take for ever; with one thread malloc and stdio need no
 * locks, and a task may do what a process with threads may not. */
#define _GNU_SOURCE
#include "worker.h"
#include "../base/clock.h"
#include "../base/futex.h"
#include "../base/thread.h"
#include "../core/executor.h"
#include "../core/self.h"
#include "../core/wait.h"
#include "call.h"
#include "given.h"
#include "made.h"
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SPINS =
        1000, /* pauses before going to sleep: some 13 us, in which a caller has read the reply */
    SHORT = 500, /* ns: of tasks below that only every                     */
    APART = 8,   /* eighth end is looked up on the clock                */
    WATCH_STACK = 64 * 1024
};
static const int64_t idle_ns = 1000000000; /* then memory goes back */

/* How long tasks take: an average for the parent. */
struct meter {
    int64_t since; /* 0: the clock was not read since the last sleep */
    unsigned tasks;
    uint64_t cost; /* as in the arena */
};

struct worker {
    struct cfi_arena *arena;
    int channel, event, host;
    uint32_t next;    /* number of the task that comes next */
    uint32_t process; /* cfi_process: another in a child that a task has forked */
    struct meter meter;
    struct cfi_caller caller;
    void (*finalizer)(void *data);
    void *data; /* of initializer and finalizer */
};

/* ---- the parent may go at any time ---- */

static struct pollfd watched[2];

static void *watch(void *unused)
{
    (void)unused;
    int n;
    do
        n = poll(watched, 2, -1);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        _exit(1);
    return NULL;
}

static bool start_watch(const struct worker *w)
{
    cfi_thread thread;
    watched[0] = (struct pollfd){ .fd = w->host, .events = POLLIN };
    watched[1] = (struct pollfd){ .fd = w->channel, .events = POLLRDHUP };
    if (cfi_thread_start(&thread, watch, NULL, WATCH_STACK) != 0)
        return false;
    cfi_thread_detach(thread);
    cfi_own_thread(1); /* a task's own pools need not mind it */
    return true;
}

/* ---- welcome ---- */

/* The initializer's data: a copy of the worker's own, made page by page where it writes. */
static bool map_data(struct worker *w, int fd, size_t size)
{
    if (cfi_memory_map(fd, size, true, &w->data) != 0)
        return false;
    void *own = mmap(w->data, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
    return own != MAP_FAILED;
}

static bool use_descriptors(struct worker *w, const struct cfi_message *welcome, const int *fds)
{
    void *arena;
    if (cfi_memory_map(fds[0], sizeof(struct cfi_arena), false, &arena) != 0)
        return false;
    w->arena = arena;
    w->event = fds[1];
    w->host = fds[2];
    return welcome->data_size == 0 || map_data(w, fds[3], welcome->data_size);
}

static bool receive_welcome(struct worker *w, struct cfi_message *welcome)
{
    int fds[4], count = 0;
    if (cfi_message_receive(w->channel, welcome, 0, fds, &count) != 0)
        return false;
    int expected = welcome->data_size > 0 ? 4 : 3;
    bool is_good = welcome->type == CFI_WELCOME && welcome->version == CFI_CHANNEL_VERSION &&
                   welcome->size == sizeof(struct cfi_arena) && count == expected &&
                   use_descriptors(w, welcome, fds);
    for (int i = 0; i < count; i++) {
        if (!is_good || i == 0 || i == 3)
            close(fds[i]);
    }
    return is_good;
}

/* ---- initializer and finalizer ---- */

static void tell(const struct worker *w, const struct cfi_message *message)
{
    (void)cfi_message_send(w->channel, message, NULL, 0); /* if the parent has gone, so shall we */
}

static void tell_unfit(const struct worker *w, int code, const char *text)
{
    struct cfi_message unfit = { .type = CFI_UNFIT, .code = code };
    if (text)
        snprintf(unfit.text, sizeof unfit.text, "%s", text);
    tell(w, &unfit);
}

static bool call_initializer(struct worker *w, int (*initializer)(void *data))
{
    struct cfi_frame frame;
    cfi_frame_push(&frame, NULL);
    int code = initializer(w->data);
    cfi_frame_pop(&frame);
    if (code != 0)
        tell_unfit(w, code, frame.message);
    cfi_frame_forget(&frame);
    return code == 0;
}

static bool initialize(struct worker *w, const struct cfi_message *welcome)
{
    cfi_function *initializer = NULL, *finalizer = NULL;
    if (welcome->has_initializer)
        initializer =
            cfi_caller_find(&w->caller, welcome->initializer.image, welcome->initializer.offset);
    if (welcome->has_finalizer)
        finalizer =
            cfi_caller_find(&w->caller, welcome->finalizer.image, welcome->finalizer.offset);
    if ((welcome->has_initializer && !initializer) || (welcome->has_finalizer && !finalizer)) {
        tell_unfit(w, -1, cf_last_error()->message);
        return false;
    }
    w->finalizer = (void (*)(void *))finalizer;
    return !initializer || call_initializer(w, (int (*)(void *))initializer);
}

static void finalize(struct worker *w)
{
    if (w->finalizer) {
        struct cfi_frame frame;
        cfi_frame_push(&frame, NULL);
        w->finalizer(w->data);
        cfi_frame_pop(&frame);
        cfi_frame_forget(&frame);
    }
    /* Only these two: what others hold may be text of the process that this one was forked from. */
    fflush(stdout);
    fflush(stderr);
}

/* ---- the time tasks take ---- */

static void measure(struct worker *w)
{
    struct meter *m = &w->meter;
    int64_t now = cfi_now();
    uint64_t sample = (uint64_t)(now - m->since) / m->tasks, average = m->cost / 16;
    if (m->cost == 0)
        m->cost = sample * 16 + 1; /* 0 is for "not known" */
    else                           /* one that takes a thousand times as long shall not spoil it */
        m->cost += (sample < 4 * average + 16 ? sample : 4 * average + 16) - average;
    cfi_store_relaxed(&w->arena->cost, m->cost);
    m->since = now;
    m->tasks = 0;
}

static inline void begin_task(struct meter *m)
{
    if (m->since == 0)
        m->since = cfi_now();
}

static inline void end_task(struct worker *w)
{
    if (++w->meter.tasks >= (w->meter.cost < SHORT * 16 ? APART : 1))
        measure(w);
}

static void end_of_work(struct worker *w)
{
    if (w->meter.tasks > 0)
        measure(w);
    w->meter.since = 0;
}

/* ---- tasks ---- */

static void write_event(const struct worker *w)
{
    uint64_t one = 1;
    while (write(w->event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* Tells the parent that the task is done, if it asked for that or must hear of it. */
static inline void ring(struct worker *w, uint32_t number, bool must)
{
    uint32_t bell = cfi_load_seq_cst(&w->arena->bell);
    while (bell != CFI_QUIET &&
           (must || (int32_t)(number - cfi_load_seq_cst(&w->arena->ring_at)) >= 0)) {
        if (!cfi_cas_seq_cst(&w->arena->bell, &bell, CFI_QUIET))
            continue;
        if (bell == CFI_RING_WAITER)
            cfi_shared_wake(&w->arena->bell, INT32_MAX);
        else
            write_event(w);
        return;
    }
    if (must)
        write_event(w);
}

static inline struct cfi_slot *next_slot(const struct worker *w)
{
    return &w->arena->slots[w->next % CFI_SLOTS];
}

/* Passes over a task that was cancelled, unless it has just been taken back. */
static bool pass_over(struct cfi_slot *slot)
{
    uint32_t skip = CFI_SKIP;
    return cfi_cas_seq_cst(&slot->state, &skip, CFI_SLOT_DONE);
}

/* Runs the task in the slot, if there is one. */
static bool run(struct worker *w, struct cfi_slot *slot)
{
    uint32_t sent = CFI_SENT;
    if (!cfi_cas_acquire(&slot->state, &sent, CFI_SLOT_RUNNING))
        return false;
    begin_task(&w->meter);
    cfi_caller_run(&w->caller, w->next, slot);
    if (cfi_load_relaxed(&cfi_process) != w->process)
        _exit(
            0); /* a task has forked, and came back in the child too: the channel is the parent's */
    (void)cfi_exchange_seq_cst(&slot->state, CFI_SLOT_DONE);
    return true;
}

/* Does what the next slot says; false: nothing. */
static bool do_next(struct worker *w)
{
    struct cfi_slot *slot = next_slot(w);
    uint32_t state = cfi_load_acquire(&slot->state);
    bool ran = state == CFI_SENT && run(w, slot);
    if (!ran && !(state == CFI_SKIP && pass_over(slot)))
        return false;
    ring(w, w->next++, w->caller.must_ring);
    w->caller.must_ring = false;
    cfi_made_clear();
    if (ran)
        end_task(w);
    return true;
}

/* ---- nothing to do ---- */

static bool has_next(const struct worker *w)
{
    uint32_t state = cfi_load_seq_cst(&next_slot(w)->state);
    return state == CFI_SENT || state == CFI_SKIP;
}

static bool spin(const struct worker *w)
{
    for (int i = cfi_spins ? SPINS : 0; i > 0; i--) {
        if (has_next(w))
            return true;
        cfi_pause_for_another(i);
    }
    return false;
}

static void give_memory_back(struct worker *w)
{
    cfi_given_look(w->channel);
    cfi_made_trim();
}

/* Sleeps until there is a task; false: it is time to leave. */
static bool sleep_until_next(struct worker *w)
{
    int64_t deadline = cfi_deadline(idle_ns);
    bool leaves = false;
    for (;;) {
        cfi_store_seq_cst(&w->arena->worker_bell, CFI_ASLEEP);
        bool quits = cfi_load_seq_cst(&w->arena->quit); /* before the slot: see channel.h */
        if (has_next(w)) {
            leaves = false;
            break;
        }
        leaves = leaves || quits;
        if (leaves)
            break;
        enum cfi_woken woken = cfi_shared_sleep(&w->arena->worker_bell, CFI_ASLEEP, deadline);
        leaves = woken == CFI_SIGNALLED;
        if (woken == CFI_TIMED_OUT) {
            give_memory_back(w);
            leaves = !cfi_rest_end(); /* a signal may have come just before the sleep */
            cfi_rest_begin();
            deadline = CFI_NEVER;
        } else if (!has_next(w)) { /* the parent has said something */
            cfi_given_look(w->channel);
        }
    }
    cfi_store_relaxed(&w->arena->worker_bell, CFI_AWAKE);
    return !leaves;
}

static bool wait_for_next(struct worker *w)
{
    end_of_work(w);
    cfi_rest_begin();
    bool goes_on = spin(w);
    if (!goes_on) {
        fflush(stdout); /* it may be long until there is more of it */
        goes_on = sleep_until_next(w);
    }
    return cfi_rest_end() && goes_on;
}

/* An unfit worker stays until the parent has heard why: then that closes the channel or says quit. */
static void wait_for_the_end(struct worker *w)
{
    for (;;) {
        cfi_store_seq_cst(&w->arena->worker_bell, CFI_ASLEEP);
        if (cfi_load_seq_cst(&w->arena->quit))
            return;
        if (cfi_shared_sleep(&w->arena->worker_bell, CFI_ASLEEP, CFI_NEVER) == CFI_SIGNALLED)
            return;
    }
}

/* ---- a life ---- */

static int live(struct worker *w, const struct cfi_message *welcome)
{
    cfi_caller_init(&w->caller, w->arena, w->channel);
    cfi_made_begin(w->arena);
    if (!initialize(w, welcome)) {
        wait_for_the_end(w);
        return 1;
    }
    tell(w, &(struct cfi_message){ .type = CFI_READY });
    while (do_next(w) || wait_for_next(w))
        ;
    finalize(w);
    return 0;
}

int cf_worker_run_channel(int channel)
{
    return cfi_worker_serve(channel, false);
}

int cfi_worker_serve(int channel, bool has_server)
{
    static struct worker worker; /* one in a process, and other threads look at it until it ends */
    struct cfi_message welcome;
    worker.channel = channel;
    if (!receive_welcome(&worker, &welcome))
        return 1;
    cfi_thread_name(welcome.text, welcome.number);
    if (cfi_process_watch() != CF_OK || (!has_server && !start_watch(&worker)))
        return 1;
    worker.process = cfi_load_relaxed(&cfi_process);
    return live(&worker, &welcome);
}
