/* process.h - processes: whether one lives, and in which pid namespace it is. */
#ifndef FSM_PROCESS_H
#define FSM_PROCESS_H

#include "region/layout.h"

extern uint32_t current_namespace;
static inline uint32_t pid_namespace(void) /* of the calling process */
{
    return current_namespace;
}
int32_t current_pid(void);
/* The process of a thread; the number of the thread itself if /proc does not say. */
int32_t process_of(uint32_t thread);
/* The command as ps shows it; empty if the process is gone. */
void read_command(int32_t pid, char out[FSM_COMMAND_MAX + 1]);
/* Tells others in which pid namespace this process has the region open. -errno. */
int announce_namespace(fsm_region *r);
/* Whether a thread may be inside the region. False only if it is dead or has not mapped the region. */
bool may_be_inside(const fsm_region *r, uint32_t thread);
/* Whether a daemon serves the region. A daemon of another pid namespace counts as alive. */
bool daemon_alive(const header *h);

#endif
