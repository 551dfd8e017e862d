/*
 * stress.c - many threads, then many processes, do everything at once to one tree.
 *
 * Each worker keeps a ledger of the operations that it has begun and finished, in numbers that only grow. From the
 * ledgers, the bounds of a group's usage follow at any moment, without stopping the workers and without the engine:
 *
 *   charges finished before - uncharges begun after  <=  usage
 *   usage  <=  charges begun after - uncharges finished before
 *
 * Here before and after are the two sides of one read. This is the promise of the precise sum; when all workers stand
 * still, both bounds are the same number. A worker that is killed in an operation leaves exactly that operation open.
 *
 * The resource STRICT is never charged with nofail, so usage <= limit always holds and failcnt is the number of
 * refusals. All workers charge WILD with nofail, reset it and empty it; there only the sums are checked.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "trial.h"

enum { STRICT, WILD, RESOURCES };
enum {
    WORKERS_MAX = 16,
    GROUPS_MAX = 64, /* a subtree is a bit mask in one word */
    REGION_GROUPS = 128,
    OTHER_GROUPS = 14,
    CHARGERS = 6,
    SHARED = 2,
    STRICT_LIMIT = 48 << 10, /* of the root, for each worker */
    PATIENCE_S = 60,
};

/* ---- ledgers ---------------------------------------------------------------- */

typedef struct tally {
    _Atomic uint64_t in_begun, in_finished, out_begun, out_finished;
} tally;

enum { KEEP_NO, KEEP_YES, KEEP_MAYBE };

typedef struct ledger {
    tally cell[GROUPS_MAX][RESOURCES];      /* held by the holders of the worker */
    tally pot[GROUPS_MAX][RESOURCES];       /* given to the group itself */
    tally temporary[GROUPS_MAX][RESOURCES]; /* in temporary groups below this one */
    _Atomic uint64_t refused[GROUPS_MAX];   /* only STRICT */
    _Atomic int daring;                     /* a refusal may have happened that is not counted yet */
    _Atomic int keep;
    _Atomic uint64_t operations;
} ledger;

static void in_begins(tally *t, int64_t amount)
{
    atomic_fetch_add(&t->in_begun, (uint64_t)amount);
}

static void out_begins(tally *t, int64_t amount)
{
    atomic_fetch_add(&t->out_begun, (uint64_t)amount);
}

/* An operation that failed counts as done and undone, in an order that keeps both bounds true. */
static void in_ends(tally *t, int64_t amount, bool done)
{
    if (!done)
        atomic_fetch_add(&t->out_begun, (uint64_t)amount);
    atomic_fetch_add(&t->in_finished, (uint64_t)amount);
    if (!done)
        atomic_fetch_add(&t->out_finished, (uint64_t)amount);
}

static void out_ends(tally *t, int64_t amount, bool done)
{
    if (!done)
        atomic_fetch_add(&t->in_begun, (uint64_t)amount);
    atomic_fetch_add(&t->out_finished, (uint64_t)amount);
    if (!done)
        atomic_fetch_add(&t->in_finished, (uint64_t)amount);
}

typedef struct bounds {
    int64_t low, high;
} bounds;

/* Of a worker that stands still or is dead. */
static bounds bounds_of(tally *t)
{
    uint64_t in_begun = atomic_load(&t->in_begun), in_finished = atomic_load(&t->in_finished);
    uint64_t out_begun = atomic_load(&t->out_begun), out_finished = atomic_load(&t->out_finished);
    return (bounds){ (int64_t)(in_finished - out_begun), (int64_t)(in_begun - out_finished) };
}

static void add_bounds(bounds *sum, bounds other)
{
    sum->low += other.low;
    sum->high += other.high;
}

/* ---- the world -------------------------------------------------------------- */

typedef struct group {
    fsm_id id;
    int parent;
    int depth;
    int owner;        /* the only worker that charges STRICT here; -1: all */
    bool is_private;  /* a leaf that no other worker touches */
    bool empties;     /* its owner also calls force_empty on STRICT */
    int64_t constant; /* its STRICT limit, which never changes; -1: it changes */
    uint64_t subtree; /* bit i: group i is in the subtree */
} group;

/* Shared by all workers, threads or processes. Only the parent writes what is not atomic, before they start. */
static struct world {
    int groups, workers;
    group group[GROUPS_MAX];
    _Atomic bool stop;
    _Atomic int stopped;
    struct {
        _Atomic fsm_id holder; /* 0: not yet */
        _Atomic uint64_t charges;
        _Atomic bool ended, over;
    } duel;
    ledger ledger[WORKERS_MAX];
} *world;

/* The final amounts of ended workers, for the parent. */
static bounds settled_pot[GROUPS_MAX][RESOURCES];
static bounds settled_refused[GROUPS_MAX];

static int64_t seen[GROUPS_MAX]; /* the highest STRICT usage that was read */
static fsm_events counted[GROUPS_MAX][RESOURCES];

static fsm_charger shared_charger[SHARED];
static int shared_group[SHARED], shared_resource[SHARED];

static bool is_below(int g, int ancestor)
{
    return world->group[ancestor].subtree >> g & 1;
}

static int group_of_id(fsm_id id)
{
    for (int g = 0; g < world->groups; g++)
        if (world->group[g].id == id)
            return g;
    return -1;
}

static void plant(fsm_region *region, random_source *random, int depth, int workers)
{
    int chain = depth, shrubs = chain + OTHER_GROUPS;
    world->workers = workers;
    world->groups = shrubs + workers;
    for (int g = 0; g < world->groups; g++) {
        group *it = &world->group[g];
        it->parent = g == 0 ? 0 : g < chain ? g - 1 : (int)random_below(random, (uint64_t)(g < shrubs ? g : shrubs));
        while (g && world->group[it->parent].depth + 1 >= depth)
            it->parent = world->group[it->parent].parent;
        it->depth = g ? world->group[it->parent].depth + 1 : 0;
        it->is_private = g >= shrubs;
        it->empties = g && g % 4 == 3 && !it->is_private;
        it->owner = it->is_private ? g - shrubs : it->empties ? g % workers : -1;
        it->id = FSM_ROOT;
        it->subtree = 0;
        char name[32];
        int length = snprintf(name, sizeof name, "g%d", g);
        if (g)
            expect(fsm_mkdir(region, world->group[it->parent].id, name, (size_t)length, 0755, 0, 0, 1, &it->id),
                   "mkdir");
        for (int up = g;; up = world->group[up].parent) {
            world->group[up].subtree |= (uint64_t)1 << g;
            if (up == 0)
                break;
        }
        it->constant = -1;
        if (g == 0)
            it->constant = (int64_t)STRICT_LIMIT * workers;
        else if (g % 2 == 0)
            it->constant =
                random_below(random, 3) ? 1 + (int64_t)random_below(random, (uint64_t)STRICT_LIMIT * 2) : FSM_UNLIMITED;
        if (it->constant >= 0)
            expect(fsm_set_limit(region, it->id, STRICT, it->constant), "set_limit");
    }
}

/* ---- a worker --------------------------------------------------------------- */

typedef struct own_charger {
    fsm_charger charger;
    int group, resource;
    int64_t held;
} own_charger;

typedef struct worker {
    int slot;
    fsm_region *region;
    random_source random;
    ledger *ledger;
    fsm_id holder;
    bool keep;
    own_charger own[CHARGERS];
    own_charger *shared; /* a charger that another thread shares, or NULL */
    unsigned serial;
    fsm_id watches[2];
    size_t watching;
} worker;

/* -ENOMEM must come from an ancestor, with true values. */
static void count_refusal(worker *w, int g, int resource, int64_t amount, fsm_id temporary)
{
    const fsm_fault *fault = fsm_last_fault();
    int refuser = group_of_id(fault->group);
    if (refuser >= 0 ? !is_below(g, refuser) : fault->group != temporary)
        violation("a charge to group %d was refused by %" PRIx64 ", which is no ancestor", g, fault->group);
    if ((__int128)fault->usage + amount <= fault->limit)
        violation("group %d refused %" PRId64 " with usage %" PRId64 " and limit %" PRId64, refuser, amount,
                  fault->usage, fault->limit);
    if (refuser >= 0 && resource == STRICT)
        atomic_fetch_add(&w->ledger->refused[refuser], 1);
}

