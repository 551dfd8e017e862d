/*
 * crash.c - a process is killed after each single store of each operation.
 *
 * A victim does one operation while its parent lets it go on by one instruction at
 * a time and looks which of them change the region.  Then the same is played again
 * from the start for every such instruction, and there the victim is killed.  The
 * survivors must find the operation done or not done (or, of the operations that
 * are many, each of its parts), everything derived in order, all that the victim
 * held given back, no limit off by one, and no record lost.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "trial.h"

enum { MEMORY, TOKENS, RESOURCES };
enum { GROUPS = 9, HOLDERS = 6, CELLS = 24, LIMIT = 100000 };

/* ---- the scene: the same at the beginning of each play ------------------------- */

typedef struct scene {
    fsm_region *region;
    const unsigned char *bytes; /* a view of the region's own */
    size_t size;
    fsm_id a, b, c, empty;                  /* /a/b/c and /empty */
    fsm_id survivor, idle;                  /* holders */
    fsm_charger survives[RESOURCES], idles; /* in c, and in b */
    pid_t victim, dead_pid;
} scene;

/* The victim's own things; it makes them itself. */
typedef struct victim {
    scene *scene;
    fsm_region *region;
    fsm_id holder;
    fsm_charger charger; /* of MEMORY in c; it holds 1000 */
    fsm_charger tokens;
} victim;

typedef struct play {
    const char *name;
    void (*act)(victim *v);
    bool in_parts; /* many steps: each part of it is done or not */
    bool ends_idle;
    bool after_a_death; /* that nobody has noticed: what finds it gives back what the dead one held */
    bool after_a_crash; /* another process died half-way before: the victim has to recover first */
} play;

static int64_t the_batch;

static fsm_id hold(fsm_region *region, fsm_id group, uint32_t flags, fsm_charger *charger, uint32_t resource,
                   int64_t amount)
{
    fsm_id holder;
    expect(fsm_holder_create(region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, flags, &holder),
           "holder_create");
    expect(fsm_holder_join(region, holder, group), "holder_join");
    fsm_charger_init(charger);
    expect(fsm_charger_bind(charger, region, holder, group, resource), "bind");
    expect(fsm_charge(charger, amount), "charge");
    return holder;
}

static fsm_id make(fsm_region *region, fsm_id parent, const char *name)
{
    fsm_id id;
    expect(fsm_mkdir(region, parent, name, strlen(name), 0755, 1, 2, 3, &id), "mkdir");
    return id;
}

/* A process that kept c's tokens and b's, and was killed; nobody has noticed yet. */
static void leave_a_dead_one(scene *s)
{
    s->dead_pid = fork();
    if (s->dead_pid == 0) {
        fsm_charger charger;
        fsm_id holder = hold(s->region, s->c, FSM_KEEP, &charger, TOKENS, 40);
        expect(fsm_holder_join(s->region, holder, s->b), "holder_join");
        expect(fsm_charger_bind(&charger, s->region, holder, s->b, TOKENS), "bind");
        expect(fsm_charge(&charger, 4), "charge");
        _exit(0);
    }
    int status;
    if (waitpid(s->dead_pid, &status, 0) != s->dead_pid || status)
        violation("the one that is to be dead ended with status %x", (unsigned)status);
}

static fsm_id holder_of(fsm_region *region, pid_t pid)
{
    fsm_holder_info holders[HOLDERS];
    int64_t count = fsm_all_holders(region, holders, HOLDERS);
    expect(count, "all_holders");
    for (int64_t i = 0; i < count; i++)
        if (holders[i].pid == pid)
            return holders[i].id;
    return UINT64_MAX;
}

