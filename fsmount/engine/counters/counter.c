/*
 * counter.c - a counter and its ancestors: reservations, stock, and global mode.
 *
 * The problem: a charge must count at every level up to the root, but a store at every level is far too slow. So a
 * holder reserves an amount ahead at every level, its stock, and charges within it by one compare-and-swap on its own
 * cell.
 *
 * The invariant: `reserved` of a counter is what is used in its subtree plus the stock of the open cells there. It
 * changes only under the lock, and only charge_nofail lets it exceed the limit. The fast paths turn stock into usage
 * and back, so however they interleave they cannot exceed the limit either.
 *
 * Refusals are exact: stock is drained before a charge is refused.
 *
 * Global mode: near a limit, draining again and again costs more than stock saves. So a counter whose headroom is small
 * against what its holders would reserve enters global mode. No cell below it is open, every charge takes the lock, and
 * usage equals `reserved`. Global mode ends at twice that headroom. It also ends when charges have become small against
 * the headroom and no charge was refused for a while.
 *
 * Accepted inaccuracy: the fast path does not report a peak. max_usage is the highest sum that was computed. The true
 * peak is between max_usage and peak_reserved; their difference is error_bound in R.stat.
 *
 * Barriers. close_cell() pairs with fsm_state_swap(), open_cell() with fsm_uncharge_fast(); enter_global() and
 * end_global() pair with refuses() in charge.c.
 */
#include "counters/counter.h"
#include "counters/amounts.h"
#include "counters/group.h"
#include "region/fault.h"
#include "region/fault_point.h"

#include <errno.h>
#include <string.h>

/* A holder may reserve one part in SHARE of its share of the headroom. */
#define SHARE 4
/* Global mode ends after this many uncharges without a refusal, if this many charges have headroom. */
#define CALM 64

/* ---- the path to the root ------------------------------------------------------- */

int path_of(fsm_region *r, uint32_t index, ancestry *out)
{
    uint32_t resources = r->geometry.resources;
    uint32_t resource = index % resources;
    uint32_t g = index / resources;
    out->self = NONE;
    out->n = 0;
    do {
        if (g >= groups_high(r))
            return corrupt(r, "group %u, an ancestor in counter %u's path, is out of range", g, index);
        if (state_of(r->groups[g].stamp) != LIVE)
            return corrupt(r, "group %u, an ancestor in counter %u's path, is not live", g, index);
        if (out->n > FSM_DEPTH_MAX)
            return corrupt(r, "the path of counter %u has no end", index);
        out->at[out->n++] = &r->counters[g * resources + resource];
        g = once(r->groups[g].parent);
    } while (g != NONE);
    return 0;
}

int find_counter(fsm_region *r, fsm_id id, uint32_t resource, ancestry *out)
{
    group *g;
    int error = find_group(r, id, &g);
    if (error)
        return error;
    if (resource >= r->geometry.resources)
        return -EINVAL;
    error = path_of(r, group_index(r, g) * r->geometry.resources + resource, out);
    if (!error && (out->at[0]->limit < 0 || out->at[0]->soft_limit < 0 || out->at[0]->common < 0))
        error = corrupt(r, "counter %u has a negative amount", counter_index(r, out->at[0]));
    return error;
}

UNLOCKED int seek_counter(fsm_region *r, const reading *at, fsm_id id, uint32_t resource, counter **out)
{
    if (resource >= r->geometry.resources)
        return -EINVAL;
    group *g;
    int error = seek_group(r, at, id, &g);
    if (!error)
        *out = &r->counters[group_index(r, g) * r->geometry.resources + resource];
    return error;
}

void reset_derived(counter *c)
{
    c->reserved = c->batch = c->global_exit = 0;
    c->stock_cap = 0;
    if (is_global(c))
        end_global(c);
    c->watches_head = c->cells_head = c->open_head = c->active_child = c->active_next = c->active_prev = NONE;
    c->cells = c->open_below = c->waiting = 0;
    c->low = -1; /* no mark is near; find_marks() knows better */
    c->high = FSM_UNLIMITED;
    c->marked = 0;
}

void reset_counter(counter *c)
{
    memset(c, 0, sizeof *c);
    c->limit = c->soft_limit = FSM_UNLIMITED;
    reset_derived(c);
}

