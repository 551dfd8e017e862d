/* holder.c - holders and their cells: finding, linking and ending them. */
#include "holders/holder.h"
#include "counters/counter.h"
#include "holders/commit.h"
#include "holders/queue.h"
#include "observe/events.h"
#include "region/fault.h"
#include "region/fault_point.h"

#include <errno.h>

int find_holder(fsm_region *r, fsm_id id, holder **out)
{
    holder *h = holder_at(r, id_index(id));
    if (!h)
        return gone(r);
    if (h >= past_holders(r, pool_of(r, id_index(id))) || h->stamp != make_stamp((uint32_t)(id >> 32), LIVE))
        return gone(r);
    *out = h;
    return 0;
}

/* ---- cells ----------------------------------------------------------------------- */

void link_cell(fsm_region *r, cell *cl, counter *c, holder *h)
{
    uint32_t index = cell_index(r, cl);
    cell *next = cell_at(r, c->cells_head);
    cl->counter_prev = NONE;
    cl->counter_next = c->cells_head;
    if (next)
        next->counter_prev = index;
    c->cells_head = index;
    c->cells++;
    FAULT_POINT(among_counters_cells);
    next = cell_at(r, h->cells_head);
    cl->holder_prev = NONE;
    cl->holder_next = h->cells_head;
    if (next)
        next->holder_prev = index;
    h->cells_head = index;
    h->cells++;
    FAULT_POINT(among_holders_cells);
    cl->open_next = cl->open_prev = NONE;
}

static void unlink_cell(fsm_region *r, cell *cl, counter *c, holder *h)
{
    cell *next = cell_at(r, cl->counter_next);
    cell *previous = cell_at(r, cl->counter_prev);
    if (next)
        next->counter_prev = cl->counter_prev;
    if (previous)
        previous->counter_next = cl->counter_next;
    else
        c->cells_head = cl->counter_next;
    c->cells--;
    FAULT_POINT(out_of_counters_cells);
    next = cell_at(r, cl->holder_next);
    previous = cell_at(r, cl->holder_prev);
    if (next)
        next->holder_prev = cl->holder_prev;
    if (previous)
        previous->holder_next = cl->holder_next;
    else
        h->cells_head = cl->holder_next;
    h->cells--;
    FAULT_POINT(out_of_holders_cells);
}

cell *find_cell(fsm_region *r, const holder *h, uint32_t counter_number)
{
    counter *c = counter_at(r, counter_number);
    uint32_t owner = holder_index(r, h) + 1;
    bool by_counter = c && c->cells < h->cells;
    uint32_t left = r->geometry.cells;
    for (uint32_t i = by_counter ? c->cells_head : h->cells_head; i != NONE;) {
        cell *cl = cell_at(r, i);
        if (!cl || left-- == 0)
            return NULL;
        if (cl->owner == owner && cl->counter == counter_number)
            return cl;
        i = by_counter ? cl->counter_next : cl->holder_next;
    }
    return NULL;
}

int make_cell(fsm_region *r, holder *h, uint32_t counter_number, cell **out)
{
    uint32_t index;
    int error = take_record(r, CELLS, &index);
    if (error)
        return error;
    cell *cl = &r->cells[index];
    cl->words = (fsm_words){ .state = FSM_CLOSED };
    cl->counter = counter_number;
    FAULT_POINT(described);
    __atomic_store_n(&cl->owner, holder_index(r, h) + 1, __ATOMIC_RELEASE);
    FAULT_POINT(made);
    link_cell(r, cl, &r->counters[counter_number], h);
    *out = cl;
    return 0;
}

/* The store that clears the owner is the release: before it the cell holds, after it nothing does. */
int free_cell(fsm_region *r, cell *cl, holder *h, bool quarantine)
{
    ancestry p;
    int error = path_of(r, cl->counter, &p);
    if (error)
        return error;
    note_peak(&p, cl);
    int64_t used = close_cell(r, &p, cl);
    if (quarantine) {
        cl->words.total[!side_of(state_now(cl))] = (int64_t)((uint64_t)h->pid_namespace << 32 | (uint32_t)h->pid);
        WRITE_ONCE(cl->words.cap, (int64_t)h->start_time);
        FAULT_POINT(quarantine_described);
    }
    __atomic_store_n(&cl->owner, quarantine ? QUARANTINED : 0, __ATOMIC_RELEASE);
    FAULT_POINT(given_up);
    set_used(cl, 0);
    FAULT_POINT(emptied);
    reserve(&p, -used);
    leave_global(r, &p, used);
    unlink_cell(r, cl, p.at[0], h);
    if (quarantine)
        r->header->quarantined++;
    else
        free_record(r, CELLS, cell_index(r, cl));
    cross_marks(r, &p);
    notify_listener(
        r, &p, 0); /* a holder that died may have counted a refusal without the lock, and not notified the listener */
    serve_waiting(r, &p);
    return 0;
}

int leave_cell(fsm_region *r, cell *cl, holder *h, uint32_t flags, bool quarantine)
{
    ancestry p;
    if (flags & FSM_KEEP) {
        int error = path_of(r, cl->counter, &p);
        if (!error)
            error = move_held(r, &p, cl, close_cell(r, &p, cl));
        if (error)
            return error;
    }
    return free_cell(r, cl, h, quarantine);
}

int end_holder(fsm_region *r, holder *h, bool by_itself)
{
    bool quarantine = h->kind == FSM_PROCESS && !by_itself && holder_alive(h);
    /* from here on recovery finishes the end of this holder */
    __atomic_store_n(&h->stamp, make_stamp(generation(h->stamp), ENDING), __ATOMIC_RELEASE);
    FAULT_POINT(ending);
    int error = end_requests(r, holder_index(r, h), NULL);
    if (error)
        return error;
    uint32_t left = r->geometry.cells;
    while (h->cells_head != NONE) {
        cell *cl = cell_at(r, h->cells_head);
        if (!cl || cl->owner != holder_index(r, h) + 1 || left-- == 0)
            return corrupt(r, "the cells of holder %u are damaged", holder_index(r, h));
        error = leave_cell(r, cl, h, h->flags, quarantine);
        if (error)
            return error;
    }
    __atomic_store_n(&h->stamp, make_stamp(generation(h->stamp), FREE), __ATOMIC_RELEASE);
    FAULT_POINT(ended);
    enum pools which = pool_of(r, holder_index(r, h));
    free_record(r, which, (uint32_t)(h - first_holder(r, which)));
    return 0;
}
