/* SPDX-License-Identifier: MIT */
/* Workers that speak the channel's protocol wrongly on purpose: garbage, lies and races from a seed.  The
 * parent lives, each of its futures ends, and honest workers do the rest.
 *
 *   CFUTURES_SEED=number   the same again        CFUTURES_LONG=1   for longer */
#define _GNU_SOURCE
#include "process_support.h"

#include <linux/futex.h>
#include <spawn.h>
#include <sys/socket.h>

#include "processes/channel.h"

#ifdef CFI_TSAN /* it allows no fork beside threads */

int main(void)
{
    return 77;
}

#else

/* ---- chance ---- */

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t seed;

static void choose_seed(void)
{
    const char *given = getenv("CFUTURES_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)cfi_now();
    seed = seed ? seed : 1;
    printf("CFUTURES_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
}

/* ---- a hostile worker: a fork of a process with threads, so it calls nothing that allocates ---- */

struct enemy {
    uint64_t state; /* of chance */
    int channel, event, arena_fd;
    struct cfi_arena *arena;
    uint32_t next; /* the task that an honest worker would do next */
};

static uint64_t below(struct enemy *e, uint64_t limit)
{
    return random_next(&e->state) % limit;
}

/* Numbers near those where something changes. */
static uint64_t odd_number(struct enemy *e)
{
    static const uint64_t edges[] = { 0,
                                      1,
                                      CFI_INLINE_RESULT,
                                      CFI_HEAP_LARGEST,
                                      CFI_HEAP,
                                      CFI_MOST_TEXT,
                                      UINT32_MAX,
                                      (uint64_t)INT64_MAX,
                                      UINT64_MAX,
                                      CFI_SLOTS,
                                      CFI_KEPT_BLOCKS,
                                      300000 };
    uint64_t edge = edges[below(e, COUNT_OF(edges))];
    return below(e, 4) ? edge + below(e, 5) - 2 : random_next(&e->state);
}

static void fill_at_random(struct enemy *e, void *data, size_t size)
{
    unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)random_next(&e->state);
}

/* A message of any size with any descriptors. */
static void send_anything(struct enemy *e, const void *data, size_t size, const int *fds, int count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(16 * sizeof(int))];
    } control = { .room = { 0 } };
    struct iovec part = { (void *)(uintptr_t)data, size };
    struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > 0) {
        packet.msg_control = control.room;
        packet.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, (size_t)count * sizeof(int));
    }
    (void)sendmsg(e->channel, &packet, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* To say that its initializer has failed would break the pool by right. */
static void send_garbage(struct enemy *e)
{
    static union {
        struct cfi_message message;
        char bytes[4096];
    } garbage;
    int fds[16];
    size_t size = below(e, 2) ? sizeof garbage.message : below(e, sizeof garbage);
    int count = below(e, 3) ? 0 : (int)below(e, COUNT_OF(fds));
    fill_at_random(e, garbage.bytes, sizeof garbage.bytes);
    if (below(e, 2))
        garbage.message.type = (uint32_t)below(e, 7);
    for (int i = 0; i < count; i++)
        fds[i] = below(e, 2) ? e->channel : e->event;
    if (garbage.message.type != CFI_UNFIT)
        send_anything(e, garbage.bytes, size, fds, count);
}

static void send_ready(struct enemy *e)
{
    static const struct cfi_message ready = { .type = CFI_READY };
    send_anything(e, &ready, sizeof ready, &e->event, (int)below(e, 2));
}

/* A block that is what it says, or one of the many that are not. */
static void send_block(struct enemy *e)
{
    struct cfi_message m = { .type = CFI_BLOCK };
    uint64_t size = below(e, 2) ? 300000 : below(e, 100000);
    int fd = memfd_create("hostile", MFD_CLOEXEC | (below(e, 8) ? MFD_ALLOW_SEALING : 0));
    if (fd < 0)
        return;
    (void)!ftruncate(fd, (off_t)size);
    (void)fcntl(fd, F_ADD_SEALS,
                below(e, 6) ? F_SEAL_SHRINK | F_SEAL_GROW : (int)below(e, 32) & ~F_SEAL_SEAL);
    m.number = (uint32_t)(below(e, 4) ? below(e, CFI_KEPT_BLOCKS + 3) : odd_number(e));
    m.size = below(e, 4) ? size : odd_number(e);
    send_anything(e, &m, sizeof m, below(e, 8) ? &fd : &e->event, below(e, 8) ? 1 : 0);
    if (below(e, 2))
        (void)!ftruncate(fd, (off_t)below(e, 5000));
    close(fd);
}

static struct cfi_slot *any_slot(struct enemy *e)
{
    return &e->arena
                ->slots[(below(e, 3) ? e->next + below(e, 5) : below(e, CFI_SLOTS)) % CFI_SLOTS];
}

static void write_answer(struct enemy *e, struct cfi_slot *slot)
{
    slot->code = below(e, 3) ? 0 : (int32_t)random_next(&e->state);
    slot->status = (uint8_t)(below(e, 3) ? 0 : random_next(&e->state));
    slot->result_place = (uint8_t)below(e, 4);
    slot->has_text = (uint16_t)below(e, 3);
    slot->size = below(e, 3) ? slot->result_size : odd_number(e);
    slot->at = below(e, 2) ? below(e, CFI_KEPT_BLOCKS + 2) : odd_number(e);
    cfi_store_relaxed(&slot->began_at, (int64_t)odd_number(e));
    fill_at_random(e, slot->result, sizeof slot->result);
}

static void overwrite_slot(struct enemy *e)
{
    struct cfi_slot *slot = any_slot(e);
    switch (below(e, 4)) {
    case 0:
        fill_at_random(e, slot, sizeof *slot);
        break;
    case 1:
        cfi_store_relaxed(&slot->state, (uint32_t)below(e, 6));
        break;
    default:
        write_answer(e, slot);
        cfi_store_relaxed(&slot->state, (uint32_t)below(e, 6));
    }
}

static void ring_bells(struct enemy *e)
{
    uint64_t value = below(e, 2) ? 1 : UINT64_MAX - 1;
    /* A descriptor that blocks now blocks for whoever has it open. */
    (void)fcntl(e->event, F_SETFL, below(e, 4) ? O_NONBLOCK : 0);
    cfi_store_relaxed(&e->arena->bell, (uint32_t)below(e, 5));
    (void)syscall(SYS_futex, &e->arena->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    if (fcntl(e->event, F_GETFL) & O_NONBLOCK) {
        (void)!write(e->event, &value, sizeof value);
        if (below(e, 2))
            (void)!read(e->event, &value, sizeof value);
    }
}

static void overwrite_arena(struct enemy *e)
{
    struct cfi_arena *a = e->arena;
    cfi_store_relaxed(&a->ring_at, (uint32_t)odd_number(e));
    cfi_store_relaxed(&a->worker_bell, (uint32_t)below(e, 3));
    cfi_store_relaxed(&a->stop_at, (uint32_t)odd_number(e));
    cfi_store_relaxed(&a->results_read, odd_number(e));
    cfi_store_relaxed(&a->cost, odd_number(e));
    for (size_t i = 0; i < CFI_KEPT_BLOCKS; i++)
        cfi_store_relaxed(&a->block_back[i], below(e, 2) != 0);
    fill_at_random(e, a->images, sizeof a->images[0] * below(e, 3));
    if (below(e, 2))
        fill_at_random(e, a->result_heap, 5000);
}

/* Holes read as zeros; a shorter one would be the end of who reads it. */
static void cut_arena(struct enemy *e)
{
    (void)!ftruncate(e->arena_fd, (off_t)below(e, 100000));
    (void)fallocate(e->arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    (off_t)below(e, sizeof *e->arena), 8192);
}

/* Almost as an honest worker does it. */
static void do_task(struct enemy *e)
{
    struct cfi_slot *slot = &e->arena->slots[e->next % CFI_SLOTS];
    for (int i = 0; i < 3000 && cfi_load_acquire(&slot->state) != CFI_SENT; i++)
        cfi_pause();
    if (cfi_load_acquire(&slot->state) != CFI_SENT && below(e, 10))
        return;
    if (below(e, 4))
        cfi_store_seq_cst(&slot->state, CFI_SLOT_RUNNING);
    write_answer(e, slot);
    if (below(e, 10) == 0)
        return; /* never done */
    (void)cfi_exchange_seq_cst(&slot->state, CFI_SLOT_DONE);
    e->next++;
    ring_bells(e);
}

static void misuse_channel(struct enemy *e)
{
    char bytes[100];
    switch (below(e, 8)) {
    case 0:
        (void)shutdown(e->channel, (int)below(e, 3));
        break;
    case 1:
        close(e->channel);
        break;
    case 2:
        _exit((int)below(e, 3));
    case 3:
        send_anything(e, NULL, 0, NULL, 0);
        break;
    default:
        (void)recv(e->channel, bytes, sizeof bytes, MSG_DONTWAIT);
    }
}

static void misbehave(struct enemy *e)
{
    switch (below(e, 16)) {
    case 0:
        send_garbage(e);
        break;
    case 1:
        send_ready(e);
        break;
    case 2:
    case 3:
        send_block(e);
        break;
    case 4:
    case 5:
        overwrite_slot(e);
        break;
    case 6:
        ring_bells(e);
        break;
    case 7:
        overwrite_arena(e);
        break;
    case 8:
        cut_arena(e);
        break;
    case 9:
        if (below(e, 8) == 0)
            misuse_channel(e);
        break;
    default:
        do_task(e);
    }
}

/* Rewrites what the parent reads while it reads it. */
static void flicker(struct enemy *e, int64_t until)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (cfi_now() < until) {
        for (uint32_t i = 0; i < 8; i++) {
            struct cfi_slot *slot = &e->arena->slots[(e->next + i) % CFI_SLOTS];
            slot->size = below(e, 2) ? slot->result_size : odd_number(e);
            slot->at = odd_number(e);
            slot->result_place = (uint8_t)below(e, 4);
            if (below(e, 8) == 0)
                cfi_store_relaxed(&slot->state, (uint32_t)below(e, 6));
        }
    }
    _exit(0);
}

/* Lives for some milliseconds. */
static void be_hostile(int channel, uint64_t state)
{
    struct enemy e = { .state = state, .channel = channel };
    struct cfi_message welcome;
    int fds[4], count = 0;
    void *arena = NULL;
    int64_t until = cfi_now() + (int64_t)below(&e, CF_MS(20));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cfi_message_receive(channel, &welcome, 0, fds, &count) != 0 || count < 2 ||
        cfi_memory_map(fds[0], sizeof(struct cfi_arena), false, &arena) != 0)
        _exit(1);
    e.arena_fd = fds[0];
    e.event = fds[1];
    e.arena = arena;
    if (below(&e, 4))
        send_ready(&e);
    if (below(&e, 3) == 0 && fork() == 0)
        flicker(&e, until);
    while (cfi_now() < until)
        misbehave(&e);
    _exit((int)below(&e, 3));
}