/* Stock is at most the sum of all caps. The rest of what is reserved is certainly used. */
static inline void raise_max_usage(counter *c, uint64_t stock_cap)
{
    if (stock_cap <= (uint64_t)c->reserved)
        c->max_usage = max_i64(c->max_usage, c->reserved - (int64_t)stock_cap);
}

bool reserve(const ancestry *p, int64_t amount)
{
    uint32_t marked = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        counter *c = p->at[i];
        c->reserved += amount;
        c->peak_reserved = max_i64(c->peak_reserved, c->reserved);
        c->min_usage = min_i64(c->min_usage, c->reserved);
        raise_max_usage(c, c->stock_cap);
        marked |= c->marked;
        FAULT_POINT(level_reserved);
    }
    return marked != 0;
}

/* ---- open cells ------------------------------------------------------------------ */

/*
 * A counter lists its own open cells, and its children with open cells below. A walk over the open cells of a subtree
 * meets no idle group.
 */
void link_open(fsm_region *r, const ancestry *p, cell *cl)
{
    counter *c = p->at[0];
    cl->open_prev = NONE;
    cl->open_next = c->open_head;
    cell *head = cell_at(r, c->open_head);
    if (head)
        head->open_prev = cell_index(r, cl);
    c->open_head = cell_index(r, cl);
    FAULT_POINT(listed);
    for (uint32_t i = 0; i < p->n; i++) {
        c = p->at[i];
        c->stock_cap += (uint64_t)cl->words.cap;
        FAULT_POINT(cap_added);
        if (c->open_below++ > 0 || i + 1 == p->n)
            continue;
        counter *parent = p->at[i + 1];
        c->active_prev = NONE;
        c->active_next = parent->active_child;
        counter *first = counter_at(r, parent->active_child);
        if (first)
            first->active_prev = counter_index(r, c);
        parent->active_child = counter_index(r, c);
        FAULT_POINT(active);
    }
}

static void unlink_open(fsm_region *r, const ancestry *p, cell *cl)
{
    counter *c = p->at[0];
    cell *next = cell_at(r, cl->open_next);
    cell *previous = cell_at(r, cl->open_prev);
    if (next)
        next->open_prev = cl->open_prev;
    if (previous)
        previous->open_next = cl->open_next;
    else
        c->open_head = cl->open_next;
    cl->open_next = cl->open_prev = NONE;
    FAULT_POINT(unlisted);
    for (uint32_t i = 0; i < p->n; i++) {
        c = p->at[i];
        c->stock_cap -= (uint64_t)cl->words.cap;
        FAULT_POINT(cap_taken);
        if (--c->open_below > 0 || i + 1 == p->n)
            continue;
        counter *after = counter_at(r, c->active_next);
        counter *before = counter_at(r, c->active_prev);
        if (after)
            after->active_prev = c->active_prev;
        if (before)
            before->active_next = c->active_next;
        else
            p->at[i + 1]->active_child = c->active_next;
        c->active_next = c->active_prev = NONE;
        FAULT_POINT(idle);
    }
}

static int64_t shares_of(const counter *c)
{
    return SHARE * ((int64_t)c->open_below + 1);
}

/* The most stock that the cell may keep. If it is returned all at once, the usage must not cross a mark unseen. */
static int64_t cap_of(const ancestry *p, int64_t stock, int64_t total)
{
    int64_t cap = min_i64(total, min_i64(2 * stock, FSM_STOCK_MAX));
    for (uint32_t i = 0; i < p->n; i++) {
        const counter *c = p->at[i];
        if (!c->marked || c->low < 0)
            continue;
        int64_t room = c->reserved - (int64_t)c->stock_cap - c->low - 1;
        cap = min_i64(cap, stock + max_i64(room, 0) / shares_of(c));
    }
    return cap;
}

void open_cell(fsm_region *r, const ancestry *p, cell *cl, int64_t stock, int64_t used)
{
    uint64_t epochs = FSM_CLOSED - FSM_EPOCH;
    uint64_t state = ((state_now(cl) + FSM_EPOCH) & epochs) | (uint64_t)stock;
    int64_t total = used + stock;
    WRITE_ONCE(cl->words.cap, cap_of(p, stock, total));
    WRITE_ONCE(cl->words.total[side_of(state)], total);
    FAULT_POINT(next_total_written);
    link_open(r, p, cl);
    FAULT_POINT(linked);
    reserve(p, stock);
    /* Only this thread changes a closed cell. Pairs with the acquire in fsm_uncharge_fast(). */
    __atomic_store_n(&cl->words.state, state, __ATOMIC_RELEASE);
    FAULT_POINT(opened);
}

