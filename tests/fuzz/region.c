/*
 * region.c - fuzzes fsm_open() with any file, and then every operation on the region.
 *
 * The first byte of an input chooses how it becomes a file. Even: the rest is the file, with the length that its header
 * says. Odd: the rest are changes to a sound, furnished region: two bytes for the offset (in words of 8), one for the
 * length, and then the bytes. The operations that follow depend on the input alone.
 *
 * With clang's -fsanitize=fuzzer it is a libFuzzer target. Otherwise, built with STANDALONE: region RUNS SEED FILE...
 * runs each file and then mutations of it; region --seed-corpus DIRECTORY writes the first inputs.
 */
#include "mappings.h"
#include "operations.h"

#include <fcntl.h>
#include <sys/mman.h>

#define FILE_MAX ((size_t)1 << 20)
#define ROUNDS 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static uint8_t *sound;
static size_t sound_size;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    random_source source = { 1 };
    fsm_region *r = furnish(&source);
    sound_size = r->size;
    sound = malloc(sound_size);
    memcpy(sound, r->header, sound_size);
    fsm_close(r);
    return 0;
}

static void put(int fd, const void *bytes, size_t size, size_t at)
{
    if (size > 0 && pwrite(fd, bytes, size, (off_t)at) != (ssize_t)size)
        violation("pwrite: %s", strerror(errno));
}

/* Makes the file from an input. */
static int file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0)
        violation("memfd_create: %s", strerror(errno));
    if (size > 0 && data[0] % 2 == 0) {
        header h = { 0 };
        memcpy(&h, data + 1, size - 1 < sizeof h ? size - 1 : sizeof h);
        put(fd, data + 1, size - 1, 0);
        if (size > sizeof h / 2 && ftruncate(fd, (off_t)(h.size < FILE_MAX ? h.size : FILE_MAX)) != 0)
            violation("ftruncate: %s", strerror(errno));
        return fd;
    }
    put(fd, sound, sound_size, 0);
    for (size_t at = 1; at + 3 <= size;) {
        size_t where = 8 * (data[at] | (size_t)data[at + 1] << 8) % sound_size, length = data[at + 2];
        at += 3;
        if (length > size - at)
            length = size - at;
        if (length > sound_size - where)
            length = sound_size - where;
        put(fd, data + at, length, where);
        at += length;
    }
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = file_of(data, size);
    worker w = { .source.state = size };
    for (size_t i = 0; i < size; i++)
        w.source.state = w.source.state * 31 + data[i];
    snprintf(w.path, sizeof w.path, "/proc/self/fd/%d", fd);
    fsm_set_patience(0);
    if (fsm_open(w.path, &w.region) == 0) {
        fsm_charger_init(&common_charger);
        settle_in(&w);
        for (int i = 0; i < ROUNDS; i++) {
            int operation = (int)random_below(&w.source, OPERATIONS);
            check_answer(operation, operate(&w, operation));
        }
        settle_out(&w);
        fsm_close(w.region);
    } else if (!fsm_last_fault()->text[0]) {
        violation("a file is refused without a text");
    }
    close(fd);
    return 0;
}

#ifdef STANDALONE

static size_t read_file(const char *path, uint8_t *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, out, room);
    if (size < 0)
        violation("%s: %s", path, strerror(errno));
    close(fd);
    return (size_t)size;
}

static size_t alter(random_source *source, uint8_t *data, size_t size, size_t room)
{
    for (uint64_t i = 1 + random_below(source, 4); i > 0; i--) {
        uint64_t value = telling_value(source);
        size_t length = (size_t)1 << random_below(source, 4), at = random_below(source, size + 1);
        if (random_below(source, 3) == 0 && size + 3 + length <= room) { /* one more change to the region */
            at = size;
            uint64_t where = random_below(source, sound_size / 8);
            data[at++] = (uint8_t)where;
            data[at++] = (uint8_t)(where >> 8);
            data[at++] = (uint8_t)length;
            size += 3 + length;
        }
        if (at + length <= size)
            memcpy(data + at, &value, length);
    }
    return size;
}

static void write_input(const char *directory, const char *name, uint8_t kind, const uint8_t *bytes, size_t size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(&kind, 1, 1, file) != 1 || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        violation("%s: %s", path, strerror(errno));
}

int main(int argc, char **argv)
{
    static uint8_t data[FILE_MAX], changed[FILE_MAX];
    LLVMFuzzerInitialize(NULL, NULL);
    if (argc == 3 && strcmp(argv[1], "--seed-corpus") == 0) {
        write_input(argv[2], "a whole file", 0, sound, sound_size);
        write_input(argv[2], "a header alone", 0, sound, sizeof(header));
        write_input(argv[2], "nothing changed", 1, sound, 0);
        return 0;
    }
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    trial_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    random_source source = { trial_seed };
    for (int i = 3; i < argc; i++)
        LLVMFuzzerTestOneInput(data, read_file(argv[i], data, sizeof data));
    for (uint64_t i = 0; i < runs && argc > 3; i++) {
        size_t size = read_file(argv[3 + random_below(&source, (uint64_t)argc - 3)], changed, sizeof changed);
        size = alter(&source, changed, size, sizeof changed);
        LLVMFuzzerTestOneInput(changed, size);
    }
    printf("%d inputs, %llu changed ones\n", argc > 3 ? argc - 3 : 0, (unsigned long long)runs);
    return 0;
}

#endif
