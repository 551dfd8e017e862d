/*
 * derived.c - derived fields must equal their recomputed values.
 *
 * Three derived fields are decisions and cannot be recomputed: batch, global and global_exit. Their invariants are
 * checked.
 */
#include "check/derived.h"
#include "check/lists.h"
#include "counters/counter.h"
#include "observe/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A field that must equal its recomputed value. */
#define SAME(name, records, index, field)                                                                              \
    if (ck->found.records[index].field != ck->right.records[index].field)                                              \
    report_finding(ck, #field " of %s: %lld, recomputed %lld", name(&ck->found, index).text,                           \
                   (long long)ck->found.records[index].field, (long long)ck->right.records[index].field)

static void compare_pools(checker *ck)
{
    const header *found = ck->found.header, *right = ck->right.header;
    for (enum pools which = 0; which < POOLS; which++)
        check_free_list(ck, which);
    if (found->quarantined != right->quarantined)
        report_finding(ck, "quarantined cells: %u, recomputed %u", found->quarantined, right->quarantined);
}

static void compare_queue(checker *ck)
{
    const fsm_region *f = &ck->found;
    const header *found = f->header, *right = ck->right.header;
    uint32_t last;
    if (check_list(ck, &queue, NONE, found->queue_head, length_of(&ck->right, &queue, right->queue_head), &last)) {
        if (found->queue_tail != last)
            report_finding(ck, "queue: the last is %u, recomputed %u", found->queue_tail, last);
        for (uint32_t i = found->queue_head; i != NONE && f->waiters[i].next != NONE; i = f->waiters[i].next)
            if (f->waiters[i].ticket > f->waiters[f->waiters[i].next].ticket)
                report_finding(ck, "queue: %s comes before an earlier request", name_waiter(f, i).text);
    }
    if (found->waiting != right->waiting)
        report_finding(ck, "requests that wait: %u, recomputed %u", found->waiting, right->waiting);
}

static void compare_groups(checker *ck)
{
    const fsm_region *f = &ck->found;
    for (uint32_t i = 0; i < f->header->groups.high; i++) {
        const group *g = &f->groups[i];
        if (!is_live(g))
            continue;
        uint32_t last;
        SAME(name_group, groups, i, depth);
        SAME(name_group, groups, i, children);
        if (check_list(ck, &children, i, g->first_child, ck->right.groups[i].children, &last) && g->last_child != last)
            report_finding(ck, "last child of %s: %u, recomputed %u", name_group(f, i).text, g->last_child, last);
        if (i == 0 && (g->next_sibling != NONE || g->prev_sibling != NONE || g->hash_next != NONE))
            report_finding(ck, "siblings of /: %u and %u, and %u in its bucket, recomputed none", g->prev_sibling,
                           g->next_sibling, g->hash_next);
    }
}

static bool same_name(const group *a, const group *b)
{
    return a->parent == b->parent && a->name_length == b->name_length && memcmp(a->name, b->name, a->name_length) == 0;
}

/* Whether a group is in the bucket of its name. */
static bool is_findable(const fsm_region *r, uint32_t bucket, uint32_t index)
{
    uint32_t left = r->header->groups.high;
    for (uint32_t i = r->buckets[bucket]; i < r->header->groups.high && left-- > 0; i = r->groups[i].hash_next)
        if (i == index)
            return true;
    return false;
}

/* Each live group is in the bucket of its name, and nothing else is. */
static int compare_names(checker *ck)
{
    const fsm_region *f = &ck->found, *right = &ck->right;
    uint32_t groups = f->header->groups.high, last;
    ck->bucket = malloc(groups * sizeof *ck->bucket);
    if (!ck->bucket)
        return -ENOMEM;
    for (uint32_t i = 0; i < groups; i++)
        ck->bucket[i] = NONE;
    for (uint32_t b = 0; b < bucket_count(&f->geometry); b++) {
        for (uint32_t i = right->buckets[b]; i != NONE; i = right->groups[i].hash_next) {
            ck->bucket[i] = b;
            for (uint32_t k = right->buckets[b]; k != i; k = right->groups[k].hash_next)
                if (same_name(&right->groups[k], &right->groups[i]))
                    report_finding(ck, "name of %s: groups %u and %u both have it", name_group(f, i).text, k, i);
        }
        if (check_list(ck, &names, b, f->buckets[b], length_of(right, &names, right->buckets[b]), &last))
            continue;
        for (uint32_t i = right->buckets[b]; i != NONE; i = right->groups[i].hash_next)
            if (!is_findable(f, b, i))
                report_finding(ck, "name of %s: a lookup does not find the group", name_group(f, i).text);
    }
    return 0;
}

