/*
 * recover.c - recomputing everything that is derived from the truth.
 *
 * Runs under the lock, after an owner of the lock has died or damage was found. Other processes may go on charging
 * through open cells meanwhile. They only turn stock into usage and back; the reservation of an open cell stays the
 * same.
 */
#include "lifecycle/recover.h"
#include "counters/counter.h"
#include "counters/group.h"
#include "holders/holder.h"
#include "holders/queue.h"
#include "observe/events.h"
#include "observe/refusals.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/journal.h"
#include "region/pool.h"
#include "region/reading.h"

#include <string.h>

/* ---- the journal ------------------------------------------------------------------ */

/* A dead process may have committed a step and not finished it. Each function writes the final values again. */

static int finish_move(fsm_region *r, const journal *j)
{
    cell *cl = cell_at(r, j->index);
    counter *c = counter_at(r, j->counter);
    if (!cl || !c || j->used < 0 || j->common < 0)
        return corrupt(r, "the journal moves between cell %u and counter %u", j->index, j->counter);
    set_used(cl, j->used);
    FAULT_POINT(used_set);
    c->common = j->common;
    FAULT_POINT(common_set);
    return 0;
}

static int finish_rename(fsm_region *r, const journal *j)
{
    group *g = group_at(r, j->index);
    uint32_t length = once(j->name_length);
    if (!g || length > FSM_NAME_MAX)
        return corrupt(r, "the journal renames group %u to %u bytes", j->index, length);
    memcpy(g->name, j->name, length);
    FAULT_POINT(name_copied);
    g->name_length = length;
    FAULT_POINT(renamed);
    return 0;
}

static int finish_attributes(fsm_region *r, const journal *j)
{
    group *g = group_at(r, j->index);
    uint32_t slot = once(j->slot);
    if (!g || slot > slots_of(r) || (slot > 0 && !keeps_bank(g, bank_of(slot))))
        return corrupt(r, "the journal sets attributes %u of group %u", slot, j->index);
    *attributes_of(r, g, slot) = j->attributes;
    FAULT_POINT(attributes_set);
    return 0;
}

static int finish_crossing(fsm_region *r, const journal *j)
{
    watch *w = watch_at(r, j->index);
    counter *c = counter_at(r, j->counter);
    if (!w || !c || j->passed < 0 || j->crossings < 0)
        return corrupt(r, "the journal crosses the mark of watch %u of counter %u", j->index, j->counter);
    w->passed = j->passed;
    FAULT_POINT(passed_set);
    c->threshold_crossings = j->crossings;
    FAULT_POINT(crossings_set);
    return 0;
}

static int finish_changes(fsm_region *r, const journal *j)
{
    uint32_t n = once(j->changes);
    waiter *w = waiter_at(r, j->waiter);
    if (n > FSM_RESOURCES_MAX)
        return corrupt(r, "the journal changes %u cells", n);
    for (uint32_t i = 0; i < n; i++) {
        const change *to = &j->change[i];
        cell *cl = cell_at(r, to->cell);
        counter *c = cl ? counter_at(r, cl->counter) : NULL;
        if (!c || to->used < 0 || to->common < 0)
            return corrupt(r, "the journal changes cell %u to %lld", to->cell, (long long)to->used);
        set_used(cl, to->used);
        FAULT_POINT(used_set);
        c->common = to->common;
        FAULT_POINT(common_set);
    }
    if (w) {
        __atomic_store_n(&w->answer, GRANTED, __ATOMIC_RELEASE);
        FAULT_POINT(granted);
    }
    return 0;
}

static int finish_removal(fsm_region *r, const journal *j)
{
    group *g = group_at(r, j->index);
    uint32_t parent = g ? once(g->parent) : NONE;
    if (!group_at(r, parent))
        return corrupt(r, "the journal removes group %u, whose parent is %u", j->index, parent);
    for (uint32_t i = 0; i < r->geometry.resources; i++) {
        r->counters[parent * r->geometry.resources + i].past = j->past[i];
        FAULT_POINT(past_set);
    }
    g->stamp = make_stamp(generation(g->stamp), FREE);
    FAULT_POINT(removed);
    return 0;
}

