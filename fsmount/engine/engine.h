/*
 * engine.h - hierarchical resource counters in one shared-memory region.
 *
 * A region holds a tree of groups.  A group has one counter for each resource;
 * charging a counter charges every ancestor.  Whoever charges is a holder, and
 * every (holder, counter) pair has one cell: what it has used, and its stock.
 * Charging within the stock is one compare-and-swap on the cell, at any depth;
 * everything else takes the region's one lock.  layout.h tells how it is kept
 * in memory, counter.c how it is decided.
 *
 * Conventions, for every function here:
 *  - returns 0, or a negative errno; on failure nothing has changed, and
 *    fsm_last_fault() tells the calling thread more;
 *  - is safe to call from any thread and any process that mapped the region;
 *  - amounts are integers from 0 to FSM_UNLIMITED, without rounding;
 *  - -EUCLEAN: the region holds something impossible (fault.text says what);
 *    -ETIMEDOUT: the lock was not to be had within the thread's patience
 *    (fault.pid is its owner); -ENODEV: the group or holder is gone.
 *    Every function that takes the lock can return these three.  What reads
 *    names, attributes and the plain values of a counter takes it only while
 *    somebody changes groups.
 */
#ifndef FSM_ENGINE_H
#define FSM_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FSM_UNLIMITED INT64_MAX
#define FSM_NAME_MAX 255    /* bytes of a group's name */
#define FSM_DEPTH_MAX 1024u /* levels below the root */
#define FSM_GROUPS_MAX (1u << 24)
#define FSM_HOLDERS_MAX (1u << 24)
#define FSM_CELLS_MAX (1u << 28)
#define FSM_RESOURCES_MAX 32 /* resources of a tree */
#define FSM_RESOURCE_NAME_MAX 63
#define FSM_SLOTS 64         /* attribute slots of a group for each resource: the most kinds of files */
#define FSM_ROOT ((fsm_id)0) /* the root group; it is never removed */
#define FSM_BATCH_AUTO (-1)

/* A group or a holder: generation << 32 | index.  Stale ones are noticed. */
typedef uint64_t fsm_id;

/* This process's view of a region. */
typedef struct fsm_region fsm_region;

/* ---- what went wrong, for the calling thread ------------------------------ */

typedef struct fsm_fault {
    fsm_id group;   /* -ENOMEM: the ancestor that refused */
    int64_t usage;  /* -ENOMEM, -EBUSY of a limit: its precise usage */
    int64_t limit;  /* -ENOMEM: its limit */
    int64_t held;   /* -ERANGE: what the holder (or the group itself) holds */
    uint32_t which; /* -ENOMEM, -ERANGE of fsm_change() and fsm_move(): of which amount this is said */
    int32_t pid;    /* -ETIMEDOUT: who holds the lock */
    char text[200]; /* -EUCLEAN, and refused regions: what was found, where */
} fsm_fault;

/* The details of the last failure in this thread; valid until its next call. */
const fsm_fault *fsm_last_fault(void);

/*
 * How long this thread waits for the region's lock, in nanoseconds; 3 s unless
 * told.  A thread that must not wait (an event loop) sets a short one and hands
 * what gets -ETIMEDOUT to a thread with more.
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
    int64_t batch;      /* FSM_BATCH_AUTO, or a fixed one; 0: exact, no stock */
    fsm_resource resource[FSM_RESOURCES_MAX];
} fsm_geometry;

/*
 * Makes a region of mode 0600 and maps it; a path of NULL makes one that has no
 * name and goes with its last user.  It is sparse: only what is used costs
 * memory.  -EEXIST: the path is taken.  -EINVAL: a capacity of 0, too many
 * resources, names that are empty, doubled, or hold '/', '.', or white space.
 */
int fsm_create(const char *path, const fsm_geometry *geometry, uint32_t uid, uint32_t gid, fsm_region **out);

/*
 * Maps a region that exists.  -EACCES or -EPERM: another user's.  -EPROTO: not a
 * region, or one of another layout version or architecture (fault.text).
 */
int fsm_open(const char *path, fsm_region **out);

/* Unmaps.  Holders are not ended by this; cells bound to it must be unbound. */
void fsm_close(fsm_region *region);

int fsm_fd(const fsm_region *region);
const fsm_geometry *fsm_geometry_of(const fsm_region *region);
uint64_t fsm_tree_id(const fsm_region *region); /* random, of this region alone */
int64_t fsm_get_batch(const fsm_region *region);
int fsm_set_batch(fsm_region *region, int64_t batch); /* drains what was reserved under the old one */

