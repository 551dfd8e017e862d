/*
 * plays.h - every operation of the engine as a play.
 *
 * A process, the victim, runs the operation and dies or is stopped in the middle. The survivors must find the operation
 * done or not done; if it consists of many steps, each step. Everything derived must be right, all charges of the
 * victim released, no limit off by one, and no record lost. crash.c and faults.c choose where the middle is.
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
    const unsigned char *bytes; /* in the mapping of the region */
    size_t size;
    fsm_id a, b, c, empty;                  /* /a/b/c and /empty */
    fsm_id survivor, idle;                  /* holders */
    fsm_charger survives[RESOURCES], idles; /* in c, and in b */
    pid_t victim, dead_pid;
    struct asker {
        fsm_id holder, request;
        fsm_charger charger[RESOURCES];
        int64_t amount[RESOURCES];
    } asker[WAITERS]; /* in c: requests that wait for what the victim holds */
} scene;

/* The objects of the victim, which makes them itself. */
typedef struct victim {
    scene *scene;
    fsm_region *region;
    fsm_id holder, lease, watches[5], request;
    fsm_charger charger; /* of MEMORY in c; it holds 1000 and more after prepare() */
    fsm_charger tokens;
    fsm_charger leased;
    int64_t more;
} victim;

typedef struct play {
    const char *name;
    void (*prepare)(victim *v); /* runs in the victim before the operation */
    void (*act)(victim *v);
    const char *recovering; /* another process died in the middle of this play: the victim has to recover first */
    const char *behind;     /* another process is stopped in the middle of this play: the victim has to wait */
    void (*checker)(bool is_done); /* checks anything more after the end */
    bool in_parts;                 /* each step of the operation is done or not */
    bool ends_idle;
    bool exceeds;       /* the usage may exceed the limit */
    bool after_a_death; /* another holder is dead, and the operation may release its charges */
    bool is_waited_for; /* requests wait for what the victim holds */
    bool is_private;    /* at its end at least it uses no shared state, so the lock may be free */
} play;

extern const play plays[];
extern const size_t plays_count;
const play *play_named(const char *name);

extern int64_t the_batch;
void set_the_scene(scene *s, const play *p);
void strike_the_scene(scene *s);

/* Starts a victim that stops itself before the operation, after ready() if there is one, and again at its end. */
pid_t start_victim(scene *s, const play *p, void (*ready)(void));
void kill_victim(pid_t pid);

/* Everything that a user can see, as names and numbers; a missing object has no entry. */
enum { VALUES = 800 };
typedef struct view {
    int count;
    struct value {
        char name[64];
        int64_t number;
        bool sum; /* a sum of several parts */
    } at[VALUES];
} view;
void see(scene *s, const play *p, view *v);

/*
 * Checks the result: as before, as after, or between the two if the play has steps. Then ends everything in the scene.
 */
void checker(scene *s, const play *p, const view *before, const view *after);

#endif
