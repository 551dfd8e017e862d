/*
 * snapshot.c - the counters of all groups in one pass.
 *
 * Asking group by group would sum each open cell once for every ancestor, and each sum would be of another moment. Here
 * one pass over the cells finds the stock of each group, and one walk lists the groups, parents first. Then the rows
 * pass their stock up to their parents, from the last row to the first, and limits and margins down, from the first to
 * the last. All of it is under one hold of the lock, so all rows are of one moment: a usage is never below the sum of
 * the usages below it.
 *
 * The cells are visited in memory order, idle ones too: a million take 4 ms, against 80 ms along lists in random order.
 *
 * Names are not of that moment: fsm_name() reads them without the lock.
 */
#include "counters/counter.h"
#include "counters/stat.h"
#include "region/fault.h"
#include "region/lock.h"

#include <errno.h>
#include <stdlib.h>

/* Adds up the stock of the open cells of one resource, by group. */
static int add_stock(fsm_region *r, uint32_t resource, int64_t *stock)
{
    uint32_t resources = r->geometry.resources, high = high_of(&r->header->cells, r->geometry.cells);
    if (r->counters[resource].open_below == 0)
        return 0;
    for (uint32_t i = 0; i < high; i++) {
        const cell *cl = &r->cells[i];
        uint64_t state = state_now(cl);
        uint32_t number = once(cl->counter);
        if (!is_open(state) || cl->owner == 0 || number % resources != resource)
            continue;
        if (number / resources >= r->geometry.groups)
            return corrupt(r, "cell %u belongs to counter %u", i, number);
        stock[number / resources] += stock_in(state);
    }
    return 0;
}

/* A row for each group, with the stock of its own cells and no usage yet. */
static int64_t list_rows(fsm_region *r, uint32_t resource, const int64_t *stock, fsm_counter_snapshot *rows)
{
    uint32_t parent = NONE, n = 0;
    for (uint32_t index = 0;;) {
        const group *g = group_at(r, index);
        uint32_t above = n == 0 ? NONE : id_index(rows[parent].id);
        if (!g || n == r->geometry.groups || state_of(g->stamp) != LIVE || g->parent != above ||
            (n == 0 && generation(g->stamp) != 0))
            return corrupt(r, "the children of group %u are damaged at group %u", above, index);
        const counter *c = &r->counters[(size_t)index * r->geometry.resources + resource];
        rows[n] = (fsm_counter_snapshot){ .id = group_id(g->stamp, index), .parent = parent, .stat = begin_stat(c) };
        rows[n].stat.stock = stock[index];
        /* next: the first child, or the next sibling of the nearest ancestor that has one */
        uint32_t at = n++;
        index = once(g->first_child);
        if (index != NONE) {
            parent = at;
            continue;
        }
        while (at > 0 && (index = once(r->groups[id_index(rows[at].id)].next_sibling)) == NONE)
            at = rows[at].parent;
        if (at == 0)
            return n;
        parent = rows[at].parent;
    }
}

static counter *counter_of(fsm_region *r, const fsm_counter_snapshot *row, uint32_t resource)
{
    return &r->counters[(size_t)id_index(row->id) * r->geometry.resources + resource];
}

static int64_t snapshot(fsm_region *r, uint32_t resource, int64_t *stock, fsm_counter_snapshot *rows)
{
    int error = add_stock(r, resource, stock);
    int64_t n = error ? error : list_rows(r, resource, stock, rows);
    for (int64_t i = n - 1; i >= 0 && !error; i--) {
        fsm_stat *s = &rows[i].stat;
        counter *c = counter_of(r, &rows[i], resource);
        error = note_usage(r, c, s->reserved - s->stock, &s->usage);
        s->usage_local += s->usage;
        if (i > 0) {
            rows[rows[i].parent].stat.stock += s->stock;
            rows[rows[i].parent].stat.usage_local -= s->usage;
        }
    }
    for (int64_t i = 0; i < n && !error; i++) {
        fsm_stat *s = &rows[i].stat;
        finish_stat(counter_of(r, &rows[i], resource), s);
        if (i > 0) {
            const fsm_stat *above = &rows[rows[i].parent].stat;
            stat_below(s, above->hierarchical_limit, above->hierarchical_margin, above->global);
        }
    }
    return error ? error : n;
}

int64_t fsm_snapshot(fsm_region *r, uint32_t resource, fsm_counter_snapshot *rows)
{
    if (resource >= r->geometry.resources)
        return -EINVAL;
    int64_t *stock = calloc(r->geometry.groups, sizeof *stock);
    if (!stock)
        return -ENOMEM;
    int64_t n = lock(r);
    if (n == 0) {
        n = snapshot(r, resource, stock, rows);
        unlock(r);
    }
    free(stock);
    return n;
}
