/* SPDX-License-Identifier: MIT */
/* The scheduler: real threads (the engine has thread-local variables) that pass a baton.
 *
 * A choice is written down as step:option, where a step is one passage through schedule_point and
 * option 0, which is left out, is to go on.  A point is only a place to switch if its word is
 * touched by two threads and changed by one, while both are alive: all else commutes with what the
 * others do.  When a further such word turns up the exploration begins anew, so in the end all were
 * known. */
#define _GNU_SOURCE
#include "scheduler.h"

#include "base/atomics.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 8, MAX_STEPS = 20000, MAX_CHOICES = 16384, STACK = 512 * 1024 };
enum { SECONDS_PER_CLIENT = 16, SECONDS_PER_RUN = 10 };
static const int64_t start_of_time = 1000000000;

enum state { READY, ASLEEP, JOINING, FINISHED };

struct thread {
    int number;
    pthread_t id;
    sem_t baton;
    void *(*run)(void *);
    void *arg;
    bool spawned; /* by the client */
    enum state state;
    unsigned behind;     /* threads that must take a step before this one, which spins */
    const cfi_u32 *word; /* ASLEEP: on what, until when */
    int64_t deadline;
    bool timed_out;
    bool spun;          /* and since then nobody else has moved */
    pthread_t awaited;  /* JOINING */
    const char *caller; /* of the step that it is about to take */
    struct word *last;  /* what its latest operation was on, and what was there before */
    uint64_t last_value;
    char *stack_end; /* while it does not run: what lies below belongs to functions that have
                        returned */
    struct word
        *preempted_at; /* before which operation, and whether others were at that word since */
    bool met_touch, met_change;
};

struct choice {
    int step, option, options;
};

static _Thread_local struct thread *self;
static KEPT struct thread threads[MAX_THREADS];
static KEPT int thread_count;
static KEPT sem_t all_finished;
static KEPT char *stacks; /* one after the other */
static KEPT int64_t now;
static KEPT int step, detours, timeouts, bound;
static KEPT bool cut;       /* more detours would have been possible */
static KEPT bool replaying; /* a schedule given from outside: no bound, every step is printed */

static KEPT struct choice path[MAX_CHOICES];
static KEPT int path_length, path_at;

/* ---- reports --------------------------------------------------------------------------------- */

static KEPT const char *client_name = "";

static void print_schedule(void)
{
    const char *comma = "";
    fprintf(stderr, "SCHEDULE=");
    for (int i = 0; i < path_at; i++) {
        if (path[i].option == 0)
            continue;
        fprintf(stderr, "%s%d:%d", comma, path[i].step, path[i].option);
        comma = ",";
    }
    fprintf(stderr, " %s %s\n", program_invocation_name, client_name);
}

static void print_steps(void);

void schedule_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (replaying)
        print_steps();
    fflush(stdout);
    fprintf(stderr, "%s: step %d, thread %d: ", client_name, step, self ? self->number : -1);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    print_schedule();
    _exit(1);
}

static void on_signal(int number)
{
    if (number == SIGALRM)
        schedule_fail("a run took %d s: a thread blocks where the scheduler cannot see it",
                      SECONDS_PER_RUN);
    schedule_fail("signal %d (%s)", number, strsignal(number));
}

static void catch_signals(void)
{
    const int caught[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM };
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        signal(caught[i], on_signal);
}

/* ---- the steps of a replayed schedule
 * ------------------------------------------------------------ */

static KEPT struct {
    int thread;
    const char *what;
    const volatile void *address;
    const char *caller;
} steps[MAX_STEPS + 1];

static void record_step(const char *what, const volatile void *address)
{
    steps[step].thread = self->number;
    steps[step].what = what;
    steps[step].address = address;
    steps[step].caller = self->caller;
}

/* Prints the functions around an address of the program, innermost first. */
static void print_place(const char *address)
{
    char command[200], line[200];
    snprintf(command, sizeof command, "addr2line -fips -e /proc/%d/exe %p", (int)getpid(),
             (const void *)(address - 1));
    FILE *lines = popen(command, "r");
    while (lines && fgets(line, sizeof line, lines)) {
        line[strcspn(line, "\n")] = '\0';
        printf("  %s", line);
    }
    if (lines)
        pclose(lines);
    putchar('\n');
}