/* ---- the pool around it ---- */

struct war {
    uint64_t state;
    atomic_uint started;
    unsigned honest_every;
    pthread_mutex_t mutex;
};

enum { THEIR_CHANNEL = 40 };

/* This program again: a fork beside threads does not always come through, with a sanitizer's malloc. */
static int run_again(int channel, const char *kind, uint64_t state, int *ret_pid)
{
    char number[24];
    snprintf(number, sizeof number, "%llu", (unsigned long long)state);
    char *arguments[] = { (char *)(uintptr_t)kind, number, NULL };
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return ENOMEM;
    int error = posix_spawn_file_actions_adddup2(&actions, channel, THEIR_CHANNEL);
    if (error == 0)
        error = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    *ret_pid = (int)pid;
    return error;
}

/* In that other process, which never returns. */
static void serve(char **argv)
{
    if (strcmp(argv[0], "honest") == 0)
        _exit(cf_worker_run_channel(THEIR_CHANNEL));
    if (strcmp(argv[0], "hostile") == 0)
        be_hostile(THEIR_CHANNEL, strtoull(argv[1], NULL, 0));
}

static int start_enemy(void *data, int channel, unsigned number, int *ret_pid)
{
    struct war *war = data;
    (void)number;
    pthread_mutex_lock(&war->mutex);
    uint64_t state = random_next(&war->state);
    pthread_mutex_unlock(&war->mutex);
    bool is_honest = atomic_fetch_add(&war->started, 1) % war->honest_every == 0;
    return run_again(channel, is_honest ? "honest" : "hostile", state, ret_pid);
}

