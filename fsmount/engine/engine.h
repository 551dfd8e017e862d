/*
 * engine.h - hierarchical resource counters in one shared-memory region.
 *
 * A region holds a tree of groups. A group has one counter for each resource, and a charge of a counter also charges
 * every ancestor. Charges belong to a holder. Each (holder, counter) pair has one cell: its usage and its stock.
 * A charge within the stock is one compare-and-swap on the cell, at any depth. Everything else takes the one
 * lock of the region. layout.h describes the memory, counter.c the decisions.
 *
 * Conventions, for every function here:
 * - The result is 0, or a negative errno. On failure nothing has changed, and fsm_last_fault() has the details.
 * - Any thread of any process that has mapped the region may call it.
 * - Amounts are integers from 0 to FSM_UNLIMITED, without rounding.
 * - Three errors are possible wherever the lock is taken. -EUCLEAN: the region is damaged (fault.text says where).
 *   -ETIMEDOUT: another thread kept the lock for longer than this thread's patience (fault.pid). -ENODEV: the group or
 *   holder is gone.
 * - Reading names, attributes and the plain values of a counter takes the lock only while a process changes groups.
 */
#ifndef FSM_ENGINE_H
#define FSM_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FSM_UNLIMITED INT64_MAX
#define FSM_NAME_MAX 255    /* bytes in the name of a group */
#define FSM_DEPTH_MAX 1024u /* levels below the root */
#define FSM_GROUPS_MAX (1u << 24)
#define FSM_HOLDERS_MAX (1u << 24)
#define FSM_CELLS_MAX (1u << 28)
#define FSM_RESOURCES_MAX 32 /* resources of a tree */
#define FSM_RESOURCE_NAME_MAX 63
#define FSM_SLOTS 64         /* attribute slots of a group for each resource: the highest number of kinds of files */
#define FSM_ROOT ((fsm_id)0) /* it is never removed */
#define FSM_BATCH_AUTO (-1)

/* A group or a holder: generation << 32 | index. The id of a removed one is recognized. */
typedef uint64_t fsm_id;

/* The mapping of a region in this process. */
typedef struct fsm_region fsm_region;

/* ---- errors --------------------------------------------------------------- */

typedef struct fsm_fault {
    fsm_id group;   /* -ENOMEM: the ancestor that refused */
    int64_t usage;  /* -ENOMEM, and -EBUSY of a limit: its precise usage */
    int64_t limit;  /* -ENOMEM: its limit */
    int64_t held;   /* -ERANGE: the amount that the holder, or the group itself, holds */
    uint32_t which; /* -ENOMEM, -ERANGE of fsm_change() and fsm_move(): index of the amount */
    int32_t pid;    /* -ETIMEDOUT: process that has the lock */
    char text[200]; /* -EUCLEAN, -EPROTO, -EINVAL of a region: the fault, and its place */
} fsm_fault;

/* The details of the last failure in this thread, valid until its next call. */
const fsm_fault *fsm_last_fault(void);

/*
 * Sets the time that this thread waits for the lock of a region, in ns; 3 s by default. A thread that must not wait, as
 * in an event loop, sets a short patience, and hands a call that gets -ETIMEDOUT to a thread with a longer one.
 */
void fsm_set_patience(int64_t nanoseconds);

/* ---- the region ----------------------------------------------------------- */

typedef struct fsm_resource {
    char name[FSM_RESOURCE_NAME_MAX + 1];
    uint32_t is_count; /* 0: bytes, 1: count */
} fsm_resource;

typedef struct fsm_geometry {
    uint32_t groups;    /* capacity, the root included; 1 .. FSM_GROUPS_MAX */
    uint32_t holders;   /* processes attached at once; 1 .. FSM_HOLDERS_MAX */
    uint32_t cells;     /* (holder, counter) pairs at once; 1 .. FSM_CELLS_MAX */
    uint32_t resources; /* 1 .. FSM_RESOURCES_MAX */
    int64_t batch;      /* FSM_BATCH_AUTO, or a fixed batch; 0: no stock */
    fsm_resource resource[FSM_RESOURCES_MAX];
} fsm_geometry;

