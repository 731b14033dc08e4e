/* SPDX-License-Identifier: MIT */
/* A worker process and what it makes of its channel. */
#define _GNU_SOURCE
#include "worker_support.h"

static struct parent parent;

static bool is_filled(const unsigned char *bytes, size_t size, unsigned char with)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != with)
            return false;
    }
    return true;
}

/* ---- arguments and results ---- */

static int add_one(const void *arg, void *result)
{
    int64_t n;
    memcpy(&n, arg, sizeof n);
    n++;
    memcpy(result, &n, sizeof n);
    return 0;
}

static void assert_ok(const struct cfi_slot *slot, size_t size)
{
    assert_int_equal(slot->status, CF_OK);
    assert_int_equal(slot->code, 0);
    assert_int_equal(slot->has_text, 0);
    assert_int_equal(slot->size, size);
}

static void test_a_small_task(void **state)
{
    (void)state;
    parent_start(&parent);
    for (int64_t i = 0; i < 10; i++) {
        struct cfi_slot *slot =
            parent_do(&parent, CFI_CALL_FN, (cfi_function *)add_one, &i, sizeof i, sizeof i);
        assert_ok(slot, sizeof i);
        assert_int_equal(*(const int64_t *)parent_result(&parent, slot), i + 1);
    }
    parent_end(&parent);
}

struct order {
    size_t size;        /* of the result, */
    unsigned char with; /* filled with this */
    unsigned char rest[];
};

/* Fails if its argument is not aligned, or not filled as ordered. */
static int fill_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    const struct order *order = arg;
    if ((uintptr_t)arg % 16 != 0 ||
        !is_filled(order->rest, arg_size - offsetof(struct order, rest), order->with))
        return 1;
    if (cf_bytes_resize(result, order->size) != CF_OK)
        return 2;
    if (order->size > 0)
        memset(result->data, order->with, order->size);
    return 0;
}

static union {
    struct order order;
    unsigned char room[1 << 20];
} order_room;

static const struct order *make_order(size_t arg_size, size_t result_size, unsigned char with)
{
    memset(order_room.room, with, arg_size);
    order_room.order.size = result_size;
    order_room.order.with = with;
    return &order_room.order;
}

static void test_sizes_up_to_the_heap(void **state)
{
    (void)state;
    static const size_t sizes[] = { sizeof(struct order), CFI_INLINE_ARG,        CFI_INLINE_ARG + 1,
                                    CFI_INLINE_RESULT,    CFI_INLINE_RESULT + 1, 5000,
                                    CFI_HEAP_LARGEST - 1, CFI_HEAP_LARGEST };
    parent_start(&parent);
    for (unsigned i = 0; i < 8 * COUNT_OF(sizes); i++) { /* more than the heaps hold at once */
        size_t size = sizes[i % COUNT_OF(sizes)], result_size = sizes[i / 8];
        struct cfi_slot *slot = parent_do(&parent, CFI_CALL_BYTES, (cfi_function *)fill_bytes,
                                          make_order(size, result_size, (unsigned char)i), size, 0);
        assert_ok(slot, result_size);
        assert_int_equal(slot->result_place,
                         result_size <= CFI_INLINE_RESULT ? CFI_INLINE : CFI_IN_HEAP);
        assert_true(is_filled(parent_result(&parent, slot), result_size, (unsigned char)i));
    }
    struct cfi_slot *none =
        parent_do(&parent, CFI_CALL_BYTES, (cfi_function *)fill_bytes, make_order(16, 0, 1), 16, 0);
    assert_ok(none, 0);
    parent_end(&parent);
}

struct thousand {
    unsigned char bytes[1000];
};

/* Fails if its result is not aligned. */
static int fill_thousand(const void *arg, void *result)
{
    if ((uintptr_t)result % 16 != 0)
        return 1;
    memset(result, *(const unsigned char *)arg, sizeof(struct thousand));
    return 0;
}

