/*
 * stock.c - memcg's stock (mm/memcontrol.c: consume_stock, refill_stock, drain_all_stock) over page counters.
 *
 * A CPU charges a batch at every level and consumes it alone.  An uncharge goes to its stock, and a stock above a batch
 * goes to the counters.  Only a refused process asks the others to drain, by a flag that they read at their next
 * charge: the kernel queues work on each CPU and does not wait for it either.
 *
 * Accepted: usage includes unused stock, up to a batch for each CPU, so events come early.  A charge may be refused
 * while an idle CPU keeps its stock.
 */
#include "page_counter.h"

#define BATCH 64 /* MEMCG_CHARGE_BATCH */

struct seat {
    _Alignas(CACHE_LINE) counter *leaf;
    int64_t stock;
    struct state *state;
    _Alignas(CACHE_LINE) bool drain; /* set by others */
};

typedef struct state {
    int processes;
    counter counters[NODES_MAX];
    seat seats[PROCESSES_MAX];
} state;

static void init(void *memory, const tree *t)
{
    state *s = memory;
    s->processes = t->processes;
    counters_init(s->counters, t);
    for (int i = 0; i < t->processes; i++)
        s->seats[i] = (seat){ .leaf = &s->counters[t->leaf[i]], .state = s };
}

static seat *join(void *memory, int process)
{
    return &((state *)memory)->seats[process];
}

static void drain_stock(seat *s)
{
    counter_uncharge(s->leaf, NULL, s->stock);
    s->stock = 0;
}

static void drain_if_asked(seat *s)
{
    if (__atomic_load_n(&s->drain, __ATOMIC_RELAXED)) {
        __atomic_store_n(&s->drain, false, __ATOMIC_RELAXED);
        drain_stock(s);
    }
}

static void drain_all(state *s)
{
    for (int i = 0; i < s->processes; i++)
        if (!__atomic_load_n(&s->seats[i].drain, __ATOMIC_RELAXED))
            __atomic_store_n(&s->seats[i].drain, true, __ATOMIC_RELAXED);
}

static void leave(seat *s)
{
    drain_stock(s);
}

static inline bool charge(seat *s, int64_t amount)
{
    drain_if_asked(s);
    if (amount <= s->stock) {
        s->stock -= amount;
        return true;
    }
    int64_t batch = amount > BATCH ? amount : BATCH;
    if (counter_try_charge(s->leaf, batch)) {
        s->stock += batch - amount;
        if (s->stock > BATCH)
            drain_stock(s);
        return true;
    }
    if (counter_try_charge(s->leaf, amount))
        return true;
    drain_all(s->state);
    drain_if_asked(s); /* the kernel drains the stock of its own CPU at once */
    return counter_try_charge(s->leaf, amount);
}

static inline void uncharge(seat *s, int64_t amount)
{
    drain_if_asked(s);
    s->stock += amount;
    if (s->stock > BATCH)
        drain_stock(s);
}

static int64_t usage(void *memory, int node)
{
    return counter_read(&((state *)memory)->counters[node]);
}

static uint64_t pairs(seat *s, const bool *stop)
{
    return pairs_of(s, stop, charge, uncharge);
}

const model stock = {
    .name = "stock",
    .source = "Linux since 2.6.33, mm/memcontrol.c: stock of a CPU over page counters",
    .accepts = "usage counts idle stock, a batch of each CPU, so events come early; idle stock has others refused",
    .in_turn = KEEPS_LIMIT,
    .always = KEEPS_LIMIT,
    .size = sizeof(state),
    .init = init,
    .join = join,
    .leave = leave,
    .charge = charge,
    .uncharge = uncharge,
    .usage = usage,
    .seen = usage,
    .pairs = pairs,
};
