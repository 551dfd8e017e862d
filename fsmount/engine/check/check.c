/*
 * check.c - the outside checker: is a region what it should be?
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
 * check_truth.c and check_derived.c checker, check_lists.c knows the lists, and
 * check_report.c has the names for what is found.
 *
 * Nothing in the copy is trusted: an index is used after a look at its range, and a
 * walk ends after as many steps as there can be members.
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
        records from = of->pools[which], to = copy->pools[which];
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
        if (which != CELLS) /* others change them meanwhile */
            memcpy(target.first, source.first, ever_used(&target) * target.size);
    }
    uint32_t groups = groups_high(to), cells = high_of(&h->cells, g->cells);
    memcpy(to->refusals, from->refusals, FSM_REFUSALS * sizeof(fsm_refusal));
    /* the newest number, read after all others: both rise without the lock */
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

/* ---- what it is opened by, and what there is --------------------------------------------- */

/* What the next to open the region goes by. */
static void check_header(checker *ck, const fsm_region *r)
{
    const header *h = ck->found.header;
    if (memcmp(&h->magic, FSM_MAGIC, sizeof h->magic) != 0 || h->version != FSM_VERSION ||
        h->architecture != FSM_ARCHITECTURE || h->size != r->size)
        report_finding(ck, "the header: magic %#llx, version %u, architecture %#x, size %llu",
                       (unsigned long long)h->magic, h->version, h->architecture, (unsigned long long)h->size);
    fsm_geometry opened = r->geometry;
    opened.batch = h->geometry.batch; /* the one that may change */
    if (memcmp(&h->geometry, &opened, sizeof opened) != 0 || opened.batch < FSM_BATCH_AUTO)
        report_finding(
            ck,
            "the geometry: groups %u, holders %u, cells %u, resources %u, batch %lld; it was opened with %u, %u, %u, "
            "%u",
            h->geometry.groups, h->geometry.holders, h->geometry.cells, h->geometry.resources,
            (long long)h->geometry.batch, opened.groups, opened.holders, opened.cells, opened.resources);
}

/* More than there is room for: then nothing else can be said of these records. */
static bool check_capacity(checker *ck)
{
    bool sound = true;
    for (enum pools which = 0; which < POOLS; which++) {
        records of = ck->found.pools[which];
        if (of.pool->high <= of.room)
            continue;
        report_finding(ck, "%s: %u were used, there is room for %u", of.what, of.pool->high, of.room);
        of.pool->high = of.room;
        sound = false;
    }
    return sound;
}

/* ---- checking and mending ------------------------------------------------------------ */

/* r: for what it was opened as; its records may have changed since. */
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
    why = name_it("%s", unsound ? unsound : "there is more than there is room for");
    report_finding(ck, "what is derived cannot be recomputed: %s", why.text);
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
        /* A region whose truth is damaged gives its lock to nobody, so nobody has to be kept out. */
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