static void dare(worker *w, int resource)
{
    if (resource == STRICT)
        atomic_store(&w->ledger->daring, 1);
}

static void dared(worker *w, int resource)
{
    if (resource == STRICT)
        atomic_store(&w->ledger->daring, 0);
}

/* False: refused. */
static bool charge(worker *w, own_charger *own, tally *t, int64_t amount, fsm_id temporary)
{
    in_begins(t, amount);
    dare(w, own->resource);
    int result = fsm_charge(&own->charger, amount);
    if (result == -ENOMEM)
        count_refusal(w, own->group, own->resource, amount, temporary);
    else
        expect(result, "charge");
    dared(w, own->resource);
    in_ends(t, amount, result == 0);
    own->held += result == 0 ? amount : 0;
    return result == 0;
}

static void uncharge(worker *w, own_charger *own, tally *t, int64_t amount)
{
    (void)w;
    out_begins(t, amount);
    int result = fsm_uncharge(&own->charger, amount);
    bool fits = amount <= own->held;
    if (fits ? result != 0 : result != -ERANGE)
        violation("uncharge of %" PRId64 " with %" PRId64 " held: %s", amount, own->held, strerror(-result));
    if (!fits && fsm_last_fault()->held != own->held)
        violation("not held: the fault says %" PRId64 ", it is %" PRId64, fsm_last_fault()->held, own->held);
    out_ends(t, amount, fits);
    own->held -= fits ? amount : 0;
}

static void burst(worker *w)
{
    own_charger *own = &w->own[random_below(&w->random, CHARGERS)];
    tally *t = &w->ledger->cell[own->group][own->resource];
    unsigned bits = random_below(&w->random, 4) ? 12 : 17;
    for (uint64_t left = 1 + random_below(&w->random, 64); left; left--) {
        int64_t amount = random_magnitude(&w->random, bits);
        if (own->held < amount || random_bits(&w->random) & 1)
            charge(w, own, t, amount, 0);
        else
            uncharge(w, own, t, random_below(&w->random, 8) ? amount : own->held);
    }
    int64_t held;
    expect(fsm_held(&own->charger, &held), "held");
    if (held != own->held)
        violation("worker %d holds %" PRId64 " in group %d, the engine says %" PRId64, w->slot, own->held, own->group,
                  held);
}

/* Two resources at once, each up or down: both or neither. */
static void change_two(worker *w)
{
    own_charger *own[RESOURCES] = { 0 };
    fsm_charger *chargers[RESOURCES];
    tally *t[RESOURCES];
    int64_t amounts[RESOURCES];
    bool fits = true;
    for (int i = 0; i < CHARGERS; i++)
        own[w->own[i].resource] = &w->own[i];
    if (!own[STRICT] || !own[WILD])
        return;
    for (int r = 0; r < RESOURCES; r++) {
        chargers[r] = &own[r]->charger;
        t[r] = &w->ledger->cell[own[r]->group][r];
        amounts[r] = random_magnitude(&w->random, 14) * (random_bits(&w->random) & 1 ? 1 : -1);
        if (amounts[r] < 0 && random_below(&w->random, 4))
            amounts[r] = -(own[r]->held / 2);
        fits &= own[r]->held + amounts[r] >= 0;
        if (amounts[r] < 0)
            out_begins(t[r], -amounts[r]);
        else
            in_begins(t[r], amounts[r]);
    }
    dare(w, STRICT);
    int result = fsm_change(chargers, amounts, RESOURCES);
    if (fits ? result != 0 && result != -ENOMEM : result != -ERANGE)
        violation("a change by %" PRId64 " and %" PRId64 " with %" PRId64 " and %" PRId64 " held: %s", amounts[STRICT],
                  amounts[WILD], own[STRICT]->held, own[WILD]->held, strerror(-result));
    uint32_t which = fsm_last_fault()->which;
    if (result == -ENOMEM)
        count_refusal(w, own[which]->group, (int)which, amounts[which], 0);
    dared(w, STRICT);
    for (int r = 0; r < RESOURCES; r++) {
        if (amounts[r] < 0)
            out_ends(t[r], -amounts[r], result == 0);
        else
            in_ends(t[r], amounts[r], result == 0);
        own[r]->held += result == 0 ? amounts[r] : 0;
    }
}

/* A request for one or both resources waits a moment: it is granted all of it, or nothing. */
static void wait_in_queue(worker *w)
{
    own_charger *own[RESOURCES];
    fsm_charger *chargers[RESOURCES];
    tally *t[RESOURCES];
    int64_t amounts[RESOURCES];
    fsm_id request;
    size_t n = 0;
    uint64_t wanted = 1 + random_below(&w->random, 3);
    for (int r = 0; r < RESOURCES; r++) {
        uint64_t first = random_below(&w->random, CHARGERS);
        for (uint64_t i = first; i < first + CHARGERS && (wanted >> r & 1); i++)
            if (w->own[i % CHARGERS].resource == r) {
                own[n] = &w->own[i % CHARGERS];
                chargers[n] = &own[n]->charger;
                t[n] = &w->ledger->cell[own[n]->group][r];
                amounts[n] = 1 + random_magnitude(&w->random, random_below(&w->random, 4) ? 14 : 17);
                in_begins(t[n], amounts[n]);
                n++;
                break;
            }
    }
    if (n == 0)
        return;
    int result = fsm_request(chargers, amounts, n, &request);
    if (result == -EINPROGRESS) {
        int answer = fsm_await_request(w->region, request, random_magnitude(&w->random, 21));
        result = fsm_end_request(w->region, request);
        if (answer && answer != -EAGAIN && answer != -EINTR)
            expect(answer, "await_request");
        if (result && (result != -ECANCELED || answer == 0))
            violation("a request that was answered %d ends with %d", answer, result);
    } else {
        expect(result, "request");
    }
    for (size_t i = 0; i < n; i++) {
        in_ends(t[i], amounts[i], result == 0);
        own[i]->held += result == 0 ? amounts[i] : 0;
    }
}

static void shared_burst(worker *w)
{
    int which = w->slot / 2 % SHARED;
    fsm_charger *charger = &shared_charger[which];
    int g = shared_group[which], resource = shared_resource[which];
    tally *t = &w->ledger->cell[g][resource];
    for (uint64_t left = 1 + random_below(&w->random, 64); left; left--) {
        int64_t amount = random_magnitude(&w->random, 12);
        if (random_bits(&w->random) & 1) {
            in_begins(t, amount);
            dare(w, resource);
            int result = fsm_charge(charger, amount);
            if (result == -ENOMEM)
                count_refusal(w, g, resource, amount, 0);
            else
                expect(result, "charge of a shared charger");
            dared(w, resource);
            in_ends(t, amount, result == 0);
        } else {
            out_begins(t, amount);
            int result = fsm_uncharge(charger, amount);
            if (result && result != -ERANGE)
                expect(result, "uncharge of a shared charger");
            out_ends(t, amount, result == 0);
        }
    }
}

static void ask_the_impossible(worker *w)
{
    own_charger *own = &w->own[random_below(&w->random, CHARGERS)];
    uncharge(w, own, &w->ledger->cell[own->group][own->resource], own->held + 1 + random_magnitude(&w->random, 40));
    if (own->resource != STRICT)
        return;
    int64_t amount = FSM_UNLIMITED - random_magnitude(&w->random, 20);
    dare(w, STRICT);
    if (fsm_charge(&own->charger, amount) != -ENOMEM)
        violation("a charge of %" PRId64 " passed a limit", amount);
    count_refusal(w, own->group, STRICT, amount, 0);
    dared(w, STRICT);
}

