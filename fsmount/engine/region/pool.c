/*
 * pool.c - records that can be used up: which there are, and taking and freeing one.
 *
 * A record that was never used has its memory made real when it is taken.  One that was freed is in its pool's list
 * and is taken first; the list is derived, so who dies between two stores here loses no record.
 */
#include "internal.h"

void know_pools(fsm_region *r, char *base)
{
    const fsm_geometry *g = &r->geometry;
#define POOL(which, field, type, start, next, many)                                                                    \
    r->pools[which] = (records){ .what = #field,                                                                       \
                                 .pool = (pool *)(void *)(base + offsetof(header, field)),                             \
                                 .first = start,                                                                       \
                                 .size = sizeof(type),                                                                 \
                                 .link = offsetof(type, next),                                                         \
                                 .room = many }
    POOL(GROUPS, groups, group, r->groups, next_sibling, g->groups);
    POOL(PROCESSES, processes, holder, r->holders, next_free, g->holders);
    POOL(LEASES, leases, holder, &r->holders[g->holders], next_free, g->cells);
    POOL(CELLS, cells, cell, r->cells, holder_next, g->cells);
    POOL(WATCHES, watches, watch, r->watches, next, g->cells);
    POOL(WAITERS, waiters, waiter, r->waiters, next, g->cells);
#undef POOL
}

bool is_free(const fsm_region *r, enum pools which, uint32_t index)
{
    const records *of = &r->pools[which];
    return which == CELLS ? r->cells[index].owner == 0 : state_of(*(const stamp *)record_at(of, index)) == FREE;
}

/* Makes the memory of a record real that was never used, and what goes with it. */
static int make_real(fsm_region *r, enum pools which, void *record, size_t size, uint32_t index)
{
    uint32_t resources = r->geometry.resources;
    /* the first may begin in a page that no other of its kind has */
    int error = index == 0 ? populate(r, record, size) : populate_next(r, record, size);
    if (!error && which == GROUPS)
        error = populate_next(r, &r->counters[(size_t)index * resources], sizeof(counter) * resources);
    if (!error)
        memset(record, 0, size); /* whatever was written there */
    return error;
}

int take_record(fsm_region *r, enum pools which, uint32_t *out)
{
    const records *of = &r->pools[which];
    uint32_t index = once(of->pool->free);
    if (index != NONE) {
        if (index >= of->room || !is_free(r, which, index))
            return corrupt(r, "number %u in the list of free %s is not free", index, of->what);
        of->pool->free = *link_at(of, index, of->link);
        if (of->pool->free == NONE)
            of->pool->last_free = NONE;
        FAULT_POINT(record_reused);
        of->pool->spare--;
    } else {
        index = once(of->pool->high);
        if (index >= of->room)
            return -ENOSPC;
        int error = make_real(r, which, record_at(of, index), of->size, index);
        if (error)
            return error;
        __atomic_store_n(&of->pool->high, index + 1, __ATOMIC_RELEASE);
        FAULT_POINT(record_taken);
    }
    *out = index;
    return 0;
}

void free_record(fsm_region *r, enum pools which, uint32_t index)
{
    const records *of = &r->pools[which];
    uint32_t *link = link_at(of, index, of->link);
    if (which != CELLS) {
        *link = of->pool->free;
        of->pool->free = index;
    } else {
        uint32_t last = once(of->pool->last_free);
        *link = NONE;
        *(last < of->room ? link_at(of, last, of->link) : &of->pool->free) = index;
        FAULT_POINT(appended);
        of->pool->last_free = index;
    }
    of->pool->spare++;
    FAULT_POINT(freed);
}
