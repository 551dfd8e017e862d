/* once.h - reading and writing a word that others change meanwhile. */
#ifndef FSM_ONCE_H
#define FSM_ONCE_H

#include <stdint.h>

/* One load or store that the compiler neither splits nor repeats; it orders nothing. */
#define READ_ONCE(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define WRITE_ONCE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)

/* Keeps a value that was read: the compiler cannot read it again after it was checked. */
static inline uint32_t once(uint32_t value)
{
    __asm__("" : "+r"(value));
    return value;
}

/* For functions that race with stores of other processes on purpose; see region/reading.h. */
#define UNLOCKED __attribute__((no_sanitize("thread")))

#endif
