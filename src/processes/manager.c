/* SPDX-License-Identifier: MIT */
/* The manager: the pool's thread for what nobody waits for.
 *
 * It sleeps in epoll over the workers' bells, sockets and pidfds, the fork server's socket, and an
 * eventfd of its own.  After a bell it stays awake for a while, which means that it looks at all workers
 * every millisecond: as long as that lasts nobody need be rung for results that are merely there, and a
 * stream of tasks rings nobody.  When nothing has happened for a while it arms the bell of each worker
 * that has tasks, and sleeps: an idle pool wakes nobody. */
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { LINGER_NS = 20000000, HANG_UP_NS = 50000000, TRIM_NS = 1000000000, MOST_EVENTS = 64 };
enum source { WAKE, SERVER, BELL, SOCKET, PIDFD };

void cfi_wake_manager(struct cfi_process_pool *pool)
{
    const uint64_t one = 1;
    ssize_t n;
    do {
        n = write(pool->wake, &one, sizeof one);
    } while (n < 0 && errno == EINTR); /* EAGAIN: it is to wake already */
}

static int add(struct cfi_process_pool *pool, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event e = { .events = events, .data.u64 = data };
    return epoll_ctl(pool->epoll, EPOLL_CTL_ADD, fd, &e) == 0 ? 0 : errno;
}

static uint64_t key(enum source source, const struct cfi_child *c)
{
    return (uint64_t)source | (uint64_t)c->index << 8 | (uint64_t)cfi_generation_of(c) << 32;
}

int cfi_watch_child(struct cfi_child *c)
{
    int error = add(c->pool, c->eventfd, EPOLLIN | EPOLLET, key(BELL, c));
    if (!error)
        error = add(c->pool, c->socket, EPOLLIN | EPOLLRDHUP | EPOLLET, key(SOCKET, c));
    return error;
}

int cfi_watch_process(struct cfi_child *c, int pidfd)
{
    return add(c->pool, pidfd, EPOLLIN | EPOLLONESHOT, key(PIDFD, c));
}

int cfi_watch_server(struct cfi_process_pool *pool)
{
    return pool->has_server ? add(pool, pool->server.socket, EPOLLIN, SERVER) : 0;
}

/* Closing it would not be enough where a child of the program has a copy. */
void cfi_unwatch_server(struct cfi_process_pool *pool)
{
    struct epoll_event unused = { .events = 0 };
    (void)epoll_ctl(pool->epoll, EPOLL_CTL_DEL, pool->server.socket, &unused);
}

/* ---- events ---- */

struct manager {
    struct cfi_process_pool *pool;
    int64_t lively_until; /* something has happened lately */
    int64_t trim_at;      /* CFI_NEVER: nothing to trim */
};

static void on_child(struct manager *m, enum source source, struct cfi_child *c)
{
    if (source == BELL) {
        m->lively_until = cfi_now() + LINGER_NS;
        cfi_drain(c);
    } else if (source == SOCKET) {
        cfi_child_messages(c);
    } else {
        cfi_child_died(c, cfi_generation_of(c));
    }
}

/* An event of a former life of the child is stale. */
static void on_event(struct manager *m, const struct epoll_event *e)
{
    struct cfi_process_pool *pool = m->pool;
    enum source source = (enum source)(e->data.u64 & 0xff);
    uint64_t one;
    if (source == WAKE) {
        (void)!read(pool->wake, &one, sizeof one);
    } else if (source == SERVER) {
        cfi_server_events(pool);
    } else {
        struct cfi_child *c = cfi_child_at(pool, e->data.u64 >> 8 & 0xffffff);
        if (cfi_has_channel(c) && cfi_generation_of(c) == (uint16_t)(e->data.u64 >> 32))
            on_child(m, source, c);
    }
}

/* ---- rounds ---- */

static void put_down(struct cfi_child *c, int64_t now)
{
    if (cfi_load_seq_cst(&c->has_hung_up)) {
        if (!c->hung_up_at)
            c->hung_up_at = now;
        else if (now - c->hung_up_at > HANG_UP_NS)
            cfi_store_seq_cst(&c->condemned, true);
    }
    if (cfi_load_seq_cst(&c->condemned) && c->pidfd >= 0)
        cfi_pidfd_signal(c->pidfd, SIGKILL);
}

