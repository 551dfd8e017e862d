/*
 * crash.c - a process is killed after each single store of each operation.
 *
 * The parent lets a victim run one operation instruction by instruction, and notes which instructions change the
 * region. Then it repeats the play once for each of these instructions, and kills the victim there.
 */
#include <inttypes.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "plays.h"

static void be_traced(void)
{
    if (ptrace(PTRACE_TRACEME, 0, 0, 0)) {
        fprintf(stderr, "ptrace: %s\n", strerror(errno));
        _exit(77);
    }
}

/* Runs one instruction; false: the victim is at its end. */
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

/* Another process dies in the middle of a play, with the lock: the next process to take it has to recover. */
static void crash_before(scene *s, const play *p, uint64_t steps)
{
    pid_t pid = start_victim(s, play_named(p->recovering), be_traced);
    for (uint64_t i = 0; i < steps; i++)
        if (!step(pid))
            break;
    kill_victim(pid);
}

enum { POINTS_MAX = 20000 };

typedef struct course {
    uint64_t steps; /* total */
    int count;
    uint64_t change[POINTS_MAX]; /* the steps after which the region had changed */
} course;

static course run_of[1];
static view before, after;
static uint64_t crash_at; /* the instruction after which the process before dies, in the middle */

/* Runs the victim to its end, and notes after which steps the region had changed. */
static void rehearse(const play *p)
{
    scene s;
    set_the_scene(&s, p);
    s.victim = start_victim(&s, p, be_traced);
    if (p->recovering)
        crash_before(&s, p, crash_at);
    else
        see(&s, p, &before); /* after a crash, seeing would be the recovery */
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
    see(&s, p, &after);
    kill_victim(s.victim);
    checker(&s, p, &before, &after);
    strike_the_scene(&s);
}

static void perform(const play *p, uint64_t steps)
{
    scene s;
    set_the_scene(&s, p);
    s.victim = start_victim(&s, p, be_traced);
    if (p->recovering)
        crash_before(&s, p, crash_at);
    for (uint64_t i = 0; i < steps; i++)
        if (!step(s.victim))
            break;
    kill_victim(s.victim);
    checker(&s, p, &before, &after);
    strike_the_scene(&s);
}

int main(int argc, char **argv)
{
    trial_seed = option(argc, argv, "--seed", fresh_seed());
    uint64_t points = option(argc, argv, "--points", 3); /* of each play; 0: all */
    uint64_t part = option(argc, argv, "--part", 1);     /* one of so many plays is played */
    uint64_t only = option(argc, argv, "--play", UINT64_MAX);
    static const int64_t batches[] = { FSM_BATCH_AUTO, 0 };
    static char again[200];
    trial_again = again;
    random_source random = { trial_seed };
    uint64_t kills = 0;
    for (size_t i = 0; i < plays_count; i++)
        for (size_t b = 0; b < 2; b++) {
            uint64_t seed = random_bits(&random);
            if ((only != UINT64_MAX && only != i) || plays[i].behind)
                continue;
            if (points && only == UINT64_MAX && (seed & 1) != b) /* the short run: with stock, or without */
                continue;
            if (only == UINT64_MAX && (seed >> 1) % part != 0)
                continue;
            random_source own = { seed };
            the_batch = batches[b];
            snprintf(again, sizeof again, " --points %" PRIu64 " --play %zu; %s, batch %" PRId64, points, i,
                     plays[i].name, the_batch);
            if (plays[i].recovering) {
                rehearse(play_named(plays[i].recovering));
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
