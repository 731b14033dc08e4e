/* SPDX-License-Identifier: MIT */
/* A worker process and what is too large for its channel: blocks. */
#define _GNU_SOURCE
#include "worker_support.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define MIB ((size_t)1 << 20)

static struct parent parent;

static bool is_filled(const unsigned char *bytes, size_t size, unsigned char with)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != with)
            return false;
    }
    return true;
}

/* How many mappings of memfds with that name the worker has. */
static int mappings(const char *name)
{
    char path[64], line[512];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)parent.pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        count += strstr(line, name) != NULL;
    if (file)
        fclose(file);
    return count;
}

/* ---- arguments ---- */

/* A block full of `with`. */
static int argument_block(size_t size, unsigned char with)
{
    int fd;
    void *data;
    assert_int_equal(cfi_memory_new("argument", size, true, &fd, &data), 0);
    memset(data, with, size);
    munmap(data, size);
    return fd;
}

static void tell_block(uint32_t number, size_t size, int fd)
{
    const struct cfi_message message = { .type = CFI_BLOCK, .number = number, .size = size };
    assert_int_equal(cfi_message_send(parent.channel, &message, &fd, 1), 0);
    close(fd);
}

static void tell_gone(uint32_t number)
{
    const struct cfi_message message = { .type = CFI_BLOCK_GONE, .number = number };
    assert_int_equal(cfi_message_send(parent.channel, &message, NULL, 0), 0);
}

static void send_with_block(cfi_function *fn, uint32_t number, size_t size)
{
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_BYTES, fn, 0);
    slot->arg_place = CFI_IN_BLOCK;
    slot->arg_at = number;
    slot->arg_size = size;
    parent_send(&parent, slot);
}

/* Fails unless all bytes of the argument are the same; returns 100 and that otherwise. */
static int what_fills(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)result;
    const unsigned char *bytes = arg;
    return is_filled(bytes, arg_size, *bytes) ? 100 + *bytes : -1;
}

static void assert_code_of_next(int code)
{
    struct cfi_slot *slot = parent_receive(&parent);
    assert_int_equal(slot->status, CF_OK);
    assert_int_equal(slot->code, code);
}

static void test_an_argument_in_a_block(void **state)
{
    (void)state;
    cfi_function *fn = (cfi_function *)what_fills;
    parent_start(&parent);
    tell_block(1, MIB, argument_block(MIB, 1));
    send_with_block(fn, 1, MIB);
    send_with_block(fn, 1, MIB - 1);
    send_with_block(fn, 2, 70000); /* it waits for the announcement */
    assert_code_of_next(101);
    assert_code_of_next(101);
    tell_gone(1);
    tell_block(3, 80000, argument_block(80000, 3));
    tell_block(2, 70000, argument_block(70000, 2));
    assert_code_of_next(102);
    send_with_block(fn, 3, 80000);
    assert_code_of_next(103);
    assert_int_equal(mappings("memfd:argument"), 2);
    parent_end(&parent);
}

static void test_a_block_that_is_gone_is_let_go(void **state)
{
    (void)state;
    parent_start(&parent);
    for (unsigned i = 1; i <= 20; i++) {
        tell_block(i, MIB, argument_block(MIB, (unsigned char)i));
        send_with_block((cfi_function *)what_fills, i, MIB);
        assert_code_of_next(100 + (int)i);
    }
    for (unsigned i = 1; i <= 20; i++)
        tell_gone(i);
    tell_gone(77);
    parent_wake(&parent);
    WAIT_UNTIL(mappings("memfd:argument") ==
               0); /* when it has been idle for a second at the latest */
    parent_end(&parent);
}

static int write_to_argument(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size, (void)result;
    *(unsigned char *)(uintptr_t)arg = 1;
    return 0;
}

