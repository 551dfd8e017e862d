/* region.c - making, opening and describing a region. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

_Thread_local fsm_fault fsm_fault_here;

const fsm_fault *fsm_last_fault(void)
{
    return &fsm_fault_here;
}

int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t coarse_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int say(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int say(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fsm_fault_here.text, sizeof fsm_fault_here.text, format, arguments);
    va_end(arguments);
    return code;
}

int corrupt(fsm_region *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fsm_fault_here.text, sizeof fsm_fault_here.text, format, arguments);
    va_end(arguments);
    r->header->broken = 1;
    return -EUCLEAN;
}

int gone(fsm_region *r)
{
    return is_region(r->header) ? -ENODEV : corrupt(r, CUT_SHORT);
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int populate(fsm_region *r, const void *start, size_t length)
{
    struct stat status;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)start & ~(page - 1);
    uintptr_t to = ((uintptr_t)start + length + page - 1) & ~(page - 1);
    while (madvise((void *)from, to - from, MADV_POPULATE_WRITE) != 0) {
        if (errno == EINTR || errno == EAGAIN)
            continue;
        if (errno == EINVAL) /* a kernel before 5.14: the pages come when they are touched */
            return 0;
        if (fstat(r->fd, &status) == 0 && (size_t)status.st_size < r->size)
            return corrupt(r, "the region's file was cut to %lld bytes", (long long)status.st_size);
        return -ENOSPC;
    }
    return 0;
}

int populate_next(fsm_region *r, const void *start, size_t length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)start + page - 1) & ~(page - 1), end = (uintptr_t)start + length;
    return from < end ? populate(r, (const void *)from, end - from) : 0;
}

/* ---- geometry --------------------------------------------------------------- */

static size_t page_up(size_t n)
{
    return (n + 4095) & ~(size_t)4095;
}

size_t place(fsm_region *r, char *base)
{
    const fsm_geometry *g = &r->geometry;
    size_t counters = (size_t)g->groups * g->resources;
    size_t at = page_up(sizeof(header));
#define PLACE(field, type, count)                                                                                      \
    r->field = (type *)(void *)(base + at);                                                                            \
    at += page_up((size_t)(count) * sizeof(type))
    PLACE(refusals, fsm_refusal, FSM_REFUSALS);
    PLACE(buckets, uint32_t, bucket_count(g));
    PLACE(groups, group, g->groups);
    PLACE(counters, counter, counters);
    PLACE(attributes, attributes, counters * FSM_SLOTS);
    PLACE(holders, holder, (size_t)g->holders + g->cells);
    PLACE(watches, watch, g->cells);
    PLACE(waiters, waiter, g->cells);
    PLACE(cells, cell, g->cells);
#undef PLACE
    know_pools(r, base);
    return at;
}

#define SEPARATORS "/.:=,"

static bool good_name(const char *name, size_t room)
{
    size_t length = strnlen(name, room);
    if (length == 0 || length == room || *name == '-')
        return false;
    for (const char *c = name; *c; c++)
        if (strchr(SEPARATORS, *c) || (unsigned char)*c <= ' ' || *c == 0x7f)
            return false;
    return true;
}

static int check_geometry(const fsm_geometry *g)
{
    if (g->groups == 0 || g->holders == 0 || g->cells == 0)
        return say(-EINVAL, "a capacity of 0 (groups %u, holders %u, cells %u)", g->groups, g->holders, g->cells);
    if (g->groups > FSM_GROUPS_MAX || g->holders > FSM_HOLDERS_MAX || g->cells > FSM_CELLS_MAX)
        return say(-EINVAL,
                   "a capacity is too large (groups %u: at most %u, holders %u: at most %u, cells %u: at most %u)",
                   g->groups, FSM_GROUPS_MAX, g->holders, FSM_HOLDERS_MAX, g->cells, FSM_CELLS_MAX);
    if (g->resources == 0 || g->resources > FSM_RESOURCES_MAX)
        return say(-EINVAL, "%u resources: 1 to %u are possible", g->resources, FSM_RESOURCES_MAX);
    if (g->batch < FSM_BATCH_AUTO)
        return say(-EINVAL, "a batch of %lld", (long long)g->batch);
    for (uint32_t i = 0; i < g->resources; i++) {
        if (!good_name(g->resource[i].name, sizeof g->resource[i].name))
            return say(-EINVAL, "a resource's name is 1 to %d bytes without white space and %s, and not - first",
                       FSM_RESOURCE_NAME_MAX, SEPARATORS);
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(g->resource[i].name, g->resource[j].name) == 0)
                return say(-EINVAL, "resource %s is named twice", g->resource[i].name);
    }
    return 0;
}