static int finish_step(fsm_region *r)
{
    static int (*const finish[])(fsm_region *r, const journal *j) = {
        [JOURNAL_MOVE] = finish_move,      [JOURNAL_RENAME] = finish_rename,  [JOURNAL_ATTRIBUTES] = finish_attributes,
        [JOURNAL_CROSS] = finish_crossing, [JOURNAL_CHANGE] = finish_changes, [JOURNAL_REMOVE] = finish_removal,
    };
    journal *j = &r->header->journal;
    uint32_t step = once(j->step);
    if (step == JOURNAL_EMPTY)
        return 0;
    if (step >= sizeof finish / sizeof *finish)
        return corrupt(r, "the journal has an unknown step %u", step);
    int error = finish[step](r, j);
    if (!error) {
        journal_commit(j, JOURNAL_EMPTY);
        FAULT_POINT(journal_emptied);
    }
    return error;
}

/* ---- pools --------------------------------------------------------------------------- */

static int empty_pools(fsm_region *r)
{
    for (enum pools which = 0; which < POOLS; which++) {
        const records *of = &r->pools[which];
        uint32_t high = once(of->pool->high);
        if (high > of->room)
            return corrupt(r, "%u %s were used, the capacity is %u", high, of->what, of->room);
        of->pool->free = of->pool->last_free = NONE;
        of->pool->spare = 0;
    }
    FAULT_POINT(pools_emptied);
    return 0;
}

/* ---- the hierarchy ------------------------------------------------------------------- */

static int rebuild_groups(fsm_region *r)
{
    uint32_t high = groups_high(r);
    if (high == 0 || state_of(r->groups[0].stamp) != LIVE || r->groups[0].parent != NONE)
        return corrupt(r, "there is no root group");
    uint32_t resources = r->geometry.resources;
    for (uint32_t i = 0; i < bucket_count(&r->geometry); i++)
        r->buckets[i] = NONE;
    FAULT_POINT(names_forgotten);
    for (uint32_t i = high; i-- > 0;) {
        group *g = &r->groups[i];
        for (uint32_t k = 0; k < resources; k++)
            reset_derived(&r->counters[i * resources + k]);
        g->first_child = g->last_child = g->next_sibling = g->prev_sibling = g->hash_next = NONE;
        g->children = 0;
        g->depth = i == 0 ? 0 : NONE;
        if (state_of(g->stamp) != LIVE) {
            g->stamp = make_stamp(generation(g->stamp), FREE);
            free_record(r, GROUPS, i);
        }
        FAULT_POINT(group_reset);
    }
    /* parents before children: the depth of a group follows from its parent */
    uint32_t chain[FSM_DEPTH_MAX + 1];
    for (uint32_t i = 0; i < high; i++) {
        uint32_t n = 0;
        if (state_of(r->groups[i].stamp) != LIVE)
            continue;
        for (uint32_t at = i, parent; r->groups[at].depth == NONE; at = parent) {
            const group *g = &r->groups[at];
            parent = once(g->parent);
            if (parent >= high || state_of(r->groups[parent].stamp) != LIVE || n > FSM_DEPTH_MAX ||
                g->name_length > FSM_NAME_MAX)
                return corrupt(r, "group %u has parent %u and a name of %u bytes", at, parent, g->name_length);
            chain[n++] = at;
        }
        while (n > 0)
            link_group(r, &r->groups[chain[--n]]);
    }
    return 0;
}

/* ---- holders and cells ------------------------------------------------------------------ */

static int rebuild_holders(fsm_region *r)
{
    for (enum pools which = PROCESSES; which <= LEASES; which++) {
        const records *of = &r->pools[which];
        for (uint32_t i = ever_used(of); i-- > 0;) {
            holder *h = record_at(of, i);
            h->cells = 0;
            h->cells_head = NONE;
            FAULT_POINT(holder_reset);
            uint32_t state = once(state_of(h->stamp));
            if (state == FREE) {
                free_record(r, which, i);
            } else if (state != LIVE && state != ENDING) {
                return corrupt(r, "holder %u has state %u", holder_index(r, h), state);
            }
        }
    }
    return 0;
}