enum { TASKS = 150, LARGE = 300000 };

static int copy_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    if (cf_bytes_resize(result, arg_size) != CF_OK)
        return 1;
    memcpy(result->data, arg, arg_size);
    return 0;
}

static void submit_one(cf_executor *pool, int i, cf_future **ret)
{
    static char large[LARGE];
    cf_status status;
    switch (i % 5) {
    case 0:
        status = cf_submit_bytes(pool, copy_bytes, large, 5000, ret);
        break;
    case 1:
        status = i % 3 ? CF_OK : cf_submit_bytes(pool, copy_bytes, large, LARGE, ret);
        break;
    case 2:
        status = cf_submit(pool, do_nothing, large, 10, 20000, ret);
        break;
    case 3:
        status = cf_submit_task(
            pool, CF_TASK(.fn = do_nothing, .result_size = 8, .run_limit_ns = CF_MS(500)), ret);
        break;
    default:
        status = CF_SUBMIT(pool, twice, &i, int, ret);
    }
    if (status != CF_OK)
        fail_msg("submit: %s: %s", cf_status_name(status), cf_last_error()->message);
}

/* All the bytes that came are there to be read. */
static void read_result(cf_future *f)
{
    const void *data = NULL;
    size_t size = 0;
    cf_status status = cf_future_peek(f, LIMIT, &data, &size);
    if (status == CF_TIMEOUT)
        fail_msg("a future that never ends");
    unsigned sum = 0;
    for (size_t i = 0; status == CF_OK && i < size; i++)
        sum += ((const volatile unsigned char *)data)[i];
    assert_true(cf_future_done(f));
    assert_true(status == CF_OK || cf_future_exception(f)->message);
    (void)sum;
}