/* ---- what can be used up --------------------------------------------------- */

/* Groups (the root is one), processes and leases that hold something, cells, watches and waiters, in this order. */
#define FSM_POOLS 6
typedef struct fsm_use {
    uint32_t room, used;
} fsm_use;
void fsm_get_use(fsm_region *region, fsm_use out[FSM_POOLS]);

/*
 * The user that each group counts against, in no order: the owner of the topmost group on its way from the root that
 * belongs to neither of the two exempt users; where there is none, its own owner.  Returns how many there are; room:
 * the geometry's.
 */
int64_t fsm_get_owners(fsm_region *region, const uint32_t exempt[2], uint32_t *owners, uint32_t room);

/* ---- who serves the region as a mount ------------------------------------- */

#define FSM_PATH_MAX 4095
typedef struct fsm_daemon {
    int32_t pid; /* 0: nobody */
    uint64_t start_time;
    char mountpoint[FSM_PATH_MAX + 1];
} fsm_daemon;
int fsm_set_daemon(fsm_region *region, const fsm_daemon *daemon);
int fsm_get_daemon(fsm_region *region, fsm_daemon *out);

/* ---- groups --------------------------------------------------------------- */

/*
 * A new group below parent, with unlimited counters, made by (uid, gid) with the
 * permission bits of mode.  now: seconds and nanoseconds since the epoch, in ns.
 * -EEXIST, -EINVAL (empty, "." or "..", '/', newline or NUL), -ENAMETOOLONG
 * (also below FSM_DEPTH_MAX levels), -ENOSPC (no room for another group, or no memory).
 */
int fsm_mkdir(fsm_region *region, fsm_id parent, const char *name, size_t length, uint32_t mode, uint32_t uid,
              uint32_t gid, int64_t now, fsm_id *out);

/*
 * Removes a group.  Its stock is drained and holders that have died are given
 * back first.  -EBUSY: it has children, usage or live holders, or is the root.
 */
int fsm_rmdir(fsm_region *region, fsm_id group, int64_t now);

/* Renames a group within its parent.  Errors as fsm_mkdir; the same name is no error. */
int fsm_rename(fsm_region *region, fsm_id group, const char *name, size_t length, int64_t now);

int fsm_lookup(fsm_region *region, fsm_id parent, const char *name, size_t length, fsm_id *out); /* -ENOENT */
int fsm_parent(fsm_region *region, fsm_id group, fsm_id *out); /* the root's parent is the root */
int fsm_name(fsm_region *region, fsm_id group, char out[FSM_NAME_MAX + 1], size_t *length);

/*
 * Fills in up to `room` children, oldest first (after a recovery: as they lie in memory); returns how many there
 * are in all, or a negative errno.
 */
typedef struct fsm_child {
    fsm_id id;
    uint32_t length;
    char name[FSM_NAME_MAX + 1];
} fsm_child;
int64_t fsm_children(fsm_region *region, fsm_id group, fsm_child *out, size_t room);
/* The same without the names. */
int64_t fsm_child_ids(fsm_region *region, fsm_id group, fsm_id *out, size_t room);

/* What a stat() of a directory needs beside its attributes. */
int fsm_child_count(fsm_region *region, fsm_id group, uint32_t *out);

/*
 * Attributes that outlive the daemon.  Slot 0 is the directory itself, slot
 * 1 + resource * FSM_SLOTS + k the k-th file of a resource.  A file's slot that
 * was never set reads as mode FSM_MODE_UNSET, the maker's owner, and the time
 * the group was made.
 */
#define FSM_MODE_UNSET 0xffffu
enum { FSM_SET_MODE = 1, FSM_SET_UID = 2, FSM_SET_GID = 4, FSM_SET_MTIME = 8, FSM_SET_ATIME = 16 };
typedef struct fsm_attr {
    uint32_t mode; /* permission bits alone */
    uint32_t uid;
    uint32_t gid;
    int64_t atime, mtime, ctime; /* ns since the epoch */
} fsm_attr;
int fsm_get_attr(fsm_region *region, fsm_id group, uint32_t slot, fsm_attr *out);
int fsm_set_attr(fsm_region *region, fsm_id group, uint32_t slot, uint32_t mask, const fsm_attr *attr, int64_t now);

/* ---- counters ------------------------------------------------------------- */

