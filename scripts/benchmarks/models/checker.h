/* checker.h - plays a model, measures what it gets wrong, and holds it to what it promises. */
#ifndef CHECKER_H
#define CHECKER_H

#include "model.h"

/* What was seen to be wrong; the largest of its kind, or how often. */
typedef struct errors {
    int64_t overshoot;      /* units charged above a limit */
    int64_t charges;        /* tried */
    int64_t refusals;       /* of them refused, */
    int64_t false_refusals; /* though they would have fitted */
    int64_t usage;          /* units that a read usage was off */
    int64_t early, late;    /* units before or after a threshold was passed that a charge found it passed */
    int64_t left;           /* units that are not accounted for after all processes have ended */
} errors;

/* One operation at a time, by all processes in turn, at random: the truth is known at each moment. */
errors check_in_turn(const model *m, uint64_t seed);

/* All at once, for so long: the truth is known within bounds.  threads: instead of processes. */
errors check_overlapping(const model *m, uint64_t seed, int64_t milliseconds, bool threads);

/* Writes a line to stderr for each promise that is broken, and returns how many. */
int broken_promises(const char *when, unsigned promises, const errors *e);

#endif