static void set_the_scene(scene *s, const play *p)
{
    fsm_geometry geometry = { .groups = GROUPS,
                              .holders = HOLDERS,
                              .cells = CELLS,
                              .resources = RESOURCES,
                              .batch = the_batch,
                              .resource = { { "memory", 0 }, { "tokens", 1 } } };
    struct stat status;
    *s = (scene){ 0 };
    expect(fsm_create(NULL, &geometry, 0, 0, &s->region), "create");
    fstat(fsm_fd(s->region), &status);
    s->size = (size_t)status.st_size;
    s->bytes = mmap(NULL, s->size, PROT_READ, MAP_SHARED, fsm_fd(s->region), 0);
    s->a = make(s->region, FSM_ROOT, "a");
    s->b = make(s->region, s->a, "b");
    s->c = make(s->region, s->b, "c");
    s->empty = make(s->region, FSM_ROOT, "empty");
    expect(fsm_set_limit(s->region, s->a, MEMORY, LIMIT), "set_limit");
    if (p->after_a_death)
        leave_a_dead_one(s);
    s->survivor = hold(s->region, s->c, 0, &s->survives[MEMORY], MEMORY, 700);
    fsm_charger_init(&s->survives[TOKENS]);
    expect(fsm_charger_bind(&s->survives[TOKENS], s->region, s->survivor, s->c, TOKENS), "bind");
    expect(fsm_charge(&s->survives[TOKENS], 7), "charge");
    s->idle = hold(s->region, s->b, 0, &s->idles, MEMORY, 3000);
    expect(fsm_uncharge(&s->idles, 2000), "uncharge"); /* leaves stock behind */
    expect(fsm_common_charge(s->region, s->c, MEMORY, 500), "common_charge");
}

static void strike_the_scene(scene *s)
{
    for (int r = 0; r < RESOURCES; r++)
        fsm_charger_unbind(&s->survives[r]);
    fsm_charger_unbind(&s->idles);
    munmap((void *)(uintptr_t)s->bytes, s->size);
    fsm_close(s->region);
}

/* ---- the plays ---------------------------------------------------------------- */