static void test_a_block_cannot_be_written(void **state)
{
    (void)state;
    parent_start(&parent);
    tell_block(1, MIB, argument_block(MIB, 1));
    send_with_block((cfi_function *)write_to_argument, 1, MIB);
    assert_int_equal(parent_wait(&parent), 128 + SIGSEGV);
    parent_close(&parent);
}

static void test_a_block_that_is_none(void **state)
{
    (void)state;
    parent_start(&parent);
    tell_block(1, MIB, argument_block(MIB / 2, 1)); /* smaller than it says */
    send_with_block((cfi_function *)what_fills, 1, MIB);
    struct cfi_slot *slot = parent_receive(&parent);
    assert_int_equal(slot->status, CF_NOMEM);
    assert_int_equal(slot->has_text, 1);
    tell_block(2, MIB, argument_block(MIB, 2));
    send_with_block((cfi_function *)what_fills, 2, MIB + 1); /* smaller than the slot says */
    slot = parent_receive(&parent);
    assert_int_equal(slot->status, CF_INVALID);
    assert_int_equal(slot->has_text, 1);
    send_with_block((cfi_function *)what_fills, 2, MIB);
    assert_code_of_next(102);
    parent_end(&parent);
}

/* ---- results ---- */

struct order {
    size_t size;
    unsigned char with;
};

static int fill(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    const struct order *order = arg;
    if (cf_bytes_resize(result, order->size) != CF_OK)
        return 1;
    memset(result->data, order->with, order->size);
    return 0;
}

/* The worker's blocks as the parent knows them. */
static struct {
    struct {
        unsigned char *data;
        size_t size;
        int fd;
    } blocks[200];
    int announced;
} theirs;

static void forget_blocks(void)
{
    for (size_t i = 0; i < COUNT_OF(theirs.blocks); i++) {
        if (theirs.blocks[i].data) {
            munmap(theirs.blocks[i].data, theirs.blocks[i].size);
            close(theirs.blocks[i].fd);
        }
    }
    memset(&theirs, 0, sizeof theirs);
}

static void hear_of_blocks(void)
{
    struct cfi_message message;
    int fds[4], count;
    while (cfi_message_receive(parent.channel, &message, MSG_DONTWAIT, fds, &count) == 0) {
        assert_int_equal(message.type, CFI_BLOCK);
        assert_int_equal(count, 1);
        assert_in_range(message.number, 0, COUNT_OF(theirs.blocks) - 1);
        if (theirs.blocks[message.number].data) {
            assert_in_range(message.number, 0, CFI_KEPT_BLOCKS - 1);
            munmap(theirs.blocks[message.number].data, theirs.blocks[message.number].size);
            close(theirs.blocks[message.number].fd);
        }
        void *data;
        assert_int_equal(cfi_memory_map(fds[0], message.size, false, &data), 0);
        theirs.blocks[message.number].data = data;
        theirs.blocks[message.number].size = message.size;
        theirs.blocks[message.number].fd = fds[0];
        theirs.announced++;
    }
}

/* The number of the block that the oldest task's result lies in; it is full of `with`. */
static uint32_t receive_block(size_t size, unsigned char with)
{
    struct cfi_slot *slot = parent_receive(&parent);
    assert_int_equal(slot->status, CF_OK);
    assert_int_equal(slot->code, 0);
    assert_int_equal(slot->result_place, CFI_IN_BLOCK);
    assert_int_equal(slot->size, size);
    hear_of_blocks();
    assert_in_range(slot->at, 0, COUNT_OF(theirs.blocks) - 1);
    assert_true(theirs.blocks[slot->at].size >= size);
    assert_true(is_filled(theirs.blocks[slot->at].data, size, with));
    return (uint32_t)slot->at;
}

static void send_order(size_t size, unsigned char with)
{
    const struct order order = { size, with };
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_BYTES, (cfi_function *)fill, 0);
    parent_set_arg(&parent, slot, &order, sizeof order);
    parent_send(&parent, slot);
}