int64_t close_cell(fsm_region *r, const ancestry *p, cell *cl)
{
    uint64_t state = state_now(cl);
    if (is_open(state)) {
        /* From here on only the owner of the lock changes the words. Pairs with fsm_state_swap(). */
        state = __atomic_fetch_or(&cl->words.state, FSM_CLOSED, __ATOMIC_SEQ_CST);
        FAULT_POINT(closed);
        unlink_open(r, p, cl);
        FAULT_POINT(unlinked);
        reserve(p, -stock_in(state));
    }
    return used_of(cl, state);
}

/* The first counter in the subtree of c that has open cells of its own. */
static counter *first_active(fsm_region *r, counter *c)
{
    for (uint32_t depth = 0; depth <= FSM_DEPTH_MAX && c; depth++) {
        if (c->open_head != NONE)
            return c;
        c = counter_at(r, c->active_child);
    }
    return NULL;
}

int drain(fsm_region *r, counter *c)
{
    ancestry p;
    if (c->open_below > 0)
        c->drains++;
    FAULT_POINT(drain_counted);
    while (c->open_below > 0) {
        counter *leaf = first_active(r, c);
        cell *cl = leaf ? cell_at(r, leaf->open_head) : NULL;
        if (!cl)
            return corrupt(r, "counter %u has open cells that are not in its lists", counter_index(r, c));
        int error = path_of(r, counter_index(r, leaf), &p);
        if (error)
            return error;
        uint32_t before = c->open_below;
        close_cell(r, &p, cl);
        WRITE_ONCE(cl->words.cap, 0); /* the next batch is small again */
        FAULT_POINT(batch_reset);
        if (c->open_below >= before)
            return corrupt(r, "cell %u is in counter %u's list and not open", cell_index(r, cl),
                           counter_index(r, leaf));
    }
    if (c->reserved > c->max_usage)
        c->max_usage = c->reserved;
    FAULT_POINT(max_noted);
    return 0;
}

/*
 * Nearly all the time goes into cache misses. So the next counter is prefetched while the cells of this one are read,
 * and the way back up is kept on the stack.
 */
int sum_stock(fsm_region *r, counter *top, bool with_top, int64_t *out)
{
    int64_t sum = 0;
    uint64_t steps = (uint64_t)r->geometry.cells + (uint64_t)r->geometry.groups + 1;
    counter *at[FSM_DEPTH_MAX + 1]; /* the path from top to the current counter */
    uint32_t depth = 0;
    counter *next = top->open_below > 0 ? top : NULL;
    while (next) {
        counter *c = next;
        if (steps-- == 0 || depth > FSM_DEPTH_MAX)
            return corrupt(r, "the active lists below counter %u have no end", counter_index(r, top));
        at[depth] = c;
        next = c == top ? NULL : counter_at(r, c->active_next);
        if (next) {
            __builtin_prefetch(&next->open_head);
            __builtin_prefetch(&next->active_next);
        }
        for (uint32_t i = c != top || with_top ? once(c->open_head) : NONE; i != NONE;) {
            cell *cl = cell_at(r, i);
            if (!cl || steps-- == 0)
                return corrupt(r, "the open list of counter %u is damaged", counter_index(r, c));
            uint64_t state = state_now(cl);
            if (is_open(state))
                sum += stock_in(state);
            i = once(cl->open_next);
        }
        counter *below = counter_at(r, c->active_child);
        if (below) {
            next = below;
            depth++;
        }
        while (!next && depth > 0)
            next = --depth > 0 ? counter_at(r, at[depth]->active_next) : NULL;
    }
    *out = sum;
    return 0;
}

int note_usage(fsm_region *r, counter *c, int64_t usage, int64_t *out)
{
    if (usage < 0)
        return corrupt(r, "counter %u has more stock than it has reserved", counter_index(r, c));
    c->max_usage = max_i64(c->max_usage, usage);
    FAULT_POINT(max_noted);
    c->min_usage = min_i64(c->min_usage, usage);
    *out = usage;
    return 0;
}

