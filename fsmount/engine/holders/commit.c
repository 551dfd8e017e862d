/*
 * commit.c - changing the charges of cells, in one step.
 *
 * The amount that one cell has used changes by one store. Several cells, or a cell and its group, change by a step of
 * the journal. If a process dies within the step, recovery repeats it. So no process ever sees half of a change.
 */
#include "holders/commit.h"
#include "counters/counter.h"
#include "observe/events.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/journal.h"

#include <errno.h>

void plan_change(fsm_region *r, uint32_t i, const cell *cl, int64_t used, int64_t common)
{
    r->header->journal.change[i] = (change){ .cell = cell_index(r, cl), .used = used, .common = common };
}

void apply_changes(fsm_region *r, cell *const *cells, uint32_t n, uint32_t index, bool in_one_store)
{
    waiter *w = waiter_at(r, index);
    journal *j = &r->header->journal;
    j->changes = n;
    j->waiter = index;
    FAULT_POINT(journal_written);
    if (!in_one_store)
        journal_commit(j, JOURNAL_CHANGE);
    FAULT_POINT(journal_committed);
    for (uint32_t i = 0; i < n; i++) {
        set_used(cells[i], j->change[i].used);
        FAULT_POINT(used_set);
        counter *c = counter_at(r, cells[i]->counter);
        if (c)
            c->common = j->change[i].common;
        FAULT_POINT(common_set);
    }
    if (w) {
        __atomic_store_n(&w->answer, GRANTED, __ATOMIC_RELEASE);
        FAULT_POINT(granted);
    }
    journal_commit(j, JOURNAL_EMPTY);
    FAULT_POINT(journal_emptied);
}

int commit_changes(fsm_region *r, cell *const *cells, const int64_t *amounts, uint32_t n, uint32_t index)
{
    ancestry p; /* one at a time: a path is large */
    for (uint32_t i = 0; i < n; i++) {
        int error = path_of(r, cells[i]->counter, &p);
        if (error)
            return error;
        plan_change(r, i, cells[i], used_of(cells[i], state_now(cells[i])) + amounts[i], p.at[0]->common);
    }
    apply_changes(r, cells, n, index, n == 1 && index == NONE);
    for (uint32_t i = 0; i < n; i++) {
        int error = path_of(r, cells[i]->counter, &p);
        if (error)
            return error;
        bool marked = reserve(&p, amounts[i]);
        FAULT_POINT(reserved);
        if (amounts[i] < 0)
            leave_global(r, &p, -amounts[i]);
        if (marked)
            cross_marks(r, &p);
    }
    return 0;
}

int move_held(fsm_region *r, const ancestry *p, cell *cl, int64_t amount)
{
    int64_t used = close_cell(r, p, cl);
    counter *c = p->at[0];
    int64_t there = amount >= 0 ? used : c->common;
    if (there < (amount >= 0 ? amount : -amount)) {
        fsm_fault_here.held = there;
        return -ERANGE;
    }
    journal *j = &r->header->journal;
    j->index = cell_index(r, cl);
    j->counter = counter_index(r, c);
    j->used = used - amount;
    j->common = c->common + amount;
    FAULT_POINT(journal_written);
    journal_commit(j, JOURNAL_MOVE);
    FAULT_POINT(journal_committed);
    set_used(cl, j->used);
    FAULT_POINT(used_set);
    c->common = j->common;
    FAULT_POINT(common_set);
    journal_commit(j, JOURNAL_EMPTY);
    FAULT_POINT(journal_emptied);
    return 0;
}