static uint32_t do_order(size_t size, unsigned char with)
{
    send_order(size, with);
    return receive_block(size, with);
}

static void give_back(uint32_t number)
{
    cfi_store_release(&parent.arena->block_back[number], true);
}

static void test_kept_blocks_are_used_again(void **state)
{
    (void)state;
    parent_start(&parent);
    uint32_t first = do_order(MIB, 1);
    assert_in_range(first, 0, CFI_KEPT_BLOCKS - 1);
    uint32_t second = do_order(MIB, 2); /* the first is not back yet */
    assert_in_range(second, 0, CFI_KEPT_BLOCKS - 1);
    assert_int_not_equal(first, second);
    assert_true(is_filled(theirs.blocks[first].data, MIB, 1));
    for (unsigned i = 0; i < 100; i++) {
        give_back(first);
        assert_int_equal(do_order(MIB - i, (unsigned char)i), first);
        assert_false(cfi_load_acquire(&parent.arena->block_back[first]));
        assert_true(is_filled(theirs.blocks[second].data, MIB, 2));
    }
    assert_int_equal(theirs.announced, 2);
    parent_end(&parent);
    forget_blocks();
}

static void test_more_than_are_kept(void **state)
{
    (void)state;
    enum { TASKS = 100 };
    uint32_t numbers[TASKS];
    parent_start(&parent);
    for (unsigned i = 0; i < TASKS; i++)
        numbers[i] = do_order(100000, (unsigned char)i);
    for (unsigned i = 0; i < TASKS; i++) {
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(numbers[i], numbers[k]);
        assert_true(is_filled(theirs.blocks[numbers[i]].data, 100000, (unsigned char)i));
    }
    assert_int_equal(mappings("memfd:cfutures-result"), CFI_KEPT_BLOCKS);
    give_back(3);
    assert_int_equal(do_order(100000, 7), 3);
    parent_end(&parent);
    forget_blocks();
}

static void test_kept_ones_make_way_for_other_sizes(void **state)
{
    (void)state;
    parent_start(&parent);
    for (unsigned i = 0; i < CFI_KEPT_BLOCKS; i++)
        assert_int_equal(do_order(100000, (unsigned char)i), i);
    for (unsigned i = 0; i < CFI_KEPT_BLOCKS; i++)
        give_back(i);
    uint32_t number = do_order(20 * MIB, 1);
    assert_in_range(number, 0, CFI_KEPT_BLOCKS - 1);
    assert_int_equal(theirs.announced, CFI_KEPT_BLOCKS + 1);
    give_back(number);
    assert_int_equal(do_order(20 * MIB - 5, 2), number);
    assert_int_equal(theirs.announced, CFI_KEPT_BLOCKS + 1);
    give_back(number);
    for (unsigned i = 0; i < CFI_KEPT_BLOCKS; i++)
        assert_in_range(do_order(100000, (unsigned char)i), 0, CFI_KEPT_BLOCKS - 1);
    assert_true(theirs.blocks[number].size < MIB); /* the large one was far too large for these */
    parent_end(&parent);
    forget_blocks();
}

static int only_make(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    return cf_bytes_resize(result, *(const size_t *)arg) != CF_OK;
}

static void test_sizes_that_grow_and_grow(void **state)
{
    (void)state;
    parent_start(&parent);
    for (size_t size = 9 * MIB; size < 33 * MIB; size += MIB) { /* twice as much as may be kept */
        const struct cfi_slot *slot =
            parent_do(&parent, CFI_CALL_BYTES, (cfi_function *)only_make, &size, sizeof size, 0);
        assert_int_equal(slot->result_place, CFI_IN_BLOCK);
        assert_in_range(slot->at, 0, CFI_KEPT_BLOCKS - 1);
        hear_of_blocks();
        give_back((uint32_t)slot->at);
    }
    parent_end(&parent);
    forget_blocks();
}

