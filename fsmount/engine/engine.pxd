"""The declarations of engine.h for the binding."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdio cimport FILE

cdef extern from "engine.h":
    ctypedef bint c_bool "bool"
    ctypedef uint64_t fsm_id
    ctypedef struct fsm_region:
        pass

    const int64_t FSM_UNLIMITED
    const fsm_id FSM_ROOT
    const int FSM_NAME_MAX
    const uint32_t FSM_DEPTH_MAX, FSM_GROUPS_MAX, FSM_HOLDERS_MAX, FSM_CELLS_MAX
    const int FSM_RESOURCES_MAX
    const int FSM_RESOURCE_NAME_MAX
    const int FSM_SLOTS
    const int FSM_BATCH_AUTO
    const int FSM_PATH_MAX
    const unsigned int FSM_MODE_UNSET
    const int FSM_PROCESS, FSM_LEASE, FSM_KEEP
    const int FSM_SET_MODE, FSM_SET_UID, FSM_SET_GID, FSM_SET_MTIME, FSM_SET_ATIME

    ctypedef struct fsm_fault:
        fsm_id group
        int64_t usage, limit, held
        uint32_t which
        int32_t pid
        char text[200]
    const fsm_fault *fsm_last_fault() nogil
    void fsm_set_patience(int64_t nanoseconds) nogil

    ctypedef struct fsm_resource:
        char name[64]
        uint32_t is_count
    ctypedef struct fsm_geometry:
        uint32_t groups, holders, cells, resources
        int64_t batch
        fsm_resource resource[32]
    int fsm_create(const char *path, const fsm_geometry *geometry, uint32_t uid, uint32_t gid, fsm_region **out) nogil
    int fsm_open(const char *path, fsm_region **out) nogil
    void fsm_close(fsm_region *region) nogil
    int fsm_fd(const fsm_region *region) nogil
    const fsm_geometry *fsm_geometry_of(const fsm_region *region) nogil
    uint64_t fsm_tree_id(const fsm_region *region) nogil
    int64_t fsm_get_batch(const fsm_region *region) nogil
    int fsm_set_batch(fsm_region *region, int64_t batch) nogil

    const int FSM_POOLS
    ctypedef struct fsm_use:
        uint32_t room, used
    void fsm_get_use(fsm_region *region, fsm_use *out) nogil
    int64_t fsm_get_owners(fsm_region *region, const uint32_t *exempt, uint32_t *owners, uint32_t room) nogil

    ctypedef struct fsm_daemon:
        int32_t pid
        uint64_t start_time
        char mountpoint[4096]
    int fsm_set_daemon(fsm_region *region, const fsm_daemon *daemon) nogil
    int fsm_get_daemon(fsm_region *region, fsm_daemon *out) nogil

    int fsm_mkdir(fsm_region *region, fsm_id parent, const char *name, size_t length, uint32_t mode,
                  uint32_t uid, uint32_t gid, int64_t now, fsm_id *out) nogil
    int fsm_rmdir(fsm_region *region, fsm_id group, int64_t now) nogil
    int fsm_rename(fsm_region *region, fsm_id group, const char *name, size_t length, int64_t now) nogil
    int fsm_lookup(fsm_region *region, fsm_id parent, const char *name, size_t length, fsm_id *out) nogil
    int fsm_parent(fsm_region *region, fsm_id group, fsm_id *out) nogil
    int fsm_name(fsm_region *region, fsm_id group, char *out, size_t *length) nogil
    ctypedef struct fsm_child:
        fsm_id id
        uint32_t length
        char name[256]
    int64_t fsm_children(fsm_region *region, fsm_id group, fsm_child *out, size_t room) nogil
    int64_t fsm_child_ids(fsm_region *region, fsm_id group, fsm_id *out, size_t room) nogil
    int fsm_child_count(fsm_region *region, fsm_id group, uint32_t *out) nogil
    ctypedef struct fsm_attr:
        uint32_t mode, uid, gid
        int64_t atime, mtime, ctime
    int fsm_get_attr(fsm_region *region, fsm_id group, uint32_t slot, fsm_attr *out) nogil
    int fsm_set_attr(fsm_region *region, fsm_id group, uint32_t slot, uint32_t mask, const fsm_attr *attr,
                     int64_t now) nogil

    ctypedef struct fsm_stat:
        int64_t usage, usage_local, common, reserved, stock, holders, limit, soft_limit, hierarchical_limit, margin
        int64_t hierarchical_margin, soft_limit_excess, max_usage, min_usage, failcnt, batch, error_bound, refills
        int64_t drains
        int64_t global_mode "global"
    int fsm_get_stat(fsm_region *region, fsm_id group, uint32_t resource, fsm_stat *out) nogil
    int fsm_usage(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out) nogil
    int fsm_get_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out) nogil
    int fsm_get_soft_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out) nogil
    int fsm_get_max_usage(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out) nogil
    int fsm_get_failcnt(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out) nogil
    ctypedef struct fsm_counter_snapshot:
        fsm_id id
        uint32_t parent
        fsm_stat stat
    int64_t fsm_snapshot(fsm_region *region, uint32_t resource, fsm_counter_snapshot *rows) nogil
    ctypedef struct fsm_events:
        int64_t limit, soft_limit, threshold
    int fsm_get_events(fsm_region *region, fsm_id group, uint32_t resource, fsm_events *out) nogil
    ctypedef struct fsm_probed:
        fsm_id group
        int64_t usage, limit, margin
        c_bool fits
    int fsm_probe(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount, fsm_probed *out) nogil
    const int FSM_REFUSALS, FSM_NOT_LOOKED, FSM_LOOKED_AT_ALL
    ctypedef struct fsm_large_holder:
        fsm_id group
        int64_t held
        int32_t pid
        uint32_t kind
        char command[16]
    ctypedef struct fsm_refusal:
        uint64_t number
        fsm_id asked, refused
        int32_t pid
        uint32_t kind, charged, looked, holders
        int64_t count, first, last, amount, usage, limit, looked_at
        char command[16]
        fsm_large_holder holder[3]
    int64_t fsm_get_refusals(fsm_region *region, fsm_id group, uint32_t resource, fsm_refusal *out,
                             size_t room) nogil
    void fsm_listen(fsm_region *region, c_bool on) nogil
    int fsm_get_event_seq(fsm_region *region, fsm_id group, uint32_t resource, uint32_t *out) nogil
    c_bool fsm_await_event(fsm_region *region, int64_t nanoseconds) nogil
    const uint32_t FSM_BELOW, FSM_PERCENT
    ctypedef struct fsm_mark:
        int64_t amount
        uint32_t flags
    int fsm_watch(fsm_region *region, fsm_id group, uint32_t resource, const fsm_mark *marks, size_t count,
                  const fsm_id *old, size_t old_count, fsm_id *out) nogil
    int fsm_unwatch(fsm_region *region, const fsm_id *old, size_t count) nogil
    int fsm_watch_crossings(fsm_region *region, fsm_id watch, int64_t *out) nogil
    int fsm_set_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t limit) nogil
    int fsm_set_soft_limit(fsm_region *region, fsm_id group, uint32_t resource, int64_t limit) nogil
    int fsm_reset_max_usage(fsm_region *region, fsm_id group, uint32_t resource) nogil
    int fsm_reset_failcnt(fsm_region *region, fsm_id group, uint32_t resource) nogil
    int fsm_common_charge_for(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount,
                              int32_t thread) nogil
    int fsm_common_uncharge(fsm_region *region, fsm_id group, uint32_t resource, int64_t amount) nogil
    int fsm_force_empty(fsm_region *region, fsm_id group, uint32_t resource) nogil

    int fsm_holder_create(fsm_region *region, int32_t pid, uint64_t start_time, uint32_t kind, uint32_t flags,
                          fsm_id *out) nogil
    int fsm_holder_set_flags(fsm_region *region, fsm_id holder, uint32_t flags) nogil
    int fsm_holder_join(fsm_region *region, fsm_id holder, fsm_id group) nogil
    int fsm_holder_join_one(fsm_region *region, fsm_id holder, fsm_id group, uint32_t resource) nogil
    int fsm_holder_leave(fsm_region *region, fsm_id holder, fsm_id group, uint32_t flags) nogil
    int fsm_holder_end(fsm_region *region, fsm_id holder) nogil
    int fsm_reap_dead(fsm_region *region, uint32_t *out) nogil
    uint32_t fsm_await_arrival(fsm_region *region, uint32_t seen, int64_t nanoseconds) nogil
    ctypedef struct fsm_holder_info:
        fsm_id id
        uint32_t kind, flags, here
        int32_t pid
        uint64_t start_time
        uint32_t cells
        fsm_id group
        int64_t held, stock
    enum:
        FSM_PAGE
    const uint32_t FSM_LAST_PAGE
    int64_t fsm_page_of_holders(fsm_region *region, fsm_id group, uint32_t resource, uint32_t *place,
                                fsm_holder_info *out) nogil
    void fsm_count_holders(fsm_region *region, uint32_t *processes, uint32_t *leases) nogil
    int64_t fsm_all_holders(fsm_region *region, fsm_holder_info *out, size_t room) nogil
    int64_t fsm_new_holders(fsm_region *region, uint32_t seen, fsm_holder_info *out, size_t room) nogil
    int fsm_holder_get(fsm_region *region, fsm_id holder, fsm_holder_info *out) nogil
    bint fsm_process_alive(int32_t pid, uint64_t start_time) nogil
    uint64_t fsm_process_start_time(int32_t pid) nogil
    int fsm_tie(int fd, void **out)
    void fsm_untie(void *tie)

    ctypedef struct fsm_charger:
        fsm_id holder
    void fsm_charger_init(fsm_charger *charger) nogil
    int fsm_charger_bind(fsm_charger *charger, fsm_region *region, fsm_id holder, fsm_id group,
                         uint32_t resource) nogil
    void fsm_charger_unbind(fsm_charger *charger) nogil
    bint fsm_charger_bound(const fsm_charger *charger) nogil
    bint fsm_charge_fast(fsm_charger *charger, int64_t amount) nogil
    bint fsm_uncharge_fast(fsm_charger *charger, int64_t amount) nogil
    int fsm_charge_slow(fsm_charger *charger, int64_t amount) nogil
    int fsm_uncharge_slow(fsm_charger *charger, int64_t amount) nogil
    int fsm_charge_nofail(fsm_charger *charger, int64_t amount, c_bool *exceeded) nogil
    int fsm_change(fsm_charger **chargers, const int64_t *amounts, size_t n) nogil
    int fsm_move(fsm_charger **chargers, const int64_t *amounts, size_t n) nogil
    int fsm_give(fsm_charger *charger, int64_t amount) nogil
    int fsm_take(fsm_charger *charger, int64_t amount) nogil
    int fsm_held(fsm_charger *charger, int64_t *out) nogil

    int fsm_request(fsm_charger *const *chargers, const int64_t *amounts, size_t n, fsm_id *request) nogil
    int fsm_await_request(fsm_region *region, fsm_id request, int64_t nanoseconds) nogil
    int fsm_end_request(fsm_region *region, fsm_id request) nogil
    uint32_t fsm_await_answers(fsm_region *region, fsm_id holder, uint32_t seen, int64_t nanoseconds) nogil
    void fsm_wake_answers(fsm_region *region, fsm_id holder) nogil

    int64_t fsm_check(fsm_region *region, FILE *report) nogil
    int fsm_repair(fsm_region *region) nogil
