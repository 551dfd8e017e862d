/*
 * events.c - counting events: refused charges, soft limits and thresholds that are crossed; and the event notifier.
 *
 * The problem: events must be counted exactly, but the fast paths change the usage without looking at any limit, and
 * may not cost more.
 *
 * Marks. A soft limit is a mark, and so is the amount of a watch. The usage is above a mark or not; each change of side
 * is an event. The fast paths are kept from crossing a mark. While cells below a counter are open, what is reserved is
 * not above the next mark (`high`), and what is certainly used is above the one before (`low`). grant() and open_cell()
 * reserve no more than that. A change of the usage under the lock checks the marks at its end (cross_marks). If it may
 * have crossed one, the counter is drained; then usage is what is reserved.
 *
 * Accepted inaccuracy: charges of other processes between the change and the drain count as done before the change. The
 * change has not returned by then, so no process can tell the order.
 *
 * Crash safety. The number of crossings also says on which side of the mark the usage was: odd is above. So one store
 * does both, and if a process dies before it, recovery counts the crossing. If a watch also counts a crossing for its
 * counter, the journal makes one step of both.
 *
 * The event notifier. A process that has counted an event checks whether a listener is armed, and wakes it once for
 * each fsm_listen(). Counting comes before checking, and arming before reading, all in one total order. So either the
 * listener is woken, or it reads the new count. A process that dies between counting and checking had the lock, and
 * recovery notifies; or it is a holder, and the process that ends the holder notifies.
 *
 * Barriers. The counting stores are SEQ_CST and pair with the SEQ_CST store and fence in fsm_listen().
 */
#include "observe/events.h"
#include "counters/amounts.h"
#include "counters/counter.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/journal.h"
#include "region/lock.h"
#include "region/pool.h"
#include "region/reading.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- marks ------------------------------------------------------------------------ */

bool is_valid_watch(const watch *w)
{
    return w->amount >= 0 && w->passed >= 0 && w->passed < INT64_MAX && w->flags <= (FSM_BELOW | FSM_PERCENT) &&
           !(w->flags & FSM_PERCENT && w->amount > 100);
}

/* The highest usage that is not above the mark. */
static int64_t mark_of(const counter *c, const watch *w)
{
    int64_t amount = w->amount, below = w->flags & FSM_BELOW ? 1 : 0;
    if (w->flags & FSM_PERCENT) {
        __extension__ __int128 part = (__int128)amount * c->limit;
        amount = (int64_t)((part + (below ? 99 : 0)) / 100);
    }
    return amount - below;
}

static inline bool is_above_mark(const watch *w)
{
    return w->passed & 1;
}

/*
 * Crossings in the direction that the watch asks for. A watch that begins above its mark begins with 1. One that begins
 * below begins with 0 if it counts falls, and with 2 if it counts rises.
 */
static int64_t crossings_of(uint32_t flags, int64_t passed)
{
    return (flags & FSM_BELOW ? passed : passed - 1) / 2;
}

static int64_t first_passed(const watch *w, bool above)
{
    return above ? 1 : w->flags & FSM_BELOW ? 0 : 2;
}

void find_marks(fsm_region *r, counter *c)
{
    bool above = is_above_soft_limit(c);
    int64_t low = above ? c->soft_limit : -1;
    int64_t high = above ? FSM_UNLIMITED : c->soft_limit;
    uint32_t left = r->geometry.cells;
    const watch *w;
    for (uint32_t i = c->watches_head; (w = watch_at(r, i)) && left-- > 0; i = w->next) {
        int64_t mark = mark_of(c, w);
        if (is_above_mark(w))
            low = max_i64(low, mark);
        else
            high = min_i64(high, mark);
    }
    c->low = low;
    c->high = high;
    c->marked = above || c->soft_limit < FSM_UNLIMITED || c->watches_head != NONE;
    FAULT_POINT(marks_found);
}

static void pass(fsm_region *r, counter *c, watch *w)
{
    int64_t passed = w->passed + 1;
    if (crossings_of(w->flags, passed) == crossings_of(w->flags, w->passed)) {
        WRITE_ONCE(w->passed, passed);
        FAULT_POINT(passed_back);
        return;
    }
    journal *j = &r->header->journal;
    j->index = watch_index(r, w);
    j->counter = counter_index(r, c);
    j->passed = passed;
    j->crossings = c->threshold_crossings + 1;
    FAULT_POINT(journal_written);
    journal_commit(j, JOURNAL_CROSS);
    FAULT_POINT(journal_committed);
    WRITE_ONCE(w->passed, passed);
    FAULT_POINT(passed_set);
    __atomic_store_n(&c->threshold_crossings, j->crossings, __ATOMIC_SEQ_CST); /* pairs with fsm_listen() */
    FAULT_POINT(crossings_set);
    journal_commit(j, JOURNAL_EMPTY);
    FAULT_POINT(journal_emptied);
}