static void print_steps(void)
{
    for (int i = 1; i <= step && i <= MAX_STEPS; i++) {
        if (!steps[i].what)
            continue;
        printf("%5d %*sT%d %s %012lx", i, 4 * steps[i].thread, "", steps[i].thread, steps[i].what,
               (unsigned long)(uintptr_t)steps[i].address);
        if (steps[i].caller)
            print_place(steps[i].caller);
        else
            putchar('\n');
    }
}

/* ---- where a switch can matter ------------------------------------------------------------------
 */

enum { WORDS = 1 << 14 };
struct word {
    const volatile uint64_t *address; /* both halves of a future's word are one */
    unsigned threads, writers;        /* who touched it, who changed it, while others were alive */
};
static KEPT struct word words[WORDS];
static KEPT bool redundant;
static KEPT bool grown; /* another word turned out to be fought for */

static struct word *word_at(const volatile void *address)
{
    const volatile uint64_t *a = (const volatile uint64_t *)((uintptr_t)address & ~(uintptr_t)7);
    size_t at = ((uintptr_t)a * UINT64_C(0x9e3779b97f4a7c15) >> 40) % WORDS;
    while (words[at].address && words[at].address != a)
        at = (at + 1) % WORDS;
    words[at].address = a;
    return &words[at];
}

static bool is_fought_for(const struct word *w)
{
    return w->writers && (w->threads & (w->threads - 1));
}

static void note(struct word *w, bool change)
{
    bool was = is_fought_for(w);
    w->threads |= 1u << self->number;
    if (change)
        w->writers |= 1u << self->number;
    grown |= is_fought_for(w) && !was;
    for (int i = 0; i < thread_count; i++) {
        if (threads[i].preempted_at != w || &threads[i] == self)
            continue;
        threads[i].met_touch = true;
        threads[i].met_change |= change;
    }
}

/* At the next step of the same thread: did its last operation change anything? */
static void note_change(void)
{
    struct word *w = self->last;
    bool changed = w && *w->address != self->last_value;
    if (changed)
        note(w, true);
    else if (self->met_touch && !self->met_change)
        redundant = true; /* both only read */
    self->last = NULL;
    self->met_touch = false;
}

/* ---- choosing ----------------------------------------------------------------------------------
 */

static int choose(int options)
{
    if (options == 1)
        return 0;
    if (path_at < path_length && path[path_at].step == step) {
        struct choice *c = &path[path_at++];
        if (!replaying && c->options != options)
            schedule_fail("not the same as before: %d options and not %d", options, c->options);
        return c->option < options ? c->option : 0;
    }
    if (replaying || (redundant && path_at == path_length))
        return 0;
    if (path_at < path_length)
        schedule_fail("not the same as before: a choice that should come at step %d",
                      path[path_at].step);
    if (path_at == MAX_CHOICES)
        schedule_fail("more than %d choices", MAX_CHOICES);
    path[path_at] = (struct choice){ step, 0, options };
    path_length = ++path_at;
    return 0;
}

/* To the next path in depth-first order; false: that was the last. */
static bool advance(void)
{
    while (path_length > 0 && path[path_length - 1].option + 1 == path[path_length - 1].options)
        path_length--;
    if (path_length == 0)
        return false;
    path[path_length - 1].option++;
    return true;
}

static unsigned ready_threads(void)
{
    unsigned ready = 0;
    for (int i = 0; i < thread_count; i++)
        ready |= (unsigned)(threads[i].state == READY) << i;
    return ready;
}

struct options {
    struct thread *threads[2 * MAX_THREADS];
    int count;
};

/* In turn, beginning after the running thread. */
static void add_ready(struct options *o, bool also_spinning)
{
    unsigned ready = ready_threads();
    for (int i = 1; i < thread_count; i++) {
        struct thread *t = &threads[(self->number + i) % thread_count];
        if (t->state == READY && (also_spinning || !(t->behind & ready)))
            o->threads[o->count++] = t;
    }
}

static void add_timeouts(struct options *o)
{
    for (int i = 0; i < thread_count; i++) {
        if (threads[i].state == ASLEEP && threads[i].deadline != CFI_NEVER)
            o->threads[o->count++] = &threads[i];
    }
}

