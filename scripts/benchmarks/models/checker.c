/*
 * checker.c - compares a model with the correct usage: all charges minus all uncharges.
 *
 * In turn, one process plays all seats, and the correct usage is a number.  Overlapping, each player keeps a ledger of
 * started and finished operations.  The numbers only grow, so a reader needs no lock to know that
 *
 *   charges finished before - uncharges begun after  <=  usage  <=  charges begun after - uncharges finished before
 *
 * The left side at two moments gives a bound for the charges between them.
 */
#include "checker.h"
#include "crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t random_in(uint64_t *state, int64_t low, int64_t high)
{
    return low + (int64_t)(random_next(state) % (uint64_t)(high - low + 1));
}

/* Mostly a small part of `most`, rarely a large one. */
static int64_t random_step(uint64_t *state, int64_t most)
{
    return random_in(state, 1, random_next(state) % 8 && most > 8 ? 8 : most);
}

static void raise_to(int64_t *most, int64_t value)
{
    if (value > *most)
        *most = value;
}

/* ---- one after the other ------------------------------------------------------ */

enum { TREES = 8, STEPS = 3000, THRESHOLD = 1000, RAMPS = 20 };

typedef struct stage {
    const model *model;
    tree tree;
    void *memory;
    seat *seats[PROCESSES_MAX];
    int64_t held[PROCESSES_MAX];
    int64_t truth[NODES_MAX];
    errors *errors;
} stage;

static void open_stage(stage *s)
{
    s->memory = made(s->model, &s->tree);
    for (int i = 0; i < s->tree.processes; i++)
        s->seats[i] = joined(s->model, s->memory, i);
}

static void add_truth(stage *s, int player, int64_t amount)
{
    s->held[player] += amount;
    for (int n = s->tree.leaf[player]; n >= 0; n = s->tree.parent[n])
        s->truth[n] += amount;
}

static void try_to_charge(stage *s, int player, int64_t amount)
{
    bool fits = true;
    for (int n = s->tree.leaf[player]; n >= 0; n = s->tree.parent[n])
        fits = fits && s->truth[n] + amount <= s->tree.limit[n];
    s->errors->charges++;
    if (s->model->charge(s->seats[player], amount)) {
        add_truth(s, player, amount);
        for (int n = s->tree.leaf[player]; n >= 0; n = s->tree.parent[n])
            raise_to(&s->errors->overshoot, s->truth[n] - s->tree.limit[n]);
    } else {
        s->errors->refusals++;
        s->errors->false_refusals += fits;
    }
}

static void uncharge(stage *s, int player, int64_t amount)
{
    if (amount > 0)
        s->model->uncharge(s->seats[player], amount);
    add_truth(s, player, -amount);
}

static int64_t largest_difference(const stage *s)
{
    int64_t most = 0;
    for (int n = 0; n < s->tree.nodes; n++)
        raise_to(&most, llabs(s->model->usage(s->memory, n) - s->truth[n]));
    return most;
}

static void end_stage(stage *s, bool empty)
{
    for (int i = 0; i < s->tree.processes; i++) {
        if (empty)
            uncharge(s, i, s->held[i]);
        s->model->leave(s->seats[i]);
    }
    raise_to(&s->errors->left, largest_difference(s));
}

/* A random tree with random limits, charges and uncharges. */
static void play_at_random(const model *m, uint64_t *random, bool empty, errors *out)
{
    stage s = { .model = m, .errors = out };
    grow(&s.tree, -1, random_in(random, 100, 2000));
    while (s.tree.nodes < 12)
        grow(&s.tree, (int)random_in(random, 0, s.tree.nodes - 1),
             random_next(random) % 2 ? UNLIMITED : random_in(random, 10, 1000));
    for (int i = 0; i < 5; i++) {
        s.tree.leaf[i] = (int)random_in(random, 0, s.tree.nodes - 1);
        s.tree.processes++;
    }
    open_stage(&s);
    for (int step = 0; step < STEPS; step++) {
        int player = (int)random_in(random, 0, s.tree.processes - 1);
        /* most are small, some are larger than any batch */
        int64_t amount = random_in(random, 1, random_next(random) % 8 ? 16 : 300);
        if (random_next(random) % 5 < 3)
            try_to_charge(&s, player, amount);
        else
            uncharge(&s, player, amount < s.held[player] ? amount : s.held[player]);
        raise_to(&out->usage, largest_difference(&s));
    }
    end_stage(&s, empty);
}

