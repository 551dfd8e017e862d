/* group.c - the hierarchy: groups by name, and their attributes. */
#include "counters/group.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/journal.h"
#include "region/lock.h"
#include "region/name_hash.h"
#include "region/reading.h"
#include "region/region.h"

#include <errno.h>
#include <string.h>

/* ---- finding groups ------------------------------------------------------------ */

static const reading under_lock = { .locked = true };

UNLOCKED int seek_group(fsm_region *r, const reading *at, fsm_id id, group **out)
{
    uint32_t index = id_index(id);
    if (index >= groups_high(r))
        return gone(r);
    group *g = &r->groups[index];
    if (READ_ONCE(g->stamp) != make_stamp((uint32_t)(id >> 32), LIVE))
        return gone(r);
    uint32_t parent = READ_ONCE(g->parent), length = READ_ONCE(g->name_length);
    if (length > FSM_NAME_MAX || (index > 0 && !group_at(r, parent)))
        return DAMAGED(r, at, "group %u has parent %u and a name of %u bytes", index, parent, length);
    *out = g;
    return 0;
}

int find_group(fsm_region *r, fsm_id id, group **out)
{
    return seek_group(r, &under_lock, id, out);
}

UNLOCKED static uint32_t *bucket_of(const fsm_region *r, uint32_t parent, const char *name, size_t length)
{
    const uint64_t *key = r->header->name_key;
    uint64_t hash = name_hash(READ_ONCE(key[0]), READ_ONCE(key[1]), parent, name, length);
    return &r->buckets[hash & (bucket_count(&r->geometry) - 1)];
}

UNLOCKED static bool has_name(const group *g, const char *name, size_t length)
{
    bool same = READ_ONCE(g->name_length) == length;
    for (size_t i = 0; same && i < length; i++)
        same = READ_ONCE(g->name[i]) == name[i];
    return same;
}

/* Needs no lock. -ENOENT. */
UNLOCKED static int seek_child(fsm_region *r, const reading *at, uint32_t parent, const char *name, size_t length,
                               group **out)
{
    if (length > FSM_NAME_MAX)
        return -ENOENT;
    uint32_t left = r->geometry.groups;
    for (uint32_t i = READ_ONCE(*bucket_of(r, parent, name, length)); i != NONE;) {
        group *g = group_at(r, i);
        if (!g || left-- == 0)
            return DAMAGED(r, at, "the name table is damaged at group %u", i);
        if (state_of(READ_ONCE(g->stamp)) == LIVE && READ_ONCE(g->parent) == parent && has_name(g, name, length)) {
            *out = g;
            return 0;
        }
        i = READ_ONCE(g->hash_next);
    }
    return -ENOENT;
}

int find_child(fsm_region *r, uint32_t parent, const char *name, size_t length, group **out)
{
    return seek_child(r, &under_lock, parent, name, length, out);
}

/* ---- linking groups ------------------------------------------------------------- */

void link_name(fsm_region *r, group *g)
{
    uint32_t *bucket = bucket_of(r, g->parent, g->name, name_length(g));
    g->hash_next = *bucket;
    *bucket = group_index(r, g);
}

int unlink_name(fsm_region *r, group *g)
{
    uint32_t left = r->geometry.groups;
    uint32_t *at = bucket_of(r, g->parent, g->name, name_length(g));
    while (*at != group_index(r, g)) {
        group *other = group_at(r, *at);
        if (!other || left-- == 0)
            return corrupt(r, "group %u is not in the name table", group_index(r, g));
        at = &other->hash_next;
    }
    *at = g->hash_next;
    return 0;
}

void link_group(fsm_region *r, group *g)
{
    uint32_t index = group_index(r, g);
    group *parent = &r->groups[parent_index(r, g)];
    group *last = group_at(r, parent->last_child);
    g->depth = parent->depth + 1;
    g->next_sibling = NONE;
    g->prev_sibling = parent->last_child;
    if (last)
        last->next_sibling = index;
    else
        parent->first_child = index;
    parent->last_child = index;
    parent->children++;
    FAULT_POINT(among_siblings);
    link_name(r, g);
    FAULT_POINT(in_name_table);
}

