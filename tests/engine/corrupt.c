/*
 * corrupt.c - overwrites a region with nonsense while threads and processes work in it.
 *
 * usage: corrupt [--seed N] [--corruptions N] [--first BURST] [--bursts N] [--sequential 1]
 *
 * Each burst makes a fresh region and furnishes it. Two processes of two threads run all operations at random, and
 * meanwhile bits, words, fields, records, pages and the length of the file are overwritten. Sometimes one of the
 * processes is killed. Any errno is allowed. A crash, a report of a sanitizer, or an operation that does not return is
 * a violation.
 *
 * A burst depends on the seed and its number alone, as far as the scheduler allows. With --sequential one process
 * alternates between overwriting and working, and a burst is the same each time. Built with FSM_FAULT_POINTS, it also
 * overwrites between two steps of an operation, where a value that was just checked is used.
 *
 * There is inaccessible memory before and after each mapping.
 */
#include "mappings.h"
#include "operations.h"
#include "region/fault_point.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PROCESSES 2
#define THREADS 2
#define BURST 24          /* highest number of corruptions in one burst */
#define PATIENCE 60000000 /* ns: patience of an operation for the lock */
#define HANG 30000000000  /* ns after which an operation counts as hanging */

/* ---- messages between the processes ----------------------------------------------- */

enum { OK, EUCLEANS, TIMEOUTS, OTHERS, ANSWERS };

typedef struct worker_state {
    int64_t since; /* start of the running operation; 0: none runs */
    int operation;
    uint64_t answers[ANSWERS];
} worker_state;

static struct control {
    uint64_t burst;
    bool stop;
    uint64_t corruptions, truncations, kills;
    worker_state worker[PROCESSES * THREADS];
} *control;

static uint64_t operations_done(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < PROCESSES * THREADS; i++)
        for (int k = 0; k < ANSWERS; k++)
            sum += __atomic_load_n(&control->worker[i].answers[k], __ATOMIC_RELAXED);
    return sum;
}

/* A violation then says how to run this burst alone. */
static void note_burst(bool sequentially)
{
    static char again[64];
    snprintf(again, sizeof again, " --first %llu --bursts 1%s", (unsigned long long)control->burst,
             sequentially ? " --sequential 1" : "");
    trial_again = again;
}

static void look_for_a_hang(void)
{
    for (int i = 0; i < PROCESSES * THREADS; i++) {
        int64_t since = __atomic_load_n(&control->worker[i].since, __ATOMIC_RELAXED);
        if (since && monotonic_ns() - since > HANG)
            violation("operation %d does not return", control->worker[i].operation);
    }
}

/* ---- corruptions ---------------------------------------------------------------------- */

typedef struct part {
    size_t at, size;
    uint32_t room;
} part;

enum { HEADER, BUCKETS, GROUP, COUNTER, ATTRIBUTES, HOLDER, CELL, WATCH, WAITER, REFUSAL, PARTS };

static struct target {
    int fd;
    size_t size;
    part part[PARTS];
} target;

static void aim_at(fsm_region *r)
{
#define PART(which, field, type, count)                                                                                \
    target.part[which] = (part){ (size_t)((char *)r->field - (char *)r->header), sizeof(type), count }
    PART(HEADER, header, header, 1);
    PART(BUCKETS, buckets, uint32_t, bucket_count(&r->geometry));
    PART(GROUP, groups, group, 8);
    PART(COUNTER, counters, counter, 8 * r->geometry.resources);
    PART(ATTRIBUTES, attributes, attributes, bank_size(r) / sizeof(attributes) * 8);
    PART(HOLDER, holders, holder, HOLDERS + 4);
    PART(CELL, cells, cell, 24);
    PART(WATCH, watches, watch, 8);
    PART(WAITER, waiters, waiter, 8);
    PART(REFUSAL, refusals, fsm_refusal, 16);
#undef PART
    target.fd = fsm_fd(r);
    target.size = r->size;
}

typedef struct field {
    int part;
    size_t at, size;
} field;