/* Without the statistics, since nothing new is charged. */
static int add_reserved(fsm_region *r, const ancestry *p, int64_t amount)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (__builtin_add_overflow(p->at[i]->reserved, amount, &p->at[i]->reserved))
            return corrupt(r, "counter %u holds more than the maximum", counter_index(r, p->at[i]));
    return 0;
}

static int rebuild_cells(fsm_region *r)
{
    header *h = r->header;
    ancestry p;
    h->quarantined = 0;
    for (uint32_t i = 0; i < high_of(&h->cells, r->geometry.cells); i++) {
        cell *cl = &r->cells[i];
        uint32_t owner = once(cl->owner);
        if (owner == 0) {
            cl->words = (fsm_words){ .state = FSM_CLOSED };
            FAULT_POINT(cell_cleared);
            free_record(r, CELLS, i);
            continue;
        }
        if (owner == QUARANTINED) {
            __atomic_fetch_or(&cl->words.state, FSM_CLOSED, __ATOMIC_RELAXED);
            set_used(cl, 0);
            h->quarantined++;
            FAULT_POINT(quarantine_counted);
            continue;
        }
        holder *by = holder_at(r, owner - 1);
        uint32_t number = once(cl->counter);
        counter *c = counter_at(r, number);
        if (!by || state_of(by->stamp) == FREE || !c)
            return corrupt(r, "cell %u belongs to holder %u and counter %u", i, owner - 1, number);
        int error = path_of(r, number, &p);
        if (error)
            return error;
        uint64_t words = state_now(cl);
        int64_t used = used_of(cl, words), total = total_of(cl, words);
        if (used < 0 || (is_open(words) && total < 0))
            return corrupt(r, "cell %u has stock %lld and used %lld", i, (long long)stock_in(words), (long long)used);
        link_cell(r, cl, c, by);
        if (is_open(words)) {
            if (cl->words.cap < stock_in(words) || cl->words.cap > (total < FSM_STOCK_MAX ? total : FSM_STOCK_MAX))
                WRITE_ONCE(cl->words.cap, stock_in(words));
            link_open(r, &p, cl);
        }
        error = add_reserved(r, &p, is_open(words) ? total : used);
        if (error)
            return error;
        FAULT_POINT(cell_counted);
    }
    return 0;
}

static int rebuild_common(fsm_region *r)
{
    ancestry p;
    uint32_t resources = r->geometry.resources;
    for (uint32_t i = 0; i < groups_high(r); i++) {
        if (state_of(r->groups[i].stamp) != LIVE)
            continue;
        for (uint32_t k = 0; k < resources; k++) {
            counter *c = &r->counters[i * resources + k];
            if (c->common < 0 || c->limit < 0 || c->soft_limit < 0)
                return corrupt(r, "counter %u has common %lld and limit %lld", i * resources + k, (long long)c->common,
                               (long long)c->limit);
            if (c->common == 0)
                continue;
            int error = path_of(r, i * resources + k, &p);
            if (!error)
                error = add_reserved(r, &p, c->common);
            if (error)
                return error;
            FAULT_POINT(common_counted);
        }
    }
    return 0;
}

static int rebuild_watches(fsm_region *r)
{
    uint32_t resources = r->geometry.resources;
    for (uint32_t i = high_of(&r->header->watches, r->geometry.cells); i-- > 0;) {
        watch *w = &r->watches[i];
        uint32_t number = once(w->counter);
        counter *c = counter_at(r, number);
        if (state_of(w->stamp) == LIVE && is_valid_watch(w) && c &&
            state_of(r->groups[number / resources].stamp) == LIVE) {
            link_watch(r, w, c);
        } else {
            w->stamp = make_stamp(generation(w->stamp), FREE);
            free_record(r, WATCHES, i);
        }
    }
    for (uint32_t i = 0; i < groups_high(r) * resources; i++)
        find_marks(r, &r->counters[i]);
    return 0;
}

