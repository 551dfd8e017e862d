/* trial.h - shared by the engine's C test programs: random numbers from a seed, violations, children, options. */
#ifndef FSM_TRIAL_H
#define FSM_TRIAL_H

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

/* weak: one for all files of a program */
__attribute__((weak)) uint64_t trial_seed;
__attribute__((weak)) const char *trial_again = ""; /* the options that repeat this run */

/* Prints the violation and how to repeat the run, and exits with status 1. */
__attribute__((format(printf, 1, 2))) static inline _Noreturn void violation(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "violation: %s\n  (process %d; again with: --seed %llu%s)\n", text, (int)getpid(),
            (unsigned long long)trial_seed, trial_again);
    fflush(stderr);
#ifdef TRIAL_ABORTS /* libFuzzer keeps the input of an abort */
    abort();
#endif
    _exit(1);
}

/* For a call that has to succeed. result: 0 or a negative errno of the engine. */
static inline void expect(int64_t result, const char *what)
{
    if (result < 0)
        violation("%s: %s %s", what, strerror((int)-result), fsm_last_fault()->text);
}

/* splitmix64: the state of a stream is one word. */
typedef struct random_source {
    uint64_t state;
} random_source;

static inline uint64_t random_bits(random_source *source)
{
    uint64_t z = source->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* From 0 to bound - 1. */
static inline uint64_t random_below(random_source *source, uint64_t bound)
{
    return random_bits(source) % bound;
}

/* Each power of two below the bound is equally likely. */
static inline int64_t random_magnitude(random_source *source, unsigned bits)
{
    return (int64_t)(random_bits(source) >> (64 - 1 - random_below(source, bits)));
}

static inline int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The value of "--name VALUE", which must be a number, or the fallback. */
static inline uint64_t option(int argc, char **argv, const char *name, uint64_t fallback)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) {
            char *end;
            uint64_t value = strtoull(argv[i + 1], &end, 10);
            if (*end || end == argv[i + 1]) {
                fprintf(stderr, "%s: %s is not a number\n", name, argv[i + 1]);
                exit(2);
            }
            return value;
        }
    return fallback;
}

/* fork() of a child that is killed when the caller ends, in whatever way. */
static inline pid_t fork_companion(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        violation("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) /* the parent has ended already */
            _exit(1);
    }
    return pid;
}

static inline uint64_t fresh_seed(void)
{
    random_source source = { (uint64_t)monotonic_ns() ^ (uint64_t)getpid() << 32 };
    return random_bits(&source) >> 32;
}

#endif
