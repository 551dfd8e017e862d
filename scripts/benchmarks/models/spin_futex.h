/*
 * spin_futex.h - the lock of all models that lock: spins a little, then sleeps in the kernel.
 *
 * A word is 0 (free), 1 (taken) or 2 (taken, and somebody may sleep), as in Drepper, "Futexes are tricky", with as
 * many spins as fsmount's own lock.  It does not survive the death of its owner and is as cheap as such a lock can be,
 * so the models do not pay for the recovery of fsmount's lock.
 */
#ifndef SPIN_FUTEX_H
#define SPIN_FUTEX_H

#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 64

typedef uint32_t spin_futex;

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline bool try_to_lock(spin_futex *word)
{
    uint32_t free = 0;
    return __atomic_load_n(word, __ATOMIC_RELAXED) == 0 &&
           __atomic_compare_exchange_n(word, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void lock(spin_futex *word)
{
    for (int i = 0; i <= SPINS; i++) {
        if (try_to_lock(word))
            return;
        pause_briefly();
    }
    while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE) != 0)
        syscall(SYS_futex, word, FUTEX_WAIT, 2, NULL, NULL, 0);
}

static inline void unlock(spin_futex *word)
{
    if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

#endif
