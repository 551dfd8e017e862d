/*
 * checker.c - overwrites a region with nonsense, checks it and repairs it.
 *
 * For any content of the file, fsm_check() must return, and report each finding in one printable line.
 *
 * usage: checker REGION --rounds N [--seed N]; overwrites the file of the region
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "trial.h"

static unsigned char *good, *bad;
static size_t length;
static size_t used_count;
static size_t *used; /* offsets of the blocks of 64 bytes that are not empty */

static void load(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0)
        violation("%s cannot be read", path);
    length = (size_t)status.st_size;
    good = malloc(length);
    bad = malloc(length);
    used = malloc((length / 64 + 1) * sizeof *used);
    if (!good || !bad || !used || read(fd, good, length) != (ssize_t)length)
        violation("%s cannot be read", path);
    close(fd);
    for (size_t at = 0; at + 64 <= length; at += 64)
        for (size_t i = 0; i < 64; i++)
            if (good[at + i]) {
                used[used_count++] = at;
                break;
            }
}

static void scribble(const char *path, random_source *source)
{
    static const uint32_t values[] = { 0, 1, 2, 5, 0x7fffffff, 0x80000000, UINT32_MAX };
    memcpy(bad, good, length);
    for (uint64_t n = 1 + random_below(source, 5) * random_below(source, 5); n > 0; n--) {
        size_t at = used[random_below(source, used_count)] + 4 * random_below(source, 16);
        uint32_t value = random_below(source, 2) ? values[random_below(source, sizeof values / sizeof *values)]
                                                 : (uint32_t)random_below(source, 64);
        memcpy(bad + at, &value, sizeof value);
    }
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, bad, length) != (ssize_t)length)
        violation("%s cannot be written", path);
    close(fd);
}

static void checker(fsm_region *region)
{
    char *text;
    size_t size;
    FILE *report = open_memstream(&text, &size);
    int64_t found = fsm_check(region, report), lines = 0;
    fclose(report);
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\n')
            lines++;
        else if ((unsigned char)text[i] < ' ')
            violation("the report has a character %d", text[i]);
    free(text);
    if (found == -ETIMEDOUT)
        return;
    expect(found, "check");
    if (found != lines)
        violation("%lld findings in %lld lines", (long long)found, (long long)lines);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    uint64_t rounds = option(argc, argv, "--rounds", 1000);
    trial_seed = option(argc, argv, "--seed", fresh_seed());
    random_source source = { trial_seed };
    load(argv[1]);
    fsm_set_patience(1000000);
    for (uint64_t i = 0; i < rounds; i++) {
        fsm_region *region;
        scribble(argv[1], &source);
        alarm(20);
        if (fsm_open(argv[1], &region) != 0)
            continue;
        checker(region);
        fsm_repair(region);
        checker(region);
        fsm_close(region);
    }
    printf("checker: seed %llu, %llu rounds: ok\n", (unsigned long long)trial_seed, (unsigned long long)rounds);
    return 0;
}
