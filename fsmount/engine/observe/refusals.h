/* refusals.h - recording refusals; see refusals.c. */
#ifndef FSM_REFUSALS_H
#define FSM_REFUSALS_H

#include "counters/counter.h"

/* The time after which a charger takes the lock again to record a refusal, in ns. */
#ifdef FSM_FAULT_POINTS
extern int64_t record_every; /* set by a test, so that its outcome does not depend on time */
#define RECORD_EVERY record_every
#else
#define RECORD_EVERY 10000000
#endif

bool is_valid_refusal(const fsm_region *r, const fsm_refusal *refusal);
/* Records the refusal in the fault. refusal: its amount, charged and process; before: the charger's last record. */
void record_refusal(fsm_region *r, const ancestry *p, fsm_refusal *refusal, fsm_recorded *before);
/*
 * Counts one more refusal within RECORD_EVERY, as in the fault. True: it is of another amount or limit, and shows at
 * once. Needs no lock.
 */
bool refused_again(fsm_region *r, fsm_recorded *last, int64_t amount);

#endif
