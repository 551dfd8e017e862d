/* recover.h - recomputing everything that is derived. */
#ifndef FSM_RECOVER_H
#define FSM_RECOVER_H

#include "region/layout.h"

/* Recomputes the derived fields. Touches nothing but this region, so it works on a copy. */
int rebuild(fsm_region *r);
/* As rebuild(), for a live region: first finishes the change that a dead process left half done. */
int recover(fsm_region *r);

#endif
