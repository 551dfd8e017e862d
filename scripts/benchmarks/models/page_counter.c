/*
 * page_counter.c - Linux since 3.19, mm/page_counter.c: one atomic addition for each level, without any lock.
 *
 * All additions meet at the common ancestors.  page_counter.h names the accepted errors.
 */
#include "page_counter.h"

struct seat {
    _Alignas(CACHE_LINE) counter *leaf;
};

typedef struct state {
    counter counters[NODES_MAX];
    seat seats[PROCESSES_MAX];
} state;

static void init(void *memory, const tree *t)
{
    state *s = memory;
    counters_init(s->counters, t);
    for (int i = 0; i < t->processes; i++)
        s->seats[i].leaf = &s->counters[t->leaf[i]];
}

static seat *join(void *memory, int process)
{
    return &((state *)memory)->seats[process];
}

static void leave(seat *s)
{
    (void)s;
}

static inline bool charge(seat *s, int64_t amount)
{
    return counter_try_charge(s->leaf, amount);
}

static inline void uncharge(seat *s, int64_t amount)
{
    counter_uncharge(s->leaf, NULL, amount);
}

static int64_t usage(void *memory, int node)
{
    return counter_read(&((state *)memory)->counters[node]);
}

static uint64_t pairs(seat *s, const bool *stop)
{
    return pairs_of(s, stop, charge, uncharge);
}

const model page_counter = {
    .name = "page_counter",
    .source = "Linux since 3.19, mm/page_counter.c: one atomic addition for each level",
    .accepts = "a refused charge counts until it is undone: others may be refused, readers and peaks see it",
    .in_turn = KEEPS_LIMIT | USES_ROOM | KNOWS_USAGE,
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