/* Any player charges across a threshold of the root: at which usage does a charge see the crossing? */
static void play_ramps(const model *m, uint64_t *random, errors *out)
{
    if (!m->seen) {
        out->early = out->late = -1;
        return;
    }
    stage s = { .model = m, .errors = out };
    int middle = grow_chain(&s.tree, -1, 2);
    for (int i = 0; i < 4; i++)
        seat_below(&s.tree, middle);
    open_stage(&s);
    for (int ramp = 0; ramp < RAMPS; ramp++) {
        while (s.truth[0] < 2 * THRESHOLD) {
            try_to_charge(&s, (int)random_in(random, 0, 3), random_in(random, 1, 8));
            bool passed = m->seen(s.memory, 0) > THRESHOLD;
            if (passed && s.truth[0] <= THRESHOLD)
                raise_to(&out->early, THRESHOLD + 1 - s.truth[0]);
            if (!passed && s.truth[0] > THRESHOLD)
                raise_to(&out->late, s.truth[0] - THRESHOLD);
        }
        for (int i = 0; i < 4; i++)
            uncharge(&s, i, s.held[i]);
    }
    end_stage(&s, true);
}

errors check_in_turn(const model *m, uint64_t seed)
{
    errors e = { 0 };
    for (int i = 0; i < TREES; i++)
        play_at_random(m, &seed, i % 2, &e);
    play_ramps(m, &seed, &e);
    return e;
}

/* ---- all at once ---------------------------------------------------------------- */

enum { PLAYERS = 4, CROWDED = 400, HELD = 10, MISFIT = 1000, SHARE = 300 };

typedef struct ledger {
    _Alignas(CACHE_LINE) int64_t in_begun, in_finished, out_begun, out_finished;
    int64_t charges, refusals, overshoot;
} ledger;

typedef struct scene {
    const model *model;
    tree tree;
    void *memory;
    uint64_t seed;
    int watched; /* the node whose usage is read */
    errors errors;
    ledger ledgers[PROCESSES_MAX];
} scene;

static int64_t sum(const scene *s, size_t column)
{
    int64_t all = 0;
    for (int i = 0; i < s->tree.processes; i++)
        all +=
            __atomic_load_n((const int64_t *)(const void *)((const char *)&s->ledgers[i] + column), __ATOMIC_SEQ_CST);
    return all;
}

#define SUM(s, column) sum((s), offsetof(ledger, column))

static void note(int64_t *column, int64_t amount)
{
    __atomic_add_fetch(column, amount, __ATOMIC_SEQ_CST);
}

/* A refused charge counts as finished and uncharged, in an order that keeps both bounds true. */
static bool charge_by_book(scene *s, int player, seat *own, int64_t amount)
{
    ledger *l = &s->ledgers[player];
    note(&l->in_begun, amount);
    bool done = s->model->charge(own, amount);
    if (!done)
        note(&l->out_begun, amount);
    note(&l->in_finished, amount);
    if (!done)
        note(&l->out_finished, amount);
    l->charges++;
    l->refusals += !done;
    return done;
}

static void uncharge_by_book(scene *s, int player, seat *own, int64_t amount)
{
    ledger *l = &s->ledgers[player];
    note(&l->out_begun, amount);
    s->model->uncharge(own, amount);
    note(&l->out_finished, amount);
}

static void read_and_bound(void *argument)
{
    scene *s = argument;
    int64_t in_finished = SUM(s, in_finished);
    int64_t out_finished = SUM(s, out_finished);
    int64_t usage = s->model->usage(s->memory, s->watched);
    int64_t low = in_finished - SUM(s, out_begun);
    int64_t high = SUM(s, in_begun) - out_finished;
    raise_to(&s->errors.usage, low - usage);
    raise_to(&s->errors.usage, usage - high);
}

static seat *sit(void *argument, int player)
{
    scene *s = argument;
    return joined(s->model, s->memory, player);
}

/*
 * All players together want more than the limit.  A refused player sometimes uncharges everything, so that the usage
 * approaches the limit again and again.  Each player stops only after a refusal.
 */
static void crowd(void *argument, int player, seat *own, const bool *stop)
{
    scene *s = argument;
    uint64_t random = s->seed + (uint64_t)player;
    int64_t held = 0;
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED) || s->ledgers[player].refusals == 0) {
        int64_t amount = random_in(&random, 1, 8);
        if (charge_by_book(s, player, own, amount)) {
            held += amount;
            int64_t finished = SUM(s, in_finished);
            raise_to(&s->ledgers[player].overshoot, finished - SUM(s, out_begun) - CROWDED);
        } else if (held > 0) {
            amount = random_next(&random) % 4 && amount < held ? amount : held;
            uncharge_by_book(s, player, own, amount);
            held -= amount;
        }
    }
    s->model->leave(own);
}

/* The first player's charges never fit, the others' always do. */
static void jostle(void *argument, int player, seat *own, const bool *stop)
{
    scene *s = argument;
    if (player == 0)
        charge_by_book(s, player, own, HELD);
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        if (player == 0) {
            s->ledgers[player].charges++;
            if (s->model->charge(own, MISFIT)) {
                s->errors.overshoot = MISFIT;
                s->model->uncharge(own, MISFIT);
            }
        } else if (charge_by_book(s, player, own, 1)) {
            uncharge_by_book(s, player, own, 1);
        }
    }
    s->model->leave(own);
}

