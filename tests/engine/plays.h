/*
 * plays.h - every operation of the engine as a play: a process, the victim, does it and dies or is stopped in the
 * middle, and the survivors must find the operation done or not done (or, of the operations that are many, each of
 * its parts), everything derived in order, all that the victim held given back, no limit off by one, and no record
 * lost.  crash.c and faults.c each have their own middles.
 */
#ifndef FSM_PLAYS_H
#define FSM_PLAYS_H

#include <stdbool.h>
#include <sys/types.h>

#include "trial.h"

enum { MEMORY, TOKENS, RESOURCES };
enum { GROUPS = 9, HOLDERS = 8, CELLS = 32, LIMIT = 100000 };
enum { WAITERS = 2 };

typedef struct scene {
    fsm_region *region;
    const unsigned char *bytes; /* a view of the region's own */
    size_t size;
    fsm_id a, b, c, empty;                  /* /a/b/c and /empty */
    fsm_id survivor, idle;                  /* holders */
    fsm_charger survives[RESOURCES], idles; /* in c, and in b */
    pid_t victim, dead_pid;
    struct asker {
        fsm_id holder, request;
        fsm_charger charger[RESOURCES];
        int64_t amount[RESOURCES];
    } asker[WAITERS]; /* in c: who waits for what the victim holds, in line */
} scene;

/* The victim's own things; it makes them itself. */
typedef struct victim {
    scene *scene;
    fsm_region *region;
    fsm_id holder, lease, watches[5], request;
    fsm_charger charger; /* of MEMORY in c; it holds 1000, and more once it is prepared */
    fsm_charger tokens;
    fsm_charger leased;
    int64_t more;
} victim;

typedef struct play {
    const char *name;
    void (*prepare)(victim *v); /* what the victim does before it begins */
    void (*act)(victim *v);
    const char *recovering;        /* another died in the middle of this play: the victim has to recover first */
    const char *behind;            /* another is stopped in the middle of this play: the victim has to wait */
    void (*checker)(bool is_done); /* what else is to be seen when all is over */
    bool in_parts;                 /* many steps: each part of it is done or not */
    bool ends_idle;
    bool exceeds;       /* usage may be above the limit */
    bool after_a_death; /* that nobody has noticed: what finds it gives back what the dead one held */
    bool is_waited_for; /* others wait for what the victim holds */
    bool is_private;    /* it works on what nobody else has, at the end at least: the lock may be free */
} play;

extern const play plays[];
extern const size_t plays_count;
const play *play_named(const char *name);

extern int64_t the_batch;
void set_the_scene(scene *s, const play *p);
void strike_the_scene(scene *s);

/* A victim that is stopped before it begins, with ready() done, if there is one; it stops itself again at the end. */
pid_t start_victim(scene *s, const play *p, void (*ready)(void));
void kill_victim(pid_t pid);

/* Everything a user can see, as names and numbers; what is not there is not listed. */
enum { VALUES = 800 };
typedef struct view {
    int count;
    struct value {
        char name[64];
        int64_t number;
        bool sum; /* of several parts */
    } at[VALUES];
} view;
void see(scene *s, const play *p, view *v);

/*
 * Judges what is left: it must be as before, or as after, or between the two if the play is in parts.  Then ends
 * all that is there; the scene can only be struck.
 */
void checker(scene *s, const play *p, const view *before, const view *after);

#endif