static void test_a_larger_result_of_a_fn(void **state)
{
    (void)state;
    parent_start(&parent);
    for (unsigned i = 0; i < 600; i++) {
        unsigned char with = (unsigned char)i;
        struct cfi_slot *slot = parent_do(&parent, CFI_CALL_FN, (cfi_function *)fill_thousand,
                                          &with, 1, sizeof(struct thousand));
        assert_ok(slot, sizeof(struct thousand));
        assert_true(is_filled(parent_result(&parent, slot), slot->size, with));
    }
    parent_end(&parent);
}

static int nothing(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 0;
}

static void test_nothing_in_and_nothing_out(void **state)
{
    (void)state;
    parent_start(&parent);
    assert_ok(parent_do(&parent, CFI_CALL_FN, (cfi_function *)nothing, "", 0, 0), 0);
    parent_end(&parent);
}

static void test_many_in_order(void **state)
{
    (void)state;
    enum { TASKS = 100000 };
    parent_start(&parent);
    for (int64_t read = 0, sent = 0; read < TASKS;) {
        while (sent < TASKS && sent - read < CFI_SLOTS) {
            struct cfi_slot *slot =
                parent_slot(&parent, CFI_CALL_FN, (cfi_function *)add_one, sizeof sent);
            parent_set_arg(&parent, slot, &sent, sizeof sent);
            parent_send(&parent, slot);
            sent++;
        }
        struct cfi_slot *slot = parent_receive(&parent);
        assert_int_equal(slot->size, sizeof(int64_t));
        assert_int_equal(*(const int64_t *)parent_result(&parent, slot), ++read);
    }
    assert_true(cfi_load_relaxed(&parent.arena->cost) > 0);
    parent_end(&parent);
}

/* ---- failing ---- */

static int fail_with(const void *arg, void *result)
{
    (void)result;
    const char *text = arg;
    return *text ? cf_raise(7, "%s", text) : -7;
}

static void assert_text(const struct cfi_slot *slot, const char *text)
{
    assert_int_equal(slot->has_text, 1);
    assert_int_equal(slot->size, strlen(text));
    assert_memory_equal(parent_result(&parent, slot), text, strlen(text));
}

static void test_failing_with_a_text(void **state)
{
    (void)state;
    char text[600] = "short";
    parent_start(&parent);
    struct cfi_slot *slot = parent_do(&parent, CFI_CALL_FN, (cfi_function *)fail_with, text, 6, 0);
    assert_int_equal(slot->status, CF_OK);
    assert_int_equal(slot->code, 7);
    assert_text(slot, "short");
    memset(text, 'x', sizeof text - 1);
    slot = parent_do(&parent, CFI_CALL_FN, (cfi_function *)fail_with, text, sizeof text, 4000);
    assert_int_equal(slot->code, 7);
    text[CFI_MOST_TEXT - 1] = '\0';
    assert_text(slot, text);
    slot = parent_do(&parent, CFI_CALL_FN, (cfi_function *)fail_with, "", 1, 0);
    assert_int_equal(slot->code, -7);
    assert_int_equal(slot->has_text, 0);
    parent_end(&parent);
}

/* A failing bytes_fn leaves nothing behind, and one that only said something has not failed. */
static int raise_and_return(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    (void)cf_bytes_resize(result, 100000);
    (void)cf_raise(9, "why");
    return *(const int *)arg;
}

static void test_what_was_said_counts_only_for_a_failure(void **state)
{
    (void)state;
    parent_start(&parent);
    int code = 3;
    struct cfi_slot *slot =
        parent_do(&parent, CFI_CALL_BYTES, (cfi_function *)raise_and_return, &code, sizeof code, 0);
    assert_int_equal(slot->code, 3);
    assert_text(slot, "why");
    assert_ok(parent_do(&parent, CFI_CALL_FN, (cfi_function *)nothing, "", 0, 0), 0);
    parent_end(&parent);
}

