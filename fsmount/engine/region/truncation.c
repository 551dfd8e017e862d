/*
 * truncation.c - a process survives when the file of a region that it has mapped is truncated.
 *
 * A page beyond the end of its file cannot be read: every process that touches it, the daemon included, gets SIGBUS.
 * The handler here maps zeros over the whole region instead. That removes the magic, so the next process that takes the
 * lock finds no region, and no cell has stock. A SIGBUS at any other address goes to the handler that was there before.
 */
#include "region/truncation.h"
#include "region/once.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

/*
 * The regions that this process has mapped. An entry is never freed, since a signal handler may be reading it. A start
 * of 0 is a free entry.
 */
typedef struct mapping {
    uintptr_t start;
    size_t size;
    struct mapping *next;
} mapping;

static pthread_mutex_t mappings_lock = PTHREAD_MUTEX_INITIALIZER;
static mapping *mappings;
static bool watching;
static struct sigaction before;

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    int error = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    for (mapping *p = __atomic_load_n(&mappings, __ATOMIC_ACQUIRE); p; p = p->next) {
        uintptr_t start = __atomic_load_n(&p->start, __ATOMIC_ACQUIRE);
        size_t size = READ_ONCE(p->size);
        if (start == 0 || address - start >= size)
            continue;
        void *zeros = mmap((void *)start, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        if (zeros != MAP_FAILED) {
            errno = error;
            return;
        }
    }
    errno = error;
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else
        sigaction(number, &before, NULL); /* the instruction runs again, and then ends the process */
}

static void lock_mappings(void)
{
    pthread_mutex_lock(&mappings_lock);
}

static void unlock_mappings(void)
{
    pthread_mutex_unlock(&mappings_lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(lock_mappings, unlock_mappings, unlock_mappings);
}

int survive_truncation(void *start, size_t size)
{
    lock_mappings();
    mapping *p = mappings;
    while (p && p->start != 0)
        p = p->next;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (p) {
            p->next = mappings;
            __atomic_store_n(&mappings, p, __ATOMIC_RELEASE);
        }
    }
    if (p) {
        WRITE_ONCE(p->size, size);
        __atomic_store_n(&p->start, (uintptr_t)start, __ATOMIC_RELEASE);
        if (!watching) {
            struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK };
            sigemptyset(&action.sa_mask);
            watching = sigaction(SIGBUS, &action, &before) == 0;
        }
    }
    unlock_mappings();
    return p ? 0 : -ENOMEM;
}

void forget_mapping(void *start)
{
    lock_mappings();
    for (mapping *p = mappings; p; p = p->next)
        if (p->start == (uintptr_t)start)
            __atomic_store_n(&p->start, 0, __ATOMIC_RELEASE);
    unlock_mappings();
}
