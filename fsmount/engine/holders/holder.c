/* holder.c - who holds charges: joining groups, giving back, and the dead. */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- records -------------------------------------------------------------------- */

/* Which pool a holder is of. */
static inline enum pools pool_of(const fsm_region *r, uint32_t index)
{
    return index < r->geometry.holders ? PROCESSES : LEASES;
}

static inline holder *first_holder(const fsm_region *r, enum pools which)
{
    return r->pools[which].first;
}

/* The one after the last that was ever used. */
static inline holder *past_holders(const fsm_region *r, enum pools which)
{
    const records *of = &r->pools[which];
    return record_at(of, ever_used(of));
}

int find_holder(fsm_region *r, fsm_id id, holder **out)
{
    holder *h = holder_at(r, id_index(id));
    if (!h)
        return gone(r);
    if (h >= past_holders(r, pool_of(r, id_index(id))) || h->stamp != make_stamp((uint32_t)(id >> 32), LIVE))
        return gone(r);
    *out = h;
    return 0;
}

/*
 * Wakes who waits for new holders.  Before the holder is one, and under the lock: however soon this process dies, who
 * was woken finds the holder or there is none.
 */
static void announce(fsm_region *r, holder *h)
{
    h->arrival = __atomic_add_fetch(&r->header->arrivals, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &r->header->arrivals, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint32_t fsm_await_arrival(fsm_region *r, uint32_t seen, int64_t nanoseconds)
{
    struct timespec patience = { .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000 };
    syscall(SYS_futex, &r->header->arrivals, FUTEX_WAIT, seen, &patience, NULL, 0);
    return __atomic_load_n(&r->header->arrivals, __ATOMIC_ACQUIRE);
}

int fsm_holder_create(fsm_region *r, int32_t pid, uint64_t start_time, uint32_t kind, uint32_t flags, fsm_id *out)
{
    int error = lock(r);
    if (error)
        return error;
    enum pools which = kind == FSM_LEASE ? LEASES : PROCESSES;
    uint32_t index, ended;
    error = take_record(r, which, &index);
    if (error == -ENOSPC && reap(r, NONE, &ended) == 0 && ended > 0)
        error = take_record(r, which, &index);
    if (!error) {
        holder *h = first_holder(r, which) + index;
        h->kind = kind;
        h->flags = flags;
        h->pid = pid;
        h->start_time = start_time;
        h->pid_namespace = pid_namespace();
        h->cells = 0;
        h->cells_head = NONE;
        FAULT_POINT(described);
        if (which == PROCESSES)
            announce(r, h);
        __atomic_store_n(&h->stamp, make_stamp(generation(h->stamp) + 1, LIVE), __ATOMIC_RELEASE);
        FAULT_POINT(made);
        *out = make_id(h->stamp, holder_index(r, h));
    }
    unlock(r);
    return error;
}

int fsm_holder_set_flags(fsm_region *r, fsm_id id, uint32_t flags)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        h->flags = flags;
    FAULT_POINT(flags_set);
    unlock(r);
    return error;
}

/* ---- cells ----------------------------------------------------------------------- */

void link_cell(fsm_region *r, cell *own, counter *c, holder *h)
{
    uint32_t index = cell_index(r, own);
    cell *next = cell_at(r, c->cells_head);
    own->counter_prev = NONE;
    own->counter_next = c->cells_head;
    if (next)
        next->counter_prev = index;
    c->cells_head = index;
    c->cells++;
    FAULT_POINT(among_counters_cells);
    next = cell_at(r, h->cells_head);
    own->holder_prev = NONE;
    own->holder_next = h->cells_head;
    if (next)
        next->holder_prev = index;
    h->cells_head = index;
    h->cells++;
    FAULT_POINT(among_holders_cells);
    own->open_next = own->open_prev = NONE;
}

static void unlink_cell(fsm_region *r, cell *own, counter *c, holder *h)
{
    cell *next = cell_at(r, own->counter_next);
    cell *previous = cell_at(r, own->counter_prev);
    if (next)
        next->counter_prev = own->counter_prev;
    if (previous)
        previous->counter_next = own->counter_next;
    else
        c->cells_head = own->counter_next;
    c->cells--;
    FAULT_POINT(out_of_counters_cells);
    next = cell_at(r, own->holder_next);
    previous = cell_at(r, own->holder_prev);
    if (next)
        next->holder_prev = own->holder_prev;
    if (previous)
        previous->holder_next = own->holder_next;
    else
        h->cells_head = own->holder_next;
    h->cells--;
    FAULT_POINT(out_of_holders_cells);
}

cell *find_cell(fsm_region *r, const holder *h, uint32_t counter_number)
{
    counter *c = counter_at(r, counter_number);
    uint32_t owner = holder_index(r, h) + 1;
    bool by_counter = c && c->cells < h->cells;
    uint32_t left = r->geometry.cells;
    for (uint32_t i = by_counter ? c->cells_head : h->cells_head; i != NONE;) {
        cell *own = cell_at(r, i);
        if (!own || left-- == 0)
            return NULL;
        if (own->owner == owner && own->counter == counter_number)
            return own;
        i = by_counter ? own->counter_next : own->holder_next;
    }
    return NULL;
}

static int make_cell(fsm_region *r, holder *h, uint32_t counter_number, cell **out)
{
    uint32_t index;
    int error = take_record(r, CELLS, &index);
    if (error)
        return error;
    cell *own = &r->cells[index];
    own->words = (fsm_words){ .state = FSM_CLOSED };
    own->counter = counter_number;
    FAULT_POINT(described);
    __atomic_store_n(&own->owner, holder_index(r, h) + 1, __ATOMIC_RELEASE);
    FAULT_POINT(made);
    link_cell(r, own, &r->counters[counter_number], h);
    *out = own;
    return 0;
}

/*
 * Ends a cell; what it held is free.  Giving up the owner is the one store that
 * counts: before it the cell holds, after it nobody does.
 */
static int free_cell(fsm_region *r, cell *own, holder *h, bool quarantine)
{
    ancestry p;
    int error = path_of(r, own->counter, &p);
    if (error)
        return error;
    note_peak(&p, own);
    int64_t used = close_cell(r, &p, own);
    if (quarantine) {
        own->words.total[!side_of(state_now(own))] = (int64_t)((uint64_t)h->pid_namespace << 32 | (uint32_t)h->pid);
        __atomic_store_n(&own->words.cap, (int64_t)h->start_time, __ATOMIC_RELAXED);
        FAULT_POINT(quarantine_described);
    }
    __atomic_store_n(&own->owner, quarantine ? QUARANTINED : 0, __ATOMIC_RELEASE);
    FAULT_POINT(given_up);
    set_used(own, 0);
    FAULT_POINT(emptied);
    reserve(&p, -used);
    leave_global(r, &p, used);
    unlink_cell(r, own, p.at[0], h);
    if (quarantine)
        r->header->quarantined++;
    else
        free_record(r, CELLS, cell_index(r, own));
    cross_marks(r, &p);
    tell_listener(r, &p, 0); /* whose holder died may have counted a refusal, without the lock, and not told of it */
    serve_waiting(r, &p);
    return 0;
}

static void end_quarantine(fsm_region *r)
{
    uint64_t last = 0; /* the cells of one process mostly lie together */
    int64_t last_start = 0;
    bool last_alive = true;
    uint32_t left = r->header->quarantined;
    for (uint32_t i = 0; i < high_of(&r->header->cells, r->geometry.cells) && left > 0; i++) {
        cell *own = &r->cells[i];
        if (own->owner != QUARANTINED)
            continue;
        left--;
        uint64_t who = (uint64_t)own->words.total[!side_of(state_now(own))];
        if (who >> 32 != pid_namespace())
            continue;
        if (who != last || own->words.cap != last_start)
            last_alive = fsm_process_alive((int32_t)(uint32_t)who, (uint64_t)own->words.cap);
        last = who;
        last_start = own->words.cap;
        if (last_alive)
            continue;
        __atomic_store_n(&own->owner, 0, __ATOMIC_RELEASE);
        FAULT_POINT(freed);
        r->header->quarantined--;
        FAULT_POINT(counted);
        free_record(r, CELLS, i);
    }
}

int move_held(fsm_region *r, const ancestry *p, cell *own, int64_t amount)
{
    int64_t used = close_cell(r, p, own);
    counter *c = p->at[0];
    int64_t there = amount >= 0 ? used : c->common;
    if (there < (amount >= 0 ? amount : -amount)) {
        fsm_fault_here.held = there;
        return -ERANGE;
    }
    journal *j = &r->header->journal;
    j->index = cell_index(r, own);
    j->counter = counter_index(r, c);
    j->used = used - amount;
    j->common = c->common + amount;
    FAULT_POINT(journal_written);
    journal_commit(j, JOURNAL_MOVE);
    FAULT_POINT(journal_committed);
    set_used(own, j->used);
    FAULT_POINT(used_set);
    c->common = j->common;
    FAULT_POINT(common_set);
    journal_commit(j, JOURNAL_EMPTY);
    FAULT_POINT(journal_emptied);
    return 0;
}

/* Ends the cell as the flags say: kept by the group, or given back. */
static int leave_cell(fsm_region *r, cell *own, holder *h, uint32_t flags, bool quarantine)
{
    ancestry p;
    if (flags & FSM_KEEP) {
        int error = path_of(r, own->counter, &p);
        if (!error)
            error = move_held(r, &p, own, close_cell(r, &p, own));
        if (error)
            return error;
    }
    return free_cell(r, own, h, quarantine);
}

/* ---- joining and leaving ------------------------------------------------------------ */

static int join(fsm_region *r, holder *h, fsm_id group_id, uint32_t first, uint32_t end)
{
    group *g;
    int error = find_group(r, group_id, &g);
    uint32_t resources = r->geometry.resources;
    uint64_t made = 0;
    for (uint32_t i = first; i < end && !error; i++) {
        cell *own;
        uint32_t ended;
        if (find_cell(r, h, id_index(group_id) * resources + i))
            continue;
        error = make_cell(r, h, id_index(group_id) * resources + i, &own);
        if (error == -ENOSPC && reap(r, holder_index(r, h), &ended) == 0 && ended > 0)
            error = make_cell(r, h, id_index(group_id) * resources + i, &own);
        if (!error)
            made |= (uint64_t)1 << i;
    }
    for (uint32_t i = first; i < end && error; i++)
        if (made >> i & 1) {
            cell *own = find_cell(r, h, id_index(group_id) * resources + i);
            if (own)
                free_cell(r, own, h, false);
        }
    return error;
}

int fsm_holder_join(fsm_region *r, fsm_id id, fsm_id group_id)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        error = join(r, h, group_id, 0, r->geometry.resources);
    unlock(r);
    return error;
}

