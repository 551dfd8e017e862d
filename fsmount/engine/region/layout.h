/*
 * layout.h - the layout of a region in memory. This comment is the authority.
 *
 * A region is one file or memfd. Every process that charges in it maps it shared:
 *
 *   header | refusals | buckets | groups | counters | attributes | holders | watches | waiters | cells
 *
 * The sizes follow from the geometry, so a region describes itself. The file is sparse: the pages of a record become
 * real when the record is first used. So a full file system is -ENOSPC at that moment and never a SIGBUS later.
 *
 * Records refer to each other by index; NONE is no record. The index of a counter is group * resources + resource. The
 * index of a holder is below `holders` for a process and above for a lease. There is room for as many leases, watches
 * and waiters as for cells.
 *
 * Truth and derived fields. Fields marked (d) are derived: recover.c recomputes all of them from the others, so a
 * process may die between any two stores, and check.c compares each with the recomputed value. The truth changes by one
 * store or one compare-and-swap, always under the lock, except for the state of an open cell. A step that needs several
 * stores first writes their final values to the journal; recovery repeats the step.
 *
 *   group    exists while its stamp says LIVE
 *   holder   likewise; ENDING: its end has begun, and recovery finishes it
 *   cell     exists while its owner is not 0; its words say what it holds and what is stock
 *   watch    exists while its stamp says LIVE and its group exists
 *   waiter   exists while its stamp says LIVE, with the PARTs that it leads to
 *   refusal  exists while its number is not 0
 *   counter  limit, soft_limit, common, the event counts, and the statistics
 *
 * The attributes of files lie in BANKS arrays of BANK kinds each. The part of a bank that belongs to a group becomes
 * real when a file of one of its kinds is first changed. Kinds whose files are never changed take no memory.
 *
 * Groups, their names and attributes, and the plain values of a counter are read without the lock (region/reading.h).
 * Everything else is read under it.
 *
 * A region may hold nonsense at any time. So a value is checked before it serves as an index or a length, and the
 * checked copy is used: the region itself may change meanwhile. The *_at() functions return NULL for an index out of
 * range. Sums of unchecked values wrap (-fwrapv in setup.py).
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

/* The upper half is the generation, the lower half the state: one store begins or ends a record. */
typedef uint64_t stamp;

typedef struct attributes {
    uint16_t mode;
    uint16_t set; /* FSM_SET_*: the attributes that were ever set */
    uint32_t uid, gid;
    int64_t atime, mtime, ctime; /* ns since the epoch */
} attributes;

typedef struct group {
    stamp stamp;
    uint32_t parent; /* NONE for the root */
    uint32_t name_length;
    attributes directory;
    uint32_t creator_uid, creator_gid; /* owners of the files whose owner was never set */
    uint32_t custom;                   /* one bit for each bank that is kept; other banks have no memory */
    int64_t birth;
    uint32_t depth;                      /* (d) */
    uint32_t first_child, last_child;    /* (d) */
    uint32_t next_sibling, prev_sibling; /* (d) next_sibling also links free records */
    uint32_t hash_next;                  /* (d) */
    uint32_t children;                   /* (d) */
    char name[FSM_NAME_MAX + 1];
} group;

/* Event counts, for R.events. */
typedef struct counts {
    int64_t refusals, soft_crossings, threshold_crossings;
} counts;

/* The first cache line has what every charge needs. */
typedef struct counter {
    _Alignas(64) int64_t limit;
    int64_t reserved;      /* (d) used + stock of the subtree; <= limit, except after charge_nofail */
    int64_t peak_reserved; /* highest `reserved` since max_usage was reset; the true peak is not above it */
    int64_t max_usage, min_usage;
    uint64_t stock_cap;     /* (d) sum of cap over the open cells of the subtree; <= reserved */
    uint32_t global;        /* (d) generation of global mode; odd: there is no stock in the subtree */
    uint32_t open_below;    /* (d) number of open cells in the subtree */
    uint32_t open_head;     /* (d) open cells of this counter itself */
    uint32_t marked;        /* (d) 1: the usage may cross a mark; see events.c */
    int64_t low, high;      /* (d) the marks next to the usage: low < usage <= high */
    int64_t global_exit;    /* (d) the headroom at which global mode ends */
    int64_t refusals;       /* total; also changes without the lock */
    int64_t forgotten;      /* refusals before failcnt was reset; failcnt is the rest */
    int64_t soft_crossings; /* total; odd: the usage was last seen above the soft limit */
    int64_t soft_limit;
    int64_t common;              /* charges of the group itself */
    int64_t threshold_crossings; /* total */
    int64_t calm_refusals;       /* refusals at the last uncharge in global mode, */
    uint32_t calm;               /* and how many uncharges in a row found that number */
    int64_t refills, drains;
    int64_t batch;                     /* (d) stock that the last refill here reserved */
    counts past;                       /* counts of removed groups that were below this one */
    uint32_t cells_head, cells;        /* (d) cells of this counter itself */
    uint32_t watches_head;             /* (d) */
    uint32_t active_child;             /* (d) children with open cells in their subtree */
    uint32_t active_next, active_prev; /* (d) */
    uint32_t event_seq;                /* changes with each event in the subtree while a listener is armed */
    uint32_t waiting;                  /* (d) queued requests that need room in the subtree */
    uint64_t full_in;                  /* round of the queue in which a request found no room here, */
    uint64_t aside_in;                 /* and the round in which this amount was set aside; see queue.c */
    int64_t aside;
} counter;