static void charge_from_stock(victim *v)
{
    fsm_charge(&v->charger, 1);
}
static void charge_with_refill(victim *v)
{
    fsm_charge(&v->charger, 5000);
}
static void charge_all_there_is(victim *v)
{
    fsm_stat stat;
    expect(fsm_get_stat(v->region, v->scene->c, MEMORY, &stat), "stat");
    expect(fsm_charge(&v->charger, stat.hierarchical_margin), "charge");
}
static void charge_too_much(victim *v)
{
    fsm_charge(&v->charger, LIMIT);
}
static void charge_without_asking(victim *v)
{
    bool exceeded;
    expect(fsm_charge_nofail(&v->charger, LIMIT, &exceeded), "charge_nofail");
}
static void uncharge_a_little(victim *v)
{
    fsm_uncharge(&v->charger, 1);
}
static void uncharge_all(victim *v)
{
    expect(fsm_uncharge(&v->charger, 1000), "uncharge");
}
static void uncharge_too_much(victim *v)
{
    fsm_uncharge(&v->charger, 1001);
}
static void give(victim *v)
{
    expect(fsm_give(&v->charger, 300), "give");
}
static void give_too_much(victim *v)
{
    fsm_give(&v->charger, 3000);
}
static void take(victim *v)
{
    expect(fsm_take(&v->charger, 300), "take");
}
static void take_too_much(victim *v)
{
    fsm_take(&v->charger, 3000);
}
static void charge_common(victim *v)
{
    expect(fsm_common_charge(v->region, v->scene->b, MEMORY, 300), "common_charge");
}
static void charge_common_too_much(victim *v)
{
    fsm_common_charge(v->region, v->scene->b, MEMORY, LIMIT);
}
static void uncharge_common(victim *v)
{
    expect(fsm_common_uncharge(v->region, v->scene->c, MEMORY, 300), "common_uncharge");
}
static void force_empty(victim *v)
{
    expect(fsm_force_empty(v->region, v->scene->c, MEMORY), "force_empty");
}
static void set_limit(victim *v)
{
    int64_t usage;
    expect(fsm_usage(v->region, v->scene->b, MEMORY, &usage), "usage");
    expect(fsm_set_limit(v->region, v->scene->b, MEMORY, usage), "set_limit");
}
static void set_limit_too_low(victim *v)
{
    fsm_set_limit(v->region, v->scene->b, MEMORY, 1);
}
static void set_soft_limit(victim *v)
{
    expect(fsm_set_soft_limit(v->region, v->scene->b, MEMORY, 1), "set_soft_limit");
}
static void reset_max_usage(victim *v)
{
    expect(fsm_reset_max_usage(v->region, v->scene->b, MEMORY), "reset_max_usage");
}
static void change_batch(victim *v)
{
    expect(fsm_set_batch(v->region, 128), "set_batch");
}
static void mkdir_new(victim *v)
{
    make(v->region, v->scene->a, "new");
}
static void mkdir_taken(victim *v)
{
    fsm_id id;
    fsm_mkdir(v->region, v->scene->a, "b", 1, 0755, 0, 0, 4, &id);
}
static void rename_group(victim *v)
{
    expect(fsm_rename(v->region, v->scene->b, "renamed", 7, 4), "rename");
}
static void rmdir_empty(victim *v)
{
    expect(fsm_rmdir(v->region, v->scene->empty, 4), "rmdir");
}
static void rmdir_busy(victim *v)
{
    fsm_rmdir(v->region, v->scene->c, 4);
}
static void create_holder(victim *v)
{
    fsm_id id;
    expect(fsm_holder_create(v->region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &id),
           "holder_create");
}
static void create_lease(victim *v)
{
    fsm_id id;
    expect(fsm_holder_create(v->region, getpid(), fsm_process_start_time(getpid()), FSM_LEASE, 0, &id),
           "holder_create");
}
static void join(victim *v)
{
    expect(fsm_holder_join(v->region, v->holder, v->scene->empty), "holder_join");
}
static void join_one(victim *v)
{
    expect(fsm_holder_join_one(v->region, v->holder, v->scene->a, TOKENS), "join_one");
}
static void leave(victim *v)
{
    expect(fsm_holder_leave(v->region, v->holder, v->scene->c, 0), "leave");
}
static void leave_and_keep(victim *v)
{
    expect(fsm_holder_leave(v->region, v->holder, v->scene->c, FSM_KEEP), "leave");
}
static void end_itself(victim *v)
{
    expect(fsm_holder_end(v->region, v->holder), "holder_end");
}
static void end_itself_and_keep(victim *v)
{
    expect(fsm_holder_set_flags(v->region, v->holder, FSM_KEEP), "holder_set_flags");
    expect(fsm_holder_end(v->region, v->holder), "holder_end");
}
static void end_another(victim *v)
{
    expect(fsm_holder_end(v->region, v->scene->idle), "holder_end");
}
static void reap_the_dead(victim *v)
{
    uint32_t count;
    expect(fsm_reap_dead(v->region, &count), "reap_dead");
}
static void set_attributes(victim *v)
{
    fsm_attr attr = { .mode = 0600, .uid = 70, .gid = 80 };
    expect(fsm_set_attr(v->region, v->scene->b, 1, FSM_SET_MODE | FSM_SET_UID | FSM_SET_GID, &attr, 5), "set_attr");
}
static void become_the_server(victim *v)
{
    static fsm_server server = { .mountpoint = "/somewhere" };
    server.pid = getpid();
    server.start_time = fsm_process_start_time(server.pid);
    expect(fsm_set_server(v->region, &server), "set_server");
}
static void check_it(victim *v)
{
    if (fsm_check(v->region, stderr) != 0)
        violation("fsm_check in the victim finds these");
}
static void repair_it(victim *v)
{
    expect(fsm_repair(v->region), "repair");
}