/* The request waits or is granted. An ended request is gone, even if a process died before it was freed. */
static bool is_asked(const waiter *w)
{
    return state_of(w->stamp) == LIVE && (w->answer == WAITING || w->answer == GRANTED);
}

/*
 * A process may die before the first part of a request was made, or after it was freed. Its other parts are freed here.
 */
static int rebuild_queue(fsm_region *r)
{
    header *h = r->header;
    uint32_t high = high_of(&h->waiters, r->geometry.cells);
    h->queue_head = h->queue_tail = NONE;
    h->waiting = 0;
    FAULT_POINT(queue_forgotten);
    for (uint32_t i = 0; i < high; i++)
        r->waiters[i].prev = NONE;
    for (uint32_t i = 0; i < high; i++) {
        waiter *w = &r->waiters[i], *part;
        if (!is_asked(w))
            continue;
        if (enqueue(r, w) != 0) {
            w->answer = ENDED; /* damaged: it can be neither granted nor counted */
            continue;
        }
        for (uint32_t n = 1; n < FSM_RESOURCES_MAX && (part = waiter_at(r, w->part)); n++, w = part)
            part->prev = i;
    }
    for (uint32_t i = high; i-- > 0;)
        if (!is_asked(&r->waiters[i]) && (state_of(r->waiters[i].stamp) != PART || r->waiters[i].prev == NONE))
            free_waiter(r, &r->waiters[i]);
    return 0;
}

/* Nothing is derived from refusals. Damaged ones are forgotten. */
static void rebuild_refusals(fsm_region *r)
{
    for (fsm_refusal *refusal = r->refusals; refusal < r->refusals + FSM_REFUSALS; refusal++)
        if (refusal->number != 0 && !is_valid_refusal(r, refusal))
            refusal->number = 0;
}

int rebuild(fsm_region *r)
{
    int error = finish_step(r);
    if (!error)
        error = empty_pools(r);
    if (!error)
        error = rebuild_groups(r);
    if (!error)
        error = rebuild_holders(r);
    if (!error)
        error = rebuild_cells(r);
    if (!error)
        error = rebuild_common(r);
    if (!error)
        error = rebuild_watches(r);
    if (!error)
        error = rebuild_queue(r);
    if (!error)
        rebuild_refusals(r);
    return error;
}

static int finish_endings(fsm_region *r)
{
    for (uint32_t i = 0; i < holders_room(r); i++) {
        if (i == r->header->processes.high && i < r->geometry.holders)
            i = r->geometry.holders;
        if (i >= r->geometry.holders + r->header->leases.high)
            break;
        if (state_of(r->holders[i].stamp) == ENDING) {
            int error = end_holder(r, &r->holders[i], false);
            if (error)
                return error;
        }
    }
    return 0;
}

/* A process that died may have crossed a mark or counted an event without notifying the listener. */
static int recheck_all_marks(fsm_region *r)
{
    ancestry p;
    for (uint32_t i = 0; i < groups_high(r) * r->geometry.resources; i++) {
        if (state_of(r->groups[i / r->geometry.resources].stamp) != LIVE)
            continue;
        int error = path_of(r, i, &p);
        if (error)
            return error;
        recheck_marks(r, &p);
    }
    return 0;
}

int recover(fsm_region *r)
{
    begin_change(r->header); /* ends only after a complete recovery */
    int error = rebuild(r);
    if (!error)
        error = finish_endings(r);
    if (!error) {
        for (uint32_t i = 0; i < groups_high(r) * r->geometry.resources; i++) {
            counter *c = &r->counters[i];
            int64_t peak = c->reserved > c->max_usage ? c->reserved : c->max_usage;
            if (c->peak_reserved < peak)
                c->peak_reserved = peak;
            FAULT_POINT(peak_raised);
        }
        error = recheck_all_marks(r);
    }
    if (!error)
        error = serve_after_recovery(r);
    if (!error) {
        r->header->broken = 0;
        FAULT_POINT(mended);
        r->header->recoveries++;
        end_change(r->header);
    }
    return error;
}
