/* SPDX-License-Identifier: MIT */
/* The deaths of workers, and of the fork server.
 *
 * A death is seen by the worker's pidfd; how it died, by what the fork server says of it, a moment
 * later.  At once what the dead one had not begun goes back to the queue and a new one is started; the
 * task that it ran waits in a struct cfi_death until the status is known, or two seconds have
 * passed. */
#define _GNU_SOURCE
#include "pool.h"

#include "../base/oom.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const int64_t status_wait_ns = 2000000000;

/* ---- how it ended, in words ---- */

/* Each kill is the end of one process: those before its birth were not its own, nor those that have
 * explained another's. */
static bool ran_out_of_memory(struct cfi_process_pool *pool, const struct cfi_death *d, int status)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || d->stopped)
        return false;
    if (pool->oom_kills < d->oom_kills)
        pool->oom_kills = d->oom_kills;
    bool is_one = cfi_oom_kills("") > pool->oom_kills;
    pool->oom_kills += is_one;
    return is_one;
}

static const char *text_of_end(const struct cfi_death *d, const cf_error *e, char *text,
                               size_t size)
{
    const char *where = d->in_initializer ? " before it took tasks" : "";
    if (d->condemned)
        snprintf(text, size, "worker process %d closed or damaged its channel, and was killed",
                 e->worker_pid);
    else if (e->out_of_memory)
        snprintf(text, size, "worker process %d was killed%s: out of memory", e->worker_pid, where);
    else if (e->signal_number)
        snprintf(text, size, "worker process %d was killed%s by signal %d (%s)", e->worker_pid,
                 where, e->signal_number, strsignal(e->signal_number));
    else if (e->exit_code >= 0)
        snprintf(text, size, "worker process %d exited with code %d%s", e->worker_pid, e->exit_code,
                 where);
    else
        snprintf(text, size, "worker process %d died%s, nobody knows how", e->worker_pid, where);
    return text;
}

/* status -1: not known. */
static cf_error error_of_end(struct cfi_process_pool *pool, const struct cfi_death *d, int status,
                             char *text, size_t size)
{
    bool known = status != -1;
    cf_error e = { .size = sizeof e,
                   .status = d->stopped ? CF_STOPPED : CF_BROKEN,
                   .worker_pid = (int)d->pid,
                   .signal_number = known && WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                   .exit_code = known && WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                   .out_of_memory = known && ran_out_of_memory(pool, d, status) };
    e.message = text_of_end(d, &e, text, size);
    return e;
}

/* ---- death ---- */

/* Takes the role of a worker that is dead: whoever sleeps on its bell is sent away. */
static void take_role(struct cfi_child *c)
{
    cfi_store_seq_cst(&c->is_dead, true);
    while (!cfi_try_lock(&c->role)) {
        cfi_nudge(c);
        sched_yield();
    }
}

static void note_progress(cf_future *f, struct cfi_slot *slot)
{
    int64_t done = cfi_load_relaxed(&slot->began_at);
    bool is_piece = cfi_parcel_of(f)->call == CFI_CALL_PIECE && done > 0;
    cfi_parcel_of(f)->done = is_piece ? (size_t)done : 0;
}

/* What it began goes with it; what it did not begin goes back. */
static void sort_tasks(struct cfi_child *c, struct cfi_death *d)
{
    uint32_t seen = cfi_load_relaxed(&c->seen);
    cfi_take_back_all(c);
    for (uint32_t n = c->sent; n != seen; n--) {
        cf_future *f = cfi_exchange_acq_rel(&c->tasks_sent[(n - 1) % CFI_SLOTS], NULL);
        if (!f || f == CFI_MARK_SKIPPED)
            continue;
        cfi_store_release(&cfi_parcel_of(f)->place, 0);
        note_progress(f, cfi_slot_of(c, n - 1));
        (void)cfi_future_claim(f); /* it ran: nobody cancels it any more */
        cfi_parcel_of(f)->next = d->guilty;
        d->guilty = f;
    }
    cfi_store_release(&c->sent, seen);
}

