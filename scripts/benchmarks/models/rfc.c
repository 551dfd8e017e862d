/*
 * rfc.c - the RFC's counters as posted in patches 5/7 and 7/7: per-CPU deltas in a safe zone, a sum under a lock
 * outside it.
 *
 * A charge goes to the CPU's delta while the count is farther from the limit than all deltas together can be.  Nearer,
 * the charge takes the counter's lock and sums.  The counter then goes global: all charges take the lock until an
 * uncharge finds the count far enough again.
 *
 * Slips of the posted patches:
 *  - the zone is written `limit + ncpus * batch`, so usage may exceed the limit by that sum; here it is a minus, as
 *    the reviewer noted (-DRFC_AS_POSTED keeps the plus, to show that the checker finds it);
 *  - batch is in the counter's unit and res_counters count bytes, so each page would be folded at once.  Here the unit
 *    is the page, as the cover letter suggests;
 *  - in global mode the deltas are still summed at each charge, although no process adds to them: kept.
 *
 * Accepted: nothing keeps the zone between the comparison and the addition.  A process that loses its CPU there adds to
 * a counter that others have filled meanwhile, so usage may exceed a limit by one charge of each CPU.
 */
#include "percpu.h"

#ifdef RFC_AS_POSTED
#define ZONE_SIGN 1
#else
#define ZONE_SIGN -1
#endif

typedef struct counter {
    percpu_counter sum;
    int64_t limit, zone, max_usage, failcnt;
    bool global;
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
        c->zone = c->limit + ZONE_SIGN * t->processes * BATCH;
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

static bool add_locked(counter *c, int process, int64_t amount)
{
    lock(&c->sum.lock);
    int64_t usage = percpu_sum(&c->sum) + amount;
    if (!c->global && amount > 0 && usage > c->zone)
        __atomic_store_n(&c->global, true, __ATOMIC_RELAXED);
    else if (c->global && amount < 0 && usage < c->zone)
        __atomic_store_n(&c->global, false, __ATOMIC_RELAXED);
    bool fits = amount < 0 || usage <= c->limit;
    if (fits) {
        percpu_fold(&c->sum, process, amount);
        if (usage > c->max_usage)
            c->max_usage = usage;
    } else {
        c->failcnt++;
    }
    unlock(&c->sum.lock);
    return fits;
}

static inline bool add(counter *c, int process, int64_t amount)
{
    bool global = __atomic_load_n(&c->global, __ATOMIC_RELAXED);
    if (!global && (amount < 0 || percpu_read(&c->sum) + amount < c->zone)) {
        percpu_add(&c->sum, process, amount);
        return true;
    }
    return add_locked(c, process, amount);
}

static inline bool charge(seat *s, int64_t amount)
{
    for (counter *c = s->leaf; c; c = c->parent)
        if (!add(c, s->process, amount)) {
            for (counter *u = s->leaf; u != c; u = u->parent)
                add(u, s->process, -amount);
            return false;
        }
    return true;
}

static inline void uncharge(seat *s, int64_t amount)
{
    for (counter *c = s->leaf; c; c = c->parent)
        add(c, s->process, -amount);
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

const model rfc = {
    .name = "RFC",
    .source = "RFC 5/7 and 7/7 (2012): per-CPU deltas in a safe zone, a sum under the lock beyond it",
    .accepts = "a limit may be passed by one charge of each CPU; the peak is noted late, by a batch of each CPU",
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