/*
 * Makes a region of mode 0600 and maps it. Without a path, the region has no name and ends with its last user. The file
 * is sparse: only what is used takes memory. -EEXIST: the path exists. -EINVAL: a capacity of 0, too many resources, or
 * a resource name that is empty, doubled, or contains '/', '.' or white space.
 */
int fsm_create(const char *path, const fsm_geometry *geometry, uint32_t uid, uint32_t gid, fsm_region **out);

/*
 * Maps an existing region. -EACCES or -EPERM: it belongs to another user. -EPROTO: it is no region, or one of another
 * layout version or architecture (fault.text).
 */
int fsm_open(const char *path, fsm_region **out);

/* Unmaps the region. Its holders do not end. All chargers that are bound to the region must be unbound before. */
void fsm_close(fsm_region *region);

int fsm_fd(const fsm_region *region);
const fsm_geometry *fsm_geometry_of(const fsm_region *region);
uint64_t fsm_tree_id(const fsm_region *region); /* random, different for each region */
int64_t fsm_get_batch(const fsm_region *region);
int fsm_set_batch(fsm_region *region, int64_t batch); /* drains the stock of the old batch */

/* ---- capacity -------------------------------------------------------------- */

/* Groups (with the root), processes and leases that are holders, cells, watches and waiters, in this order. */
#define FSM_POOLS 6
typedef struct fsm_use {
    uint32_t room, used;
} fsm_use;
void fsm_get_use(fsm_region *region, fsm_use out[FSM_POOLS]);

/*
 * For each group, the user that it counts against, in no order. This is the owner of the topmost group on the path from
 * the root that belongs to neither exempt user; without such a group, the owner of the group itself. Returns the number
 * of groups. room: the capacity of the geometry.
 */
int64_t fsm_get_owners(fsm_region *region, const uint32_t exempt[2], uint32_t *owners, uint32_t room);

/* ---- the daemon that serves the region as a mount ------------------------- */

#define FSM_PATH_MAX 4095
typedef struct fsm_daemon {
    int32_t pid; /* 0: no daemon */
    uint64_t start_time;
    char mountpoint[FSM_PATH_MAX + 1];
} fsm_daemon;
int fsm_set_daemon(fsm_region *region, const fsm_daemon *daemon);
int fsm_get_daemon(fsm_region *region, fsm_daemon *out);

/* ---- groups --------------------------------------------------------------- */

/*
 * Makes a group below parent, with unlimited counters, owned by (uid, gid), with the permission bits of mode. now: time
 * since the epoch in ns. -EEXIST, -EINVAL (empty, "." or "..", '/', newline or NUL), -ENAMETOOLONG (also below
 * FSM_DEPTH_MAX levels), -ENOSPC (no room for another group, or no memory).
 */
int fsm_mkdir(fsm_region *region, fsm_id parent, const char *name, size_t length, uint32_t mode, uint32_t uid,
              uint32_t gid, int64_t now, fsm_id *out);

/*
 * Removes a group, after draining its stock and releasing what dead holders held. -EBUSY: it has children, usage or
 * live holders, or is the root.
 */
int fsm_rmdir(fsm_region *region, fsm_id group, int64_t now);

/* Renames a group within its parent. Errors as for fsm_mkdir(); the same name is no error. */
int fsm_rename(fsm_region *region, fsm_id group, const char *name, size_t length, int64_t now);

int fsm_lookup(fsm_region *region, fsm_id parent, const char *name, size_t length, fsm_id *out); /* -ENOENT */
int fsm_parent(fsm_region *region, fsm_id group, fsm_id *out); /* the root's parent is the root */
int fsm_name(fsm_region *region, fsm_id group, char out[FSM_NAME_MAX + 1], size_t *length);

/*
 * Fills in up to `room` children, oldest first (after a recovery, in memory order). Returns the number of children, or
 * a negative errno.
 */
