/*
 * check.c - the outside judge: is a region what it should be?
 *
 * The lock is held only while what is used of the region is copied; the copy is
 * judged.  rebuild() recomputes everything derived in a second copy, and every
 * derived field and every list of the first must agree with it.  So a check
 * changes nothing, and whoever charges waits for the copying alone.
 *
 * Others go on charging through open cells meanwhile: the state of an open cell is
 * all that changes without the lock.  It turns stock into usage and back, so
 * whatever follows from their sum and from the cell's being open is the same at any
 * moment of the copying.
 *
 * Three derived fields are decided, not computed, and cannot be recomputed: batch,
 * global and global_exit.  Of these the invariants are looked at.
 *
 * Nothing in the copy is trusted: an index is used after a look at its range, and a
 * walk ends after as many steps as there can be members.
 */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct judge {
    fsm_region found; /* as it was found */
    fsm_region right; /* with everything derived recomputed */
    uint32_t *bucket; /* of each group: where its name is looked for */
    FILE *report;
    int64_t findings;
} judge;

static inline bool is_live(const group *g)
{
    return state_of(g->stamp) == LIVE;
}

static inline bool is_owned(const cell *own)
{
    return own->owner != 0 && own->owner != QUARANTINED;
}

/* One finding: a line of the report. */
void tell(judge *j, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The name of something, for one line of the report. */
typedef struct label {
    char text[1300];
} label;

label name_it(const char *format, ...) __attribute__((format(printf, 1, 2)));
label name_group(const fsm_region *r, uint32_t index);
label name_counter(const fsm_region *r, uint32_t index);
label name_bucket(const fsm_region *r, uint32_t index);
label name_holder(const fsm_region *r, uint32_t index);
label name_process(const fsm_region *r, uint32_t index);
label name_lease(const fsm_region *r, uint32_t index); /* its number among the leases */
label name_cell(const fsm_region *r, uint32_t index);
label name_watch(const fsm_region *r, uint32_t index);
label name_waiter(const fsm_region *r, uint32_t index);

void check_truth(judge *j);

int check_derived(judge *j); /* -ENOMEM */

#define COUNTERS POOLS /* these are no pool: each group has its own */
#define ONE_WAY SIZE_MAX

/* A kind of list: who is in it, and where its links are in a record. */
typedef struct list {
    const char *what;
    label (*owner)(const fsm_region *r, uint32_t owner); /* NULL: there is one such list */
    label (*member)(const fsm_region *r, uint32_t index);
    bool (*belongs)(const judge *j, uint32_t owner, uint32_t index);
    enum pools records;
    size_t next, previous;
} list;

extern const list children, active_children, cells_of_counter, open_cells, cells_of_holder, watches_of_counter, line,
    names;

uint32_t length_of(const fsm_region *r, const list *l, uint32_t head);
/*
 * Whether exactly those `expected` many who belong to it are listed, each once.  Tells the first thing that is wrong;
 * else *last is its last member.
 */
bool check_list(judge *j, const list *l, uint32_t owner, uint32_t head, uint32_t expected, uint32_t *last);
void check_pool(judge *j, enum pools which); /* the list of the free */

/* ---- telling ------------------------------------------------------------ */

void tell(judge *j, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(j->report, format, arguments);
    va_end(arguments);
    putc('\n', j->report);
    j->findings++;
}

label name_it(const char *format, ...)
{
    label name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

#define ESCAPED_MAX (4 * (size_t)FSM_NAME_MAX)

/* Nothing that a terminal would obey: control characters, those of Unicode included, are written \xNN. */
static size_t escape(const char *name, size_t length, char out[ESCAPED_MAX])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i], before = i > 0 ? (unsigned char)name[i - 1] : 0;
        if (c < ' ' || c == 0x7f || c == '\\' || (before == 0xc2 && c < 0xa0)) {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        } else {
            out[n++] = (char)c;
        }
    }
    return n;
}

/* The path; of a very long one the end. */
label name_group(const fsm_region *r, uint32_t index)
{
    char path[ESCAPED_MAX + 64], name[ESCAPED_MAX];
    char *at = path + sizeof path;
    *--at = 0;
    uint32_t i = index, depth = 0;
    for (; i != 0; i = r->groups[i].parent, depth++) {
        if (i >= r->header->groups.high || !is_live(&r->groups[i]) || depth > DEPTH_MAX)
            return name_it("group %u%s%s", i, *at ? " and below it " : "", *at ? at + 1 : "");
        const group *g = &r->groups[i];
        size_t length = escape(g->name, g->name_length < FSM_NAME_MAX ? g->name_length : FSM_NAME_MAX, name);
        if (length + 1 > (size_t)(at - path))
            return name_it("...%s", at);
        at -= length;
        memcpy(at, name, length);
        *--at = '/';
    }
    return name_it("%s", *at ? at : "/");
}