static void check_marks(fsm_region *r, const ancestry *p, uint32_t level)
{
    counter *c = p->at[level];
    /* an error means damage: recovery checks again */
    if (is_between_marks(c) || drain(r, c) != 0 || is_between_marks(c))
        return;
    if ((c->reserved > c->soft_limit) != is_above_soft_limit(c)) {
        __atomic_add_fetch(&c->soft_crossings, 1, __ATOMIC_SEQ_CST); /* pairs with fsm_listen() */
        FAULT_POINT(soft_limit_crossed);
    }
    uint32_t left = r->geometry.cells;
    watch *w;
    for (uint32_t i = c->watches_head; (w = watch_at(r, i)) && left-- > 0; i = w->next)
        if ((c->reserved > mark_of(c, w)) != is_above_mark(w))
            pass(r, c, w);
    find_marks(r, c);
    notify_listener(r, p, level);
}

void cross_marks(fsm_region *r, const ancestry *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->at[i]->marked)
            check_marks(r, p, i);
}

void recheck_marks(fsm_region *r, const ancestry *p)
{
    check_marks(r, p, 0);
    notify_listener(r, p, 0);
}

/* ---- watches: after a change of their list, find_marks() ----------------------------- */

void link_watch(fsm_region *r, watch *w, counter *c)
{
    watch *next = watch_at(r, c->watches_head);
    w->prev = NONE;
    w->next = c->watches_head;
    if (next)
        next->prev = watch_index(r, w);
    c->watches_head = watch_index(r, w);
    FAULT_POINT(watch_linked);
}

static void end_watch(fsm_region *r, counter *c, watch *w)
{
    watch *next = watch_at(r, w->next), *previous = watch_at(r, w->prev);
    __atomic_store_n(&w->stamp, make_stamp(generation(w->stamp), FREE), __ATOMIC_RELEASE);
    FAULT_POINT(ended);
    if (next)
        next->prev = w->prev;
    if (previous)
        previous->next = w->next;
    else
        c->watches_head = w->next;
    FAULT_POINT(unlinked);
    free_record(r, WATCHES, watch_index(r, w));
}

int end_watches_of(fsm_region *r, counter *c)
{
    while (c->watches_head != NONE) {
        watch *w = watch_at(r, c->watches_head);
        if (!w || state_of(w->stamp) != LIVE || w->counter != counter_index(r, c))
            return corrupt(r, "the watches of counter %u are damaged", counter_index(r, c));
        end_watch(r, c, w);
    }
    find_marks(r, c);
    return 0;
}

int end_watches(fsm_region *r)
{
    int error = 0;
    for (uint32_t i = 0; i < high_of(&r->header->watches, r->geometry.cells) && !error; i++) {
        if (state_of(r->watches[i].stamp) != LIVE)
            continue;
        counter *c = counter_at(r, r->watches[i].counter);
        error = c ? end_watches_of(r, c) : corrupt(r, "watch %u has no counter", i);
    }
    return error;
}

static int make_watch(fsm_region *r, counter *c, const fsm_mark *mark, fsm_id *out)
{
    uint32_t index;
    int error = take_record(r, WATCHES, &index);
    if (error)
        return error;
    watch *w = &r->watches[index];
    w->amount = mark->amount;
    w->flags = mark->flags;
    w->counter = counter_index(r, c);
    w->passed = first_passed(w, c->reserved > mark_of(c, w));
    FAULT_POINT(described);
    __atomic_store_n(&w->stamp, make_stamp(generation(w->stamp) + 1, LIVE), __ATOMIC_RELEASE);
    FAULT_POINT(made);
    link_watch(r, w, c);
    *out = make_id(w->stamp, index);
    return 0;
}

/* Ends the old watches that still exist: a watch also ends with its group, and when another daemon begins to serve. */
static void end_old(fsm_region *r, const fsm_id *old, size_t count)
{
    counter *last = NULL;
    for (size_t i = 0; i < count; i++) {
        watch *w = watch_at(r, id_index(old[i]));
        counter *c = w ? counter_at(r, w->counter) : NULL;
        if (!c || w->stamp != make_stamp((uint32_t)(old[i] >> 32), LIVE))
            continue;
        end_watch(r, c, w);
        if (last && last != c)
            find_marks(r, last);
        last = c;
    }
    if (last)
        find_marks(r, last);
}

