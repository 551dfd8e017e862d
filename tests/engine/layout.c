/*
 * layout.c - prints the layout of a region as the compiler sees it.
 *
 * A line for each array (its offset in the file and the size of a record), and a line for each of the FIELDS.
 *
 * usage: layout REGION; FIELDS is a list of FIELD(record, field)
 */
#include "region/layout.h"
#include <stdio.h>

int main(int argc, char **argv)
{
    fsm_region *r;
    if (argc != 2 || fsm_open(argv[1], &r) != 0)
        return 1;
#define ARRAY(type, start)                                                                                             \
    printf("%s %td %zu\n", #type, (const char *)(start) - (const char *)r->header, sizeof(*(start)))
    ARRAY(header, r->header);
    ARRAY(bucket, r->buckets);
    ARRAY(group, r->groups);
    ARRAY(counter, r->counters);
    ARRAY(attributes, r->attributes);
    ARRAY(holder, r->holders);
    ARRAY(cell, r->cells);
    ARRAY(watch, r->watches);
    ARRAY(fsm_refusal, r->refusals);
    ARRAY(waiter, r->waiters);
#define FIELD(record, field)                                                                                           \
    printf("%s.%s %zu %zu\n", #record, #field, offsetof(record, field), sizeof(((record *)0)->field));
    FIELDS
    fsm_close(r);
    return 0;
}