label name_counter(const fsm_region *r, uint32_t index)
{
    uint32_t resources = r->geometry.resources;
    return name_it("%s %s", name_group(r, index / resources).text, r->geometry.resource[index % resources].name);
}

label name_bucket(const fsm_region *r, uint32_t index)
{
    (void)r;
    return name_it("bucket %u", index);
}

label name_process(const fsm_region *r, uint32_t index)
{
    return name_it("process %u (pid %d)", index, r->holders[index].pid);
}

label name_lease(const fsm_region *r, uint32_t index)
{
    return name_it("lease %u (pid %d)", index, r->holders[r->geometry.holders + index].pid);
}

label name_holder(const fsm_region *r, uint32_t index)
{
    uint32_t processes = r->geometry.holders;
    return index < processes ? name_process(r, index) : name_lease(r, index - processes);
}

label name_waiter(const fsm_region *r, uint32_t index)
{
    (void)r;
    return name_it("waiter %u", index);
}

label name_watch(const fsm_region *r, uint32_t index)
{
    (void)r;
    return name_it("watch %u", index);
}

label name_cell(const fsm_region *r, uint32_t index)
{
    const cell *own = &r->cells[index];
    if (!is_owned(own) || !holder_at(r, own->owner - 1) || !counter_at(r, own->counter))
        return name_it("%s cell %u", own->owner == QUARANTINED ? "quarantined" : own->owner ? "lost" : "free", index);
    return name_it("cell %u of %s in %s", index, name_holder(r, own->owner - 1).text,
                   name_counter(r, own->counter).text);
}

/* ---- the truth ------------------------------------------------------------ */

static bool good_attributes(const attributes *a)
{
    const uint32_t known = FSM_SET_MODE | FSM_SET_UID | FSM_SET_GID | FSM_SET_MTIME | FSM_SET_ATIME;
    return a->mode <= 07777 && !(a->set & ~known);
}

static void check_attributes(judge *j, uint32_t index)
{
    const fsm_region *f = &j->found;
    const group *g = &f->groups[index];
    if (!good_attributes(&g->directory))
        tell(j, "attributes of %s: mode %#o and flags %#x cannot be", name_group(f, index).text, g->directory.mode,
             g->directory.set);
    if (g->custom > 1)
        tell(j, "custom of %s: %u cannot be", name_group(f, index).text, g->custom);
    for (uint32_t slot = 0; g->custom && slot < slots_of(f); slot++) {
        const attributes *a = &f->attributes[(size_t)index * slots_of(f) + slot];
        if (!good_attributes(a))
            tell(j, "attributes of %s %s, file %u: mode %#o and flags %#x cannot be", name_group(f, index).text,
                 f->geometry.resource[slot / FSM_SLOTS].name, slot % FSM_SLOTS, a->mode, a->set);
    }
}

static void check_name(judge *j, uint32_t index)
{
    const group *g = &j->found.groups[index];
    const char *wrong = NULL;
    if (g->name_length > FSM_NAME_MAX)
        wrong = "it is too long";
    else if (g->name_length == 0)
        wrong = "it is empty";
    else if (memchr(g->name, '/', g->name_length))
        wrong = "it has a '/'";
    else if (memchr(g->name, '\n', g->name_length))
        wrong = "it has a newline";
    else if (memchr(g->name, 0, g->name_length))
        wrong = "it has a NUL";
    else if (g->name[0] == '.' && (g->name_length == 1 || (g->name_length == 2 && g->name[1] == '.')))
        wrong = "it means another directory";
    if (wrong)
        tell(j, "name of %s (group %u): %s", name_group(&j->found, index).text, index, wrong);
}

/* The root is reached from here. */
static void check_parents(judge *j, uint32_t index)
{
    const fsm_region *f = &j->found;
    uint32_t parent = f->groups[index].parent;
    if (parent >= f->header->groups.high || !is_live(&f->groups[parent])) {
        tell(j, "parent of %s (group %u): group %u, which is not there", name_group(f, index).text, index, parent);
        return;
    }
    uint32_t depth = 1;
    for (uint32_t i = parent; i != 0; i = f->groups[i].parent, depth++) {
        if (i >= f->header->groups.high || !is_live(&f->groups[i]))
            return; /* told of that one */
        if (depth >= DEPTH_MAX) {
            tell(j, "parents of %s (group %u): more than %u", name_group(f, index).text, index, DEPTH_MAX);
            return;
        }
    }
}

static void check_groups(judge *j)
{
    const fsm_region *f = &j->found;
    const group *root = &f->groups[0];
    if (f->header->groups.high == 0 || root->stamp != make_stamp(0, LIVE) || root->parent != NONE ||
        root->name_length != 0)
        tell(j, "the root group: %u used, state %u, generation %u, parent %u, a name of %u bytes",
             f->header->groups.high, state_of(root->stamp), generation(root->stamp), root->parent, root->name_length);
    for (uint32_t i = 0; i < f->header->groups.high; i++) {
        const group *g = &f->groups[i];
        if (state_of(g->stamp) > LIVE || generation(g->stamp) > GENERATION_MASK)
            tell(j, "group %u: state %u and generation %u cannot be", i, state_of(g->stamp), generation(g->stamp));
        if (!is_live(g))
            continue;
        if (i > 0) {
            check_parents(j, i);
            check_name(j, i);
        }
        check_attributes(j, i);
    }
}