static const play plays[] = {
    { .name = "charge from stock", .act = charge_from_stock },
    { .name = "charge with refill", .act = charge_with_refill },
    { .name = "charge all there is", .act = charge_all_there_is },
    { .name = "charge too much", .act = charge_too_much },
    { .name = "charge too much with one dead", .act = charge_too_much, .in_parts = true, .after_a_death = true },
    { .name = "charge_nofail", .act = charge_without_asking, .in_parts = true },
    { .name = "uncharge a little", .act = uncharge_a_little },
    { .name = "uncharge all", .act = uncharge_all },
    { .name = "uncharge too much", .act = uncharge_too_much },
    { .name = "give", .act = give },
    { .name = "give too much", .act = give_too_much },
    { .name = "take", .act = take },
    { .name = "take too much", .act = take_too_much },
    { .name = "common charge", .act = charge_common },
    { .name = "common charge too much", .act = charge_common_too_much },
    { .name = "common uncharge", .act = uncharge_common },
    { .name = "force_empty", .act = force_empty },
    { .name = "set_limit", .act = set_limit },
    { .name = "set_limit too low", .act = set_limit_too_low },
    { .name = "set_soft_limit", .act = set_soft_limit },
    { .name = "reset_max_usage", .act = reset_max_usage },
    { .name = "set_batch", .act = change_batch },
    { .name = "mkdir", .act = mkdir_new },
    { .name = "mkdir of a name that is taken", .act = mkdir_taken },
    { .name = "rename", .act = rename_group },
    { .name = "rmdir", .act = rmdir_empty },
    { .name = "rmdir of a busy group", .act = rmdir_busy },
    { .name = "rmdir of a busy group with one dead", .act = rmdir_busy, .in_parts = true, .after_a_death = true },
    { .name = "holder_create", .act = create_holder },
    { .name = "holder_create of a lease", .act = create_lease },
    { .name = "join", .act = join, .in_parts = true },
    { .name = "join_one", .act = join_one },
    { .name = "leave", .act = leave, .in_parts = true },
    { .name = "leave and keep", .act = leave_and_keep, .in_parts = true },
    { .name = "end itself", .act = end_itself, .in_parts = true },
    { .name = "end itself and keep", .act = end_itself_and_keep, .in_parts = true },
    { .name = "end another", .act = end_another, .in_parts = true, .ends_idle = true },
    { .name = "reap the dead", .act = reap_the_dead, .in_parts = true, .after_a_death = true },
    { .name = "set_attr", .act = set_attributes, .in_parts = true },
    { .name = "set_server", .act = become_the_server },
    { .name = "check", .act = check_it },
    { .name = "repair", .act = repair_it },
    { .name = "recovery and a charge", .act = charge_with_refill, .after_a_crash = true },
    { .name = "recovery and mkdir", .act = mkdir_new, .after_a_crash = true },
    { .name = "recovery and the end", .act = end_itself_and_keep, .after_a_crash = true },
};

/* ---- what there is to see ------------------------------------------------------- */

enum { VALUES = 400 };

/* Everything a user can see, as names and numbers; what is not there is not listed. */
typedef struct view {
    int count;
    struct value {
        char name[64];
        int64_t number;
        bool sum; /* of several parts */
    } at[VALUES];
} view;

__attribute__((format(printf, 4, 5))) static void put(view *v, int64_t number, bool sum, const char *format, ...)
{
    if (v->count == VALUES)
        violation("the test sees more than it has room for");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->at[v->count].name, sizeof v->at->name, format, arguments);
    va_end(arguments);
    v->at[v->count].number = number;
    v->at[v->count++].sum = sum;
}

static const struct value *get(const view *v, const char *name)
{
    for (int i = 0; i < v->count; i++)
        if (strcmp(v->at[i].name, name) == 0)
            return &v->at[i];
    return NULL;
}

static char role_of(const scene *s, const fsm_holder_info *h)
{
    return h->id == s->survivor                   ? 'S'
           : h->id == s->idle                     ? 'I'
           : s->dead_pid && h->pid == s->dead_pid ? 'D'
           : h->pid == s->victim                  ? 'V'
                                                  : '?';
}