_Static_assert(offsetof(counter, low) == 64, "one cache line has what every charge needs");

typedef struct holder {
    stamp stamp;
    uint32_t kind, flags;
    uint64_t start_time;
    int32_t pid;
    uint32_t pid_namespace;     /* the namespace of pid */
    uint32_t cells_head, cells; /* (d) */
    uint32_t next_free;         /* (d) */
    uint32_t arrival;           /* number in the order of arrival, for processes */
    uint32_t answers;           /* number of answered requests; also a futex */
} holder;

/* A mark that a user has set. */
typedef struct watch {
    stamp stamp;
    int64_t amount;
    uint32_t flags;
    uint32_t counter;
    int64_t passed;      /* crossings of the mark in both directions; odd: the usage was above it; see events.c */
    uint32_t next, prev; /* (d) watches of the same counter; next also links free records */
} watch;

/*
 * A request that waits for room: an amount for one cell, and PARTs for other cells of the same holder. A granted
 * request stays until its process has seen the answer.
 */
typedef struct waiter {
    stamp stamp;
    uint64_t ticket; /* order of arrival */
    int64_t amount;
    uint32_t cell;
    uint32_t part;       /* the next part of the request, NONE after the last */
    uint32_t answer;     /* enum answer, and a futex; only of the LIVE waiter of a request */
    uint32_t next, prev; /* (d) in the queue; next also links free records */
} waiter;

enum answer { WAITING = 0, GRANTED = 1, ENDED = 2 };

/*
 * The words of a cell. A cell has reserved total[epoch & 1]. The stock in words.state is a part of that; the rest is
 * used. The stock of an open cell is reserved at every level. A closed cell keeps the stock in its state, so that the
 * used rest is still one store; but this stock is no longer reserved.
 *
 * So a charge is one compare-and-swap of the state. Every other change is one store under the lock: of the total of a
 * closed cell, or of a state with the next epoch, which selects the other total, written just before. The epoch also
 * separates a cell that was closed and reopened from one that was not, if a thread is delayed before its
 * compare-and-swap. Accepted inaccuracy: the delayed swap succeeds if the cell was reopened exactly 2^23 times and has
 * the same stock. Even then no more is returned than the holder has reserved, unless its threads return more than they
 * hold.
 *
 * A cell is 64 bytes: neighbours share no cache line and do not slow each other down.
 */
typedef struct cell {
    fsm_words words;
    uint32_t owner;                      /* index of the holder + 1; 0: the cell is free; or QUARANTINED */
    uint32_t counter;                    /* valid while the cell has an owner */
    uint32_t holder_next, holder_prev;   /* (d) holder_next also links free cells */
    uint32_t counter_next, counter_prev; /* (d) */
    uint32_t open_next, open_prev;       /* (d) */
} cell;

/*
 * A cell whose holder was ended by another process while the holder's own process lives and may still look at it. It is
 * closed and empty. It becomes free when that process is dead; the unused total has its pid namespace and pid, and cap
 * its start time.
 */
#define QUARANTINED UINT32_MAX

_Static_assert(sizeof(cell) == 64, "a cell is one cache line");
_Static_assert(sizeof(attributes) == 40, "attributes are packed");

/* A kind of record that can run out: how many were ever used, and the free ones among these. */
typedef struct pool {
    uint32_t high;
    uint32_t free, last_free; /* (d) freed cells go to the end, to be reused as late as possible */
    uint32_t spare;           /* (d) length of the free list */
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

/* The final values of one change: the usage of the cell, and the charges of its group itself. */
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
    uint32_t changes; /* number of changes */
    uint32_t waiter;  /* the waiter that the step grants, or NONE */
    change change[FSM_RESOURCES_MAX];
} journal;