#define FIELD(part, type, name) { part, offsetof(type, name), sizeof(((type *)NULL)->name) }
static const field fields[] = {
    FIELD(HEADER, header, magic),
    FIELD(HEADER, header, version),
    FIELD(HEADER, header, size),
    FIELD(HEADER, header, geometry.groups),
    FIELD(HEADER, header, geometry.holders),
    FIELD(HEADER, header, geometry.cells),
    FIELD(HEADER, header, geometry.resources),
    FIELD(HEADER, header, geometry.batch),
    FIELD(HEADER, header, lock),
    FIELD(HEADER, header, lock),
    FIELD(HEADER, header, broken),
    FIELD(HEADER, header, groups.high),
    FIELD(HEADER, header, groups.free),
    FIELD(HEADER, header, processes.high),
    FIELD(HEADER, header, processes.free),
    FIELD(HEADER, header, leases.high),
    FIELD(HEADER, header, leases.free),
    FIELD(HEADER, header, cells.high),
    FIELD(HEADER, header, cells.free),
    FIELD(HEADER, header, cells.last_free),
    FIELD(HEADER, header, watches.high),
    FIELD(HEADER, header, watches.free),
    FIELD(HEADER, header, waiters.high),
    FIELD(HEADER, header, waiters.free),
    FIELD(HEADER, header, queue_head),
    FIELD(HEADER, header, queue_tail),
    FIELD(HEADER, header, waiting),
    FIELD(HEADER, header, ticket),
    FIELD(HEADER, header, round),
    FIELD(HEADER, header, quarantined),
    FIELD(HEADER, header, notifier),
    FIELD(HEADER, header, reap_at),
    FIELD(HEADER, header, look_at),
    FIELD(HEADER, header, refusals),
    FIELD(HEADER, header, name_key[0]),
    FIELD(HEADER, header, name_key[1]),
    FIELD(HEADER, header, journal.step),
    FIELD(HEADER, header, journal.index),
    FIELD(HEADER, header, journal.counter),
    FIELD(HEADER, header, journal.name_length),
    FIELD(HEADER, header, journal.used),
    FIELD(HEADER, header, journal.changes),
    FIELD(HEADER, header, journal.waiter),
    FIELD(HEADER, header, journal.change[0].cell),
    FIELD(HEADER, header, journal.change[0].used),
    FIELD(HEADER, header, journal.change[0].common),
    FIELD(HEADER, header, daemon.pid),
    FIELD(GROUP, group, stamp),
    FIELD(GROUP, group, parent),
    FIELD(GROUP, group, name_length),
    FIELD(GROUP, group, custom),
    FIELD(GROUP, group, depth),
    FIELD(GROUP, group, first_child),
    FIELD(GROUP, group, last_child),
    FIELD(GROUP, group, next_sibling),
    FIELD(GROUP, group, prev_sibling),
    FIELD(GROUP, group, hash_next),
    FIELD(GROUP, group, children),
    FIELD(COUNTER, counter, limit),
    FIELD(COUNTER, counter, common),
    FIELD(COUNTER, counter, max_usage),
    FIELD(COUNTER, counter, reserved),
    FIELD(COUNTER, counter, stock_cap),
    FIELD(COUNTER, counter, global),
    FIELD(COUNTER, counter, marked),
    FIELD(COUNTER, counter, low),
    FIELD(COUNTER, counter, high),
    FIELD(COUNTER, counter, soft_limit),
    FIELD(COUNTER, counter, soft_crossings),
    FIELD(COUNTER, counter, watches_head),
    FIELD(COUNTER, counter, refusals),
    FIELD(COUNTER, counter, forgotten),
    FIELD(COUNTER, counter, cells_head),
    FIELD(COUNTER, counter, cells),
    FIELD(COUNTER, counter, open_head),
    FIELD(COUNTER, counter, open_below),
    FIELD(COUNTER, counter, active_child),
    FIELD(COUNTER, counter, active_next),
    FIELD(COUNTER, counter, active_prev),
    FIELD(COUNTER, counter, waiting),
    FIELD(COUNTER, counter, full_in),
    FIELD(COUNTER, counter, aside_in),
    FIELD(COUNTER, counter, aside),
    FIELD(HOLDER, holder, stamp),
    FIELD(HOLDER, holder, kind),
    FIELD(HOLDER, holder, start_time),
    FIELD(HOLDER, holder, pid),
    FIELD(HOLDER, holder, pid_namespace),
    FIELD(HOLDER, holder, cells_head),
    FIELD(HOLDER, holder, cells),
    FIELD(HOLDER, holder, next_free),
    FIELD(CELL, cell, words.state),
    FIELD(CELL, cell, words.total[0]),
    FIELD(CELL, cell, words.total[1]),
    FIELD(CELL, cell, words.cap),
    FIELD(CELL, cell, owner),
    FIELD(CELL, cell, counter),
    FIELD(CELL, cell, holder_next),
    FIELD(CELL, cell, holder_prev),
    FIELD(CELL, cell, counter_next),
    FIELD(CELL, cell, counter_prev),
    FIELD(CELL, cell, open_next),
    FIELD(CELL, cell, open_prev),
    FIELD(WATCH, watch, stamp),
    FIELD(WATCH, watch, amount),
    FIELD(WATCH, watch, flags),
    FIELD(WATCH, watch, counter),
    FIELD(WATCH, watch, passed),
    FIELD(WATCH, watch, next),
    FIELD(WATCH, watch, prev),
    FIELD(WAITER, waiter, stamp),
    FIELD(WAITER, waiter, ticket),
    FIELD(WAITER, waiter, amount),
    FIELD(WAITER, waiter, cell),
    FIELD(WAITER, waiter, part),
    FIELD(WAITER, waiter, answer),
    FIELD(WAITER, waiter, next),
    FIELD(WAITER, waiter, prev),
    FIELD(REFUSAL, fsm_refusal, number),
    FIELD(REFUSAL, fsm_refusal, asked),
    FIELD(REFUSAL, fsm_refusal, refused),
    FIELD(REFUSAL, fsm_refusal, pid),
    FIELD(REFUSAL, fsm_refusal, resource),
    FIELD(REFUSAL, fsm_refusal, count),
    FIELD(REFUSAL, fsm_refusal, last),
    FIELD(REFUSAL, fsm_refusal, looked_at),
    FIELD(REFUSAL, fsm_refusal, command[FSM_COMMAND_MAX]),
    FIELD(REFUSAL, fsm_refusal, holders),
    FIELD(REFUSAL, fsm_refusal, holder[0].group),
    FIELD(REFUSAL, fsm_refusal, holder[2].command[FSM_COMMAND_MAX]),
};

