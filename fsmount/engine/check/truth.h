/* truth.h - checking the truth, from which everything else is derived. */
#ifndef FSM_TRUTH_H
#define FSM_TRUTH_H

#include "check/checker.h"

void check_truth(checker *ck);

#endif
