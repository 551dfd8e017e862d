/* counter.h - a counter and its ancestors: reservations, the open cells below, sums, and global mode. */
#ifndef FSM_COUNTER_H
#define FSM_COUNTER_H

#include "region/reading.h"

/* A counter and its ancestors, checked once and then safe to walk: at[0] is the counter, at[n - 1] the root's. */
typedef struct ancestry {
    uint32_t n;
    uint32_t self; /* index of the holder that charges: it is alive. NONE: the group itself is charged */
    counter *at[FSM_DEPTH_MAX + 1];
} ancestry;

int path_of(fsm_region *r, uint32_t counter, ancestry *out);
int find_counter(fsm_region *r, fsm_id id, uint32_t resource, ancestry *out);
/* Without the lock. */
int seek_counter(fsm_region *r, const reading *at, fsm_id id, uint32_t resource, counter **out);

/* Takes the lock and finds the counter of `id` and `resource`, or returns from the function. */
#define WITH_COUNTER(p)                                                                                                \
    ancestry p;                                                                                                        \
    int error = lock(r);                                                                                               \
    if (error)                                                                                                         \
        return error;                                                                                                  \
    error = find_counter(r, id, resource, &p);                                                                         \
    if (error) {                                                                                                       \
        unlock(r);                                                                                                     \
        return error;                                                                                                  \
    }

/* Reads a counter without the lock: repeats the block that follows as often as necessary. `error` is the result. */
#define READ_COUNTER(c)                                                                                                \
    int error = 0;                                                                                                     \
    reading at = { 0 };                                                                                                \
    for (counter * c; reads(r, &at, &error);)                                                                          \
        if ((error = seek_counter(r, &at, id, resource, &c)) == 0)

void reset_counter(counter *c);
void reset_derived(counter *c);

/* ---- reservations ---- */

/* Reserves at every level; a negative amount is returned. Returns whether some level has marks. */
bool reserve(const ancestry *p, int64_t amount);

/* An open cell is in the open list of its counter, and its stock counts at every level. */
void link_open(fsm_region *r, const ancestry *p, cell *cl);
void open_cell(fsm_region *r, const ancestry *p, cell *cl, int64_t stock, int64_t used);
/* Closes the cell if it is open and returns its stock. The result is what the cell has used. */
int64_t close_cell(fsm_region *r, const ancestry *p, cell *cl);
/* Closes every open cell in the subtree of c. */
int drain(fsm_region *r, counter *c);

/* ---- sums ---- */

/* The stock of the open cells below top, with or without those of top itself. */
int sum_stock(fsm_region *r, counter *top, bool with_top, int64_t *out);
/* Notes a precise sum as the usage: max_usage and min_usage follow it. */
int note_usage(fsm_region *r, counter *c, int64_t usage, int64_t *out);
int precise_usage(fsm_region *r, counter *c, int64_t *out);
/* Raises max_usage without a sum: the stock of the caller's cell is known. */
void note_peak(const ancestry *p, const cell *cl);

/* Needs no lock. Reads `forgotten` first: it never exceeds the refusals. Pairs with fsm_reset_failcnt(). */
UNLOCKED static inline int64_t failcnt_of(const counter *c)
{
    int64_t forgotten = __atomic_load_n(&c->forgotten, __ATOMIC_ACQUIRE);
    return READ_ONCE(c->refusals) - forgotten;
}

/* ---- room ---- */

static inline int64_t headroom_of(const counter *c)
{
    return c->limit - c->reserved;
}

int fits_after_drain(fsm_region *r, counter *c, int64_t amount, bool nofail);
/* Whether amount fits into c, once no stock is left below: 1, 0 or an error. */
static inline int fits(fsm_region *r, counter *c, int64_t amount, bool nofail)
{
    return headroom_of(c) >= amount ? 1 : fits_after_drain(r, c, amount, nofail);
}

/* Notes in the fault that c refused. */
void note_refusal(const fsm_region *r, const counter *c, int64_t usage, int64_t limit);

/*
 * The amount that a holder may reserve ahead if it charges `amount` at a time: at most `wanted`, after `pending`.
 * 0 near a limit, where it switches stock off. Not for a path in global mode.
 */
int64_t grant(fsm_region *r, const ancestry *p, int64_t pending, int64_t amount, int64_t wanted);

/* ---- global mode: no stock in the subtree, see counter.c ---- */

static inline bool is_global(const counter *c)
{
    return c->global % 2 == 1;
}

static inline bool in_global_mode(const ancestry *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (is_global(p->at[i]))
            return true;
    return false;
}

/* Whether the headroom is too small for stock, if charges are of this size. */
bool near_limit(const counter *c, int64_t headroom, int64_t amount);
int enter_global(fsm_region *r, counter *c, int64_t headroom, int64_t amount);
void end_global(counter *c); /* of a counter that is_global() */
/* Ends global mode where it can end, after amount was returned. */
void leave_global(fsm_region *r, const ancestry *p, int64_t amount);

/* Whether a request waits for room here; see queue.c. */
static inline bool is_full(const fsm_region *r, const counter *c)
{
    return r->header->waiting > 0 && c->full_in == r->header->round;
}

#endif
