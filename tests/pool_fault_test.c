/* SPDX-License-Identifier: MIT */
/* What the thread pool does when it is refused memory or a thread: at the n-th call once, or from
 * the n-th call on, for every n.  Only statuses that say so, nothing lost, nothing leaked. */
#define _GNU_SOURCE
#include "pool_support.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* The sanitizers have these functions themselves; and they must be glibc's. */
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CANNOT_REFUSE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CANNOT_REFUSE 1
#endif
#endif

#ifdef CANNOT_REFUSE

int main(void)
{
    return 77;
}

#else

/* ---- refusing ---- */

/* While it is armed, `length` calls fail from the `first` on. */
struct refusal {
    atomic_bool armed;
    atomic_long calls, first, length;
};
static struct refusal memory, threads;

static void refuse(struct refusal *refusal, long first, long length)
{
    atomic_store(&refusal->calls, 0);
    atomic_store(&refusal->first, first);
    atomic_store(&refusal->length, length);
    atomic_store(&refusal->armed, true);
}

/* Ends it; has a call failed? */
static bool has_refused(struct refusal *refusal)
{
    atomic_store(&refusal->armed, false);
    return atomic_load(&refusal->calls) >= atomic_load(&refusal->first);
}

static bool is_refused(struct refusal *refusal)
{
    if (!atomic_load(&refusal->armed))
        return false;
    long after = atomic_fetch_add(&refusal->calls, 1) + 1 - atomic_load(&refusal->first);
    return after >= 0 && after < atomic_load(&refusal->length);
}

/* ---- in the place of libc's ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

/* What this program, into which the library is linked, has allocated and not freed. */
static struct {
    pthread_mutex_t mutex;
    const void *blocks[4096];
    size_t count;
    bool on;
} owned = { .mutex = PTHREAD_MUTEX_INITIALIZER };
extern const char __executable_start[], etext[];

static void *own(void *block, const void *caller)
{
    if (!block || (const char *)caller < __executable_start || (const char *)caller >= etext)
        return block;
    pthread_mutex_lock(&owned.mutex);
    if (owned.on && owned.count == COUNT_OF(owned.blocks))
        check_failed("more blocks than expected");
    else if (owned.on)
        owned.blocks[owned.count++] = block;
    pthread_mutex_unlock(&owned.mutex);
    return block;
}

static void disown(const void *block)
{
    pthread_mutex_lock(&owned.mutex);
    for (size_t i = owned.count; i > 0; i--) {
        if (owned.blocks[i - 1] == block) {
            owned.blocks[i - 1] = owned.blocks[--owned.count];
            break;
        }
    }
    pthread_mutex_unlock(&owned.mutex);
}

static bool is_out_of_memory(void)
{
    bool refused = is_refused(&memory);
    if (refused)
        errno = ENOMEM;
    return refused;
}

void *malloc(size_t size)
{
    return is_out_of_memory() ? NULL : own(__libc_malloc(size), __builtin_return_address(0));
}

void *calloc(size_t count, size_t size)
{
    return is_out_of_memory() ? NULL : own(__libc_calloc(count, size), __builtin_return_address(0));
}

void *realloc(void *block, size_t size)
{
    if (is_out_of_memory())
        return NULL;
    if (block)
        disown(block);
    void *moved = own(__libc_realloc(block, size), __builtin_return_address(0));
    return moved ? moved : own(block, __builtin_return_address(0));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return is_out_of_memory() ? NULL
                              : own(__libc_memalign(alignment, size), __builtin_return_address(0));
}

char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = is_out_of_memory() ? NULL : __libc_malloc(size);
    return copy ? memcpy(own(copy, __builtin_return_address(0)), text, size) : NULL;
}

void free(void *block)
{
    if (block)
        disown(block);
    __libc_free(block);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (is_out_of_memory())
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return is_refused(&threads) ? EAGAIN : real(thread, attr, run, arg);
}

/* ---- a scenario in which every part has its turn ---- */

enum { TASKS = 50 };

static struct {
    cf_executor *pool;
    cf_future *futures[TASKS];
    atomic_int accepted, ran, destroyed, to_destroy, calls, callbacks;
} scene;

/* A call may fail for want of memory or threads, and then says so. */
static bool went_well(cf_status status)
{
    CHECK(status == CF_OK || status == CF_NOMEM || status == CF_SYSTEM);
    CHECK(status != CF_SYSTEM || cf_last_error()->status != CF_SYSTEM ||
          cf_last_error()->code == EAGAIN || cf_last_error()->code == ENOMEM);
    return status == CF_OK;
}

static int run_plain(const void *arg, void *result)
{
    *(int *)result = *(const int *)arg;
    atomic_fetch_add(&scene.ran, 1);
    return 0;
}

static int run_and_raise(const void *arg, void *result)
{
    (void)result;
    atomic_fetch_add(&scene.ran, 1);
    return cf_raise(1 + *(const int *)arg, "a message");
}

