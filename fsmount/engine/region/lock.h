/*
 * lock.h - the one lock of a region.
 *
 * Functions of the engine expect that their caller has the lock, unless their comment says otherwise.
 */
#ifndef FSM_LOCK_H
#define FSM_LOCK_H

#include "region/layout.h"

/* -ETIMEDOUT: another thread kept the lock (fault.pid); -EUCLEAN: the region is damaged beyond recovery. */
int lock(fsm_region *r);
void unlock(fsm_region *r);

#endif
