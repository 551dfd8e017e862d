/*
 * collide.c - prints properties of the name table of a region.
 *
 * usage: collide hash PARENT NAME   the hash with a key of zeros
 *        collide longest REGION     the number of groups in the fullest bucket
 *        collide names REGION N     N names for groups in the root that all fall into one bucket
 */
#include "region/layout.h"
#include "region/name_hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void print_longest(const fsm_region *r)
{
    uint32_t longest = 0;
    for (uint32_t b = 0; b < bucket_count(&r->geometry); b++) {
        uint32_t here = 0;
        for (uint32_t i = r->buckets[b]; i != NONE; i = r->groups[i].hash_next)
            here++;
        longest = here > longest ? here : longest;
    }
    printf("%" PRIu32 "\n", longest);
}

static void print_names(const fsm_region *r, uint32_t wanted)
{
    const uint64_t *key = r->header->name_key;
    uint64_t mask = bucket_count(&r->geometry) - 1;
    char name[24];
    for (uint64_t number = 0; wanted > 0; number++) {
        int length = snprintf(name, sizeof name, "%" PRIu64, number);
        if ((name_hash(key[0], key[1], 0, name, (size_t)length) & mask) == 1) {
            puts(name);
            wanted--;
        }
    }
}

int main(int argc, char **argv)
{
    fsm_region *r;
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "hash") == 0)
        printf("%" PRIu64 "\n", name_hash(0, 0, strtoull(argv[2], NULL, 10), argv[3], strlen(argv[3])));
    else if (fsm_open(argv[2], &r) != 0)
        return 1;
    else if (strcmp(argv[1], "longest") == 0)
        print_longest(r);
    else
        print_names(r, (uint32_t)strtoul(argv[3], NULL, 10));
    return 0;
}
