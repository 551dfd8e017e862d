/*
 * pool.c - taking and freeing the records of each kind.
 *
 * The memory of a record is made real when the record is first taken. A freed record goes to the list of its pool and
 * is taken again first. The list is derived, so a process that dies between two stores here loses no record.
 */
#include "region/pool.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/region.h"

#include <errno.h>

bool is_free(const fsm_region *r, enum pools which, uint32_t index)
{
    const records *of = &r->pools[which];
    return which == CELLS ? r->cells[index].owner == 0 : state_of(*(const stamp *)record_at(of, index)) == FREE;
}

/* Makes the memory real of a new record and of the records that belong to it. */
static int make_real(fsm_region *r, enum pools which, void *record, size_t size, uint32_t index)
{
    uint32_t resources = r->geometry.resources;
    /* the first record may begin in a page that has no other of its kind */
    int error = index == 0 ? populate(r, record, size) : populate_next(r, record, size);
    if (!error && which == GROUPS)
        error = populate_next(r, &r->counters[(size_t)index * resources], sizeof(counter) * resources);
    if (!error)
        memset(record, 0, size); /* the file may hold nonsense there */
    return error;
}

int take_record(fsm_region *r, enum pools which, uint32_t *out)
{
    const records *of = &r->pools[which];
    uint32_t index = once(of->pool->free);
    if (index != NONE) {
        if (index >= of->room || !is_free(r, which, index))
            return corrupt(r, "record %u in the list of free %s is not free", index, of->what);
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
