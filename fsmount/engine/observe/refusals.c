/*
 * refusals.c - the last refusals: who was refused what, where, by which limit, and who held most there.
 *
 * They are told of later, by a file, when who was refused may be dead: so a record keeps all that there is to tell.
 * There are few records, and whoever floods them must not push out what others would look for.  Refusals that repeat
 * (of one process, in one counter, by one limit) are one record with a count.  When there is no room for another, it is
 * the user with the most records, in whose groups the refusals were, who gives up one: the oldest of that counter of
 * his which has the most.  So no user loses any while he has no more than an equal share, and likewise no counter of
 * his.
 *
 * Accepted inaccuracy: a charger has its refusals recorded once in RECORD_EVERY, and those between are
 * counted with its next.  So a record may lack what happened in the last RECORD_EVERY, for ever if the process is
 * refused no more; and threads that are refused through one charger at the same instant may be counted as one.  failcnt
 * is exact.  But a record shows the last refusal at once if that was of another amount, or by another limit: the
 * charger writes it into its record, without the lock.
 *
 * Who held most is found by a walk under the lock, over no more than STEPS_MAX counters and cells and for no more than
 * one part in LOOK_SHARE of the time.  A record says whether all were looked at, and when: where there was no time for
 * it, that is the moment of another refusal by the same counter, or of none.
 *
 * A record is there when its number is; a process that is killed while it writes one takes along what was in its
 * place.  While a charger writes into its record without the lock, the number has the flag CHANGING.  A process that
 * records under the lock does not wait for that: if it takes over the record within these few stores, its amount is the
 * other one's.
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

#define STEPS_MAX 4096u                /* less than a ms, wherever it all lies */
#define LOOK_SHARE 20                  /* at most one part in so many of the time goes into it */
#define LOOK_AGAIN 100000000           /* ns: how old those of a refusal that repeats may become */
#define LOOK_SOON INT64_C(60000000000) /* later is nonsense */

#ifdef FSM_FAULT_POINTS
int64_t record_every = 10000000;
#endif

#define CHANGING (UINT64_C(1) << 63)

/* The number of a record that is there. */
UNLOCKED static uint64_t number_in(const fsm_refusal *record)
{
    return __atomic_load_n(&record->number, __ATOMIC_ACQUIRE) & ~CHANGING; /* pairs with change_record() */
}

bool is_valid_refusal(const fsm_region *r, const fsm_refusal *is)
{
    uint64_t number = number_in(is); /* before the newest, which may rise meanwhile */
    bool good = number <= READ_ONCE(r->header->refusals) && is->resource < r->geometry.resources && is->count > 0 &&
                is->amount >= 0 && is->kind <= FSM_LEASE && is->looked <= FSM_LOOKED_AT_ALL &&
                is->holders <= FSM_LARGEST && memchr(is->command, 0, sizeof is->command);
    for (uint32_t i = 0; good && i < is->holders; i++)
        good = is->holder[i].kind <= FSM_LEASE && is->holder[i].held >= 0 &&
               memchr(is->holder[i].command, 0, sizeof is->holder[i].command);
    return good;
}

/* ---- who holds most ------------------------------------------------------------------------ */

/* What a holder must have more of to be one of the largest. */
static int64_t min_held(const fsm_refusal *is)
{
    return is->holders < FSM_LARGEST ? 0 : is->holder[FSM_LARGEST - 1].held;
}

static void rank_holder(fsm_refusal *is, int64_t held, fsm_id where, const holder *by)
{
    if (held <= min_held(is))
        return;
    uint32_t i = is->holders < FSM_LARGEST ? is->holders++ : FSM_LARGEST - 1;
    for (; i > 0 && is->holder[i - 1].held < held; i--)
        is->holder[i] = is->holder[i - 1];
    is->holder[i] = (fsm_large_holder){ .group = where, .held = held };
    if (by) {
        is->holder[i].kind = by->kind == FSM_LEASE ? FSM_LEASE : FSM_PROCESS;
        is->holder[i].pid = by->pid;
        if (by->pid_namespace == pid_namespace())
            is->holder[i].start_time = by->start_time;
    }
}

