/* plays.c - the scene, the operations of the victim, and the checks of the survivors. */
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "plays.h"
#include "region/layout.h"

/* ---- the scene: the same at the beginning of each play ------------------------- */

int64_t the_batch;

static fsm_id hold(fsm_region *region, fsm_id where, uint32_t flags, fsm_charger *charger, uint32_t resource,
                   int64_t amount)
{
    fsm_id who;
    expect(fsm_holder_create(region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, flags, &who),
           "holder_create");
    expect(fsm_holder_join(region, who, where), "holder_join");
    fsm_charger_init(charger);
    expect(fsm_charger_bind(charger, region, who, where, resource), "bind");
    expect(fsm_charge(charger, amount), "charge");
    return who;
}

static fsm_id make(fsm_region *region, fsm_id parent, const char *name)
{
    fsm_id id;
    expect(fsm_mkdir(region, parent, name, strlen(name), 0755, 1, 2, 3, &id), "mkdir");
    return id;
}

/* Makes a lease of this process for one counter. */
static fsm_id lend(fsm_region *region, fsm_id where, uint32_t resource, fsm_charger *charger, int64_t amount)
{
    fsm_id lease;
    expect(fsm_holder_create(region, getpid(), fsm_process_start_time(getpid()), FSM_LEASE, 0, &lease),
           "holder_create");
    expect(fsm_holder_join_one(region, lease, where, resource), "join_one");
    fsm_charger_init(charger);
    expect(fsm_charger_bind(charger, region, lease, where, resource), "bind");
    expect(fsm_charge(charger, amount), "charge");
    return lease;
}

/*
 * A killed process kept tokens of b and c, held tokens of a, and had a lease of memory of b. No process has noticed
 * yet.
 */
static void leave_dead_holder(scene *s)
{
    s->dead_pid = fork_companion();
    if (s->dead_pid == 0) {
        fsm_charger charger;
        fsm_id who = hold(s->region, s->c, FSM_KEEP, &charger, TOKENS, 40);
        expect(fsm_holder_join(s->region, who, s->b), "holder_join");
        expect(fsm_charger_bind(&charger, s->region, who, s->b, TOKENS), "bind");
        expect(fsm_charge(&charger, 4), "charge");
        hold(s->region, s->a, 0, &charger, TOKENS, 6);
        lend(s->region, s->b, MEMORY, &charger, 30);
        _exit(0);
    }
    int status;
    if (waitpid(s->dead_pid, &status, 0) != s->dead_pid || status)
        violation("the process that should be dead ended with status %x", (unsigned)status);
}

static fsm_id holder_of(fsm_region *region, pid_t pid)
{
    fsm_holder_info holders[HOLDERS + CELLS];
    int64_t count = fsm_all_holders(region, holders, HOLDERS + CELLS);
    expect(count, "all_holders");
    for (int64_t i = 0; i < count; i++)
        if (holders[i].pid == pid)
            return holders[i].id;
    return UINT64_MAX;
}

void set_the_scene(scene *s, const play *p)
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
        leave_dead_holder(s);
    s->survivor = hold(s->region, s->c, 0, &s->survives[MEMORY], MEMORY, 700);
    fsm_charger_init(&s->survives[TOKENS]);
    expect(fsm_charger_bind(&s->survives[TOKENS], s->region, s->survivor, s->c, TOKENS), "bind");
    expect(fsm_charge(&s->survives[TOKENS], 7), "charge");
    s->idle = hold(s->region, s->b, 0, &s->idles, MEMORY, 3000);
    expect(fsm_uncharge(&s->idles, 2000), "uncharge"); /* leaves stock behind */
    expect(fsm_common_charge(s->region, s->c, MEMORY, 500), "common_charge");
}

/*
 * One request asks for more than there is, and the next one would fit. Both are granted once the victim holds nothing.
 */
static void wait_in_queue(scene *s)
{
    fsm_stat stat;
    expect(fsm_get_stat(s->region, s->c, MEMORY, &stat), "stat");
    for (int i = 0; i < WAITERS; i++) {
        struct asker *it = &s->asker[i];
        it->holder = hold(s->region, s->c, 0, &it->charger[MEMORY], MEMORY, 0);
        fsm_charger_init(&it->charger[TOKENS]);
        expect(fsm_charger_bind(&it->charger[TOKENS], s->region, it->holder, s->c, TOKENS), "bind");
        it->amount[MEMORY] = i == 0 ? stat.hierarchical_margin + 500 : 400;
        it->amount[TOKENS] = 50;
        fsm_charger *both[] = { &it->charger[MEMORY], &it->charger[TOKENS] };
        if (fsm_request(both, it->amount, RESOURCES, &it->request) != -EINPROGRESS)
            violation("request %d in the queue does not wait", i);
    }
}

