/* SPDX-License-Identifier: MIT */
/* The process pool's parts, as the parent has them.
 *
 * Who does what.  There is no thread between a submit and a worker: the submitter writes the task
 * into the worker's channel (dispatch.c), and whoever waits for a result reads it from there
 * (drain.c).  The manager (manager.c) is the thread for what nobody waits for: results that somebody
 * watches, workers that are born and die, time limits.  It sleeps in epoll; a worker rings it only
 * when it was asked to (cfi_arm).  Callbacks have a thread of their own (callbacks.c).
 *
 * Who owns what.  `lock` guards the queue, the sending end of every channel, and the states of the
 * children.  Each child's `role` guards the reading end of its channel; it is only ever tried, since
 * its holder may sleep with it; who wants something of the channel then leaves it to the holder, who
 * looks again after letting go.  Order: role, mail, lock.  A task sent to a child is in tasks_sent, and
 * belongs to whoever takes it out of there by a swap: the reader that found its result, or the sender
 * that took it back.  So a worker that lies can neither settle a task twice nor have one lost.
 *
 * An arena stays mapped at one address as long as the pool lives; a new worker's is mapped over the
 * dead one's.  So anybody may look at a slot at any time as a hint, and acts only under the locks. */
#ifndef CFI_PROCESSES_POOL_H
#define CFI_PROCESSES_POOL_H

#include "../base/clock.h"
#include "../base/lock.h"
#include "../base/park.h"
#include "../base/thread.h"
#include "../core/error.h"
#include "../core/executor.h"
#include "../core/future.h"
#include "../core/heap.h"
#include "../core/mapped.h"
#include "../core/self.h"
#include "block.h"
#include "channel.h"
#include "server.h"

enum {
    CFI_MOST_CHILDREN = 4096,
    CFI_TARGET_NS = 500000, /* how much work a worker has in its channel */
    CFI_TICK_NS = 1000000,
    CFI_KILL_AFTER_NS = 500000000,  /* from SIGTERM to SIGKILL */
    CFI_START_AGAIN_NS = 100000000, /* after a start that failed */
    CFI_DRAIN_BATCH = 64
};

/* ---- a task ---- */

/* The room of a future.  Guarded by pool->lock, except for what does not change once submitted. */
struct cfi_parcel {
    cf_future *next; /* in a list */
    /* Where it was sent: child + 1, its generation, the number of the task; 0: nowhere. */
    cfi_u64 place;
    struct cfi_identity function;
    uint8_t call; /* enum cfi_call */
    bool queued;  /* is counted in pool->queued */
    unsigned crashes;
    struct cfi_block *block;  /* its argument, if that lies in one */
    void *own;                /* or here, malloc'ed: it goes when the task is done */
    struct cfi_block *shared; /* a piece's */
    size_t done;              /* a piece's, whose worker has died: how many of its elements were */
    struct cfi_watcher *callbacks;
};

static inline struct cfi_parcel *cfi_parcel_of(cf_future *f)
{
    return (struct cfi_parcel *)(void *)(cfi_future_extra(f) + 1);
}

static inline uint64_t cfi_place(unsigned child, uint16_t generation, uint32_t number)
{
    return (uint64_t)(child + 1) << 48 | (uint64_t)generation << 32 | number;
}
static inline unsigned cfi_place_child(uint64_t place)
{
    return (unsigned)(place >> 48) - 1;
}
static inline uint16_t cfi_place_generation(uint64_t place)
{
    return (uint16_t)(place >> 32);
}

struct cfi_list { /* of futures, first in first out */
    cf_future *first, *last;
};
void cfi_list_append(struct cfi_list *list, cf_future *f);
void cfi_list_prepend(struct cfi_list *list, cf_future *f);
cf_future *cfi_list_take(struct cfi_list *list);

/* ---- a worker process, seen from the pool ---- */

