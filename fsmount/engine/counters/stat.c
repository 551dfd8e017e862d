/* stat.c - reading one counter: its plain values, its usage, and R.stat. */
#include "counters/stat.h"
#include "counters/amounts.h"
#include "counters/counter.h"
#include "region/fault.h"
#include "region/lock.h"
#include "region/reading.h"

#include <errno.h>

int fsm_usage(fsm_region *r, fsm_id id, uint32_t resource, int64_t *out)
{
    WITH_COUNTER(p)
    error = precise_usage(r, p.at[0], out);
    unlock(r);
    return error;
}

int fsm_get_max_usage(fsm_region *r, fsm_id id, uint32_t resource, int64_t *out)
{
    WITH_COUNTER(p)
    error = precise_usage(r, p.at[0], out);
    *out = p.at[0]->max_usage;
    unlock(r);
    return error;
}

UNLOCKED int fsm_get_limit(fsm_region *r, fsm_id id, uint32_t resource, int64_t *out)
{
    READ_COUNTER(c)
    {
        *out = READ_ONCE(c->limit);
    }
    return error;
}

UNLOCKED int fsm_get_soft_limit(fsm_region *r, fsm_id id, uint32_t resource, int64_t *out)
{
    READ_COUNTER(c)
    {
        *out = READ_ONCE(c->soft_limit);
    }
    return error;
}

UNLOCKED int fsm_get_failcnt(fsm_region *r, fsm_id id, uint32_t resource, int64_t *out)
{
    READ_COUNTER(c)
    {
        *out = failcnt_of(c);
    }
    return error;
}

/* The usage and the stock of this group alone. The two words of each cell are of one moment. */
static int local_usage(fsm_region *r, counter *c, int64_t *used_here, int64_t *stock_here)
{
    *used_here = c->common;
    *stock_here = 0;
    uint32_t left = r->geometry.cells;
    for (uint32_t i = once(c->cells_head); i != NONE;) {
        cell *cl = cell_at(r, i);
        if (!cl || left-- == 0)
            return corrupt(r, "the cell list of counter %u is damaged", counter_index(r, c));
        uint64_t state = state_now(cl);
        int64_t used = used_of(cl, state);
        if (used < 0)
            return corrupt(r, "cell %u has used %lld", i, (long long)used);
        *used_here += used;
        *stock_here += is_open(state) ? stock_in(state) : 0;
        i = cl->counter_next;
    }
    return 0;
}

fsm_stat begin_stat(const counter *c)
{
    return (fsm_stat){ .common = c->common,
                       .reserved = c->reserved,
                       .holders = c->cells,
                       .limit = c->limit,
                       .soft_limit = c->soft_limit,
                       .failcnt = failcnt_of(c),
                       .batch = c->batch,
                       .refills = c->refills,
                       .drains = c->drains };
}

void finish_stat(const counter *c, fsm_stat *s)
{
    s->stock = s->reserved - s->usage;
    s->margin = max_i64(s->limit - s->usage, 0);
    s->soft_limit_excess = max_i64(s->usage - s->soft_limit, 0);
    s->max_usage = c->max_usage;
    s->min_usage = c->min_usage;
    s->error_bound = max_i64(c->peak_reserved - c->max_usage, 0);
    s->hierarchical_limit = s->hierarchical_margin = FSM_UNLIMITED;
    stat_below(s, s->limit, s->margin, is_global(c));
}

void stat_below(fsm_stat *s, int64_t limit, int64_t margin, bool global)
{
    s->hierarchical_limit = min_i64(s->hierarchical_limit, limit);
    s->hierarchical_margin = min_i64(s->hierarchical_margin, margin);
    if (global) {
        s->global = 1;
        s->batch = 0;
    }
}

int fsm_get_stat(fsm_region *r, fsm_id id, uint32_t resource, fsm_stat *out)
{
    WITH_COUNTER(p)
    counter *c = p.at[0];
    fsm_stat s = begin_stat(c);
    int64_t stock_here = 0, stock_below = 0;
    error = local_usage(r, c, &s.usage_local, &stock_here);
    if (!error)
        error = sum_stock(r, c, false, &stock_below);
    if (!error)
        error = note_usage(r, c, c->reserved - stock_here - stock_below, &s.usage);
    finish_stat(c, &s);
    for (uint32_t i = 1; i < p.n && !error; i++) {
        counter *above = p.at[i];
        int64_t usage = 0;
        error = precise_usage(r, above, &usage);
        stat_below(&s, above->limit, max_i64(above->limit - usage, 0), is_global(above));
    }
    unlock(r);
    if (!error)
        *out = s;
    return error;
}