int unlink_group(fsm_region *r, group *g)
{
    int error = unlink_name(r, g);
    if (error)
        return error;
    FAULT_POINT(out_of_name_table);
    group *parent = &r->groups[parent_index(r, g)];
    group *next = group_at(r, g->next_sibling);
    group *previous = group_at(r, g->prev_sibling);
    if (next)
        next->prev_sibling = g->prev_sibling;
    else
        parent->last_child = g->prev_sibling;
    FAULT_POINT(unlinked_forwards);
    if (previous)
        previous->next_sibling = g->next_sibling;
    else
        parent->first_child = g->next_sibling;
    FAULT_POINT(unlinked_backwards);
    parent->children--;
    return 0;
}

void touch(group *g, int64_t now)
{
    g->directory.mtime = now;
    g->directory.ctime = now;
}

/* ---- reading --------------------------------------------------------------------- */

UNLOCKED static void copy_name(const group *g, char out[FSM_NAME_MAX + 1], uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        out[i] = READ_ONCE(g->name[i]);
    out[length] = 0;
}

UNLOCKED int fsm_lookup(fsm_region *r, fsm_id parent, const char *name, size_t length, fsm_id *out)
{
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        group *above, *g;
        error = seek_group(r, &at, parent, &above);
        if (!error)
            error = seek_child(r, &at, id_index(parent), name, length, &g);
        if (!error)
            *out = group_id(READ_ONCE(g->stamp), group_index(r, g));
    }
    return error;
}

UNLOCKED int fsm_parent(fsm_region *r, fsm_id id, fsm_id *out)
{
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        group *g;
        error = seek_group(r, &at, id, &g);
        uint32_t index = error || id_index(id) == 0 ? 0 : READ_ONCE(g->parent);
        const group *above = group_at(r, index);
        if (!error && !above)
            error = DAMAGED(r, &at, "group %u has parent %u", id_index(id), index);
        if (!error)
            *out = index == 0 ? FSM_ROOT : group_id(READ_ONCE(above->stamp), index);
    }
    return error;
}

UNLOCKED int fsm_name(fsm_region *r, fsm_id id, char out[FSM_NAME_MAX + 1], size_t *length)
{
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        group *g;
        error = seek_group(r, &at, id, &g);
        uint32_t bytes = error ? 0 : READ_ONCE(g->name_length);
        if (bytes > FSM_NAME_MAX)
            error = DAMAGED(r, &at, "group %u has a name of %u bytes", id_index(id), bytes);
        if (!error) {
            *length = bytes;
            copy_name(g, out, bytes);
        }
    }
    return error;
}

/* Fills in the children, or only their ids, whichever is not NULL. */
UNLOCKED static int64_t list_children(fsm_region *r, fsm_id id, fsm_child *out, fsm_id *ids, size_t room)
{
    int error = 0;
    size_t n = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        group *g;
        n = 0;
        error = seek_group(r, &at, id, &g);
        for (uint32_t i = error ? NONE : READ_ONCE(g->first_child); i != NONE; n++) {
            const group *child = group_at(r, i);
            uint32_t length = child ? READ_ONCE(child->name_length) : 0;
            if (!child || length > FSM_NAME_MAX || n > r->geometry.groups) {
                error = DAMAGED(r, &at, "the children of group %u are damaged", id_index(id));
                break;
            }
            if (n < room && ids)
                ids[n] = group_id(READ_ONCE(child->stamp), i);
            if (n < room && out) {
                out[n].id = group_id(READ_ONCE(child->stamp), i);
                out[n].length = length;
                copy_name(child, out[n].name, length);
            }
            i = READ_ONCE(child->next_sibling);
        }
    }
    return error ? error : (int64_t)n;
}

int64_t fsm_children(fsm_region *r, fsm_id id, fsm_child *out, size_t room)
{
    return list_children(r, id, out, NULL, room);
}

int64_t fsm_child_ids(fsm_region *r, fsm_id id, fsm_id *out, size_t room)
{
    return list_children(r, id, NULL, out, room);
}