static void check_amounts(judge *j)
{
    static const struct {
        const char *name;
        size_t offset;
    } amounts[] = {
#define AMOUNT(field) { #field, offsetof(counter, field) }
        AMOUNT(limit),
        AMOUNT(soft_limit),
        AMOUNT(common),
        AMOUNT(max_usage),
        AMOUNT(min_usage),
        AMOUNT(peak_reserved),
        AMOUNT(refusals),
        AMOUNT(forgotten),
        AMOUNT(soft_crossings),
        AMOUNT(past.refusals),
        AMOUNT(past.soft_crossings),
        AMOUNT(threshold_crossings),
        AMOUNT(past.threshold_crossings),
        AMOUNT(refills),
        AMOUNT(drains),
        AMOUNT(batch),
        AMOUNT(global_exit),
#undef AMOUNT
    };
    const fsm_region *f = &j->found;
    uint32_t resources = f->geometry.resources;
    for (uint32_t i = 0; i < f->header->groups.high * resources; i++) {
        const counter *c = &f->counters[i];
        if (!is_live(&f->groups[i / resources]))
            continue;
        for (size_t k = 0; k < sizeof amounts / sizeof *amounts; k++) {
            int64_t amount;
            memcpy(&amount, (const char *)c + amounts[k].offset, sizeof amount);
            if (amount < 0)
                tell(j, "%s of %s: %lld", amounts[k].name, name_counter(f, i).text, (long long)amount);
        }
        if (c->forgotten > c->refusals)
            tell(j, "forgotten of %s: %lld, of %lld refusals", name_counter(f, i).text, (long long)c->forgotten,
                 (long long)c->refusals);
        if (c->min_usage > c->max_usage)
            tell(j, "min_usage of %s: %lld, above its max_usage %lld", name_counter(f, i).text, (long long)c->min_usage,
                 (long long)c->max_usage);
    }
}

static void check_holder(judge *j, uint32_t index, uint32_t kind)
{
    const fsm_region *f = &j->found;
    const holder *h = &f->holders[index];
    uint32_t state = state_of(h->stamp);
    if (state == ENDING)
        tell(j, "%s: its end was not finished", name_holder(f, index).text);
    else if (state > ENDING)
        tell(j, "%s: state %u cannot be", name_holder(f, index).text, state);
    if (state != FREE && (h->kind != kind || h->flags & ~(uint32_t)FSM_KEEP))
        tell(j, "%s: kind %u and flags %#x cannot be", name_holder(f, index).text, h->kind, h->flags);
}

static void check_holders(judge *j)
{
    const fsm_region *f = &j->found;
    for (uint32_t i = 0; i < f->header->processes.high; i++)
        check_holder(j, i, FSM_PROCESS);
    for (uint32_t i = 0; i < f->header->leases.high; i++)
        check_holder(j, f->geometry.holders + i, FSM_LEASE);
}

static void check_cells(judge *j)
{
    const fsm_region *f = &j->found;
    uint32_t resources = f->geometry.resources;
    for (uint32_t i = 0; i < f->header->cells.high; i++) {
        const cell *own = &f->cells[i];
        uint64_t state = own->words.state;
        int64_t stock = stock_in(state), used = used_of(own, state), total = total_of(own, state);
        if (!is_owned(own)) {
            if (is_open(state) || used != 0)
                tell(j, "%s: stock %lld and used %lld, it should be closed and empty", name_cell(f, i).text,
                     (long long)stock, (long long)used);
            continue;
        }
        const holder *by = holder_at(f, own->owner - 1);
        const group *g = group_at(f, own->counter / resources);
        if (!by || state_of(by->stamp) == FREE)
            tell(j, "%s: its holder %u is not there", name_cell(f, i).text, own->owner - 1);
        if (!g || !is_live(g))
            tell(j, "%s: its counter %u is not there", name_cell(f, i).text, own->counter);
        int64_t most = total < FSM_STOCK_MAX ? total : FSM_STOCK_MAX;
        if (used < 0 || (is_open(state) && total < 0))
            tell(j, "%s: stock %lld and used %lld cannot be", name_cell(f, i).text, (long long)stock, (long long)used);
        else if (is_open(state) && (own->words.cap < stock || own->words.cap > most))
            tell(j, "cap of %s: %lld, it should be between its stock %lld and %lld", name_cell(f, i).text,
                 (long long)own->words.cap, (long long)stock, (long long)most);
    }
}