/* The keys of R.stat, in the order of the contract.  All of one moment. */
typedef struct fsm_stat {
    int64_t usage, usage_local, common, reserved, stock, holders, limit, soft_limit, hierarchical_limit, margin,
        hierarchical_margin, soft_limit_excess, max_usage, min_usage, failcnt, global, batch, error_bound, refills,
        drains;
} fsm_stat;
int fsm_get_stat(fsm_region *region, fsm_id group, uint32_t resource, fsm_stat *out);

/* The precise sum over the subtree: every charge that ended before is in it, none that begins after. */
int fsm_usage(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);

/* The plain values, without a sum; max_usage brings itself up to date first. */
int fsm_get_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);
int fsm_get_soft_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);
int fsm_get_max_usage(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);
int fsm_get_failcnt(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out);

/*
 * The same counter of every group in one pass, all of one moment: parents come before their children, the root first.
 * Each group and, unless none is open, each cell that was ever used is looked at once: so long the lock is held.  Fills
 * in a row for each group (at most the geometry's) and returns how many there are, or a negative errno (-ENOMEM).
 */
typedef struct fsm_counter_snapshot {
    fsm_id id;
    uint32_t parent; /* its parent's row; of the root UINT32_MAX */
    fsm_stat stat;
} fsm_counter_snapshot;
int64_t fsm_snapshot(fsm_region *region, uint32_t resource, fsm_counter_snapshot *rows);

/*
 * What was counted in the subtree since the region was made; no sum ever falls.  limit: charges that a limit refused,
 * or that charge_nofail took past it, at each counter where that was so.  soft_limit: how often the usage of a counter
 * came above its soft limit, or back.  threshold: how often one passed a mark of a watch, in the direction that was
 * asked for.
 */
typedef struct fsm_events {
    int64_t limit, soft_limit, threshold;
} fsm_events;
int fsm_get_events(fsm_region *region, fsm_id group, uint32_t resource, fsm_events *out);

/*
 * One process may listen: it calls fsm_listen(), reads, and waits.  From the call on, whatever is counted changes the
 * news of its counter and of all above, and then ends the wait.  News that did not change mean events that did not
 * either; the first that is counted after a call ends one wait, so call it before each, and with false at the end.
 */
void fsm_listen(fsm_region *region, bool on);
int fsm_get_event_seq(fsm_region *region, fsm_id group, uint32_t resource, uint32_t *out);
bool fsm_await_event(fsm_region *region, int64_t nanoseconds); /* false: there was none for so long */

/*
 * Watches of one counter.  A watch counts how often the usage comes above its amount, or with FSM_BELOW below it; with
 * FSM_PERCENT the amount is a part of the limit of now, in 1/100; setting the limit may move the mark past the usage.
 * A watch begins on the side where the usage is.
 *
 * fsm_watch() makes so many new ones, and ends the old ones that are still there: all of it or, with an error, nothing.
 * -EINVAL: a part above 100.  -ENOSPC.  Watches end with their group, and when another process becomes the server.
 */
enum { FSM_BELOW = 1, FSM_PERCENT = 2 };
typedef struct fsm_mark {
    int64_t amount;
    uint32_t flags;
} fsm_mark;
int fsm_watch(fsm_region *region, fsm_id group, uint32_t resource, const fsm_mark *marks, size_t count,
              const fsm_id *old, size_t old_count, fsm_id *out);
int fsm_unwatch(fsm_region *region, const fsm_id *old, size_t count);
int fsm_watch_crossings(fsm_region *region, fsm_id watch, int64_t *out); /* how often; -ENODEV */

/*
 * What a charge of so much would meet now, without charging, and without taking anybody's stock.  It is one that does
 * not wait: who stands in line takes no room from it, as it may come before him.
 */
typedef struct fsm_probed {
    fsm_id group;         /* the first ancestor that would refuse it, or, if it fits, the one with the least room */
    int64_t usage, limit; /* of that group */
    int64_t margin;       /* the most that would fit */
    bool fits;
} fsm_probed;
int fsm_probe(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount, fsm_probed *out);

/* Drains all stock below, then sets the limit; -EBUSY (fault.usage) if the usage is above it. */
int fsm_set_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t limit);
int fsm_set_soft_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t limit);
int fsm_reset_max_usage(fsm_region *region, fsm_id group, uint32_t resource); /* to the usage of now; min_usage too */
int fsm_reset_failcnt(fsm_region *region, fsm_id group, uint32_t resource);