typedef struct fsm_child {
    fsm_id id;
    uint32_t length;
    char name[FSM_NAME_MAX + 1];
} fsm_child;
int64_t fsm_children(fsm_region *region, fsm_id group, fsm_child *out, size_t room);
/* Only the ids, in the same order. */
int64_t fsm_child_ids(fsm_region *region, fsm_id group, fsm_id *out, size_t room);

/* The number of children, which stat() of a directory needs. */
int fsm_child_count(fsm_region *region, fsm_id group, uint32_t *out);

/*
 * Attributes that outlive the daemon. Slot 0 is the directory itself, slot 1 + resource * FSM_SLOTS + k the k-th file
 * of a resource. A file whose attributes were never set has mode FSM_MODE_UNSET, the creator's owner, and the time of
 * the group's creation.
 */
#define FSM_MODE_UNSET 0xffffu
enum { FSM_SET_MODE = 1, FSM_SET_UID = 2, FSM_SET_GID = 4, FSM_SET_MTIME = 8, FSM_SET_ATIME = 16 };
typedef struct fsm_attr {
    uint32_t mode; /* only the permission bits */
    uint32_t uid;
    uint32_t gid;
    int64_t atime, mtime, ctime; /* ns since the epoch */
} fsm_attr;
int fsm_get_attr(fsm_region *region, fsm_id group, uint32_t slot, fsm_attr *out);
int fsm_set_attr(fsm_region *region, fsm_id group, uint32_t slot, uint32_t mask, const fsm_attr *attr, int64_t now);

/* ---- counters ------------------------------------------------------------- */

/* The keys of R.stat in their order. All values are of one moment. */
typedef struct fsm_stat {
    int64_t usage, usage_local, common, reserved, stock, holders, limit, soft_limit, hierarchical_limit, margin,
        hierarchical_margin, soft_limit_excess, max_usage, min_usage, failcnt, global, batch, error_bound, refills,
        drains;
} fsm_stat;
int fsm_get_stat(fsm_region *region, fsm_id group, uint32_t resource, fsm_stat *out);

/*
 * The precise sum over the subtree. It includes every charge that returned before the call, and none that begins after
 * it.
 */
int fsm_usage(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);

/* The plain values, without a sum; only max_usage is brought up to date first. */
int fsm_get_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);
int fsm_get_soft_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);
int fsm_get_max_usage(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);
int fsm_get_failcnt(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);

/*
 * The counter of every group in one pass, all of one moment. Parents come before their children, the root first. The
 * lock is held while each group, and each cell if one is open, is visited once. Fills in one row for each group, at
 * most the capacity of the geometry. Returns the number of rows, or a negative errno (-ENOMEM).
 */
typedef struct fsm_counter_snapshot {
    fsm_id id;
    uint32_t parent; /* row of the parent; UINT32_MAX for the root */
    fsm_stat stat;
} fsm_counter_snapshot;
int64_t fsm_snapshot(fsm_region *region, uint32_t resource, fsm_counter_snapshot *rows);

/*
 * Event counts of the subtree since the region was made. They never fall. limit: charges that a limit refused or that
 * charge_nofail took above it, at each such counter. soft_limit: crossings of a soft limit, in either direction.
 * threshold: crossings of a watch's mark, in the direction of the watch.
 */
typedef struct fsm_events {
    int64_t limit, soft_limit, threshold;
} fsm_events;
int fsm_get_events(fsm_region *region, fsm_id group, uint32_t resource, fsm_events *out);

/*
 * One process may listen. It calls fsm_listen(), reads, and waits. After the call, each event changes the event_seq of
 * its counter and of all ancestors, and then ends the wait. An unchanged event_seq means that no event happened in the
 * subtree. Each call arms one wake-up, so call it before each wait, and with false at the end.
 */
void fsm_listen(fsm_region *region, bool on);
int fsm_get_event_seq(fsm_region *region, fsm_id group, uint32_t resource, uint32_t *out);
bool fsm_await_event(fsm_region *region, int64_t nanoseconds); /* false: no event in that time */

