/*
 * charge.c - charging through a cell, for all cases that the fast path in engine.h leaves.
 *
 * The slow path first closes the caller's cell. From then on only the owner of the lock changes the words of the cell.
 * So other threads of the holder wait for the lock, and the arithmetic here is plain. At the end the cell is reopened
 * with the stock it was granted, or stays closed near a limit.
 *
 * A charge that a counter in global mode refuses takes no lock: see is_refused().
 */
#include "charging/charge.h"
#include "counters/amounts.h"
#include "counters/counter.h"
#include "holders/charger.h"
#include "holders/commit.h"
#include "holders/queue.h"
#include "holders/reap.h"
#include "observe/events.h"
#include "observe/refusals.h"
#include "region/clock.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>

/* ---- refusals ------------------------------------------------------------------------------- */

/* A refusal that repeats one by the same counter is only counted. */
UNLOCKED static bool is_recorded(const fsm_charger *charger, const counter *by, bool charged, int64_t now)
{
    const fsm_recorded *last = &charger->recorded;
    return now - READ_ONCE(last->at) < RECORD_EVERY && READ_ONCE(last->by) == by && READ_ONCE(last->charged) == charged;
}

void record_refused(fsm_charger *charger, int64_t amount, bool charged)
{
    fsm_region *r = charger->region;
    uint32_t resources = r->geometry.resources;
    const counter *refuser = &r->counters[id_index(fsm_fault_here.group) * resources + charger->counter % resources];
    int64_t now = coarse_ns();
    if (is_recorded(charger, refuser, charged, now)) {
        if (refused_again(r, &charger->recorded, amount))
            notify_listener(r, charger->path, 0);
        return;
    }
    const holder *by = &r->holders[id_index(charger->holder)];
    fsm_refusal refusal = { .amount = amount,
                            .charged = charged,
                            .kind = by->kind == FSM_LEASE ? FSM_LEASE : FSM_PROCESS,
                            .pid = by->pid,
                            .start_time = by->start_time,
                            .pid_namespace = by->pid_namespace };
    record_refusal(charger->region, charger->path, &refusal, &charger->recorded);
    WRITE_ONCE(charger->recorded.by, refuser);
    WRITE_ONCE(charger->recorded.charged, charged);
    WRITE_ONCE(charger->recorded.at, now);
}

/* ---- refusing without the lock ---------------------------------------------------------- */

/* The last owner of the lock has died, and no process has recovered the region yet. */
UNLOCKED static bool needs_recovery(const header *h)
{
    return (READ_ONCE(h->lock) & FUTEX_OWNER_DIED) || READ_ONCE(h->broken);
}

/*
 * Whether a counter refuses amount: 1, 0, or -EAGAIN if only the lock can decide. In global mode there is no stock, so
 * usage is what is reserved. `global` is a generation count: odd and unchanged means that global mode lasted
 * throughout.
 */
UNLOCKED static int refuses(const counter *c, int64_t amount, int64_t *usage, int64_t *limit)
{
    uint32_t global = __atomic_load_n(&c->global, __ATOMIC_ACQUIRE); /* pairs with enter_global() */
    *usage = READ_ONCE(c->reserved);
    *limit = READ_ONCE(c->limit);
    if (*limit - *usage >= amount)
        return 0;
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* pairs with end_global() */
    return global % 2 == 1 && READ_ONCE(c->global) == global ? 1 : -EAGAIN;
}

/*
 * Whether a counter in global mode refuses the charge. Where processes compete for a limit, half of all charges end
 * here. A refusal changes only counts, so it makes no other process wait. False: the lock decides.
 */
UNLOCKED static bool is_refused(fsm_charger *charger, int64_t amount)
{
    fsm_region *r = charger->region;
    if (amount <= 0 || !fsm_charger_bound(charger) || is_open(READ_ONCE(charger->words->state)) ||
        needs_recovery(r->header))
        return false; /* a charge of 0 always fits, even above a limit */
    const ancestry *p = charger->path;
    uint32_t i = 0;
    int64_t usage, limit;
    int refused = 0;
    while (i < p->n && (refused = refuses(p->at[i], amount, &usage, &limit)) == 0)
        i++;
    /*
     * a process that died meanwhile may have left a sum that is too large; and without its cell the charger gets
     * -ENODEV
     */
    if (refused != 1 || needs_recovery(r->header) || !owns_cell(charger))
        return false;
    int64_t now = coarse_ns();
    if (reap_is_due(r, now) || !is_recorded(charger, p->at[i], false, now))
        return false;
    __atomic_add_fetch(&p->at[i]->refusals, 1, __ATOMIC_SEQ_CST); /* pairs with fsm_listen() */
    note_refusal(r, p->at[i], usage, limit);
    notify_listener(r, p, refused_again(r, &charger->recorded, amount) ? 0 : i);
    return true;
}

/* The stock of a holder is at most this many of its charges, */
#define BATCH_CHARGES 64
/* or, if it holds much, one part in BATCH_PART of that. */
#define BATCH_PART 16

/* ---- finding room ------------------------------------------------------------------- */

