/*
 * operations.h - a furnished region, and every operation of the engine at random.
 *
 * For programs that check that nothing but an errno comes of it.
 */
#ifndef FSM_OPERATIONS_H
#define FSM_OPERATIONS_H

#include "region/layout.h"
#include "trial.h"

/* ---- a region with something in every part of it, stock out included ---------------------- */

enum { GROUPS = 16, HOLDERS = 8, CELLS = 40, RESOURCES = 2 }; /* resources: at most */

static const char *const names[] = { "a", "b", "c", "d" };

static fsm_region *furnish(random_source *source)
{
    fsm_geometry geometry = { .groups = GROUPS, .holders = HOLDERS, .cells = CELLS };
    geometry.resources = 1 + (uint32_t)random_below(source, RESOURCES);
    geometry.batch = random_below(source, 4) > 0 ? FSM_BATCH_AUTO : (int64_t)random_below(source, 2) * 64;
    strcpy(geometry.resource[0].name, "memory");
    strcpy(geometry.resource[1].name, "tokens");
    fsm_region *r;
    expect(fsm_create(NULL, &geometry, 0, 0, &r), "create");
    fsm_id at[4], by, gone;
    for (int i = 0; i < 4; i++)
        expect(fsm_mkdir(r, i == 0 || i == 3 ? FSM_ROOT : at[i - 1], names[i], 1, 0755, 0, 0, 0, &at[i]), "mkdir");
    expect(fsm_mkdir(r, FSM_ROOT, "gone", 4, 0755, 0, 0, 0, &gone), "mkdir");
    expect(fsm_rmdir(r, gone, 0), "rmdir");
    expect(fsm_set_limit(r, at[0], 0, random_magnitude(source, 40) + 2000000), "limit");
    expect(fsm_common_charge(r, at[3], geometry.resources - 1, 5), "common charge");
    fsm_attr attr = { .mode = 0600 };
    expect(fsm_set_attr(r, at[2], 1, FSM_SET_MODE, &attr, 0), "set attr");
    uint64_t start_time = fsm_process_start_time(getpid());
    for (int i = 0; i < 3; i++) {
        expect(fsm_holder_create(r, getpid(), start_time, i == 2 ? FSM_LEASE : FSM_PROCESS, i == 0 ? FSM_KEEP : 0, &by),
               "holder");
        for (int k = 0; k < 3; k++) {
            fsm_charger charger;
            expect(fsm_holder_join(r, by, at[(i + k) % 4]), "join");
            fsm_charger_init(&charger);
            expect(fsm_charger_bind(&charger, r, by, at[(i + k) % 4], 0), "bind");
            expect(fsm_charge(&charger, 1000), "charge");
            expect(fsm_uncharge(&charger, 600), "uncharge");
            fsm_charger_unbind(&charger);
        }
    }
    return r;
}

/* ---- operations ---------------------------------------------------------------------------- */

static uint64_t telling_value(random_source *source)
{
    static const uint64_t values[] = { 0,
                                       1,
                                       2,
                                       3,
                                       UINT64_MAX,
                                       UINT64_MAX - 1,
                                       INT32_MAX,
                                       UINT32_MAX,
                                       UINT32_MAX - 1,
                                       (uint64_t)INT32_MAX + 1,
                                       INT64_MAX,
                                       INT64_MAX - 1,
                                       (uint64_t)INT64_MAX + 1,
                                       (uint64_t)INT64_MAX + 2,
                                       FSM_NAME_MAX + 1,
                                       (uint64_t)1 << 40 };
    switch (random_below(source, 4)) {
    case 0:
        return random_below(source, 48);
    case 1:
        return random_bits(source);
    default:
        return values[random_below(source, sizeof values / sizeof *values)];
    }
}

typedef struct worker {
    fsm_region *region;
    random_source source;
    char path[64];
    fsm_id holder[3], watch[3], request;
    fsm_charger charger[4];
} worker;

/* A charger that all threads of a process share. */
static fsm_charger common_charger;

