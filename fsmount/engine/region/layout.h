/*
 * layout.h - what a region looks like in memory.  This comment is the authority.
 *
 * A region is one file or memfd, mapped shared by everybody who charges in it:
 *
 *   header | refusals | buckets | groups | counters | attributes | holders | watches | waiters | cells
 *
 * The sizes follow from the geometry, so a region describes itself.  It is
 * sparse: a record's pages are populated when the record is first used, so that
 * a full file system is -ENOSPC there and then and never a SIGBUS later.
 *
 * Records refer to each other by index; NONE is no record.  A counter's index is
 * group * resources + resource.  A holder's index is below `holders` for a
 * process and above for a lease (there is room for as many leases as cells, and
 * for as many watches and waiters).
 *
 * Truth and derivation.  Fields marked (d) are derived: recover.c recomputes them
 * all from the others, so a process may die between any two stores, and check.c
 * compares each with what it should be.  The truth
 * is changed by one store or one compare-and-swap, always under the lock except
 * for the two words of a cell that is open; a step that needs several stores
 * writes their final values to the journal first, and recovery repeats it.
 *
 *   group    is there when its stamp says LIVE
 *   holder   likewise; ENDING: it is being given back, whoever finds it goes on
 *   cell     is there when its owner is not 0; what it holds is words.used, what
 *            it has reserved besides is words.stock (FSM_CLOSED: nothing)
 *   watch    is there when its stamp says LIVE, and its group is
 *   waiter   is there when its stamp says LIVE, with the PARTs that it leads to
 *   refusal  is there when its number is not 0
 *   counter  limit, soft_limit, common, what it counted, and the statistics
 *
 * The attributes of files lie in BANKS arrays of BANK kinds each.  A group's part of
 * a bank is populated when a file of one of its kinds is first changed: kinds that
 * are never changed take no memory.
 *
 * Groups, their names and attributes, and the plain values of a counter are read
 * without the lock (region/reading.h); all else under it.
 *
 * Nothing that is read from here is used as an index or a length before it was
 * checked, and then it is the checked value that is used: it may be written over
 * meanwhile.  The *_at() functions answer NULL for an index that is out of range.
 * Sums of what may be anything are compiled to wrap (-fwrapv in setup.py).
 */
#ifndef FSM_LAYOUT_H
#define FSM_LAYOUT_H

#include "engine.h"
#include "region/once.h"

#include <string.h>

#define FSM_MAGIC "fsmount\n"
#define FSM_VERSION 6u
#define FSM_ARCHITECTURE ((uint32_t)(sizeof(long) << 8 | sizeof(void *)))

#define NONE UINT32_MAX

enum state { FREE = 0, LIVE = 1, ENDING = 2, PART = 3 };

/* generation in the upper half, state in the lower: one store makes or ends a record */
typedef uint64_t stamp;

typedef struct attributes {
    uint16_t mode;
    uint16_t set; /* FSM_SET_*: which of these were ever given */
    uint32_t uid, gid;
    int64_t atime, mtime, ctime; /* ns since the epoch */
} attributes;

typedef struct group {
    stamp stamp;
    uint32_t parent; /* NONE for the root */
    uint32_t name_length;
    attributes directory;
    uint32_t creator_uid, creator_gid; /* who owns files whose owner was never set */
    uint32_t custom; /* a bit for each bank: its attributes are kept; before, their memory is not there */
    int64_t birth;
    uint32_t depth;                      /* (d) */
    uint32_t first_child, last_child;    /* (d) */
    uint32_t next_sibling, prev_sibling; /* (d) next_sibling also links free records */
    uint32_t hash_next;                  /* (d) */
    uint32_t children;                   /* (d) */
    char name[FSM_NAME_MAX + 1];
} group;

/* What was counted here for R.events. */
typedef struct counts {
    int64_t refusals, soft_crossings, threshold_crossings;
} counts;

