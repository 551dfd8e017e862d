/*
 * lock.c - the region's one lock.
 *
 * A robust process-shared mutex: when its owner dies, the next to take it is told
 * (EOWNERDEAD), recomputes whatever the owner may have left half done, and goes
 * on.  When its owner is stopped, the others wait for their patience and then say
 * who holds it.  Held times are a microsecond or so, hence the short spin.
 */
#include "internal.h"

#include <errno.h>
#include <time.h>

#define SPINS 64

static _Thread_local int64_t patience = 3000000000;
void fsm_set_patience(int64_t nanoseconds)
{
    patience = nanoseconds;
}

int init_lock(header *h)
{
    pthread_mutexattr_t how;
    int error = pthread_mutexattr_init(&how);
    if (!error)
        error = pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    if (!error)
        error = pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    if (!error)
        error = pthread_mutex_init(&h->lock, &how);
    pthread_mutexattr_destroy(&how);
    return -error;
}

#ifdef __GLIBC__
/* glibc aborts the process over a mutex of an impossible kind, so the kind is checked first. */
static int good_kind;

__attribute__((constructor)) static void learn_kind(void)
{
    header h;
    if (init_lock(&h) == 0)
        good_kind = h.lock.__data.__kind;
}

static inline bool kind_is_good(const pthread_mutex_t *mutex)
{
    return mutex->__data.__kind == good_kind;
}
#else
static inline bool kind_is_good(const pthread_mutex_t *mutex)
{
    (void)mutex;
    return true;
}
#endif

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int wait_for(pthread_mutex_t *mutex)
{
    for (int i = 0; i < SPINS; i++) {
        pause_briefly();
        int error = pthread_mutex_trylock(mutex);
        if (error != EBUSY)
            return error;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nanoseconds = until.tv_nsec + patience;
    until.tv_sec += nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
}

int lock(fsm_region *r)
{
    header *h = r->header;
    if (!kind_is_good(&h->lock))
        return corrupt(r, "the lock is not one");
    int error = pthread_mutex_trylock(&h->lock);
    if (error == EBUSY)
        error = wait_for(&h->lock);
    if (error == ETIMEDOUT || error == EBUSY) {
        fsm_fault_here.pid = __atomic_load_n(&h->lock_owner, __ATOMIC_RELAXED);
        return -ETIMEDOUT;
    }
    if (error == EOWNERDEAD) {
        h->broken = 1;
        pthread_mutex_consistent(&h->lock);
    } else if (error) {
        return corrupt(r, "the lock answers errno %d", error);
    }
    __atomic_store_n(&h->lock_owner, own_pid(), __ATOMIC_RELAXED);
    if (h->broken) {
        error = recover(r);
        if (error) {
            unlock(r);
            return error;
        }
    }
    return 0;
}

void unlock(fsm_region *r)
{
    pthread_mutex_unlock(&r->header->lock);
}
