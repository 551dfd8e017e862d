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
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>

/* ---- chargers of this process ------------------------------------------------------ */

fsm_words fsm_unbound = { .state = FSM_CLOSED };

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
    ancestry p;
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
    if (!error)
        error = path_of(r, own->counter, &p);
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
    charger->cell = cell_index(r, own);
    charger->counter = id_index(group_id) * r->geometry.resources + resource;
    charger->recorded = (fsm_recorded){ 0 };
    charger->words = &own->words;
    charger->previous = NULL;
    charger->next = chargers;
    if (chargers)
        chargers->previous = charger;
    chargers = charger;
    pthread_mutex_unlock(&chargers_lock);
    return 0;
}

/* Whether the cell is still its holder's, and the holder lives: not so when somebody else has ended it. */
UNLOCKED static bool is_own(const fsm_charger *charger)
{
    const fsm_region *r = charger->region;
    uint32_t index = id_index(charger->holder);
    const cell *own = &r->cells[charger->cell];
    return peek(own->owner) == index + 1 && peek(own->counter) == charger->counter &&
           peek(r->holders[index].stamp) == make_stamp((uint32_t)(charger->holder >> 32), LIVE);
}

/* ---- refusals ------------------------------------------------------------------------------- */

/* One that repeats, by the same counter, is only counted. */
UNLOCKED static bool is_recorded(const fsm_charger *charger, const counter *by, bool charged, int64_t now)
{
    const fsm_recorded *last = &charger->recorded;
    return now - peek(last->at) < RECORD_EVERY && peek(last->by) == by && peek(last->charged) == charged;
}

void record_refused(fsm_charger *charger, int64_t amount, bool charged)
{
    fsm_region *r = charger->region;
    uint32_t resources = r->geometry.resources;
    const counter *refuser = &r->counters[id_index(fsm_fault_here.group) * resources + charger->counter % resources];
    int64_t now = coarse_ns();
    if (is_recorded(charger, refuser, charged, now)) {
        if (refused_again(r, &charger->recorded, amount))
            tell_listener(r, charger->path, 0);
        return;
    }
    const holder *by = &r->holders[id_index(charger->holder)];
    fsm_refusal is = { .amount = amount,
                       .charged = charged,
                       .kind = by->kind == FSM_LEASE ? FSM_LEASE : FSM_PROCESS,
                       .pid = by->pid,
                       .start_time = by->start_time,
                       .pid_namespace = by->pid_namespace };
    record_refusal(charger->region, charger->path, &is, &charger->recorded);
    __atomic_store_n(&charger->recorded.by, refuser, __ATOMIC_RELAXED);
    __atomic_store_n(&charger->recorded.charged, charged, __ATOMIC_RELAXED);
    __atomic_store_n(&charger->recorded.at, now, __ATOMIC_RELAXED);
}

/* ---- refusing without the lock ---------------------------------------------------------- */

/* The lock's owner has died, and nobody has put in order yet what it was at. */
UNLOCKED static bool is_untidy(const header *h)
{
    return (peek(h->lock) & FUTEX_OWNER_DIED) || peek(h->broken);
}

/*
 * Whether a counter refuses amount: 1, 0, or -EAGAIN if that takes the lock.  In global mode nobody has stock, so what
 * is reserved is what is used; and that it was in global mode all the while is seen by the number of that time.
 */
UNLOCKED static int refuses(const counter *c, int64_t amount, int64_t *usage, int64_t *limit)
{
    uint32_t global = __atomic_load_n(&c->global, __ATOMIC_ACQUIRE); /* pairs with enter_global() */
    *usage = peek(c->reserved);
    *limit = peek(c->limit);
    if (*limit - *usage >= amount)
        return 0;
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* pairs with end_global() */
    return global % 2 == 1 && peek(c->global) == global ? 1 : -EAGAIN;
}

/*
 * Whether the charge is refused by a counter in global mode.  That is half of all charges where a limit is fought for,
 * and it changes nothing but what is counted, so it keeps nobody waiting.  If not, the lock decides.
 */
UNLOCKED static bool is_refused(fsm_charger *charger, int64_t amount)
{
    fsm_region *r = charger->region;
    if (amount <= 0 || !fsm_charger_bound(charger) || is_open(peek(charger->words->state)) || is_untidy(r->header))
        return false; /* nothing always fits, also above a limit */
    const ancestry *p = charger->path;
    uint32_t i = 0;
    int64_t usage, limit;
    int refused = 0;
    while (i < p->n && (refused = refuses(p->at[i], amount, &usage, &limit)) == 0)
        i++;
    /* who died meanwhile may have left a sum that is too large; and a cell that was taken away is another answer */
    if (refused != 1 || is_untidy(r->header) || !is_own(charger))
        return false;
    int64_t now = coarse_ns();
    if (reap_is_due(r, now) || !is_recorded(charger, p->at[i], false, now))
        return false;
    __atomic_add_fetch(&p->at[i]->refusals, 1, __ATOMIC_SEQ_CST); /* pairs with fsm_listen() */
    note_refusal(r, p->at[i], usage, limit);
    tell_listener(r, p, refused_again(r, &charger->recorded, amount) ? 0 : i);
    return true;
}

