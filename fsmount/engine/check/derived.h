/* derived.h - comparing derived fields with their recomputed values. */
#ifndef FSM_DERIVED_H
#define FSM_DERIVED_H

#include "check/checker.h"

int check_derived(checker *ck); /* -ENOMEM */

#endif
