/*
 * process.c - whether a process lives: by pid and start time, since a pid alone is used again.
 *
 * What cannot be told counts as alive: nothing is ever taken from a process that
 * may still be there.  So it is for pids of another pid namespace, and where
 * /proc hides other users' processes.
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
 * Field 22 of /proc/PID/stat, -errno if it cannot be read; 0 of a process that has ended, or is about to and has let go
 * of its memory already: it cannot charge any more.
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
    /* the command is in parentheses and may hold anything: fields count from the last one */
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
    /* these are of the first thread, which may end before the others */
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
    out[length > 0 ? length - 1 : 0] = 0; /* in the place of a newline */
}

/* The device and inode of a mapped file as /proc/PID/maps has them; stat() may say something else. */
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

/* ---- who has the region open, and where ----------------------------------------------------- */

/*
 * The lock's word names a thread by a number that means something in one pid namespace only.  No word in the region can
 * say whether processes of another namespace have it open, since it may be written over.  The kernel can: each process
 * holds a read lock on one byte of the region's file, far behind its end, whose place is the number of the process's
 * namespace.  The lock ends with the descriptor, so with any death.
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
    if (r->pid_namespace != 0) { /* forked into another one: a lock by this descriptor would be its parent's */
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

/* Whether others have it open in a part of the file; what cannot be told counts as so. */
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

#define THREAD_MAX (1u << 22) /* the kernel numbers no more, in whatever namespace */

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
    inside |= ferror(maps) != 0; /* it is not ours to look into */
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
