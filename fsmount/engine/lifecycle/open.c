/* open.c - making, opening and closing a region. */
#include "counters/counter.h"
#include "lifecycle/recover.h"
#include "region/clock.h"
#include "region/fault.h"
#include "region/fault_point.h"
#include "region/pool.h"
#include "region/process.h"
#include "region/region.h"
#include "region/truncation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- geometry ----------------------------------------------------------------------- */

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
        return fail_with(-EINVAL, "a capacity is 0 (groups %u, holders %u, cells %u)", g->groups, g->holders, g->cells);
    if (g->groups > FSM_GROUPS_MAX || g->holders > FSM_HOLDERS_MAX || g->cells > FSM_CELLS_MAX)
        return fail_with(
            -EINVAL, "a capacity is too large (groups %u: at most %u, holders %u: at most %u, cells %u: at most %u)",
            g->groups, FSM_GROUPS_MAX, g->holders, FSM_HOLDERS_MAX, g->cells, FSM_CELLS_MAX);
    if (g->resources == 0 || g->resources > FSM_RESOURCES_MAX)
        return fail_with(-EINVAL, "%u resources: 1 to %u are possible", g->resources, FSM_RESOURCES_MAX);
    if (g->batch < FSM_BATCH_AUTO)
        return fail_with(-EINVAL, "a batch of %lld: it is -1 (automatic) or at least 0", (long long)g->batch);
    for (uint32_t i = 0; i < g->resources; i++) {
        if (!good_name(g->resource[i].name, sizeof g->resource[i].name))
            return fail_with(-EINVAL,
                             "a resource name has 1 to %d bytes, no white space, none of %s, and does not begin with -",
                             FSM_RESOURCE_NAME_MAX, SEPARATORS);
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(g->resource[i].name, g->resource[j].name) == 0)
                return fail_with(-EINVAL, "resource %s is named twice", g->resource[i].name);
    }
    return 0;
}

/* ---- create, open, close ------------------------------------------------------------ */

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
    h->round = 1; /* no counter was full in round 1 */
    FAULT_POINT(geometry_written);
    for (enum pools which = 0; which < POOLS; which++)
        *r->pools[which].pool = (pool){ .free = NONE, .last_free = NONE };
    h->queue_head = h->queue_tail = NONE;
    for (uint32_t *b = r->buckets; b < r->buckets + bucket_count(&r->geometry); b++)
        *b = NONE;
    FAULT_POINT(buckets_emptied);

    group *root = r->groups;
    root->parent = NONE;
    root->birth = wall_clock_ns();
    root->directory = (attributes){
        .mode = 0755, .uid = uid, .gid = gid, .ctime = root->birth, .atime = root->birth, .mtime = root->birth
    };
    root->creator_uid = uid;
    root->creator_gid = gid;
    root->first_child = root->last_child = root->next_sibling = root->prev_sibling = root->hash_next = NONE;
    FAULT_POINT(root_described);
    for (uint32_t i = 0; i < r->geometry.resources; i++)
        reset_counter(&r->counters[i]);
    FAULT_POINT(counters_reset);
    h->groups.high = 1;
    root->stamp = make_stamp(0, LIVE);
    FAULT_POINT(root_made);
    /* last: without its magic the file is no region */
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
    r->recover = recover;
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

/* Checks the geometry, on which the mapping relies. Reads it once, into r->geometry. */
static int examine(fsm_region *r, const header *h, size_t size)
{
    if (!is_region(h))
        return fail_with(-EPROTO, "not a region of fsmount");
    if (h->version != FSM_VERSION)
        return fail_with(-EPROTO, "layout version %u, this program needs version %u", h->version, FSM_VERSION);
    if (h->architecture != FSM_ARCHITECTURE)
        return fail_with(-EPROTO, "made on another architecture (%#x, this is %#x)", h->architecture, FSM_ARCHITECTURE);
    r->geometry = h->geometry;
    if (check_geometry(&r->geometry) != 0)
        return -EPROTO;
    size_t expected = place(r, NULL);
    if (h->size != expected || size != expected)
        return fail_with(-EPROTO, "%zu bytes long, its geometry needs %zu", size, expected);
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
    r->recover = recover;
    r->fd = open(path, O_RDWR | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &status) != 0)
        error = -errno;
    else if (!S_ISREG(status.st_mode))
        error = fail_with(-EPROTO, "not a regular file");
    else if (status.st_uid != geteuid() && geteuid() != 0)
        error = fail_with(-EPERM, "owned by user %u", (unsigned)status.st_uid);
    else if (pread(r->fd, h, sizeof *h, 0) != (ssize_t)sizeof *h)
        error = fail_with(-EPROTO, "too short to be a region of fsmount");
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
