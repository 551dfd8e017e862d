/* clock.h - the clocks, in nanoseconds. */
#ifndef FSM_CLOCK_H
#define FSM_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* The same clock, some milliseconds old: reading it takes a few ns. */
static inline int64_t coarse_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC_COARSE);
}

static inline int64_t wall_clock_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

#endif