static fsm_id some_group(random_source *source)
{
    uint64_t index = random_below(source, 8);
    if (random_below(source, 16) == 0)
        index = (uint32_t)telling_value(source);
    uint64_t stale = random_below(source, 8) == 0;
    return index == 0 ? FSM_ROOT : (fsm_id)((1 + stale) << 32 | index);
}

static int64_t some_amount(random_source *source)
{
    return random_below(source, 16) == 0 ? (int64_t)(telling_value(source) & INT64_MAX) : random_magnitude(source, 22);
}

static int64_t list_some(worker *w, int which)
{
    size_t room = random_below(&w->source, 24);
    int64_t n;
    if (which == 0) {
        fsm_child *found = malloc(room * sizeof *found + 1);
        n = fsm_children(w->region, some_group(&w->source), found, room);
        for (int64_t i = 0; i < n && i < (int64_t)room; i++)
            if (found[i].length > FSM_NAME_MAX || found[i].name[found[i].length])
                violation("a child's name of %u bytes", found[i].length);
        free(found);
    } else {
        fsm_holder_info *found = malloc(room * sizeof *found + 1);
        if (which == 1)
            n = fsm_counter_holders(w->region, some_group(&w->source), (uint32_t)random_below(&w->source, RESOURCES),
                                    found, room);
        else
            n = fsm_all_holders(w->region, found, room);
        free(found);
    }
    return n > 0 ? 0 : n;
}

static int64_t check(worker *w)
{
    if (random_below(&w->source, 2))
        return fsm_repair(w->region);
    char *text = NULL;
    size_t size = 0;
    FILE *report = open_memstream(&text, &size);
    int64_t n = fsm_check(w->region, report);
    fclose(report);
    if (n >= 0 && (n > 0) != (size > 0))
        violation("%lld findings in %zu bytes", (long long)n, size);
    free(text);
    return n > 0 ? 0 : n;
}

static int64_t open_again(worker *w)
{
    fsm_region *again;
    int error = fsm_open(w->path, &again);
    if (error)
        return error;
    fsm_stat stat;
    error = fsm_get_stat(again, FSM_ROOT, 0, &stat);
    fsm_close(again);
    return error;
}

static int64_t name_of(worker *w)
{
    char *name = malloc(FSM_NAME_MAX + 1);
    size_t length = 0;
    int error = fsm_name(w->region, some_group(&w->source), name, &length);
    if (!error && (length > FSM_NAME_MAX || name[length]))
        violation("a name of %zu bytes", length);
    free(name);
    return error;
}

static int64_t refusals(worker *w)
{
    fsm_refusal found[4];
    size_t room = random_below(&w->source, 5);
    int64_t n =
        fsm_get_refusals(w->region, some_group(&w->source), (uint32_t)random_below(&w->source, RESOURCES), found, room);
    for (int64_t i = 0; i < n && i < (int64_t)room; i++)
        if (found[i].holders > FSM_LARGEST || !memchr(found[i].command, 0, sizeof found[i].command))
            violation("a refusal of %u holders", found[i].holders);
    return n > 0 ? 0 : n;
}

static int64_t snapshot(worker *w)
{
    fsm_counter_snapshot *rows = malloc(GROUPS * sizeof *rows);
    int64_t n = fsm_snapshot(w->region, (uint32_t)random_below(&w->source, RESOURCES), rows);
    for (int64_t i = 1; i < n; i++)
        if (rows[i].parent >= i)
            violation("row %lld has parent %u", (long long)i, rows[i].parent);
    free(rows);
    return n > 0 ? 0 : n;
}

