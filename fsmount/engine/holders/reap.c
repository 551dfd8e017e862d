/* reap.c - releasing the charges of dead processes. */
#include "holders/reap.h"
#include "holders/holder.h"
#include "region/clock.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/lock.h"
#include "region/pool.h"
#include "region/process.h"
#include "region/reading.h"

#include <errno.h>

static void end_quarantine(fsm_region *r)
{
    uint64_t last = 0; /* the cells of one process mostly lie together */
    int64_t last_start = 0;
    bool last_alive = true;
    uint32_t left = r->header->quarantined;
    for (uint32_t i = 0; i < high_of(&r->header->cells, r->geometry.cells) && left > 0; i++) {
        cell *cl = &r->cells[i];
        if (cl->owner != QUARANTINED)
            continue;
        left--;
        uint64_t process = (uint64_t)cl->words.total[!side_of(state_now(cl))];
        if (process >> 32 != pid_namespace())
            continue;
        if (process != last || cl->words.cap != last_start)
            last_alive = fsm_process_alive((int32_t)(uint32_t)process, (uint64_t)cl->words.cap);
        last = process;
        last_start = cl->words.cap;
        if (last_alive)
            continue;
        __atomic_store_n(&cl->owner, 0, __ATOMIC_RELEASE);
        FAULT_POINT(freed);
        r->header->quarantined--;
        FAULT_POINT(counted);
        free_record(r, CELLS, i);
    }
}

int reap(fsm_region *r, uint32_t self, uint32_t *ended)
{
    *ended = 0;
    end_quarantine(r);
    for (enum pools which = PROCESSES; which <= LEASES; which++) {
        if (which == LEASES && daemon_alive(r->header)) /* the daemon sees the last close of each lease */
            break;
        for (holder *h = first_holder(r, which), *past = past_holders(r, which); h < past; h++) {
            if (state_of(h->stamp) != LIVE || holder_index(r, h) == self || holder_alive(h))
                continue;
            int error = end_holder(r, h, false);
            if (error)
                return error;
            ++*ended;
        }
    }
    return 0;
}

int reap_counter(fsm_region *r, const counter *c)
{
    uint32_t left = r->geometry.cells;
    while (c->cells_head != NONE) {
        cell *cl = cell_at(r, c->cells_head);
        holder *h = cl ? holder_at(r, cl->owner - 1) : NULL;
        if (!h || left-- == 0)
            return corrupt(r, "the cell list of counter %u is damaged", counter_index(r, c));
        if ((pool_of(r, holder_index(r, h)) == LEASES && daemon_alive(r->header)) || holder_alive(h))
            return -EBUSY;
        int error = end_holder(r, h, false);
        if (error)
            return error;
    }
    return 0;
}

#ifndef FSM_REAP_EVERY
#define FSM_REAP_EVERY 50000000 /* ns; the walk of the fault points needs one that a slow machine does not reach */
#endif
#define REAP_SOON INT64_C(60000000000) /* a later time is nonsense */
#define REAP_SHARE 20                  /* at most one part in REAP_SHARE of the time goes into it */

UNLOCKED bool reap_is_due(const fsm_region *r, int64_t now)
{
    int64_t wait = READ_ONCE(r->header->reap_at) - now;
    return wait <= 0 || wait >= REAP_SOON;
}

bool reap_before_refusal(fsm_region *r, uint32_t self)
{
    if (!reap_is_due(r, coarse_ns()))
        return false;
    int64_t now = monotonic_ns();
    uint32_t ended = 0;
    if (!daemon_alive(r->header))
        reap(r, self, &ended);
    int64_t cost = monotonic_ns() - now;
    WRITE_ONCE(r->header->reap_at, now + (cost * REAP_SHARE > FSM_REAP_EVERY ? cost * REAP_SHARE : FSM_REAP_EVERY));
    FAULT_POINT(turn_taken);
    return ended > 0;
}

int fsm_reap_dead(fsm_region *r, uint32_t *out)
{
    int error = lock(r);
    if (error)
        return error;
    error = reap(r, NONE, out);
    unlock(r);
    return error;
}