enum cfi_child_state {
    CFI_CHILD_ABSENT,   /* there is none                                                  */
    CFI_CHILD_STARTING, /* a thread is making its channel; nothing can be sent yet        */
    CFI_CHILD_ASKED,    /* it has a channel, and takes what is sent as soon as it is born */
    CFI_CHILD_READY,    /* its initializer has ended                                      */
    CFI_CHILD_LEAVING   /* it was told to quit                                            */
};

struct cfi_child {
    struct cfi_process_pool *pool;
    unsigned index;
    /* The reading end, guarded by `role`: */
    _Alignas(CFI_CACHE_LINE) struct cfi_lock role;
    cfi_u32 seen; /* results read; others may look */
    uint64_t results_read;
    struct cfi_lock mail;     /* guards reading the socket; after role, before lock */
    struct cfi_inflow inflow; /* the blocks that it has sent; guarded by blocks->lock */
    cfi_bool condemned;       /* it has broken the protocol: nothing of it is read any more */
    cfi_bool is_dead;         /* nobody sleeps on its bell any more */
    cfi_bool has_hung_up;     /* its socket is closed: it is dead, or will be killed */
    cfi_u32 asked;            /* number + 1 of the task that was asked to stop; 0: none */
    cfi_u32 pid;              /* 0: not known yet */
    /* The sending end, guarded by pool->lock: */
    _Alignas(
        CFI_CACHE_LINE) struct cfi_arena *arena; /* NULL until its first start; then it stays */
    cfi_u32 sent;
    cfi_u32 state; /* enum cfi_child_state; others may look */
    cfi_u32 life;  /* its generation: 1 to 65535; likewise */
    bool eager;    /* somebody watches a task that it has */
    bool dry;      /* it is to ring when it has done everything */
    bool attended; /* a thread sleeps on its bell, for the task number `awaited` */
    bool is_stuck; /* nothing has come from it for a while */
    uint32_t awaited;
    bool said_ready;
    char *
        unfit; /* what it said of its initializer, if it leaves before the pool breaks; malloc'ed */
    bool signalled; /* for the sake of the task that is being stopped */
    bool has_timed; /* some task that it has has a limit */
    bool closed;    /* it gets no more tasks: it will be stopped or replaced */
    uint32_t tasks; /* sent in its life, taken back ones off */
    unsigned window;
    uint64_t heap_at;     /* end of the argument heap's last item */
    cfi_u64 heap_read;    /* and how far it is free again; written by the reader */
    uint64_t images;      /* bits: which are in the arena */
    uint32_t last_seen;   /* at the last tick */
    uint32_t stop_number; /* the task that is being stopped, */
    int stop_signal;      /* what comes next: 0: nothing is being stopped, SIGTERM, SIGKILL */
    int64_t stop_at;      /* and when */
    int64_t hung_up_at;
    uint64_t tag;                                  /* of the server's request */
    int socket, eventfd, pidfd;                    /* -1: none */
    struct cfi_death *death;                       /* memory for its end */
    CFI_ATOMIC(cf_future *) tasks_sent[CFI_SLOTS]; /* or one of the marks below */
    uint64_t heap_ends[CFI_SLOTS];                 /* of each task's argument */
    int64_t limits[CFI_SLOTS];                     /* of each task's run */
};

/* In tasks_sent: a cancel is trying to have it skipped; it has, and the task is nobody's here any more. */
#define CFI_MARK_BUSY    ((cf_future *)1)
#define CFI_MARK_SKIPPED ((cf_future *)2)

static inline enum cfi_child_state cfi_state_of(const struct cfi_child *c)
{
    return (enum cfi_child_state)cfi_load_acquire(&((struct cfi_child *)(uintptr_t)c)->state);
}
static inline void cfi_set_state(struct cfi_child *c, enum cfi_child_state state)
{
    cfi_store_release(&c->state, (uint32_t)state);
}
static inline uint16_t cfi_generation_of(const struct cfi_child *c)
{
    return (uint16_t)cfi_load_acquire(&((struct cfi_child *)(uintptr_t)c)->life);
}