/* Through two chargers, of the same resource or of two. */
static int change_two(worker *w, int64_t amount)
{
    uint64_t first = random_below(&w->source, 5), second = random_below(&w->source, 5);
    fsm_charger *chargers[] = { first < 4 ? &w->charger[first] : &common_charger,
                                second < 4 ? &w->charger[second] : &common_charger };
    int64_t amounts[] = { amount, some_amount(&w->source) };
    for (int i = 0; i < 2; i++)
        if (random_below(&w->source, 2))
            amounts[i] = -amounts[i];
    size_t n = random_below(&w->source, 8) > 0 ? 2 : random_below(&w->source, 2);
    return random_below(&w->source, 3) > 0 ? fsm_change(chargers, amounts, n) : fsm_move(chargers, amounts, n);
}

/* A request through one or two chargers: waits a little for it, and ends it now or later. */
static int wait_a_little(worker *w, int64_t amount)
{
    uint64_t first = random_below(&w->source, 5), second = random_below(&w->source, 4);
    fsm_charger *chargers[] = { first < 4 ? &w->charger[first] : &common_charger, &w->charger[second] };
    int64_t amounts[] = { amount, some_amount(&w->source) };
    int answer = -ENODEV;
    switch (random_below(&w->source, 4)) {
    case 0:
        fsm_await_answers(w->region, w->holder[0], (uint32_t)random_below(&w->source, 4), 1000);
        fsm_wake_answers(w->region, random_below(&w->source, 4) ? w->holder[0] : telling_value(&w->source));
        return 0;
    case 1:
        return fsm_end_request(w->region, random_below(&w->source, 4) ? w->request : telling_value(&w->source));
    default:
        answer = fsm_request(chargers, amounts, 1 + random_below(&w->source, 2), &w->request);
        return answer == -EINPROGRESS ? fsm_await_request(w->region, w->request, 1000) : answer;
    }
}

#define OPERATIONS 49

