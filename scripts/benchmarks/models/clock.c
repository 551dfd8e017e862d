#include "clock.h"
#include "crew.h"

#include <stdio.h>
#include <stdlib.h>

/* A process's share of a limit, and its start. */
enum { SHARE = 20000, START = 19800 };

typedef struct result {
    _Alignas(CACHE_LINE) uint64_t charges, refused;
    int64_t start, end;
} result;

typedef struct timing {
    const model *model;
    void *memory, *neighbours_memory;
    int ahead; /* 0: there is no neighbour */
    result results[PROCESSES_MAX];
} timing;

static void pairs(void *argument, int player, seat *own, const bool *stop)
{
    timing *t = argument;
    result r = { .start = now_ns() };
    r.charges = t->model->pairs(own, stop);
    r.end = now_ns();
    t->results[player] = r;
}

static seat *sit_holding(void *argument, int player)
{
    timing *t = argument;
    seat *own = joined(t->model, t->memory, player);
    if (!t->model->charge(own, START)) {
        fprintf(stderr, "models: %s refuses what is far from the limit\n", t->model->name);
        exit(1);
    }
    return own;
}

/* The first player is the neighbour. */
static seat *sit_beside_limit(void *argument, int player)
{
    timing *t = argument;
    return player > 0 ? sit_holding(argument, player) : joined(t->model, t->neighbours_memory, player);
}

/* Until the stop, and at least one refusal: the process may have waited for a processor before. */
static void live_at_limit(void *argument, int player, seat *own, const bool *stop)
{
    timing *t = argument;
    const model *m = t->model;
    int64_t held = START;
    result r = { .start = now_ns() };
    do
        for (int i = 0; i < 16; i++, r.charges++) {
            if (m->charge(own, 1)) {
                held++;
                continue;
            }
            r.refused++;
            if (held > 0) {
                m->uncharge(own, 1);
                held--;
            }
        }
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED) || r.refused == 0);
    r.end = now_ns();
    t->results[player] = r;
}

static void live_beside_limit(void *argument, int player, seat *own, const bool *stop)
{
    timing *t = argument;
    const model *m = t->model;
    if (player > 0) {
        live_at_limit(argument, player, own, stop);
        return;
    }
    result r = { .start = now_ns() };
    do
        for (int turn = 0; turn < AHEAD_MAX / t->ahead; turn++) {
            for (int i = 0; i < t->ahead; i++)
                r.refused += !m->charge(own, 1);
            for (int i = 0; i < t->ahead; i++)
                m->uncharge(own, 1);
            r.charges += (uint64_t)t->ahead;
        }
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED));
    r.end = now_ns();
    t->results[player] = r;
}

static timing *run(const model *m, const tree *in, seat *(*sits)(void *, int),
                   void (*acts)(void *, int, seat *, const bool *), int ahead, bool apart, int64_t milliseconds)
{
    timing *t = shared(sizeof *t);
    t->model = m;
    t->memory = made(m, in);
    t->neighbours_memory = apart ? made(m, in) : t->memory;
    t->ahead = ahead;
    crew c = { .size = in->processes, .pinned = true, .alone = ahead > 0, .sit = sits, .play = acts, .scene = t };
    play(&c, milliseconds);
    return t;
}

static cost of_first(const result *results, int number)
{
    double charges = 0, refused = 0, each = 0;
    int64_t start = results[0].start, end = results[0].end;
    for (int i = 0; i < number; i++) {
        const result *r = &results[i];
        charges += (double)r->charges;
        refused += (double)r->refused;
        each += (double)(r->end - r->start) / (double)r->charges / number;
        start = r->start < start ? r->start : start;
        end = r->end > end ? r->end : end;
    }
    return (cost){ .each = each, .all = (double)(end - start) / charges, .refused = refused / charges };
}

cost time_pairs(const model *m, int depth, int processes, int64_t headroom, int64_t milliseconds)
{
    tree t = { 0 };
    int parent = grow_chain(&t, -1, depth - 1);
    if (headroom < UNLIMITED)
        t.limit[0] = (int64_t)START * processes + headroom;
    for (int i = 0; i < processes; i++)
        seat_below(&t, parent);
    return of_first(run(m, &t, sit_holding, pairs, 0, false, milliseconds)->results, processes);
}

cost time_limit(const model *m, int depth, int processes, int64_t milliseconds)
{
    tree t = { 0 };
    int parent = grow_chain(&t, -1, depth - 1);
    t.limit[0] = (int64_t)SHARE * processes;
    for (int i = 0; i < processes; i++)
        seat_below(&t, parent);
    return of_first(run(m, &t, sit_holding, live_at_limit, 0, false, milliseconds)->results, processes);
}

cost time_neighbour(const model *m, int depth, int processes, int ahead, bool apart, int64_t milliseconds)
{
    tree t = { 0 };
    int root = grow(&t, -1, UNLIMITED);
    seat_below(&t, grow_chain(&t, root, depth - 1));
    int limited = t.nodes;
    int parent = grow_chain(&t, root, depth - 1);
    t.limit[limited] = (int64_t)SHARE * processes;
    for (int i = 0; i < processes; i++)
        seat_below(&t, parent);
    return of_first(run(m, &t, sit_beside_limit, live_beside_limit, ahead, apart, milliseconds)->results, 1);
}
