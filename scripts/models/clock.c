#include "clock.h"
#include "crew.h"

#include <stdio.h>
#include <stdlib.h>

/* A process's part of a limit, and where it starts. */
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

static seat *sit(void *argument, int player)
{
    timing *t = argument;
    return joined(t->model, t->memory, player);
}

static void pairs(void *argument, int player, seat *own, const bool *stop)
{
    timing *t = argument;
    result r = { .start = now_ns() };
    r.charges = t->model->pairs(own, stop);
    r.end = now_ns();
    t->results[player] = r;
}

static void charge_share(const model *m, seat *own)
{
    if (!m->charge(own, START)) {
        fprintf(stderr, "models: %s refuses what is far from the limit\n", m->name);
        exit(1);
    }
}

static seat *sit_at_limit(void *argument, int player)
{
    seat *own = sit(argument, player);
    charge_share(((timing *)argument)->model, own);
    return own;
}

/* The first player is the neighbour. */
static seat *sit_beside_limit(void *argument, int player)
{
    timing *t = argument;
    return player > 0 ? sit_at_limit(argument, player) : joined(t->model, t->neighbours_memory, player);
}

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
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED));
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

cost time_pairs(const model *m, int depth, int processes, int64_t milliseconds)
{
    tree t = { 0 };
    int parent = grow_chain(&t, -1, depth - 1);
    for (int i = 0; i < processes; i++)
        seat_below(&t, parent);
    const timing *done = run(m, &t, sit, pairs, 0, false, milliseconds);
    cost c = { 0 };
    for (int i = 0; i < processes; i++) {
        const result *r = &done->results[i];
        c.ns += (double)(r->end - r->start) / (double)r->charges / processes;
    }
    return c;
}

/* From the first beginning to the last end. */
static cost of_all(const result *results, int number)
{
    double charges = 0, refused = 0;
    int64_t start = results[0].start, end = results[0].end;
    for (int i = 0; i < number; i++) {
        charges += (double)results[i].charges;
        refused += (double)results[i].refused;
        start = results[i].start < start ? results[i].start : start;
        end = results[i].end > end ? results[i].end : end;
    }
    return (cost){ .ns = (double)(end - start) / charges, .refused = refused / charges };
}

cost time_limit(const model *m, int depth, int processes, int64_t milliseconds)
{
    tree t = { 0 };
    int parent = grow_chain(&t, -1, depth - 1);
    t.limit[0] = (int64_t)SHARE * processes;
    for (int i = 0; i < processes; i++)
        seat_below(&t, parent);
    return of_all(run(m, &t, sit_at_limit, live_at_limit, 0, false, milliseconds)->results, processes);
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
    return of_all(run(m, &t, sit_beside_limit, live_beside_limit, ahead, apart, milliseconds)->results, 1);
}
