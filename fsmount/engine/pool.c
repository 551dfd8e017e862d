/*
 * pool.c - records that can be used up: which there are, and taking and freeing one.
 *
 * A record that was never used has its memory made real when it is taken.  One that was freed is in its pool's list
 * and is taken first; the list is derived, so who dies between two stores here loses no record.
 */
#include "internal.h"

records records_of(const fsm_region *r, enum pools which)
{
    header *h = r->header;
    const fsm_geometry *g = &r->geometry;
#define RECORDS(what, type, start, link, room)                                                                         \
    (records)                                                                                                          \
    {                                                                                                                  \
        #what, &h->what, start, sizeof(type), offsetof(type, link), room                                               \
    }
    switch (which) {
    case GROUPS:
        return RECORDS(groups, group, r->groups, next_sibling, g->groups);
    case PROCESSES:
        return RECORDS(processes, holder, r->holders, next_free, g->holders);
    case LEASES:
        return RECORDS(leases, holder, &r->holders[g->holders], next_free, g->cells);
    case CELLS:
        return RECORDS(cells, cell, r->cells, holder_next, g->cells);
    case WATCHES:
        return RECORDS(watches, watch, r->watches, next, g->cells);
    case WAITERS:
    case POOLS:
        break;
    }
    return RECORDS(waiters, waiter, r->waiters, next, g->cells);
#undef RECORDS
}

bool is_free(const fsm_region *r, enum pools which, uint32_t index)
{
    records of = records_of(r, which);
    return which == CELLS ? r->cells[index].owner == 0 : state_of(*(const stamp *)record_at(&of, index)) == FREE;
}

/* Makes the memory of a record real that was never used, and what goes with it. */
static int make_real(fsm_region *r, enum pools which, void *record, size_t size, uint32_t index)
{
    uint32_t resources = r->geometry.resources;
    int error = populate_next(r, record, size);
    if (!error && which == GROUPS)
        error = populate_next(r, &r->counters[(size_t)index * resources], sizeof(counter) * resources);
    if (!error)
        memset(record, 0, size); /* whatever was written there */
    return error;
}

int take_record(fsm_region *r, enum pools which, uint32_t *out)
{
    records of = records_of(r, which);
    uint32_t index = once(of.pool->free);
    if (index != NONE) {
        if (index >= of.room || !is_free(r, which, index))
            return corrupt(r, "number %u in the list of free %s is not free", index, of.what);
        of.pool->free = *link_at(&of, index, of.link);
        if (of.pool->free == NONE)
            of.pool->last_free = NONE;
        FAULT_POINT(record_reused);
    } else {
        index = once(of.pool->high);
        if (index >= of.room)
            return -ENOSPC;
        int error = make_real(r, which, record_at(&of, index), of.size, index);
        if (error)
            return error;
        __atomic_store_n(&of.pool->high, index + 1, __ATOMIC_RELEASE);
        FAULT_POINT(record_taken);
    }
    *out = index;
    return 0;
}

void free_record(fsm_region *r, enum pools which, uint32_t index)
{
    records of = records_of(r, which);
    uint32_t *link = link_at(&of, index, of.link);
    if (which != CELLS) {
        *link = of.pool->free;
        of.pool->free = index;
    } else {
        uint32_t last = once(of.pool->last_free);
        *link = NONE;
        *(last < of.room ? link_at(&of, last, of.link) : &of.pool->free) = index;
        FAULT_POINT(appended);
        of.pool->last_free = index;
    }
    FAULT_POINT(freed);
}