/* What the group itself holds.  -ENOMEM; -ERANGE (fault.held) if it holds less. */
int fsm_common_charge(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount);
/* The same in the name of another: of a thread's process, as who is refused; or, below 0, of nobody that is known. */
int fsm_common_charge_for(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount, int32_t thread);
int fsm_common_uncharge(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount);
/* Drains the stock below and forgets what the group itself holds. */
int fsm_force_empty(fsm_region *region, fsm_id group, uint32_t resource);

/* ---- holders -------------------------------------------------------------- */

enum { FSM_PROCESS = 1, FSM_LEASE = 2 }; /* kind */
enum { FSM_KEEP = 1 };                   /* flag: at its end, what it holds goes to the group */

/*
 * A new holder that stands for process (pid, start_time: field 22 of
 * /proc/PID/stat).  -ENOSPC: no room (leases have room of their own).
 */
int fsm_holder_create(fsm_region *region, int32_t pid, uint64_t start_time, uint32_t kind, uint32_t flags, fsm_id *out);
int fsm_holder_set_flags(fsm_region *region, fsm_id holder, uint32_t flags);

/* Gives the holder a cell in each counter of the group (or in one: joined already is no error).  -ENOSPC. */
int fsm_holder_join(fsm_region *region, fsm_id holder, fsm_id group);
int fsm_holder_join_one(fsm_region *region, fsm_id holder, fsm_id group, uint32_t resource);

/* Ends what the holder has in the group: given back, or kept by the group with FSM_KEEP in flags. */
int fsm_holder_leave(fsm_region *region, fsm_id holder, fsm_id group, uint32_t flags);

/*
 * Ends the holder: everything it holds is given back, or kept by the groups with FSM_KEEP.  Twice is -ENODEV.
 * A process that lives and is ended so by another one gets -ENODEV from then on: its cells are nobody's until it is
 * dead.
 */
int fsm_holder_end(fsm_region *region, fsm_id holder);

/*
 * Ends every holder whose process is dead by pid and start time.  A lease is
 * looked at only while no live server serves it.  out: how many ended.
 */
int fsm_reap_dead(fsm_region *region, uint32_t *out);

/*
 * Processes that become holders are numbered.  Waits until one has a number beyond `seen`, for so many nanoseconds at
 * most; returns the newest number there is.  A holder is listed once its number is there, or whoever lists waits for
 * it.
 */
uint32_t fsm_await_arrival(fsm_region *region, uint32_t seen, int64_t nanoseconds);

typedef struct fsm_holder_info {
    fsm_id id;
    uint32_t kind, flags;
    uint32_t here; /* whether its pid means something in this pid namespace */
    int32_t pid;
    uint64_t start_time;
    uint32_t cells;      /* how many counters it may charge */
    fsm_id group;        /* the group of one of these; without any, FSM_ROOT */
    int64_t held, stock; /* of the one counter that was asked about, else 0 */
} fsm_holder_info;
/* The holders of one counter of one group; returns how many there are, and fills up to room. */
int64_t fsm_counter_holders(fsm_region *region, fsm_id group, uint32_t resource, fsm_holder_info *out, size_t room);

/*
 * The same a page at a time, so that no call holds the lock for long, however many there are.  *place is 0 at first;
 * each call fills in up to FSM_PAGE, returns how many, and sets *place to where the next page begins, FSM_LAST_PAGE
 * after the last one.  A page can be empty.  A holder that is there from the first call to the last is in one page.
 */
#define FSM_PAGE 256
#define FSM_LAST_PAGE UINT32_MAX
int64_t fsm_page_of_holders(fsm_region *region, fsm_id group, uint32_t resource, uint32_t *place,
                            fsm_holder_info out[FSM_PAGE]);

/* How many holders of each kind there are; without the lock, so those that come and go meanwhile may be missed. */
void fsm_count_holders(fsm_region *region, uint32_t *processes, uint32_t *leases);
/* All holders of the region, likewise. */
int64_t fsm_all_holders(fsm_region *region, fsm_holder_info *out, size_t room);
/* The processes among them whose number is beyond `seen`. */
int64_t fsm_new_holders(fsm_region *region, uint32_t seen, fsm_holder_info *out, size_t room);
int fsm_holder_get(fsm_region *region, fsm_id holder, fsm_holder_info *out); /* -ENODEV */

/* true if the process lives: its pid is there and its start time is the same. */
bool fsm_process_alive(int32_t pid, uint64_t start_time);
/* The start time of a live process, 0 if there is none. */
uint64_t fsm_process_start_time(int32_t pid);