/*
 * Watches of one counter. A watch counts how often the usage rises above its amount, or falls below it with FSM_BELOW.
 * With FSM_PERCENT the amount is a percentage of the current limit, so setting the limit may move the mark past the
 * usage. A watch begins on the side of the mark where the usage is.
 *
 * fsm_watch() makes `count` watches and ends those of `old` that still exist, all or nothing. -EINVAL: a percentage
 * above 100. -ENOSPC. Watches end with their group, and when another process becomes the daemon.
 */
enum { FSM_BELOW = 1, FSM_PERCENT = 2 };
typedef struct fsm_mark {
    int64_t amount;
    uint32_t flags;
} fsm_mark;
int fsm_watch(fsm_region *region, fsm_id group, uint32_t resource, const fsm_mark *marks, size_t count,
              const fsm_id *old, size_t old_count, fsm_id *out);
int fsm_unwatch(fsm_region *region, const fsm_id *old, size_t count);
int fsm_watch_crossings(fsm_region *region, fsm_id watch, int64_t *out); /* crossings so far; -ENODEV */

/*
 * The result that a charge would have now, without charging and without draining any stock. The charge would not wait,
 * so queued requests take no room from it.
 */
typedef struct fsm_probed {
    fsm_id group; /* the first ancestor that would refuse; if the charge fits, the one with the smallest margin */
    int64_t usage, limit; /* of that group */
    int64_t margin;       /* the largest amount that would fit */
    bool fits;
} fsm_probed;
int fsm_probe(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount, fsm_probed *out);

/* Drains all stock below and sets the limit. -EBUSY (fault.usage): the usage is above it. */
int fsm_set_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t limit);
int fsm_set_soft_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t limit);
int fsm_reset_max_usage(fsm_region *region, fsm_id group, uint32_t resource); /* to the current usage; min_usage too */
int fsm_reset_failcnt(fsm_region *region, fsm_id group, uint32_t resource);

/* Charges that the group itself holds. -ENOMEM; -ERANGE (fault.held): it holds less. */
int fsm_common_charge(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount);
/* A refusal is recorded for the process of a thread. 0: the calling process; negative: not known. */
int fsm_common_charge_for(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount, int32_t thread);
int fsm_common_uncharge(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount);
/* Drains the stock below and drops what the group itself holds. */
int fsm_force_empty(fsm_region *region, fsm_id group, uint32_t resource);

/* ---- holders -------------------------------------------------------------- */

enum { FSM_PROCESS = 1, FSM_LEASE = 2 }; /* kind */
enum { FSM_KEEP = 1 };                   /* flag: when the holder ends, its charges go to the group */

/*
 * Makes a holder for the process (pid, start_time: field 22 of /proc/PID/stat). -ENOSPC; leases have room of their own.
 */
int fsm_holder_create(fsm_region *region, int32_t pid, uint64_t start_time, uint32_t kind, uint32_t flags, fsm_id *out);
int fsm_holder_set_flags(fsm_region *region, fsm_id holder, uint32_t flags);

/* Gives the holder a cell in each counter of the group, or in one. A cell that exists already is no error. -ENOSPC. */
int fsm_holder_join(fsm_region *region, fsm_id holder, fsm_id group);
int fsm_holder_join_one(fsm_region *region, fsm_id holder, fsm_id group, uint32_t resource);

/* Releases what the holder holds in the group, or gives it to the group with FSM_KEEP in flags. */
int fsm_holder_leave(fsm_region *region, fsm_id holder, fsm_id group, uint32_t flags);

/*
 * Ends the holder. Its charges are released, or go to the groups with FSM_KEEP. -ENODEV: it has ended already. If a
 * process ends the holder of another live process, that process gets -ENODEV from then on. Its cells are reused only
 * after its death.
 */
int fsm_holder_end(fsm_region *region, fsm_id holder);

/*
 * Ends every holder whose process is dead, by pid and start time. Leases are skipped while a live daemon serves them.
 * out: how many ended.
 */
int fsm_reap_dead(fsm_region *region, uint32_t *out);

/*
 * Processes are numbered as they become holders. Waits at most `nanoseconds` for a number above `seen`, and returns the
 * newest number. A holder with that number is in the list from then on, or the listing waits for it.
 */