static void test_too_large_to_be_kept(void **state)
{
    (void)state;
    const size_t size = CFI_KEPT_BYTES + 1;
    parent_start(&parent);
    const struct cfi_slot *slot =
        parent_do(&parent, CFI_CALL_BYTES, (cfi_function *)only_make, &size, sizeof size, 0);
    assert_int_equal(slot->status, CF_OK);
    assert_true(slot->at >= CFI_KEPT_BLOCKS);
    WAIT_UNTIL(mappings("memfd:cfutures-result") == 0);
    parent_end(&parent);
}

struct large {
    unsigned char bytes[300000];
};

static int fill_large(const void *arg, void *result)
{
    if (*(const unsigned char *)arg == 0)
        return 1;
    memset(result, *(const unsigned char *)arg, sizeof(struct large));
    return 0;
}

static void test_a_large_result_of_a_fn(void **state)
{
    (void)state;
    const unsigned char fails = 0;
    parent_start(&parent);
    for (unsigned i = 0; i < 2 * CFI_KEPT_BLOCKS; i++)
        assert_int_equal(parent_do(&parent, CFI_CALL_FN, (cfi_function *)fill_large, &fails, 1,
                                   sizeof(struct large))
                             ->code,
                         1);
    for (unsigned char with = 1; with < 5; with++) {
        struct cfi_slot *slot =
            parent_slot(&parent, CFI_CALL_FN, (cfi_function *)fill_large, sizeof(struct large));
        parent_set_arg(&parent, slot, &with, 1);
        parent_send(&parent, slot);
        give_back(receive_block(sizeof(struct large), with));
    }
    assert_int_equal(theirs.announced, 1);
    assert_int_equal(mappings("memfd:cfutures-result"), 1); /* failing uses none up */
    parent_end(&parent);
    forget_blocks();
}

/* ---- making them ---- */

/* Grows in steps, and looks after each that nothing was lost; ends with as much as was asked for. */
static int grow(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg_size;
    const struct order *order = arg;
    for (size_t size = 1000; size < 12 * MIB; size += size / 3) {
        size_t before = result->size;
        if (cf_bytes_resize(result, size) != CF_OK || !is_filled(result->data, before, order->with))
            return 1;
        memset((char *)result->data + before, order->with, size - before);
    }
    return cf_bytes_resize(result, order->size) != CF_OK;
}

static void send_growing(size_t size, unsigned char with)
{
    const struct order order = { size, with };
    struct cfi_slot *slot = parent_slot(&parent, CFI_CALL_BYTES, (cfi_function *)grow, 0);
    parent_set_arg(&parent, slot, &order, sizeof order);
    parent_send(&parent, slot);
}

static void test_bytes_grow_and_shrink(void **state)
{
    (void)state;
    parent_start(&parent);
    send_growing(9 * MIB, 1);
    (void)receive_block(9 * MIB, 1);
    send_growing(200000, 2);
    (void)receive_block(200000, 2);
    send_growing(20000, 3);
    struct cfi_slot *slot = parent_receive(&parent);
    assert_int_equal(slot->code, 0);
    assert_int_equal(slot->result_place, CFI_IN_HEAP);
    assert_true(is_filled(parent_result(&parent, slot), 20000, 3));
    parent_end(&parent);
    forget_blocks();
}

/* Many at once, more than there are blocks; and none is another. */
static int hold_many(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    enum { MANY = 60 };
    cf_bytes many[MANY] = { { NULL, 0 } };
    int wrong = 0;
    for (unsigned i = 0; i < MANY; i++) {
        wrong += cf_bytes_resize(&many[i], 70000) != CF_OK;
        memset(many[i].data, (int)i, 70000);
    }
    for (unsigned i = 0; i < MANY; i++) {
        wrong += !is_filled(many[i].data, 70000, (unsigned char)i);
        if (i + 1 < MANY)
            cf_bytes_free(&many[i]);
    }
    *result = many[MANY - 1]; /* of malloc's memory, probably: there were no blocks left */
    return wrong;
}

