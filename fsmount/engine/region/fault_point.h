/*
 * fault_point.h - places between two steps of an operation, for tests.
 *
 * A process may die or be stopped at such a place, with the region half changed and the lock held. FAULT_POINT(done) is
 * named for what has just been done. It compiles to nothing unless FSM_FAULT_POINTS is defined. With it, a test
 * provides fault_point(), which each place calls, and finds all places between fault_points and fault_points_end.
 */
#ifndef FSM_FAULT_POINT_H
#define FSM_FAULT_POINT_H

#ifdef FSM_FAULT_POINTS

#include <stdint.h>

typedef struct fault_place {
    const char *file, *function, *done;
    uint64_t line;
} __attribute__((aligned(32))) fault_place; /* its own size, so that the linker makes an array */

void fault_point(const fault_place *place);

extern const fault_place fault_points[] __asm__("__start_fault_points") __attribute__((visibility("hidden")));
extern const fault_place fault_points_end[] __asm__("__stop_fault_points") __attribute__((visibility("hidden")));

#define FAULT_POINT(done)                                                                                              \
    do {                                                                                                               \
        static const fault_place here                                                                                  \
            __attribute__((section("fault_points"), used)) = { __FILE__, __func__, #done, __LINE__ };                  \
        fault_point(&here);                                                                                            \
    } while (0)

#else
#define FAULT_POINT(done) ((void)0)
#endif

#endif
