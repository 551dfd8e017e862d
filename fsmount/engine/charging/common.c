/* common.c - charges that the group itself holds. */
#include "charging/charge.h"
#include "counters/counter.h"
#include "holders/queue.h"
#include "observe/events.h"
#include "observe/refusals.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/lock.h"
#include "region/process.h"

#include <errno.h>

/* thread: a thread of the process that charges the group; 0: the caller; negative: not known. */
static void record_common(fsm_region *r, const ancestry *p, int64_t amount, int32_t thread)
{
    fsm_refusal refusal = { .amount = amount, .pid_namespace = pid_namespace() };
    fsm_recorded nothing = { 0 };
    if (thread >= 0)
        refusal.pid = thread == 0 ? current_pid() : process_of((uint32_t)thread);
    record_refusal(r, p, &refusal, &nothing);
}

int fsm_common_charge(fsm_region *r, fsm_id id, uint32_t resource, int64_t amount)
{
    return fsm_common_charge_for(r, id, resource, amount, 0);
}

int fsm_common_charge_for(fsm_region *r, fsm_id id, uint32_t resource, int64_t amount, int32_t thread)
{
    if (amount < 0)
        return -EINVAL;
    WITH_COUNTER(p)
    bool exceeded;
    if (amount > 0)
        error = find_room(r, &p, amount, false, &exceeded);
    if (error == -ENOMEM)
        record_common(r, &p, amount, thread);
    if (!error && amount > 0) {
        if (fsm_get_batch(r) != 0 && !in_global_mode(&p))
            grant(r, &p, amount, amount, 0); /* no stock, but global mode where the limit is near */
        FAULT_POINT(granted);
        reserve(&p, amount);
        p.at[0]->common += amount;
        FAULT_POINT(charged);
        cross_marks(r, &p);
    }
    unlock(r);
    return error;
}

int fsm_common_uncharge(fsm_region *r, fsm_id id, uint32_t resource, int64_t amount)
{
    if (amount < 0)
        return -EINVAL;
    WITH_COUNTER(p)
    counter *c = p.at[0];
    if (c->common < amount) {
        fsm_fault_here.held = c->common;
        error = -ERANGE;
    } else {
        c->common -= amount;
        FAULT_POINT(uncharged);
        reserve(&p, -amount);
        leave_global(r, &p, amount);
        cross_marks(r, &p);
        serve_waiting(r, &p);
    }
    unlock(r);
    return error;
}

int fsm_force_empty(fsm_region *r, fsm_id id, uint32_t resource)
{
    WITH_COUNTER(p)
    counter *c = p.at[0];
    error = drain(r, c);
    if (!error) {
        int64_t common = c->common;
        c->common = 0;
        FAULT_POINT(forgotten);
        reserve(&p, -common);
        leave_global(r, &p, common);
        cross_marks(r, &p);
        serve_waiting(r, &p);
    }
    unlock(r);
    return error;
}