static void charge_nofail(worker *w)
{
    own_charger *own = &w->own[random_below(&w->random, CHARGERS)];
    if (own->resource == STRICT)
        return;
    tally *t = &w->ledger->cell[own->group][own->resource];
    int64_t amount = random_magnitude(&w->random, 18);
    bool exceeded;
    in_begins(t, amount);
    expect(fsm_charge_nofail(&own->charger, amount, &exceeded), "charge_nofail");
    in_ends(t, amount, true);
    own->held += amount;
    if (exceeded && (__int128)fsm_last_fault()->usage + amount <= fsm_last_fault()->limit)
        violation("nofail of %" PRId64 " says exceeded with usage %" PRId64 " and limit %" PRId64, amount,
                  fsm_last_fault()->usage, fsm_last_fault()->limit);
    while (own->held > 1 << 20)
        uncharge(w, own, t, own->held / 2);
}

static bool may_use_pot(const worker *w, int g, int resource)
{
    return resource == WILD || world->group[g].owner == -1 || world->group[g].owner == w->slot;
}

static int move(worker *w, own_charger *own, int64_t amount)
{
    fsm_charger *charger = &own->charger;
    if (random_bits(&w->random) & 1)
        return fsm_move(&charger, &amount, 1);
    return amount >= 0 ? fsm_give(charger, amount) : fsm_take(charger, -amount);
}

static void give_or_take(worker *w)
{
    own_charger *own = &w->own[random_below(&w->random, CHARGERS)];
    tally *cell = &w->ledger->cell[own->group][own->resource], *pot = &w->ledger->pot[own->group][own->resource];
    if (!may_use_pot(w, own->group, own->resource))
        return;
    int64_t amount = random_magnitude(&w->random, 12);
    if (random_bits(&w->random) & 1) {
        out_begins(cell, amount);
        in_begins(pot, amount);
        int result = move(w, own, amount);
        bool fits = amount <= own->held;
        if (fits ? result != 0 : result != -ERANGE)
            violation("give of %" PRId64 " with %" PRId64 " held: %s", amount, own->held, strerror(-result));
        in_ends(pot, amount, fits);
        out_ends(cell, amount, fits);
        own->held -= fits ? amount : 0;
    } else {
        in_begins(cell, amount);
        out_begins(pot, amount);
        int result = move(w, own, -amount);
        if (result && result != -ERANGE)
            expect(result, "take");
        out_ends(pot, amount, result == 0);
        in_ends(cell, amount, result == 0);
        own->held += result == 0 ? amount : 0;
    }
}

static void charge_the_pot(worker *w)
{
    int g = (int)random_below(&w->random, (uint64_t)world->groups), resource = random_bits(&w->random) & 1;
    fsm_id id = world->group[g].id;
    tally *pot = &w->ledger->pot[g][resource];
    if (!may_use_pot(w, g, resource))
        return;
    int64_t amount = random_magnitude(&w->random, 12);
    if (random_below(&w->random, 3) == 0) {
        in_begins(pot, amount);
        dare(w, resource);
        int result = fsm_common_charge(w->region, id, resource, amount);
        if (result == -ENOMEM)
            count_refusal(w, g, resource, amount, 0);
        else
            expect(result, "common_charge");
        dared(w, resource);
        in_ends(pot, amount, result == 0);
    } else {
        out_begins(pot, amount);
        int result = fsm_common_uncharge(w->region, id, resource, amount);
        if (result && result != -ERANGE)
            expect(result, "common_uncharge");
        out_ends(pot, amount, result == 0);
    }
}

static void empty_by_force(worker *w)
{
    int g = (int)random_below(&w->random, (uint64_t)world->groups), resource = random_bits(&w->random) & 1;
    fsm_id id = world->group[g].id;
    if (resource == WILD) {
        expect(fsm_force_empty(w->region, id, WILD), "force_empty");
        return;
    }
    if (!world->group[g].empties || world->group[g].owner != w->slot)
        return;
    fsm_stat stat; /* no other worker touches what this group holds, so all of it goes */
    expect(fsm_get_stat(w->region, id, STRICT, &stat), "stat");
    tally *pot = &w->ledger->pot[g][STRICT];
    out_begins(pot, stat.common);
    expect(fsm_force_empty(w->region, id, STRICT), "force_empty");
    out_ends(pot, stat.common, true);
}

static void turn_a_limit(worker *w)
{
    int g = (int)random_below(&w->random, (uint64_t)world->groups), resource = random_bits(&w->random) & 1;
    fsm_id id = world->group[g].id;
    if (random_below(&w->random, 4) == 0) {
        fsm_mark marks[2] = { { random_magnitude(&w->random, 20), random_bits(&w->random) & FSM_BELOW },
                              { (int64_t)random_below(&w->random, 101), FSM_PERCENT } };
        fsm_id made[2];
        int result = fsm_watch(w->region, id, resource, marks, 2, w->watches, w->watching, made);
        if (result != -ENOSPC) { /* the watches of killed workers stay */
            expect(result, "watch");
            memcpy(w->watches, made, sizeof made);
            w->watching = 2;
        }
        return;
    }
    if (random_below(&w->random, 4) == 0) {
        expect(fsm_set_soft_limit(w->region, id, resource, random_magnitude(&w->random, 20)), "set_soft_limit");
        return;
    }
    if (world->group[g].constant >= 0)
        return;
    int64_t limit = random_below(&w->random, 3) ? random_magnitude(&w->random, 20) : FSM_UNLIMITED;
    if (random_below(&w->random, 3) == 0)
        expect(fsm_usage(w->region, id, resource, &limit), "usage");
    int result = fsm_set_limit(w->region, id, resource, limit);
    if (result == -EBUSY) {
        if (fsm_last_fault()->usage <= limit)
            violation("a limit of %" PRId64 " is EBUSY with usage %" PRId64, limit, fsm_last_fault()->usage);
    } else
        expect(result, "set_limit");
}

static void reset(worker *w)
{
    fsm_id id = world->group[random_below(&w->random, (uint64_t)world->groups)].id;
    if (random_bits(&w->random) & 1)
        expect(fsm_reset_failcnt(w->region, id, WILD), "reset_failcnt");
    else
        expect(fsm_reset_max_usage(w->region, id, WILD), "reset_max_usage");
}

/*
 * If only this worker charges in a group, its usage is at any moment what the worker holds there, with or without
 * stock.
 */
static void check_own_group(worker *w)
{
    int64_t usage;
    own_charger *own = &w->own[0];
    uncharge(w, own, &w->ledger->cell[own->group][STRICT], own->held / 2);
    expect(fsm_usage(w->region, world->group[own->group].id, STRICT, &usage), "usage");
    bounds pot = bounds_of(&w->ledger->pot[own->group][STRICT]);
    add_bounds(&pot, settled_pot[own->group][STRICT]);
    if (usage < own->held + pot.low || usage > own->held + pot.high)
        violation("only worker %d charges group %d and holds %" PRId64 " (its pot %" PRId64 " to %" PRId64
                  "), the usage is %" PRId64,
                  w->slot, own->group, own->held, pot.low, pot.high, usage);
}

static void join(worker *w, own_charger *own)
{
    fsm_id id = world->group[own->group].id;
    if (random_bits(&w->random) & 1)
        expect(fsm_holder_join(w->region, w->holder, id), "holder_join");
    else
        expect(fsm_holder_join_one(w->region, w->holder, id, (uint32_t)own->resource), "holder_join_one");
    expect(fsm_charger_bind(&own->charger, w->region, w->holder, id, (uint32_t)own->resource), "charger_bind");
}