int fsm_holder_join_one(fsm_region *r, fsm_id id, fsm_id group_id, uint32_t resource)
{
    if (resource >= r->geometry.resources)
        return -EINVAL;
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        error = join(r, h, group_id, resource, resource + 1);
    unlock(r);
    return error;
}

int fsm_holder_leave(fsm_region *r, fsm_id id, fsm_id group_id, uint32_t flags)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    group *g;
    error = find_holder(r, id, &h);
    if (!error)
        error = find_group(r, group_id, &g);
    for (uint32_t i = 0; i < r->geometry.resources && !error; i++) {
        cell *own = find_cell(r, h, id_index(group_id) * r->geometry.resources + i);
        if (!own)
            continue;
        error = end_requests(r, holder_index(r, h), own);
        if (!error)
            error = leave_cell(r, own, h, flags, false);
    }
    unlock(r);
    return error;
}

static bool own_process(const holder *h)
{
    return h->pid == own_pid() && h->pid_namespace == pid_namespace();
}

bool server_alive(const header *h)
{
    if (h->server.pid == 0)
        return false;
    return h->server_namespace != pid_namespace() || fsm_process_alive(h->server.pid, h->server.start_time);
}

static bool holder_alive(const holder *h)
{
    return h->pid_namespace != pid_namespace() || fsm_process_alive(h->pid, h->start_time);
}

