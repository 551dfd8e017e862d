/*
 * res_counter.c - Linux 3.3, kernel/res_counter.c (RFC 2/7): a lock for each counter.
 *
 * A charge walks up and takes one lock after the other.  A refusal undoes the charge below.  A charge holds only one
 * lock at a time, so the lower levels count a charge that a higher level refuses: others may be refused because of it.
 */
#include "model.h"
#include "spin_futex.h"

typedef struct counter {
    _Alignas(CACHE_LINE) spin_futex lock;
    int64_t usage, limit, max_usage, failcnt;
    struct counter *parent;
} counter;

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
    for (int i = 0; i < t->nodes; i++) {
        s->counters[i].limit = t->limit[i];
        s->counters[i].parent = i ? &s->counters[t->parent[i]] : NULL;
    }
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

static inline bool add(counter *c, int64_t amount)
{
    lock(&c->lock);
    int64_t usage = c->usage + amount;
    bool fits = usage <= c->limit;
    if (fits) {
        c->usage = usage;
        if (usage > c->max_usage)
            c->max_usage = usage;
    } else {
        c->failcnt++;
    }
    unlock(&c->lock);
    return fits;
}

static inline bool charge(seat *s, int64_t amount)
{
    for (counter *c = s->leaf; c; c = c->parent)
        if (!add(c, amount)) {
            for (counter *u = s->leaf; u != c; u = u->parent)
                add(u, -amount);
            return false;
        }
    return true;
}

static inline void uncharge(seat *s, int64_t amount)
{
    for (counter *c = s->leaf; c; c = c->parent)
        add(c, -amount);
}

static int64_t usage(void *memory, int node)
{
    counter *c = &((state *)memory)->counters[node];
    lock(&c->lock);
    int64_t found = c->usage;
    unlock(&c->lock);
    return found;
}

static uint64_t pairs(seat *s, const bool *stop)
{
    return pairs_of(s, stop, charge, uncharge);
}

const model res_counter = {
    .name = "res_counter",
    .source = "Linux 3.3 kernel/res_counter.c, RFC 2/7: a lock for each counter",
    .accepts = "a refused charge is counted below the refusing counter until it is undone; a lock for each level",
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