static void report_deadlock(void)
{
    for (int i = 0; i < thread_count; i++)
        fprintf(stderr, "thread %d: %s (%p)\n", i,
                threads[i].state == FINISHED ? "finished"
                : threads[i].state == ASLEEP ? "asleep"
                                             : "joins",
                (const void *)threads[i].caller);
    schedule_fail("deadlock: nobody can go on");
}

/* Who goes on.  The first option is the running thread, if it can, else the first that is ready;
 * all others are detours.  A time-out is the last: in reality all but the slowest run before. */
static struct thread *pick(bool can_stay)
{
    struct options o = { .count = 0 };
    if (can_stay)
        o.threads[o.count++] = self;
    add_ready(&o, false);
    if (o.count == 0)
        add_ready(&o, true);
    if (o.count == 0 && self->state == READY)
        o.threads[o.count++] = self; /* it spins, alone */
    add_timeouts(&o);
    if (o.count == 0)
        report_deadlock();
    bool may_detour = replaying || detours < bound;
    cut |= o.count > 1 && !may_detour;
    int option = choose(may_detour ? o.count : 1);
    detours += option > 0;
    struct thread *t = o.threads[option];
    if (t->state == ASLEEP) {
        t->timed_out = true;
        t->state = READY;
        timeouts++;
        now = t->deadline > now ? t->deadline : now;
    }
    return t;
}

static void hand_over(struct thread *to)
{
    if (to == self)
        return;
    struct thread *me = self;
    me->stack_end = __builtin_frame_address(0);
    sem_post(&to->baton);
    while (sem_wait(&me->baton) != 0)
        ;
}

/* Is this in a function of another thread that has returned? */
static bool is_gone(const volatile void *address)
{
    size_t at = (size_t)((const volatile char *)address - stacks);
    if (at >= (size_t)MAX_THREADS * STACK)
        return false;
    const struct thread *t = &threads[at / STACK];
    return t != self && t < threads + thread_count && t->stack_end &&
           (const volatile char *)address < t->stack_end;
}

static void take_step(const char *what, const volatile void *address, const char *caller)
{
    if (++step > MAX_STEPS)
        schedule_fail("no end after %d steps", MAX_STEPS);
    note_change();
    for (int i = 0; i < thread_count; i++) {
        threads[i].behind &= ~(1u << self->number);
        threads[i].spun &= &threads[i] == self;
    }
    self->caller = caller;
    if (replaying)
        record_step(what, address);
}

static bool is_scheduled(void)
{
    return self && self->state != FINISHED;
}

/* ---- what the engine calls
 * ----------------------------------------------------------------------- */

void cfi_schedule_point(const volatile void *address);
void cfi_schedule_yield(void);
int cfi_schedule_futex_wait(cfi_u32 *word, uint32_t expected, int64_t deadline);
void cfi_schedule_futex_wake(cfi_u32 *word, int count);
int cfi_schedule_thread_start(pthread_t *thread, void *(*run)(void *), void *arg);
void cfi_schedule_thread_join(pthread_t thread);
int64_t cfi_schedule_now(void);

/* A preemption during which nobody came to the word changes nothing against one a step later: from
 * there on no further choices are made. */
static void offer_preemption(struct word *w, bool futex)
{
    int before = timeouts;
    struct thread *to = pick(true);
    if (to == self)
        return;
    self->preempted_at = w;
    self->met_touch = false;
    self->met_change = futex;
    hand_over(to);
    self->preempted_at = NULL;
    if (!self->met_touch && timeouts == before)
        redundant = true;
}

static bool is_alone(void)
{
    int alive = 0;
    for (int i = 0; i < thread_count; i++)
        alive += threads[i].state != FINISHED;
    return alive == 1;
}

static void point(const char *what, const volatile void *address, bool futex, const char *caller)
{
    take_step(what, address, caller);
    if (is_alone())
        return;
    struct word *w = word_at(address);
    note(w, futex); /* sleeping and waking do not commute, though they change no value */
    if (is_fought_for(w) || replaying)
        offer_preemption(w, futex);
    self->last = w;
    self->last_value = *w->address;
}

void cfi_schedule_point(const volatile void *address)
{
    if (!is_scheduled())
        return;
    point("touches", address, false, __builtin_return_address(0));
    if (arena_is_freed(address) || is_gone(address))
        schedule_fail("an atomic operation on freed memory, from %p", __builtin_return_address(0));
}

