/*
 * limited_add.c - Linux since 6.7, percpu_counter_limited_add() in lib/percpu_counter.c, at each level of a tree.
 *
 * The kernel limits a single counter.  Here each level is one, and a refusal undoes the charge below.  The fast path
 * reads the count once.  Near the limit a charge takes the lock, and it sums the parts only if the count and the
 * largest possible parts do not decide.  It needs no mode.
 *
 * Accepted: the fast path reads the count without the lock and adds later, so usage may exceed a limit by the additions
 * of other CPUs in between.  While a refused charge is undone, others may be refused.
 */
#include "percpu.h"

typedef struct counter {
    percpu_counter sum;
    int64_t limit, unknown; /* unknown: the largest possible sum of all parts */
    struct counter *parent;
} counter;

struct seat {
    _Alignas(CACHE_LINE) counter *leaf;
    int process;
    struct state *state;
};

typedef struct state {
    int nodes;
    counter counters[NODES_MAX];
    percpu_parts parts[PROCESSES_MAX];
    seat seats[PROCESSES_MAX];
} state;

static void init(void *memory, const tree *t)
{
    state *s = memory;
    s->nodes = t->nodes;
    for (int i = 0; i < t->nodes; i++) {
        counter *c = &s->counters[i];
        c->sum.node = i;
        c->sum.processes = t->processes;
        c->sum.parts = s->parts;
        c->limit = t->limit[i];
        c->unknown = (int64_t)t->processes * BATCH;
        c->parent = i ? &s->counters[t->parent[i]] : NULL;
    }
    for (int i = 0; i < t->processes; i++)
        s->seats[i] = (seat){ .leaf = &s->counters[t->leaf[i]], .process = i, .state = s };
}

static seat *join(void *memory, int process)
{
    return &((state *)memory)->seats[process];
}

static void leave(seat *s)
{
    for (int i = 0; i < s->state->nodes; i++)
        percpu_leave(&s->state->counters[i].sum, s->process);
}

static bool limited_add_locked(counter *c, int process, int64_t amount)
{
    lock(&c->sum.lock);
    int64_t count = percpu_read(&c->sum) + amount;
    bool fits = count - c->unknown <= c->limit;
    if (fits && count + c->unknown > c->limit)
        fits = percpu_sum(&c->sum) + amount <= c->limit;
    if (fits)
        percpu_fold(&c->sum, process, amount);
    unlock(&c->sum.lock);
    return fits;
}

static inline bool limited(counter *c, int process, int64_t amount)
{
    int64_t part = percpu_part(&c->sum, process) + amount;
    if (-BATCH <= part && part <= BATCH && percpu_read(&c->sum) + c->unknown <= c->limit) {
        percpu_set_part(&c->sum, process, part);
        return true;
    }
    return limited_add_locked(c, process, amount);
}

static inline bool charge(seat *s, int64_t amount)
{
    for (counter *c = s->leaf; c; c = c->parent)
        if (!limited(c, s->process, amount)) {
            for (counter *u = s->leaf; u != c; u = u->parent)
                percpu_add(&u->sum, s->process, -amount);
            return false;
        }
    return true;
}

static inline void uncharge(seat *s, int64_t amount)
{
    for (counter *c = s->leaf; c; c = c->parent)
        percpu_add(&c->sum, s->process, -amount);
}

static int64_t usage(void *memory, int node)
{
    return percpu_usage(&((state *)memory)->counters[node].sum);
}

static int64_t seen(void *memory, int node)
{
    return percpu_read(&((state *)memory)->counters[node].sum);
}

static uint64_t pairs(seat *s, const bool *stop)
{
    return pairs_of(s, stop, charge, uncharge);
}

const model limited_add = {
    .name = "limited add",
    .source = "Linux since 6.7, percpu_counter_limited_add(), at each level",
    .accepts = "a limit may be passed by what other CPUs add after the look at it; the count lags by a batch of each",
    .in_turn = KEEPS_LIMIT | USES_ROOM | KNOWS_USAGE,
    .always = 0,
    .size = sizeof(state),
    .init = init,
    .join = join,
    .leave = leave,
    .charge = charge,
    .uncharge = uncharge,
    .usage = usage,
    .seen = seen,
    .pairs = pairs,
};