int find_room(fsm_region *r, const ancestry *p, int64_t amount, bool nofail, bool *exceeded)
{
    *exceeded = false;
    counter *root = p->at[p->n - 1];
    if (nofail && root->reserved > FSM_UNLIMITED - amount) {
        int error = drain(r, root);
        if (error)
            return error;
        if (root->reserved > FSM_UNLIMITED - amount)
            return -EOVERFLOW;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        counter *c = p->at[i];
        int fit = fits(r, c, amount, nofail);
        if (fit == 0 && !nofail && reap_before_refusal(r, p->self)) {
            i = UINT32_MAX; /* start over: the room found below may have gone to a waiting request */
            continue;
        }
        if (fit < 0)
            return fit;
        if (fit)
            continue;
        int64_t usage;
        int error = precise_usage(r, c, &usage);
        if (error)
            return error;
        if (c->open_below == 0 && fsm_get_batch(r) != 0 && near_limit(c, headroom_of(c), amount))
            enter_global(r, c, headroom_of(c), amount);
        __atomic_add_fetch(&c->refusals, 1, __ATOMIC_SEQ_CST); /* pairs with fsm_listen() */
        FAULT_POINT(refusal_counted);
        notify_listener(r, p, i);
        if (!*exceeded)
            note_refusal(r, c, usage, c->limit);
        *exceeded = true;
        if (!nofail)
            return -ENOMEM;
    }
    return 0;
}

static int probe(fsm_region *r, const ancestry *p, int64_t amount, fsm_probed *out)
{
    *out = (fsm_probed){ .margin = FSM_UNLIMITED, .fits = true };
    for (uint32_t i = 0; i < p->n; i++) {
        counter *c = p->at[i];
        int64_t usage = 0;
        int error = precise_usage(r, c, &usage);
        if (error)
            return error;
        int64_t margin = max_i64(c->limit - usage, 0);
        if (out->fits && (i == 0 || margin < out->margin || amount > margin)) {
            uint32_t g = counter_index(r, c) / r->geometry.resources;
            out->group = group_id(r->groups[g].stamp, g);
            out->usage = usage;
            out->limit = c->limit;
            out->fits = amount <= margin;
        }
        out->margin = min_i64(out->margin, margin);
    }
    return 0;
}

int fsm_probe(fsm_region *r, fsm_id id, uint32_t resource, int64_t amount, fsm_probed *out)
{
    if (amount < 0)
        return -EINVAL;
    WITH_COUNTER(p)
    fsm_probed found;
    do
        error = probe(r, &p, amount, &found);
    while (!error && !found.fits && reap_before_refusal(r, NONE));
    unlock(r);
    if (!error)
        *out = found;
    return error;
}

/* ---- the slow path --------------------------------------------------------------------- */

typedef struct charging {
    fsm_region *region;
    cell *cl;
    bool lease;
    const ancestry *path;
} charging;

/* Takes the lock and checks that the cell still belongs to the holder. */
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
    error = charger_cell(charger, &c->cl);
    if (error)
        unlock(c->region);
    return error;
}

/* Sets what a closed cell has used, and opens the cell if there is stock for it. */
static void settle(charging *c, int64_t stock, int64_t used)
{
    if (stock > 0) {
        open_cell(c->region, c->path, c->cl, stock, used);
        c->path->at[0]->refills++;
        c->path->at[0]->batch = stock;
        FAULT_POINT(refilled);
    } else {
        set_used(c->cl, used);
        FAULT_POINT(used_set);
    }
}

/*
 * The stock for a holder that charges or uncharges `amount` at a time, once `pending` is reserved: twice the last
 * stock, at most BATCH_CHARGES such charges or `more`.
 */
static int64_t ahead(charging *c, int64_t pending, int64_t amount, int64_t more)
{
    int64_t batch = fsm_get_batch(c->region);
    if (batch == 0 || in_global_mode(c->path))
        return 0;
    int64_t twice = READ_ONCE(c->cl->words.cap);
    int64_t wanted = c->lease ? 0
                     : batch != FSM_BATCH_AUTO
                         ? batch
                         : min_i64(max_i64(amount, twice), max_i64(multiply(amount, BATCH_CHARGES), more));
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
    close_cell(c.region, c.path, c.cl);
    if (amount > 0)
        error = find_room(c.region, c.path, amount, false, &exceeded);
    if (error == -ENOMEM)
        record_refused(charger, amount, false);
    if (!error && amount > 0) {
        int64_t used = used_of(c.cl, state_now(c.cl)); /* find_room() may have granted a request of the same holder */
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
    uint64_t before = state_now(c.cl);
    int64_t reserved = 0;
    if (is_open(before)) {
        note_peak(c.path, c.cl);
        reserved = total_of(c.cl, before);
    }
    int64_t used = close_cell(c.region, c.path, c.cl);
    if (used < amount) {
        fsm_fault_here.held = used;
        error = -ERANGE;
    } else if (amount > 0) {
        bool marked = reserve(c.path, -amount);
        FAULT_POINT(given_back);
        leave_global(c.region, c.path, amount);
        /* Keep some as stock for the next charge. A holder whose usage swings soon keeps the whole swing. */
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
    if (amount >= 0 && fsm_charge_fast(charger, amount)) /* stock is within every limit */
        return 0;
    charging c;
    int error = begin(charger, amount, &c);
    if (error)
        return error;
    int64_t used = close_cell(c.region, c.path, c.cl);
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
    error = move_held(c.region, c.path, c.cl, sign * amount);
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
    *out = used_of(c.cl, state_now(c.cl));
    unlock(c.region);
    return 0;
}