static bool bury(struct cfi_child *c)
{
    struct cfi_process_pool *pool = c->pool;
    struct cfi_death *d = c->death;
    c->death = NULL;
    cfi_lock(&pool->lock);
    bool expected = cfi_state_of(c) == CFI_CHILD_LEAVING;
    d->in_initializer = cfi_state_of(c) == CFI_CHILD_ASKED;
    d->stopped = c->signalled || pool->stopping;
    d->condemned = cfi_load_relaxed(&c->condemned);
    d->pid = (pid_t)cfi_load_relaxed(&c->pid);
    d->pidfd = c->pidfd;
    d->expected = expected;
    d->unfit = c->unfit;
    c->unfit = NULL;
    c->pidfd = -1;
    sort_tasks(c, d);
    d->deadline = cfi_now() + status_wait_ns;
    d->next = pool->deaths;
    pool->deaths = d;
    cfi_set_state(c, CFI_CHILD_ABSENT);
    cfi_set_idle(c, false);
    pool->started--;
    bool breaks = pool->options.on_crash == CF_ON_CRASH_BREAK && !d->stopped;
    bool wants = !expected && !breaks && !cfi_load_relaxed(&pool->closing);
    cfi_unlock(&pool->lock);
    return wants;
}

void cfi_child_died(struct cfi_child *c, uint16_t generation)
{
    take_role(c);
    if (cfi_generation_of(c) != generation || !cfi_has_channel(c)) { /* it was buried before */
        cfi_store_seq_cst(&c->is_dead, false);
        cfi_unlock(&c->role);
        return;
    }
    cfi_child_messages(c);
    struct cfi_outcome out[CFI_DRAIN_BATCH];
    uint32_t before;
    do { /* its last words */
        before = cfi_load_relaxed(&c->seen);
        unsigned n = cfi_read_results(c, out);
        cfi_unlock(&c->role);
        cfi_settle_outcomes(c->pool, out, n);
        take_role(c);
    } while (cfi_load_relaxed(&c->seen) != before);
    cfi_inflow_clear(c);
    cfi_lock(&c->mail);
    cfi_close_channel(c);
    cfi_unlock(&c->mail);
    bool replace = bury(c);
    cfi_unlock(&c->role);
    if (replace) /* at once: there may be work soon */
        (void)cfi_start_child(c->pool);
    else
        cfi_start_wanted(c->pool);
    cfi_lock(&c->pool->lock);
    cfi_feed_idle(c->pool); /* with what came back */
    cfi_unlock(&c->pool->lock);
    cfi_tell_room(c->pool);
}

static bool may_retry(struct cfi_process_pool *pool, const struct cfi_death *d, cf_future *f)
{
    return !d->stopped && !(cfi_load_relaxed(&f->word) & CFI_STOP) &&
           !cfi_load_relaxed(&pool->no_retries) &&
           cfi_parcel_of(f)->crashes++ < pool->options.max_retries;
}

/* Unless a shutdown or a break has emptied the queue meanwhile. */
static bool try_again(struct cfi_process_pool *pool, cf_future *f)
{
    cfi_lock(&pool->lock);
    bool may = !cfi_load_relaxed(&pool->no_retries);
    if (may) {
        cfi_put_back(pool, f);
        cfi_refill_all(pool);
    }
    cfi_unlock(&pool->lock);
    return may;
}

static void settle_guilty(struct cfi_process_pool *pool, struct cfi_death *d, const cf_error *error)
{
    for (cf_future *f = d->guilty, *next; f; f = next) {
        next = cfi_parcel_of(f)->next;
        if (may_retry(pool, d, f) && try_again(pool, f))
            continue;
        cf_error own = *error;
        own.index = cfi_parcel_of(f)->done;
        cfi_fail_task(pool, f, &own);
    }
}

