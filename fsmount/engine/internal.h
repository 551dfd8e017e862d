/* internal.h - what the engine's files share.  Everything here expects the lock to be held, unless it says otherwise.
 */
#ifndef FSM_INTERNAL_H
#define FSM_INTERNAL_H

#include "region/fault_point.h"
#include "region/layout.h"

#include <errno.h>
#include <pthread.h>

/* ---- region.c ---- */

extern _Thread_local fsm_fault fsm_fault_here;

/* Notes what was found where, has the next locker recompute, and returns -EUCLEAN. */
int corrupt(fsm_region *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define CUT_SHORT "the region's beginning is not that of a region: was its file cut short?"
int gone(fsm_region *r); /* -ENODEV; or -EUCLEAN if what says so are the zeros after a truncation */
/* Makes the pages of a record real; -ENOSPC when there is no memory for them, -EUCLEAN when the file ends before. */
int populate(fsm_region *r, const void *start, size_t length);
/* The same for a record that lies after one whose pages are real already. */
int populate_next(fsm_region *r, const void *start, size_t length);
/* Sets the record arrays' places after the geometry, and returns the whole size. */
size_t place(fsm_region *r, char *base);
int64_t monotonic_ns(void);
int64_t coarse_ns(void); /* the same, some milliseconds old, and for a few ns */

/* ---- lock.c ---- */

int lock(fsm_region *r);
void unlock(fsm_region *r);

/* ---- truncation.c ---- */

/* From here to forget_mapping() the process outlives a shorter file: it reads zeros.  -ENOMEM. */
int survive_truncation(void *start, size_t size);
void forget_mapping(void *start);

/* ---- reading without the lock ---- */

/*
 * Who is stopped while it has the lock must not keep the others from looking around.  So groups, their names and
 * attributes, and the plain values of counters are read without the lock.  header.changes is odd while somebody
 * changes the former, or has died doing so.  What was read counts if it was even before and is the same after; else it
 * is read again, and at last under the lock, which repairs what the dead have left:
 *
 *     int error = 0;
 *     reading at = { 0 };
 *     while (reads(r, &at, &error))
 *         error = ...;
 *
 * In the loop anything may be read, half changed or of a record that is another's by now.  So each word is read
 * once, by peek(), and checked before it is used; and what looks damaged is so only under the lock (DAMAGED).  That
 * these reads race with the stores of others is what the second look at header.changes is for; UNLOCKED tells
 * ThreadSanitizer.
 */
typedef struct reading {
    uint64_t changes;
    uint32_t tries;
    bool locked;
} reading;

#define UNLOCKED __attribute__((no_sanitize("thread")))
#define READ_TRIES 8u

#define peek(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define DAMAGED(r, at, ...) ((at)->locked ? corrupt((r), __VA_ARGS__) : -EUCLEAN)

UNLOCKED static inline int begin_reading(fsm_region *r, reading *at)
{
    at->changes = __atomic_load_n(&r->header->changes, __ATOMIC_ACQUIRE); /* pairs with end_change() */
    if (at->tries++ < READ_TRIES && at->changes % 2 == 0 && !peek(r->header->broken))
        return 0;
    at->locked = true;
    return lock(r);
}

UNLOCKED static inline bool end_reading(fsm_region *r, reading *at, int error)
{
    if (at->locked) {
        unlock(r);
        return true;
    }
    if (error == -EUCLEAN) {
        at->tries = READ_TRIES; /* a walk through damaged links is long: the next is the last */
        return false;
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* pairs with begin_change() */
    return peek(r->header->changes) == at->changes;
}

/* Whether to read (once more); if not, *error is the last reading's, or why there was none. */
UNLOCKED static inline bool reads(fsm_region *r, reading *at, int *error)
{
    if (at->tries > 0 && end_reading(r, at, *error))
        return false;
    *error = begin_reading(r, at);
    return *error == 0;
}

UNLOCKED static inline void begin_change(header *h)
{
    __atomic_store_n(&h->changes, h->changes | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* who sees a store that follows sees that it is odd */
}

static inline void end_change(header *h)
{
    __atomic_store_n(&h->changes, h->changes + 1, __ATOMIC_RELEASE);
}

/* ---- pool.c ---- */

/* What can be used up.  Of a lease the number is that among the leases. */
enum pools { GROUPS, PROCESSES, LEASES, CELLS, WATCHES, WAITERS, POOLS };
typedef struct records records;
_Static_assert(sizeof((fsm_region){ 0 }.pools) == POOLS * sizeof(records), "a place for each");

/* Sets where the records of each kind are, once their arrays are placed. */
void know_pools(fsm_region *r, char *base);
bool is_free(const fsm_region *r, enum pools which, uint32_t index);
/* One whose memory is there, to be filled in and made; -ENOSPC. */
int take_record(fsm_region *r, enum pools which, uint32_t *index);
void free_record(fsm_region *r, enum pools which, uint32_t index); /* one that is_free() and in no list */

/* How many were ever used; may be asked without the lock. */
static inline uint32_t ever_used(const records *of)
{
    return high_of(of->pool, of->room);
}

static inline void *record_at(const records *of, uint32_t index)
{
    return (char *)of->first + index * of->size;
}

static inline uint32_t *link_at(const records *of, uint32_t index, size_t offset)
{
    return (void *)((char *)record_at(of, index) + offset);
}

/* ---- group.c ---- */

int seek_group(fsm_region *r, const reading *at, fsm_id id, group **out); /* without the lock; -ENODEV */

int find_group(fsm_region *r, fsm_id id, group **out); /* -ENODEV */
void link_group(fsm_region *r, group *g);              /* into its parent's children and the buckets */
int unlink_group(fsm_region *r, group *g);
attributes *attributes_of(fsm_region *r, group *g, uint32_t slot); /* a file's are there if the group keeps its bank */

/* ---- amounts ---- */

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t plus(int64_t amount, int64_t other)
{
    int64_t sum;
    return __builtin_add_overflow(amount, other, &sum) ? FSM_UNLIMITED : sum;
}

static inline int64_t times(int64_t amount, int64_t factor)
{
    int64_t product;
    return __builtin_mul_overflow(amount, factor, &product) ? FSM_UNLIMITED : product;
}

/* ---- counter.c ---- */

/* A counter and its ancestors, checked once and then safe to walk: at[0] is the counter, at[n - 1] the root's. */
typedef struct ancestry {
    uint32_t n;
    uint32_t self; /* index of the holder that charges, NONE for the group itself: it lives, whatever /proc says */
    counter *at[FSM_DEPTH_MAX + 1];
} ancestry;

static inline bool is_global(const counter *c)
{
    return c->global % 2 == 1;
}

/* Without the lock.  What was forgotten comes first: there are never more forgotten than refusals. */
UNLOCKED static inline int64_t failcnt_of(const counter *c)
{
    int64_t forgotten = __atomic_load_n(&c->forgotten, __ATOMIC_ACQUIRE);
    return peek(c->refusals) - forgotten;
}

int path_of(fsm_region *r, uint32_t counter, ancestry *out);
int find_counter(fsm_region *r, fsm_id id, uint32_t resource, ancestry *out);
int seek_counter(fsm_region *r, const reading *at, fsm_id id, uint32_t resource, counter **out); /* without the lock */
/* Reads one counter without the lock; what follows is done as often as that takes, and `error` tells how it went. */
#define READ_COUNTER(c)                                                                                                \
    int error = 0;                                                                                                     \
    reading at = { 0 };                                                                                                \
    for (counter * c; reads(r, &at, &error);)                                                                          \
        if ((error = seek_counter(r, &at, id, resource, &c)) == 0)
void reset_counter(fsm_region *r, counter *c);
void reset_derived(fsm_region *r, counter *c);
/* At every level; negative gives back.  Whether some level has marks. */
bool reserve(const ancestry *p, int64_t amount);

/* An open cell is in its counter's open list and counted above. */
void link_open(fsm_region *r, const ancestry *p, cell *cell);
void open_cell(fsm_region *r, const ancestry *p, cell *cell, int64_t stock, int64_t used);
/* Closes it if it is open and gives its stock back; returns what it holds. */
int64_t close_cell(fsm_region *r, const ancestry *p, cell *cell);
int drain(fsm_region *r, counter *c);

/*
 * Finds room for amount at every level, draining where it must.  With nofail, counts the refusals
 * and goes on; *exceeded tells.  -ENOMEM: refused, and noted in the fault.
 */
int find_room(fsm_region *r, const ancestry *p, int64_t amount, bool nofail, bool *exceeded);
static inline bool in_global_mode(const ancestry *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (is_global(p->at[i]))
            return true;
    return false;
}

/*
 * What a holder that charges `amount` at a time, outside of global mode, may reserve ahead, `wanted` at the most, once
 * `pending` is reserved; 0 near a limit, where it switches stock off.
 */
int64_t grant(fsm_region *r, const ancestry *p, int64_t pending, int64_t amount, int64_t wanted);
/* What a holder may have of a counter's room beside all others: one part in so many. */
int64_t shares_of(const counter *c);
void leave_global(fsm_region *r, const ancestry *p, int64_t amount); /* after so much was given back */
void end_global(counter *c);                                         /* of one that is_global() */
int enter_global(fsm_region *r, counter *c, int64_t headroom, int64_t amount);
/* Whether amount fits c once no stock is left below it: 1, 0 or an error. */
int fits(fsm_region *r, counter *c, int64_t amount, bool nofail);
void note_refusal(const fsm_region *r, const counter *c, int64_t usage, int64_t limit);
void note_peak(const ancestry *p, const cell *own);
/* Takes a precise sum for the usage: max_usage and min_usage follow it. */
int note_usage(fsm_region *r, counter *c, int64_t usage, int64_t *out);
/* What R.stat says of one counter, but for usage and usage_local, before finish_stat(). */
fsm_stat begin_stat(const counter *c);
/* The rest, but for what is above: once the usage is there and noted. */
void finish_stat(const counter *c, fsm_stat *s);
/* Then by each counter on the way up: its limit, its margin, and whether it is in global mode. */
void stat_below(fsm_stat *s, int64_t limit, int64_t margin, bool global);

/* ---- charge.c ---- */

/* The charger's cell, if it is its holder's still. */
int own_cell(const fsm_charger *charger, cell **out);
/* Records the refusal that the fault tells of; charged: nofail charged it all the same.  Under the lock. */
void record_refused(fsm_charger *charger, int64_t amount, bool charged);

/* ---- whole.c ---- */

/*
 * Adds amounts to what closed cells of one holder have used, to all of them in one step, in which the request of a
 * waiter is granted too, if it is not NONE.  They are of different resources, there is room for what is added, and as
 * much used as is taken away.
 */
int commit_changes(fsm_region *r, cell *const *cells, const int64_t *amounts, uint32_t n, uint32_t index);
/* Takes the lock, and finds the chargers' cells.  -EINVAL: they are not of one holder and of different resources. */
int enter(fsm_charger *const *chargers, cell **cells, size_t n);

/* ---- waiters.c ---- */

int join_line(fsm_region *r, waiter *w);
void free_waiter(fsm_region *r, waiter *w); /* one that is not in line */
/* Goes through the line, and grants what there is room for. */
int serve_line(fsm_region *r);
void serve(fsm_region *r, const ancestry *p); /* if somebody waits for room at one of these counters */
int serve_again(fsm_region *r);               /* by who recovers: those who were not woken are, too */
/* Ends the requests of a holder, or those for one of its cells. */
int end_requests(fsm_region *r, uint32_t owner, const cell *own);

static inline void serve_waiting(fsm_region *r, const ancestry *p)
{
    if (r->header->waiting > 0)
        serve(r, p);
}

/* Whether somebody waits for room here. */
static inline bool is_full(const fsm_region *r, const counter *c)
{
    return r->header->waiting > 0 && c->full_in == r->header->round;
}

/* ---- events.c ---- */

/* The marks around its usage, after the sides on which that was last. */
void find_marks(fsm_region *r, counter *c);
bool is_possible(const watch *w);
void link_watch(fsm_region *r, watch *w, counter *c);
int end_watches_of(fsm_region *r, counter *c);
int end_watches(fsm_region *r);
/* After the usage of the path's counters has changed: counts what was crossed, and tells. */
void cross_marks(fsm_region *r, const ancestry *p);
void look_again(fsm_region *r, const ancestry *p); /* the same for the first of them, by who recovers; always tells */
/* Something was counted at a level of the path, with the lock or without. */
void tell_listener(fsm_region *r, const ancestry *p, uint32_t level);
void ring(fsm_region *r); /* wakes who listens */

static inline bool is_above_soft_limit(const counter *c)
{
    return c->soft_crossings & 1;
}

/* No fast path can leave the interval between the marks: it turns stock into usage and back. */
static inline bool is_between_marks(const counter *c)
{
    return c->reserved <= c->high && (int64_t)((uint64_t)c->reserved - c->stock_cap) > c->low;
}

/* ---- refusals.c ---- */

/* How often a charger takes the lock to have a refusal recorded, in ns. */
#ifdef FSM_FAULT_POINTS
extern int64_t record_every; /* in the tests it is a play that decides, and not the time that it took */
#define RECORD_EVERY record_every
#else
#define RECORD_EVERY 10000000
#endif

bool is_possible_refusal(const fsm_region *r, const fsm_refusal *is);
/* One that the fault tells of, with amount, charged and who it was; `before`: what its charger knows of its last. */
void record_refusal(fsm_region *r, const ancestry *p, fsm_refusal *is, fsm_recorded *before);
/*
 * One more within RECORD_EVERY, as the fault says: counted, and shown at once if it is of another amount (true).
 * With the lock or without.
 */
bool refused_again(fsm_region *r, fsm_recorded *last, int64_t amount);

/* ---- holder.c ---- */

int find_holder(fsm_region *r, fsm_id id, holder **out); /* -ENODEV */
void link_cell(fsm_region *r, cell *cell, counter *c, holder *h);
cell *find_cell(fsm_region *r, const holder *h, uint32_t counter);
int move_held(fsm_region *r, const ancestry *p, cell *cell, int64_t amount); /* cell -> common; negative: back */
int end_holder(fsm_region *r, holder *h, bool by_itself); /* who ends itself has unbound its chargers */
bool server_alive(const header *h);
int reap(fsm_region *r, uint32_t self, uint32_t *ended); /* self: who lives for sure, or NONE */
int reap_counter(fsm_region *r, const counter *c);       /* -EBUSY: a holder of this counter lives */
/* Not more often than can be afforded, the dead are looked for before a charge is refused. */
bool reap_is_due(const fsm_region *r, int64_t now);     /* without the lock; now: coarse_ns() */
bool reap_before_refusal(fsm_region *r, uint32_t self); /* true if somebody dead was given back */

/* ---- process.c ---- */

extern uint32_t own_namespace;
static inline uint32_t pid_namespace(void) /* of this process */
{
    return own_namespace;
}
int32_t own_pid(void);
int32_t process_of(uint32_t thread); /* its process as far as can be told, else the number itself */
void read_command(int32_t pid, char out[FSM_COMMAND_MAX + 1]); /* as ps shows it; empty if it is gone */
/* Has others know in which pid namespace this process has the region open.  -errno. */
int announce_namespace(fsm_region *r);
/* Whether this thread may be at work in the region; false only of what is dead, or never mapped it. */
bool may_be_inside(const fsm_region *r, uint32_t thread);

/* ---- recover.c ---- */

int rebuild(fsm_region *r); /* touches nothing but this region, so it does for a copy */
int recover(fsm_region *r);

static inline bool journal_pending(const header *h)
{
    return h->journal.step != JOURNAL_EMPTY;
}

static inline void journal_commit(journal *j, enum journal_step step)
{
    __atomic_store_n(&j->step, (uint32_t)step, __ATOMIC_RELEASE);
}

#endif