enum notifier { UNARMED = 0, FIRED = 1, ARMED = 2 };

typedef struct header {
    uint64_t magic; /* FSM_MAGIC */
    uint32_t version, architecture;
    uint64_t size;
    uint64_t tree_id;
    fsm_geometry geometry; /* constant, except for batch */
    uint32_t lock;         /* a robust futex: the thread that has the lock, and flags of the kernel; see lock.c */
    uint32_t broken;       /* damage was found: the next process that takes the lock recovers */
    pool groups, processes, leases, cells, watches, waiters;
    uint32_t quarantined; /* (d) */
    uint64_t changes;     /* sequence count of changes to groups, their names and attributes; see reading.h */
    uint32_t arrivals;    /* number of the newest process; also a futex */
    uint32_t notifier;    /* enum notifier, and a futex; see events.c */
    uint32_t queue_head, queue_tail; /* (d) waiting requests in the order of their tickets */
    uint32_t waiting;                /* (d) requests in the queue that have no answer yet */
    uint64_t ticket;                 /* the newest ticket */
    uint64_t round;                  /* number of passes over the queue; see queue.c */
    int64_t reap_at;                 /* CLOCK_MONOTONIC ns: the next search for dead processes before a refusal */
    int64_t look_at;                 /* likewise: the next search for the largest holders */
    uint64_t recoveries;
    journal journal;
    uint32_t daemon_namespace;
    fsm_daemon daemon;
    uint64_t refusals;    /* number of the newest record; also changes without the lock */
    uint64_t name_key[2]; /* key of the name hash: random and constant */
} header;

/* The records of one kind. */
struct records {
    const char *what;
    pool *pool;
    void *first;
    size_t size, link; /* size of a record, and offset of its link to the next free one */
    uint32_t room;
};

struct fsm_region {
    header *header;
    fsm_geometry geometry;  /* a private copy: the shared one may change */
    uint32_t pid_namespace; /* the one that was announced to others; see process.c */
    size_t size;
    int fd;
    int announced_fd;      /* descriptor of the announcement; -1: fd */
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
    int (*recover)(fsm_region *r); /* lock() calls it when the last owner died or damage was found */
};

/* Whether the magic and the root are there. A truncated file has neither. */
static inline bool is_region(const header *h)
{
    return memcmp(&h->magic, FSM_MAGIC, sizeof h->magic) == 0 && READ_ONCE(h->groups.high) > 0;
}

/* ---- the words of a cell: under the lock, closed cells stay closed and the totals of open ones stay the same --- */

static inline bool is_open(uint64_t state)
{
    return !(state & FSM_CLOSED);
}

static inline uint64_t state_now(const cell *cl)
{
    return __atomic_load_n(&cl->words.state, __ATOMIC_ACQUIRE);
}

/* The stock in the state; of a closed cell it is no longer reserved. */
static inline int64_t stock_in(uint64_t state)
{
    return (int64_t)(state & FSM_STOCK_MAX);
}

/* The valid total. */
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

/* Only for a closed cell. */
static inline void set_used(cell *cl, int64_t used)
{
    uint64_t state = state_now(cl);
    __atomic_store_n(&cl->words.total[side_of(state)], used + stock_in(state), __ATOMIC_RELEASE);
}

/* A power of two, at least one for each group. */
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

/* The number of kinds whose attributes become real together. */
#define BANK 16u
#define BANKS (FSM_SLOTS / BANK)

_Static_assert(FSM_SLOTS % BANK == 0 && BANKS <= 32, "group.custom has a bit for each bank");

/* The bank of a file's slot; slot 0 has none. */
static inline uint32_t bank_of(uint32_t slot)
{
    return (slot - 1) % FSM_SLOTS / BANK;
}

static inline bool keeps_bank(const group *g, uint32_t bank)
{
    return __atomic_load_n(&g->custom, __ATOMIC_ACQUIRE) >> bank & 1;
}

/* The part of a bank that belongs to a group: BANK attributes for each resource. */
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

/* The generation of a group wraps here, so that generation, index and a slot fit into a 64-bit inode number. */
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

/* Fits into an inode number, whatever the stamp is; a damaged stamp gives the id of no group. */
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

/* The number of the `room` records of a pool that were ever used. Needs no lock. */
static inline uint32_t high_of(const pool *of, uint32_t room)
{
    uint32_t high = READ_ONCE(of->high);
    return high < room ? high : room;
}

static inline uint32_t groups_high(const fsm_region *r)
{
    return high_of(&r->header->groups, r->geometry.groups);
}

/* For a group that was checked: the result is safe to use even if the group has changed since. */
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