/* Has it a channel that can be looked at?  Of NULL not. */
static inline bool cfi_has_channel(const struct cfi_child *c)
{
    return c && cfi_state_of(c) >= CFI_CHILD_ASKED;
}

static inline struct cfi_slot *cfi_slot_of(const struct cfi_child *c, uint32_t number)
{
    return &c->arena->slots[number % CFI_SLOTS];
}

/* Is there a result that nobody has read yet?  A hint, unless the role is held. */
static inline bool cfi_has_result(struct cfi_child *c)
{
    uint32_t seen = cfi_load_acquire(&c->seen);
    return seen != cfi_load_acquire(&c->sent) &&
           cfi_load_seq_cst(&cfi_slot_of(c, seen)->state) == CFI_SLOT_DONE;
}

/* A worker that has died, until it is known how. */
struct cfi_death {
    struct cfi_death *next;
    uint64_t tag;
    pid_t pid;
    int pidfd;
    uint64_t oom_kills;
    int64_t deadline; /* then its status counts as unknown */
    bool stopped;     /* we killed it for its task's sake */
    bool condemned;
    bool expected; /* it was told to leave */
    bool in_initializer;
    char *unfit;       /* it said so of its initializer: the pool breaks; malloc'ed */
    cf_future *guilty; /* one, unless it lied; linked by parcel->next */
};

/* ---- the pool ---- */

struct cfi_process_pool {
    cf_executor executor;
    cf_process_pool_options options;
    cf_host host;
    char *name;
    struct cfi_identity initializer, finalizer;
    int data_fd;                 /* the initializer's bytes; -1: none */
    struct cfi_lock server_lock; /* guards these two; a leaf */
    struct cfi_server server;
    bool has_server;
    uint64_t oom_kills; /* those that were some worker's end; the manager's */
    int epoll, wake;    /* wake: an eventfd for the manager */
    cfi_thread manager;
    CFI_ATOMIC(struct cfi_child *) * children; /* max_workers; made as they are needed */

    _Alignas(CFI_CACHE_LINE) struct cfi_lock lock; /* guards what follows: */
    struct cfi_list front, pending;                /* taken back; submitted */
    struct cfi_list to_load;                       /* their arguments need a block first */
    struct cfi_heap heap;                          /* those with a priority */
    size_t queued;                                 /* in these, cancelled ones off */
    uint64_t *idle;                                /* bits: children with nothing to do */
    unsigned recent, cursor; /* the child that was idle last; the one that is being filled */
    unsigned started;        /* children that are not ABSENT */
    bool closed, stopping;
    bool try_again; /* something could not be sent to an idle worker */
    bool is_strict; /* there were priorities: no task is sent before its turn */
    bool is_unfit;  /* an initializer has failed: no more workers */
    bool awake;     /* the manager looks at everything once in a while */
    int start_error;
    int64_t start_again_at;
    int64_t kill_at; /* shutdown with CF_STOP_RUNNING: when it kills */
    uint64_t next_tag;
    unsigned crash_count, crash_next;
    int64_t *crashes; /* times of the last max_restarts + 1 ones: a ring */
    struct cfi_death *deaths;

    _Alignas(CFI_CACHE_LINE) cfi_size unfinished; /* accepted, and not settled or called back yet */
    cfi_bool closing;
    cfi_bool no_retries; /* what its worker takes with it stays gone */
    cfi_u32 ended;       /* a futex: 1 when nothing is left to do */
    cfi_bool joined;
    cfi_u32 room_waiters, room_event;
    struct cfi_blocks blocks;

    _Alignas(CFI_CACHE_LINE) struct cfi_lock callbacks_lock;
    struct cfi_list callbacks; /* futures whose callbacks are due */
    struct cfi_parker callbacks_parker;
    cfi_thread callbacks_thread;
    enum { CFI_NO_THREAD, CFI_HAS_THREAD } callbacks_state;
    bool callbacks_end;
};