int precise_usage(fsm_region *r, counter *c, int64_t *out)
{
    int64_t stock;
    int error = sum_stock(r, c, true, &stock);
    return error ? error : note_usage(r, c, c->reserved - stock, out);
}

void note_peak(const ancestry *p, const cell *cl)
{
    uint64_t state = state_now(cl);
    uint64_t known = is_open(state) ? (uint64_t)(cl->words.cap - stock_in(state)) : 0;
    for (uint32_t i = 0; i < p->n; i++) {
        raise_max_usage(p->at[i], p->at[i]->stock_cap - known);
        FAULT_POINT(peak_noted);
    }
}

/* ---- room, grants and global mode ---------------------------------------------------- */

int enter_global(fsm_region *r, counter *c, int64_t headroom, int64_t amount)
{
    int64_t twice = min_i64(multiply(max_i64(headroom, 0), 2), c->limit);
    int64_t demand = min_i64(multiply(amount, 2 * shares_of(c)), c->limit / 2);
    c->global_exit = max_i64(twice, demand);
    FAULT_POINT(exit_set);
    if (is_global(c))
        return 0;
    int error = drain(r, c);
    /* After the drain, so that usage is what is reserved. Pairs with refuses() in charge.c. */
    if (!error)
        __atomic_store_n(&c->global, c->global + 1, __ATOMIC_RELEASE);
    FAULT_POINT(global);
    return error;
}

UNLOCKED void end_global(counter *c)
{
    WRITE_ONCE(c->global, c->global + 1);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* before the next stock is reserved; pairs with refuses() in charge.c */
}

bool near_limit(const counter *c, int64_t headroom, int64_t amount)
{
    int64_t shares = shares_of(c), enough;
    if (headroom < shares)
        return true;
    return (__builtin_mul_overflow(amount, shares, &enough) || headroom < enough) && headroom < c->limit / 16;
}

/* Whether CALM uncharges in a row saw no refusal at c. */
static bool is_calm(counter *c)
{
    int64_t refusals = READ_ONCE(c->refusals);
    c->calm = refusals == c->calm_refusals ? c->calm + 1 : 0;
    c->calm_refusals = refusals;
    return c->calm >= CALM;
}

void leave_global(fsm_region *r, const ancestry *p, int64_t amount)
{
    for (uint32_t i = 0; i < p->n; i++) {
        counter *c = p->at[i];
        if (!is_global(c) || is_full(r, c))
            continue;
        int64_t exit = is_calm(c) ? min_i64(multiply(amount, CALM), c->global_exit) : c->global_exit;
        if (headroom_of(c) >= exit) {
            end_global(c);
            FAULT_POINT(global_left);
        }
    }
}

void note_refusal(const fsm_region *r, const counter *c, int64_t usage, int64_t limit)
{
    uint32_t g = counter_index(r, c) / r->geometry.resources;
    fsm_fault_here.group = group_id(READ_ONCE(r->groups[g].stamp), g);
    fsm_fault_here.usage = usage;
    fsm_fault_here.limit = limit;
}

int fits_after_drain(fsm_region *r, counter *c, int64_t amount, bool nofail)
{
    /* a charge above the limit is refused whatever is drained */
    if (c->open_below == 0 || (amount > c->limit && !nofail))
        return 0;
    int error = drain(r, c);
    return error ? error : headroom_of(c) >= amount;
}

int64_t grant(fsm_region *r, const ancestry *p, int64_t pending, int64_t amount, int64_t wanted)
{
    int64_t granted = min_i64(wanted, FSM_STOCK_MAX);
    for (uint32_t i = 0; i < p->n; i++) {
        counter *c = p->at[i];
        int64_t headroom = headroom_of(c) - pending, shares = shares_of(c);
        if (near_limit(c, headroom, amount)) {
            enter_global(r, c, headroom, amount);
            granted = 0;
        } else if (multiply(granted, shares) > headroom) {
            granted = headroom / shares;
        }
        if (c->marked && multiply(granted, shares) > c->high - c->reserved - pending)
            granted = (c->high - c->reserved - pending) / shares;
    }
    /* stock below one charge is of no use to the holder, and in the way of others */
    return granted < min_i64(amount, wanted) ? 0 : granted;
}