static int64_t operate(worker *w, int operation)
{
    fsm_region *r = w->region;
    random_source *s = &w->source;
    fsm_id g = some_group(s);
    uint32_t resource = (uint32_t)random_below(s, RESOURCES);
    int64_t amount = some_amount(s), value;
    fsm_id *by = &w->holder[random_below(s, 3)];
    fsm_charger *charger = &w->charger[random_below(s, 4)];
    if (random_below(s, 4) == 0)
        charger = &common_charger;
    uint64_t start_time = fsm_process_start_time(getpid());
    char name[300];
    size_t length = 1 + random_below(s, 300);
    memset(name, 'n', sizeof name);
    if (random_below(s, 4) > 0) {
        length = 1;
        name[0] = (char)('a' + random_below(s, 6));
    }
    fsm_stat stat;
    fsm_events events;
    fsm_id old[3];
    fsm_mark marks[3] = { { amount, 0 }, { amount / 2, FSM_BELOW }, { 50, FSM_PERCENT } };
    fsm_attr attr = { .mode = 0640 };
    fsm_holder_info info;
    fsm_probed probed;
    bool exceeded;
    uint32_t count;
    static _Thread_local fsm_daemon daemon;
    switch (operation) {
    case 0:
        return fsm_mkdir(r, g, name, length, 0755, 1, 1, 1, &g);
    case 1:
        return fsm_rmdir(r, g, 2);
    case 2:
        return fsm_rename(r, g, name, length, 3);
    case 3:
        return fsm_lookup(r, g, name, length, &g);
    case 4:
        return fsm_parent(r, g, &g);
    case 5:
        return name_of(w);
    case 6:
    case 7:
    case 8:
        return list_some(w, operation - 6);
    case 9:
        return fsm_child_count(r, g, &count);
    case 10:
        return fsm_get_attr(r, g, (uint32_t)random_below(s, 2 * FSM_SLOTS + 2), &attr);
    case 11:
        return fsm_set_attr(r, g, (uint32_t)random_below(s, 2 * FSM_SLOTS + 2), FSM_SET_MODE, &attr, 4);
    case 12:
        return fsm_get_stat(r, g, resource, &stat);
    case 13:
        return fsm_usage(r, g, resource, &value);
    case 14:
        return fsm_get_limit(r, g, resource, &value);
    case 15:
        return fsm_get_max_usage(r, g, resource, &value);
    case 16:
        return fsm_set_limit(r, g, resource, amount);
    case 17:
        return fsm_set_soft_limit(r, g, resource, amount);
    case 18:
        return fsm_reset_max_usage(r, g, resource);
    case 19:
        return fsm_common_charge(r, g, resource, amount);
    case 20:
        return fsm_common_uncharge(r, g, resource, amount);
    case 21:
        return fsm_force_empty(r, g, resource);
    case 22:
        return fsm_holder_create(r, random_below(s, 3) ? getpid() : 1 << 30, start_time,
                                 random_below(s, 3) ? FSM_PROCESS : FSM_LEASE, (uint32_t)random_below(s, 2), by);
    case 23:
        return fsm_holder_join(r, *by, g);
    case 24:
        return fsm_holder_join_one(r, *by, g, resource);
    case 25:
        return fsm_holder_leave(r, *by, g, (uint32_t)random_below(s, 2));
    case 26:
        return fsm_holder_end(r, random_below(s, 4) ? *by : g);
    case 27:
        return fsm_reap_dead(r, &count);
    case 28:
        return fsm_holder_get(r, *by, &info);
    case 29:
        return charger == &common_charger ? 0 : fsm_charger_bind(charger, r, *by, g, resource);
    case 30:
    case 31:
        return fsm_charge(charger, amount);
    case 32:
    case 33:
        return fsm_uncharge(charger, amount);
    case 34:
        return fsm_charge_nofail(charger, amount, &exceeded);
    case 35:
        return random_below(s, 2) ? fsm_give(charger, amount) : fsm_take(charger, amount);
    case 36:
        return fsm_held(charger, &value);
    case 37:
        return check(w);
    case 38:
        return open_again(w);
    case 39:
        return snapshot(w);
    case 40:
        return fsm_get_events(r, g, resource, &events);
    case 41:
        fsm_listen(r, random_below(s, 4) > 0);
        fsm_await_event(r, 1000);
        return fsm_get_event_seq(r, g, resource, &count);
    case 42:
        memcpy(old, w->watch, sizeof old);
        return fsm_watch(r, g, resource, marks, 3, old, 3, w->watch);
    case 43:
        return random_below(s, 2) ? fsm_unwatch(r, w->watch, 2) : fsm_watch_crossings(r, w->watch[0], &value);
    case 44:
        return change_two(w, amount);
    case 45:
        return refusals(w);
    case 46:
        return fsm_probe(r, g, resource, amount, &probed);
    case 47:
        return wait_a_little(w, amount);
    default:
        if (random_below(s, 4) == 0)
            return fsm_set_batch(r, random_below(s, 2) ? FSM_BATCH_AUTO : amount);
        return random_below(s, 2) ? fsm_get_daemon(r, &daemon) : fsm_set_daemon(r, &daemon);
    }
}

/* Any errno is allowed, but -EUCLEAN must come with a text. */
static void check_answer(int operation, int64_t answer)
{
    if (answer > 0 || answer < -4095)
        violation("operation %d answered %lld", operation, (long long)answer);
    if (answer == -EUCLEAN && !fsm_last_fault()->text[0])
        violation("operation %d reports damage without a text", operation);
}

/* Makes a holder that has joined a few groups and charges in them. */
static void settle_in(worker *w)
{
    for (int i = 0; i < 4; i++)
        fsm_charger_init(&w->charger[i]);
    for (int i = 0; i < 3; i++)
        fsm_holder_create(w->region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, i == 0 ? FSM_KEEP : 0,
                          &w->holder[i]);
    for (int i = 0; i < 4; i++) {
        fsm_id g = (fsm_id)1 << 32 | (uint32_t)(1 + i);
        fsm_holder_join(w->region, w->holder[0], g);
        fsm_charger_bind(&w->charger[i], w->region, w->holder[0], g, (uint32_t)i % w->region->geometry.resources);
    }
}

static void settle_out(worker *w)
{
    for (int i = 0; i < 4; i++)
        fsm_charger_unbind(&w->charger[i]);
}

#endif
