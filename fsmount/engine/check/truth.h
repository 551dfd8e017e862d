/* truth.h - checking what everything is derived from. */
#ifndef FSM_TRUTH_H
#define FSM_TRUTH_H

#include "check/checker.h"

void check_truth(checker *ck);

#endif
