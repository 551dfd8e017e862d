/* lists.h - checking the lists of a region. */
#ifndef FSM_LISTS_H
#define FSM_LISTS_H

#include "check/report.h"
#include "region/pool.h"

#define COUNTERS POOLS /* counters form no pool: each group has its own */
#define ONE_WAY SIZE_MAX

/* A kind of list: its members, and where a record has the links. */
typedef struct list {
    const char *what;
    label (*owner)(const fsm_region *r, uint32_t owner); /* NULL: there is only one such list */
    label (*member)(const fsm_region *r, uint32_t index);
    bool (*belongs)(const checker *ck, uint32_t owner, uint32_t index);
    enum pools records;
    size_t next, previous;
} list;

extern const list children, active_children, cells_of_counter, open_cells, cells_of_holder, watches_of_counter, queue,
    names;

uint32_t length_of(const fsm_region *r, const list *l, uint32_t head);
/*
 * Whether the list has exactly its `expected` members, each once, with sound links. Reports only the first fault; if
 * there is none, *last is the last member.
 */
bool check_list(checker *ck, const list *l, uint32_t owner, uint32_t head, uint32_t expected, uint32_t *last);
void check_free_list(checker *ck, enum pools which);

#endif
