/*
 * queue.c - requests that wait for room, and their turns.
 *
 * The problem: requests of any size compete for the same limits. Large requests must not starve behind small ones.
 * Requests that do not compete must not delay each other. And a process may die at any moment while it waits.
 *
 * The queue. A request asks for amounts of one or several counters, all or nothing. All requests of a region stand in
 * one queue, in the order of arrival. A process that makes room under the lock goes through the queue from the oldest
 * request on, and charges for each request that fits. So the process that made the room grants the request, no other
 * charge comes in between, and the waiting process is only woken.
 *
 * Turns. A request that finds no room at a counter makes it full for all requests behind it. So a large request gets
 * the room that small ones behind it could use. A request that does not need a full counter is not delayed: in effect
 * there is one queue for each contested limit. The first request of a full counter sets aside what it asks for
 * elsewhere on its path. Otherwise it could find room at different counters at different times, and never at all of
 * them at once. A request above a limit cannot be granted while that limit stands, and makes nothing full.
 *
 * A charge that does not wait enters no queue. It is never refused if it fits, so it may come before waiting requests.
 *
 * A full counter stays in global mode while a request waits for it, so that all room there is made under the lock.
 *
 * Rounds. A round is one pass over the queue. A counter that is full, or where an amount was set aside, is marked with
 * the number of the round; so all marks end with the next round. A new round begins when room is made at a full
 * counter, when a request leaves the queue, and when a limit is set.
 *
 * Accepted inaccuracy: damaged marks, or marks left by a crash, make a request wait until the next round.
 */
#include "holders/queue.h"
#include "counters/amounts.h"
#include "counters/counter.h"
#include "holders/commit.h"
#include "observe/events.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- requests ----------------------------------------------------------------------- */

static uint32_t resource_bit(const fsm_region *r, const cell *cl)
{
    return 1u << cl->counter % r->geometry.resources;
}

/* Reads the request that begins with w. Its cells are of one holder and of different resources. */
static int read_request(fsm_region *r, const waiter *w, request *out)
{
    const waiter *first = w;
    uint32_t seen = 0; /* bit mask of resources */
    out->n = 0;
    while (out->n < FSM_RESOURCES_MAX) {
        cell *cl = cell_at(r, w->cell);
        int64_t amount = w->amount;
        if (!cl || cl->owner == 0 || cl->owner == QUARANTINED || amount <= 0 ||
            (out->n > 0 && cl->owner != out->cells[0]->owner) || (seen & resource_bit(r, cl)))
            break;
        seen |= resource_bit(r, cl);
        out->cells[out->n] = cl;
        out->amount[out->n++] = amount;
        uint32_t next = once(w->part);
        if (next == NONE)
            return 0;
        w = waiter_at(r, next);
        if (!w || state_of(w->stamp) != PART)
            break;
    }
    return corrupt(r, "waiter %u has an impossible request", waiter_index(r, first));
}

void free_waiter(fsm_region *r, waiter *w)
{
    __atomic_store_n(&w->stamp, make_stamp(generation(w->stamp), FREE), __ATOMIC_RELEASE);
    FAULT_POINT(ended);
    free_record(r, WAITERS, waiter_index(r, w));
}

void free_parts(fsm_region *r, uint32_t index)
{
    waiter *w;
    for (uint32_t n = 0; n < FSM_RESOURCES_MAX && (w = waiter_at(r, index)) && state_of(w->stamp) == PART; n++) {
        index = once(w->part);
        free_waiter(r, w);
    }
}

/* ---- the queue ------------------------------------------------------------------------ */

/* Counts one more or one fewer waiting request at every counter that the request needs. */
static int count(fsm_region *r, const request *q, int by)
{
    ancestry p;
    for (uint32_t i = 0; i < q->n; i++) {
        int error = path_of(r, q->cells[i]->counter, &p);
        if (error)
            return error;
        for (uint32_t k = 0; k < p.n; k++) {
            p.at[k]->waiting += (uint32_t)by;
            FAULT_POINT(waiting_counted);
        }
    }
    r->header->waiting += (uint32_t)by;
    if (r->header->waiting == 0)
        r->header->round++; /* no counter is full any more */
    FAULT_POINT(all_counted);
    return 0;
}