static void leave_and_join(worker *w)
{
    int g = w->own[random_below(&w->random, CHARGERS)].group;
    bool keep = random_bits(&w->random) & 1;
    for (int i = 0; i < CHARGERS; i++) {
        own_charger *own = &w->own[i];
        if (own->group != g)
            continue;
        fsm_charger_unbind(&own->charger);
        if (fsm_charger_bound(&own->charger) || fsm_charge(&own->charger, 1) != -ENOTCONN)
            violation("an unbound charger charges");
        out_begins(&w->ledger->cell[g][own->resource], own->held);
        if (keep)
            in_begins(&w->ledger->pot[g][own->resource], own->held);
    }
    expect(fsm_holder_leave(w->region, w->holder, world->group[g].id, keep ? FSM_KEEP : 0), "holder_leave");
    for (int i = 0; i < CHARGERS; i++) {
        own_charger *own = &w->own[i];
        if (own->group != g)
            continue;
        if (keep)
            in_ends(&w->ledger->pot[g][own->resource], own->held, true);
        out_ends(&w->ledger->cell[g][own->resource], own->held, true);
        own->held = 0;
        int result = fsm_charger_bind(&own->charger, w->region, w->holder, world->group[g].id, (uint32_t)own->resource);
        if (result != -ENODEV || fsm_charger_bound(&own->charger))
            violation("bound to group %d, which the holder has left: %s", g, strerror(-result));
    }
    for (int i = 0; i < CHARGERS; i++)
        if (w->own[i].group == g)
            join(w, &w->own[i]);
}

static void change_my_mind(worker *w)
{
    atomic_store(&w->ledger->keep, KEEP_MAYBE);
    w->keep = !w->keep;
    expect(fsm_holder_set_flags(w->region, w->holder, w->keep ? FSM_KEEP : 0), "holder_set_flags");
    atomic_store(&w->ledger->keep, w->keep ? KEEP_YES : KEEP_NO);
}

static void rename_a_group(worker *w)
{
    int g = 1 + (int)random_below(&w->random, (uint64_t)world->groups - 1);
    char name[32];
    int length = snprintf(name, sizeof name, "g%d-%u", g, w->serial++);
    expect(fsm_rename(w->region, world->group[g].id, name, (size_t)length, 2), "rename");
}

/* The life of a group, from mkdir to -ENODEV. */
static void make_and_remove(worker *w)
{
    int parent = (int)random_below(&w->random, (uint64_t)(world->groups - world->workers)); /* not a private one */
    char name[64], taken[FSM_NAME_MAX + 1];
    size_t length = (size_t)snprintf(name, sizeof name, "t%d-%u", w->slot, w->serial++), taken_length;
    fsm_id id, found;
    expect(fsm_mkdir(w->region, world->group[parent].id, name, length, 0755, 1, 2, 3, &id), "mkdir");
    if (fsm_mkdir(w->region, world->group[parent].id, name, length, 0755, 1, 2, 3, &found) != -EEXIST)
        violation("made %s twice", name);
    if (random_bits(&w->random) & 1)
        expect(fsm_set_limit(w->region, id, STRICT, random_magnitude(&w->random, 14)), "set_limit");
    own_charger own[RESOURCES];
    for (int r = 0; r < RESOURCES; r++) {
        own[r] = (own_charger){ .group = parent, .resource = r };
        fsm_charger_init(&own[r].charger);
        expect(fsm_holder_join_one(w->region, w->holder, id, (uint32_t)r), "holder_join_one");
        expect(fsm_charger_bind(&own[r].charger, w->region, w->holder, id, (uint32_t)r), "charger_bind");
        for (uint64_t left = random_below(&w->random, 8); left; left--)
            charge(w, &own[r], &w->ledger->temporary[parent][r], random_magnitude(&w->random, 12), id);
    }
    length = (size_t)snprintf(name, sizeof name, "t%d-%u", w->slot, w->serial++);
    expect(fsm_rename(w->region, id, name, length, 4), "rename");
    expect(fsm_lookup(w->region, world->group[parent].id, name, length, &found), "lookup");
    expect(fsm_name(w->region, id, taken, &taken_length), "name");
    if (found != id || taken_length != length || memcmp(taken, name, length) != 0)
        violation("%s is found as another group, or under another name", name);
    if (fsm_rmdir(w->region, id, 5) != -EBUSY)
        violation("removed %s, which has a holder", name);
    bool keep = random_bits(&w->random) & 1;
    for (int r = 0; r < RESOURCES; r++)
        out_begins(&w->ledger->temporary[parent][r], own[r].held);
    for (int r = 0; r < RESOURCES; r++)
        fsm_charger_unbind(&own[r].charger);
    expect(fsm_holder_leave(w->region, w->holder, id, keep ? FSM_KEEP : 0), "holder_leave");
    for (int r = 0; r < RESOURCES; r++) {
        tally *t = &w->ledger->temporary[parent][r];
        fsm_stat stat;
        expect(fsm_get_stat(w->region, id, (uint32_t)r, &stat), "stat");
        if (stat.holders || stat.stock || stat.usage != stat.common || stat.common != (keep ? own[r].held : 0))
            violation("%s was left%s with %" PRId64 " held: usage %" PRId64 " common %" PRId64 " stock %" PRId64, name,
                      keep ? " keeping" : "", own[r].held, stat.usage, stat.common, stat.stock);
        if (keep && own[r].held) {
            if (fsm_rmdir(w->region, id, 5) != -EBUSY)
                violation("removed %s, which has usage", name);
            expect(fsm_common_uncharge(w->region, id, (uint32_t)r, own[r].held), "common_uncharge");
        }
        out_ends(t, own[r].held, true);
    }
    expect(fsm_rmdir(w->region, id, 5), "rmdir");
    if (fsm_holder_join(w->region, w->holder, id) != -ENODEV)
        violation("joined %s, which was removed", name);
    int64_t usage;
    if (fsm_usage(w->region, id, STRICT, &usage) != -ENODEV)
        violation("a removed group still has a usage");
    if (fsm_lookup(w->region, world->group[parent].id, name, length, &found) != -ENOENT)
        violation("a removed group is still found");
}

static void browse(worker *w)
{
    int g = (int)random_below(&w->random, (uint64_t)world->groups);
    fsm_id id = world->group[g].id, up;
    fsm_attr attr = { .mode = 0600, .uid = 7, .gid = 8 };
    fsm_holder_info holders[8];
    fsm_child children[4];
    uint32_t count;
    expect(fsm_parent(w->region, id, &up), "parent");
    if (up != world->group[world->group[g].parent].id)
        violation("group %d has another parent", g);
    expect(fsm_child_count(w->region, id, &count), "child_count");
    expect(fsm_children(w->region, id, children, 4), "children");
    expect(fsm_counter_holders(w->region, id, random_bits(&w->random) & 1, holders, 8), "counter_holders");
    expect(fsm_set_attr(w->region, id, 1, FSM_SET_MODE | FSM_SET_UID, &attr, 5), "set_attr");
    expect(fsm_get_attr(w->region, id, 1, &attr), "get_attr");
    if (attr.mode != 0600 || attr.uid != 7)
        violation("attributes of group %d are mixed up", g);
}

static void begin(worker *w, int slot, fsm_region *region, uint64_t seed)
{
    *w = (worker){ .slot = slot, .region = region, .random = { seed }, .ledger = &world->ledger[slot] };
    fsm_set_patience((int64_t)PATIENCE_S * 1000000000);
    w->keep = random_bits(&w->random) & 1;
    atomic_store(&w->ledger->keep, w->keep ? KEEP_YES : KEEP_NO);
    pid_t pid = getpid();
    expect(fsm_holder_create(region, pid, fsm_process_start_time(pid), FSM_PROCESS, w->keep ? FSM_KEEP : 0, &w->holder),
           "holder_create");
    for (int i = 0; i < CHARGERS; i++) {
        own_charger *own = &w->own[i];
        fsm_charger_init(&own->charger);
        bool again;
        do {
            own->group =
                i ? (int)random_below(&w->random, (uint64_t)world->groups) : world->groups - world->workers + slot;
            own->resource = i ? (int)random_below(&w->random, RESOURCES) : STRICT;
            int owner = world->group[own->group].owner;
            again = owner != -1 && owner != slot;
            for (int j = 0; j < i; j++)
                again |= w->own[j].group == own->group && w->own[j].resource == own->resource;
        } while (again);
        join(w, own);
    }
}