/*
 * The largest holders below a group; a subtree where less is reserved than each of them holds is not entered.  False:
 * it was too far.  A link that leads nowhere is too far, too: it is found by who needs it.
 */
static bool find_largest(const fsm_region *r, uint32_t top, fsm_refusal *is)
{
    uint32_t left = STEPS_MAX;
    for (uint32_t i = top, next;; i = next) {
        const group *g = group_at(r, i);
        if (!g || left-- == 0)
            return false;
        const counter *c = &r->counters[(size_t)group_index(r, g) * r->geometry.resources + is->resource];
        fsm_id where = group_id(g->stamp, i);
        next = NONE;
        if (c->reserved > min_held(is)) {
            next = once(g->first_child);
            rank_holder(is, c->common, where, NULL);
            for (uint32_t k = once(c->cells_head); k != NONE;) {
                const cell *cl = cell_at(r, k);
                const holder *by = cl ? holder_at(r, cl->owner - 1) : NULL;
                if (!by || left-- == 0)
                    return false;
                rank_holder(is, used_of(cl, state_now(cl)), where, by);
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

/* Finds them if there is time for it. */
static void look_for_largest(fsm_region *r, fsm_refusal *is)
{
    int64_t now = monotonic_ns(), wait = r->header->look_at - now;
    if (wait > 0 && wait < LOOK_SOON)
        return;
    is->holders = 0;
    is->looked = find_largest(r, id_index(is->refused), is) ? FSM_LOOKED_AT_ALL : FSM_LOOKED_AT_SOME;
    is->looked_at = is->last;
    for (uint32_t i = 0; i < is->holders; i++)
        if (is->holder[i].start_time)
            read_command(is->holder[i].pid, is->holder[i].command);
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

/* Who owns the group that refused, or has its place by now. */
static uint32_t user_of(const fsm_region *r, const fsm_refusal *is)
{
    const group *g = group_at(r, id_index(is->refused));
    return g ? g->directory.uid : 0;
}

/* How many there are of each, by a hash table of which at least half is empty. */
typedef struct tally {
    uint64_t what[2 * FSM_REFUSALS]; /* plus 1 */
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

static uint64_t counter_of(const fsm_region *r, const fsm_refusal *is)
{
    return (uint64_t)id_index(is->refused) * r->geometry.resources + is->resource;
}

/* Which one is given up for another, when there is no room. */
static fsm_refusal *find_victim(fsm_region *r, const fsm_refusal *is)
{
    tally users = { 0 }, counters = { 0 };
    const uint32_t *of_user[FSM_REFUSALS], *of_counter[FSM_REFUSALS];
    uint32_t max_of_user = ++*number_of(&users, user_of(r, is)), max_of_counter = 0, spare = 0;
    ++*number_of(&counters, counter_of(r, is));
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

/* Where it was recorded before, or else what it is to be recorded over; *like: the last one by the same counter. */
static fsm_refusal *find_record(fsm_region *r, const fsm_refusal *is, const fsm_refusal **like)
{
    fsm_refusal *empty = NULL;
    *like = NULL;
    for (fsm_refusal *record = r->refusals; record < r->refusals + FSM_REFUSALS; record++) {
        if (record->number == 0)
            empty = empty ? empty : record;
        else if (is_repeat(record, is))
            return record;
        else if (record->refused == is->refused && record->resource == is->resource &&
                 (!*like || number_in(record) > number_in(*like)))
            *like = record;
    }
    return empty ? empty : find_victim(r, is);
}

UNLOCKED static void write_record(fsm_region *r, fsm_refusal *record, const fsm_refusal *is)
{
    WRITE_ONCE(record->number, 0);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* nothing else of it changes before */
    FAULT_POINT(given_up);
    memcpy((char *)record + sizeof record->number, (const char *)is + sizeof is->number,
           sizeof *is - sizeof is->number);
    FAULT_POINT(described);
    uint64_t number = __atomic_add_fetch(&r->header->refusals, 1, __ATOMIC_RELAXED);
    FAULT_POINT(counted);
    __atomic_store_n(&record->number, number, __ATOMIC_RELEASE);
    FAULT_POINT(recorded);
}

/* Makes a record that has this number that of a later refusal, which is the newest then.  False: it has another. */
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

void record_refusal(fsm_region *r, const ancestry *p, fsm_refusal *is, fsm_recorded *before)
{
    uint32_t index = counter_index(r, p->at[0]), resources = r->geometry.resources;
    is->resource = index % resources;
    is->asked = group_id(r->groups[index / resources].stamp, index / resources);
    is->refused = fsm_fault_here.group;
    is->usage = fsm_fault_here.usage;
    is->limit = fsm_fault_here.limit;
    is->first = is->last = wall_clock_ns();
    is->count = 1;

    const fsm_refusal *like = NULL;
    fsm_refusal *record = &r->refusals[before->slot % FSM_REFUSALS];
    bool remembered = before->number != 0 && record->number == before->number;
    if (remembered) {
        record->count += __atomic_exchange_n(&before->repeated, 0, __ATOMIC_RELAXED);
        FAULT_POINT(repeats_counted);
    }
    if (!remembered || !is_repeat(record, is))
        record = find_record(r, is, &like);
    bool again = record->number != 0 && is_repeat(record, is);
    before->slot = (uint32_t)(record - r->refusals);
    WRITE_ONCE(before->amount, is->amount);
    WRITE_ONCE(before->limit, is->limit);
    if (again && !remembered && is->last >= record->last && is->last - record->last < RECORD_EVERY) {
        /* of one that charges without a charger, or with a new one each time */
        before->number = number_in(record);
        if (!change_record(r, record, &before->number, is->amount, 1))
            record->count++;
        notify_listener(r, p, 0);
        return;
    }
    if (again) {
        is->first = record->first;
        is->count += record->count;
        like = record;
    }
    if (is->pid > 0 && is->pid_namespace == pid_namespace())
        read_command(is->pid, is->command);
    if (like) {
        is->looked = like->looked;
        is->looked_at = like->looked_at;
        is->holders = like->holders;
        memcpy(is->holder, like->holder, sizeof is->holder);
    }
    if (!again || is->last < is->looked_at || is->last - is->looked_at >= LOOK_AGAIN)
        look_for_largest(r, is);
    write_record(r, record, is);
    before->number = record->number;
    notify_listener(r, p, 0); /* also who listens below the counter that refused */
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Whether a group is there, and in the subtree of another. */
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
    const fsm_refusal *found[FSM_REFUSALS]; /* the newest first */
    size_t n = 0;
    group *g;
    int error = lock(r);
    if (error)
        return error;
    error = find_group(r, id, &g);
    for (const fsm_refusal *is = r->refusals; is < r->refusals + FSM_REFUSALS && !error; is++) {
        if (number_in(is) == 0 || is->resource != resource || !is_valid_refusal(r, is) ||
            !(is_within(r, is->asked, id_index(id)) || is_within(r, is->refused, id_index(id))))
            continue;
        size_t i = n++;
        for (; i > 0 && number_in(found[i - 1]) < number_in(is); i--)
            found[i] = found[i - 1];
        found[i] = is;
    }
    for (size_t i = 0; i < n && i < room; i++) {
        out[i] = *found[i];
        out[i].number &= ~CHANGING;
        if (!is_valid_refusal(r, &out[i])) /* it was written over meanwhile */
            out[i] = (fsm_refusal){ .resource = resource, .count = 1 };
    }
    unlock(r);
    return error ? error : (int64_t)n;
}
