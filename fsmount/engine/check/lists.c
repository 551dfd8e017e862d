/* lists.c - the kinds of lists, and whether a list has exactly its members. */
#include "check/lists.h"

#include <stdarg.h>

static records records_in(const fsm_region *r, const list *l)
{
    records of = r->pools[l->records == COUNTERS ? GROUPS : l->records];
    if (l->records == COUNTERS) {
        of.first = r->counters;
        of.size = sizeof(counter);
    }
    return of;
}

uint32_t length_of(const fsm_region *r, const list *l, uint32_t head)
{
    records of = records_in(r, l);
    uint32_t n = 0;
    for (uint32_t i = head; i != NONE; i = *link_at(&of, i, l->next))
        n++;
    return n;
}

__attribute__((format(printf, 4, 5))) static bool refuse(checker *ck, const list *l, uint32_t owner, const char *format,
                                                         ...)
{
    char why[2 * sizeof(label)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    report_finding(ck, "%s%s%s: %s", l->what, l->owner ? " of " : "", l->owner ? l->owner(&ck->found, owner).text : "",
                   why);
    return false;
}

/* A list that ends has no member twice. */
bool check_list(checker *ck, const list *l, uint32_t owner, uint32_t head, uint32_t expected, uint32_t *last)
{
    const fsm_region *f = &ck->found;
    records of = records_in(f, l);
    uint32_t n = 0, used = ever_used(&of) * (l->records == COUNTERS ? f->geometry.resources : 1);
    *last = NONE;
    for (uint32_t i = head; i != NONE; i = *link_at(&of, i, l->next)) {
        if (i >= used)
            return refuse(ck, l, owner, "the list leads to record %u, %u were used", i, used);
        if (!l->belongs(ck, owner, i))
            return refuse(ck, l, owner, "the list leads to %s, which does not belong there", l->member(f, i).text);
        if (n++ == expected)
            return refuse(ck, l, owner, "the list goes on after %u, recomputed %u", expected, expected);
        if (l->previous != ONE_WAY && *link_at(&of, i, l->previous) != *last)
            return refuse(ck, l, owner, "the link back from %s is %u, recomputed %u", l->member(f, i).text,
                          *link_at(&of, i, l->previous), *last);
        *last = i;
    }
    return n == expected || refuse(ck, l, owner, "the list has %u, recomputed %u", n, expected);
}

static bool is_child(const checker *ck, uint32_t owner, uint32_t index)
{
    return index != 0 && is_live(&ck->found.groups[index]) && ck->found.groups[index].parent == owner;
}

static bool is_cell_of_holder(const checker *ck, uint32_t owner, uint32_t index)
{
    return ck->found.cells[index].owner == owner + 1;
}

static bool is_cell_of_counter(const checker *ck, uint32_t owner, uint32_t index)
{
    return is_owned(&ck->found.cells[index]) && ck->found.cells[index].counter == owner;
}

static bool is_open_cell(const checker *ck, uint32_t owner, uint32_t index)
{
    return is_cell_of_counter(ck, owner, index) && is_open(ck->found.cells[index].words.state);
}

static bool is_active(const checker *ck, uint32_t owner, uint32_t index)
{
    uint32_t resources = ck->found.geometry.resources, g = index / resources;
    return is_child(ck, owner / resources, g) && index % resources == owner % resources &&
           ck->right.counters[index].open_below > 0;
}

static bool is_watch_of_counter(const checker *ck, uint32_t owner, uint32_t index)
{
    return state_of(ck->found.watches[index].stamp) == LIVE && ck->found.watches[index].counter == owner;
}

static bool is_in_queue(const checker *ck, uint32_t owner, uint32_t index)
{
    (void)owner;
    return state_of(ck->found.waiters[index].stamp) == LIVE;
}

static bool is_in_bucket(const checker *ck, uint32_t owner, uint32_t index)
{
    return ck->bucket[index] == owner;
}

const list children = {
    .what = "children",
    .owner = name_group,
    .member = name_group,
    .belongs = is_child,
    .records = GROUPS,
    .next = offsetof(group, next_sibling),
    .previous = offsetof(group, prev_sibling),
};
const list active_children = {
    .what = "active children",
    .owner = name_counter,
    .member = name_counter,
    .belongs = is_active,
    .records = COUNTERS,
    .next = offsetof(counter, active_next),
    .previous = offsetof(counter, active_prev),
};
const list cells_of_counter = {
    .what = "cells",
    .owner = name_counter,
    .member = name_cell,
    .belongs = is_cell_of_counter,
    .records = CELLS,
    .next = offsetof(cell, counter_next),
    .previous = offsetof(cell, counter_prev),
};
const list open_cells = {
    .what = "open cells",
    .owner = name_counter,
    .member = name_cell,
    .belongs = is_open_cell,
    .records = CELLS,
    .next = offsetof(cell, open_next),
    .previous = offsetof(cell, open_prev),
};
const list cells_of_holder = {
    .what = "cells",
    .owner = name_holder,
    .member = name_cell,
    .belongs = is_cell_of_holder,
    .records = CELLS,
    .next = offsetof(cell, holder_next),
    .previous = offsetof(cell, holder_prev),
};
const list watches_of_counter = {
    .what = "watches",
    .owner = name_counter,
    .member = name_watch,
    .belongs = is_watch_of_counter,
    .records = WATCHES,
    .next = offsetof(watch, next),
    .previous = offsetof(watch, prev),
};
const list queue = {
    .what = "queue",
    .member = name_waiter,
    .belongs = is_in_queue,
    .records = WAITERS,
    .next = offsetof(waiter, next),
    .previous = offsetof(waiter, prev),
};
const list names = {
    .what = "names",
    .owner = name_bucket,
    .member = name_group,
    .belongs = is_in_bucket,
    .records = GROUPS,
    .next = offsetof(group, hash_next),
    .previous = ONE_WAY,
};

/* which: the pool; it is free in the recomputed copy. */
static bool is_one_free(const checker *ck, uint32_t which, uint32_t index)
{
    return is_free(&ck->right, which, index);
}

void check_free_list(checker *ck, enum pools which)
{
    static label (*const members[])(const fsm_region *r, uint32_t index) = {
        [GROUPS] = name_group, [PROCESSES] = name_process, [LEASES] = name_lease,
        [CELLS] = name_cell,   [WATCHES] = name_watch,     [WAITERS] = name_waiter,
    };
    records of = ck->found.pools[which];
    uint32_t last, right = ck->right.pools[which].pool->free;
    label what = name_it("free %s", of.what);
    const list l = {
        .what = what.text,
        .member = members[which],
        .belongs = is_one_free,
        .records = which,
        .next = of.link,
        .previous = ONE_WAY,
    };
    bool good = check_list(ck, &l, which, of.pool->free, length_of(&ck->right, &l, right), &last);
    if (good && which == CELLS && of.pool->last_free != last)
        report_finding(ck, "%s: the last is %u, recomputed %u", l.what, of.pool->last_free, last);
    if (of.pool->spare != ck->right.pools[which].pool->spare)
        report_finding(ck, "%s: %u, recomputed %u", l.what, of.pool->spare, ck->right.pools[which].pool->spare);
}