static void check_watches(judge *j)
{
    const fsm_region *f = &j->found;
    for (uint32_t i = 0; i < f->header->watches.high; i++) {
        const watch *w = &f->watches[i];
        const group *g = group_at(f, w->counter / f->geometry.resources);
        if (state_of(w->stamp) > LIVE)
            tell(j, "%s: state %u cannot be", name_watch(f, i).text, state_of(w->stamp));
        if (state_of(w->stamp) != LIVE)
            continue;
        if (!g || !is_live(g))
            tell(j, "%s: its counter %u is not there", name_watch(f, i).text, w->counter);
        if (!is_possible(w))
            tell(j, "%s: amount %lld, flags %#x and %lld times passed cannot be", name_watch(f, i).text,
                 (long long)w->amount, w->flags, (long long)w->passed);
    }
}

/* Whether so much for so and so can be asked for. */
static bool is_sound(const fsm_region *f, const waiter *w)
{
    const cell *own = cell_at(f, w->cell);
    return own && is_owned(own) && w->amount > 0;
}

static void check_waiters(judge *j)
{
    const fsm_region *f = &j->found;
    for (uint32_t i = 0; i < f->header->waiters.high; i++) {
        const waiter *w = &f->waiters[i];
        uint32_t state = state_of(w->stamp);
        const waiter *next = w->part == NONE ? NULL : waiter_at(f, w->part);
        if (state != FREE && state != LIVE && state != PART)
            tell(j, "%s: state %u cannot be", name_waiter(f, i).text, state);
        if (state != LIVE && state != PART)
            continue;
        if (!is_sound(f, w))
            tell(j, "%s: %lld for cell %u cannot be", name_waiter(f, i).text, (long long)w->amount, w->cell);
        else if (w->part != NONE && (!next || state_of(next->stamp) != PART || !is_sound(f, next) ||
                                     f->cells[next->cell].owner != f->cells[w->cell].owner))
            tell(j, "%s: its next part cannot be %u", name_waiter(f, i).text, w->part);
        if (state == LIVE && w->answer != WAITING && w->answer != GRANTED)
            tell(j, "%s: answer %u cannot be", name_waiter(f, i).text, w->answer);
    }
}

static void check_refusals(judge *j)
{
    const fsm_region *f = &j->found;
    for (uint32_t i = 0; i < FSM_REFUSALS; i++) {
        const fsm_refusal *is = &f->refusals[i];
        if (is->number != 0 && !is_possible_refusal(f, is))
            tell(
                j,
                "refusal %u: number %llu of %llu, resource %u, %lld times %lld, kind %u, and %u of the largest holders "
                "cannot be",
                i, (unsigned long long)is->number, (unsigned long long)f->header->refusals, is->resource,
                (long long)is->count, (long long)is->amount, is->kind, is->holders);
    }
}

/* What is held of each resource in all is reserved at the root. */
static void check_sums(judge *j)
{
    const fsm_region *f = &j->found;
    uint32_t resources = f->geometry.resources;
    __extension__ __int128 sums[FSM_RESOURCES_MAX] = { 0 };
    for (uint32_t i = 0; i < f->header->groups.high * resources; i++)
        if (is_live(&f->groups[i / resources]))
            sums[i % resources] += f->counters[i].common;
    for (uint32_t i = 0; i < f->header->cells.high; i++) {
        const cell *own = &f->cells[i];
        if (!is_owned(own))
            continue;
        uint64_t state = own->words.state;
        sums[own->counter % resources] += is_open(state) ? total_of(own, state) : used_of(own, state);
    }
    for (uint32_t k = 0; k < resources; k++)
        if (sums[k] > FSM_UNLIMITED)
            tell(j, "reserved of %s: what the cells hold is above %lld in all", name_counter(f, k).text,
                 (long long)FSM_UNLIMITED);
}

void check_truth(judge *j)
{
    if (journal_pending(j->found.header))
        tell(j, "the journal: step %u is not finished", j->found.header->journal.step);
    check_groups(j);
    check_amounts(j);
    check_holders(j);
    check_cells(j);
    check_watches(j);
    check_waiters(j);
    check_refusals(j);
    check_sums(j);
}

/* ---- lists ------------------------------------------------------------ */