static void break_for(struct cfi_process_pool *pool, const cf_error *last, bool too_many)
{
    char text[CFI_MOST_TEXT + 128];
    cf_error error = *last;
    error.status = CF_BROKEN;
    if (too_many)
        snprintf(text, sizeof text, "%u workers have died within %g s, the last: %s",
                 pool->options.max_restarts + 1, (double)pool->options.restart_window_ns / 1e9,
                 last->message);
    else
        snprintf(text, sizeof text, "%s", last->message);
    error.message = text;
    cfi_process_pool_break(pool, &error);
}

/* The status is known, or will never be. */
static void conclude(struct cfi_process_pool *pool, struct cfi_death *d, int status)
{
    char text[256];
    const cf_error error = error_of_end(pool, d, status, text, sizeof text);
    bool crash = !d->expected && !d->stopped;
    if (d->unfit)
        cfi_say_broken(pool, 1, d->unfit, (uint32_t)d->pid);
    free(d->unfit);
    bool too_many = crash && cfi_is_one_too_many(pool, cfi_now());
    bool breaks = crash && pool->options.on_crash == CF_ON_CRASH_BREAK;
    if (too_many || breaks)
        break_for(pool, &error, too_many);
    /* What the break has killed is told of the first death, not of ours. */
    const cf_error *first = &pool->executor.broken;
    settle_guilty(pool, d, breaks && first->message ? first : &error);
    cfi_start_wanted(pool);
    if (d->pidfd >= 0)
        (void)close(d->pidfd);
    free(d);
}

/* Takes the death that meets the condition off the list; NULL: none. */
static struct cfi_death *take_death(struct cfi_process_pool *pool, uint64_t tag, int64_t now)
{
    cfi_lock(&pool->lock);
    struct cfi_death **at = &pool->deaths;
    while (*at && !(tag ? (*at)->tag == tag : (*at)->deadline <= now))
        at = &(*at)->next;
    struct cfi_death *d = *at;
    if (d)
        *at = d->next;
    cfi_unlock(&pool->lock);
    return d;
}

/* A process that a host's runtime has made is not the server's: it is asked for its status, and left
 * for the runtime to reap.  If it is no child of ours, or was reaped, the runtime may know. */
static int status_by_pidfd(const struct cfi_death *d)
{
    siginfo_t info = { .si_pid = 0 };
    if (d->pidfd < 0 || waitid(P_PIDFD, (id_t)d->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0)
        return -1;
    return info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
}

static int status_by_host(const struct cfi_process_pool *pool, const struct cfi_death *d)
{
    int status = status_by_pidfd(d);
    if (status == -1 && pool->host.process_status && d->pid != 0 &&
        !pool->host.process_status(pool->host.data, (int)d->pid, &status))
        status = -1;
    return status;
}

void cfi_check_deaths(struct cfi_process_pool *pool, int64_t now)
{
    struct cfi_death *d;
    int64_t when = pool->host.start_process ? CFI_NEVER : now;
    while ((d = take_death(pool, 0, when))) {
        conclude(pool, d, status_by_host(pool, d));
        cfi_wake_manager(pool); /* it may have been the last thing to wait for */
    }
}

/* No process came of it: what it had been sent goes elsewhere, and this is no crash. */
void cfi_never_born(struct cfi_child *c, uint16_t generation, uint64_t tag, int error)
{
    struct cfi_process_pool *pool = c->pool;
    cfi_lock(&pool->lock);
    pool->start_error = error;
    pool->start_again_at = cfi_now() + CFI_START_AGAIN_NS;
    if (cfi_generation_of(c) == generation && cfi_has_channel(c))
        cfi_set_state(c, CFI_CHILD_LEAVING);
    cfi_unlock(&pool->lock);
    cfi_child_died(c, generation);
    cfi_wake_manager(pool); /* it tries again */
    struct cfi_death *d = take_death(pool, tag, 0);
    if (d)
        conclude(pool, d, -1);
}

/* ---- the fork server's news ---- */

static struct cfi_child *child_of_tag(struct cfi_process_pool *pool, uint64_t tag)
{
    struct cfi_child *found = NULL;
    cfi_lock(&pool->lock);
    for (unsigned i = 0; !found && i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (c && cfi_state_of(c) != CFI_CHILD_ABSENT && c->tag == tag)
            found = c;
    }
    cfi_unlock(&pool->lock);
    return found;
}

static void born(struct cfi_process_pool *pool, const struct cfi_server_event *e)
{
    struct cfi_child *c = child_of_tag(pool, e->tag);
    if (!c) { /* it was given up meanwhile */
        cfi_pidfd_signal(e->pidfd, SIGKILL);
        (void)close(e->pidfd);
        return;
    }
    int pidfd = cfi_high_descriptor(e->pidfd);
    cfi_has_process(c, e->pid, pidfd);
    bool is_useless = cfi_load_relaxed(&pool->executor.is_broken); /* whose death was missed */
    if (cfi_watch_process(c, pidfd) != 0 ||
        is_useless) /* a worker that cannot be watched is no use */
        cfi_pidfd_signal(pidfd, SIGKILL);
}

static void died(struct cfi_process_pool *pool, const struct cfi_server_event *e)
{
    struct cfi_child *c = child_of_tag(pool, e->tag);
    if (c)
        cfi_child_died(c, cfi_generation_of(c));
    struct cfi_death *d = take_death(pool, e->tag, 0);
    if (d)
        conclude(pool, d, e->status);
}

static void unborn(struct cfi_process_pool *pool, const struct cfi_server_event *e)
{
    struct cfi_child *c = child_of_tag(pool, e->tag);
    if (!c)
        return;
    cfi_never_born(c, cfi_generation_of(c), e->tag, e->error);
    cfi_break_if_hopeless(pool);
}

/* The workers went with it; how they ended nobody knows. */
static void bury_all(struct cfi_process_pool *pool)
{
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c))
            cfi_child_died(c, cfi_generation_of(c));
    }
    struct cfi_death *d;
    while ((d = take_death(pool, 0, CFI_NEVER))) {
        if (d->pidfd >= 0)
            cfi_pidfd_reap(d->pidfd); /* it may have become this process's child */
        conclude(pool, d, -1);
    }
}