UNLOCKED int fsm_child_count(fsm_region *r, fsm_id id, uint32_t *out)
{
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        group *g;
        error = seek_group(r, &at, id, &g);
        uint32_t children = error ? 0 : READ_ONCE(g->children);
        if (children > r->geometry.groups) /* callers make room for as many */
            error = DAMAGED(r, &at, "group %u has %u children", id_index(id), children);
        else if (!error)
            *out = children;
    }
    return error;
}

/* ---- attributes -------------------------------------------------------------------- */

attributes *attributes_of(fsm_region *r, group *g, uint32_t slot)
{
    return slot == 0 ? &g->directory : file_attributes(r, group_index(r, g), slot);
}

/* A bank of a group is kept from the first change of one of its files. Most banks never are. */
static int keep_attributes(fsm_region *r, group *g, uint32_t slot)
{
    uint32_t bank = bank_of(slot);
    if (keeps_bank(g, bank))
        return 0;
    attributes *first = bank_at(r, group_index(r, g), bank);
    int error = populate(r, first, bank_size(r));
    if (error)
        return error;
    memset(first, 0, bank_size(r));
    FAULT_POINT(cleared);
    __atomic_store_n(&g->custom, g->custom | 1u << bank, __ATOMIC_RELEASE);
    FAULT_POINT(kept);
    return 0;
}

UNLOCKED int fsm_get_attr(fsm_region *r, fsm_id id, uint32_t slot, fsm_attr *out)
{
    if (slot > slots_of(r))
        return -EINVAL;
    int error = 0;
    reading at = { 0 };
    while (reads(r, &at, &error)) {
        group *g;
        error = seek_group(r, &at, id, &g);
        if (!error) {
            const attributes unset = { .set = 0 };
            bool kept = slot == 0 || keeps_bank(g, bank_of(slot));
            const attributes *a = kept ? attributes_of(r, g, slot) : &unset;
            uint32_t set = slot == 0 ? UINT32_MAX : READ_ONCE(a->set);
            out->mode = set & FSM_SET_MODE ? READ_ONCE(a->mode) : FSM_MODE_UNSET;
            out->uid = set & FSM_SET_UID ? READ_ONCE(a->uid) : READ_ONCE(g->creator_uid);
            out->gid = set & FSM_SET_GID ? READ_ONCE(a->gid) : READ_ONCE(g->creator_gid);
            out->atime = set & FSM_SET_ATIME ? READ_ONCE(a->atime) : READ_ONCE(g->birth);
            out->mtime = set & FSM_SET_MTIME ? READ_ONCE(a->mtime) : READ_ONCE(g->birth);
            out->ctime = set ? READ_ONCE(a->ctime) : READ_ONCE(g->birth);
        }
    }
    return error;
}

int fsm_set_attr(fsm_region *r, fsm_id id, uint32_t slot, uint32_t mask, const fsm_attr *attr, int64_t now)
{
    if (slot > slots_of(r))
        return -EINVAL;
    int error = lock(r);
    if (error)
        return error;
    group *g;
    error = find_group(r, id, &g);
    if (!error && slot > 0)
        error = keep_attributes(r, g, slot);
    if (!error) {
        attributes *a = attributes_of(r, g, slot);
        journal *j = &r->header->journal;
        j->index = id_index(id);
        j->slot = slot;
        j->attributes = *a;
        if (mask & FSM_SET_MODE)
            j->attributes.mode = (uint16_t)(attr->mode & 07777);
        if (mask & FSM_SET_UID)
            j->attributes.uid = attr->uid;
        if (mask & FSM_SET_GID)
            j->attributes.gid = attr->gid;
        if (mask & FSM_SET_ATIME)
            j->attributes.atime = attr->atime;
        if (mask & FSM_SET_MTIME)
            j->attributes.mtime = attr->mtime;
        j->attributes.ctime = now;
        j->attributes.set |= (uint16_t)mask;
        FAULT_POINT(journal_written);
        journal_commit(j, JOURNAL_ATTRIBUTES);
        FAULT_POINT(journal_committed);
        begin_change(r->header);
        *a = j->attributes;
        FAULT_POINT(set);
        journal_commit(j, JOURNAL_EMPTY);
        FAULT_POINT(journal_emptied);
        end_change(r->header);
    }
    unlock(r);
    return error;
}
