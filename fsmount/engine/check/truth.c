/*
 * truth.c - checking the truth, from which everything else is derived.
 *
 * Nothing can be compared with the truth. So each value is checked on its own: is it possible?
 */
#include "check/truth.h"
#include "check/report.h"
#include "observe/events.h"
#include "observe/refusals.h"
#include "region/journal.h"

#include <string.h>

static bool good_attributes(const attributes *a)
{
    const uint32_t known = FSM_SET_MODE | FSM_SET_UID | FSM_SET_GID | FSM_SET_MTIME | FSM_SET_ATIME;
    return a->mode <= 07777 && !(a->set & ~known);
}

static void check_attributes(checker *ck, uint32_t index)
{
    const fsm_region *f = &ck->found;
    const group *g = &f->groups[index];
    if (!good_attributes(&g->directory))
        report_finding(ck, "attributes of %s: mode %#o and flags %#x are impossible", name_group(f, index).text,
                       g->directory.mode, g->directory.set);
    if (g->custom >> BANKS)
        report_finding(ck, "custom of %s: %u is impossible", name_group(f, index).text, g->custom);
    for (uint32_t slot = 0; g->custom && slot < slots_of(f); slot++) {
        const attributes *a = file_attributes(f, index, slot + 1);
        if (keeps_bank(g, bank_of(slot + 1)) && !good_attributes(a))
            report_finding(ck, "attributes of %s %s, file %u: mode %#o and flags %#x are impossible",
                           name_group(f, index).text, f->geometry.resource[slot / FSM_SLOTS].name, slot % FSM_SLOTS,
                           a->mode, a->set);
    }
}

static void check_name(checker *ck, uint32_t index)
{
    const group *g = &ck->found.groups[index];
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
        report_finding(ck, "name of %s (group %u): %s", name_group(&ck->found, index).text, index, wrong);
}

/* The root must be reached from here. */
static void check_parents(checker *ck, uint32_t index)
{
    const fsm_region *f = &ck->found;
    uint32_t parent = f->groups[index].parent;
    if (parent >= f->header->groups.high || !is_live(&f->groups[parent])) {
        report_finding(ck, "parent of %s (group %u): group %u, which does not exist", name_group(f, index).text, index,
                       parent);
        return;
    }
    uint32_t depth = 1;
    for (uint32_t i = parent; i != 0; i = f->groups[i].parent, depth++) {
        if (i >= f->header->groups.high || !is_live(&f->groups[i]))
            return; /* reported for that group */
        if (depth >= FSM_DEPTH_MAX) {
            report_finding(ck, "parents of %s (group %u): more than %u", name_group(f, index).text, index,
                           FSM_DEPTH_MAX);
            return;
        }
    }
}

static void check_groups(checker *ck)
{
    const fsm_region *f = &ck->found;
    const group *root = &f->groups[0];
    if (f->header->groups.high == 0 || root->stamp != make_stamp(0, LIVE) || root->parent != NONE ||
        root->name_length != 0)
        report_finding(ck, "the root group: %u used, state %u, generation %u, parent %u, a name of %u bytes",
                       f->header->groups.high, state_of(root->stamp), generation(root->stamp), root->parent,
                       root->name_length);
    for (uint32_t i = 0; i < f->header->groups.high; i++) {
        const group *g = &f->groups[i];
        if (state_of(g->stamp) > LIVE || generation(g->stamp) > GENERATION_MASK)
            report_finding(ck, "group %u: state %u and generation %u are impossible", i, state_of(g->stamp),
                           generation(g->stamp));
        if (!is_live(g))
            continue;
        if (i > 0) {
            check_parents(ck, i);
            check_name(ck, i);
        }
        check_attributes(ck, i);
    }
}

