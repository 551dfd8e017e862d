/*
 * check.c - the outside checker: is a region consistent?
 *
 * The lock is held only while the used part of the region is copied. The copy is checked: rebuild() recomputes
 * everything derived in a second copy, and each derived field and each list of the first copy must agree with it. So a
 * check changes nothing, and charges wait only for the copying.
 *
 * Other processes charge through open cells meanwhile. Only the state of an open cell changes without the lock, and it
 * only turns stock into usage and back. So all values that follow from their sum, and from the cell being open, stay
 * the same during the copying.
 *
 * truth.c checks the fields that cannot be derived, derived.c compares those that can, lists.c knows the lists, and
 * report.c writes the findings. Nothing in the copy is trusted: an index is checked before use, and a walk ends after
 * as many steps as there can be members.
 */
#include "check/derived.h"
#include "check/report.h"
#include "check/truth.h"
#include "counters/counter.h"
#include "lifecycle/recover.h"
#include "region/fault.h"
#include "region/lock.h"
#include "region/pool.h"
#include "region/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the copies ---------------------------------------------------------------------- */

/* Address space for a full region; only what is copied takes memory. */
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

/* Makes the pages of a copy real before the lock is taken: that takes most of the time. */
static int make_real(fsm_region *copy, const fsm_region *of)
{
    size_t groups = groups_high(of), counters = groups * of->geometry.resources;
    int error = populate(copy, copy->refusals, FSM_REFUSALS * sizeof(fsm_refusal));
    if (!error)
        error = populate(copy, copy->buckets, bucket_count(&of->geometry) * sizeof(uint32_t));
    if (!error)
        error = populate(copy, copy->counters, counters * sizeof(counter));
    for (enum pools which = 0; which < POOLS && !error; which++) {
        records from = of->pools[which], to = copy->pools[which];
        error = populate(copy, to.first, ever_used(&from) * to.size);
    }
    return error ? -ENOMEM : 0;
}

/* Copies what is used, except the lock, its owner, and the daemon. */
static void copy_used(fsm_region *to, fsm_region *from)
{
    const fsm_geometry *g = &from->geometry;
    header *h = to->header;
    h->magic = from->header->magic;
    h->version = from->header->version;
    h->architecture = from->header->architecture;
    h->size = from->header->size;
    memcpy(h->name_key, from->header->name_key, sizeof h->name_key);
    h->geometry = from->header->geometry;
    h->geometry.batch = fsm_get_batch(from);
    h->queue_head = from->header->queue_head;
    h->queue_tail = from->header->queue_tail;
    h->waiting = from->header->waiting;
    h->quarantined = from->header->quarantined;
    h->journal = from->header->journal;
    for (enum pools which = 0; which < POOLS; which++) {
        records source = from->pools[which], target = to->pools[which];
        *target.pool = *source.pool;
        if (which != CELLS) /* open cells change meanwhile */
            memcpy(target.first, source.first, ever_used(&target) * target.size);
    }
    uint32_t groups = groups_high(to), cells = high_of(&h->cells, g->cells);
    memcpy(to->refusals, from->refusals, FSM_REFUSALS * sizeof(fsm_refusal));
    /* read after all records: both rise without the lock */
    h->refusals = __atomic_fetch_add(&from->header->refusals, 0, __ATOMIC_ACQ_REL);
    memcpy(to->buckets, from->buckets, bucket_count(g) * sizeof(uint32_t));
    memcpy(to->counters, from->counters, (size_t)groups * g->resources * sizeof(counter));
    for (uint32_t i = 0; i < groups; i++)
        for (uint32_t bank = 0; is_live(&to->groups[i]) && bank < BANKS; bank++)
            if (keeps_bank(&to->groups[i], bank))
                memcpy(bank_at(to, i, bank), bank_at(from, i, bank), bank_size(from));
    for (uint32_t i = 0; i < cells; i++) {
        cell *cl = &from->cells[i], *copy = &to->cells[i];
        copy->words.state = state_now(cl);
        copy->words.cap = READ_ONCE(cl->words.cap);
        for (unsigned side = 0; side < 2; side++)
            copy->words.total[side] = READ_ONCE(cl->words.total[side]);
        memcpy(&copy->owner, &cl->owner, sizeof(cell) - offsetof(cell, owner));
    }
}

