#include "crew.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("models: shared memory");
    return memory;
}

void *made(const model *m, const tree *t)
{
    void *memory = shared(m->size);
    m->init(memory, t);
    return memory;
}

seat *joined(const model *m, void *memory, int process)
{
    seat *s = m->join(memory, process);
    if (!s) {
        fprintf(stderr, "models: %s: there is no room for process %d\n", m->name, process);
        exit(1);
    }
    return s;
}

int grow(tree *t, int parent, int64_t limit)
{
    if (t->nodes == NODES_MAX) {
        fprintf(stderr, "models: a tree has at most %d nodes\n", NODES_MAX);
        exit(1);
    }
    t->parent[t->nodes] = parent;
    t->limit[t->nodes] = limit;
    return t->nodes++;
}

int grow_chain(tree *t, int parent, int levels)
{
    while (levels-- > 0)
        parent = grow(t, parent, UNLIMITED);
    return parent;
}

void seat_below(tree *t, int parent)
{
    t->leaf[t->processes++] = grow(t, parent, UNLIMITED);
}

int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- playing together ------------------------------------------------------- */

typedef struct signals {
    _Alignas(CACHE_LINE) int ready;
    _Alignas(CACHE_LINE) bool begin;
    _Alignas(CACHE_LINE) bool stop;
} signals;

typedef struct player {
    const crew *crew;
    signals *signals;
    int number;
} player;

static void pin(int number, bool alone)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    int cpus = CPU_COUNT(&allowed);
    int skip = alone && cpus > 1 && number > 0 ? 1 + (number - 1) % (cpus - 1) : number % cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && skip-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static void *live(void *argument)
{
    const player *p = argument;
    if (p->crew->pinned)
        pin(p->number, p->crew->alone);
    seat *own = p->crew->sit(p->crew->scene, p->number);
    __atomic_add_fetch(&p->signals->ready, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&p->signals->begin, __ATOMIC_ACQUIRE))
        sched_yield();
    p->crew->play(p->crew->scene, p->number, own, &p->signals->stop);
    return NULL;
}

void play(const crew *c, int64_t milliseconds)
{
    signals *s = shared(sizeof *s);
    player players[PROCESSES_MAX];
    pthread_t threads[PROCESSES_MAX];
    pid_t processes[PROCESSES_MAX];
    for (int i = 0; i < c->size; i++) {
        players[i] = (player){ .crew = c, .signals = s, .number = i };
        if (c->threads) {
            if (pthread_create(&threads[i], NULL, live, &players[i]) != 0)
                fail("models: a thread");
            continue;
        }
        processes[i] = fork();
        if (processes[i] < 0)
            fail("models: a process");
        if (processes[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            live(&players[i]);
            exit(0);
        }
    }
    while (__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE) < c->size)
        sched_yield();
    __atomic_store_n(&s->begin, true, __ATOMIC_RELEASE);
    int64_t end = now_ns() + milliseconds * 1000000;
    if (c->watch) {
        while (now_ns() < end)
            c->watch(c->scene);
    } else {
        struct timespec t = { .tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000 };
        nanosleep(&t, NULL);
    }
    __atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < c->size; i++) {
        int status = 0;
        if (c->threads)
            pthread_join(threads[i], NULL);
        else if (waitpid(processes[i], &status, 0) < 0 || status != 0) {
            fprintf(stderr, "models: player %d ended with status %d\n", i, status);
            exit(1);
        }
    }
}
