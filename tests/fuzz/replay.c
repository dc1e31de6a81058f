/*
 * Replays a fuzz target over its corpus, without a fuzzer: what was once found stays mended.
 *
 * Model    each argument is a file or a directory of files; every one is given to
 *          LLVMFuzzerTestOneInput in a heap block of exactly its size, so that AddressSanitizer
 *          sees a read past its end. The empty input is always tried.
 * Not here the target itself, which is linked in.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned replayed;

static int
replay_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1);
    int rc = -1;

    if (f != NULL && data != NULL && fread(data, 1, size, f) == size) {
        LLVMFuzzerTestOneInput(data, size);
        replayed++;
        rc = 0;
    } else {
        perror(path);
    }
    free(data);
    if (f != NULL)
        fclose(f);
    return rc;
}

static int
replay(const char *path)
{
    char name[4096];
    struct dirent *entry;
    struct stat st;
    DIR *dir;
    int rc = 0;

    if (stat(path, &st) == -1) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay_file(path, (size_t)st.st_size);
    dir = opendir(path);
    if (dir == NULL) {
        perror(path);
        return -1;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        rc |= replay(name);
    }
    closedir(dir);
    return rc;
}

int
main(int argc, char **argv)
{
    uint8_t *none = calloc(1, 1);
    int rc = 0;

    LLVMFuzzerTestOneInput(none, 0);
    free(none);
    for (int i = 1; i < argc; i++)
        rc |= replay(argv[i]);
    printf("%u inputs replayed\n", replayed);
    return rc == 0 ? 0 : 1;
}
