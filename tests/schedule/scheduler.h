/* SPDX-License-Identifier: MIT */
/* Runs a small program of a few threads under every interleaving, up to a number of detours.
 *
 * The engine is built with -DCFI_SCHEDULE, so each of its atomic operations, futex calls, thread
 * starts and joins comes here first.  One thread runs at a time; at each of these points the
 * scheduler may hand over to another.  Left alone a thread goes on until it sleeps, ends or spins,
 * and then the next that is ready does; each departure from that is a detour (a preemption,
 * another thread than the next, a time-out that comes before its time).  A client is run again
 * and again, depth first through all choices: without a detour, with one, two ... (delay-bounded
 * scheduling: Emmi, Qadeer and Rakamaric, POPL 2011; the idea of bounding is CHESS's).  Nearly all
 * races show with two.
 *
 * Found are: a CHECK that does not hold, all threads asleep (deadlock), no end (livelock), an
 * atomic operation on freed memory or on the dead stack of another thread, a write to freed
 * memory, a double free, a leak, a crash.  The report gives the schedule; `SCHEDULE=... program
 * client` runs just that one again and prints every step.  SCHEDULE_SECONDS=... explores longer.
 *
 * What is not found: races of plain memory accesses (ThreadSanitizer does that), and what needs a
 * machine that reorders (tests/spin models the one fence that matters). */
#ifndef SCHEDULER_H
#define SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>

struct client {
    const char *name;
    void (*run)(void); /* thread 0; must leave nothing allocated and no thread running */
    int detours;       /* explore up to so many, as far as the time allows */
};

/* For clients: start a further thread; wait for all that were started so. */
void spawn(void (*fn)(void));
void join_spawned(void);

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : schedule_fail("%s:%d: CHECK(%s)", __FILE__, __LINE__, #condition))
void schedule_fail(const char *format, ...)
    __attribute__((__noreturn__, __format__(__printf__, 1, 2)));

/* The whole of a main: explores the clients named in argv, or all.  Returns the exit status.
 * `warm_up` runs before, for what the engine does once in a process; it may be NULL. */
int schedule_main(const struct client *clients, size_t count, void (*warm_up)(void), int argc,
                  char **argv);

/* Variables of the scheduler itself.  All others of the program, the engine's among them, start
 * each run with the same values. */
#define KEPT __attribute__((__section__("kept")))

/* ---- arena.c: the memory of the clients and the engine ----------------------------------------
 */

/* From now on malloc and its kin take from an empty arena at a fixed address. */
void arena_begin(void);
/* What is allocated now stays for the whole process. */
void arena_keep(void);
/* Back to the ordinary malloc.  NULL, or what is wrong: a leak, a write to freed memory. */
const char *arena_end(void);
/* Is this inside a block that was freed? */
bool arena_is_freed(const volatile void *address);

#endif
