/*
 * refusals.c - a record of recent refusals: process, group, amount, limit, and the largest holders at that moment.
 *
 * The problem: a user asks why a charge was refused when the refused process may be dead already. So a record keeps
 * everything that the answer needs. There are FSM_REFUSALS records in all, and a user who floods them must not push out
 * the records of others.
 *
 * The mechanism: refusals that repeat (same process, same counter, same limit) are one record with a count. If there is
 * no room for another record, the user with the most records gives one up. The user of a record is the owner of the
 * group that refused. It is the oldest record of that user's counter with the most records. So no user loses a record
 * while it has at most an equal share, and neither does a counter of a user.
 *
 * Accepted inaccuracy: a charger records a refusal at most once in RECORD_EVERY, and counts those in between with the
 * next record. So a record may lack the refusals of the last RECORD_EVERY, for ever if the process is never refused
 * again. Threads that are refused through one charger at the same instant may count as one. failcnt is exact. A refusal
 * of another amount, or by another limit, shows at once: the charger writes it into its record without the lock.
 *
 * The largest holders are found by a walk under the lock. It visits at most STEPS_MAX counters and cells, and takes at
 * most one part in LOOK_SHARE of the time. The record says whether all holders were visited, and when. If there was no
 * time for a walk, the record has the result of another refusal by the same counter, or none.
 *
 * Crash safety. A record exists while its number is not 0. A process that is killed while it writes a record loses that
 * record and the one before in its place. While a charger changes its record without the lock, the number has the flag
 * CHANGING. Accepted inaccuracy: a process that takes over the record under the lock does not wait for those few
 * stores, so its record may show the amount of the other.
 */
#include "observe/refusals.h"
#include "counters/counter.h"
#include "counters/group.h"
#include "observe/events.h"
#include "region/clock.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/lock.h"
#include "region/process.h"

#include <errno.h>
#include <string.h>

#define STEPS_MAX 4096u                /* less than 1 ms, even if nothing is cached */
#define LOOK_SHARE 20                  /* at most one part in LOOK_SHARE of the time goes into it */
#define LOOK_AGAIN 100000000           /* ns: the highest age of the largest holders when a refusal repeats */
#define LOOK_SOON INT64_C(60000000000) /* a later time is nonsense */

#ifdef FSM_FAULT_POINTS
int64_t record_every = 10000000;
#endif

#define CHANGING (UINT64_C(1) << 63)

UNLOCKED static uint64_t number_in(const fsm_refusal *record)
{
    return __atomic_load_n(&record->number, __ATOMIC_ACQUIRE) & ~CHANGING; /* pairs with change_record() */
}

bool is_valid_refusal(const fsm_region *r, const fsm_refusal *refusal)
{
    uint64_t number = number_in(refusal); /* before the newest number, which may rise meanwhile */
    bool good = number <= READ_ONCE(r->header->refusals) && refusal->resource < r->geometry.resources &&
                refusal->count > 0 && refusal->amount >= 0 && refusal->kind <= FSM_LEASE &&
                refusal->looked <= FSM_LOOKED_AT_ALL && refusal->holders <= FSM_LARGEST &&
                memchr(refusal->command, 0, sizeof refusal->command);
    for (uint32_t i = 0; good && i < refusal->holders; i++)
        good = refusal->holder[i].kind <= FSM_LEASE && refusal->holder[i].held >= 0 &&
               memchr(refusal->holder[i].command, 0, sizeof refusal->holder[i].command);
    return good;
}

/* ---- the largest holders ------------------------------------------------------------------- */

/* A holder with more than this is one of the largest. */
static int64_t min_held(const fsm_refusal *refusal)
{
    return refusal->holders < FSM_LARGEST ? 0 : refusal->holder[FSM_LARGEST - 1].held;
}

static void rank_holder(fsm_refusal *refusal, int64_t held, fsm_id where, const holder *by)
{
    if (held <= min_held(refusal))
        return;
    uint32_t i = refusal->holders < FSM_LARGEST ? refusal->holders++ : FSM_LARGEST - 1;
    for (; i > 0 && refusal->holder[i - 1].held < held; i--)
        refusal->holder[i] = refusal->holder[i - 1];
    refusal->holder[i] = (fsm_large_holder){ .group = where, .held = held };
    if (by) {
        refusal->holder[i].kind = by->kind == FSM_LEASE ? FSM_LEASE : FSM_PROCESS;
        refusal->holder[i].pid = by->pid;
        if (by->pid_namespace == pid_namespace())
            refusal->holder[i].start_time = by->start_time;
    }
}

