/* events.h - marks, watches and the event notifier; see events.c. */
#ifndef FSM_EVENTS_H
#define FSM_EVENTS_H

#include "counters/counter.h"

/* ---- marks ---- */

/* Finds the marks next to the usage, from the sides on which the usage was last seen. */
void find_marks(fsm_region *r, counter *c);
/* After the usage of the path's counters has changed: counts the crossings, and notifies. */
void cross_marks(fsm_region *r, const ancestry *p);
/* As cross_marks(), for the first counter of the path, in a recovery: always notifies. */
void recheck_marks(fsm_region *r, const ancestry *p);

static inline bool is_above_soft_limit(const counter *c)
{
    return c->soft_crossings & 1;
}

/* No fast path can leave the interval between the marks: it only turns stock into usage and back. */
static inline bool is_between_marks(const counter *c)
{
    return c->reserved <= c->high && (int64_t)((uint64_t)c->reserved - c->stock_cap) > c->low;
}

/* ---- watches ---- */

bool is_valid_watch(const watch *w);
void link_watch(fsm_region *r, watch *w, counter *c);
int end_watches_of(fsm_region *r, counter *c);
int end_watches(fsm_region *r);

/* ---- the event notifier; needs no lock ---- */

/* An event was counted at a level of the path: notifies the listener of that level and of all above. */
void notify_listener(fsm_region *r, const ancestry *p, uint32_t level);
void notify(fsm_region *r); /* wakes the listener */

#endif
