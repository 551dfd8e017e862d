/* membership.c - holders begin, join groups, leave groups and end. */
#include "counters/group.h"
#include "holders/holder.h"
#include "holders/queue.h"
#include "holders/reap.h"
#include "region/fault_point.h"
#include "region/lock.h"
#include "region/pool.h"
#include "region/process.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * Wakes processes that wait for new holders. Under the lock, and before the holder exists: even if this process dies at
 * once, a woken process either finds the holder or there is none.
 */
static void announce_arrival(fsm_region *r, holder *h)
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
            announce_arrival(r, h);
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

static int join(fsm_region *r, holder *h, fsm_id group_id, uint32_t first, uint32_t end)
{
    group *g;
    int error = find_group(r, group_id, &g);
    uint32_t resources = r->geometry.resources;
    uint64_t made = 0;
    for (uint32_t i = first; i < end && !error; i++) {
        cell *cl;
        uint32_t ended;
        if (find_cell(r, h, id_index(group_id) * resources + i))
            continue;
        error = make_cell(r, h, id_index(group_id) * resources + i, &cl);
        if (error == -ENOSPC && reap(r, holder_index(r, h), &ended) == 0 && ended > 0)
            error = make_cell(r, h, id_index(group_id) * resources + i, &cl);
        if (!error)
            made |= (uint64_t)1 << i;
    }
    for (uint32_t i = first; i < end && error; i++)
        if (made >> i & 1) {
            cell *cl = find_cell(r, h, id_index(group_id) * resources + i);
            if (cl)
                free_cell(r, cl, h, false);
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
        cell *cl = find_cell(r, h, id_index(group_id) * r->geometry.resources + i);
        if (!cl)
            continue;
        error = end_requests(r, holder_index(r, h), cl);
        if (!error)
            error = leave_cell(r, cl, h, flags, false);
    }
    unlock(r);
    return error;
}

static bool is_current_process(const holder *h)
{
    return h->pid == current_pid() && h->pid_namespace == pid_namespace();
}

int fsm_holder_end(fsm_region *r, fsm_id id)
{
    int error = lock(r);
    if (error)
        return error;
    holder *h;
    error = find_holder(r, id, &h);
    if (!error)
        error = end_holder(r, h, is_current_process(h));
    unlock(r);
    return error;
}
