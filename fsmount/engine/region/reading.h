/*
 * reading.h - reading without the lock.
 *
 * A process that is stopped while it has the lock must not keep others from reading. So groups, their names and
 * attributes, and the plain values of counters are read without the lock. header.changes is a sequence count: it is
 * odd while a process changes groups, and stays odd if that process dies. A result is valid if the count was even
 * before the reading and is the same after it. Otherwise the reading is repeated, at last under the lock, which
 * recovers what a dead process left half done:
 *
 *     int error = 0;
 *     reading at = { 0 };
 *     while (reads(r, &at, &error))
 *         error = ...;
 *
 * The loop may see a record that is half changed, or that belongs to another object by now. So it reads each word
 * once, with READ_ONCE(), and checks the value before use; damage that it sees counts only under the lock (DAMAGED).
 * These reads race with stores of other processes on purpose; UNLOCKED tells ThreadSanitizer.
 */
#ifndef FSM_READING_H
#define FSM_READING_H

#include "region/fault.h"
#include "region/lock.h"

#include <errno.h>

typedef struct reading {
    uint64_t changes;
    uint32_t tries;
    bool locked;
} reading;

#define READ_TRIES 8u

#define DAMAGED(r, at, ...) ((at)->locked ? corrupt((r), __VA_ARGS__) : -EUCLEAN)

UNLOCKED static inline int begin_reading(fsm_region *r, reading *at)
{
    at->changes = __atomic_load_n(&r->header->changes, __ATOMIC_ACQUIRE); /* pairs with end_change() */
    if (at->tries++ < READ_TRIES && at->changes % 2 == 0 && !READ_ONCE(r->header->broken))
        return 0;
    at->locked = true;
    return lock(r);
}

UNLOCKED static inline bool end_reading(fsm_region *r, reading *at, int error)
{
    if (at->locked) {
        unlock(r);
        return true;
    }
    if (error == -EUCLEAN) {
        at->tries = READ_TRIES; /* a walk through damaged links is long: the next try is the last */
        return false;
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* pairs with begin_change() */
    return READ_ONCE(r->header->changes) == at->changes;
}

/* Whether to read once more. If not, *error is the result of the last reading, or of the lock. */
UNLOCKED static inline bool reads(fsm_region *r, reading *at, int *error)
{
    if (at->tries > 0 && end_reading(r, at, *error))
        return false;
    *error = begin_reading(r, at);
    return *error == 0;
}

UNLOCKED static inline void begin_change(header *h)
{
    WRITE_ONCE(h->changes, h->changes | 1);
    __atomic_thread_fence(
        __ATOMIC_RELEASE); /* a reader of any later store sees the odd count; pairs with end_reading() */
}

static inline void end_change(header *h)
{
    __atomic_store_n(&h->changes, h->changes + 1, __ATOMIC_RELEASE); /* pairs with begin_reading() */
}

#endif
