/*
 * page_counter.h - a counter that is charged by one atomic addition, and its walks.
 *
 * After mm/page_counter.c.  A charge adds first, compares, and subtracts again above the limit.  So usage keeps the
 * limit, but a charge that does not fit occupies room until its subtraction.
 */
#ifndef PAGE_COUNTER_H
#define PAGE_COUNTER_H

#include "model.h"

typedef struct counter {
    _Alignas(CACHE_LINE) int64_t usage;
    int64_t watermark, failcnt;
    _Alignas(CACHE_LINE) int64_t limit; /* fields that charges only read are on another cache line */
    struct counter *parent;
} counter;

static inline void counters_init(counter *counters, const tree *t)
{
    for (int i = 0; i < t->nodes; i++) {
        counters[i].limit = t->limit[i];
        counters[i].parent = i ? &counters[t->parent[i]] : NULL;
    }
}

static inline void counter_uncharge(counter *leaf, const counter *end, int64_t amount)
{
    for (counter *c = leaf; c != end; c = c->parent)
        __atomic_sub_fetch(&c->usage, amount, __ATOMIC_SEQ_CST);
}

static inline bool counter_try_charge(counter *leaf, int64_t amount)
{
    for (counter *c = leaf; c; c = c->parent) {
        int64_t usage = __atomic_add_fetch(&c->usage, amount, __ATOMIC_SEQ_CST);
        if (usage > c->limit) {
            __atomic_add_fetch(&c->failcnt, 1, __ATOMIC_RELAXED);
            counter_uncharge(leaf, c->parent, amount);
            return false;
        }
        /* two charges may store their peaks in the wrong order: the kernel accepts that too */
        if (usage > __atomic_load_n(&c->watermark, __ATOMIC_RELAXED))
            __atomic_store_n(&c->watermark, usage, __ATOMIC_RELAXED);
    }
    return true;
}

static inline int64_t counter_read(const counter *c)
{
    return __atomic_load_n(&c->usage, __ATOMIC_SEQ_CST);
}

#endif