/* ---- the header and the capacities ------------------------------------------------------- */

/* The fields that the next fsm_open() checks. */
static void check_header(checker *ck, const fsm_region *r)
{
    const header *h = ck->found.header;
    if (memcmp(&h->magic, FSM_MAGIC, sizeof h->magic) != 0 || h->version != FSM_VERSION ||
        h->architecture != FSM_ARCHITECTURE || h->size != r->size)
        report_finding(ck, "the header: magic %#llx, version %u, architecture %#x, size %llu",
                       (unsigned long long)h->magic, h->version, h->architecture, (unsigned long long)h->size);
    fsm_geometry opened = r->geometry;
    opened.batch = h->geometry.batch; /* the only field that may change */
    if (memcmp(&h->geometry, &opened, sizeof opened) != 0 || opened.batch < FSM_BATCH_AUTO)
        report_finding(
            ck,
            "the geometry: groups %u, holders %u, cells %u, resources %u, batch %lld; it was opened with %u, %u, %u, "
            "%u",
            h->geometry.groups, h->geometry.holders, h->geometry.cells, h->geometry.resources,
            (long long)h->geometry.batch, opened.groups, opened.holders, opened.cells, opened.resources);
}

/* False: there are more records than room, so no other check of them makes sense. */
static bool check_capacity(checker *ck)
{
    bool sound = true;
    for (enum pools which = 0; which < POOLS; which++) {
        records of = ck->found.pools[which];
        if (of.pool->high <= of.room)
            continue;
        report_finding(ck, "%s: %u were used, the capacity is %u", of.what, of.pool->high, of.room);
        of.pool->high = of.room;
        sound = false;
    }
    return sound;
}

/* ---- checking and mending ------------------------------------------------------------ */

/* r serves only for the geometry from its opening; its records may have changed since the copy. */
static int check_copy(checker *ck, const fsm_region *r, const char *unsound)
{
    label why;
    check_header(ck, r);
    bool sound = check_capacity(ck);
    check_truth(ck);
    if (!unsound && sound) {
        copy_used(&ck->right, &ck->found);
        int error = rebuild(&ck->right);
        if (error == 0)
            return check_derived(ck);
        if (error != -EUCLEAN)
            return error;
        unsound = fsm_fault_here.text;
    }
    why = name_it("%s", unsound ? unsound : "a pool exceeds its capacity");
    report_finding(ck, "the derived fields cannot be recomputed: %s", why.text);
    return 0;
}

int64_t fsm_check(fsm_region *r, FILE *report)
{
    checker ck = { .report = report };
    label unsound;
    int error = map_copy(r, &ck.found);
    if (!error)
        error = map_copy(r, &ck.right);
    if (!error)
        error = make_real(&ck.found, r);
    if (!error) {
        error = lock(r);
        bool locked = !error;
        /* If the truth is damaged, no process gets the lock, so none has to be kept out. */
        if (locked || error == -EUCLEAN) {
            unsound = name_it("%s", fsm_fault_here.text);
            copy_used(&ck.found, r);
            if (locked)
                unlock(r);
            error = check_copy(&ck, r, locked ? NULL : unsound.text);
        }
    }
    free(ck.bucket);
    unmap_copy(&ck.right);
    unmap_copy(&ck.found);
    return error ? error : ck.findings;
}

static int repair(fsm_region *r, fsm_region *trial)
{
    copy_used(trial, r);
    int error = rebuild(trial);
    if (error)
        return error;
    r->header->broken = 1; /* if this process dies, the next one recovers */
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
