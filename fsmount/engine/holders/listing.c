/* listing.c - listing the holders and their charges. */
#include "counters/group.h"
#include "holders/holder.h"
#include "region/fault.h"
#include "region/lock.h"
#include "region/pool.h"
#include "region/process.h"
#include "region/reading.h"

#include <errno.h>

static void describe(const fsm_region *r, const holder *h, const cell *cl, fsm_holder_info *out)
{
    const cell *first = cell_at(r, h->cells_head);
    uint32_t place = first ? once(first->counter) / r->geometry.resources : 0;
    const group *g = group_at(r, place);
    *out = (fsm_holder_info){ .id = make_id(h->stamp, holder_index(r, h)),
                              .group = g && place > 0 ? group_id(g->stamp, place) : FSM_ROOT,
                              .kind = h->kind,
                              .flags = h->flags,
                              .here = h->pid_namespace == pid_namespace(),
                              .pid = h->pid,
                              .start_time = h->start_time,
                              .cells = h->cells };
    if (cl) {
        uint64_t state = state_now(cl);
        out->stock = is_open(state) ? stock_in(state) : 0;
        out->held = used_of(cl, state);
    }
}

int64_t fsm_counter_holders(fsm_region *r, fsm_id id, uint32_t resource, fsm_holder_info *out, size_t room)
{
    int error = lock(r);
    if (error)
        return error;
    group *g;
    size_t n = 0;
    error = find_group(r, id, &g);
    if (!error && resource >= r->geometry.resources)
        error = -EINVAL;
    uint32_t number = id_index(id) * r->geometry.resources + resource;
    for (uint32_t i = error ? NONE : r->counters[number].cells_head; i != NONE; n++) {
        cell *cl = cell_at(r, i);
        holder *h = cl ? holder_at(r, cl->owner - 1) : NULL;
        if (!h || cl->counter != number || n > r->geometry.cells) {
            error = corrupt(r, "the cell list of counter %u is damaged", number);
            break;
        }
        if (n < room)
            describe(r, h, cl, &out[n]);
        i = cl->counter_next;
    }
    unlock(r);
    return error ? error : (int64_t)n;
}

#define PAGE_STEPS 4096u /* cells: about 50 us */

/* A counter with few cells: along its list. */
static int64_t list_cells(fsm_region *r, uint32_t number, fsm_holder_info *out)
{
    size_t n = 0;
    for (uint32_t i = r->counters[number].cells_head; i != NONE;) {
        cell *cl = cell_at(r, i);
        holder *h = cl ? holder_at(r, cl->owner - 1) : NULL;
        if (!h || cl->counter != number || n == FSM_PAGE)
            return corrupt(r, "the cell list of counter %u is damaged", number);
        describe(r, h, cl, &out[n++]);
        i = cl->counter_next;
    }
    return (int64_t)n;
}

/* A counter with many cells: in memory order, since a cell does not move. */
static int64_t scan_cells(fsm_region *r, uint32_t number, uint32_t *place, fsm_holder_info *out)
{
    uint32_t i = *place, high = high_of(&r->header->cells, r->geometry.cells);
    uint32_t end = high - (i < high ? i : high) > PAGE_STEPS ? i + PAGE_STEPS : high;
    size_t n = 0;
    for (; i < end && n < FSM_PAGE; i++) {
        cell *cl = &r->cells[i];
        if (cl->counter != number || cl->owner == 0 || cl->owner == QUARANTINED)
            continue;
        holder *h = holder_at(r, cl->owner - 1);
        if (!h)
            return corrupt(r, "cell %u belongs to holder %u", i, cl->owner - 1);
        describe(r, h, cl, &out[n++]);
    }
    *place = i < high ? i : FSM_LAST_PAGE;
    return (int64_t)n;
}

int64_t fsm_page_of_holders(fsm_region *r, fsm_id id, uint32_t resource, uint32_t *place, fsm_holder_info out[FSM_PAGE])
{
    if (resource >= r->geometry.resources)
        return -EINVAL;
    int error = lock(r);
    if (error)
        return error;
    group *g;
    int64_t n = find_group(r, id, &g);
    uint32_t number = id_index(id) * r->geometry.resources + resource;
    if (n == 0 && *place == 0 && r->counters[number].cells <= FSM_PAGE) {
        n = list_cells(r, number, out);
        *place = FSM_LAST_PAGE;
    } else if (n == 0) {
        n = scan_cells(r, number, place, out);
    }
    unlock(r);
    return n;
}

UNLOCKED static uint32_t count_pool(const fsm_region *r, enum pools which)
{
    uint32_t n = 0;
    for (const holder *h = first_holder(r, which), *past = past_holders(r, which); h < past; h++)
        n += state_of(READ_ONCE(h->stamp)) == LIVE;
    return n;
}

void fsm_count_holders(fsm_region *r, uint32_t *processes, uint32_t *leases)
{
    *processes = count_pool(r, PROCESSES);
    *leases = count_pool(r, LEASES);
}

static size_t list_pool(fsm_region *r, enum pools which, const uint32_t *seen, fsm_holder_info *out, size_t room,
                        size_t n)
{
    for (holder *h = first_holder(r, which), *past = past_holders(r, which); h < past; h++) {
        if (state_of(h->stamp) != LIVE || (seen && (int32_t)(h->arrival - *seen) <= 0))
            continue;
        if (n < room)
            describe(r, h, NULL, &out[n]);
        n++;
    }
    return n;
}

int64_t fsm_all_holders(fsm_region *r, fsm_holder_info *out, size_t room)
{
    int error = lock(r);
    if (error)
        return error;
    size_t n = list_pool(r, PROCESSES, NULL, out, room, 0);
    n = list_pool(r, LEASES, NULL, out, room, n);
    unlock(r);
    return (int64_t)n;
}

int64_t fsm_new_holders(fsm_region *r, uint32_t seen, fsm_holder_info *out, size_t room)
{
    int error = lock(r);
    if (error)
        return error;
    size_t n = list_pool(r, PROCESSES, &seen, out, room, 0);
    unlock(r);
    return (int64_t)n;
}

int fsm_holder_get(fsm_region *r, fsm_id id, fsm_holder_info *out)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        describe(r, h, NULL, out);
    unlock(r);
    return error;
}
