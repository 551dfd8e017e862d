/* region.c - where the records of a region lie, and the memory behind them. */
#include "region/region.h"
#include "region/fault.h"
#include "region/pool.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int populate(fsm_region *r, const void *start, size_t length)
{
    struct stat status;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)start & ~(page - 1);
    uintptr_t to = ((uintptr_t)start + length + page - 1) & ~(page - 1);
    while (madvise((void *)from, to - from, MADV_POPULATE_WRITE) != 0) {
        if (errno == EINTR || errno == EAGAIN)
            continue;
        if (errno == EINVAL) /* a kernel before 5.14: the pages become real when they are touched */
            return 0;
        if (fstat(r->fd, &status) == 0 && (size_t)status.st_size < r->size)
            return corrupt(r, "the region's file was truncated to %lld bytes", (long long)status.st_size);
        return -ENOSPC;
    }
    return 0;
}

int populate_next(fsm_region *r, const void *start, size_t length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)start + page - 1) & ~(page - 1), end = (uintptr_t)start + length;
    return from < end ? populate(r, (const void *)from, end - from) : 0;
}

/* ---- geometry ----------------------------------------------------------------------- */

static size_t page_up(size_t n)
{
    return (n + 4095) & ~(size_t)4095;
}

static void set_up_pools(fsm_region *r, char *base)
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

size_t place(fsm_region *r, char *base)
{
    const fsm_geometry *g = &r->geometry;
    size_t counters = (size_t)g->groups * g->resources;
    size_t at = page_up(sizeof(header));
#define PLACE(field, type, count)                                                                                      \
    r->field = (type *)(void *)(base + at);                                                                            \
    at += page_up((size_t)(count) * sizeof(type))
    PLACE(refusals, fsm_refusal, FSM_REFUSALS);
    PLACE(buckets, uint32_t, bucket_count(g));
    PLACE(groups, group, g->groups);
    PLACE(counters, counter, counters);
    PLACE(attributes, attributes, counters * FSM_SLOTS);
    PLACE(holders, holder, (size_t)g->holders + g->cells);
    PLACE(watches, watch, g->cells);
    PLACE(waiters, waiter, g->cells);
    PLACE(cells, cell, g->cells);
#undef PLACE
    set_up_pools(r, base);
    return at;
}

/* ---- properties --------------------------------------------------------------------- */

int fsm_fd(const fsm_region *r)
{
    return r->fd;
}

const fsm_geometry *fsm_geometry_of(const fsm_region *r)
{
    return &r->geometry;
}

uint64_t fsm_tree_id(const fsm_region *r)
{
    return r->header->tree_id;
}

int64_t fsm_get_batch(const fsm_region *r)
{
    return READ_ONCE(r->header->geometry.batch);
}
