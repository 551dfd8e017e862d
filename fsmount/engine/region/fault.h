/* fault.h - the details of an error, kept for the calling thread. */
#ifndef FSM_FAULT_H
#define FSM_FAULT_H

#include "region/layout.h"

extern _Thread_local fsm_fault fsm_fault_here;

/* Notes the text in the fault and returns the code. */
int fail_with(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Notes what is damaged and where. The next process that takes the lock recovers the region. Returns -EUCLEAN. */
int corrupt(fsm_region *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define CUT_SHORT "the region has no valid header: was its file truncated?"
/* -ENODEV; -EUCLEAN if the file was truncated and the mapping reads as zeros. */
int gone(fsm_region *r);

#endif
