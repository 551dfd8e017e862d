/* checker.h - plays a model, measures its errors, and compares them with its promises. */
#ifndef CHECKER_H
#define CHECKER_H

#include "model.h"

/* The errors of a model: the largest of each kind, or the number of them. */
typedef struct errors {
    int64_t overshoot;      /* units charged above a limit */
    int64_t charges;        /* tried */
    int64_t refusals;       /* of them refused, */
    int64_t false_refusals; /* though they would have fitted */
    int64_t usage;          /* largest error of a read usage, in units */
    int64_t early, late;    /* distance in units between a threshold and the usage at which a charge reported it */
    int64_t left;           /* units that remain charged after all processes have ended */
} errors;

/* One random operation at a time: the correct usage is always known. */
errors check_in_turn(const model *m, uint64_t seed);

/* All processes (or threads) at once: the correct usage is known within bounds. */
errors check_overlapping(const model *m, uint64_t seed, int64_t milliseconds, bool threads);

/* Writes a line to stderr for each broken promise, and returns their number. */
int broken_promises(const char *when, unsigned promises, const errors *e);

#endif