static inline struct cfi_child *cfi_child_at(struct cfi_process_pool *pool, unsigned index)
{
    return cfi_load_acquire(&pool->children[index]); /* pairs with its making */
}

/* The futures that a reader took out of a channel, and what is to become of them. */
struct cfi_outcome {
    cf_future *future;
    char *text; /* malloc'ed, or NULL; only of a failure */
    int code;
    cf_status status; /* CF_OK: its result is in place */
    int pid;
};

/* ---- dispatch.c: to the workers; all with pool->lock held ---- */
void cfi_enqueue(struct cfi_process_pool *pool, cf_future *f);
void cfi_put_back(struct cfi_process_pool *pool, cf_future *f); /* to the queue's front */
void cfi_unqueue(struct cfi_process_pool *pool, cf_future *f);
bool cfi_remove_queued(struct cfi_process_pool *pool, cf_future *f);
cf_future *cfi_take_queued(struct cfi_process_pool *pool); /* any that is queued; NULL: none is */
size_t cfi_count_pending(struct cfi_process_pool *pool);
/* Sends a new task to a worker with room; false: there is none, or others go before it. */
bool cfi_place_task(struct cfi_process_pool *pool, cf_future *f);
bool cfi_wants_child(struct cfi_process_pool *pool); /* should one more be started? */
void cfi_tell_image(struct cfi_child *c, unsigned image);
void cfi_set_idle(struct cfi_child *c, bool idle);
/* From the queue, or from another worker's channel; then all, or those that have nothing to do. */
void cfi_refill(struct cfi_child *c);
void cfi_refill_all(struct cfi_process_pool *pool);
void cfi_feed_idle(struct cfi_process_pool *pool);
void cfi_take_back_all(struct cfi_child *c);   /* what it has not begun goes to the queue's front */
void cfi_take_back_later(struct cfi_child *c); /* that, but not what it begins next */
void cfi_help_stuck(struct cfi_child *c);      /* what waits behind its task goes to an idle one */
/* Tells the worker when to ring; true: there is a result already.  Or the manager then looks. */
bool cfi_arm(struct cfi_child *c);
void cfi_arm_or_wake(struct cfi_child *c);
void cfi_eager_all(struct cfi_process_pool *pool); /* every worker rings for every task */
void cfi_wake_worker(struct cfi_child *c);         /* if it sleeps */
void cfi_nudge(struct cfi_child *c);               /* wakes who attends to it, to look again */

/* ---- pool.c ---- */
void cfi_tell_room(struct cfi_process_pool *pool); /* to those who wait for it */
/* Keeps a worker from beginning a task, which from then on is the caller's; with the lock.  false: it has
 * begun. */
bool cfi_skip(struct cfi_child *c, uint32_t number);
/* Tasks have been settled and will not be touched again. */
void cfi_finished(struct cfi_process_pool *pool, size_t count);

/* ---- drain.c: from the workers; without the lock ---- */
void cfi_drain(struct cfi_child *c); /* reads and settles what is there, if nobody else does */
unsigned cfi_read_results(struct cfi_child *c, struct cfi_outcome *out); /* role held */
void cfi_settle_outcomes(struct cfi_process_pool *pool, const struct cfi_outcome *out, unsigned n);
void cfi_look(void *self, cf_future *f);
bool cfi_attend(void *self, cf_future *f, int64_t deadline, enum cfi_woken *ret);
void cfi_expect(void *self, cf_future *f);
/* Settles a task that nobody else has; takes over its reference. */
void cfi_fail_task(struct cfi_process_pool *pool, cf_future *f, const cf_error *error);
/* Gives back what a task holds besides its own memory. */
void cfi_release_argument(cf_future *f);