/* Returns the usage of the group as its parts make it. */
static void see_group(scene *s, view *v, fsm_id id, const char *path, int64_t usage[RESOURCES])
{
    fsm_child children[GROUPS];
    int64_t count = fsm_children(s->region, id, children, GROUPS);
    expect(count, "children");
    for (int r = 0; r < RESOURCES; r++)
        usage[r] = 0;
    for (int64_t i = 0; i < count; i++) {
        char below[64];
        int64_t part[RESOURCES];
        fsm_id found;
        expect(fsm_lookup(s->region, id, children[i].name, children[i].length, &found), "lookup");
        if (found != children[i].id)
            violation("%s/%s is found as another group", path, children[i].name);
        snprintf(below, sizeof below, "%.30s/%.30s", path, children[i].name);
        see_group(s, v, children[i].id, below, part);
        for (int r = 0; r < RESOURCES; r++)
            usage[r] += part[r];
    }
    fsm_attr attr;
    expect(fsm_get_attr(s->region, id, 1, &attr), "get_attr");
    put(v, attr.mode, false, "%s mode", path);
    put(v, attr.uid, false, "%s uid", path);
    put(v, attr.gid, false, "%s gid", path);
    for (int r = 0; r < RESOURCES; r++) {
        fsm_stat stat;
        fsm_holder_info holders[HOLDERS];
        int64_t held = 0;
        expect(fsm_get_stat(s->region, id, (uint32_t)r, &stat), "stat");
        count = fsm_counter_holders(s->region, id, (uint32_t)r, holders, HOLDERS);
        expect(count, "counter_holders");
        for (int64_t i = 0; i < count; i++) {
            held += holders[i].held;
            put(v, holders[i].held, false, "%s %d held by %c", path, r, role_of(s, &holders[i]));
        }
        put(v, stat.common, false, "%s %d common", path, r);
        put(v, stat.limit, false, "%s %d limit", path, r);
        put(v, stat.soft_limit, false, "%s %d soft_limit", path, r);
        put(v, stat.failcnt, true, "%s %d failcnt", path, r);
        put(v, stat.usage, true, "%s %d usage", path, r);
        put(v, stat.usage_local, true, "%s %d usage_local", path, r);
        usage[r] += held + stat.common;
        if (stat.usage != usage[r] || stat.usage_local != held + stat.common ||
            stat.reserved != stat.usage + stat.stock || stat.max_usage < stat.usage || stat.min_usage > stat.usage ||
            stat.holders != count)
            violation("%s resource %d contradicts itself: usage %" PRId64 " (its parts: %" PRId64 ") local %" PRId64
                      " reserved %" PRId64 " stock %" PRId64 " max %" PRId64 " min %" PRId64,
                      path, r, stat.usage, usage[r], stat.usage_local, stat.reserved, stat.stock, stat.max_usage,
                      stat.min_usage);
    }
}

static void see(scene *s, view *v)
{
    int64_t usage[RESOURCES];
    fsm_server server;
    fsm_holder_info holders[HOLDERS + CELLS];
    v->count = 0;
    see_group(s, v, FSM_ROOT, "", usage);
    int64_t count = fsm_all_holders(s->region, holders, HOLDERS + CELLS);
    expect(count, "all_holders");
    put(v, count, false, "holders");
    expect(fsm_get_server(s->region, &server), "get_server");
    put(v, server.pid ? 1 : 0, false, "served");
}

static bool same(const view *a, const view *b)
{
    for (int i = 0; i < a->count; i++) {
        const struct value *other = get(b, a->at[i].name);
        if (!other || other->number != a->at[i].number)
            return false;
    }
    return a->count == b->count;
}

static bool is_value_of(const struct value *value, const view *v)
{
    const struct value *other = get(v, value->name);
    return other && other->number == value->number;
}

static void check_parts(const view *before, const view *now, const view *after)
{
    for (int i = 0; i < now->count; i++) {
        const struct value *value = &now->at[i], *was = get(before, value->name), *is = get(after, value->name);
        if (is_value_of(value, before) || is_value_of(value, after))
            continue;
        if (value->number == 0 && !is && strstr(value->name, " held by ")) /* kept by the group already, still joined */
            continue;
        int64_t low = was  ? was->number
                      : is ? is->number
                           : INT64_MAX,
                high = is    ? is->number
                       : was ? was->number
                             : INT64_MIN;
        if (low > high) {
            int64_t swap = low;
            low = high;
            high = swap;
        }
        if (!value->sum || value->number < low || value->number > high)
            violation("%s is %" PRId64 ", was %" PRId64 " before and is %" PRId64 " after", value->name, value->number,
                      was ? was->number : -1, is ? is->number : -1);
    }
}