static records records_in(const fsm_region *r, const list *l)
{
    records of = records_of(r, l->records == COUNTERS ? GROUPS : l->records);
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

__attribute__((format(printf, 4, 5))) static bool refuse(judge *j, const list *l, uint32_t owner, const char *format,
                                                         ...)
{
    char why[2 * sizeof(label)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    tell(j, "%s%s%s: %s", l->what, l->owner ? " of " : "", l->owner ? l->owner(&j->found, owner).text : "", why);
    return false;
}

/* A list that ends has nobody twice. */
bool check_list(judge *j, const list *l, uint32_t owner, uint32_t head, uint32_t expected, uint32_t *last)
{
    const fsm_region *f = &j->found;
    records of = records_in(f, l);
    uint32_t n = 0, used = ever_used(&of) * (l->records == COUNTERS ? f->geometry.resources : 1);
    *last = NONE;
    for (uint32_t i = head; i != NONE; i = *link_at(&of, i, l->next)) {
        if (i >= used)
            return refuse(j, l, owner, "the list leads to number %u, %u were used", i, used);
        if (!l->belongs(j, owner, i))
            return refuse(j, l, owner, "the list leads to %s, which is not one", l->member(f, i).text);
        if (n++ == expected)
            return refuse(j, l, owner, "the list goes on after %u, recomputed %u", expected, expected);
        if (l->previous != ONE_WAY && *link_at(&of, i, l->previous) != *last)
            return refuse(j, l, owner, "the link back from %s is %u, recomputed %u", l->member(f, i).text,
                          *link_at(&of, i, l->previous), *last);
        *last = i;
    }
    return n == expected || refuse(j, l, owner, "the list has %u, recomputed %u", n, expected);
}

static bool is_child(const judge *j, uint32_t owner, uint32_t index)
{
    return index != 0 && is_live(&j->found.groups[index]) && j->found.groups[index].parent == owner;
}

static bool is_cell_of_holder(const judge *j, uint32_t owner, uint32_t index)
{
    return j->found.cells[index].owner == owner + 1;
}

static bool is_cell_of_counter(const judge *j, uint32_t owner, uint32_t index)
{
    return is_owned(&j->found.cells[index]) && j->found.cells[index].counter == owner;
}

static bool is_open_cell(const judge *j, uint32_t owner, uint32_t index)
{
    return is_cell_of_counter(j, owner, index) && is_open(j->found.cells[index].words.state);
}

static bool is_active(const judge *j, uint32_t owner, uint32_t index)
{
    uint32_t resources = j->found.geometry.resources, g = index / resources;
    return is_child(j, owner / resources, g) && index % resources == owner % resources &&
           j->right.counters[index].open_below > 0;
}

static bool is_watch_of_counter(const judge *j, uint32_t owner, uint32_t index)
{
    return state_of(j->found.watches[index].stamp) == LIVE && j->found.watches[index].counter == owner;
}

static bool is_in_line(const judge *j, uint32_t owner, uint32_t index)
{
    (void)owner;
    return state_of(j->found.waiters[index].stamp) == LIVE;
}

static bool is_in_bucket(const judge *j, uint32_t owner, uint32_t index)
{
    return j->bucket[index] == owner;
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
const list line = {
    .what = "line",
    .member = name_waiter,
    .belongs = is_in_line,
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

/* Those that are free in what was recomputed; `which`: of what pool. */
static bool is_one_free(const judge *j, uint32_t which, uint32_t index)
{
    return is_free(&j->right, which, index);
}

void check_pool(judge *j, enum pools which)
{
    static label (*const members[])(const fsm_region *r, uint32_t index) = {
        [GROUPS] = name_group, [PROCESSES] = name_process, [LEASES] = name_lease,
        [CELLS] = name_cell,   [WATCHES] = name_watch,     [WAITERS] = name_waiter,
    };
    records of = records_of(&j->found, which);
    uint32_t last, right = records_of(&j->right, which).pool->free;
    label what = name_it("free %s", of.what);
    const list l = {
        .what = what.text,
        .member = members[which],
        .belongs = is_one_free,
        .records = which,
        .next = of.link,
        .previous = ONE_WAY,
    };
    bool good = check_list(j, &l, which, of.pool->free, length_of(&j->right, &l, right), &last);
    if (good && which == CELLS && of.pool->last_free != last)
        tell(j, "%s: the last is %u, recomputed %u", l.what, of.pool->last_free, last);
}

/* ---- what is derived ------------------------------------------------------------ */

/* A field that has to be as it was recomputed. */
#define SAME(name, records, index, field)                                                                              \
    if (j->found.records[index].field != j->right.records[index].field)                                                \
    tell(j, #field " of %s: %lld, recomputed %lld", name(&j->found, index).text,                                       \
         (long long)j->found.records[index].field, (long long)j->right.records[index].field)

static void compare_pools(judge *j)
{
    const header *found = j->found.header, *right = j->right.header;
    for (enum pools which = 0; which < POOLS; which++)
        check_pool(j, which);
    if (found->quarantined != right->quarantined)
        tell(j, "quarantined cells: %u, recomputed %u", found->quarantined, right->quarantined);
}

static void compare_line(judge *j)
{
    const fsm_region *f = &j->found;
    const header *found = f->header, *right = j->right.header;
    uint32_t last;
    if (check_list(j, &line, NONE, found->line_head, length_of(&j->right, &line, right->line_head), &last)) {
        if (found->line_tail != last)
            tell(j, "line: the last is %u, recomputed %u", found->line_tail, last);
        for (uint32_t i = found->line_head; i != NONE && f->waiters[i].next != NONE; i = f->waiters[i].next)
            if (f->waiters[i].ticket > f->waiters[f->waiters[i].next].ticket)
                tell(j, "line: %s comes before its turn", name_waiter(f, i).text);
    }
    if (found->waiting != right->waiting)
        tell(j, "requests that wait: %u, recomputed %u", found->waiting, right->waiting);
}

static void compare_groups(judge *j)
{
    const fsm_region *f = &j->found;
    for (uint32_t i = 0; i < f->header->groups.high; i++) {
        const group *g = &f->groups[i];
        if (!is_live(g))
            continue;
        uint32_t last;
        SAME(name_group, groups, i, depth);
        SAME(name_group, groups, i, children);
        if (check_list(j, &children, i, g->first_child, j->right.groups[i].children, &last) && g->last_child != last)
            tell(j, "last child of %s: %u, recomputed %u", name_group(f, i).text, g->last_child, last);
        if (i == 0 && (g->next_sibling != NONE || g->prev_sibling != NONE || g->hash_next != NONE))
            tell(j, "siblings of /: %u and %u, and %u of its name, where nothing can be", g->prev_sibling,
                 g->next_sibling, g->hash_next);
    }
}

static bool same_name(const group *a, const group *b)
{
    return a->parent == b->parent && a->name_length == b->name_length && memcmp(a->name, b->name, a->name_length) == 0;
}

/* Whether a group is in the bucket where those of its name are looked for. */
static bool is_findable(const fsm_region *r, uint32_t bucket, uint32_t index)
{
    uint32_t left = r->header->groups.high;
    for (uint32_t i = r->buckets[bucket]; i < r->header->groups.high && left-- > 0; i = r->groups[i].hash_next)
        if (i == index)
            return true;
    return false;
}

/* Each live group is found by its name, and nobody else is met on the way. */
static int compare_names(judge *j)
{
    const fsm_region *f = &j->found, *right = &j->right;
    uint32_t groups = f->header->groups.high, last;
    j->bucket = malloc(groups * sizeof *j->bucket);
    if (!j->bucket)
        return -ENOMEM;
    for (uint32_t i = 0; i < groups; i++)
        j->bucket[i] = NONE;
    for (uint32_t b = 0; b < bucket_count(&f->geometry); b++) {
        for (uint32_t i = right->buckets[b]; i != NONE; i = right->groups[i].hash_next) {
            j->bucket[i] = b;
            for (uint32_t k = right->buckets[b]; k != i; k = right->groups[k].hash_next)
                if (same_name(&right->groups[k], &right->groups[i]))
                    tell(j, "name of %s: groups %u and %u have it", name_group(f, i).text, k, i);
        }
        if (check_list(j, &names, b, f->buckets[b], length_of(right, &names, right->buckets[b]), &last))
            continue;
        for (uint32_t i = right->buckets[b]; i != NONE; i = right->groups[i].hash_next)
            if (!is_findable(f, b, i))
                tell(j, "name of %s: it is not found by it", name_group(f, i).text);
    }
    return 0;
}

static void compare_counter(judge *j, uint32_t index)
{
    const fsm_region *f = &j->found;
    const counter *c = &f->counters[index], *right = &j->right.counters[index];
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
        tell(j, "reserved of %s: %lld, and %lld at least used, not between its marks %lld and %lld",
             name_counter(f, index).text, (long long)right->reserved,
             (long long)((uint64_t)right->reserved - right->stock_cap), (long long)right->low, (long long)right->high);
    check_list(j, &cells_of_counter, index, c->cells_head, right->cells, &last);
    check_list(j, &open_cells, index, c->open_head, length_of(&j->right, &open_cells, right->open_head), &last);
    check_list(j, &watches_of_counter, index, c->watches_head,
               length_of(&j->right, &watches_of_counter, right->watches_head), &last);
    check_list(j, &active_children, index, c->active_child, length_of(&j->right, &active_children, right->active_child),
               &last);
    bool active = index >= f->geometry.resources && right->open_below > 0; /* the root is nobody's child */
    if (!active && (c->active_next != NONE || c->active_prev != NONE))
        tell(j, "active_next and active_prev of %s: %u and %u, and it is in no list", name_counter(f, index).text,
             c->active_next, c->active_prev);
    if (is_global(c) && right->open_below > 0)
        tell(j, "global of %s: %u, with %u open cells below", name_counter(f, index).text, c->global,
             right->open_below);
    /* only charge_nofail passes a limit, and it leaves no stock */
    if (right->reserved > c->limit && right->open_below > 0)
        tell(j, "reserved of %s: %lld, above the limit %lld with %u open cells below", name_counter(f, index).text,
             (long long)right->reserved, (long long)c->limit, right->open_below);
    if (c->peak_reserved < c->max_usage || c->peak_reserved < right->reserved)
        tell(j, "peak_reserved of %s: %lld, below max_usage %lld or reserved %lld", name_counter(f, index).text,
             (long long)c->peak_reserved, (long long)c->max_usage, (long long)right->reserved);
}

static void compare_counters(judge *j)
{
    uint32_t resources = j->found.geometry.resources;
    for (uint32_t i = 0; i < j->found.header->groups.high * resources; i++)
        if (is_live(&j->found.groups[i / resources]))
            compare_counter(j, i);
}

static void compare_holder(judge *j, uint32_t index)
{
    const holder *h = &j->found.holders[index];
    uint32_t last;
    if (state_of(h->stamp) == FREE)
        return;
    SAME(name_holder, holders, index, cells);
    check_list(j, &cells_of_holder, index, h->cells_head, j->right.holders[index].cells, &last);
}

static void compare_holders(judge *j)
{
    const fsm_region *f = &j->found;
    for (uint32_t i = 0; i < f->header->processes.high; i++)
        compare_holder(j, i);
    for (uint32_t i = 0; i < f->header->leases.high; i++)
        compare_holder(j, f->geometry.holders + i);
}

/* A holder has one cell in a counter, and one that is closed is in no open list. */
static int compare_cells(judge *j)
{
    const fsm_region *f = &j->found;
    uint32_t *seen = calloc(holders_room(f), sizeof *seen); /* of each holder: the last counter it was met in, + 1 */
    if (!seen)
        return -ENOMEM;
    for (uint32_t c = 0; c < f->header->groups.high * f->geometry.resources; c++)
        for (uint32_t i = j->right.counters[c].cells_head; i != NONE; i = j->right.cells[i].counter_next) {
            const cell *own = &f->cells[i];
            if (seen[own->owner - 1] == c + 1)
                tell(j, "%s: not its only one there", name_cell(f, i).text);
            seen[own->owner - 1] = c + 1;
            if (!is_open(own->words.state) && (own->open_next != NONE || own->open_prev != NONE))
                tell(j, "open_next and open_prev of %s: %u and %u, and it is closed", name_cell(f, i).text,
                     own->open_next, own->open_prev);
        }
    free(seen);
    return 0;
}

int check_derived(judge *j)
{
    compare_pools(j);
    compare_line(j);
    compare_groups(j);
    compare_counters(j);
    compare_holders(j);
    int error = compare_names(j);
    return error ? error : compare_cells(j);
}

/* ---- the copies ---------------------------------------------------------------------- */

/* Room for all that there can be; memory is used by what is copied only. */
static int map_copy(const fsm_region *of, fsm_region *out)
{
    *out = (fsm_region){ .geometry = of->geometry, .fd = -1 };
    out->size = place(out, NULL);
    void *base = mmap(NULL, out->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    out->header = base;
    place(out, base);
    return 0;
}

static void unmap_copy(fsm_region *copy)
{
    if (copy->header)
        munmap(copy->header, copy->size);
}

/* The pages of a copy made real before the lock is taken: that is most of the time. */
static int make_real(fsm_region *copy, const fsm_region *of)
{
    size_t groups = groups_high(of), counters = groups * of->geometry.resources;
    int error = populate(copy, copy->refusals, FSM_REFUSALS * sizeof(fsm_refusal));
    if (!error)
        error = populate(copy, copy->buckets, bucket_count(&of->geometry) * sizeof(uint32_t));
    if (!error)
        error = populate(copy, copy->counters, counters * sizeof(counter));
    for (enum pools which = 0; which < POOLS && !error; which++) {
        records from = records_of(of, which), to = records_of(copy, which);
        error = populate(copy, to.first, ever_used(&from) * to.size);
    }
    return error ? -ENOMEM : 0;
}

/* What is used of it, but for what nobody judges: the lock and who has it, the server. */
static void copy_used(fsm_region *to, fsm_region *from)
{
    const fsm_geometry *g = &from->geometry;
    header *h = to->header;
    h->magic = from->header->magic;
    h->version = from->header->version;
    h->architecture = from->header->architecture;
    h->size = from->header->size;
    h->geometry = from->header->geometry;
    h->geometry.batch = fsm_get_batch(from);
    h->line_head = from->header->line_head;
    h->line_tail = from->header->line_tail;
    h->waiting = from->header->waiting;
    h->quarantined = from->header->quarantined;
    h->refusals = from->header->refusals;
    h->journal = from->header->journal;
    for (enum pools which = 0; which < POOLS; which++) {
        records source = records_of(from, which), target = records_of(to, which);
        *target.pool = *source.pool;
        if (which != CELLS) /* others change them meanwhile */
            memcpy(target.first, source.first, ever_used(&target) * target.size);
    }
    uint32_t groups = groups_high(to), cells = high_of(&h->cells, g->cells);
    memcpy(to->refusals, from->refusals, FSM_REFUSALS * sizeof(fsm_refusal));
    memcpy(to->buckets, from->buckets, bucket_count(g) * sizeof(uint32_t));
    memcpy(to->counters, from->counters, (size_t)groups * g->resources * sizeof(counter));
    size_t files = slots_of(from);
    for (uint32_t i = 0; i < groups; i++)
        if (is_live(&to->groups[i]) && to->groups[i].custom)
            memcpy(&to->attributes[i * files], &from->attributes[i * files], files * sizeof(attributes));
    for (uint32_t i = 0; i < cells; i++) {
        cell *own = &from->cells[i], *copy = &to->cells[i];
        copy->words.state = state_now(own);
        copy->words.cap = __atomic_load_n(&own->words.cap, __ATOMIC_RELAXED);
        for (unsigned side = 0; side < 2; side++)
            copy->words.total[side] = __atomic_load_n(&own->words.total[side], __ATOMIC_RELAXED);
        memcpy(&copy->owner, &own->owner, sizeof(cell) - offsetof(cell, owner));
    }
}

/* ---- what it is opened by, and what there is --------------------------------------------- */

/* What the next to open the region goes by. */
static void check_header(judge *j, const fsm_region *r)
{
    const header *h = j->found.header;
    if (memcmp(&h->magic, FSM_MAGIC, sizeof h->magic) != 0 || h->version != FSM_VERSION ||
        h->architecture != FSM_ARCHITECTURE || h->size != r->size)
        tell(j, "the header: magic %#llx, version %u, architecture %#x, size %llu", (unsigned long long)h->magic,
             h->version, h->architecture, (unsigned long long)h->size);
    fsm_geometry opened = r->geometry;
    opened.batch = h->geometry.batch; /* the one that may change */
    if (memcmp(&h->geometry, &opened, sizeof opened) != 0 || opened.batch < FSM_BATCH_AUTO)
        tell(j,
             "the geometry: groups %u, holders %u, cells %u, resources %u, batch %lld; it was opened with %u, %u, %u, "
             "%u",
             h->geometry.groups, h->geometry.holders, h->geometry.cells, h->geometry.resources,
             (long long)h->geometry.batch, opened.groups, opened.holders, opened.cells, opened.resources);
}

/* More than there is room for: then nothing else can be said of these records. */
static bool check_capacity(judge *j)
{
    bool sound = true;
    for (enum pools which = 0; which < POOLS; which++) {
        records of = records_of(&j->found, which);
        if (of.pool->high <= of.room)
            continue;
        tell(j, "%s: %u were used, there is room for %u", of.what, of.pool->high, of.room);
        of.pool->high = of.room;
        sound = false;
    }
    return sound;
}

/* ---- checking and mending ------------------------------------------------------------ */

/* r: for what it was opened as; its records may have changed since. */
static int judge_it(judge *j, const fsm_region *r, const char *unsound)
{
    label why;
    check_header(j, r);
    bool sound = check_capacity(j);
    check_truth(j);
    if (!unsound && sound) {
        copy_used(&j->right, &j->found);
        int error = rebuild(&j->right);
        if (error == 0)
            return check_derived(j);
        if (error != -EUCLEAN)
            return error;
        unsound = fsm_fault_here.text;
    }
    why = name_it("%s", unsound ? unsound : "there is more than there is room for");
    tell(j, "what is derived cannot be recomputed: %s", why.text);
    return 0;
}

int64_t fsm_check(fsm_region *r, FILE *report)
{
    judge j = { .report = report };
    label unsound;
    int error = map_copy(r, &j.found);
    if (!error)
        error = map_copy(r, &j.right);
    if (!error)
        error = make_real(&j.found, r);
    if (!error) {
        error = lock(r);
        bool locked = !error;
        /* A region whose truth is damaged gives its lock to nobody, so nobody has to be kept out. */
        if (locked || error == -EUCLEAN) {
            unsound = name_it("%s", fsm_fault_here.text);
            copy_used(&j.found, r);
            if (locked)
                unlock(r);
            error = judge_it(&j, r, locked ? NULL : unsound.text);
        }
    }
    free(j.bucket);
    unmap_copy(&j.right);
    unmap_copy(&j.found);
    return error ? error : j.findings;
}

static int repair(fsm_region *r, fsm_region *trial)
{
    copy_used(trial, r);
    int error = rebuild(trial);
    if (error)
        return error;
    r->header->broken = 1; /* who dies in it leaves the rest to the next */
    error = recover(r);
    uint32_t resources = r->geometry.resources;
    for (uint32_t i = 0; !error && i < groups_high(r) * resources; i++) {
        counter *c = &r->counters[i];
        if (is_live(&r->groups[i / resources]) && c->reserved > c->limit)
            error = drain(r, c);
    }
    return error;
}

int fsm_repair(fsm_region *r)
{
    fsm_region trial = { 0 };
    int error = map_copy(r, &trial);
    if (!error)
        error = lock(r);
    if (!error) {
        error = repair(r, &trial);
        unlock(r);
    }
    unmap_copy(&trial);
    return error;
}
