/*
 * lock.c - the one lock of a region.
 *
 * The problem: processes share the lock, and any of them may die or be stopped while it has the lock. A robust mutex of
 * the C library handles a death, but keeps pointers in the shared memory; a process that scribbles there would make
 * others follow them.
 *
 * The mechanism: one word in the region, a robust futex. It holds the thread that has the lock, or 0, and two flags of
 * the kernel. The kernel learns of the word through memory of the thread itself: while a thread takes, has or gives up
 * the lock, the word is the pending operation of its robust list. If the thread dies (kill -9, exec), the kernel marks
 * the word and wakes a waiter. The next owner sees the mark, recomputes whatever may be half done, and goes on. So a
 * thread has one such lock at a time, and takes no robust mutex meanwhile.
 *
 * If the owner is stopped, each waiter gives up after its patience and names the owner.
 *
 * Waiting. The lock is held for some tens of ns, less than it takes to move the cache lines behind it to another
 * processor. So a thread that does not get the lock stays away for a while, longer each time, and the owner does much
 * in a row. Many processes at one limit are then as fast together as one alone. Accepted inaccuracy: the lock is unfair
 * within some 10 us; after that a waiter sleeps and is woken.
 *
 * Barriers. take() acquires and unlock() releases the word. announce() and disown() order only the compiler, since the
 * kernel reads the robust list in the same thread.
 */
#include "region/lock.h"
#include "region/clock.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/process.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAUSES_FIRST 8      /* about 0.2 us */
#define PAUSES_LAST 256     /* about 7 us */
#define LOOK_EVERY 50000000 /* ns: how often a waiter checks whether the owner exists at all */

static _Thread_local int64_t patience = 3000000000;

void fsm_set_patience(int64_t nanoseconds)
{
    patience = nanoseconds;
}

/* ---- the kernel's robust list -------------------------------------------------- */

static _Thread_local uint32_t self; /* number of the thread; 0: not known yet */
static _Thread_local struct robust_list_head *robust;

static void forget_thread(void)
{
    self = 0;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, forget_thread);
}

static void init_thread(void)
{
    static _Thread_local struct robust_list_head own;
    size_t size;
    if (syscall(SYS_get_robust_list, 0, &robust, &size) != 0 || !robust) {
        own.list.next = &own.list; /* the C library has none: this list is only ours */
        syscall(SYS_set_robust_list, &own, sizeof own);
        robust = &own;
    }
    self = (uint32_t)syscall(SYS_gettid);
}

/* From here until disown() the kernel looks at the word if the thread dies. */
static void announce(uint32_t *word)
{
    uintptr_t entry = (uintptr_t)word - (uintptr_t)robust->futex_offset;
    WRITE_ONCE(robust->list_op_pending, (struct robust_list *)entry);
    __atomic_signal_fence(
        __ATOMIC_SEQ_CST); /* the kernel reads it in this thread: only the compiler could reorder it */
}

static void disown(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    WRITE_ONCE(robust->list_op_pending, NULL);
}

/* ---- the word ---------------------------------------------------------------------- */

/*
 * Takes the lock if it is free. Otherwise *seen is the word that was found. flags: FUTEX_WAITERS after a wait, since
 * other waiters may remain. The acquire pairs with the release in unlock().
 */
static bool take(header *h, uint32_t flags, uint32_t *seen)
{
    announce(&h->lock);
    *seen = READ_ONCE(h->lock);
    while ((*seen & FUTEX_TID_MASK) == 0) {
        uint32_t mine = self | flags | (*seen & FUTEX_WAITERS);
        if (__atomic_compare_exchange_n(&h->lock, seen, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            FAULT_POINT(taken);
            if (*seen & FUTEX_OWNER_DIED)
                h->broken = 1;
            return true;
        }
    }
    disown();
    return false;
}

/* Takes the lock from an owner that cannot exist: the word was overwritten. */
static bool seize(header *h, uint32_t seen)
{
    announce(&h->lock);
    if (__atomic_compare_exchange_n(&h->lock, &seen, self | FUTEX_WAITERS, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        FAULT_POINT(seized);
        h->broken = 1;
        return true;
    }
    disown();
    return false;
}

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until the word differs from `seen`, a wake-up comes, or the time is over. */
static void futex_sleep(uint32_t *word, uint32_t seen, int64_t until)
{
    struct timespec t = { .tv_sec = until / 1000000000, .tv_nsec = until % 1000000000 };
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, &t, NULL, FUTEX_BITSET_MATCH_ANY);
}

static int wait_for(fsm_region *r, uint32_t *seen)
{
    header *h = r->header;
    for (int pauses = PAUSES_FIRST; pauses <= PAUSES_LAST; pauses *= 2) {
        for (int i = 0; i < pauses; i++)
            pause_briefly();
        if (take(h, 0, seen))
            return 0;
    }
    int64_t now = monotonic_ns();
    int64_t deadline = now > INT64_MAX - patience ? INT64_MAX : now + patience;
    int64_t look = now + LOOK_EVERY;
    do {
        uint32_t waited_for = *seen | FUTEX_WAITERS;
        if (*seen == waited_for ||
            __atomic_compare_exchange_n(&h->lock, seen, waited_for, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            FAULT_POINT(waiting);
            futex_sleep(&h->lock, waited_for, look < deadline ? look : deadline);
        }
        if (take(h, FUTEX_WAITERS, seen))
            return 0;
        now = monotonic_ns();
        if (now >= look) {
            look = now + LOOK_EVERY;
            if (!may_be_inside(r, *seen & FUTEX_TID_MASK) && seize(h, *seen))
                return 0;
        }
    } while (now < deadline);
    return -ETIMEDOUT;
}

/* The rest of lock(): the lock was not free, or the region needs recovery. */
__attribute__((noinline)) static int lock_slowly(fsm_region *r, bool taken)
{
    header *h = r->header;
    uint32_t seen;
    if (r->pid_namespace != pid_namespace()) {
        int error = announce_namespace(r);
        if (error)
            return error;
    }
    if (!taken && !take(h, 0, &seen) && wait_for(r, &seen) != 0) {
        fsm_fault_here.pid = process_of(seen & FUTEX_TID_MASK);
        return -ETIMEDOUT;
    }
    int error = is_region(h) ? 0 : corrupt(r, CUT_SHORT);
    if (!error && h->broken)
        error = r->recover(r);
    if (error)
        unlock(r);
    return error;
}

int lock(fsm_region *r)
{
    header *h = r->header;
    uint32_t seen;
    if (!self)
        init_thread();
    bool taken = r->pid_namespace == pid_namespace() && take(h, 0, &seen);
    return taken && !h->broken && is_region(h) ? 0 : lock_slowly(r, taken);
}

void unlock(fsm_region *r)
{
    header *h = r->header;
    FAULT_POINT(done);
    uint32_t seen = __atomic_exchange_n(&h->lock, 0, __ATOMIC_RELEASE);
    FAULT_POINT(given_up);
    if ((seen & FUTEX_TID_MASK) != self) /* it was overwritten, and another thread may have come in */
        h->broken = 1;
    if (seen & FUTEX_WAITERS)
        syscall(SYS_futex, &h->lock, FUTEX_WAKE, 1, NULL, NULL, 0);
    FAULT_POINT(woken);
    disown();
}