static void break_without_server(struct cfi_process_pool *pool, const char *why)
{
    char text[CFI_MOST_TEXT];
    snprintf(text, sizeof text, "the pool's fork server has died%s%s", why ? ": " : "",
             why ? why : "");
    cfi_say_broken(pool, 0, text, 0);
}

static bool replace_server(struct cfi_process_pool *pool)
{
    struct cfi_server new;
    if (cfi_server_start(pool->options.start_method, &new) != CF_OK)
        return false;
    cfi_lock(&pool->server_lock);
    pool->server = new;
    pool->has_server = true;
    cfi_unlock(&pool->server_lock);
    return cfi_watch_server(pool) == 0;
}

/* Another one takes its place, if there can be one: a fork of this process can not, since by now it has
 * threads. */
static void server_gone(struct cfi_process_pool *pool)
{
    cfi_unwatch_server(pool);
    cfi_lock(&pool->server_lock);
    struct cfi_server old = pool->server;
    pool->has_server = false;
    cfi_unlock(&pool->server_lock);
    cfi_server_stop(&old);
    bool needed = !cfi_load_relaxed(&pool->executor.is_broken) && !cfi_load_relaxed(&pool->closing);
    bool too_many = needed && cfi_is_one_too_many(pool, cfi_now());
    if (needed && (too_many || !replace_server(pool)))
        break_without_server(pool, too_many ? NULL : cf_last_error()->message);
    bury_all(pool);
    cfi_start_wanted(pool);
}

void cfi_server_events(struct cfi_process_pool *pool)
{
    struct cfi_server_event e;
    while (pool->has_server &&
           cfi_server_next(&pool->server, &e)) { /* this thread alone changes it */
        if (e.type == CFI_WORKER_BORN)
            born(pool, &e);
        else if (e.type == CFI_WORKER_DIED)
            died(pool, &e);
        else if (e.type == CFI_WORKER_UNBORN)
            unborn(pool, &e);
        else {
            server_gone(pool);
            return;
        }
    }
}
