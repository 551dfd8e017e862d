/*
 * events.c - what is counted: charges refused, soft limits crossed; and who is told.
 *
 * A soft limit is a mark: a usage is above it or not, and each change of that is counted.  The fast paths change the
 * usage and look at no mark.  So they are kept from crossing one: while cells below a counter are open, what is
 * reserved is not above the next mark (`high`), and what cannot but be used is above the one before (`low`); grant()
 * and open_cell() reserve no more than that.  Who changes the usage under the lock looks at the marks at the end.
 * Where he may have crossed one, the counter is drained; then what is reserved is what is used.  What others do
 * between his change and the drain counts as done before it: he has not returned.
 *
 * On which side the usage was is told by the number of crossings, odd or even.  So a crossing is one store, and who
 * dies before it leaves it to who recovers.
 *
 * The doorbell.  Who counts something looks whether anybody listens, and rings once for each time that somebody has
 * called fsm_listen().  Counting and looking are in one order, as are listening and reading: either he is heard, or
 * what he counted is read.  Who dies between the two had the lock, and is recovered from, or is a holder, and told of
 * by whoever ends it.
 */
#include "internal.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- marks ------------------------------------------------------------------------ */

void find_marks(counter *c)
{
    bool above = is_above_soft_limit(c);
    c->low = above ? c->soft_limit : -1;
    c->high = above ? FSM_UNLIMITED : c->soft_limit;
    c->marked = above || c->soft_limit < FSM_UNLIMITED;
}

static void look(fsm_region *r, const ancestry *p, uint32_t level)
{
    counter *c = p->at[level];
    /* an error is that of a damaged region: who recovers looks again */
    if (is_between_marks(c) || drain(r, c) != 0 || is_between_marks(c))
        return;
    __atomic_add_fetch(&c->soft_crossings, 1, __ATOMIC_SEQ_CST); /* pairs with fsm_listen() */
    FAULT_POINT(crossing_counted);
    find_marks(c);
    FAULT_POINT(marks_found);
    tell_listener(r, p, level);
}

void cross_marks(fsm_region *r, const ancestry *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->at[i]->marked)
            look(r, p, i);
}

void look_again(fsm_region *r, const ancestry *p)
{
    look(r, p, 0);
    tell_listener(r, p, 0);
}

/* ---- the doorbell ------------------------------------------------------------------- */

UNLOCKED void tell_listener(fsm_region *r, const ancestry *p, uint32_t level)
{
    uint32_t *bell = &r->header->bell;
    if (__atomic_load_n(bell, __ATOMIC_SEQ_CST) == SILENT)
        return;
    for (uint32_t i = level; i < p->n; i++) {
        __atomic_add_fetch(&p->at[i]->news, 1, __ATOMIC_SEQ_CST);
        FAULT_POINT(news_told);
    }
    uint32_t armed = ARMED;
    if (__atomic_compare_exchange_n(bell, &armed, RUNG, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        FAULT_POINT(bell_rung);
        syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
}

UNLOCKED void fsm_listen(fsm_region *r, bool on)
{
    __atomic_store_n(&r->header->bell, on ? ARMED : SILENT, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before what is read then; pairs with tell_listener() */
}

bool fsm_await_event(fsm_region *r, int64_t nanoseconds)
{
    uint32_t *bell = &r->header->bell;
    struct timespec patience = { .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000 };
    syscall(SYS_futex, bell, FUTEX_WAIT, ARMED, &patience, NULL, 0);
    return __atomic_load_n(bell, __ATOMIC_ACQUIRE) != ARMED;
}

/* ---- reading -------------------------------------------------------------------------- */

/* Sums up over the groups of the subtree, parents before their children. */
UNLOCKED static int sum_up(fsm_region *r, const reading *at, uint32_t top, uint32_t resource, fsm_events *out)
{
    uint64_t steps = 2 * (uint64_t)r->geometry.groups;
    *out = (fsm_events){ 0 };
    for (uint32_t i = top, next; i != NONE; i = next) {
        const counter *c = counter_at(r, i * r->geometry.resources + resource);
        const group *g = group_at(r, i);
        if (!g || !c)
            return DAMAGED(r, at, "group %u, below group %u, is out of range", i, top);
        out->limit += peek(c->refusals) + peek(c->past.refusals);
        out->soft_limit += peek(c->soft_crossings) + peek(c->past.soft_crossings);
        next = peek(g->first_child);
        while (next == NONE && i != top) {
            next = peek(g->next_sibling);
            if (next == NONE) {
                i = peek(g->parent);
                g = group_at(r, i);
            }
            if (!g || steps-- == 0)
                return DAMAGED(r, at, "the groups below group %u have no end", top);
        }
        if (steps-- == 0)
            return DAMAGED(r, at, "the groups below group %u have no end", top);
    }
    return 0;
}

int fsm_get_events(fsm_region *r, fsm_id id, uint32_t resource, fsm_events *out)
{
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        counter *c;
        error = seek_counter(r, &at, id, resource, &c);
        if (!error)
            error = sum_up(r, &at, id_index(id), resource, out);
    }
    return error;
}

int fsm_get_news(fsm_region *r, fsm_id id, uint32_t resource, uint32_t *out)
{
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        counter *c;
        error = seek_counter(r, &at, id, resource, &c);
        if (!error)
            *out = peek(c->news);
    }
    return error;
}
