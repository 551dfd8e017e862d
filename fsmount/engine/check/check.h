/* check.h - what the files of the checker share; check.c tells how it judges. */
#ifndef FSM_CHECK_H
#define FSM_CHECK_H

#include "internal.h"

typedef struct checker {
    fsm_region found; /* as it was found */
    fsm_region right; /* with everything derived recomputed */
    uint32_t *bucket; /* of each group: where its name is looked for */
    FILE *report;
    int64_t findings;
} checker;

static inline bool is_live(const group *g)
{
    return state_of(g->stamp) == LIVE;
}

static inline bool is_owned(const cell *own)
{
    return own->owner != 0 && own->owner != QUARANTINED;
}

/* ---- check_report.c ---- */

/* One finding: a line of the report. */
void tell(checker *j, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The name of something, for one line of the report. */
typedef struct label {
    char text[1300];
} label;

label name_it(const char *format, ...) __attribute__((format(printf, 1, 2)));
label name_group(const fsm_region *r, uint32_t index);
label name_counter(const fsm_region *r, uint32_t index);
label name_bucket(const fsm_region *r, uint32_t index);
label name_holder(const fsm_region *r, uint32_t index);
label name_process(const fsm_region *r, uint32_t index);
label name_lease(const fsm_region *r, uint32_t index); /* its number among the leases */
label name_cell(const fsm_region *r, uint32_t index);
label name_watch(const fsm_region *r, uint32_t index);
label name_waiter(const fsm_region *r, uint32_t index);

/* ---- check_truth.c ---- */

void check_truth(checker *j);

/* ---- check_derived.c ---- */

int check_derived(checker *j); /* -ENOMEM */

/* ---- check_lists.c ---- */

#define COUNTERS POOLS /* these are no pool: each group has its own */
#define ONE_WAY SIZE_MAX

/* A kind of list: who is in it, and where its links are in a record. */
typedef struct list {
    const char *what;
    label (*owner)(const fsm_region *r, uint32_t owner); /* NULL: there is one such list */
    label (*member)(const fsm_region *r, uint32_t index);
    bool (*belongs)(const checker *j, uint32_t owner, uint32_t index);
    enum pools records;
    size_t next, previous;
} list;

extern const list children, active_children, cells_of_counter, open_cells, cells_of_holder, watches_of_counter, line,
    names;

uint32_t length_of(const fsm_region *r, const list *l, uint32_t head);
/*
 * Whether exactly those `expected` many who belong to it are listed, each once.  Tells the first thing that is wrong;
 * else *last is its last member.
 */
bool check_list(checker *j, const list *l, uint32_t owner, uint32_t head, uint32_t expected, uint32_t *last);
void check_pool(checker *j, enum pools which); /* the list of the free */

#endif