/*
 * Finds the largest holders below a group. Skips a subtree where less is reserved than each of them holds. False: the
 * walk was too long, or met a damaged link, which is left to others to report.
 */
static bool find_largest(const fsm_region *r, uint32_t top, fsm_refusal *refusal)
{
    uint32_t left = STEPS_MAX;
    for (uint32_t i = top, next;; i = next) {
        const group *g = group_at(r, i);
        if (!g || left-- == 0)
            return false;
        const counter *c = &r->counters[(size_t)group_index(r, g) * r->geometry.resources + refusal->resource];
        fsm_id where = group_id(g->stamp, i);
        next = NONE;
        if (c->reserved > min_held(refusal)) {
            next = once(g->first_child);
            rank_holder(refusal, c->common, where, NULL);
            for (uint32_t k = once(c->cells_head); k != NONE;) {
                const cell *cl = cell_at(r, k);
                const holder *by = cl ? holder_at(r, cl->owner - 1) : NULL;
                if (!by || left-- == 0)
                    return false;
                rank_holder(refusal, used_of(cl, state_now(cl)), where, by);
                k = once(cl->counter_next);
            }
        }
        while (next == NONE && i != top) {
            next = once(g->next_sibling);
            if (next != NONE)
                break;
            i = once(g->parent);
            g = group_at(r, i);
            if (!g || left-- == 0)
                return false;
        }
        if (next == NONE)
            return true;
    }
}

static void look_for_largest(fsm_region *r, fsm_refusal *refusal)
{
    int64_t now = monotonic_ns(), wait = r->header->look_at - now;
    if (wait > 0 && wait < LOOK_SOON)
        return;
    refusal->holders = 0;
    refusal->looked = find_largest(r, id_index(refusal->refused), refusal) ? FSM_LOOKED_AT_ALL : FSM_LOOKED_AT_SOME;
    refusal->looked_at = refusal->last;
    for (uint32_t i = 0; i < refusal->holders; i++)
        if (refusal->holder[i].start_time)
            read_command(refusal->holder[i].pid, refusal->holder[i].command);
    r->header->look_at = now + (monotonic_ns() - now) * LOOK_SHARE;
    FAULT_POINT(looked);
}

/* ---- records ------------------------------------------------------------------------------- */

static bool is_repeat(const fsm_refusal *a, const fsm_refusal *b)
{
    return a->asked == b->asked && a->refused == b->refused && a->pid == b->pid && a->start_time == b->start_time &&
           a->resource == b->resource && a->charged == b->charged && a->kind == b->kind &&
           a->pid_namespace == b->pid_namespace;
}

/* The owner of the group that refused, or of the group that has its place by now. */
static uint32_t user_of(const fsm_region *r, const fsm_refusal *refusal)
{
    const group *g = group_at(r, id_index(refusal->refused));
    return g ? g->directory.uid : 0;
}

/* Counts how often each value occurs, in a hash table that is at least half empty. */
typedef struct tally {
    uint64_t what[2 * FSM_REFUSALS]; /* value + 1; 0: empty */
    uint32_t number[2 * FSM_REFUSALS];
} tally;

static uint32_t *number_of(tally *t, uint64_t what)
{
    uint32_t i = (uint32_t)(what * UINT64_C(0x9e3779b97f4a7c15) >> 32) % (2 * FSM_REFUSALS);
    while (t->what[i] != 0 && t->what[i] != what + 1)
        i = (i + 1) % (2 * FSM_REFUSALS);
    t->what[i] = what + 1;
    return &t->number[i];
}

static uint64_t counter_of(const fsm_region *r, const fsm_refusal *refusal)
{
    return (uint64_t)id_index(refusal->refused) * r->geometry.resources + refusal->resource;
}