/* What every charge looks at comes first and is one cache line. */
typedef struct counter {
    _Alignas(64) int64_t limit;
    int64_t reserved;      /* (d) used + stock of the subtree; <= limit, charge_nofail aside */
    int64_t peak_reserved; /* the most that was reserved since max_usage was reset: the true peak lies below */
    int64_t max_usage, min_usage;
    uint64_t stock_cap;  /* (d) sum of cap over the open cells of the subtree; at most what is reserved */
    uint32_t global;     /* (d) odd: stock is switched off in this subtree; never the same again in another such time */
    uint32_t open_below; /* (d) open cells of the subtree */
    uint32_t open_head;  /* (d) this counter's own open cells */
    uint32_t marked;     /* (d) 1: its usage may cross something; see events.c */
    int64_t low, high;   /* (d) the marks around its usage: low < usage <= high */
    int64_t global_exit; /* (d) the headroom at which global mode ends */
    int64_t refusals;    /* ever; changes without the lock, too */
    int64_t forgotten;   /* of these: failcnt is the rest */
    int64_t soft_crossings; /* ever; odd: its usage was above the soft limit when it was last looked at */
    int64_t soft_limit;
    int64_t common;              /* what the group itself holds */
    int64_t threshold_crossings; /* ever */
    int64_t calm_refusals;       /* refusals when something was last given back in global mode, */
    uint32_t calm;               /* and how many times in a row they were the same then */
    int64_t refills, drains;
    int64_t batch;                     /* (d) what the last refill here reserved ahead */
    counts past;                       /* of groups that were removed below this one */
    uint32_t cells_head, cells;        /* (d) this counter's own cells */
    uint32_t watches_head;             /* (d) who watches it */
    uint32_t active_child;             /* (d) children with open cells below them */
    uint32_t active_next, active_prev; /* (d) */
    uint32_t event_seq;                /* changes while somebody listens: something was counted in the subtree */
    uint32_t waiting;                  /* (d) requests in line that ask for something of the subtree */
    uint64_t full_in;                  /* the round of the line in which a request found no room here, */
    uint64_t aside_in;                 /* and the one in which this much was set aside; see waiters.c */
    int64_t aside;
} counter;

_Static_assert(offsetof(counter, low) == 64, "what every charge looks at is one cache line");

typedef struct holder {
    stamp stamp;
    uint32_t kind, flags;
    uint64_t start_time;
    int32_t pid;
    uint32_t pid_namespace;     /* where pid means something */
    uint32_t cells_head, cells; /* (d) */
    uint32_t next_free;         /* (d) */
    uint32_t arrival;           /* its number among the processes */
    uint32_t answers;           /* how many of its requests were answered, and a futex */
} holder;

/* A mark that somebody was interested in. */
typedef struct watch {
    stamp stamp;
    int64_t amount;
    uint32_t flags;
    uint32_t counter;
    int64_t passed;      /* how often its mark was passed, either way; odd: the usage was above it; see events.c */
    uint32_t next, prev; /* (d) of its counter; next also links free records */
} watch;

/*
 * A request that waits for room: so much for one cell, and its parts for others of the same holder.  Once it is
 * answered it is there until who asked has seen it.
 */
typedef struct waiter {
    stamp stamp;
    uint64_t ticket; /* the order in which they came */
    int64_t amount;
    uint32_t cell;
    uint32_t part;       /* the next part of the request, NONE after the last */
    uint32_t answer;     /* enum answer, and a futex; of the LIVE one alone */
    uint32_t next, prev; /* (d) in line; next also links free records */
} waiter;

enum answer { WAITING = 0, GRANTED = 1, ENDED = 2 };

/*
 * The words of a cell.  What it has reserved is total[epoch & 1]; of that words.state says how much is stock, and the
 * rest is used.  An open cell's stock is reserved at every level.  When it is closed, the stock that it had stays where
 * it is, so that the rest is what is used in one store, and is reserved no more.
 *
 * So charging is one swap of the state alone, and everything else one store under the lock: of the total of a closed
 * cell, or, after the other total was written, of a state with the next epoch, which makes that one count.  The epoch
 * also tells a cell that was closed and opened again from one that was not, when a thread of the holder is kept from
 * its swap in between: it would be taken in only if that happened 2^23 times and to the same stock, and even then no
 * more is given back than the holder reserved, unless its threads give back more than they hold.
 *
 * 64 bytes: cells do not share cache lines, so neighbours do not slow each other down.
 */