static int run_and_resize(const void *arg, size_t arg_size, cf_bytes *result)
{
    (void)arg;
    (void)arg_size;
    atomic_fetch_add(&scene.ran, 1);
    return cf_bytes_resize(result, 100) != CF_OK;
}

static int run_children(const void *arg, void *result)
{
    (void)result;
    cf_future *f[20] = { NULL };
    atomic_fetch_add(&scene.ran, 1);
    for (int i = 0; i < 20; i++) {
        if (went_well(cf_submit(scene.pool, run_plain, arg, sizeof(int), sizeof(int), &f[i])))
            atomic_fetch_add(&scene.accepted, 1);
    }
    if (!went_well(cf_wait(f, 20, CF_ALL_COMPLETED, LIMIT, NULL))) {
        for (int i = 0; i < 20; i++)
            CHECK(!f[i] || cf_future_result(f[i], LIMIT, NULL, 0) == CF_OK);
    }
    cf_future_unref_all(f, 20);
    return 0;
}

static void count_destroy(void *data)
{
    (void)data;
    atomic_fetch_add(&scene.destroyed, 1);
}

static cf_task task_of(const int *i)
{
    cf_task task = { .size = sizeof task, .arg = i, .arg_size = sizeof *i };
    switch (*i % 6) {
    case 0:
        task.fn = run_and_raise;
        break;
    case 1:
        task.bytes_fn = run_and_resize;
        break;
    case 2:
        task.fn = run_children;
        break;
    case 3:
        task.priority = 1 - *i % 4;
        task.arg_destroy = count_destroy;
        break;
    default:
        break;
    }
    if (!task.fn && !task.bytes_fn) {
        task.fn = run_plain;
        task.result_size = sizeof(int);
    }
    return task;
}

static void count_call(cf_future *f, void *data)
{
    (void)data;
    CHECK(cf_future_done(f));
    atomic_fetch_add(&scene.calls, 1);
}

static void submit_all(void)
{
    for (int i = 0; i < TASKS; i++) {
        const cf_task task = task_of(&i);
        cf_future **f = &scene.futures[i];
        if (!went_well(cf_submit_task(scene.pool, &task, f)))
            continue;
        atomic_fetch_add(&scene.accepted, 1);
        atomic_fetch_add(&scene.to_destroy, task.arg_destroy != NULL);
        if (went_well(cf_future_add_done_callback(*f, count_call, NULL)))
            atomic_fetch_add(&scene.callbacks, 1);
    }
}

static void wait_for_all(void)
{
    cf_completed *completed = NULL;
    size_t index;
    (void)went_well(cf_wait(scene.futures, TASKS, CF_ALL_COMPLETED, LIMIT, NULL));
    if (went_well(cf_as_completed(scene.futures, TASKS, LIMIT, &completed))) {
        cf_status s;
        while ((s = cf_completed_next(completed, &index)) == CF_OK)
            CHECK(scene.futures[index] && cf_future_done(scene.futures[index]));
        CHECK(s == CF_END);
    }
    cf_completed_free(completed);
}

static void check_results(void)
{
    for (int i = 0; i < TASKS; i++) {
        cf_future *f = scene.futures[i];
        if (!f)
            continue;
        cf_status s = cf_future_result(f, LIMIT, NULL, 0);
        int value = -1;
        CHECK(s == CF_OK || s == CF_FAILED);
        CHECK(s == CF_FAILED || i % 6 != 0);
        CHECK(s == CF_OK || i % 6 < 2);
        CHECK(i % 6 != 0 || cf_last_error()->code == 1 + i);
        CHECK(i % 6 != 0 || strlen(cf_future_exception(f)->message) > 0);
        CHECK(i % 6 < 3 || (CF_RESULT(f, 0, &value) == CF_OK && value == i));
    }
}

static int square(const void *arg, void *result)
{
    int x = *(const int *)arg;
    *(int *)result = x * x;
    return 0;
}

static void map_some(void)
{
    int numbers[100], squares[100];
    for (int i = 0; i < 100; i++)
        numbers[i] = i;
    if (went_well(CF_MAP(scene.pool, square, numbers, 100, squares, CF_FOREVER)))
        CHECK(squares[99] == 99 * 99);
    if (went_well(CF_MAP(scene.pool, square, numbers, 100, squares, LIMIT)))
        CHECK(squares[50] == 50 * 50);
}

static void play_scene(size_t max_pending)
{
    memset(&scene, 0, sizeof scene);
    const cf_thread_pool_options options = {
        .size = sizeof options, .max_workers = 3, .max_pending = max_pending, .name = "fault"
    };
    if (!went_well(cf_thread_pool_new(&options, &scene.pool)))
        return;
    submit_all();
    wait_for_all();
    check_results();
    map_some();
    CHECK(cf_executor_shutdown(scene.pool, CF_FINISH_PENDING, LIMIT) == CF_OK);
    CHECK(cf_executor_free(scene.pool) == NULL);
    cf_future_unref_all(scene.futures, TASKS);
    CHECK(atomic_load(&scene.ran) == atomic_load(&scene.accepted));
    CHECK(atomic_load(&scene.destroyed) == atomic_load(&scene.to_destroy));
    CHECK(atomic_load(&scene.calls) == atomic_load(&scene.callbacks));
}

