/*
 * models.c - the program: lists the models, checks one, or times it.  scripts/benchmarks/engine.py runs it.
 *
 * usage: models list
 *        models check MODEL SEED MILLISECONDS [threads]
 *        models pairs MODEL DEPTH PROCESSES MILLISECONDS [HEADROOM]
 *        models limit MODEL DEPTH PROCESSES MILLISECONDS
 *        models neighbour MODEL DEPTH PROCESSES MILLISECONDS AHEAD same|apart
 *
 * The output is lines of a name and a number.  The exit status is 1 if a model breaks a promise.
 */
#include "checker.h"
#include "clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const model *const models[] = { &fsmount, &res_counter, &rfc, &page_counter, &limited_add, &stock };
enum { MODELS = sizeof models / sizeof *models };

static int misused(void)
{
    fprintf(stderr, "models: wrong arguments; see the usage in models.c\n");
    return 2;
}

static int list(void)
{
    for (int i = 0; i < MODELS; i++)
        printf("%s\t%s\t%s\n", models[i]->name, models[i]->source, models[i]->accepts);
    return 0;
}

static void print_errors(const char *when, const errors *e)
{
    const struct {
        const char *name;
        int64_t value;
    } lines[] = { { "charges", e->charges },     { "refusals", e->refusals },
                  { "overshoot", e->overshoot }, { "false_refusals", e->false_refusals },
                  { "usage", e->usage },         { "early", e->early },
                  { "late", e->late },           { "left", e->left } };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        printf("%s.%s %" PRId64 "\n", when, lines[i].name, lines[i].value);
}

static int checker(const model *m, uint64_t seed, int64_t milliseconds, bool threads)
{
    errors in_turn = check_in_turn(m, seed);
    errors overlapping = check_overlapping(m, seed, milliseconds, threads);
    print_errors("in_turn", &in_turn);
    print_errors("overlapping", &overlapping);
    int broken =
        broken_promises("in turn", m->in_turn, &in_turn) + broken_promises("overlapping", m->always, &overlapping);
    return broken > 0;
}

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "list") == 0)
        return list();
    const model *m = NULL;
    for (int i = 0; i < MODELS && count > 2; i++)
        if (strcmp(words[2], models[i]->name) == 0)
            m = models[i];
    if (!m)
        return misused();
    if (strcmp(words[1], "check") == 0 && (count == 5 || count == 6))
        return checker(m, strtoull(words[3], NULL, 10), atoll(words[4]), count == 6);
    int depth = count > 5 ? atoi(words[3]) : 0, processes = count > 5 ? atoi(words[4]) : 0;
    if (depth < 1 || depth > 16 || processes < 1 || processes > 16)
        return misused();
    int64_t milliseconds = atoll(words[5]);
    int ahead = count > 6 ? atoi(words[6]) : 0;
    cost c;
    if (strcmp(words[1], "pairs") == 0)
        c = time_pairs(m, depth, processes, count > 6 ? atoll(words[6]) : UNLIMITED, milliseconds);
    else if (strcmp(words[1], "limit") == 0)
        c = time_limit(m, depth, processes, milliseconds);
    else if (strcmp(words[1], "neighbour") == 0 && count == 8 && ahead >= 1 && ahead <= AHEAD_MAX)
        c = time_neighbour(m, depth, processes, ahead, strcmp(words[7], "apart") == 0, milliseconds);
    else
        return misused();
    printf("each %f\nall %f\nrefused %f\n", c.each, c.all, c.refused);
    return 0;
}