/* ---- create, open, close ------------------------------------------------------ */

static int map(fsm_region *r, size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    r->size = size;
    r->header = base;
    place(r, base);
    int error = announce_namespace(r);
    return error ? error : survive_truncation(base, size);
}

static int initialize(fsm_region *r, uint32_t uid, uint32_t gid)
{
    FAULT_POINT(file_mapped);
    size_t fixed = (size_t)((char *)r->groups - (char *)r->header);
    int error = populate(r, r->header, fixed);
    if (!error)
        error = populate(r, r->groups, sizeof(group));
    if (!error)
        error = populate(r, r->counters, sizeof(counter) * r->geometry.resources);
    if (error)
        return error;
    FAULT_POINT(populated);
    header *h = r->header;
    h->version = FSM_VERSION;
    h->architecture = FSM_ARCHITECTURE;
    h->size = r->size;
    if (getrandom(&h->tree_id, sizeof h->tree_id, 0) != (ssize_t)sizeof h->tree_id ||
        getrandom(h->name_key, sizeof h->name_key, 0) != (ssize_t)sizeof h->name_key)
        return -errno;
    h->geometry = r->geometry;
    h->round = 1; /* no counter was full in it */
    FAULT_POINT(geometry_written);
    for (enum pools which = 0; which < POOLS; which++)
        *r->pools[which].pool = (pool){ .free = NONE, .last_free = NONE };
    h->line_head = h->line_tail = NONE;
    for (uint32_t *b = r->buckets; b < r->buckets + bucket_count(&r->geometry); b++)
        *b = NONE;
    FAULT_POINT(buckets_emptied);

    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    group *root = r->groups;
    root->parent = NONE;
    root->birth = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    root->directory = (attributes){
        .mode = 0755, .uid = uid, .gid = gid, .ctime = root->birth, .atime = root->birth, .mtime = root->birth
    };
    root->maker_uid = uid;
    root->maker_gid = gid;
    root->first_child = root->last_child = root->next_sibling = root->prev_sibling = root->hash_next = NONE;
    FAULT_POINT(root_described);
    for (uint32_t i = 0; i < r->geometry.resources; i++)
        reset_counter(r, &r->counters[i]);
    FAULT_POINT(counters_reset);
    h->groups.high = 1;
    root->stamp = make_stamp(0, LIVE);
    FAULT_POINT(root_made);
    /* last: a region without its magic was not finished and is none */
    uint64_t magic;
    memcpy(&magic, FSM_MAGIC, sizeof magic);
    __atomic_store_n(&h->magic, magic, __ATOMIC_RELEASE);
    FAULT_POINT(magic_written);
    return 0;
}

int fsm_create(const char *path, const fsm_geometry *geometry, uint32_t uid, uint32_t gid, fsm_region **out)
{
    int error = check_geometry(geometry);
    if (error)
        return error;
    fsm_region *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->geometry = *geometry;
    r->announced_fd = -1;
    size_t size = place(r, NULL);
    r->fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)
                 : memfd_create("fsmount", MFD_CLOEXEC);
    if (r->fd < 0) {
        error = -errno;
        free(r);
        return error;
    }
    FAULT_POINT(file_made);
    error = fchmod(r->fd, 0600) || ftruncate(r->fd, (off_t)size) ? -errno : map(r, size);
    if (!error)
        error = initialize(r, uid, gid);
    if (error) {
        if (path)
            unlink(path);
        fsm_close(r);
        return error;
    }
    *out = r;
    return 0;
}

