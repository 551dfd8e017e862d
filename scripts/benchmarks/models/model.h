/*
 * model.h - one interface for the ways to count that fsmount is compared with.
 *
 * A model is a hierarchy of counters in memory that processes share, written as its source is, with what its source
 * accepts.  The bench measures and checks them: nothing else of fsmount uses them.
 *
 * Three of them keep something for each CPU.  Here a "CPU" is a process: user space can neither switch preemption off
 * nor tell for how long it stays on the CPU it is on, so a store that is safe in the kernel because nobody else runs
 * there is safe here only where nobody else writes.  A process is preempted in the middle of what the kernel does in
 * one piece: what a model accepts between CPUs shows more often.
 *
 * Amounts are pages, as where the models are from: a batch of 32 or 64 is meant so.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NODES_MAX = 64, PROCESSES_MAX = 32, CACHE_LINE = 64 };
#define UNLIMITED (INT64_C(1) << 60)

/* The hierarchy.  A node stands before its children; node 0 is the root. */
typedef struct tree {
    int nodes, processes;
    int parent[NODES_MAX]; /* -1: the root's */
    int64_t limit[NODES_MAX];
    int leaf[PROCESSES_MAX]; /* the node that a process charges */
} tree;

/* A process's place in a model: each has its own. */
typedef struct seat seat;

/* What a model may promise. */
enum {
    KEEPS_LIMIT = 1, /* no limit is ever passed */
    USES_ROOM = 2,   /* what fits is not refused, whoever reserved something */
    KNOWS_USAGE = 4, /* the usage that is read is what is charged */
};

typedef struct model {
    const char *name;
    const char *source;  /* where it is from */
    const char *accepts; /* what it leaves undone for its speed */
    unsigned in_turn;    /* what it promises while one operation ends before the next begins */
    unsigned always;     /* what of it stays true however they overlap */
    size_t size;         /* of the memory that its processes share */

    void (*init)(void *memory, const tree *tree); /* once; the memory is zeros */
    seat *(*join)(void *memory, int process);     /* in the process itself; NULL: there is no room */
    void (*leave)(seat *seat);                    /* what is charged stays charged, what is cached is folded */

    bool (*charge)(seat *seat, int64_t amount);   /* at the leaf and all above; false: refused, and nothing changed */
    void (*uncharge)(seat *seat, int64_t amount); /* of what this process has charged */
    int64_t (*usage)(void *memory, int node);     /* as a reader of its file gets it */
    int64_t (*seen)(void *memory, int node);      /* what a charge sees there and decides events by; NULL: nothing */

    /* Charges 1 and uncharges it over and over until *stop; returns how often. */
    uint64_t (*pairs)(seat *seat, const bool *stop);
} model;

extern const model fsmount, res_counter, rfc, page_counter, limited_add, stock;

/*
 * The body of `pairs`.  Each model expands it for itself, so that the compiler sees its charge and uncharge in the
 * loop, as it does in a program that uses the engine.
 */
static inline __attribute__((always_inline)) uint64_t pairs_of(seat *s, const bool *stop,
                                                               bool (*charge)(seat *, int64_t),
                                                               void (*uncharge)(seat *, int64_t))
{
    uint64_t pairs = 0;
    do
        for (int i = 0; i < 64; i++, pairs++)
            if (charge(s, 1)) {
                __asm__ volatile("" ::: "memory"); /* the work that was charged for: nothing is kept in registers */
                uncharge(s, 1);
            }
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED));
    return pairs;
}

#endif
