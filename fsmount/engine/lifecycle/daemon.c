/* daemon.c - the daemon that serves the region as a mount. */
#include "observe/events.h"
#include "region/fault_point.h"
#include "region/lock.h"
#include "region/process.h"

#include <string.h>

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