static void check_whole(const view *before, const view *now, const view *after)
{
    if (same(now, before) || same(now, after))
        return;
    for (int i = 0; i < now->count; i++)
        if (!is_value_of(&now->at[i], before))
            fprintf(stderr, "  not as before: %s %" PRId64 "\n", now->at[i].name, now->at[i].number);
    for (int i = 0; i < now->count; i++)
        if (!is_value_of(&now->at[i], after))
            fprintf(stderr, "  not as after: %s %" PRId64 "\n", now->at[i].name, now->at[i].number);
    violation("neither done nor not done");
}

static void check_derived(scene *s, const char *when)
{
    int64_t findings = fsm_check(s->region, stderr);
    expect(findings, "check");
    if (findings)
        violation("%s, fsm_check finds these %" PRId64, when, findings);
}

/* ---- what the survivors can still do --------------------------------------------- */

/* Up to the limit, and not one more. */
static void fill(scene *s)
{
    fsm_stat stat;
    expect(fsm_get_stat(s->region, s->c, MEMORY, &stat), "stat");
    if (stat.hierarchical_margin > LIMIT)
        violation("the limit is gone: a margin of %" PRId64, stat.hierarchical_margin);
    expect(fsm_charge(&s->survives[MEMORY], stat.hierarchical_margin), "charge of the margin");
    if (fsm_charge(&s->survives[MEMORY], 1) != -ENOMEM)
        violation("charged one more than the margin");
    expect(fsm_uncharge(&s->survives[MEMORY], stat.hierarchical_margin), "uncharge");
    expect(fsm_charge(&s->survives[TOKENS], 100000), "charge of tokens");
    expect(fsm_uncharge(&s->survives[TOKENS], 100000), "uncharge of tokens");
}

static int remove_below(scene *s, fsm_id id)
{
    fsm_child children[GROUPS];
    int64_t count = fsm_children(s->region, id, children, GROUPS);
    int removed = 0;
    expect(count, "children");
    for (int64_t i = 0; i < count; i++) {
        removed += 1 + remove_below(s, children[i].id);
        for (int r = 0; r < RESOURCES; r++)
            expect(fsm_force_empty(s->region, children[i].id, (uint32_t)r), "force_empty");
        expect(fsm_rmdir(s->region, children[i].id, 9), "rmdir");
    }
    return removed;
}

/* Every record can be used again: none was lost, but for the cells of a holder that was ended under a live process. */
static void fill_the_region(scene *s, int quarantined)
{
    fsm_id holders[HOLDERS], groups[GROUPS], id;
    int cells = 0, made;
    char name[16];
    for (made = 0; made < GROUPS + 1; made++) {
        int length = snprintf(name, sizeof name, "n%d", made);
        int result = fsm_mkdir(s->region, FSM_ROOT, name, (size_t)length, 0755, 0, 0, 9, &id);
        if (result == -ENOSPC)
            break;
        expect(result, "mkdir");
        groups[made] = id;
    }
    if (made != GROUPS - 1)
        violation("%d groups can be made, there is room for %d", made, GROUPS - 1);
    int people = 0;
    for (; people < HOLDERS + 1; people++) {
        int result = fsm_holder_create(s->region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &id);
        if (result == -ENOSPC)
            break;
        expect(result, "holder_create");
        holders[people] = id;
    }
    if (people != HOLDERS)
        violation("%d holders can be made, there is room for %d", people, HOLDERS);
    for (int h = 0; h < people; h++)
        for (int g = 0; g < made; g++)
            for (uint32_t r = 0; r < RESOURCES; r++) {
                int result = fsm_holder_join_one(s->region, holders[h], groups[g], r);
                if (result != -ENOSPC)
                    expect(result, "join_one");
                cells += result == 0;
            }
    if (cells > CELLS || cells < CELLS - quarantined)
        violation("%d cells can be made, there is room for %d", cells, CELLS);
    for (int h = 0; h < people; h++)
        expect(fsm_holder_end(s->region, holders[h]), "holder_end");
    remove_below(s, FSM_ROOT);
}