static void destroy_object(void *object)
{
    (*(int *)object)++;
}

static int raise_object(const void *arg, void *result)
{
    (void)arg;
    static int destroyed;
    memcpy(result, &destroyed, sizeof destroyed);
    return destroyed == 0 ? cf_raise_object(5, &destroyed, destroy_object) : 0;
}

static void test_an_object_is_destroyed(void **state)
{
    (void)state;
    parent_start(&parent);
    struct cfi_slot *slot =
        parent_do(&parent, CFI_CALL_FN, (cfi_function *)raise_object, "", 0, sizeof(int));
    assert_int_equal(slot->code, 5);
    assert_int_equal(slot->has_text, 0);
    slot = parent_do(&parent, CFI_CALL_FN, (cfi_function *)raise_object, "", 0, sizeof(int));
    assert_ok(slot, sizeof(int));
    assert_int_equal(*(const int *)parent_result(&parent, slot), 1);
    parent_end(&parent);
}

static void test_an_unknown_function(void **state)
{
    (void)state;
    parent_start(&parent);
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_FN, (cfi_function *)nothing, 0);
    slot->offset = UINT64_C(1) << 60;
    parent_send(&parent, slot);
    slot = parent_receive(&parent);
    assert_int_equal(slot->status, CF_INVALID);
    assert_int_equal(slot->has_text, 1);
    slot = parent_slot(&parent, CFI_CALL_FN, (cfi_function *)nothing, 0);
    slot->image = CFI_MAX_IMAGES;
    parent_send(&parent, slot);
    assert_int_equal(parent_receive(&parent)->status, CF_INVALID);
    slot = parent_slot(&parent, CFI_CALL_FN, (cfi_function *)nothing, 0);
    slot->image = CFI_MAX_IMAGES - 1; /* without a name */
    parent_send(&parent, slot);
    assert_int_equal(parent_receive(&parent)->status, CF_INVALID);
    assert_ok(parent_do(&parent, CFI_CALL_FN, (cfi_function *)nothing, "", 0, 0), 0);
    parent_end(&parent);
}

/* ---- cancelled, taken back, stopped ---- */

/* In memory that the parent and its workers share. */
struct gates {
    atomic_bool begun, may_end;
    atomic_int calls;
};
static struct gates *gates;

static int pass_gate(const void *arg, void *result)
{
    (void)arg, (void)result;
    atomic_fetch_add(&gates->calls, 1);
    atomic_store(&gates->begun, true);
    WAIT_UNTIL(atomic_load(&gates->may_end));
    return 0;
}

static void reset_gates(void)
{
    atomic_store(&gates->begun, false);
    atomic_store(&gates->may_end, false);
    atomic_store(&gates->calls, 0);
}

static struct cfi_slot *send_gate(void)
{
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_FN, (cfi_function *)pass_gate, 0);
    parent_send(&parent, slot);
    return slot;
}

static void test_a_cancelled_task_does_not_run(void **state)
{
    (void)state;
    reset_gates();
    parent_start(&parent);
    send_gate();
    struct cfi_slot *second = send_gate();
    send_gate();
    WAIT_UNTIL(atomic_load(&gates->begun));
    uint32_t sent = CFI_SENT;
    assert_true(cfi_cas_seq_cst(&second->state, &sent, CFI_SKIP));
    atomic_store(&gates->may_end, true);
    for (int i = 0; i < 3; i++)
        parent_receive(&parent);
    assert_int_equal(atomic_load(&gates->calls), 2);
    parent_end(&parent);
}

