/* region.h - where the records of a region lie, and the memory behind them. */
#ifndef FSM_REGION_H
#define FSM_REGION_H

#include "region/layout.h"

/* Makes the pages of a record real. -ENOSPC: there is no memory for them; -EUCLEAN: the file ends before them. */
int populate(fsm_region *r, const void *start, size_t length);
/* As populate(), for a record that follows a record whose pages are real already. */
int populate_next(fsm_region *r, const void *start, size_t length);
/* Sets the places of all record arrays from the geometry; returns the size of the region. */
size_t place(fsm_region *r, char *base);

#endif