/* Keeps the open file of a descriptor open until it is untied or this address space ends, whoever else has it; tie.c.
 */
int fsm_tie(int fd, void **out);
void fsm_untie(void *tie); /* not in a forked child: it has no tie */

/* ---- refusals ------------------------------------------------------------- */

#define FSM_REFUSALS 256   /* of the whole region */
#define FSM_COMMAND_MAX 15 /* bytes of a command, as the kernel keeps it */
#define FSM_LARGEST 3
enum { FSM_NOT_LOOKED = 0, FSM_LOOKED_AT_SOME = 1, FSM_LOOKED_AT_ALL = 2 };

/* What somebody held in one counter. */
typedef struct fsm_large_holder {
    fsm_id group; /* where */
    int64_t held;
    uint64_t start_time; /* 0: its pid is of another pid namespace */
    int32_t pid;
    uint32_t kind; /* 0: the group itself */
    char command[FSM_COMMAND_MAX + 1];
} fsm_large_holder;

/* A charge that a limit refused, or that charge_nofail took past it; those that repeat are one, with a count. */
typedef struct fsm_refusal {
    uint64_t number;       /* a newer one's is higher; 0: there is none */
    fsm_id asked, refused; /* where it was asked for, and which ancestor refused */
    uint64_t start_time;   /* of the process that asked; 0: not known, as of who charges the group itself */
    int32_t pid;           /* 0: not known */
    uint32_t pid_namespace;
    uint32_t kind; /* 0: the group itself was to be charged */
    uint32_t charged;
    uint32_t resource;
    uint32_t looked; /* whether all holders were looked at for the largest; see refusals.c */
    int64_t count;
    int64_t first, last;          /* ns since the epoch */
    int64_t amount, usage, limit; /* the last time */
    int64_t looked_at;            /* when the largest holders were found */
    char command[FSM_COMMAND_MAX + 1];
    uint32_t holders;
    fsm_large_holder holder[FSM_LARGEST]; /* below the one that refused, the largest first */
} fsm_refusal;

/* Those that were asked for, or refused, in the subtree, the newest first; returns how many, and fills up to room. */
int64_t fsm_get_refusals(fsm_region *region, fsm_id group, uint32_t resource, fsm_refusal *out, size_t room);

/* ---- charging ------------------------------------------------------------- */

/*
 * The words of a cell; layout.h tells what they mean.  `state` alone is what the fast paths change: from its highest
 * bit on FSM_CLOSED (no fast path here), an epoch of 23 bits, and a stock of 40.
 */
#define FSM_CLOSED (UINT64_C(1) << 63)
#define FSM_EPOCH (UINT64_C(1) << 40)
#define FSM_STOCK_MAX ((int64_t)(FSM_EPOCH - 1))
typedef struct fsm_words {
    uint64_t state;
    int64_t cap;      /* the most stock the cell may keep; never more than all that it has reserved */
    int64_t total[2]; /* used and stock together, in an even epoch and in an odd one */
} fsm_words;

/* What a charger knows of its last refusal that was recorded, and how many there were since. */
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
 * A charger is this process's hold on one cell.  It is bound to a holder of this
 * very process; in a forked child every charger is unbound again, so that a child
 * never touches what its parent holds.  An unbound charger answers -ENOTCONN.
 * Several threads may charge through one charger.
 */
typedef struct fsm_charger {
    fsm_words *words;
    fsm_region *region;
    fsm_id holder;
    uint32_t cell, counter;
    struct ancestry *path; /* the counter and its ancestors: they stay while the holder has its cell */
    struct fsm_charger *next, *previous;
    fsm_recorded recorded;
} fsm_charger;

extern fsm_words fsm_unbound; /* what an unbound charger's words point at: always closed */

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
 * The fast paths: one compare-and-swap of the state, a full barrier; false if the stock, or the room for more of it, is
 * not enough.  Closing a cell (close_cell() in counter.c) changes the same word, so it is seen before or after, never
 * between.
 */
