/* request.c - requesting room, waiting for the answer, and ending a request. */
#include "counters/amounts.h"
#include "holders/charger.h"
#include "holders/queue.h"
#include "holders/reap.h"
#include "region/clock.h"
#include "region/fault.h"
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

/* The time that a waiting process sleeps before it looks for dead processes, if no daemon does; ns. */
#define LOOK_EVERY INT64_C(500000000)

static int make_request(fsm_region *r, const request *q, waiter **out)
{
    uint32_t part = NONE, index;
    for (uint32_t i = q->n; i-- > 0; part = index) {
        int error = take_record(r, WAITERS, &index);
        if (error) {
            free_parts(r, part);
            return error;
        }
        waiter *w = &r->waiters[index];
        w->amount = q->amount[i];
        w->cell = cell_index(r, q->cells[i]);
        w->part = part;
        if (i == 0) {
            WRITE_ONCE(w->answer, WAITING); /* the process that had this record before may still read it */
            w->ticket = ++r->header->ticket;
        }
        FAULT_POINT(described);
        __atomic_store_n(&w->stamp, make_stamp(generation(w->stamp) + 1, i == 0 ? LIVE : PART), __ATOMIC_RELEASE);
        FAULT_POINT(made);
    }
    *out = &r->waiters[part];
    return 0;
}

static int find_request(fsm_region *r, fsm_id id, waiter **out)
{
    waiter *w = waiter_at(r, id_index(id));
    if (!w || id_index(id) >= high_of(&r->header->waiters, r->geometry.cells) ||
        READ_ONCE(w->stamp) != make_stamp((uint32_t)(id >> 32), LIVE))
        return gone(r);
    *out = w;
    return 0;
}

static int charge_or_queue(fsm_region *r, const request *q, uint32_t self, fsm_id *out)
{
    const counter *at;
    waiter *w;
    int turn = try_turn(r, q, &at);
    if (turn == 1 && reap_before_refusal(r, self)) {
        turn = serve_queue(r); /* a new round: in this one the request itself may have made a counter full */
        if (turn == 0)
            turn = try_turn(r, q, &at);
    }
    if (turn <= 0)
        return turn ? turn : charge_request(r, q, NONE);
    int error = make_request(r, q, &w);
    if (!error)
        error = enqueue(r, w);
    if (error) {
        serve_queue(r); /* the counters that it made full are not full */
        return error;
    }
    *out = make_id(w->stamp, waiter_index(r, w));
    return -EINPROGRESS;
}

int fsm_request(fsm_charger *const *chargers, const int64_t *amounts, size_t n, fsm_id *out)
{
    request q = { .n = (uint32_t)n };
    for (size_t i = 0; i < n && i < FSM_RESOURCES_MAX; i++) {
        if (amounts[i] <= 0)
            return -EINVAL;
        q.amount[i] = amounts[i];
    }
    int error = lock_chargers(chargers, q.cells, n);
    if (error)
        return error;
    fsm_region *r = chargers[0]->region;
    error = charge_or_queue(r, &q, id_index(chargers[0]->holder), out);
    unlock(r);
    return error;
}

/*
 * Without a daemon, a waiting process releases the charges of dead processes. If it cannot get the lock, it tries again
 * next time.
 */
static void look_for_dead(fsm_region *r)
{
    if (!reap_is_due(r, coarse_ns()) || daemon_alive(r->header) || lock(r) != 0)
        return;
    reap_before_refusal(r, NONE);
    unlock(r);
}

int fsm_await_request(fsm_region *r, fsm_id id, int64_t nanoseconds)
{
    waiter *w;
    int error = find_request(r, id, &w);
    int64_t now = monotonic_ns();
    int64_t deadline = nanoseconds > INT64_MAX - now ? INT64_MAX : now + nanoseconds;
    while (!error) {
        uint32_t answer = __atomic_load_n(
            &w->answer, __ATOMIC_ACQUIRE); /* before the stamp: after it, the answer may be that of another request */
        error = find_request(r, id, &w);
        if (error || answer != WAITING)
            return error || answer == GRANTED ? error : gone(r);
        int64_t left = min_i64(deadline - now, LOOK_EVERY);
        if (left <= 0)
            return -EAGAIN;
        struct timespec patience = { .tv_sec = left / 1000000000, .tv_nsec = left % 1000000000 };
        if (syscall(SYS_futex, &w->answer, FUTEX_WAIT, WAITING, &patience, NULL, 0) < 0) {
            if (errno == EINTR)
                return -EINTR;
            if (errno == ETIMEDOUT)
                look_for_dead(r);
        }
        now = monotonic_ns();
    }
    return error;
}

int fsm_end_request(fsm_region *r, fsm_id id)
{
    int error = lock(r);
    if (error)
        return error;
    waiter *w;
    error = find_request(r, id, &w);
    if (!error) {
        bool granted = w->answer == GRANTED;
        error = dequeue(r, w);
        if (!error && !granted) {
            error = serve_queue(r);
            error = error ? error : -ECANCELED;
        }
    }
    unlock(r);
    return error;
}

uint32_t fsm_await_answers(fsm_region *r, fsm_id id, uint32_t seen, int64_t nanoseconds)
{
    holder *h = holder_at(r, id_index(id));
    if (!h)
        return seen + 1;
    nanoseconds = min_i64(nanoseconds, LOOK_EVERY);
    struct timespec patience = { .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000 };
    if (syscall(SYS_futex, &h->answers, FUTEX_WAIT, seen, &patience, NULL, 0) < 0 && errno == ETIMEDOUT)
        look_for_dead(r);
    return __atomic_load_n(&h->answers, __ATOMIC_ACQUIRE);
}

void fsm_wake_answers(fsm_region *r, fsm_id id)
{
    holder *h = holder_at(r, id_index(id));
    if (!h)
        return;
    __atomic_add_fetch(&h->answers, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &h->answers, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