uint32_t fsm_await_arrival(fsm_region *region, uint32_t seen, int64_t nanoseconds);

typedef struct fsm_holder_info {
    fsm_id id;
    uint32_t kind, flags;
    uint32_t here; /* whether the pid is one of this pid namespace */
    int32_t pid;
    uint64_t start_time;
    uint32_t cells;      /* number of counters that it may charge */
    fsm_id group;        /* the group of one of its cells; FSM_ROOT if it has none */
    int64_t held, stock; /* in the counter of the question; otherwise 0 */
} fsm_holder_info;
/* The holders of one counter of one group. Returns how many there are, and fills in up to room. */
int64_t fsm_counter_holders(fsm_region *region, fsm_id group, uint32_t resource, fsm_holder_info *out, size_t room);

/*
 * Lists the same holders in pages, so that no call holds the lock for long. *place is 0 at first. Each call fills in up
 * to FSM_PAGE holders, returns their number, and sets *place to the next page, FSM_LAST_PAGE after the last. A page may
 * be empty. A holder that exists from the first call to the last is on exactly one page.
 */
#define FSM_PAGE 256
#define FSM_LAST_PAGE UINT32_MAX
int64_t fsm_page_of_holders(fsm_region *region, fsm_id group, uint32_t resource, uint32_t *place,
                            fsm_holder_info out[FSM_PAGE]);

/*
 * The number of holders of each kind. Takes no lock: accepted inaccuracy, it may miss holders that come or go
 * meanwhile.
 */
void fsm_count_holders(fsm_region *region, uint32_t *processes, uint32_t *leases);
/* All holders of the region. */
int64_t fsm_all_holders(fsm_region *region, fsm_holder_info *out, size_t room);
/* The processes among them with a number above `seen`. */
int64_t fsm_new_holders(fsm_region *region, uint32_t seen, fsm_holder_info *out, size_t room);
int fsm_holder_get(fsm_region *region, fsm_id holder, fsm_holder_info *out); /* -ENODEV */

/* Whether a process with this pid and this start time lives. */
bool fsm_process_alive(int32_t pid, uint64_t start_time);
/* The start time of a live process; 0 if there is no such process. */
uint64_t fsm_process_start_time(int32_t pid);

/* Keeps the file behind a descriptor open until fsm_untie() or the end of this address space; see tie.c. */
int fsm_tie(int fd, void **out);
void fsm_untie(void *tie); /* not in a forked child: it has no tie */

/* ---- refusals ------------------------------------------------------------- */

#define FSM_REFUSALS 256   /* in one region */
#define FSM_COMMAND_MAX 15 /* bytes of a command, as in the kernel */
#define FSM_LARGEST 3
enum { FSM_NOT_LOOKED = 0, FSM_LOOKED_AT_SOME = 1, FSM_LOOKED_AT_ALL = 2 };

/* A holder with a large share of one counter. */
typedef struct fsm_large_holder {
    fsm_id group;
    int64_t held;
    uint64_t start_time; /* 0: the pid is of another pid namespace */
    int32_t pid;
    uint32_t kind; /* 0: the group itself */
    char command[FSM_COMMAND_MAX + 1];
} fsm_large_holder;

/*
 * A charge that a limit refused, or that charge_nofail took above it. Refusals that repeat are one record with a count.
 */
typedef struct fsm_refusal {
    uint64_t number;       /* newer ones are higher; 0: no record */
    fsm_id asked, refused; /* the group that was to be charged, and the ancestor that refused */
    uint64_t start_time;   /* of the process that charged; 0: not known, as for a charge of the group itself */
    int32_t pid;           /* 0: not known */
    uint32_t pid_namespace;
    uint32_t kind; /* 0: the group itself was to be charged */
    uint32_t charged;
    uint32_t resource;
    uint32_t looked; /* whether the search for the largest holders was complete; see refusals.c */
    int64_t count;
    int64_t first, last;          /* ns since the epoch */
    int64_t amount, usage, limit; /* of the last refusal */
    int64_t looked_at;            /* when the largest holders were found */
    char command[FSM_COMMAND_MAX + 1];
    uint32_t holders;
    fsm_large_holder holder[FSM_LARGEST]; /* below the ancestor that refused, largest first */
} fsm_refusal;