static void test_a_task_is_taken_back(void **state)
{
    (void)state;
    reset_gates();
    parent_start(&parent);
    send_gate();
    struct cfi_slot *second = send_gate();
    WAIT_UNTIL(atomic_load(&gates->begun));
    uint32_t was = CFI_SENT;
    assert_true(cfi_cas_seq_cst(&second->state, &was, CFI_EMPTY));
    parent.sent--;
    atomic_store(&gates->may_end, true);
    parent_receive(&parent);
    int64_t n = 5; /* the same slot takes another */
    struct cfi_slot *slot =
        parent_do(&parent, CFI_CALL_FN, (cfi_function *)add_one, &n, sizeof n, sizeof n);
    assert_ptr_equal(slot, second);
    assert_int_equal(*(const int64_t *)parent_result(&parent, slot), 6);
    assert_int_equal(atomic_load(&gates->calls), 1);
    parent_end(&parent);
}

static int wait_for_stop(const void *arg, void *result)
{
    (void)arg, (void)result;
    if (cf_stop_requested())
        return 1;
    atomic_store(&gates->begun, true);
    WAIT_UNTIL(cf_stop_requested());
    return 2;
}

static int is_stop_requested(const void *arg, void *result)
{
    (void)arg, (void)result;
    return cf_stop_requested();
}

static void stop_one(bool all)
{
    reset_gates();
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_FN, (cfi_function *)wait_for_stop, 0);
    uint32_t number = parent_send(&parent, slot);
    WAIT_UNTIL(atomic_load(&gates->begun));
    if (all)
        cfi_store_release(&parent.arena->stop_all, true);
    else
        cfi_store_release(&parent.arena->stop_at, number + 1);
    assert_int_equal(parent_receive(&parent)->code, 2);
    assert_int_equal(
        parent_do(&parent, CFI_CALL_FN, (cfi_function *)is_stop_requested, "", 0, 0)->code, all);
}

static void test_asked_to_stop(void **state)
{
    (void)state;
    parent_start(&parent);
    stop_one(false);
    stop_one(false);
    stop_one(true);
    parent_end(&parent);
}

static void test_a_timed_task_says_when_it_began(void **state)
{
    (void)state;
    reset_gates();
    parent_start(&parent);
    int64_t before = cfi_now();
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_FN, (cfi_function *)pass_gate, 0);
    slot->is_timed = 1;
    parent_send(&parent, slot);
    WAIT_UNTIL(atomic_load(&gates->begun));
    int64_t began_at = cfi_load_acquire(&slot->began_at);
    assert_int_equal(cfi_load_acquire(&slot->state), CFI_SLOT_RUNNING);
    assert_true(before <= began_at && began_at <= cfi_now());
    atomic_store(&gates->may_end, true);
    parent_receive(&parent);
    assert_int_equal(cfi_load_acquire(&slot->began_at), 0); /* it is not the next one's */
    parent_end(&parent);
}

/* ---- bells ---- */

static bool event_is_written(void)
{
    uint64_t count;
    return read(parent.event, &count, sizeof count) == sizeof count;
}

static void test_the_manager_is_rung_once(void **state)
{
    (void)state;
    reset_gates();
    parent_start(&parent);
    send_gate();
    for (int i = 0; i < 3; i++)
        send_gate();
    WAIT_UNTIL(atomic_load(&gates->begun));
    cfi_store_seq_cst(&parent.arena->ring_at, 2);
    cfi_store_seq_cst(&parent.arena->bell, CFI_RING_MANAGER);
    atomic_store(&gates->may_end, true);
    struct pollfd ready = { .fd = parent.event, .events = POLLIN };
    assert_int_equal(poll(&ready, 1, 30000), 1);
    for (uint32_t i = 0; i <= 2; i++) /* not before the third was done */
        assert_int_equal(cfi_load_seq_cst(&parent.arena->slots[i].state), CFI_SLOT_DONE);
    assert_int_equal(cfi_load_seq_cst(&parent.arena->bell), CFI_QUIET);
    for (int i = 0; i < 4; i++)
        parent_receive(&parent);
    uint64_t count;
    assert_int_equal(read(parent.event, &count, sizeof count), sizeof count);
    assert_int_equal(count, 1);
    parent_do(&parent, CFI_CALL_FN, (cfi_function *)nothing, "", 0, 0);
    parent_end(&parent);
    assert_false(event_is_written());
}

