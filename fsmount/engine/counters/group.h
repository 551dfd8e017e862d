/* group.h - finding and linking groups. */
#ifndef FSM_GROUP_H
#define FSM_GROUP_H

#include "region/reading.h"

/* Without the lock. -ENODEV. */
int seek_group(fsm_region *r, const reading *at, fsm_id id, group **out);
int find_group(fsm_region *r, fsm_id id, group **out);                                        /* -ENODEV */
int find_child(fsm_region *r, uint32_t parent, const char *name, size_t length, group **out); /* -ENOENT */

/* Into and out of the table of names. */
void link_name(fsm_region *r, group *g);
int unlink_name(fsm_region *r, group *g);
/* The same, and into and out of the parent's children. */
void link_group(fsm_region *r, group *g);
int unlink_group(fsm_region *r, group *g);

void touch(group *g, int64_t now); /* its mtime and ctime */
/* The attributes of a slot; those of a file exist once the group keeps_bank(). */
attributes *attributes_of(fsm_region *r, group *g, uint32_t slot);

#endif