/* A holder may reserve no more than this many of the charges it makes, */
#define BATCH_CHARGES 64
/* or, if it holds much, one part in so many of it. */
#define BATCH_PART 16

/* ---- the slow path --------------------------------------------------------------------- */

typedef struct charging {
    fsm_region *region;
    cell *own;
    bool lease;
    const ancestry *path;
} charging;

int own_cell(const fsm_charger *charger, cell **out)
{
    fsm_region *r = charger->region;
    *out = &r->cells[charger->cell];
    if (!is_own(charger))
        return gone(r);
    if (used_of(*out, state_now(*out)) < 0)
        return corrupt(r, "cell %u has a negative amount", charger->cell);
    return 0;
}

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
    c->lease = id_index(charger->holder) >= c->region->geometry.holders;
    c->path = charger->path;
    error = own_cell(charger, &c->own);
    if (error)
        unlock(c->region);
    return error;
}

/* A closed cell's words, opened with `stock` if there is any. */
static void settle(charging *c, int64_t stock, int64_t used)
{
    if (stock > 0) {
        open_cell(c->region, c->path, c->own, stock, used);
        c->path->at[0]->refills++;
        c->path->at[0]->batch = stock;
        FAULT_POINT(refilled);
    } else {
        set_used(c->own, used);
        FAULT_POINT(used_set);
    }
}

/*
 * What to reserve ahead for a holder that charges or uncharges `amount` at a time, once `pending` is reserved: twice
 * the last time, up to a number of such charges or up to `more`.
 */
static int64_t ahead(charging *c, int64_t pending, int64_t amount, int64_t more)
{
    int64_t batch = fsm_get_batch(c->region);
    if (batch == 0 || in_global_mode(c->path))
        return 0;
    int64_t twice = __atomic_load_n(&c->own->words.cap, __ATOMIC_RELAXED);
    int64_t wanted = c->lease                  ? 0
                     : batch != FSM_BATCH_AUTO ? batch
                                               : least(most(amount, twice), most(times(amount, BATCH_CHARGES), more));
    return grant(c->region, c->path, pending, amount, wanted);
}

int fsm_charge_slow(fsm_charger *charger, int64_t amount)
{
    if (is_refused(charger, amount))
        return -ENOMEM;
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    bool exceeded;
    close_cell(c.region, c.path, c.own);
    if (amount > 0)
        error = find_room(c.region, c.path, amount, false, &exceeded);
    if (error == -ENOMEM)
        record_refused(charger, amount, false);
    if (!error && amount > 0) {
        int64_t used = used_of(c.own, state_now(c.own)); /* the holder may have been given what it waits for, too */
        int64_t stock = ahead(&c, amount, amount, used / BATCH_PART);
        FAULT_POINT(granted);
        bool marked = reserve(c.path, amount);
        FAULT_POINT(reserved);
        settle(&c, stock, used + amount);
        if (marked)
            cross_marks(c.region, c.path);
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
    uint64_t before = state_now(c.own);
    int64_t reserved = 0;
    if (is_open(before)) {
        note_peak(c.path, c.own);
        reserved = total_of(c.own, before);
    }
    int64_t used = close_cell(c.region, c.path, c.own);
    if (used < amount) {
        fsm_fault_here.held = used;
        error = -ERANGE;
    } else if (amount > 0) {
        bool marked = reserve(c.path, -amount);
        FAULT_POINT(given_back);
        leave_global(c.region, c.path, amount);
        /* Keep some of it for the next charge; who uses much and little by turns soon keeps as much as that is. */
        settle(&c, ahead(&c, 0, amount, reserved), used - amount);
        if (marked)
            cross_marks(c.region, c.path);
        serve_waiting(c.region, c.path);
    }
    unlock(c.region);
    return error;
}

int fsm_charge_nofail(fsm_charger *charger, int64_t amount, bool *exceeded)
{
    *exceeded = false;
    if (amount >= 0 && fsm_charge_fast(charger, amount)) /* what was reserved is within every limit */
        return 0;
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    int64_t used = close_cell(c.region, c.path, c.own);
    if (amount > 0)
        error = find_room(c.region, c.path, amount, true, exceeded);
    if (!error) {
        bool marked = reserve(c.path, amount);
        FAULT_POINT(reserved);
        settle(&c, 0, used + amount);
        if (marked)
            cross_marks(c.region, c.path);
        if (*exceeded)
            record_refused(charger, amount, true);
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
    error = move_held(c.region, c.path, c.own, sign * amount);
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
    *out = used_of(c.own, state_now(c.own));
    unlock(c.region);
    return 0;
}
