/*
 * fault_orders.c - an engine that dies or stops at a fault point, as a test orders.
 *
 * The test and the processes with such an engine share the file that FSMOUNT_FAULT_ORDERS names. The process with the
 * ordered pid sends itself the signal when it passes the place, "function/done"; then the order is carried out.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "region/fault_point.h"

/* As in faults.py. */
typedef struct orders {
    int32_t pid; /* 0: carried out; ANYBODY: the first process that comes */
    int32_t signal;
    char place[120];
} orders;

enum { ANYBODY = -1 };

static orders *given;

__attribute__((constructor)) static void take_orders(void)
{
    const char *path = getenv("FSMOUNT_FAULT_ORDERS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof *given, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        given = shared;
}

static void name_place(char *name, size_t size, const fault_place *place)
{
    snprintf(name, size, "%s/%s", place->function, place->done);
}

/* Whether there is such a place in the engine. */
__attribute__((visibility("default"))) bool is_fault_point(const char *name);

bool is_fault_point(const char *name)
{
    char found[sizeof given->place];
    for (const fault_place *place = fault_points; place < fault_points_end; place++) {
        name_place(found, sizeof found, place);
        if (strcmp(name, found) == 0)
            return true;
    }
    return false;
}

void fault_point(const fault_place *place)
{
    int32_t pid = given ? __atomic_load_n(&given->pid, __ATOMIC_ACQUIRE) : 0;
    if (pid == 0 || (pid != ANYBODY && pid != getpid()))
        return;
    char name[sizeof given->place];
    name_place(name, sizeof name, place);
    if (strcmp(name, given->place) == 0 &&
        __atomic_compare_exchange_n(&given->pid, &pid, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        raise(given->signal);
}
