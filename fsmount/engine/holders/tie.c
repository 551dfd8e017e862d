/*
 * tie.c - an open file that lasts as long as this address space.
 *
 * A descriptor is a poor sign of life. A forked child inherits it, and a program that closes unknown descriptors closes
 * it. A mapping of the file that a child does not inherit (MADV_DONTFORK) keeps the file open instead. The kernel
 * releases it together with the address space, at any death and at exec(), and never before. The page is never
 * accessed.
 */
#include "engine.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

int fsm_tie(int fd, void **out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *tie = mmap(NULL, page, PROT_NONE, MAP_PRIVATE, fd, 0);
    if (tie == MAP_FAILED)
        return -errno;
    if (madvise(tie, page, MADV_DONTFORK)) {
        int error = errno;
        munmap(tie, page);
        return -error;
    }
    *out = tie;
    return 0;
}

void fsm_untie(void *tie)
{
    munmap(tie, (size_t)sysconf(_SC_PAGESIZE));
}
