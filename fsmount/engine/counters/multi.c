/*
 * whole.c - several resources at once: all of a request or nothing of it.
 *
 * Under one hold of the lock the cells are closed, room is found for each amount,
 * and what is used is changed in all of them: by one store if it is one cell, else
 * by one step of the journal, so that nobody finds a part of it done, whoever dies.
 * What is found for one resource is not lost while it is looked for in the next:
 * their counters are different all the way up.
 */
#include "internal.h"

#include <errno.h>

static void describe(fsm_region *r, uint32_t i, const cell *own, int64_t used, int64_t common)
{
    r->header->journal.change[i] = (change){ .cell = cell_index(r, own), .used = used, .common = common };
}

/* What was described becomes so; without the journal where that takes one store alone. */
static void carry_out(fsm_region *r, cell *const *cells, uint32_t n, uint32_t index, bool in_one_store)
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
    ancestry p; /* one at a time: they are large */
    for (uint32_t i = 0; i < n; i++) {
        int error = path_of(r, cells[i]->counter, &p);
        if (error)
            return error;
        describe(r, i, cells[i], used_of(cells[i], state_now(cells[i])) + amounts[i], p.at[0]->common);
    }
    carry_out(r, cells, n, index, n == 1 && index == NONE);
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

/* -EINVAL: they are not of one holder and of different resources. */
static int check_chargers(fsm_charger *const *chargers, size_t n)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        if (!fsm_charger_bound(chargers[i]))
            return -ENOTCONN;
        uint32_t bit = 1u << chargers[i]->counter % chargers[i]->region->geometry.resources;
        if (chargers[i]->region != chargers[0]->region || chargers[i]->holder != chargers[0]->holder || (seen & bit))
            return -EINVAL;
        seen |= bit;
    }
    return n > 0 ? 0 : -EINVAL;
}

static int not_held(uint32_t which, int64_t held)
{
    fsm_fault_here.which = which;
    fsm_fault_here.held = held;
    return -ERANGE;
}

/* Closes the cells, and looks whether as much is held as is to be given back. */
static int close_cells(fsm_charger *const *chargers, cell *const *cells, const int64_t *amounts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t used = close_cell(chargers[i]->region, chargers[i]->path, cells[i]);
        if (amounts[i] < 0 && used + amounts[i] < 0)
            return not_held(i, used);
    }
    return 0;
}

static int find_rooms(fsm_charger *const *chargers, const int64_t *amounts, uint32_t n)
{
    fsm_region *r = chargers[0]->region;
    bool exceeded;
    uint64_t round = r->header->round;
    for (uint32_t i = 0; i < n; i++) {
        int error = amounts[i] > 0 ? find_room(r, chargers[i]->path, amounts[i], false, &exceeded) : 0;
        if (error == -ENOMEM)
            record_refused(chargers[i], amounts[i], false);
        if (error) {
            fsm_fault_here.which = i;
            return error;
        }
        if (round != r->header->round) { /* who waits may have been given what was found before */
            round = r->header->round;
            i = UINT32_MAX;
        }
    }
    return 0;
}

int enter(fsm_charger *const *chargers, cell **cells, size_t n)
{
    int error = check_chargers(chargers, n);
    if (error)
        return error;
    fsm_region *r = chargers[0]->region;
    error = lock(r);
    if (error)
        return error;
    for (size_t i = 0; i < n && !error; i++)
        error = own_cell(chargers[i], &cells[i]);
    if (error)
        unlock(r);
    return error;
}

int fsm_change(fsm_charger *const *chargers, const int64_t *amounts, size_t n)
{
    cell *cells[FSM_RESOURCES_MAX];
    int error = enter(chargers, cells, n);
    if (error)
        return error;
    fsm_region *r = chargers[0]->region;
    error = close_cells(chargers, cells, amounts, (uint32_t)n);
    if (!error)
        error = find_rooms(chargers, amounts, (uint32_t)n);
    if (!error)
        error = commit_changes(r, cells, amounts, (uint32_t)n, NONE);
    for (size_t i = 0; i < n && !error; i++)
        if (amounts[i] < 0)
            serve_waiting(r, chargers[i]->path); /* when all of it is done */
    unlock(r);
    return error;
}

int fsm_move(fsm_charger *const *chargers, const int64_t *amounts, size_t n)
{
    cell *cells[FSM_RESOURCES_MAX];
    int error = enter(chargers, cells, n);
    if (error)
        return error;
    fsm_region *r = chargers[0]->region;
    for (uint32_t i = 0; i < n && !error; i++) {
        int64_t used = close_cell(r, chargers[i]->path, cells[i]), common = chargers[i]->path->at[0]->common;
        if (amounts[i] >= 0 ? used < amounts[i] : common + amounts[i] < 0)
            error = not_held(i, amounts[i] >= 0 ? used : common);
        else
            describe(r, i, cells[i], used - amounts[i], common + amounts[i]);
    }
    if (!error)
        carry_out(r, cells, (uint32_t)n, NONE, false);
    unlock(r);
    return error;
}
