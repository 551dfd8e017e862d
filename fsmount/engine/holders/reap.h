/* reap.h - releasing the charges of dead processes. */
#ifndef FSM_REAP_H
#define FSM_REAP_H

#include "region/layout.h"

/* Ends all dead holders. self: a holder that is alive for certain, or NONE. */
int reap(fsm_region *r, uint32_t self, uint32_t *ended);
/* Ends the dead holders of one counter. -EBUSY: a holder of it lives. */
int reap_counter(fsm_region *r, const counter *c);

/* Before a refusal the engine looks for the dead, but spends only a bounded share of the time on it. */
bool reap_is_due(const fsm_region *r, int64_t now);     /* needs no lock; now: coarse_ns() */
bool reap_before_refusal(fsm_region *r, uint32_t self); /* whether the charges of a dead holder were released */

#endif
