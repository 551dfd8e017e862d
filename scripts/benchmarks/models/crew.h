/* crew.h - processes that play at once in memory they share, and the trees they play in. */
#ifndef CREW_H
#define CREW_H

#include "model.h"

/* Zeros that forked processes share; never freed. */
void *shared(size_t size);

/* Makes a model's memory for this tree. */
void *made(const model *m, const tree *t);

/* Makes the seat of a process; ends the program if there is no room. */
seat *joined(const model *m, void *memory, int process);

/* Adds a node below `parent` (-1: the root); returns its number. */
int grow(tree *t, int parent, int64_t limit);

/* Adds `levels` nodes, one below the other; returns the lowest. */
int grow_chain(tree *t, int parent, int levels);

/* Adds a process that charges a leaf of its own below `parent`. */
void seat_below(tree *t, int parent);

typedef struct crew {
    int size;
    bool threads;                          /* instead of processes: ThreadSanitizer checks threads only */
    bool pinned;                           /* binds each player to a CPU, in turn; */
    bool alone;                            /* the first player has a CPU to itself, if there are two */
    seat *(*sit)(void *scene, int player); /* before the first starts */
    void (*play)(void *scene, int player, seat *own, const bool *stop);
    void (*watch)(void *scene); /* repeated meanwhile, outside the crew; may be NULL */
    void *scene;
} crew;

/*
 * All players start together and stop after `milliseconds`; returns after the last has ended.  The program ends with a
 * message if a player fails.
 */
void play(const crew *c, int64_t milliseconds);

int64_t now_ns(void);

#endif