static void test_many_bytes_in_a_task(void **state)
{
    (void)state;
    parent_start(&parent);
    for (int i = 0; i < 5; i++) {
        parent_send(&parent, parent_slot(&parent, CFI_CALL_BYTES, (cfi_function *)hold_many, 0));
        give_back(receive_block(70000, 59));
    }
    assert_int_equal(mappings("memfd:cfutures-result"), CFI_KEPT_BLOCKS);
    parent_end(&parent);
    forget_blocks();
}

static int resize_much(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_bytes bytes = { NULL, 0 };
    for (unsigned i = 0; i < 200; i++) {
        if (cf_bytes_resize(&bytes, 65000 + i * 1000) != CF_OK)
            return 1;
        memset(bytes.data, (int)i, bytes.size);
        if (!is_filled(bytes.data, bytes.size, (unsigned char)i))
            return 2;
        if (i % 10 == 9)
            cf_bytes_free(&bytes);
    }
    return 0;
}

static int resize_on_threads(const void *arg, void *result)
{
    (void)arg, (void)result;
    cf_auto_executor *pool = NULL;
    char args[8] = { 0 };
    if (cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 4), &pool) != CF_OK)
        return 1;
    return (int)cf_map(pool, resize_much, args, sizeof args, 1, NULL, 0, CF_FOREVER);
}

static void test_bytes_on_threads_of_a_task(void **state)
{
    (void)state;
    parent_start(&parent);
    struct cfi_slot *slot =
        parent_do(&parent, CFI_CALL_FN, (cfi_function *)resize_on_threads, "", 0, 0);
    assert_int_equal(slot->code, 0);
    assert_int_equal(slot->status, CF_OK);
    parent_end(&parent);
}

static void spoil_bytes(void *data)
{
    cf_bytes *inherited = data, own = { NULL, 0 };
    CHECK(cf_bytes_resize(&own, MIB) == CF_OK);
    memset(own.data, 9, own.size);
    cf_bytes_free(&own);
    CHECK(cf_bytes_resize(inherited, MIB) == CF_OK);
    CHECK(is_filled(inherited->data, MIB / 2, 1));
    memset(inherited->data, 9, inherited->size);
    cf_bytes_free(inherited);
}

/* What a child of the worker does to its bytes is its own affair. */
static int fork_with_bytes(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg, (void)arg_size;
    cf_bytes scratch = { NULL, 0 };
    if (cf_bytes_resize(&scratch, MIB) != CF_OK || cf_bytes_resize(result, MIB / 2) != CF_OK)
        return 1;
    cf_bytes_free(&scratch); /* a free block for the child to be misled by */
    memset(result->data, 1, result->size);
    return in_child(spoil_bytes, result);
}

static void test_a_child_of_the_worker(void **state)
{
    (void)state;
    parent_start(&parent);
    parent_send(&parent, parent_slot(&parent, CFI_CALL_BYTES, (cfi_function *)fork_with_bytes, 0));
    (void)receive_block(MIB / 2, 1);
    parent_end(&parent);
    forget_blocks();
}

/* ---- when there is no memory, and when there is nothing to do ---- */

/* From now on there are no new blocks. */
static int allow_no_blocks(const void *arg, void *result)
{
    (void)arg, (void)result;
    const struct rlimit none = { 0, RLIM_INFINITY };
    return setrlimit(RLIMIT_FSIZE, &none);
}

static void assert_no_memory(cfi_function *fn, enum cfi_call call, size_t result_size)
{
    const struct order order = { MIB, 1 };
    struct cfi_slot *slot = parent_do(&parent, call, fn, &order, sizeof order, result_size);
    assert_int_equal(slot->status, CF_NOMEM);
    assert_int_equal(slot->has_text, 1);
}