int end_holder(fsm_region *r, holder *h, bool by_itself)
{
    bool quarantine = h->kind == FSM_PROCESS && !by_itself && holder_alive(h);
    /* from here on it is being given back, and whoever finds it goes on with that */
    __atomic_store_n(&h->stamp, make_stamp(generation(h->stamp), ENDING), __ATOMIC_RELEASE);
    FAULT_POINT(ending);
    int error = end_requests(r, holder_index(r, h), NULL);
    if (error)
        return error;
    uint32_t left = r->geometry.cells;
    while (h->cells_head != NONE) {
        cell *own = cell_at(r, h->cells_head);
        if (!own || own->owner != holder_index(r, h) + 1 || left-- == 0)
            return corrupt(r, "the cells of holder %u are damaged", holder_index(r, h));
        error = leave_cell(r, own, h, h->flags, quarantine);
        if (error)
            return error;
    }
    __atomic_store_n(&h->stamp, make_stamp(generation(h->stamp), FREE), __ATOMIC_RELEASE);
    FAULT_POINT(ended);
    enum pools which = pool_of(r, holder_index(r, h));
    free_record(r, which, (uint32_t)(h - first_holder(r, which)));
    return 0;
}

int fsm_holder_end(fsm_region *r, fsm_id id)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        error = end_holder(r, h, own_process(h));
    unlock(r);
    return error;
}