static void act(worker *w)
{
    atomic_fetch_add(&w->ledger->operations, 1);
    switch (random_below(&w->random, 37)) {
    case 0:
        make_and_remove(w);
        break;
    case 1:
        rename_a_group(w);
        break;
    case 2:
        leave_and_join(w);
        break;
    case 3:
        change_my_mind(w);
        break;
    case 4:
        ask_the_impossible(w);
        break;
    case 5:
        browse(w);
        break;
    case 6:
    case 7:
        charge_nofail(w);
        break;
    case 8:
    case 9:
        turn_a_limit(w);
        break;
    case 10:
    case 11:
    case 12:
        give_or_take(w);
        break;
    case 13:
    case 14:
        charge_the_pot(w);
        break;
    case 15:
        empty_by_force(w);
        break;
    case 16:
        reset(w);
        break;
    case 17:
    case 18:
        check_own_group(w);
        break;
    case 19:
    case 20:
    case 21:
    case 22:
        if (shared_charger[0].region)
            shared_burst(w);
        break;
    case 23:
    case 24:
        change_two(w);
        break;
    case 25:
    case 26:
    case 27:
        wait_in_queue(w);
        break;
    default:
        burst(w);
        break;
    }
}

/* ---- observers -------------------------------------------------------------- */

typedef enum moment { BEFORE, AFTER } moment;

/* One side of a read: both sums that belong to it. */
static void sum_ledgers(uint64_t subtree, int resource, moment when, uint64_t *in, uint64_t *out)
{
    *in = *out = 0;
    for (int slot = 0; slot < world->workers; slot++)
        for (int g = 0; g < world->groups; g++) {
            if (!(subtree >> g & 1))
                continue;
            ledger *l = &world->ledger[slot];
            tally *all[] = { &l->cell[g][resource], &l->pot[g][resource], &l->temporary[g][resource] };
            for (int i = 0; i < 3; i++) {
                *in += atomic_load(when == BEFORE ? &all[i]->in_finished : &all[i]->in_begun);
                *out += atomic_load(when == BEFORE ? &all[i]->out_finished : &all[i]->out_begun);
            }
        }
}

static void check_stat(int g, int resource, const fsm_stat *s)
{
    if (resource == STRICT && s->usage > s->limit)
        violation("group %d: usage %" PRId64 " above the limit %" PRId64, g, s->usage, s->limit);
    int64_t margin = s->usage < s->limit ? s->limit - s->usage : 0;
    int64_t excess = s->usage > s->soft_limit ? s->usage - s->soft_limit : 0;
    if (s->usage < 0 || s->stock < 0 || s->common < 0 || s->usage_local < s->common || s->usage < s->usage_local ||
        s->reserved != s->usage + s->stock || s->margin != margin || s->soft_limit_excess != excess ||
        s->hierarchical_limit > s->limit || s->hierarchical_margin > s->margin || s->max_usage < s->usage ||
        s->min_usage > s->usage || s->error_bound < 0 || s->failcnt < 0)
        violation("group %d resource %d contradicts itself: usage %" PRId64 " local %" PRId64 " common %" PRId64
                  " reserved %" PRId64 " stock %" PRId64 " limit %" PRId64 " margin %" PRId64 " max %" PRId64
                  " min %" PRId64 " error_bound %" PRId64 " failcnt %" PRId64,
                  g, resource, s->usage, s->usage_local, s->common, s->reserved, s->stock, s->limit, s->margin,
                  s->max_usage, s->min_usage, s->error_bound, s->failcnt);
}

/* The usage of a group in a snapshot; no usage there is below the sum of the usages of its children. */
static int64_t snapshot_usage(fsm_region *region, int g, int resource)
{
    int64_t usage = -1, within[REGION_GROUPS] = { 0 };
    fsm_counter_snapshot rows[REGION_GROUPS];
    int64_t n = fsm_snapshot(region, (uint32_t)resource, rows);
    expect(n, "snapshot");
    for (int64_t i = n - 1; i >= 0; i--) {
        if (rows[i].stat.usage < within[i])
            violation("row %" PRId64 " of %" PRId64 ": usage %" PRId64 " with %" PRId64 " within", i, n,
                      rows[i].stat.usage, within[i]);
        if (i > 0)
            within[rows[i].parent] += rows[i].stat.usage;
        if (rows[i].id == world->group[g].id)
            usage = rows[i].stat.usage;
    }
    return usage;
}

/* Event counts never fall, whatever is removed below. */
static void count_events(fsm_region *region, int g, int resource)
{
    fsm_events *before = &counted[g][resource], now;
    expect(fsm_get_events(region, world->group[g].id, (uint32_t)resource, &now), "get_events");
    if (now.limit < before->limit || now.soft_limit < before->soft_limit || now.threshold < before->threshold)
        violation("group %d resource %d: %" PRId64 ", %" PRId64 " and %" PRId64 " events, there were %" PRId64
                  ", %" PRId64 " and %" PRId64,
                  g, resource, now.limit, now.soft_limit, now.threshold, before->limit, before->soft_limit,
                  before->threshold);
    *before = now;
}

static void watch(fsm_region *region, random_source *random)
{
    int g = (int)random_below(random, (uint64_t)world->groups), resource = random_bits(random) & 1;
    group *it = &world->group[g];
    uint64_t in_finished, out_finished, in_begun, out_begun;
    bool whole = random_bits(random) & 1;
    fsm_stat stat = { 0 };
    int64_t usage;
    count_events(region, g, resource);
    sum_ledgers(it->subtree, resource, BEFORE, &in_finished, &out_finished);
    if (whole) {
        expect(fsm_get_stat(region, it->id, (uint32_t)resource, &stat), "stat");
        usage = stat.usage;
    } else if (random_bits(random) & 1)
        usage = snapshot_usage(region, g, resource);
    else
        expect(fsm_usage(region, it->id, (uint32_t)resource, &usage), "usage");
    sum_ledgers(it->subtree, resource, AFTER, &in_begun, &out_begun);
    if (whole)
        check_stat(g, resource, &stat);
    if (resource != STRICT)
        return;
    bounds can = { (int64_t)(in_finished - out_begun), (int64_t)(in_begun - out_finished) };
    for (int i = 0; i < world->groups; i++)
        if (it->subtree >> i & 1)
            add_bounds(&can, settled_pot[i][STRICT]);
    if (usage < can.low || usage > can.high)
        violation("group %d: usage %" PRId64 " is read, from %" PRId64 " to %" PRId64 " is possible", g, usage, can.low,
                  can.high);
    if (it->constant >= 0 && usage > it->constant)
        violation("group %d: usage %" PRId64 " above its constant limit %" PRId64, g, usage, it->constant);
    if (usage > seen[g])
        seen[g] = usage;
    if (whole && stat.max_usage < seen[g] - stat.error_bound)
        violation("group %d: max_usage %" PRId64 " error_bound %" PRId64 " but %" PRId64 " was seen", g, stat.max_usage,
                  stat.error_bound, seen[g]);
}

static void check_region(fsm_region *region, const char *when)
{
    int64_t findings = fsm_check(region, stderr);
    expect(findings, "check");
    if (findings)
        violation("%s, fsm_check finds these %" PRId64, when, findings);
}

