/* journal.h - a step of several stores: its final values are written first, and recovery repeats them. */
#ifndef FSM_JOURNAL_H
#define FSM_JOURNAL_H

#include "region/layout.h"

static inline bool journal_pending(const header *h)
{
    return h->journal.step != JOURNAL_EMPTY;
}

static inline void journal_commit(journal *j, enum journal_step step)
{
    __atomic_store_n(&j->step, (uint32_t)step, __ATOMIC_RELEASE);
}

#endif