static void scribble(size_t at, const void *bytes, size_t size)
{
    if (at + size <= target.size && pwrite(target.fd, bytes, size, (off_t)at) != (ssize_t)size)
        violation("pwrite: %s", strerror(errno));
}

static size_t record(random_source *source, int which)
{
    const part *p = &target.part[which];
    return p->at + p->size * random_below(source, p->room);
}

/* An offset in a record that is probably in use, aligned to `unit`. */
static size_t place(random_source *source, size_t unit)
{
    static const int likely[] = { HEADER, HEADER, BUCKETS, GROUP,      GROUP, COUNTER, COUNTER, HOLDER,
                                  CELL,   CELL,   CELL,    ATTRIBUTES, WATCH, WAITER,  REFUSAL };
    int which = likely[random_below(source, sizeof likely / sizeof *likely)];
    size_t size = which == HEADER  ? offsetof(header, daemon)
                  : which == GROUP ? offsetof(group, name) + 8
                                   : target.part[which].size;
    return record(source, which) + random_below(source, size / unit + 1) * unit;
}

static void corrupt_once(random_source *source)
{
    uint64_t value = telling_value(source);
    switch (random_below(source, 16)) {
    case 0:
    case 1:
    case 2: { /* a bit */
        size_t at = place(source, 1);
        unsigned char byte = 0;
        if (pread(target.fd, &byte, 1, (off_t)at) == 1) {
            byte ^= (unsigned char)(1u << random_below(source, 8));
            scribble(at, &byte, 1);
        }
        break;
    }
    case 3:
    case 4:
    case 5: /* a word */
        scribble(place(source, 4), &value, 4);
        break;
    case 6:
    case 7:
        scribble(place(source, 8), &value, 8);
        break;
    case 8: { /* one record over another */
        static unsigned char bytes[sizeof(header)];
        int which = (int)(BUCKETS + random_below(source, PARTS - BUCKETS));
        if (pread(target.fd, bytes, target.part[which].size, (off_t)record(source, which)) ==
            (ssize_t)target.part[which].size)
            scribble(record(source, which), bytes, target.part[which].size);
        break;
    }
    case 9: { /* noise, seldom a whole page */
        unsigned char bytes[4096];
        size_t size = random_below(source, 4) == 0 ? sizeof bytes : 16 + random_below(source, 240);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (unsigned char)random_bits(source);
        scribble(size == sizeof bytes ? place(source, 4096) & ~(size_t)4095 : place(source, 16), bytes, size);
        break;
    }
    default: { /* a field */
        const field *f = &fields[random_below(source, sizeof fields / sizeof *fields)];
        scribble(record(source, f->part) + f->at, &value, f->size);
        break;
    }
    }
}

static void set_length(size_t length)
{
    if (ftruncate(target.fd, (off_t)length) != 0)
        violation("ftruncate: %s", strerror(errno));
}

/* ---- in the middle of an operation ------------------------------------------------------- */

static random_source *within; /* source of the values to write; NULL: none */

