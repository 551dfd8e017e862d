/* truncation.h - the process survives the truncation of a region's file. */
#ifndef FSM_TRUNCATION_H
#define FSM_TRUNCATION_H

#include <stddef.h>

/* From here to forget_mapping(), pages beyond the end of the file read as zeros. -ENOMEM. */
int survive_truncation(void *start, size_t size);
void forget_mapping(void *start);

#endif
