/*
 * faults.c - a process dies, or is stopped, at each fault point of each operation.
 *
 * A rehearsal of a play finds the fault points that the victim passes, in order. Then the play is repeated for each of
 * these passings in three ways: the victim is killed there; or stopped and continued; or stopped and killed. While it
 * is stopped, other processes must get an error that names it, change nothing, and go on after it continues or dies. A
 * fault point that no play passes is a violation.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "plays.h"
#include "region/fault_point.h"
#include "region/layout.h"

enum { PASSINGS_MAX = 4000, PLACES_MAX = 1000 };
enum { IMPATIENCE = 200000, PATIENCE = 60 }; /* ns, and s */

/* The order for the victim, and its progress; shared with it. */
static struct orders {
    pid_t who;
    int signal; /* sent by the victim to itself at passing `at`; 0: none */
    uint32_t at;
    uint32_t passings; /* so far */
    uint32_t place[PASSINGS_MAX];
    bool reached[PLACES_MAX];
} *orders;

static uint32_t places(void)
{
    return (uint32_t)(fault_points_end - fault_points);
}

void fault_point(const fault_place *place)
{
    if (orders->who != getpid())
        return;
    if (orders->passings == PASSINGS_MAX)
        violation("more than %d passings", PASSINGS_MAX);
    uint32_t number = (uint32_t)(place - fault_points);
    if (orders->passings && orders->place[orders->passings - 1] == number && strcmp(place->done, "waiting") == 0)
        return; /* it has woken up and sleeps again, which depends on the clock */
    orders->place[orders->passings] = number;
    orders->reached[number] = true;
    if (orders->passings++ == orders->at && orders->signal)
        kill(getpid(), orders->signal);
}

static const char *name_of(uint32_t place)
{
    static char name[200];
    const fault_place *p = &fault_points[place];
    const char *file = strrchr(p->file, '/');
    snprintf(name, sizeof name, "%s:%" PRIu64 " %s/%s", file ? file + 1 : p->file, p->line, p->function, p->done);
    return name;
}

/* ---- the victim's course ------------------------------------------------------------ */

/* Lets a victim that is ready begin; it carries out the order, or comes to its end. */
static void begin(pid_t pid, int signal_number, uint32_t at)
{
    orders->who = pid;
    orders->signal = signal_number;
    orders->at = at;
    orders->passings = 0;
    kill(pid, SIGCONT);
}

/* Until it is stopped or dead, by the order or at its end. */
static void await(pid_t pid, int signal_number)
{
    int status;
    if (waitpid(pid, &status, WUNTRACED) != pid)
        violation("waitpid: %s", strerror(errno));
    if (signal_number == SIGKILL ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                                 : WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP)
        return;
    violation("the victim came to status %x", (unsigned)status);
}

/*
 * Makes a scene with a victim that is ready. If it has to recover first, another process died at that passing of its
 * own play. If it has to wait, another process is stopped there, and returned.
 */
static pid_t prepare(scene *s, const play *p, uint32_t at)
{
    set_the_scene(s, p);
    s->victim = start_victim(s, p, NULL);
    if (!p->recovering && !p->behind)
        return 0;
    pid_t another = start_victim(s, play_named(p->behind ? p->behind : p->recovering), NULL);
    begin(another, p->behind ? SIGSTOP : SIGKILL, at);
    await(another, p->behind ? SIGSTOP : SIGKILL);
    return p->behind ? another : 0;
}

/* The process that the victim waits for comes to its end. */
static void release(pid_t *another)
{
    kill(*another, SIGCONT);
    await(*another, SIGSTOP);
    kill_victim(*another);
    *another = 0;
}

/* Whether the victim waits for the other process; otherwise it is, or will be, at its place. */
static bool waits(pid_t pid)
{
    for (;;) {
        siginfo_t info = { .si_pid = 0 };
        uint32_t passings = __atomic_load_n(&orders->passings, __ATOMIC_ACQUIRE);
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT) || info.si_pid == pid)
            return false;
        if (passings && strcmp(fault_points[orders->place[passings - 1]].done, "waiting") == 0 &&
            (!orders->signal || passings <= orders->at))
            return true;
        sched_yield();
    }
}

/* ---- the others, while it stands still ------------------------------------------------ */

enum { REFUSED = 1 };

