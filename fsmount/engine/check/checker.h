/* checker.h - a region under check: the copy that was taken, and what it should be. */
#ifndef FSM_CHECKER_H
#define FSM_CHECKER_H

#include "region/layout.h"

#include <stdio.h>

typedef struct checker {
    fsm_region found; /* the copy that was taken */
    fsm_region right; /* the same with everything derived recomputed */
    uint32_t *bucket; /* of each group: the bucket of its name */
    FILE *report;
    int64_t findings;
} checker;

static inline bool is_live(const group *g)
{
    return state_of(g->stamp) == LIVE;
}

static inline bool is_owned(const cell *cl)
{
    return cl->owner != 0 && cl->owner != QUARANTINED;
}

#endif