static void wage(unsigned honest_every, unsigned workers)
{
    struct war war = { .state = random_next(&seed),
                       .honest_every = honest_every,
                       .mutex = PTHREAD_MUTEX_INITIALIZER };
    const cf_host host = { .size = sizeof host, .data = &war, .start_process = start_enemy };
    cf_future *f[TASKS] = { NULL };
    cf_executor *pool =
        processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = workers, .max_retries = 3,
                                               .max_restarts = 100000, .host = &host));
    for (int i = 0; i < TASKS; i++)
        submit_one(pool, i, &f[i]);
    for (int i = 0; i < TASKS; i++) {
        if (f[i])
            read_result(f[i]);
    }
    cf_future_unref_all(f, TASKS);
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, CF_SECONDS(5)), CF_OK);
    cf_executor_free(pool);
}

static void test_hostile_workers(void **unused)
{
    (void)unused;
    int64_t time = CF_SECONDS(is_long_run() ? 600 : 8), begun = cfi_now();
    for (unsigned round = 0; cfi_now() - begun < time; round++) {
        wage(2 + round % 3, 1 + round % 4);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

/* ---- one that floods the socket: the others are served meanwhile ---- */

static void flood(int channel)
{
    static const struct cfi_message ready = { .type = CFI_READY };
    for (int64_t until = cfi_now() + LIMIT; cfi_now() < until;)
        (void)send(channel, &ready, sizeof ready, MSG_NOSIGNAL);
    _exit(0);
}

static int start_flood(void *data, int channel, unsigned number, int *ret_pid)
{
    (void)data, (void)number;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (cell_raise(CAME) == 0)
            flood(channel);
        _exit(cf_worker_run_channel(channel));
    }
    *ret_pid = (int)pid;
    return pid > 0 ? 0 : errno;
}

static void note_done(cf_future *f, void *data)
{
    (void)f;
    level_raise(data);
}

static void test_a_flood(void **unused)
{
    (void)unused;
    struct level called = LEVEL_INIT;
    const cf_host host = { .size = sizeof host, .start_process = start_flood };
    cf_executor *pool = processes_with(CF_PROCESS_POOL_OPTIONS(.max_workers = 2, .max_retries = 100,
                                                               .max_restarts = 100, .host = &host));
    int64_t begun = cfi_now();
    for (int i = 0; i < 20; i++) {
        cf_future *f = submitted(pool, twice, &i, sizeof i, sizeof i);
        assert_int_equal(cf_future_add_done_callback(f, note_done, &called), CF_OK);
        cf_future_unref(f);
    }
    assert_true(level_reaches(&called, 20));
    assert_true(cfi_now() - begun < LIMIT / 2); /* it floods for longer */
    assert_int_equal(cf_executor_shutdown(pool, CF_STOP_RUNNING, CF_SECONDS(5)), CF_OK);
    cf_executor_free(pool);
}

int main(int argc, char **argv)
{
    if (argc == 2)
        serve(argv);
    begin_process_tests();
    choose_seed();
    const struct CMUnitTest tests[] = {
        TALLIED(test_hostile_workers),
        TALLIED(test_a_flood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