static void test_a_waiter_is_woken(void **state)
{
    (void)state;
    reset_gates();
    parent_start(&parent);
    for (int i = 0; i < 100; i++) {
        atomic_store(&gates->begun, false);
        atomic_store(&gates->may_end, false);
        send_gate();
        WAIT_UNTIL(atomic_load(&gates->begun));
        cfi_store_seq_cst(&parent.arena->ring_at, parent.received);
        cfi_store_seq_cst(&parent.arena->bell, CFI_RING_WAITER);
        atomic_store(&gates->may_end, true);
        while (!parent_has_result(&parent))
            (void)cfi_shared_sleep(&parent.arena->bell, CFI_RING_WAITER, CFI_NEVER);
        WAIT_UNTIL(cfi_load_seq_cst(&parent.arena->bell) == CFI_QUIET);
        parent_receive(&parent);
    }
    parent_end(&parent);
}

/* Each side often goes to sleep just when the other has something for it. */
static void test_no_wake_up_is_lost(void **state)
{
    (void)state;
    parent_start(&parent);
    for (int64_t i = 0; i < 20000; i++) {
        struct cfi_slot *slot =
            parent_slot(&parent, CFI_CALL_FN, (cfi_function *)add_one, sizeof i);
        parent_set_arg(&parent, slot, &i, sizeof i);
        parent_send(&parent, slot);
        cfi_store_seq_cst(&parent.arena->ring_at, parent.received);
        cfi_store_seq_cst(&parent.arena->bell, CFI_RING_WAITER);
        while (!parent_has_result(&parent))
            (void)cfi_shared_sleep(&parent.arena->bell, CFI_RING_WAITER, CFI_NEVER);
        assert_int_equal(*(const int64_t *)parent_result(&parent, parent_receive(&parent)), i + 1);
    }
    parent_end(&parent);
}

/* ---- beginning and ending ---- */

static void redirect(int target, int to)
{
    fflush(NULL);
    assert_int_equal(dup2(to, target), target);
}

static int print(const void *arg, void *result)
{
    (void)arg, (void)result;
    printf("printed ");
    return 0;
}

static void finalize(void *data)
{
    printf("finalized %s", (const char *)data);
}

static int check_data(void *data)
{
    bool is_good = (uintptr_t)data % 16 == 0 && strcmp(data, "data") == 0;
    strcpy(data, "mine");
    return !is_good;
}

/* Data that travels: a memfd. */
static int data_block(struct parent *p, const char *text)
{
    int fd;
    void *data;
    size_t size = strlen(text) + 1;
    assert_int_equal(cfi_memory_new("data", size, true, &fd, &data), 0);
    memcpy(data, text, size);
    munmap(data, size);
    p->welcome.data_size = size;
    return fd;
}

static void test_initializer_finalizer_and_output(void **state)
{
    (void)state;
    char text[100] = "";
    int ends[2], own = dup(STDOUT_FILENO);
    assert_int_equal(pipe(ends), 0);
    redirect(STDOUT_FILENO, ends[1]);
    parent_open(&parent);
    parent.welcome.has_initializer = parent.welcome.has_finalizer = 1;
    parent.welcome.initializer = parent_identify(&parent, (cfi_function *)check_data);
    parent.welcome.finalizer = parent_identify(&parent, (cfi_function *)finalize);
    int data = data_block(&parent, "data");
    parent_welcome(&parent, data);
    parent_fork(&parent);
    redirect(STDOUT_FILENO, own);
    close(ends[1]);
    struct cfi_message ready;
    parent_hear(&parent, &ready, NULL);
    assert_int_equal(ready.type, CFI_READY);
    parent_do(&parent, CFI_CALL_FN, (cfi_function *)print, "", 0, 0);
    assert_int_equal(read(ends[0], text, sizeof text), strlen("printed ")); /* when it is idle */
    assert_string_equal(text, "printed ");
    parent_end(&parent);
    assert_int_equal(read(ends[0], text, sizeof text), strlen("finalized mine"));
    assert_memory_equal(text, "finalized mine", strlen("finalized mine"));
    close(ends[0]);
    close(own);
    close(data);
}