static void test_no_memory_for_blocks(void **state)
{
    (void)state;
    parent_start(&parent);
    assert_int_equal(
        parent_do(&parent, CFI_CALL_FN, (cfi_function *)allow_no_blocks, "", 0, 0)->code, 0);
    assert_no_memory((cfi_function *)fill_large, CFI_CALL_FN, sizeof(struct large));
    assert_no_memory((cfi_function *)fill, CFI_CALL_BYTES, 0);
    send_growing(20000, 3); /* malloc helps out on the way */
    assert_int_equal(parent_receive(&parent)->code, 0);
    parent_end(&parent);
}

/* The parent reads nothing, so the heap is soon full. */
static void test_a_full_heap(void **state)
{
    (void)state;
    enum { TASKS = 80 };
    bool was_in[CFI_IN_BLOCK + 1] = { false };
    parent_start(&parent);
    for (unsigned i = 0; i < TASKS; i++)
        send_order(5000, (unsigned char)i);
    struct pollfd rung = { .fd = parent.event, .events = POLLIN };
    assert_int_equal(poll(&rung, 1, 30000), 1); /* unasked */
    for (unsigned i = 0; i < TASKS; i++) {
        const struct cfi_slot *slot = &parent.arena->slots[i];
        WAIT_UNTIL(cfi_load_acquire(&slot->state) == CFI_SLOT_DONE);
        was_in[slot->result_place] = true;
        if (slot->result_place == CFI_IN_HEAP) {
            assert_true(
                is_filled(parent.arena->result_heap + slot->at % CFI_HEAP, 5000, (unsigned char)i));
            continue;
        }
        hear_of_blocks();
        assert_true(is_filled(theirs.blocks[slot->at].data, 5000, (unsigned char)i));
    }
    assert_true(was_in[CFI_IN_HEAP] && was_in[CFI_IN_BLOCK]);
    uint64_t rings;
    assert_int_equal(read(parent.event, &rings, sizeof rings), sizeof rings);
    assert_int_equal(rings, 1);
    parent_end(&parent);
    forget_blocks();
}

static long long memory_of(uint32_t number)
{
    struct stat about;
    assert_int_equal(fstat(theirs.blocks[number].fd, &about), 0);
    return about.st_blocks;
}

static void test_idle_blocks_cost_no_memory(void **state)
{
    (void)state;
    parent_start(&parent);
    uint32_t idle = do_order(MIB, 1), busy = do_order(MIB, 2);
    assert_true(memory_of(idle) > 0);
    give_back(idle);
    WAIT_UNTIL(memory_of(idle) == 0);
    assert_true(is_filled(theirs.blocks[busy].data, MIB, 2));
    assert_int_equal(do_order(MIB, 3), idle);
    assert_int_equal(theirs.announced, 2);
    parent_end(&parent);
    forget_blocks();
}

int main(void)
{
    if (!has_pidfds())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_argument_in_a_block),
        cmocka_unit_test(test_a_block_that_is_gone_is_let_go),
        cmocka_unit_test(test_a_block_cannot_be_written),
        cmocka_unit_test(test_a_block_that_is_none),
        cmocka_unit_test(test_kept_blocks_are_used_again),
        cmocka_unit_test(test_more_than_are_kept),
        cmocka_unit_test(test_kept_ones_make_way_for_other_sizes),
        cmocka_unit_test(test_sizes_that_grow_and_grow),
        cmocka_unit_test(test_too_large_to_be_kept),
        cmocka_unit_test(test_a_large_result_of_a_fn),
        cmocka_unit_test(test_bytes_grow_and_shrink),
        cmocka_unit_test(test_many_bytes_in_a_task),
        cmocka_unit_test(test_bytes_on_threads_of_a_task),
        cmocka_unit_test(test_a_child_of_the_worker),
        cmocka_unit_test(test_no_memory_for_blocks),
        cmocka_unit_test(test_a_full_heap),
        cmocka_unit_test(test_idle_blocks_cost_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