static void compare_counter(checker *ck, uint32_t index)
{
    const fsm_region *f = &ck->found;
    const counter *c = &f->counters[index], *right = &ck->right.counters[index];
    uint32_t last;
    SAME(name_counter, counters, index, reserved);
    SAME(name_counter, counters, index, stock_cap);
    SAME(name_counter, counters, index, cells);
    SAME(name_counter, counters, index, open_below);
    SAME(name_counter, counters, index, marked);
    SAME(name_counter, counters, index, waiting);
    SAME(name_counter, counters, index, low);
    SAME(name_counter, counters, index, high);
    if (!is_between_marks(right))
        report_finding(ck, "reserved of %s: %lld, at least %lld of it used, not between its marks %lld and %lld",
                       name_counter(f, index).text, (long long)right->reserved,
                       (long long)((uint64_t)right->reserved - right->stock_cap), (long long)right->low,
                       (long long)right->high);
    check_list(ck, &cells_of_counter, index, c->cells_head, right->cells, &last);
    check_list(ck, &open_cells, index, c->open_head, length_of(&ck->right, &open_cells, right->open_head), &last);
    check_list(ck, &watches_of_counter, index, c->watches_head,
               length_of(&ck->right, &watches_of_counter, right->watches_head), &last);
    check_list(ck, &active_children, index, c->active_child,
               length_of(&ck->right, &active_children, right->active_child), &last);
    bool active = index >= f->geometry.resources && right->open_below > 0; /* the root is no child */
    if (!active && (c->active_next != NONE || c->active_prev != NONE))
        report_finding(ck, "active_next and active_prev of %s: %u and %u, but it is in no list",
                       name_counter(f, index).text, c->active_next, c->active_prev);
    if (is_global(c) && right->open_below > 0)
        report_finding(ck, "global of %s: %u, with %u open cells below", name_counter(f, index).text, c->global,
                       right->open_below);
    /* only charge_nofail exceeds a limit, and it leaves no stock */
    if (right->reserved > c->limit && right->open_below > 0)
        report_finding(ck, "reserved of %s: %lld, above the limit %lld with %u open cells below",
                       name_counter(f, index).text, (long long)right->reserved, (long long)c->limit, right->open_below);
    if (c->peak_reserved < c->max_usage || c->peak_reserved < right->reserved)
        report_finding(ck, "peak_reserved of %s: %lld, below max_usage %lld or reserved %lld",
                       name_counter(f, index).text, (long long)c->peak_reserved, (long long)c->max_usage,
                       (long long)right->reserved);
}

static void compare_counters(checker *ck)
{
    uint32_t resources = ck->found.geometry.resources;
    for (uint32_t i = 0; i < ck->found.header->groups.high * resources; i++)
        if (is_live(&ck->found.groups[i / resources]))
            compare_counter(ck, i);
}

static void compare_holder(checker *ck, uint32_t index)
{
    const holder *h = &ck->found.holders[index];
    uint32_t last;
    if (state_of(h->stamp) == FREE)
        return;
    SAME(name_holder, holders, index, cells);
    check_list(ck, &cells_of_holder, index, h->cells_head, ck->right.holders[index].cells, &last);
}

static void compare_holders(checker *ck)
{
    const fsm_region *f = &ck->found;
    for (uint32_t i = 0; i < f->header->processes.high; i++)
        compare_holder(ck, i);
    for (uint32_t i = 0; i < f->header->leases.high; i++)
        compare_holder(ck, f->geometry.holders + i);
}

/* A holder has one cell in a counter, and a closed cell is in no open list. */
static int compare_cells(checker *ck)
{
    const fsm_region *f = &ck->found;
    uint32_t *seen =
        calloc(holders_room(f), sizeof *seen); /* of each holder: the last counter that has a cell of it, + 1 */
    if (!seen)
        return -ENOMEM;
    for (uint32_t c = 0; c < f->header->groups.high * f->geometry.resources; c++)
        for (uint32_t i = ck->right.counters[c].cells_head; i != NONE; i = ck->right.cells[i].counter_next) {
            const cell *cl = &f->cells[i];
            if (seen[cl->owner - 1] == c + 1)
                report_finding(ck, "%s: its holder has another cell there", name_cell(f, i).text);
            seen[cl->owner - 1] = c + 1;
            if (!is_open(cl->words.state) && (cl->open_next != NONE || cl->open_prev != NONE))
                report_finding(ck, "open_next and open_prev of %s: %u and %u, but it is closed", name_cell(f, i).text,
                               cl->open_next, cl->open_prev);
        }
    free(seen);
    return 0;
}

int check_derived(checker *ck)
{
    compare_pools(ck);
    compare_queue(ck);
    compare_groups(ck);
    compare_counters(ck);
    compare_holders(ck);
    int error = compare_names(ck);
    return error ? error : compare_cells(ck);
}