int enqueue(fsm_region *r, waiter *w)
{
    request q;
    int error = read_request(r, w, &q);
    if (!error && w->answer == WAITING)
        error = count(r, &q, 1);
    if (error)
        return error;
    header *h = r->header;
    uint32_t left = r->geometry.cells;
    waiter *before = waiter_at(r, h->queue_tail), *after;
    while (before && before->ticket > w->ticket && left-- > 0) /* only in a recovery, which finds them in any order */
        before = waiter_at(r, before->prev);
    w->prev = before ? waiter_index(r, before) : NONE;
    w->next = before ? before->next : h->queue_head;
    after = waiter_at(r, w->next);
    *(before ? &before->next : &h->queue_head) = waiter_index(r, w);
    FAULT_POINT(linked);
    *(after ? &after->prev : &h->queue_tail) = waiter_index(r, w);
    FAULT_POINT(linked_back);
    return 0;
}

static void wake_owner(fsm_region *r, waiter *w, const cell *cl)
{
    syscall(SYS_futex, &w->answer, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    uint32_t owner = cl->owner - 1;
    holder *h = holder_at(r, owner);
    if (!h)
        return;
    __atomic_add_fetch(&h->answers, 1, __ATOMIC_RELEASE);
    FAULT_POINT(answers_counted);
    syscall(SYS_futex, &h->answers, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    if (owner >= r->geometry.holders)
        notify(r);
}

int dequeue(fsm_region *r, waiter *w)
{
    header *h = r->header;
    request q;
    int error = read_request(r, w, &q);
    if (error)
        return error;
    bool waited = w->answer == WAITING;
    if (waited)
        __atomic_store_n(&w->answer, ENDED, __ATOMIC_RELEASE); /* for a process that is about to sleep */
    uint32_t part = once(w->part);
    waiter *before = waiter_at(r, w->prev), *after = waiter_at(r, w->next);
    *(before ? &before->next : &h->queue_head) = w->next;
    *(after ? &after->prev : &h->queue_tail) = w->prev;
    FAULT_POINT(unlinked);
    free_waiter(r, w);
    free_parts(r, part);
    if (!waited)
        return 0;
    error = count(r, &q, -1);
    wake_owner(r, w, q.cells[0]);
    return error;
}

/* ---- turns ------------------------------------------------------------------------------- */

static int64_t aside_at(const fsm_region *r, const counter *c)
{
    return c->aside_in == r->header->round ? max_i64(c->aside, 0) : 0;
}

/* Whether amount fits in addition to what is set aside here. */
static int has_room(fsm_region *r, counter *c, int64_t amount)
{
    return fits(r, c, add_amounts(amount, aside_at(r, c)), false);
}

static int mark_full(fsm_region *r, counter *c, int64_t amount)
{
    c->full_in = r->header->round;
    FAULT_POINT(full);
    return fsm_get_batch(r) != 0 && !is_global(c) ? enter_global(r, c, c->limit - c->reserved, amount) : 0;
}

static int set_aside(fsm_region *r, const request *q)
{
    ancestry p;
    uint64_t round = r->header->round;
    for (uint32_t i = 0; i < q->n; i++) {
        int error = path_of(r, q->cells[i]->counter, &p);
        if (error)
            return error;
        for (uint32_t k = 0; k < p.n; k++) {
            counter *c = p.at[k];
            if (c->full_in == round)
                continue;
            c->aside = add_amounts(aside_at(r, c), q->amount[i]);
            c->aside_in = round;
            FAULT_POINT(set_aside);
        }
    }
    return 0;
}

/* 1: the request exceeds a limit. Then nothing is drained for it, and it makes nothing full. */
static int exceeds_limit(fsm_region *r, const request *q)
{
    ancestry p;
    for (uint32_t i = 0; i < q->n; i++) {
        int error = path_of(r, q->cells[i]->counter, &p);
        if (error)
            return error;
        for (uint32_t k = 0; k < p.n; k++)
            if (q->amount[i] > p.at[k]->limit)
                return 1;
    }
    return 0;
}

int try_turn(fsm_region *r, const request *q, const counter **at)
{
    *at = NULL;
    bool first = false;
    int error = exceeds_limit(r, q);
    if (error)
        return error;
    for (uint32_t i = 0; i < q->n; i++) {
        ancestry p;
        error = path_of(r, q->cells[i]->counter, &p);
        for (uint32_t k = 0; k < p.n && !error; k++) {
            counter *c = p.at[k];
            int fit = c->full_in == r->header->round ? 0 : has_room(r, c, q->amount[i]);
            if (fit > 0)
                continue;
            *at = c;
            if (fit == 0 && c->full_in != r->header->round) {
                first = true;
                fit = mark_full(r, c, q->amount[i]);
            }
            error = fit;
            break;
        }
        if (error)
            return error;
    }
    if (!*at)
        return 0;
    error = first ? set_aside(r, q) : 0;
    return error ? error : 1;
}

int charge_request(fsm_region *r, const request *q, uint32_t record)
{
    ancestry p;
    for (uint32_t i = 0; i < q->n; i++) {
        int error = path_of(r, q->cells[i]->counter, &p);
        if (error)
            return error;
        close_cell(r, &p, q->cells[i]);
    }
    return commit_changes(r, q->cells, q->amount, q->n, record);
}

int serve_queue(fsm_region *r)
{
    header *h = r->header;
    uint32_t left = r->geometry.cells;
    waiter *w;
    h->round++;
    FAULT_POINT(round_begun);
    for (uint32_t i = h->queue_head; h->waiting > 0 && (w = waiter_at(r, i)) && left-- > 0; i = w->next) {
        request q;
        const counter *at;
        if (w->answer != WAITING)
            continue;
        int turn = read_request(r, w, &q);
        if (!turn)
            turn = try_turn(r, &q, &at);
        if (turn > 0 && at && at->waiting == h->waiting)
            break; /* every request behind it needs this counter too */
        if (turn == 0)
            turn = charge_request(r, &q, i);
        if (turn == 0) {
            turn = count(r, &q, -1);
            wake_owner(r, w, q.cells[0]);
        }
        if (turn < 0)
            return turn;
    }
    return 0;
}

void serve_full(fsm_region *r, const ancestry *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->at[i]->full_in == r->header->round) {
            serve_queue(r); /* an error means damage: recovery serves the queue */
            return;
        }
}

int serve_after_recovery(fsm_region *r)
{
    header *h = r->header;
    int error = serve_queue(r);
    uint32_t left = r->geometry.cells;
    waiter *w;
    for (uint32_t i = h->queue_head; !error && (w = waiter_at(r, i)) && left-- > 0; i = w->next) {
        const cell *cl = cell_at(r, w->cell);
        if (w->answer != WAITING && cl)
            wake_owner(r, w, cl);
    }
    return error;
}

int end_requests(fsm_region *r, uint32_t owner, const cell *cl)
{
    uint32_t left = r->geometry.cells;
    waiter *w;
    bool ended = false;
    for (uint32_t i = r->header->queue_head, next; (w = waiter_at(r, i)) && left-- > 0; i = next) {
        request q;
        int error = read_request(r, w, &q);
        if (error)
            return error;
        next = once(w->next);
        bool concerned = q.cells[0]->owner == owner + 1 && !cl;
        for (uint32_t k = 0; k < q.n && cl; k++)
            concerned |= q.cells[k] == cl;
        if (!concerned)
            continue;
        error = dequeue(r, w);
        if (error)
            return error;
        ended = true;
    }
    return ended ? serve_queue(r) : 0;
}