int fsm_watch(fsm_region *r, fsm_id id, uint32_t resource, const fsm_mark *marks, size_t count, const fsm_id *old,
              size_t old_count, fsm_id *out)
{
    for (size_t i = 0; i < count; i++)
        if (!is_valid_watch(&(watch){ .amount = marks[i].amount, .flags = marks[i].flags }))
            return -EINVAL;
    int error = lock(r);
    if (error)
        return error;
    ancestry p;
    size_t made = 0;
    error = find_counter(r, id, resource, &p);
    if (!error)
        error = drain(r, p.at[0]); /* then usage is what is reserved, and its side of the mark is known */
    while (!error && made < count) {
        error = make_watch(r, p.at[0], &marks[made], &out[made]);
        if (!error)
            made++;
    }
    if (!error)
        find_marks(r, p.at[0]);
    end_old(r, error ? out : old, error ? made : old_count);
    unlock(r);
    return error;
}

int fsm_unwatch(fsm_region *r, const fsm_id *old, size_t count)
{
    int error = lock(r);
    if (error)
        return error;
    end_old(r, old, count);
    unlock(r);
    return 0;
}

UNLOCKED int fsm_watch_crossings(fsm_region *r, fsm_id id, int64_t *out)
{
    const watch *w = watch_at(r, id_index(id));
    if (!w || id_index(id) >= high_of(&r->header->watches, r->geometry.cells))
        return gone(r);
    uint32_t flags = READ_ONCE(w->flags);
    *out = crossings_of(flags, READ_ONCE(w->passed));
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* a changed stamp means the values are of another watch */
    return READ_ONCE(w->stamp) == make_stamp((uint32_t)(id >> 32), LIVE) ? 0 : gone(r);
}

/* ---- the event notifier ------------------------------------------------------------- */

UNLOCKED void notify_listener(fsm_region *r, const ancestry *p, uint32_t level)
{
    if (__atomic_load_n(&r->header->notifier, __ATOMIC_SEQ_CST) == UNARMED)
        return;
    for (uint32_t i = level; i < p->n; i++) {
        __atomic_add_fetch(&p->at[i]->event_seq, 1, __ATOMIC_SEQ_CST);
        FAULT_POINT(events_numbered);
    }
    notify(r);
}

UNLOCKED void notify(fsm_region *r)
{
    uint32_t *notifier = &r->header->notifier;
    uint32_t armed = ARMED;
    if (__atomic_compare_exchange_n(notifier, &armed, FIRED, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        FAULT_POINT(notifier_fired);
        syscall(SYS_futex, notifier, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
}

UNLOCKED void fsm_listen(fsm_region *r, bool on)
{
    __atomic_store_n(&r->header->notifier, on ? ARMED : UNARMED, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before the reads that follow; pairs with notify_listener() */
}

bool fsm_await_event(fsm_region *r, int64_t nanoseconds)
{
    uint32_t *notifier = &r->header->notifier;
    struct timespec patience = { .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000 };
    syscall(SYS_futex, notifier, FUTEX_WAIT, ARMED, &patience, NULL, 0);
    return __atomic_load_n(notifier, __ATOMIC_ACQUIRE) != ARMED;
}

/* ---- reading -------------------------------------------------------------------------- */

/* Adds up the counts of a subtree, parents before their children. */
UNLOCKED static int sum_up(fsm_region *r, const reading *at, uint32_t top, uint32_t resource, fsm_events *out)
{
    uint64_t steps = 2 * (uint64_t)r->geometry.groups;
    *out = (fsm_events){ 0 };
    for (uint32_t i = top, next; i != NONE; i = next) {
        const counter *c = counter_at(r, i * r->geometry.resources + resource);
        const group *g = group_at(r, i);
        if (!g || !c)
            return DAMAGED(r, at, "group %u, below group %u, is out of range", i, top);
        out->limit += READ_ONCE(c->refusals) + READ_ONCE(c->past.refusals);
        out->soft_limit += READ_ONCE(c->soft_crossings) + READ_ONCE(c->past.soft_crossings);
        out->threshold += READ_ONCE(c->threshold_crossings) + READ_ONCE(c->past.threshold_crossings);
        next = READ_ONCE(g->first_child);
        while (next == NONE && i != top) {
            next = READ_ONCE(g->next_sibling);
            if (next == NONE) {
                i = READ_ONCE(g->parent);
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
    READ_COUNTER(c)
    {
        error = sum_up(r, &at, id_index(id), resource, out);
    }
    return error;
}

UNLOCKED int fsm_get_event_seq(fsm_region *r, fsm_id id, uint32_t resource, uint32_t *out)
{
    READ_COUNTER(c)
    {
        *out = READ_ONCE(c->event_seq);
    }
    return error;
}