/* Each request has all of its amounts or nothing; after the victim's death, all. */
static void check_queue(scene *s, bool at_the_end)
{
    for (int i = 0; i < WAITERS && s->asker[0].holder; i++) {
        struct asker *it = &s->asker[i];
        int64_t held[RESOURCES];
        for (int r = 0; r < RESOURCES; r++)
            expect(fsm_held(&it->charger[r], &held[r]), "held");
        int answer = fsm_await_request(s->region, it->request, 0);
        if (answer && answer != -EAGAIN)
            expect(answer, "await_request");
        for (int r = 0; r < RESOURCES; r++)
            if (held[r] != (answer ? 0 : it->amount[r]))
                violation("the request %d is %sgranted, and its holder has %" PRId64 " of resource %d", i,
                          answer ? "not " : "", held[r], r);
        if (!at_the_end)
            continue;
        if (answer)
            violation("the request %d is lost", i);
        expect(fsm_end_request(s->region, it->request), "end_request");
        for (int r = 0; r < RESOURCES; r++)
            fsm_charger_unbind(&it->charger[r]);
        expect(fsm_holder_end(s->region, it->holder), "holder_end");
    }
    if (at_the_end && s->region->header->waiting)
        violation("%u requests wait, and no process is left", s->region->header->waiting);
}

void strike_the_scene(scene *s)
{
    for (int r = 0; r < RESOURCES; r++)
        fsm_charger_unbind(&s->survives[r]);
    fsm_charger_unbind(&s->idles);
    munmap((void *)(uintptr_t)s->bytes, s->size);
    fsm_close(s->region);
}

/* ---- the victim before its play begins ------------------------------------------ */

static int64_t margin_of(const victim *v)
{
    fsm_stat stat;
    expect(fsm_get_stat(v->region, v->scene->c, MEMORY, &stat), "stat");
    return stat.hierarchical_margin;
}
/* Whether a refusal that was just recorded is recorded again. */
static void record_every_ns(int64_t every)
{
#ifdef FSM_FAULT_POINTS
    extern int64_t record_every;
    record_every = every;
#else
    static const struct timespec long_enough = { .tv_nsec = 30000000 };
    if (every == 0)
        nanosleep(&long_enough, NULL);
#endif
}
static void reach_the_limit(victim *v)
{
    v->more = margin_of(v);
    expect(fsm_charge(&v->charger, v->more), "charge");
    fsm_charge(&v->charger, 1);
    record_every_ns(INT64_MAX);
}
/* Until the refusal is old enough for the next one to be recorded. */
static void be_refused_and_wait(victim *v)
{
    reach_the_limit(v);
    fsm_charge(&v->charger, 1);
    record_every_ns(0);
}
static void have_a_lease(victim *v)
{
    v->lease = lend(v->region, v->scene->c, TOKENS, &v->leased, 20);
}
static void use_records(victim *v)
{
    fsm_charger charger;
    fsm_id where = make(v->region, v->scene->a, "used"), lease = lend(v->region, where, TOKENS, &charger, 0);
    fsm_id who = hold(v->region, where, 0, &charger, MEMORY, 100);
    expect(fsm_charger_bind(&charger, v->region, who, where, TOKENS), "bind");
    expect(fsm_charge(&charger, 10), "charge");
    expect(fsm_holder_end(v->region, lease), "holder_end");
    expect(fsm_holder_end(v->region, who), "holder_end");
    expect(fsm_rmdir(v->region, where, 4), "rmdir");
}
static void use_all_holders(victim *v)
{
    fsm_holder_info there[HOLDERS + CELLS];
    int64_t count = fsm_all_holders(v->region, there, HOLDERS + CELLS);
    expect(count, "all_holders");
    int left = HOLDERS;
    for (int64_t i = 0; i < count; i++)
        left -= there[i].kind == FSM_PROCESS;
    while (left-- > 0) {
        fsm_id id;
        expect(fsm_holder_create(v->region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &id),
               "holder_create");
    }
}
static void use_all_cells_but_one(victim *v)
{
    fsm_holder_info there[HOLDERS + CELLS];
    int64_t count = fsm_all_holders(v->region, there, HOLDERS + CELLS);
    expect(count, "all_holders");
    uint32_t left = CELLS - 1;
    for (int64_t i = 0; i < count; i++)
        left -= there[i].cells;
    while (left-- > 0) {
        fsm_charger charger;
        lend(v->region, v->scene->a, TOKENS, &charger, 0);
        fsm_charger_unbind(&charger);
    }
}
void kill_victim(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
        violation("the victim did not die: %x", (unsigned)status);
}