typedef struct cell {
    fsm_words words;
    uint32_t owner;                      /* holder's index + 1; 0: the cell is free; or QUARANTINED */
    uint32_t counter;                    /* valid while owned */
    uint32_t holder_next, holder_prev;   /* (d) holder_next also links free cells */
    uint32_t counter_next, counter_prev; /* (d) */
    uint32_t open_next, open_prev;       /* (d) */
} cell;

/*
 * A cell whose holder was ended by another process while its own lives, and may look at it still: closed, empty, and
 * nobody's until that process (pid namespace and pid in the total that does not count, start time in cap) is dead.
 */
#define QUARANTINED UINT32_MAX

_Static_assert(sizeof(cell) == 64, "a cell is one cache line");
_Static_assert(sizeof(attributes) == 40, "attributes are packed");

/* Records that can be used up: how many were ever used, and the free ones among them. */
typedef struct pool {
    uint32_t high;
    uint32_t free, last_free; /* (d) cells are freed at the end, so that one is used again as late as can be */
    uint32_t spare;           /* (d) how many are free */
} pool;

enum journal_step {
    JOURNAL_EMPTY = 0,
    JOURNAL_MOVE = 1,
    JOURNAL_RENAME = 2,
    JOURNAL_ATTRIBUTES = 3,
    JOURNAL_REMOVE = 4,
    JOURNAL_CROSS = 5,
    JOURNAL_CHANGE = 6
};

/* What a cell is to have used, and its group to hold itself. */
typedef struct change {
    uint32_t cell;
    int64_t used, common;
} change;

typedef struct journal {
    uint32_t step; /* stored last, cleared last */
    uint32_t index, counter, slot;
    uint32_t name_length;
    int64_t used, common;
    int64_t passed, crossings;
    attributes attributes;
    char name[FSM_NAME_MAX + 1];
    counts past[FSM_RESOURCES_MAX];
    uint32_t changes; /* how many there are */
    uint32_t waiter;  /* who is granted them; NONE */
    change change[FSM_RESOURCES_MAX];
} journal;

enum notifier { UNARMED = 0, FIRED = 1, ARMED = 2 };

typedef struct header {
    uint64_t magic; /* FSM_MAGIC */
    uint32_t version, architecture;
    uint64_t size;
    uint64_t tree_id;
    fsm_geometry geometry; /* never changes, but for batch */
    uint32_t lock;         /* a robust futex: the thread that has it, and the kernel's flags; see lock.c */
    uint32_t broken;       /* a derived field was found wrong: the next to take the lock recomputes */
    pool groups, processes, leases, cells, watches, waiters;
    uint32_t quarantined; /* (d) cells in quarantine */
    uint64_t changes;     /* odd while groups are made, removed, renamed or given attributes; see reading.h */
    uint32_t arrivals;    /* the number of the newest process, and a futex */
    uint32_t notifier;    /* enum notifier: who listens to events; a futex */
    uint32_t queue_head, queue_tail; /* (d) who waits, in the order of their tickets */
    uint32_t waiting;                /* (d) those in line who have no answer yet */
    uint64_t ticket;                 /* the newest */
    uint64_t round;                  /* how often the line was gone through; see waiters.c */
    int64_t reap_at;                 /* CLOCK_MONOTONIC ns: when a refused charge looks for the dead again */
    int64_t look_at;                 /* likewise: when a refusal looks for the largest holders again */
    uint64_t recoveries;
    journal journal;
    uint32_t daemon_namespace;
    fsm_daemon daemon;
    uint64_t refusals;    /* that were recorded: the number of the last; changes without the lock, too */
    uint64_t name_key[2]; /* of the hash of names: random, and never changes */
} header;