/* The record that is given up when there is no room. */
static fsm_refusal *find_victim(fsm_region *r, const fsm_refusal *refusal)
{
    tally users = { 0 }, counters = { 0 };
    const uint32_t *of_user[FSM_REFUSALS], *of_counter[FSM_REFUSALS];
    uint32_t max_of_user = ++*number_of(&users, user_of(r, refusal)), max_of_counter = 0, spare = 0;
    ++*number_of(&counters, counter_of(r, refusal));
    for (uint32_t i = 0; i < FSM_REFUSALS; i++) {
        uint32_t *of_this = number_of(&users, user_of(r, &r->refusals[i]));
        if (++*of_this > max_of_user)
            max_of_user = *of_this;
        of_user[i] = of_this;
        of_this = number_of(&counters, counter_of(r, &r->refusals[i]));
        ++*of_this;
        of_counter[i] = of_this;
    }
    for (uint32_t i = 0; i < FSM_REFUSALS; i++)
        if (*of_user[i] == max_of_user &&
            (*of_counter[i] > max_of_counter ||
             (*of_counter[i] == max_of_counter && number_in(&r->refusals[i]) < number_in(&r->refusals[spare])))) {
            max_of_counter = *of_counter[i];
            spare = i;
        }
    return &r->refusals[spare];
}

/* The record that this refusal repeats, or the one to overwrite. *like: the newest record by the same counter. */
static fsm_refusal *find_record(fsm_region *r, const fsm_refusal *refusal, const fsm_refusal **like)
{
    fsm_refusal *empty = NULL;
    *like = NULL;
    for (fsm_refusal *record = r->refusals; record < r->refusals + FSM_REFUSALS; record++) {
        if (record->number == 0)
            empty = empty ? empty : record;
        else if (is_repeat(record, refusal))
            return record;
        else if (record->refused == refusal->refused && record->resource == refusal->resource &&
                 (!*like || number_in(record) > number_in(*like)))
            *like = record;
    }
    return empty ? empty : find_victim(r, refusal);
}

UNLOCKED static void write_record(fsm_region *r, fsm_refusal *record, const fsm_refusal *refusal)
{
    WRITE_ONCE(record->number, 0);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* before any other word of the record changes; pairs with number_in() */
    FAULT_POINT(given_up);
    memcpy((char *)record + sizeof record->number, (const char *)refusal + sizeof refusal->number,
           sizeof *refusal - sizeof refusal->number);
    FAULT_POINT(described);
    uint64_t number = __atomic_add_fetch(&r->header->refusals, 1, __ATOMIC_RELAXED);
    FAULT_POINT(counted);
    __atomic_store_n(&record->number, number, __ATOMIC_RELEASE);
    FAULT_POINT(recorded);
}

/*
 * Turns the record with this number into that of a later refusal, and gives it the newest number. False: the record has
 * another number.
 */