/* ---- crew.c: workers' lives; without the lock ---- */
int cfi_start_child(struct cfi_process_pool *pool); /* one more; 0 or an errno */
void cfi_start_wanted(struct cfi_process_pool *pool);
void cfi_retry_start(struct cfi_process_pool *pool);
void cfi_child_messages(struct cfi_child *c); /* what its socket has */
void cfi_has_process(struct cfi_child *c, pid_t pid, int pidfd);
void cfi_tell_quit(struct cfi_child *c); /* with pool->lock */
void cfi_quit_children(struct cfi_process_pool *pool);
void cfi_close_one(int *fd);
void cfi_close_channel(struct cfi_child *c); /* its socket and its eventfd */
void cfi_child_free(struct cfi_child *c);

/* ---- death.c: and their ends; without the lock ---- */
void cfi_child_died(struct cfi_child *c, uint16_t generation); /* unless it is another by now */
/* No process came of it: what it had been sent goes elsewhere, and this is no crash. */
void cfi_never_born(struct cfi_child *c, uint16_t generation, uint64_t tag, int error);
void cfi_check_deaths(struct cfi_process_pool *pool, int64_t now);
void cfi_server_events(struct cfi_process_pool *pool);

/* ---- break.c: without the lock ---- */
bool cfi_is_one_too_many(struct cfi_process_pool *pool, int64_t now); /* counts a death */
void cfi_break_if_hopeless(struct cfi_process_pool *pool);            /* after a failed start */
void cfi_say_broken(struct cfi_process_pool *pool, int code, const char *message, uint32_t pid);
void cfi_process_pool_break(struct cfi_process_pool *pool, const cf_error *error);

/* ---- stop.c ---- */
bool cfi_runs(struct cfi_child *c, uint32_t number); /* as far as the worker says; with the lock */
uint32_t cfi_current(struct cfi_child *c); /* the first task that is not done; `sent`: none */
bool cfi_stop_task(void *self, cf_future *f, int64_t grace_ns);
int64_t cfi_check_stops(struct cfi_process_pool *pool,
                        int64_t now); /* when it wants to be called next */
void cfi_stop_all(struct cfi_process_pool *pool, int64_t deadline);

/* ---- manager.c ---- */
void *cfi_manager_main(void *pool);
void cfi_wake_manager(struct cfi_process_pool *pool);
int cfi_watch_child(struct cfi_child *c); /* its bell and its socket; 0 or an errno */
int cfi_watch_process(struct cfi_child *c, int pidfd);
int cfi_watch_server(struct cfi_process_pool *pool);
void cfi_unwatch_server(struct cfi_process_pool *pool);

/* ---- callbacks.c ---- */
void cfi_call_back_later(void *self, cf_future *f, struct cfi_watcher *callbacks);
void cfi_end_callbacks(struct cfi_process_pool *pool);

/* ---- map.c ---- */
cf_status cfi_process_map(void *self, const struct cfi_map_work *work, int64_t timeout_ns);

/* ---- pool.c, for map.c ---- */
/* A pending future for a piece of a map: a bytes task with room for arg_size bytes at *ret_arg, to be
 * filled before the submit.  `shared` may be NULL; the future has its own reference.  NULL: out of memory. */
cf_future *cfi_process_piece_new(struct cfi_process_pool *pool, cfi_function *fn, size_t arg_size,
                                 struct cfi_block *shared, void **ret_arg);
/* As cfi_executor_submit; drops what the future holds if that fails. */
cf_status cfi_process_submit(struct cfi_process_pool *pool, cf_future *f);
/* Bytes that all pieces of a map share, with one reference; NULL: out of memory. */
struct cfi_block *cfi_process_share(struct cfi_process_pool *pool, const void *data, size_t size);
void cfi_process_unshare(struct cfi_process_pool *pool, struct cfi_block *shared);
unsigned cfi_process_workers(const struct cfi_process_pool *pool);

#endif