#ifdef FSM_FAULT_POINTS
/*
 * One or all fields of all records of a kind change from one step to the next, so that a value that was just checked is
 * not the one that is used. Afterwards they are restored, for the next time.
 */
void fault_point(const fault_place *place)
{
    static field is; /* the field that is changed; size 0: none */
    static unsigned char was[64][512], bytes[512];
    (void)place;
    if (!within)
        is.size = 0;
    if (!within || (is.size == 0 && random_below(within, 20) > 0))
        return;
    bool back = is.size > 0;
    if (!back) {
        uint64_t value = telling_value(within);
        for (size_t i = 0; i < sizeof bytes; i += sizeof value)
            memcpy(bytes + i, &value, sizeof value);
        is = fields[random_below(within, sizeof fields / sizeof *fields)];
        if (is.part != HEADER && random_below(within, 2) == 0)
            is = (field){ .part = is.part, .size = target.part[is.part].size };
        is.size = is.size < sizeof bytes ? is.size : sizeof bytes;
    }
    const part *p = &target.part[is.part];
    for (uint32_t i = 0; i < p->room && i < sizeof was / sizeof *was; i++) {
        size_t at = p->at + p->size * i + is.at;
        if (back)
            scribble(at, was[i], is.size);
        else if (pread(target.fd, was[i], is.size, (off_t)at) == (ssize_t)is.size)
            scribble(at, bytes, is.size);
    }
    if (back)
        is.size = 0;
}
#endif

/* ---- working ------------------------------------------------------------------------------ */

/* A thread, with its progress for the parent. */
typedef struct seat {
    worker worker;
    worker_state *state;
} seat;

static void operate_once(seat *s)
{
    worker_state *state = s->state;
    state->operation = (int)random_below(&s->worker.source, OPERATIONS);
    __atomic_store_n(&state->since, monotonic_ns(), __ATOMIC_RELAXED);
    int64_t answer = operate(&s->worker, state->operation);
    __atomic_store_n(&state->since, 0, __ATOMIC_RELAXED);
    check_answer(state->operation, answer);
    int kind = answer == 0 ? OK : answer == -EUCLEAN ? EUCLEANS : answer == -ETIMEDOUT ? TIMEOUTS : OTHERS;
    __atomic_fetch_add(&state->answers[kind], 1, __ATOMIC_RELAXED);
}

static void *work(void *argument)
{
    seat *s = argument;
    fsm_set_patience(PATIENCE);
    settle_in(&s->worker);
    while (!__atomic_load_n(&control->stop, __ATOMIC_RELAXED))
        operate_once(s);
    settle_out(&s->worker);
    return NULL;
}

static _Noreturn void run_process(const char *path, int number, uint64_t burst_seed)
{
    fsm_region *r;
    fsm_set_patience(PATIENCE);
    if (fsm_open(path, &r) != 0)
        _exit(0);
    fsm_id by = 0;
    fsm_charger_init(&common_charger);
    fsm_holder_create(r, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &by);
    fsm_holder_join_one(r, by, (fsm_id)1 << 32 | 3, 0);
    fsm_charger_bind(&common_charger, r, by, (fsm_id)1 << 32 | 3, 0);
    seat seats[THREADS] = { 0 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        worker *w = &seats[i].worker;
        w->region = r;
        seats[i].state = &control->worker[number * THREADS + i];
        w->source.state = burst_seed + (uint64_t)(number * THREADS + i + 1) * 0x632be59bd9b4e019u;
        strcpy(w->path, path);
        if (pthread_create(&threads[i], NULL, work, &seats[i]) != 0)
            violation("pthread_create");
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    fsm_charger_unbind(&common_charger);
    fsm_close(r);
    _exit(0);
}

/* ---- bursts ----------------------------------------------------------------------------- */

static random_source source_of(uint64_t burst)
{
    random_source source = { trial_seed * 0x9e3779b97f4a7c15u + burst };
    source.state = random_bits(&source);
    return source;
}

static void bury(pid_t child, bool killed)
{
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) {
        look_for_a_hang();
        usleep(100);
    }
    if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) &&
        !(killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        violation("a process ended with status %#x", status);
}

/* Until the processes have done some more operations, or all of them wait. */
static void let_them_work(uint64_t operations)
{
    uint64_t goal = operations_done() + operations;
    for (int64_t until = monotonic_ns() + 2 * PATIENCE; operations_done() < goal && monotonic_ns() < until;)
        sched_yield();
    look_for_a_hang();
}

