/*
 * process.c - whether a process lives, by pid and start time: the kernel reuses pids.
 *
 * If it cannot be known, the process counts as alive: nothing is ever taken from a process that may still exist. This
 * is so for pids of another pid namespace, and where /proc hides the processes of other users.
 */
#include "region/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int32_t pid_here;
uint32_t current_namespace;

static void update_process(void)
{
    WRITE_ONCE(pid_here, (int32_t)getpid());
    struct stat status;
    current_namespace = stat("/proc/self/ns/pid", &status) == 0 ? (uint32_t)status.st_ino : 0;
}

__attribute__((constructor)) static void init_process(void)
{
    update_process();
    pthread_atfork(NULL, NULL, update_process);
}

int32_t current_pid(void)
{
    return READ_ONCE(pid_here);
}

/*
 * Field 22 of /proc/PID/stat, or -errno. 0: the process has ended, or has released its memory on its way out and cannot
 * charge any more.
 */
static int64_t read_start_time(int32_t pid)
{
    char text[1024];
    snprintf(text, sizeof text, "/proc/%d/stat", pid);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, text, sizeof text - 1);
    int error = errno;
    close(fd);
    if (length <= 0)
        return length < 0 ? -error : -EIO;
    text[length] = 0;
    /* the command is in parentheses and may hold anything: fields count from the last parenthesis */
    char *field = strrchr(text, ')');
    if (!field || field[1] != ' ')
        return -EIO;
    field += 2;
    bool ended = *field == 'Z' || *field == 'X';
    long threads = 0;
    int64_t start_time = 0;
    for (int i = 3; i < 23; i++) {
        if (i == 20)
            threads = strtol(field, NULL, 10);
        else if (i == 22)
            start_time = strtoll(field, NULL, 10);
        field = strchr(field, ' ');
        if (!field)
            return -EIO;
        field++;
    }
    bool has_memory = *field != '0';
    /* state and memory are those of the first thread, which may end before the others */
    return (ended || !has_memory) && threads <= 1 ? 0 : start_time;
}

uint64_t fsm_process_start_time(int32_t pid)
{
    int64_t found = read_start_time(pid);
    return found > 0 ? (uint64_t)found : 0;
}

bool fsm_process_alive(int32_t pid, uint64_t start_time)
{
    if (pid <= 0)
        return false;
    int64_t found = read_start_time(pid);
    if (found >= 0)
        return found > 0 && (uint64_t)found == start_time;
    return kill(pid, 0) == 0 || errno != ESRCH;
}

int32_t process_of(uint32_t thread)
{
    char text[2048];
    snprintf(text, sizeof text, "/proc/%u/status", thread);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return (int32_t)thread;
    text[length] = 0;
    const char *field = strstr(text, "\nTgid:");
    return field ? (int32_t)strtol(field + 6, NULL, 10) : (int32_t)thread;
}

void read_command(int32_t pid, char out[FSM_COMMAND_MAX + 1])
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, out, FSM_COMMAND_MAX + 1);
    if (fd >= 0)
        close(fd);
    out[length > 0 ? length - 1 : 0] = 0; /* over the newline */
}

/* Device and inode of a mapped file as in /proc/PID/maps; those of stat() may differ. */
typedef struct mapped {
    uintptr_t start;
    unsigned major, minor;
    unsigned long long inode;
} mapped;

static bool next_mapped(FILE *maps, mapped *m)
{
    return fscanf(maps, "%" SCNxPTR "-%*x %*s %*x %x:%x %llu%*[^\n]", &m->start, &m->major, &m->minor, &m->inode) == 4;
}

static bool find_mapping(const fsm_region *r, mapped *out)
{
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && !found && next_mapped(maps, out))
        found = out->start == (uintptr_t)r->header;
    if (maps)
        fclose(maps);
    return found && out->inode != 0;
}

/* ---- pid namespaces that have the region open ----------------------------------------------- */

/*
 * The word of the lock names a thread by a number that is valid in one pid namespace only. The region cannot say
 * whether processes of another namespace have it open, since any word in it may be overwritten. The kernel can: each
 * process holds a read lock on one byte of the region's file, far beyond its end. The position of the byte is the
 * number of the pid namespace. The file lock ends with the descriptor, so with any death.
 */
#define NAMESPACES (INT64_C(1) << 60)
#define NAMESPACES_END (NAMESPACES + (INT64_C(1) << 32))

static struct flock bytes_of_file(short type, int64_t from, int64_t end)
{
    return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = end - from };
}

int announce_namespace(fsm_region *r)
{
    int64_t here = NAMESPACES + pid_namespace();
    int fd = r->fd;
    if (r->pid_namespace !=
        0) { /* forked into another namespace: a file lock by this descriptor would be the parent's */
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", r->fd);
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    struct flock mine = bytes_of_file(F_RDLCK, here, here + 1);
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &mine) != 0) {
        int error = -errno;
        if (fd >= 0 && fd != r->fd)
            close(fd);
        return error;
    }
    if (fd != r->fd) {
        if (r->announced_fd >= 0)
            close(r->announced_fd);
        r->announced_fd = fd;
    }
    r->pid_namespace = pid_namespace();
    return 0;
}

/* Whether other processes have announced themselves in a part of the file. If it cannot be known: yes. */
static bool is_announced(const fsm_region *r, int64_t from, int64_t end)
{
    struct flock found = bytes_of_file(F_WRLCK, from, end);
    return from < end &&
           (fcntl(r->announced_fd >= 0 ? r->announced_fd : r->fd, F_OFD_GETLK, &found) != 0 || found.l_type != F_UNLCK);
}

static bool is_open_elsewhere(const fsm_region *r)
{
    int64_t here = NAMESPACES + pid_namespace();
    return is_announced(r, NAMESPACES, here) || is_announced(r, here + 1, NAMESPACES_END);
}

#define THREAD_MAX (1u << 22) /* the kernel's highest thread number, in any namespace */

bool may_be_inside(const fsm_region *r, uint32_t thread)
{
    mapped here, there;
    if (thread > THREAD_MAX)
        return false;
    if (is_open_elsewhere(r) || !find_mapping(r, &here))
        return true;
    char path[32];
    snprintf(path, sizeof path, "/proc/%u/maps", thread);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return errno != ENOENT && errno != ESRCH;
    bool inside = false;
    while (!inside && next_mapped(maps, &there))
        inside = there.inode == here.inode && there.major == here.major && there.minor == here.minor;
    inside |= ferror(maps) != 0; /* /proc hides it from this user */
    fclose(maps);
    return inside;
}

/* ---- the daemon --------------------------------------------------------------------- */

bool daemon_alive(const header *h)
{
    if (h->daemon.pid == 0)
        return false;
    return h->daemon_namespace != pid_namespace() || fsm_process_alive(h->daemon.pid, h->daemon.start_time);
}