/* For n = 1, 2, ... until the scene needs no n-th call; the first time without any refusal, so that
 * what is kept for ever is there. */
static void refuse_each(struct refusal *refusal, long length, size_t max_pending)
{
    owned.on = true;
    play_scene(max_pending);
    assert_checks();
    assert_int_equal(atomic_load(&scene.accepted), atomic_load(&scene.ran));
    bool refused = true;
    for (long n = 1; refused; n++) {
        size_t before = owned.count;
        refuse(refusal, n, length);
        play_scene(max_pending);
        refused = has_refused(refusal);
        if (!all_checks_held())
            print_error("with the refusal of call %ld, length %ld\n", n, length);
        assert_checks();
        if (owned.count != before)
            fail_msg("%ld blocks leaked with the refusal of call %ld, length %ld",
                     (long)owned.count - (long)before, n, length);
    }
    assert_int_equal(atomic_load(&scene.accepted), TASKS + 20 * 8);
    owned.on = false;
}

static void test_each_allocation_fails_once(void **state)
{
    (void)state;
    refuse_each(&memory, 1, 0);
    refuse_each(&memory, 1, 20);
}

static void test_from_one_allocation_on_all_fail(void **state)
{
    (void)state;
    refuse_each(&memory, LONG_MAX, 0);
    refuse_each(&memory, LONG_MAX, 20);
}

static void test_each_thread_fails_once(void **state)
{
    (void)state;
    refuse_each(&threads, 1, 0);
    refuse_each(&threads, 1, 20);
}

static void test_from_one_thread_on_all_fail(void **state)
{
    (void)state;
    refuse_each(&threads, LONG_MAX, 0);
    refuse_each(&threads, LONG_MAX, 20);
}

/* ---- threads ---- */

static int count_run(const void *arg, void *result)
{
    (void)result;
    atomic_fetch_add(*(atomic_int *const *)arg, 1);
    return 0;
}

static void test_no_first_thread(void **state)
{
    (void)state;
    atomic_int runs = 0, *arg = &runs;
    cf_future *f = NULL;
    cf_executor *pool = pool_of(2);
    refuse(&threads, 1, 1);
    errno = 0;
    assert_int_equal(cf_submit(pool, count_run, &arg, sizeof arg, 0, &f), CF_SYSTEM);
    assert_null(f);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(cf_last_error()->status, CF_SYSTEM);
    assert_int_equal(cf_last_error()->code, EAGAIN);
    assert_true(has_refused(&threads));
    while (cf_submit(pool, count_run, &arg, sizeof arg, 0, &f) == CF_SYSTEM)
        sched_yield(); /* it does not try again at once */
    assert_non_null(f);
    assert_ends(f, CF_OK);
    end_pool(pool);
    assert_int_equal(atomic_load(&runs), 1); /* what was refused did not run */
}

static void test_fewer_threads_do_it_too(void **state)
{
    (void)state;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 4, .name = "fewer"));
    refuse(&threads, 2, LONG_MAX);
    for (int i = 0; i < 200; i++)
        assert_ends(submitted(pool, do_nothing, NULL, 0, 0), CF_OK);
    static struct gate gate = GATE_INIT;
    cf_future *busy = occupied(pool, &gate), *f[20];
    for (int i = 0; i < 20; i++)
        f[i] = submitted(pool, do_nothing, NULL, 0, 0);
    assert_threads("fewer_", 1);
    gate_open(&gate);
    for (int i = 0; i < 20; i++)
        assert_ends(f[i], CF_OK);
    assert_true(has_refused(&threads));
    assert_ends(busy, CF_OK);
    end_pool(pool);
}

/* When there are threads again, it takes them. */
static void test_more_threads_come_later(void **state)
{
    (void)state;
    static struct gate gate = GATE_INIT;
    cf_executor *pool = pool_with(CF_THREAD_POOL_OPTIONS(.max_workers = 2, .name = "later"));
    cf_future *busy = occupied(pool, &gate);
    refuse(&threads, 1, LONG_MAX);
    cf_future *f = submitted(pool, do_nothing, NULL, 0, 0);
    assert_true(has_refused(&threads));
    while (!cf_future_done(f)) {
        cf_future_unref(submitted(pool, do_nothing, NULL, 0, 0)); /* each submit may start one */
        sched_yield();
    }
    assert_threads("later_", 2);
    gate_open(&gate);
    assert_ends(f, CF_OK);
    assert_ends(busy, CF_OK);
    end_pool(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_allocation_fails_once),
        cmocka_unit_test(test_from_one_allocation_on_all_fail),
        cmocka_unit_test(test_each_thread_fails_once),
        cmocka_unit_test(test_from_one_thread_on_all_fail),
        cmocka_unit_test(test_no_first_thread),
        cmocka_unit_test(test_fewer_threads_do_it_too),
        cmocka_unit_test(test_more_threads_come_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