/* ---- the dead ------------------------------------------------------------------------ */

int reap(fsm_region *r, uint32_t self, uint32_t *ended)
{
    *ended = 0;
    end_quarantine(r);
    for (enum pools which = PROCESSES; which <= LEASES; which++) {
        if (which == LEASES && server_alive(r->header)) /* it sees their last close itself */
            break;
        for (holder *h = first_holder(r, which), *past = past_holders(r, which); h < past; h++) {
            if (state_of(h->stamp) != LIVE || holder_index(r, h) == self || holder_alive(h))
                continue;
            int error = end_holder(r, h, false);
            if (error)
                return error;
            ++*ended;
        }
    }
    return 0;
}

int reap_counter(fsm_region *r, const counter *c)
{
    uint32_t left = r->geometry.cells;
    while (c->cells_head != NONE) {
        cell *own = cell_at(r, c->cells_head);
        holder *h = own ? holder_at(r, own->owner - 1) : NULL;
        if (!h || left-- == 0)
            return corrupt(r, "the cell list of counter %u is damaged", counter_index(r, c));
        if ((pool_of(r, holder_index(r, h)) == LEASES && server_alive(r->header)) || holder_alive(h))
            return -EBUSY;
        int error = end_holder(r, h, false);
        if (error)
            return error;
    }
    return 0;
}

#define REAP_EVERY 50000000            /* ns */
#define REAP_SOON INT64_C(60000000000) /* later is nonsense */
#define REAP_SHARE 20                  /* at most one part in so many of the time goes into it */

UNLOCKED bool reap_is_due(const fsm_region *r, int64_t now)
{
    int64_t wait = peek(r->header->reap_at) - now;
    return wait <= 0 || wait >= REAP_SOON;
}

bool reap_before_refusal(fsm_region *r, uint32_t self)
{
    if (!reap_is_due(r, coarse_ns()))
        return false;
    int64_t now = monotonic_ns();
    uint32_t ended = 0;
    if (!server_alive(r->header))
        reap(r, self, &ended);
    int64_t cost = monotonic_ns() - now;
    __atomic_store_n(&r->header->reap_at, now + (cost * REAP_SHARE > REAP_EVERY ? cost * REAP_SHARE : REAP_EVERY),
                     __ATOMIC_RELAXED);
    FAULT_POINT(turn_taken);
    return ended > 0;
}

int fsm_reap_dead(fsm_region *r, uint32_t *out)
{
    int error = lock(r);
    if (error)
        return error;
    error = reap(r, NONE, out);
    unlock(r);
    return error;
}

/* ---- listing -------------------------------------------------------------------------- */

static void describe(const fsm_region *r, const holder *h, const cell *own, fsm_holder_info *out)
{
    const cell *first = cell_at(r, h->cells_head);
    uint32_t place = first ? once(first->counter) / r->geometry.resources : 0;
    const group *g = group_at(r, place);
    *out = (fsm_holder_info){ .id = make_id(h->stamp, holder_index(r, h)),
                              .group = g && place > 0 ? group_id(g->stamp, place) : FSM_ROOT,
                              .kind = h->kind,
                              .flags = h->flags,
                              .here = h->pid_namespace == pid_namespace(),
                              .pid = h->pid,
                              .start_time = h->start_time,
                              .cells = h->cells };
    if (own) {
        uint64_t state = state_now(own);
        out->stock = is_open(state) ? stock_in(state) : 0;
        out->held = used_of(own, state);
    }
}

int64_t fsm_counter_holders(fsm_region *r, fsm_id id, uint32_t resource, fsm_holder_info *out, size_t room)
{
    int error = lock(r);
    if (error)
        return error;
    group *g;
    size_t n = 0;
    error = find_group(r, id, &g);
    if (!error && resource >= r->geometry.resources)
        error = -EINVAL;
    uint32_t number = id_index(id) * r->geometry.resources + resource;
    for (uint32_t i = error ? NONE : r->counters[number].cells_head; i != NONE; n++) {
        cell *own = cell_at(r, i);
        holder *h = own ? holder_at(r, own->owner - 1) : NULL;
        if (!h || own->counter != number || n > r->geometry.cells) {
            error = corrupt(r, "the cell list of counter %u is damaged", number);
            break;
        }
        if (n < room)
            describe(r, h, own, &out[n]);
        i = own->counter_next;
    }
    unlock(r);
    return error ? error : (int64_t)n;
}