/*
 * Each player fills and empties its share of the limit, so its charges always fit.  The first player wants one unit
 * more than the others ever leave.
 */
static void share(void *argument, int player, seat *own, const bool *stop)
{
    scene *s = argument;
    uint64_t random = s->seed + (uint64_t)player;
    int64_t held = 0, too_much = s->tree.limit[0] - SHARE + 1;
    if (player == 0)
        charge_by_book(s, player, own, SHARE);
    while (player == 0 && !__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        s->ledgers[player].charges++;
        if (s->model->charge(own, too_much)) {
            s->errors.overshoot = too_much;
            s->model->uncharge(own, too_much);
        }
    }
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        while (held < SHARE) {
            int64_t amount = random_step(&random, SHARE - held);
            if (!charge_by_book(s, player, own, amount))
                break;
            held += amount;
        }
        while (held > 0) {
            int64_t amount = random_step(&random, held);
            uncharge_by_book(s, player, own, amount);
            held -= amount;
        }
    }
    s->model->leave(own);
}

static void perform(scene *s, void (*act)(void *, int, seat *, const bool *), int64_t milliseconds, bool threads)
{
    s->memory = made(s->model, &s->tree);
    crew c = {
        .size = s->tree.processes, .threads = threads, .sit = sit, .play = act, .watch = read_and_bound, .scene = s
    };
    play(&c, milliseconds);
    int64_t all = SUM(s, in_finished) - SUM(s, out_finished);
    raise_to(&s->errors.overshoot, all - s->tree.limit[0]);
    raise_to(&s->errors.left, llabs(s->model->usage(s->memory, 0) - all));
    for (int i = 0; i < s->tree.processes; i++) {
        const ledger *l = &s->ledgers[i];
        s->errors.charges += l->charges;
        s->errors.refusals += l->refusals;
        raise_to(&s->errors.overshoot, l->overshoot);
        int64_t held = l->in_finished - l->out_finished;
        raise_to(&s->errors.left, llabs(s->model->usage(s->memory, s->tree.leaf[i]) - held));
    }
}

/* Adds the errors of a scene to the total.  wrong: all refusals of the scene; otherwise it cannot decide about any. */
static void add_errors(errors *all, const scene *s, bool wrong)
{
    const errors *e = &s->errors;
    raise_to(&all->overshoot, e->overshoot);
    raise_to(&all->usage, e->usage);
    raise_to(&all->left, e->left);
    all->charges += e->charges;
    all->refusals += e->refusals;
    all->false_refusals += wrong ? e->refusals : 0;
}

errors check_overlapping(const model *m, uint64_t seed, int64_t milliseconds, bool threads)
{
    enum { SCENES = 3 };
    scene *scenes = shared(SCENES * sizeof *scenes);
    for (int i = 0; i < SCENES; i++) {
        scenes[i].model = m;
        scenes[i].seed = seed;
    }

    scene *crowded = &scenes[0];
    grow(&crowded->tree, -1, CROWDED);
    int middle = grow_chain(&crowded->tree, 0, 2);
    for (int i = 0; i < PLAYERS; i++)
        seat_below(&crowded->tree, middle);

    /* the root refuses the misfit, after the node below has taken it and is full */
    scene *jostled = &scenes[1];
    grow(&jostled->tree, -1, MISFIT + HELD / 2);
    jostled->watched = grow(&jostled->tree, 0, MISFIT + HELD);
    for (int i = 0; i < 3; i++)
        seat_below(&jostled->tree, jostled->watched);

    scene *divided = &scenes[2];
    middle = grow_chain(&divided->tree, grow(&divided->tree, -1, (int64_t)SHARE * PLAYERS), 2);
    for (int i = 0; i < PLAYERS; i++)
        seat_below(&divided->tree, middle);

    perform(crowded, crowd, milliseconds / SCENES, threads);
    perform(jostled, jostle, milliseconds / SCENES, threads);
    perform(divided, share, milliseconds / SCENES, threads);
    errors e = { 0 };
    for (int i = 0; i < SCENES; i++)
        add_errors(&e, &scenes[i], i > 0);
    return e;
}

/* ---- the verdict ------------------------------------------------------------------ */

static int broken(const char *when, const char *promise, int64_t amount, bool promised)
{
    if (!promised || amount == 0)
        return 0;
    fprintf(stderr, "models: %s: %s: %" PRId64 "\n", when, promise, amount);
    return 1;
}

int broken_promises(const char *when, unsigned promises, const errors *e)
{
    return broken(when, "units above a limit", e->overshoot, promises & KEEPS_LIMIT) +
           broken(when, "refusals of what fits", e->false_refusals, promises & USES_ROOM) +
           broken(when, "units that a usage was off", e->usage, promises & KNOWS_USAGE) +
           broken(when, "units left over when all have ended", e->left, true);
}