/* Looks at one worker; true: it shall be looked at again. */
static bool look_at(struct cfi_child *c, int64_t now)
{
    put_down(c, now);
    cfi_drain(c);
    cfi_lock(&c->pool->lock);
    uint32_t seen = cfi_load_relaxed(&c->seen);
    bool stands_still = seen == c->last_seen && seen != c->sent;
    c->last_seen = seen;
    c->dry |= stands_still;
    c->is_stuck = stands_still;
    bool ready = stands_still && cfi_arm(c);
    if (stands_still)
        cfi_help_stuck(c);
    bool again = seen != c->sent && !stands_still;
    cfi_unlock(&c->pool->lock);
    if (ready)
        cfi_drain(c);
    return again || cfi_load_relaxed(&c->has_hung_up) || cfi_load_relaxed(&c->condemned);
}

static bool look_at_all(struct cfi_process_pool *pool, int64_t now)
{
    bool again = false;
    for (unsigned i = 0; i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (cfi_has_channel(c))
            again |= look_at(c, now);
    }
    return again;
}

/* Takes one task whose argument needs a block, if a worker can take it soon. */
static cf_future *take_to_load(struct cfi_process_pool *pool)
{
    cf_future *f = NULL;
    cfi_lock(&pool->lock);
    if (!pool->front.first)
        f = cfi_list_take(&pool->to_load);
    cfi_unlock(&pool->lock);
    return f;
}

/* It was cancelled meanwhile, or there is no memory for its argument. */
static void give_up(struct cfi_process_pool *pool, cf_future *f, bool for_memory)
{
    const cf_error error = { .size = sizeof error,
                             .status = for_memory ? CF_NOMEM : CF_STOPPED,
                             .message =
                                 for_memory
                                     ? "no memory to share the argument with a worker"
                                     : "its worker died, and it was stopped before another try",
                             .exit_code = -1 };
    cfi_tell_room(pool);
    if (!for_memory)
        (void)cf_future_cancel(f); /* unless it has begun once */
    if (!cfi_future_claim(f) && cfi_future_is_done(f)) {
        cfi_future_drop(f);
        return;
    }
    cfi_fail_task(pool, f, &error);
}

/* false: there is none. */
static bool load_one(struct cfi_process_pool *pool)
{
    cf_future *f = take_to_load(pool);
    if (!f)
        return false;
    struct cfi_block *b = cfi_future_is_done(f) ? NULL : cfi_block_get(pool, cfi_arg_size(f), true);
    if (b)
        memcpy(b->data, cfi_future_arg(f), cfi_arg_size(f));
    cfi_lock(&pool->lock);
    uint64_t word = cfi_load_relaxed(&f->word);
    bool was_stopped = cfi_state(word) == CFI_RUNNING && word & CFI_STOP; /* between two tries */
    was_stopped |= cfi_load_relaxed(&pool->no_retries); /* the queue has been emptied meanwhile */
    bool loaded = b && !cfi_is_final(word) && !was_stopped;
    if (loaded) {
        cfi_parcel_of(f)->block = b;
        cfi_list_prepend(&pool->front, f);
        cfi_refill_all(pool);
    } else {
        cfi_unqueue(pool, f);
    }
    cfi_unlock(&pool->lock);
    if (!loaded) {
        cfi_block_put(pool, b);
        give_up(pool, f, !b && !was_stopped);
    }
    return true;
}

/* ---- sleeping ---- */

/* Goes on looking, or arms every bell; under the lock, so that no task slips between. */
static bool stays_awake(struct manager *m, bool again, int64_t now)
{
    struct cfi_process_pool *pool = m->pool;
    bool awake = again || now < m->lively_until;
    cfi_lock(&pool->lock);
    pool->awake = awake;
    for (unsigned i = 0; !awake && i < pool->options.max_workers; i++) {
        struct cfi_child *c = cfi_child_at(pool, i);
        if (!cfi_has_channel(c) || c->sent == cfi_load_relaxed(&c->seen))
            continue;
        c->dry = true;
        if (cfi_arm(c)) /* it is there already */
            pool->awake = true;
    }
    awake = pool->awake;
    cfi_unlock(&pool->lock);
    return awake;
}

