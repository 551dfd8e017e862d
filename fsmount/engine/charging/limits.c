/* limits.c - setting limits, the batch, and the statistics that a user resets. */
#include "counters/counter.h"
#include "holders/queue.h"
#include "observe/events.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/lock.h"

#include <errno.h>

int fsm_set_limit(fsm_region *r, fsm_id id, uint32_t resource, int64_t limit)
{
    if (limit < 0)
        return -EINVAL;
    WITH_COUNTER(p)
    counter *c = p.at[0];
    error = drain(r, c);
    if (!error && c->reserved > limit) {
        fsm_fault_here.usage = c->reserved;
        fsm_fault_here.limit = c->limit;
        error = -EBUSY;
    }
    if (!error) {
        if (is_global(c))
            end_global(c); /* the next charge decides again. First, so that no charge is refused by the new limit in the
                              old mode */
        FAULT_POINT(global_left);
        __atomic_store_n(&c->limit, limit, __ATOMIC_RELEASE);
        FAULT_POINT(limit_set);
        find_marks(r, c); /* percentages of the limit have moved */
        cross_marks(r, &p);
        if (r->header->waiting > 0)
            error = serve_queue(r); /* a request above the old limit may fit now */
    }
    unlock(r);
    return error;
}

int fsm_set_soft_limit(fsm_region *r, fsm_id id, uint32_t resource, int64_t limit)
{
    if (limit < 0)
        return -EINVAL;
    WITH_COUNTER(p)
    p.at[0]->soft_limit = limit;
    FAULT_POINT(soft_limit_set);
    find_marks(r, p.at[0]);
    cross_marks(r, &p);
    unlock(r);
    return 0;
}

int fsm_reset_max_usage(fsm_region *r, fsm_id id, uint32_t resource)
{
    WITH_COUNTER(p)
    counter *c = p.at[0];
    int64_t usage;
    error = precise_usage(r, c, &usage);
    if (!error) {
        c->max_usage = c->min_usage = usage;
        FAULT_POINT(usage_taken);
        c->peak_reserved = c->reserved;
        FAULT_POINT(reset);
    }
    unlock(r);
    return error;
}

int fsm_reset_failcnt(fsm_region *r, fsm_id id, uint32_t resource)
{
    WITH_COUNTER(p)
    counter *c = p.at[0];
    __atomic_store_n(&c->forgotten, READ_ONCE(c->refusals), __ATOMIC_RELEASE);
    FAULT_POINT(forgotten);
    unlock(r);
    return 0;
}

int fsm_set_batch(fsm_region *r, int64_t batch)
{
    if (batch < FSM_BATCH_AUTO)
        return fail_with(-EINVAL, "a batch of %lld: it is -1 (automatic) or at least 0", (long long)batch);
    int error = lock(r);
    if (error)
        return error;
    ancestry root;
    WRITE_ONCE(r->header->geometry.batch, batch);
    FAULT_POINT(batch_set);
    /* return the stock of the old batch */
    for (uint32_t i = 0; i < r->geometry.resources && !error; i++) {
        error = path_of(r, i, &root);
        if (!error)
            error = drain(r, root.at[0]);
    }
    if (!error && r->header->waiting > 0)
        error = serve_queue(r); /* with a batch of 0 before, full counters are not in global mode yet */
    unlock(r);
    return error;
}
