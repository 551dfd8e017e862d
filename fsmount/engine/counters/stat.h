/* stat.h - the values of R.stat, in the order in which they become known. */
#ifndef FSM_STAT_H
#define FSM_STAT_H

#include "region/layout.h"

/* The values of one counter without a sum. */
fsm_stat begin_stat(const counter *c);
/* The values that follow from s->usage, which the caller has summed and noted. */
void finish_stat(const counter *c, fsm_stat *s);
/* Then, for each ancestor on the way up: its limit, its margin, and whether it is in global mode. */
void stat_below(fsm_stat *s, int64_t limit, int64_t margin, bool global);

#endif
