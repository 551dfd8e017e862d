/* daemon.c - the daemon that serves the region as a mount. */
#include "observe/events.h"
#include "region/fault_point.h"
#include "region/lock.h"
#include "region/process.h"

#include <string.h>

int fsm_set_daemon(fsm_region *r, const fsm_daemon *daemon)
{
    int error = lock(r);
    if (error)
        return error;
    r->header->daemon.pid = 0;
    FAULT_POINT(no_daemon);
    fsm_listen(r, false); /* the previous daemon may have died with a listener armed and watches set */
    error = end_watches(r);
    memcpy(r->header->daemon.mountpoint, daemon->mountpoint, sizeof daemon->mountpoint);
    r->header->daemon.mountpoint[FSM_PATH_MAX] = 0;
    r->header->daemon.start_time = daemon->start_time;
    r->header->daemon_namespace = pid_namespace();
    FAULT_POINT(daemon_described);
    __atomic_store_n(&r->header->daemon.pid, daemon->pid, __ATOMIC_RELEASE);
    FAULT_POINT(daemon_set);
    unlock(r);
    return error;
}

int fsm_get_daemon(fsm_region *r, fsm_daemon *out)
{
    int error = lock(r);
    if (error)
        return error;
    *out = r->header->daemon;
    out->mountpoint[FSM_PATH_MAX] = 0;
    unlock(r);
    return 0;
}