static inline bool fsm_state_swap(fsm_words *words, uint64_t *state, uint64_t to)
{
    return __atomic_compare_exchange_n(&words->state, state, to, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

static inline bool fsm_charge_fast(fsm_charger *charger, int64_t amount)
{
    fsm_words *words = charger->words;
    uint64_t state = __atomic_load_n(&words->state, __ATOMIC_RELAXED);
    while (amount <= (int64_t)(state & (FSM_CLOSED | FSM_STOCK_MAX))) /* a closed one's is negative */
        if (fsm_state_swap(words, &state, state - (uint64_t)amount))
            return true;
    return false;
}

/* Cap may be of another epoch than the state that was read before it: then the swap fails.  Pairs with open_cell(). */
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
 * Charges amount (>= 0).  -ENOMEM: some limit on the way up would be passed
 * (fault: which group, its usage and limit); nothing has changed but its failcnt.
 */
static inline int fsm_charge(fsm_charger *charger, int64_t amount)
{
    return fsm_charge_fast(charger, amount) ? 0 : fsm_charge_slow(charger, amount);
}

/* Gives back amount of what this holder holds here.  -ERANGE (fault.held) if it holds less. */
static inline int fsm_uncharge(fsm_charger *charger, int64_t amount)
{
    return fsm_uncharge_fast(charger, amount) ? 0 : fsm_uncharge_slow(charger, amount);
}

/*
 * Always charges, raising failcnt at each ancestor that is then over its limit.
 * *exceeded: whether there is one (fault tells the first).  -EOVERFLOW: the root's usage
 * would pass FSM_UNLIMITED.
 */
int fsm_charge_nofail(fsm_charger *charger, int64_t amount, bool *exceeded);

/*
 * Charges the positive amounts and gives back the negative ones, each through the charger of its place: all of them in
 * one step, or none.  The chargers are of one holder and of different resources, else -EINVAL.  -ENOMEM: one does not
 * fit (fault: which, and who refused it); its failcnt alone has changed.  -ERANGE (fault.which, fault.held): the holder
 * holds less of one.
 */
int fsm_change(fsm_charger *const *chargers, const int64_t *amounts, size_t n);
/* Likewise, the positive amounts become the groups' own, and the negative ones the holder's.  -ERANGE. */
int fsm_move(fsm_charger *const *chargers, const int64_t *amounts, size_t n);

/* What this holder holds becomes the group's own, and back; -ERANGE (fault.held) if there is less. */
int fsm_give(fsm_charger *charger, int64_t amount);
int fsm_take(fsm_charger *charger, int64_t amount);

/* What this holder holds here. */
int fsm_held(fsm_charger *charger, int64_t *out);

/* ---- waiting -------------------------------------------------------------- */

/*
 * Charges amounts[i] (> 0) through chargers[i], all or nothing, as soon as there is room for all of it and it is its
 * turn: requests are granted in the order in which they came, as far as they are in each other's way.  The chargers are
 * of one holder and of different counters.  0: it is charged.  -EINPROGRESS: it waits as *request, until
 * fsm_end_request() or the holder's end, or until the holder leaves one of the groups.  -ENOSPC: no room for another
 * one who waits.  A charge that does not wait is refused by no request, and may come before it.
 */
int fsm_request(fsm_charger *const *chargers, const int64_t *amounts, size_t n, fsm_id *request);

/* Waits for so long.  0: it was granted, -EAGAIN: not yet, -EINTR: a signal came, -ENODEV: it has ended. */
int fsm_await_request(fsm_region *region, fsm_id request, int64_t nanoseconds);

/* Ends it.  0: it was granted, and the holder holds it; -ECANCELED: it was not, and waits no more; -ENODEV. */
int fsm_end_request(fsm_region *region, fsm_id request);

/*
 * For one who waits for many: the number of answers to a holder's requests, another one than `seen` as soon as there
 * is one; after so many ns it may be the same.  fsm_wake_answers() ends such a wait, without an answer.
 */
uint32_t fsm_await_answers(fsm_region *region, fsm_id holder, uint32_t seen, int64_t nanoseconds);
void fsm_wake_answers(fsm_region *region, fsm_id holder);

/* ---- looking after it ----------------------------------------------------- */

/*
 * Recomputes everything that is derived from the cells, compares, and checks every list; looks for what cannot be in
 * the cells and groups themselves.  Writes a line for each finding, however many, and returns how many there are, or a
 * negative errno.  Changes nothing, and has the lock only while it copies the region; a damaged one is a finding, never
 * -EUCLEAN.
 */
int64_t fsm_check(fsm_region *region, FILE *report);

/*
 * Recomputes everything that is derived.  -EUCLEAN: it cannot be, because what it is derived from is damaged; then
 * nothing has changed.
 */
int fsm_repair(fsm_region *region);

#endif