static void test_quit_leaves_nothing_undone(void **state)
{
    (void)state;
    reset_gates();
    parent_start(&parent);
    send_gate();
    send_gate();
    WAIT_UNTIL(atomic_load(&gates->begun));
    cfi_store_seq_cst(&parent.arena->quit, true);
    atomic_store(&gates->may_end, true);
    assert_int_equal(parent_wait(&parent), 0);
    assert_int_equal(atomic_load(&gates->calls), 2);
    parent_close(&parent);
}

static int refuse_to_work(void *data)
{
    (void)data;
    return cf_raise(4, "no licence");
}

static void start_unfit(cfi_function *initializer, struct cfi_message *unfit)
{
    parent_open(&parent);
    parent.welcome.has_initializer = 1;
    parent.welcome.initializer = parent_identify(&parent, initializer);
    if (!unfit->text[0])
        parent.welcome.initializer.offset = UINT64_C(1) << 60;
    parent_welcome(&parent, -1);
    parent_fork(&parent);
    parent_hear(&parent, unfit, NULL);
    assert_int_equal(unfit->type, CFI_UNFIT);
}

static void test_a_failing_initializer(void **state)
{
    (void)state;
    struct cfi_message unfit = { .text = "there is such a function" };
    start_unfit((cfi_function *)refuse_to_work, &unfit);
    assert_int_equal(unfit.code, 4);
    assert_string_equal(unfit.text, "no licence");
    cfi_store_seq_cst(&parent.arena->quit, true);
    parent_wake(&parent);
    assert_int_equal(parent_wait(&parent), 1);
    parent_close(&parent);
}

static void test_an_initializer_that_is_not_there(void **state)
{
    (void)state;
    struct cfi_message unfit = { .text = "" };
    start_unfit((cfi_function *)refuse_to_work, &unfit);
    assert_int_not_equal(unfit.code, 0);
    assert_true(strlen(unfit.text) > 0);
    close(parent.channel);
    assert_int_equal(parent_wait(&parent), 1);
    parent.channel = -1;
    parent_close(&parent);
}

static int name_of_process(const void *arg, void *result)
{
    (void)arg;
    FILE *file = fopen("/proc/self/comm", "r");
    bool read = file && fgets(result, 16, file);
    if (file)
        fclose(file);
    return !read;
}

static void test_it_has_the_pools_name(void **state)
{
    (void)state;
    parent_open(&parent);
    strcpy(parent.welcome.text, "a-name-that-is-long");
    parent.welcome.number = 42;
    parent_welcome(&parent, -1);
    parent_fork(&parent);
    struct cfi_message ready;
    parent_hear(&parent, &ready, NULL);
    struct cfi_slot *slot =
        parent_do(&parent, CFI_CALL_FN, (cfi_function *)name_of_process, "", 0, 16);
    assert_memory_equal(parent_result(&parent, slot), "a-name-that-_42", 15);
    parent_end(&parent);
}

/* ---- the parent goes, or is none ---- */

static void test_it_goes_when_the_channel_closes(void **state)
{
    (void)state;
    for (int runs = 0; runs < 2; runs++) {
        reset_gates();
        parent_start(&parent);
        if (runs) {
            send_gate(); /* it never ends */
            WAIT_UNTIL(atomic_load(&gates->begun));
        }
        close(parent.channel);
        assert_int_not_equal(parent_wait(&parent), 0);
        parent.channel = -1;
        parent_close(&parent);
    }
}

static void stay(void)
{
    alarm(40);
    for (;;)
        pause();
}