static int64_t min_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The next thing that has its time. */
static int64_t next_deadline(struct manager *m, int64_t stops)
{
    struct cfi_process_pool *pool = m->pool;
    int64_t next = min_of(stops, m->trim_at);
    cfi_lock(&pool->lock);
    for (const struct cfi_death *d = pool->deaths; d; d = d->next)
        next = min_of(next, d->deadline);
    if (pool->start_again_at && pool->queued)
        next = min_of(next, pool->start_again_at);
    if (pool->to_load.first || pool->try_again)
        next = min_of(next, cfi_now() + CFI_TICK_NS);
    cfi_unlock(&pool->lock);
    return next;
}

static int milliseconds_until(int64_t deadline, int64_t now)
{
    if (deadline == CFI_NEVER)
        return -1;
    int64_t ms = deadline > now ? (deadline - now + 999999) / 1000000 : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static void trim(struct manager *m, bool awake, int64_t now)
{
    if (awake || !cfi_blocks_can_be_trimmed(m->pool)) {
        m->trim_at = CFI_NEVER;
    } else if (m->trim_at == CFI_NEVER) {
        m->trim_at = now + TRIM_NS;
    } else if (m->trim_at <= now) {
        cfi_blocks_trim(m->pool);
        m->trim_at = CFI_NEVER;
    }
}

/* ---- the end ---- */

static bool is_finished(struct cfi_process_pool *pool)
{
    if (!cfi_load_seq_cst(&pool->closing) || cfi_load_seq_cst(&pool->unfinished) != 0)
        return false;
    cfi_quit_children(pool);
    cfi_lock(&pool->lock);
    bool none_left = pool->started == 0 && !pool->deaths;
    cfi_unlock(&pool->lock);
    return none_left;
}

/* Cancelled tasks that nobody came past: each holds the pool. */
static void drop_cancelled(struct cfi_process_pool *pool)
{
    cf_future *f;
    do {
        cfi_lock(&pool->lock);
        f = cfi_take_queued(pool);
        cfi_unlock(&pool->lock);
        cf_future_unref(f);
    } while (f);
}

static void *end(struct cfi_process_pool *pool)
{
    drop_cancelled(pool);
    if (pool->has_server)
        cfi_server_stop(&pool->server);
    else if (pool->host.start_process)
        cfi_close_one(&pool->server.host); /* a forked child looks whether it is open */
    pool->has_server = false;
    cfi_end_callbacks(pool);
    cfi_store_seq_cst(&pool->ended, 1);
    cfi_futex_wake(&pool->ended, INT_MAX);
    cfi_executor_unref(&pool->executor);
    cfi_own_thread(-1);
    return NULL;
}

static void send_again(struct cfi_process_pool *pool)
{
    cfi_lock(&pool->lock);
    uint64_t queued = pool->queued;
    if (pool->try_again)
        cfi_feed_idle(pool);
    pool->try_again &= queued && pool->queued == queued; /* nothing could be sent again */
    cfi_unlock(&pool->lock);
}

/* One round; returns how long to sleep after it, in milliseconds. */
static int round_of(struct manager *m)
{
    struct cfi_process_pool *pool = m->pool;
    int64_t now = cfi_now();
    int64_t stops = cfi_check_stops(pool, now);
    cfi_check_deaths(pool, now);
    while (load_one(pool))
        ;
    cfi_retry_start(pool);
    send_again(pool);
    bool again = look_at_all(pool, now);
    bool awake = stays_awake(m, again, now);
    trim(m, awake, now);
    return awake ? 1 : milliseconds_until(next_deadline(m, stops), now);
}

void *cfi_manager_main(void *arg)
{
    struct manager m = { .pool = arg, .trim_at = CFI_NEVER };
    struct cfi_process_pool *pool = m.pool;
    cfi_thread_name("cf-manager", 0);
    cfi_this.executor = &pool->executor;
    while (!is_finished(pool)) {
        struct epoll_event events[MOST_EVENTS];
        int n = epoll_wait(pool->epoll, events, MOST_EVENTS, round_of(&m));
        for (int i = 0; i < n; i++)
            on_event(&m, &events[i]);
    }
    return end(pool);
}