/* Records of one kind, that can be used up. */
struct records {
    const char *what;
    pool *pool;
    void *first;
    size_t size, link; /* of one, and where in it is the number of the next free one */
    uint32_t room;
};

struct fsm_region {
    header *header;
    fsm_geometry geometry;  /* a copy: what is shared is not trusted again */
    uint32_t pid_namespace; /* that others know this process to be in; see process.c */
    size_t size;
    int fd;
    int announced_fd;      /* by which they know it; -1: by fd */
    fsm_refusal *refusals; /* FSM_REFUSALS of them */
    uint32_t *buckets;
    group *groups;
    counter *counters;
    attributes *attributes;
    holder *holders;
    watch *watches;
    waiter *waiters;
    cell *cells;
    struct records pools[6];       /* by enum pools */
    int (*recover)(fsm_region *r); /* called by lock() when the last owner died or the region is damaged */
};

/* Its first bytes and the root are there: not so where the file was cut short. */
static inline bool is_region(const header *h)
{
    return memcmp(&h->magic, FSM_MAGIC, sizeof h->magic) == 0 && READ_ONCE(h->groups.high) > 0;
}

/* ---- the words of a cell; under the lock, which keeps closed cells closed and open ones' totals as they are ---- */

static inline bool is_open(uint64_t state)
{
    return !(state & FSM_CLOSED);
}

static inline uint64_t state_now(const cell *cl)
{
    return __atomic_load_n(&cl->words.state, __ATOMIC_ACQUIRE);
}

/* The stock in the state; of a closed cell it is not reserved any more. */
static inline int64_t stock_in(uint64_t state)
{
    return (int64_t)(state & FSM_STOCK_MAX);
}

/* Which total counts. */
static inline unsigned side_of(uint64_t state)
{
    return state / FSM_EPOCH % 2;
}

static inline int64_t total_of(const cell *cl, uint64_t state)
{
    return READ_ONCE(cl->words.total[side_of(state)]);
}

static inline int64_t used_of(const cell *cl, uint64_t state)
{
    return total_of(cl, state) - stock_in(state);
}

/* Of a closed cell. */
static inline void set_used(cell *cl, int64_t used)
{
    uint64_t state = state_now(cl);
    __atomic_store_n(&cl->words.total[side_of(state)], used + stock_in(state), __ATOMIC_RELEASE);
}

/* A power of two, about one for each group. */
static inline uint32_t bucket_count(const fsm_geometry *g)
{
    uint32_t n = 64;
    while (n < g->groups)
        n <<= 1;
    return n;
}

static inline uint32_t slots_of(const fsm_region *r)
{
    return r->geometry.resources * FSM_SLOTS;
}

/* The kinds whose attributes are populated together. */
#define BANK 16u
#define BANKS (FSM_SLOTS / BANK)

_Static_assert(FSM_SLOTS % BANK == 0 && BANKS <= 32, "group.custom has a bit for each bank");

/* Of the slot of a file, which is not 0. */
static inline uint32_t bank_of(uint32_t slot)
{
    return (slot - 1) % FSM_SLOTS / BANK;
}

static inline bool keeps_bank(const group *g, uint32_t bank)
{
    return __atomic_load_n(&g->custom, __ATOMIC_ACQUIRE) >> bank & 1;
}

/* A group's part of a bank: BANK attributes for each resource. */
static inline attributes *bank_at(const fsm_region *r, uint32_t group_number, uint32_t bank)
{
    return &r->attributes[((size_t)bank * r->geometry.groups + group_number) * r->geometry.resources * BANK];
}

static inline size_t bank_size(const fsm_region *r)
{
    return r->geometry.resources * BANK * sizeof(attributes);
}

static inline attributes *file_attributes(const fsm_region *r, uint32_t group_number, uint32_t slot)
{
    uint32_t resource = (slot - 1) / FSM_SLOTS, kind = (slot - 1) % FSM_SLOTS;
    return &bank_at(r, group_number, kind / BANK)[resource * BANK + kind % BANK];
}