static void test_it_goes_when_the_host_goes(void **state)
{
    (void)state;
    pid_t host = fork();
    if (host == 0)
        stay();
    reset_gates();
    parent_open(&parent);
    close(parent.host);
    parent.host = open_pidfd(host);
    parent_welcome(&parent, -1);
    parent_fork(&parent);
    struct cfi_message ready;
    parent_hear(&parent, &ready, NULL);
    send_gate();
    WAIT_UNTIL(atomic_load(&gates->begun));
    kill(host, SIGKILL);
    assert_int_not_equal(parent_wait(&parent), 0);
    assert_int_equal(waitpid(host, NULL, 0), host);
    parent_close(&parent);
}

static void assert_refuses(void)
{
    parent_fork(&parent);
    int status = parent_wait(&parent);
    assert_in_range(status, 1, 127);
    parent_close(&parent);
}

static void test_no_welcome(void **state)
{
    (void)state;
    parent_open(&parent);
    shutdown(parent.channel, SHUT_RDWR);
    assert_refuses();

    parent_open(&parent);
    assert_int_equal(send(parent.channel, "garbage", 7, 0), 7);
    assert_refuses();
}

static void test_a_wrong_welcome(void **state)
{
    (void)state;
    parent_open(&parent);
    parent.welcome.type = CFI_READY;
    parent_welcome(&parent, -1);
    assert_refuses();

    parent_open(&parent);
    parent.welcome.version++;
    parent_welcome(&parent, -1);
    assert_refuses();

    parent_open(&parent);
    parent.welcome.size++;
    parent_welcome(&parent, -1);
    assert_refuses();

    parent_open(&parent); /* data without a descriptor */
    parent.welcome.data_size = 8;
    parent_welcome(&parent, -1);
    assert_refuses();

    parent_open(&parent); /* a descriptor without data */
    parent_welcome(&parent, parent.event);
    assert_refuses();

    parent_open(&parent); /* an arena that is none */
    const int fds[3] = { parent.event, parent.event, parent.host };
    assert_int_equal(cfi_message_send(parent.channel, &parent.welcome, fds, 3), 0);
    assert_refuses();

    parent_open(&parent); /* no descriptors */
    assert_int_equal(cfi_message_send(parent.channel, &parent.welcome, NULL, 0), 0);
    assert_refuses();
}

int main(void)
{
    if (!has_pidfds())
        return 77;
    gates = mmap(NULL, sizeof *gates, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (gates == MAP_FAILED)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_small_task),
        cmocka_unit_test(test_sizes_up_to_the_heap),
        cmocka_unit_test(test_a_larger_result_of_a_fn),
        cmocka_unit_test(test_nothing_in_and_nothing_out),
        cmocka_unit_test(test_many_in_order),
        cmocka_unit_test(test_failing_with_a_text),
        cmocka_unit_test(test_what_was_said_counts_only_for_a_failure),
        cmocka_unit_test(test_an_object_is_destroyed),
        cmocka_unit_test(test_an_unknown_function),
        cmocka_unit_test(test_a_cancelled_task_does_not_run),
        cmocka_unit_test(test_a_task_is_taken_back),
        cmocka_unit_test(test_asked_to_stop),
        cmocka_unit_test(test_a_timed_task_says_when_it_began),
        cmocka_unit_test(test_the_manager_is_rung_once),
        cmocka_unit_test(test_a_waiter_is_woken),
        cmocka_unit_test(test_no_wake_up_is_lost),
        cmocka_unit_test(test_initializer_finalizer_and_output),
        cmocka_unit_test(test_quit_leaves_nothing_undone),
        cmocka_unit_test(test_a_failing_initializer),
        cmocka_unit_test(test_an_initializer_that_is_not_there),
        cmocka_unit_test(test_it_has_the_pools_name),
        cmocka_unit_test(test_it_goes_when_the_channel_closes),
        cmocka_unit_test(test_it_goes_when_the_host_goes),
        cmocka_unit_test(test_no_welcome),
        cmocka_unit_test(test_a_wrong_welcome),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
