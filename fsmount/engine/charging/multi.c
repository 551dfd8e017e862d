/*
 * multi.c - requests for several resources: all of it or nothing.
 *
 * Under one hold of the lock, all cells are closed, room is found for each amount, and then all cells change in one
 * step of the journal (commit.c). So no process finds half of a request done, whichever process dies. Room found for
 * one resource cannot get lost while the next one is searched: their counters differ at every level.
 */
#include "charging/charge.h"
#include "counters/counter.h"
#include "holders/charger.h"
#include "holders/commit.h"
#include "holders/queue.h"
#include "region/fault.h"
#include "region/lock.h"

#include <errno.h>

static int not_held(uint32_t which, int64_t held)
{
    fsm_fault_here.which = which;
    fsm_fault_here.held = held;
    return -ERANGE;
}

/* Closes the cells, and checks that the holder holds what it returns. */
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
        if (round != r->header->round) { /* start over: the room found before may have gone to a waiting request */
            round = r->header->round;
            i = UINT32_MAX;
        }
    }
    return 0;
}

int fsm_change(fsm_charger *const *chargers, const int64_t *amounts, size_t n)
{
    cell *cells[FSM_RESOURCES_MAX];
    int error = lock_chargers(chargers, cells, n);
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
            serve_waiting(r, chargers[i]->path); /* after the whole change */
    unlock(r);
    return error;
}

int fsm_move(fsm_charger *const *chargers, const int64_t *amounts, size_t n)
{
    cell *cells[FSM_RESOURCES_MAX];
    int error = lock_chargers(chargers, cells, n);
    if (error)
        return error;
    fsm_region *r = chargers[0]->region;
    for (uint32_t i = 0; i < n && !error; i++) {
        int64_t used = close_cell(r, chargers[i]->path, cells[i]), common = chargers[i]->path->at[0]->common;
        if (amounts[i] >= 0 ? used < amounts[i] : common + amounts[i] < 0)
            error = not_held(i, amounts[i] >= 0 ? used : common);
        else
            plan_change(r, i, cells[i], used - amounts[i], common + amounts[i]);
    }
    if (!error)
        apply_changes(r, cells, (uint32_t)n, NONE, false);
    unlock(r);
    return error;
}