/* The refusals that were requested or made in the subtree, newest first. Returns how many, and fills in up to room. */
int64_t fsm_get_refusals(fsm_region *region, fsm_id group, uint32_t resource, fsm_refusal *out, size_t room);

/* ---- charging ------------------------------------------------------------- */

/*
 * The words of a cell; see layout.h. The fast paths change only `state`. From its highest bit: FSM_CLOSED (the fast
 * paths are off), an epoch of 23 bits, and a stock of 40 bits.
 */
#define FSM_CLOSED (UINT64_C(1) << 63)
#define FSM_EPOCH (UINT64_C(1) << 40)
#define FSM_STOCK_MAX ((int64_t)(FSM_EPOCH - 1))
typedef struct fsm_words {
    uint64_t state;
    int64_t cap;      /* the highest stock that the cell may keep; at most what it has reserved */
    int64_t total[2]; /* used + stock, in an even and in an odd epoch */
} fsm_words;

/* The last refusal that a charger has recorded, and how often it has repeated since. */
typedef struct fsm_recorded {
    int64_t at; /* CLOCK_MONOTONIC_COARSE, ns */
    const struct counter *by;
    uint32_t charged;
    int64_t repeated;
    int64_t amount, limit;
    uint64_t number;
    uint32_t slot;
} fsm_recorded;

/*
 * A charger is the handle of this process on one cell. It is bound to a holder of this process. In a forked child every
 * charger is unbound, so that the child never touches what its parent holds. An unbound charger returns -ENOTCONN.
 * Several threads may share a charger.
 */
typedef struct fsm_charger {
    fsm_words *words;
    fsm_region *region;
    fsm_id holder;
    uint32_t cell, counter;
    struct ancestry *path; /* valid as long as the holder has the cell */
    struct fsm_charger *next, *previous;
    fsm_recorded recorded;
} fsm_charger;

extern fsm_words fsm_unbound; /* the words of every unbound charger: always closed */

void fsm_charger_init(fsm_charger *charger);
int fsm_charger_bind(fsm_charger *charger, fsm_region *region, fsm_id holder, fsm_id group, uint32_t resource);
void fsm_charger_unbind(fsm_charger *charger);
static inline bool fsm_charger_bound(const fsm_charger *charger)
{
    return charger->words != &fsm_unbound;
}

int fsm_charge_slow(fsm_charger *charger, int64_t amount);
int fsm_uncharge_slow(fsm_charger *charger, int64_t amount);

/*
 * The fast paths: one compare-and-swap of the state, which is a full barrier. False: the stock, or the room for more of
 * it, is too small. close_cell() in counter.c changes the same word, so the cell is closed either before or after a
 * fast path, never within it.
 */