/* A turn of a spin loop.  The first is nothing but time that passes; a further one is pointless
 * before all the others have moved. */
void cfi_schedule_yield(void)
{
    if (!is_scheduled())
        return;
    take_step("spins", NULL, __builtin_return_address(0));
    if (self->spun) {
        self->behind = ready_threads() & ~(1u << self->number);
        hand_over(pick(false));
    }
    self->spun = true;
}

int cfi_schedule_futex_wait(cfi_u32 *word, uint32_t expected, int64_t deadline)
{
    if (!is_scheduled())
        return EAGAIN;
    point("sleeps on", word, true, __builtin_return_address(0));
    if (arena_is_freed(word))
        schedule_fail("a sleep on freed memory, from %p", __builtin_return_address(0));
    if (atomic_load(word) != expected)
        return EAGAIN;
    if (deadline <= now)
        return ETIMEDOUT;
    take_step("falls asleep on", word, __builtin_return_address(0));
    self->state = ASLEEP;
    self->word = word;
    self->deadline = deadline;
    self->timed_out = false;
    hand_over(pick(false));
    return self->timed_out ? ETIMEDOUT : 0;
}

/* Needs the address only: the word may be freed. */
void cfi_schedule_futex_wake(cfi_u32 *word, int count)
{
    if (!is_scheduled())
        return;
    point("wakes", word, true, __builtin_return_address(0));
    for (int i = 0; i < thread_count && count > 0; i++) {
        if (threads[i].state == ASLEEP && threads[i].word == word) {
            threads[i].state = READY;
            count--;
        }
    }
}

static void *thread_main(void *arg)
{
    self = arg;
    struct thread *me = self;
    sem_wait(&me->baton);
    me->run(me->arg);
    take_step("ends", NULL, NULL);
    me->state = FINISHED;
    bool last = true;
    for (int i = 0; i < thread_count; i++) {
        struct thread *t = &threads[i];
        if (t->state == JOINING && pthread_equal(t->awaited, me->id))
            t->state = READY;
        last = last && t->state == FINISHED;
    }
    if (last)
        sem_post(&all_finished);
    else
        sem_post(&pick(false)->baton);
    sem_wait(&me->baton); /* its exit handlers run when all are through, one thread at a time */
    return NULL;
}

int cfi_schedule_thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
    if (thread_count == MAX_THREADS)
        schedule_fail("more than %d threads", MAX_THREADS);
    struct thread *t = &threads[thread_count];
    *t = (struct thread){ .number = thread_count, .run = run, .arg = arg, .state = READY };
    sem_init(&t->baton, 0, 0);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstack(&attr, stacks + (size_t)thread_count * STACK, STACK);
    int error = pthread_create(&t->id, &attr, thread_main, t);
    pthread_attr_destroy(&attr);
    if (error != 0)
        schedule_fail("pthread_create: %s", strerror(error));
    *thread = t->id;
    thread_count++;
    return 0;
}

void cfi_schedule_thread_join(pthread_t thread)
{
    int i = 0;
    while (i < thread_count && !pthread_equal(threads[i].id, thread))
        i++;
    if (i == thread_count)
        schedule_fail("a join of a thread that was never started");
    if (threads[i].state == FINISHED)
        return;
    take_step("joins", NULL, __builtin_return_address(0));
    self->state = JOINING;
    self->awaited = thread;
    hand_over(pick(false));
}

int64_t cfi_schedule_now(void)
{
    return now;
}

/* ---- what clients call
 * ---------------------------------------------------------------------------- */

static void *run_spawned(void *fn)
{
    void (*run)(void);
    memcpy(&run, &fn, sizeof run);
    run();
    return NULL;
}

void spawn(void (*fn)(void))
{
    void *arg;
    pthread_t id;
    memcpy(&arg, &fn, sizeof arg);
    int number = thread_count;
    cfi_schedule_thread_start(&id, run_spawned, arg);
    threads[number].spawned = true;
}

void join_spawned(void)
{
    for (int i = 0; i < thread_count; i++) {
        if (threads[i].spawned)
            cfi_schedule_thread_join(threads[i].id);
    }
}

/* ---- the program's variables
 * ----------------------------------------------------------------------- */

extern char __data_start[], _end[], __start_kept[], __stop_kept[];
static KEPT char *pristine; /* a copy of them all */