/* No worker runs: every sum must be exact. settled: the amounts of ended workers. */
static void check_sums(fsm_region *region)
{
    int64_t usage[GROUPS_MAX][RESOURCES], below[GROUPS_MAX][RESOURCES] = { { 0 } };
    for (int g = world->groups - 1; g >= 0; g--) /* children come after their parents */
        for (int r = 0; r < RESOURCES; r++) {
            fsm_stat stat;
            fsm_holder_info holders[WORKERS_MAX + SHARED + 1];
            expect(fsm_get_stat(region, world->group[g].id, (uint32_t)r, &stat), "stat");
            check_stat(g, r, &stat);
            bounds held = { 0, 0 }, pot = settled_pot[g][r], refused = settled_refused[g];
            for (int slot = 0; slot < world->workers; slot++) {
                add_bounds(&held, bounds_of(&world->ledger[slot].cell[g][r]));
                add_bounds(&pot, bounds_of(&world->ledger[slot].pot[g][r]));
                int64_t count = (int64_t)atomic_load(&world->ledger[slot].refused[g]);
                add_bounds(&refused, (bounds){ count, count });
                bounds temporary = bounds_of(&world->ledger[slot].temporary[g][r]);
                if (temporary.low || temporary.high)
                    violation("the test itself lost a temporary group of worker %d", slot);
            }
            int64_t listed = 0, count = fsm_counter_holders(region, world->group[g].id, (uint32_t)r, holders,
                                                            sizeof holders / sizeof *holders);
            expect(count, "counter_holders");
            for (int64_t i = 0; i < count; i++)
                listed += holders[i].held;
            if (held.low != held.high || listed != held.low)
                violation("group %d resource %d: its holders hold %" PRId64 ", the workers say %" PRId64 " to %" PRId64,
                          g, r, listed, held.low, held.high);
            if (r == STRICT && (stat.common < pot.low || stat.common > pot.high))
                violation("group %d: holds %" PRId64 " itself, the workers say %" PRId64 " to %" PRId64, g, stat.common,
                          pot.low, pot.high);
            if (r == STRICT && (stat.failcnt < refused.low || stat.failcnt > refused.high))
                violation("group %d: failcnt %" PRId64 ", refusals %" PRId64 " to %" PRId64, g, stat.failcnt,
                          refused.low, refused.high);
            usage[g][r] = listed + stat.common + below[g][r];
            if (stat.usage != usage[g][r] || stat.usage_local != listed + stat.common)
                violation("group %d resource %d: usage %" PRId64 " local %" PRId64 " but %" PRId64 " held, %" PRId64
                          " its own, %" PRId64 " below",
                          g, r, stat.usage, stat.usage_local, listed, stat.common, below[g][r]);
            int64_t in_the_snapshot = snapshot_usage(region, g, r);
            if (in_the_snapshot != usage[g][r])
                violation("group %d resource %d: usage %" PRId64 " in a snapshot, not %" PRId64, g, r, in_the_snapshot,
                          usage[g][r]);
            count_events(region, g, r);
            if (g)
                below[world->group[g].parent][r] += usage[g][r];
        }
    check_region(region, "with nobody running");
}

/* The room left in a group, from the values that check_sums() has confirmed. */
static int64_t room_in(fsm_region *region, int g, uint32_t resource)
{
    int64_t room = FSM_UNLIMITED, usage, limit;
    for (int up = g;; up = world->group[up].parent) {
        expect(fsm_usage(region, world->group[up].id, resource, &usage), "usage");
        expect(fsm_get_limit(region, world->group[up].id, resource, &limit), "limit");
        if (limit < FSM_UNLIMITED && limit - usage < room)
            room = limit > usage ? limit - usage : 0;
        if (up == 0)
            return room;
    }
}

/*
 * No worker runs: a charge that fits succeeds, whichever holder has stock; one more is refused; a waiting request is
 * granted as soon as there is room.
 */
static void check_rooms(fsm_region *region)
{
    fsm_id holder, request;
    fsm_charger charger, *asking = &charger;
    int64_t least = 1;
    expect(fsm_holder_create(region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &holder),
           "holder_create");
    fsm_charger_init(&charger);
    for (int i = 0; i < world->groups * RESOURCES; i++) {
        int g = i / RESOURCES, resource = i % RESOURCES;
        fsm_id id = world->group[g].id;
        int64_t room = room_in(region, g, (uint32_t)resource);
        if (room == FSM_UNLIMITED)
            continue;
        expect(fsm_common_charge(region, id, (uint32_t)resource, room), "charge of all that fits");
        if (fsm_common_charge(region, id, (uint32_t)resource, 1) != -ENOMEM)
            violation("group %d resource %d: more fits than the %" PRId64 " that should", g, resource, room);
        int refuser = group_of_id(fsm_last_fault()->group);
        add_bounds(&settled_refused[refuser], (bounds){ resource == STRICT, resource == STRICT });
        expect(fsm_holder_join_one(region, holder, id, (uint32_t)resource), "holder_join_one");
        expect(fsm_charger_bind(&charger, region, holder, id, (uint32_t)resource), "charger_bind");
        if (fsm_request(&asking, &least, 1, &request) != -EINPROGRESS)
            violation("group %d resource %d: a request is granted where nothing fits", g, resource);
        expect(fsm_common_uncharge(region, id, (uint32_t)resource, room), "common_uncharge");
        if (fsm_end_request(region, request) != (room > 0 ? 0 : -ECANCELED))
            violation("group %d resource %d: a request for 1 is not granted, or granted with %" PRId64 " of room", g,
                      resource, room);
        fsm_charger_unbind(&charger);
        expect(fsm_holder_leave(region, holder, id, 0), "holder_leave");
    }
    expect(fsm_holder_end(region, holder), "holder_end");
    check_region(region, "after all that fits was charged");
}

/* The worker of this slot has ended, and its holder with it. */
static void settle(int slot)
{
    ledger *l = &world->ledger[slot];
    for (int g = 0; g < world->groups; g++)
        for (int r = 0; r < RESOURCES; r++) {
            bounds held = bounds_of(&l->cell[g][r]);
            add_bounds(&settled_pot[g][r], bounds_of(&l->pot[g][r]));
            if (l->keep != KEEP_NO)
                settled_pot[g][r].high += held.high;
            if (l->keep == KEEP_YES)
                settled_pot[g][r].low += held.low;
            if (r == STRICT) {
                int64_t refused = (int64_t)l->refused[g];
                add_bounds(&settled_refused[g], (bounds){ refused, refused + l->daring });
            }
        }
    uint64_t operations = l->operations;
    memset((void *)l, 0, sizeof *l);
    l->operations = operations;
}

/* Empties and removes everything. Afterwards the region is as it was in the beginning. */
static void clear(fsm_region *region)
{
    int64_t usage;
    for (int g = world->groups - 1; g >= 0; g--) {
        for (int r = 0; r < RESOURCES; r++)
            expect(fsm_force_empty(region, world->group[g].id, (uint32_t)r), "force_empty");
        if (g)
            expect(fsm_rmdir(region, world->group[g].id, 9), "rmdir");
    }
    for (int r = 0; r < RESOURCES; r++) {
        expect(fsm_usage(region, FSM_ROOT, (uint32_t)r, &usage), "usage");
        if (usage)
            violation("an empty tree has a usage of %" PRId64, usage);
    }
    int64_t holders = fsm_all_holders(region, NULL, 0);
    if (holders)
        violation("%" PRId64 " holders are left", holders);
    check_region(region, "when all is gone");
}

static void report(const char *mode, uint64_t kills, uint64_t owners)
{
    uint64_t operations = 0;
    int64_t refused = 0;
    for (int slot = 0; slot < world->workers; slot++)
        operations += world->ledger[slot].operations;
    for (int g = 0; g < world->groups; g++)
        refused += settled_refused[g].low;
    printf("%s: seed %" PRIu64 ", %d workers, %d groups, %" PRIu64 " operations, %" PRId64 " refusals", mode,
           trial_seed, world->workers, world->groups, operations, refused);
    if (kills)
        printf(", %" PRIu64 " killed, at least %" PRIu64 " of them with the lock", kills, owners);
    printf(": ok\n");
    fflush(stdout);
}

