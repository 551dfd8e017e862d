/*
 * model.h - one interface for the designs that the bench compares fsmount with.
 *
 * A model is a hierarchy of counters in shared memory.  It follows its source, including the errors that the source
 * accepts.  The bench measures and checks them: nothing else of fsmount uses them.
 *
 * Three models keep data for each CPU.  Here a "CPU" is a process, because user space cannot disable preemption.  A
 * store that is safe in the kernel without preemption is safe here only with a single writer.  A process may lose its
 * CPU in the middle of an operation that the kernel completes without a break, so the accepted errors show more often.
 *
 * Amounts are pages, as in the sources: a batch is 32 or 64 pages.
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

/* The place of one process in a model. */
typedef struct seat seat;

/* The promises of a model. */
enum {
    KEEPS_LIMIT = 1, /* usage never exceeds a limit */
    USES_ROOM = 2,   /* a charge that fits is not refused, whatever others have reserved */
    KNOWS_USAGE = 4, /* the usage is the sum of all charges */
};

typedef struct model {
    const char *name;
    const char *source;  /* the code or patch that the model follows */
    const char *accepts; /* the accuracy that it gives up for speed */
    unsigned in_turn;    /* its promises if operations never overlap */
    unsigned always;     /* its promises if operations overlap */
    size_t size;         /* of the memory that its processes share */

    void (*init)(void *memory, const tree *tree); /* once; the memory is zeros */
    seat *(*join)(void *memory, int process);     /* in the process itself; NULL: there is no room */
    void (*leave)(seat *seat);                    /* charges stay, cached deltas are folded */

    bool (*charge)(seat *seat, int64_t amount);   /* at the leaf and all above; false: refused, and nothing changed */
    void (*uncharge)(seat *seat, int64_t amount); /* at most the charges of this process */
    int64_t (*usage)(void *memory, int node);     /* the value that its file would show */
    int64_t (*seen)(void *memory, int node);      /* the value by which a charge decides events; NULL: none */

    /* Repeats a charge and an uncharge of 1 until *stop; returns the number of pairs. */
    uint64_t (*pairs)(seat *seat, const bool *stop);
} model;

extern const model fsmount, res_counter, rfc, page_counter, limited_add, stock;

/*
 * The body of `pairs`.  Each model expands it, so that the compiler sees its charge and uncharge in the loop, as in
 * a program that uses the engine.
 */
static inline __attribute__((always_inline)) uint64_t pairs_of(seat *s, const bool *stop,
                                                               bool (*charge)(seat *, int64_t),
                                                               void (*uncharge)(seat *, int64_t))
{
    uint64_t pairs = 0;
    do
        for (int i = 0; i < 64; i++, pairs++)
            if (charge(s, 1)) {
                __asm__ volatile(
                    "" ::
                        : "memory"); /* stands for work between charge and uncharge: nothing stays in registers */
                uncharge(s, 1);
            }
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED));
    return pairs;
}

#endif