static int ask_usage(scene *s)
{
    int64_t usage;
    return fsm_usage(s->region, FSM_ROOT, MEMORY, &usage);
}
/* A refusal in global mode is counted without the lock. It is checked here, and then subtracted. */
static int try_charge(scene *s)
{
    int result = fsm_charge_slow(&s->survives[MEMORY], 1);
    const fsm_fault *fault = fsm_last_fault();
    if (result != -ENOMEM)
        return result;
    if (fault->usage + 1 <= fault->limit)
        violation("a charge of 1 is refused at a usage of %" PRId64 " and a limit of %" PRId64, fault->usage,
                  fault->limit);
    s->region->counters[id_index(fault->group) * RESOURCES + MEMORY].refusals--;
    return REFUSED;
}
static int try_uncharge(scene *s)
{
    return fsm_uncharge_slow(&s->survives[MEMORY], 1);
}
static int try_nofail(scene *s)
{
    bool exceeded;
    return fsm_charge_nofail(&s->survives[MEMORY], LIMIT, &exceeded);
}
static int try_give(scene *s)
{
    return fsm_give(&s->survives[MEMORY], 1);
}
static int try_limit(scene *s)
{
    return fsm_set_limit(s->region, s->a, MEMORY, 1);
}
static int try_mkdir(scene *s)
{
    fsm_id id;
    return fsm_mkdir(s->region, s->a, "another", 7, 0755, 0, 0, 8, &id);
}
static int try_rmdir(scene *s)
{
    return fsm_rmdir(s->region, s->empty, 8);
}
static int try_holder(scene *s)
{
    fsm_id id;
    return fsm_holder_create(s->region, getpid(), fsm_process_start_time(getpid()), FSM_PROCESS, 0, &id);
}
static int try_leave(scene *s)
{
    return fsm_holder_leave(s->region, s->idle, s->b, 0);
}
static int try_reap(scene *s)
{
    uint32_t count;
    return fsm_reap_dead(s->region, &count);
}
static int try_repair(scene *s)
{
    return fsm_repair(s->region);
}

static int (*const others[])(scene *s) = { try_charge, try_uncharge, try_nofail, try_give, try_limit, try_mkdir,
                                           try_rmdir,  try_holder,   try_leave,  try_reap, try_repair };
enum { OTHERS = sizeof others / sizeof *others };

/* At these fault points the victim does not have the lock. */
static bool outside_the_lock(const play *p, uint32_t place)
{
    static const char *const names[] = { "waiting", "given_up", "woken" };
    bool found = p->is_private || strcmp(fault_points[place].function, "change_record") == 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && strstr(fault_points[place].file, "lock.c"); i++)
        found |= strcmp(fault_points[place].done, names[i]) == 0;
    return found;
}

static void expect_refusal(scene *s, int result, const char *what)
{
    if (result == REFUSED)
        return;
    if (result != -ETIMEDOUT)
        violation("%s returns %d while a stopped process has the lock", what, result);
    if (fsm_last_fault()->pid != s->victim)
        violation("%s: the error names process %d, but %d has the lock", what, fsm_last_fault()->pid, s->victim);
}

/* While the victim has the lock, others get an error that names it, and change nothing. */
static void try_others(scene *s, const play *p, uint32_t place, uint32_t first, uint32_t count)
{
    size_t records = s->size - sizeof(header);
    fsm_set_patience(IMPATIENCE);
    int result = ask_usage(s);
    if (result == 0 && !outside_the_lock(p, place))
        violation("the victim changes the region and does not have the lock");
    if (result != 0 && !outside_the_lock(p, place)) {
        expect_refusal(s, result, "usage");
        unsigned char *copy = malloc(records);
        memcpy(copy, s->bytes + sizeof(header), records);
        for (uint32_t i = first; i < first + count; i++)
            expect_refusal(s, others[i % OTHERS](s), "an operation");
        if (memcmp(copy, s->bytes + sizeof(header), records) != 0)
            violation("something was changed without the lock");
        free(copy);
    }
    fsm_set_patience(PATIENCE * INT64_C(1000000000));
}

static void *wait_patiently(void *s)
{
    fsm_set_patience(PATIENCE * INT64_C(1000000000));
    expect(ask_usage(s), "usage");
    return NULL;
}

/* ---- the three ways ------------------------------------------------------------------- */

enum way { DIE, STOP, STOP_AND_DIE, WAYS };
static const char *const way_names[WAYS] = { "dies", "is stopped", "is stopped and dies" };
static view before, after;
static uint32_t course[PASSINGS_MAX]; /* the places that the victim passes, from the rehearsal */

static void perform(const play *p, enum way way, uint32_t died_at, uint32_t at, uint32_t tries)
{
    scene s;
    pid_t another = prepare(&s, p, died_at);
    begin(s.victim, way == DIE ? SIGKILL : SIGSTOP, at);
    if (another && waits(s.victim))
        release(&another);
    await(s.victim, way == DIE ? SIGKILL : SIGSTOP);
    if (way != DIE) {
        pthread_t patient;
        if (orders->passings != at + 1 || orders->place[at] != course[at])
            violation("the victim took a different course: passing %u is of %s", orders->passings - 1,
                      name_of(orders->place[orders->passings - 1]));
        if (!another)
            try_others(&s, p, course[at], at, tries);
        pthread_create(&patient, NULL, wait_patiently, &s);
        if (another)
            release(&another);
        if (way == STOP) {
            kill(s.victim, SIGCONT);
            await(s.victim, SIGSTOP);
        }
        kill_victim(s.victim);
        pthread_join(patient, NULL);
    }
    if (another)
        release(&another);
    checker(&s, p, way == STOP ? &after : &before, &after);
    strike_the_scene(&s);
}