static void run_burst(uint64_t burst)
{
    random_source source = source_of(burst);
    control->burst = burst;
    control->stop = false;
    note_burst(false);
    fsm_region *r = furnish(&source);
    aim_at(r);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), target.fd);
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        uint64_t seed = random_bits(&source);
        children[i] = fork_companion();
        if (children[i] == 0)
            run_process(path, i, seed);
    }
    let_them_work(20);
    uint64_t corruptions = 1 + random_below(&source, BURST);
    bool killed = false;
    for (uint64_t i = 0; i < corruptions; i++) {
        static const uint64_t pauses[] = { 0, 0, 1, 5, 30 };
        if (random_below(&source, 64) == 0) {
            set_length(random_below(&source, target.size));
            let_them_work(10);
            set_length(target.size);
            control->truncations++;
        } else {
            corrupt_once(&source);
        }
        control->corruptions++;
        let_them_work(pauses[random_below(&source, 5)]);
        if (!killed && random_below(&source, 100) == 0) {
            kill(children[0], SIGKILL);
            killed = true;
            control->kills++;
            for (int k = 0; k < THREADS; k++)
                __atomic_store_n(&control->worker[k].since, 0, __ATOMIC_RELAXED);
        }
    }
    let_them_work(50);
    __atomic_store_n(&control->stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < PROCESSES; i++)
        bury(children[i], killed && i == 0);
    fsm_close(r);
}

/* In one thread: corrupt, work, corrupt, work. */
static void run_sequential_burst(uint64_t burst)
{
    random_source source = source_of(burst);
    control->burst = burst;
    note_burst(true);
    seat s = { .state = &control->worker[0] };
    worker *w = &s.worker;
    w->region = furnish(&source);
    w->source.state = random_bits(&source);
    aim_at(w->region);
    snprintf(w->path, sizeof w->path, "/proc/self/fd/%d", target.fd);
    fsm_charger_init(&common_charger);
    fsm_set_patience(PATIENCE);
    settle_in(w);
#ifdef FSM_FAULT_POINTS
    if (random_below(&source, 2) == 0)
        within = &source;
#endif
    uint64_t corruptions = 1 + random_below(&source, BURST);
    for (uint64_t i = 0; i < corruptions; i++) {
        bool truncated = !within && random_below(&source, 64) == 0;
        control->corruptions++;
        control->truncations += truncated;
        if (truncated)
            set_length(random_below(&source, target.size));
        else if (!within)
            corrupt_once(&source);
        for (uint64_t k = random_below(&source, 12); k > 0; k--)
            operate_once(&s);
        if (truncated)
            set_length(target.size);
    }
    within = NULL;
    for (int i = 0; i < 50; i++)
        operate_once(&s);
    settle_out(w);
    fsm_close(w->region);
}

int main(int argc, char **argv)
{
    trial_seed = option(argc, argv, "--seed", fresh_seed());
    uint64_t wanted = option(argc, argv, "--corruptions", 1000);
    uint64_t first = option(argc, argv, "--first", 0), bursts = option(argc, argv, "--bursts", UINT64_MAX);
    bool sequential = option(argc, argv, "--sequential", 0);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    control->burst = first;
    pid_t child = sequential ? fork_companion() : -1;
    if (child == 0) {
        for (uint64_t i = first; i - first < bursts && control->corruptions < wanted; i++)
            run_sequential_burst(i);
        _exit(0);
    }
    if (sequential) {
        int status;
        while (waitpid(child, &status, WNOHANG) == 0) {
            note_burst(true);
            look_for_a_hang();
            usleep(1000);
        }
        note_burst(true);
        if (status != 0)
            violation("the process ended with status %#x", status);
    } else {
        for (uint64_t i = first; i - first < bursts && control->corruptions < wanted; i++)
            run_burst(i);
    }
    uint64_t answers[ANSWERS] = { 0 };
    for (int i = 0; i < PROCESSES * THREADS; i++)
        for (int k = 0; k < ANSWERS; k++)
            answers[k] += control->worker[i].answers[k];
    printf("%llu corruptions (%llu truncations, %llu kills), %llu operations: %llu ok, %llu EUCLEAN, %llu ETIMEDOUT, "
           "%llu other errors; seed %llu\n",
           (unsigned long long)control->corruptions, (unsigned long long)control->truncations,
           (unsigned long long)control->kills,
           (unsigned long long)(answers[OK] + answers[EUCLEANS] + answers[TIMEOUTS] + answers[OTHERS]),
           (unsigned long long)answers[OK], (unsigned long long)answers[EUCLEANS],
           (unsigned long long)answers[TIMEOUTS], (unsigned long long)answers[OTHERS], (unsigned long long)trial_seed);
    return 0;
}
