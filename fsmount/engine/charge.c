/*
 * charge.c - charging through a holder's cell: what the fast path in engine.h leaves over.
 *
 * The slow path closes the caller's own cell first.  From there on only the
 * lock's owner changes its words, so other threads of the holder wait for the
 * lock and the arithmetic below is plain.  At the end the cell is opened again
 * with what was granted, or stays closed near a limit.
 */
#include "internal.h"

#include <errno.h>

/* ---- chargers of this process ------------------------------------------------------ */

fsm_words fsm_unbound = { .stock = FSM_CLOSED };

static pthread_mutex_t chargers_lock = PTHREAD_MUTEX_INITIALIZER;
static fsm_charger *chargers;

static void before_fork(void)
{
    pthread_mutex_lock(&chargers_lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&chargers_lock);
}

/* What the parent holds is the parent's: the child has to join by itself. */
static void unbind_all(void)
{
    while (chargers) {
        fsm_charger *next = chargers->next;
        chargers->words = &fsm_unbound;
        chargers->next = chargers->previous = NULL;
        chargers = next;
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
    pthread_mutex_lock(&chargers_lock);
    if (fsm_charger_bound(charger)) {
        charger->words = &fsm_unbound;
        if (charger->next)
            charger->next->previous = charger->previous;
        if (charger->previous)
            charger->previous->next = charger->next;
        else
            chargers = charger->next;
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
    cell *own = NULL;
    error = find_holder(r, holder_id, &h);
    if (!error)
        error = find_group(r, group_id, &g);
    if (!error && resource >= r->geometry.resources)
        error = -EINVAL;
    if (!error) {
        own = find_cell(r, h, id_index(group_id) * r->geometry.resources + resource);
        if (!own)
            error = gone(r);
    }
    unlock(r);
    if (error)
        return error;
    pthread_mutex_lock(&chargers_lock);
    charger->region = r;
    charger->holder = holder_id;
    charger->cell = cell_index(r, own);
    charger->counter = id_index(group_id) * r->geometry.resources + resource;
    charger->words = &own->words;
    charger->previous = NULL;
    charger->next = chargers;
    if (chargers)
        chargers->previous = charger;
    chargers = charger;
    pthread_mutex_unlock(&chargers_lock);
    return 0;
}

/* ---- the slow path --------------------------------------------------------------------- */

typedef struct charging {
    fsm_region *region;
    cell *own;
    bool lease;
    ancestry path;
} charging;

/* Takes the lock and makes sure that the cell is still this holder's. */
static int begin(const fsm_charger *charger, int64_t amount, charging *c)
{
    if (amount < 0)
        return -EINVAL;
    if (!fsm_charger_bound(charger))
        return -ENOTCONN;
    c->region = charger->region;
    int error = lock(c->region);
    if (error)
        return error;
    holder *h;
    error = find_holder(c->region, charger->holder, &h);
    if (!error) {
        c->own = cell_at(c->region, charger->cell);
        if (!c->own || c->own->owner != holder_index(c->region, h) + 1 || c->own->counter != charger->counter)
            error = gone(c->region);
    }
    if (!error) {
        c->lease = h->kind == FSM_LEASE;
        error = path_of(c->region, charger->counter, &c->path);
        c->path.self = id_index(charger->holder);
    }
    if (!error && __atomic_load_n(&c->own->words.used, __ATOMIC_RELAXED) < 0)
        error = corrupt(c->region, "cell %u has a negative amount", charger->cell);
    if (error)
        unlock(c->region);
    return error;
}

/* A closed cell's words, opened with `stock` if there is any. */
static void settle(charging *c, int64_t stock, int64_t used)
{
    if (stock > 0) {
        c->own->words.batch = stock;
        FAULT_POINT(batch_noted);
        reserve(&c->path, stock);
        open_cell(c->region, &c->path, c->own, stock, used, stock > FSM_UNLIMITED / 2 ? FSM_UNLIMITED : 2 * stock);
        c->path.at[0]->refills++;
        c->path.at[0]->batch = stock;
        FAULT_POINT(refilled);
    } else {
        __atomic_store_n(&c->own->words.used, used, __ATOMIC_RELEASE);
        FAULT_POINT(used_set);
    }
    note_peak(&c->path, c->own);
}

int fsm_charge_slow(fsm_charger *charger, int64_t amount)
{
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    bool exceeded;
    int64_t used = close_cell(c.region, &c.path, c.own);
    if (amount > 0)
        error = find_room(c.region, &c.path, amount, false, &exceeded);
    if (!error && amount > 0) {
        int64_t wanted = c.lease ? 0 : wanted_batch(c.region, c.own, amount, used);
        int64_t stock = grant(c.region, &c.path, amount, amount, wanted);
        FAULT_POINT(granted);
        reserve(&c.path, amount);
        FAULT_POINT(reserved);
        settle(&c, stock, used + amount);
    }
    unlock(c.region);
    return error;
}

int fsm_uncharge_slow(fsm_charger *charger, int64_t amount)
{
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    note_peak(&c.path, c.own);
    int64_t used = close_cell(c.region, &c.path, c.own);
    if (used < amount) {
        fsm_fault_here.held = used;
        error = -ERANGE;
    } else if (amount > 0) {
        reserve(&c.path, -amount);
        FAULT_POINT(given_back);
        leave_global(&c.path);
        /* keep some of it for the next charge, as much as a charge would have reserved */
        int64_t wanted = c.lease ? 0 : wanted_batch(c.region, c.own, amount, used);
        settle(&c, grant(c.region, &c.path, 0, amount, wanted), used - amount);
    }
    unlock(c.region);
    return error;
}

int fsm_charge_nofail(fsm_charger *charger, int64_t amount, bool *exceeded)
{
    *exceeded = false;
    fsm_words *words = charger->words;
    int64_t stock, used;
    words_read(words, &stock, &used);
    while (stock >= amount) /* what was reserved is within every limit */
        if (fsm_words_swap(words, &stock, &used, stock - amount, used + amount))
            return 0;
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    used = close_cell(c.region, &c.path, c.own);
    if (amount > 0)
        error = find_room(c.region, &c.path, amount, true, exceeded);
    if (!error) {
        reserve(&c.path, amount);
        FAULT_POINT(reserved);
        settle(&c, 0, used + amount);
    }
    unlock(c.region);
    return error;
}

static int move(fsm_charger *charger, int64_t amount, int sign)
{
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    error = move_held(c.region, &c.path, c.own, sign * amount);
    unlock(c.region);
    return error;
}

int fsm_give(fsm_charger *charger, int64_t amount)
{
    return move(charger, amount, 1);
}

int fsm_take(fsm_charger *charger, int64_t amount)
{
    return move(charger, amount, -1);
}

int fsm_held(fsm_charger *charger, int64_t *out)
{
    charging c;
    int error = begin(charger, 0, &c);
    if (error)
        return error;
    *out = __atomic_load_n(&c.own->words.used, __ATOMIC_RELAXED);
    unlock(c.region);
    return 0;
}
