/* holder.h - holders and their cells. */
#ifndef FSM_HOLDER_H
#define FSM_HOLDER_H

#include "region/pool.h"
#include "region/process.h"

static inline enum pools pool_of(const fsm_region *r, uint32_t index)
{
    return index < r->geometry.holders ? PROCESSES : LEASES;
}

static inline holder *first_holder(const fsm_region *r, enum pools which)
{
    return r->pools[which].first;
}

/* The end of the holders that were ever used. */
static inline holder *past_holders(const fsm_region *r, enum pools which)
{
    const records *of = &r->pools[which];
    return record_at(of, ever_used(of));
}

static inline bool holder_alive(const holder *h)
{
    return h->pid_namespace != pid_namespace() || fsm_process_alive(h->pid, h->start_time);
}

int find_holder(fsm_region *r, fsm_id id, holder **out); /* -ENODEV */

cell *find_cell(fsm_region *r, const holder *h, uint32_t counter);
int make_cell(fsm_region *r, holder *h, uint32_t counter, cell **out);
void link_cell(fsm_region *r, cell *cl, counter *c, holder *h);
/* Frees the cell and releases its charges. quarantine: its holder lives and may still look at it. */
int free_cell(fsm_region *r, cell *cl, holder *h, bool quarantine);
/* Frees the cell as the flags say: FSM_KEEP gives its charges to the group. */
int leave_cell(fsm_region *r, cell *cl, holder *h, uint32_t flags, bool quarantine);
/* by_itself: the process of the holder ends it, and has unbound its chargers. */
int end_holder(fsm_region *r, holder *h, bool by_itself);

#endif