static void check_amounts(checker *ck)
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
    const fsm_region *f = &ck->found;
    uint32_t resources = f->geometry.resources;
    for (uint32_t i = 0; i < f->header->groups.high * resources; i++) {
        const counter *c = &f->counters[i];
        if (!is_live(&f->groups[i / resources]))
            continue;
        for (size_t k = 0; k < sizeof amounts / sizeof *amounts; k++) {
            int64_t amount;
            memcpy(&amount, (const char *)c + amounts[k].offset, sizeof amount);
            if (amount < 0)
                report_finding(ck, "%s of %s: %lld", amounts[k].name, name_counter(f, i).text, (long long)amount);
        }
        if (c->forgotten > c->refusals)
            report_finding(ck, "forgotten of %s: %lld, above its %lld refusals", name_counter(f, i).text,
                           (long long)c->forgotten, (long long)c->refusals);
        if (c->min_usage > c->max_usage)
            report_finding(ck, "min_usage of %s: %lld, above its max_usage %lld", name_counter(f, i).text,
                           (long long)c->min_usage, (long long)c->max_usage);
    }
}

static void check_holder(checker *ck, uint32_t index, uint32_t kind)
{
    const fsm_region *f = &ck->found;
    const holder *h = &f->holders[index];
    uint32_t state = state_of(h->stamp);
    if (state == ENDING)
        report_finding(ck, "%s: its end is not finished", name_holder(f, index).text);
    else if (state > ENDING)
        report_finding(ck, "%s: state %u is impossible", name_holder(f, index).text, state);
    if (state != FREE && (h->kind != kind || h->flags & ~(uint32_t)FSM_KEEP))
        report_finding(ck, "%s: kind %u and flags %#x are impossible", name_holder(f, index).text, h->kind, h->flags);
}

static void check_holders(checker *ck)
{
    const fsm_region *f = &ck->found;
    for (uint32_t i = 0; i < f->header->processes.high; i++)
        check_holder(ck, i, FSM_PROCESS);
    for (uint32_t i = 0; i < f->header->leases.high; i++)
        check_holder(ck, f->geometry.holders + i, FSM_LEASE);
}

static void check_cells(checker *ck)
{
    const fsm_region *f = &ck->found;
    uint32_t resources = f->geometry.resources;
    for (uint32_t i = 0; i < f->header->cells.high; i++) {
        const cell *cl = &f->cells[i];
        uint64_t state = cl->words.state;
        int64_t stock = stock_in(state), used = used_of(cl, state), total = total_of(cl, state);
        if (!is_owned(cl)) {
            if (is_open(state) || used != 0)
                report_finding(ck, "%s: stock %lld and used %lld, it should be closed and empty", name_cell(f, i).text,
                               (long long)stock, (long long)used);
            continue;
        }
        const holder *by = holder_at(f, cl->owner - 1);
        const group *g = group_at(f, cl->counter / resources);
        if (!by || state_of(by->stamp) == FREE)
            report_finding(ck, "%s: its holder %u does not exist", name_cell(f, i).text, cl->owner - 1);
        if (!g || !is_live(g))
            report_finding(ck, "%s: its counter %u does not exist", name_cell(f, i).text, cl->counter);
        int64_t maximum = total < FSM_STOCK_MAX ? total : FSM_STOCK_MAX;
        if (used < 0 || (is_open(state) && total < 0))
            report_finding(ck, "%s: stock %lld and used %lld are impossible", name_cell(f, i).text, (long long)stock,
                           (long long)used);
        else if (is_open(state) && (cl->words.cap < stock || cl->words.cap > maximum))
            report_finding(ck, "cap of %s: %lld, it should be between its stock %lld and %lld", name_cell(f, i).text,
                           (long long)cl->words.cap, (long long)stock, (long long)maximum);
    }
}