static fsm_region *new_world(int workers, int depth, int64_t batch, random_source *random)
{
    memset((void *)world, 0, sizeof *world);
    memset(settled_pot, 0, sizeof settled_pot);
    memset(settled_refused, 0, sizeof settled_refused);
    memset(seen, 0, sizeof seen);
    memset(counted, 0, sizeof counted);
    memset(shared_charger, 0, sizeof shared_charger);
    fsm_geometry geometry = { .groups = REGION_GROUPS,
                              .holders = 32,
                              .cells = 512,
                              .resources = RESOURCES,
                              .batch = batch,
                              .resource = { { "strict", 0 }, { "wild", 1 } } };
    fsm_region *region;
    fsm_set_patience((int64_t)PATIENCE_S * 1000000000);
    expect(fsm_create(NULL, &geometry, 0, 0, &region), "create");
    plant(region, random, depth, workers);
    fsm_listen(region, true);
    return region;
}

static fsm_region *open_again(fsm_region *region, pid_t owner)
{
    char path[64];
    fsm_region *again;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)owner, fsm_fd(region));
    expect(fsm_open(path, &again), "open");
    return again;
}

/* ---- threads ---------------------------------------------------------------- */

typedef struct thread_start {
    int slot;
    uint64_t seed;
    fsm_region *region;
    worker worker;
} thread_start;

static void *thread_main(void *argument)
{
    thread_start *start = argument;
    worker *w = &start->worker;
    begin(w, start->slot, start->region, start->seed);
    while (!atomic_load(&world->stop))
        act(w);
    for (int i = 0; i < CHARGERS; i++)
        fsm_charger_unbind(&w->own[i].charger);
    return NULL;
}

static void run_threads(int workers, int depth, int64_t batch, int64_t seconds)
{
    random_source random = { trial_seed };
    fsm_region *region = new_world(workers, depth, batch, &random), *regions[WORKERS_MAX];
    pid_t pid = getpid();
    fsm_id holder;
    expect(fsm_holder_create(region, pid, fsm_process_start_time(pid), FSM_PROCESS, 0, &holder), "holder_create");
    for (int i = 0; i < SHARED; i++) {
        do
            shared_group[i] = (int)random_below(&random, (uint64_t)world->groups);
        while (world->group[shared_group[i]].owner != -1);
        shared_resource[i] = i % RESOURCES;
        fsm_charger_init(&shared_charger[i]);
        fsm_id id = world->group[shared_group[i]].id;
        expect(fsm_holder_join_one(region, holder, id, (uint32_t)shared_resource[i]), "holder_join_one");
        expect(fsm_charger_bind(&shared_charger[i], region, holder, id, (uint32_t)shared_resource[i]), "charger_bind");
    }
    static thread_start start[WORKERS_MAX];
    pthread_t thread[WORKERS_MAX];
    for (int slot = 0; slot < workers; slot++) { /* half of them with a mapping of their own */
        regions[slot] = slot % 2 ? open_again(region, pid) : region;
        start[slot] = (thread_start){ .slot = slot, .seed = random_bits(&random), .region = regions[slot] };
        if (pthread_create(&thread[slot], NULL, thread_main, &start[slot]))
            violation("pthread_create");
    }
    for (int64_t end = monotonic_ns() + seconds * 1000000000; monotonic_ns() < end;) {
        for (int i = 0; i < 20; i++)
            watch(region, &random);
        check_region(region, "while threads run");
        uint32_t reaped = 0;
        expect(fsm_reap_dead(region, &reaped), "reap_dead");
        if (reaped)
            violation("%u live holders were reaped", reaped);
    }
    atomic_store(&world->stop, true);
    for (int slot = 0; slot < workers; slot++)
        pthread_join(thread[slot], NULL);
    check_sums(region);
    check_rooms(region);
    for (int i = 0; i < SHARED; i++)
        fsm_charger_unbind(&shared_charger[i]);
    expect(fsm_holder_end(region, holder), "holder_end");
    /* The shared charges belong to both workers; drop them before the workers' own are settled. */
    for (int i = 0; i < SHARED; i++)
        for (int slot = 0; slot < workers; slot++) {
            tally *t = &world->ledger[slot].cell[shared_group[i]][shared_resource[i]];
            int64_t own = 0;
            for (int j = 0; j < CHARGERS; j++)
                if (start[slot].worker.own[j].group == shared_group[i] &&
                    start[slot].worker.own[j].resource == shared_resource[i])
                    own = start[slot].worker.own[j].held;
            t->in_begun = t->in_finished = (uint64_t)own;
            t->out_begun = t->out_finished = 0;
        }
    check_sums(region);
    for (int slot = 0; slot < workers; slot++) {
        expect(fsm_holder_end(region, start[slot].worker.holder), "holder_end");
        settle(slot);
        check_sums(region);
        if (fsm_holder_end(region, start[slot].worker.holder) != -ENODEV)
            violation("a holder ended twice");
        if (regions[slot] != region)
            fsm_close(regions[slot]);
    }
    clear(region);
    fsm_close(region);
    report("threads", 0, 0);
}

/* ---- processes -------------------------------------------------------------- */

static pid_t fork_worker(int slot, uint64_t seed, fsm_region *region, pid_t parent)
{
    pid_t pid = fork_companion();
    if (pid)
        return pid;
    worker w;
    begin(&w, slot, seed & 1 ? open_again(region, parent) : region, seed);
    while (!atomic_load(&world->stop))
        act(&w);
    /* no worker may end before the last one has finished: a refused charge looks for dead processes */
    atomic_fetch_add(&world->stopped, 1);
    while (atomic_load(&world->stopped) < world->workers)
        sched_yield();
    _exit(0);
}

/* The engine and the ledger of a dead process must agree. */
static void check_the_dead(fsm_region *region, int slot, pid_t pid)
{
    for (int g = 0; g < world->groups; g++)
        for (int r = 0; r < RESOURCES; r++) {
            fsm_holder_info holders[2 * WORKERS_MAX];
            int64_t count = fsm_counter_holders(region, world->group[g].id, (uint32_t)r, holders, 2 * WORKERS_MAX);
            expect(count, "counter_holders");
            bounds held = bounds_of(&world->ledger[slot].cell[g][r]);
            for (int64_t i = 0; i < count; i++)
                if (holders[i].pid == pid && (holders[i].held < held.low || holders[i].held > held.high))
                    violation("process %d died holding %" PRId64 " to %" PRId64
                              " in group %d, the engine says %" PRId64,
                              (int)pid, held.low, held.high, g, holders[i].held);
        }
}

static void remove_temporary_groups(fsm_region *region, int slot)
{
    char prefix[16];
    int length = snprintf(prefix, sizeof prefix, "t%d-", slot);
    for (int g = 0; g < world->groups; g++) {
        fsm_child children[2 * WORKERS_MAX];
        int64_t count = fsm_children(region, world->group[g].id, children, 2 * WORKERS_MAX);
        expect(count, "children");
        if (count > 2 * WORKERS_MAX)
            violation("group %d has %" PRId64 " children", g, count);
        for (int64_t i = 0; i < count; i++) {
            if (strncmp(children[i].name, prefix, (size_t)length) != 0)
                continue;
            for (int r = 0; r < RESOURCES; r++)
                expect(fsm_force_empty(region, children[i].id, (uint32_t)r), "force_empty");
            expect(fsm_rmdir(region, children[i].id, 1), "rmdir of a group that a dead process made");
        }
    }
}

/* Stops a process and returns whether it has the lock: then no other process gets it, and the error names the pid. */
static bool stop_with_the_lock(fsm_region *region, pid_t pid)
{
    int status, asked = 0;
    kill(pid, SIGSTOP);
    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
        violation("a worker did not stop: status %x", (unsigned)status);
    fsm_set_patience(100000);
    for (bool by_it = true; by_it && asked < 20; asked++) {
        int64_t usage;
        int result = fsm_usage(region, FSM_ROOT, STRICT, &usage);
        if (result && result != -ETIMEDOUT)
            expect(result, "usage");
        by_it = result == -ETIMEDOUT && fsm_last_fault()->pid == pid;
    }
    fsm_set_patience((int64_t)PATIENCE_S * 1000000000);
    return asked == 20;
}

