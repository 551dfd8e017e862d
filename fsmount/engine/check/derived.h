/* derived.h - comparing what is derived with what was recomputed. */
#ifndef FSM_DERIVED_H
#define FSM_DERIVED_H

#include "check/checker.h"

int check_derived(checker *ck); /* -ENOMEM */

#endif