static void check_watches(checker *ck)
{
    const fsm_region *f = &ck->found;
    for (uint32_t i = 0; i < f->header->watches.high; i++) {
        const watch *w = &f->watches[i];
        const group *g = group_at(f, w->counter / f->geometry.resources);
        if (state_of(w->stamp) > LIVE)
            report_finding(ck, "%s: state %u is impossible", name_watch(f, i).text, state_of(w->stamp));
        if (state_of(w->stamp) != LIVE)
            continue;
        if (!g || !is_live(g))
            report_finding(ck, "%s: its counter %u does not exist", name_watch(f, i).text, w->counter);
        if (!is_valid_watch(w))
            report_finding(ck, "%s: amount %lld, flags %#x and %lld crossings are impossible", name_watch(f, i).text,
                           (long long)w->amount, w->flags, (long long)w->passed);
    }
}

static bool is_sound(const fsm_region *f, const waiter *w)
{
    const cell *cl = cell_at(f, w->cell);
    return cl && is_owned(cl) && w->amount > 0;
}

static void check_waiters(checker *ck)
{
    const fsm_region *f = &ck->found;
    for (uint32_t i = 0; i < f->header->waiters.high; i++) {
        const waiter *w = &f->waiters[i];
        uint32_t state = state_of(w->stamp);
        const waiter *next = w->part == NONE ? NULL : waiter_at(f, w->part);
        if (state != FREE && state != LIVE && state != PART)
            report_finding(ck, "%s: state %u is impossible", name_waiter(f, i).text, state);
        if (state != LIVE && state != PART)
            continue;
        if (!is_sound(f, w))
            report_finding(ck, "%s: a request of %lld for cell %u is impossible", name_waiter(f, i).text,
                           (long long)w->amount, w->cell);
        else if (w->part != NONE && (!next || state_of(next->stamp) != PART || !is_sound(f, next) ||
                                     f->cells[next->cell].owner != f->cells[w->cell].owner))
            report_finding(ck, "%s: its next part cannot be %u", name_waiter(f, i).text, w->part);
        if (state == LIVE && w->answer != WAITING && w->answer != GRANTED)
            report_finding(ck, "%s: answer %u is impossible", name_waiter(f, i).text, w->answer);
    }
}

static void check_refusals(checker *ck)
{
    const fsm_region *f = &ck->found;
    for (uint32_t i = 0; i < FSM_REFUSALS; i++) {
        const fsm_refusal *refusal = &f->refusals[i];
        if (refusal->number != 0 && !is_valid_refusal(f, refusal))
            report_finding(
                ck,
                "refusal %u: number %llu of %llu, resource %u, %lld times %lld, kind %u and %u largest holders are "
                "impossible together",
                i, (unsigned long long)refusal->number, (unsigned long long)f->header->refusals, refusal->resource,
                (long long)refusal->count, (long long)refusal->amount, refusal->kind, refusal->holders);
    }
}

/* The sum of all charges of each resource must fit into `reserved` of the root. */
static void check_sums(checker *ck)
{
    const fsm_region *f = &ck->found;
    uint32_t resources = f->geometry.resources;
    __extension__ __int128 sums[FSM_RESOURCES_MAX] = { 0 };
    for (uint32_t i = 0; i < f->header->groups.high * resources; i++)
        if (is_live(&f->groups[i / resources]))
            sums[i % resources] += f->counters[i].common;
    for (uint32_t i = 0; i < f->header->cells.high; i++) {
        const cell *cl = &f->cells[i];
        if (!is_owned(cl))
            continue;
        uint64_t state = cl->words.state;
        sums[cl->counter % resources] += is_open(state) ? total_of(cl, state) : used_of(cl, state);
    }
    for (uint32_t k = 0; k < resources; k++)
        if (sums[k] > FSM_UNLIMITED)
            report_finding(ck, "reserved of %s: the sum of all cells is above %lld", name_counter(f, k).text,
                           (long long)FSM_UNLIMITED);
}

void check_truth(checker *ck)
{
    if (journal_pending(ck->found.header))
        report_finding(ck, "the journal: step %u is not finished", ck->found.header->journal.step);
    check_groups(ck);
    check_amounts(ck);
    check_holders(ck);
    check_cells(ck);
    check_watches(ck);
    check_waiters(ck);
    check_refusals(ck);
    check_sums(ck);
}