static void end_all(scene *s)
{
    fsm_holder_info holders[HOLDERS + CELLS];
    int64_t count = fsm_all_holders(s->region, holders, HOLDERS + CELLS);
    expect(count, "all_holders");
    for (int64_t i = 0; i < count; i++)
        expect(fsm_holder_end(s->region, holders[i].id), "holder_end");
    remove_below(s, FSM_ROOT);
    for (int r = 0; r < RESOURCES; r++) {
        int64_t usage;
        expect(fsm_usage(s->region, FSM_ROOT, (uint32_t)r, &usage), "usage");
        if (usage)
            violation("when all is gone, the usage is %" PRId64, usage);
    }
}

/* ---- a play ------------------------------------------------------------------------ */

static pid_t start_victim(scene *s, void (*act)(victim *))
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        violation("fork: %s", strerror(errno));
    if (pid == 0) {
        victim v = { .scene = s, .region = s->region };
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        v.holder = hold(s->region, s->c, 0, &v.charger, MEMORY, 1000);
        fsm_charger_init(&v.tokens);
        expect(fsm_charger_bind(&v.tokens, s->region, v.holder, s->c, TOKENS), "bind");
        expect(fsm_charge(&v.tokens, 10), "charge");
        if (ptrace(PTRACE_TRACEME, 0, 0, 0)) {
            fprintf(stderr, "ptrace: %s\n", strerror(errno));
            _exit(77);
        }
        raise(SIGSTOP);
        act(&v);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid)
        violation("waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        exit(77); /* no ptrace here */
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
        violation("the victim could not start: status %x", (unsigned)status);
    return pid;
}

/* One instruction; false when the victim has come to its end. */
static bool step(pid_t pid)
{
    int status;
    if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0))
        violation("ptrace: %s", strerror(errno));
    if (waitpid(pid, &status, 0) != pid)
        violation("waitpid: %s", strerror(errno));
    if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP)
        return true;
    if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP)
        return false;
    violation("the victim came to status %x", (unsigned)status);
}

static void kill_victim(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
        violation("the victim did not die: %x", (unsigned)status);
}

/* Another dies in the middle of a charge, with the lock: who takes it next has to recover. */
static void crash_before(scene *s, uint64_t steps)
{
    pid_t pid = start_victim(s, charge_with_refill);
    for (uint64_t i = 0; i < steps; i++)
        if (!step(pid))
            break;
    kill_victim(pid);
}

enum { POINTS_MAX = 20000 };

typedef struct course {
    uint64_t steps; /* in all */
    int count;
    uint64_t change[POINTS_MAX]; /* after so many steps the region was changed */
} course;

static course run_of[1];
static view before, after, now;
static uint64_t crash_at; /* the instruction after which the one before dies: in the middle of its charge */

static void aftermath(scene *s, const play *p)
{
    check_derived(s, "after the kill");
    see(s, &now);
    if (p->after_a_crash)
        ;
    else if (p->in_parts)
        check_parts(&before, &now, &after);
    else
        check_whole(&before, &now, &after);
    uint32_t reaped;
    expect(fsm_reap_dead(s->region, &reaped), "reap_dead");
    if (holder_of(s->region, s->victim) != UINT64_MAX ||
        (s->dead_pid && holder_of(s->region, s->dead_pid) != UINT64_MAX))
        violation("the dead are reaped and are still holders");
    see(s, &now);
    for (int i = 0; i < now.count; i++) {
        size_t length = strlen(now.at[i].name);
        char role = now.at[i].name[length - 1];
        if (strstr(now.at[i].name, " held by ") && role != 'S' && role != 'I')
            violation("%s %" PRId64 " after the dead were reaped", now.at[i].name, now.at[i].number);
    }
    int64_t held;
    expect(fsm_held(&s->survives[MEMORY], &held), "held");
    if (held != 700)
        violation("the survivor holds %" PRId64 ", not 700", held);
    if (!p->ends_idle) {
        expect(fsm_held(&s->idles, &held), "held");
        if (held != 1000)
            violation("the idle one holds %" PRId64 ", not 1000", held);
    }
    fill(s);
    check_derived(s, "after the survivors went on");
    for (int r = 0; r < RESOURCES; r++)
        fsm_charger_unbind(&s->survives[r]);
    fsm_charger_unbind(&s->idles);
    end_all(s);
    fill_the_region(s, p->ends_idle ? RESOURCES : 0);
    check_derived(s, "at the end");
}

