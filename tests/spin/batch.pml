/* SPDX-License-Identifier: MIT */
/* A worker's batch of tasks and those who steal from it; mirrors src/threads/batch.h.
 *
 * One word, {limit, head}, over a ring of slots.  The owner claims at the head, a thief reads the
 * slots of the later half and then lowers the limit, each by one compare-and-swap.  The owner
 * refills an empty batch at positions beyond all former ones: the slots first, then the word by a
 * plain store.
 *
 * Held: each task is claimed exactly once; a thief whose swap succeeds has read the slots of that
 * word; the plain store overwrites nobody's swap. Broken on purpose, each of which must be found:
 * -DREUSE (refills begin at position 0 again, so a stale word can come back), -DWORD_FIRST (the
 * word is out before the slots), -DSTEAL_LATE (the thief reads the slots after its swap, when the
 * owner may have filled them anew). */

#define RING 2
#define FILLS 3
#define TASKS (RING * FILLS)
#define HEAD(w) ((w) & 255)
#define LIMIT(w) ((w) >> 8)
#define WORD(limit, head) ((limit) << 8 | (head))

int word;
byte slots[RING];
byte claimed[TASKS + 1]; /* task numbers start at 1 */
bool ended;

inline claim(task)
{
    d_step { assert(task != 0); claimed[task]++; assert(claimed[task] == 1); task = 0 }
}

inline cas(old, new)
{
    atomic { ok = (word == (old)); if :: ok -> word = new :: else fi }
}

proctype Owner()
{
    int w;
    byte next, task, fill, i;
    bool ok;
    do
    :: fill < FILLS ->
#ifdef REUSE
        next = 0;
#endif
#ifdef WORD_FIRST
        word = WORD(next + RING, next);
#endif
        for (i : 0 .. RING - 1) {
            slots[(next + i) % RING] = fill * RING + i + 1
        };
#ifndef WORD_FIRST
        atomic { assert(HEAD(word) == LIMIT(word)); word = WORD(next + RING, next) };
#endif
        next = next + RING;
        fill++;
        do
        :: w = word;
            if
            :: HEAD(w) == LIMIT(w) -> break
            :: else ->
                task = slots[HEAD(w) % RING];
                cas(w, w + 1);
                if :: ok -> claim(task) :: else fi
            fi
        od;
        atomic { w = 0; task = 0; i = 0; ok = false }
    :: else -> break
    od;
    ended = true
}

proctype Thief()
{
    int w;
    byte count, i, task[RING];
    bool ok;
    do
    :: !ended ->
        w = word;
        count = (LIMIT(w) - HEAD(w) + 1) / 2;
        if
        :: count == 0 -> skip
        :: else ->
#ifdef STEAL_LATE
            cas(w, w - (count << 8));
#endif
            for (i : 1 .. count) {
                task[i - 1] = slots[(LIMIT(w) - count + i - 1) % RING]
            };
#ifndef STEAL_LATE
            cas(w, w - (count << 8));
#endif
            for (i : 1 .. count) {
                if :: ok -> claim(task[i - 1]) :: else -> task[i - 1] = 0 fi
            }
        fi;
        atomic { w = 0; count = 0; i = 0; ok = false }
    :: ended -> break
    od
}

init
{
    byte i;
    atomic { run Owner(); run Thief(); run Thief() };
    timeout;
    for (i : 1 .. TASKS) { assert(claimed[i] == 1) }
}
