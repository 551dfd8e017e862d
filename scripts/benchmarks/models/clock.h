/* clock.h - the cost of a model's operations. */
#ifndef CLOCK_H
#define CLOCK_H

#include "model.h"

typedef struct cost {
    double each;    /* ns of a process's own time, the mean of the processes */
    double all;     /* ns from the first beginning to the last end, by the charges of all */
    double refused; /* the part of all charges that was */
} cost;

/*
 * Each process repeats a charge and its uncharge: `depth` counters, all shared except the leaf.  The usage without
 * these pairs is `headroom` units below the root's limit, or far from it with UNLIMITED.  A refused charge counts as a
 * pair: with a headroom of 0 all are refused.
 */
cost time_pairs(const model *m, int depth, int processes, int64_t headroom, int64_t milliseconds);

/*
 * A charge at the root's limit: a refused process uncharges one unit, so the counter refuses half of the charges.
 */
cost time_limit(const model *m, int depth, int processes, int64_t milliseconds);

/*
 * A neighbour's charge and uncharge in its own subtree, while others work at the limit of another subtree of the same
 * tree.  With `apart` the others use another tree: they take the same share of the machine and share no counter.
 * The neighbour charges `ahead` units before it uncharges them: many units need a refill of the stock.  It has a CPU to
 * itself, and the cost is its own.
 */
enum { AHEAD_MAX = 256 };
cost time_neighbour(const model *m, int depth, int processes, int ahead, bool apart, int64_t milliseconds);

#endif