/* Everything the mapping relies on, read once into r->geometry. */
static int examine(fsm_region *r, const header *h, size_t size)
{
    if (!is_region(h))
        return say(-EPROTO, "no region of fsmount");
    if (h->version != FSM_VERSION)
        return say(-EPROTO, "layout version %u, this is for version %u", h->version, FSM_VERSION);
    if (h->architecture != FSM_ARCHITECTURE)
        return say(-EPROTO, "made on another architecture (%#x, this is %#x)", h->architecture, FSM_ARCHITECTURE);
    r->geometry = h->geometry;
    if (check_geometry(&r->geometry) != 0)
        return -EPROTO;
    size_t expected = place(r, NULL);
    if (h->size != expected || size != expected)
        return say(-EPROTO, "%zu bytes long, its geometry makes %zu", size, expected);
    return 0;
}

int fsm_open(const char *path, fsm_region **out)
{
    fsm_region *r = calloc(1, sizeof *r);
    header *h = malloc(sizeof *h);
    if (!r || !h) {
        free(r);
        free(h);
        return -ENOMEM;
    }
    int error = 0;
    struct stat status = { 0 };
    r->announced_fd = -1;
    r->fd = open(path, O_RDWR | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &status) != 0)
        error = -errno;
    else if (!S_ISREG(status.st_mode))
        error = say(-EPROTO, "no regular file");
    else if (status.st_uid != geteuid() && geteuid() != 0)
        error = say(-EPERM, "owned by user %u", (unsigned)status.st_uid);
    else if (pread(r->fd, h, sizeof *h, 0) != (ssize_t)sizeof *h)
        error = say(-EPROTO, "too short to be a region of fsmount");
    if (!error)
        error = examine(r, h, (size_t)status.st_size);
    if (!error)
        error = map(r, (size_t)status.st_size);
    free(h);
    if (error) {
        fsm_close(r);
        return error;
    }
    *out = r;
    return 0;
}

void fsm_close(fsm_region *r)
{
    if (r->header) {
        forget_mapping(r->header);
        munmap(r->header, r->size);
    }
    if (r->announced_fd >= 0)
        close(r->announced_fd);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}

int fsm_fd(const fsm_region *r)
{
    return r->fd;
}

const fsm_geometry *fsm_geometry_of(const fsm_region *r)
{
    return &r->geometry;
}

uint64_t fsm_tree_id(const fsm_region *r)
{
    return r->header->tree_id;
}

int64_t fsm_get_batch(const fsm_region *r)
{
    return __atomic_load_n(&r->header->geometry.batch, __ATOMIC_RELAXED);
}

int fsm_set_batch(fsm_region *r, int64_t batch)
{
    if (batch < FSM_BATCH_AUTO)
        return say(-EINVAL, "a batch of %lld", (long long)batch);
    int error = lock(r);
    if (error)
        return error;
    ancestry root;
    __atomic_store_n(&r->header->geometry.batch, batch, __ATOMIC_RELAXED);
    FAULT_POINT(batch_set);
    /* what was reserved under the old rule is given back */
    for (uint32_t i = 0; i < r->geometry.resources && !error; i++) {
        error = path_of(r, i, &root);
        if (!error)
            error = drain(r, root.at[0]);
    }
    if (!error && r->header->waiting > 0)
        error = serve_line(r); /* where stock was off altogether, full counters are not in global mode yet */
    unlock(r);
    return error;
}

/* ---- the server ----------------------------------------------------------------- */

int fsm_set_server(fsm_region *r, const fsm_server *server)
{
    int error = lock(r);
    if (error)
        return error;
    r->header->server.pid = 0;
    FAULT_POINT(nobody_serves);
    fsm_listen(r, false); /* who served before may have died listening, and watching */
    error = end_watches(r);
    memcpy(r->header->server.mountpoint, server->mountpoint, sizeof server->mountpoint);
    r->header->server.mountpoint[FSM_PATH_MAX] = 0;
    r->header->server.start_time = server->start_time;
    r->header->server_namespace = pid_namespace();
    FAULT_POINT(server_described);
    __atomic_store_n(&r->header->server.pid, server->pid, __ATOMIC_RELEASE);
    FAULT_POINT(server_set);
    unlock(r);
    return error;
}

int fsm_get_server(fsm_region *r, fsm_server *out)
{
    int error = lock(r);
    if (error)
        return error;
    *out = r->header->server;
    out->mountpoint[FSM_PATH_MAX] = 0;
    unlock(r);
    return 0;
}
