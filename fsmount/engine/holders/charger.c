/* charger.c - chargers: binding a process to a cell, and finding the cell under the lock. */
#include "holders/charger.h"
#include "counters/counter.h"
#include "counters/group.h"
#include "holders/holder.h"
#include "region/fault.h"
#include "region/lock.h"
#include "region/reading.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

fsm_words fsm_unbound = { .state = FSM_CLOSED };

static pthread_mutex_t chargers_lock = PTHREAD_MUTEX_INITIALIZER;
static fsm_charger *bound;

static void before_fork(void)
{
    pthread_mutex_lock(&chargers_lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&chargers_lock);
}

/* The parent keeps its charges; the child must join itself. */
static void unbind_all(void)
{
    while (bound) {
        fsm_charger *next = bound->next;
        bound->words = &fsm_unbound;
        bound->next = bound->previous = NULL;
        bound = next;
    }
    pthread_mutex_unlock(&chargers_lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, unbind_all);
}

void fsm_charger_init(fsm_charger *charger)
{
    *charger = (fsm_charger){ .words = &fsm_unbound };
}

void fsm_charger_unbind(fsm_charger *charger)
{
    free(charger->path);
    charger->path = NULL;
    pthread_mutex_lock(&chargers_lock);
    if (fsm_charger_bound(charger)) {
        charger->words = &fsm_unbound;
        if (charger->next)
            charger->next->previous = charger->previous;
        if (charger->previous)
            charger->previous->next = charger->next;
        else
            bound = charger->next;
        charger->next = charger->previous = NULL;
    }
    pthread_mutex_unlock(&chargers_lock);
}

int fsm_charger_bind(fsm_charger *charger, fsm_region *r, fsm_id holder_id, fsm_id group_id, uint32_t resource)
{
    fsm_charger_unbind(charger);
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    group *g;
    cell *cl = NULL;
    ancestry p;
    error = find_holder(r, holder_id, &h);
    if (!error)
        error = find_group(r, group_id, &g);
    if (!error && resource >= r->geometry.resources)
        error = -EINVAL;
    if (!error) {
        cl = find_cell(r, h, id_index(group_id) * r->geometry.resources + resource);
        if (!cl)
            error = gone(r);
    }
    if (!error)
        error = path_of(r, cl->counter, &p);
    unlock(r);
    if (error)
        return error;
    size_t size = offsetof(ancestry, at) + p.n * sizeof(p.at[0]);
    charger->path = malloc(size);
    if (!charger->path)
        return -ENOMEM;
    p.self = id_index(holder_id);
    memcpy(charger->path, &p, size);
    pthread_mutex_lock(&chargers_lock);
    charger->region = r;
    charger->holder = holder_id;
    charger->cell = cell_index(r, cl);
    charger->counter = id_index(group_id) * r->geometry.resources + resource;
    charger->recorded = (fsm_recorded){ 0 };
    charger->words = &cl->words;
    charger->previous = NULL;
    charger->next = bound;
    if (bound)
        bound->previous = charger;
    bound = charger;
    pthread_mutex_unlock(&chargers_lock);
    return 0;
}

/* False after another process has ended the holder, or the holder has left the group. */
UNLOCKED bool owns_cell(const fsm_charger *charger)
{
    const fsm_region *r = charger->region;
    uint32_t index = id_index(charger->holder);
    const cell *cl = &r->cells[charger->cell];
    return READ_ONCE(cl->owner) == index + 1 && READ_ONCE(cl->counter) == charger->counter &&
           READ_ONCE(r->holders[index].stamp) == make_stamp((uint32_t)(charger->holder >> 32), LIVE);
}

int charger_cell(const fsm_charger *charger, cell **out)
{
    fsm_region *r = charger->region;
    *out = &r->cells[charger->cell];
    if (!owns_cell(charger))
        return gone(r);
    if (used_of(*out, state_now(*out)) < 0)
        return corrupt(r, "cell %u has a negative amount", charger->cell);
    return 0;
}

/* -EINVAL unless they are of one holder and of different resources. */
static int check_chargers(fsm_charger *const *chargers, size_t n)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        if (!fsm_charger_bound(chargers[i]))
            return -ENOTCONN;
        uint32_t bit = 1u << chargers[i]->counter % chargers[i]->region->geometry.resources;
        if (chargers[i]->region != chargers[0]->region || chargers[i]->holder != chargers[0]->holder || (seen & bit))
            return -EINVAL;
        seen |= bit;
    }
    return n > 0 ? 0 : -EINVAL;
}

int lock_chargers(fsm_charger *const *chargers, cell **cells, size_t n)
{
    int error = check_chargers(chargers, n);
    if (error)
        return error;
    fsm_region *r = chargers[0]->region;
    error = lock(r);
    if (error)
        return error;
    for (size_t i = 0; i < n && !error; i++)
        error = charger_cell(chargers[i], &cells[i]);
    if (error)
        unlock(r);
    return error;
}
