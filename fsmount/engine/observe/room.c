/*
 * room.c - how much of each pool is used, and which user owns how many groups.
 *
 * Nothing here takes the lock, since the daemon asks often and a pass over all groups is long. Accepted inaccuracy: the
 * figures are off by at most what changes during the pass.
 */
#include "region/layout.h"
#include "region/pool.h"

#include <stdlib.h>

UNLOCKED void fsm_get_use(fsm_region *r, fsm_use out[FSM_POOLS])
{
    _Static_assert(FSM_POOLS == POOLS, "one entry for each pool");
    for (enum pools which = 0; which < POOLS; which++) {
        const records *of = &r->pools[which];
        uint32_t spare = READ_ONCE(of->pool->spare), high = ever_used(of);
        out[which] = (fsm_use){ .room = of->room, .used = spare < high ? high - spare : 0 };
    }
}

/* The owner is not known yet; no user has this number. */
#define UNKNOWN UINT32_MAX

static bool is_one_of(const uint32_t users[2], uint32_t uid)
{
    return uid == users[0] || uid == users[1];
}

/* Finds the owner that a group counts against, and the owners of all groups above it. */
UNLOCKED static void find_owner(const fsm_region *r, const uint32_t exempt[2], uint32_t *owners, uint32_t high,
                                uint32_t index)
{
    uint32_t chain[FSM_DEPTH_MAX + 1], n = 0, at = index;
    while (at < high && owners[at] == UNKNOWN && n <= FSM_DEPTH_MAX) {
        chain[n++] = at;
        at = at == 0 ? NONE : READ_ONCE(r->groups[at].parent);
    }
    uint32_t owner = at < high ? owners[at] : UNKNOWN;
    while (n-- > 0) {
        if (owner == UNKNOWN || is_one_of(exempt, owner))
            owner = READ_ONCE(r->groups[chain[n]].directory.uid);
        owners[chain[n]] = owner;
    }
}

UNLOCKED int64_t fsm_get_owners(fsm_region *r, const uint32_t exempt[2], uint32_t *owners, uint32_t room)
{
    uint32_t high = groups_high(r), n = 0;
    if (high > room)
        high = room;
    for (uint32_t i = 0; i < high; i++)
        owners[i] = UNKNOWN;
    for (uint32_t i = 0; i < high; i++)
        if (owners[i] == UNKNOWN)
            find_owner(r, exempt, owners, high, i);
    for (uint32_t i = 0; i < high; i++)
        if (state_of(READ_ONCE(r->groups[i].stamp)) == LIVE)
            owners[n++] = owners[i];
    return n;
}