static inline bool fsm_state_swap(fsm_words *words, uint64_t *state, uint64_t to)
{
    return __atomic_compare_exchange_n(&words->state, state, to, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

static inline bool fsm_charge_fast(fsm_charger *charger, int64_t amount)
{
    fsm_words *words = charger->words;
    uint64_t state = __atomic_load_n(&words->state, __ATOMIC_RELAXED);
    while (amount <= (int64_t)(state & (FSM_CLOSED | FSM_STOCK_MAX))) /* a closed state is negative */
        if (fsm_state_swap(words, &state, state - (uint64_t)amount))
            return true;
    return false;
}

/* The cap may be of a later epoch than the state: then the swap fails. Pairs with open_cell(). */
static inline bool fsm_uncharge_fast(fsm_charger *charger, int64_t amount)
{
    fsm_words *words = charger->words;
    uint64_t state = __atomic_load_n(&words->state, __ATOMIC_ACQUIRE);
    while (!(state & FSM_CLOSED) &&
           amount <= __atomic_load_n(&words->cap, __ATOMIC_RELAXED) - (int64_t)(state & FSM_STOCK_MAX))
        if (fsm_state_swap(words, &state, state + (uint64_t)amount))
            return true;
    return false;
}

/*
 * Charges amount (>= 0). -ENOMEM: a limit on the path to the root refuses (fault: group, usage, limit); only its
 * failcnt has changed.
 */
static inline int fsm_charge(fsm_charger *charger, int64_t amount)
{
    return fsm_charge_fast(charger, amount) ? 0 : fsm_charge_slow(charger, amount);
}

/* Returns amount of what the holder holds here. -ERANGE (fault.held): it holds less. */
static inline int fsm_uncharge(fsm_charger *charger, int64_t amount)
{
    return fsm_uncharge_fast(charger, amount) ? 0 : fsm_uncharge_slow(charger, amount);
}

/*
 * Always charges, and raises failcnt at each ancestor that is above its limit then. *exceeded: whether there is one
 * (fault: the first). -EOVERFLOW: the usage of the root would exceed FSM_UNLIMITED.
 */
int fsm_charge_nofail(fsm_charger *charger, int64_t amount, bool *exceeded);

/*
 * Charges positive amounts and returns negative ones, amounts[i] through chargers[i], all in one step or nothing.
 * -EINVAL: the chargers are not of one holder and different resources. -ENOMEM: one amount is refused (fault: which,
 * and by which group); only the failcnt there has changed. -ERANGE (fault.which, fault.held): the holder holds less of
 * one.
 */
int fsm_change(fsm_charger *const *chargers, const int64_t *amounts, size_t n);
/* In one step, positive amounts go from the holder to the groups themselves, and negative ones back. -ERANGE. */
int fsm_move(fsm_charger *const *chargers, const int64_t *amounts, size_t n);

/* From the holder to the group itself, and back. -ERANGE (fault.held). */
int fsm_give(fsm_charger *charger, int64_t amount);
int fsm_take(fsm_charger *charger, int64_t amount);

/* The amount that the holder of the charger holds here. */
int fsm_held(fsm_charger *charger, int64_t *out);

/* ---- waiting -------------------------------------------------------------- */

/*
 * Charges amounts[i] (> 0) through chargers[i], all or nothing, as soon as all of it fits and the request has its turn.
 * Requests that compete are granted in the order of arrival. The chargers are of one holder and different counters. 0:
 * charged. -EINPROGRESS: it waits as *request until fsm_end_request(), until the holder ends, or until it leaves one of
 * the groups. -ENOSPC: no room for another waiting request. A charge that does not wait is refused by no request, and
 * may come before it.
 */
int fsm_request(fsm_charger *const *chargers, const int64_t *amounts, size_t n, fsm_id *request);

/* Waits for at most `nanoseconds`. 0: granted. -EAGAIN: not yet. -EINTR: a signal came. -ENODEV: the request has ended.
 */
int fsm_await_request(fsm_region *region, fsm_id request, int64_t nanoseconds);

/* Ends a request. 0: it was granted, and the holder holds it. -ECANCELED: it was not, and it waits no more. -ENODEV. */
int fsm_end_request(fsm_region *region, fsm_id request);

/*
 * For a process with many requests: waits at most `nanoseconds` until the number of answers to the holder's requests
 * differs from `seen`, and returns the number. fsm_wake_answers() ends such a wait without an answer.
 */
uint32_t fsm_await_answers(fsm_region *region, fsm_id holder, uint32_t seen, int64_t nanoseconds);
void fsm_wake_answers(fsm_region *region, fsm_id holder);

/* ---- check and repair ----------------------------------------------------- */

/*
 * Recomputes everything that is derived, compares, checks every list, and looks for impossible values. Writes one line
 * for each finding, and returns the number of findings or a negative errno. Changes nothing, and holds the lock only
 * while it copies the region. A damaged region is a finding, never -EUCLEAN.
 */
int64_t fsm_check(fsm_region *region, FILE *report);

/* Recomputes everything that is derived. -EUCLEAN: the truth itself is damaged, and nothing has changed. */
int fsm_repair(fsm_region *region);

#endif