/* A holder was ended by another process while its own process lived, which is dead now. */
static void leave_a_quarantine(victim *v)
{
    int ready[2];
    char byte;
    if (pipe(ready))
        violation("pipe: %s", strerror(errno));
    pid_t pid = fork_companion();
    if (pid == 0) {
        fsm_charger charger;
        hold(v->region, v->scene->b, 0, &charger, MEMORY, 100);
        if (write(ready[1], "", 1) == 1)
            pause();
        _exit(1);
    }
    if (read(ready[0], &byte, 1) != 1)
        violation("read: %s", strerror(errno));
    expect(fsm_holder_end(v->region, holder_of(v->region, pid)), "holder_end");
    kill_victim(pid);
}
static void damage_what_is_derived(victim *v)
{
    v->region->counters[id_index(v->scene->b) * RESOURCES + MEMORY].stock_cap += 5;
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
    expect(fsm_charge(&v->charger, margin_of(v)), "charge");
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
static void uncharge_the_limit_away(victim *v)
{
    expect(fsm_uncharge(&v->charger, v->more), "uncharge");
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
static int change_by(victim *v, int64_t memory, int64_t tokens)
{
    fsm_charger *both[] = { &v->charger, &v->tokens };
    int64_t amounts[] = { memory, tokens };
    return fsm_change(both, amounts, 2);
}
static void change_both(victim *v)
{
    expect(change_by(v, 5000, 300), "change");
}
static void change_up_to_the_limit(victim *v)
{
    expect(change_by(v, margin_of(v), 300), "change");
}
static void change_both_ways(victim *v)
{
    expect(change_by(v, -1000, 300), "change");
}
static void change_the_limit_away(victim *v)
{
    expect(change_by(v, -v->more, -10), "change");
}
static void change_one(victim *v)
{
    fsm_charger *one = &v->charger;
    int64_t amount = 5000;
    expect(fsm_change(&one, &amount, 1), "change");
}
static void change_too_much(victim *v)
{
    if (change_by(v, LIMIT, 300) != -ENOMEM || fsm_last_fault()->which != MEMORY ||
        fsm_last_fault()->group != v->scene->a)
        violation("a change past the limit of a is not refused, or not by a");
}
static void change_less_than_nothing(victim *v)
{
    if (change_by(v, 5000, -11) != -ERANGE || fsm_last_fault()->which != TOKENS || fsm_last_fault()->held != 10)
        violation("11 of 10 tokens are given back");
}
static int move_by(victim *v, int64_t memory, int64_t tokens)
{
    fsm_charger *both[] = { &v->charger, &v->tokens };
    int64_t amounts[] = { memory, tokens };
    return fsm_move(both, amounts, 2);
}
static void move_both(victim *v)
{
    expect(move_by(v, -300, 4), "move");
}
static void move_too_much(victim *v)
{
    if (move_by(v, 300, -1) != -ERANGE || fsm_last_fault()->which != TOKENS || fsm_last_fault()->held != 0)
        violation("tokens are taken from a group that holds none");
}
static void charge_common(victim *v)
{
    expect(fsm_common_charge(v->region, v->scene->b, MEMORY, 300), "common_charge");
}
static void charge_common_too_much(victim *v)
{
    fsm_common_charge(v->region, v->scene->b, MEMORY, LIMIT);
}
static void charge_common_too_much_twice(victim *v)
{
    charge_common_too_much(v);
    charge_common_too_much(v);
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
static void reset_failcnt(victim *v)
{
    expect(fsm_reset_failcnt(v->region, v->scene->a, MEMORY), "reset_failcnt");
}
static int64_t usage_of(const victim *v, fsm_id id)
{
    int64_t usage;
    expect(fsm_usage(v->region, id, MEMORY, &usage), "usage");
    return usage;
}
static void listen_below_a_soft_limit(victim *v)
{
    fsm_listen(v->region, true);
    expect(fsm_set_soft_limit(v->region, v->scene->a, MEMORY, usage_of(v, v->scene->a) + 10), "set_soft_limit");
    expect(fsm_charge(&v->charger, 2), "charge");
}
static void listen_above_a_soft_limit(victim *v)
{
    expect(fsm_set_soft_limit(v->region, v->scene->a, MEMORY, usage_of(v, v->scene->a) - 10), "set_soft_limit");
    expect(fsm_charge(&v->charger, 2), "charge");
    fsm_listen(v->region, true);
}
static void listen(victim *v)
{
    fsm_listen(v->region, true);
}
/* Watches above and below the usage of a, and one at a percentage of its limit; listens. */
static void watch_closely(victim *v)
{
    int64_t usage = usage_of(v, v->scene->a);
    fsm_mark marks[] = {
        { usage + 10, 0 }, { usage - 10, FSM_BELOW }, { usage - 10, 0 }, { usage + 10, FSM_BELOW }, { 50, FSM_PERCENT }
    };
    expect(fsm_watch(v->region, v->scene->a, MEMORY, marks, 5, NULL, 0, v->watches), "watch");
    listen(v);
}
static void watch_and_forget(victim *v)
{
    watch_closely(v);
    expect(fsm_unwatch(v->region, v->watches, 5), "unwatch");
}
static void watch_what_is_removed(victim *v)
{
    static const fsm_mark mark = { 10, 0 };
    expect(fsm_watch(v->region, v->scene->empty, MEMORY, &mark, 1, NULL, 0, v->watches), "watch");
}
static void watch_again(victim *v)
{
    static const fsm_mark marks[] = { { 90, FSM_PERCENT }, { 20, FSM_PERCENT | FSM_BELOW } };
    fsm_id made[2];
    expect(fsm_watch(v->region, v->scene->a, MEMORY, marks, 2, v->watches, 5, made), "watch");
}
static void watch_for_the_first_time(victim *v)
{
    watch_closely(v);
}
static void unwatch(victim *v)
{
    expect(fsm_unwatch(v->region, v->watches, 5), "unwatch");
}
static void halve_the_limit(victim *v)
{
    expect(fsm_set_limit(v->region, v->scene->a, MEMORY, 2 * usage_of(v, v->scene->a) - 10), "set_limit");
}
static void listen_at_the_limit(victim *v)
{
    reach_the_limit(v);
    listen(v);
}
static void have_counted(victim *v)
{
    expect(fsm_set_soft_limit(v->region, v->scene->empty, MEMORY, 1), "set_soft_limit");
    expect(fsm_common_charge(v->region, v->scene->empty, MEMORY, 2), "common_charge");
    expect(fsm_common_uncharge(v->region, v->scene->empty, MEMORY, 2), "common_uncharge");
    listen(v);
}
/* Requests memory, and tokens unless 0; -EINPROGRESS. */
static int ask_for(victim *v, int64_t memory, int64_t tokens)
{
    fsm_charger *both[] = { &v->charger, &v->tokens };
    int64_t amounts[] = { memory, tokens };
    return fsm_request(both, amounts, tokens ? 2 : 1, &v->request);
}
static void wait_for(victim *v, int64_t memory, int64_t tokens)
{
    if (ask_for(v, memory, tokens) != -EINPROGRESS)
        violation("a request for %" PRId64 " and %" PRId64 " does not wait", memory, tokens);
}
static void ask_for_one(victim *v)
{
    expect(ask_for(v, 5000, 0), "request");
}
static void ask_for_both(victim *v)
{
    expect(ask_for(v, 5000, 300), "request");
}
static void wait_for_one(victim *v)
{
    wait_for(v, margin_of(v) + 1, 0);
}
static void wait_for_both(victim *v)
{
    wait_for(v, margin_of(v) + 1, 300);
}
static void end_request(victim *v)
{
    if (fsm_end_request(v->region, v->request) != -ECANCELED)
        violation("a request that waits does not end");
}
static void wait_in_vain(victim *v)
{
    wait_for_both(v);
    end_request(v);
}
static void wait_above_the_limit(victim *v)
{
    wait_for(v, LIMIT + 1, 0);
}
static void be_granted(victim *v)
{
    wait_for_both(v);
    expect(fsm_uncharge(&v->charger, 1), "uncharge");
}
static void end_granted(victim *v)
{
    expect(fsm_end_request(v->region, v->request), "end_request");
}
static void hold_no_tokens(victim *v)
{
    expect(fsm_uncharge(&v->tokens, 10), "uncharge");
}
static void raise_the_limit(victim *v)
{
    expect(fsm_set_limit(v->region, v->scene->a, MEMORY, LIMIT + 500), "set_limit");
}
static void read_stat(victim *v)
{
    margin_of(v);
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
static void charge_lease(victim *v)
{
    expect(fsm_charge(&v->leased, 5), "charge");
}
static void uncharge_lease(victim *v)
{
    expect(fsm_uncharge(&v->leased, 5), "uncharge");
}
static void end_lease(victim *v)
{
    expect(fsm_holder_end(v->region, v->lease), "holder_end");
}
static void set_flags(victim *v)
{
    expect(fsm_holder_set_flags(v->region, v->holder, FSM_KEEP), "holder_set_flags");
}
static void join_without_room(victim *v)
{
    if (fsm_holder_join(v->region, v->holder, v->scene->empty) != -ENOSPC)
        violation("there was room for two cells more");
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
static const fsm_attr attributes_given = { .mode = 0600, .uid = 70, .gid = 80, .atime = 6, .mtime = 7 };
enum { ALL_OF_THEM = FSM_SET_MODE | FSM_SET_UID | FSM_SET_GID | FSM_SET_ATIME | FSM_SET_MTIME };

static void set_attributes(victim *v)
{
    expect(fsm_set_attr(v->region, v->scene->b, 1, ALL_OF_THEM, &attributes_given, 5), "set_attr");
}
static void set_attributes_of_directory(victim *v)
{
    expect(fsm_set_attr(v->region, v->scene->b, 0, ALL_OF_THEM, &attributes_given, 5), "set_attr");
}
static void become_the_daemon(victim *v)
{
    static fsm_daemon daemon = { .mountpoint = "/somewhere" };
    daemon.pid = getpid();
    daemon.start_time = fsm_process_start_time(daemon.pid);
    expect(fsm_set_daemon(v->region, &daemon), "set_daemon");
}
static void check_copy(victim *v)
{
    if (fsm_check(v->region, stderr) != 0)
        violation("fsm_check in the victim finds these");
}
static void repair_it(victim *v)
{
    expect(fsm_repair(v->region), "repair");
}

static void charge_past_nonsense(victim *v)
{
    __atomic_store_n(&v->region->header->lock, 0x3ffffff0, __ATOMIC_RELAXED); /* no thread has this number */
    charge_with_refill(v);
}

static const char new_region[] = "the-region-of-a-victim"; /* in the working directory */

static void create_region(victim *v)
{
    fsm_region *region;
    expect(fsm_create(new_region, fsm_geometry_of(v->region), 0, 0, &region), "create");
}
/* An unfinished region is none; a finished one works. */
static void check_new_region(bool is_done)
{
    fsm_region *region;
    int result = fsm_open(new_region, &region);
    if (result == 0) {
        make(region, FSM_ROOT, "group");
        if (fsm_check(region, stderr) != 0)
            violation("fsm_check finds these in the new region");
        fsm_close(region);
    } else if (is_done || (result != -EPROTO && result != -ENOENT)) {
        expect(result, "open");
    }
    if (unlink(new_region) && errno != ENOENT)
        violation("unlink: %s", strerror(errno));
}

const play plays[] = {
    { .name = "charge from stock", .act = charge_from_stock },
    { .name = "charge with refill", .act = charge_with_refill },
    { .name = "charge all there is", .act = charge_all_there_is },
    { .name = "charge too much", .act = charge_too_much },
    { .name = "charge too much, and be heard", .prepare = listen, .act = charge_too_much },
    { .name = "charge too much with one dead", .act = charge_too_much, .in_parts = true, .after_a_death = true },
    { .name = "charge_nofail", .act = charge_without_asking, .in_parts = true, .exceeds = true },
    { .name = "uncharge a little", .act = uncharge_a_little },
    { .name = "uncharge all", .act = uncharge_all },
    { .name = "charge past a soft limit", .prepare = listen_below_a_soft_limit, .act = charge_with_refill },
    { .name = "uncharge past a soft limit", .prepare = listen_above_a_soft_limit, .act = uncharge_all },
    { .name = "charge past marks", .prepare = watch_closely, .act = charge_with_refill },
    { .name = "uncharge past marks", .prepare = watch_closely, .act = uncharge_all },
    { .name = "set_limit past a mark", .prepare = watch_closely, .act = halve_the_limit },
    { .name = "watch", .act = watch_for_the_first_time, .in_parts = true },
    { .name = "watch in used records", .prepare = watch_and_forget, .act = watch_for_the_first_time, .in_parts = true },
    { .name = "watch again", .prepare = watch_closely, .act = watch_again, .in_parts = true },
    { .name = "unwatch", .prepare = watch_closely, .act = unwatch, .in_parts = true },
    { .name = "uncharge in global mode", .prepare = reach_the_limit, .act = uncharge_the_limit_away },
    { .name = "charge in global mode", .prepare = reach_the_limit, .act = charge_too_much },
    { .name = "charge in global mode once more", .prepare = be_refused_and_wait, .act = charge_too_much },
    { .name = "charge in global mode, and be heard",
      .prepare = listen_at_the_limit,
      .act = charge_too_much,
      .is_private = true },
    { .name = "uncharge too much", .act = uncharge_too_much },
    { .name = "give", .act = give },
    { .name = "give too much", .act = give_too_much },
    { .name = "take", .act = take },
    { .name = "take too much", .act = take_too_much },
    { .name = "change of both", .act = change_both },
    { .name = "change up to the limit", .act = change_up_to_the_limit },
    { .name = "change both ways", .act = change_both_ways },
    { .name = "change in global mode", .prepare = reach_the_limit, .act = change_the_limit_away },
    { .name = "change past marks", .prepare = watch_closely, .act = change_both },
    { .name = "change of one", .act = change_one },
    { .name = "change too much", .prepare = listen, .act = change_too_much },
    { .name = "change less than nothing", .act = change_less_than_nothing },
    { .name = "move", .act = move_both },
    { .name = "move too much", .act = move_too_much },
    { .name = "common charge", .act = charge_common },
    { .name = "common charge too much", .act = charge_common_too_much },
    { .name = "common charge too much, twice", .act = charge_common_too_much_twice, .in_parts = true },
    { .name = "common uncharge", .act = uncharge_common },
    { .name = "force_empty", .act = force_empty },
    { .name = "set_limit", .act = set_limit },
    { .name = "set_limit too low", .act = set_limit_too_low },
    { .name = "set_soft_limit", .act = set_soft_limit },
    { .name = "reset_max_usage", .act = reset_max_usage },
    { .name = "reset_failcnt", .prepare = reach_the_limit, .act = reset_failcnt },
    { .name = "request", .act = ask_for_one },
    { .name = "request of both", .act = ask_for_both },
    { .name = "request that waits", .act = wait_for_one },
    { .name = "request of both that waits", .act = wait_for_both },
    { .name = "request that waits in global mode", .prepare = reach_the_limit, .act = wait_for_both },
    { .name = "request that waits in used records", .prepare = wait_in_vain, .act = wait_for_both },
    { .name = "request above the limit", .act = wait_above_the_limit },
    { .name = "request behind others", .act = wait_for_both, .is_waited_for = true },
    { .name = "end of a request", .prepare = wait_for_both, .act = end_request },
    { .name = "end of a request that was granted", .prepare = be_granted, .act = end_granted },
    { .name = "uncharge all, and be waited for", .act = uncharge_all, .in_parts = true, .is_waited_for = true },
    { .name = "change, and be waited for", .act = change_both_ways, .in_parts = true, .is_waited_for = true },
    { .name = "force_empty, and be waited for", .act = force_empty, .in_parts = true, .is_waited_for = true },
    { .name = "common uncharge, and be waited for", .act = uncharge_common, .is_waited_for = true },
    { .name = "set_limit, and be waited for", .act = raise_the_limit, .in_parts = true, .is_waited_for = true },
    { .name = "set_batch, and be waited for", .act = change_batch, .is_waited_for = true },
    { .name = "leave, and be waited for",
      .prepare = hold_no_tokens,
      .act = leave,
      .in_parts = true,
      .is_waited_for = true },
    { .name = "end itself, and be waited for",
      .prepare = hold_no_tokens,
      .act = end_itself,
      .in_parts = true,
      .is_waited_for = true },
    { .name = "leave, and wait no more", .prepare = wait_for_both, .act = leave, .in_parts = true },
    { .name = "end itself, and wait no more", .prepare = wait_for_both, .act = end_itself, .in_parts = true },
    { .name = "get_stat", .act = read_stat },
    { .name = "set_batch", .act = change_batch },
    { .name = "mkdir", .act = mkdir_new },
    { .name = "mkdir in a used record", .prepare = use_records, .act = mkdir_new },
    { .name = "mkdir of a name that is taken", .act = mkdir_taken },
    { .name = "rename", .act = rename_group },
    { .name = "rmdir", .act = rmdir_empty },
    { .name = "rmdir of a group that has counted", .prepare = have_counted, .act = rmdir_empty },
    { .name = "rmdir of a group that is watched", .prepare = watch_what_is_removed, .act = rmdir_empty },
    { .name = "rmdir of a busy group", .act = rmdir_busy },
    { .name = "rmdir of a busy group with one dead", .act = rmdir_busy, .in_parts = true, .after_a_death = true },
    { .name = "holder_create", .act = create_holder },
    { .name = "holder_create of a lease", .act = create_lease },
    { .name = "holder_create in a used record", .prepare = use_records, .act = create_holder },
    { .name = "holder_create of a lease in a used record", .prepare = use_records, .act = create_lease },
    { .name = "holder_create in the place of one dead",
      .prepare = use_all_holders,
      .act = create_holder,
      .in_parts = true,
      .after_a_death = true },
    { .name = "holder_set_flags", .act = set_flags },
    { .name = "charge of a lease", .prepare = have_a_lease, .act = charge_lease },
    { .name = "uncharge of a lease", .prepare = have_a_lease, .act = uncharge_lease },
    { .name = "end of a lease", .prepare = have_a_lease, .act = end_lease, .in_parts = true },
    { .name = "join", .act = join, .in_parts = true },
    { .name = "join in used records", .prepare = use_records, .act = join, .in_parts = true },
    { .name = "join without room", .prepare = use_all_cells_but_one, .act = join_without_room, .in_parts = true },
    { .name = "join in the place of one dead",
      .prepare = use_all_cells_but_one,
      .act = join,
      .in_parts = true,
      .after_a_death = true },
    { .name = "join_one", .act = join_one },
    { .name = "leave", .act = leave, .in_parts = true },
    { .name = "leave and keep", .act = leave_and_keep, .in_parts = true },
    { .name = "end itself", .act = end_itself, .in_parts = true },
    { .name = "end itself and keep", .act = end_itself_and_keep, .in_parts = true },
    { .name = "end another", .act = end_another, .in_parts = true, .ends_idle = true },
    { .name = "reap the dead", .act = reap_the_dead, .in_parts = true, .after_a_death = true },
    { .name = "reap a quarantine", .prepare = leave_a_quarantine, .act = reap_the_dead },
    { .name = "set_attr", .act = set_attributes },
    { .name = "set_attr of a directory", .act = set_attributes_of_directory },
    { .name = "set_daemon", .act = become_the_daemon },
    { .name = "set_daemon where somebody watched", .prepare = watch_closely, .act = become_the_daemon },
    { .name = "check", .act = check_copy, .is_private = true },
    { .name = "repair", .prepare = damage_what_is_derived, .act = repair_it },
    { .name = "charge with the lock written over", .act = charge_past_nonsense },
    { .name = "create", .act = create_region, .checker = check_new_region, .is_private = true },
    { .name = "recovery of a charge, and mkdir", .act = mkdir_new, .recovering = "charge with refill" },
    { .name = "recovery of a give, and a charge", .act = charge_with_refill, .recovering = "give" },
    { .name = "recovery of a change, and a charge", .act = charge_with_refill, .recovering = "change of both" },
    { .name = "recovery of a move, and a charge", .act = charge_with_refill, .recovering = "move" },
    { .name = "recovery of a rename, and a charge", .act = charge_with_refill, .recovering = "rename" },
    { .name = "recovery of set_attr, and another", .act = set_attributes_of_directory, .recovering = "set_attr" },
    { .name = "recovery of an end with keep, and another",
      .act = end_itself_and_keep,
      .recovering = "end itself and keep" },
    { .name = "recovery of the end of another, and a charge",
      .act = charge_with_refill,
      .recovering = "end another",
      .ends_idle = true },
    { .name = "recovery of rmdir, and a check", .act = check_copy, .is_private = true, .recovering = "rmdir" },
    { .name = "recovery of a charge past a soft limit, and a check",
      .prepare = listen,
      .act = check_copy,
      .is_private = true,
      .recovering = "charge past a soft limit" },
    { .name = "recovery of a charge past marks, and a check",
      .prepare = listen,
      .act = check_copy,
      .is_private = true,
      .recovering = "charge past marks" },
    { .name = "recovery of an uncharge that was waited for, and a charge",
      .act = charge_from_stock,
      .recovering = "uncharge all, and be waited for",
      .is_waited_for = true },
    { .name = "recovery of the end of a request, and a check",
      .act = check_copy,
      .is_private = true,
      .recovering = "end of a request" },
    { .name = "recovery of a request, and a charge",
      .act = charge_with_refill,
      .recovering = "request of both that waits" },
    { .name = "mkdir behind a charge", .act = mkdir_new, .behind = "charge with refill" },
    { .name = "charge behind the end of another",
      .act = charge_with_refill,
      .behind = "end another",
      .ends_idle = true },
};
const size_t plays_count = sizeof plays / sizeof *plays;

const play *play_named(const char *name)
{
    for (const play *p = plays; p < plays + plays_count; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    violation("there is no play %s", name);
}
/* ---- the visible state ---------------------------------------------------------- */

__attribute__((format(printf, 4, 5))) static void put(view *v, int64_t number, bool sum, const char *format, ...)
{
    if (v->count == VALUES)
        violation("the test sees more values than it can hold");
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
           : h->id == s->asker[0].holder          ? 'Q'
           : h->id == s->asker[1].holder          ? 'R'
           : s->dead_pid && h->pid == s->dead_pid ? (h->kind == FSM_LEASE ? 'E' : 'D')
           : h->pid == s->victim                  ? (h->kind == FSM_LEASE ? 'W' : 'V')
                                                  : '?';
}

/* Returns the usage of the group as the sum of its parts. */
static void see_group(scene *s, const play *p, view *v, fsm_id id, const char *path, int64_t usage[RESOURCES])
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
        see_group(s, p, v, children[i].id, below, part);
        for (int r = 0; r < RESOURCES; r++)
            usage[r] += part[r];
    }
    /* not the times of directories: a step of their own sets them */
    for (uint32_t slot = 0; slot < 2 && id != FSM_ROOT; slot++) {
        fsm_attr attr;
        expect(fsm_get_attr(s->region, id, slot, &attr), "get_attr");
        put(v, attr.mode, false, "%s mode %u", path, slot);
        put(v, attr.uid, false, "%s uid %u", path, slot);
        put(v, attr.gid, false, "%s gid %u", path, slot);
        put(v, slot == 0 ? 0 : attr.atime, false, "%s atime %u", path, slot);
        put(v, slot == 0 ? 0 : attr.mtime, false, "%s mtime %u", path, slot);
    }
    for (int r = 0; r < RESOURCES; r++) {
        fsm_stat stat;
        fsm_holder_info holders[HOLDERS + CELLS];
        int64_t held = 0;
        expect(fsm_get_stat(s->region, id, (uint32_t)r, &stat), "stat");
        count = fsm_counter_holders(s->region, id, (uint32_t)r, holders, HOLDERS + CELLS);
        expect(count, "counter_holders");
        for (int64_t i = 0; i < count; i++) {
            held += holders[i].held;
            put(v, holders[i].held, false, "%s %d held by %c", path, r, role_of(s, &holders[i]));
        }
        put(v, stat.common, false, "%s %d common", path, r);
        put(v, stat.limit, false, "%s %d limit", path, r);
        put(v, stat.soft_limit, false, "%s %d soft_limit", path, r);
        put(v, stat.failcnt, true, "%s %d failcnt", path, r);
        fsm_events events;
        expect(fsm_get_events(s->region, id, (uint32_t)r, &events), "get_events");
        put(v, events.limit, true, "%s %d events at the limit", path, r);
        put(v, events.soft_limit, true, "%s %d events at the soft limit", path, r);
        put(v, events.threshold, true, "%s %d events at thresholds", path, r);
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
        if (stat.reserved > stat.limit && !p->exceeds)
            violation("%s resource %d: %" PRId64 " reserved, above its limit of %" PRId64, path, r, stat.reserved,
                      stat.limit);
    }
}

void see(scene *s, const play *p, view *v)
{
    int64_t usage[RESOURCES];
    fsm_daemon daemon;
    fsm_holder_info holders[HOLDERS + CELLS];
    v->count = 0;
    see_group(s, p, v, FSM_ROOT, "", usage);
    int64_t count = fsm_all_holders(s->region, holders, HOLDERS + CELLS);
    expect(count, "all_holders");
    for (const char *role = "SIQRVWDE?"; *role; role++) {
        int64_t holding = 0;
        for (int64_t i = 0; i < count; i++)
            holding += role_of(s, &holders[i]) == *role;
        put(v, holding, true, "holders %c", *role);
    }
    put(v, s->region->header->waiting, true, "requests that wait");
    expect(fsm_get_daemon(s->region, &daemon), "get_daemon");
    put(v, daemon.pid ? 1 : 0, false, "served");
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
        if (value->number == 0 && !is &&
            strstr(value->name, " held by ")) /* the group has it already, and the holder is still joined */
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

/* A listener was notified of each event. */
static void check_notifier(const scene *s, const view *before, const view *now)
{
    for (int i = 0; i < now->count; i++)
        if (strstr(now->at[i].name, " events ") && !is_value_of(&now->at[i], before) &&
            s->region->header->notifier == ARMED)
            violation("%s are %" PRId64 ", and the listener was not notified", now->at[i].name, now->at[i].number);
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

/* Each record is complete: a process that was refused, and a limit that exists. */
static void check_refusals(const scene *s)
{
    fsm_refusal found[FSM_REFUSALS];
    for (uint32_t resource = 0; resource < RESOURCES; resource++) {
        int64_t count = fsm_get_refusals(s->region, FSM_ROOT, resource, found, FSM_REFUSALS);
        expect(count, "get_refusals");
        for (const fsm_refusal *is = found; is < found + count; is++)
            if ((is->pid != s->victim && is->pid != getpid()) || (is->refused != s->a && is->refused != s->b) ||
                (is->asked != s->c && is->asked != s->b) || is->limit < 1 || is->limit > 2 * LIMIT || is->amount < 1 ||
                (!is->charged && is->amount <= is->limit - is->usage) || !is->command[0] || is->last < is->first ||
                (is->looked && is->looked_at > is->last))
                violation("a refusal of %" PRId64 " to %d, at a limit of %" PRId64 ", by group %" PRIx64, is->amount,
                          is->pid, is->limit, is->refused);
    }
}

/* ---- the abilities of the survivors ---------------------------------------------- */

/* Up to the limit, and not one more. */
static void fill(scene *s)
{
    fsm_stat stat;
    expect(fsm_get_stat(s->region, s->c, MEMORY, &stat), "stat");
    if (stat.hierarchical_margin > LIMIT)
        violation("there is no limit: a margin of %" PRId64, stat.hierarchical_margin);
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

/* No record is lost, except the cells of a holder that was ended while its process lived. */
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
    bool is_full = false;
    for (int i = 0; i < people * made * RESOURCES && !is_full; i++) {
        int result = fsm_holder_join_one(s->region, holders[i % people], groups[i / people % made],
                                         (uint32_t)(i / people / made));
        is_full = result == -ENOSPC;
        if (!is_full)
            expect(result, "join_one");
        cells += !is_full;
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

/* ---- the victim ---------------------------------------------------------------------- */

pid_t start_victim(scene *s, const play *p, void (*ready)(void))
{
    pid_t pid = fork_companion();
    if (pid == 0) {
        victim v = { .scene = s, .region = s->region };
        v.holder = hold(s->region, s->c, 0, &v.charger, MEMORY, 1000);
        fsm_charger_init(&v.tokens);
        expect(fsm_charger_bind(&v.tokens, s->region, v.holder, s->c, TOKENS), "bind");
        expect(fsm_charge(&v.tokens, 10), "charge");
        if (p->prepare)
            p->prepare(&v);
        if (ready)
            ready();
        raise(SIGSTOP);
        p->act(&v);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    if (waitpid(pid, &status, WUNTRACED) != pid)
        violation("waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        exit(77); /* no ptrace here */
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
        violation("the victim could not start: status %x", (unsigned)status);
    if (p->is_waited_for && !p->recovering)
        wait_in_queue(s);
    return pid;
}

/* ---- the judgement ------------------------------------------------------------------- */

void checker(scene *s, const play *p, const view *before, const view *after)
{
    view now;
    check_derived(s, "after the play");
    check_queue(s, false);
    see(s, p, &now);
    if (p->recovering || p->behind)
        ;
    else if (p->in_parts)
        check_parts(before, &now, after);
    else
        check_whole(before, &now, after);
    uint32_t reaped;
    expect(fsm_reap_dead(s->region, &reaped), "reap_dead");
    if (holder_of(s->region, s->victim) != UINT64_MAX ||
        (s->dead_pid && holder_of(s->region, s->dead_pid) != UINT64_MAX))
        violation("dead processes are reaped and are still holders");
    see(s, p, &now);
    if (!p->recovering && !p->behind)
        check_notifier(s, before, &now);
    for (int i = 0; i < now.count; i++) {
        size_t length = strlen(now.at[i].name);
        char role = now.at[i].name[length - 1];
        if (strstr(now.at[i].name, " held by ") && !strchr("SIQR", role))
            violation("%s %" PRId64 " after dead processes were reaped", now.at[i].name, now.at[i].number);
    }
    int64_t held;
    expect(fsm_held(&s->survives[MEMORY], &held), "held");
    if (held != 700)
        violation("the survivor holds %" PRId64 ", not 700", held);
    if (!p->ends_idle) {
        expect(fsm_held(&s->idles, &held), "held");
        if (held != 1000)
            violation("the idle holder holds %" PRId64 ", not 1000", held);
    }
    check_queue(s, true);
    fill(s);
    check_derived(s, "after the survivors went on");
    check_refusals(s);
    for (int r = 0; r < RESOURCES; r++)
        fsm_charger_unbind(&s->survives[r]);
    fsm_charger_unbind(&s->idles);
    end_all(s);
    fill_the_region(s, p->ends_idle ? RESOURCES : 0);
    check_derived(s, "at the end");
    if (p->checker)
        p->checker(before == after);
}
