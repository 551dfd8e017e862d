/*
 * percpu.h - a sum in parts: a count, and a delta for each CPU (here: process).
 *
 * After lib/percpu_counter.c.  A part is folded into the count, under the lock, when it reaches BATCH; so the count
 * alone is off by less than BATCH for each CPU.  Only its own process writes a part.  A sum reads the parts at
 * different moments: it is exact while no process adds.
 */
#ifndef PERCPU_H
#define PERCPU_H

#include "model.h"
#include "spin_futex.h"

#define BATCH 32 /* percpu_counter_batch of a machine with up to 16 CPUs */

/* The parts of a process lie together, like those of a CPU. */
typedef struct percpu_parts {
    _Alignas(CACHE_LINE) int64_t of[NODES_MAX];
} percpu_parts;

typedef struct percpu_counter {
    _Alignas(CACHE_LINE) spin_futex lock;
    int64_t count;
    int node, processes;
    percpu_parts *parts;
} percpu_counter;

static inline int64_t percpu_part(const percpu_counter *c, int process)
{
    return __atomic_load_n(&c->parts[process].of[c->node], __ATOMIC_RELAXED);
}

static inline void percpu_set_part(percpu_counter *c, int process, int64_t part)
{
    __atomic_store_n(&c->parts[process].of[c->node], part, __ATOMIC_RELAXED);
}

static inline int64_t percpu_read(const percpu_counter *c)
{
    return __atomic_load_n(&c->count, __ATOMIC_RELAXED);
}

/* Under the lock. */
static inline int64_t percpu_sum(const percpu_counter *c)
{
    int64_t sum = percpu_read(c);
    for (int i = 0; i < c->processes; i++)
        sum += percpu_part(c, i);
    return sum;
}

/* The value that the file shows. */
static inline int64_t percpu_usage(percpu_counter *c)
{
    lock(&c->lock);
    int64_t sum = percpu_sum(c);
    unlock(&c->lock);
    return sum;
}

/* Under the lock: the process's part and `amount` go into the count. */
static inline void percpu_fold(percpu_counter *c, int process, int64_t amount)
{
    __atomic_store_n(&c->count, percpu_read(c) + percpu_part(c, process) + amount, __ATOMIC_RELAXED);
    percpu_set_part(c, process, 0);
}

/* As for a CPU that goes offline. */
static inline void percpu_leave(percpu_counter *c, int process)
{
    lock(&c->lock);
    percpu_fold(c, process, 0);
    unlock(&c->lock);
}

static inline void percpu_add(percpu_counter *c, int process, int64_t amount)
{
    int64_t part = percpu_part(c, process) + amount;
    if (-BATCH < part && part < BATCH) {
        percpu_set_part(c, process, part);
        return;
    }
    lock(&c->lock);
    percpu_fold(c, process, amount);
    unlock(&c->lock);
}

#endif
