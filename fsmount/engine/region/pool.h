/* pool.h - the records of each kind: taking and freeing one. */
#ifndef FSM_POOL_H
#define FSM_POOL_H

#include "region/layout.h"

/* The kinds of records that can run out. A lease has its number among the leases here. */
enum pools { GROUPS, PROCESSES, LEASES, CELLS, WATCHES, WAITERS, POOLS };
typedef struct records records;
_Static_assert(sizeof((fsm_region){ 0 }.pools) == POOLS * sizeof(records), "a place for each pool");

bool is_free(const fsm_region *r, enum pools which, uint32_t index);
/* Takes a record whose memory is real, for the caller to fill in. -ENOSPC. */
int take_record(fsm_region *r, enum pools which, uint32_t *index);
/* Frees a record that is_free() and in no list. */
void free_record(fsm_region *r, enum pools which, uint32_t index);

/* The number of records that were ever used. Needs no lock. */
static inline uint32_t ever_used(const records *of)
{
    return high_of(of->pool, of->room);
}

static inline void *record_at(const records *of, uint32_t index)
{
    return (char *)of->first + index * of->size;
}

static inline uint32_t *link_at(const records *of, uint32_t index, size_t offset)
{
    return (void *)((char *)record_at(of, index) + offset);
}

#endif
