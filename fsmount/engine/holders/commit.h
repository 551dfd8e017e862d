/* commit.h - changing the charges of cells, in one step. */
#ifndef FSM_COMMIT_H
#define FSM_COMMIT_H

#include "counters/counter.h"

/*
 * Adds amounts to the usage of closed cells of one holder, all in one step. The same step grants the waiting request
 * `waiter`, unless it is NONE. The cells are of different resources. The caller has found room for positive amounts,
 * and no cell has used less than a negative amount takes away.
 */
int commit_changes(fsm_region *r, cell *const *cells, const int64_t *amounts, uint32_t n, uint32_t waiter);

/* Plans change i of a step: the final usage of the cell, and the final charges of its group itself. */
void plan_change(fsm_region *r, uint32_t i, const cell *cl, int64_t used, int64_t common);
/* Carries out n planned changes, and grants `waiter`; without the journal if that takes only one store. */
void apply_changes(fsm_region *r, cell *const *cells, uint32_t n, uint32_t waiter, bool in_one_store);

/* From the cell to the group itself; a negative amount: from the group to the cell. -ERANGE (fault.held). */
int move_held(fsm_region *r, const ancestry *p, cell *cl, int64_t amount);

#endif