/* Runs the victim to its end and sets the course. Returns the number of passings. */
static uint32_t rehearse(const play *p, uint32_t died_at)
{
    scene s;
    pid_t another = prepare(&s, p, died_at);
    if (!p->recovering && !another) /* otherwise this would be the recovery, or would wait itself */
        see(&s, p, &before);
    begin(s.victim, 0, 0);
    if (another && waits(s.victim))
        release(&another);
    await(s.victim, SIGSTOP);
    uint32_t passings = orders->passings;
    memcpy(course, orders->place, sizeof course);
    if (another)
        release(&another);
    see(&s, p, &after);
    kill_victim(s.victim);
    checker(&s, p, &after, &after);
    strike_the_scene(&s);
    return passings;
}

static char again[300];

/* Plays the passings from `first` on, `apart` apart. */
static uint64_t walk(const play *p, uint32_t died_at, uint32_t first, uint32_t apart, uint64_t only, uint32_t tries)
{
    uint64_t played = 0;
    size_t length = strlen(again);
    uint32_t passings = rehearse(p, died_at);
    for (uint32_t at = first; at < passings; at += apart)
        for (enum way way = DIE; way < WAYS; way++) {
            if (only != UINT64_MAX && only != at)
                continue;
            snprintf(again + length, sizeof again - length, " --passing %u; it %s at %s", at, way_names[way],
                     name_of(course[at]));
            perform(p, way, died_at, at, tries);
            played++;
        }
    again[length] = 0;
    return played;
}

int main(int argc, char **argv)
{
    trial_seed = option(argc, argv, "--seed", fresh_seed());
    uint64_t part = option(argc, argv, "--part", 1); /* one of this many passings is played */
    bool all = option(argc, argv, "--all", 0); /* every death before a recovery, and every attempt of the others */
    uint64_t only_play = option(argc, argv, "--play", UINT64_MAX);
    uint64_t only_batch = option(argc, argv, "--batch", UINT64_MAX);
    uint64_t only_passing = option(argc, argv, "--passing", UINT64_MAX);
    uint64_t only_death = option(argc, argv, "--death", UINT64_MAX);
    bool verbose = option(argc, argv, "--verbose", 0);
    static const int64_t batches[] = { FSM_BATCH_AUTO, 0 };
    random_source random = { trial_seed };
    uint64_t played = 0;
    trial_again = again;
    if (places() > PLACES_MAX)
        violation("more than %d fault points", PLACES_MAX);
    orders = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fsm_set_patience(PATIENCE * INT64_C(1000000000));
    for (uint32_t i = 0; i < plays_count; i++)
        for (uint32_t b = 0; b < 2; b++) {
            const play *p = &plays[i];
            uint32_t first = (uint32_t)random_below(&random, part), death = (uint32_t)random_bits(&random);
            if ((only_play != UINT64_MAX && only_play != i) || (only_batch != UINT64_MAX && only_batch != b))
                continue;
            the_batch = batches[b];
            snprintf(again, sizeof again, " --part %" PRIu64 " --all %d --play %u --batch %u", part, all, i, b);
            const char *other = p->behind ? p->behind : p->recovering;
            /* where the process before dies or is stopped: at every place, or at a random one */
            uint32_t deaths = other ? rehearse(play_named(other), 0) : 1, length = (uint32_t)strlen(again);
            uint64_t now = 0;
            for (uint32_t d = 0; d < deaths; d++) {
                if (only_death != UINT64_MAX && only_death != d)
                    continue;
                if (other)
                    snprintf(again + length, sizeof again - length, " --death %u", d);
                if (all || !other || d == death % deaths || only_death == d)
                    now += walk(p, d, first, (uint32_t)part, only_passing, all ? OTHERS : 1);
                else
                    rehearse(p, d);
            }
            if (verbose)
                printf("%u %s, batch %" PRId64 ": %" PRIu64 " played\n", i, p->name, the_batch, now);
            played += now;
        }
    uint32_t reached = 0;
    for (uint32_t i = 0; i < places(); i++) {
        reached += orders->reached[i];
        if (only_play == UINT64_MAX && !orders->reached[i])
            violation("no play passes %s", name_of(i));
    }
    printf("faults: seed %" PRIu64 ", %u fault points, %u of them reached, %" PRIu64 " plays: ok\n", trial_seed,
           places(), reached, played);
    return 0;
}