/* A group's generation wraps here, so that generation, index and a slot fit into a 64-bit inode number. */
#define GENERATION_MASK 0x0fffffffu

_Static_assert((FSM_RESOURCES_MAX + 1) * FSM_SLOTS <= 1 << 12, "a slot has 12 bits of an inode number");

static inline uint32_t generation(stamp s)
{
    return (uint32_t)(s >> 32);
}

static inline uint32_t state_of(stamp s)
{
    return (uint32_t)s;
}

static inline stamp make_stamp(uint32_t generation_number, enum state state)
{
    return (stamp)generation_number << 32 | (uint32_t)state;
}

static inline uint32_t id_index(fsm_id id)
{
    return (uint32_t)id;
}

static inline fsm_id make_id(stamp s, uint32_t index)
{
    return (fsm_id)generation(s) << 32 | index;
}

/* Fits into an inode number whatever is in the stamp; of nonsense it is the id of nobody. */
static inline fsm_id group_id(stamp s, uint32_t index)
{
    return make_id(make_stamp(generation(s) & GENERATION_MASK, LIVE), index);
}

static inline group *group_at(const fsm_region *r, uint32_t index)
{
    index = once(index);
    return index < r->geometry.groups ? &r->groups[index] : NULL;
}

static inline counter *counter_at(const fsm_region *r, uint32_t index)
{
    index = once(index);
    return index < (uint64_t)r->geometry.groups * r->geometry.resources ? &r->counters[index] : NULL;
}

static inline uint32_t holders_room(const fsm_region *r)
{
    return r->geometry.holders + r->geometry.cells;
}

static inline holder *holder_at(const fsm_region *r, uint32_t index)
{
    index = once(index);
    return index < holders_room(r) ? &r->holders[index] : NULL;
}

static inline cell *cell_at(const fsm_region *r, uint32_t index)
{
    index = once(index);
    return index < r->geometry.cells ? &r->cells[index] : NULL;
}

static inline watch *watch_at(const fsm_region *r, uint32_t index)
{
    index = once(index);
    return index < r->geometry.cells ? &r->watches[index] : NULL;
}

static inline waiter *waiter_at(const fsm_region *r, uint32_t index)
{
    index = once(index);
    return index < r->geometry.cells ? &r->waiters[index] : NULL;
}

/* How many of a pool's `room` records were ever used; may be asked without the lock. */
static inline uint32_t high_of(const pool *of, uint32_t room)
{
    uint32_t high = READ_ONCE(of->high);
    return high < room ? high : room;
}

static inline uint32_t groups_high(const fsm_region *r)
{
    return high_of(&r->header->groups, r->geometry.groups);
}

/* For a group that was found good: what it has now is safe to use, whatever became of it. */
static inline uint32_t name_length(const group *g)
{
    uint32_t length = once(g->name_length);
    return length <= FSM_NAME_MAX ? length : 0;
}

static inline uint32_t parent_index(const fsm_region *r, const group *g)
{
    uint32_t index = once(g->parent);
    return index < r->geometry.groups ? index : 0;
}

static inline uint32_t group_index(const fsm_region *r, const group *g)
{
    return (uint32_t)(g - r->groups);
}

static inline uint32_t counter_index(const fsm_region *r, const counter *c)
{
    return (uint32_t)(c - r->counters);
}

static inline uint32_t holder_index(const fsm_region *r, const holder *h)
{
    return (uint32_t)(h - r->holders);
}

static inline uint32_t watch_index(const fsm_region *r, const watch *w)
{
    return (uint32_t)(w - r->watches);
}

static inline uint32_t waiter_index(const fsm_region *r, const waiter *w)
{
    return (uint32_t)(w - r->waiters);
}

static inline uint32_t cell_index(const fsm_region *r, const cell *c)
{
    return (uint32_t)(c - r->cells);
}

#endif
