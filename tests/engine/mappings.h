/*
 * mappings.h - inaccessible memory before and after each file that is mapped.
 *
 * For a program that is linked with --wrap=mmap,--wrap=munmap.
 */
#ifndef FSM_MAPPINGS_H
#define FSM_MAPPINGS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#define CLEAR ((size_t)64 << 30) /* bytes on either side */

void *__real_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t length);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t length);

static pthread_mutex_t mappings_lock = PTHREAD_MUTEX_INITIALIZER;
static void *mappings[64];

/* Replaces one entry by another; false if there is no such entry. */
static bool note_mapping(void *from, void *to)
{
    bool found = false;
    pthread_mutex_lock(&mappings_lock);
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings && !found; i++)
        if (mappings[i] == from) {
            mappings[i] = to;
            found = true;
        }
    pthread_mutex_unlock(&mappings_lock);
    return found;
}

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (address || fd < 0)
        return __real_mmap(address, length, protection, flags, fd, offset);
    char *clear = __real_mmap(NULL, length + 2 * CLEAR, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (clear == MAP_FAILED || !note_mapping(NULL, clear + CLEAR))
        return MAP_FAILED;
    return __real_mmap(clear + CLEAR, length, protection, flags | MAP_FIXED, fd, offset);
}

int __wrap_munmap(void *address, size_t length)
{
    if (note_mapping(address, NULL))
        return __real_munmap((char *)address - CLEAR, length + 2 * CLEAR);
    return __real_munmap(address, length);
}

#endif