static void bury(fsm_region *region, pid_t *pids, const int *slots, int count)
{
    for (int i = 0; i < count; i++) {
        int status;
        if (waitpid(pids[slots[i]], &status, 0) < 0)
            violation("waitpid: %s", strerror(errno));
        if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
            violation("worker %d ended with status %x", slots[i], (unsigned)status);
    }
    for (int i = 0; i < count; i++)
        check_the_dead(region, slots[i], pids[slots[i]]);
    uint32_t reaped;
    expect(fsm_reap_dead(region, &reaped), "reap_dead");
    if (reaped > (uint32_t)count)
        violation("%d processes died, %u were reaped", count, reaped);
    fsm_holder_info holders[2 * WORKERS_MAX];
    int64_t left = fsm_all_holders(region, holders, 2 * WORKERS_MAX);
    expect(left, "all_holders");
    for (int i = 0; i < count; i++) {
        for (int64_t j = 0; j < left; j++)
            if (holders[j].pid == pids[slots[i]])
                violation("process %d is dead and reaped and still a holder", (int)holders[j].pid);
        remove_temporary_groups(region, slots[i]);
        settle(slots[i]);
    }
    check_region(region, "after a kill");
}

/*
 * A process charges while another one ends its holder. It must get -ENODEV, and never charge anything again, whatever
 * other processes do.
 */
static _Noreturn void end_under_charges(fsm_region *region, fsm_id id, uint64_t seed)
{
    random_source random = { seed };
    fsm_charger charger;
    fsm_id holder;
    fsm_charger_init(&charger);
    expect(fsm_holder_create(region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &holder),
           "holder_create");
    expect(fsm_holder_join(region, holder, id), "holder_join");
    expect(fsm_charger_bind(&charger, region, holder, id, WILD), "charger_bind");
    atomic_store(&world->duel.holder, holder);
    while (!atomic_load(&world->duel.over)) {
        bool ended = atomic_load(&world->duel.ended);
        int64_t amount = random_magnitude(&random, 10);
        int result = random_bits(&random) & 1 ? fsm_charge(&charger, amount) : fsm_uncharge(&charger, amount);
        if (ended && result != -ENODEV)
            violation("charging after another process ended the holder: %s", strerror(-result));
        if (result && result != -ENOMEM && result != -ERANGE && result != -ENODEV)
            expect(result, "charge while the holder is ended");
        atomic_fetch_add(&world->duel.charges, 1);
    }
    _exit(0);
}

static void wait_for_duellist(fsm_region *region, random_source *random, pid_t pid, uint64_t charges)
{
    int status = 0;
    while (!atomic_load(&world->duel.holder) || atomic_load(&world->duel.charges) < charges) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            violation("a process ended early, with status %x", (unsigned)status);
        watch(region, random);
    }
}

static void fight(fsm_region *region, random_source *random)
{
    fsm_id id, parent = world->group[random_below(random, (uint64_t)world->groups)].id;
    uint64_t seed = random_bits(random);
    atomic_store(&world->duel.holder, 0);
    atomic_store(&world->duel.charges, 0);
    atomic_store(&world->duel.ended, false);
    atomic_store(&world->duel.over, false);
    expect(fsm_mkdir(region, parent, "ends", 4, 0755, 0, 0, 1, &id), "mkdir");
    pid_t self = getpid(), pid = fork_companion();
    if (pid == 0)
        end_under_charges(seed & 1 ? open_again(region, self) : region, id, seed);
    wait_for_duellist(region, random, pid, random_below(random, 200));
    fsm_id holder = atomic_load(&world->duel.holder);
    expect(fsm_holder_end(region, holder), "holder_end");
    atomic_store(&world->duel.ended, true);
    int64_t usage;
    expect(fsm_usage(region, id, WILD, &usage), "usage");
    if (usage)
        violation("the holder has ended, %" PRId64 " is left", usage);
    expect(fsm_rmdir(region, id, 1), "rmdir");
    wait_for_duellist(region, random, pid, atomic_load(&world->duel.charges) + 200);
    atomic_store(&world->duel.over, true);
    int status;
    if (waitpid(pid, &status, 0) != pid || status)
        violation("a process ended with status %x", (unsigned)status);
}

static void run_processes(int workers, int depth, int64_t batch, int64_t seconds)
{
    random_source random = { trial_seed };
    fsm_region *region = new_world(workers, depth, batch, &random);
    pid_t pids[WORKERS_MAX], self = getpid();
    uint64_t kills = 0, owners = 0;
    for (int slot = 0; slot < workers; slot++)
        pids[slot] = fork_worker(slot, random_bits(&random), region, self);
    for (int64_t end = monotonic_ns() + seconds * 1000000000; monotonic_ns() < end;) {
        for (uint64_t looks = random_below(&random, 200); looks; looks--)
            watch(region, &random);
        int count = 1 + (int)random_below(&random, 4), slots[WORKERS_MAX];
        if (count > workers)
            count = workers;
        for (int i = 0, slot = (int)random_below(&random, (uint64_t)workers); i < count;
             i++, slot = (slot + 1) % workers) {
            slots[i] = slot;
            if (count == 1)
                for (int tries = 0; tries < 30; tries++) {
                    bool has_it = stop_with_the_lock(region, pids[slot]);
                    owners += has_it;
                    if (has_it)
                        break;
                    kill(pids[slot], SIGCONT);
                    watch(region, &random);
                }
            kill(pids[slot], SIGKILL);
        }
        bury(region, pids, slots, count);
        kills += (uint64_t)count;
        if (random_below(&random, 8) == 0)
            fight(region, &random);
        for (int i = 0; i < count; i++)
            pids[slots[i]] = fork_worker(slots[i], random_bits(&random), region, self);
    }
    atomic_store(&world->stop, true);
    int slots[WORKERS_MAX];
    for (int slot = 0; slot < workers; slot++) {
        siginfo_t info;
        slots[slot] = slot;
        if (waitid(P_PID, (id_t)pids[slot], &info, WEXITED | WNOWAIT))
            violation("waitid: %s", strerror(errno));
    }
    check_sums(region); /* they have died unnoticed: all is as they left it */
    bury(region, pids, slots, workers);
    check_sums(region);
    check_rooms(region);
    clear(region);
    fsm_close(region);
    report("processes", kills, owners);
}

int main(int argc, char **argv)
{
    trial_seed = option(argc, argv, "--seed", fresh_seed());
    int64_t seconds = (int64_t)option(argc, argv, "--seconds", 3);
    uint64_t threads = option(argc, argv, "--threads", 4), processes = option(argc, argv, "--processes", 4);
    uint64_t depth = option(argc, argv, "--depth", 16);
    int64_t batch = (int64_t)option(argc, argv, "--batch", (uint64_t)FSM_BATCH_AUTO); /* default: automatic */
    if (threads > WORKERS_MAX || processes > WORKERS_MAX || depth < 2 || depth > 16) {
        fprintf(
            stderr,
            "usage: %s [--seed N] [--seconds N] [--threads 0..16] [--processes 0..16] [--depth 2..16] [--batch N]\n",
            argv[0]);
        return 2;
    }
    static char again[128];
    snprintf(again, sizeof again, " --threads %" PRIu64 " --processes %" PRIu64 " --depth %" PRIu64, threads, processes,
             depth);
    if (batch != FSM_BATCH_AUTO)
        snprintf(again + strlen(again), sizeof again - strlen(again), " --batch %" PRId64, batch);
    trial_again = again;
    world = mmap(NULL, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (world == MAP_FAILED)
        violation("mmap: %s", strerror(errno));
    if (threads)
        run_threads((int)threads, (int)depth, batch, seconds);
    if (processes)
        run_processes((int)processes, (int)depth, batch, seconds);
    return 0;
}