UNLOCKED static bool change_record(fsm_region *r, fsm_refusal *record, uint64_t *number, int64_t amount, int64_t more)
{
    uint64_t now = *number;
    if (now == 0 ||
        !__atomic_compare_exchange_n(&record->number, &now, now | CHANGING, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return false;
    FAULT_POINT(marked);
    WRITE_ONCE(record->amount, amount);
    FAULT_POINT(amount_set);
    WRITE_ONCE(record->usage, fsm_fault_here.usage);
    WRITE_ONCE(record->limit, fsm_fault_here.limit);
    WRITE_ONCE(record->last, wall_clock_ns());
    WRITE_ONCE(record->count, READ_ONCE(record->count) + more);
    now |= CHANGING;
    uint64_t newest = __atomic_add_fetch(&r->header->refusals, 1, __ATOMIC_RELAXED);
    FAULT_POINT(numbered);
    __atomic_compare_exchange_n(&record->number, &now, newest, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    FAULT_POINT(changed);
    *number = newest;
    return true;
}

UNLOCKED bool refused_again(fsm_region *r, fsm_recorded *last, int64_t amount)
{
    uint64_t number = READ_ONCE(last->number);
    int64_t repeated = READ_ONCE(last->repeated) + 1;
    bool same = READ_ONCE(last->amount) == amount && READ_ONCE(last->limit) == fsm_fault_here.limit;
    if (same || !change_record(r, &r->refusals[READ_ONCE(last->slot) % FSM_REFUSALS], &number, amount, repeated)) {
        WRITE_ONCE(last->repeated, repeated);
        return false;
    }
    WRITE_ONCE(last->repeated, 0);
    WRITE_ONCE(last->number, number);
    WRITE_ONCE(last->amount, amount);
    WRITE_ONCE(last->limit, fsm_fault_here.limit);
    return true;
}

void record_refusal(fsm_region *r, const ancestry *p, fsm_refusal *refusal, fsm_recorded *before)
{
    uint32_t index = counter_index(r, p->at[0]), resources = r->geometry.resources;
    refusal->resource = index % resources;
    refusal->asked = group_id(r->groups[index / resources].stamp, index / resources);
    refusal->refused = fsm_fault_here.group;
    refusal->usage = fsm_fault_here.usage;
    refusal->limit = fsm_fault_here.limit;
    refusal->first = refusal->last = wall_clock_ns();
    refusal->count = 1;

    const fsm_refusal *like = NULL;
    fsm_refusal *record = &r->refusals[before->slot % FSM_REFUSALS];
    bool remembered = before->number != 0 && record->number == before->number;
    if (remembered) {
        record->count += __atomic_exchange_n(&before->repeated, 0, __ATOMIC_RELAXED);
        FAULT_POINT(repeats_counted);
    }
    if (!remembered || !is_repeat(record, refusal))
        record = find_record(r, refusal, &like);
    bool again = record->number != 0 && is_repeat(record, refusal);
    before->slot = (uint32_t)(record - r->refusals);
    WRITE_ONCE(before->amount, refusal->amount);
    WRITE_ONCE(before->limit, refusal->limit);
    if (again && !remembered && refusal->last >= record->last && refusal->last - record->last < RECORD_EVERY) {
        /* the process charges without a charger, or with a new one each time */
        before->number = number_in(record);
        if (!change_record(r, record, &before->number, refusal->amount, 1))
            record->count++;
        notify_listener(r, p, 0);
        return;
    }
    if (again) {
        refusal->first = record->first;
        refusal->count += record->count;
        like = record;
    }
    if (refusal->pid > 0 && refusal->pid_namespace == pid_namespace())
        read_command(refusal->pid, refusal->command);
    if (like) {
        refusal->looked = like->looked;
        refusal->looked_at = like->looked_at;
        refusal->holders = like->holders;
        memcpy(refusal->holder, like->holder, sizeof refusal->holder);
    }
    if (!again || refusal->last < refusal->looked_at || refusal->last - refusal->looked_at >= LOOK_AGAIN)
        look_for_largest(r, refusal);
    write_record(r, record, refusal);
    before->number = record->number;
    notify_listener(r, p, 0); /* also wakes listeners below the counter that refused */
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Whether the group exists and is in the subtree of top. */
static bool is_within(const fsm_region *r, fsm_id id, uint32_t top)
{
    const group *g = group_at(r, id_index(id));
    if (!g || g->stamp != make_stamp((uint32_t)(id >> 32), LIVE))
        return false;
    for (uint32_t depth = 0; g && depth <= FSM_DEPTH_MAX; depth++) {
        if (group_index(r, g) == top)
            return true;
        g = group_at(r, g->parent);
    }
    return false;
}

int64_t fsm_get_refusals(fsm_region *r, fsm_id id, uint32_t resource, fsm_refusal *out, size_t room)
{
    if (resource >= r->geometry.resources)
        return -EINVAL;
    const fsm_refusal *found[FSM_REFUSALS]; /* newest first */
    size_t n = 0;
    group *g;
    int error = lock(r);
    if (error)
        return error;
    error = find_group(r, id, &g);
    for (const fsm_refusal *refusal = r->refusals; refusal < r->refusals + FSM_REFUSALS && !error; refusal++) {
        if (number_in(refusal) == 0 || refusal->resource != resource || !is_valid_refusal(r, refusal) ||
            !(is_within(r, refusal->asked, id_index(id)) || is_within(r, refusal->refused, id_index(id))))
            continue;
        size_t i = n++;
        for (; i > 0 && number_in(found[i - 1]) < number_in(refusal); i--)
            found[i] = found[i - 1];
        found[i] = refusal;
    }
    for (size_t i = 0; i < n && i < room; i++) {
        out[i] = *found[i];
        out[i].number &= ~CHANGING;
        if (!is_valid_refusal(r, &out[i])) /* it was overwritten meanwhile */
            out[i] = (fsm_refusal){ .resource = resource, .count = 1 };
    }
    unlock(r);
    return error ? error : (int64_t)n;
}
