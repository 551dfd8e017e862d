/* report.h - the lines of the report, and the names of records in them. */
#ifndef FSM_REPORT_H
#define FSM_REPORT_H

#include "check/checker.h"

/* One finding is one line of the report. */
void report_finding(checker *ck, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The name of a record, for one line of the report. */
typedef struct label {
    char text[1300];
} label;

label name_it(const char *format, ...) __attribute__((format(printf, 1, 2)));
label name_group(const fsm_region *r, uint32_t index);
label name_counter(const fsm_region *r, uint32_t index);
label name_bucket(const fsm_region *r, uint32_t index);
label name_holder(const fsm_region *r, uint32_t index);
label name_process(const fsm_region *r, uint32_t index);
label name_lease(const fsm_region *r, uint32_t index); /* by its number among the leases */
label name_cell(const fsm_region *r, uint32_t index);
label name_watch(const fsm_region *r, uint32_t index);
label name_waiter(const fsm_region *r, uint32_t index);

#endif
