/* groups.c - making, removing and renaming groups. */
#include "counters/counter.h"
#include "counters/group.h"
#include "holders/reap.h"
#include "observe/events.h"
#include "region/fault_point.h"
#include "region/journal.h"
#include "region/lock.h"
#include "region/pool.h"
#include "region/reading.h"

#include <errno.h>
#include <string.h>

static int check_name(const char *name, size_t length)
{
    if (length > FSM_NAME_MAX)
        return -ENAMETOOLONG;
    if (length == 0 || memchr(name, '/', length) || memchr(name, '\n', length) || memchr(name, 0, length))
        return -EINVAL;
    if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
        return -EINVAL;
    return 0;
}

static int make_group(fsm_region *r, uint32_t parent, const char *name, size_t length, const attributes *attr,
                      fsm_id *out)
{
    uint32_t index;
    int error = take_record(r, GROUPS, &index);
    if (error)
        return error;
    group *g = &r->groups[index];
    stamp before = g->stamp;
    begin_change(r->header);
    memset((char *)g + sizeof before, 0, sizeof *g - sizeof before); /* all but the stamp: stale ids stay stale */
    FAULT_POINT(cleared);
    g->parent = parent;
    g->name_length = (uint32_t)length;
    memcpy(g->name, name, length);
    g->directory = *attr;
    g->creator_uid = attr->uid;
    g->creator_gid = attr->gid;
    g->birth = attr->mtime;
    g->first_child = g->last_child = NONE;
    FAULT_POINT(described);
    uint32_t resources = r->geometry.resources;
    for (uint32_t i = 0; i < resources; i++)
        reset_counter(&r->counters[index * resources + i]);
    FAULT_POINT(counters_reset);
    __atomic_store_n(&g->stamp, make_stamp((generation(before) + 1) & GENERATION_MASK, LIVE), __ATOMIC_RELEASE);
    FAULT_POINT(made);
    link_group(r, g);
    touch(&r->groups[parent], attr->mtime);
    FAULT_POINT(parent_touched);
    end_change(r->header);
    *out = group_id(g->stamp, index);
    return 0;
}

int fsm_mkdir(fsm_region *r, fsm_id parent, const char *name, size_t length, uint32_t mode, uint32_t uid, uint32_t gid,
              int64_t now, fsm_id *out)
{
    int error = check_name(name, length);
    if (error)
        return error;
    error = lock(r);
    if (error)
        return error;
    group *above, *taken;
    error = find_group(r, parent, &above);
    if (!error) {
        error = find_child(r, id_index(parent), name, length, &taken);
        if (error == 0)
            error = -EEXIST;
        else if (error == -ENOENT && above->depth >= FSM_DEPTH_MAX)
            error = -ENAMETOOLONG;
    }
    if (error == -ENOENT) {
        attributes attr = {
            .mode = (uint16_t)(mode & 07777), .uid = uid, .gid = gid, .atime = now, .mtime = now, .ctime = now
        };
        error = make_group(r, id_index(parent), name, length, &attr, out);
    }
    unlock(r);
    return error;
}

/* 0; -EBUSY if a live holder may charge here, or something is held. */
static int check_unused(fsm_region *r, uint32_t index)
{
    uint32_t resources = r->geometry.resources;
    for (uint32_t i = 0; i < resources; i++) {
        counter *c = &r->counters[index * resources + i];
        int error = reap_counter(r, c);
        if (error)
            return error;
        if (c->reserved > 0)
            return -EBUSY;
    }
    return 0;
}

/* The parent keeps the event counts of a group that is removed. From the journal's commit on, the group is removed. */
static void pass_on_counts(fsm_region *r, const group *g)
{
    uint32_t resources = r->geometry.resources;
    const counter *from = &r->counters[group_index(r, g) * resources];
    counter *to = &r->counters[parent_index(r, g) * resources];
    journal *j = &r->header->journal;
    j->index = group_index(r, g);
    for (uint32_t i = 0; i < resources; i++)
        j->past[i] = (counts){
            .refusals = to[i].past.refusals + from[i].past.refusals + READ_ONCE(from[i].refusals),
            .soft_crossings = to[i].past.soft_crossings + from[i].past.soft_crossings + from[i].soft_crossings,
            .threshold_crossings =
                to[i].past.threshold_crossings + from[i].past.threshold_crossings + from[i].threshold_crossings,
        };
    FAULT_POINT(journal_written);
    journal_commit(j, JOURNAL_REMOVE);
    FAULT_POINT(journal_committed);
    for (uint32_t i = 0; i < resources; i++) {
        to[i].past = j->past[i];
        FAULT_POINT(past_set);
    }
}

int fsm_rmdir(fsm_region *r, fsm_id id, int64_t now)
{
    int error = lock(r);
    if (error)
        return error;
    group *g;
    error = find_group(r, id, &g);
    if (!error && (id_index(id) == 0 || g->children > 0))
        error = -EBUSY;
    if (!error)
        error = check_unused(r, id_index(id));
    if (!error) {
        begin_change(r->header); /* stays open if damage is found: recovery ends it */
        error = unlink_group(r, g);
    }
    if (!error) {
        pass_on_counts(r, g);
        __atomic_store_n(&g->stamp, make_stamp(generation(g->stamp), FREE), __ATOMIC_RELEASE);
        FAULT_POINT(removed);
        journal_commit(&r->header->journal, JOURNAL_EMPTY);
        FAULT_POINT(journal_emptied);
        for (uint32_t i = 0; i < r->geometry.resources && !error; i++)
            error = end_watches_of(r, &r->counters[id_index(id) * r->geometry.resources + i]);
        touch(&r->groups[parent_index(r, g)], now);
        FAULT_POINT(parent_touched);
        free_record(r, GROUPS, id_index(id));
        end_change(r->header);
    }
    unlock(r);
    return error;
}

int fsm_rename(fsm_region *r, fsm_id id, const char *name, size_t length, int64_t now)
{
    int error = check_name(name, length);
    if (error)
        return error;
    error = lock(r);
    if (error)
        return error;
    group *g, *taken = NULL;
    error = find_group(r, id, &g);
    if (!error && id_index(id) == 0)
        error = -EBUSY;
    if (!error) {
        error = find_child(r, g->parent, name, length, &taken);
        if (error == 0 && taken != g)
            error = -EEXIST;
        else if (error == -ENOENT)
            error = 0;
    }
    if (!error) {
        begin_change(r->header);
        if (!taken)
            error = unlink_name(r, g);
    }
    if (!error) {
        journal *j = &r->header->journal;
        j->index = id_index(id);
        j->name_length = (uint32_t)length;
        memcpy(j->name, name, length);
        FAULT_POINT(journal_written);
        journal_commit(j, JOURNAL_RENAME);
        FAULT_POINT(journal_committed);
        memcpy(g->name, name, length);
        FAULT_POINT(name_copied);
        g->name_length = (uint32_t)length;
        journal_commit(j, JOURNAL_EMPTY);
        FAULT_POINT(journal_emptied);
        if (!taken)
            link_name(r, g);
        g->directory.ctime = now;
        FAULT_POINT(changed);
        touch(&r->groups[parent_index(r, g)], now);
        FAULT_POINT(parent_touched);
        end_change(r->header);
    }
    unlock(r);
    return error;
}
