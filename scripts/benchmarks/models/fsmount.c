/*
 * fsmount.c - fsmount's own engine, behind the interface of the models.
 *
 * A node is a group and a seat is a holder with a charger.  The region is made before the processes fork, and each
 * process joins its own holder.  Its events follow the precise usage, which a charge does not compute.
 */
#include "engine.h"
#include "model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct seat {
    _Alignas(CACHE_LINE) fsm_charger charger;
    fsm_region *region;
    fsm_id holder, group;
};

typedef struct state {
    fsm_region *region;
    fsm_id groups[NODES_MAX];
    int leaf[PROCESSES_MAX];
    seat seats[PROCESSES_MAX];
} state;

static void must(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "models: the engine's %s: error %d %s\n", what, error, fsm_last_fault()->text);
        exit(1);
    }
}

static void init(void *memory, const tree *t)
{
    state *s = memory;
    fsm_geometry geometry = { .groups = NODES_MAX,
                              .holders = PROCESSES_MAX,
                              .cells = PROCESSES_MAX,
                              .resources = 1,
                              .batch = FSM_BATCH_AUTO,
                              .resource = { { .name = "pages", .is_count = 1 } } };
    must(fsm_create(NULL, &geometry, getuid(), getgid(), &s->region), "create");
    s->groups[0] = FSM_ROOT;
    for (int i = 0; i < t->nodes; i++) {
        char name[16];
        int length = snprintf(name, sizeof name, "node%d", i);
        if (i > 0)
            must(fsm_mkdir(s->region, s->groups[t->parent[i]], name, (size_t)length, 0755, getuid(), getgid(), 0,
                           &s->groups[i]),
                 "mkdir");
        must(fsm_set_limit(s->region, s->groups[i], 0, t->limit[i]), "set_limit");
    }
    for (int i = 0; i < t->processes; i++)
        s->leaf[i] = t->leaf[i];
}

static seat *join(void *memory, int process)
{
    state *s = memory;
    seat *own = &s->seats[process];
    own->region = s->region;
    own->group = s->groups[s->leaf[process]];
    fsm_charger_init(&own->charger);
    if (fsm_holder_create(own->region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, FSM_KEEP,
                          &own->holder) ||
        fsm_holder_join(own->region, own->holder, own->group) ||
        fsm_charger_bind(&own->charger, own->region, own->holder, own->group, 0))
        return NULL;
    return own;
}

static void leave(seat *s)
{
    fsm_charger_unbind(&s->charger);
    must(fsm_holder_end(s->region, s->holder), "holder_end");
}

static inline bool charge(seat *s, int64_t amount)
{
    int error = fsm_charge(&s->charger, amount);
    if (error && error != -ENOMEM)
        must(error, "charge");
    return error == 0;
}

static inline void uncharge(seat *s, int64_t amount)
{
    int error = fsm_uncharge(&s->charger, amount);
    if (error)
        must(error, "uncharge");
}

static int64_t usage(void *memory, int node)
{
    state *s = memory;
    int64_t found;
    must(fsm_usage(s->region, s->groups[node], 0, &found), "usage");
    return found;
}

static uint64_t pairs(seat *s, const bool *stop)
{
    return pairs_of(s, stop, charge, uncharge);
}

const model fsmount = {
    .name = "fsmount",
    .source = "fsmount/engine: stock of a holder, drained before anybody is refused, and a precise sum",
    .accepts = "the peak is known up to error_bound; reading a usage costs a walk over the open cells",
    .in_turn = KEEPS_LIMIT | USES_ROOM | KNOWS_USAGE,
    .always = KEEPS_LIMIT | USES_ROOM | KNOWS_USAGE,
    .size = sizeof(state),
    .init = init,
    .join = join,
    .leave = leave,
    .charge = charge,
    .uncharge = uncharge,
    .usage = usage,
    .seen = NULL,
    .pairs = pairs,
};