#define PAGE_STEPS 4096u /* cells: some 50 us */

/* The cells of a counter that are few, along its list. */
static int64_t list_cells(fsm_region *r, uint32_t number, fsm_holder_info *out)
{
    size_t n = 0;
    for (uint32_t i = r->counters[number].cells_head; i != NONE;) {
        cell *own = cell_at(r, i);
        holder *h = own ? holder_at(r, own->owner - 1) : NULL;
        if (!h || own->counter != number || n == FSM_PAGE)
            return corrupt(r, "the cell list of counter %u is damaged", number);
        describe(r, h, own, &out[n++]);
        i = own->counter_next;
    }
    return (int64_t)n;
}

/* Those of a counter that has many, as they lie in memory: a cell keeps its place. */
static int64_t scan_cells(fsm_region *r, uint32_t number, uint32_t *place, fsm_holder_info *out)
{
    uint32_t i = *place, high = high_of(&r->header->cells, r->geometry.cells);
    uint32_t end = high - (i < high ? i : high) > PAGE_STEPS ? i + PAGE_STEPS : high;
    size_t n = 0;
    for (; i < end && n < FSM_PAGE; i++) {
        cell *own = &r->cells[i];
        if (own->counter != number || own->owner == 0 || own->owner == QUARANTINED)
            continue;
        holder *h = holder_at(r, own->owner - 1);
        if (!h)
            return corrupt(r, "cell %u belongs to holder %u", i, own->owner - 1);
        describe(r, h, own, &out[n++]);
    }
    *place = i < high ? i : FSM_LAST_PAGE;
    return (int64_t)n;
}

int64_t fsm_page_of_holders(fsm_region *r, fsm_id id, uint32_t resource, uint32_t *place, fsm_holder_info out[FSM_PAGE])
{
    if (resource >= r->geometry.resources)
        return -EINVAL;
    int error = lock(r);
    if (error)
        return error;
    group *g;
    int64_t n = find_group(r, id, &g);
    uint32_t number = id_index(id) * r->geometry.resources + resource;
    if (n == 0 && *place == 0 && r->counters[number].cells <= FSM_PAGE) {
        n = list_cells(r, number, out);
        *place = FSM_LAST_PAGE;
    } else if (n == 0) {
        n = scan_cells(r, number, place, out);
    }
    unlock(r);
    return n;
}

UNLOCKED static uint32_t count_pool(const fsm_region *r, enum pools which)
{
    uint32_t n = 0;
    for (const holder *h = first_holder(r, which), *past = past_holders(r, which); h < past; h++)
        n += state_of(peek(h->stamp)) == LIVE;
    return n;
}

void fsm_count_holders(fsm_region *r, uint32_t *processes, uint32_t *leases)
{
    *processes = count_pool(r, PROCESSES);
    *leases = count_pool(r, LEASES);
}

static size_t list_pool(fsm_region *r, enum pools which, const uint32_t *seen, fsm_holder_info *out, size_t room,
                        size_t n)
{
    for (holder *h = first_holder(r, which), *past = past_holders(r, which); h < past; h++) {
        if (state_of(h->stamp) != LIVE || (seen && (int32_t)(h->arrival - *seen) <= 0))
            continue;
        if (n < room)
            describe(r, h, NULL, &out[n]);
        n++;
    }
    return n;
}

int64_t fsm_all_holders(fsm_region *r, fsm_holder_info *out, size_t room)
{
    int error = lock(r);
    if (error)
        return error;
    size_t n = list_pool(r, PROCESSES, NULL, out, room, 0);
    n = list_pool(r, LEASES, NULL, out, room, n);
    unlock(r);
    return (int64_t)n;
}

int64_t fsm_new_holders(fsm_region *r, uint32_t seen, fsm_holder_info *out, size_t room)
{
    int error = lock(r);
    if (error)
        return error;
    size_t n = list_pool(r, PROCESSES, &seen, out, room, 0);
    unlock(r);
    return (int64_t)n;
}

int fsm_holder_get(fsm_region *r, fsm_id id, fsm_holder_info *out)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        describe(r, h, NULL, out);
    unlock(r);
    return error;
}