static void save_variables(void)
{
    memcpy(pristine, __data_start, (size_t)(_end - __data_start));
}

static void restore_variables(void)
{
    memcpy(__data_start, pristine, (size_t)(__start_kept - __data_start));
    memcpy(__stop_kept, pristine + (__stop_kept - __data_start), (size_t)(_end - __stop_kept));
}

/* ---- exploring
 * ------------------------------------------------------------------------------------ */

static void run_once(const struct client *client)
{
    restore_variables();
    thread_count = step = detours = path_at = 0;
    redundant = false;
    now = start_of_time;
    alarm(SECONDS_PER_RUN);
    spawn(client->run);
    threads[0].spawned = false;
    sem_post(&threads[0].baton);
    while (sem_wait(&all_finished) != 0)
        ;
    for (int i = 0; i < thread_count; i++) {
        sem_post(&threads[i].baton);
        pthread_join(threads[i].id, NULL);
        sem_destroy(&threads[i].baton);
    }
}

/* All schedules with at most `bound` detours; false: the time was up before. */
static bool explore(const struct client *client, time_t end, long *runs)
{
    path_length = 0;
    cut = false;
    do {
        grown = false;
        arena_begin();
        run_once(client);
        const char *wrong = arena_end();
        if (wrong)
            schedule_fail("%s", wrong);
        ++*runs;
        if (grown)
            path_length = 0;
        if (time(NULL) >= end)
            return false;
    } while (grown || advance());
    return true;
}

/* Once, so that the variables and allocations that the engine makes once in a process are there. */
static void run_warm_up(void (*warm_up)(void))
{
    arena_begin();
    if (warm_up)
        run_once(&(struct client){ "warm_up", warm_up, 0 });
    arena_keep();
    save_variables();
}

/* As if no client had run before. */
static void start_afresh(const struct client *client)
{
    client_name = client->name;
    path_length = bound = 0;
    memset(words, 0, sizeof words);
}

static int seconds(void)
{
    const char *wanted = getenv("SCHEDULE_SECONDS");
    return wanted ? atoi(wanted) : SECONDS_PER_CLIENT;
}

static void explore_client(const struct client *client)
{
    long runs = 0;
    time_t end = time(NULL) + seconds();
    start_afresh(client);
    while (explore(client, end, &runs) && cut && bound < client->detours)
        bound++;
    bool in_time = time(NULL) < end;
    alarm(0);
    if (in_time && !cut)
        printf("%s: %ld schedules, which are all\n", client->name, runs);
    else
        printf("%s: %ld schedules, among them all with at most %d detours\n", client->name, runs,
               in_time ? bound : bound - 1);
    fflush(stdout);
}

static void replay_client(const struct client *client, const char *schedule)
{
    start_afresh(client);
    int at, option, length;
    for (; sscanf(schedule, "%d:%d%n", &at, &option, &length) == 2; schedule += length) {
        path[path_length++] = (struct choice){ at, option, 0 };
        length += schedule[length] == ',';
    }
    replaying = true;
    arena_begin();
    run_once(client);
    const char *wrong = arena_end();
    if (wrong)
        schedule_fail("%s", wrong);
    print_steps();
    printf("%s: nothing wrong under this schedule\n", client->name);
}

static bool is_wanted(const struct client *client, int argc, char **argv)
{
    bool wanted = argc < 2;
    for (int i = 1; i < argc; i++)
        wanted |= strcmp(argv[i], client->name) == 0;
    return wanted;
}

/* One CPU makes passing the baton cheap, and the engine then does not spin. */
static void prepare_process(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    catch_signals();
    sem_init(&all_finished, 0, 0);
    stacks = mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) {
        perror("the stacks");
        exit(1);
    }
    pristine = malloc((size_t)(_end - __data_start));
    save_variables();
}

int schedule_main(const struct client *clients, size_t count, void (*warm_up)(void), int argc,
                  char **argv)
{
    const char *schedule = getenv("SCHEDULE");
    int done = 0;
    prepare_process();
    run_warm_up(warm_up);
    for (size_t i = 0; i < count; i++) {
        if (!is_wanted(&clients[i], argc, argv))
            continue;
        if (schedule)
            replay_client(&clients[i], schedule);
        else
            explore_client(&clients[i]);
        done++;
    }
    return done ? 0 : 1;
}