/* Lets the victim go on to its end, and notes after which steps the region was another. */
static void rehearse(const play *p)
{
    scene s;
    set_the_scene(&s, p);
    s.victim = start_victim(&s, p->act);
    if (p->after_a_crash)
        crash_before(&s, crash_at);
    else
        see(&s, &before); /* after a crash that would be the recovery */
    unsigned char *copy = malloc(s.size);
    memcpy(copy, s.bytes, s.size);
    run_of->count = 0;
    for (run_of->steps = 0; step(s.victim); run_of->steps++) {
        if (memcmp(copy, s.bytes, s.size) == 0)
            continue;
        memcpy(copy, s.bytes, s.size);
        if (run_of->count == POINTS_MAX)
            violation("more than %d stores", POINTS_MAX);
        run_of->change[run_of->count++] = run_of->steps + 1;
    }
    free(copy);
    see(&s, &after);
    kill_victim(s.victim);
    aftermath(&s, p);
    strike_the_scene(&s);
}

static void perform(const play *p, uint64_t steps)
{
    scene s;
    set_the_scene(&s, p);
    s.victim = start_victim(&s, p->act);
    if (p->after_a_crash)
        crash_before(&s, crash_at);
    for (uint64_t i = 0; i < steps; i++)
        if (!step(s.victim))
            break;
    kill_victim(s.victim);
    aftermath(&s, p);
    strike_the_scene(&s);
}

int main(int argc, char **argv)
{
    trial_seed = option(argc, argv, "--seed", fresh_seed());
    uint64_t points = option(argc, argv, "--points", 3); /* of each play; 0: all */
    uint64_t only = option(argc, argv, "--play", UINT64_MAX);
    static const int64_t batches[] = { FSM_BATCH_AUTO, 0 };
    static char again[200];
    trial_again = again;
    random_source random = { trial_seed };
    uint64_t kills = 0;
    for (size_t i = 0; i < sizeof plays / sizeof *plays; i++)
        for (size_t b = 0; b < 2; b++) {
            uint64_t seed = random_bits(&random);
            if (only != UINT64_MAX && only != i)
                continue;
            if (points && only == UINT64_MAX && (seed & 1) != b) /* the short way: with stock or without */
                continue;
            random_source own = { seed };
            the_batch = batches[b];
            snprintf(again, sizeof again, " --points %" PRIu64 " --play %zu; %s, batch %" PRId64, points, i,
                     plays[i].name, the_batch);
            if (plays[i].after_a_crash) {
                play charge = { .name = "charge", .act = charge_with_refill };
                rehearse(&charge);
                crash_at = run_of->change[run_of->count / 2];
            }
            rehearse(&plays[i]);
            size_t length = strlen(again);
            uint64_t count = points && points < (uint64_t)run_of->count ? points : (uint64_t)run_of->count;
            for (uint64_t k = 0; k < count; k++) {
                uint64_t steps = run_of->change[points ? random_below(&own, (uint64_t)run_of->count) : k];
                snprintf(again + length, sizeof again - length,
                         ", killed after %" PRIu64 " of %" PRIu64 " instructions", steps, run_of->steps);
                perform(&plays[i], steps);
                kills++;
            }
            again[length] = 0;
            if (option(argc, argv, "--verbose", 0))
                printf("%zu %s: %" PRIu64 " instructions, %d stores\n", i, plays[i].name, run_of->steps, run_of->count);
        }
    printf("crash: seed %" PRIu64 ", %" PRIu64 " kills: ok\n", trial_seed, kills);
    return 0;
}
