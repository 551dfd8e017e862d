/* clock.h - what a model's operations cost. */
#ifndef CLOCK_H
#define CLOCK_H

#include "model.h"

typedef struct cost {
    double each;    /* ns of a process's own time, the mean of the processes */
    double all;     /* ns from the first beginning to the last end, by the charges of all */
    double refused; /* the part of all charges that was */
} cost;

/*
 * A pair of charge and uncharge by each of the processes: `depth` counters, all but the leaf in common.  What is held
 * beside these pairs is `headroom` units below the root's limit; UNLIMITED: far from any.  A charge that is refused, as
 * all are at 0, is a pair by itself.
 */
cost time_pairs(const model *m, int depth, int processes, int64_t headroom, int64_t milliseconds);

/*
 * A charge, where all processes live on the last units of the root's limit: who is refused gives one unit back, so half
 * are refused.
 */
cost time_limit(const model *m, int depth, int processes, int64_t milliseconds);

/*
 * A charge and its uncharge in a subtree of its own, while others live at the limit of another subtree: in the same
 * tree, or `apart` in another one, which takes as much of the machine and has nothing to do with it.  `ahead` units are
 * charged before they are uncharged: with many, stock must be refilled.  The neighbour has a CPU to itself, and the
 * cost is its own.
 */
enum { AHEAD_MAX = 256 };
cost time_neighbour(const model *m, int depth, int processes, int ahead, bool apart, int64_t milliseconds);

#endif
