/* charge.h - finding room for a charge. */
#ifndef FSM_CHARGE_H
#define FSM_CHARGE_H

#include "counters/counter.h"

/*
 * Finds room for amount at every level, draining where it must. -ENOMEM: refused, and noted in the fault. With nofail
 * it counts the refusals and goes on; *exceeded says whether there was one.
 */
int find_room(fsm_region *r, const ancestry *p, int64_t amount, bool nofail, bool *exceeded);
/* Records the refusal in the fault. charged: charge_nofail charged all the same. */
void record_refused(fsm_charger *charger, int64_t amount, bool charged);

#endif
